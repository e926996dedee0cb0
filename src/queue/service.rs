//! Queues for clients: requests go to the topic's owner, which is this node, and from there to Redis
//! in calls that carry all that waits.
//!
//! A topic has up to two tasks while there is something to do, each with a call under way, and one
//! that watches the time while pops wait. A topic without requests has none and costs nothing.
//!
//! A node owns the topics whose home it is in the newest view of the log, be it only prepared: Redis refuses
//! the calls of one whose view is older than that of any call before, so the lease of an owner that is
//! gone need not be waited out. A node that learns that a topic moved hands the pops that wait here to
//! the new owner.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::broker::relay::{Incoming, Keeper, Letter, Relay};
use crate::ids::{Incarnation, NodeId};
use crate::protocol::queue::{Demand, Push, Receipt, Receipts, Request, Verdict};
use crate::protocol::status::Durability;
use crate::protocol::{
    Code, Encoding, ErrorReply, Operation, Outcome, Prefix, Refusal, ReplyTo, WAIT_ENDS_BEFORE,
};
use crate::queue::keys::Keyspace;
use crate::queue::owner::{Ask, Owner, PENDING_MAX, Return, WAITERS_MAX, Wanted};
use crate::queue::script::NewMessage;
use crate::queue::store::Store;
use crate::raft::handle::Handle;
use crate::raft::network::Network;
use crate::stats::{Stats, TopicStats};
use crate::time::{self, Instant};
use crate::view::rendezvous::Placement;

mod acts;
mod answers;
mod calling;
mod confirming;
mod looking;
mod marking;
mod moving;
mod passing;
mod rates;
mod redriving;
mod running;
mod sampling;

pub use answers::{Answered, Answers, Body};
pub use looking::ABOUT_TOPICS;
pub use redriving::Road;

use rates::Recent;
use sampling::Scrapes;

/// Topics of which this node remembers how far they had come.
const REMEMBERED_MAX: usize = 100_000;
/// Answers with messages whose requester may turn out to be gone: the broker says so within
/// milliseconds.
const SENT_KEPT: usize = 8_192;
/// Requests of operators that are under way; each is a task.
const ACTS_MAX: usize = 1_024;

/// Queues, as one node offers them; clones share it.
#[derive(Clone)]
pub struct QueueService(Arc<Shared>);

/// What it stands on.
pub struct Parts {
    pub me: NodeId,
    pub prefix: Prefix,
    pub handle: Handle,
    pub network: Network,
    pub relay: Relay,
    /// Absent when the node was told of no Redis.
    pub redis: Option<Arc<Store>>,
    pub answers: Arc<dyn Answers>,
    pub stats: Arc<Stats>,
    /// What the messages of one tenant may take; 0: any number of bytes.
    pub tenant_bytes_max: u64,
}

struct Shared {
    parts: Parts,
    started: Instant,
    placement: Mutex<Arc<Placement>>,
    topics: Mutex<BTreeMap<Arc<str>, Topic>>,
    known: Mutex<BTreeMap<Arc<str>, Known>>,
    /// Topics that came further than was reported to the log.
    unreported: Mutex<VecDeque<Arc<str>>>,
    some_unreported: Notify,
    /// The newest change of the ways to Redis after which the log was asked for the view.
    claimed: AtomicU64,
    claiming: tokio::sync::Mutex<()>,
    sent: Mutex<VecDeque<Sent>>,
    sent_number: AtomicU64,
    /// Pops that waited here and are about to be handed on to the topic's next owner.
    moving: AtomicUsize,
    /// Calls whose pushes wait for the word of replicas.
    confirming: AtomicUsize,
    acts: Arc<tokio::sync::Semaphore>,
    /// Set once the node can ask as a client does.
    road: OnceLock<Arc<dyn Road>>,
    recent: Mutex<Recent>,
    scrapes: Scrapes,
    /// When the clock of Redis was last warned of; 0: never.
    clock_warned_ms: AtomicU64,
}

/// A topic while there is something to do or to wait for.
struct Topic {
    owner: Owner<Ticket>,
    keys: Arc<[String]>,
    /// Where what happens to its messages is counted.
    stats: Arc<TopicStats>,
    runners: usize,
    /// Until when the task that watches the time sleeps, and what wakes it; 0: there is none.
    watch_until_ms: u64,
    watch: Arc<Notify>,
}

impl Drop for Topic {
    fn drop(&mut self) {
        // That task ends with it.
        self.watch.notify_one();
    }
}

/// How far a topic had come, as far as was acknowledged to this node, or told by the log.
#[derive(Clone, Copy, Default)]
struct Known {
    /// The view in which this node knew it last.
    epoch: u64,
    opseq: u64,
    seq: u64,
    floor: u64,
    /// Losses that were told.
    losses: u64,
    /// What its messages take, if it is a tenant's.
    bytes: u64,
    /// The topic is in the list of topics.
    is_noted: bool,
    /// The topic is among those that are to be reported.
    is_unreported: bool,
}

/// Messages on their way to a client.
struct Sent {
    number: u64,
    topic: Arc<str>,
    receipts: Vec<Receipt>,
}

/// A request on its way through a topic.
struct Ticket {
    to: ReplyTo,
    operation: Operation,
    received_at: Instant,
    deadline: Instant,
    /// The node that handed it on and wants to hear when it ends.
    keeper: Option<Keeper>,
    shape: Shape,
}

enum Shape {
    Push {
        ids: Vec<Option<String>>,
        batch: bool,
        /// Less is not what the client wants.
        required: Option<Durability>,
    },
    Receipts,
    Pop(Kept),
}

/// A pop as it came, in case another node has to take it.
struct Kept {
    letter: Letter,
    /// When its wait ends, by which another node then has to answer.
    deadline: Instant,
    /// The stay of this node in which it came, if another node keeps it.
    stay: Option<Incarnation>,
}

/// A request's way back, its time, and the message that it came in.
pub struct Origin<'a> {
    pub to: ReplyTo,
    pub received_at: Instant,
    pub deadline: Instant,
    pub incoming: &'a Incoming<'a>,
    /// The node that handed it on and wants to hear when it ends.
    pub keeper: Option<Keeper>,
    /// It may wait here already, on another road.
    pub again: bool,
}

impl QueueService {
    pub fn new(parts: Parts) -> Self {
        QueueService(Arc::new(Shared {
            parts,
            started: time::now(),
            placement: Mutex::new(Arc::new(Placement::latest(&Default::default()))),
            topics: Mutex::default(),
            known: Mutex::default(),
            unreported: Mutex::default(),
            some_unreported: Notify::new(),
            claimed: AtomicU64::new(0),
            claiming: tokio::sync::Mutex::default(),
            sent: Mutex::default(),
            sent_number: AtomicU64::new(0),
            moving: AtomicUsize::new(0),
            confirming: AtomicUsize::new(0),
            acts: Arc::new(tokio::sync::Semaphore::new(ACTS_MAX)),
            road: OnceLock::new(),
            recent: Mutex::default(),
            scrapes: Scrapes::default(),
            clock_warned_ms: AtomicU64::new(0),
        }))
    }

    /// Tells how this node asks others as a client does.
    pub fn set_road(&self, road: Arc<dyn Road>) {
        let is_first = self.0.road.set(road).is_ok();
        assert!(is_first, "a node is built once");
    }

    /// The node that owns a topic; none while no node is in the view.
    pub fn home(&self, topic: &str) -> Option<NodeId> {
        self.0.placement().home(topic.as_bytes())
    }

    /// Topics that this node has something to do for.
    pub fn active_topics(&self) -> usize {
        lock(&self.0.topics).len()
    }

    /// Pops that wait at this node.
    pub fn waiting_pops(&self) -> u64 {
        let topics = lock(&self.0.topics);
        let waiting = topics.values().map(|topic| topic.owner.waiters() as u64);
        waiting.sum()
    }

    /// Takes a request whose topic this node owns.
    pub fn take(&self, request: Request, origin: Origin<'_>) {
        let operation = request.operation();
        let refused = match self.0.store() {
            Err(refusal) => Err(refusal),
            Ok(_) if origin.again => {
                self.0.forget_waiting(request.topic(), &origin.to);
                self.begin(request, &origin)
            }
            Ok(_) => self.begin(request, &origin),
        };
        if let Err(refusal) = refused {
            let timing = (operation, origin.received_at);
            self.0.refuse(&origin.to, timing, &refusal);
            self.0.ended(origin.keeper);
        }
    }

    fn begin(&self, request: Request, origin: &Origin<'_>) -> Result<(), Refusal> {
        match request {
            Request::Push(push) => self.push(push, origin),
            Request::Pop(pop) => {
                self.pop(&pop.topic, pop.demand, origin);
                Ok(())
            }
            Request::Receipts(receipts) => {
                self.receipts(receipts, origin);
                Ok(())
            }
            Request::Admin(admin) => self.act(admin, origin),
        }
    }

    fn push(&self, push: Push, origin: &Origin<'_>) -> Result<(), Refusal> {
        if let Some(wanted) = push.require_durability {
            let reached = self.0.route(&push.topic)?.status().durability;
            if reached.rank() < wanted.rank() {
                return Err(confirming::unavailable(wanted, reached));
            }
        }
        let messages: Vec<_> = push.messages.iter().map(NewMessage::new).collect();
        let bytes = messages.iter().map(|message| message.bytes() as u64).sum();
        self.0.has_room(&push.topic, bytes)?;
        let shape = Shape::Push {
            ids: push
                .messages
                .into_iter()
                .map(|message| message.id)
                .collect(),
            batch: push.batch,
            required: push.require_durability,
        };
        let ticket = ticket(Operation::QueuePush, shape, origin);
        self.0
            .submit(&push.topic, Some(ticket), Ask::Push(messages));
        Ok(())
    }

    fn pop(&self, topic: &str, demand: Demand, origin: &Origin<'_>) {
        let wait_ends = origin.received_at + Duration::from_millis(demand.wait_ms);
        let kept = Kept {
            letter: Letter::of(origin.incoming),
            deadline: origin.deadline.min(wait_ends),
            stay: origin.keeper.and_then(|_| self.0.stay()),
        };
        let ticket = ticket(Operation::QueuePop, Shape::Pop(kept), origin);
        let wanted = self.0.wanted(topic, demand, origin);
        self.0.submit(topic, Some(ticket), Ask::Pop(wanted));
    }

    fn receipts(&self, request: Receipts, origin: &Origin<'_>) {
        let Receipts {
            topic,
            receipts,
            what,
            ..
        } = request;
        let (operation, ask) = match what {
            Verdict::Ack { pop } => {
                let wanted = pop.map(|demand| self.0.wanted(&topic, demand, origin));
                (Operation::QueueAck, Ask::Ack(receipts, wanted))
            }
            Verdict::Nack {
                delay_ms,
                dead,
                reason,
            } => {
                let back = Return {
                    mode: if dead { 'd' } else { 'c' },
                    delay_ms,
                    reason: reason.unwrap_or_else(|| "handed back".to_owned()),
                };
                (Operation::QueueNack, Ask::Nack(receipts, back))
            }
            Verdict::Extend { visibility_ms } => {
                (Operation::QueueExtend, Ask::Extend(receipts, visibility_ms))
            }
        };
        let ticket = ticket(operation, Shape::Receipts, origin);
        self.0.submit(&topic, Some(ticket), ask);
    }

    /// Whether every request but pops that wait is answered.
    pub fn is_settled(&self) -> bool {
        let is_none = |count: &AtomicUsize| count.load(Ordering::Acquire) == 0;
        let topics = lock(&self.0.topics);
        topics.values().all(|topic| topic.owner.is_settled())
            && is_none(&self.0.moving)
            && is_none(&self.0.confirming)
    }

    /// Takes the broker's word that nobody got an answer with messages: they are handed back, and
    /// this delivery does not count as a failure.
    pub fn requester_gone(&self, number: u64) {
        let found = {
            let mut sent = lock(&self.0.sent);
            let at = sent.binary_search_by_key(&number, |sent| sent.number);
            at.ok().and_then(|at| sent.remove(at))
        };
        if let Some(Sent {
            topic, receipts, ..
        }) = found
        {
            self.0.hand_back(&topic, receipts);
        }
    }
}

fn ticket(operation: Operation, shape: Shape, origin: &Origin<'_>) -> Ticket {
    Ticket {
        to: origin.to.clone(),
        operation,
        received_at: origin.received_at,
        deadline: origin.deadline,
        keeper: origin.keeper,
        shape,
    }
}

impl Shared {
    /// The placement of the newest view that this node has applied.
    fn placement(&self) -> Arc<Placement> {
        let mut kept = lock(&self.placement);
        self.parts.handle.read(|state, _| {
            if state.view.fence() != kept.epoch() {
                *kept = Arc::new(Placement::latest(&state.view));
            }
        });
        kept.clone()
    }

    /// What keys begin with; none before the node belongs to a cluster.
    fn keyspace(&self) -> Option<Keyspace> {
        let cluster = self.parts.handle.read(|state, _| state.topics_of())?;
        Some(Keyspace::new(self.parts.prefix.as_str(), cluster))
    }

    /// Milliseconds since this node's start.
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// What a pop asks for; it waits as long as it says, and ends before its client gives up.
    fn wanted(&self, topic: &str, demand: Demand, origin: &Origin<'_>) -> Wanted {
        let left = origin.deadline.saturating_duration_since(time::now());
        let left_ms = left.saturating_sub(WAIT_ENDS_BEFORE).as_millis() as u64;
        let until_ms = match demand.wait_ms.min(left_ms) {
            0 => 0,
            wait_ms => self.now_ms() + wait_ms,
        };
        // Base64 and the fields around each message take their part.
        let bytes_max = self.parts.answers.payload_max() as u64;
        Wanted {
            max: demand.max,
            visibility_ms: demand.visibility_ms.unwrap_or(0),
            consumer: demand.consumer,
            token: Receipt::token(topic, rand::random()),
            bytes_max: match origin.to.encoding {
                Encoding::Json => bytes_max * 5 / 8,
                Encoding::MessagePack => bytes_max * 7 / 8,
            },
            until_ms,
        }
    }

    fn submit(self: &Arc<Self>, name: &str, ticket: Option<Ticket>, ask: Ask) {
        let mut topics = lock(&self.topics);
        if !topics.contains_key(name) {
            let Some(keyspace) = self.keyspace() else {
                drop(topics);
                if let Some(ticket) = ticket {
                    self.refuse_ticket(&ticket, &reconfiguring());
                }
                return;
            };
            let topic = Topic {
                owner: Owner::default(),
                keys: keyspace.of_topic(name).into(),
                stats: self.parts.stats.queue.topic(name),
                runners: 0,
                watch_until_ms: 0,
                watch: Arc::default(),
            };
            topics.insert(name.into(), topic);
        }
        let (name, _) = topics.get_key_value(name).expect("it is there by now");
        let name = name.clone();
        let topic = topics.get_mut(&name).expect("it is there by now");
        match topic.owner.ask(ticket, ask) {
            Ok(()) => self.start(&name, topic),
            Err(ticket) => {
                drop(topics);
                let (what, limit) = match ticket.shape {
                    Shape::Pop(_) => ("waiting pops on this topic", WAITERS_MAX),
                    _ => ("waiting requests of this topic", PENDING_MAX),
                };
                self.refuse_ticket(&ticket, &ErrorReply::overloaded(what, limit as u64));
            }
        }
    }

    fn hand_back(self: &Arc<Self>, topic: &str, receipts: Vec<Receipt>) {
        self.submit(topic, None, Ask::Nack(receipts, Return::unheard()));
    }

    fn refuse_ticket(&self, ticket: &Ticket, refusal: &ErrorReply) {
        let timing = (ticket.operation, ticket.received_at);
        self.refuse(&ticket.to, timing, refusal);
        self.ended(ticket.keeper);
    }

    fn refuse(&self, to: &ReplyTo, timing: (Operation, Instant), refusal: &ErrorReply) {
        self.parts.answers.answer(to, timing, Err(refusal));
    }

    fn time_of(&self, at_ms: u64) -> Instant {
        self.started + Duration::from_millis(at_ms)
    }
}

/// A panic while a map is locked leaves it whole: every change to it is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reconfiguring() -> Refusal {
    Box::new(
        ErrorReply::new(
            Code::Reconfiguring,
            "the cluster is reassigning this topic; try again",
        )
        .with_outcome(Outcome::NotApplied),
    )
}
