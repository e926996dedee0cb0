//! The types that openraft is instantiated with; nothing of openraft is named outside `raft/`.

use openraft::OptionalSend;
use serde::{Deserialize, Serialize};

use crate::ids::{DiskId, NodeId};
use crate::raft::command::Batch;

/// Mufakat's instance of openraft's type parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Batch;
    type R = ();
    type NodeId = NodeId;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = openraft::impls::Vote<LeaderId>;
    type Payload = openraft::EntryPayload<Batch, NodeId, Member>;
    type Entry =
        openraft::Entry<<LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type Responder<T>
        = Told<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type AsyncRuntime = crate::raft::runtime::Runtime;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, NodeId>;

/// Is told, synchronously, what became of a write: applied, or refused before it entered the log.
pub struct Told<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Told<T> {
    pub fn new(tell: impl FnOnce(T) + Send + 'static) -> Self {
        Told(Box::new(tell))
    }
}

impl<T: OptionalSend + 'static> openraft::raft::responder::Responder<TypeConfig, T> for Told<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// What the membership knows about a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The data directory that votes for this node; RPCs from any other are refused.
    pub disk: DiskId,
}

pub type Membership = openraft::Membership<NodeId, Member>;
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
