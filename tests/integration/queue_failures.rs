//! What queues do when Redis, nodes or consumers fail.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::queue::{Queue, messages, serves, start};
use crate::{wait, wire};

fn command(redis: &mut redis::Connection, words: &str) {
    let mut command = redis::Cmd::new();
    for word in words.split(' ') {
        command.arg(word);
    }
    command
        .exec(redis)
        .unwrap_or_else(|error| panic!("{words}: {error}"));
}

/// The one key of a topic that ends like this.
fn key(redis: &mut redis::Connection, ending: &str) -> String {
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(format!("*{ending}"))
        .query(redis)
        .unwrap();
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys[0].clone()
}

async fn push_answer(queue: &Queue, topic: &str) -> Value {
    queue
        .ask("queue.push", json!({"topic": topic, "payload": "x"}))
        .await
}

/// taskforcesh/groupmq#16: after a SCRIPT FLUSH every call failed for hours.
#[tokio::test]
async fn queue_goes_on_when_redis_forgets_its_scripts() {
    let (cluster, queue) = start(1).await;
    command(&mut cluster.redis(), "SCRIPT FLUSH");
    queue.push("a", json!(1)).await;
    assert_eq!(queue.pop("a", 1).await.len(), 1);
}

/// redis#7105: a store without memory must not stop what frees memory.
#[tokio::test]
async fn queue_is_emptied_by_acks_when_redis_has_no_memory() {
    let (cluster, queue) = start(1).await;
    let mut redis = cluster.redis();
    queue.push("a", json!(1)).await;
    let popped = queue.pop("a", 1).await;
    command(&mut redis, "CONFIG SET maxmemory 1");
    let refused = push_answer(&queue, "a").await;
    assert_eq!(wire::code(&refused), "store_unavailable");
    assert!(
        refused["error"]["message"]
            .as_str()
            .unwrap()
            .contains("memory")
    );
    assert_eq!(queue.ack("a", &popped[0]["receipt"]).await, "acked");
    command(&mut redis, "CONFIG SET maxmemory 0");
    queue.push("a", json!(2)).await;
    assert_eq!(queue.counts("a").await, [1, 0, 0, 0]);
}

#[tokio::test]
async fn queue_waits_out_a_redis_that_takes_no_writes() {
    let (cluster, queue) = start(1).await;
    let mut redis = cluster.redis();
    command(&mut redis, "REPLICAOF 127.0.0.1 1");
    assert_eq!(
        wire::code(&push_answer(&queue, "a").await),
        "store_unavailable"
    );
    command(&mut redis, "REPLICAOF NO ONE");
    wait::until("it takes writes", async || {
        (push_answer(&queue, "a").await["ok"] == true).then_some(())
    })
    .await;
}

#[tokio::test]
async fn queue_says_interval_when_redis_syncs_every_second() {
    let (cluster, queue) = start(1).await;
    let mut redis = cluster.redis();
    command(&mut redis, "CONFIG SET appendfsync everysec");
    // The settings are read at each connect.
    command(&mut redis, "CLIENT KILL TYPE normal SKIPME yes");
    let answer = wait::until("the change is noticed", async || {
        let answer = push_answer(&queue, "a").await;
        (answer["durability"]["level"] == "interval").then_some(answer)
    })
    .await;
    assert!(answer["durability"]["checked_at_ms"].as_u64() > Some(0));
    let demanding = json!({"topic": "a", "payload": 1, "require_durability": "fsync"});
    let refused = queue.ask("queue.push", demanding).await;
    assert_eq!(wire::code(&refused), "durability_unavailable");
    let modest = json!({"topic": "a", "payload": 1, "require_durability": "interval"});
    queue.ok("queue.push", modest).await;
}

#[tokio::test]
async fn queue_raises_the_alarm_when_redis_lost_what_it_acknowledged() {
    let (cluster, queue) = start(1).await;
    let mut redis = cluster.redis();
    let mut events = queue
        .nats
        .subscribe("mufakat.event.queue.data_loss")
        .await
        .unwrap();
    queue.nats.flush().await.unwrap();
    queue.push("a", json!(1)).await;
    let meta = key(&mut redis, "{a}:meta");
    let past: Vec<u8> = redis::cmd("DUMP").arg(&meta).query(&mut redis).unwrap();
    for n in 2..=4 {
        assert_eq!(queue.push("a", json!(n)).await, n);
    }
    let mut restore = redis::cmd("RESTORE");
    restore.arg(&meta).arg(0).arg(past).arg("REPLACE");
    restore.exec(&mut redis).unwrap();
    let refused = push_answer(&queue, "a").await;
    assert_eq!(wire::code(&refused), "data_loss_detected");
    let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
    let event: Value = serde_json::from_slice(&event.unwrap().unwrap().payload).unwrap();
    let range = json!({"topic": "a", "operations": 3, "seq_from": 2, "seq_to": 4});
    assert_eq!(event, range);
    // Numbers that were given out are not given out again.
    assert_eq!(queue.push("a", json!(5)).await, 5);
}

#[tokio::test]
async fn queue_survives_the_end_of_every_process() {
    let (mut cluster, queue) = start(3).await;
    for n in 0..20 {
        queue.push("a", json!(n)).await;
    }
    let popped = queue.pop("a", 5).await;
    cluster.kill_all();
    cluster.kill_redis();
    cluster.start_redis().await;
    cluster.start_all();
    cluster.all_follow().await;
    serves(&queue).await;
    wait::until("the topic has an owner", async || {
        let answer = queue.ask("queue.stats", json!({"topic": "a"})).await;
        (answer["ok"] == true && answer["ready"] == 15 && answer["in_flight"] == 5).then_some(())
    })
    .await;
    for message in &popped {
        assert_eq!(queue.ack("a", &message["receipt"]).await, "acked");
    }
    let rest = queue.pop("a", 100).await;
    assert_eq!(rest.len(), 15);
    assert_eq!(rest[0]["payload"], 5);
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

/// riverqueue/river#1302: a late rescuer overwrote what was finished meanwhile.
#[tokio::test]
async fn queue_lets_the_last_receipt_finish_a_message_past_its_deadline() {
    let (_cluster, queue) = start(1).await;
    queue.push("a", json!(1)).await;
    let pop = json!({"topic": "a", "consumer": "slow", "visibility_ms": 100});
    let popped = messages(&queue.ok("queue.pop", pop).await);
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(queue.ack("a", &popped[0]["receipt"]).await, "acked");
    assert!(queue.pop("a", 1).await.is_empty());
    assert_eq!(queue.counts("a").await, [0; 4]);
}

/// taskforcesh/bullmq#1658: after a reconnect, waiting workers were never woken again.
#[tokio::test]
async fn queue_pops_that_wait_outlive_a_restart_of_redis() {
    let (mut cluster, queue) = start(1).await;
    let body = json!({"topic": "a", "consumer": "c", "wait_ms": 30_000});
    let mut waiting = wire::send(&queue.nats, "mufakat.queue.pop", &body).await;
    wait::until("the pop waits", async || {
        (queue.stats("a").await["waiters"] == 1).then_some(())
    })
    .await;
    cluster.kill_redis();
    cluster.start_redis().await;
    wait::until("the queue takes messages", async || {
        (push_answer(&queue, "a").await["ok"] == true).then_some(())
    })
    .await;
    let answer = waiting
        .answer(Duration::from_secs(20))
        .await
        .expect("an answer");
    assert_eq!(messages(&answer).len(), 1);
}
