//! The cluster view as replicated state: who belongs, and as which incarnation. Plain code.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{BootId, Epoch, Incarnation, NodeId};

/// The most members: nodes are counted by bits of one word where keys are shared.
pub const MEMBERS_MAX: usize = 64;

/// A change that the log makes to the view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A node (re)enters under a new incarnation. A repeat by the same boot changes nothing.
    Join {
        node: NodeId,
        boot: BootId,
        /// How long the node will act on what it read of the view; the others wait that out.
        lease_ms: u64,
    },
    /// A node that was silent longer than the suspicion time leaves, if it is still this incarnation.
    Leave {
        node: NodeId,
        incarnation: Incarnation,
    },
    /// A member of the active view does nothing any more that the prepared one gives to another,
    /// or is known to be over.
    Frozen {
        prepared: Preparation,
        node: NodeId,
        incarnation: Incarnation,
    },
    /// Every lease on the active view that began before this preparation is over.
    Activate { prepared: Preparation },
}

/// Numbers the preparations of a cluster: a later one takes the place of the one before.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Preparation(pub u64);

/// Who takes part, as of one entry of the log. An empty view has epoch 0.
///
/// A late repeat of a join by a boot that is over puts that boot back. It does no harm for long:
/// the node that runs sees that the view does not name its boot, and joins again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Counts the changes of this state: of two views the one with the greater count is later.
    revision: u64,
    epoch: Epoch,
    phase: Phase,
    /// At most [`MEMBERS_MAX`].
    members: BTreeMap<NodeId, Member>,
    /// The newest incarnation ever assigned. It outlives the members, so that none comes twice.
    last_incarnation: Incarnation,
    last_preparation: Preparation,
    /// The preparation that became the active view.
    activated: Preparation,
}

/// How far a change of the view has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Members act on this view.
    #[default]
    Active,
    /// Members still act on this view, except for what the next one gives to others.
    Preparing(Next),
}

/// The view that comes next, unless another preparation takes its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    pub prepared: Preparation,
    pub members: BTreeMap<NodeId, Member>,
    /// Which members of the active view have frozen.
    frozen: BTreeSet<NodeId>,
}

/// One node's part in the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Numbers this stay: another one means that the node was away, however short.
    pub incarnation: Incarnation,
    /// The run of the process that joined.
    pub boot: BootId,
    /// How long this member acts on what it read of the view.
    pub lease_ms: u64,
}

/// What a command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Another view is prepared, or a preparation came to nothing.
    Prepared,
    /// The prepared view is active; the epoch has grown.
    Activated,
    /// One more member has frozen.
    Noted,
    /// Nothing: a repeat, or it concerned what is over.
    None,
}

impl View {
    pub fn apply(&mut self, command: &Command) -> Change {
        let change = match *command {
            Command::Join {
                node,
                boot,
                lease_ms,
            } => self.join(node, boot, lease_ms),
            Command::Leave { node, incarnation } => self.leave(node, incarnation),
            Command::Frozen {
                prepared,
                node,
                incarnation,
            } => self.note_frozen(prepared, node, incarnation),
            Command::Activate { prepared } => match &self.phase {
                Phase::Preparing(next) if next.prepared == prepared => self.activate(),
                _ => Change::None,
            },
        };
        if change != Change::None {
            self.revision += 1;
        }
        change
    }

    fn join(&mut self, node: NodeId, boot: BootId, lease_ms: u64) -> Change {
        let mut members = self.latest().clone();
        let known = members.get(&node);
        if known.is_some_and(|m| m.boot == boot) || members.len() >= MEMBERS_MAX {
            return Change::None;
        }
        self.last_incarnation.0 += 1;
        let member = Member {
            incarnation: self.last_incarnation,
            boot,
            lease_ms,
        };
        members.insert(node, member);
        self.prepare(members)
    }

    fn leave(&mut self, node: NodeId, incarnation: Incarnation) -> Change {
        let mut members = self.latest().clone();
        match members.get(&node) {
            Some(member) if member.incarnation == incarnation => {
                members.remove(&node);
                self.prepare(members)
            }
            _ => Change::None,
        }
    }

    fn prepare(&mut self, members: BTreeMap<NodeId, Member>) -> Change {
        if members == self.members {
            self.phase = Phase::Active;
            return Change::Prepared;
        }
        self.last_preparation.0 += 1;
        self.phase = Phase::Preparing(Next {
            prepared: self.last_preparation,
            members,
            frozen: BTreeSet::new(),
        });
        match self.members.is_empty() {
            true => self.activate(),
            false => Change::Prepared,
        }
    }

    fn note_frozen(
        &mut self,
        prepared: Preparation,
        node: NodeId,
        incarnation: Incarnation,
    ) -> Change {
        let is_member = self.members.get(&node).map(|m| m.incarnation) == Some(incarnation);
        match &mut self.phase {
            Phase::Preparing(next) if next.prepared == prepared && is_member => {
                if !next.frozen.insert(node) {
                    return Change::None;
                }
                match next.frozen.len() == self.members.len() {
                    true => self.activate(),
                    false => Change::Noted,
                }
            }
            _ => Change::None,
        }
    }

    fn activate(&mut self) -> Change {
        if let Phase::Preparing(next) = std::mem::take(&mut self.phase) {
            self.members = next.members;
            self.activated = next.prepared;
            self.epoch.0 += 1;
        }
        Change::Activated
    }

    /// Begins without members, after views of which this one knows nothing: `epochs` at most.
    pub fn found_anew(&mut self, epochs: u64) {
        self.phase = Phase::Active;
        self.members.clear();
        self.epoch.0 += epochs;
        self.revision += 1;
    }

    /// The number of the active view; each activation adds one.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Of two states of one cluster's view the one with the greater revision is later.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Numbers who takes part once nothing is prepared any more: greater after each change of that, and than
    /// every epoch before.
    pub fn fence(&self) -> Epoch {
        Epoch(self.epoch.0 + self.revision)
    }

    /// Which preparation became the active view.
    pub fn activated(&self) -> Preparation {
        self.activated
    }

    /// The view that is being prepared, if one is.
    pub fn next(&self) -> Option<&Next> {
        match &self.phase {
            Phase::Active => None,
            Phase::Preparing(next) => Some(next),
        }
    }

    /// Who will take part once nothing is prepared any more.
    pub fn latest(&self) -> &BTreeMap<NodeId, Member> {
        self.next().map_or(&self.members, |next| &next.members)
    }

    /// The members of the active view, in the order of their ids.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (NodeId, Member)> + '_ {
        self.members.iter().map(|(&node, &member)| (node, member))
    }

    pub fn member(&self, node: NodeId) -> Option<Member> {
        self.members.get(&node).copied()
    }

    /// A member of the [`View::latest`].
    pub fn latest_member(&self, node: NodeId) -> Option<Member> {
        self.latest().get(&node).copied()
    }
}

impl Next {
    pub fn has_frozen(&self, node: NodeId) -> bool {
        self.frozen.contains(&node)
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
            lease_ms: 2_000,
        })
    }

    fn leave(view: &mut View, node: NodeId, incarnation: u64) -> Change {
        view.apply(&Command::Leave {
            node,
            incarnation: Incarnation(incarnation),
        })
    }

    fn frozen(view: &mut View, prepared: u64, node: NodeId, incarnation: u64) -> Change {
        view.apply(&Command::Frozen {
            prepared: Preparation(prepared),
            node,
            incarnation: Incarnation(incarnation),
        })
    }

    fn activate(view: &mut View, prepared: u64) -> Change {
        view.apply(&Command::Activate {
            prepared: Preparation(prepared),
        })
    }

    fn of_two() -> View {
        let mut view = View::default();
        join(&mut view, A, 7);
        join(&mut view, B, 8);
        frozen(&mut view, 2, A, 1);
        assert_eq!((view.epoch(), view.members().len()), (Epoch(2), 2));
        view
    }

    #[test]
    fn the_first_member_waits_for_nobody_and_its_repeat_changes_nothing() {
        let mut view = View::default();
        assert_eq!(join(&mut view, A, 7), Change::Activated);
        let before = view.clone();
        assert_eq!(join(&mut view, A, 7), Change::None);
        assert_eq!(view, before);
        assert_eq!(view.epoch(), Epoch(1));
    }

    #[test]
    fn a_change_takes_effect_when_all_members_have_frozen() {
        let mut view = of_two();
        assert_eq!(join(&mut view, A, 9), Change::Prepared);
        assert_eq!(view.member(A).map(|m| m.boot), Some(BootId(7)));
        assert_eq!(frozen(&mut view, 3, A, 1), Change::Noted);
        assert_eq!(frozen(&mut view, 3, A, 1), Change::None);
        assert_eq!(frozen(&mut view, 3, B, 9), Change::None, "of another stay");
        assert_eq!(frozen(&mut view, 3, B, 2), Change::Activated);
        assert_eq!(view.member(A).map(|m| m.incarnation), Some(Incarnation(3)));
        assert_eq!(view.epoch(), Epoch(3));
    }

    #[test]
    fn or_when_it_is_said_that_their_leases_are_over() {
        let mut view = of_two();
        assert_eq!(leave(&mut view, B, 2), Change::Prepared);
        assert_eq!(activate(&mut view, 2), Change::None, "of an earlier one");
        assert_eq!(activate(&mut view, 3), Change::Activated);
        assert_eq!((view.member(B), view.epoch()), (None, Epoch(3)));
        assert_eq!(activate(&mut view, 3), Change::None);
    }

    #[test]
    fn a_later_preparation_begins_anew() {
        let mut view = of_two();
        leave(&mut view, B, 2);
        frozen(&mut view, 3, A, 1);
        assert_eq!(join(&mut view, B, 8), Change::Prepared);
        assert_eq!(frozen(&mut view, 3, B, 2), Change::None);
        assert_eq!(activate(&mut view, 3), Change::None);
        let next = view.next().expect("it is being prepared");
        assert_eq!((next.prepared, next.has_frozen(A)), (Preparation(4), false));
        assert_eq!(next.members[&B].incarnation, Incarnation(3));
    }

    #[test]
    fn a_preparation_of_what_is_active_already_is_none() {
        let mut view = of_two();
        join(&mut view, NodeId(3), 5);
        assert_eq!(leave(&mut view, NodeId(3), 3), Change::Prepared);
        assert_eq!((view.next(), view.epoch()), (None, Epoch(2)));
    }

    #[test]
    fn the_fence_grows_whenever_others_take_part() {
        let mut view = of_two();
        let mut fences = vec![view.fence()];
        for change in [
            Command::Leave {
                node: B,
                incarnation: Incarnation(2),
            },
            Command::Join {
                node: NodeId(3),
                boot: BootId(5),
                lease_ms: 2_000,
            },
            Command::Leave {
                node: NodeId(3),
                incarnation: Incarnation(3),
            },
        ] {
            view.apply(&change);
            fences.push(view.fence());
        }
        activate(&mut view, 5);
        fences.push(view.fence());
        view.found_anew(1_000);
        fences.push(view.fence());
        assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
        assert!(
            fences[5].0 > fences[4].0 + 1_000,
            "beyond what a lost disk had"
        );
    }

    #[test]
    fn only_the_named_incarnation_leaves() {
        let mut view = of_two();
        let before = view.clone();
        assert_eq!(leave(&mut view, A, 3), Change::None);
        assert_eq!(leave(&mut view, B, 1), Change::None);
        assert_eq!(view, before);
    }

    #[test]
    fn a_view_survives_a_snapshot() {
        let mut view = of_two();
        leave(&mut view, B, 2);
        frozen(&mut view, 3, A, 1);
        let encoded = rmp_serde::to_vec(&view).expect("a view encodes");
        let decoded: View = rmp_serde::from_slice(&encoded).expect("it decodes");
        assert_eq!(decoded, view);
    }

    fn any_command() -> impl Strategy<Value = Command> {
        let node = (1..4u64).prop_map(NodeId);
        let incarnation = (1..30u64).prop_map(Incarnation);
        let prepared = (1..30u64).prop_map(Preparation);
        prop_oneof![
            (node.clone(), 1..4u64).prop_map(|(node, boot)| Command::Join {
                node,
                boot: BootId(boot),
                lease_ms: 2_000
            }),
            (node.clone(), incarnation.clone())
                .prop_map(|(node, incarnation)| Command::Leave { node, incarnation }),
            (node, incarnation, prepared.clone()).prop_map(|(node, incarnation, prepared)| {
                Command::Frozen {
                    prepared,
                    node,
                    incarnation,
                }
            }),
            prepared.prop_map(|prepared| Command::Activate { prepared }),
        ]
    }

    proptest! {
        #[test]
        fn the_epoch_counts_activations_and_no_incarnation_comes_twice(
            commands in prop::collection::vec(any_command(), 0..80)
        ) {
            let mut view = View::default();
            let mut assigned = BTreeMap::new();
            for command in commands {
                let before = view.clone();
                let change = view.apply(&command);
                let activated = u64::from(change == Change::Activated);
                prop_assert_eq!(view.epoch().0, before.epoch().0 + activated);
                match change {
                    Change::None => prop_assert_eq!(&view, &before),
                    Change::Activated => {}
                    Change::Prepared | Change::Noted => {
                        prop_assert_eq!(&view.members, &before.members);
                    }
                }
                for (node, member) in view.latest() {
                    let first = *assigned.entry(member.incarnation).or_insert((*node, member.boot));
                    prop_assert_eq!(first, (*node, member.boot));
                }
            }
        }
    }
}
