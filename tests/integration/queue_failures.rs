//! What queues do when Redis, nodes or consumers fail.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::queue::{Queue, serves, start};
use crate::{wait, wire};

pub fn command(redis: &mut redis::Connection, words: &str) {
    let mut command = redis::Cmd::new();
    for word in words.split(' ') {
        command.arg(word);
    }
    command
        .exec(redis)
        .unwrap_or_else(|error| panic!("{words}: {error}"));
}

/// The one key of a topic that ends like this.
pub fn key(redis: &mut redis::Connection, ending: &str) -> String {
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(format!("*{ending}"))
        .query(redis)
        .unwrap();
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys[0].clone()
}

pub async fn push_answer(queue: &Queue, topic: &str) -> Value {
    queue
        .ask("queue.push", json!({"topic": topic, "payload": "x"}))
        .await
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

/// `messages: []` would say that there is nothing.
#[tokio::test]
async fn queue_a_pop_whose_wait_ends_without_redis_is_refused() {
    let (mut cluster, queue) = start(1).await;
    let body = json!({"topic": "a", "consumer": "c", "wait_ms": 1_500});
    for cause in ["CONFIG SET maxmemory 1", "REPLICAOF 127.0.0.1 1", ""] {
        queue.push("a", json!(1)).await;
        let mut redis = cluster.redis();
        match cause {
            "" => cluster.kill_redis(),
            cause => command(&mut redis, cause),
        }
        let answer = queue.ask("queue.pop", body.clone()).await;
        assert_eq!(
            wire::code(&answer),
            "store_unavailable",
            "{cause}: {answer}"
        );
        match cause {
            "" => {
                let log = cluster.log(1);
                let mut lines = log.lines();
                let said = lines.find(|line| line.contains("no connection to Redis"));
                let url = format!("redis://127.0.0.1:{}", cluster.redis_port());
                assert!(said.is_some_and(|line| line.contains(&url)), "{said:?}");
                cluster.start_redis().await;
            }
            _ => {
                command(&mut redis, "CONFIG SET maxmemory 0");
                command(&mut redis, "REPLICAOF NO ONE");
            }
        }
        serves(&queue).await;
        assert_eq!(queue.pop("a", 10).await.len(), 1);
    }
}

/// The look of a pop that waits is the first to find it out.
#[tokio::test]
async fn queue_a_pop_that_waits_hears_of_a_loss() {
    let (cluster, queue) = start(1).await;
    let mut events = queue
        .nats
        .subscribe("mufakat.event.queue.data_loss")
        .await
        .unwrap();
    queue.nats.flush().await.unwrap();
    assert_eq!(queue.push("a", json!(1)).await, 1);
    assert_eq!(queue.pop("a", 1).await.len(), 1);
    let body = json!({"topic": "a", "consumer": "c", "wait_ms": 60_000});
    let mut waiting = wire::send(&queue.nats, "mufakat.queue.pop", &body).await;
    wait::until("the pop waits", async || {
        (queue.stats("a").await["waiters"] == 1).then_some(())
    })
    .await;
    command(&mut cluster.redis(), "FLUSHALL");
    let answer = waiting.answer(Duration::from_secs(20)).await;
    let answer = answer.expect("an answer");
    assert_eq!(wire::code(&answer), "data_loss_detected", "{answer}");
    let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
    let event: Value = serde_json::from_slice(&event.unwrap().unwrap().payload).unwrap();
    assert_eq!(event["seq_to"], 1, "{event}");
    assert_eq!(queue.push("a", json!(2)).await, 2);
}

/// Calls that are under way together all find it, and it is one loss.
#[tokio::test]
async fn queue_one_loss_is_one_alarm_however_many_calls_find_it() {
    let (cluster, queue) = start(1).await;
    let mut events = queue.nats.subscribe("mufakat.event.queue.>").await.unwrap();
    queue.nats.flush().await.unwrap();
    for n in 1..=3 {
        queue.push("a", json!(n)).await;
    }
    // Nothing is executed meanwhile, so that two calls are on their way.
    let mut redis = cluster.redis();
    let mut lose = redis::pipe();
    lose.cmd("FLUSHALL").cmd("CLIENT").arg("PAUSE").arg(1_000);
    lose.exec(&mut redis).unwrap();
    let mut pushes = Vec::new();
    for n in 0..20 {
        let body = json!({"topic": "a", "payload": n});
        pushes.push(wire::send(&queue.nats, "mufakat.queue.push", &body).await);
    }
    let mut refused = 0;
    for mut push in pushes {
        let answer = push.answer(Duration::from_secs(20)).await;
        let answer = answer.expect("an answer");
        if answer["ok"] != true {
            assert_eq!(wire::code(&answer), "data_loss_detected", "{answer}");
            refused += 1;
        }
    }
    assert!(refused > 1, "{refused}");
    queue.ok("queue.pause", json!({"topic": "a"})).await;
    let mut losses = Vec::new();
    loop {
        let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
        let event = event.expect("in time").expect("connected");
        if event.subject.ends_with(".paused") {
            break;
        }
        let event: Value = serde_json::from_slice(&event.payload).unwrap();
        losses.push(event);
    }
    let range = json!({"topic": "a", "operations": 3, "seq_from": 1, "seq_to": 3});
    assert_eq!(losses, [range]);
}
