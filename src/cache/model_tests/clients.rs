//! The clients of the world: what they ask, and what they make of the answers.

use rand::RngExt;

use super::checker::{self, Did};
use super::nodes::add_one;
use super::seen::Seen;
use super::world::{CLIENTS, Event, KEYS, Mail, PATIENCE_MS, World};
use crate::cache::entry::Key;
use crate::cache::message::Matching;
use crate::cache::operation::{Answer, Condition, Operation, Source, Why, Write};
use crate::cache::state::Waiter;
use crate::ids::NodeId;
use crate::protocol::value::Value;

/// How long a client repeats a write of which it does not know whether it was made.
const REPEAT_MS: u64 = 4_000;
/// Longer than a repeat is on its way, so that what was asked before is over at every node.
const ON_ITS_WAY_MS: u64 = 200;
/// A key that is only counted.
const COUNTER: u64 = KEYS;
/// More attempts than a client makes.
const ATTEMPTS_MAX: u64 = 1_000;

/// One client's operation.
pub(super) struct Asked {
    /// One, or all that an invalidation may be about.
    keys: Vec<u64>,
    did: Option<Did>,
    /// Of what may be repeated: the key and the write.
    write: Option<(Key, Write)>,
    attempt: u64,
    asked: u64,
    answered: Option<u64>,
    is_over: bool,
}

impl World {
    pub(super) fn ask(&mut self, client: u64) {
        let key = self.rng.random_range(0..KEYS);
        let number = self.asked.len() as u64;
        let what = self.rng.random_range(0..100);
        let name: Key = format!("key-{key}").into();
        // Some are small enough to go with the news of their write.
        let width = if self.rng.random_bool(0.3) {
            8_000
        } else {
            4_000
        };
        let text = Value::text(format!("{number:0>width$}"));
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
            return self.invalidate(client);
        }
        if self.rng.random_bool(0.04) {
            return self.count(client);
        }
        let (operation, did) = match (what, self.known.get(&key).copied()) {
            (0..70, _) => {
                let waiter = self.note(client, vec![key], None, None);
                let id = self.any_node();
                return self.at(0, Event::Mail(id, id, Mail::Read(name, waiter)));
            }
            (70..76, _) => {
                let condition = Condition::Always;
                (Operation::Delete { condition }, Did::Removed)
            }
            (76..84, Some((before, version))) => {
                let condition = Condition::Version(version);
                (set(condition, None), Did::Replaced(before, number))
            }
            (84..88, _) => {
                let ttl_ms = self.rng.random_range(20..400);
                (set(Condition::Always, Some(ttl_ms)), Did::Wrote(number))
            }
            _ => (set(Condition::Always, None), Did::Wrote(number)),
        };
        let write = Write {
            id: self.rng.random_bool(0.3).then(|| id_of(number)),
            ..operation.into()
        };
        let waiter = self.note(client, vec![key], Some(did), Some((name, write)));
        self.hand_in(waiter);
    }

    /// Adds one to the counter.
    fn count(&mut self, client: u64) {
        let write = add_one(&id_of(self.asked.len() as u64));
        let name = Key::from("count");
        let waiter = self.note(client, vec![COUNTER], None, Some((name, write)));
        self.hand_in(waiter);
    }

    fn note(
        &mut self,
        client: u64,
        keys: Vec<u64>,
        did: Option<Did>,
        write: Option<(Key, Write)>,
    ) -> Waiter<u64> {
        let number = self.asked.len() as u64;
        self.asked.push(Asked {
            keys,
            did,
            write,
            attempt: 0,
            asked: self.now,
            answered: None,
            is_over: false,
        });
        self.seen.operations += 1;
        self.wait(client, number)
    }

    fn wait(&mut self, client: u64, number: u64) -> Waiter<u64> {
        let attempt = self.asked[number as usize].attempt;
        let ticket = (number * ATTEMPTS_MAX + attempt) * CLIENTS + client;
        self.waiting.insert(client, ticket);
        self.at(PATIENCE_MS + ON_ITS_WAY_MS, Event::GiveUp(client, ticket));
        Waiter {
            ticket,
            deadline_ms: 0,
        }
    }

    fn any_node(&mut self) -> NodeId {
        let running: Vec<NodeId> = self.nodes.keys().copied().collect();
        running[self.rng.random_range(0..running.len())]
    }

    /// Removes one key, half of them, or all: for the history of each that is one removal.
    fn invalidate(&mut self, client: u64) {
        let one = self.rng.random_range(0..KEYS);
        let (matching, keys) = match self.rng.random_range(0..3) {
            0 => (Matching::All, (0..KEYS).collect()),
            1 => {
                let even = (0..KEYS).filter(|key| key % 2 == 0);
                (Matching::Tag("even".into()), even.collect())
            }
            _ => (Matching::Prefix(format!("key-{one}").into()), vec![one]),
        };
        let id = self.any_node();
        let waiter = self.note(client, keys, Some(Did::Removed), None);
        self.at(0, Event::Mail(id, id, Mail::Invalidate(matching, waiter)));
    }

    /// Hands a write to the home that some node knows. A paused node finds it when it goes on.
    fn hand_in(&mut self, waiter: Waiter<u64>) {
        let number = waiter.ticket / CLIENTS / ATTEMPTS_MAX;
        let asked = &self.asked[number as usize];
        let (name, mut write) = asked.write.clone().expect("it is a write");
        write.is_repeat = asked.attempt > 0;
        let id = self.any_node();
        let home = self.nodes[&id].cache.home(&name).unwrap_or(id);
        self.mail(id, home, Mail::Write(name, Box::new(write), waiter));
    }

    /// It is not known what became of this attempt.
    pub(super) fn give_up(&mut self, client: u64, ticket: u64) {
        let number = ticket / CLIENTS / ATTEMPTS_MAX;
        let now = self.now;
        let asked = &mut self.asked[number as usize];
        let has_id = asked.write.as_ref().is_some_and(|(_, w)| w.id.is_some());
        if has_id && !asked.is_over && now < asked.asked + REPEAT_MS {
            asked.attempt += 1;
            self.seen.repeated += 1;
            let waiter = self.wait(client, number);
            return self.hand_in(waiter);
        }
        self.seen.unknown += 1;
        self.go_on(client);
    }

    pub(super) fn answered(&mut self, ticket: u64, answer: Answer) {
        let (number, client) = (ticket / CLIENTS / ATTEMPTS_MAX, ticket % CLIENTS);
        let is_lost = self.rng.random_bool(0.1);
        let asked = &mut self.asked[number as usize];
        let has_id = asked.write.as_ref().is_some_and(|(_, w)| w.id.is_some());
        if asked.is_over || (has_id && is_lost) {
            return;
        }
        let is_waited_for = self.waiting.get(&client) == Some(&ticket);
        let key = asked.keys[0];
        let mut known = None;
        match answer {
            Answer::Found(hit) => {
                let text = std::str::from_utf8(hit.value.bytes()).expect("text");
                let value: u64 = text.parse().expect("a number");
                asked.did = Some(Did::Read(value));
                self.seen.stored += u64::from(hit.source == Source::Store);
                known = Some((value, hit.version));
            }
            Answer::Wrote { version } => known = Some((number, version)),
            Answer::Counted { value, version } => self.counted.push((version, value)),
            Answer::Removed { existed: true } => {}
            Answer::Swept { removed } => self.seen.swept += removed,
            // It may have happened, or happen yet.
            Answer::Refused(Why::Indeterminate) if has_id => {
                if is_waited_for {
                    self.pause_to_give_up(client, ticket);
                }
                return;
            }
            Answer::Refused(Why::Indeterminate | Why::Forgotten) => {
                self.seen.unknown += 1;
                asked.is_over = true;
                if is_waited_for {
                    self.go_on(client);
                }
                return;
            }
            // What was asked before this repeat may have been made.
            Answer::Refused(
                Why::NoLease
                | Why::TimedOut
                | Why::NotHome
                | Why::Full
                | Why::TooMany
                | Why::TooManyIds
                | Why::StoreAway,
            ) if asked.attempt > 0 => {
                if is_waited_for {
                    self.pause_to_give_up(client, ticket);
                }
                return;
            }
            Answer::Missed
            | Answer::Claimed { .. }
            | Answer::Removed { existed: false }
            | Answer::Audited(_)
            | Answer::Refused(_) => {
                asked.did = None;
                self.uncounted += u64::from(key == COUNTER);
            }
        }
        self.seen.recalled += u64::from(asked.attempt > 0);
        asked.answered = Some(self.now);
        asked.is_over = true;
        if let Some((value, version)) = known {
            let first = *self.versions.entry((key, version)).or_insert(value);
            if first != value {
                self.broken = Some(format!("version {version} of two values"));
            }
            self.known.insert(key, (value, version));
        }
        if is_waited_for {
            self.go_on(client);
        }
    }

    fn pause_to_give_up(&mut self, client: u64, ticket: u64) {
        let pause = self.rng.random_range(1..100);
        self.at(pause, Event::GiveUp(client, ticket));
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
            self.seen.updates += counts.updates;
        }
        self.check_counts()?;
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

    /// Each count is one more than the one before, apart from those whose clients know nothing; a counter
    /// that was forgotten begins anew.
    fn check_counts(&mut self) -> Result<(), String> {
        self.counted.sort_unstable();
        let asked = self.asked.iter().filter(|asked| asked.keys == [COUNTER]);
        let unknown = asked.count() as u64 - self.counted.len() as u64 - self.uncounted;
        let mut before = 0;
        let mut unseen = 0;
        for (_, value) in &self.counted {
            let least = if *value > before { before + 1 } else { 1 };
            unseen += value - least;
            before = *value;
        }
        self.seen.counted += self.counted.len() as u64;
        let is_once = self.counted.is_sorted_by(|one, next| one.0 < next.0);
        match is_once && unseen <= unknown {
            true => Ok(()),
            false => Err(format!(
                "{unseen} counts that nobody asked for, {unknown} unknown: {:?}",
                self.counted
            )),
        }
    }
}

fn id_of(number: u64) -> Key {
    format!("id-{number}").into()
}
