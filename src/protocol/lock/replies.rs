//! What the lock service answers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Because, Mode};
use crate::ids::Token;
use crate::protocol::meta::Meta;

/// The answer to `lock.acquire` and `lock.convert`: the lock is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquired {
    /// Empty when several resources are held together.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// Everything that the token stands for, if it is several resources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<HeldResource>,
    pub owner: String,
    /// Greater than every token granted before, over all resources.
    pub token: Token,
    /// Absent when several resources are held together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How many, in mode `permit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permits: Option<u32>,
    /// What was left of the lease when the node answered.
    pub expires_in_ms: u64,
    pub waited_ms: u64,
}

impl Acquired {
    /// The resource, if it is one.
    pub fn sole_resource(&self) -> Option<String> {
        (!self.resource.is_empty()).then(|| self.resource.clone())
    }
}

/// One of several resources that are held together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldResource {
    pub resource: String,
    pub mode: Mode,
    /// How many, in mode `permit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permits: Option<u32>,
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
    /// How many hold it, if one answer cannot name them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<u64>,
    /// How many wait for it, if one answer cannot name them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u64>,
    /// What is left of the lock delay of a session that lost the lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
}

/// One hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub owner: String,
    pub token: Token,
    pub mode: Mode,
    /// How many, in mode `permit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permits: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
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
    /// How many, in mode `permit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permits: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    pub waited_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// One owner of a deadlock and the next one, for which it waits. Replicated state keeps it too, by
/// position, so that no field may be left out when it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CycleEdge {
    pub owner: Arc<str>,
    /// The resource of the cycle that this owner holds; null when the owner before it waits
    /// behind it in a queue.
    pub holds: Option<Arc<str>>,
    /// The token of that hold.
    pub token: Option<Token>,
    pub waits_for_owner: Arc<str>,
    /// What it waits for.
    pub resource: Arc<str>,
    pub because: Because,
}
