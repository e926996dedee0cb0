//! Answers on their way to clients and watchers.

use std::sync::Arc;
use std::time::Duration;

use crate::broker::events::Events;
use crate::broker::unheard::Unheard;
use crate::broker::{Outgoing, SharedBroker};
use crate::cache;
use crate::cache::operation::Answer as Found;
use crate::cache::service::Ask;
use crate::ids::NodeId;
use crate::lock;
use crate::lock::event::{Effect, Event};
use crate::protocol::reply::{self, From, Rendered};
use crate::protocol::{Code, ErrorReply, Operation, ReplyTo};
use crate::queue;
use crate::queue::service::{Answered, Body};
use crate::raft::handle::{Answer, Answers};
use crate::raft::state::Outcome;
use crate::stats::Stats;
use crate::time::Instant;
use crate::trace::Traced;

/// Writes and publishes answers; clones share it.
#[derive(Clone)]
pub struct Replier {
    me: NodeId,
    broker: SharedBroker,
    events: Events,
    unheard: Unheard,
    stats: Arc<Stats>,
}

impl Replier {
    pub fn new(
        me: NodeId,
        broker: SharedBroker,
        (events, unheard): (Events, Unheard),
        stats: Arc<Stats>,
    ) -> Self {
        Replier {
            me,
            broker,
            events,
            unheard,
            stats,
        }
    }

    /// Who answers: this node, naming another if that one is faster to ask.
    pub fn from(&self, ask_node: Option<NodeId>) -> From {
        From {
            node: self.me,
            ask_node,
        }
    }

    /// Answers with what an operation gives, or why it does not.
    pub fn send<T: serde::Serialize>(
        &self,
        to: &ReplyTo,
        from: From,
        (operation, received): (Option<Operation>, Instant),
        result: Result<&T, &ErrorReply>,
    ) {
        let rendered = match result {
            Ok(body) => reply::success(to, from, body),
            Err(error) => reply::failure(to, from, error),
        };
        if let Some(operation) = operation {
            let error = result.err().map(|error| error.code);
            self.record(to, operation, received.elapsed(), error);
        }
        self.publish((to.subject.clone(), &to.trace), rendered);
    }

    /// Answers a request of which only the reply subject is still known.
    pub fn send_refusal(&self, to: &ReplyTo, from: From, error: &ErrorReply) {
        let rendered = reply::failure(to, from, error);
        self.publish((to.subject.clone(), &to.trace), rendered);
    }

    fn record(&self, to: &ReplyTo, operation: Operation, took: Duration, error: Option<Code>) {
        let failed = error.map(|code| (code.name(), code.status()));
        to.trace.answered(failed, took);
        self.stats
            .operations
            .record(operation as usize, took, error.map(|code| code as usize));
    }

    fn publish(&self, to: (String, &Traced), rendered: Rendered) {
        self.publish_asking(to, None, rendered);
    }

    /// A reply that can't be handed to the broker is lost: its client asks again. With `reply`, a
    /// broker says there if nobody hears of it.
    fn publish_asking(
        &self,
        (subject, trace): (String, &Traced),
        reply: Option<String>,
        rendered: Rendered,
    ) {
        let Rendered { payload, headers } = rendered;
        let lost = self.broker.publish(Outgoing {
            subject,
            reply,
            headers,
            payload,
        });
        if let Err(error) = lost {
            trace.in_scope(|| tracing::debug!(%error, "a reply was lost"));
        }
    }

    fn send_outcome(
        &self,
        to: ReplyTo,
        from: From,
        (operation, took, waited): (Operation, Duration, bool),
        outcome: lock::outcome::Outcome,
    ) {
        if outcome == lock::outcome::Outcome::Waiting {
            return;
        }
        let granted = match &outcome {
            lock::outcome::Outcome::Acquired(acquired) if waited => Some(acquired.token),
            _ => None,
        };
        let (rendered, error) = lock::answer::rendered(&to, from, outcome);
        self.record(&to, operation, took, error);
        let reply = granted.map(|token| self.unheard.reply_of(token));
        self.publish_asking((to.subject, &to.trace), reply, rendered);
    }
}

impl queue::service::Answers for Replier {
    fn answer(
        &self,
        to: &ReplyTo,
        (operation, received): (Operation, Instant),
        result: Result<&Body, &ErrorReply>,
        return_to: Option<String>,
    ) -> Answered {
        let rendered = match result {
            Ok(body) => reply::success(to, self.from(None), body),
            Err(error) => reply::failure(to, self.from(None), error),
        };
        if rendered.payload.len() > self.broker.payload_max() {
            return Answered::TooLarge;
        }
        let error = result.err().map(|error| error.code);
        self.record(to, operation, received.elapsed(), error);
        let way = (to.subject.clone(), &to.trace);
        self.publish_asking(way, return_to, rendered);
        Answered::Sent
    }

    fn event(&self, subject: String, event: bytes::Bytes) {
        let lost = self.broker.publish(Outgoing {
            subject,
            payload: event,
            ..Outgoing::default()
        });
        if let Err(error) = lost {
            tracing::debug!(%error, "an event was lost");
        }
    }

    fn payload_max(&self) -> usize {
        self.broker.payload_max()
    }
}

impl Answers for Replier {
    fn answer(&self, answer: Answer) {
        let Answer {
            to,
            operation,
            received,
            result,
            ask_node,
        } = answer;
        let from = self.from(ask_node);
        let took = received.map_or(Duration::ZERO, |at| at.elapsed());
        match result {
            Ok(Outcome::Lock(outcome)) => {
                self.send_outcome(to, from, (operation, took, false), outcome);
            }
            Ok(Outcome::View(_) | Outcome::Marked | Outcome::TermStarted) => {
                unreachable!("clients submit lock commands only")
            }
            Err(refusal) => {
                let error = lock::service::not_decided(refusal);
                self.record(&to, operation, took, Some(error.code));
                let rendered = reply::failure(&to, from, &error);
                self.publish((to.subject, &to.trace), rendered);
            }
        }
    }

    fn answer_again(&self, to: ReplyTo, outcome: lock::outcome::Outcome) {
        let (rendered, _) = lock::answer::rendered(&to, self.from(None), outcome);
        self.publish((to.subject, &to.trace), rendered);
    }

    fn effect(&self, effect: Effect) {
        lock::counted::count(&self.stats.locks, &effect);
        match effect {
            Effect::WaitEnded {
                reply,
                waited_ms,
                conversion,
                outcome,
            } => {
                let operation = match conversion {
                    true => Operation::LockConvert,
                    false => Operation::LockAcquire,
                };
                let timing = (operation, Duration::from_millis(waited_ms), !conversion);
                self.send_outcome(reply, self.from(None), timing, outcome);
            }
            Effect::Event(event) => {
                log_reason(&event);
                self.events.publish(&event);
            }
        }
    }
}

impl cache::service::Answers for Replier {
    fn tell_watchers(&self, event: &cache::event::Event) {
        self.events.publish_of_cache(event);
    }

    fn answer(&self, ask: Ask, answer: Found) {
        let from = self.from(ask.handed.then_some(self.me));
        let (rendered, error) = cache::answer::rendered(&ask.to, from, answer);
        self.record(&ask.to, ask.operation, ask.received.elapsed(), error);
        self.publish((ask.to.subject, &ask.to.trace), rendered);
    }

    fn answer_many(&self, ask: Ask, answers: Vec<Found>) {
        let from = self.from(None);
        let (rendered, error) = cache::answer::rendered_many(&ask.to, from, answers);
        self.record(&ask.to, ask.operation, ask.received.elapsed(), error);
        self.publish((ask.to.subject, &ask.to.trace), rendered);
    }
}

/// What ends for a reason that is not its holder's is in the log, too: watchers may be away.
fn log_reason(event: &Event) {
    match event {
        Event::Released {
            resource,
            owner,
            token,
            reason: Some(reason),
            ..
        } => {
            tracing::info!(%resource, %owner, %token, %reason, "a hold was not ended by its holder")
        }
        Event::SessionClosed {
            session,
            reason: Some(reason),
            ..
        } => tracing::info!(%session, %reason, "a session was closed by an operator"),
        _ => {}
    }
}
