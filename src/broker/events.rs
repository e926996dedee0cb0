//! Events for watchers, spared while nobody watches.
//!
//! An event that no one hears still costs its making and a trip to the broker, at every grant and
//! release. So now and then an event carries a reply subject, at which the broker says if nobody
//! subscribes; events of that kind are then left out for [`QUIET`]. A new watcher therefore may miss
//! what happens in its first moments, as it may at any broker until its interest is known there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;

use crate::broker::{Outgoing, SharedBroker, SubscribeError, Subscription};
use crate::cache::event as cache;
use crate::ids::{BootId, NodeId};
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
    me: NodeId,
    prefix: Prefix,
    broker: SharedBroker,
    /// `<prefix>.int.event.<node>`
    inbox: String,
    started: Instant,
    boot: BootId,
    /// Of locks and sessions, then of the cache.
    kinds: [Interest; KINDS],
}

const KINDS: usize = Event::KINDS.len() + cache::Event::KINDS.len();

/// The last tokens of the subjects that watchers hear of events under.
fn kinds() -> impl Iterator<Item = &'static str> {
    Event::KINDS.into_iter().chain(cache::Event::KINDS)
}

/// An event with the count by which a watcher sees that it missed others.
#[derive(Serialize)]
struct Counted<'a> {
    #[serde(flatten)]
    event: &'a cache::Event,
    node: NodeId,
    /// Tells runs of a node apart: each counts anew.
    boot: String,
    seq: u64,
}

/// What is known about the watchers of one kind of event; milliseconds since the start.
#[derive(Default)]
struct Interest {
    quiet_until: AtomicU64,
    ask_again_at: AtomicU64,
    /// How many there were, told or not.
    count: AtomicU64,
}

impl Events {
    pub fn new((me, boot): (NodeId, BootId), prefix: Prefix, broker: SharedBroker) -> Self {
        Events(Arc::new(Shared {
            me,
            boot,
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
        let index = kinds().position(|known| Some(known) == kind);
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
        let (index, kind) = (event.kind_index(), Event::KINDS[event.kind_index()]);
        self.tell(&self.0.kinds[index], kind, |_| Encoding::Json.encode(event));
    }

    /// The same of the cache, with a count by node and kind.
    pub fn publish_of_cache(&self, event: &cache::Event) {
        let (index, kind) = (event.kind_index(), cache::Event::KINDS[event.kind_index()]);
        self.tell(&self.0.kinds[Event::KINDS.len() + index], kind, |seq| {
            Encoding::Json.encode(&Counted {
                event,
                node: self.0.me,
                boot: self.0.boot.to_string(),
                seq,
            })
        });
    }

    fn tell(&self, interest: &Interest, kind: &str, payload: impl FnOnce(u64) -> Bytes) {
        let seq = interest.count.fetch_add(1, Ordering::Relaxed) + 1;
        let now = self.elapsed_ms();
        if now < interest.quiet_until.load(Ordering::Relaxed) {
            return;
        }
        let asks = now >= interest.ask_again_at.load(Ordering::Relaxed);
        if asks {
            let again_at = now + ASK_EVERY.as_millis() as u64;
            interest.ask_again_at.store(again_at, Ordering::Relaxed);
        }
        let lost = self.0.broker.publish(Outgoing {
            subject: self.0.prefix.event(kind),
            reply: asks.then(|| format!("{}.{kind}", self.0.inbox)),
            payload: payload(seq),
            ..Outgoing::default()
        });
        if let Err(error) = lost {
            tracing::debug!(%error, "an event was lost");
        }
    }
}
