//! Writes under fences by hand on three nodes. Whoever looks up the locks is played, too.

use super::nodes::*;
use crate::cache::entry::Key;
use crate::cache::fences::Fenced;
use crate::cache::operation::{Answer, Condition, Operation, Why};
use crate::ids::Token;
use crate::protocol::value::Value;

fn fenced(nodes: &mut Nodes, key: &Key, (resource, token): (&str, u64)) -> u64 {
    let operation = Operation::Set {
        value: Value::text(format!("by {token}")),
        ttl_ms: None,
        idle_ms: 0,
        condition: Condition::Always,
        tags: Vec::new(),
        fence: Some(Fenced::new(resource.into(), Token(token))),
        claim: None,
    };
    nodes.write(key, operation)
}

/// Says of all that is looked up that the lock is held so; how many there were.
fn all_are_held(nodes: &mut Nodes) -> usize {
    let lookups = std::mem::take(&mut nodes.lookups);
    let count = lookups.len();
    for (node, key, operation, waiter) in lookups {
        let now = nodes.now;
        let cache = nodes.caches.get_mut(&node).expect("one of three");
        cache.write(key, operation, waiter, now);
        nodes.collect();
    }
    nodes.settle();
    count
}

#[track_caller]
fn is_stale(nodes: &Nodes, ticket: u64) {
    assert_eq!(nodes.answers[&ticket], Answer::Refused(Why::StaleToken));
}

#[test]
fn a_token_is_looked_up_once_and_an_older_one_refused_without() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    let first = fenced(&mut nodes, &key, ("lock", 5));
    assert!(!nodes.is_answered(first));
    assert_eq!(all_are_held(&mut nodes), 1);
    assert!(matches!(nodes.answers[&first], Answer::Wrote { .. }));
    let again = fenced(&mut nodes, &key, ("lock", 5));
    nodes.settle();
    assert!(matches!(nodes.answers[&again], Answer::Wrote { .. }));
    // Nothing that others do to the key makes it forget.
    nodes.set(&key, "by nobody");
    nodes.settle();
    nodes.write(&key, Operation::Touch { ttl_ms: 90_000 });
    nodes.settle();
    let older = fenced(&mut nodes, &key, ("lock", 4));
    is_stale(&nodes, older);
    fenced(&mut nodes, &key, ("lock", 6));
    assert_eq!(all_are_held(&mut nodes), 1);
    let former = fenced(&mut nodes, &key, ("lock", 5));
    is_stale(&nodes, former);
    assert_eq!(all_are_held(&mut nodes), 0);
    assert_eq!(nodes.get(READER, &key).as_deref(), Some("by 6"));
}

/// The lock passes on while the write of its former holder is being looked up.
#[test]
fn a_successor_that_wrote_meanwhile_is_not_overwritten() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    let former = fenced(&mut nodes, &key, ("lock", 5));
    let slow = std::mem::take(&mut nodes.lookups);
    fenced(&mut nodes, &key, ("lock", 6));
    assert_eq!(all_are_held(&mut nodes), 1);
    nodes.lookups = slow;
    all_are_held(&mut nodes);
    is_stale(&nodes, former);
}

/// The same, and the successor's value is removed before.
#[test]
fn what_was_looked_up_counts_only_until_a_fence_is_forgotten() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    for other_resource in [false, true] {
        let former = fenced(&mut nodes, &key, ("lock", 5));
        let slow = std::mem::take(&mut nodes.lookups);
        assert_eq!(slow.len(), 1);
        fenced(&mut nodes, &key, ("lock", 6));
        assert_eq!(all_are_held(&mut nodes), 1);
        match other_resource {
            true => {
                fenced(&mut nodes, &key, ("another", 7));
                assert_eq!(all_are_held(&mut nodes), 1);
            }
            false => {
                nodes.delete(&key);
                nodes.settle();
            }
        }
        let before = nodes.get(HOME, &key);
        nodes.lookups = slow;
        all_are_held(&mut nodes);
        assert!(!nodes.is_answered(former), "it is looked up again");
        assert_eq!(nodes.lookups.len(), 1);
        nodes.lookups.clear();
        assert_eq!(nodes.get(HOME, &key), before);
        nodes.delete(&key);
        nodes.settle();
    }
}

#[test]
fn a_backup_knows_the_fence_when_the_home_is_lost() {
    let mut nodes = Nodes::start_with(1 << 20, true);
    let key = nodes.keys(READER).next().expect("some key lives there");
    fenced(&mut nodes, &key, ("lock", 6));
    assert_eq!(all_are_held(&mut nodes), 1);
    nodes.lose(READER);
    let older = fenced(&mut nodes, &key, ("lock", 5));
    is_stale(&nodes, older);
}
