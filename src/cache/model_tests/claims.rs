//! Loaders of a missing value by hand on three nodes.

use super::nodes::*;
use crate::cache::claims::Wish;
use crate::cache::entry::{Key, Version};
use crate::cache::message::Matching;
use crate::cache::operation::{Answer, Why};
use crate::ids::NodeId;

const LOAD_MS: u64 = 5_000;

fn ask(nodes: &mut Nodes, node: NodeId, key: &Key, wait_ms: u64) -> u64 {
    ask_within(nodes, node, key, (wait_ms, 60_000))
}

/// As a client that waits for any answer no longer than the second length.
fn ask_within(
    nodes: &mut Nodes,
    node: NodeId,
    key: &Key,
    (wait_ms, timeout_ms): (u64, u64),
) -> u64 {
    let ticket = ask_to_load(nodes, node, key, (LOAD_MS, wait_ms, timeout_ms));
    nodes.settle();
    ticket
}

/// As a client whose claim would last for the first length; its question is under way.
fn ask_to_load(
    nodes: &mut Nodes,
    node: NodeId,
    key: &Key,
    (load_ms, wait_ms, timeout_ms): (u64, u64, u64),
) -> u64 {
    nodes.ask(node, |cache, mut waiter, now| {
        waiter.deadline_ms = now + timeout_ms;
        let wish = Wish {
            load_ms,
            wait_until_ms: now + wait_ms,
        };
        cache.read_or_claim(key.clone(), wish, waiter, now);
    })
}

#[track_caller]
fn claim(nodes: &Nodes, ticket: u64) -> Version {
    match nodes.answers.get(&ticket) {
        Some(Answer::Claimed { claim }) => *claim,
        other => panic!("{other:?}"),
    }
}

fn load(nodes: &mut Nodes, key: &Key, claim: Version, text: &str) -> u64 {
    let ticket = nodes.write(key, loaded(text, Some(claim), &[]));
    nodes.settle();
    ticket
}

#[track_caller]
fn is_over(nodes: &Nodes, ticket: u64) {
    assert_eq!(nodes.answers[&ticket], Answer::Refused(Why::ClaimOver));
}

#[test]
fn one_loads_and_all_others_wait_for_its_value() {
    for backups in [false, true] {
        let mut nodes = Nodes::start_with(1 << 20, backups);
        let key = nodes.key();
        let first = ask(&mut nodes, READER, &key, 0);
        let claimed = claim(&nodes, first);
        let impatient = ask(&mut nodes, OTHER, &key, 0);
        assert_eq!(nodes.answers[&impatient], Answer::Missed);
        let others: Vec<u64> = [HOME, READER, OTHER, READER, HOME]
            .map(|node| ask(&mut nodes, node, &key, 10_000))
            .into();
        // Questions that are asked again wait once.
        nodes.pass(500);
        nodes.settle();
        assert!(!others.iter().any(|ticket| nodes.is_answered(*ticket)));
        let loaded = load(&mut nodes, &key, claimed, "loaded");
        assert!(matches!(nodes.answers[&loaded], Answer::Wrote { .. }));
        for ticket in others {
            assert_eq!(nodes.read_value(ticket).as_deref(), Some("loaded"));
        }
        for node in [READER, OTHER] {
            assert_eq!(nodes.hit(node, &key).as_deref(), Some("loaded"));
        }
        let again = load(&mut nodes, &key, claimed, "again");
        is_over(&nodes, again);
    }
}

#[test]
fn a_loader_that_takes_too_long_is_followed_by_the_next() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    let slow = ask(&mut nodes, READER, &key, 0);
    let slow = claim(&nodes, slow);
    let second = ask(&mut nodes, OTHER, &key, 60_000);
    let third = ask(&mut nodes, HOME, &key, LOAD_MS + 1_000);
    for _ in 0..LOAD_MS / 100 + 1 {
        nodes.pass(100);
        nodes.settle();
    }
    let late = load(&mut nodes, &key, slow, "late");
    is_over(&nodes, late);
    let next = claim(&nodes, second);
    assert!(!nodes.is_answered(third));
    for _ in 0..12 {
        nodes.pass(100);
        nodes.settle();
    }
    assert_eq!(nodes.answers[&third], Answer::Missed, "its wait is over");
    let loaded = load(&mut nodes, &key, next, "loaded");
    assert!(matches!(nodes.answers[&loaded], Answer::Wrote { .. }));
}

/// What is being loaded may be from before the write, also when that finds nothing to remove.
#[test]
fn every_write_and_invalidation_makes_a_claim_void() {
    type Change = fn(&mut Nodes, &Key);
    let changes: [Change; 5] = [
        |nodes, key| {
            nodes.delete(key);
        },
        |nodes, key| {
            nodes.set(key, "written");
            nodes.delete(key);
        },
        |nodes, _| {
            nodes.invalidate(OTHER, Matching::Tag("any".into()));
        },
        |nodes, key| {
            nodes.invalidate(OTHER, Matching::Prefix(key.clone()));
        },
        |nodes, _| {
            nodes.invalidate(OTHER, Matching::All);
        },
    ];
    for (which, change) in changes.into_iter().enumerate() {
        let mut nodes = Nodes::start(1 << 20);
        let key = nodes.key();
        let first = ask(&mut nodes, READER, &key, 0);
        let first = claim(&nodes, first);
        let waiting = ask(&mut nodes, OTHER, &key, 10_000);
        change(&mut nodes, &key);
        nodes.settle();
        let late = load(&mut nodes, &key, first, "old");
        is_over(&nodes, late);
        if which != 1 {
            let next = claim(&nodes, waiting);
            let loaded = load(&mut nodes, &key, next, "new");
            assert!(matches!(nodes.answers[&loaded], Answer::Wrote { .. }));
        }
    }
}

/// What it brings was loaded before the invalidation, also when it was accepted before that came.
#[test]
fn an_invalidation_removes_what_is_set_under_a_claim_meanwhile() {
    for which in 0..3 {
        let mut nodes = Nodes::start_with(1 << 20, true);
        let key = nodes.key();
        let matching = match which {
            0 => Matching::Prefix(key.clone()),
            1 => Matching::Tag("tag".into()),
            _ => Matching::All,
        };
        let loader = ask(&mut nodes, READER, &key, 0);
        let claimed = claim(&nodes, loader);
        let set = nodes.write(&key, loaded("old", Some(claimed), &["tag"]));
        let to_second = std::mem::take(&mut nodes.mail);
        assert_eq!(to_second.len(), 1);
        let invalidated = nodes.invalidate(OTHER, matching.clone());
        nodes.settle();
        assert!(!nodes.is_answered(set) && !nodes.is_answered(invalidated));
        nodes.mail.extend(to_second);
        nodes.settle();
        assert!(matches!(nodes.answers[&set], Answer::Wrote { .. }));
        let removed = Answer::Swept { removed: 1 };
        assert_eq!(nodes.answers[&invalidated], removed, "{matching:?}");
        for node in [HOME, READER, OTHER] {
            assert_eq!(nodes.get(node, &key), None, "{matching:?} at {node}");
        }
    }
}

#[test]
fn a_claim_ends_with_its_home() {
    let mut nodes = Nodes::start_with(1 << 20, true);
    let key = nodes.keys(READER).next().expect("some key lives there");
    let first = ask(&mut nodes, OTHER, &key, 0);
    let first = claim(&nodes, first);
    let waiting = ask(&mut nodes, HOME, &key, 60_000);
    nodes.lose(READER);
    let late = load(&mut nodes, &key, first, "late");
    is_over(&nodes, late);
    let next = claim(&nodes, waiting);
    let loaded = load(&mut nodes, &key, next, "loaded");
    assert!(matches!(nodes.answers[&loaded], Answer::Wrote { .. }));
}

#[test]
fn nobody_waits_longer_than_asked_behind_one_who_waits_longer() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    let loader = ask(&mut nodes, OTHER, &key, 0);
    claim(&nodes, loader);
    let patient = ask(&mut nodes, READER, &key, 4_000);
    nodes.pass(500);
    let asked = nodes.now;
    let wait_ms = [0, 0, 1_000, 1_000, 3_000];
    let brief = wait_ms.map(|wait_ms| (wait_ms, ask(&mut nodes, READER, &key, wait_ms)));
    let soon = ask_within(&mut nodes, READER, &key, (60_000, 300));
    while nodes.now < asked + 3_100 {
        nodes.pass(10);
        nodes.settle();
        let waited = nodes.now - asked;
        for (wait_ms, ticket) in brief {
            if waited < wait_ms {
                assert!(!nodes.is_answered(ticket), "{wait_ms} ms are not over");
            } else if waited >= wait_ms + 30 {
                let answer = nodes.answers.get(&ticket);
                assert_eq!(answer, Some(&Answer::Missed), "{wait_ms} ms are over");
            }
        }
        let in_time = waited < 300 || nodes.answers.get(&soon) == Some(&Answer::Missed);
        assert!(in_time, "its client has given up");
        assert!(!nodes.is_answered(patient));
    }
}

/// Who does not wait for the value of another waits for the home's word, though.
#[test]
fn who_would_not_wait_is_told_what_the_home_has() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    nodes.set(&key, "value");
    let asked = [0, 0, 5].map(|wait| ask_to_load(&mut nodes, READER, &key, (500, wait, 60_000)));
    nodes.deliver_to(HOME);
    let late = nodes.take(READER);
    nodes.pass(30);
    nodes.mail.clear();
    for mail in late {
        nodes.deliver(mail);
    }
    nodes.settle();
    for ticket in asked {
        assert_eq!(nodes.read_value(ticket).as_deref(), Some("value"));
    }
}

#[test]
fn a_claim_lasts_as_long_as_the_client_asked_who_has_it() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    let loader = ask(&mut nodes, HOME, &key, 0);
    claim(&nodes, loader);
    let wishes = [(500, 3_000), (2_000, 4_000), (100, 5_000), (900, 4_500)];
    let asked = wishes.map(|(load_ms, wait_ms)| {
        let wish = (load_ms, wait_ms, 60_000);
        (load_ms, ask_to_load(&mut nodes, READER, &key, wish))
    });
    nodes.settle();
    let mut left = asked.to_vec();
    while !left.is_empty() {
        nodes.delete(&key);
        nodes.settle();
        let is_answered = |(_, ticket): &(u64, u64)| nodes.is_answered(*ticket);
        let (told, others): (Vec<_>, Vec<_>) = left.into_iter().partition(is_answered);
        left = others;
        let [(load_ms, ticket)] = told[..] else {
            panic!("one has the next claim: {told:?}");
        };
        let claimed = claim(&nodes, ticket);
        let is_open = |after| {
            let claims = &nodes.caches[&HOME].claims;
            claims.is_open(&key, claimed, nodes.now + after)
        };
        assert!(is_open(load_ms - 1) && !is_open(load_ms), "{load_ms} ms");
    }
}

#[test]
fn a_wait_is_no_longer_than_its_client_and_the_next_claim_is_for_who_is_there() {
    for node in [HOME, READER] {
        let mut nodes = Nodes::start(1 << 20);
        let key = nodes.key();
        let loader = ask(&mut nodes, OTHER, &key, 0);
        claim(&nodes, loader);
        let brief = ask_within(&mut nodes, node, &key, (60_000, 1_000));
        let patient = ask(&mut nodes, OTHER, &key, 60_000);
        for passed in 1..=LOAD_MS / 50 + 2 {
            nodes.pass(50);
            nodes.settle();
            let in_time = passed < 20 || nodes.answers.get(&brief) == Some(&Answer::Missed);
            assert!(in_time, "its client has given up");
        }
        claim(&nodes, patient);
    }
}

#[test]
fn a_write_that_is_refused_leaves_the_claim() {
    let mut nodes = Nodes::start(BYTES_MAX);
    let key = nodes.key();
    let others: Vec<Key> = nodes.keys(HOME).skip(1).take(4).collect();
    for other in &others {
        nodes.set(other, "small");
    }
    nodes.settle();
    let loader = ask(&mut nodes, READER, &key, 0);
    let claimed = claim(&nodes, loader);
    let large = nodes.set(&key, &"x".repeat(BYTES_MAX));
    nodes.settle();
    assert_eq!(nodes.answers[&large], Answer::Refused(too_large(BYTES_MAX)));
    for other in &others {
        let kept = nodes.hit(HOME, other);
        assert_eq!(kept.as_deref(), Some("small"), "it made no room");
    }
    let loaded = load(&mut nodes, &key, claimed, "loaded");
    let loaded = &nodes.answers[&loaded];
    assert!(matches!(loaded, Answer::Wrote { .. }), "{loaded:?}");
}
