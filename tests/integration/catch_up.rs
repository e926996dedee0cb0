//! A follower that was away longer than the log goes back.

use std::time::Instant;

use futures_util::StreamExt;
use mufakat::client::{Client, Target};
use mufakat::protocol::lock::{Acquire, Release};
use serde_json::Value;

use crate::cluster::{Cluster, Options};
use crate::wait;

/// Commands that pass meanwhile: an acquire and a release each.
const PAIRS: usize = 50_000;
/// Clients at a time: as many commands as go into one entry, and as many that wait for the next.
const CLIENTS: usize = 1024;
const SNAPSHOT_ENTRIES: &str = "50";
const KEEP_ENTRIES: u64 = 10;

#[tokio::test]
async fn a_follower_comes_back_by_snapshot() {
    let keep = KEEP_ENTRIES.to_string();
    let flags = [
        "--snapshot-entries",
        SNAPSHOT_ENTRIES,
        "--snapshot-keep-entries",
        &keep,
    ];
    let mut cluster = Cluster::start(Options::flags(&flags)).await;
    let away = cluster.follower().await;
    let had = cluster.status(away).await.expect("it runs").applied_index;
    assert_eq!(cluster.stop(away).await.code(), Some(0));

    let client = cluster.client(Target::Leader).await;
    let started = Instant::now();
    futures_util::stream::iter(0..PAIRS)
        .for_each_concurrent(CLIENTS, |number| pair(&client, number))
        .await;
    println!("{} commands in {:?}", 2 * PAIRS, started.elapsed());

    let leader = cluster.leader().await;
    wait::until(
        "the log is compacted beyond what the follower has",
        async || {
            let snapshot = cluster
                .metric(leader, "mufakat_raft_snapshot_index")
                .await?;
            (snapshot > (had + KEEP_ENTRIES) as f64).then_some(())
        },
    )
    .await;
    let started = Instant::now();
    cluster.start_node(away);
    cluster.all_follow().await;
    let state = cluster.state_hashes().await;
    println!(
        "{} batches; caught up in {:?}",
        state.batches,
        started.elapsed()
    );
    let log = cluster.log(away);
    let index = log.lines().rev().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let is_it = line["message"] == "installed a snapshot";
        is_it.then(|| line["index"].as_u64())?
    });
    let index = index.expect("the node says that it got a snapshot");
    assert!(
        index > had + KEEP_ENTRIES,
        "the snapshot ends at {index}, the node had {had}"
    );

    let nats = cluster.nats().await;
    let subject = format!("mufakat.node.{away}.lock.get.marker");
    crate::locks::acquire(&nats, "marker", "late", 60_000).await;
    let seen = crate::wire::request_until_ok(&nats, &subject, &serde_json::json!({})).await;
    assert_eq!(seen["holders"][0]["owner"], "late", "{seen}");
}

/// Every thousandth lock stays, so that the state is not empty.
async fn pair(client: &Client, number: usize) {
    let mut request = Acquire::new(format!("load-{number}"));
    request.ttl_ms = Some(3_600_000);
    let acquired = client.acquire(&request).await;
    let acquired = acquired.unwrap_or_else(|e| panic!("{request:?}: {e}"));
    if number.is_multiple_of(1000) {
        return;
    }
    let release = Release::new(acquired.resource, acquired.token);
    let released = client.release(&release).await;
    released.unwrap_or_else(|e| panic!("{release:?}: {e}"));
}
