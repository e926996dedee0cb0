//! Seeing and ending waits from outside: `lock.cancel`, `list`, `graph` and `deadlocks`.

use serde::{Deserialize, Serialize};

use super::{Because, CycleEdge, DeadlockPolicy, Mode};
use crate::ids::Token;
use crate::protocol::fields::{Field, Fields, Rule};
use crate::protocol::{ErrorReply, LIMIT_DEFAULT, LIMIT_FIELD, Refusal, TIMEOUT_MS_FIELD};

/// `lock.cancel`: a wait is not wanted any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cancel {
    pub resource: String,
    /// Whose wait; absent when it is known by its request id alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Only the wait of a request that named this session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Only the wait of the request with this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Cancel {
    pub(in crate::protocol) const FIELDS: &[Field] = &[
        Field::new("resource", Rule::Name),
        Field::new("owner", Rule::Name),
        Field::new("session", Rule::Name),
        Field::new("request_id", Rule::Name),
        TIMEOUT_MS_FIELD,
    ];

    /// The wait of one owner.
    pub fn of_owner(resource: impl Into<String>, owner: impl Into<String>) -> Self {
        Cancel {
            resource: resource.into(),
            owner: Some(owner.into()),
            session: None,
            request_id: None,
            timeout_ms: None,
        }
    }

    pub(in crate::protocol) fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        let cancel = Cancel {
            resource: given.required_text("resource")?,
            owner: given.text("owner"),
            session: given.text("session"),
            request_id: given.text("request_id"),
            timeout_ms: given.integer("timeout_ms"),
        };
        if cancel.owner.is_none() && cancel.request_id.is_none() {
            let message = "`owner` is missing: give `owner`, `request_id` or both";
            return Err(ErrorReply::bad_field("owner", message).into());
        }
        Ok(cancel)
    }
}

/// The answer to `lock.cancel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Whether a wait was ended.
    pub cancelled: bool,
    /// The token of the grant, if the request was granted before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
}

/// `lock.list` and `session.list`: names in their order, page by page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct List {
    /// Only what begins with this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// At most so many, 1 to 1000; 100 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// What the answer before said, to go on from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl List {
    pub(in crate::protocol) const FIELDS: &[Field] = &[
        Field::new("prefix", Rule::Name),
        LIMIT_FIELD,
        Field::new("cursor", Rule::Name),
        TIMEOUT_MS_FIELD,
    ];

    pub(in crate::protocol) fn build(mut given: Fields<'_>) -> Self {
        List {
            prefix: given.text("prefix"),
            limit: given.integer("limit"),
            cursor: given.text("cursor"),
            timeout_ms: given.integer("timeout_ms"),
        }
    }

    /// How many items at most.
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(LIMIT_DEFAULT) as usize
    }
}

/// The answer to `lock.list`: what is held, waited for or closed for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    pub locks: Vec<Listed>,
    /// Where to go on; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub resource: String,
    /// How many hold it, and how many wait for it.
    pub held: u64,
    pub waiting: u64,
    /// Mode, owner, token and lease of the oldest hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
}

/// `lock.graph`: who waits for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Graph {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Graph {
    pub(in crate::protocol) const FIELDS: &[Field] = &[TIMEOUT_MS_FIELD];

    pub(in crate::protocol) fn build(mut given: Fields<'_>) -> Self {
        Graph {
            timeout_ms: given.integer("timeout_ms"),
        }
    }
}

/// The answer to `lock.graph`. Whoever stands in a queue is shown to wait for those directly before
/// it that it may not pass; for whom they wait is theirs to show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitGraph {
    pub edges: Vec<Edge>,
    /// Whether there are more than one answer holds.
    pub truncated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    pub owner: String,
    pub waits_for_owner: String,
    pub resource: String,
    pub because: Because,
    pub waited_ms: u64,
}

/// `lock.deadlocks`: those found lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Deadlocks {
    /// At most so many, 1 to 1000; 100 when absent. 128 are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Deadlocks {
    pub(in crate::protocol) const FIELDS: &[Field] = &[LIMIT_FIELD, TIMEOUT_MS_FIELD];

    pub(in crate::protocol) fn build(mut given: Fields<'_>) -> Self {
        Deadlocks {
            limit: given.integer("limit"),
            timeout_ms: given.integer("timeout_ms"),
        }
    }

    /// How many items at most.
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(LIMIT_DEFAULT) as usize
    }
}

/// The answer to `lock.deadlocks`, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentDeadlocks {
    pub deadlocks: Vec<PastDeadlock>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastDeadlock {
    /// How long ago it was found, in lease time.
    pub ago_ms: u64,
    pub cycle: Vec<CycleEdge>,
    /// How many owners the cycle has, if one answer cannot hold them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle_length: Option<u64>,
    pub victim: String,
    pub policy: DeadlockPolicy,
}
