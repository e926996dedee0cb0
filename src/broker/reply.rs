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
use crate::lock::command::Asked;
use crate::lock::event::{Effect, Event};
use crate::protocol::reply::{self, From, Rendered};
use crate::protocol::{self, Code, ErrorReply, Operation, ReplyTo};
use crate::queue;
use crate::queue::service::{Answered, Body};
use crate::raft::handle::{Answer, Answers};
use crate::raft::state::Outcome;
use crate::stats::Stats;
use crate::time::Instant;

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

    /// Who answers a request that this node executes, wherever it was asked.
    pub fn as_asked(&self, to: &ReplyTo) -> From {
        self.from(to.handed.then_some(self.me))
    }

    /// Answers with what an operation gives, or why it does not.
    pub fn send<T: serde::Serialize>(
        &self,
        to: &ReplyTo,
        from: From,
        (operation, received): (Option<Operation>, Instant),
        result: Result<&T, &ErrorReply>,
    ) {
        let answer = written(to, from, result);
        let asked = operation.map(|operation| (operation, received.elapsed()));
        self.publish((to, from), asked, answer);
    }

    /// Answers a request of which only the reply subject is still known.
    pub fn send_refusal(&self, to: &ReplyTo, from: From, error: &ErrorReply) {
        self.publish((to, from), None, written::<()>(to, from, Err(error)));
    }

    fn record(&self, to: &ReplyTo, operation: Operation, took: Duration, error: Option<Code>) {
        let failed = error.map(|code| (code.name(), code.status()));
        to.trace.answered(failed, took);
        self.stats
            .operations
            .record(operation as usize, took, error.map(|code| code as usize));
    }

    fn publish(
        &self,
        way: (&ReplyTo, From),
        asked: Option<(Operation, Duration)>,
        answer: Written,
    ) {
        self.publish_asking(way, asked, None, answer);
    }

    /// Every answer leaves here. Instead of one that the broker would not carry goes an error that says so;
    /// one that can't be handed to the broker is lost: its client asks again. What was `asked`, and how long
    /// ago, is counted. With `reply`, a broker says there if nobody hears of it.
    fn publish_asking(
        &self,
        (to, from): (&ReplyTo, From),
        asked: Option<(Operation, Duration)>,
        reply: Option<String>,
        answer: Written,
    ) {
        let operation = asked.map(|(operation, _)| operation);
        let (rendered, error) = match answer.0.bytes() > self.broker.payload_max() {
            true => written::<()>(to, from, Err(&too_large(operation, answer.1))),
            false => answer,
        };
        if let Some((operation, took)) = asked {
            self.record(to, operation, took, error);
        }
        let Rendered { payload, headers } = rendered;
        let lost = self.broker.publish(Outgoing {
            subject: to.subject.clone(),
            reply,
            headers,
            payload,
        });
        if let Err(error) = lost {
            to.trace
                .in_scope(|| tracing::debug!(%error, "a reply was lost"));
        }
    }

    fn send_outcome(
        &self,
        to: ReplyTo,
        from: From,
        (operation, took, waited): (Operation, Duration, bool),
        (asked, outcome): (Asked, lock::outcome::Outcome),
    ) {
        if outcome == lock::outcome::Outcome::Waiting {
            return;
        }
        let granted = match &outcome {
            lock::outcome::Outcome::Acquired(acquired) if waited => Some(acquired.token),
            _ => None,
        };
        let answer = lock::answer::rendered(&to, from, (asked, outcome));
        let reply = granted.map(|token| self.unheard.reply_of(token));
        self.publish_asking((&to, from), Some((operation, took)), reply, answer);
    }
}

impl queue::service::Answers for Replier {
    fn answer(
        &self,
        to: &ReplyTo,
        (operation, received): (Operation, Instant),
        result: Result<&Body, &ErrorReply>,
    ) {
        self.send(to, self.as_asked(to), (Some(operation), received), result);
    }

    fn answer_if_it_fits(
        &self,
        to: &ReplyTo,
        (operation, received): (Operation, Instant),
        body: &Body,
        return_to: Option<String>,
    ) -> Answered {
        let from = self.as_asked(to);
        let answer = written(to, from, Ok(body));
        if answer.0.bytes() > self.broker.payload_max() {
            return Answered::TooLarge;
        }
        let asked = Some((operation, received.elapsed()));
        self.publish_asking((to, from), asked, return_to, answer);
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
            asked,
            received,
            result,
            ask_node,
        } = answer;
        let from = self.from(ask_node);
        let took = received.map_or(Duration::ZERO, |at| at.elapsed());
        match result {
            Ok(Outcome::Lock(outcome)) => {
                self.send_outcome(to, from, (operation, took, false), (asked, outcome));
            }
            Ok(Outcome::View(_) | Outcome::Marked | Outcome::TermStarted) => {
                unreachable!("clients submit lock commands only")
            }
            Err(refusal) => {
                let error = lock::service::not_decided(refusal);
                let answer = written::<()>(&to, from, Err(&error));
                self.publish((&to, from), Some((operation, took)), answer);
            }
        }
    }

    fn answer_again(&self, to: ReplyTo, outcome: lock::outcome::Outcome) {
        let from = self.from(None);
        let answer = lock::answer::rendered(&to, from, (Asked::default(), outcome));
        self.publish((&to, from), None, answer);
    }

    fn effect(&self, effect: Effect) {
        lock::counted::count(&self.stats.locks, &effect);
        match effect {
            Effect::WaitEnded {
                reply,
                waited_ms,
                converts,
                outcome,
            } => {
                let operation = match converts {
                    Some(_) => Operation::LockConvert,
                    None => Operation::LockAcquire,
                };
                let asked = Asked {
                    converts,
                    ..Asked::default()
                };
                let took = Duration::from_millis(waited_ms);
                let timing = (operation, took, converts.is_none());
                self.send_outcome(reply, self.from(None), timing, (asked, outcome));
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
        let from = self.as_asked(&ask.to);
        let asked = Some((ask.operation, ask.received.elapsed()));
        let answer = cache::answer::rendered(&ask.to, from, answer);
        self.publish((&ask.to, from), asked, answer);
    }

    fn answer_many(&self, ask: Ask, answers: Vec<Found>) {
        let from = self.from(None);
        let asked = Some((ask.operation, ask.received.elapsed()));
        let answer = cache::answer::rendered_many(&ask.to, from, answers);
        self.publish((&ask.to, from), asked, answer);
    }
}

/// An answer, and the code of its error if it is one.
type Written = (Rendered, Option<Code>);

fn written<T: serde::Serialize>(
    to: &ReplyTo,
    from: From,
    result: Result<&T, &ErrorReply>,
) -> Written {
    match result {
        Ok(body) => (reply::success(to, from, body), None),
        Err(error) => (reply::failure(to, from, error), Some(error.code)),
    }
}

/// Instead of an answer that the broker would not carry. What was done is done; what would have told of
/// an error changed as little as that error says.
fn too_large(operation: Option<Operation>, error: Option<Code>) -> ErrorReply {
    let outcome = match (error, operation) {
        (Some(code), _) => code.outcome(),
        (None, Some(operation)) if operation.only_reads() => protocol::Outcome::NotApplied,
        (None, _) => protocol::Outcome::Applied,
    };
    let message = "the answer does not fit into a message of the broker; ask for less or in \
                   MessagePack, or raise the broker's max_payload";
    ErrorReply::new(Code::PayloadTooLarge, message).with_outcome(outcome)
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
            tracing::info!(
                %resource, %owner, %token, %reason,
                "a hold was ended by an operator or given back"
            )
        }
        Event::SessionClosed {
            session,
            reason: Some(reason),
            ..
        } => tracing::info!(%session, %reason, "a session was closed by an operator"),
        _ => {}
    }
}
