//! Which step comes next on the way to a wish about the members. Plain code.
//!
//! ```text
//!   add      nobody ──admit──► learner ──caught up, promote──► voter
//!   remove   voter ──demote──► learner ──has left, forget──► nobody
//! ```
//!
//! Each step is one change that Raft commits before the next is looked for, and what is seen alone
//! decides on the next: a repeated wish, or a new leader, goes on where the one before ended.

use std::time::Duration;

use crate::ids::NodeId;
use crate::protocol::cluster::NODES_MAX;
use crate::protocol::{Code, ErrorReply, Refusal};
use crate::raft::handle::Observed;

/// How far a learner's log may end before the leader's when it gets its vote: what a follower makes
/// up for in a few messages.
pub const LAG_MAX: u64 = 100;

/// A node that is being added and has been silent for so long is not waited for any more: other changes are.
pub const LEARNER_SILENT_MAX: Duration = Duration::from_secs(10);

/// Who counts as there: only who has answered since the wish began, since a node that died a moment ago
/// has been silent for no longer than one that lives.
#[derive(Clone, Copy, Debug)]
pub struct Presence {
    /// How long the wish has been looked after.
    pub watched: Duration,
    /// Who is silent for longer is not there.
    pub silence_max: Duration,
}

/// Whether a majority of some voters is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Majority {
    There,
    /// Some may still answer.
    Unknown,
    /// Only so many are there.
    Lacking(usize),
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The wish has come true.
    Done,
    /// Something has to happen by itself: a log catches up, a node leaves.
    Wait,
    /// The node is to receive the log.
    Admit,
    /// The node is to have a vote.
    Promote,
    /// The node is to lose its vote.
    Demote,
    /// The node is to receive nothing any more.
    Forget,
    /// The joint configuration that an earlier leader left is to be ended first.
    Settle,
    /// Another node is to lead first.
    HandOver,
    Refuse(Refusal),
}

/// The way to a vote for `node`.
pub fn add(node: NodeId, seen: &Observed, presence: Presence) -> Step {
    if seen.members.is_joint() {
        return Step::Settle;
    }
    let voters = seen.members.voters();
    if voters.contains(&node) {
        return Step::Done;
    }
    if !seen.members.disks.contains_key(&node) {
        return match seen.members.disks.len() < NODES_MAX {
            true => Step::Admit,
            false => refuse(
                Code::TooManyItems,
                format!("the cluster has {NODES_MAX} nodes already, the maximum"),
            ),
        };
    }
    if presence.silence(node, seen) > LEARNER_SILENT_MAX {
        return refuse(
            Code::Reconfiguring,
            format!(
                "node {node} does not answer any more, and stays without a vote: start it and ask \
                 again, or remove it"
            ),
        );
    }
    let matched = seen.matched.get(&node).copied();
    if matched.is_none_or(|index| index + LAG_MAX < seen.last_log_index)
        || presence.of(node, seen) != Some(true)
    {
        return Step::Wait;
    }
    let after: Vec<NodeId> = voters.iter().copied().chain([node]).collect();
    match presence.majority(&after, seen) {
        Majority::There => Step::Promote,
        Majority::Unknown => Step::Wait,
        Majority::Lacking(there) => refuse(
            Code::Reconfiguring,
            format!(
                "with node {node} there would be {} nodes with a vote, of which only {there} are \
                 there: no majority. Start or remove those that are not there first",
                after.len()
            ),
        ),
    }
}

/// The way out for `node`. `has_left` says that it serves nobody any more, or is not waited for.
pub fn remove(node: NodeId, seen: &Observed, (presence, has_left): (Presence, bool)) -> Step {
    if seen.members.is_joint() {
        return Step::Settle;
    }
    let voters = seen.members.voters();
    if !voters.contains(&node) {
        return match seen.members.disks.contains_key(&node) {
            false => Step::Done,
            true if has_left => Step::Forget,
            true => Step::Wait,
        };
    }
    let after: Vec<NodeId> = voters
        .iter()
        .copied()
        .filter(|voter| *voter != node)
        .collect();
    if after.is_empty() {
        return refuse(
            Code::BadRequest,
            format!("node {node} is the only voter: without it there is no cluster"),
        );
    }
    match presence.majority(&after, seen) {
        Majority::There if seen.me == Some(node) => Step::HandOver,
        Majority::There => Step::Demote,
        Majority::Unknown => Step::Wait,
        Majority::Lacking(there) => refuse(
            Code::Reconfiguring,
            format!(
                "without node {node} there would be {} nodes with a vote, of which only {there} \
                 are there: no majority. Start or remove those that are not there first",
                after.len()
            ),
        ),
    }
}

/// Whether a node may be asked to lead; none stands for whichever can.
pub fn transfer(node: Option<NodeId>, seen: &Observed, presence: Presence) -> Step {
    let voters = seen.members.voters();
    match node {
        Some(node) if seen.me == Some(node) => Step::Done,
        Some(node) if !voters.contains(&node) => refuse(
            Code::BadRequest,
            format!("node {node} has no vote and cannot lead"),
        ),
        Some(node) if presence.of(node, seen) == Some(false) => refuse(
            Code::Reconfiguring,
            format!("node {node} does not answer the leader and cannot take over"),
        ),
        Some(node) if presence.of(node, seen).is_none() => Step::Wait,
        None if voters.len() < 2 => refuse(Code::BadRequest, "there is no other voter".to_owned()),
        _ => Step::HandOver,
    }
}

impl Presence {
    /// Whether a node is there; none while it is not known.
    fn of(self, node: NodeId, seen: &Observed) -> Option<bool> {
        let silence = seen.silence.get(&node).copied();
        match silence {
            _ if seen.me == Some(node) => Some(true),
            Some(silence) if silence <= self.watched.min(self.silence_max) => Some(true),
            Some(silence) if silence <= self.silence_max => None,
            None if self.watched <= self.silence_max => None,
            _ => Some(false),
        }
    }

    /// How long a node has been silent, of the time that the wish has been looked after.
    fn silence(self, node: NodeId, seen: &Observed) -> Duration {
        let silence = seen.silence.get(&node).copied();
        silence.unwrap_or(self.watched).min(self.watched)
    }

    fn majority(self, voters: &[NodeId], seen: &Observed) -> Majority {
        let count = |wanted| {
            let like = voters.iter().filter(|node| self.of(**node, seen) == wanted);
            like.count()
        };
        let (there, unknown) = (count(Some(true)), count(None));
        let is_majority = |count: usize| count * 2 > voters.len();
        match (is_majority(there), is_majority(there + unknown)) {
            (true, _) => Majority::There,
            (false, true) => Majority::Unknown,
            (false, false) => Majority::Lacking(there),
        }
    }
}

fn refuse(code: Code, message: String) -> Step {
    Step::Refuse(Box::new(ErrorReply::new(code, message)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ids::DiskId;
    use crate::raft::handle::Members;

    const MAX: Presence = Presence {
        watched: Duration::from_secs(5),
        silence_max: Duration::from_millis(800),
    };

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    /// As node 1, which leads `voters`; those in `there` have just answered, and their logs are whole.
    fn seen(voters: &[u64], learners: &[u64], there: &[u64]) -> Observed {
        let all = nodes(voters).into_iter().chain(nodes(learners));
        Observed {
            me: Some(NodeId(1)),
            members: Members {
                configs: vec![nodes(voters)],
                disks: all.map(|node| (node, DiskId(node.0))).collect(),
            },
            last_log_index: 1_000,
            matched: nodes(there).into_iter().map(|node| (node, 1_000)).collect(),
            silence: nodes(there)
                .into_iter()
                .map(|node| (node, Duration::ZERO))
                .collect(),
        }
    }

    fn refused(step: Step) -> (Code, String) {
        match step {
            Step::Refuse(refusal) => (refusal.code, refusal.message.to_string()),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_node_gets_its_vote_only_when_its_log_is_nearly_whole() {
        let four = NodeId(4);
        assert_eq!(add(four, &seen(&[1, 2, 3], &[], &[2, 3]), MAX), Step::Admit);
        let mut learner = seen(&[1, 2, 3], &[4], &[2, 3, 4]);
        learner.matched.remove(&four);
        assert_eq!(add(four, &learner, MAX), Step::Wait, "never heard of");
        learner.matched.insert(four, 899);
        assert_eq!(add(four, &learner, MAX), Step::Wait, "behind");
        learner.matched.insert(four, 900);
        assert_eq!(add(four, &learner, MAX), Step::Promote);
        learner.silence.insert(four, MAX.silence_max * 2);
        assert_eq!(add(four, &learner, MAX), Step::Wait, "silent");
        assert_eq!(
            add(four, &seen(&[1, 2, 3, 4], &[], &[2, 3, 4]), MAX),
            Step::Done
        );
    }

    #[test]
    fn what_an_earlier_leader_left_is_ended_first() {
        let mut joint = seen(&[1, 2, 3], &[4], &[2, 3, 4]);
        joint.members.configs.push(nodes(&[1, 2, 3, 4]));
        assert_eq!(add(NodeId(4), &joint, MAX), Step::Settle);
        assert_eq!(remove(NodeId(2), &joint, (MAX, true)), Step::Settle);
    }

    #[test]
    fn nobody_is_added_or_removed_where_no_majority_would_be_left() {
        let two_of_three = seen(&[1, 2, 3], &[], &[2]);
        let (code, message) = refused(remove(NodeId(2), &two_of_three, (MAX, true)));
        assert_eq!(code, Code::Reconfiguring, "{message}");
        assert!(
            message.contains("2 nodes with a vote, of which only 1"),
            "{message}"
        );
        assert_eq!(remove(NodeId(3), &two_of_three, (MAX, true)), Step::Demote);

        let three_of_five = seen(&[1, 2, 3, 4, 5], &[6], &[2, 6]);
        let (code, message) = refused(add(NodeId(6), &three_of_five, MAX));
        assert_eq!(code, Code::Reconfiguring, "{message}");
        let (code, _) = refused(remove(NodeId(1), &seen(&[1], &[], &[]), (MAX, true)));
        assert_eq!(code, Code::BadRequest);
    }

    #[test]
    fn who_has_not_answered_since_the_wish_began_is_waited_for() {
        let mut three = seen(&[1, 2, 3], &[], &[2, 3]);
        three.silence.insert(NodeId(3), Duration::from_millis(300));
        let remove = |watched, seen: &Observed| {
            let watched = Duration::from_millis(watched);
            let presence = Presence { watched, ..MAX };
            remove(NodeId(2), seen, (presence, false))
        };
        assert_eq!(
            remove(100, &three),
            Step::Wait,
            "it may have died 200 ms before"
        );
        assert_eq!(remove(300, &three), Step::Demote);
        three.silence.insert(NodeId(3), Duration::from_millis(900));
        assert_eq!(refused(remove(700, &three)).0, Code::Reconfiguring);
        three.silence.remove(&NodeId(3));
        assert_eq!(remove(700, &three), Step::Wait, "never heard of yet");
        assert_eq!(refused(remove(900, &three)).0, Code::Reconfiguring);
    }

    #[test]
    fn a_leader_hands_over_before_it_goes_and_a_voter_leaves_before_it_is_forgotten() {
        let three = seen(&[1, 2, 3], &[4], &[2, 3]);
        assert_eq!(remove(NodeId(1), &three, (MAX, false)), Step::HandOver);
        assert_eq!(remove(NodeId(2), &three, (MAX, false)), Step::Demote);
        assert_eq!(remove(NodeId(4), &three, (MAX, false)), Step::Wait);
        assert_eq!(remove(NodeId(4), &three, (MAX, true)), Step::Forget);
        assert_eq!(remove(NodeId(7), &three, (MAX, false)), Step::Done);
    }

    #[test]
    fn a_learner_that_died_is_not_waited_for_for_ever() {
        let learner = seen(&[1, 2, 3], &[4], &[1, 2]);
        assert_eq!(add(NodeId(4), &learner, MAX), Step::Wait);
        let later = Presence {
            watched: LEARNER_SILENT_MAX * 2,
            ..MAX
        };
        let (code, why) = refused(add(NodeId(4), &learner, later));
        assert_eq!(code, Code::Reconfiguring);
        assert!(why.contains("node 4 does not answer"), "{why}");
        let answers = seen(&[1, 2, 3], &[4], &[1, 2, 4]);
        assert_eq!(add(NodeId(4), &answers, later), Step::Promote);
    }

    #[test]
    fn only_a_voter_that_answers_can_take_over() {
        let three = seen(&[1, 2, 3], &[4], &[2, 4]);
        let leads = |node| transfer(node, &three, MAX);
        assert_eq!(leads(Some(NodeId(1))), Step::Done);
        assert_eq!(leads(Some(NodeId(2))), Step::HandOver);
        assert_eq!(leads(None), Step::HandOver);
        assert_eq!(refused(leads(Some(NodeId(3)))).0, Code::Reconfiguring);
        assert_eq!(refused(leads(Some(NodeId(4)))).0, Code::BadRequest);
        let begun = Presence {
            watched: Duration::ZERO,
            ..MAX
        };
        let step = transfer(Some(NodeId(3)), &three, begun);
        assert_eq!(step, Step::Wait, "it may have hung just now");
        let alone = seen(&[1], &[], &[]);
        assert_eq!(refused(transfer(None, &alone, MAX)).0, Code::BadRequest);
    }
}
