//! Identifiers. Each is its own type, so that two of them never change places unnoticed.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! integer_id {
    ($(#[$doc:meta])* $name:ident) => {
        integer_id! { @ $(#[$doc])* $name }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
    // Without its text.
    (@ $(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);
    };
}

integer_id! {
    /// The number an operator gave a node (`--id`); 1 to 2^32 - 1.
    NodeId
}
integer_id! {
    /// One run of a node's process: random, drawn at start.
    BootId
}
integer_id! {
    /// The identity of a data directory: random, drawn when the directory is first used. A node
    /// that comes back with another disk is another voter (notes on Raft: a lost disk forgets votes).
    DiskId
}
integer_id! {
    @
    /// The identity of a cluster: random, drawn by the node that initialises it. As text it is
    /// hexadecimal, as in files and in the names of Redis's keys.
    ClusterId
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

integer_id! {
    /// A fencing token: greater than every token granted before it, over all resources.
    Token
}
integer_id! {
    /// The number of a cluster view; each change of the view adds one.
    Epoch
}
integer_id! {
    /// One membership of a node in the cluster view, numbered by the log at each join.
    Incarnation
}
