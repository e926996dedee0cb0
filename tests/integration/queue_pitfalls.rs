//! What broke in other queues, each with the place where it was reported.

use std::time::Duration;

use serde_json::{Value, json};

use crate::queue::{messages, result, serves, start};
use crate::queue_failures::{command, push_answer};
use crate::{wait, wire};

/// taskforcesh/groupmq#16: after a SCRIPT FLUSH every call failed for hours.
#[tokio::test]
async fn queue_goes_on_when_redis_forgets_its_scripts() {
    let (cluster, queue) = start(1).await;
    command(&mut cluster.redis(), "SCRIPT FLUSH");
    queue.push("a", json!(1)).await;
    assert_eq!(queue.pop("a", 1).await.len(), 1);
}

/// redis/redis#8478: a script that frees memory first is executed by a store that has none, whatever it
/// adds then; and sidekiq/sidekiq#5558: a store without memory lost what was being worked on.
#[tokio::test]
async fn queue_is_emptied_by_acks_when_redis_has_no_memory() {
    let (cluster, queue) = start(1).await;
    let mut redis = cluster.redis();
    for n in 0..3 {
        queue.push("a", json!(n)).await;
    }
    let popped = queue.pop("a", 2).await;
    let message =
        |n: u64| json!({"payload": n, "id": n.to_string(), "group": "g", "ttl_ms": 60_000});
    let messages: Vec<Value> = (0..6).map(message).collect();
    let push = json!({"topic": "b", "messages": messages});
    queue.ok("queue.push", push).await;
    let with_options = queue.pop("b", 2).await;
    command(&mut redis, "CONFIG SET maxmemory 1");
    let refused = push_answer(&queue, "a").await;
    assert_eq!(wire::code(&refused), "store_unavailable");
    let message = refused["error"]["message"].as_str().expect("a message");
    assert!(message.contains("memory"), "{message}");
    assert_eq!(queue.ack("a", &popped[0]["receipt"]).await, "acked");
    // One message is ready: that there are none is not said.
    let pop = json!({"topic": "a", "consumer": "c"});
    let refused = queue.ask("queue.pop", pop).await;
    assert_eq!(wire::code(&refused), "store_unavailable");
    for pop in [
        json!({"consumer": "c"}),
        json!({"consumer": "c", "wait_ms": 100}),
    ] {
        let ack = json!({"topic": "a", "receipt": popped[1]["receipt"], "pop": pop});
        let answer = queue.ok("queue.ack", ack).await;
        assert!(answer.get("messages").is_none(), "{answer}");
    }
    let receipt = &with_options[0]["receipt"];
    assert_eq!(queue.ack("b", receipt).await, "acked");
    assert_eq!(queue.ack("b", receipt).await, "already_acked");
    let cancel = json!({"topic": "b", "id": "2"});
    assert_eq!(queue.ok("queue.cancel", cancel).await["cancelled"], true);
    let purge = json!({"topic": "b", "states": ["ready"], "confirm": "b"});
    assert_eq!(queue.ok("admin.queue.purge", purge).await["count"], 4);
    assert_eq!(queue.stats("b").await["acked"], 1);
    command(&mut redis, "CONFIG SET maxmemory 0");
    for topic in ["a", "b"] {
        queue.push(topic, json!(3)).await;
    }
    assert_eq!(queue.counts("a").await, [2, 0, 0, 0]);
    assert_eq!(queue.counts("b").await, [1, 0, 0, 0]);
}

/// redis/redis#7105: a restart made a consumer group forget what it had delivered and acknowledged.
#[tokio::test]
async fn queue_what_was_acknowledged_does_not_come_again_after_a_restart_of_redis() {
    let (mut cluster, queue) = start(1).await;
    for n in 1..=3 {
        queue.push("a", json!(n)).await;
    }
    let popped = queue.pop("a", 2).await;
    assert_eq!(queue.ack("a", &popped[0]["receipt"]).await, "acked");
    cluster.kill_redis();
    cluster.start_redis().await;
    serves(&queue).await;
    let rest = queue.pop("a", 10).await;
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert_eq!(rest[0]["payload"], 3);
    assert_eq!(queue.counts("a").await, [0, 0, 2, 0]);
    assert_eq!(queue.ack("a", &popped[0]["receipt"]).await, "already_acked");
    assert_eq!(queue.ack("a", &popped[1]["receipt"]).await, "acked");
}

/// comet-ml/opik#8137: the tail of what had expired was never looked at.
#[tokio::test]
async fn queue_brings_back_every_message_whose_consumer_died() {
    let (_cluster, queue) = start(1).await;
    for _ in 0..2 {
        let batch: Vec<Value> = (0..1_000).map(|n| json!({"payload": n})).collect();
        queue
            .ok("queue.push", json!({"topic": "a", "messages": batch}))
            .await;
    }
    let mut taken = 0;
    while taken < 2_000 {
        let pop = json!({"topic": "a", "consumer": "dies", "max": 1000, "visibility_ms": 1_000});
        taken += messages(&queue.ok("queue.pop", pop).await).len();
    }
    let mut seen = std::collections::BTreeSet::new();
    wait::until("all of them come back", async || {
        let pop = json!({"topic": "a", "consumer": "c", "max": 1000, "visibility_ms": 600_000});
        for message in messages(&queue.ok("queue.pop", pop).await) {
            assert_eq!(message["deliveries"], 2);
            assert!(seen.insert(message["seq"].as_u64()), "handed out twice");
        }
        (seen.len() == 2_000).then_some(())
    })
    .await;
}

/// apalis-dev/apalis#504: what was in flight when its worker died was never handed out again, since the
/// worker came back under the same name. And sidekiq/sidekiq#4937: it came back with the next deploy,
/// hours later.
#[tokio::test]
async fn queue_brings_back_what_was_in_flight_when_everything_died() {
    let (mut cluster, queue) = start(1).await;
    queue.push("a", json!(1)).await;
    let pop = json!({"topic": "a", "consumer": "same-name", "visibility_ms": 1_500});
    assert_eq!(messages(&queue.ok("queue.pop", pop).await).len(), 1);
    cluster.kill(1);
    cluster.start_node(1);
    cluster.all_follow().await;
    serves(&queue).await;
    // One that waits gets it by time alone, and nobody has to be restarted for that.
    let pop = json!({"topic": "a", "consumer": "same-name", "wait_ms": 30_000});
    let answer = wire::request(&queue.nats, "mufakat.queue.pop", &pop, wait::LONG).await;
    let popped = messages(&answer.expect("an answer"));
    assert_eq!((popped.len(), &popped[0]["deliveries"]), (1, &json!(2)));
}

/// sidekiq/sidekiq#4633: a job that kills every process that takes it was recovered for ever.
#[tokio::test]
async fn queue_buries_a_message_that_kills_its_consumers() {
    let (_cluster, queue) = start(1).await;
    let settings = json!({"topic": "a", "max_deliveries": 3});
    queue.ok("queue.configure", settings).await;
    queue.push("a", json!("poison")).await;
    let pop = json!({"topic": "a", "consumer": "dies", "wait_ms": 10_000, "visibility_ms": 100});
    for delivery in 1..=3 {
        let popped = messages(&queue.ok("queue.pop", pop.clone()).await);
        assert_eq!(popped[0]["deliveries"], delivery);
    }
    wait::until("it is dead", async || {
        assert!(queue.pop("a", 1).await.is_empty());
        (queue.counts("a").await == [0, 0, 0, 1]).then_some(())
    })
    .await;
    let dead = json!({"topic": "a", "state": "dead"});
    let dead = messages(&queue.ok("queue.peek", dead).await);
    assert_eq!(dead[0]["dead"]["why"], "max_deliveries");
    let failures = dead[0]["failures"].as_array().expect("a history");
    assert_eq!(failures.len(), 3);
    assert_eq!(failures[2]["consumer"], "dies");
}

/// nats-io/nats-server#5564: a message that was delivered too often stayed in the work queue, where no
/// consumer saw it any more, and with one message in flight at most held up all that came later.
#[tokio::test]
async fn queue_a_message_that_failed_too_often_holds_up_nobody_and_can_be_seen() {
    let (_cluster, queue) = start(1).await;
    let settings = json!({"topic": "a", "max_deliveries": 1});
    queue.ok("queue.configure", settings).await;
    for payload in ["fails", "waits behind it"] {
        let body = json!({"topic": "a", "payload": payload, "group": "one at a time"});
        queue.ok("queue.push", body).await;
    }
    let popped = queue.pop("a", 10).await;
    assert_eq!(popped.len(), 1);
    let nack = json!({"topic": "a", "receipt": popped[0]["receipt"], "reason": "broken"});
    assert_eq!(result(&queue.ok("queue.nack", nack).await), "returned");
    let popped = queue.pop("a", 10).await;
    assert_eq!(popped[0]["payload"], "waits behind it");
    assert_eq!(queue.ack("a", &popped[0]["receipt"]).await, "acked");
    assert_eq!(queue.counts("a").await, [0, 0, 0, 1]);
    let purge = json!({"topic": "a", "states": ["dead"], "confirm": "a"});
    assert_eq!(queue.ok("admin.queue.purge", purge).await["count"], 1);
}

/// nats-io/nats-server PR #6415: an id counted as known although its message had not been stored, so that
/// every repeat was taken for a duplicate and the message was lost.
#[tokio::test]
async fn queue_an_id_is_known_only_once_its_message_is_stored() {
    let (mut cluster, queue) = start(1).await;
    let body = json!({"topic": "a", "payload": 1, "id": "x"});
    let mut redis = cluster.redis();
    for (cause, cure) in [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    ] {
        command(&mut redis, cause);
        let refused = queue.ask("queue.push", body.clone()).await;
        assert_eq!(wire::code(&refused), "store_unavailable", "{refused}");
        assert_eq!(refused["error"]["outcome"], "not_applied");
        command(&mut redis, cure);
    }
    cluster.kill_redis();
    let refused = queue.ask("queue.push", body.clone()).await;
    assert_ne!(refused["ok"], true);
    cluster.start_redis().await;
    let pushed = wire::request_until_ok(&queue.nats, "mufakat.queue.push", &body).await;
    assert_eq!(pushed["duplicate"], false, "{pushed}");
    assert_eq!(queue.pop("a", 10).await.len(), 1);
}

/// svix/omniqueue-rs PR #118: the time to acknowledge counted from the push, so that a message which had
/// waited long was handed out again at once.
#[tokio::test]
async fn queue_visibility_counts_from_the_pop() {
    let (_cluster, queue) = start(1).await;
    queue.push("a", json!(1)).await;
    wait::until("it is older than the visibility", async || {
        let age_ms = queue.stats("a").await["oldest_age_ms"].as_u64()?;
        (age_ms >= 300).then_some(())
    })
    .await;
    let pop = json!({"topic": "a", "consumer": "c", "visibility_ms": 250});
    let popped = messages(&queue.ok("queue.pop", pop).await);
    let at = |field: &str| popped[0][field].as_u64().expect("a time");
    assert!(at("visible_until_ms") >= at("pushed_at_ms") + 550);
    let extend = json!({"topic": "a", "receipt": popped[0]["receipt"], "visibility_ms": 60_000});
    assert_eq!(result(&queue.ok("queue.extend", extend).await), "extended");
    assert!(queue.pop("a", 1).await.is_empty());
}

/// riverqueue/river#1302: a late rescuer overwrote what was finished meanwhile.
#[tokio::test]
async fn queue_lets_the_last_receipt_finish_a_message_past_its_deadline() {
    let (_cluster, queue) = start(1).await;
    queue.push("a", json!(1)).await;
    let pop = json!({"topic": "a", "consumer": "slow", "visibility_ms": 100});
    let popped = messages(&queue.ok("queue.pop", pop).await);
    let deadline_ms = popped[0]["visible_until_ms"].as_u64().expect("a time");
    wait::until("its deadline is over", async || {
        (mufakat::time::unix_ms() > deadline_ms).then_some(())
    })
    .await;
    assert_eq!(queue.ack("a", &popped[0]["receipt"]).await, "acked");
    assert!(queue.pop("a", 1).await.is_empty());
    assert_eq!(queue.counts("a").await, [0; 4]);
}

/// taskforcesh/bullmq#1658: after the connection to Redis was lost, delayed jobs came hours late.
#[tokio::test]
async fn queue_what_is_delayed_comes_in_time_after_a_restart_of_redis() {
    let (mut cluster, queue) = start(1).await;
    let body = json!({"topic": "a", "consumer": "c", "wait_ms": 30_000});
    let mut waiting = wire::send(&queue.nats, "mufakat.queue.pop", &body).await;
    wait::until("the pop waits", async || {
        (queue.stats("a").await["waiters"] == 1).then_some(())
    })
    .await;
    let delayed = json!({"topic": "a", "payload": "later", "delay_ms": 1_000});
    queue.ok("queue.push", delayed).await;
    cluster.kill_redis();
    cluster.start_redis().await;
    let answer = waiting.answer(Duration::from_secs(20)).await;
    let popped = messages(&answer.expect("an answer"));
    assert_eq!(popped[0]["payload"], "later");
}
