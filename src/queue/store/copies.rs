//! Whether the replicas have on their disks what was written before: `WAITAOF`, on a connection of its own.
//!
//! `WAITAOF` speaks of what its own connection has written, and holds that connection up until it answers;
//! so it must not be the one of the scripts. A small write here stands for all that was answered there
//! before: what a server replicates has one order, and who has fsynced the later has fsynced the earlier.
//! Questions that come while one is under way share the next: no timer, and as few writes as can be.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisError, RedisResult, Value};
use tokio::sync::{mpsc, oneshot};

use super::link::{CONNECT_TIMEOUT, unless_refused};
use crate::queue::address::RedisAddress;
use crate::queue::durability::{Copies, Inspection};

/// How long the server waits for its replicas, half of it for each of two answers: an fsync that a disk
/// is slow at, and the way there and back.
const COPIES_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the answer may take then.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Questions that wait for the next `WAITAOF`.
const QUESTIONS_MAX: usize = 4_096;

/// One question, about writes that were answered before it was asked.
struct Question {
    replicas: u64,
    answer: oneshot::Sender<Copies>,
}

/// Asks about the writes of one connection to one server. Its task ends with the last clone.
#[derive(Clone)]
pub(super) struct Asker(mpsc::Sender<Question>);

struct Task {
    address: RedisAddress,
    /// The process that the writes went to.
    run_id: Option<String>,
    connection: Option<MultiplexedConnection>,
    /// What is written.
    key: String,
}

impl Asker {
    /// For the server's process with `run_id`, to which the connection was made.
    pub(super) fn start(address: &RedisAddress, run_id: Option<String>) -> Asker {
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let task = Task {
            address: address.clone(),
            run_id,
            connection: None,
            key: address.copied_key(),
        };
        tokio::spawn(task.run(asked));
        Asker(questions)
    }

    /// Whether the server and so many replicas have fsynced what was answered over the connection before
    /// this is asked. Takes a second at most, and what the network adds.
    pub(super) async fn ask(&self, replicas: u64) -> Copies {
        let (answer, answered) = oneshot::channel();
        let question = Question { replicas, answer };
        if self.0.try_send(question).is_err() {
            return Copies::Behind;
        }
        answered.await.unwrap_or(Copies::Behind)
    }
}

impl Task {
    async fn run(mut self, mut asked: mpsc::Receiver<Question>) {
        while let Some(first) = asked.recv().await {
            let mut questions = vec![first];
            while let Ok(next) = asked.try_recv() {
                questions.push(next);
            }
            let replicas = questions.iter().map(|question| question.replicas).max();
            let copies = match self.ask(replicas.unwrap_or(0)).await {
                Ok(copies) => copies,
                Err(error) => {
                    tracing::debug!(%error, "nobody can say what the replicas have");
                    self.connection = None;
                    Copies::Behind
                }
            };
            for question in questions {
                let _ = question.answer.send(copies);
            }
        }
    }

    async fn ask(&mut self, replicas: u64) -> RedisResult<Copies> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let connected = connect(&self.address, self.run_id.as_deref()).await?;
                self.connection.insert(connected)
            }
        };
        let wait_ms = COPIES_TIMEOUT.as_millis() as u64 / 2;
        // Who is asked for its fsyncs as it receives a write answers with those before; it would tell the
        // newest by itself a second later. So it has to have the write first.
        let mut write = redis::pipe();
        write.cmd("SET").arg(&self.key).arg(1);
        write.cmd("WAIT").arg(replicas).arg(wait_ms);
        let received: (Value, u64) = write.query_async(connection).await?;
        if received.1 < replicas {
            return Ok(Copies::Behind);
        }
        let mut fsynced = redis::cmd("WAITAOF");
        fsynced.arg(1).arg(replicas).arg(wait_ms);
        let fsynced: RedisResult<(u64, u64)> = fsynced.query_async(connection).await;
        Ok(match unless_refused(fsynced)? {
            None => Copies::Untold,
            Some((here, there)) if here >= 1 && there >= replicas => Copies::Fsynced,
            Some(_) => Copies::Behind,
        })
    }
}

/// A connection to the very process that the writes went to: of another one an answer would say nothing.
async fn connect(
    address: &RedisAddress,
    run_id: Option<&str>,
) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(ANSWER_TIMEOUT));
    let connecting = tokio::time::timeout(ANSWER_TIMEOUT, address.connect(&config));
    let late = |_| RedisError::from((ErrorKind::Io, "no connection in time"));
    let mut connection = connecting.await.map_err(late)??;
    let info: String = redis::cmd("INFO")
        .arg("server")
        .query_async(&mut connection)
        .await?;
    let info = Inspection {
        info: Inspection::parse_info(&info),
        config: None,
    };
    match info.run_id() == run_id {
        true => Ok(connection),
        false => Err(RedisError::from((ErrorKind::Io, "another server answers"))),
    }
}
