//! The lock service on the wire: `lock.acquire`, `release`, `renew`, `check` and `get`.
//!
//! Requests are decoded by the rules beside them (names, ranges, defaults), so that a request that
//! exists as a value is valid. Replies are plain fields; the envelope is [`reply`](super::reply).

use serde::{Deserialize, Serialize};

use crate::ids::Token;
use crate::protocol::fields::{Field, Fields, Rule};
use crate::protocol::meta::Meta;
use crate::protocol::{Refusal, TIMEOUT_MS_FIELD};

/// The shortest lease, in milliseconds.
pub const TTL_MS_MIN: u64 = 100;
/// The longest lease: one day.
pub const TTL_MS_MAX: u64 = 86_400_000;
/// The lease of a request that names none.
pub const TTL_MS_DEFAULT: u64 = 30_000;
/// The longest wait. Brokers drop a reply that comes later than two minutes, so that longer waits
/// are made of several requests with one `request_id`.
pub const WAIT_MS_MAX: u64 = 60_000;
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
}

impl Mode {
    const NAMES: &[&str] = &["exclusive", "shared"];

    /// The mode as it stands in requests and replies.
    pub fn name(self) -> &'static str {
        Mode::NAMES[self as usize]
    }

    fn nth(index: usize) -> Mode {
        [Mode::Exclusive, Mode::Shared][index]
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

/// `lock.acquire`: the request for one lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Acquire {
    /// 1 to 256 bytes.
    pub resource: String,
    pub mode: Mode,
    /// One thread of control; the node makes one up when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Length of the lease, [`TTL_MS_MIN`] to [`TTL_MS_MAX`].
    pub ttl_ms: u64,
    /// 0: try once and never overtake a waiter. Otherwise wait, at most [`WAIT_MS_MAX`].
    pub wait_ms: u64,
    pub on_deadlock: DeadlockPolicy,
    /// Shown to whoever asks about the lock; at most [`META_BYTES_MAX`] bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<Meta>,
    /// Repeats of a request carry the same id. Kept while waiter or grant lives and 5 minutes after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// How long the asker waits for an answer, 1 to 120000; 5000 + `wait_ms` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Acquire {
    pub(super) const FIELDS: &[Field] = &[
        Field::new("resource", Rule::Name),
        Field::new("mode", Rule::Choice(Mode::NAMES)),
        Field::new("owner", Rule::Name),
        Field::new("session", Rule::Name),
        Field::new("ttl_ms", Rule::Integer(TTL_MS_MIN, TTL_MS_MAX)),
        Field::new("wait_ms", Rule::Integer(0, WAIT_MS_MAX)),
        Field::new("on_deadlock", Rule::Choice(DeadlockPolicy::NAMES)),
        Field::new("meta", Rule::Object(META_BYTES_MAX)),
        Field::new("request_id", Rule::Name),
        TIMEOUT_MS_FIELD,
    ];

    /// An exclusive try with the default lease.
    pub fn new(resource: impl Into<String>) -> Self {
        Acquire {
            resource: resource.into(),
            mode: Mode::default(),
            owner: None,
            ttl_ms: TTL_MS_DEFAULT,
            wait_ms: 0,
            on_deadlock: DeadlockPolicy::default(),
            meta: None,
            request_id: None,
            timeout_ms: None,
        }
    }

    /// # Errors
    /// `bad_request` without a resource; `session_not_found` with a session, since there are none.
    pub(super) fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        let session = given.text("session");
        let acquire = Acquire {
            resource: given.required_text("resource")?,
            mode: Mode::nth(given.choice("mode")),
            owner: given.text("owner"),
            ttl_ms: given.integer("ttl_ms").unwrap_or(TTL_MS_DEFAULT),
            wait_ms: given.integer("wait_ms").unwrap_or(0),
            on_deadlock: DeadlockPolicy::nth(given.choice("on_deadlock")),
            meta: given.object("meta"),
            request_id: given.text("request_id"),
            timeout_ms: given.integer("timeout_ms"),
        };
        match session {
            Some(session) => Err(super::session_not_found(&session)),
            None => Ok(acquire),
        }
    }
}

/// `lock.release`: ends the hold that a token stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Release {
    pub resource: String,
    pub token: Token,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Release {
    pub(super) const FIELDS: &[Field] = &[
        Field::new("resource", Rule::Name),
        TOKEN_FIELD,
        TIMEOUT_MS_FIELD,
    ];

    pub fn new(resource: impl Into<String>, token: Token) -> Self {
        Release {
            resource: resource.into(),
            token,
            timeout_ms: None,
        }
    }

    pub(super) fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        Ok(Release {
            resource: given.required_text("resource")?,
            token: Token(given.required_integer("token")?),
            timeout_ms: given.integer("timeout_ms"),
        })
    }
}

/// `lock.renew`: the lease begins anew, with another length if one is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Renew {
    pub resource: String,
    pub token: Token,
    /// Absent: as long as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Renew {
    pub(super) const FIELDS: &[Field] = &[
        Field::new("resource", Rule::Name),
        TOKEN_FIELD,
        Field::new("ttl_ms", Rule::Integer(TTL_MS_MIN, TTL_MS_MAX)),
        TIMEOUT_MS_FIELD,
    ];

    pub fn new(resource: impl Into<String>, token: Token) -> Self {
        Renew {
            resource: resource.into(),
            token,
            ttl_ms: None,
            timeout_ms: None,
        }
    }

    pub(super) fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        Ok(Renew {
            resource: given.required_text("resource")?,
            token: Token(given.required_integer("token")?),
            ttl_ms: given.integer("ttl_ms"),
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

/// The answer to `lock.acquire`: the lock is held. Replicated state keeps it too, by position, so
/// that no field may be left out when it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquired {
    pub resource: String,
    pub owner: String,
    /// Greater than every token granted before, over all resources.
    pub token: Token,
    pub mode: Mode,
    /// What was left of the lease when the node answered.
    pub expires_in_ms: u64,
    pub waited_ms: u64,
}

/// The answer to `lock.release`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Always true.
    pub released: bool,
}

/// The answer to `lock.renew`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    pub expires_in_ms: u64,
}

/// The answer to `lock.check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// False also when nobody holds the resource.
    pub valid: bool,
    /// The newest token of a live hold on the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_token: Option<Token>,
    /// What is left of the asked token's lease, when valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
}

/// The answer to `lock.get`; both lists are empty when the resource is free.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub holders: Vec<Holder>,
    /// In the order of the queue.
    pub waiters: Vec<Waiter>,
}

/// One hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub owner: String,
    pub token: Token,
    pub mode: Mode,
    pub expires_in_ms: u64,
    pub held_ms: u64,
    /// Null when the holder gave none.
    pub meta: Option<Meta>,
}

/// One request in a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    pub owner: String,
    pub mode: Mode,
    pub waited_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// One owner of a deadlock and the next one, for which it waits. Replicated state keeps it too, by
/// position, so that no field may be left out when it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CycleEdge {
    pub owner: String,
    /// The resource of the cycle that this owner holds; null when the owner before it waits
    /// behind it in a queue.
    pub holds: Option<String>,
    /// The token of that hold.
    pub token: Option<Token>,
    pub waits_for_owner: String,
    /// What it waits for.
    pub resource: String,
    pub because: Because,
}
