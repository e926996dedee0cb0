//! A node that stops, by hand: nobody is left without an answer.

use super::nodes::*;
use crate::cache::claims::Wish;
use crate::cache::message::Matching;
use crate::cache::operation::{Answer, Why};

const STOPPING: Answer = Answer::Refused(Why::Stopping);

#[test]
fn who_waits_at_a_node_without_a_view_is_sent_to_others() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    nodes.lose(READER);
    nodes.begin_anew(READER);
    let waiting = nodes.read(READER, &key);
    let sweep = nodes.invalidate(READER, Matching::All);
    assert!(!nodes.is_answered(waiting) && !nodes.is_answered(sweep));
    nodes.caches.get_mut(&READER).expect("it runs").dismiss();
    nodes.collect();
    assert_eq!(nodes.answers[&waiting], STOPPING);
    let not_begun = Answer::Refused(Why::NoLease);
    assert_eq!(nodes.answers[&sweep], not_begun);
    let later = nodes.read(READER, &key);
    assert_eq!(nodes.answers[&later], STOPPING);
}

#[test]
fn what_is_under_way_at_the_end_is_answered_with_what_is_known_of_it() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    nodes.share(&key, "value");
    let elsewhere = nodes.keys(OTHER).next().expect("some key lives there");
    let unknown = nodes.keys(HOME).nth(1).expect("some key lives there");
    // Its sharer does not answer.
    nodes.deaf = Some(READER);
    let begun = nodes.set(&key, "new");
    let queued = nodes.set(&key, "newer");
    let asked = nodes.read(HOME, &elsewhere);
    let sweep = nodes.invalidate(HOME, Matching::All);
    let [claims, waits] = [0, 10_000].map(|wait_ms| {
        nodes.ask(HOME, |cache, waiter, now| {
            let wish = Wish {
                load_ms: 5_000,
                wait_until_ms: now + wait_ms,
            };
            cache.read_or_claim(unknown.clone(), wish, waiter, now);
        })
    });
    let claimed = &nodes.answers[&claims];
    assert!(matches!(claimed, Answer::Claimed { .. }), "{claimed:?}");
    nodes.caches.get_mut(&HOME).expect("it runs").give_up();
    nodes.collect();
    for ticket in [begun, sweep] {
        assert_eq!(nodes.answers[&ticket], Answer::Refused(Why::Indeterminate));
    }
    for ticket in [queued, asked, waits] {
        assert_eq!(nodes.answers[&ticket], STOPPING);
    }
}
