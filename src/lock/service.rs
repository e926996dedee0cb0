//! Locks for clients: requests become commands in the log or linearizable reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::ids::{BootId, NodeId, Token};
use crate::lock::command::{self, Check, LockView};
use crate::protocol::lock as wire;
use crate::protocol::{Code, ErrorReply, Outcome, Refusal, ReplyTo};
use crate::raft::command::Command;
use crate::raft::handle::{Handle, ReadError};
use crate::raft::network::Network;
use crate::raft::proposals::{Submission, Ticket};
use crate::time::{self, Instant};

/// The kind of call that carries a [`Query`] to the leader.
pub const QUERY: &str = "lock.query";

/// Reads of this node's clients that may wait at once, above all for a leader; further ones are
/// refused. Each is a task of about a kilobyte.
const READS_MAX: usize = 65_536;

/// How soon a read looks again for a leader when there is none.
const LEADER_RETRY: Duration = Duration::from_millis(25);

/// How long a leader has to answer one query. A leader that stalls is replaced about then, so the
/// read looks again for whoever leads; a read changes nothing by being asked twice.
const ASK_MAX: Duration = Duration::from_millis(500);

/// Locks, as one node offers them.
pub struct LockService {
    handle: Handle,
    network: Network,
    boot: BootId,
    /// Counts the owners that this boot has made up.
    owners: AtomicU64,
    /// Places for reads that look for an answer.
    reads: Semaphore,
}

/// A linearizable read, as it travels to the leader.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Query {
    Check { resource: String, token: Token },
    Get { resource: String },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Found {
    Check(Check),
    Get(LockView),
    /// Ask whoever leads now.
    NotLeader,
}

/// When a request came, how long its client waits, and by which way it came.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    pub at: Instant,
    pub deadline: Instant,
    /// Whether another node handed it on: then this one is faster to ask.
    pub handed: bool,
}

impl LockService {
    pub fn new(handle: Handle, network: Network, boot: BootId) -> Self {
        LockService {
            handle,
            network,
            boot,
            owners: AtomicU64::new(0),
            reads: Semaphore::new(READS_MAX),
        }
    }

    /// `lock.acquire`; answered when the log has decided, or when the wait ends.
    pub fn acquire(&self, request: wire::Acquire, to: ReplyTo, received: Received) {
        let wire::Acquire {
            resource,
            mode,
            ttl_ms,
            wait_ms,
            on_deadlock,
            request_id,
            ..
        } = request;
        let owner = match (request.owner, &request_id) {
            (Some(owner), _) => owner,
            // Repeats carry the same id, so they derive the same owner.
            (None, Some(id)) => format!("request:{id}"),
            (None, None) => self.make_up_owner(),
        };
        let wait = (wait_ms > 0).then(|| command::Wait {
            wait_ms,
            reply: to.clone(),
        });
        let meta = request.meta.map(|meta| meta.as_json().to_owned());
        let acquire = command::Acquire {
            resource,
            mode,
            owner,
            request_id,
            ttl_ms,
            wait,
            on_deadlock,
            meta,
        };
        self.submit(command::Command::Acquire(acquire), to, received);
    }

    /// `lock.release`.
    pub fn release(&self, request: wire::Release, to: ReplyTo, received: Received) {
        let wire::Release {
            resource, token, ..
        } = request;
        self.submit(command::Command::Release { resource, token }, to, received);
    }

    /// `lock.renew`.
    pub fn renew(&self, request: wire::Renew, to: ReplyTo, received: Received) {
        let wire::Renew {
            resource,
            token,
            ttl_ms,
            ..
        } = request;
        self.submit(
            command::Command::Renew {
                resource,
                token,
                ttl_ms,
            },
            to,
            received,
        );
    }

    fn submit(&self, command: command::Command, to: ReplyTo, received: Received) {
        self.handle.submit(Submission {
            command: Command::Lock(command),
            ticket: Ticket::Client {
                to,
                received: received.at,
            },
            deadline: received.deadline,
        });
    }

    /// An owner that no other request has: this boot's number is random, and the count goes up.
    fn make_up_owner(&self) -> String {
        let count = self.owners.fetch_add(1, Ordering::Relaxed);
        format!("anon-{:x}-{count}", self.boot.0)
    }

    /// A read at the leader's lease time, from here if this node leads, else asked of the leader.
    ///
    /// # Errors
    /// `no_leader` when none answered until the deadline, `overloaded`.
    pub async fn find(&self, query: Query, deadline: Instant) -> Result<Found, Refusal> {
        let Ok(_place) = self.reads.try_acquire() else {
            return Err(too_many_reads());
        };
        loop {
            let here = tokio::time::timeout_at(deadline, self.find_here(&query)).await;
            let found = match here.unwrap_or(Err(ReadError::NotLeader)) {
                Err(ReadError::NotLeader) => self.ask_leader(&query, deadline).await,
                Err(ReadError::Overloaded) => {
                    return Err(too_many_reads());
                }
                Ok(found) => Some(found),
            };
            match found {
                Some(Found::NotLeader) | None if time::now() + LEADER_RETRY >= deadline => {
                    return Err(no_leader());
                }
                Some(Found::NotLeader) | None => tokio::time::sleep(LEADER_RETRY).await,
                Some(found) => return Ok(found),
            }
        }
    }

    /// The same from this node's own copy, which may be behind.
    pub fn find_stale(&self, query: &Query) -> Found {
        self.handle.read(|state, now_ms| match query {
            Query::Check { resource, token } => {
                Found::Check(state.locks.check(resource, *token, now_ms))
            }
            Query::Get { resource } => Found::Get(state.locks.get(resource, now_ms)),
        })
    }

    async fn find_here(&self, query: &Query) -> Result<Found, ReadError> {
        self.handle.read_barrier().await?;
        Ok(self.find_stale(query))
    }

    async fn ask_leader(&self, query: &Query, deadline: Instant) -> Option<Found> {
        let leader: NodeId = self.handle.leader()?;
        let body = rmp_serde::to_vec(query).expect("queries always encode");
        let left = deadline.saturating_duration_since(time::now());
        let timeout = left.min(ASK_MAX);
        let answer = self
            .network
            .call(leader, QUERY, body.into(), timeout)
            .await
            .ok()?;
        rmp_serde::from_slice(&answer).ok()
    }

    /// Answers another node's query; silence if it makes no sense.
    pub async fn answer_query(&self, body: Bytes) -> Option<Bytes> {
        let query: Query = rmp_serde::from_slice(&body).ok()?;
        let found = self.find_here(&query).await.unwrap_or(Found::NotLeader);
        Some(
            rmp_serde::to_vec(&found)
                .expect("answers always encode")
                .into(),
        )
    }
}

fn too_many_reads() -> Refusal {
    Box::new(ErrorReply::overloaded("reads that wait", READS_MAX as u64))
}

fn no_leader() -> Refusal {
    Box::new(
        ErrorReply::new(
            Code::NoLeader,
            "no node leads, or none could prove it, until the deadline",
        )
        .with_outcome(Outcome::NotApplied),
    )
}
