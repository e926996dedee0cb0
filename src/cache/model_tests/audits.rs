//! Audits by hand on three nodes.

use super::nodes::*;
use crate::cache::audit::Report;
use crate::cache::entry::Key;
use crate::cache::operation::{Answer, Operation};
use crate::cache::state::Flaws;

/// What an audit of [`READER`] finds.
fn audit(nodes: &mut Nodes) -> Report {
    let ticket = nodes.ask(READER, |cache, waiter, now| cache.audit(10, waiter, now));
    nodes.settle();
    nodes.pass(1_100);
    match &nodes.answers[&ticket] {
        Answer::Audited(report) => report.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn copies_agree_with_their_homes_also_while_they_are_written_and_evicted() {
    let mut nodes = Nodes::start(1 << 20);
    let keys: Vec<Key> = nodes.keys(HOME).take(4).collect();
    for key in &keys {
        nodes.share(key, "value");
    }
    assert_eq!(
        (audit(&mut nodes).compared, audit(&mut nodes).mismatches),
        (4, 0)
    );
    nodes.set(&keys[0], "new");
    nodes.delete(&keys[1]);
    nodes.write(&keys[2], Operation::Touch { ttl_ms: 90_000 });
    // The home has not been acknowledged: the copies are true still.
    let late = nodes.take(READER);
    assert_eq!(late.len(), 3);
    let report = audit(&mut nodes);
    assert_eq!((report.compared, report.mismatches), (1, 0), "{report:?}");
}

#[test]
fn a_copy_that_a_write_did_not_wait_for_is_found() {
    let mut nodes = Nodes::start(1 << 20);
    nodes.flaw(Flaws {
        no_wait_for_acknowledgement: true,
        ..Flaws::default()
    });
    let keys: Vec<Key> = nodes.keys(HOME).take(3).collect();
    for key in &keys {
        nodes.share(key, "value");
    }
    nodes.set(&keys[0], "new");
    nodes.delete(&keys[1]);
    nodes.take(READER);
    let report = audit(&mut nodes);
    assert_eq!((report.compared, report.mismatches), (3, 2), "{report:?}");
    assert_eq!(report.keys.len(), 2);
    assert!(!report.keys.contains(&keys[2]));
}

#[test]
fn what_a_home_does_not_answer_is_not_compared() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    nodes.share(&key, "value");
    nodes.deaf = Some(HOME);
    assert_eq!(audit(&mut nodes), Report::default());
}
