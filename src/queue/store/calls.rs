//! Calls of scripts on one server, and what their errors say.
//!
//! A call that ends with an error of Redis itself changed nothing. One that ends with the connection,
//! or without an answer in time, may have been executed, or may still be.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

use super::Route;
use crate::queue::script::{Reply, Script};
use crate::queue::slots::Place;

/// A call whose answer comes later has an unknown result: longer than an fsync that a disk is slow at.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// Who is told the answer to a call that was given up meanwhile, if one comes.
pub type Late = Arc<dyn Fn(Reply) + Send + Sync>;

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nothing was sent.
    #[error("this node is not connected to Redis")]
    Disconnected,
    /// Nothing was sent: another server may have the keys soon.
    #[error("no server of the Redis Cluster serves slot {0}, where the topic is")]
    Unserved(u16),
    /// Nothing was changed.
    #[error("the topic's slot is moving to another server of the Redis Cluster; try again")]
    Moved,
    /// Nothing was sent.
    #[error("the view was not confirmed since this node connected to Redis; try again")]
    Unclaimed,
    /// Nothing was changed: Redis has no memory for more.
    #[error("Redis is out of memory")]
    OutOfMemory,
    /// Nothing was changed.
    #[error("Redis refused the call: {0}")]
    Refused(String),
    /// Nobody knows.
    #[error("no answer from Redis: {0}")]
    Unknown(String),
}

impl Route {
    /// Runs a script on the keys of one topic. An answer that comes too late goes to `late`.
    ///
    /// # Errors
    /// Each of [`CallError`].
    pub async fn run(
        &self,
        script: Script,
        keys: &[String],
        args: &[Bytes],
        late: Option<&Late>,
    ) -> Result<Reply, CallError> {
        let name = match self.link.name(script) {
            Some(name) => name,
            None => self.load(script).await?,
        };
        let mut result = self.send(evaluation(&name, keys, args), late).await;
        if result
            .as_ref()
            .is_err_and(|e| is_kind(e, ServerErrorKind::NoScript))
        {
            // Redis forgets its scripts when it restarts or is told to.
            let name = self.load(script).await?;
            result = self.send(evaluation(&name, keys, args), late).await;
        }
        result.map(reply).map_err(|error| self.failed(&error))
    }

    pub(super) async fn note_topic(&self, set: &str, topic: &str) -> Result<(), CallError> {
        let mut command = redis::cmd("SADD");
        command.arg(set).arg(topic);
        self.query(command).await.map(drop)
    }

    pub(super) async fn topics(
        &self,
        set: &str,
        prefix: &str,
        most: usize,
    ) -> Result<BTreeSet<String>, CallError> {
        let (mut topics, mut cursor) = (BTreeSet::new(), 0);
        loop {
            let mut command = redis::cmd("SSCAN");
            command.arg(set).arg(cursor).arg("COUNT").arg(1_000);
            let Reply::List(mut parts) = reply(self.query(command).await?) else {
                return Err(CallError::Refused("no list of topics".to_owned()));
            };
            let names = match parts.pop() {
                Some(Reply::List(names)) => names,
                _ => Vec::new(),
            };
            let names = names.iter().filter_map(Reply::text);
            topics.extend(names.filter(|name| name.starts_with(prefix)));
            match parts.pop().and_then(|cursor| cursor.number()) {
                Some(next) if next > 0 && topics.len() < most => cursor = next,
                _ => return Ok(topics),
            }
        }
    }

    async fn send(&self, command: Cmd, late: Option<&Late>) -> RedisResult<Value> {
        let mut connection = self.connected.connection.clone();
        let mut sent = Box::pin(async move {
            let sent = connection.send_packed_command(&command).await;
            sent.and_then(Value::extract_error)
        });
        if let Ok(answer) = tokio::time::timeout(CALL_TIMEOUT, &mut sent).await {
            return answer;
        }
        if let Some(late) = late.cloned() {
            // It keeps the connection, though the link may be given up.
            tokio::spawn(async move {
                if let Ok(answer) = sent.await {
                    late(reply(answer));
                }
            });
        }
        Err(io::Error::from(io::ErrorKind::TimedOut).into())
    }

    async fn query(&self, command: Cmd) -> Result<Value, CallError> {
        let answer = self.send(command, None).await;
        answer.map_err(|error| self.failed(&error))
    }

    async fn load(&self, script: Script) -> Result<String, CallError> {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(script.source());
        let name = reply(self.query(command).await?).text();
        let name = name.ok_or_else(|| CallError::Refused("a script has no name".to_owned()))?;
        self.link.set_name(script, name.clone());
        Ok(name)
    }

    fn failed(&self, error: &RedisError) -> CallError {
        let text = error.to_string();
        if is_kind(error, ServerErrorKind::ReadOnly) {
            // What was the master is none any more; a new connection may reach the one that is.
            self.link.renew();
        }
        if is_misconfigured(error) {
            self.link.look();
        }
        if let (true, Some(look)) = (is_kind(error, ServerErrorKind::ClusterDown), &self.masters) {
            look.moved(None);
        }
        match error.kind() {
            ErrorKind::Server(
                ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::TryAgain,
            ) => match &self.masters {
                Some(look) => {
                    let there = error
                        .redirect_node()
                        .and_then(|(place, _)| Place::read(place));
                    look.moved(there);
                    CallError::Moved
                }
                None => CallError::Refused(format!(
                    "{text}: a server of a Redis Cluster needs redis+cluster:// (--redis)"
                )),
            },
            ErrorKind::Server(_) | ErrorKind::Extension if is_out_of_memory(&text) => {
                CallError::OutOfMemory
            }
            ErrorKind::Server(_) | ErrorKind::Extension => CallError::Refused(text),
            _ => CallError::Unknown(text),
        }
    }
}

fn evaluation(name: &str, keys: &[String], args: &[Bytes]) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(name).arg(keys.len()).arg(keys);
    for arg in args {
        command.arg(&arg[..]);
    }
    command
}

fn is_kind(error: &RedisError, kind: ServerErrorKind) -> bool {
    error.kind() == ErrorKind::Server(kind)
}

/// Whether the server refuses writes since it cannot write to its disk.
pub(super) fn is_misconfigured(error: &RedisError) -> bool {
    let is_from_server = matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension);
    is_from_server && error.to_string().contains("MISCONF")
}

/// Redis says it in several forms, depending on its version and on who noticed.
fn is_out_of_memory(text: &str) -> bool {
    text.contains("OOM") || text.contains("used memory > 'maxmemory'")
}

pub(super) fn reply(value: Value) -> Reply {
    match value {
        Value::Int(integer) => Reply::Integer(integer),
        Value::BulkString(bytes) => Reply::Bytes(bytes.into()),
        Value::SimpleString(text) => Reply::Bytes(text.into()),
        Value::Array(values) => Reply::List(values.into_iter().map(reply).collect()),
        _ => Reply::Nothing,
    }
}
