//! Metrics say what happened, over real nodes, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::Client;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::queue::Queue;
use crate::{locks, wait, wire};

const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The text of one node's metrics.
pub async fn text(nats: &Client, node: u64) -> String {
    let subject = format!("mufakat.node.{node}.metrics");
    let answer = wire::request_until_ok(nats, &subject, &json!({})).await;
    answer["metrics"].as_str().expect("text").to_owned()
}

/// Samples of all nodes, added.
async fn sums(cluster: &Cluster, nats: &Client) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for node in cluster.ids() {
        for line in text(nats, node).await.lines() {
            if let Some((series, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))
            {
                let value: f64 = value.parse().expect("a number");
                *sums.entry(series.to_owned()).or_default() += value;
            }
        }
    }
    sums
}

/// Waits until the sums over all nodes are these.
async fn until(cluster: &Cluster, nats: &Client, expected: &[(&str, f64)]) {
    let mut wrong = Vec::new();
    let looked = wait::look_until(async || {
        let sums = sums(cluster, nats).await;
        wrong = expected
            .iter()
            .filter(|(series, value)| sums.get(*series) != Some(value))
            .map(|(series, value)| format!("{series}: {:?}, not {value}", sums.get(*series)))
            .collect();
        wrong.is_empty().then_some(())
    });
    let met = looked.await;
    assert!(met.is_some(), "{wrong:#?}");
}

async fn ask(nats: &Client, operation: &str, body: Value) -> Value {
    let answer = wire::request(nats, &format!("mufakat.{operation}"), &body, ANSWER_MAX).await;
    answer.unwrap_or_else(|| panic!("{operation} {body}: no answer"))
}

/// What happens to locks is counted once in the cluster, by the node that leads.
#[tokio::test]
async fn locks_and_sessions_are_counted_once() {
    let cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let a = locks::acquire(&nats, "a", "one", 60_000).await;
    locks::acquire(&nats, "b", "two", 60_000).await;
    let body = json!({"resource": "a", "owner": "late", "wait_ms": 50});
    let late = ask(&nats, "lock.acquire", body).await;
    assert_eq!(wire::code(&late), "wait_timeout", "{late}");
    // One waits for two, and two closes the cycle.
    let body = json!({"resource": "b", "owner": "one", "wait_ms": 30_000});
    let mut waits = wire::send(&nats, "mufakat.lock.acquire", &body).await;
    let waiting = [
        ("mufakat_locks_waiting", 3.0),
        ("mufakat_lock_waits_started_total", 2.0),
    ];
    until(&cluster, &nats, &waiting).await;
    let body = json!({"resource": "a", "owner": "two", "wait_ms": 30_000});
    let deadlock = ask(&nats, "lock.acquire", body).await;
    assert_eq!(wire::code(&deadlock), "deadlock", "{deadlock}");
    let body = json!({"resource": "b", "owner": "one"});
    ask(&nats, "lock.cancel", body).await;
    let cancelled = waits.answer(ANSWER_MAX).await.expect("an answer");
    assert_eq!(cancelled["ok"], false, "{cancelled}");
    locks::release(&nats, "a", a).await;
    locks::acquire(&nats, "short", "one", 100).await;
    let session = ask(&nats, "session.open", json!({"ttl_ms": 60_000})).await;
    ask(&nats, "session.open", json!({"ttl_ms": 60_000})).await;
    let body = json!({"session": session["session"]});
    ask(&nats, "session.close", body).await;
    let expected = [
        ("mufakat_locks_held", 3.0),
        ("mufakat_locks_waiting", 0.0),
        ("mufakat_lock_grants_total", 3.0),
        ("mufakat_lock_releases_total", 1.0),
        ("mufakat_lock_expiries_total", 1.0),
        ("mufakat_lock_deadlocks_total", 1.0),
        ("mufakat_lock_waits_started_total", 2.0),
        (
            "mufakat_lock_waits_ended_total{outcome=\"wait_timeout\"}",
            1.0,
        ),
        ("mufakat_lock_waits_ended_total{outcome=\"cancelled\"}", 1.0),
        ("mufakat_lock_waits_ended_total{outcome=\"granted\"}", 0.0),
        ("mufakat_lock_wait_seconds_count", 2.0),
        ("mufakat_lock_hold_seconds_count", 2.0),
        // In the state, and so on each of the three.
        ("mufakat_sessions", 3.0),
        ("mufakat_sessions_opened_total", 2.0),
        ("mufakat_sessions_closed_total", 1.0),
        ("mufakat_sessions_expired_total", 0.0),
    ];
    until(&cluster, &nats, &expected).await;
}

/// What is counted of messages is what became of them; how many there are is what Redis has.
#[tokio::test]
async fn messages_are_counted_by_what_became_of_them() {
    let mut cluster = Cluster::start(Options {
        redis: true,
        ..Options::default()
    })
    .await;
    let queue = Queue::of(&cluster).await;
    for number in 0..4 {
        queue.push("jobs", json!(number)).await;
    }
    let first = queue.pop("jobs", 2).await;
    assert_eq!(queue.ack("jobs", &first[0]["receipt"]).await, "acked");
    let body = json!({"topic": "jobs", "receipt": first[1]["receipt"], "delay_ms": 0});
    queue.ok("queue.nack", body).await;
    let again = wait::until("the message comes again", async || {
        let popped = queue.pop("jobs", 1).await;
        popped
            .into_iter()
            .find(|message| message["deliveries"] == 2)
    });
    let again = again.await;
    let body = json!({"topic": "jobs", "receipt": again["receipt"], "dead": true});
    queue.ok("queue.nack", body).await;
    for (id, payload) in [("x", 1), ("x", 2)] {
        let body = json!({"topic": "jobs", "id": id, "payload": payload});
        queue.ok("queue.push", body).await;
    }
    let [ready, _, in_flight, dead] = queue.counts("jobs").await.map(|count| count as f64);
    let delivered = 3.0 + in_flight;
    let expected = [
        ("mufakat_queue_pushed_total{topic=\"jobs\"}", 5.0),
        ("mufakat_queue_duplicates_total{topic=\"jobs\"}", 1.0),
        ("mufakat_queue_acked_total{topic=\"jobs\"}", 1.0),
        ("mufakat_queue_returned_total{topic=\"jobs\"}", 2.0),
        ("mufakat_queue_redelivered_total{topic=\"jobs\"}", 1.0),
        ("mufakat_queue_delivered_total{topic=\"jobs\"}", delivered),
        ("mufakat_queue_dead_total{topic=\"jobs\"}", 1.0),
        (
            "mufakat_queue_messages{topic=\"jobs\",state=\"ready\"}",
            ready,
        ),
        (
            "mufakat_queue_messages{topic=\"jobs\",state=\"dead\"}",
            dead,
        ),
        (
            "mufakat_queue_messages{topic=\"jobs\",state=\"in_flight\"}",
            in_flight,
        ),
        ("mufakat_queue_topics", 1.0),
        ("mufakat_queue_pushed_total{topic=\"other\"}", 0.0),
        ("mufakat_redis_connected", 3.0),
        ("mufakat_redis_durability{level=\"fsync\"}", 3.0),
        ("mufakat_redis_reconnects_total", 0.0),
    ];
    until(&cluster, &queue.nats, &expected).await;
    let sums = sums(&cluster, &queue.nats).await;
    assert!(sums["mufakat_queue_oldest_age_seconds{topic=\"jobs\"}"] > 0.0);
    assert!(sums["mufakat_redis_call_seconds_count"] >= 8.0);
    // What is not known any more is not shown.
    cluster.kill_redis();
    let lost = [
        ("mufakat_redis_connected", 0.0),
        ("mufakat_queue_topics", 0.0),
    ];
    until(&cluster, &queue.nats, &lost).await;
    cluster.start_redis().await;
    let back = [
        ("mufakat_redis_connected", 3.0),
        ("mufakat_redis_reconnects_total", 3.0),
        (
            "mufakat_queue_messages{topic=\"jobs\",state=\"dead\"}",
            dead,
        ),
    ];
    until(&cluster, &queue.nats, &back).await;
}

/// The cache's metrics are what `cache.stats` counts.
#[tokio::test]
async fn metrics_of_the_cache_are_those_of_its_statistics() {
    let cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let set = json!({"key": "k", "value": "v"});
    for _ in 0..3 {
        wire::request_until_ok(&nats, "mufakat.cache.set", &set).await;
        for node in cluster.ids() {
            let subject = format!("mufakat.node.{node}.cache.get");
            for _ in 0..2 {
                wire::request_until_ok(&nats, &subject, &json!({"key": "k"})).await;
            }
        }
    }
    wire::request_until_ok(&nats, "mufakat.cache.get", &json!({"key": "missing"})).await;
    let mut expected: BTreeMap<&str, f64> = BTreeMap::new();
    for node in cluster.ids() {
        let subject = format!("mufakat.node.{node}.cache.stats");
        let stats = wire::request_until_ok(&nats, &subject, &json!({})).await;
        for (series, value) in [
            (
                "mufakat_cache_hits_total{source=\"local\"}",
                &stats["hits"]["local"],
            ),
            (
                "mufakat_cache_hits_total{source=\"home\"}",
                &stats["hits"]["home"],
            ),
            ("mufakat_cache_misses_total", &stats["misses"]),
            ("mufakat_cache_fills_total", &stats["fills"]),
            ("mufakat_cache_writes_total", &stats["writes"]),
            ("mufakat_cache_bytes", &stats["bytes"]),
            ("mufakat_cache_entries", &stats["entries"]),
            (
                "mufakat_cache_invalidations_total{kind=\"sent\"}",
                &stats["invalidations"]["sent"],
            ),
        ] {
            *expected.entry(series).or_default() += value.as_f64().expect("a number");
        }
    }
    assert!(expected["mufakat_cache_hits_total{source=\"local\"}"] >= 9.0);
    assert!(expected["mufakat_cache_invalidations_total{kind=\"sent\"}"] >= 2.0);
    let expected: Vec<(&str, f64)> = expected.into_iter().collect();
    until(&cluster, &nats, &expected).await;
    let sums = sums(&cluster, &nats).await;
    assert!(sums["mufakat_cache_invalidation_seconds_count"] >= 1.0);
    assert!(sums["mufakat_view_lease_seconds"] > 0.0);
    assert_eq!(sums["mufakat_view_members"], 9.0);
}

/// Elections and leaders are counted, and the leader tells how its peers are.
#[tokio::test]
async fn the_leader_tells_how_its_peers_are() {
    let mut cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let leader = cluster.leader().await;
    let peers: Vec<u64> = cluster
        .ids()
        .into_iter()
        .filter(|id| *id != leader)
        .collect();
    let reachable = |count: f64| [("mufakat_raft_voters_reachable", count)];
    until(&cluster, &nats, &reachable(3.0)).await;
    for node in cluster.ids() {
        let text = text(&nats, node).await;
        for peer in &peers {
            let lag = format!("mufakat_raft_peer_lag_entries{{peer=\"{peer}\"}} ");
            assert_eq!(text.contains(&lag), node == leader, "{text}");
        }
    }
    cluster.pause(peers[0]);
    let silent = format!("mufakat_raft_peer_silent_seconds{{peer=\"{}\"}} ", peers[0]);
    wait::until("the leader says that a peer is silent", async || {
        let text = text(&nats, leader).await;
        let line = text.lines().find_map(|line| line.strip_prefix(&silent))?;
        let silent: f64 = line.parse().expect("a number");
        (silent > 1.0 && text.contains("mufakat_raft_voters_reachable 2\n")).then_some(())
    })
    .await;
    cluster.resume(peers[0]);
    let before = sums(&cluster, &nats).await;
    cluster.kill(leader);
    wait::until("another leads, after an election", async || {
        let mut elections = 0.0;
        for node in &peers {
            elections += cluster
                .metric(*node, "mufakat_raft_elections_total")
                .await?;
            let changes = cluster.metric(*node, "mufakat_raft_leader_changes_total");
            changes.await.filter(|&changes| changes >= 2.0)?;
        }
        (elections >= 1.0).then_some(())
    })
    .await;
    assert!(before["mufakat_raft_proposals_total"] > 0.0);
}
