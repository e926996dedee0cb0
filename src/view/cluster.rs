//! The cluster view as replicated state: who belongs, and as which incarnation. Plain code.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{BootId, Epoch, Incarnation, NodeId};

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

/// Who takes part, as of one entry of the log. An empty view has epoch 0.
///
/// A late repeat of a join by a boot that is over puts that boot back. It does no harm for long:
/// the node that runs sees that the view does not name its boot, and joins again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    epoch: Epoch,
    phase: Phase,
    /// At most as many as the Raft membership had nodes.
    members: BTreeMap<NodeId, Member>,
    /// The newest incarnation ever assigned. It outlives the members, so that none comes twice.
    last_incarnation: Incarnation,
}

/// How far a change of the view has come.
///
/// A change takes effect with its entry, since nothing is placed by the view that could be served
/// from two homes. The cache, which is, brings a phase in which homes freeze first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Members act on this view.
    #[default]
    Active,
}

/// One node's part in the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Numbers this stay: another one means that the node was away, however short.
    pub incarnation: Incarnation,
    /// The run of the process that joined.
    pub boot: BootId,
}

/// What a command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The node is a member under this new incarnation; the epoch has grown.
    Joined(Incarnation),
    /// The node is no member any more; the epoch has grown.
    Left,
    /// Nothing: a repeat, or it concerned an incarnation that is over.
    None,
}

impl View {
    pub fn apply(&mut self, command: &Command) -> Change {
        match *command {
            Command::Join { node, boot } => self.join(node, boot),
            Command::Leave { node, incarnation } => self.leave(node, incarnation),
        }
    }

    fn join(&mut self, node: NodeId, boot: BootId) -> Change {
        if self.members.get(&node).is_some_and(|m| m.boot == boot) {
            return Change::None;
        }
        self.last_incarnation.0 += 1;
        let incarnation = self.last_incarnation;
        self.members.insert(node, Member { incarnation, boot });
        self.epoch.0 += 1;
        Change::Joined(incarnation)
    }

    fn leave(&mut self, node: NodeId, incarnation: Incarnation) -> Change {
        match self.members.get(&node) {
            Some(member) if member.incarnation == incarnation => {
                self.members.remove(&node);
                self.epoch.0 += 1;
                Change::Left
            }
            _ => Change::None,
        }
    }

    /// The number of this view; each change of the members adds one.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The members in the order of their ids.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (NodeId, Member)> + '_ {
        self.members.iter().map(|(&node, &member)| (node, member))
    }

    pub fn member(&self, node: NodeId) -> Option<Member> {
        self.members.get(&node).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn join(view: &mut View, node: NodeId, boot: u64) -> Change {
        view.apply(&Command::Join {
            node,
            boot: BootId(boot),
        })
    }

    fn leave(view: &mut View, node: NodeId, incarnation: u64) -> Change {
        view.apply(&Command::Leave {
            node,
            incarnation: Incarnation(incarnation),
        })
    }

    #[test]
    fn a_repeated_join_changes_nothing() {
        let mut view = View::default();
        assert_eq!(join(&mut view, A, 7), Change::Joined(Incarnation(1)));
        let before = view.clone();
        assert_eq!(join(&mut view, A, 7), Change::None);
        assert_eq!(view, before);
        assert_eq!(view.epoch(), Epoch(1));
    }

    #[test]
    fn another_boot_replaces_the_incarnation_and_raises_the_epoch() {
        let mut view = View::default();
        join(&mut view, A, 7);
        join(&mut view, B, 8);
        assert_eq!(join(&mut view, A, 9), Change::Joined(Incarnation(3)));
        assert_eq!(view.epoch(), Epoch(3));
        let expected = Member {
            incarnation: Incarnation(3),
            boot: BootId(9),
        };
        assert_eq!(view.member(A), Some(expected));
        assert_eq!(view.members().len(), 2);
    }

    #[test]
    fn only_the_named_incarnation_leaves() {
        let mut view = View::default();
        join(&mut view, A, 7);
        join(&mut view, A, 8);
        let before = view.clone();
        assert_eq!(leave(&mut view, A, 1), Change::None);
        assert_eq!(leave(&mut view, B, 2), Change::None);
        assert_eq!(view, before);
        assert_eq!(leave(&mut view, A, 2), Change::Left);
        assert_eq!((view.member(A), view.epoch()), (None, Epoch(3)));
    }

    #[test]
    fn the_same_boot_returns_under_a_new_incarnation() {
        let mut view = View::default();
        join(&mut view, A, 7);
        leave(&mut view, A, 1);
        assert_eq!(join(&mut view, A, 7), Change::Joined(Incarnation(2)));
    }

    #[test]
    fn a_view_survives_a_snapshot() {
        let mut view = View::default();
        join(&mut view, B, 7);
        join(&mut view, A, 8);
        leave(&mut view, B, 1);
        let encoded = rmp_serde::to_vec(&view).expect("a view encodes");
        let decoded: View = rmp_serde::from_slice(&encoded).expect("it decodes");
        assert_eq!(decoded, view);
    }

    fn any_command() -> impl Strategy<Value = Command> {
        let node = (1..4u64).prop_map(NodeId);
        prop_oneof![
            (node.clone(), 1..4u64).prop_map(|(node, boot)| Command::Join {
                node,
                boot: BootId(boot)
            }),
            (node, 1..30u64).prop_map(|(node, incarnation)| Command::Leave {
                node,
                incarnation: Incarnation(incarnation)
            }),
        ]
    }

    proptest! {
        #[test]
        fn the_epoch_counts_the_changes_and_no_incarnation_comes_twice(
            commands in prop::collection::vec(any_command(), 0..60)
        ) {
            let mut view = View::default();
            let mut last_incarnation = Incarnation(0);
            for command in commands {
                let before = view.clone();
                match view.apply(&command) {
                    Change::None => prop_assert_eq!(&view, &before),
                    Change::Left => prop_assert_eq!(view.epoch().0, before.epoch().0 + 1),
                    Change::Joined(incarnation) => {
                        prop_assert_eq!(view.epoch().0, before.epoch().0 + 1);
                        prop_assert!(incarnation > last_incarnation);
                        last_incarnation = incarnation;
                    }
                }
            }
        }
    }
}
