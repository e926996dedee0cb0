//! What made other caches serve old values, fill up or hang, each with the place where it was
//! reported: their order of messages, played by hand on three nodes. The last ones were found here.

use super::nodes::*;
use crate::cache::entry::{ENTRY_BYTES, Key};
use crate::cache::explain::State;
use crate::cache::message::{Found, Message};
use crate::cache::operation::{Answer, Condition, Operation, Write};
use crate::ids::Epoch;
use crate::view::cluster::Command;

/// IGNITE-627: news of a newer value overtook the older value on its way to a node that had nothing
/// yet; the older one was kept for ever, and the node was not told of later ones. Also
/// hazelcast/hazelcast#4671, where an invalidation came between a question and its answer, and
/// ISPN-13612 of that kind.
#[test]
fn a_value_that_news_overtake_is_not_kept_and_later_news_come() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    let (asked, late) = nodes.answer_on_its_way(&key);
    let write = nodes.set(&key, "new");
    assert!(!nodes.is_answered(write), "the reader may have a copy");
    nodes.settle();
    assert!(nodes.is_answered(write));
    for mail in late {
        nodes.deliver(mail);
    }
    // Who asked before the write was over may have the value before it; nobody else may.
    assert_eq!(nodes.read_value(asked).as_deref(), Some("old"));
    assert_eq!(nodes.hit(READER, &key), None);
    assert_eq!(nodes.get(READER, &key).as_deref(), Some("new"));
    nodes.set(&key, "newest");
    nodes.settle();
    assert_eq!(nodes.get(READER, &key).as_deref(), Some("newest"));
}

/// ZiggyCreatures/FusionCache#625: a removal during a load was undone by the load, and readers that
/// came after the removal joined it. Also trinodb/trino#22285.
#[test]
fn who_reads_after_a_removal_does_not_join_a_question_from_before() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    let (before, late) = nodes.answer_on_its_way(&key);
    let condition = Condition::Always;
    let removal = nodes.write(&key, Operation::Delete { condition });
    nodes.settle();
    assert_eq!(nodes.answers[&removal], Answer::Removed { existed: true });
    let after = nodes.read(READER, &key);
    for mail in late {
        nodes.deliver(mail);
    }
    nodes.settle();
    assert_eq!(nodes.read_value(before).as_deref(), Some("old"));
    assert_eq!(nodes.read_value(after), None);
    assert_eq!(nodes.get(READER, &key), None);
}

/// hazelcast/hazelcast#25304: an invalidation was lost, fewer than a threshold were, and the copy
/// stayed old for ever.
#[test]
fn one_lost_invalidation_is_one_too_many() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    nodes.share(&key, "old");
    let write = nodes.set(&key, "new");
    assert_eq!(nodes.take(READER).len(), 1);
    nodes.settle();
    assert!(!nodes.is_answered(write), "a copy is left");
    nodes.pass(200);
    nodes.settle();
    assert!(nodes.is_answered(write));
    assert_eq!(nodes.get(READER, &key).as_deref(), Some("new"));
}

/// hazelcast/hazelcast#24432: two batches of invalidations arrived in the other order, and fresh
/// copies were taken for old ones.
#[test]
fn late_news_and_late_answers_concern_their_own_write() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    nodes.share(&key, "first");
    nodes.set(&key, "second");
    let news = nodes.take(READER);
    let again = news.clone();
    for mail in news {
        nodes.deliver(mail);
    }
    let answers = nodes.take(HOME);
    for mail in answers.clone() {
        nodes.deliver(mail);
    }
    nodes.share(&key, "second");
    for mail in again {
        nodes.deliver(mail);
    }
    nodes.settle();
    assert_eq!(nodes.hit(READER, &key).as_deref(), Some("second"));
    let third = nodes.set(&key, "third");
    for mail in answers {
        nodes.deliver(mail);
    }
    assert!(!nodes.is_answered(third), "that was for the write before");
    assert_eq!(nodes.hit(READER, &key).as_deref(), Some("second"));
    nodes.settle();
    assert!(nodes.is_answered(third));
    assert_eq!(nodes.hit(READER, &key).as_deref(), Some("third"));
}

/// redisson/redisson#4653: a node's subscription was dead, the node did not notice, and served what
/// it had.
#[test]
fn a_node_that_hears_nothing_serves_nothing_once_others_have_written() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    nodes.share(&key, "old");
    nodes.deaf = Some(READER);
    let write = nodes.set(&key, "new");
    let incarnation = nodes.view.member(READER).expect("a member").incarnation;
    let node = READER;
    let mut served = 0;
    for step in 0..200 {
        if step == 10 {
            nodes.view.apply(&Command::Leave { node, incarnation });
        }
        nodes.pass(20);
        nodes.settle();
        let hit = nodes.hit(READER, &key);
        served += u64::from(hit.is_some());
        assert!(hit.is_none() || !nodes.is_answered(write), "{hit:?}");
    }
    assert!(served > 10, "it had a lease for a while");
    assert!(nodes.is_answered(write), "the others go on without it");
    assert_eq!(nodes.get(OTHER, &key).as_deref(), Some("new"));
}

/// mailgun/groupcache#72: two nodes each held the other for a key's owner, and handed a question to
/// and fro without end.
#[test]
fn a_question_to_the_wrong_node_goes_no_further() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    nodes.set(&key, "value");
    let asker = nodes.view.member(READER).expect("a member").incarnation;
    let question = Message::Fetch {
        epoch: Epoch(nodes.view.epoch().0 + 1),
        asker,
        fill: 7,
        key: key.clone(),
        wish: None,
    };
    nodes.deliver(Mail {
        from: READER,
        to: OTHER,
        what: What::Message(question),
    });
    let sent = std::mem::take(&mut nodes.mail);
    let [answer] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert_eq!((answer.from, answer.to), (OTHER, READER));
    let What::Message(Message::Filled { found, .. }) = &answer.what else {
        panic!("{answer:?}");
    };
    assert_eq!(*found, Found::NotNow);
    assert_eq!(nodes.get(READER, &key).as_deref(), Some("value"));
}

/// moka-rs/moka#590: with keys that were written again and again under pressure nothing was evicted
/// any more, and memory grew without end. Also mailgun/groupcache#52, where a value put in place of
/// another was counted twice.
#[test]
fn memory_stays_bounded_when_keys_are_written_again_and_again() {
    let mut nodes = Nodes::start(BYTES_MAX);
    for n in 0..4_000_u64 {
        let key: Key = format!("key-{}", n * 7 % 61).as_str().into();
        let length = (n * 37 % 200) as usize;
        let write = nodes.set(&key, &"x".repeat(length));
        if n % 3 == 0 {
            nodes.read(READER, &key);
        }
        nodes.settle();
        assert!(matches!(nodes.answers[&write], Answer::Wrote { .. }));
        assert_eq!(nodes.get(OTHER, &key).map(|text| text.len()), Some(length));
        for (id, cache) in &nodes.caches {
            let (entries, bytes) = cache.size();
            assert!(bytes <= BYTES_MAX, "{entries} of {id} take {bytes} bytes");
        }
        nodes.pass(1);
    }
    for cache in nodes.caches.values() {
        assert!(cache.counts().evictions > 100, "{:?}", cache.counts());
    }
}

/// A removal takes memory until all have heard of it.
#[test]
fn memory_stays_bounded_when_many_keys_are_removed_at_once() {
    let each = ENTRY_BYTES + "key-0000".len() + 100;
    let bytes_max = 9 * each * 16 / 15;
    let mut nodes = Nodes::start(bytes_max);
    let keys: Vec<Key> = nodes.keys(HOME).take(9).collect();
    for key in &keys {
        nodes.share(key, &"x".repeat(100));
    }
    let (entries, full) = nodes.caches[&HOME].size();
    assert_eq!(entries, keys.len(), "{full}");
    for key in &keys {
        nodes.delete(key);
    }
    let (_, bytes) = nodes.caches[&HOME].size();
    assert!(bytes <= bytes_max, "{bytes}");
    nodes.settle();
    // Those that found no room were refused.
    for key in &keys {
        let again = nodes.delete(key);
        nodes.settle();
        assert!(!matches!(nodes.answers[&again], Answer::Refused(_)));
        assert_eq!(nodes.get(READER, key), None);
    }
}

#[test]
fn copies_make_room_when_all_that_a_node_is_home_to_is_being_written() {
    let mut nodes = Nodes::start(BYTES_MAX);
    let mine: Vec<Key> = nodes.keys(HOME).take(3).collect();
    let others: Vec<Key> = nodes.keys(OTHER).take(8).collect();
    nodes.share(&mine[0], "old");
    for key in &others {
        nodes.set(key, &"x".repeat(100));
        nodes.settle();
        assert_eq!(nodes.get(HOME, key).map(|text| text.len()), Some(100));
    }
    // Its sharer does not answer yet.
    let pending = nodes.set(&mine[0], "new");
    let added = nodes.set(&mine[1], &"x".repeat(1_000));
    assert!(!nodes.is_answered(pending));
    assert!(matches!(nodes.answers[&added], Answer::Wrote { .. }));
    nodes.settle();
    assert!(matches!(nodes.answers[&pending], Answer::Wrote { .. }));
}

#[test]
fn what_is_over_is_removed_when_memory_is_full_of_writes() {
    let mut nodes = Nodes::start(BYTES_MAX);
    let keys: Vec<Key> = nodes.keys(HOME).take(2).collect();
    let brief = set_for("brief", Some(500));
    nodes.share(&keys[0], "old");
    nodes.write(&keys[1], brief);
    let (_, bytes) = nodes.caches[&HOME].size();
    let rest = BYTES_MAX - bytes - ENTRY_BYTES - keys[0].len();
    let pending = nodes.set(&keys[0], &"x".repeat(rest));
    nodes.now += 500;
    let read = nodes.read(HOME, &keys[1]);
    assert_eq!(nodes.read_value(read), None);
    assert!(!nodes.is_answered(pending));
}

/// Inclusion victims: reads that copies answer are unseen at the home, whose least recently used entry
/// then is the one that everybody reads, and all copies go with it.
#[test]
fn what_others_read_from_their_copies_is_not_evicted_for_looking_cold() {
    let mut nodes = Nodes::start(BYTES_MAX);
    let keys: Vec<Key> = nodes.keys(HOME).take(60).collect();
    let (hot, cold) = keys.split_first().expect("keys");
    // Short of memory when the copy is made.
    for key in &cold[..8] {
        nodes.set(key, &"x".repeat(100));
    }
    nodes.share(hot, "hot");
    let (_, before) = nodes.caches[&HOME].size();
    assert!(before > BYTES_MAX / 4 * 3, "{before}");
    for key in &cold[8..] {
        assert_eq!(nodes.hit(READER, hot).as_deref(), Some("hot"), "{key}");
        nodes.set(key, &"x".repeat(100));
        nodes.pass(600);
        nodes.settle();
    }
    assert!(nodes.caches[&HOME].counts().evictions > 40);
}

/// Seed 651 of the random runs, once: a node was stopped past its lease while an answer waited for it,
/// the others went on without it and wrote, and a reader that came before it looked at the view joined the
/// question and got the answer.
#[test]
fn who_asks_a_node_that_was_stopped_does_not_get_an_answer_from_before() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    let (before, late) = nodes.answer_on_its_way(&key);
    let write = nodes.set(&key, "new");
    nodes.lose(READER);
    assert!(nodes.is_answered(write));
    nodes.deaf = None;
    let after = nodes.read(READER, &key);
    for mail in late {
        nodes.deliver(mail);
    }
    nodes.settle();
    assert_eq!(nodes.read_value(before).as_deref(), Some("old"));
    assert_eq!(nodes.read_value(after).as_deref(), Some("new"));
}

/// Found by reading: values that were to be written anew for a second node were forgotten when the view
/// changed once more, and were lost with their home.
#[test]
fn a_second_node_is_told_everything_also_when_the_view_changes_meanwhile() {
    let mut nodes = Nodes::start_with(1 << 24, true);
    let cache = &nodes.caches[&HOME];
    let (now, second) = (nodes.now, Some(OTHER));
    let keys = (0..4_000).map(|n| Key::from(format!("value-{n}")));
    let is_here = |key: &Key| {
        let explained = cache.explain(key, now);
        explained.home == Some(HOME) && explained.second == second
    };
    let keys: Vec<Key> = keys.filter(is_here).collect();
    assert!(keys.len() > 300, "more than are written anew at once");
    for key in &keys {
        let delete = Operation::Delete {
            condition: Condition::Always,
        };
        nodes.set(key, "value");
        let delete = Write {
            id: Some("id".into()),
            ..delete.into()
        };
        nodes.settle();
        nodes.write(key, delete);
        nodes.settle();
        nodes.set(key, "value");
    }
    nodes.settle();
    nodes.lose(OTHER);
    let tells =
        |message: &Message| matches!(message, Message::Store { .. } | Message::Remember { .. });
    let is_to_second = |mail: &Mail| {
        mail.to == OTHER && matches!(&mail.what, What::Message(message) if tells(message))
    };
    nodes.begin_anew(OTHER);
    nodes.go_on(is_to_second);
    nodes.begin_to_lose(READER);
    nodes.go_on(is_to_second);
    nodes.go_on(|_| false);
    assert_eq!(nodes.view.members().count(), 2);
    let home = nodes.caches[&HOME].acting().stay;
    let results = nodes.caches[&OTHER].requests.of(home, |_| true);
    for key in &keys {
        let explained = nodes.caches[&OTHER].explain(key, nodes.now);
        assert_eq!(explained.state, State::Backup, "{key}");
        assert!(results.contains(&(key.clone(), "id".into())), "{key}");
    }
}

/// Seed 2534 of the random runs, once: a write of another key was not over, so that a message about an
/// earlier write of this key that came once more passed for news, and the older value came back when the
/// home was lost; a removed one likewise.
#[test]
fn a_late_message_to_the_second_node_undoes_nothing() {
    for removed in [false, true] {
        let mut nodes = Nodes::start_with(1 << 20, true);
        let second = |nodes: &Nodes, key: &Key| nodes.caches[&HOME].explain(key, nodes.now).second;
        let keys: Vec<Key> = nodes.keys(READER).collect();
        let same = |key: &&Key| second(&nodes, key) == Some(OTHER);
        let keys: Vec<Key> = keys.iter().filter(same).cloned().collect();
        let [open, key, ..] = &keys[..] else {
            panic!("some keys live there");
        };
        nodes.set(open, "not over");
        nodes.mail.clear();
        nodes.set(key, "old");
        let late = nodes.mail.clone();
        assert_eq!(late.len(), 1);
        nodes.settle();
        let later = match removed {
            true => nodes.delete(key),
            false => nodes.set(key, "new"),
        };
        nodes.settle();
        assert!(nodes.is_answered(later));
        for mail in late {
            nodes.deliver(mail);
        }
        nodes.mail.clear();
        nodes.lose(READER);
        let found = nodes.get(OTHER, key);
        assert_eq!(found.as_deref(), (!removed).then_some("new"));
    }
}
