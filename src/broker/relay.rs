//! Requests that another node has to execute: the owner of a topic, the home of a key.
//!
//! ```text
//!   client ──► any node ──── <prefix>.int.relay.<executor>.take ───► executor ──► client
//!                 ▲                                                     (its own reply subject)
//!                 └── nobody listens there: the client hears `reconfiguring` from here
//! ```
//!
//! A request travels as it came, with its client's reply subject and what is left of its time, and
//! at most once: an executor that is not the right one either refuses it. The executor answers; who
//! handed it on keeps nothing but its reply subject, for the moment in which a broker says that
//! nobody listens. An executor that dies leaves its client without an answer, which means unknown.
//!
//! What arrives twice, or after its client gave up, is not executed ([`gate`]).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::broker::SubscribeError;
use crate::broker::relay::gate::{Admission, Gate, Mark};
use crate::ids::NodeId;
use crate::protocol::{Code, Encoding, ErrorReply, Refusal, ReplyTo};
use crate::raft::posts::{Arrival, Lane, Post, PostError, Posts, Unheard};
use crate::stats::{self, Stats};
use crate::time::{self, Instant};

pub mod gate;

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
    pub payload: &'a Bytes,
}

/// A request as it travels.
#[derive(Debug, Serialize, Deserialize)]
struct Relayed<'a> {
    /// By the sender's clock.
    sent_ms: u64,
    left_ms: u64,
    subject: &'a str,
    reply: &'a str,
    content_type: Option<&'a str>,
    message_id: Option<&'a str>,
    #[serde(borrow, with = "serde_bytes")]
    payload: &'a [u8],
}

/// The way to other nodes for requests; clones share it.
#[derive(Clone)]
pub struct Relay(Arc<Shared>);

struct Shared {
    posts: Posts,
    stats: Arc<Stats>,
    started: Instant,
    sent: Mutex<VecDeque<Sent>>,
}

/// A request that left.
struct Sent {
    number: u64,
    reply: String,
    encoding: Encoding,
}

/// What comes out of the relay for this node.
pub enum Handed<'a> {
    /// To be executed here, until the deadline.
    Request(Incoming<'a>, Instant),
    /// To be answered: its executor does not listen.
    Refused(ReplyTo, Refusal),
}

impl Relay {
    pub fn new(posts: Posts, stats: Arc<Stats>) -> Self {
        Relay(Arc::new(Shared {
            posts,
            stats,
            started: time::now(),
            sent: Mutex::new(VecDeque::new()),
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
        let left = deadline.saturating_duration_since(time::now());
        if left < Duration::from_millis(1) {
            return Err(Box::new(ErrorReply::new(
                Code::Timeout,
                "its time was over before it could be handed on",
            )));
        }
        let relayed = Relayed {
            sent_ms: self.elapsed_ms(),
            left_ms: left.as_millis() as u64,
            subject: incoming.subject,
            reply: &reply.subject,
            content_type: incoming.content_type,
            message_id: incoming.message_id,
            payload: incoming.payload,
        };
        let hint = 64 + incoming.subject.len() + reply.subject.len() + incoming.payload.len();
        let sent = self
            .0
            .posts
            .send(to, Lane::Relay, &relayed, (hint, Unheard::Tell));
        let number = sent.map_err(|error| not_sent(to, error))?;
        let mut sent = self.0.sent.lock().expect("no holder panics");
        if sent.len() >= SENT_KEPT {
            sent.pop_front();
        }
        sent.push_back(Sent {
            number,
            reply: reply.subject.clone(),
            encoding: reply.encoding,
        });
        Ok(())
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

    fn admit(&self, gate: &mut Gate, post: &Post, take: &impl Fn(Handed<'_>)) {
        let Ok(relayed) = post.body::<Relayed<'_>>() else {
            self.0.stats.raft.frame_refused(stats::Refusal::Malformed);
            return;
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
                    payload: &payload,
                };
                let deadline = time::now() + Duration::from_millis(left_ms);
                take(Handed::Request(incoming, deadline));
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
        if let Some(Sent {
            reply, encoding, ..
        }) = found
        {
            let to = ReplyTo {
                subject: reply,
                encoding,
            };
            take(Handed::Refused(to, nobody_listens()));
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
        "the nodes are about to agree on who executes this; try again",
    ))
}

fn nobody_listens() -> Refusal {
    Box::new(ErrorReply::new(
        Code::Reconfiguring,
        "the node that executes this does not listen; another one is about to take over",
    ))
}

fn not_sent(to: NodeId, error: PostError) -> Refusal {
    let reply = match error {
        PostError::TooLarge => ErrorReply::new(
            Code::PayloadTooLarge,
            format!("too large to be handed on to node {to}, which executes it; ask that node"),
        ),
        PostError::Disconnected | PostError::Full => ErrorReply::new(
            Code::Reconfiguring,
            format!("not handed on to node {to}, which executes it: {error}"),
        ),
    };
    Box::new(reply)
}
