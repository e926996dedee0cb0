//! Values that end by themselves, by hand on three nodes.

use super::nodes::*;
use crate::cache::entry::Key;
use crate::cache::explain::State;
use crate::cache::operation::{Answer, Condition, Operation};
use crate::protocol::value::Value;

fn set_idle(text: &str, idle_ms: u64) -> Operation {
    Operation::Set {
        value: Value::text(text),
        ttl_ms: None,
        idle_ms,
        condition: Condition::Always,
        tags: Vec::new(),
        fence: None,
        claim: None,
    }
}

#[test]
fn what_has_lain_idle_is_not_revived_by_a_read_at_its_home() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    nodes.write(&key, set_idle("value", 200));
    for _ in 0..3 {
        nodes.pass(150);
        assert_eq!(nodes.hit(HOME, &key).as_deref(), Some("value"), "read");
    }
    nodes.pass(3_000);
    let explained = nodes.caches[&HOME].explain(&key, nodes.now);
    assert_eq!((explained.state, explained.version), (State::Absent, None));
    assert_eq!(nodes.hit(HOME, &key), None);
    assert_eq!(nodes.get(HOME, &key), None);
    assert_eq!(nodes.get(READER, &key), None);
}

#[test]
fn what_is_read_all_the_time_outlives_its_home() {
    let mut nodes = Nodes::start_with(1 << 20, true);
    let key = nodes.keys(READER).next().expect("some key lives there");
    let written = nodes.write(&key, set_idle("value", 500));
    nodes.settle();
    assert!(nodes.is_answered(written));
    for _ in 0..20 {
        nodes.pass(150);
        nodes.settle();
        assert_eq!(nodes.hit(READER, &key).as_deref(), Some("value"), "read");
    }
    nodes.lose_at_once(READER);
    assert_eq!(nodes.get(HOME, &key).as_deref(), Some("value"));
    let home = nodes.caches[&HOME].home(&key).expect("it acts");
    nodes.pass(500);
    assert_eq!(nodes.hit(home, &key), None, "it has lain idle since");
}

/// Whoever is the home after the first one serves the value until then.
fn outlives_its_home_until(nodes: &mut Nodes, key: &Key, ends: u64) {
    nodes.lose_at_once(READER);
    assert_eq!(nodes.get(HOME, key).as_deref(), Some("value"));
    nodes.pass(ends - nodes.now);
    for node in [HOME, OTHER] {
        assert_eq!(nodes.hit(node, key), None, "{node} serves it too late");
    }
}

/// Everything arrives late once, and then in time.
#[test]
fn a_backup_that_was_long_on_its_way_ends_no_later_than_at_its_home() {
    let mut nodes = Nodes::start_with(1 << 20, true);
    let key = nodes.keys(READER).next().expect("some key lives there");
    let ends = nodes.now + 3_000;
    let written = nodes.write(&key, set_for("value", Some(3_000)));
    let late = std::mem::take(&mut nodes.mail);
    assert_eq!(late.len(), 1);
    for _ in 0..40 {
        nodes.pass(10);
        nodes.mail.clear();
    }
    nodes.mail.extend(late);
    nodes.settle();
    nodes.go_on_until(|nodes| nodes.is_answered(written));
    assert!(matches!(nodes.answers[&written], Answer::Wrote { .. }));
    outlives_its_home_until(&mut nodes, &key, ends);
}

/// What comes once more, much later, does not prolong it.
#[test]
fn a_backup_that_comes_once_more_ends_no_later_than_at_its_home() {
    let mut nodes = Nodes::start_with(1 << 20, true);
    let key = nodes.keys(READER).next().expect("some key lives there");
    let ends = nodes.now + 3_000;
    nodes.write(&key, set_for("value", Some(3_000)));
    let again = nodes.mail.clone();
    nodes.settle();
    nodes.now += 400;
    for mail in again {
        nodes.deliver(mail);
    }
    nodes.settle();
    outlives_its_home_until(&mut nodes, &key, ends);
}
