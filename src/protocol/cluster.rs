//! Who belongs to the cluster: `cluster.members`, and what operators change about it with
//! `admin.cluster.add`, `admin.cluster.remove` and `admin.cluster.transfer`.
//!
//! Each change is a wish that may be repeated as it is: what has come true already is answered with
//! success, and what is under way is attached to.

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Incarnation, NodeId};
use crate::protocol::fields::{Field, Fields, Rule};
use crate::protocol::status::Role;
use crate::protocol::{Operation, Refusal, TIMEOUT_MS_FIELD};

/// The greatest number of a node.
pub const NODE_MAX: u64 = u32::MAX as u64;
/// The most nodes with or without a vote: more only slow every commit down.
pub const NODES_MAX: usize = 31;

const NODE_FIELD: Field = Field::new("node", Rule::Integer(1, NODE_MAX));

/// A request about the members of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    #[serde(skip)]
    pub wish: Wish,
    /// Whom to add or remove, or who shall lead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// How long the asker waits for an answer, 1 to 120000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// `cluster.members`: nothing but to know.
    Know,
    /// `admin.cluster.add`: that a node has a vote.
    Add(NodeId),
    /// `admin.cluster.remove`: that a node belongs to the cluster no more.
    Remove(NodeId),
    /// `admin.cluster.transfer`: that a node leads; any other than the one that does when none is named.
    Transfer(Option<NodeId>),
}

impl Request {
    pub(super) const MEMBERS_FIELDS: &[Field] = &[TIMEOUT_MS_FIELD];
    pub(super) const CHANGE_FIELDS: &[Field] = &[NODE_FIELD, TIMEOUT_MS_FIELD];

    pub fn new(wish: Wish) -> Self {
        let node = match wish {
            Wish::Add(node) | Wish::Remove(node) => Some(node),
            Wish::Transfer(node) => node,
            Wish::Know => None,
        };
        Request {
            wish,
            node,
            timeout_ms: None,
        }
    }

    pub(super) fn build(operation: Operation, mut given: Fields<'_>) -> Result<Self, Refusal> {
        let wish = match operation {
            Operation::AdminClusterAdd => Wish::Add(NodeId(given.required_integer("node")?)),
            Operation::AdminClusterRemove => Wish::Remove(NodeId(given.required_integer("node")?)),
            Operation::AdminClusterTransfer => Wish::Transfer(given.integer("node").map(NodeId)),
            _ => Wish::Know,
        };
        Ok(Request {
            timeout_ms: given.integer("timeout_ms"),
            ..Request::new(wish)
        })
    }

    pub fn operation(&self) -> Operation {
        match self.wish {
            Wish::Know => Operation::ClusterMembers,
            Wish::Add(_) => Operation::AdminClusterAdd,
            Wish::Remove(_) => Operation::AdminClusterRemove,
            Wish::Transfer(_) => Operation::AdminClusterTransfer,
        }
    }
}

/// The answer to `cluster.members`, as the leader knows it after a linearizable read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    pub leader: NodeId,
    pub term: u64,
    /// The number of the cluster view.
    pub epoch: Epoch,
    /// The newest entry of the leader's log.
    pub last_log_index: u64,
    /// Whether a change of the voters is being agreed on.
    pub changing: bool,
    /// By node.
    pub members: Vec<Member>,
}

/// One node of the consensus group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub node: NodeId,
    pub role: Role,
    /// Whether it has a vote.
    pub voter: bool,
    /// Its incarnation in the cluster view; null while it is not in the view.
    pub incarnation: Option<Incarnation>,
    /// The data directory that votes for the node, 16 hexadecimal digits.
    pub disk: String,
    /// The newest entry that is known to be on its disk; null when it was never heard of since the
    /// leader leads.
    pub matched_index: Option<u64>,
    /// How long ago it last answered the leader; null when it never did. 0 for the leader itself.
    pub silent_ms: Option<u64>,
}

/// The answer to a change: how things are now that the wish has come true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub leader: NodeId,
    /// The nodes with a vote, in ascending order.
    pub voters: Vec<NodeId>,
}
