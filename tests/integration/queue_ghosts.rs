//! Places of lists that stand for no message any more, and groups: what they cost a call of a script, over a real Redis
//! and without nodes.

use mufakat::protocol::queue::{DedupScope, Message};
use mufakat::protocol::value::Value;
use mufakat::queue::script::{BatchReply, Script};
use redis::Commands;

use crate::queue_bounds::{BYTES, Topic, receipt, seqs, small};

fn brief() -> Message {
    Message {
        ttl_ms: Some(10),
        ..Message::new(Value::text("x"))
    }
}

fn of_group(group: &str) -> Message {
    Message {
        group: Some(group.to_owned()),
        ..Message::new(Value::text("x"))
    }
}

fn named(nth: u64) -> Message {
    Message {
        id: Some(format!("id-{nth}")),
        ..Message::new(Value::text("x"))
    }
}

impl Topic {
    async fn nothing(&self) -> BatchReply {
        self.batch(&[], ("", &[]), &[]).await
    }

    async fn cancel(&self, message: &Message) {
        let id = message.id.as_deref().expect("it has one");
        let mut done = self.run(Script::Cancel, &[id, "0"]).await;
        assert_eq!(done.number(), Some(1), "{id}");
    }

    /// How many calls of a command Redis executed since this was asked before.
    fn commands(&mut self, name: &str) -> u64 {
        let stats: String = redis::cmd("INFO")
            .arg("commandstats")
            .query(&mut self.raw)
            .expect("Redis answers");
        let of_it = format!("cmdstat_{name}:calls=");
        let () = redis::cmd("CONFIG")
            .arg("RESETSTAT")
            .query(&mut self.raw)
            .expect("Redis answers");
        let line = stats.lines().find_map(|line| line.strip_prefix(&of_it));
        let count = line.and_then(|rest| rest.split(',').next());
        count.map_or(0, |count| count.parse().expect("a number"))
    }

    fn length(&mut self, key: usize) -> u64 {
        self.raw.llen(&self.keys[key]).expect("Redis answers")
    }

    fn group_length(&mut self, group: &str) -> u64 {
        let key = format!("{}group:{group}", self.keys[23]);
        self.raw.llen(key).expect("Redis answers")
    }
}

/// The list of ready ones of the usual priority.
const READY: usize = 13 + 4;
const DEDUP: usize = 7;

#[tokio::test]
async fn queue_what_expires_goes_as_fast_as_it_comes() {
    let mut topic = Topic::start().await;
    for nth in 0..6 {
        let each = (0..1_000).map(|n| Message {
            dedup_ms: Some(1),
            ttl_ms: Some(10),
            ..named(nth * 1_000 + n)
        });
        topic.push(&each.collect::<Vec<_>>()).await;
        assert!(topic.counts().await[0] <= 1_000);
        assert!(topic.length(READY) <= 1_000, "ghosts are left");
        let names: u64 = topic.raw.hlen(&topic.keys[DEDUP]).expect("Redis answers");
        assert!(names <= 1_000, "{names}");
        topic.pass(10);
    }
}

#[tokio::test]
async fn queue_what_is_cancelled_leaves_no_ghosts_at_the_ends() {
    let mut topic = Topic::start().await;
    let each: Vec<Message> = (0..100).map(named).collect();
    topic.push(&each).await;
    for message in each.iter().rev() {
        topic.cancel(message).await;
    }
    assert_eq!(topic.length(READY), 0);
    topic.push(&small(1)).await;
    assert_eq!(seqs(&topic.pop(&[(1, 60_000, BYTES)]).await), [101]);
}

#[tokio::test]
async fn queue_a_group_advances_over_ghosts_in_bounded_steps() {
    let mut topic = Topic::start().await;
    topic.push(&[of_group("g"), of_group("g")]).await;
    for _ in 0..3 {
        let short = Message {
            group: Some("g".to_owned()),
            ..brief()
        };
        topic.push(&vec![short; 1_000]).await;
    }
    topic.push(&[of_group("g"), of_group("h")]).await;
    topic.pass(10);
    topic.nothing().await;
    topic.nothing().await;
    assert_eq!(topic.counts().await, [4, 0, 0, 0]);
    assert_eq!(topic.group_length("g"), 3_002, "ghosts between two of them");
    let popped = topic.pop(&[(10, 60_000, BYTES)]).await;
    assert_eq!(seqs(&popped), [1, 3_004]);
    topic.batch(&[receipt(1)], ("", &[]), &[]).await;
    assert_eq!(seqs(&topic.pop(&[(10, 60_000, BYTES)]).await), [2]);
    topic.commands("lpop");
    let mut calls = 1;
    let mut reply = topic.batch(&[receipt(2)], ("", &[]), &[]).await;
    while reply.more_due {
        let lpops = topic.commands("lpop");
        assert!(lpops <= 1_100, "{lpops} in one call");
        reply = topic.pop(&[(10, 60_000, BYTES)]).await;
        if reply.more_due {
            assert_eq!(seqs(&reply), [0; 0]);
            assert_eq!(reply.due_in_ms, Some(0), "the next look is at once");
        }
        calls += 1;
    }
    assert_eq!((seqs(&reply), calls), (vec![3_003], 4));
    topic.batch(&[receipt(3_003)], ("", &[]), &[]).await;
    let groups: Vec<String> = topic.raw.hkeys(&topic.keys[12]).expect("Redis answers");
    assert_eq!(groups, ["h"]);
}

#[tokio::test]
async fn queue_what_expires_behind_its_group_leaves_no_ghosts_at_the_ends() {
    let mut topic = Topic::start().await;
    topic.push(&[of_group("g")]).await;
    topic.pop(&[(1, 60_000, BYTES)]).await;
    for _ in 0..5 {
        let short = Message {
            group: Some("g".to_owned()),
            ..brief()
        };
        topic.push(&vec![short; 900]).await;
        assert!(topic.group_length("g") <= 900);
        topic.pass(10);
    }
    topic.nothing().await;
    assert_eq!(topic.group_length("g"), 0);
    assert_eq!(topic.counts().await, [0, 0, 1, 0]);
}

#[tokio::test]
async fn queue_a_purge_looks_at_a_bounded_number_of_groups_in_one_call() {
    let mut topic = Topic::start().await;
    for part in 0..4 {
        let heads = (0..1_000).map(|n| of_group(&format!("g{part}-{n}")));
        topic.push(&heads.collect::<Vec<_>>()).await;
    }
    topic.push(&[of_group("g2-7"), of_group("g2-7")]).await;
    for (states, purged) in [(&["dead"][..], 0), (&["dead", "ready", "delayed"], 4_002)] {
        let (mut removed, mut scan, mut calls) = (0, "0".to_owned(), 0);
        topic.commands("lrange");
        loop {
            let count = states.len().to_string();
            let own = [&["1000", &*scan, &*count][..], states].concat();
            let mut done = topic.run(Script::Purge, &own).await;
            let looks = topic.commands("lrange");
            assert!(looks <= 1_500, "{looks} lists in one call");
            let some = done.number().expect("a count");
            assert!(some <= 1_000, "{some} in one call");
            (removed, calls) = (removed + some, calls + 1);
            let more = done.number();
            scan = done.rest.next().and_then(|at| at.text()).expect("a place");
            if more == Some(0) {
                break;
            }
        }
        assert_eq!(removed, purged);
        assert!(calls < 20, "{calls}");
    }
    assert_eq!(topic.counts().await, [0; 4]);
    let left: Vec<String> = redis::cmd("KEYS")
        .arg("*group*")
        .query(&mut topic.raw)
        .expect("Redis answers");
    assert!(left.is_empty(), "{left:?}");
}

/// A call looks for those that are to die over so many places at most, and then refuses.
#[tokio::test]
async fn queue_a_full_topic_stays_within_its_length_whatever_was_cancelled() {
    let mut topic = Topic::start().await;
    topic.set("max_length", "3010");
    topic.set("overflow", "dead");
    topic.push(&small(1)).await;
    let middle: Vec<Message> = (0..3_000).map(named).collect();
    for part in middle.chunks(1_000) {
        topic.push(part).await;
    }
    topic.push(&small(9)).await;
    for message in &middle {
        topic.cancel(message).await;
    }
    assert_eq!(topic.length(READY), 3_010, "ghosts between others");
    for _ in 0..3 {
        topic.push(&small(1_000)).await;
    }
    assert_eq!(topic.counts().await, [3_010, 0, 0, 0]);
    let mut refused = 0;
    for _ in 0..10 {
        let pushes = topic.push(&small(5)).await.pushes;
        refused += pushes.iter().filter(|push| push.is_none()).count();
        assert!(topic.counts().await[0] <= 3_010);
    }
    assert!((1..40).contains(&refused), "{refused}");
}

/// The window of one that is done does not end the name of one that waits.
#[tokio::test]
async fn queue_an_id_is_known_until_its_message_is_done_behind_a_window_too() {
    let mut topic = Topic::start().await;
    let first = Message {
        dedup_ms: Some(60),
        ..named(1)
    };
    topic.push(std::slice::from_ref(&first)).await;
    let mut purged = topic.run(Script::Purge, &["10", "0", "1", "ready"]).await;
    assert_eq!(purged.number(), Some(1));
    let second = Message {
        dedup_id: Some("d".to_owned()),
        dedup_scope: DedupScope::UntilAcked,
        ..named(1)
    };
    assert_eq!(topic.push(&[second]).await.pushes, [Some((2, false))]);
    topic.pass(100);
    topic.nothing().await;
    assert_eq!(topic.push(&[first]).await.pushes, [Some((2, true))]);
}
