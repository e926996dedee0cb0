//! What moves to a node that joins, by hand.

use super::nodes::*;
use crate::cache::entry::Key;
use crate::cache::operation::Operation;
use crate::ids::NodeId;
use crate::protocol::value::VALUE_BYTES_MAX;

/// A message that is larger does not leave.
const MESSAGE_BYTES_MAX: usize = 1_000_000;

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

fn is_member(node: NodeId) -> impl Fn(&Nodes) -> bool {
    move |nodes| nodes.view.member(node).is_some()
}

fn left(nodes: &mut Nodes, keys: &[Key]) -> usize {
    let mut found = keys.iter().map(|key| nodes.get(HOME, key));
    found.by_ref().flatten().count()
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
        What::Message(message) => message.size_hint() > MESSAGE_BYTES_MAX,
        What::News(_) => false,
    };
    nodes.go_on(is_too_large);
    assert!(is_member(OTHER)(&nodes));
    let moved = nodes.caches[&OTHER].size().0;
    assert!(moved > 10, "{moved} live there");
    assert_eq!(left(&mut nodes, &keys), keys.len());
}
