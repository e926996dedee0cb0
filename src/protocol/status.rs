//! `status` and `metrics`: what a node says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Incarnation, NodeId};
use crate::stats::samples::Family;

/// The part that a node plays in the consensus group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Leader,
    Follower,
    Candidate,
    /// Receives the log without a vote.
    Learner,
}

impl Role {
    /// The role as it stands in a reply.
    pub fn name(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Learner => "learner",
        }
    }
}

/// The request of `status` and of `metrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ask {
    /// `status` only: whether to add a hash of the whole state, which takes time with its size.
    #[serde(skip_serializing_if = "StateHashChoice::is_default")]
    pub state_hash: StateHashChoice,
    /// `metrics` only: as text, or as values.
    #[serde(skip_serializing_if = "MetricsFormat::is_default")]
    pub format: MetricsFormat,
    /// How long the asker waits for an answer, 1 to 120000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Whether `status` computes the hash of the replicated state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StateHashChoice {
    #[default]
    Omit,
    Include,
}

impl StateHashChoice {
    pub(super) const NAMES: &[&str] = &["omit", "include"];

    pub(super) fn nth(index: usize) -> Self {
        [StateHashChoice::Omit, StateHashChoice::Include][index]
    }

    fn is_default(&self) -> bool {
        *self == StateHashChoice::Omit
    }
}

/// How `metrics` are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricsFormat {
    /// As Prometheus reads them.
    #[default]
    Text,
    /// As values of the reply's own encoding.
    Values,
}

impl MetricsFormat {
    pub(super) const NAMES: &[&str] = &["text", "values"];

    pub(super) fn nth(index: usize) -> Self {
        [MetricsFormat::Text, MetricsFormat::Values][index]
    }

    fn is_default(&self) -> bool {
        *self == MetricsFormat::Text
    }
}

/// The answer to `status`: the node's own knowledge at the moment of answering, which on a node
/// that is cut off may be old (its `role` and `term` say so before its `leader` does).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The node that answered; the envelope of the reply carries it.
    #[serde(skip_serializing)]
    pub node: NodeId,
    pub role: Role,
    pub term: u64,
    /// Null when unknown.
    pub leader: Option<NodeId>,
    /// The highest log index known to be on a majority.
    pub commit_index: u64,
    /// The highest log index whose effects are visible on this node.
    pub applied_index: u64,
    /// Everyone in the consensus group, by id.
    pub members: Vec<Member>,
    /// The number of the cluster view.
    pub epoch: Epoch,
    /// What is left of this node's right to act on that view; 0 without one.
    pub lease_ms: u64,
    pub version: String,
    pub uptime_ms: u64,
    pub locks: LockCounts,
    pub cache: CacheCounts,
    pub queue: QueueCounts,
    pub nats: NatsState,
    /// Absent when the node was told of no Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisState>,
    /// Only when asked for with `state_hash`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_hash: Option<StateHash>,
}

/// A fingerprint of the replicated state. Nodes that have applied equally many batches have the
/// same hash, or replication is broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateHash {
    /// Batches of commands applied since the cluster began.
    pub batches: u64,
    /// 16 hexadecimal digits.
    pub hash: String,
}

/// What a node does for queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCounts {
    /// Topics for which it has a request, or a pop that waits, right now.
    pub topics: u64,
}

/// What is known about Redis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisState {
    pub connected: bool,
    pub durability: Durability,
    /// Nodes of the release before do not say; they only inspect.
    #[serde(default)]
    pub source: DurabilitySource,
    /// The settings that decide, as the server shows them; empty when it shows none.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Why durability is less than the best, or why there is no connection.
    pub warnings: Vec<String>,
}

/// What a write that Redis acknowledged survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// A crash of the machine: it was fsynced; where the server has replicas, by each of them too.
    Fsync,
    /// A crash of Redis: the operating system has it.
    Os,
    /// A crash, but for the writes of the last seconds.
    Interval,
    /// Nothing.
    None,
    /// It can't be inspected.
    Unknown,
}

impl Durability {
    pub fn name(self) -> &'static str {
        match self {
            Durability::Fsync => "fsync",
            Durability::Os => "os",
            Durability::Interval => "interval",
            Durability::None => "none",
            Durability::Unknown => "unknown",
        }
    }

    /// Greater for a level that survives more; 0 for those that promise nothing.
    pub fn rank(self) -> u8 {
        match self {
            Durability::Fsync => 3,
            Durability::Os => 2,
            Durability::Interval => 1,
            Durability::None | Durability::Unknown => 0,
        }
    }
}

/// Who says what a write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DurabilitySource {
    /// The server: its settings were read.
    #[default]
    Inspected,
    /// The operator, of a server that does not show its settings.
    Asserted,
    /// The server and every replica of it: they have fsynced the write (`WAITAOF`).
    Confirmed,
}

impl DurabilitySource {
    pub const NAMES: &[&str] = &["inspected", "asserted", "confirmed"];

    /// The source as it stands in a reply.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// One node as the answering node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub node: NodeId,
    /// Whether it has a vote.
    pub voter: bool,
    /// Its incarnation in the cluster view; null while it is not in the view.
    pub incarnation: Option<Incarnation>,
}

/// How many locks there are on the answering node's copy of the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockCounts {
    /// Live grants.
    pub held: u64,
    /// Requests in queues.
    pub waiting: u64,
}

/// What the answering node's cache keeps: as a home, as copies and as backups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheCounts {
    pub entries: u64,
    pub bytes: u64,
}

/// The node's connection for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatsState {
    pub connected: bool,
}

/// The answer to `metrics`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// The node that answered; the envelope of the reply carries it.
    #[serde(skip_serializing)]
    pub node: NodeId,
    /// All metrics in the text format of Prometheus; empty when asked for values.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metrics: String,
    /// The same as values, when asked for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<Family>,
}
