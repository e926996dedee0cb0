//! Writes with request ids by hand on three nodes.

use super::nodes::*;
use crate::cache::entry::Key;
use crate::cache::message::Matching;
use crate::cache::operation::{Answer, Condition, Operation, Why, Write};
use crate::cache::state::Flaws;
use crate::protocol::value::Value;

fn repeat(write: &Write) -> Write {
    Write {
        is_repeat: true,
        ..write.clone()
    }
}

fn set(id: &str, text: &str, condition: Condition) -> Write {
    let operation = Operation::Set {
        value: Value::text(text),
        ttl_ms: None,
        idle_ms: 0,
        condition,
        tags: Vec::new(),
        fence: None,
        claim: None,
    };
    Write {
        id: Some(id.into()),
        ..operation.into()
    }
}

/// Asks a key's home for a write, with all messages arriving.
fn make(nodes: &mut Nodes, key: &Key, write: Write) -> Answer {
    let ticket = nodes.write(key, write);
    nodes.settle();
    nodes.answers[&ticket].clone()
}

/// What a counter came to.
#[track_caller]
fn count(answer: &Answer) -> u64 {
    match answer {
        Answer::Counted { value, .. } => *value,
        other => panic!("{other:?}"),
    }
}

/// Lets so much time pass that nothing may be missing.
fn be_whole(nodes: &mut Nodes) {
    for _ in 0..REMEMBER_MS / 500 + 4 {
        nodes.pass(500);
        nodes.settle();
    }
}

#[test]
fn a_repeat_gets_the_first_answer_and_does_nothing() {
    for backups in [false, true] {
        let mut nodes = Nodes::start_with(1 << 20, backups);
        let key = nodes.key();
        let first = make(&mut nodes, &key, add_one("one"));
        assert_eq!(count(&first), 1);
        assert_eq!(make(&mut nodes, &key, add_one("one")), first);
        let second = make(&mut nodes, &key, add_one("two"));
        assert_eq!(count(&second), 2);
        assert_eq!(make(&mut nodes, &key, repeat(&add_one("one"))), first);
        assert_eq!(nodes.get(READER, &key).as_deref(), Some("2"));

        let absent = set("three", "text", Condition::Absent);
        let exists = Answer::Refused(Why::Exists);
        assert_eq!(make(&mut nodes, &key, absent.clone()), exists);
        nodes.delete(&key);
        nodes.settle();
        // What was refused is not remembered.
        let written = make(&mut nodes, &key, absent.clone());
        assert!(matches!(written, Answer::Wrote { .. }));
        let delete = Operation::Delete {
            condition: Condition::Always,
        };
        let delete = Write {
            id: Some("four".into()),
            ..delete.into()
        };
        let removed = make(&mut nodes, &key, delete.clone());
        assert_eq!(removed, Answer::Removed { existed: true });
        nodes.set(&key, "other");
        nodes.settle();
        assert_eq!(make(&mut nodes, &key, delete), removed);
        assert_eq!(make(&mut nodes, &key, absent), written);
        assert_eq!(nodes.get(READER, &key).as_deref(), Some("other"));
        let touch = Write {
            id: Some("five".into()),
            ..Operation::Touch { ttl_ms: 9_000 }.into()
        };
        let touched = make(&mut nodes, &key, touch.clone());
        assert_eq!(make(&mut nodes, &key, touch), touched);
    }
}

#[test]
fn an_id_is_that_of_one_write_of_one_key() {
    let mut nodes = Nodes::start(1 << 20);
    let keys: Vec<Key> = nodes.keys(HOME).take(2).collect();
    assert_eq!(count(&make(&mut nodes, &keys[0], add_one("a"))), 1);
    let mismatch = Answer::Refused(Why::AnotherRequest);
    let other = set("a", "text", Condition::Always);
    assert_eq!(make(&mut nodes, &keys[0], other), mismatch);
    assert_eq!(count(&make(&mut nodes, &keys[1], add_one("a"))), 1);
}

#[test]
fn a_repeat_waits_for_the_first_while_that_is_under_way() {
    let mut nodes = Nodes::start_with(1 << 20, true);
    let key = nodes.key();
    let first = nodes.write(&key, add_one("a"));
    let again = nodes.write(&key, repeat(&add_one("a")));
    let other = nodes.write(&key, add_one("b"));
    assert!(!nodes.is_answered(first) && !nodes.is_answered(again));
    nodes.settle();
    assert_eq!(count(&nodes.answers[&first]), 1);
    assert_eq!(nodes.answers[&again], nodes.answers[&first]);
    assert_eq!(count(&nodes.answers[&other]), 2);
}

#[test]
fn a_write_whose_client_has_given_up_is_remembered_when_it_takes_effect() {
    let mut nodes = Nodes::start_with(1 << 20, true);
    let key = nodes.key();
    let second = nodes.caches[&HOME].explain(&key, nodes.now).second;
    let first = nodes.write(&key, add_one("a"));
    let late = nodes.take(second.expect("three nodes"));
    for _ in 0..610 {
        nodes.pass(100);
        nodes.mail.clear();
    }
    let unknown = Answer::Refused(Why::Indeterminate);
    assert_eq!(nodes.answers[&first], unknown);
    for mail in late {
        nodes.deliver(mail);
    }
    nodes.settle();
    let again = make(&mut nodes, &key, repeat(&add_one("a")));
    assert_eq!(count(&again), 1);
    assert_eq!(count(&make(&mut nodes, &key, add_one("b"))), 2);
}

/// The node that died, having answered or not, took nothing with it.
#[test]
fn a_repeat_is_counted_once_when_the_home_is_lost() {
    for answered in [true, false] {
        let mut nodes = Nodes::start_with(1 << 20, true);
        be_whole(&mut nodes);
        let key = nodes.keys(READER).next().expect("some key lives there");
        make(&mut nodes, &key, add_one("before"));
        let first = nodes.write(&key, add_one("a"));
        match answered {
            true => nodes.settle(),
            false => {
                let second = nodes.caches[&HOME].explain(&key, nodes.now).second;
                nodes.deliver_to(second.expect("three nodes"));
                nodes.mail.clear();
            }
        }
        assert_eq!(nodes.is_answered(first), answered);
        nodes.lose(READER);
        let again = make(&mut nodes, &key, repeat(&add_one("a")));
        assert_eq!(count(&again), 2);
        if answered {
            assert_eq!(again, nodes.answers[&first]);
        }
        assert_eq!(count(&make(&mut nodes, &key, add_one("b"))), 3);
        // A repeat of what never came to the home is made.
        let new = make(&mut nodes, &key, repeat(&add_one("c")));
        assert_eq!(count(&new), 4);
    }
}

#[test]
fn a_second_node_that_does_not_keep_results_is_found() {
    let mut nodes = Nodes::start_with(1 << 20, true);
    nodes.flaw(Flaws {
        no_results_at_second: true,
        ..Flaws::default()
    });
    be_whole(&mut nodes);
    let key = nodes.keys(READER).next().expect("some key lives there");
    assert_eq!(count(&make(&mut nodes, &key, add_one("a"))), 1);
    nodes.lose(READER);
    let again = make(&mut nodes, &key, repeat(&add_one("a")));
    assert_eq!(count(&again), 2, "it is counted twice");
}

#[test]
fn a_second_node_that_is_new_is_told_the_results_of_before() {
    let mut nodes = Nodes::start_with(1 << 20, true);
    be_whole(&mut nodes);
    let keys: Vec<Key> = nodes.keys(HOME).collect();
    let second = |nodes: &Nodes, key: &Key| nodes.caches[&HOME].explain(key, nodes.now).second;
    let of_reader = keys.iter().find(|key| second(&nodes, key) == Some(READER));
    let key = of_reader.expect("some key is backed up there").clone();
    let first = make(&mut nodes, &key, add_one("a"));
    nodes.delete(&key);
    nodes.settle();
    nodes.lose(READER);
    assert_eq!(second(&nodes, &key), Some(OTHER));
    // The value is gone, and the result has come to the other node.
    nodes.lose(HOME);
    let again = make(&mut nodes, &key, repeat(&add_one("a")));
    assert_eq!(again, first);
    // Not everything from before has to have come there.
    let unknown = make(&mut nodes, &key, repeat(&add_one("b")));
    assert_eq!(unknown, Answer::Refused(Why::Forgotten));
    let new = make(&mut nodes, &key, add_one("b"));
    assert_eq!(count(&new), 1);
}

#[test]
fn a_repeat_of_something_unknown_is_refused_until_nothing_can_be_missing() {
    for backups in [false, true] {
        let mut nodes = Nodes::start_with(1 << 20, backups);
        let key = nodes.keys(READER).next().expect("some key lives there");
        let unknown = Answer::Refused(Why::Forgotten);
        let first = repeat(&add_one("a"));
        assert_eq!(make(&mut nodes, &key, first.clone()), unknown);
        be_whole(&mut nodes);
        assert_eq!(count(&make(&mut nodes, &key, first.clone())), 1);
        nodes.lose(READER);
        let again = make(&mut nodes, &key, first);
        match backups {
            true => assert_eq!(count(&again), 1),
            false => assert_eq!(again, unknown),
        }
    }
}

#[test]
fn results_move_with_their_key() {
    let mut nodes = Nodes::start_with(1 << 20, true);
    let key = nodes.keys(READER).next().expect("some key lives there");
    nodes.lose(READER);
    let first = make(&mut nodes, &key, add_one("a"));
    nodes.delete(&key);
    nodes.settle();
    nodes.begin_anew(READER);
    nodes.go_on(|_| false);
    assert_eq!(nodes.caches[&OTHER].home(&key), Some(READER));
    assert_eq!(make(&mut nodes, &key, repeat(&add_one("a"))), first);
}

#[test]
fn results_outlive_values_and_are_forgotten_in_time() {
    let mut nodes = Nodes::start_with(1 << 20, true);
    let key = nodes.key();
    let first = make(&mut nodes, &key, add_one("a"));
    nodes.invalidate(OTHER, Matching::All);
    nodes.settle();
    assert_eq!(make(&mut nodes, &key, add_one("a")), first);
    let (_, bytes) = nodes.caches[&HOME].size();
    assert!(bytes > 0);
    be_whole(&mut nodes);
    for cache in nodes.caches.values() {
        assert_eq!(cache.size(), (0, 0));
    }
    let new = make(&mut nodes, &key, add_one("a"));
    assert_eq!(count(&new), 1);
    assert_ne!(new, first);
}

#[test]
fn a_new_id_is_refused_where_there_is_no_room_and_known_ones_are_not_forgotten() {
    let mut nodes = Nodes::start_with(BYTES_MAX, true);
    let key = nodes.key();
    let ids: Vec<String> = (0..20).map(|n| format!("id-{n}")).collect();
    let answers = ids.iter().map(|id| make(&mut nodes, &key, add_one(id)));
    let answers: Vec<Answer> = answers.collect();
    let full = Answer::Refused(Why::TooManyIds);
    let kept = answers.iter().take_while(|answer| **answer != full);
    let kept = kept.count();
    assert!((1..20).contains(&kept), "{kept}");
    for (id, answer) in ids.iter().zip(&answers).take(kept) {
        assert_eq!(make(&mut nodes, &key, add_one(id)), *answer);
    }
    let without = make(&mut nodes, &key, Operation::Touch { ttl_ms: 9 }.into());
    assert!(matches!(without, Answer::Wrote { .. }));
}

/// Without an acknowledgement the write does not take effect.
#[test]
fn a_second_node_without_room_for_a_result_does_not_say_that_it_keeps_it() {
    let mut nodes = Nodes::start_with(BYTES_MAX, true);
    let keys: Vec<Key> = nodes.keys(HOME).collect();
    let second = |key: &&Key| nodes.caches[&HOME].explain(key, nodes.now).second == Some(OTHER);
    let key = keys.iter().find(second).expect("some key").clone();
    // The home has room for any number of them.
    let home = nodes.caches.get_mut(&HOME).expect("one of three");
    home.settings.bytes_max = 1 << 20;
    let mut made = 0;
    let first_without_room = loop {
        let ticket = nodes.write(&key, add_one(&format!("id-{made}")));
        nodes.settle();
        if !nodes.is_answered(ticket) {
            break ticket;
        }
        made += 1;
    };
    assert!(made > 2, "{made}");
    for _ in 0..REMEMBER_MS / 100 - 20 {
        nodes.pass(100);
        nodes.settle();
    }
    assert!(!nodes.is_answered(first_without_room));
    let (_, bytes) = nodes.caches[&OTHER].size();
    assert!(bytes <= BYTES_MAX);
    for _ in 0..40 {
        nodes.pass(100);
        nodes.settle();
    }
    // By then it was over for its client as of unknown outcome, or there was room in time.
    let again = make(&mut nodes, &key, repeat(&add_one(&format!("id-{made}"))));
    assert_eq!(count(&again), made + 1);
}
