//! Which messages have a place in a topic, in which order, and under which ids.

use serde_json::{Value, json};

use crate::queue::{Queue, messages, start};
use crate::wire;

async fn in_order(queue: &Queue, topic: &str) -> Vec<Value> {
    let popped = queue.pop(topic, 100).await;
    popped.iter().map(|each| each["payload"].clone()).collect()
}

#[tokio::test]
async fn queue_a_push_that_is_known_needs_no_place() {
    let (_cluster, queue) = start(1).await;
    let batch = json!({"topic": "a", "messages": [
        {"payload": 1, "id": "x"}, {"payload": 2, "id": "y"}, {"payload": 2, "id": "y"},
    ]});
    for overflow in ["reject", "dead"] {
        let set = json!({"topic": "a", "max_length": 2, "overflow": overflow});
        queue.ok("queue.configure", set).await;
        queue.ok("queue.push", batch.clone()).await;
        let one = json!({"topic": "a", "payload": 1, "id": "x"});
        let answer = queue.ok("queue.push", one).await;
        assert_eq!(
            (&answer["duplicate"], &answer["seq"]),
            (&json!(true), &json!(1))
        );
        assert_eq!(queue.counts("a").await, [2, 0, 0, 0], "{overflow}");
    }
    let set = json!({"topic": "a", "overflow": "reject"});
    queue.ok("queue.configure", set).await;
    let new = json!({"topic": "a", "payload": 3, "id": "z"});
    assert_eq!(
        wire::code(&queue.ask("queue.push", new).await),
        "queue_full"
    );
    // An id that is forgotten at once names a new message each time.
    let new = vec![json!({"payload": 3, "id": "z", "dedup_ms": 0}); 10];
    let set = json!({"topic": "b", "max_length": 5});
    queue.ok("queue.configure", set).await;
    let push = json!({"topic": "b", "messages": new});
    assert_eq!(
        wire::code(&queue.ask("queue.push", push).await),
        "queue_full"
    );
    assert_eq!(queue.counts("b").await, [0; 4]);
}

#[tokio::test]
async fn queue_a_dedup_id_is_compared_instead_of_the_id() {
    let (_cluster, queue) = start(1).await;
    let push = async |id: &str, dedup_id: Option<&str>| {
        let mut body = json!({"topic": "a", "payload": 1, "id": id});
        if let Some(dedup_id) = dedup_id {
            body["dedup_id"] = json!(dedup_id);
        }
        let answer = queue.ok("queue.push", body).await;
        answer["duplicate"].as_bool().expect("a boolean")
    };
    assert!(!push("i", Some("first")).await);
    assert!(push("other", Some("first")).await);
    assert!(!push("i", Some("second")).await);
    assert!(!push("first", None).await, "dedup ids are apart from ids");
    assert!(push("i", None).await, "the id is known, too");
    assert_eq!(queue.counts("a").await, [3, 0, 0, 0]);
    // The id is that of the first.
    let cancel = json!({"topic": "a", "id": "i"});
    assert_eq!(queue.ok("queue.cancel", cancel).await["cancelled"], true);
    assert!(!push("i", Some("first")).await, "both are free again");
    let seqs = queue.pop("a", 10).await;
    let seqs: Vec<_> = seqs.iter().map(|message| &message["seq"]).collect();
    assert_eq!(seqs, [2, 3, 4]);
}

#[tokio::test]
async fn queue_a_receipt_that_is_named_twice_is_good_once() {
    let (_cluster, queue) = start(1).await;
    queue.push("a", json!(1)).await;
    let receipt = queue.pop("a", 1).await[0]["receipt"].clone();
    let nack = json!({"topic": "a", "receipts": [receipt, receipt]});
    let answer = queue.ok("queue.nack", nack).await;
    let results = ["returned", "stale_receipt"];
    for (nth, result) in results.into_iter().enumerate() {
        assert_eq!(answer["results"][nth]["result"], result, "{answer}");
    }
    assert_eq!(queue.counts("a").await, [1, 0, 0, 0]);
}

#[tokio::test]
async fn queue_what_is_handed_back_together_keeps_its_order() {
    let (_cluster, queue) = start(1).await;
    for n in 0..5 {
        queue.push("a", json!(n)).await;
    }
    let popped = queue.pop("a", 3).await;
    let receipts: Vec<_> = popped.iter().map(|each| &each["receipt"]).collect();
    let nack = json!({"topic": "a", "receipts": receipts});
    queue.ok("queue.nack", nack).await;
    assert_eq!(
        in_order(&queue, "a").await,
        [0, 1, 2, 3, 4].map(|n| json!(n))
    );
}

#[tokio::test]
async fn queue_an_id_names_the_message_that_was_pushed_with_it() {
    let (_cluster, queue) = start(1).await;
    queue.push("a", json!("without an id")).await;
    let named = json!({"topic": "a", "payload": "named", "id": "seq-1", "delay_ms": 60_000});
    queue.ok("queue.push", named).await;
    let cancel = json!({"topic": "a", "id": "seq-1"});
    assert_eq!(
        queue.ok("queue.cancel", cancel.clone()).await["cancelled"],
        true
    );
    assert_eq!(queue.counts("a").await, [1, 0, 0, 0]);
    assert_eq!(queue.ok("queue.cancel", cancel).await["cancelled"], true);
    assert_eq!(queue.counts("a").await, [0, 0, 0, 0]);

    let other = json!({"topic": "a", "payload": 1, "id": "k"});
    assert_eq!(queue.ok("queue.push", other).await["seq"], 3);
    let by_number = json!({"topic": "a", "id": "seq-3"});
    assert_eq!(
        queue.ok("queue.cancel", by_number).await["cancelled"],
        false
    );
}

#[tokio::test]
async fn queue_a_purge_reaches_all_that_is_ready() {
    let (_cluster, queue) = start(1).await;
    let group = |number: usize| vec![json!({"payload": 1, "group": "g"}); number];
    let push = json!({"topic": "a", "messages": group(3)});
    queue.ok("queue.push", push).await;
    assert_eq!(queue.pop("a", 1).await.len(), 1);
    let purge = json!({"topic": "a", "states": ["ready"], "confirm": "a"});
    assert_eq!(
        queue.ok("admin.queue.purge", purge.clone()).await["count"],
        2
    );
    assert_eq!(queue.counts("a").await, [0, 0, 1, 0]);

    // Places in the list that cancelled messages have left are passed over, however many these are.
    for part in 0..2 {
        let ids = (0..1000).map(|n| json!({"payload": 1, "id": format!("{part}-{n}")}));
        let ids: Vec<Value> = ids.collect();
        let push = json!({"topic": "a", "messages": ids});
        queue.ok("queue.push", push).await;
    }
    let push = json!({"topic": "a", "messages": group(200)});
    queue.ok("queue.push", push).await;
    for part in 0..2 {
        for n in 0..600 {
            let cancel = json!({"topic": "a", "id": format!("{part}-{n}")});
            queue.ok("queue.cancel", cancel).await;
        }
    }
    let ready = queue.counts("a").await[0];
    assert_eq!(queue.ok("admin.queue.purge", purge).await["count"], ready);
    assert_eq!(queue.counts("a").await, [0, 0, 1, 0]);
    let look = json!({"topic": "a", "state": "all"});
    assert_eq!(messages(&queue.ok("queue.peek", look).await).len(), 1);
}
