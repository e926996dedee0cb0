//! What the cluster has decided, put together from the logs, and what must hold of it.

use std::collections::{BTreeMap, BTreeSet};

use mufakat::ids::{NodeId, Token};
use mufakat::lock::event::{Effect, Event};
use mufakat::lock::outcome::{Mode, Outcome as LockOutcome};
use mufakat::raft::command::Batch;
use mufakat::raft::state::{Outcome, State};

/// All applied entries, in order.
#[derive(Default)]
pub struct History {
    entries: Vec<(u64, Option<Batch>)>,
    /// How far each node was compared; a restart does not begin anew.
    compared: BTreeMap<NodeId, u64>,
}

/// What the history amounts to.
pub struct Replay {
    pub state: State,
    /// Each grant's resource and owner.
    pub grants: BTreeMap<Token, (String, String)>,
    /// How often a command is in the log, by its text.
    pub commands: BTreeMap<String, u32>,
    /// The stamp of each batch, with its term.
    pub stamps: Vec<(u64, u64)>,
    /// Lease time at which each token's lease ended by itself.
    pub expired: BTreeMap<Token, u64>,
}

impl History {
    /// Takes what `node` has applied up to `applied`. What two nodes applied at one index must be the
    /// same, whatever crashed between.
    pub fn take(
        &mut self,
        node: NodeId,
        applied: u64,
        read: impl FnOnce(u64, u64) -> Vec<(u64, u64, Option<Batch>)>,
    ) {
        let first = self.compared.get(&node).copied().unwrap_or(0);
        if applied < first {
            return;
        }
        for (index, term, batch) in read(first, applied) {
            // A node that has applied nothing says 0, as one that has applied the first entry.
            self.compared.insert(node, index + 1);
            let index = index as usize;
            match self.entries.get(index) {
                Some((known_term, known)) => {
                    let bytes = |batch: &Option<Batch>| batch.as_ref().map(|b| b.encoded.clone());
                    let same = *known_term == term && bytes(known) == bytes(&batch);
                    assert!(
                        same,
                        "node {node} applied another entry {index} than others did"
                    );
                }
                None => {
                    assert_eq!(
                        self.entries.len(),
                        index,
                        "the log of node {node} has a gap"
                    );
                    self.entries.push((term, batch));
                }
            }
        }
    }

    /// Applies everything to an empty state, checking each step.
    pub fn replay(&self) -> Replay {
        let mut replay = Replay {
            state: State::default(),
            grants: BTreeMap::new(),
            commands: BTreeMap::new(),
            stamps: Vec::new(),
            expired: BTreeMap::new(),
        };
        for (term, batch) in &self.entries {
            if let Some(batch) = batch {
                replay.step(*term, batch);
            }
        }
        replay
    }
}

impl Replay {
    fn step(&mut self, term: u64, batch: &Batch) {
        self.stamps.push((term, batch.now_ms));
        let commands = batch.commands().expect("batches in the log decode");
        let mut effects = Vec::new();
        let before_ms = self.state.now_ms();
        let outcomes = self.state.apply(batch.now_ms, &commands, &mut effects);
        let mut touched = BTreeSet::new();
        for effect in &effects {
            match effect {
                Effect::Event(Event::Granted {
                    resource,
                    owner,
                    token,
                    ..
                }) => {
                    touched.insert(resource.to_string());
                    self.granted(*token, resource, owner);
                }
                Effect::Event(Event::Expired { token, .. }) => {
                    self.expired.insert(*token, self.state.now_ms());
                }
                _ => {}
            }
        }
        for (proposed, outcome) in commands.iter().zip(&outcomes) {
            *self
                .commands
                .entry(format!("{:?}", proposed.command))
                .or_default() += 1;
            if let Outcome::Lock(LockOutcome::Acquired(grant)) = outcome {
                let known = self.grants.get(&grant.token);
                let resource = grant.wants.as_slice()[0].resource.to_string();
                let same = known == Some(&(resource, grant.owner.to_string()));
                assert!(same, "an answer names a grant that is none: {grant:?}");
            }
        }
        assert!(self.state.now_ms() >= before_ms, "lease time went back");
        for resource in touched {
            let holders = self.state.locks.get(&resource, self.state.now_ms()).holders;
            let mut modes = holders.iter().map(|holder| holder.grip.mode());
            let exclusive = modes.any(|mode| mode == Mode::Exclusive);
            assert!(
                !exclusive || holders.len() == 1,
                "two holders of {resource}: {holders:?}"
            );
        }
    }

    /// A grant has a token above all others.
    fn granted(&mut self, token: Token, resource: &str, owner: &str) {
        let highest = self.grants.last_key_value().map(|(token, _)| *token);
        assert!(
            highest < Some(token),
            "token {token} does not rise above {highest:?}"
        );
        let grant = (resource.to_owned(), owner.to_owned());
        self.grants.insert(token, grant);
    }

    /// How often an acquire of an owner is in the log, at most, over all owners that nodes made up:
    /// each of these names one request of one client.
    pub fn most_of_one_request(&self) -> u32 {
        let made_up = |(text, _): &(&String, &u32)| text.contains("owner: \"anon-");
        self.commands
            .iter()
            .filter(made_up)
            .map(|(_, count)| *count)
            .max()
            .unwrap_or(0)
    }
}
