//! What a node does about a Redis that answers, but not as it should.

use std::fs;
use std::time::Duration;

use mufakat::protocol::status::DurabilitySource;
use serde_json::json;

use crate::cluster::{Cluster, Options};
use crate::queue::{Queue, messages, serves, start};
use crate::queue_failures::{command, push_answer};
use crate::redis_server::RedisServer;
use crate::{wait, wire};

/// Waits until a node says this about Redis.
async fn warns(cluster: &Cluster, of: &str) {
    wait::until(&format!("status warns of {of}"), async || {
        let redis = cluster.status(1).await?.redis?;
        let warned = redis.warnings.iter().any(|warning| warning.contains(of));
        warned.then_some(())
    })
    .await;
}

fn info(redis: &mut redis::Connection, field: &str) -> String {
    let text: String = redis::cmd("INFO").query(redis).expect("Redis answers");
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap_or_default().trim_start_matches(':').to_owned()
}

#[tokio::test]
async fn queue_says_why_redis_refuses_writes_and_goes_on_afterwards() {
    let (cluster, queue) = start(1).await;
    let mut redis = cluster.redis();
    // A snapshot can't take the place of a directory.
    let in_the_way = cluster.redis_dir().join("dump.rdb");
    fs::create_dir(&in_the_way).expect("it can be made");
    let save = redis::cmd("CONFIG")
        .arg("SET")
        .arg("save")
        .arg("3600 1")
        .exec(&mut redis);
    save.expect("it can be set");
    command(&mut redis, "BGSAVE");
    wait::until("the snapshot has failed", async || {
        (info(&mut cluster.redis(), "rdb_last_bgsave_status") == "err").then_some(())
    })
    .await;
    let refused = push_answer(&queue, "a").await;
    assert_eq!(wire::code(&refused), "store_unavailable");
    assert_eq!(refused["error"]["outcome"], "not_applied");
    let message = refused["error"]["message"].as_str().expect("a message");
    assert!(message.contains("MISCONF"), "{message}");
    // Looked at because of the refusal, not when the minute is over.
    warns(&cluster, "rdb_last_bgsave_status").await;
    fs::remove_dir(&in_the_way).expect("it is empty");
    command(&mut redis, "BGSAVE");
    wait::until("Redis takes writes", async || {
        (push_answer(&queue, "a").await["ok"] == true).then_some(())
    })
    .await;
    assert_eq!(queue.counts("a").await, [1, 0, 0, 0]);
}

#[tokio::test]
async fn queue_waits_while_redis_loads_its_data() {
    let (mut cluster, queue) = start(1).await;
    queue.push("a", json!(1)).await;
    let mut many = redis::pipe();
    for n in 0..10_000 {
        many.cmd("SET").arg(format!("junk:{n}")).arg(n).ignore();
    }
    many.exec(&mut cluster.redis()).expect("Redis takes them");
    cluster.kill_redis();
    // Microseconds for each command of the log: two seconds and more.
    cluster.set_redis_flags(&["--key-load-delay", "200"]);
    cluster.start_redis().await;
    warns(&cluster, "loading").await;
    let refused = push_answer(&queue, "a").await;
    assert_eq!(wire::code(&refused), "store_unavailable");
    assert_eq!(refused["error"]["outcome"], "not_applied");
    wait::until("Redis has loaded its data", async || {
        (push_answer(&queue, "a").await["ok"] == true).then_some(())
    })
    .await;
    assert_eq!(queue.counts("a").await, [2, 0, 0, 0]);
}

#[tokio::test]
async fn queue_believes_the_operator_about_a_redis_that_hides_its_settings() {
    let cluster = Cluster::start(Options {
        nodes: 1,
        redis: true,
        flags: ["--redis-durability-asserted", "fsync"]
            .map(str::to_owned)
            .into(),
        redis_flags: ["--rename-command", "CONFIG", ""].map(str::to_owned).into(),
        ..Options::default()
    })
    .await;
    let queue = Queue::of(&cluster).await;
    serves(&queue).await;
    let body = json!({"topic": "a", "payload": 1, "require_durability": "fsync"});
    let pushed = queue.ok("queue.push", body).await;
    assert_eq!(pushed["durability"]["level"], "fsync");
    assert_eq!(pushed["durability"]["source"], "asserted");
    let status = cluster.status(1).await.expect("an answer");
    let redis = status.redis.expect("the node has a Redis");
    assert_eq!(redis.source, DurabilitySource::Asserted);
    assert!(redis.settings.is_empty());
}

#[tokio::test]
async fn queue_follows_the_master_that_sentinels_name() {
    // Servers and sentinels have passwords, and not the same.
    let server = ["--appendonly", "yes", "--requirepass", "of-servers"];
    let mut master = RedisServer::start_with(&server).await;
    let port = master.port().to_string();
    let follows = [
        "--replicaof",
        "127.0.0.1",
        &port,
        "--masterauth",
        "of-servers",
    ];
    let replica = RedisServer::start_with(&[&server[..], &follows].concat()).await;
    wait::until("the replica has what the master has", async || {
        (info(&mut replica.connection(), "master_link_status") == "up").then_some(())
    })
    .await;
    let sentinel = RedisServer::sentinel_of(&master, "of-sentinels").await;
    let url = format!(
        "redis+sentinel://:of%2Dservers@127.0.0.1:{}/mymaster?sentinel_password=of%2Dsentinels",
        sentinel.port()
    );
    wait::until("the sentinel knows the replica", async || {
        (info(&mut sentinel.connection(), "master0").contains("slaves=1")).then_some(())
    })
    .await;
    let cluster = Cluster::start(Options {
        nodes: 1,
        ..Options::flags(&["--redis", &url])
    })
    .await;
    let queue = Queue::of(&cluster).await;
    serves(&queue).await;
    let pushed = queue
        .ok("queue.push", json!({"topic": "a", "payload": 1}))
        .await;
    assert_eq!(
        pushed["durability"]["level"], "interval",
        "a failover may lose it"
    );
    wait::until("the replica has it", async || {
        let reached = info(&mut replica.connection(), "slave_repl_offset");
        (reached == info(&mut master.connection(), "master_repl_offset")).then_some(())
    })
    .await;
    master.kill();
    let body = json!({"topic": "a", "payload": 2, "id": "2"});
    wire::request_until_ok(&queue.nats, "mufakat.queue.push", &body).await;
    assert_eq!(info(&mut replica.connection(), "role"), "master");
    let pop = json!({"topic": "a", "consumer": "c", "max": 10});
    let popped = wire::request(
        &queue.nats,
        "mufakat.queue.pop",
        &pop,
        Duration::from_secs(10),
    );
    let popped = messages(&popped.await.expect("an answer"));
    let payloads: Vec<_> = popped.iter().map(|message| &message["payload"]).collect();
    assert_eq!(payloads, [1, 2]);
}
