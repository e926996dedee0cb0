//! Every order of a few operations and all their messages, some of which are lost or come twice: what
//! the random runs of [`world`](super::world) meet by luck is looked at whole here, without changes of
//! the view.
//!
//! At each step of a run the next client asks, a message is delivered, lost or delivered once more, a call of
//! the store is answered, or fails before or after it was executed, or time passes. All runs are tried; those that come to the same state go on as one. Losses, repeats and
//! passings of time are bounded. At the end everybody must have an answer, and the answers must be
//! linearizable.

use std::collections::{BTreeMap, HashSet};

use xxhash_rust::xxh3::xxh3_64;

use super::checker::{self, Did};
use super::nodes::*;
use super::store::{Lax, MapStore};
use crate::cache::entry::Key;
use crate::cache::message::Matching;
use crate::cache::operation::{Answer, Why};
use crate::cache::state::{Flaws, Settings};
use crate::cache::through::Outcome;
use crate::ids::NodeId;

/// Longer than the pause after which a message is sent again.
const PASSING_MS: u64 = 45;
/// Where a search gives up.
const STATES_MAX: usize = 200_000;

/// What a client does, through whichever node decides about it.
#[derive(Clone, Copy, Debug)]
enum Act {
    Set(u64),
    Delete,
    Invalidate,
    Get(NodeId),
    /// The home makes room; nobody asks for it.
    Evict,
    /// Adds one under this id: repeats are one operation.
    Count(&'static str),
}

/// What happens in each run, and how much of it may go wrong.
#[derive(Clone, Copy)]
struct Scenario {
    acts: &'static [Act],
    backups: bool,
    store: bool,
    losses: u32,
    repeats: u32,
    passings: u32,
    flaws: Flaws,
}

/// One operation of a run: its ticket, or what a hit gave; and at which step it began and ended.
#[derive(Clone, Debug)]
struct Asked {
    act: Act,
    ticket: Option<u64>,
    read: Option<u64>,
    asked: u64,
    answered: Option<u64>,
}

#[derive(Clone)]
struct Run {
    nodes: Nodes,
    store: MapStore,
    key: Key,
    asked: Vec<Asked>,
    step: u64,
    losses: u32,
    repeats: u32,
    passings: u32,
}

impl Run {
    /// A value of which all nodes have a copy.
    fn start(scenario: Scenario) -> Self {
        let mut nodes = Nodes::start_as(Settings {
            bytes_max: 1 << 20,
            backups: scenario.backups,
            store: scenario.store,
            remember_ms: REMEMBER_MS,
        });
        nodes.flaw(scenario.flaws);
        let mut run = Run {
            key: nodes.key(),
            nodes,
            store: MapStore::new(Lax::default()),
            asked: Vec::new(),
            step: 1,
            losses: scenario.losses,
            repeats: scenario.repeats,
            passings: scenario.passings,
        };
        run.nodes.write(&run.key, add_one("first"));
        run.settle();
        run.nodes.get(READER, &run.key);
        run.nodes.get(OTHER, &run.key);
        run
    }

    /// Ends a call of the store that is under way.
    fn end_call(&mut self, at: usize, (is_executed, is_heard): (bool, bool)) {
        let (node, id, call) = self.nodes.calls.remove(at);
        let now = self.nodes.now;
        let mut outcome = Outcome::Unknown;
        if is_executed {
            let executed = self.store.execute((node, 1), &call, now);
            outcome = if is_heard { executed } else { outcome };
        }
        let cache = self.nodes.caches.get_mut(&node).expect("it runs");
        cache.store_answered(id, outcome, now);
        self.nodes.collect();
    }

    /// Lets everything come that is on its way.
    fn settle(&mut self) {
        self.nodes.settle();
        while !self.nodes.calls.is_empty() {
            self.end_call(0, (true, true));
            self.nodes.settle();
        }
    }

    fn begin(&mut self, act: Act) {
        let (key, asked) = (self.key.clone(), self.step);
        let mut read = None;
        let ticket = match act {
            Act::Set(number) => Some(self.nodes.set(&key, &number.to_string())),
            Act::Count(id) => Some(self.nodes.write(&key, add_one(id))),
            Act::Delete => Some(self.nodes.delete(&key)),
            Act::Invalidate => Some(self.nodes.invalidate(OTHER, Matching::All)),
            Act::Evict => {
                let now = self.nodes.now;
                let home = self.nodes.caches.get_mut(&HOME).expect("it runs");
                home.evict_held((None, ""), now);
                self.nodes.collect();
                None
            }
            Act::Get(node) => {
                read = self.nodes.hit(node, &key).map(|text| number(&text));
                read.is_none().then(|| self.nodes.read(node, &key))
            }
        };
        self.asked.push(Asked {
            act,
            ticket,
            read,
            asked,
            answered: ticket.is_none().then_some(asked),
        });
    }

    /// Notes who has been answered by this step.
    fn note(&mut self) {
        for asked in &mut self.asked {
            if let (None, Some(ticket)) = (asked.answered, asked.ticket)
                && self.nodes.is_answered(ticket)
            {
                asked.answered = Some(self.step);
            }
        }
        self.step += 1;
    }

    /// What tells states apart: the nodes, what is on its way in any order, and what clients know, of
    /// which only the order counts.
    fn fingerprint(&self) -> u64 {
        let mut mail: Vec<String> = self.nodes.mail.iter().map(|m| format!("{m:?}")).collect();
        mail.sort_unstable();
        let ends = |asked: &Asked| [Some(asked.asked), asked.answered];
        let mut moments: Vec<u64> = self.asked.iter().flat_map(ends).flatten().collect();
        moments.sort_unstable();
        moments.dedup();
        let place = |at: u64| moments.binary_search(&at);
        let order = self.asked.iter().map(|asked| {
            let answer = asked.ticket.map(|ticket| self.nodes.answers.get(&ticket));
            let moments = (place(asked.asked), asked.answered.map(place));
            format!("{:?}", (moments, asked.read, answer))
        });
        let order: Vec<String> = order.collect();
        let left = (self.losses, self.repeats, self.passings, self.nodes.now);
        let store = (&self.store, &self.nodes.calls);
        xxh3_64(format!("{:?}", (&self.nodes.caches, mail, store, order, left)).as_bytes())
    }

    /// The runs that begin as this one and have one step more; none when it has come to its end.
    fn next(&self, scenario: &Scenario) -> Vec<Run> {
        let mut next = Vec::new();
        let mut add = |step: &dyn Fn(&mut Run)| {
            let mut run = self.clone();
            step(&mut run);
            run.note();
            next.push(run);
        };
        if let Some(act) = scenario.acts.get(self.asked.len()) {
            add(&|run| run.begin(*act));
        }
        for at in 0..self.nodes.mail.len() {
            add(&|run| {
                let mail = run.nodes.mail.remove(at);
                run.nodes.deliver(mail);
            });
            if self.losses > 0 {
                add(&|run| {
                    run.losses -= 1;
                    run.nodes.mail.remove(at);
                });
            }
            if self.repeats > 0 {
                add(&|run| {
                    run.repeats -= 1;
                    let mail = run.nodes.mail[at].clone();
                    run.nodes.deliver(mail);
                });
            }
        }
        for at in 0..self.nodes.calls.len() {
            add(&|run| run.end_call(at, (true, true)));
            for is_executed in [true, false] {
                if self.losses > 0 {
                    add(&|run| {
                        run.losses -= 1;
                        run.end_call(at, (is_executed, false));
                    });
                }
            }
        }
        let waits = self.asked.iter().any(|asked| asked.answered.is_none());
        if self.passings > 0 && waits {
            add(&|run| {
                run.passings -= 1;
                run.nodes.pass(PASSING_MS);
            });
        }
        let all_begun = self.asked.len() == scenario.acts.len();
        match all_begun && self.nodes.mail.is_empty() && self.nodes.calls.is_empty() {
            true => Vec::new(),
            false => next,
        }
    }

    /// What clients saw, once everything that is on its way has come.
    fn verdict(mut self) -> Result<(), String> {
        for _ in 0..50 {
            self.settle();
            self.note();
            if self.asked.iter().all(|asked| asked.answered.is_some()) {
                break;
            }
            self.nodes.pass(PASSING_MS);
        }
        for node in [HOME, READER, OTHER] {
            self.begin(Act::Get(node));
            self.settle();
            self.note();
        }
        if let Some(asked) = self.asked.iter().find(|asked| asked.answered.is_none()) {
            return Err(format!("never answered: {asked:?}"));
        }
        let first = checker::Operation {
            did: Did::Wrote(1),
            asked: 0,
            answered: Some(0),
        };
        self.check_repeats()?;
        let rest = self.asked.iter().filter_map(|asked| self.operation(asked));
        let history: Vec<_> = [first].into_iter().chain(rest).collect();
        match checker::is_linearizable(&history) {
            true => Ok(()),
            false => Err(format!("{history:#?}")),
        }
    }

    /// Repeats get the answer of the first, and are part of it.
    fn check_repeats(&mut self) -> Result<(), String> {
        let mut firsts: BTreeMap<&str, Asked> = BTreeMap::new();
        let mut differing = None;
        let answers = &self.nodes.answers;
        self.asked.retain(|asked| {
            let Act::Count(id) = asked.act else {
                return true;
            };
            if answers[&asked.ticket.expect("it was asked")] == Answer::Refused(Why::StoreAway) {
                return false;
            }
            let Some(first) = firsts.get(id) else {
                firsts.insert(id, asked.clone());
                return true;
            };
            let answer = |asked: &Asked| answers[&asked.ticket.expect("it was asked")].clone();
            if answer(first) != answer(asked) {
                differing = Some(format!("{:?}, then {:?}", answer(first), answer(asked)));
            }
            false
        });
        differing.map_or(Ok(()), Err)
    }

    fn operation(&self, asked: &Asked) -> Option<checker::Operation> {
        let answer = asked.ticket.map(|ticket| &self.nodes.answers[&ticket]);
        let did = match (asked.act, answer) {
            (_, Some(Answer::Missed)) | (Act::Evict, _) => return None,
            (_, Some(Answer::Refused(Why::StoreAway))) => return None,
            (Act::Get(_), None) => Did::Read(asked.read.expect("a hit")),
            (Act::Get(_), Some(Answer::Found(hit))) => Did::Read(number(&text(hit))),
            (Act::Set(number), Some(Answer::Wrote { .. })) => Did::Wrote(number),
            (Act::Count(_), Some(Answer::Counted { value, .. })) => {
                Did::Replaced(value - 1, *value)
            }
            (Act::Delete, Some(Answer::Removed { .. })) => Did::Removed,
            (Act::Invalidate, Some(Answer::Swept { .. })) => Did::Removed,
            other => panic!("{other:?}"),
        };
        Some(checker::Operation {
            did,
            asked: asked.asked,
            answered: asked.answered,
        })
    }
}

fn number(text: &str) -> u64 {
    text.parse().expect("values are numbers")
}

/// How many different states there are; the first end that is wrong ends the search.
fn explore(scenario: Scenario) -> Result<usize, String> {
    let mut open = vec![Run::start(scenario)];
    let mut seen = HashSet::new();
    while let Some(run) = open.pop() {
        if !seen.insert(run.fingerprint()) {
            continue;
        }
        assert!(seen.len() < STATES_MAX, "the scenario is too large");
        let next = run.next(&scenario);
        if next.is_empty() {
            run.verdict()?;
        }
        open.extend(next);
    }
    Ok(seen.len())
}

/// Nobody does anything, and nothing goes wrong.
fn quiet() -> Scenario {
    Scenario {
        acts: &[],
        backups: false,
        store: false,
        losses: 0,
        repeats: 0,
        passings: 0,
        flaws: Flaws::default(),
    }
}

#[track_caller]
fn all_are_right(what: &str, scenario: Scenario) {
    match explore(scenario) {
        Ok(states) => println!("{what}: {states} states"),
        Err(why) => panic!("{what}: {why}"),
    }
}

#[test]
fn every_order_of_a_write_and_reads_is_linearizable() {
    const ACTS: &[Act] = &[Act::Set(11), Act::Get(READER), Act::Get(READER)];
    all_are_right(
        "in order",
        Scenario {
            acts: ACTS,
            ..quiet()
        },
    );
    let repeated = Scenario {
        acts: ACTS,
        repeats: 1,
        ..quiet()
    };
    all_are_right("one repeat", repeated);
    let lossy = Scenario {
        acts: ACTS,
        losses: 1,
        passings: 1,
        ..quiet()
    };
    all_are_right("one loss", lossy);
}

#[test]
fn every_order_of_two_writes_is_linearizable() {
    let scenario = Scenario {
        acts: &[
            Act::Set(11),
            Act::Get(READER),
            Act::Set(12),
            Act::Get(OTHER),
        ],
        ..quiet()
    };
    all_are_right("two writes", scenario);
    let scenario = Scenario {
        acts: &[Act::Set(11), Act::Set(12), Act::Get(READER)],
        repeats: 1,
        ..quiet()
    };
    all_are_right("two writes, one repeat", scenario);
    let scenario = Scenario {
        acts: &[Act::Delete, Act::Get(READER), Act::Set(12)],
        backups: true,
        repeats: 1,
        ..quiet()
    };
    all_are_right("a removal and a write, with a backup", scenario);
}

#[test]
fn every_order_of_an_invalidation_and_a_write_is_linearizable() {
    let scenario = Scenario {
        acts: &[Act::Invalidate, Act::Get(READER), Act::Set(11)],
        repeats: 1,
        ..quiet()
    };
    all_are_right("an invalidation", scenario);
}

#[test]
fn every_order_of_a_write_and_its_repeat_counts_once() {
    let scenario = Scenario {
        acts: &[
            Act::Count("a"),
            Act::Count("a"),
            Act::Count("b"),
            Act::Count("a"),
        ],
        backups: true,
        repeats: 1,
        ..quiet()
    };
    all_are_right("repeats", scenario);
    let scenario = Scenario {
        acts: &[Act::Count("a"), Act::Count("a")],
        backups: true,
        losses: 1,
        passings: 1,
        ..quiet()
    };
    all_are_right("a repeat and one loss", scenario);
}

#[test]
fn every_order_with_a_store_is_linearizable() {
    let read_and_written: &[Act] = &[Act::Evict, Act::Get(READER), Act::Set(11)];
    let removed: &[Act] = &[Act::Delete, Act::Evict, Act::Get(READER)];
    let counted: &[Act] = &[Act::Count("a"), Act::Evict, Act::Count("a")];
    let invalidated: &[Act] = &[Act::Evict, Act::Get(READER), Act::Invalidate];
    for (acts, losses) in [
        (read_and_written, 0),
        (removed, 1),
        (counted, 1),
        (invalidated, 0),
    ] {
        let scenario = Scenario {
            acts,
            store: true,
            losses,
            passings: losses,
            ..quiet()
        };
        all_are_right("with a store", scenario);
    }
}

#[test]
fn every_order_finds_what_is_left_out() {
    let acts: &[Act] = &[Act::Set(11), Act::Get(READER), Act::Get(READER)];
    let mut scenario = Scenario { acts, ..quiet() };
    scenario.flaws.no_wait_for_acknowledgement = true;
    explore(scenario).expect_err("a copy is read after the write was answered");
    let acts: &[Act] = &[
        Act::Invalidate,
        Act::Set(11),
        Act::Get(READER),
        Act::Set(12),
        Act::Get(READER),
    ];
    let mut scenario = Scenario { acts, ..quiet() };
    scenario.flaws.no_detach = true;
    explore(scenario).expect_err("a fill is installed that news have overtaken");
    scenario.store = true;
    scenario.acts = &[Act::Evict, Act::Get(READER), Act::Invalidate];
    scenario.flaws = Flaws::default();
    scenario.flaws.no_asking_after_voiding = true;
    explore(scenario).expect_err("what the store had before an invalidation is installed");
}
