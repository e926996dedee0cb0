//! Messages between nodes that have no answer of their own: requests that are handed on, and what
//! the caches say to each other.
//!
//! They travel on the connection for clients, so that they never delay Raft. Each is a frame: the
//! receiver sees which node, which run of it and which data directory it comes from, and takes it
//! only from a data directory that the membership names. Delivery is the broker's: at most once, and
//! perhaps late. A sender that asks for it hears at once that nobody listens at the other end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde::Serialize;

use super::frame::{self, Frame, Header};
pub use super::frame::{FrameError, Lane};
use super::network::{Identity, KnownDisk};
use crate::broker::{Outgoing, PublishError, SharedBroker, SubscribeError, Subscription};
use crate::ids::{BootId, NodeId};

/// The last token of the subject that a node takes messages on, and of the one where it hears that
/// nobody took its own.
const TAKE: &str = "take";
const UNHEARD: &str = "unheard";

/// One node's way to send and take such messages; clones share it.
#[derive(Clone)]
pub struct Posts {
    shared: Arc<Shared>,
}

struct Shared {
    identity: Identity,
    broker: SharedBroker,
    prefix: String,
    known_disk: KnownDisk,
    last_number: AtomicU64,
    refused: AtomicU64,
}

/// Why a message did not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    #[error("this node is not connected to the broker")]
    Disconnected,
    #[error("the queue to the broker is full")]
    Full,
    #[error("larger than a frame")]
    TooLarge,
}

/// Whether the sender wants to hear that nobody listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheard {
    Tell,
    Ignore,
}

impl Posts {
    pub fn new(
        identity: Identity,
        broker: SharedBroker,
        prefix: impl Into<String>,
        known_disk: KnownDisk,
    ) -> Self {
        Posts {
            shared: Arc::new(Shared {
                identity,
                broker,
                prefix: prefix.into(),
                known_disk,
                last_number: AtomicU64::new(0),
                refused: AtomicU64::new(0),
            }),
        }
    }

    pub fn identity(&self) -> Identity {
        self.shared.identity
    }

    /// Frames that did not decode or came from a data directory that the membership does not name.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Sends one message to one node. Its number is greater than that of every earlier one.
    ///
    /// # Errors
    /// When the message certainly did not leave.
    pub fn send(
        &self,
        to: NodeId,
        lane: Lane,
        body: &impl Serialize,
        (size_hint, unheard): (usize, Unheard),
    ) -> Result<u64, PostError> {
        let number = self.next_number();
        let reply = (unheard == Unheard::Tell).then(|| {
            let Identity { node, boot, .. } = self.shared.identity;
            let inbox = self.subject(lane, node);
            format!("{inbox}.{UNHEARD}.{boot}.{number}")
        });
        let subject = format!("{}.{TAKE}", self.subject(lane, to));
        self.publish((subject, reply), (lane, number), body, size_hint)?;
        Ok(number)
    }

    /// Sends one message to all nodes, this one included.
    ///
    /// # Errors
    /// When the message certainly did not leave.
    pub fn broadcast(
        &self,
        lane: Lane,
        body: &impl Serialize,
        size_hint: usize,
    ) -> Result<(), PostError> {
        let subject = self.family(lane);
        let number = self.next_number();
        self.publish((subject, None), (lane, number), body, size_hint)
    }

    fn publish(
        &self,
        (subject, reply): (String, Option<String>),
        (lane, number): (Lane, u64),
        body: &impl Serialize,
        size_hint: usize,
    ) -> Result<(), PostError> {
        let header = Header::new(lane, &self.shared.identity, None).at(0, number);
        let payload = frame::encode(&header, body, size_hint).map_err(|error| {
            tracing::debug!(%error, lane = lane.token(), "a message cannot be sent");
            PostError::TooLarge
        })?;
        let message = Outgoing {
            subject,
            reply,
            payload,
            ..Outgoing::default()
        };
        self.shared
            .broker
            .publish(message)
            .map_err(|error| match error {
                PublishError::Disconnected => PostError::Disconnected,
                PublishError::Full => PostError::Full,
            })
    }

    /// Subscribes to what is sent to this node alone on `lane`; at most `capacity` wait.
    ///
    /// # Errors
    /// When the broker refuses the subscription.
    pub async fn listen(&self, lane: Lane, capacity: usize) -> Result<Inbox, SubscribeError> {
        let subject = format!("{}.>", self.subject(lane, self.shared.identity.node));
        self.inbox(subject, lane, capacity).await
    }

    /// Subscribes to what is sent to all nodes on `lane`; at most `capacity` wait.
    ///
    /// # Errors
    /// When the broker refuses the subscription.
    pub async fn listen_to_all(
        &self,
        lane: Lane,
        capacity: usize,
    ) -> Result<Inbox, SubscribeError> {
        self.inbox(self.family(lane), lane, capacity).await
    }

    async fn inbox(
        &self,
        subject: String,
        lane: Lane,
        capacity: usize,
    ) -> Result<Inbox, SubscribeError> {
        let messages = self.shared.broker.subscribe(subject, capacity).await?;
        Ok(Inbox {
            posts: self.clone(),
            lane,
            messages,
        })
    }

    fn next_number(&self) -> u64 {
        self.shared.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn family(&self, lane: Lane) -> String {
        format!("{}.int.{}", self.shared.prefix, lane.token())
    }

    fn subject(&self, lane: Lane, node: NodeId) -> String {
        format!("{}.{node}", self.family(lane))
    }
}

/// What comes to this node on one lane.
pub struct Inbox {
    posts: Posts,
    lane: Lane,
    messages: Subscription,
}

/// One message, from a node of the cluster.
#[derive(Debug)]
pub struct Post {
    pub from: NodeId,
    pub boot: BootId,
    /// Greater than that of every earlier message of this boot.
    pub number: u64,
    frame: Frame,
}

#[derive(Debug)]
pub enum Arrival {
    Post(Post),
    /// Nobody listens where this node sent the message of this number.
    Unheard(u64),
}

impl Inbox {
    /// The next that is for this node; what is none is counted and passed over. None when the
    /// broker has gone for good.
    pub async fn next(&mut self) -> Option<Arrival> {
        loop {
            let message = self.messages.next().await?;
            if message.no_responders {
                let number = message.subject.rsplit('.').next();
                match number.and_then(|number| number.parse().ok()) {
                    Some(number) => return Some(Arrival::Unheard(number)),
                    None => continue,
                }
            }
            match self.open(&message.payload) {
                Some(post) => return Some(Arrival::Post(post)),
                None => {
                    self.posts.shared.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn open(&self, payload: &Bytes) -> Option<Post> {
        let frame = Frame::decode(payload).ok()?;
        let Header {
            lane,
            from,
            from_disk,
            from_boot,
            sequence,
            ..
        } = frame.header;
        let known = (self.posts.shared.known_disk)(from) == Some(from_disk);
        (lane == self.lane && known).then_some(Post {
            from,
            boot: from_boot,
            number: sequence,
            frame,
        })
    }
}

impl Post {
    /// The body as a value that may borrow from the received buffer.
    ///
    /// # Errors
    /// When the body is not a `T`.
    pub fn body<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, FrameError> {
        self.frame.body_ref()
    }

    /// A part of the body, sharing the received buffer.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.frame.share(part)
    }
}
