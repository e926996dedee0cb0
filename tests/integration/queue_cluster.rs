//! Queues in a Redis Cluster: three masters, of which each has the topics of a third of the slots.

use std::collections::BTreeSet;

use mufakat::protocol::status::Durability;
use mufakat::queue::slots::slot_of;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::queue::{Queue, messages};
use crate::redis_cluster::RedisCluster;
use crate::{wait, wire};

const TOPICS: usize = 30;

async fn start(nodes: u64) -> (RedisCluster, Cluster, Queue) {
    let redis = RedisCluster::start().await;
    let url = redis.url();
    let cluster = Cluster::start(Options {
        nodes,
        ..Options::flags(&["--redis", &url])
    })
    .await;
    let queue = Queue::of(&cluster).await;
    for n in 0..3 {
        let topic = redis.topic_of(n, 0);
        let body = json!({"topic": topic, "payload": "warm-up", "id": "warm-up"});
        wire::request_until_ok(&queue.nats, "mufakat.queue.push", &body).await;
        assert_eq!(queue.pop(&topic, 10).await.len(), 1);
    }
    (redis, cluster, queue)
}

async fn push(queue: &Queue, topic: &str, more: Value) -> Value {
    let mut body = json!({"topic": topic, "payload": "x"});
    let fields = body.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    queue.ask("queue.push", body).await
}

/// The master that has the list of topics.
fn lister(redis: &RedisCluster) -> usize {
    let mut keys = redis.masters.iter().map(|master| {
        let mut asked = redis::cmd("KEYS");
        let found = asked.arg("*:topics").query(&mut master.connection());
        let found: Vec<String> = found.expect("the server answers");
        found
    });
    keys.position(|found| !found.is_empty()).expect("a list")
}

#[tokio::test]
async fn queue_topics_are_spread_over_the_masters_of_a_redis_cluster() {
    let (redis, cluster, queue) = start(3).await;
    let replica = redis.add_replica(2).await;
    let topics: BTreeSet<String> = (0..TOPICS).map(|n| format!("spread-{n}")).collect();
    let mut masters = BTreeSet::new();
    for topic in &topics {
        masters.insert(redis.master_of(topic));
        let pushed = push(&queue, topic, json!({"id": "1"})).await;
        assert_eq!(pushed["ok"], true, "{pushed}");
        let again = push(&queue, topic, json!({"id": "1"})).await;
        assert_eq!(
            (&again["seq"], &again["duplicate"]),
            (&json!(1), &json!(true))
        );
        let popped = queue.pop(topic, 5).await;
        assert_eq!(popped.len(), 1);
        assert_eq!(queue.ack(topic, &popped[0]["receipt"]).await, "acked");
        assert_eq!(queue.counts(topic).await, [0, 0, 0, 0]);
    }
    assert_eq!(masters.len(), 3);
    let listed = queue
        .ok("queue.list", json!({"prefix": "spread-", "limit": 100}))
        .await;
    let listed = listed["topics"].as_array().expect("a list").iter();
    let listed: BTreeSet<String> = listed
        .filter_map(|topic| Some(topic["topic"].as_str()?.to_owned()))
        .collect();
    assert_eq!(listed, topics);

    // Durability is that of the master which has the topic. What Redis 7.0 cannot ask its replica is not
    // claimed; where it can be asked, it is confirmed.
    let alone = push(
        &queue,
        &redis.topic_of(0, 0),
        json!({"require_durability": "fsync"}),
    )
    .await;
    assert_eq!(alone["durability"]["source"], "inspected", "{alone}");
    let copied = redis.topic_of(2, 0);
    let level = wait::until("the replica counts", async || {
        let durability = push(&queue, &copied, json!({})).await["durability"].clone();
        let (level, source) = (&durability["level"], &durability["source"]);
        (level == "interval" || source == "confirmed").then_some(level.clone())
    })
    .await;
    let place = format!("127.0.0.1:{}: ", redis.masters[2].port());
    if level == "interval" {
        let refused = push(&queue, &copied, json!({"require_durability": "fsync"})).await;
        assert_eq!(wire::code(&refused), "durability_unavailable");
        let status = cluster
            .status(1)
            .await
            .expect("an answer")
            .redis
            .expect("a Redis");
        assert_eq!(status.durability, Durability::Interval);
        assert!(
            status.warnings.iter().any(|w| w.starts_with(&place)),
            "{:?}",
            status.warnings
        );
    }
    drop(replica);
}

#[tokio::test]
async fn queue_goes_on_while_a_slot_of_its_redis_cluster_moves() {
    let (redis, _cluster, queue) = start(1).await;
    let topic = redis.topic_of(0, 1);
    let slot = slot_of(&topic);
    let way = (0, 2);
    let pushes = async {
        let mut seqs = Vec::new();
        for n in 0..60 {
            let pushed = push(
                &queue,
                &topic,
                json!({"id": n.to_string(), "timeout_ms": 20_000}),
            );
            let pushed = pushed.await;
            assert_eq!(pushed["ok"], true, "{pushed}");
            seqs.push(pushed["seq"].as_u64().expect("a number"));
        }
        seqs
    };
    let moves = async {
        wait::until("some are pushed", async || {
            (queue.stats(&topic).await["pushed"].as_u64()? > 5).then_some(())
        })
        .await;
        redis.begin_move(slot, way);
        assert!(redis.move_keys(slot, way, 2) > 0);
        // Some of the keys are here and some are there.
        wait::until("a push meets that", async || {
            let told = ["TRYAGAIN", "ASK"].map(|error| redis.told(way.0, error));
            (told != [0, 0]).then_some(())
        })
        .await;
        redis.end_move(slot, way);
    };
    let (seqs, ()) = futures_util::join!(pushes, moves);
    assert_eq!(seqs, (1..=60).collect::<Vec<u64>>());
    let mut keys = redis::cmd("CLUSTER");
    keys.arg("COUNTKEYSINSLOT").arg(slot);
    let kept: u64 = keys
        .query(&mut redis.masters[2].connection())
        .expect("an answer");
    assert!(kept > 0, "the topic is where its slot went");
    let popped = queue.pop(&topic, 100).await;
    assert_eq!(popped.len(), 60);
    for message in &popped {
        assert_eq!(queue.ack(&topic, &message["receipt"]).await, "acked");
    }
}

#[tokio::test]
async fn queue_follows_a_promoted_replica_and_loses_no_more_than_the_topics_of_a_master_that_is_away()
 {
    let (mut redis, cluster, queue) = start(3).await;
    let lister = lister(&redis);
    let (doomed, other) = ((lister + 1) % 3, (lister + 2) % 3);
    let replica = redis.add_replica(doomed).await;
    let topic = redis.topic_of(doomed, 1);
    let pushed = push(&queue, &topic, json!({"id": "1"})).await;
    assert_eq!(pushed["ok"], true, "{pushed}");
    wait::until("the replica has it", async || {
        let offset = |server: &mut redis::Connection| -> Option<String> {
            let text: String = redis::cmd("INFO").query(server).ok()?;
            let line = text
                .lines()
                .find(|line| line.starts_with("master_repl_offset"));
            line.map(str::to_owned)
        };
        let copied = offset(&mut replica.connection())?;
        (copied == offset(&mut redis.masters[doomed].connection())?).then_some(())
    })
    .await;
    redis.masters[doomed].kill();
    for master in [lister, other] {
        let elsewhere = push(&queue, &redis.topic_of(master, 1), json!({})).await;
        assert_eq!(elsewhere["ok"], true, "{elsewhere}");
    }
    let body = json!({"topic": topic, "payload": "x", "id": "2"});
    wire::request_until_ok(&queue.nats, "mufakat.queue.push", &body).await;
    let body = json!({"topic": topic, "consumer": "c", "max": 10});
    let popped = wire::request_until_ok(&queue.nats, "mufakat.queue.pop", &body).await;
    assert_eq!(messages(&popped).len(), 2, "{popped}");

    // The list of topics goes with a master that nobody replaces; topics elsewhere are served, new ones too.
    redis.masters[lister].kill();
    let away = redis.topic_of(lister, 1);
    wait::until(
        "topics of a master that is away are not served",
        async || {
            let refused = push(&queue, &away, json!({})).await;
            let is_known = refused["error"]["outcome"] == "not_applied";
            (wire::code(&refused) == "store_unavailable" && is_known).then_some(())
        },
    )
    .await;
    for master in [doomed, other] {
        let topic = redis.topic_of(master, 2);
        let body = json!({"topic": topic, "payload": "x", "id": "1"});
        // Each node learns of a promotion by itself, within a second.
        wire::request_until_ok(&queue.nats, "mufakat.queue.push", &body).await;
        assert_eq!(queue.pop(&topic, 1).await.len(), 1);
    }
    let place = format!("127.0.0.1:{}", redis.masters[lister].port());
    wait::until("the status says which master is away", async || {
        let status = cluster.status(1).await?.redis?;
        let is_named = |warning: &String| warning.starts_with(&place);
        (!status.connected && status.warnings.iter().any(is_named)).then_some(())
    })
    .await;
    assert_eq!(
        wire::code(&queue.ask("queue.list", json!({})).await),
        "store_unavailable"
    );
}

#[tokio::test]
async fn queue_dead_messages_go_from_master_to_master_of_a_redis_cluster() {
    let (redis, _cluster, queue) = start(1).await;
    let (from, to) = (redis.topic_of(0, 0), redis.topic_of(1, 0));
    push(&queue, &from, json!({"id": "own"})).await;
    let popped = queue.pop(&from, 1).await;
    let dead = json!({"topic": from, "receipt": popped[0]["receipt"], "dead": true});
    queue.ok("queue.nack", dead).await;
    let redrive = json!({"topic": from, "to": to});
    let done = queue.ok("queue.redrive", redrive).await;
    assert_eq!((&done["moved"], &done["dead"]), (&json!(1), &json!(0)));
    assert_eq!(queue.pop(&to, 1).await[0]["id"], "own");
}
