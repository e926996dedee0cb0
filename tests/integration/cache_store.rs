//! The cache with Redis behind it: real nodes with memory for few values, and a Redis that fsyncs always.

use std::time::Duration;

use async_nats::Client;
use serde_json::{Value, json};

use crate::cache::all_hold;
use crate::cluster::{Cluster, Options};
use crate::redis_cluster::RedisCluster;
use crate::{wait, wire};

/// Values of which a node's 64 KiB hold about five.
const VALUE_DIGITS: usize = 10_000;
const KEYS: u64 = 24;
const ATTEMPT: Duration = Duration::from_secs(6);

fn options() -> Options {
    Options {
        redis: true,
        ..Options::flags(&["--cache-store", "redis", "--cache-bytes", "65536"])
    }
}

async fn started() -> (Cluster, Client) {
    let cluster = Cluster::start(options()).await;
    all_hold(&cluster).await;
    let nats = cluster.nats().await;
    (cluster, nats)
}

fn key(number: u64) -> String {
    format!("key-{number}")
}

fn text(number: u64) -> String {
    format!("{number:0>VALUE_DIGITS$}")
}

async fn ok(nats: &Client, operation: &str, body: Value) -> Value {
    let subject = format!("mufakat.cache.{operation}");
    wire::request_until_ok(nats, &subject, &body).await
}

async fn code(nats: &Client, operation: &str, body: Value) -> String {
    let subject = format!("mufakat.cache.{operation}");
    let answer = wire::request(nats, &subject, &body, ATTEMPT).await;
    wire::code(&answer.expect("an answer in time")).to_owned()
}

async fn get(nats: &Client, key: &str) -> Value {
    ok(nats, "get", json!({"key": key})).await
}

async fn set_all(nats: &Client) {
    for number in 0..KEYS {
        let tag = if number % 2 == 0 { "even" } else { "odd" };
        let body = json!({"key": key(number), "value": text(number), "tags": [tag]});
        ok(nats, "set", body).await;
    }
}

/// Reads all keys; how many values came from where.
async fn get_all(nats: &Client, there: impl Fn(u64) -> bool) -> [u64; 3] {
    let mut sources = [0; 3];
    for number in 0..KEYS {
        let found = get(nats, &key(number)).await;
        let (status, value) = (&found["status"], &found["value"]);
        match there(number) {
            true => assert!(status == "hit" && *value == text(number), "{number}"),
            false => assert_eq!(status, "miss", "{number}"),
        }
        let names = ["local", "home", "store"];
        let source = found["source"].as_str();
        if let Some(at) = names.iter().position(|name| source == Some(name)) {
            sources[at] += 1;
        }
    }
    sources
}

async fn metric(cluster: &Cluster, name: &str) -> f64 {
    let mut sum = 0.0;
    for node in cluster.ids() {
        sum += cluster.metric(node, name).await.unwrap_or(0.0);
    }
    sum
}

#[tokio::test]
async fn values_and_results_survive_the_death_of_all_nodes() {
    let (mut cluster, nats) = started().await;
    set_all(&nats).await;
    ok(&nats, "delete", json!({"key": key(3)})).await;
    let brief = json!({"key": "brief", "value": "x", "ttl_ms": 500});
    ok(&nats, "set", brief).await;
    let lasting = json!({"key": "lasting", "value": {"a": 1.0}, "ttl_ms": 600_000});
    ok(&nats, "set", lasting).await;
    let binary = json!({"key": "binary", "value_base64": "AP8="});
    ok(&nats, "set", binary).await;
    let add = json!({"key": "n", "request_id": "one"});
    let first = ok(&nats, "increment", add.clone()).await;
    assert_eq!(first["value"], 1);

    cluster.kill_all();
    cluster.start_all();
    all_hold(&cluster).await;
    let from = get_all(&nats, |number| number != 3).await;
    println!("after the restart, local, from a home, from the store: {from:?}");
    assert!(from[2] >= KEYS - 1);
    wait::until("its time is over", async || {
        let found = get(&nats, "brief").await;
        (found["status"] == "miss").then_some(())
    })
    .await;
    assert_eq!(get(&nats, "brief").await["status"], "miss");
    let lasting = get(&nats, "lasting").await;
    assert_eq!(lasting["value"], json!({"a": 1.0}));
    let left = lasting["ttl_ms"].as_u64().expect("it has a lifetime");
    assert!((500_000..=600_000).contains(&left), "{left}");
    assert_eq!(get(&nats, "binary").await["value_base64"], "AP8=");
    let mut repeat = add;
    repeat["repeat"] = true.into();
    let repeated = ok(&nats, "increment", repeat).await;
    assert_eq!(
        (&repeated["value"], &repeated["version"]),
        (&first["value"], &first["version"])
    );
    let second = ok(&nats, "increment", json!({"key": "n"})).await;
    assert_eq!(second["value"], 2);
}

#[tokio::test]
async fn what_memory_does_not_hold_comes_from_the_store_unless_it_was_invalidated() {
    let (cluster, nats) = started().await;
    set_all(&nats).await;
    let from = get_all(&nats, |_| true).await;
    println!("local, from a home, from the store: {from:?}");
    assert!(from[2] > KEYS / 4, "{from:?}");
    let absent = json!({"key": key(0), "value": "x", "if": {"absent": true}});
    assert_eq!(code(&nats, "set", absent).await, "already_exists");
    ok(&nats, "set", json!({"key": "n", "value": 41})).await;
    get_all(&nats, |_| true).await;
    let counted = ok(&nats, "increment", json!({"key": "n"})).await;
    assert_eq!(counted["value"], 42);

    let is_odd = |number: u64| number % 2 == 1;
    ok(&nats, "invalidate", json!({"tag": "even"})).await;
    get_all(&nats, is_odd).await;
    ok(&nats, "invalidate", json!({"prefix": "key-1"})).await;
    let is_left = |number: u64| is_odd(number) && !key(number).starts_with("key-1");
    get_all(&nats, is_left).await;
    let again = json!({"key": key(0), "value": text(0), "tags": ["even"]});
    ok(&nats, "set", again).await;
    get_all(&nats, |number| is_left(number) || number == 0).await;
    ok(&nats, "invalidate", json!({"all": true})).await;
    get_all(&nats, |_| false).await;
    assert_eq!(get(&nats, "n").await["status"], "miss");

    let stats = ok(&nats, "stats", json!({})).await;
    assert_eq!(stats["store"]["errors"], 0);
    let calls = |result| format!("mufakat_cache_store_calls_total{{result=\"{result}\"}}");
    assert!(metric(&cluster, &calls("read")).await > 20.0);
    assert!(metric(&cluster, &calls("written")).await > 25.0);
    assert_eq!(metric(&cluster, &calls("failed")).await, 0.0);
}

#[tokio::test]
async fn the_store_may_be_a_redis_cluster() {
    let redis = RedisCluster::start().await;
    let url = redis.url();
    let flags = ["--redis", &url, "--cache-store", "redis"];
    let flags = [&flags[..], &["--cache-bytes", "65536"]].concat();
    let mut cluster = Cluster::start(Options::flags(&flags)).await;
    all_hold(&cluster).await;
    let nats = cluster.nats().await;
    set_all(&nats).await;
    let from = get_all(&nats, |_| true).await;
    assert!(from[2] > KEYS / 4, "{from:?}");
    ok(&nats, "invalidate", json!({"tag": "even"})).await;
    cluster.kill_all();
    cluster.start_all();
    all_hold(&cluster).await;
    get_all(&nats, |number| number % 2 == 1).await;
}

#[tokio::test]
async fn without_redis_memory_goes_on_and_the_rest_is_refused_until_it_is_back() {
    let (mut cluster, nats) = started().await;
    let small = json!({"key": "small", "value": "here"});
    ok(&nats, "set", small).await;
    for node in cluster.ids() {
        let subject = format!("mufakat.node.{node}.cache.get");
        let found = wire::request_until_ok(&nats, &subject, &json!({"key": "small"})).await;
        assert_eq!(found["value"], "here");
    }
    cluster.kill_redis();
    wait::until("all nodes know", async || {
        for node in cluster.ids() {
            let status = cluster.status(node).await?;
            if status.redis.as_ref()?.connected {
                return None;
            }
        }
        Some(())
    })
    .await;
    for node in cluster.ids() {
        let subject = format!("mufakat.node.{node}.cache.get");
        let found = wire::request(&nats, &subject, &json!({"key": "small"}), ATTEMPT).await;
        let found = found.expect("an answer in time");
        assert_eq!(
            (&found["value"], &found["source"]),
            (&json!("here"), &json!("local"))
        );
    }
    let away = "store_unavailable";
    assert_eq!(code(&nats, "get", json!({"key": "other"})).await, away);
    for operation in ["set", "increment"] {
        let mut body = json!({"key": "other"});
        if operation == "set" {
            body["value"] = "x".into();
        }
        assert_eq!(code(&nats, operation, body).await, away, "{operation}");
    }
    let new = json!({"key": "small", "value": "new"});
    assert_eq!(code(&nats, "set", new.clone()).await, away);
    assert_eq!(get(&nats, "small").await["value"], "here");

    cluster.start_redis().await;
    ok(&nats, "set", new).await;
    for node in cluster.ids() {
        let subject = format!("mufakat.node.{node}.cache.get");
        let found = wire::request_until_ok(&nats, &subject, &json!({"key": "small"})).await;
        assert_eq!(found["value"], "new");
    }
    assert_eq!(get(&nats, "other").await["status"], "miss");
}

/// Redis is as it was before the newest writes: what it has may be old, and is not read.
#[tokio::test]
async fn a_redis_that_lost_writes_has_nothing_that_counts() {
    let (mut cluster, nats) = started().await;
    set_all(&nats).await;
    cluster.kill_redis();
    let (now, before) = (
        cluster.redis_dir(),
        cluster.redis_dir().with_extension("before"),
    );
    copy(&now, &before);
    cluster.start_redis().await;
    for number in 0..KEYS {
        let body = json!({"key": key(number), "value": text(number + 100)});
        ok(&nats, "set", body).await;
    }
    cluster.kill_redis();
    std::fs::remove_dir_all(&now).expect("it is there");
    copy(&before, &now);
    cluster.start_redis().await;
    let mut hits = 0;
    for number in 0..KEYS {
        let found = get(&nats, &key(number)).await;
        if found["status"] == "hit" {
            hits += 1;
            assert_eq!(found["value"], text(number + 100));
        }
    }
    println!("{hits} of {KEYS} values were in memory");
    assert!(hits < KEYS);
    // Each node has found it out by its first call.
    set_all(&nats).await;
    get_all(&nats, |_| true).await;
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("a directory can be made");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("it can be read");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("it has one").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("it can be copied")),
        }
    }
}
