//! Sessions on the wire: `session.open`, `keepalive`, `close`, `get` and `list`.

use serde::{Deserialize, Serialize};

use crate::ids::Token;
use crate::protocol::fields::{Field, Fields, Rule};
use crate::protocol::lock::{META_BYTES_MAX, Mode, TTL_MS_MAX};
use crate::protocol::meta::Meta;
use crate::protocol::{Refusal, TIMEOUT_MS_FIELD};

pub use crate::protocol::lock::List;

/// The shortest session, in milliseconds.
pub const SESSION_TTL_MS_MIN: u64 = 1_000;
/// The longest lock delay: a holder that stalled longer than this is not waited for.
pub const LOCK_DELAY_MS_MAX: u64 = 600_000;
/// A session should be kept alive so many times in its length.
pub const KEEPALIVES_PER_TTL: u64 = 3;

/// `session.open`: one lease for many locks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Open {
    /// [`SESSION_TTL_MS_MIN`] to [`TTL_MS_MAX`].
    pub ttl_ms: u64,
    /// For people; need not be unique.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long nobody gets what the session lost otherwise than by its own will; at most
    /// [`LOCK_DELAY_MS_MAX`].
    pub lock_delay_ms: u64,
    /// Shown to whoever asks about the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<Meta>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Open {
    pub(super) const FIELDS: &[Field] = &[
        Field::new("ttl_ms", Rule::Integer(SESSION_TTL_MS_MIN, TTL_MS_MAX)),
        Field::new("name", Rule::Name),
        Field::new("lock_delay_ms", Rule::Integer(0, LOCK_DELAY_MS_MAX)),
        Field::new("meta", Rule::Object(META_BYTES_MAX)),
        TIMEOUT_MS_FIELD,
    ];

    pub fn new(ttl_ms: u64) -> Self {
        Open {
            ttl_ms,
            name: None,
            lock_delay_ms: 0,
            meta: None,
            timeout_ms: None,
        }
    }

    pub(super) fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        Ok(Open {
            ttl_ms: given.required_integer("ttl_ms")?,
            name: given.text("name"),
            lock_delay_ms: given.integer("lock_delay_ms").unwrap_or(0),
            meta: given.object("meta"),
            timeout_ms: given.integer("timeout_ms"),
        })
    }
}

/// `session.keepalive`, `session.close` and `session.get`: one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct One {
    pub session: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl One {
    pub(super) const FIELDS: &[Field] = &[Field::new("session", Rule::Name), TIMEOUT_MS_FIELD];

    pub fn new(session: impl Into<String>) -> Self {
        One {
            session: session.into(),
            timeout_ms: None,
        }
    }

    pub(super) fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        Ok(One {
            session: given.required_text("session")?,
            timeout_ms: given.integer("timeout_ms"),
        })
    }
}

/// The answer to `session.open`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Names the session, and is all that it takes to use it.
    pub session: String,
    pub ttl_ms: u64,
    /// How often to keep it alive.
    pub keepalive_ms: u64,
}

/// The answer to `session.keepalive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAlive {
    pub expires_in_ms: u64,
}

/// The answer to `session.close`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// What it held; the first thousand holds, as far as one answer holds them.
    pub released: Vec<ReleasedResource>,
    /// How many holds it had; resources that were taken together are one.
    pub released_count: u64,
    /// Whether it held more resources than are named.
    #[serde(default)]
    pub truncated: bool,
}

/// A resource that a session held; those of several that were taken together have one token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasedResource {
    pub resource: String,
    pub token: Token,
}

/// The answer to `session.get`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub session: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub ttl_ms: u64,
    pub lock_delay_ms: u64,
    pub expires_in_ms: u64,
    pub open_ms: u64,
    /// Null when it was opened with none.
    pub meta: Option<Meta>,
    /// How many holds and waits it has.
    pub held: u64,
    pub waiting: u64,
    /// By token; as far as one answer holds them.
    pub holds: Vec<Hold>,
    pub waits: Vec<Wait>,
}

/// One resource that is held with a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub resource: String,
    pub owner: String,
    pub token: Token,
    pub mode: Mode,
    pub expires_in_ms: u64,
    pub held_ms: u64,
}

/// One resource that is waited for with a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    pub resource: String,
    pub owner: String,
    pub mode: Mode,
    pub waited_ms: u64,
}

/// The answer to `session.list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    pub sessions: Vec<Listed>,
    /// Where to go on; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub session: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub ttl_ms: u64,
    pub expires_in_ms: u64,
    pub held: u64,
    pub waiting: u64,
}
