//! How durable a push is where Redis has a replica that may take over.

use mufakat::protocol::status::{Durability, DurabilitySource};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::queue::{Queue, serves};
use crate::redis_server::RedisServer;
use crate::{wait, wire};

/// One node and its Redis, and a replica of that with whatever flags.
async fn with_replica(flags: &[&str]) -> (Cluster, Queue, RedisServer) {
    let options = Options {
        nodes: 1,
        redis: true,
        // Others may join a replica's first copy; here there are none to wait for.
        redis_flags: ["--repl-diskless-sync-delay", "0"]
            .map(str::to_owned)
            .into(),
        ..Options::default()
    };
    let cluster = Cluster::start(options).await;
    let queue = Queue::of(&cluster).await;
    serves(&queue).await;
    let replica = replica_of(&cluster, flags).await;
    (cluster, queue, replica)
}

async fn replica_of(cluster: &Cluster, flags: &[&str]) -> RedisServer {
    let port = cluster.redis_port().to_string();
    let flags = [&["--replicaof", "127.0.0.1", &port], flags].concat();
    RedisServer::start_with(&flags).await
}

const SAFE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// Whether the Redis of these tests can tell what replicas have fsynced: 7.2 or newer, or Valkey.
fn can_tell(cluster: &Cluster) -> bool {
    let mut answer = redis::cmd("COMMAND");
    let known: Vec<redis::Value> = answer
        .arg(&["INFO", "WAITAOF"])
        .query(&mut cluster.redis())
        .expect("Redis answers");
    !matches!(known[..], [redis::Value::Nil])
}

async fn push(queue: &Queue, more: Value) -> Value {
    let mut body = json!({"topic": "a", "payload": 1});
    let fields = body.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    queue.ask("queue.push", body).await
}

/// Pushes until the reply has this level and source; none of the replies may say more before.
async fn until_level(queue: &Queue, level: &str, source: &str) {
    wait::until(&format!("pushes are {level}, {source}"), async || {
        let durability = push(queue, json!({})).await["durability"].clone();
        (durability["level"] == level && durability["source"] == source).then_some(())
    })
    .await;
}

async fn warnings(cluster: &Cluster) -> Vec<String> {
    let status = cluster.status(1).await.expect("the node answers");
    status.redis.expect("it has a Redis").warnings
}

#[tokio::test]
async fn queue_pushes_are_fsynced_where_every_replica_says_so() {
    let (cluster, queue, replica) = with_replica(&SAFE).await;
    if !can_tell(&cluster) {
        until_level(&queue, "interval", "inspected").await;
        // A replica that has not all yet is behind, before it is known that it cannot be asked.
        wait::until("the status says why", async || {
            let told = warnings(&cluster).await;
            told.iter().any(|w| w.contains("7.2")).then_some(())
        })
        .await;
        let refused = push(&queue, json!({"require_durability": "fsync"})).await;
        assert_eq!(wire::code(&refused), "durability_unavailable");
        return;
    }
    until_level(&queue, "fsync", "confirmed").await;
    let status = cluster.status(1).await.expect("the node answers");
    let redis = status.redis.expect("it has a Redis");
    assert_eq!(redis.durability, Durability::Fsync);
    assert_eq!(redis.source, DurabilitySource::Confirmed);
    assert_eq!(redis.warnings, Vec::<String>::new());
    let pushed = push(&queue, json!({"require_durability": "fsync", "id": "x"})).await;
    assert_eq!(pushed["ok"], true, "{pushed}");

    // A replica that hangs is still connected, and has not what is pushed now.
    replica.signal(Signal::STOP);
    let late = push(&queue, json!({"require_durability": "fsync", "id": "y"})).await;
    assert_eq!(wire::code(&late), "durability_unavailable", "{late}");
    assert_eq!(late["error"]["outcome"], "applied", "{late}");
    wait::until("the node knows without trying", async || {
        let refused = push(&queue, json!({"require_durability": "fsync", "id": "z"})).await;
        assert_eq!(wire::code(&refused), "durability_unavailable", "{refused}");
        (refused["error"]["outcome"] == "not_applied").then_some(())
    })
    .await;
    let told = warnings(&cluster).await;
    assert!(told.iter().any(|w| w.contains("WAITAOF")), "{told:?}");
    until_level(&queue, "interval", "inspected").await;

    // It goes on, and the push that was made is safe once it is repeated.
    replica.signal(Signal::CONT);
    until_level(&queue, "fsync", "confirmed").await;
    let again = push(&queue, json!({"require_durability": "fsync", "id": "y"})).await;
    assert_eq!(
        (&again["ok"], &again["duplicate"]),
        (&json!(true), &json!(true))
    );

    // One that is gone could still be promoted, without what is pushed from now on.
    drop(replica);
    until_level(&queue, "interval", "inspected").await;
    wait::until("the status says that it is away", async || {
        let told = warnings(&cluster).await;
        told.iter().any(|w| w.contains("0 connected")).then_some(())
    })
    .await;
    let _other = replica_of(&cluster, &SAFE).await;
    until_level(&queue, "fsync", "confirmed").await;
}

/// What a replica without a log of its own has does not survive its end.
#[tokio::test]
async fn queue_pushes_are_not_fsynced_by_a_replica_without_a_log() {
    let (cluster, queue, _replica) = with_replica(&[]).await;
    until_level(&queue, "interval", "inspected").await;
    let told = warnings(&cluster).await;
    assert!(told.iter().any(|w| w.contains("1 replica")), "{told:?}");
    let refused = push(&queue, json!({"require_durability": "fsync"})).await;
    assert_eq!(wire::code(&refused), "durability_unavailable");
}
