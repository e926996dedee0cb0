//! Random calls of the cache's store, run by the scripts in a real Redis and by a model.

use std::collections::BTreeMap;

use mufakat::cache::entry::{Entry, Key, Marks, Version};
use mufakat::cache::message::Matching;
use mufakat::cache::operation::{Answer, Condition, Operation, Write};
use mufakat::cache::requests::Done;
use mufakat::cache::service::Store;
use mufakat::cache::through::{Call, Outcome};
use mufakat::ids::Epoch;

use crate::cache_scripts::{Caller, entry};
use crate::dice::Dice;
use crate::redis_server::RedisServer;

/// What the scripts are to do, in plain maps.
#[derive(Default)]
struct Model {
    epoch: Epoch,
    /// Counts what is kept and what makes void.
    sequence: u64,
    /// With the sequence at which each was kept.
    values: BTreeMap<Key, (Entry, u64)>,
    results: BTreeMap<(Key, Key), Done>,
    voids: Vec<(Matching, u64)>,
}

impl Model {
    fn execute(&mut self, call: &Call) -> Outcome {
        if call.epoch() < self.epoch {
            return Outcome::Fenced;
        }
        self.epoch = call.epoch();
        self.sequence += 1;
        match call.clone() {
            Call::Keep {
                key,
                version,
                entry,
                done,
                ..
            } => {
                let known = self.values.get(&key);
                if known.is_some_and(|(known, _)| known.version >= version) {
                    return Outcome::Done;
                }
                self.values.remove(&key);
                if let Some(done) = done {
                    self.results.insert((key.clone(), done.id.clone()), done);
                }
                if let Some(sent) = entry {
                    self.values.insert(key, (sent.kept(0), self.sequence));
                }
                Outcome::Done
            }
            Call::Bring { key, id, .. } => {
                let is_void = |(entry, kept_at): &(Entry, u64)| {
                    let mut voids = self.voids.iter();
                    voids.any(|(matching, at)| kept_at <= at && matching.is_of(&key, entry))
                };
                if self.values.get(&key).is_some_and(is_void) {
                    self.values.remove(&key);
                }
                let entry = self.values.get(&key).map(|(entry, _)| entry.sent(0));
                let done = id.and_then(|id| self.results.get(&(key, id)));
                let done = done.map(|done| (done.clone(), 0));
                Outcome::Brought { entry, done }
            }
            Call::Void { matching, .. } => {
                self.voids.push((matching, self.sequence));
                Outcome::Done
            }
        }
    }
}

/// A call of a view that is now and then older or newer than the one before.
fn any_call(dice: &Dice, newest: u64) -> Call {
    let one_of = |names: &[&str]| Key::from(names[dice.below(names.len() as u64) as usize]);
    let epoch = match dice.below(20) {
        0 => newest.saturating_sub(1),
        1 => newest + 1,
        _ => newest,
    };
    let (key, id) = (one_of(&["a", "a/b", "b"]), one_of(&["x", "y"]));
    match dice.below(10) {
        0 => Call::Void {
            epoch: Epoch(epoch),
            matching: match dice.below(5) {
                0 => Matching::All,
                1 | 2 => Matching::Prefix(one_of(&["a", "a/", "b", "red"])),
                _ => Matching::Tag(one_of(&["red", "blue", "a"])),
            },
        },
        1..=4 => Call::Bring {
            epoch: Epoch(epoch),
            key,
            id: (dice.below(2) == 0).then_some(id),
        },
        _ => {
            let version = Version {
                epoch: epoch - dice.below(2).min(epoch),
                sequence: dice.below(6),
            };
            let tags: Vec<Key> = ["red", "blue"].map(Key::from).into();
            let tags = tags.into_iter().filter(|_| dice.below(2) == 0).collect();
            let value = Entry {
                version,
                marks: Marks { tags, fence: None }.kept(),
                ..entry(&format!("{version:?}"))
            };
            let write = Write {
                id: Some(id),
                ..Operation::Delete {
                    condition: Condition::Always,
                }
                .into()
            };
            let existed = dice.below(2) == 0;
            let done = Done::of(&write, &Answer::Removed { existed });
            Call::Keep {
                epoch: Epoch(epoch),
                key,
                version,
                entry: (dice.below(4) > 0).then(|| value.sent(0)),
                done: done.filter(|_| dice.below(3) == 0),
            }
        }
    }
}

/// How long a result is still kept does not count.
fn timeless(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Brought { entry, done } => Outcome::Brought {
            entry,
            done: done.map(|(done, _)| (done, 0)),
        },
        other => other,
    }
}

#[tokio::test]
async fn cache_scripts_do_what_a_model_does() {
    let server = RedisServer::start().await;
    let callers = [
        Caller::start(&server, 1).await,
        Caller::start(&server, 2).await,
    ];
    let (dice, mut model) = (Dice::roll(), Model::default());
    for step in 0..3_000 {
        let call = any_call(&dice, model.epoch.0.max(1));
        let caller = &callers[dice.below(2) as usize];
        let expected = model.execute(&call);
        let outcome = timeless(caller.store.call(call.clone()).await);
        assert_eq!(outcome, expected, "step {step}: {call:?}");
    }
}
