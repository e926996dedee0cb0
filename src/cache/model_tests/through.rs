//! The store by hand, behind three nodes.

use super::nodes::*;
use super::store::{Lax, MapStore};
use crate::cache::claims::Wish;
use crate::cache::entry::{Key, Version};
use crate::cache::message::Matching;
use crate::cache::operation::{Answer, Condition, Operation, Source, Why, Write};
use crate::cache::state::Settings;
use crate::cache::through::{Call, Outcome};
use crate::ids::NodeId;
use crate::protocol::value::Value;

/// Nodes with memory for one value of some size, and their store.
struct Stored {
    nodes: Nodes,
    store: MapStore,
}

impl Stored {
    fn start() -> Self {
        let nodes = Nodes::start_as(Settings {
            bytes_max: BYTES_MAX,
            backups: false,
            store: true,
            remember_ms: REMEMBER_MS,
        });
        let store = MapStore::new(Lax::default());
        Stored { nodes, store }
    }

    /// Asks for a value as a loader does that does not wait.
    fn load(&mut self, key: &Key, load_ms: u64) -> Answer {
        let ticket = self.nodes.ask(READER, |cache, waiter, now| {
            let wish = Wish {
                load_ms,
                wait_until_ms: now,
            };
            cache.read_or_claim(key.clone(), wish, waiter, now);
        });
        self.settle();
        self.nodes.answers[&ticket].clone()
    }

    fn claim(&mut self, key: &Key, load_ms: u64) -> Version {
        match self.load(key, load_ms) {
            Answer::Claimed { claim } => claim,
            other => panic!("{other:?}"),
        }
    }

    /// Ends the calls under way, as `how` says.
    fn answer(&mut self, how: impl Fn(&mut MapStore, NodeId, &Call, u64) -> Outcome) {
        for (node, id, call) in std::mem::take(&mut self.nodes.calls) {
            let now = self.nodes.now;
            let outcome = how(&mut self.store, node, &call, now);
            if let Some(cache) = self.nodes.caches.get_mut(&node) {
                cache.store_answered(id, outcome, now);
            }
        }
        self.nodes.collect();
    }

    /// Lets all calls be executed and all messages arrive.
    fn settle(&mut self) {
        while !self.nodes.mail.is_empty() || !self.nodes.calls.is_empty() {
            self.nodes.settle();
            self.answer(|store, node, call, now| store.execute((node, 1), call, now));
        }
    }

    /// The calls under way fail.
    fn fail(&mut self, outcome: &Outcome) {
        self.answer(|_, _, _, _| outcome.clone());
    }

    fn write(&mut self, key: &Key, write: impl Into<Write>) -> Answer {
        let ticket = self.nodes.write(key, write);
        self.settle();
        self.nodes.answers[&ticket].clone()
    }

    fn set(&mut self, key: &Key, text: &str) {
        self.nodes.set(key, text);
        self.settle();
    }

    fn get(&mut self, node: NodeId, key: &Key) -> Option<(String, Source)> {
        let ticket = self.nodes.read(node, key);
        self.settle();
        match &self.nodes.answers[&ticket] {
            Answer::Found(hit) => Some((text(hit), hit.source)),
            Answer::Missed => None,
            other => panic!("{other:?}"),
        }
    }

    /// Lets the home forget everything but what is written by this.
    fn fill_up(&mut self) {
        let other = self.nodes.keys(HOME).nth(1).expect("some");
        self.set(&other, &"x".repeat(BYTES_MAX - 400));
    }

    /// All nodes die and begin anew.
    fn lose_all(&mut self) {
        for node in [HOME, READER, OTHER] {
            self.nodes.begin_anew(node);
        }
        for _ in 0..400 {
            self.nodes.pass(10);
            self.settle();
        }
    }
}

fn from_store(text: &str) -> Option<(String, Source)> {
    Some((text.to_owned(), Source::Store))
}

fn tagged(text: &str, tag: &str) -> Operation {
    Operation::Set {
        value: Value::text(text),
        ttl_ms: None,
        idle_ms: 0,
        condition: Condition::Always,
        tags: vec![tag.into()],
        fence: None,
        claim: None,
    }
}

const DELETE: Operation = Operation::Delete {
    condition: Condition::Always,
};

#[test]
fn a_write_is_answered_when_the_store_has_it() {
    let mut stored = Stored::start();
    let key = stored.nodes.key();
    let asked = stored.nodes.set(&key, "value");
    stored.nodes.settle();
    assert!(!stored.nodes.is_answered(asked));
    assert_eq!(stored.nodes.hit(HOME, &key), None);
    stored.settle();
    assert!(stored.nodes.is_answered(asked));
    assert_eq!(stored.nodes.hit(HOME, &key).as_deref(), Some("value"));
}

#[test]
fn what_was_evicted_comes_from_the_store_by_one_question_for_all() {
    let mut stored = Stored::start();
    let key = stored.nodes.key();
    stored.set(&key, "value");
    stored.fill_up();
    assert_eq!(stored.nodes.hit(HOME, &key), None);
    let tickets = [HOME, READER, OTHER, HOME].map(|node| stored.nodes.read(node, &key));
    stored.nodes.settle();
    assert_eq!(stored.nodes.calls.len(), 1);
    stored.settle();
    for ticket in tickets {
        let Answer::Found(hit) = &stored.nodes.answers[&ticket] else {
            panic!("{:?}", stored.nodes.answers[&ticket]);
        };
        assert_eq!((&*text(hit), hit.source), ("value", Source::Store));
    }
    // Who asked has a copy, which the next write waits for.
    assert_eq!(stored.nodes.hit(READER, &key).as_deref(), Some("value"));
    let asked = stored.nodes.set(&key, "new");
    stored.answer(|store, node, call, now| store.execute((node, 1), call, now));
    assert!(!stored.nodes.is_answered(asked));
    stored.settle();
    assert!(stored.nodes.is_answered(asked));
    assert_eq!(stored.nodes.hit(READER, &key).as_deref(), Some("new"));
}

#[test]
fn changes_of_what_was_evicted_know_what_is_stored() {
    let mut stored = Stored::start();
    let key = stored.nodes.key();
    let count = |answer: Answer| match answer {
        Answer::Counted { value, .. } => value,
        other => panic!("{other:?}"),
    };
    assert_eq!(count(stored.write(&key, add_one("a"))), 1);
    stored.fill_up();
    assert_eq!(count(stored.write(&key, add_one("b"))), 2);
    stored.fill_up();
    let absent = Operation::Set {
        value: Value::text("other"),
        ttl_ms: None,
        idle_ms: 0,
        condition: Condition::Absent,
        tags: Vec::new(),
        fence: None,
        claim: None,
    };
    let exists = Answer::Refused(Why::Exists);
    assert_eq!(stored.write(&key, absent.clone()), exists);
    stored.fill_up();
    let touched = stored.write(&key, Operation::Touch { ttl_ms: 9_000 });
    assert!(matches!(touched, Answer::Wrote { .. }), "{touched:?}");
    stored.fill_up();
    let removed = |existed| Answer::Removed { existed };
    assert_eq!(stored.write(&key, DELETE), removed(true));
    assert_eq!(stored.get(READER, &key), None);
    assert_eq!(stored.write(&key, DELETE), removed(false));
    let written = stored.write(&key, absent);
    assert!(matches!(written, Answer::Wrote { .. }), "{written:?}");
}

#[test]
fn values_and_results_survive_all_nodes_and_versions_go_up() {
    let mut stored = Stored::start();
    let key = stored.nodes.key();
    let first = stored.write(&key, add_one("a"));
    stored.lose_all();
    assert_eq!(stored.get(OTHER, &key), from_store("1"));
    // The same id again, also of a client that does not say so.
    assert_eq!(stored.write(&key, add_one("a")), first);
    let (
        Answer::Counted {
            version: before, ..
        },
        Answer::Counted { value, version },
    ) = (first, stored.write(&key, add_one("b")))
    else {
        panic!("a counter counts");
    };
    assert!(value == 2 && version > before);
    stored.lose_all();
    let again = Write {
        operation: DELETE,
        id: Some("a".into()),
        is_repeat: true,
        sought: None,
    };
    let another = Answer::Refused(Why::AnotherRequest);
    assert_eq!(stored.write(&key, again), another);
}

/// Found here: what the store said was dropped, since the home had no lease when it came, but counted as asked.
#[test]
fn a_result_that_comes_while_nothing_may_be_decided_is_asked_for_again() {
    let mut stored = Stored::start();
    let key = stored.nodes.key();
    let write = |is_repeat| Write {
        id: Some("a".into()),
        is_repeat,
        ..set_for("value", None).into()
    };
    let first = stored.write(&key, write(false));
    stored.set(&key, "newer");
    stored.lose_all();
    let again = stored.nodes.write(&key, write(true));
    assert!(matches!(
        stored.nodes.calls[..],
        [(HOME, _, Call::Bring { id: Some(_), .. })]
    ));
    stored.nodes.deaf = Some(HOME);
    stored.nodes.pass(2 * LEASE_MS);
    stored.answer(|store, node, call, now| store.execute((node, 1), call, now));
    assert!(!stored.nodes.is_answered(again));
    stored.nodes.deaf = None;
    stored.nodes.pass(10);
    stored.settle();
    assert_eq!(stored.nodes.answers[&again], first);
    let (value, _) = stored.get(READER, &key).expect("it is stored");
    assert_eq!(value, "newer");
}

#[test]
fn without_the_store_memory_goes_on_and_the_rest_is_refused() {
    let mut stored = Stored::start();
    let keys: Vec<Key> = stored.nodes.keys(HOME).take(2).collect();
    stored.set(&keys[0], "value");
    stored.get(READER, &keys[0]);
    let away = Answer::Refused(Why::StoreAway);
    let read = stored.nodes.read(OTHER, &keys[1]);
    let write = stored.nodes.set(&keys[0], "new");
    let queued = stored.nodes.set(&keys[0], "newer");
    stored.nodes.deliver_to(HOME);
    stored.fail(&Outcome::Away);
    stored.nodes.settle();
    for ticket in [read, write, queued] {
        assert_eq!(stored.nodes.answers[&ticket], away);
    }
    for node in [HOME, READER] {
        let hit = stored.nodes.hit(node, &keys[0]);
        assert!(hit.is_none_or(|text| text == "value"), "at {node}");
    }
    assert_eq!(stored.nodes.hit(HOME, &keys[0]).as_deref(), Some("value"));
    stored.set(&keys[0], "newest");
    let newest = stored.get(READER, &keys[0]).map(|(text, _)| text);
    assert_eq!(newest.as_deref(), Some("newest"));
}

#[test]
fn a_write_that_may_be_stored_is_called_for_until_that_is_known() {
    let mut stored = Stored::start();
    let key = stored.nodes.key();
    stored.set(&key, "value");
    let write = stored.nodes.set(&key, "new");
    stored.fail(&Outcome::Unknown);
    assert!(!stored.nodes.is_answered(write));
    let queued = stored.nodes.set(&key, "newer");
    for _ in 0..10 {
        stored.nodes.pass(50);
        stored.fail(&Outcome::Away);
    }
    assert_eq!(stored.nodes.hit(HOME, &key).as_deref(), Some("value"));
    let away = Answer::Refused(Why::StoreAway);
    assert_eq!(stored.nodes.answers[&queued], away);
    stored.nodes.now += 60_000;
    stored.nodes.pass(0);
    let unknown = Answer::Refused(Why::Indeterminate);
    assert_eq!(stored.nodes.answers[&write], unknown);
    stored.nodes.pass(200);
    stored.settle();
    assert_eq!(stored.nodes.hit(HOME, &key).as_deref(), Some("new"));
}

#[test]
fn what_is_over_is_over_in_the_store_before_anybody_hears_of_it() {
    let mut stored = Stored::start();
    let key = stored.nodes.key();
    stored.write(&key, set_for("short", Some(500)));
    for _ in 0..6 {
        stored.nodes.pass(100);
    }
    let asked = stored.nodes.read(OTHER, &key);
    stored.nodes.settle();
    assert!(!stored.nodes.is_answered(asked));
    assert!(matches!(
        stored.nodes.calls[..],
        [(HOME, _, Call::Keep { entry: None, .. })]
    ));
    stored.settle();
    assert_eq!(stored.nodes.answers[&asked], Answer::Missed);
}

#[test]
fn claims_are_for_what_the_store_does_not_have() {
    let mut stored = Stored::start();
    let keys: Vec<Key> = stored.nodes.keys(HOME).take(3).collect();
    stored.set(&keys[0], "value");
    stored.fill_up();
    assert!(matches!(stored.load(&keys[0], 1_000), Answer::Found(_)));
    assert!(matches!(
        stored.load(&keys[2], 1_000),
        Answer::Claimed { .. }
    ));
    // Who has a claim has it since the store had nothing: nobody asks it again.
    stored.nodes.read(OTHER, &keys[2]);
    stored.nodes.settle();
    assert!(stored.nodes.calls.is_empty());
}

#[test]
fn an_invalidation_reaches_what_is_stored() {
    let mut stored = Stored::start();
    let keys: Vec<Key> = stored.nodes.keys(HOME).take(1).collect();
    let key = &keys[0];
    let matchings = [
        Matching::Tag("tag".into()),
        Matching::Prefix(key[..5].into()),
        Matching::All,
    ];
    for matching in matchings {
        stored.write(key, tagged("value", "tag"));
        stored.fill_up();
        stored
            .nodes
            .invalidate(OTHER, Matching::Tag("other".into()));
        stored
            .nodes
            .invalidate(OTHER, Matching::Prefix("other".into()));
        stored.settle();
        // A question that is under way has the value of before.
        let asked = stored.nodes.read(READER, key);
        stored.nodes.settle();
        let before = std::mem::take(&mut stored.nodes.calls);
        let swept = stored.nodes.invalidate(OTHER, matching);
        stored.nodes.settle();
        assert!(!stored.nodes.is_answered(swept));
        let after = std::mem::replace(&mut stored.nodes.calls, before);
        stored.answer(|store, node, call, now| store.execute((node, 1), call, now));
        assert!(!stored.nodes.is_answered(asked));
        stored.nodes.calls.extend(after);
        stored.settle();
        let answer = &stored.nodes.answers[&swept];
        assert!(matches!(answer, Answer::Swept { .. }), "{answer:?}");
        assert_eq!(stored.nodes.answers[&asked], Answer::Missed);
        assert_eq!(stored.get(OTHER, key), None);
    }
}

#[test]
fn a_set_that_the_store_does_not_take_leaves_the_claim() {
    let mut stored = Stored::start();
    let key = stored.nodes.key();
    let claim = stored.claim(&key, 5_000);
    let set = |claim| loaded("loaded", claim, &[]);
    for claim in [None, Some(claim)] {
        let refused = stored.nodes.write(&key, set(claim));
        stored.fail(&Outcome::Away);
        let away = Answer::Refused(Why::StoreAway);
        assert_eq!(stored.nodes.answers[&refused], away);
    }
    let written = stored.write(&key, set(Some(claim)));
    assert!(matches!(written, Answer::Wrote { .. }), "{written:?}");
    let over = stored.write(&key, set(Some(claim)));
    assert_eq!(over, Answer::Refused(Why::ClaimOver));
}

/// The store keeps it after it has made void what was there, and memory may have no room for it.
#[test]
fn an_invalidation_reaches_what_is_set_under_a_claim_meanwhile() {
    for length in [10, BYTES_MAX - 350] {
        let mut stored = Stored::start();
        let key = stored.nodes.key();
        let claim = stored.claim(&key, 1_000);
        let set = loaded(&"x".repeat(length), Some(claim), &[]);
        let set = stored.nodes.write(&key, set);
        let invalidated = stored
            .nodes
            .invalidate(OTHER, Matching::Prefix(key.clone()));
        stored.nodes.settle();
        stored.nodes.calls.reverse();
        assert!(matches!(
            stored.nodes.calls.last(),
            Some((.., Call::Keep { .. }))
        ));
        stored.settle();
        assert!(matches!(stored.nodes.answers[&set], Answer::Wrote { .. }));
        let answer = &stored.nodes.answers[&invalidated];
        assert!(matches!(answer, Answer::Swept { .. }), "{answer:?}");
        for node in [HOME, READER, OTHER] {
            assert_eq!(stored.get(node, &key), None, "{node}");
        }
    }
}
