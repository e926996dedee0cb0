//! The replicated state, and its one transition. Plain code: a batch in, outcomes and effects out.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::ids::{ClusterId, DiskId, NodeId};
use crate::lock;
use crate::lock::command::Grace;
use crate::queue;
use crate::raft::command::{Command, Proposed};
use crate::view;

/// The most removed nodes that are remembered; beyond it the lowest numbers are forgotten.
const RETIRED_MAX: usize = 1_024;

/// Tokens that a restored cluster does not grant: the old one may have granted them after the copy was
/// made. A hundred thousand in each second of three months.
pub const TOKENS_SKIPPED: u64 = 1 << 40;
/// Views that a restored cluster does not have, for the same reason.
const EPOCHS_SKIPPED: u64 = 1 << 20;

/// What a restored cluster does about the queues of the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topics {
    /// It begins without topics, and leaves those of the old cluster alone.
    Leave,
    /// It owns them from now on, in their Redis; the old cluster is shut out.
    Adopt,
}

/// Everything that the log decides. A clone shares what is large with the original, until one of them
/// changes: it takes microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// Lease time: the highest stamp of any batch applied, in milliseconds.
    now_ms: u64,
    /// How many batches made this state: states with equal counts can be compared by hash.
    batches: u64,
    /// Known once the first membership is applied.
    pub cluster: Option<ClusterId>,
    pub locks: lock::table::Table,
    pub view: view::cluster::View,
    /// How far topics had come.
    #[serde(default)]
    pub marks: queue::marks::Marks,
    /// Nodes that were removed, with the data directory that each had: the number of a node stands for
    /// that directory for ever. At most [`RETIRED_MAX`].
    #[serde(default)]
    pub retired: BTreeMap<NodeId, DiskId>,
    /// The cluster that founded the topics, where that was another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topics_of: Option<ClusterId>,
}

/// The answer to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Lock(lock::outcome::Outcome),
    View(view::cluster::Change),
    Marked,
    TermStarted,
}

impl Outcome {
    /// Whether the command stands in a queue: its answer comes later, as an effect.
    pub fn is_waiting(&self) -> bool {
        matches!(self, Outcome::Lock(lock::outcome::Outcome::Waiting))
    }
}

impl State {
    /// Lease time as of the last batch, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// How many batches have been applied since the cluster began.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// Whose topics are this cluster's, as the keys in Redis have it; none before it is founded.
    pub fn topics_of(&self) -> Option<ClusterId> {
        self.topics_of.or(self.cluster)
    }

    /// Makes this the first state of another cluster. Locks, waits and sessions go on where they stood;
    /// nodes belong to the old one.
    pub fn found_anew(&mut self, cluster: ClusterId, topics: Topics) {
        match topics {
            Topics::Adopt => self.topics_of = self.topics_of(),
            Topics::Leave => {
                self.topics_of = None;
                self.marks = queue::marks::Marks::default();
            }
        }
        self.cluster = Some(cluster);
        self.locks.skip_tokens(TOKENS_SKIPPED);
        self.view.found_anew(EPOCHS_SKIPPED);
        self.retired.clear();
    }

    /// Remembers who was removed, and that who is back belongs again.
    pub fn members_changed(
        &mut self,
        before: &BTreeMap<NodeId, DiskId>,
        after: &BTreeMap<NodeId, DiskId>,
    ) {
        let removed = before.iter().filter(|(node, _)| !after.contains_key(node));
        self.retired.extend(removed);
        self.retired.retain(|node, _| !after.contains_key(node));
        while self.retired.len() > RETIRED_MAX {
            self.retired.pop_first();
        }
    }

    /// Applies one batch: first ends what is over at `stamp_ms`, then runs the commands in order.
    /// Time never goes back, whatever the stamp.
    pub fn apply(
        &mut self,
        stamp_ms: u64,
        commands: &[Proposed],
        effects: &mut Vec<lock::event::Effect>,
    ) -> Vec<Outcome> {
        self.batches += 1;
        self.now_ms = self.now_ms.max(stamp_ms);
        let now_ms = self.now_ms;
        self.locks.expire(now_ms, effects);
        let run = |proposed: &Proposed| match &proposed.command {
            Command::Lock(command) => Outcome::Lock(self.locks.apply(now_ms, command, effects)),
            Command::View(command) => Outcome::View(self.view.apply(command)),
            Command::Marks(reports) => {
                self.marks.apply(reports);
                Outcome::Marked
            }
            Command::TermStarted {
                grace_ms,
                keeps_over,
            } => {
                let grace = Grace {
                    ms: *grace_ms,
                    keeps_over: *keeps_over,
                };
                self.locks.start_term(now_ms, grace);
                Outcome::TermStarted
            }
        };
        commands.iter().map(run).collect()
    }

    /// Writes the bytes that a snapshot holds; equal states have equal bytes.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn encode_to(&self, out: &mut impl Write) -> io::Result<()> {
        rmp_serde::encode::write(out, self).map_err(io::Error::other)
    }

    /// The state as the bytes that a snapshot holds.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode_to(&mut bytes).expect("memory takes it");
        bytes
    }

    /// # Errors
    /// When the bytes are not a state of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        rmp_serde::from_slice(bytes)
    }

    /// A hash of the whole state: equal on all nodes that have applied the same entries.
    pub fn hash(&self) -> u64 {
        let mut hasher = BufWriter::with_capacity(64 << 10, Xxh3::new());
        self.encode_to(&mut hasher).expect("a hash takes it");
        hasher.flush().expect("a hash takes it");
        hasher.get_ref().digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Token;
    use crate::lock::claim::{Grip, Wants};
    use crate::lock::command::{Acquire, Command as Lock, DeadlockPolicy};
    use crate::lock::outcome::Outcome as Answer;

    fn proposed(command: Lock) -> Proposed {
        Proposed {
            origin: None,
            command: Command::Lock(command),
        }
    }

    fn acquire(owner: &str) -> Proposed {
        proposed(Lock::Acquire(Acquire {
            wants: Wants::one("r", Grip::Exclusive),
            owner: owner.into(),
            request_id: None,
            session: None,
            ttl_ms: Some(1_000),
            wait: None,
            on_deadlock: DeadlockPolicy::Requester,
            meta: None,
            tenant: None,
        }))
    }

    fn renew(token: u64) -> Proposed {
        proposed(Lock::Renew {
            tenant: None,
            resource: Some("r".into()),
            token: Token(token),
            ttl_ms: None,
        })
    }

    fn apply(state: &mut State, stamp_ms: u64, commands: &[Proposed]) -> Vec<Answer> {
        let outcomes = state.apply(stamp_ms, commands, &mut Vec::new());
        let answers = outcomes.into_iter().map(|outcome| match outcome {
            Outcome::Lock(answer) => answer,
            other => panic!("{other:?}"),
        });
        answers.collect()
    }

    /// The stamp decides for all commands of an entry alike, whatever their order in it.
    #[test]
    fn a_renewal_in_the_entry_that_ends_the_lease_is_too_late() {
        let mut state = State::default();
        apply(&mut state, 5, &[acquire("a")]);
        let answers = apply(&mut state, 1_004, &[renew(1), acquire("b")]);
        let [Answer::Renewed { .. }, Answer::Held(_)] = &answers[..] else {
            panic!("{answers:?}");
        };
        let answers = apply(&mut state, 2_004, &[renew(1), acquire("b"), renew(1)]);
        let [Answer::NotHolder, Answer::Acquired(b), Answer::NotHolder] = &answers[..] else {
            panic!("{answers:?}");
        };
        assert_eq!(b.token, Token(2));
    }

    #[test]
    fn another_cluster_goes_on_where_one_stood_with_greater_tokens() {
        let mut state = State::default();
        apply(&mut state, 5, &[acquire("a")]);
        state.cluster = Some(ClusterId(1));
        state.retired.insert(NodeId(9), DiskId(9));
        let report = |topic: &str| queue::marks::Report {
            topic: topic.to_owned(),
            mark: queue::marks::Mark::default(),
        };
        state.marks.apply(&[report("t")]);
        let old = state.clone();

        state.found_anew(ClusterId(2), Topics::Leave);
        assert_eq!(
            (state.cluster, state.topics_of()),
            (Some(ClusterId(2)), Some(ClusterId(2)))
        );
        assert!(state.marks.is_empty() && state.retired.is_empty());
        assert!(state.view.epoch() > old.view.epoch());
        assert!(state.view.fence() > old.view.fence());
        // The lease ends when it would have ended, and the next token is greater than any before.
        let answers = apply(&mut state, 1_004, &[renew(1)]);
        assert!(
            matches!(answers[..], [Answer::Renewed { .. }]),
            "{answers:?}"
        );
        let answers = apply(&mut state, 2_004, &[acquire("b")]);
        let [Answer::Acquired(b)] = &answers[..] else {
            panic!("{answers:?}");
        };
        assert_eq!(b.token, Token(1 + TOKENS_SKIPPED + 1));

        // Topics stay those of the cluster that founded them, however often they are adopted.
        let mut adopting = old;
        adopting.found_anew(ClusterId(2), Topics::Adopt);
        adopting.found_anew(ClusterId(3), Topics::Adopt);
        assert_eq!(adopting.topics_of(), Some(ClusterId(1)));
        assert_eq!(adopting.marks.len(), 1);
        let decoded = State::decode(&adopting.encode()).expect("what was encoded");
        assert_eq!(decoded.topics_of(), Some(ClusterId(1)));
    }

    #[test]
    fn time_does_not_go_back() {
        let mut state = State::default();
        apply(&mut state, 5_000, &[acquire("a")]);
        let answers = apply(&mut state, 10, &[acquire("a")]);
        let [Answer::Acquired(again)] = &answers[..] else {
            panic!("{answers:?}");
        };
        assert_eq!((state.now_ms(), again.expires_in_ms), (5_000, 1_000));
        apply(&mut state, 6_000, &[]);
        assert_eq!(state.locks.counts().held, 0);
    }
}
