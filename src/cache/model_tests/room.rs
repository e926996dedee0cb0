//! Values that take most of the memory, by hand.

use super::nodes::*;
use crate::cache::operation::{Answer, Condition, Operation, Why};
use crate::protocol::value::Value;

/// Above half of the memory, with whatever an entry takes.
const LARGE: usize = BYTES_MAX / 3 * 2;

#[test]
fn a_value_above_half_of_the_memory_makes_place_for_another() {
    for backups in [false, true] {
        let mut nodes = Nodes::start_with(BYTES_MAX, backups);
        let key = nodes.key();
        nodes.share(&key, &"a".repeat(LARGE));
        for letter in ["b", "c"] {
            let text = letter.repeat(LARGE);
            let set = nodes.set(&key, &text);
            assert!(!nodes.is_answered(set), "the reader has a copy");
            for cache in nodes.caches.values() {
                let (_, bytes) = cache.size();
                assert!(bytes <= BYTES_MAX, "{bytes}");
            }
            nodes.settle();
            let answer = &nodes.answers[&set];
            assert!(matches!(answer, Answer::Wrote { .. }), "{answer:?}");
            for node in [HOME, READER, OTHER] {
                assert!(nodes.get(node, &key).as_ref() == Some(&text), "{node}");
            }
        }
    }
}

/// It fits a moment later: that is no reason to forget what is there, nor to say that it never will.
#[test]
fn a_value_above_half_of_the_memory_gives_way_to_writes_under_way() {
    let mut nodes = Nodes::start_with(BYTES_MAX, false);
    let keys: Vec<_> = nodes.keys(HOME).take(2).collect();
    let (key, other) = (&keys[0], &keys[1]);
    nodes.share(other, "small");
    let text = "a".repeat(LARGE);
    nodes.set(key, &text);
    nodes.settle();
    let under_way = nodes.set(other, &"o".repeat(BYTES_MAX / 10));
    assert!(!nodes.is_answered(under_way), "the reader has a copy");
    let larger = "b".repeat(BYTES_MAX / 20 * 17);
    let refused = nodes.set(key, &larger);
    assert_eq!(nodes.answers[&refused], Answer::Refused(Why::Full));
    assert!(nodes.hit(HOME, key).as_ref() == Some(&text));
    nodes.settle();
    let set = nodes.set(key, &larger);
    nodes.settle();
    let answer = &nodes.answers[&set];
    assert!(matches!(answer, Answer::Wrote { .. }), "{answer:?}");
}

#[test]
fn what_needs_the_value_and_does_not_fit_beside_it_never_will() {
    let mut nodes = Nodes::start(BYTES_MAX);
    let key = nodes.key();
    let text = "a".repeat(LARGE);
    nodes.share(&key, &text);
    let present = Operation::Set {
        value: Value::text("b".repeat(LARGE)),
        ttl_ms: None,
        idle_ms: 0,
        condition: Condition::Present,
        tags: Vec::new(),
        fence: None,
        claim: None,
    };
    for change in [present, Operation::Touch { ttl_ms: 50_000 }] {
        let asked = nodes.write(&key, change);
        nodes.settle();
        let refused = Answer::Refused(too_large(BYTES_MAX));
        assert_eq!(nodes.answers[&asked], refused);
        assert!(nodes.hit(HOME, &key).as_ref() == Some(&text));
    }
    let larger_than_all = nodes.set(&key, &"b".repeat(BYTES_MAX));
    let refused = Answer::Refused(too_large(BYTES_MAX));
    assert_eq!(nodes.answers[&larger_than_all], refused);
    assert!(nodes.hit(HOME, &key).as_ref() == Some(&text));
}
