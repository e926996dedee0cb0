//! Requests that another node has to execute: the owner of a topic, the home of a key.
//!
//! ```text
//!   client ──► any node ──── <prefix>.int.relay.<executor>.take ───► executor ──► client
//!                 ▲                                                     (its own reply subject)
//!                 └── no node listens there: the client hears `reconfiguring` from here
//! ```
//!
//! A request travels as it came, with its client's reply subject and what is left of its time, and
//! at most once: an executor that is not the right one either refuses it. The executor answers; who
//! handed it on keeps nothing but its reply subject, for the moment in which a broker says that
//! nobody listens. An executor that dies leaves its client without an answer, which means unknown.
//!
//! A request that may wait there is kept here, until the executor says that it ended ([`kept`]). When
//! the executor leaves the view instead, the request is handed on again.
//!
//! What arrives twice, or after its client gave up, is not executed ([`gate`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::broker::SubscribeError;
use crate::broker::relay::gate::{Admission, Gate, Mark};
use crate::broker::relay::kept::{Kept, Waiting};
use crate::ids::{BootId, NodeId};
use crate::protocol::{Code, ErrorReply, Refusal, ReplyTo};
use crate::raft::posts::{Arrival, Lane, Post, PostError, Posts, Unheard};
use crate::stats::{self, Stats};
use crate::time::{self, Instant};
use crate::view::tenure::Stay;

pub mod gate;
pub mod kept;

/// Requests whose executor may turn out not to listen: a broker says so within milliseconds.
const SENT_KEPT: usize = 8_192;
/// Requests handed to this node and not yet looked at; the broker's client drops what is beyond.
const TAKEN_MAX: usize = 65_536;

/// A message from a client, as the broker brought it.
pub struct Incoming<'a> {
    pub subject: &'a str,
    pub reply: Option<&'a str>,
    pub content_type: Option<&'a str>,
    pub message_id: Option<&'a str>,
    /// Which trace it belongs to, if its client says so.
    pub traceparent: Option<&'a str>,
    pub payload: &'a Bytes,
}

/// A message from a client that is kept for later.
#[derive(Clone, Debug)]
pub struct Letter {
    subject: String,
    content_type: Option<String>,
    message_id: Option<String>,
    payload: Bytes,
}

impl Letter {
    pub fn of(incoming: &Incoming<'_>) -> Self {
        Letter {
            subject: incoming.subject.to_owned(),
            content_type: incoming.content_type.map(str::to_owned),
            message_id: incoming.message_id.map(str::to_owned),
            // A share of the received buffer would hold all of it.
            payload: Bytes::copy_from_slice(incoming.payload),
        }
    }

    /// The message with the way back, and the trace, that were kept beside it.
    pub fn incoming<'a>(&'a self, reply: &'a str, traceparent: Option<&'a str>) -> Incoming<'a> {
        Incoming {
            subject: &self.subject,
            reply: Some(reply),
            content_type: self.content_type.as_deref(),
            message_id: self.message_id.as_deref(),
            traceparent,
            payload: &self.payload,
        }
    }
}

/// What nodes say to each other here.
#[derive(Debug, Serialize, Deserialize)]
enum Said<'a> {
    #[serde(borrow)]
    Request(Relayed<'a>),
    /// Requests of that run of the receiver are over, by the numbers that they came under.
    Ended(BootId, Vec<u64>),
}

/// A request as it travels.
#[derive(Debug, Serialize, Deserialize)]
struct Relayed<'a> {
    /// By the sender's clock.
    sent_ms: u64,
    left_ms: u64,
    /// The sender wants to hear when it has ended.
    kept: bool,
    /// It may have been handed on before, to a node that is gone.
    again: bool,
    subject: &'a str,
    reply: &'a str,
    content_type: Option<&'a str>,
    message_id: Option<&'a str>,
    #[serde(borrow, with = "serde_bytes")]
    payload: &'a [u8],
    /// Last, and left out of most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
}

/// The way to other nodes for requests; clones share it.
#[derive(Clone)]
pub struct Relay(Arc<Shared>);

struct Shared {
    posts: Posts,
    stats: Arc<Stats>,
    started: Instant,
    sent: Mutex<VecDeque<Sent>>,
    waiting: Mutex<Waiting>,
    /// Ended here, and not said yet to those who keep them.
    ended: Mutex<BTreeMap<(NodeId, BootId), Vec<u64>>>,
    some_ended: Notify,
}

/// A request that left.
struct Sent {
    number: u64,
    reply: ReplyTo,
}

/// Who keeps a request that was handed on to this node, and under which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeper {
    node: NodeId,
    boot: BootId,
    number: u64,
}

/// How a request came here from another node.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// When it came.
    pub taken_at: Instant,
    /// Its client's deadline.
    pub until: Instant,
    /// To be told when the request has ended ([`Relay::ended`]).
    pub keeper: Option<Keeper>,
    /// It may have been handed on before, to a node that is gone.
    pub again: bool,
}

/// What comes out of the relay for this node.
pub enum Handed<'a> {
    /// To be executed here.
    Request(Incoming<'a>, Way),
    /// To be answered: its executor does not listen.
    Refused(ReplyTo, Refusal),
}

/// A request that may wait at its executor.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Where it goes, as a member of the view.
    pub executor: Stay,
    /// When its wait is over.
    pub wait_until: Instant,
    /// It may have been handed on before, to a node that is gone.
    pub again: bool,
}

impl Relay {
    pub fn new(posts: Posts, stats: Arc<Stats>) -> Self {
        Relay(Arc::new(Shared {
            posts,
            stats,
            started: time::now(),
            sent: Mutex::default(),
            waiting: Mutex::default(),
            ended: Mutex::default(),
            some_ended: Notify::new(),
        }))
    }

    /// Hands a request on to the node that has to execute it, which answers the client.
    ///
    /// # Errors
    /// When it did not leave, or is too late: the caller answers the client.
    pub fn send(
        &self,
        to: NodeId,
        incoming: &Incoming<'_>,
        (reply, deadline): (&ReplyTo, Instant),
    ) -> Result<(), Refusal> {
        self.leave(to, incoming, (reply, deadline), None).map(drop)
    }

    /// The same for a request that may wait there: it is kept here until it has ended.
    ///
    /// # Errors
    /// As those of [`Relay::send`].
    pub fn send_kept(
        &self,
        keep: Keep,
        incoming: &Incoming<'_>,
        (reply, deadline): (&ReplyTo, Instant),
    ) -> Result<(), Refusal> {
        // Locked until it is kept: the word that it ended must not come first.
        let mut waiting = self.0.waiting.lock().expect("no holder panics");
        let has_room = waiting.has_room(time::now());
        let flags = Some((has_room, keep.again));
        let number = self.leave(keep.executor.node, incoming, (reply, deadline), flags)?;
        if has_room {
            waiting.keep(
                number,
                Kept {
                    executor: keep.executor,
                    letter: Letter::of(incoming),
                    reply: reply.clone(),
                    wait_until: keep.wait_until,
                    deadline,
                },
            );
        }
        Ok(())
    }

    /// Sends one request and returns its number. The flags are whether it is kept, and whether it
    /// left before.
    fn leave(
        &self,
        to: NodeId,
        incoming: &Incoming<'_>,
        (reply, deadline): (&ReplyTo, Instant),
        flags: Option<(bool, bool)>,
    ) -> Result<u64, Refusal> {
        let left = deadline.saturating_duration_since(time::now());
        if left < Duration::from_millis(1) {
            return Err(Box::new(ErrorReply::new(
                Code::Timeout,
                "the deadline passed before the request could be forwarded",
            )));
        }
        let (kept, again) = flags.unwrap_or_default();
        let traceparent = reply.trace.onward();
        let relayed = Relayed {
            sent_ms: self.elapsed_ms(),
            left_ms: left.as_millis() as u64,
            kept,
            again,
            subject: incoming.subject,
            reply: &reply.subject,
            content_type: incoming.content_type,
            message_id: incoming.message_id,
            payload: incoming.payload,
            traceparent: traceparent.as_deref(),
        };
        let hint = 72 + incoming.subject.len() + reply.subject.len() + incoming.payload.len();
        let request = Said::Request(relayed);
        let sent = self
            .0
            .posts
            .send(to, Lane::Relay, &request, (hint, Unheard::Tell));
        let number = sent.map_err(|error| not_sent(to, error))?;
        let mut sent = self.0.sent.lock().expect("no holder panics");
        if sent.len() >= SENT_KEPT {
            sent.pop_front();
        }
        sent.push_back(Sent {
            number,
            reply: reply.untraced(),
        });
        Ok(number)
    }

    /// Says, soon, that a request which another node keeps has ended here. To be called right after
    /// its answer left.
    pub fn ended(&self, keeper: Keeper) {
        let mut ended = self.0.ended.lock().expect("no holder panics");
        let numbers = ended.entry((keeper.node, keeper.boot)).or_default();
        numbers.push(keeper.number);
        self.0.some_ended.notify_one();
    }

    /// Requests that wait at other nodes and have not ended there, as far as is known here.
    pub fn kept(&self) -> usize {
        self.0.waiting.lock().expect("no holder panics").len()
    }

    /// Takes out the kept requests whose executor's stay is over.
    pub fn take_orphans(&self, stays: impl Fn(Stay) -> bool) -> Vec<Kept> {
        let mut waiting = self.0.waiting.lock().expect("no holder panics");
        waiting.take_orphans(time::now(), stays)
    }

    /// Takes what is handed to this node, until `stopped`.
    ///
    /// # Errors
    /// When the broker refuses the subscription.
    pub async fn listen(
        &self,
        take: impl Fn(Handed<'_>) + Send + 'static,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<(), SubscribeError> {
        let mut inbox = self.0.posts.listen(Lane::Relay, TAKEN_MAX).await?;
        tokio::spawn(self.clone().say_what_ended(stopped.clone()));
        let relay = self.clone();
        tokio::spawn(async move {
            let mut gate = Gate::default();
            loop {
                let arrival = tokio::select! {
                    biased;
                    _ = stopped.changed() => return,
                    arrival = inbox.next() => arrival,
                };
                match arrival {
                    Some(Arrival::Post(post)) => relay.admit(&mut gate, &post, &take),
                    Some(Arrival::Unheard(number)) => relay.unheard(number, &take),
                    None => return,
                }
            }
        });
        Ok(())
    }

    /// One message carries all that ended while the one before was written.
    async fn say_what_ended(self, mut stopped: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                biased;
                _ = stopped.changed() => return,
                () = self.0.some_ended.notified() => {}
            }
            let ended = std::mem::take(&mut *self.0.ended.lock().expect("no holder panics"));
            for ((node, boot), numbers) in ended {
                let hint = 32 + 9 * numbers.len();
                let said = Said::Ended(boot, numbers);
                let sent = self
                    .0
                    .posts
                    .send(node, Lane::Relay, &said, (hint, Unheard::Ignore));
                if let Err(error) = sent {
                    tracing::debug!(%node, %error, "a node was not told which requests ended");
                }
            }
        }
    }

    fn admit(&self, gate: &mut Gate, post: &Post, take: &impl Fn(Handed<'_>)) {
        let relayed = match post.body::<Said<'_>>() {
            Ok(Said::Request(relayed)) => relayed,
            Ok(Said::Ended(boot, numbers)) => {
                if boot == self.0.posts.identity().boot {
                    let mut waiting = self.0.waiting.lock().expect("no holder panics");
                    numbers.into_iter().for_each(|number| waiting.end(number));
                }
                return;
            }
            Err(_) => {
                self.0.stats.raft.frame_refused(stats::Refusal::Malformed);
                return;
            }
        };
        let mark = Mark {
            from: post.from,
            boot: post.boot,
            number: post.number,
            sent_ms: relayed.sent_ms,
            left_ms: relayed.left_ms,
        };
        match gate.admit(mark, self.elapsed_ms()) {
            Admission::Taken { left_ms } => {
                let payload = post.share(relayed.payload);
                let incoming = Incoming {
                    subject: relayed.subject,
                    reply: Some(relayed.reply),
                    content_type: relayed.content_type,
                    message_id: relayed.message_id,
                    traceparent: relayed.traceparent,
                    payload: &payload,
                };
                let keeper = Keeper {
                    node: post.from,
                    boot: post.boot,
                    number: post.number,
                };
                let taken_at = time::now();
                let way = Way {
                    taken_at,
                    until: taken_at + Duration::from_millis(left_ms),
                    keeper: relayed.kept.then_some(keeper),
                    again: relayed.again,
                };
                take(Handed::Request(incoming, way));
            }
            Admission::Repeated | Admission::Late => {
                self.0.stats.raft.frame_refused(stats::Refusal::Forward);
            }
        }
    }

    fn unheard(&self, number: u64, take: &impl Fn(Handed<'_>)) {
        let found = {
            let mut sent = self.0.sent.lock().expect("no holder panics");
            let at = sent.binary_search_by_key(&number, |sent| sent.number);
            at.ok().and_then(|at| sent.remove(at))
        };
        if let Some(Sent { reply, .. }) = found {
            self.0.waiting.lock().expect("no holder panics").end(number);
            take(Handed::Refused(reply, nobody_listens()));
        }
    }

    fn elapsed_ms(&self) -> u64 {
        self.0.started.elapsed().as_millis() as u64
    }
}

/// The refusal of a request that was handed on before and does not belong here either: two nodes
/// act on different views for a moment, and it must not travel between them.
pub fn handed_on_twice() -> Refusal {
    Box::new(ErrorReply::new(
        Code::Reconfiguring,
        "the nodes disagree for a moment on which of them serves this; try again",
    ))
}

fn nobody_listens() -> Refusal {
    Box::new(ErrorReply::new(
        Code::Reconfiguring,
        "the node that serves this is not listening; another one will take over; try again",
    ))
}

fn not_sent(to: NodeId, error: PostError) -> Refusal {
    let reply = match error {
        PostError::TooLarge => ErrorReply::new(
            Code::PayloadTooLarge,
            format!("too large to be forwarded to node {to}, which serves it; ask that node"),
        ),
        PostError::Disconnected | PostError::Full => ErrorReply::new(
            Code::Reconfiguring,
            format!("not forwarded to node {to}, which serves it: {error}"),
        ),
    };
    Box::new(reply)
}
