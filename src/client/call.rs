//! One call: whom to ask, for how long, and when to ask again.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::error::is_blind;
use crate::client::slots::{self, Probed};
use crate::client::{Client, ClientError, Target};
use crate::ids::NodeId;
use crate::protocol::admin::LockReleased;
use crate::protocol::lock::{
    Acquired, Cancelled, Checked, Listing, RecentDeadlocks, Released, Renewed, View, WaitGraph,
};
use crate::protocol::reply::{self, Answer};
use crate::protocol::session::{self, Closed, KeptAlive, Opened};
use crate::protocol::status::{Ask, Metrics, Status};
use crate::protocol::{Code, Operation, Outcome, Prefix, TIMEOUT_MS_DEFAULT};
use crate::time;

/// How much longer than a node the client waits: the way there and back.
const TRAVEL_MS: u64 = 500;

/// How long a node that was asked by its id may take, beyond the wait asked for, before any other
/// is asked, if the request allows that: longer than a loaded node needs, shorter than the default
/// timeout.
const DIRECT_MS: u64 = 1_500;

/// The pause before asking again doubles from the first to the second.
const PAUSE_MS_MIN: u64 = 20;
const PAUSE_MS_MAX: u64 = 320;

/// One operation, asked until it is answered or its time is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub operation: Operation,
    pub timeout_ms: u64,
    /// How much of the timeout the request itself asks to wait.
    pub wait_ms: u64,
    /// Whether it may be asked again although an attempt may have taken effect.
    pub repeatable: bool,
}

impl Call {
    pub(super) fn new(operation: Operation, timeout_ms: Option<u64>, wait_ms: u64) -> Self {
        Call {
            operation,
            timeout_ms: timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT + wait_ms),
            wait_ms,
            repeatable: true,
        }
    }

    /// How long one node may take: [`DIRECT_MS`], and so little that time is left to ask others. Not of pops: what
    /// a node hands out after that is in flight to nobody.
    fn direct_ms(&self) -> u64 {
        if matches!(self.operation, Operation::QueuePop | Operation::QueueAck) {
            return DIRECT_MS;
        }
        DIRECT_MS.min(self.timeout_ms.saturating_sub(self.wait_ms) / 2)
    }

    /// Attempts it until there is an answer that the caller must judge, or its time is over.
    pub(super) async fn until_answered<T, A>(
        self,
        mut attempt: impl FnMut(Before) -> A,
    ) -> Result<T, Failed>
    where
        A: Future<Output = Result<T, ClientError>>,
    {
        let started = time::now();
        let mut elapsed_ms = 0;
        let mut pause_ms = PAUSE_MS_MIN;
        let mut earlier_unknown = false;
        loop {
            let attempted = attempt(Before {
                call: self,
                elapsed_ms,
                is_unknown: earlier_unknown,
            });
            let error = match attempted.await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            elapsed_ms = started.elapsed().as_millis() as u64 + pause_ms;
            let is_unknown = error.outcome() == Outcome::Unknown;
            let is_final = !error.passes_by_itself()
                || (is_unknown && !self.repeatable)
                || (changes_members(self.operation) && error.code() == Some(Code::Reconfiguring));
            if is_final || elapsed_ms >= self.timeout_ms {
                return Err(Failed {
                    error,
                    earlier_unknown,
                });
            }
            earlier_unknown |= is_unknown;
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
        }
    }
}

/// What is known when an attempt of a call begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    call: Call,
    /// Since the first attempt: 0 at that one.
    pub elapsed_ms: u64,
    /// Whether an attempt before may have taken effect.
    pub is_unknown: bool,
}

impl Before {
    /// Cuts the wait and the timeout of a request to what the attempts before have left of them.
    pub(super) fn cut(&self, wait_ms: &mut u64, timeout_ms: &mut Option<u64>) {
        if self.elapsed_ms > 0 {
            let left_ms = self.call.timeout_ms.saturating_sub(self.elapsed_ms);
            *wait_ms = self.call.wait_ms.saturating_sub(self.elapsed_ms);
            *timeout_ms = Some(left_ms.max(1));
        }
    }
}

/// How a call ended without success.
#[derive(Debug)]
pub(super) struct Failed {
    pub error: ClientError,
    /// Whether an attempt before the last may have taken effect.
    pub earlier_unknown: bool,
}

impl From<Failed> for ClientError {
    fn from(failed: Failed) -> ClientError {
        match failed.error {
            ClientError::Unanswered { error, maybe_sent } => ClientError::Unanswered {
                error,
                maybe_sent: maybe_sent || failed.earlier_unknown,
            },
            ClientError::Refused(mut error)
                if failed.earlier_unknown
                    && is_blind(error.code)
                    && error.outcome == Outcome::NotApplied =>
            {
                error.outcome = Outcome::Unknown;
                ClientError::Refused(error)
            }
            error => error,
        }
    }
}

/// A node's answer that may tell whom to ask next time.
pub(super) trait Answers: DeserializeOwned {
    /// Whether the node that gives this answer is the one that executes such requests.
    const BY_EXECUTOR: bool;
}

macro_rules! answers {
    ($by_executor:literal: $($answer:ty),*) => {
        $(impl Answers for $answer {
            const BY_EXECUTOR: bool = $by_executor;
        })*
    };
}

answers!(true: Acquired, Released, Renewed, Checked, Cancelled, LockReleased);
answers!(true: Opened, KeptAlive, Closed);
// A stale read is answered by any node.
answers!(false: View, Listing, WaitGraph, RecentDeadlocks, session::View, session::Listing);
answers!(false: Status, Metrics);

/// Whether the node that leads executes it, so that one node is the fastest to ask for all.
fn is_by_leader(operation: Operation) -> bool {
    ["lock.", "session.", "admin.lock.", "admin.session."]
        .iter()
        .any(|service| operation.name().starts_with(service))
}

/// The subject of each operation, at its place in [`Operation::ALL`].
#[derive(Debug)]
pub(super) struct Subjects(Vec<Subject>);

impl Subjects {
    pub(super) fn new(subject: impl Fn(Operation) -> String) -> Self {
        Subjects(Operation::ALL.iter().map(|&o| subject(o).into()).collect())
    }

    fn of(&self, operation: Operation) -> Subject {
        self.0[operation as usize].clone()
    }
}

/// One node and the subjects that reach it.
#[derive(Debug)]
pub(super) struct Direct {
    node: NodeId,
    probed: Probed,
    subjects: Subjects,
}

impl Direct {
    pub(super) fn new(prefix: &Prefix, node: NodeId) -> Self {
        Direct {
            node,
            probed: Probed {
                node,
                subject: prefix.node_operation(node, Operation::Status).into(),
            },
            subjects: Subjects::new(|operation| prefix.node_operation(node, operation)),
        }
    }

    /// That only this node can answer a request.
    pub(super) fn only(&self, repeatable: bool) -> slots::Direct<'_> {
        slots::Direct {
            node: &self.probed,
            repeatable,
        }
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }
}

/// Whether it changes the members, or who leads: refused with `reconfiguring`, it has to be judged, since
/// another change is under way or too few nodes answer, which asking again does not mend.
fn changes_members(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::AdminClusterAdd
            | Operation::AdminClusterRemove
            | Operation::AdminClusterTransfer
    )
}

impl Client {
    /// A call of the node that leads or of any, whose body is made anew for each attempt.
    pub(super) async fn call_until_answered<T: Answers>(
        &self,
        call: Call,
        mut body: impl FnMut(Before) -> Bytes,
    ) -> Result<T, Failed> {
        call.until_answered(|before| self.attempt(call, before.elapsed_ms, body(before)))
            .await
    }

    async fn attempt<T: Answers>(
        &self,
        call: Call,
        elapsed_ms: u64,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let direct = self.direct(call.operation);
        let answer = self
            .attempt_at::<T>(call, elapsed_ms, direct.as_deref(), body)
            .await;
        if is_by_leader(call.operation) {
            self.learn(direct.as_deref(), &answer);
        }
        answer?.result.map_err(ClientError::Refused)
    }

    /// One attempt, of a certain node or of any.
    pub(super) async fn attempt_at<T: DeserializeOwned>(
        &self,
        call: Call,
        elapsed_ms: u64,
        direct: Option<&Direct>,
        body: Bytes,
    ) -> Result<Answer<T>, ClientError> {
        let left_ms = call.timeout_ms.saturating_sub(elapsed_ms) + TRAVEL_MS;
        // Only where others can be asked instead does it help to know that one is gone.
        let only = direct
            .filter(|_| self.inner.options.target == Target::Leader)
            .map(|direct| direct.only(call.repeatable));
        let timeout_ms = match only {
            Some(_) if call.repeatable => {
                let direct_ms = call.direct_ms() + call.wait_ms.saturating_sub(elapsed_ms);
                left_ms.min(direct_ms)
            }
            _ => left_ms,
        };
        let subject = match direct {
            Some(direct) => direct.subjects.of(call.operation),
            None => self.inner.shared.of(call.operation),
        };
        let timeout = Duration::from_millis(timeout_ms);
        self.exchange(only, subject, body, timeout).await
    }

    fn direct(&self, operation: Operation) -> Option<Arc<Direct>> {
        if is_by_leader(operation) || self.inner.options.target != Target::Leader {
            self.inner
                .direct
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        } else {
            None
        }
    }

    /// The one node that is always to be asked, if there is one.
    pub(super) fn pinned(&self) -> Option<Arc<Direct>> {
        match self.inner.options.target {
            Target::Node(_) => self.direct(Operation::Status),
            Target::Any | Target::Leader => None,
        }
    }

    /// Remembers whom to ask; forgets a node that did not answer.
    fn learn<T: Answers>(&self, asked: Option<&Direct>, answer: &Result<Answer<T>, ClientError>) {
        if self.inner.options.target != Target::Leader {
            return;
        }
        let faster = match answer {
            Ok(answer) => {
                let executor = (T::BY_EXECUTOR && answer.result.is_ok()).then_some(answer.node);
                let lost = answer
                    .result
                    .as_ref()
                    .is_err_and(|error| ClientError::Refused(error.clone()).passes_by_itself());
                match answer.ask_node.or(executor) {
                    None if !lost => return,
                    faster => faster,
                }
            }
            Err(_) => None,
        };
        let mut direct = self
            .inner
            .direct
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let current = direct.as_ref().map(|direct| direct.node);
        match faster {
            Some(node) if current != Some(node) => {
                *direct = Some(Arc::new(Direct::new(&self.inner.options.prefix, node)));
            }
            // Unless another call has learned better meanwhile.
            None if current == asked.map(|asked| asked.node) => *direct = None,
            _ => {}
        }
    }

    /// A call whose body may be sent again as it is.
    pub(super) async fn repeat<T: Answers>(
        &self,
        operation: Operation,
        timeout_ms: Option<u64>,
        request: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = self.encode(request);
        let call = Call::new(operation, timeout_ms, 0);
        Ok(self.call_until_answered(call, |_| body.clone()).await?)
    }

    /// A call that ends something for good. If an attempt before may have done so, the answer that it is over
    /// counts as `done`.
    pub(super) async fn end<T: Answers>(
        &self,
        call: Call,
        request: &impl Serialize,
        done: T,
    ) -> Result<T, ClientError> {
        let body = self.encode(request);
        match self.call_until_answered(call, |_| body.clone()).await {
            Err(failed) if failed.earlier_unknown && failed.error.is_over() => Ok(done),
            ended => Ok(ended?),
        }
    }

    pub(super) async fn ask<T: Answers>(&self, operation: Operation) -> Result<T, ClientError> {
        self.repeat(operation, None, &Ask::default()).await
    }

    pub(super) async fn ask_node<T: Answers>(
        &self,
        node: NodeId,
        operation: Operation,
    ) -> Result<T, ClientError> {
        let subject = self.inner.options.prefix.node_operation(node, operation);
        let timeout = Duration::from_millis(TIMEOUT_MS_DEFAULT + TRAVEL_MS);
        self.call(subject, &Ask::default(), timeout).await
    }

    pub(super) async fn exchange<T: DeserializeOwned>(
        &self,
        direct: Option<slots::Direct<'_>>,
        subject: Subject,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer<T>, ClientError> {
        let requester = &self.inner.requester;
        let message = requester.request_of(direct, subject, body, timeout).await?;
        reply::read(self.inner.options.encoding, &message.payload).map_err(ClientError::Unreadable)
    }

    pub(super) fn encode(&self, request: &impl Serialize) -> Bytes {
        self.inner.options.encoding.encode(request)
    }
}
