//! What nodes say to each other and how an answer finds its question.
//!
//! A [`Network`] is one node's end of it. Requests go to `<prefix>.int.raft.<to>.<lane>`, their
//! answers to `<prefix>.int.raft.<me>.reply.<boot>.<id>`, one wildcard subscription; an answer counts
//! only with the id, the sender and the data directory that the question was for. That nobody
//! listens at the other end is known at once; that an answer is late is only known by a timeout. Calls
//! to `<prefix>.int.raft.all.call` reach every node, of whichever number.
//!
//! Delivery is the broker's: at most once. Nothing here retries; openraft and the callers do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::{Handler, Handlers, Trust};
use super::factory::PeerFactory;
use super::frame::{self, Frame, FrameError, Header, Lane};
use super::listener::Listener;
use super::message::{Answer, CallRequest, Refusal};
use super::pending::{Pending, PendingGuard, Replied};
use super::pulse::Pulse;
use crate::broker::{Message, Outgoing, PublishError, SharedBroker, SubscribeError, Subscription};
use crate::ids::{BootId, DiskId, NodeId};
use crate::time::{Instant, now};

/// Between two questions while this node has no connection.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Who this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub node: NodeId,
    pub disk: DiskId,
    pub boot: BootId,
}

/// The data directory that the membership names for a node; none when it does not name the node.
pub type KnownDisk = Arc<dyn Fn(NodeId) -> Option<DiskId> + Send + Sync>;

/// What was sent, received and refused since the start.
#[derive(Debug, Default)]
pub struct Counters {
    pub frames_sent: AtomicU64,
    pub frames_received: AtomicU64,
    /// Bytes that are no frame of this version, and bodies that are not of their lane.
    pub undecodable: AtomicU64,
    /// Frames that mean another data directory under this node's id.
    pub not_for_this_disk: AtomicU64,
    /// Frames from a data directory that the membership does not name for their sender.
    pub from_wrong_disk: AtomicU64,
    /// Frames of a stream or boot that was replaced, and heartbeats older than the last.
    pub outdated: AtomicU64,
    /// Frames of the current stream that came before, or again.
    pub repeated: AtomicU64,
    /// Gaps in streams, each answered with a reset.
    pub gaps: AtomicU64,
    /// Answers to questions that nobody asks any more.
    pub late_answers: AtomicU64,
    /// Frames that found a full table or channel and were dropped.
    pub overflows: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("no node listens there")]
    NoResponders,
    #[error("this node is not connected to the broker")]
    Disconnected,
    #[error("no answer in time")]
    Timeout,
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error("too many questions are open already")]
    Overloaded,
    #[error("the request is larger than a frame")]
    TooLarge,
    #[error("the answer does not decode")]
    BadAnswer,
}

/// One node's end of the network; clones share it.
#[derive(Clone)]
pub struct Network {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub identity: Identity,
    pub broker: SharedBroker,
    prefix: String,
    known_disk: KnownDisk,
    pub pending: Pending,
    pub handlers: Handlers,
    pub counters: Counters,
    /// When each node was last heard of by what only a leader sends.
    heard: Mutex<BTreeMap<NodeId, Instant>>,
    pub pulse: Pulse,
    /// Numbers requests, streams and transfers alike: greater is later.
    last_number: AtomicU64,
}

impl Network {
    /// `prefix` is the cluster's subject prefix; `known_disk` answers from the committed membership.
    pub fn new(
        identity: Identity,
        broker: SharedBroker,
        prefix: impl Into<String>,
        known_disk: KnownDisk,
    ) -> Self {
        Network {
            shared: Arc::new(Shared {
                identity,
                broker,
                prefix: prefix.into(),
                known_disk,
                pending: Pending::default(),
                handlers: Handlers::default(),
                counters: Counters::default(),
                heard: Mutex::default(),
                pulse: Pulse::default(),
                last_number: AtomicU64::new(0),
            }),
        }
    }

    /// What openraft makes its connections with: they say nothing for `silence` to a peer that left what it was
    /// sent without an answer.
    pub fn factory(&self, silence: Duration) -> PeerFactory {
        PeerFactory::new(self.clone(), silence)
    }

    pub fn identity(&self) -> Identity {
        self.shared.identity
    }

    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Has `handler` answer calls of `kind`; a later one for the same kind replaces it.
    pub fn handle(&self, kind: &'static str, trust: Trust, handler: Handler) {
        self.shared.handlers.insert(kind, trust, handler);
    }

    /// Subscribes to answers and calls. Nothing is answered, and no request gets its answer, until
    /// the [`Listener`] runs.
    ///
    /// # Errors
    /// When the broker refuses the subscriptions.
    pub async fn listen(&self) -> Result<Listener, SubscribeError> {
        /// A burst of answers: all windows of a few peers, and every open call once.
        const ANSWERS_MAX: usize = 4096;
        /// Calls that wait for this node; further ones are lost and time out at their callers.
        const CALLS_MAX: usize = 4096;
        let answers = format!("{}.>", self.inbox());
        let broker = &self.shared.broker;
        let answers = broker.subscribe(answers, ANSWERS_MAX).await?;
        let calls = self.subscribe(Lane::Call, CALLS_MAX).await?;
        let calls_to_all = broker.subscribe(self.to_all(), CALLS_MAX).await?;
        Ok(Listener::new(self.clone(), answers, [calls, calls_to_all]))
    }

    /// Asks another part's handler on node `to`: the answer, or why there is none. A
    /// [`CallError::Timeout`] leaves open whether the handler ran.
    ///
    /// # Errors
    /// See [`CallError`]; every one but `Timeout` and `BadAnswer` means that the handler did not act.
    pub async fn call(
        &self,
        to: NodeId,
        kind: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let request = CallRequest {
            kind: kind.to_owned(),
            body,
        };
        let hint = request.body.len() + kind.len();
        let target = Target {
            node: to,
            disk: self.known_disk(to),
        };
        match self
            .ask(Lane::Call, target, &request, hint, timeout)
            .await?
        {
            Answer::Call(answer) => Ok(answer),
            _ => Err(CallError::BadAnswer),
        }
    }

    /// The same, again and again while this node has no connection.
    ///
    /// # Errors
    /// As [`Network::call`], but for [`CallError::Disconnected`].
    pub async fn call_connected(
        &self,
        to: NodeId,
        kind: &str,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        loop {
            match self.call(to, kind, Bytes::new(), timeout).await {
                Err(CallError::Disconnected) => tokio::time::sleep(AGAIN_AFTER).await,
                answer => return answer,
            }
        }
    }

    /// Asks every node that there is, this one included: the answers that come `within`.
    ///
    /// # Errors
    /// When the question did not leave.
    pub async fn call_all(&self, kind: &str, within: Duration) -> Result<Vec<Bytes>, CallError> {
        /// More nodes than a cluster has.
        const ANSWERS_MAX: usize = 256;
        let request = CallRequest {
            kind: kind.to_owned(),
            body: Bytes::new(),
        };
        let id = self.next_number();
        let (_guard, mut replies) = self.expect_answers(id, None, ANSWERS_MAX)?;
        let header = Header::new(Lane::Call, &self.shared.identity, None).at(0, id);
        self.send_to(self.to_all(), &header, &request, kind.len(), id)?;
        let until = now() + within;
        let mut answers = Vec::new();
        while let Ok(Some(reply)) = tokio::time::timeout_at(until, replies.recv()).await {
            if let Replied::Frame(frame) = reply
                && let Ok(Ok(Answer::Call(answer))) = frame.body::<Result<Answer, Refusal>>()
            {
                answers.push(answer);
            }
        }
        Ok(answers)
    }

    /// One question, one answer, matched by id.
    pub(super) async fn ask(
        &self,
        lane: Lane,
        to: Target,
        body: &impl Serialize,
        size_hint: usize,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        let id = self.next_number();
        let (guard, mut answers) = self.expect_answers(id, Some(to), 1)?;
        let header = Header::new(lane, &self.shared.identity, to.disk).at(0, id);
        self.send(to.node, &header, body, size_hint, id)?;
        let replied = tokio::time::timeout(timeout, answers.recv()).await;
        drop(guard);
        match replied {
            Err(_) => Err(CallError::Timeout),
            Ok(Some(Replied::Frame(frame))) => match frame.body::<Result<Answer, Refusal>>() {
                Ok(answer) => answer.map_err(CallError::Refused),
                Err(_) => Err(CallError::BadAnswer),
            },
            Ok(Some(Replied::NoResponders) | None) => Err(CallError::NoResponders),
        }
    }

    /// Registers a question or a stream: answers with this id, of the node that is asked or of anyone, come
    /// through the channel until the guard is dropped. `capacity` bounds the channel; what does not fit is
    /// dropped and counted.
    pub(super) fn expect_answers(
        &self,
        id: u64,
        from: Option<Target>,
        capacity: usize,
    ) -> Result<(PendingGuard, tokio::sync::mpsc::Receiver<Replied>), CallError> {
        PendingGuard::register(self.clone(), id, from, capacity).ok_or(CallError::Overloaded)
    }

    /// Encodes and publishes one message whose answers go to `reply_id`.
    pub(super) fn send(
        &self,
        to: NodeId,
        header: &Header,
        body: &impl Serialize,
        size_hint: usize,
        reply_id: u64,
    ) -> Result<(), CallError> {
        let subject = self.subject(to, header.lane);
        self.send_to(subject, header, body, size_hint, reply_id)
    }

    fn send_to(
        &self,
        subject: String,
        header: &Header,
        body: &impl Serialize,
        size_hint: usize,
        reply_id: u64,
    ) -> Result<(), CallError> {
        let payload = frame::encode(header, body, size_hint).map_err(|error| {
            tracing::error!(%error, %subject, lane = header.lane.token(), "a message cannot be sent");
            CallError::TooLarge
        })?;
        self.publish(Outgoing {
            subject,
            reply: Some(format!("{}.{reply_id}", self.inbox())),
            payload,
            ..Outgoing::default()
        })
        .map_err(|error| match error {
            PublishError::Disconnected => CallError::Disconnected,
            PublishError::Full => CallError::Overloaded,
        })
    }

    /// Answers `question` at `subject`. A lost answer is the asker's timeout, so that nothing fails here.
    pub(super) fn answer(&self, question: &Header, subject: &str, body: &impl Serialize) {
        let to_disk = Some(question.from_disk);
        let header = Header::new(Lane::Reply, &self.shared.identity, to_disk)
            .at(question.stream, question.sequence);
        match frame::encode(&header, body, 128) {
            Ok(payload) => {
                let subject = subject.to_owned();
                // The asker hears nothing and asks again: that is the contract of the network.
                let _lost = self.publish(Outgoing {
                    subject,
                    payload,
                    ..Outgoing::default()
                });
            }
            Err(error) => {
                tracing::error!(%error, to = %question.from, "an answer cannot be sent");
            }
        }
    }

    fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        let sent = self.shared.broker.publish(message);
        if sent.is_ok() {
            Counters::add(&self.shared.counters.frames_sent);
        }
        sent
    }

    pub(super) async fn subscribe(
        &self,
        lane: Lane,
        capacity: usize,
    ) -> Result<Subscription, SubscribeError> {
        let subject = self.subject(self.shared.identity.node, lane);
        self.shared.broker.subscribe(subject, capacity).await
    }

    /// The frame in a message that is meant for this data directory on this lane.
    pub(super) fn open(&self, message: &Message, lane: Lane) -> Option<Frame> {
        let counters = &self.shared.counters;
        Counters::add(&counters.frames_received);
        let frame = match Frame::decode(&message.payload) {
            Ok(frame) if frame.header.lane == lane => frame,
            Ok(_) => {
                Counters::add(&counters.undecodable);
                return None;
            }
            Err(error) => {
                self.refuse_damaged(&error);
                return None;
            }
        };
        let me = self.shared.identity.disk;
        let unaddressed_call = lane == Lane::Call && frame.header.to_disk.is_none();
        if frame.header.to_disk != Some(me) && !unaddressed_call {
            Counters::add(&counters.not_for_this_disk);
            if let Some(subject) = &message.reply {
                self.answer(
                    &frame.header,
                    subject,
                    &Err::<Answer, _>(Refusal::OtherDisk),
                );
            }
            return None;
        }
        Some(frame)
    }

    /// As [`Network::open`], and the sender is who the membership says, or unknown to it: a node
    /// that has no membership yet has to listen to the leader that brings it.
    pub(super) fn open_from_member(&self, message: &Message, lane: Lane) -> Option<Frame> {
        let frame = self.open(message, lane)?;
        if self.is_impostor(&frame.header) {
            Counters::add(&self.shared.counters.from_wrong_disk);
            if let Some(subject) = &message.reply {
                self.answer(
                    &frame.header,
                    subject,
                    &Err::<Answer, _>(Refusal::UnknownDisk),
                );
            }
            return None;
        }
        if matches!(lane, Lane::Beat | Lane::Append) {
            let mut heard = self.shared.heard.lock().expect("no holder panics");
            heard.insert(frame.header.from, now());
        }
        Some(frame)
    }

    /// How many connections to the broker this node has made.
    pub(super) fn connects(&self) -> u64 {
        self.shared.broker.connects()
    }

    /// When this node last got entries or a heartbeat from `node`.
    pub(super) fn heard_at(&self, node: NodeId) -> Option<Instant> {
        let heard = self.shared.heard.lock().expect("no holder panics");
        heard.get(&node).copied()
    }

    /// Who led last, as far as this node heard of a leader other than itself, and when it was last heard.
    pub fn led_last(&self) -> Option<(NodeId, Instant)> {
        let heard = self.shared.heard.lock().expect("no holder panics");
        let last = heard.iter().max_by_key(|(_, at)| **at);
        last.map(|(node, at)| (*node, *at))
    }

    /// Whether somebody meant another data directory under this node's id.
    pub(super) fn meant_for_another_disk(&self) -> bool {
        self.counters().not_for_this_disk.load(Ordering::Relaxed) > 0
    }

    /// The sender's id is known, with another data directory.
    pub(super) fn is_impostor(&self, header: &Header) -> bool {
        self.known_disk(header.from)
            .is_some_and(|disk| disk != header.from_disk)
    }

    /// A frame's body; what is none is counted.
    pub(super) fn body<T: DeserializeOwned>(&self, frame: &Frame) -> Option<T> {
        frame
            .body()
            .inspect_err(|error| self.refuse_damaged(error))
            .ok()
    }

    pub(super) fn refuse_damaged(&self, error: &FrameError) {
        Counters::add(&self.shared.counters.undecodable);
        tracing::debug!(%error, "a message between nodes was dropped");
    }

    pub(super) fn known_disk(&self, node: NodeId) -> Option<DiskId> {
        (self.shared.known_disk)(node)
    }

    pub(super) fn next_number(&self) -> u64 {
        self.shared.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn to_all(&self) -> String {
        let lane = Lane::Call.token();
        format!("{}.int.raft.all.{lane}", self.shared.prefix)
    }

    fn subject(&self, to: NodeId, lane: Lane) -> String {
        format!("{}.int.raft.{to}.{}", self.shared.prefix, lane.token())
    }

    fn inbox(&self) -> String {
        let Identity { node, boot, .. } = self.shared.identity;
        format!("{}.{boot}", self.subject(node, Lane::Reply))
    }
}

/// The node that a message is for, with the data directory that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub node: NodeId,
    pub disk: Option<DiskId>,
}
