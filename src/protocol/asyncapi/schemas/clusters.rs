//! The members of the cluster: what is answered about them.

use serde_json::{Value, json};

use super::{boolean, integer, list, object, one_of, or_null, text};
use crate::protocol::Operation;

pub(super) fn is_of_cluster(operation: Operation) -> bool {
    operation.name().contains("cluster.")
}

pub(super) fn summary(operation: Operation) -> &'static str {
    match operation {
        Operation::ClusterMembers => "Who belongs to the cluster, as the leader knows it.",
        Operation::AdminClusterAdd => {
            "Gives a node a vote, once its log has caught up; it was started with `--join`."
        }
        Operation::AdminClusterRemove => "Takes a node's vote and lets it leave, or a dead one go.",
        Operation::AdminClusterTransfer => "Has another node lead.",
        Operation::AdminClusterBackup => "A copy of the replicated state, part by part.",
        other => panic!("say in schemas.rs what {other} does"),
    }
}

pub(super) fn request_field(operation: Operation, name: &str) -> (&'static str, Value) {
    match (operation, name) {
        (Operation::AdminClusterTransfer, "node") => (
            "Who shall lead; any other than the one that does when absent.",
            Value::Null,
        ),
        (_, "node") => ("Whom.", Value::Null),
        (_, "backup") => (
            "The copy, as the first answer named it; ask the node that made it. Absent: make one.",
            Value::Null,
        ),
        (_, "offset") => ("How many bytes of it are here.", json!(0)),
        (_, other) => panic!("say in schemas.rs what `{other}` is for"),
    }
}

pub(super) fn is_required(operation: Operation, name: &str) -> bool {
    name == "node" && operation != Operation::AdminClusterTransfer
}

pub(super) fn success(operation: Operation) -> Vec<(&'static str, Value)> {
    if operation == Operation::AdminClusterBackup {
        return vec![
            ("backup", text()),
            ("size", integer()),
            ("offset", integer()),
            ("data_base64", text()),
        ];
    }
    if operation != Operation::ClusterMembers {
        return vec![("leader", integer()), ("voters", list(integer()))];
    }
    let member = object(vec![
        ("node", integer()),
        ("role", one_of(&["leader", "follower", "learner"])),
        ("voter", boolean()),
        ("incarnation", or_null("integer")),
        ("disk", text()),
        ("matched_index", or_null("integer")),
        ("silent_ms", or_null("integer")),
    ]);
    vec![
        ("leader", integer()),
        ("term", integer()),
        ("epoch", integer()),
        ("last_log_index", integer()),
        ("changing", boolean()),
        ("members", list(member)),
    ]
}
