//! What operators may do against a client's will: `admin.lock.release` and `admin.session.close`.

use serde::{Deserialize, Serialize};

use crate::ids::Token;
use crate::protocol::fields::{Field, Fields, Rule};
use crate::protocol::lock::Holder;
use crate::protocol::{INTEGER_MAX, Refusal, TIMEOUT_MS_FIELD};

/// `admin.lock.release`: ends a hold, or all holds of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReleaseLock {
    pub resource: String,
    /// Only this hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// Goes into the event and the log.
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl ReleaseLock {
    pub(super) const FIELDS: &[Field] = &[
        Field::new("resource", Rule::Name),
        Field::new("token", Rule::Integer(1, INTEGER_MAX)),
        Field::new("reason", Rule::Name),
        TIMEOUT_MS_FIELD,
    ];

    pub fn new(resource: impl Into<String>, reason: impl Into<String>) -> Self {
        ReleaseLock {
            resource: resource.into(),
            token: None,
            reason: reason.into(),
            timeout_ms: None,
        }
    }

    pub(super) fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        Ok(ReleaseLock {
            resource: given.required_text("resource")?,
            token: given.integer("token").map(Token),
            reason: given.required_text("reason")?,
            timeout_ms: given.integer("timeout_ms"),
        })
    }
}

/// The answer to `admin.lock.release`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockReleased {
    /// The former holders; the first 32 of them.
    pub holders: Vec<Holder>,
}

/// `admin.session.close`: ends a session. Its answer is that of `session.close`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CloseSession {
    pub session: String,
    /// Goes into the events and the log.
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl CloseSession {
    pub(super) const FIELDS: &[Field] = &[
        Field::new("session", Rule::Name),
        Field::new("reason", Rule::Name),
        TIMEOUT_MS_FIELD,
    ];

    pub fn new(session: impl Into<String>, reason: impl Into<String>) -> Self {
        CloseSession {
            session: session.into(),
            reason: reason.into(),
            timeout_ms: None,
        }
    }

    pub(super) fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        Ok(CloseSession {
            session: given.required_text("session")?,
            reason: given.required_text("reason")?,
            timeout_ms: given.integer("timeout_ms"),
        })
    }
}
