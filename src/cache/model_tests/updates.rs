//! Copies that follow the writes of their homes, by hand on three nodes.

use super::nodes::*;
use crate::cache::entry::Key;
use crate::cache::operation::Operation;
use crate::cache::state::{Effect, Waiter};

/// How many questions a node has asked.
fn questions(nodes: &Nodes) -> u64 {
    nodes.caches[&READER].counts().fills
}

/// A value that [`READER`] has a copy of, and the news of the next one delivered to it.
fn told(ttl_ms: Option<u64>) -> (Nodes, Key, u64) {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    nodes.share(&key, "old");
    let write = nodes.write(&key, set_for("new", ttl_ms));
    nodes.deliver_to(READER);
    (nodes, key, write)
}

#[test]
fn a_copy_follows_a_write_and_is_not_served_before_it_has_taken_effect() {
    let (mut nodes, key, write) = told(None);
    assert!(!nodes.is_answered(write));
    assert_eq!(nodes.hit(READER, &key), None);
    let now = nodes.now;
    assert_eq!(nodes.caches[&READER].hit_any(&key, now), None);
    nodes.deliver_to(HOME);
    assert!(nodes.is_answered(write));
    assert_eq!(nodes.hit(READER, &key), None, "it has not heard of that");
    nodes.deliver_to(READER);
    let before = questions(&nodes);
    assert_eq!(nodes.hit(READER, &key).as_deref(), Some("new"));
    assert_eq!(questions(&nodes), before);
    assert_eq!(nodes.caches[&READER].counts().updates, 1);
    // The home knows of it.
    let write = nodes.set(&key, "newest");
    assert!(!nodes.is_answered(write));
    nodes.settle();
    assert_eq!(nodes.hit(READER, &key).as_deref(), Some("newest"));
}

#[test]
fn who_reads_before_that_is_known_asks_and_who_never_hears_of_it_asks_once() {
    let (mut nodes, key, write) = told(None);
    let before = nodes.read(READER, &key);
    nodes.deliver_to(HOME);
    nodes.take(READER);
    assert!(nodes.is_answered(write));
    assert!(!nodes.is_answered(before), "its answer was lost, too");
    nodes.pass(100);
    nodes.settle();
    assert_eq!(nodes.read_value(before).as_deref(), Some("new"));
    assert_eq!(nodes.hit(READER, &key).as_deref(), Some("new"));
    nodes.set(&key, "newest");
    nodes.settle();
    assert_eq!(nodes.hit(READER, &key).as_deref(), Some("newest"));
}

#[test]
fn a_lost_acknowledgement_that_is_repeated_says_the_same() {
    let (mut nodes, key, write) = told(None);
    nodes.take(HOME);
    nodes.pass(100);
    nodes.settle();
    assert!(nodes.is_answered(write));
    assert_eq!(nodes.hit(READER, &key).as_deref(), Some("new"));
    let write = nodes.set(&key, "newest");
    assert!(!nodes.is_answered(write), "the reader has a copy");
}

#[test]
fn what_was_confirmed_late_is_not_what_came_after_it() {
    let (mut nodes, key, _) = told(None);
    nodes.deliver_to(HOME);
    let late = nodes.take(READER);
    let write = nodes.set(&key, "newest");
    nodes.deliver_to(READER);
    for mail in late {
        nodes.deliver(mail);
    }
    assert!(!nodes.is_answered(write));
    assert_eq!(nodes.hit(READER, &key), None);
    nodes.settle();
    assert_eq!(nodes.hit(READER, &key).as_deref(), Some("newest"));
}

#[test]
fn a_copy_that_nobody_reads_follows_two_writes_and_is_lost_to_the_third() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    nodes.share(&key, "0");
    for number in 1..=3 {
        let write = nodes.set(&key, &number.to_string());
        assert!(!nodes.is_answered(write), "{number}");
        nodes.settle();
        assert!(nodes.is_answered(write), "{number}");
    }
    let write = nodes.set(&key, "4");
    assert!(nodes.is_answered(write), "nobody has a copy");
    // One that is read goes on.
    nodes.share(&key, "5");
    for number in 6..20 {
        nodes.set(&key, &number.to_string());
        nodes.settle();
        assert_eq!(nodes.hit(READER, &key), Some(number.to_string()));
    }
    assert_eq!(nodes.caches[&READER].counts().updates, 2 + 14);
}

#[test]
fn a_lifetime_that_was_long_on_its_way_ends_no_later_than_at_home() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    nodes.share(&key, "old");
    nodes.write(&key, set_for("new", Some(400)));
    let ends = nodes.now + 400;
    let news = nodes.take(READER);
    nodes.now += 150;
    for mail in news {
        nodes.deliver(mail);
    }
    nodes.now += 50;
    nodes.settle();
    assert_eq!(nodes.hit(READER, &key).as_deref(), Some("new"));
    while nodes.hit(READER, &key).is_some() {
        nodes.now += 1;
    }
    assert!(nodes.now <= ends, "{} after {ends}", nodes.now - ends);
    nodes.now = ends - 1;
    assert_eq!(nodes.hit(HOME, &key).as_deref(), Some("new"));
}

#[test]
fn large_values_and_those_that_end_unread_are_asked_for() {
    let large = set_for(&"x".repeat(5_000), None);
    let Operation::Set {
        value,
        condition,
        tags,
        ..
    } = set_for("idle", None)
    else {
        unreachable!()
    };
    let idle = Operation::Set {
        value,
        ttl_ms: None,
        idle_ms: 60_000,
        condition,
        tags,
        fence: None,
        claim: None,
    };
    for next in [large, idle] {
        let mut nodes = Nodes::start(1 << 20);
        let key = nodes.key();
        nodes.share(&key, "old");
        nodes.write(&key, next);
        nodes.settle();
        assert_eq!(nodes.hit(READER, &key), None);
        assert_eq!(nodes.caches[&READER].size().0, 0);
    }
}

#[test]
fn what_does_not_fit_in_place_of_a_copy_is_not_kept() {
    let mut nodes = Nodes::start(BYTES_MAX);
    let own: Vec<Key> = nodes.keys(READER).take(8).collect();
    for key in &own {
        nodes.set(key, &"x".repeat(100));
    }
    let key = nodes.key();
    nodes.share(&key, "old");
    let write = nodes.set(&key, &"y".repeat(900));
    nodes.settle();
    assert!(nodes.is_answered(write));
    assert_eq!(nodes.hit(READER, &key), None);
    let (entries, bytes) = nodes.caches[&READER].size();
    assert!(
        entries == own.len() && bytes <= BYTES_MAX,
        "{entries}, {bytes}"
    );
}

/// As [`pitfalls`](super::pitfalls) has it of copies that were asked for.
#[test]
fn a_home_short_of_memory_hears_of_the_uses_of_copies_that_follow() {
    let mut nodes = Nodes::start(BYTES_MAX);
    let keys: Vec<Key> = nodes.keys(HOME).take(60).collect();
    let (hot, cold) = keys.split_first().expect("keys");
    nodes.share(hot, "hot");
    for key in &cold[..8] {
        nodes.set(key, &"x".repeat(100));
    }
    nodes.set(hot, "hotter");
    nodes.settle();
    for key in &cold[8..] {
        assert_eq!(nodes.hit(READER, hot).as_deref(), Some("hotter"), "{key}");
        nodes.set(key, &"x".repeat(100));
        nodes.pass(600);
        nodes.settle();
    }
    assert_eq!(questions(&nodes), 1);
}

#[test]
fn a_change_of_the_home_forgets_what_was_not_confirmed() {
    let mut nodes = Nodes::start_with(1 << 20, true);
    let key = nodes.key();
    nodes.share(&key, "old");
    nodes.set(&key, "new");
    nodes.deliver_to(READER);
    nodes.take(HOME);
    nodes.lose(HOME);
    assert_ne!(nodes.caches[&READER].home(&key), Some(HOME));
    let value = nodes.get(READER, &key).expect("one of the two has it");
    assert_eq!(nodes.get(OTHER, &key), Some(value));
}

#[test]
fn a_write_that_others_of_the_key_wait_for_brings_nothing() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    nodes.share(&key, "old");
    let writes = ["1", "2", "3"].map(|text| nodes.set(&key, text));
    // The first was told of before the others came.
    nodes.deliver_to(READER);
    nodes.deliver_to(HOME);
    assert!(nodes.is_answered(writes[0]));
    nodes.settle();
    assert!(writes.into_iter().all(|write| nodes.is_answered(write)));
    assert_eq!(nodes.hit(READER, &key), None);
    assert_eq!(nodes.caches[&READER].size().0, 0);
    assert_eq!(nodes.get(READER, &key).as_deref(), Some("3"));
}

#[test]
fn news_that_do_not_fit_into_one_message_go_in_several() {
    let mut nodes = Nodes::start(1 << 24);
    let keys: Vec<Key> = nodes.keys(HOME).take(300).collect();
    for key in &keys {
        nodes.share(key, "old");
    }
    let (now, home) = (nodes.now, nodes.caches.get_mut(&HOME).expect("it runs"));
    for (ticket, key) in (1_000..).zip(&keys) {
        let waiter = Waiter {
            ticket,
            deadline_ms: now + 60_000,
        };
        let write = set_for(&"x".repeat(4_096), None);
        home.write(key.clone(), write.into(), waiter, now);
    }
    let told = home.take_effects().into_iter();
    let told = told.filter_map(|effect| match effect {
        Effect::Invalidate(old) => Some(old),
        _ => None,
    });
    let (mut all, mut said, mut messages) = (told.collect(), Vec::new(), 0);
    while let Some(news) = home.news(&mut all, now) {
        let encoded = rmp_serde::to_vec(&news).expect("it encodes");
        assert!(encoded.len() < 600_000, "{} bytes", encoded.len());
        assert!(news.items.iter().all(|old| old.update.is_some()));
        said.extend(news.items.into_iter().map(|old| old.key));
        messages += 1;
    }
    assert!(messages == 3 && said == keys, "{messages} messages");
}
