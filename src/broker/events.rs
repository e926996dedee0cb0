//! Events for watchers, spared while nobody watches.
//!
//! An event that no one hears still costs its making and a trip to the broker, at every grant and
//! release. So now and then an event carries a reply subject, at which the broker says if nobody
//! subscribes; events of that kind are then left out for [`QUIET`]. A new watcher therefore may miss
//! what happens in its first moments, as it may at any broker until its interest is known there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::broker::{Outgoing, SharedBroker, SubscribeError, Subscription};
use crate::ids::NodeId;
use crate::lock::event::Event;
use crate::protocol::{Encoding, Prefix};
use crate::time::{self, Instant};

/// How long events are left out after the broker said that nobody listens.
pub const QUIET: Duration = Duration::from_millis(100);
/// How often an event asks whether anybody listens.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Answers not yet looked at: one for each kind and question.
const ANSWERS_MAX: usize = 64;

/// Publishes events; clones share it.
#[derive(Clone)]
pub struct Events(Arc<Shared>);

struct Shared {
    prefix: Prefix,
    broker: SharedBroker,
    /// `<prefix>.int.event.<node>`
    inbox: String,
    started: Instant,
    kinds: [Interest; Event::KINDS.len()],
}

/// What is known about the watchers of one kind of event; milliseconds since the start.
#[derive(Default)]
struct Interest {
    quiet_until: AtomicU64,
    ask_again_at: AtomicU64,
}

impl Events {
    pub fn new(me: NodeId, prefix: Prefix, broker: SharedBroker) -> Self {
        Events(Arc::new(Shared {
            inbox: format!("{prefix}.int.event.{me}"),
            prefix,
            broker,
            started: time::now(),
            kinds: Default::default(),
        }))
    }

    /// Listens to what the broker says about watchers, until `stopped`.
    ///
    /// # Errors
    /// When the broker refuses the subscription.
    pub async fn listen(&self, stopped: watch::Receiver<bool>) -> Result<(), SubscribeError> {
        let subject = format!("{}.>", self.0.inbox);
        let answers = self.0.broker.subscribe(subject, ANSWERS_MAX).await?;
        tokio::spawn(self.clone().hear(answers, stopped));
        Ok(())
    }

    async fn hear(self, mut answers: Subscription, mut stopped: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                answer = answers.next() => match answer {
                    Some(answer) if answer.no_responders => self.note_silence(&answer.subject),
                    Some(_) => {}
                    None => return,
                },
                _ = stopped.changed() => return,
            }
        }
    }

    fn note_silence(&self, inbox: &str) {
        let kind = inbox.strip_prefix(&self.0.inbox);
        let kind = kind.and_then(|kind| kind.strip_prefix('.'));
        let index = Event::KINDS.iter().position(|known| Some(*known) == kind);
        if let Some(index) = index {
            let until = self.elapsed_ms() + QUIET.as_millis() as u64;
            self.0.kinds[index]
                .quiet_until
                .store(until, Ordering::Relaxed);
        }
    }

    fn elapsed_ms(&self) -> u64 {
        self.0.started.elapsed().as_millis() as u64
    }

    /// Publishes an event, unless nobody would hear it.
    pub fn publish(&self, event: &Event) {
        let interest = &self.0.kinds[event.kind_index()];
        let now = self.elapsed_ms();
        if now < interest.quiet_until.load(Ordering::Relaxed) {
            return;
        }
        let kind = Event::KINDS[event.kind_index()];
        let asks = now >= interest.ask_again_at.load(Ordering::Relaxed);
        if asks {
            let again_at = now + ASK_EVERY.as_millis() as u64;
            interest.ask_again_at.store(again_at, Ordering::Relaxed);
        }
        let lost = self.0.broker.publish(Outgoing {
            subject: self.0.prefix.event(kind),
            reply: asks.then(|| format!("{}.{kind}", self.0.inbox)),
            payload: Encoding::Json.encode(event),
            ..Outgoing::default()
        });
        if let Err(error) = lost {
            tracing::debug!(%error, "an event was lost");
        }
    }
}
