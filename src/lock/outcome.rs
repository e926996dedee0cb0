//! What comes out of the lock table: answers, refusals and views, as values.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Name;
use super::claim::{Grip, Wants};
use crate::ids::Token;
pub use crate::protocol::lock::{Because, CycleEdge, DeadlockPolicy, Mode};

/// The answer of the table to one command. Every refusal that the protocol foresees is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Granted now, or held already by the same owner in the same mode (lease extended), or the
    /// repeat of a request whose grant is still held (lease as it is), or converted.
    Acquired(Acquired),
    /// In the queue (or attached again to its place): an effect will follow when the wait ends. It
    /// is among the effects of this very step if victims of a deadlock made way for it.
    Waiting,
    /// Refused, since it is held or somebody waits and the request does not wait. The repeat of a
    /// waiting request that does not wait any more gets this too, and its place is given up.
    Held(Contention),
    /// The wait ended without a grant; the place in the queue is gone.
    WaitTimeout(Contention),
    /// The wait was cancelled; the place in the queue is gone.
    WaitCancelled {
        resource: Name,
    },
    /// Waiting would never end, or another request that closed a cycle made this one its victim.
    Deadlock(Arc<Deadlock>),
    /// The owner is waiting for `resource` already; an owner has one blocked request at most.
    AlreadyWaiting {
        resource: Name,
    },
    /// The token is not that of a live hold (or the repeated request has ended).
    NotHolder,
    /// The owner holds the resource in another mode, or together with other resources.
    ModeConflict {
        resource: Name,
        held: Mode,
        token: Token,
    },
    /// Only a hold of one resource, exclusive or shared, can be converted.
    Inconvertible,
    /// Those who hold or want permits of `resource` agreed on another limit.
    LimitMismatch {
        resource: Name,
        limit: u32,
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
    /// Whether a wait was ended; `token` if the request has been granted instead.
    Cancelled {
        cancelled: bool,
        token: Option<Token>,
    },
    SessionOpened {
        session: Name,
        ttl_ms: u64,
    },
    /// One for each session that the command names, in its order.
    KeptAlive(Vec<Kept>),
    SessionClosed(Box<Ended>),
    SessionNotFound {
        session: Name,
    },
    /// It is over, by its own time or by another's will.
    SessionExpired {
        session: Name,
    },
    /// The holders that an operator's release ended.
    ForceReleased(Vec<HolderView>),
    /// Nobody holds it.
    NotHeld {
        resource: Name,
    },
}

/// A live hold, as its holder is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquired {
    pub wants: Wants,
    pub owner: Name,
    /// Greater than every token granted before, over all resources.
    pub token: Token,
    pub expires_in_ms: u64,
    pub waited_ms: u64,
}

/// What became of one session's keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    Alive { expires_in_ms: u64 },
    Expired,
    Unknown,
}

/// What a session held when it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The first of them by token, at most [`RELEASED_NAMED_MAX`](super::sessions::RELEASED_NAMED_MAX).
    pub released: Vec<(Wants, Token)>,
    pub released_count: u64,
}

/// Who has the lock that one did not get, and how many wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contention {
    pub resource: Name,
    pub holders: Vec<HolderView>,
    pub queue_length: u64,
    /// What is left of a lock delay.
    pub delay_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderView {
    pub owner: Name,
    pub token: Token,
    pub grip: Grip,
    pub session: Option<Name>,
    pub expires_in_ms: u64,
    pub held_ms: u64,
    pub meta: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaiterView {
    pub owner: Name,
    pub grip: Grip,
    pub session: Option<Name>,
    pub waited_ms: u64,
    pub request_id: Option<Name>,
}

/// A resource as seen at one moment of the leader's clock; both lists are empty when it is free.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockView {
    pub holders: Vec<HolderView>,
    pub waiters: Vec<WaiterView>,
    /// How many hold it, if these are not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<u64>,
    /// How many wait for it, if these are not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u64>,
    /// What is left of a lock delay.
    pub delay_ms: Option<u64>,
}

/// The owners of requests with one id, for one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requesters {
    pub waiting: Vec<Name>,
    pub holding: Vec<Name>,
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
