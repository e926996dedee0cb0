//! What the dashboard shows, gathered once a second while somebody looks.
//!
//! Each second the asked node hears what every node says of itself, and asks for locks, queues and
//! the rest as a client would; the result is one JSON document for all viewers. What cannot be had
//! is left out and said in `missing`, so that the page shows the rest. Nobody looks: nothing is done, but
//! that each node remembers the last 15 minutes of requests ([`super::history`]).
//!
//! Limits: the first [`ROWS`] locks, sessions and topics; the newest [`EVENTS_KEPT`] events; up to
//! [`VIEWERS_MAX`] viewers. Events are those that are rare on a healthy cluster ([`EVENTS`]): to tell
//! every grant would cost a busy cluster more than its page is worth.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use crate::broker::own::{AskError, OwnRequests};
use crate::broker::{SharedBroker, Subscription};
use crate::config::AdminToken;
use crate::ids::NodeId;
use crate::monitor::history::{self, Told};
use crate::monitor::http::{Acting, Dashboard, NoReply};
use crate::monitor::insight::Insight;
use crate::protocol::{Operation, Prefix};
use crate::raft::network::Network;
use crate::time;

/// The kind of call by which nodes tell each other what they say of themselves.
pub const REPORT: &str = "monitor.report";
/// The same for what they remember of the last 15 minutes.
pub const HISTORY: &str = "monitor.history";

/// Between two documents.
const EVERY: Duration = Duration::from_secs(1);
/// A node that does not answer within this is shown as gone.
const REPORT_MAX: Duration = Duration::from_millis(700);
/// The same for what is asked of the cluster.
const ASK_MAX: Duration = Duration::from_millis(900);
/// How long somebody who acts waits for the answer.
const ACT_MAX: Duration = Duration::from_secs(5);
/// Rows of each table.
const ROWS: usize = 200;
/// Events that a new viewer sees.
const EVENTS_KEPT: usize = 50;
/// Events that came and were not yet looked at; more in a second are not shown.
const EVENTS_MAX: usize = 256;
/// Viewers at a time; fewer than connections, so that scrapers and probes always get one.
pub const VIEWERS_MAX: usize = 32;

/// Events that the page shows, below `<prefix>.event.`.
const EVENTS: [&str; 6] = [
    "lock.deadlock",
    "lock.expired",
    "session.expired",
    "session.closed",
    "queue.>",
    "cache.invalidate",
];

/// What may be done from the page, with the token.
const ACTIONS: [Operation; 7] = [
    Operation::AdminLockRelease,
    Operation::AdminSessionClose,
    Operation::AdminQueuePurge,
    Operation::QueuePause,
    Operation::QueuePeek,
    Operation::QueueRedrive,
    Operation::QueueResume,
];

/// Gathers documents while somebody looks.
pub struct Board {
    me: NodeId,
    prefix: Prefix,
    network: Network,
    insight: Arc<Insight>,
    broker: SharedBroker,
    own: OwnRequests,
    token: Option<AdminToken>,
    document: watch::Sender<Bytes>,
    /// Somebody begins to look.
    looked_at: Notify,
}

/// One second of the cluster. Parts come as other nodes wrote them.
#[derive(Serialize)]
struct Document<'a> {
    /// The node that gathered it.
    node: NodeId,
    version: &'static str,
    /// Unix time.
    at_ms: u64,
    /// Whether the page may change things, for who has the token.
    can_act: bool,
    nodes: Vec<Seen<'a>>,
    parts: BTreeMap<&'static str, &'a RawValue>,
    /// What could not be had, and why.
    missing: BTreeMap<&'static str, String>,
    events: Vec<&'a RawValue>,
}

#[derive(Serialize)]
struct Seen<'a> {
    node: NodeId,
    /// Null for the node that gathered the document.
    round_trip_us: Option<u64>,
    /// Null when the node did not answer.
    report: Option<&'a RawValue>,
}

/// What the board is made of.
pub struct Parts {
    pub me: NodeId,
    pub prefix: Prefix,
    pub network: Network,
    pub insight: Arc<Insight>,
    pub broker: SharedBroker,
    pub own: OwnRequests,
    pub token: Option<AdminToken>,
}

impl Board {
    /// Ready to gather, until `stopped`.
    pub fn start(parts: Parts, stopped: watch::Receiver<bool>) -> Arc<Board> {
        let board = Arc::new(Board {
            me: parts.me,
            prefix: parts.prefix,
            network: parts.network,
            insight: parts.insight,
            broker: parts.broker,
            own: parts.own,
            token: parts.token,
            document: watch::Sender::new(Bytes::new()),
            looked_at: Notify::new(),
        });
        tokio::spawn(board.clone().run(stopped));
        board
    }

    async fn run(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = self.looked_at.notified() => {}
                _ = stopped.changed() => return,
            }
            tokio::select! {
                () = self.gather_while_looked_at() => {}
                _ = stopped.changed() => return,
            }
        }
    }

    async fn gather_while_looked_at(&self) {
        let mut events = Vec::new();
        for kind in EVENTS {
            let subject = self.prefix.event(kind);
            if let Ok(subscription) = self.broker.subscribe(subject, EVENTS_MAX).await {
                events.push(subscription);
            }
        }
        let mut kept = VecDeque::new();
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.document.receiver_count() > 0 {
            tick.tick().await;
            take_events(&mut events, &mut kept);
            let document = self.gather(&kept).await;
            self.document.send_replace(document);
        }
        // Whoever looks next does not see what is old by then.
        self.document.send_replace(Bytes::new());
    }

    async fn gather(&self, events: &VecDeque<Box<RawValue>>) -> Bytes {
        let listing = format!("{{\"limit\":{ROWS}}}");
        let asked = [
            ("locks", Operation::LockList, listing.as_str()),
            ("graph", Operation::LockGraph, "{}"),
            ("deadlocks", Operation::LockDeadlocks, "{\"limit\":10}"),
            ("sessions", Operation::SessionList, listing.as_str()),
            ("queues", Operation::QueueList, listing.as_str()),
        ];
        let asking = asked.map(|(part, operation, body)| async move {
            let body = Bytes::copy_from_slice(body.as_bytes());
            (part, self.own.ask(operation, &body, ASK_MAX).await)
        });
        let reports = self.told(REPORT, self.insight.report());
        let (nodes, answers) = tokio::join!(reports, join_all(asking));
        let (mut parts, mut missing) = (BTreeMap::new(), BTreeMap::new());
        for (part, answer) in &answers {
            match answer.as_ref().map(|answer| serde_json::from_slice(answer)) {
                Ok(Ok(raw)) => {
                    parts.insert(*part, raw);
                }
                Ok(Err(_)) => {
                    missing.insert(*part, "not readable".to_owned());
                }
                Err(error) => {
                    missing.insert(*part, error.to_string());
                }
            }
        }
        let seen = nodes.iter().map(|(node, answer)| Seen {
            node: *node,
            round_trip_us: answer
                .as_ref()
                .and_then(|(_, round_trip_us)| *round_trip_us),
            report: answer
                .as_ref()
                .and_then(|(report, _)| serde_json::from_slice(report).ok()),
        });
        let document = Document {
            node: self.me,
            version: env!("CARGO_PKG_VERSION"),
            at_ms: time::unix_ms(),
            can_act: self.token.is_some(),
            nodes: seen.collect(),
            parts,
            missing,
            events: events.iter().map(|event| &**event).collect(),
        };
        json(&document)
    }

    /// What each node says to a kind of call, and how long the answer took; `own` is what this one says.
    async fn told(
        &self,
        kind: &'static str,
        own: Bytes,
    ) -> Vec<(NodeId, Option<(Bytes, Option<u64>)>)> {
        let members = self.insight.handle.status().members;
        let own = &own;
        let asking = members.keys().map(|node| async move {
            if *node == self.me {
                return (*node, Some((own.clone(), None)));
            }
            let asked = time::now();
            let call = self.network.call(*node, kind, Bytes::new(), REPORT_MAX);
            let answer = call.await.ok();
            let round_trip_us = asked.elapsed().as_micros() as u64;
            (*node, answer.map(|report| (report, Some(round_trip_us))))
        });
        join_all(asking).await
    }
}

/// What is told, to pages and between nodes.
pub fn json(told: &impl Serialize) -> Bytes {
    serde_json::to_vec(told)
        .expect("it has a form in JSON")
        .into()
}

/// Newest first.
fn take_events(subscriptions: &mut [Subscription], kept: &mut VecDeque<Box<RawValue>>) {
    #[derive(Serialize)]
    struct Event<'a> {
        at_ms: u64,
        subject: &'a str,
        event: &'a RawValue,
    }
    let at_ms = time::unix_ms();
    for subscription in subscriptions {
        for _ in 0..EVENTS_MAX {
            let Some(message) = subscription.try_next() else {
                break;
            };
            let Ok(event) = serde_json::from_slice(&message.payload) else {
                continue;
            };
            let shown = Event {
                at_ms,
                subject: &message.subject,
                event,
            };
            let shown = serde_json::value::to_raw_value(&shown);
            kept.push_front(shown.expect("it has a form in JSON"));
            kept.truncate(EVENTS_KEPT);
        }
    }
}

impl Dashboard for Board {
    fn watch(&self) -> Option<watch::Receiver<Bytes>> {
        let room = self.document.receiver_count() < VIEWERS_MAX;
        let receiver = room.then(|| self.document.subscribe());
        self.looked_at.notify_one();
        receiver
    }

    fn history(&self) -> BoxFuture<'_, Bytes> {
        Box::pin(async {
            let told = self.told(HISTORY, json(&self.insight.told())).await;
            let read = |(_, answer): &(_, Option<(Bytes, _)>)| {
                let (history, _) = answer.as_ref()?;
                serde_json::from_slice::<Told>(history).ok()
            };
            let told: Vec<Told> = told.iter().filter_map(read).collect();
            let bounds_ns = self.insight.bounds_ns();
            json(&history::together(time::unix_ms(), bounds_ns, &told))
        })
    }

    fn act<'a>(&'a self, token: Option<&str>, operation: &str, body: &'a Bytes) -> Acting<'a> {
        let known = ACTIONS
            .into_iter()
            .find(|action| action.name() == operation);
        let allowed = match (&self.token, token) {
            (None, _) => Err("this node has no admin token: it only shows"),
            (Some(right), Some(given)) if right.is(given) => {
                known.ok_or("that cannot be done from here")
            }
            (Some(_), _) => Err("the admin token is missing or wrong"),
        };
        Box::pin(async move {
            let operation = allowed.map_err(NoReply::Forbidden)?;
            tracing::info!(%operation, "request of an operator over HTTP");
            let answer = self.own.ask(operation, body, ACT_MAX).await;
            answer.map_err(|error| match error {
                AskError::Timeout => NoReply::Unknown,
                AskError::Full => NoReply::Busy,
            })
        })
    }
}
