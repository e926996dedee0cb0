//! Queues over real nodes, a real broker and a real Redis, as any NATS client uses them.

use std::time::Duration;

use async_nats::Client;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::documented::Documented;
use crate::{wait, wire};

const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Queues as plain clients use them in tests.
pub struct Queue {
    pub nats: Client,
    documented: Documented,
}

impl Queue {
    pub async fn of(cluster: &Cluster) -> Self {
        Queue {
            nats: cluster.nats().await,
            documented: Documented::load(),
        }
    }

    /// Sends one request and demands an answer, as it is documented.
    pub async fn ask(&self, operation: &str, body: Value) -> Value {
        let subject = format!("mufakat.{operation}");
        let answer = wire::request(&self.nats, &subject, &body, ANSWER_MAX).await;
        let answer = answer.unwrap_or_else(|| panic!("{operation} {body}: no answer"));
        self.documented.check_answer(operation, &answer);
        answer
    }

    /// The same, demanding success.
    pub async fn ok(&self, operation: &str, body: Value) -> Value {
        let answer = self.ask(operation, body.clone()).await;
        assert_eq!(answer["ok"], true, "{operation} {body}: {answer}");
        answer
    }

    pub async fn push(&self, topic: &str, payload: Value) -> u64 {
        let answer = self.ok("queue.push", json!({"topic": topic, "payload": payload}));
        answer.await["seq"].as_u64().expect("a sequence number")
    }

    pub async fn pop(&self, topic: &str, max: u64) -> Vec<Value> {
        let body = json!({"topic": topic, "consumer": "c", "max": max});
        messages(&self.ok("queue.pop", body).await)
    }

    pub async fn ack(&self, topic: &str, receipt: &Value) -> String {
        let answer = self.ok("queue.ack", json!({"topic": topic, "receipt": receipt}));
        result(&answer.await)
    }

    pub async fn stats(&self, topic: &str) -> Value {
        self.ok("queue.stats", json!({"topic": topic})).await
    }

    /// Ready, delayed, in flight and dead.
    pub async fn counts(&self, topic: &str) -> [u64; 4] {
        let stats = self.stats(topic).await;
        ["ready", "delayed", "in_flight", "dead"].map(|name| stats[name].as_u64().expect("a count"))
    }
}

pub fn messages(answer: &Value) -> Vec<Value> {
    let messages = answer["messages"].as_array();
    messages
        .unwrap_or_else(|| panic!("no messages: {answer}"))
        .clone()
}

/// The first result of an answer about receipts.
pub fn result(answer: &Value) -> String {
    let result = answer["results"][0]["result"].as_str();
    result.expect("a result").to_owned()
}

fn payloads(messages: &[Value]) -> Vec<Value> {
    messages
        .iter()
        .map(|message| message["payload"].clone())
        .collect()
}

/// One node and its Redis, in working order.
pub async fn start(nodes: u64) -> (Cluster, Queue) {
    let options = Options {
        nodes,
        redis: true,
        ..Options::default()
    };
    let cluster = Cluster::start(options).await;
    let queue = Queue::of(&cluster).await;
    serves(&queue).await;
    (cluster, queue)
}

/// Waits until the queue takes messages.
pub async fn serves(queue: &Queue) {
    let body = json!({"topic": "warm-up", "payload": 1});
    wire::request_until_ok(&queue.nats, "mufakat.queue.push", &body).await;
}

#[tokio::test]
async fn queue_messages_travel_from_push_to_ack() {
    let (_cluster, queue) = start(3).await;
    for (payload, encoding) in [
        (json!("text"), "text"),
        (json!({"n": 1}), "json"),
        (Value::Null, "json"),
    ] {
        queue.push("a", payload.clone()).await;
        let popped = queue.pop("a", 5).await;
        assert_eq!(popped.len(), 1);
        assert_eq!(
            (&popped[0]["payload"], &popped[0]["encoding"]),
            (&payload, &json!(encoding))
        );
        assert_eq!(popped[0]["deliveries"], 1);
        assert_eq!(queue.counts("a").await, [0, 0, 1, 0]);
        assert_eq!(queue.ack("a", &popped[0]["receipt"]).await, "acked");
        assert_eq!(queue.ack("a", &popped[0]["receipt"]).await, "already_acked");
        assert_eq!(queue.counts("a").await, [0, 0, 0, 0]);
    }
    let binary = json!({"topic": "a", "payload_base64": "AP8=", "headers": {"h": "v"}});
    let pushed = queue.ok("queue.push", binary).await;
    assert_eq!(pushed["durability"]["level"], "fsync");
    assert_eq!(pushed["durability"]["source"], "inspected");
    let popped = queue.pop("a", 1).await;
    assert_eq!(popped[0]["payload_base64"], "AP8=");
    assert_eq!(popped[0]["headers"], json!({"h": "v"}));
    assert!(queue.pop("a", 1).await.is_empty());
}

#[tokio::test]
async fn queue_order_priority_delay_and_ttl() {
    let (_cluster, queue) = start(1).await;
    let batch: Vec<Value> = (0..10).map(|n| json!({"payload": n})).collect();
    let pushed = queue
        .ok("queue.push", json!({"topic": "a", "messages": batch}))
        .await;
    assert_eq!(pushed["results"].as_array().unwrap().len(), 10);
    for (payload, priority) in [("low", 0), ("high", 9)] {
        let body = json!({"topic": "a", "payload": payload, "priority": priority});
        queue.ok("queue.push", body).await;
    }
    let popped = payloads(&queue.pop("a", 100).await);
    let mut expected = vec![json!("high")];
    expected.extend((0..10).map(|n| json!(n)));
    expected.push(json!("low"));
    assert_eq!(popped, expected);

    let delayed = json!({"topic": "b", "payload": "later", "delay_ms": 300, "id": "x"});
    queue.ok("queue.push", delayed.clone()).await;
    assert_eq!(queue.counts("b").await, [0, 1, 0, 0]);
    assert!(queue.pop("b", 1).await.is_empty());
    let wait = json!({"topic": "b", "consumer": "c", "wait_ms": 5_000});
    let popped = messages(&queue.ok("queue.pop", wait).await);
    assert_eq!(payloads(&popped), ["later"]);
    let far = json!({"topic": "b", "payload": "far", "delay_ms": 3_600_000, "id": "y"});
    queue.ok("queue.push", far).await;
    let cancel = json!({"topic": "b", "id": "y"});
    assert_eq!(
        queue.ok("queue.cancel", cancel.clone()).await["cancelled"],
        true
    );
    assert_eq!(queue.ok("queue.cancel", cancel).await["cancelled"], false);
    assert_eq!(queue.counts("b").await, [0, 0, 1, 0]);

    queue
        .ok(
            "queue.push",
            json!({"topic": "c", "payload": 1, "ttl_ms": 50}),
        )
        .await;
    wait::until("the message expires", async || {
        assert!(queue.pop("c", 1).await.is_empty() || queue.stats("c").await["in_flight"] == 1);
        (queue.counts("c").await[0] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn queue_ids_deduplicate_within_their_scope() {
    let (_cluster, queue) = start(1).await;
    let push = |scope: &str, id: &str| {
        let body =
            json!({"topic": "a", "payload": 1, "id": id, "dedup_ms": 200, "dedup_scope": scope});
        queue.ok("queue.push", body)
    };
    let first = push("window", "w").await;
    assert_eq!(
        (&first["id"], &first["duplicate"]),
        (&json!("w"), &json!(false))
    );
    let again = push("window", "w").await;
    assert_eq!(
        (&again["seq"], &again["duplicate"]),
        (&first["seq"], &json!(true))
    );
    wait::until("the window ends", async || {
        (push("window", "w").await["duplicate"] == false).then_some(())
    })
    .await;
    queue.pop("a", 10).await;
    push("until_acked", "u").await;
    let clock = json!({"topic": "clock", "payload": 1, "id": "c", "dedup_ms": 200});
    queue.ok("queue.push", clock.clone()).await;
    wait::until("a window of that length ends", async || {
        (queue.ok("queue.push", clock.clone()).await["duplicate"] == false).then_some(())
    })
    .await;
    assert_eq!(push("until_acked", "u").await["duplicate"], true);
    let popped = queue.pop("a", 10).await;
    assert_eq!(popped.len(), 1);
    assert_eq!(push("until_acked", "u").await["duplicate"], true);
    assert_eq!(queue.ack("a", &popped[0]["receipt"]).await, "acked");
    assert_eq!(push("until_acked", "u").await["duplicate"], false);
}

#[tokio::test]
async fn queue_visibility_nack_dead_and_redrive() {
    let (_cluster, queue) = start(1).await;
    queue
        .ok(
            "queue.configure",
            json!({"topic": "a", "max_deliveries": 2}),
        )
        .await;
    queue.push("a", json!("poison")).await;
    let pop = json!({"topic": "a", "consumer": "c", "visibility_ms": 150, "wait_ms": 5_000});
    let first = messages(&queue.ok("queue.pop", pop.clone()).await);
    let extend = json!({"topic": "a", "receipt": first[0]["receipt"], "visibility_ms": 200});
    assert_eq!(
        result(&queue.ok("queue.extend", extend.clone()).await),
        "extended"
    );
    // The first consumer stalls; the message comes to another one, and the old receipt is stale.
    let second = messages(&queue.ok("queue.pop", pop).await);
    assert_eq!(second[0]["deliveries"], 2);
    assert!(
        second[0]["last_error"]
            .as_str()
            .unwrap()
            .contains("visibility")
    );
    assert_eq!(queue.ack("a", &first[0]["receipt"]).await, "stale_receipt");
    assert_eq!(
        result(&queue.ok("queue.extend", extend).await),
        "stale_receipt"
    );
    let nack = json!({"topic": "a", "receipt": second[0]["receipt"], "reason": "broken"});
    assert_eq!(
        result(&queue.ok("queue.nack", nack.clone()).await),
        "returned"
    );
    assert_eq!(result(&queue.ok("queue.nack", nack).await), "stale_receipt");
    assert_eq!(queue.counts("a").await, [0, 0, 0, 1]);
    let dead = queue
        .ok("queue.peek", json!({"topic": "a", "state": "dead"}))
        .await;
    let dead = &messages(&dead)[0];
    assert_eq!(dead["dead"]["why"], "max_deliveries");
    assert_eq!(dead["failures"].as_array().unwrap().len(), 2);
    assert_eq!(dead["failures"][1]["reason"], "broken");
    assert!(dead["receipt"].is_null());
    let dry = json!({"topic": "a", "dry_run": true, "reason_contains": "broken"});
    assert_eq!(queue.ok("queue.redrive", dry).await["moved"], 1);
    let other = json!({"topic": "a", "reason_contains": "other"});
    assert_eq!(queue.ok("queue.redrive", other).await["moved"], 0);
    let by_id = json!({"topic": "a", "ids": [dead["id"]]});
    assert_eq!(queue.ok("queue.redrive", by_id).await["moved"], 1);
    let again = queue.pop("a", 1).await;
    assert_eq!(
        (&again[0]["payload"], &again[0]["deliveries"]),
        (&json!("poison"), &json!(1))
    );
    let bury = json!({"topic": "a", "receipt": again[0]["receipt"], "dead": true, "reason": "no"});
    queue.ok("queue.nack", bury).await;
    assert_eq!(queue.counts("a").await, [0, 0, 0, 1]);
    let purge = json!({"topic": "a", "states": ["dead"], "confirm": "a"});
    assert_eq!(queue.ok("admin.queue.purge", purge).await["count"], 1);
    assert_eq!(queue.counts("a").await, [0, 0, 0, 0]);
}

#[tokio::test]
async fn queue_groups_are_in_order_one_at_a_time() {
    let (_cluster, queue) = start(1).await;
    for n in 0..3 {
        for group in ["g", "h"] {
            let priority = 9 - n;
            let body = json!({"topic": "a", "payload": format!("{group}{n}"), "group": group,
                "priority": priority});
            queue.ok("queue.push", body).await;
        }
    }
    assert_eq!(queue.counts("a").await[0], 6);
    for n in 0..3 {
        let popped = queue.pop("a", 10).await;
        assert_eq!(payloads(&popped), [format!("g{n}"), format!("h{n}")]);
        // A hand-back keeps the place at the head.
        let nack = json!({"topic": "a", "receipt": popped[0]["receipt"]});
        queue.ok("queue.nack", nack).await;
        let again = queue.pop("a", 10).await;
        assert_eq!(payloads(&again), [format!("g{n}")]);
        for receipt in [&again[0]["receipt"], &popped[1]["receipt"]] {
            assert_eq!(queue.ack("a", receipt).await, "acked");
        }
    }
    assert_eq!(queue.counts("a").await, [0; 4]);
    // A delayed head holds up its group.
    let head = json!({"topic": "b", "payload": 1, "group": "g", "delay_ms": 300});
    queue.ok("queue.push", head).await;
    queue
        .ok(
            "queue.push",
            json!({"topic": "b", "payload": 2, "group": "g"}),
        )
        .await;
    assert!(queue.pop("b", 10).await.is_empty());
    let wait = json!({"topic": "b", "consumer": "c", "max": 10, "wait_ms": 5_000});
    assert_eq!(
        payloads(&messages(&queue.ok("queue.pop", wait).await)),
        [json!(1)]
    );
}

#[tokio::test]
async fn queue_pops_wait_no_longer_than_their_client() {
    let (_cluster, queue) = start(1).await;
    let body = json!({"topic": "a", "consumer": "c", "wait_ms": 60_000, "timeout_ms": 300});
    let answer = queue.ok("queue.pop", body).await;
    assert!(messages(&answer).is_empty(), "{answer}");
}

#[tokio::test]
async fn queue_pops_wait_in_order_and_ack_takes_the_next() {
    let (_cluster, queue) = start(3).await;
    let mut waiting = Vec::new();
    for consumer in ["first", "second"] {
        let body = json!({"topic": "a", "consumer": consumer, "wait_ms": 10_000});
        waiting.push(wire::send(&queue.nats, "mufakat.queue.pop", &body).await);
        let count = waiting.len();
        wait::until("the pop waits", async || {
            (queue.stats("a").await["waiters"] == count).then_some(())
        })
        .await;
    }
    queue.push("a", json!(1)).await;
    let first = waiting[0].answer(ANSWER_MAX).await.expect("an answer");
    let receipt = messages(&first)[0]["receipt"].clone();
    queue.push("a", json!(2)).await;
    let second = waiting[1].answer(ANSWER_MAX).await.expect("an answer");
    assert_eq!(payloads(&messages(&second)), [json!(2)]);
    queue.push("a", json!(3)).await;
    let pop = json!({"consumer": "first", "wait_ms": 0});
    let body = json!({"topic": "a", "receipt": receipt, "pop": pop});
    let answer = queue.ok("queue.ack", body).await;
    assert_eq!(
        (result(&answer).as_str(), payloads(&messages(&answer))),
        ("acked", vec![json!(3)])
    );
    let empty = json!({"topic": "a", "consumer": "c", "wait_ms": 100});
    assert!(messages(&queue.ok("queue.pop", empty).await).is_empty());
}

#[tokio::test]
async fn queue_overflow_backoff_pause_and_list() {
    let (_cluster, queue) = start(1).await;
    let set =
        json!({"topic": "q.a", "max_length": 2, "backoff": {"kind": "fixed", "base_ms": 200}});
    let settings = queue.ok("queue.configure", set).await;
    assert_eq!(
        (&settings["max_length"], &settings["overflow"]),
        (&json!(2), &json!("reject"))
    );
    queue.push("q.a", json!(1)).await;
    queue.push("q.a", json!(2)).await;
    let third = json!({"topic": "q.a", "payload": 3});
    assert_eq!(
        wire::code(&queue.ask("queue.push", third.clone()).await),
        "queue_full"
    );
    queue
        .ok(
            "queue.configure",
            json!({"topic": "q.a", "overflow": "dead"}),
        )
        .await;
    queue.ok("queue.push", third).await;
    assert_eq!(queue.counts("q.a").await, [2, 0, 0, 1]);
    let popped = queue.pop("q.a", 1).await;
    assert_eq!(payloads(&popped), [json!(2)]);
    queue
        .ok(
            "queue.nack",
            json!({"topic": "q.a", "receipt": popped[0]["receipt"]}),
        )
        .await;
    assert_eq!(queue.counts("q.a").await, [1, 1, 0, 1]);

    assert_eq!(
        queue.ok("queue.pause", json!({"topic": "q.a"})).await["changed"],
        true
    );
    let pop = json!({"topic": "q.a", "consumer": "c"});
    assert_eq!(
        wire::code(&queue.ask("queue.pop", pop).await),
        "topic_paused"
    );
    let wait = json!({"topic": "q.a", "consumer": "c", "wait_ms": 10_000});
    let mut waiting = wire::send(&queue.nats, "mufakat.queue.pop", &wait).await;
    wait::until("the pop waits", async || {
        (queue.stats("q.a").await["waiters"] == 1).then_some(())
    })
    .await;
    queue.ok("queue.resume", json!({"topic": "q.a"})).await;
    let answer = waiting.answer(ANSWER_MAX).await.expect("resume wakes it");
    assert_eq!(payloads(&messages(&answer)), [json!(3)]);

    queue.push("q.b", json!(1)).await;
    let list = queue
        .ok("queue.list", json!({"prefix": "q.", "limit": 1}))
        .await;
    assert_eq!(list["topics"][0]["topic"], "q.a");
    let next = json!({"prefix": "q.", "cursor": list["cursor"]});
    let list = queue.ok("queue.list", next).await;
    assert_eq!(
        (&list["topics"][0]["topic"], &list["cursor"]),
        (&json!("q.b"), &Value::Null)
    );
}

#[tokio::test]
async fn queue_a_requester_that_is_gone_costs_no_delivery() {
    let (_cluster, queue) = start(1).await;
    queue
        .ok(
            "queue.configure",
            json!({"topic": "a", "max_deliveries": 1}),
        )
        .await;
    let body = json!({"topic": "a", "consumer": "gone", "wait_ms": 10_000});
    let gone = wire::send(&queue.nats, "mufakat.queue.pop", &body).await;
    wait::until("the pop waits", async || {
        (queue.stats("a").await["waiters"] == 1).then_some(())
    })
    .await;
    drop(gone);
    queue.nats.flush().await.expect("connected");
    queue.push("a", json!(1)).await;
    let wait = json!({"topic": "a", "consumer": "c", "wait_ms": 5_000});
    let popped = messages(&queue.ok("queue.pop", wait).await);
    assert_eq!(popped[0]["deliveries"], 2);
    assert!(popped[0]["last_error"].is_null());
}

#[tokio::test]
async fn queue_without_redis_says_so() {
    let cluster = Cluster::start(Options {
        nodes: 1,
        ..Options::default()
    })
    .await;
    let queue = Queue::of(&cluster).await;
    let answer = wait::until("the node owns the topic", async || {
        let answer = queue
            .ask("queue.push", json!({"topic": "a", "payload": 1}))
            .await;
        (wire::code(&answer) != "reconfiguring").then_some(answer)
    })
    .await;
    assert_eq!(wire::code(&answer), "store_unavailable");
}
