//! A Redis that comes back with less than it had acknowledged, and who notices.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::queue::{Queue, start};
use crate::queue_waits::{all_are_in_view, all_know_the_owner, owner_of};
use crate::{wait, wire};

const EVENT_MAX: Duration = Duration::from_secs(30);

/// The file that Redis appends to.
fn log_of(cluster: &Cluster) -> PathBuf {
    let directory = cluster.redis_dir().join("appendonlydir");
    let files = fs::read_dir(directory).expect("Redis has a log");
    let mut logs = files
        .map(|file| file.expect("it can be read").path())
        .filter(|path| path.to_string_lossy().ends_with(".incr.aof"));
    logs.next().expect("there is one")
}

async fn is_marked(queue: &Queue, topic: &str, seq: u64) {
    wait::until("the log knows how far the topic has come", async || {
        (queue.stats(topic).await["marked_seq"] == seq).then_some(())
    })
    .await;
}

/// Kills owner and Redis together, with the newest writes not on disk, and returns the alarm.
async fn lose(cluster: &mut Cluster, queue: &Queue, (owner, keep): (u64, u64)) -> Value {
    let mut events = queue
        .nats
        .subscribe("mufakat.event.queue.data_loss")
        .await
        .expect("not closed");
    queue.nats.flush().await.expect("connected");
    let log = log_of(cluster);
    cluster.kill(owner);
    cluster.kill_redis();
    let file = fs::OpenOptions::new()
        .write(true)
        .open(log)
        .expect("the log");
    file.set_len(keep).expect("it can be cut");
    cluster.start_redis().await;
    let body = json!({"topic": "a", "payload": "after"});
    let refused = wait::until("the new owner looks at the topic", async || {
        let limit = Duration::from_secs(2);
        let answer = wire::request(&queue.nats, "mufakat.queue.push", &body, limit).await?;
        assert_ne!(answer["ok"], true, "a loss went unnoticed: {answer}");
        (wire::code(&answer) == "data_loss_detected").then_some(answer)
    })
    .await;
    assert_ne!(refused["node"], owner);
    let event = tokio::time::timeout(EVENT_MAX, events.next()).await;
    let event = event.expect("in time").expect("connected");
    serde_json::from_slice(&event.payload).expect("JSON")
}

/// Redis and the owner are lost together, and the next owner knows only what the log knows.
#[tokio::test]
async fn queue_a_new_owner_notices_what_redis_lost_with_the_old_one() {
    let (mut cluster, queue) = start(3).await;
    all_are_in_view(&cluster).await;
    for n in 1..=3 {
        assert_eq!(queue.push("a", json!(n)).await, n);
    }
    let keep = fs::metadata(log_of(&cluster)).expect("a size").len();
    for n in 4..=6 {
        assert_eq!(queue.push("a", json!(n)).await, n);
    }
    is_marked(&queue, "a", 6).await;
    let owner = owner_of(&queue, "a").await.expect("an owner");
    let event = lose(&mut cluster, &queue, (owner, keep)).await;
    let range = json!({"topic": "a", "operations": 3, "seq_from": 4, "seq_to": 6});
    assert_eq!(event, range);
    // Said once; then the topic goes on, and no number comes twice.
    assert_eq!(queue.push("a", json!(7)).await, 7);
    assert_eq!(queue.counts("a").await, [4, 0, 0, 0]);
    is_marked(&queue, "a", 7).await;
    // A change of owner does not find the same loss again.
    cluster.start_node(owner);
    all_know_the_owner(&cluster, &queue, owner).await;
    let body = json!({"topic": "a", "payload": 8, "id": "8"});
    let pushed = wire::request_until_ok(&queue.nats, "mufakat.queue.push", &body).await;
    assert_eq!(pushed["seq"], 8);
}
