//! What Redis can do at most: one `RPUSH` after the other, without a queue around it.
//!
//! The users of a thread share a connection, as those of the cluster share one to the broker: what they send while
//! Redis writes to its disk is one batch for it, as it is when a queue's node sends it.

use std::collections::HashMap;
use std::thread::{self, ThreadId};
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult};

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Failure, Seat, Turn, Workload};
use crate::recorder::{Fault, Operation};

const RPUSH: Operation = Operation(0);

/// Users that each keep one command under way.
pub struct RawRedis {
    client: Client,
    config: AsyncConnectionConfig,
    /// The list that all push to.
    key: String,
    payload: Bytes,
    /// The load threads' connections: what drives one is the thread's own runtime.
    connections: Mutex<HashMap<ThreadId, MultiplexedConnection>>,
}

impl RawRedis {
    /// Pushes payloads of so many bytes to a list at this address.
    ///
    /// # Errors
    /// The address is none.
    pub fn new(url: &str, key: String, bytes: usize, timeout: Duration) -> RedisResult<Self> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        Ok(Self {
            client: Client::open(url)?,
            config,
            key,
            payload: Bytes::from(vec![b'x'; bytes]),
            connections: Mutex::default(),
        })
    }

    /// Removes the list.
    ///
    /// # Errors
    /// Redis cannot be reached or refuses.
    pub async fn remove(&self) -> RedisResult<()> {
        let mut connection = self.connect().await?;
        let mut unlink = redis::cmd("UNLINK");
        unlink.arg(&self.key).query_async(&mut connection).await
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = &self.config;
        self.client
            .get_multiplexed_async_connection_with_config(config)
            .await
    }

    /// The calling thread's connection.
    async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        let thread = thread::current().id();
        let mut connections = self.connections.lock().await;
        if let Some(connection) = connections.get(&thread) {
            return Ok(connection.clone());
        }
        let connection = self.connect().await?;
        connections.insert(thread, connection.clone());
        Ok(connection)
    }

    async fn push(&self, connection: &mut Option<MultiplexedConnection>) -> RedisResult<u64> {
        let connected = match connection {
            Some(connected) => connected,
            None => connection.insert(self.connection().await?),
        };
        let mut rpush = redis::cmd("RPUSH");
        rpush.arg(&self.key).arg(&self.payload[..]);
        let pushed = rpush.query_async(connected).await;
        if pushed.is_err() {
            // Nothing makes a connection that broke connect again.
            *connection = None;
            self.connections
                .lock()
                .await
                .remove(&thread::current().id());
        }
        pushed
    }
}

impl Workload for RawRedis {
    /// The connection, from the first round on.
    type User = Option<MultiplexedConnection>;

    fn name(&self) -> &'static str {
        "redis"
    }

    fn operations(&self) -> &'static [&'static str] {
        &["rpush"]
    }

    fn prepare(&self, _seat: Seat) -> Self::User {
        None
    }

    async fn execute(&self, connection: &mut Self::User, intended: Instant, turn: &Turn) {
        turn.measure(RPUSH, intended, self.push(connection)).await;
    }
}

impl Failure for RedisError {
    fn fault(&self) -> Fault {
        let code = match self {
            error if error.is_timeout() => "no_answer",
            error if error.is_connection_refusal() => "disconnected",
            error if error.is_io_error() => "connection_lost",
            _ => "redis_refused",
        };
        Fault {
            code,
            unknown: ["no_answer", "connection_lost"].contains(&code),
        }
    }
}
