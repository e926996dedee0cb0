//! The receiving side of streams of log entries: one current stream per sender, taken in exact order.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use openraft::storage::RaftStateMachine;
use tokio::sync::mpsc;

use super::admission::{SENDERS_MAX, Senders, Standing};
use super::frame::{Frame, Header, Lane};
use super::message::{Append, Refusal, StreamAnswer};
use super::network::{Counters, Network};
use super::receiver::Raft;
use super::stream::WINDOW;
use super::types::TypeConfig;
use crate::broker::{Message, Subscription};
use crate::ids::NodeId;
use crate::time::now;

/// Requests of one stream that wait for openraft. No sender has more on their way; what exceeds it
/// counts as a gap.
const WAITING_MAX: usize = 2 * WINDOW;

/// Streams whose last answers may still be on their way, beside the current ones. Further streams
/// are dropped until some of these end, and their senders try again.
const STREAMS_MAX: usize = 2 * SENDERS_MAX;

/// A request with what its answer needs.
struct Asked {
    header: Header,
    subject: String,
}

struct Current {
    next_sequence: u64,
    requests: mpsc::Sender<(Asked, Append)>,
    /// Tells the stream's feeder to hand nothing more to openraft.
    replaced: Arc<AtomicBool>,
}

pub(super) struct Intake<'r, SM: RaftStateMachine<TypeConfig, SnapshotData = Bytes>> {
    network: &'r Network,
    raft: &'r Raft<SM>,
    senders: Senders,
    current: BTreeMap<NodeId, Current>,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl<'r, SM: RaftStateMachine<TypeConfig, SnapshotData = Bytes>> Intake<'r, SM> {
    pub fn new(network: &'r Network, raft: &'r Raft<SM>) -> Self {
        Intake {
            network,
            raft,
            senders: Senders::default(),
            current: BTreeMap::new(),
            running: FuturesUnordered::new(),
        }
    }

    pub async fn run(mut self, mut appends: Subscription) {
        loop {
            tokio::select! {
                biased;
                Some(()) = self.running.next() => {}
                message = appends.next() => {
                    let Some(message) = message else { return };
                    self.take(message);
                }
            }
        }
    }

    fn take(&mut self, message: Message) {
        let Some(frame) = self.network.open_from_member(&message, Lane::Append) else {
            return;
        };
        let Some(subject) = message.reply else {
            return;
        };
        let header = frame.header;
        let counters = self.network.counters();
        let opens = header.sequence == 0;
        match self.senders.place(&header, header.stream, opens, now()) {
            Standing::Outdated => Counters::add(&counters.outdated),
            Standing::Unopened => self.reset(&header, &subject),
            Standing::Newer => {
                if self.open(header.from) {
                    self.take_current(&frame, subject);
                }
            }
            Standing::Current => self.take_current(&frame, subject),
        }
    }

    /// Replaces the sender's stream by a new one; not when too many are still ending.
    fn open(&mut self, from: NodeId) -> bool {
        if let Some(old) = self.current.remove(&from) {
            old.replaced.store(true, Ordering::Relaxed);
        }
        if self.running.len() >= STREAMS_MAX {
            Counters::add(&self.network.counters().overflows);
            return false;
        }
        let (requests, waiting) = mpsc::channel(WAITING_MAX);
        let replaced = Arc::new(AtomicBool::new(false));
        let feed = feed(
            self.network.clone(),
            self.raft.clone(),
            waiting,
            replaced.clone(),
        );
        self.running.push(Box::pin(feed));
        let next_sequence = 0;
        let opened = Current {
            next_sequence,
            requests,
            replaced,
        };
        self.current.insert(from, opened);
        true
    }

    fn take_current(&mut self, frame: &Frame, subject: String) {
        let header = frame.header;
        let counters = self.network.counters();
        let Some(current) = self.current.get_mut(&header.from) else {
            return self.reset(&header, &subject);
        };
        if header.sequence < current.next_sequence {
            return Counters::add(&counters.repeated);
        }
        if header.sequence > current.next_sequence {
            return self.reset(&header, &subject);
        }
        let Some(request) = self.network.body(frame) else {
            return;
        };
        let asked = Asked { header, subject };
        match current.requests.try_send((asked, request)) {
            Ok(()) => current.next_sequence += 1,
            // Full, or openraft ended the stream with an answer that says why and may be lost.
            Err(refused) => {
                let (asked, _) = refused.into_inner();
                self.reset(&asked.header, &asked.subject);
            }
        }
    }

    fn reset(&self, header: &Header, subject: &str) {
        Counters::add(&self.network.counters().gaps);
        self.network
            .answer(header, subject, &Ok::<_, Refusal>(StreamAnswer::Reset));
    }
}

/// Hands one stream to openraft and its answers back, until either ends it.
async fn feed<SM: RaftStateMachine<TypeConfig, SnapshotData = Bytes>>(
    network: Network,
    raft: Raft<SM>,
    waiting: mpsc::Receiver<(Asked, Append)>,
    replaced: Arc<AtomicBool>,
) {
    /// Openraft has 64 requests of a stream in its own queue, and asks for one more.
    const IN_OPENRAFT_MAX: usize = 66;
    let (asked, mut answered) = mpsc::channel(IN_OPENRAFT_MAX);
    let input = stream::unfold(
        (waiting, asked, replaced),
        |(mut waiting, asked, replaced)| async move {
            let (question, request) = waiting.recv().await?;
            if replaced.load(Ordering::Relaxed) {
                return None;
            }
            asked.send(question).await.ok()?;
            Some((request, (waiting, asked, replaced)))
        },
    );
    let mut results = pin!(raft.stream_append(input));
    while let Some(result) = results.next().await {
        let Some(Asked { header, subject }) = answered.recv().await else {
            return;
        };
        let answer = result
            .map(StreamAnswer::Appended)
            .map_err(|_| Refusal::Stopped);
        network.answer(&header, &subject, &answer);
    }
}
