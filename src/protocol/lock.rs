//! The lock service on the wire: `lock.release`, `renew`, `convert`, `check` and `get`;
//! [`acquire`], [`insight`] (what lists and cancels) and [`replies`] have the rest.
//!
//! Requests are decoded by the rules beside them (names, ranges, defaults), so that a request that
//! exists as a value is valid. Replies are plain fields; the envelope is [`reply`](super::reply).

use serde::{Deserialize, Serialize};

use crate::ids::Token;
use crate::protocol::fields::{Field, Fields, Rule};
use crate::protocol::{Refusal, TIMEOUT_MS_FIELD};

mod acquire;
mod insight;
mod replies;

pub use acquire::{Acquire, Wanted};
pub use insight::{
    Cancel, Cancelled, Deadlocks, Edge, Graph, List, Listed, Listing, PastDeadlock,
    RecentDeadlocks, WaitGraph,
};
pub use replies::{
    Acquired, Checked, CycleEdge, HeldResource, Holder, Released, Renewed, View, Waiter,
};

/// The shortest lease, in milliseconds.
pub const TTL_MS_MIN: u64 = 100;
/// The longest lease: one day.
pub const TTL_MS_MAX: u64 = 86_400_000;
/// The lease of a request that names none.
pub const TTL_MS_DEFAULT: u64 = 30_000;
/// The longest wait. Brokers drop a reply that comes later than two minutes, so that longer waits
/// are made of several requests with one `request_id`.
pub const WAIT_MS_MAX: u64 = 60_000;
/// The most resources that one request takes together.
pub const RESOURCES_MAX: usize = 32;
/// The most permits that a resource can have.
pub const PERMITS_MAX: u64 = 1_000_000;
/// The greatest `meta`, as JSON text without white space.
pub const META_BYTES_MAX: usize = 1024;

/// How a lock is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One holder.
    #[default]
    Exclusive,
    /// Any number of holders, all shared.
    Shared,
    /// Holders of so many of the resource's permits.
    Permit,
}

impl Mode {
    const NAMES: &[&str] = &["exclusive", "shared", "permit"];

    /// The mode as it stands in requests and replies.
    pub fn name(self) -> &'static str {
        Mode::NAMES[self as usize]
    }

    fn nth(index: usize) -> Mode {
        [Mode::Exclusive, Mode::Shared, Mode::Permit][index]
    }
}

/// Who gives way when a request would close a cycle of waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadlockPolicy {
    /// The request that would close the cycle.
    #[default]
    Requester,
    /// The waiting owner that was first seen last; ties by name.
    Youngest,
}

impl DeadlockPolicy {
    const NAMES: &[&str] = &["requester", "youngest"];

    fn nth(index: usize) -> DeadlockPolicy {
        [DeadlockPolicy::Requester, DeadlockPolicy::Youngest][index]
    }
}

/// Why one owner waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// The other holds the resource in an incompatible mode.
    Holder,
    /// The other stands before it in the queue with an incompatible request.
    Queue,
}

/// How fresh a read is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// Not older than the request.
    #[default]
    Linearizable,
    /// What the answering node knows.
    Stale,
}

impl Consistency {
    const NAMES: &[&str] = &["linearizable", "stale"];

    fn nth(index: usize) -> Consistency {
        [Consistency::Linearizable, Consistency::Stale][index]
    }
}

/// `lock.release`: ends the hold that a token stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Release {
    /// Absent for several resources that are held together: the token stands for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Whether the subject names the resource: then a set that lies under it is meant by its token, too.
    #[serde(skip)]
    pub in_subject: bool,
    pub token: Token,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Release {
    /// Of what a grant gave, be it one resource or several.
    pub fn of(acquired: &Acquired) -> Self {
        Release {
            resource: acquired.sole_resource(),
            in_subject: false,
            token: acquired.token,
            timeout_ms: None,
        }
    }

    pub(super) const FIELDS: &[Field] = &[
        Field::new("resource", Rule::Name),
        TOKEN_FIELD,
        TIMEOUT_MS_FIELD,
    ];

    pub fn new(resource: impl Into<String>, token: Token) -> Self {
        Release {
            resource: Some(resource.into()),
            in_subject: false,
            token,
            timeout_ms: None,
        }
    }

    pub(super) fn build(mut given: Fields<'_>, suffix: Option<&str>) -> Result<Self, Refusal> {
        Ok(Release {
            resource: given.text("resource"),
            in_subject: suffix.is_some(),
            token: Token(given.required_integer("token")?),
            timeout_ms: given.integer("timeout_ms"),
        })
    }
}

/// `lock.renew`: the lease begins anew, with another length if one is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Renew {
    /// Absent for several resources that are held together: the token stands for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Whether the subject names the resource: then a set that lies under it is meant by its token, too.
    #[serde(skip)]
    pub in_subject: bool,
    pub token: Token,
    /// Absent: as long as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Renew {
    /// Of what a grant gave, be it one resource or several.
    pub fn of(acquired: &Acquired) -> Self {
        Renew {
            resource: acquired.sole_resource(),
            in_subject: false,
            token: acquired.token,
            ttl_ms: None,
            timeout_ms: None,
        }
    }

    pub(super) const FIELDS: &[Field] = &[
        Field::new("resource", Rule::Name),
        TOKEN_FIELD,
        Field::new("ttl_ms", Rule::Integer(TTL_MS_MIN, TTL_MS_MAX)),
        TIMEOUT_MS_FIELD,
    ];

    pub fn new(resource: impl Into<String>, token: Token) -> Self {
        Renew {
            resource: Some(resource.into()),
            in_subject: false,
            token,
            ttl_ms: None,
            timeout_ms: None,
        }
    }

    pub(super) fn build(mut given: Fields<'_>, suffix: Option<&str>) -> Result<Self, Refusal> {
        Ok(Renew {
            resource: given.text("resource"),
            in_subject: suffix.is_some(),
            token: Token(given.required_integer("token")?),
            ttl_ms: given.integer("ttl_ms"),
            timeout_ms: given.integer("timeout_ms"),
        })
    }
}

/// `lock.convert`: the hold of one resource gets another mode and a new token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Convert {
    pub resource: String,
    pub token: Token,
    /// Exclusive or shared.
    pub mode: Mode,
    /// 0: try once. Otherwise wait until no other holder is left, at most [`WAIT_MS_MAX`].
    pub wait_ms: u64,
    /// How long the asker waits for an answer; 5000 + `wait_ms` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Convert {
    pub(super) const FIELDS: &[Field] = &[
        Field::new("resource", Rule::Name),
        TOKEN_FIELD,
        Field::new("mode", Rule::Choice(&["exclusive", "shared"])),
        Field::new("wait_ms", Rule::Integer(0, WAIT_MS_MAX)),
        TIMEOUT_MS_FIELD,
    ];

    pub fn new(resource: impl Into<String>, token: Token, mode: Mode) -> Self {
        Convert {
            resource: resource.into(),
            token,
            mode,
            wait_ms: 0,
            timeout_ms: None,
        }
    }

    pub(super) fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        Ok(Convert {
            resource: given.required_text("resource")?,
            token: Token(given.required_integer("token")?),
            mode: Mode::nth(given.required_choice("mode")?),
            wait_ms: given.integer("wait_ms").unwrap_or(0),
            timeout_ms: given.integer("timeout_ms"),
        })
    }
}

/// `lock.check`: whether a token is that of a live hold, at the leader's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub resource: String,
    pub token: Token,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Check {
    pub(super) const FIELDS: &[Field] = Release::FIELDS;

    pub fn new(resource: impl Into<String>, token: Token) -> Self {
        Check {
            resource: resource.into(),
            token,
            timeout_ms: None,
        }
    }

    pub(super) fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        Ok(Check {
            resource: given.required_text("resource")?,
            token: Token(given.required_integer("token")?),
            timeout_ms: given.integer("timeout_ms"),
        })
    }
}

/// `lock.get`: who holds a resource and who waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Get {
    pub resource: String,
    pub consistency: Consistency,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Get {
    pub(super) const FIELDS: &[Field] = &[
        Field::new("resource", Rule::Name),
        Field::new("consistency", Rule::Choice(Consistency::NAMES)),
        TIMEOUT_MS_FIELD,
    ];

    pub fn new(resource: impl Into<String>) -> Self {
        Get {
            resource: resource.into(),
            consistency: Consistency::default(),
            timeout_ms: None,
        }
    }

    pub(super) fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        Ok(Get {
            resource: given.required_text("resource")?,
            consistency: Consistency::nth(given.choice("consistency")),
            timeout_ms: given.integer("timeout_ms"),
        })
    }
}

/// Tokens start at 1.
const TOKEN_FIELD: Field = Field::new("token", Rule::Integer(1, super::INTEGER_MAX));
