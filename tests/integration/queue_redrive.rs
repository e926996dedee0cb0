//! Dead messages that are made ready again, in their own topic or in another one.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::queue::{Queue, messages, start};
use crate::queue_waits::{all_are_in_view, owner_of};
use crate::wire;

/// Pushes messages with these fields, and has them die in this order.
async fn bury(queue: &Queue, topic: &str, each: &[Value]) {
    for more in each {
        let mut body = json!({"topic": topic, "payload": "x"});
        let fields = body.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        queue.ok("queue.push", body).await;
        kill_all(queue, topic).await;
    }
}

/// Has all die that are ready, up to a thousand.
async fn kill_all(queue: &Queue, topic: &str) {
    let popped = queue.pop(topic, 1000).await;
    let receipts: Vec<&Value> = popped.iter().map(|message| &message["receipt"]).collect();
    let dead = json!({"topic": topic, "receipts": receipts, "dead": true, "reason": "no good"});
    queue.ok("queue.nack", dead).await;
}

async fn redrive(queue: &Queue, body: Value) -> [u64; 2] {
    let done = queue.ok("queue.redrive", body).await;
    ["moved", "dead"].map(|name| done[name].as_u64().expect("a count"))
}

/// Ids of all messages of a topic.
async fn ids(queue: &Queue, topic: &str) -> BTreeSet<String> {
    let (mut ids, mut seen, mut last) = (BTreeSet::new(), 0, 1);
    while seen < last {
        let body = json!({"topic": topic, "state": "all", "after_seq": seen});
        let answer = queue.ok("queue.peek", body).await;
        let all = messages(&answer).into_iter();
        ids.extend(all.map(|message| message["id"].as_str().expect("an id").to_owned()));
        [seen, last] =
            ["after_seq", "last_seq"].map(|name| answer[name].as_u64().expect("a number"));
    }
    ids
}

#[tokio::test]
async fn queue_redrive_of_no_ids_is_no_redrive_of_all() {
    let (_cluster, queue) = start(1).await;
    bury(&queue, "a", &[json!({})]).await;
    let none = queue
        .ask("queue.redrive", json!({"topic": "a", "ids": []}))
        .await;
    assert_eq!(wire::code(&none), "bad_request");
    assert_eq!(none["error"]["field"], "ids", "{none}");
    assert_eq!(queue.counts("a").await, [0, 0, 0, 1]);
}

/// 1000 / 600 is 1: spaced by whole milliseconds, 1,000 would become ready within a second.
#[tokio::test]
async fn queue_redrive_keeps_within_its_rate() {
    let (_cluster, queue) = start(1).await;
    let batch = vec![json!({"payload": 1}); 700];
    let push = json!({"topic": "a", "messages": batch});
    queue.ok("queue.push", push).await;
    bury(&queue, "a", &[json!({})]).await;
    let paced = json!({"topic": "a", "per_second": 600});
    assert_eq!(redrive(&queue, paced).await, [701, 0]);
    let body = json!({"topic": "a", "state": "delayed", "limit": 1000});
    let delayed = messages(&queue.ok("queue.peek", body).await);
    let due = delayed.iter().map(|message| &message["due_at_ms"]);
    let due: Vec<u64> = due.map(|at| at.as_u64().expect("a time")).collect();
    // Those that are due meanwhile are not shown any more; most are.
    assert!(due.len() > 601, "{}", due.len());
    for (first, later) in due.iter().zip(&due[600..]) {
        assert!(later - first >= 1_000, "601 in {} ms", later - first);
    }
}

/// Another topic whose owner is another node.
async fn foreign(queue: &Queue, topic: &str) -> String {
    let owner = owner_of(queue, topic).await.expect("an owner");
    for nth in 0.. {
        let other = format!("other-{nth}");
        if owner_of(queue, &other).await.expect("an owner") != owner {
            return other;
        }
    }
    unreachable!("some topic is another node's")
}

#[tokio::test]
async fn queue_redrive_to_another_topic_moves_what_was_pushed() {
    let (cluster, queue) = start(3).await;
    all_are_in_view(&cluster).await;
    let to = foreign(&queue, "a").await;
    let each = [
        json!({"id": "own", "headers": {"h": "v"}, "priority": 9}),
        json!({"group": "g", "payload": {"n": 1.0}}),
    ];
    bury(&queue, "a", &each).await;
    let wanted = json!({"topic": "a", "to": to, "dry_run": true});
    assert_eq!(redrive(&queue, wanted).await, [2, 2], "only counted");
    assert!(ids(&queue, &to).await.is_empty());
    let wanted = json!({"topic": "a", "to": to, "reason_contains": "another"});
    assert_eq!(redrive(&queue, wanted).await, [0, 2]);
    let wanted = json!({"topic": "a", "to": to, "reason_contains": "good"});
    assert_eq!(redrive(&queue, wanted).await, [2, 0]);
    assert_eq!(queue.counts("a").await, [0; 4]);
    assert_eq!(queue.counts(&to).await, [2, 0, 0, 0]);

    // A group goes on as one: the second message of it waits for the first.
    let next = json!({"topic": to, "payload": 2, "group": "g", "priority": 8});
    queue.ok("queue.push", next).await;
    let popped = queue.pop(&to, 10).await;
    let shown = |message: &Value| {
        ["id", "payload", "headers", "deliveries"].map(|name| message[name].clone())
    };
    let shown: Vec<_> = popped.iter().map(shown).collect();
    assert_eq!(
        shown,
        [
            [json!("own"), json!("x"), json!({"h": "v"}), json!(1)],
            [json!("a/2"), json!({"n": 1.0}), json!({}), json!(1)],
        ]
    );
    assert!(popped[0]["last_error"].is_null());
}

/// When each that is dead died, the first first.
async fn deaths(queue: &Queue, topic: &str) -> Vec<u64> {
    let body = json!({"topic": topic, "state": "dead", "limit": 1000});
    let dead = messages(&queue.ok("queue.peek", body).await);
    let at = dead.iter().map(|message| &message["dead"]["at_ms"]);
    at.map(|at| at.as_u64().expect("a time")).collect()
}

/// What the other topic knows an id from is another message, or the same one after an earlier death.
#[tokio::test]
async fn queue_redrive_to_another_topic_loses_nothing_that_has_a_known_id() {
    let (_cluster, queue) = start(1).await;
    let (a_to_b, b_to_a) = (
        json!({"topic": "a", "to": "b"}),
        json!({"topic": "b", "to": "a"}),
    );

    // Two messages with one id, by two requests.
    let each = ["p1", "p2"].map(|payload| json!({"id": "x", "dedup_ms": 0, "payload": payload}));
    bury(&queue, "a", &each).await;
    let one = json!({"topic": "a", "to": "b", "limit": 1});
    assert_eq!(redrive(&queue, one.clone()).await, [1, 1]);
    assert_eq!(redrive(&queue, one).await, [1, 0]);
    let popped = queue.pop("b", 10).await;
    let shown: Vec<_> = popped.iter().map(|m| (&m["id"], &m["payload"])).collect();
    let x = json!("x");
    assert_eq!(shown, [(&x, &json!("p1")), (&x, &json!("p2"))]);
    for message in &popped {
        queue.ack("b", &message["receipt"]).await;
    }

    // Back and forth, with an id and without.
    bury(&queue, "a", &[json!({}), json!({"id": "own"})]).await;
    for _ in 0..2 {
        assert_eq!(redrive(&queue, a_to_b.clone()).await, [2, 0]);
        assert_eq!(queue.counts("b").await, [2, 0, 0, 0]);
        kill_all(&queue, "b").await;
        assert_eq!(redrive(&queue, b_to_a.clone()).await, [2, 0]);
        assert_eq!(queue.counts("a").await, [2, 0, 0, 0]);
        kill_all(&queue, "a").await;
    }
    let expected = ["a/3", "own"].map(str::to_owned);
    assert_eq!(ids(&queue, "a").await, BTreeSet::from(expected));
    assert_eq!(redrive(&queue, a_to_b.clone()).await, [2, 0]);
    let cancel = json!({"topic": "b", "id": "own"});
    assert_eq!(queue.ok("queue.cancel", cancel).await["cancelled"], true);
    kill_all(&queue, "b").await;

    // One that the other topic had from another push, and that is done there.
    let other = json!({"topic": "b", "payload": "other", "id": "e1"});
    queue.ok("queue.push", other).await;
    let other = queue.pop("b", 1).await;
    assert_eq!(queue.ack("b", &other[0]["receipt"]).await, "acked");
    bury(&queue, "a", &[json!({"id": "e1", "payload": "own"})]).await;
    assert_eq!(redrive(&queue, a_to_b).await, [1, 0]);
    assert_eq!(queue.pop("b", 1).await[0]["payload"], "own");
}

/// What looks like a tenant's, without a name behind the slash.
#[tokio::test]
async fn queue_redrive_goes_to_any_name_that_is_a_topic() {
    let (_cluster, queue) = start(1).await;
    bury(&queue, "a", &[json!({})]).await;
    let to = json!({"topic": "a", "to": "a/"});
    assert_eq!(redrive(&queue, to).await, [1, 0]);
    assert_eq!(queue.counts("a/").await, [1, 0, 0, 0]);
}

#[tokio::test]
async fn queue_redrive_to_another_topic_can_be_repeated() {
    let (_cluster, queue) = start(1).await;
    // The same id twice, each a message of its own since the id was forgotten at once.
    let twice = json!({"id": "twice", "dedup_ms": 0});
    bury(&queue, "a", &[json!({}), twice.clone(), twice]).await;
    // As a redrive leaves it that ended between its push and its removal.
    let first = deaths(&queue, "a").await[0];
    let name = format!("a/1/{first}");
    let pushed = json!({"topic": "b", "payload": "x", "id": "a/1", "dedup_id": name});
    queue.ok("queue.push", pushed).await;
    assert_eq!(
        redrive(&queue, json!({"topic": "a", "to": "b"})).await,
        [3, 0]
    );
    let expected = ["a/1", "twice"].map(str::to_owned);
    assert_eq!(ids(&queue, "b").await, BTreeSet::from(expected));
    assert_eq!(queue.counts("b").await, [3, 0, 0, 0]);

    // What the other topic refuses stays dead here, and can be moved later.
    bury(&queue, "a", &[json!({})]).await;
    let settings = json!({"topic": "full", "max_length": 0});
    queue.ok("queue.configure", settings).await;
    let settings = json!({"topic": "full", "max_length": 1});
    queue.ok("queue.configure", settings).await;
    queue.push("full", json!(1)).await;
    let refused = queue
        .ask("queue.redrive", json!({"topic": "a", "to": "full"}))
        .await;
    assert_eq!(wire::code(&refused), "queue_full");
    assert_eq!(refused["error"]["outcome"], "not_applied");
    assert_eq!(queue.counts("a").await, [0, 0, 0, 1]);
    let own = json!({"topic": "a", "to": "a"});
    assert_eq!(redrive(&queue, own).await, [1, 0]);
    assert_eq!(queue.counts("a").await, [1, 0, 0, 0]);
}

#[tokio::test]
async fn queue_redrive_to_another_topic_goes_by_pages_and_by_rate() {
    let (_cluster, queue) = start(1).await;
    // Two of them do not go into one page.
    let large = "l".repeat(400_000);
    let large: Vec<Value> = (0..3).map(|_| json!({"payload": large})).collect();
    bury(&queue, "a", &large).await;
    bury(&queue, "a", &[json!({"id": "one"}), json!({"id": "two"})]).await;
    let chosen = json!({"topic": "a", "to": "b", "ids": ["two", "seq-1", "seq-2"]});
    assert_eq!(redrive(&queue, chosen).await, [3, 2]);
    let expected = ["a/1", "a/2", "two"].map(str::to_owned);
    assert_eq!(ids(&queue, "b").await, BTreeSet::from(expected));
    let limited = json!({"topic": "a", "to": "c", "limit": 1});
    assert_eq!(redrive(&queue, limited).await, [1, 1]);

    let more: Vec<Value> = (0..4).map(|_| json!({})).collect();
    bury(&queue, "a", &more).await;
    let paced = json!({"topic": "a", "to": "d", "per_second": 1});
    assert_eq!(redrive(&queue, paced).await, [5, 0]);
    let body = json!({"topic": "d", "state": "delayed"});
    let delayed = messages(&queue.ok("queue.peek", body).await);
    let due = delayed.iter().map(|message| &message["due_at_ms"]);
    let due: Vec<u64> = due.map(|at| at.as_u64().expect("a time")).collect();
    assert!(due.len() >= 2, "{due:?}");
    assert!(
        due.windows(2).all(|pair| pair[1] - pair[0] >= 1_000),
        "{due:?}"
    );
}

/// One call looks at a thousand failures.
#[tokio::test]
async fn queue_redrive_finds_a_reason_behind_thousands_of_others() {
    let (_cluster, queue) = start(1).await;
    let batch = vec![json!({"payload": 1}); 999];
    for _ in 0..2 {
        let push = json!({"topic": "a", "messages": batch});
        queue.ok("queue.push", push).await;
        bury(&queue, "a", &[json!({})]).await;
    }
    for _ in 0..2 {
        let seq = queue.push("a", json!("x")).await;
        let popped = queue.pop("a", 1).await;
        assert_eq!(popped[0]["seq"], seq);
        let receipt = &popped[0]["receipt"];
        let dead = json!({"topic": "a", "receipt": receipt, "dead": true, "reason": "other"});
        queue.ok("queue.nack", dead).await;
    }
    let some = |more: Value| {
        let mut body = json!({"topic": "a", "reason_contains": "other"});
        let fields = body.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        body
    };
    let count = some(json!({"dry_run": true}));
    assert_eq!(redrive(&queue, count).await, [2, 2_002]);
    let elsewhere = some(json!({"to": "b", "limit": 1}));
    assert_eq!(redrive(&queue, elsewhere).await, [1, 2_001]);
    assert_eq!(redrive(&queue, some(json!({}))).await, [1, 2_000]);
    assert_eq!(queue.counts("a").await, [1, 0, 0, 2_000]);
    assert_eq!(queue.counts("b").await, [1, 0, 0, 0]);
}
