//! What users do: each workload is one type, each round of a user one call of `execute`.
//!
//! | workload | a round |
//! |---|---|
//! | `reference` | acquire the user's own lock, hold it, release it, ask for the status twice |
//! | `locks` | acquire a lock, the user's own or one of some that all share, hold it and release it |
//! | `queue pushes` | push a message or a batch of them |
//! | `queue cycles` | push as many, pop as many, acknowledge them: three requests |
//! | `cache` | read a key, write it, or add to a counter; a read that finds nothing is followed by a write |
//! | `status` | ask for the status |
//! | `mix` | a round of one of `locks`, `queue cycles`, `cache` and `status`, by their weights |
//! | `echo` | one raw NATS request to a responder that only sends it back |
//! | `redis` | one command to Redis itself |

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use mufakat::client::{Client, ClientError};
use mufakat::protocol::{Outcome, TIMEOUT_MS_MAX};
use rand::rngs::Xoshiro256PlusPlus;
use tokio::time::Instant;

use crate::pacer::Pacer;
use crate::recorder::{Fault, Operation, Recorder, Sample};

pub mod cache;
pub mod echo;
pub mod locks;
pub mod mix;
pub mod queue;
pub mod raw_redis;
pub mod reference;
pub mod resource;
pub mod status;

pub use mufakat::client::RequestError;

/// How long a user waits after a failed request, so that a service that refuses at once is not flooded.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// What a user draws its choices from: the same in every run with the same seed.
pub type Random = Xoshiro256PlusPlus;

/// A kind of load. A user stays on one thread, so of these only the workload itself need be `Send`.
pub trait Workload: Send + Sync + 'static {
    /// What a user keeps from round to round.
    type User;

    /// The workload's name on the command line.
    fn name(&self) -> &'static str;

    /// The names of the operations, in the order of the table's rows.
    fn operations(&self) -> &'static [&'static str];

    /// What is told apart within operations, such as reads by where the value came from. Each request of these is
    /// one of its operation as well.
    fn details(&self) -> &'static [&'static str] {
        &[]
    }

    /// Codes that the workload brings about by what it does, such as a lock that another user holds: they are
    /// counted, but are no errors.
    fn foreseen(&self) -> &'static [&'static str] {
        &[]
    }

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
    pub random: Random,
}

/// What a round uses to pace and to record.
#[derive(Clone)]
pub struct Turn {
    pub pacer: Rc<Pacer>,
    pub recorder: Rc<RefCell<Recorder>>,
    /// Where each operation of a workload within a mix is recorded; `None`: where its own number says.
    places: Option<&'static [usize]>,
}

impl Turn {
    pub fn new(pacer: Pacer, recorder: Recorder) -> Self {
        Self {
            pacer: Rc::new(pacer),
            recorder: Rc::new(RefCell::new(recorder)),
            places: None,
        }
    }

    /// The turn of a workload that is part of a mix: its operations, and its details after them, are recorded at
    /// these places of the mix's.
    fn within(&self, places: &'static [usize]) -> Self {
        Self {
            places: Some(places),
            ..self.clone()
        }
    }

    fn place(&self, operation: Operation) -> Operation {
        self.places
            .map_or(operation, |places| Operation(places[operation.0]))
    }

    /// Runs a request and records it as one of `operation`, its latency counted from `intended`. A failure is
    /// recorded and followed by a pause; its answer is `None`.
    pub async fn measure<T, E: Failure>(
        &self,
        operation: Operation,
        intended: Instant,
        request: impl Future<Output = Result<T, E>>,
    ) -> Option<T> {
        let (result, _) = self.sample(operation, intended, request).await;
        self.pause_after_failure(result).await
    }

    /// As `measure`, for callers that want to see the failure; they pause by themselves.
    pub async fn sample<T, E: Failure>(
        &self,
        operation: Operation,
        intended: Instant,
        request: impl Future<Output = Result<T, E>>,
    ) -> (Result<T, E>, Sample) {
        self.pacer.count_request();
        let started = Instant::now();
        let result = request.await;
        let sample = Sample {
            intended,
            started,
            ended: Instant::now(),
        };
        let recorded = match &result {
            Ok(_) => Ok(()),
            Err(failure) => {
                tracing::debug!(?operation, %failure, "request failed");
                Err(failure.fault())
            }
        };
        self.recorder
            .borrow_mut()
            .record(self.place(operation), sample, recorded);
        (result, sample)
    }

    /// Records a success once more, under a detail of its operation.
    pub fn detail(&self, detail: Operation, sample: Sample) {
        self.recorder
            .borrow_mut()
            .record_detail(self.place(detail), sample);
    }

    /// The answer; after a failure `None`, a while later.
    pub async fn pause_after_failure<T, E>(&self, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(answer) => Some(answer),
            Err(_) => {
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                None
            }
        }
    }
}

/// A length as requests have it.
fn milliseconds(length: Duration) -> Option<u64> {
    u64::try_from(length.as_millis()).ok()
}

/// How long a request may take, as it has it; the protocol bounds it.
fn timeout_ms(length: Duration) -> Option<u64> {
    Some(milliseconds(length)?.min(TIMEOUT_MS_MAX))
}

/// Why a request failed, as a code to count by.
pub trait Failure: std::fmt::Display {
    /// The error code where a node answered, else what happened on the way.
    fn fault(&self) -> Fault;
}

impl Failure for RequestError {
    fn fault(&self) -> Fault {
        let code = match self {
            Self::Disconnected => "disconnected",
            Self::ConnectionLost => "connection_lost",
            Self::NodeGone => "node_gone",
            Self::NoResponders => "no_responders",
            Self::TimedOut => "no_answer",
            Self::TooMany => "too_many_in_flight",
            Self::Closed => "closed",
            Self::Forbidden(_) | Self::Unheard(_) => "forbidden",
            Self::Unsendable(_) => "unsendable",
        };
        Fault {
            code,
            unknown: !self.not_sent(),
        }
    }
}

impl Failure for ClientError {
    fn fault(&self) -> Fault {
        let code = match self {
            Self::Refused(refusal) => refusal.code.name(),
            Self::Unanswered { error, .. } => error.fault().code,
            Self::Unreadable(_) => "unreadable",
        };
        Fault {
            code,
            unknown: self.outcome() == Outcome::Unknown,
        }
    }
}
