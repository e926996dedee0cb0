//! What moves to a node that joins, by hand.

use super::nodes::*;
use crate::cache::entry::Key;
use crate::cache::message::Message;
use crate::cache::operation::Operation;
use crate::ids::NodeId;
use crate::protocol::value::VALUE_BYTES_MAX;

/// A frame of `raft::frame` that is larger does not leave.
const FRAME_BYTES_MAX: usize = 1_000_000;

/// Nodes of which one is gone; it will take some of these keys over when it comes back.
fn without_other(bytes_max: usize) -> (Nodes, Vec<Key>) {
    let mut nodes = Nodes::start_with(bytes_max, false);
    let keys = nodes.keys(OTHER).take(24).collect();
    nodes.lose(OTHER);
    (nodes, keys)
}

fn set(nodes: &mut Nodes, key: &Key, operation: Operation) {
    let home = nodes.caches[&HOME].home(key).expect("it acts");
    let set = nodes.ask(home, |cache, waiter, now| {
        cache.write(key.clone(), operation.into(), waiter, now);
    });
    assert!(nodes.is_answered(set));
}

fn is_move(mail: &Mail) -> bool {
    matches!(mail.what, What::Message(Message::Move { .. }))
}

fn is_member(node: NodeId) -> impl Fn(&Nodes) -> bool {
    move |nodes| nodes.view.member(node).is_some()
}

fn left(nodes: &mut Nodes, keys: &[Key]) -> usize {
    let found = keys.iter().filter(|key| nodes.get(HOME, key).is_some());
    found.count()
}

#[test]
fn large_values_among_smaller_ones_move_in_messages_that_leave() {
    let (mut nodes, keys) = without_other(1 << 26);
    for (n, key) in keys.iter().enumerate() {
        let bytes = [VALUE_BYTES_MAX, 120_000, 300][n % 3];
        set(&mut nodes, key, set_for(&"x".repeat(bytes), None));
    }
    nodes.begin_anew(OTHER);
    let is_too_large = |mail: &Mail| match &mail.what {
        What::Message(message) => message.size_hint() > FRAME_BYTES_MAX,
        What::News(_) => false,
    };
    nodes.go_on(is_too_large);
    assert!(is_member(OTHER)(&nodes));
    let moved = nodes.caches[&OTHER].size().0;
    assert!(moved > 10, "{moved} live there");
    assert_eq!(left(&mut nodes, &keys), keys.len());
}

#[test]
fn what_was_long_on_its_way_ends_no_later_than_where_it_came_from() {
    let (mut nodes, keys) = without_other(1 << 20);
    let ends = nodes.now + 2_000;
    for key in &keys {
        set(&mut nodes, key, set_for("value", Some(2_000)));
    }
    nodes.begin_anew(OTHER);
    let mut late = Vec::new();
    for _ in 0..50 {
        nodes.pass(10);
        while !nodes.mail.is_empty() {
            let (moves, others): (Vec<_>, Vec<_>) = nodes.mail.drain(..).partition(is_move);
            if late.is_empty() {
                late = moves;
            }
            for mail in others {
                nodes.deliver(mail);
            }
        }
    }
    assert!(!late.is_empty() && !is_member(OTHER)(&nodes));
    for mail in late {
        nodes.deliver(mail);
    }
    nodes.go_on_until(is_member(OTHER));
    let moved = nodes.caches[&OTHER].size().0;
    assert!(moved > 10, "{moved} live there");
    assert_eq!(left(&mut nodes, &keys), keys.len());
    nodes.pass(ends - nodes.now);
    let served = [HOME, READER, OTHER].map(|node| {
        let hits = keys.iter().filter(|key| nodes.hit(node, key).is_some());
        hits.count()
    });
    assert_eq!(served, [0; 3], "served too late");
}
