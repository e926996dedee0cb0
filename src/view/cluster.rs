//! The cluster view as replicated state: who belongs, and as which incarnation. Plain code.

use serde::{Deserialize, Serialize};

use crate::ids::{BootId, Incarnation, NodeId};

/// A change that the log makes to the view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A node (re)enters under a new incarnation. A repeat by the same boot changes nothing.
    Join { node: NodeId, boot: BootId },
    /// A node that was silent longer than the suspicion time leaves, if it is still this incarnation.
    Leave {
        node: NodeId,
        incarnation: Incarnation,
    },
}
