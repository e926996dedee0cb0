//! What the cache answers.

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::protocol::Encoding;
use crate::protocol::value::{InFields, Kind, Plain, Value};

/// Whether there was a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Hit,
    Miss,
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The memory of the node that was asked.
    Local,
    /// The memory of the key's home.
    Home,
    /// The store, which the key's home has asked.
    Store,
}

/// The answer to `cache.get`, and to each key of `cache.get_many`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Plain>,
    /// A binary value, in JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Kind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What is left of its lifetime, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// With a miss: the right to load the value, for `cache.set`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
}

impl Found {
    /// The answer where there is no value.
    pub const MISS: Found = Found {
        status: Status::Miss,
        value: None,
        value_base64: None,
        encoding: None,
        version: None,
        ttl_ms: None,
        source: None,
        claim: None,
    };

    /// The same as a reply in `encoding` has it.
    pub fn written_for(mut self, encoding: Encoding) -> Self {
        if let Some(kind) = &mut self.encoding {
            InFields::rewrite((&mut self.value, &mut self.value_base64, kind), encoding);
        }
        self
    }

    /// The value, if there was one.
    ///
    /// # Errors
    /// When the fields do not fit together, in words.
    pub fn value(&self) -> Result<Option<Value>, String> {
        match self.encoding {
            None => Ok(None),
            Some(kind) => Value::from_reply(InFields {
                plain: self.value.clone(),
                base64: self.value_base64.clone(),
                kind,
            })
            .map(Some),
        }
    }
}

/// The answer to `cache.get_many`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundMany {
    /// One for each key, in their order.
    pub results: Vec<Found>,
}

/// The answer to `cache.set` and `cache.touch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    pub version: String,
}

/// The answer to `cache.delete`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    pub existed: bool,
}

/// The answer to `cache.increment`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    pub value: u64,
    pub version: String,
}

/// The answer to `cache.invalidate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalidated {
    /// How many values were removed from the memory of their homes; what only the store had is not counted. A
    /// value that was removed while the view of the cluster changed may be missing in it.
    pub count: u64,
}

/// The answer to `cache.audit`: copies of the answering node beside what their homes have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// Copies that could be compared; fewer than asked for when there are fewer, when they change, or
    /// when a home did not answer within a second.
    pub compared: u64,
    /// Copies that no node should have served: each is a defect.
    pub mismatches: u64,
    /// The keys of the first ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

/// The answer to `cache.explain`: what the answering node knows, which for a key that is not its
/// own is only its copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The node that orders the key's writes; null while the answering node is in no view.
    pub home: Option<NodeId>,
    /// The node that becomes the home when that one leaves; null if there is none.
    pub second: Option<NodeId>,
    /// `absent`, `home`, `writing` (a write has not taken effect), `bringing` (the store is asked), `copy` or
    /// `backup`.
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// At the home: how many nodes have a copy.
    pub sharers: u32,
}

/// The answer to `cache.stats`: what the answering node counted since it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    pub entries: u64,
    pub bytes: u64,
    pub bytes_max: u64,
    /// What is left of the right to serve from memory.
    pub lease_ms: u64,
    pub hits: Hits,
    pub misses: u64,
    /// Questions to homes.
    pub fills: u64,
    pub evictions: u64,
    pub invalidations: Invalidations,
    /// Copies that took a new value with the news of its write, instead of being lost to it.
    #[serde(default)]
    pub updates: u64,
    /// Writes that took effect at this node as their home.
    pub writes: u64,
    /// Values that were kept here when their home was lost.
    pub promoted: u64,
    /// What the node as a home asked of the store; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreCalls>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hits {
    pub local: u64,
    pub home: u64,
    #[serde(default)]
    pub store: u64,
}

/// Calls of the store behind the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreCalls {
    /// Questions for values that are not in memory.
    pub reads: u64,
    /// Writes that it has kept.
    pub writes: u64,
    /// Calls that failed.
    pub errors: u64,
}

/// What the node as a home told the nodes that had copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalidations {
    pub sent: u64,
    pub acked: u64,
    pub resent: u64,
}
