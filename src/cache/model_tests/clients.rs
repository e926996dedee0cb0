//! The clients of the world: what they ask, and what they make of the answers.

use rand::RngExt;

use super::checker::{self, Did};
use super::world::{CLIENTS, Event, KEYS, Mail, PATIENCE_MS, Seen, World};
use crate::cache::entry::Key;
use crate::cache::message::Matching;
use crate::cache::operation::{Answer, Condition, Operation, Why};
use crate::cache::state::Waiter;
use crate::ids::NodeId;
use crate::protocol::value::Value;

/// One client's operation.
pub(super) struct Asked {
    /// One, or all that an invalidation may be about.
    keys: Vec<u64>,
    did: Option<Did>,
    asked: u64,
    answered: Option<u64>,
    is_over: bool,
}

impl World {
    pub(super) fn ask(&mut self, client: u64) {
        let running: Vec<NodeId> = self.nodes.keys().copied().collect();
        let id = running[self.rng.random_range(0..running.len())];
        let key = self.rng.random_range(0..KEYS);
        let number = self.asked.len() as u64;
        let what = self.rng.random_range(0..100);
        let name: Key = format!("key-{key}").into();
        let text = Value::text(format!("{number:0>60}"));
        let set = |condition, ttl_ms| Operation::Set {
            value: text.clone(),
            ttl_ms,
            idle_ms: 0,
            condition,
            tags: (key % 2 == 0)
                .then(|| Key::from("even"))
                .into_iter()
                .collect(),
            fence: None,
            claim: None,
        };
        if self.rng.random_bool(0.02) {
            return self.invalidate(client, id);
        }
        let (operation, did) = match (what, self.known.get(&key).copied()) {
            (0..70, _) => (None, None),
            (70..76, _) => {
                let condition = Condition::Always;
                (Some(Operation::Delete { condition }), Some(Did::Removed))
            }
            (76..84, Some((before, version))) => {
                let condition = Condition::Version(version);
                (
                    Some(set(condition, None)),
                    Some(Did::Replaced(before, number)),
                )
            }
            (84..88, _) => (
                Some(set(Condition::Always, Some(self.rng.random_range(20..400)))),
                Some(Did::Wrote(number)),
            ),
            _ => (Some(set(Condition::Always, None)), Some(Did::Wrote(number))),
        };
        let waiter = self.note(client, vec![key], did);
        self.hand_in(id, name, operation, waiter);
    }

    fn note(&mut self, client: u64, keys: Vec<u64>, did: Option<Did>) -> Waiter<u64> {
        let number = self.asked.len() as u64;
        self.asked.push(Asked {
            keys,
            did,
            asked: self.now,
            answered: None,
            is_over: false,
        });
        self.waiting.insert(client, number);
        self.seen.operations += 1;
        self.at(PATIENCE_MS, Event::GiveUp(client, number));
        Waiter {
            ticket: number * CLIENTS + client,
            deadline_ms: 0,
        }
    }

    /// Removes one key, half of them, or all: for the history of each that is one removal.
    fn invalidate(&mut self, client: u64, id: NodeId) {
        let one = self.rng.random_range(0..KEYS);
        let (matching, keys) = match self.rng.random_range(0..3) {
            0 => (Matching::All, (0..KEYS).collect()),
            1 => {
                let even = (0..KEYS).filter(|key| key % 2 == 0);
                (Matching::Tag("even".into()), even.collect())
            }
            _ => (Matching::Prefix(format!("key-{one}").into()), vec![one]),
        };
        let waiter = self.note(client, keys, Some(Did::Removed));
        self.at(0, Event::Mail(id, id, Mail::Invalidate(matching, waiter)));
    }

    /// A paused node finds the request when it goes on.
    fn hand_in(&mut self, id: NodeId, key: Key, operation: Option<Operation>, waiter: Waiter<u64>) {
        match operation {
            None => self.at(0, Event::Mail(id, id, Mail::Read(key, waiter))),
            Some(operation) => {
                let home = self.nodes[&id].cache.home(&key).unwrap_or(id);
                self.mail(id, home, Mail::Write(key, operation, waiter));
            }
        }
    }

    pub(super) fn answered(&mut self, ticket: u64, answer: Answer) {
        let (number, client) = (ticket / CLIENTS, ticket % CLIENTS);
        let asked = &mut self.asked[number as usize];
        if asked.is_over {
            return;
        }
        let key = asked.keys[0];
        let mut known = None;
        match answer {
            Answer::Found(hit) => {
                let text = std::str::from_utf8(hit.value.bytes()).expect("text");
                let value: u64 = text.parse().expect("a number");
                asked.did = Some(Did::Read(value));
                known = Some((value, hit.version));
            }
            Answer::Wrote { version } => known = Some((number, version)),
            Answer::Removed { existed: true } => {}
            Answer::Swept { removed } => self.seen.swept += removed,
            Answer::Refused(Why::Indeterminate) => {
                // It may have happened, or happen yet.
                self.seen.unknown += 1;
                asked.is_over = true;
                if self.waiting.get(&client) == Some(&number) {
                    self.go_on(client);
                }
                return;
            }
            Answer::Missed
            | Answer::Claimed { .. }
            | Answer::Removed { existed: false }
            | Answer::Counted { .. }
            | Answer::Audited(_)
            | Answer::Refused(_) => asked.did = None,
        }
        asked.answered = Some(self.now);
        asked.is_over = true;
        if let Some((value, version)) = known {
            let first = *self.versions.entry((key, version)).or_insert(value);
            if first != value {
                self.broken = Some(format!("version {version} of two values"));
            }
            self.known.insert(key, (value, version));
        }
        if self.waiting.get(&client) == Some(&number) {
            self.go_on(client);
        }
    }

    pub(super) fn go_on(&mut self, client: u64) {
        self.waiting.remove(&client);
        let pause = self.rng.random_range(1..25);
        self.at(pause, Event::Client(client));
    }

    /// One key's history, for whoever looks into a failure.
    fn history(&self, key: u64) -> Vec<checker::Operation> {
        let of_key = self.asked.iter().filter(|asked| asked.keys.contains(&key));
        of_key
            .filter_map(|asked| {
                Some(checker::Operation {
                    did: asked.did?,
                    asked: asked.asked,
                    answered: asked.answered,
                })
            })
            .collect()
    }

    pub fn check(mut self) -> Result<Seen, String> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        for node in self.nodes.values() {
            let counts = node.cache.counts();
            self.seen.promoted += counts.promoted;
            self.seen.evictions += counts.evictions;
        }
        for key in 0..KEYS {
            let operations = self.history(key);
            if !checker::is_linearizable(&operations) {
                let history: Vec<String> = operations.iter().map(|o| format!("{o:?}")).collect();
                return Err(format!(
                    "key {key} is not linearizable:\n{}",
                    history.join("\n")
                ));
            }
        }
        Ok(self.seen)
    }
}
