//! What time does to messages while nobody pops, and what is told by when.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::queue::{Queue, messages, result, start};
use crate::queue_failures::{command, key};
use crate::{wait, wire};

async fn has_counts(queue: &Queue, topic: &str, counts: [u64; 4]) {
    wait::until("time does its work", async || {
        (queue.counts(topic).await == counts).then_some(())
    })
    .await;
}

#[tokio::test]
async fn queue_time_passes_while_nobody_pops() {
    let (_cluster, queue) = start(1).await;
    let delayed = json!({"topic": "a", "payload": 1, "delay_ms": 200});
    queue.ok("queue.push", delayed).await;
    has_counts(&queue, "a", [1, 0, 0, 0]).await;

    // What is over takes no place, and its id is free.
    let set = json!({"topic": "b", "max_length": 1});
    queue.ok("queue.configure", set).await;
    let short =
        json!({"topic": "b", "payload": 1, "ttl_ms": 100, "id": "i", "dedup_scope": "until_acked"});
    queue.ok("queue.push", short).await;
    let again = json!({"topic": "b", "payload": 2, "id": "i", "dedup_scope": "until_acked"});
    let pushed = wait::until("the first is over", async || {
        let answer = queue.ok("queue.push", again.clone()).await;
        (answer["duplicate"] == false).then_some(answer)
    })
    .await;
    assert_eq!(queue.pop("b", 2).await[0]["seq"], pushed["seq"]);

    let mut deaths = queue
        .nats
        .subscribe("mufakat.event.queue.dead")
        .await
        .unwrap();
    queue.nats.flush().await.unwrap();
    let set = json!({"topic": "c", "max_deliveries": 1, "visibility_ms": 100});
    queue.ok("queue.configure", set).await;
    queue.push("c", json!(1)).await;
    let popped = queue.pop("c", 1).await;
    has_counts(&queue, "c", [0, 0, 0, 1]).await;
    let death = tokio::time::timeout(Duration::from_secs(10), deaths.next()).await;
    let death: Value = serde_json::from_slice(&death.unwrap().unwrap().payload).unwrap();
    assert_eq!(death["seq"], popped[0]["seq"]);
    let dead = json!({"topic": "c", "state": "dead"});
    let dead = messages(&queue.ok("queue.peek", dead).await);
    assert_eq!(dead[0]["deliveries"], 1);
}

/// Scripts take no time before that of any call before, so that a later one that is stored is the time from then on.
fn advance(redis: &mut redis::Connection, topic: &str) {
    let meta = key(redis, &format!("{{{topic}}}:meta"));
    let later = mufakat::time::unix_ms() + 3_600_000;
    command(redis, &format!("HSET {meta} now {later}"));
}

/// More than one call of a script deals with.
const MANY: usize = 1_200;

async fn push_many(queue: &Queue, topic: &str, each: &Value) {
    for part in [MANY - 600, 600] {
        let push = json!({"topic": topic, "messages": vec![each.clone(); part]});
        queue.ok("queue.push", push).await;
    }
}

async fn pop_all(queue: &Queue, topic: &str) {
    let mut taken = 0;
    while taken < MANY {
        let pop = json!({"topic": topic, "consumer": "c", "max": 1000, "visibility_ms": 600_000});
        taken += messages(&queue.ok("queue.pop", pop).await).len();
    }
}

#[tokio::test]
async fn queue_what_acts_on_states_finds_them_as_they_are_now() {
    let (cluster, queue) = start(1).await;
    let mut redis = cluster.redis();
    let purge = async |topic: &str, states: Value| {
        let purge = json!({"topic": topic, "states": states, "confirm": topic});
        queue.ok("admin.queue.purge", purge).await["count"].clone()
    };
    let delayed = json!({"payload": 1, "delay_ms": 600_000});
    push_many(&queue, "delayed", &delayed).await;
    advance(&mut redis, "delayed");
    assert_eq!(purge("delayed", json!(["delayed"])).await, 0);
    assert_eq!(purge("delayed", json!(["ready"])).await, MANY);

    push_many(&queue, "leased", &json!({"payload": 1})).await;
    pop_all(&queue, "leased").await;
    advance(&mut redis, "leased");
    assert_eq!(purge("leased", json!(["in_flight"])).await, 0);
    assert_eq!(queue.counts("leased").await, [MANY as u64, 0, 0, 0]);

    let set = json!({"topic": "dying", "max_deliveries": 1});
    queue.ok("queue.configure", set).await;
    push_many(&queue, "dying", &json!({"payload": 1})).await;
    pop_all(&queue, "dying").await;
    advance(&mut redis, "dying");
    let redriven = queue.ok("queue.redrive", json!({"topic": "dying"})).await;
    assert_eq!(redriven["moved"], MANY);

    push_many(&queue, "taken", &json!({"payload": 1})).await;
    pop_all(&queue, "taken").await;
    advance(&mut redis, "taken");
    let cancel = json!({"topic": "taken", "id": format!("seq-{MANY}")});
    assert_eq!(queue.ok("queue.cancel", cancel).await["cancelled"], true);
}

#[tokio::test]
async fn queue_a_receipt_outlives_its_deadline_until_its_holder_ends_it() {
    let (_cluster, queue) = start(1).await;
    let set = json!({"topic": "a", "visibility_ms": 100, "backoff": {"kind": "fixed", "base_ms": 60_000}});
    queue.ok("queue.configure", set).await;
    for (backoff, over) in [("fixed", [0, 1, 0, 0]), ("none", [1, 0, 0, 0])] {
        if backoff == "none" {
            let set = json!({"topic": "a", "backoff": {"kind": "none"}});
            queue.ok("queue.configure", set).await;
        }
        queue.push("a", json!(1)).await;
        let receipt = &queue.pop("a", 1).await[0]["receipt"];
        has_counts(&queue, "a", over).await;
        let extend = json!({"topic": "a", "receipt": receipt, "visibility_ms": 100});
        assert_eq!(
            result(&queue.ok("queue.extend", extend).await),
            "extended",
            "{backoff}"
        );
        assert_eq!(queue.counts("a").await[2], 1, "{backoff}");
        has_counts(&queue, "a", over).await;
        let nack = json!({"topic": "a", "receipt": receipt, "delay_ms": 0});
        let nacked = queue.ok("queue.nack", nack.clone()).await;
        assert_eq!(result(&nacked), "returned", "{backoff}");
        // It was handed back, so it is somebody else's to have.
        assert_eq!(queue.ack("a", receipt).await, "stale_receipt", "{backoff}");
        assert_eq!(result(&queue.ok("queue.nack", nack).await), "stale_receipt");
        let next = queue.pop("a", 1).await;
        // The deadline has passed twice; the hand-back was of the same delivery.
        let look = json!({"topic": "a", "state": "in_flight"});
        let shown = messages(&queue.ok("queue.peek", look).await);
        assert_eq!(shown[0]["failures"].as_array().map(Vec::len), Some(2));
        assert_eq!(queue.ack("a", &next[0]["receipt"]).await, "acked");
    }
}

#[tokio::test]
async fn queue_requests_are_answered_in_time_while_redis_stalls() {
    let (cluster, queue) = start(1).await;
    queue.push("a", json!(1)).await;
    cluster.pause_redis();
    let began = Instant::now();
    let mut asked = Vec::new();
    for (operation, body) in [
        ("push", json!({"payload": 1})),
        ("pop", json!({"consumer": "c"})),
        ("pop", json!({"consumer": "c", "wait_ms": 60_000})),
        ("ack", json!({"receipt": "1.1.00000000000000ff"})),
        ("push", json!({"payload": 2})),
    ] {
        let mut body = body;
        body["topic"] = json!("a");
        body["timeout_ms"] = json!(600);
        let subject = format!("mufakat.queue.{operation}");
        asked.push(wire::send(&queue.nats, &subject, &body).await);
        queue.nats.flush().await.unwrap();
    }
    for mut waiting in asked {
        let answer = waiting.answer(Duration::from_secs(3)).await;
        let answer = answer.expect("an answer long before the call of Redis is given up");
        let outcome = match wire::code(&answer) {
            "indeterminate" => "unknown",
            "timeout" => "not_applied",
            other => panic!("{other}: {answer}"),
        };
        assert_eq!(answer["error"]["outcome"], outcome);
    }
    assert!(began.elapsed() >= Duration::from_millis(500));
    cluster.resume_redis();
    // What a pop got for nobody is there again at once.
    wait::until("the messages are ready", async || {
        let [ready, _, in_flight, _] = queue.counts("a").await;
        (ready >= 1 && in_flight == 0).then_some(())
    })
    .await;
    assert_eq!(queue.pop("a", 1).await[0]["seq"], 1);
}
