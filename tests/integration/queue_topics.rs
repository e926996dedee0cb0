//! What is told of topics: which there are, who waits, how much goes through them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::link::Link;
use crate::queue::{Queue, serves, start};
use crate::queue_waits::all_are_in_view;
use crate::redis_server::RedisServer;
use crate::{wait, wire};

const TOPICS: usize = 12;

async fn listed_by(queue: &Queue, node: u64) -> Option<Vec<Value>> {
    let body = json!({"prefix": "t-", "limit": 1000});
    let subject = format!("mufakat.node.{node}.queue.list");
    let answer = wire::request(&queue.nats, &subject, &body, Duration::from_secs(5)).await?;
    answer["topics"].as_array().cloned()
}

#[tokio::test]
async fn queue_list_tells_of_every_topic_what_its_owner_knows() {
    let (cluster, queue) = start(3).await;
    all_are_in_view(&cluster).await;
    let mut pops = Vec::new();
    for nth in 0..TOPICS {
        let topic = format!("t-{nth}");
        let batch = vec![json!({"payload": 1}); 60];
        let push = json!({"topic": topic, "messages": batch});
        queue.ok("queue.push", push).await;
        let popped = queue.pop(&topic, 60).await;
        assert_eq!(queue.ack(&topic, &popped[0]["receipt"]).await, "acked");
        let body = json!({"topic": topic, "consumer": "c", "wait_ms": 60_000});
        pops.push(wire::send(&queue.nats, "mufakat.queue.pop", &body).await);
    }
    for node in cluster.ids() {
        let topics = wait::until("the pops wait", async || {
            let topics = listed_by(&queue, node).await?;
            let waits = |topic: &Value| topic["waiters"] == 1;
            (topics.len() == TOPICS && topics.iter().all(waits)).then_some(topics)
        })
        .await;
        let owners = topics.iter().map(|topic| topic["owner_node"].as_u64());
        let owners: std::collections::BTreeSet<_> = owners.collect();
        assert!(owners.len() > 1, "topics of several nodes");
        for topic in &topics {
            let rates = &topic["rates"];
            let rate = |name: &str| rates[name].as_f64().expect("a rate");
            // 60 within 50 to 60 seconds; 1 of them acknowledged.
            assert!((1.0..=1.2).contains(&rate("pushed")), "{topic}");
            assert!((1.0..=1.2).contains(&rate("delivered")), "{topic}");
            assert!((0.01..=0.02).contains(&rate("acked")), "{topic}");
        }
    }
    let stats = queue.stats("t-0").await;
    assert!(stats["rates"]["pushed"].as_f64() >= Some(1.0), "{stats}");
    let idle = queue.stats("never").await;
    let none = json!({"pushed": 0.0, "delivered": 0.0, "acked": 0.0});
    assert_eq!((&idle["waiters"], &idle["rates"]), (&json!(0), &none));
}

/// As the dashboard lists them, with a Redis that is not near.
#[tokio::test]
async fn queue_list_of_many_topics_takes_a_few_round_trips() {
    const MANY: usize = 100;
    const WAY: Duration = Duration::from_millis(20);
    let redis = RedisServer::start().await;
    let link = Link::to(redis.port()).await;
    let url = format!("redis://127.0.0.1:{}", link.port());
    let cluster = Cluster::start(Options {
        nodes: 1,
        ..Options::flags(&["--redis", &url])
    })
    .await;
    let queue = Queue::of(&cluster).await;
    serves(&queue).await;
    for nth in 0..MANY {
        queue.push(&format!("t-{nth}"), json!(1)).await;
    }
    let way_ms = WAY.as_millis() as u64;
    link.set_delays(way_ms, way_ms);
    let began = Instant::now();
    let topics = listed_by(&queue, 1).await.expect("an answer");
    let took = began.elapsed();
    assert_eq!(topics.len(), MANY);
    // One after the other they take two ways each: this is half of that.
    assert!(took < WAY * MANY as u32, "{took:?}");
}

#[tokio::test]
async fn queue_a_topic_that_was_only_paused_is_listed() {
    let (_cluster, queue) = start(1).await;
    queue.ok("queue.pause", json!({"topic": "only"})).await;
    let list = queue.ok("queue.list", json!({"prefix": "only"})).await;
    assert_eq!(list["topics"][0]["topic"], "only", "{list}");
    assert_eq!(list["topics"][0]["paused"], true);
}

#[tokio::test]
async fn queue_pops_that_wait_have_a_bound_that_is_told() {
    const WAITERS_MAX: usize = 10_000;
    let (_cluster, queue) = start(1).await;
    let body = json!({"topic": "a", "consumer": "c", "wait_ms": 60_000, "timeout_ms": 120_000});
    let inbox = queue.nats.new_inbox();
    let _answers = queue
        .nats
        .subscribe(inbox.clone())
        .await
        .expect("connected");
    for _ in 0..WAITERS_MAX {
        let (subject, body) = ("mufakat.queue.pop", body.to_string());
        let sent = queue
            .nats
            .publish_with_reply(subject, inbox.clone(), body.into());
        sent.await.expect("connected");
    }
    wait::until("all wait", async || {
        (queue.stats("a").await["waiters"] == WAITERS_MAX).then_some(())
    })
    .await;
    let refused = queue.ask("queue.pop", body).await;
    assert_eq!(wire::code(&refused), "overloaded");
    assert_eq!(refused["error"]["limit"], WAITERS_MAX);
    let message = refused["error"]["message"].as_str().expect("words");
    assert!(message.contains("waiting pops on this topic"), "{message}");
}
