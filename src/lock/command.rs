//! What is replicated for locks, and what comes out: plain values, no behaviour.

use serde::{Deserialize, Serialize};

use crate::ids::Token;
use crate::protocol::ReplyTo;
pub use crate::protocol::lock::{Acquired, Because, CycleEdge, DeadlockPolicy, Mode};

/// A command of the replicated lock table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    Acquire(Acquire),
    Release {
        resource: String,
        token: Token,
    },
    /// `ttl_ms` absent: the lease's length stays as it was.
    Renew {
        resource: String,
        token: Token,
        ttl_ms: Option<u64>,
    },
}

/// A request for one lock, complete: the accepting node has filled in the defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquire {
    pub resource: String,
    pub mode: Mode,
    /// One thread of control. Made up by the accepting node when the client named none
    /// (derived from the request id if there is one).
    pub owner: String,
    /// Repeats of a request carry the same id; its scope is the owner.
    pub request_id: Option<String>,
    /// Length of the lease.
    pub ttl_ms: u64,
    /// Absent: try once. Present: wait in the queue.
    pub wait: Option<Wait>,
    pub on_deadlock: DeadlockPolicy,
    /// A JSON object as text, shown to whoever asks about the lock.
    pub meta: Option<String>,
}

/// How long to stand in the queue, and whom to tell at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    pub wait_ms: u64,
    pub reply: ReplyTo,
}

/// The answer of the table to one command. Every refusal that the protocol foresees is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Granted now, or held already by the same owner in the same mode (lease extended), or the
    /// repeat of a request whose grant is still held (lease as it is).
    Acquired(Acquired),
    /// In the queue (or attached again to its place): an [`Effect::WaitEnded`] will follow. It is
    /// among the effects of this very step if victims of a deadlock made way for it.
    Waiting,
    /// Refused, since it is held or somebody waits and the request does not wait. The repeat of a
    /// waiting request that does not wait any more gets this too, and its place is given up.
    Held(Contention),
    /// The wait ended without a grant; the place in the queue is gone.
    WaitTimeout(Contention),
    /// Waiting would never end, or another request that closed a cycle made this one its victim.
    Deadlock(Box<Deadlock>),
    /// The owner is waiting for `resource` already; an owner has one blocked request at most.
    AlreadyWaiting {
        resource: String,
    },
    /// The token is not that of a live hold (or the repeated request has ended).
    NotHolder,
    /// The owner holds the resource in the other mode.
    ModeConflict {
        held: Mode,
        token: Token,
    },
    /// The request id was used with another value of `field`.
    RequestMismatch {
        field: String,
    },
    /// A bound is reached: `what` names it, as the fields of [`Limits`](super::limits::Limits) do.
    Overloaded {
        what: String,
        limit: u64,
    },
    Released,
    Renewed {
        expires_in_ms: u64,
    },
}

/// Who has the lock that one did not get, and how many wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contention {
    pub resource: String,
    pub holders: Vec<HolderView>,
    pub queue_length: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderView {
    pub owner: String,
    pub token: Token,
    pub mode: Mode,
    pub expires_in_ms: u64,
    pub held_ms: u64,
    pub meta: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaiterView {
    pub owner: String,
    pub mode: Mode,
    pub waited_ms: u64,
    pub request_id: Option<String>,
}

/// A resource as seen at one moment of the leader's clock; both lists are empty when it is free.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockView {
    pub holders: Vec<HolderView>,
    pub waiters: Vec<WaiterView>,
}

/// Whether a token is that of a live hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub valid: bool,
    /// The newest token of a live hold on the resource.
    pub current_token: Option<Token>,
    /// What is left of the asked token's lease, when valid.
    pub expires_in_ms: Option<u64>,
}

/// A cycle of waits, each owner once, in the order of waiting: each waits for the next one, the
/// last for the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadlock {
    pub cycle: Vec<CycleEdge>,
    pub victim: String,
    pub policy: DeadlockPolicy,
}

/// What a transition wants done by the node that leads; the others drop it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A wait is over: tell the client.
    WaitEnded {
        reply: ReplyTo,
        /// How long it stood in the queue, in state time.
        waited_ms: u64,
        outcome: Outcome,
    },
    Event(Event),
}

/// What watchers are told in JSON, under `<prefix>.event.lock.<kind>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Event {
    Granted {
        resource: String,
        owner: String,
        token: Token,
        mode: Mode,
        waited_ms: u64,
    },
    Released {
        resource: String,
        owner: String,
        token: Token,
        held_ms: u64,
    },
    Expired {
        resource: String,
        owner: String,
        token: Token,
        held_ms: u64,
    },
    Deadlock(Deadlock),
    /// Somebody starts to wait for a resource that is held or has a queue.
    Contended {
        resource: String,
        owner: String,
        queue_length: u64,
    },
}

impl Event {
    /// The last tokens of the subjects that watchers hear of events under.
    pub const KINDS: [&'static str; 5] =
        ["granted", "released", "expired", "deadlock", "contended"];

    /// The place of this event's kind in [`Event::KINDS`].
    pub fn kind_index(&self) -> usize {
        match self {
            Event::Granted { .. } => 0,
            Event::Released { .. } => 1,
            Event::Expired { .. } => 2,
            Event::Deadlock(_) => 3,
            Event::Contended { .. } => 4,
        }
    }
}
