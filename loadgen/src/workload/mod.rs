//! What users do: each workload is one type, each round of a user one call of `execute`.
//!
//! | workload | a round |
//! |---|---|
//! | `reference` | acquire the user's own lock, hold it, release it, ask for the status twice |
//! | `locks` | acquire the user's own lock and release it, as fast as it can |
//! | `echo` | one raw NATS request to a responder that only sends it back |

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use mufakat::client::{Client, ClientError, RequestError};
use tokio::time::Instant;

use crate::pacer::Pacer;
use crate::recorder::{Operation, Recorder};

pub mod echo;
pub mod locks;
pub mod reference;
pub mod resource;

/// How long a user waits after a failed request, so that a service that refuses at once is not flooded.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// A kind of load. A user stays on one thread, so of these only the workload itself need be `Send`.
pub trait Workload: Send + Sync + 'static {
    /// What a user keeps from round to round.
    type User;

    /// The workload's name on the command line.
    fn name(&self) -> &'static str;

    /// The names of the operations, in the order of the table's rows.
    fn operations(&self) -> &'static [&'static str];

    /// Makes a user ready, before its first round.
    fn prepare(&self, seat: Seat) -> Self::User;

    /// One round of one user. `intended` is the instant at which it was meant to begin.
    fn execute(
        &self,
        user: &mut Self::User,
        intended: Instant,
        turn: &Turn,
    ) -> impl Future<Output = ()>;
}

/// A user's place: its number over all threads, from 0, and the connection that it shares with others.
pub struct Seat {
    pub number: u32,
    pub client: Client,
}

/// What a round uses to pace and to record.
pub struct Turn {
    pub pacer: Rc<Pacer>,
    pub recorder: Rc<RefCell<Recorder>>,
}

impl Turn {
    /// Runs a request and records it as one of `operation`, its latency counted from `intended`. A failure is
    /// recorded and followed by a pause; its answer is `None`.
    pub async fn measure<T, E: Failure>(
        &self,
        operation: Operation,
        intended: Instant,
        request: impl Future<Output = Result<T, E>>,
    ) -> Option<T> {
        self.pacer.count_request();
        let result = request.await;
        let ended = Instant::now();
        match result {
            Ok(answer) => {
                self.recorder
                    .borrow_mut()
                    .record(operation, intended, ended, Ok(()));
                Some(answer)
            }
            Err(failure) => {
                tracing::debug!(?operation, %failure, "request failed");
                self.recorder
                    .borrow_mut()
                    .record(operation, intended, ended, Err(failure.code()));
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                None
            }
        }
    }
}

/// Why a request failed, as a code to count by.
pub trait Failure: std::fmt::Display {
    /// The contract's code where a node answered, else what happened on the way.
    fn code(&self) -> &'static str;
}

impl Failure for RequestError {
    fn code(&self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::ConnectionLost => "connection_lost",
            Self::NodeGone => "node_gone",
            Self::NoResponders => "no_responders",
            Self::TimedOut => "no_answer",
            Self::TooMany => "too_many_in_flight",
            Self::Unsendable(_) => "unsendable",
        }
    }
}

impl Failure for ClientError {
    fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code.name(),
            Self::Unanswered { error, .. } => error.code(),
            Self::Unreadable(_) => "unreadable",
        }
    }
}
