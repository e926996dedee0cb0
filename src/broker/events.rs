//! Events for watchers, spared while nobody watches.
//!
//! An event that no one hears still costs its making and a trip to the broker, at every grant and
//! release. So now and then an event carries a reply subject, at which the broker says if nobody
//! subscribes; events of that kind are then left out for [`QUIET`]. A new watcher therefore may miss
//! what happens in its first moments, as it may at any broker until its interest is known there.
//!
//! What concerns one tenant alone is told twice: to who watches everything, with the names from inside,
//! and to the tenant, with the names that it knows. Whose it is the name says, so names with a `/` of
//! clients outside all tenants look like a tenant's, and cost a question now and then.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;

use crate::broker::{Outgoing, SharedBroker, SubscribeError, Subscription};
use crate::cache::event as cache;
use crate::ids::{BootId, NodeId};
use crate::lock::event::Event;
use crate::protocol::tenant::outward::Outward;
use crate::protocol::{Encoding, Prefix, Tenant};
use crate::time::{self, Instant};

/// How long events are left out after the broker said that nobody listens.
pub const QUIET: Duration = Duration::from_millis(100);
/// How often an event asks whether anybody listens.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Answers not yet looked at. One that is lost costs a few events that nobody hears.
const ANSWERS_MAX: usize = 1_024;
/// Tenants whose watchers are known at a time; further ones with watchers are not told. Accounts are made
/// by operators: there are not many.
const TENANTS_MAX: usize = 10_000;

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
    /// Of who watches everything.
    all: Kinds,
    /// Of tenants, who watch what is theirs.
    tenants: Mutex<HashMap<Tenant, Arc<Kinds>>>,
}

/// Of locks and sessions, then of the cache.
type Kinds = [Interest; KINDS];

const KINDS: usize = Event::KINDS.len() + cache::Event::KINDS.len();

/// The last tokens of the subjects that watchers hear of events under.
fn kinds() -> impl Iterator<Item = &'static str> {
    Event::KINDS.into_iter().chain(cache::Event::KINDS)
}

/// An event with the count by which a watcher sees that it missed others.
#[derive(Serialize)]
struct Counted<'a> {
    #[serde(flatten)]
    event: Cow<'a, cache::Event>,
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
            all: Kinds::default(),
            tenants: Mutex::default(),
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

    /// The broker has answered that nobody listens: `inbox` is where it was asked to say so.
    fn note_silence(&self, inbox: &str) {
        let until_ms = self.elapsed_ms() + QUIET.as_millis() as u64;
        let asked = inbox.strip_prefix(&self.0.inbox);
        let Some(asked) = asked.and_then(|asked| asked.strip_prefix('.')) else {
            return;
        };
        let (account, kind) = match asked.strip_prefix("t.").map(|asked| asked.split_once('.')) {
            None => (None, asked),
            Some(Some((account, kind))) => (Some(account), kind),
            Some(None) => return,
        };
        let Some(index) = kinds().position(|known| known == kind) else {
            return;
        };
        let Some(account) = account else {
            return self.0.all[index].be_quiet(until_ms);
        };
        let tenants = self.0.tenants.lock().expect("no holder panics");
        let known = Tenant::of_account(account).and_then(|tenant| tenants.get(&tenant));
        if let Some(interests) = known {
            interests[index].be_quiet(until_ms);
        }
    }

    fn elapsed_ms(&self) -> u64 {
        self.0.started.elapsed().as_millis() as u64
    }

    /// Publishes an event, unless nobody would hear it.
    pub fn publish(&self, event: &Event) {
        self.tell(event.kind_index(), event.tenant(), |_, _| event);
    }

    /// The same of the cache, with a count by node and kind.
    pub fn publish_of_cache(&self, event: &cache::Event) {
        let index = Event::KINDS.len() + event.kind_index();
        self.tell(index, event.tenant(), |seq, tenant| Counted {
            event: tenant.map_or(Cow::Borrowed(event), |tenant| event.as_seen_by(tenant)),
            node: self.0.me,
            boot: self.0.boot.to_string(),
            seq,
        });
    }

    /// Tells an event of the kind at `index`, made with its count and for the tenant if it is for one, to
    /// everybody who may hear of it.
    fn tell<E: Serialize>(
        &self,
        index: usize,
        tenant: Option<Tenant>,
        event: impl Fn(u64, Option<&Tenant>) -> E,
    ) {
        let kind = kinds().nth(index).expect("events have their kinds");
        let Shared { prefix, inbox, .. } = &*self.0;
        let now = self.elapsed_ms();
        if let Some(due) = self.0.all[index].due(now) {
            let inbox = due.asks.then(|| format!("{inbox}.{kind}"));
            self.send(
                prefix.event(kind),
                inbox,
                Encoding::Json.encode(&event(due.seq, None)),
            );
        }
        let Some(tenant) = tenant else { return };
        let Some(interests) = self.interests_of(&tenant) else {
            return;
        };
        if let Some(due) = interests[index].due(now) {
            let inbox = due.asks.then(|| format!("{inbox}.t.{tenant}.{kind}"));
            let event = event(due.seq, Some(&tenant));
            let shown = Encoding::Json.encode(&Outward::new(&event, &tenant));
            self.send(prefix.tenant_event(&tenant, kind), inbox, shown);
        }
    }

    fn send(&self, subject: String, reply: Option<String>, payload: Bytes) {
        let sent = self.0.broker.publish(Outgoing {
            subject,
            reply,
            payload,
            ..Outgoing::default()
        });
        if let Err(error) = sent {
            tracing::debug!(%error, "an event was lost");
        }
    }

    /// What is known about a tenant's watchers; none when there are too many tenants.
    fn interests_of(&self, tenant: &Tenant) -> Option<Arc<Kinds>> {
        let mut tenants = self.0.tenants.lock().expect("no holder panics");
        if let Some(known) = tenants.get(tenant) {
            return Some(known.clone());
        }
        if tenants.len() >= TENANTS_MAX {
            tenants.retain(|_, interests| interests.iter().any(Interest::is_heard));
        }
        let room = tenants.len() < TENANTS_MAX;
        room.then(|| tenants.entry(tenant.clone()).or_default().clone())
    }
}

/// An event that somebody may hear.
struct Due {
    /// How many of its kind there were, with this one.
    seq: u64,
    /// Whether to ask who hears it.
    asks: bool,
}

impl Interest {
    /// Counts an event; none if nobody would hear it.
    fn due(&self, now_ms: u64) -> Option<Due> {
        let seq = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if now_ms < self.quiet_until.load(Ordering::Relaxed) {
            return None;
        }
        let asks = now_ms >= self.ask_again_at.load(Ordering::Relaxed);
        if asks {
            let again_at = now_ms + ASK_EVERY.as_millis() as u64;
            self.ask_again_at.store(again_at, Ordering::Relaxed);
        }
        Some(Due { seq, asks })
    }

    fn be_quiet(&self, until_ms: u64) {
        self.quiet_until.store(until_ms, Ordering::Relaxed);
    }

    /// Whether the last question was not answered with silence, which would reach beyond the next one.
    fn is_heard(&self) -> bool {
        self.ask_again_at.load(Ordering::Relaxed) > self.quiet_until.load(Ordering::Relaxed)
    }
}
