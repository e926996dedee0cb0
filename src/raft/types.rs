//! The types that openraft is instantiated with; nothing of openraft is named outside `raft/`.

use serde::{Deserialize, Serialize};

use crate::ids::{DiskId, NodeId};
use crate::raft::command::Batch;

openraft::declare_raft_types!(
    /// Mufakat's instance of openraft's type parameters.
    pub TypeConfig:
        D = Batch,
        R = (),
        NodeId = NodeId,
        Node = Member,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, NodeId>,
        AsyncRuntime = crate::raft::runtime::Runtime,
);

/// What the membership knows about a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The data directory that votes for this node; RPCs from any other are refused.
    pub disk: DiskId,
}

pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot in memory: the encoded state.
pub type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, bytes::Bytes>;

/// A log store that a node can be built with.
pub trait RaftLog: openraft::storage::RaftLogStorage<TypeConfig> {}
impl<L: openraft::storage::RaftLogStorage<TypeConfig>> RaftLog for L {}
