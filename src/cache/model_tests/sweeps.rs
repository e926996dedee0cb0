//! Invalidations by hand on three nodes.

use super::nodes::*;
use crate::cache::entry::Key;
use crate::cache::event::{Event, Gone};
use crate::cache::message::Matching;
use crate::cache::operation::{Answer, Condition, Operation, Why};
use crate::ids::{BootId, NodeId};
use crate::protocol::value::Value;
use crate::view::cluster::Command;

fn tag(nodes: &mut Nodes, key: &Key, tags: &[&str]) {
    let operation = Operation::Set {
        value: Value::text("tagged"),
        ttl_ms: None,
        idle_ms: 0,
        condition: Condition::Always,
        tags: tags.iter().map(|tag| Key::from(*tag)).collect(),
        fence: None,
        claim: None,
    };
    nodes.write(key, operation);
    nodes.settle();
}

fn some_keys(nodes: &Nodes) -> Vec<Key> {
    let of = |node| nodes.keys(node).take(2).collect::<Vec<_>>();
    [HOME, READER, OTHER].into_iter().flat_map(of).collect()
}

#[test]
fn what_matches_is_gone_from_all_nodes_and_the_rest_stays() {
    let mut nodes = Nodes::start(1 << 20);
    let keys = some_keys(&nodes);
    for (n, key) in keys.iter().enumerate() {
        let tags: &[&str] = if n % 2 == 0 {
            &["odd", "even"]
        } else {
            &["odd"]
        };
        tag(&mut nodes, key, tags);
        for node in [HOME, READER, OTHER] {
            assert!(nodes.get(node, key).is_some());
        }
    }
    nodes.events.clear();
    let asked = nodes.invalidate(OTHER, Matching::Tag("even".into()));
    assert!(!nodes.is_answered(asked), "others have copies");
    nodes.settle();
    let gone = |event: &&Event| {
        matches!(
            event,
            Event::Deleted {
                why: Gone::Invalidated,
                ..
            }
        )
    };
    assert_eq!(nodes.events.iter().filter(gone).count(), 3);
    let over = Event::invalidated(Matching::Tag("even".into()), 3);
    assert_eq!(nodes.events.last(), Some(&over));
    assert_eq!(nodes.answers[&asked], Answer::Swept { removed: 3 });
    for (n, key) in keys.iter().enumerate() {
        for node in [HOME, READER, OTHER] {
            assert_eq!(
                nodes.hit(node, key).is_some(),
                n % 2 == 1,
                "{key} at {node}"
            );
        }
    }
    let prefix = Matching::Prefix(keys[1].clone());
    let asked = nodes.invalidate(OTHER, prefix);
    nodes.settle();
    let Answer::Swept { removed } = nodes.answers[&asked] else {
        panic!("{:?}", nodes.answers[&asked]);
    };
    assert!(removed >= 1);
    assert_eq!(nodes.get(READER, &keys[1]), None);
    let asked = nodes.invalidate(OTHER, Matching::All);
    nodes.settle();
    assert_eq!(
        nodes.answers[&asked],
        Answer::Swept {
            removed: 3 - removed
        }
    );
}

/// A value that makes room for others is gone from its home while a reader still has a copy.
#[test]
fn a_sweep_waits_for_copies_of_what_was_evicted() {
    let mut nodes = Nodes::start(BYTES_MAX);
    let mine: Vec<Key> = nodes.keys(HOME).take(2).collect();
    tag(&mut nodes, &mine[0], &["old"]);
    assert!(nodes.get(READER, &mine[0]).is_some());
    nodes.set(&mine[1], &"x".repeat(BYTES_MAX - 600));
    assert!(nodes.hit(HOME, &mine[0]).is_none(), "it made room");
    let late = nodes.take(READER);
    let asked = nodes.invalidate(OTHER, Matching::Tag("old".into()));
    nodes.settle();
    assert!(nodes.hit(READER, &mine[0]).is_some());
    assert!(!nodes.is_answered(asked), "the reader serves it still");
    for mail in late {
        nodes.deliver(mail);
    }
    nodes.settle();
    assert_eq!(nodes.hit(READER, &mine[0]), None);
    assert!(nodes.is_answered(asked));
}

/// Touching prolongs a value that was there before the sweep.
#[test]
fn what_is_being_written_when_the_sweep_comes_is_removed_after() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    tag(&mut nodes, &key, &["old"]);
    assert!(nodes.get(READER, &key).is_some());
    let touched = nodes.write(&key, Operation::Touch { ttl_ms: 50_000 });
    let asked = nodes.invalidate(OTHER, Matching::Tag("old".into()));
    assert!(!nodes.is_answered(touched));
    nodes.settle();
    assert!(matches!(nodes.answers[&touched], Answer::Wrote { .. }));
    assert_eq!(nodes.answers[&asked], Answer::Swept { removed: 1 });
    for node in [HOME, READER, OTHER] {
        assert_eq!(nodes.get(node, &key), None);
    }
}

/// Lost and repeated messages: each home removes once, and an old sweep does nothing any more.
#[test]
fn a_sweep_is_told_again_and_done_once() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    nodes.set(&key, "first");
    nodes.settle();
    let asked = nodes.invalidate(OTHER, Matching::All);
    let first = nodes.mail.clone();
    nodes.mail.clear();
    nodes.pass(50);
    nodes.settle();
    assert_eq!(nodes.answers[&asked], Answer::Swept { removed: 1 });
    nodes.set(&key, "second");
    nodes.settle();
    let again = nodes.invalidate(OTHER, Matching::Prefix("none-".into()));
    nodes.settle();
    assert_eq!(nodes.answers[&again], Answer::Swept { removed: 0 });
    for mail in first {
        nodes.deliver(mail);
    }
    nodes.settle();
    assert_eq!(nodes.get(HOME, &key).as_deref(), Some("second"));
}

/// A home that knows of a preparation does not say that it is done: the next view may be active
/// already, and another home may have taken a key over, and a new value with it.
#[test]
fn a_sweep_begins_anew_when_the_view_changes() {
    const JOINER: NodeId = NodeId(4);
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    nodes.set(&key, "value");
    nodes.settle();
    nodes.view.apply(&Command::Join {
        node: JOINER,
        boot: BootId(4),
        lease_ms: LEASE_MS,
    });
    assert!(nodes.view.next().is_some());
    let (view, now) = (nodes.view.clone(), nodes.now);
    for cache in nodes.caches.values_mut() {
        cache.observe(&view, None, now);
    }
    let asked = nodes.invalidate(OTHER, Matching::All);
    nodes.settle();
    assert!(!nodes.is_answered(asked), "another view is prepared");
    // The new member becomes one, and is silent until it is given up.
    while nodes.view.member(JOINER).is_none() {
        nodes.pass(10);
        nodes.settle();
    }
    nodes.pass(1_000);
    nodes.settle();
    assert!(!nodes.is_answered(asked), "one member has not answered");
    let incarnation = nodes.view.member(JOINER).expect("it is one").incarnation;
    nodes.view.apply(&Command::Leave {
        node: JOINER,
        incarnation,
    });
    for _ in 0..400 {
        nodes.pass(10);
        nodes.settle();
    }
    assert!(nodes.view.member(JOINER).is_none());
    assert!(nodes.is_answered(asked));
    assert_eq!(nodes.get(OTHER, &key), None);
}

#[test]
fn a_sweep_that_a_member_does_not_answer_ends_unknown() {
    let mut nodes = Nodes::start(1 << 20);
    nodes.deaf = Some(READER);
    let asked = nodes.invalidate(OTHER, Matching::All);
    nodes.settle();
    nodes.now += 60_000;
    nodes.pass(0);
    assert_eq!(nodes.answers[&asked], Answer::Refused(Why::Indeterminate));
}

#[test]
fn the_invalidations_of_one_tenant_leave_room_for_those_of_another() {
    let mut nodes = Nodes::start(1 << 20);
    let prefix = |name: &str| Matching::Prefix(name.into());
    let refused = |nodes: &Nodes, ticket: u64| {
        nodes.answers.get(&ticket) == Some(&Answer::Refused(Why::TooMany))
    };
    for number in 0..32 {
        let name = format!("A/{number}");
        let asked = nodes.invalidate(HOME, Matching::Tag(name.as_str().into()));
        assert!(!nodes.is_answered(asked), "{number}");
    }
    let one_more = nodes.invalidate(HOME, prefix("A/"));
    assert!(refused(&nodes, one_more));
    for others in [prefix("B/"), prefix("AA/"), prefix("A"), Matching::All] {
        let asked = nodes.invalidate(HOME, others);
        assert!(!nodes.is_answered(asked));
    }
    nodes.settle();
    let later = nodes.invalidate(HOME, prefix("A/"));
    assert!(!refused(&nodes, later));
}
