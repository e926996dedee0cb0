//! Why a change of the members is not made.

use crate::ids::NodeId;
use crate::protocol::cluster::Wish;
use crate::protocol::{Code, ErrorReply, Refusal};
use crate::raft::network::CallError;

pub(super) fn lost_disk(node: NodeId) -> Refusal {
    Box::new(ErrorReply::bad_field(
        "node",
        format!(
            "the cluster knows node {node} with another data directory. A node that lost its disk \
             must not come back under its old id, since it would vote without knowing what it \
             promised: remove node {node}, start this machine as a node with a new id and --join, \
             and add that one"
        ),
    ))
}

/// That nobody listens is for sure, and nothing to try again before somebody does something.
pub(super) fn silent(node: NodeId, error: &CallError) -> Refusal {
    let code = match error {
        CallError::NoResponders => Code::NotFound,
        _ => Code::Reconfiguring,
    };
    Box::new(ErrorReply::new(
        code,
        format!(
            "node {node} does not answer ({error}): start it with --id {node} --join, the same \
             broker and the same prefix first"
        ),
    ))
}

pub(super) fn nobody(node: NodeId) -> Refusal {
    Box::new(ErrorReply::new(
        Code::NotFound,
        format!("node {node} is not a member of the cluster"),
    ))
}

pub(super) fn busy(wish: Wish) -> Refusal {
    let what = match wish {
        Wish::Add(node) => format!("node {node} is being added"),
        Wish::Remove(node) => format!("node {node} is being removed"),
        Wish::Transfer(_) | Wish::Know => "the leadership is being handed over".to_owned(),
    };
    Box::new(ErrorReply::new(
        Code::Reconfiguring,
        format!("one change of the members at a time: {what}"),
    ))
}

pub(super) fn stopping(begun: bool) -> Refusal {
    match begun {
        true => unfinished(true),
        false => Box::new(ErrorReply::new(
            Code::ShuttingDown,
            "this node is stopping; ask another",
        )),
    }
}

pub(super) fn too_slow(wish: Wish) -> Refusal {
    let message = match wish {
        Wish::Add(node) => format!(
            "node {node} does not catch up with the log; it goes on without a vote. Ask again, or \
             remove it"
        ),
        _ => "the change takes too long; ask again".to_owned(),
    };
    Box::new(ErrorReply::new(Code::Reconfiguring, message))
}

pub(super) fn unfinished(begun: bool) -> Refusal {
    Box::new(match begun {
        true => ErrorReply::new(
            Code::Indeterminate,
            "the change is still running: repeat the request, or see cluster.members",
        ),
        false => ErrorReply::new(Code::NoLeader, "no node leads"),
    })
}
