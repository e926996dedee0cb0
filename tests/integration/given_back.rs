//! A grant for a client that is gone goes to the next one at once, and only such a grant.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::cluster::{Cluster, Options};
use crate::process::Process;
use crate::waiting::{Events, Waiting, acquire};
use crate::{locks, programs, wait, wire};

/// A grant of `resource`, which `held` holds, goes past a client of `at` that is gone to the next one.
async fn goes_past_who_is_gone(cluster: &mut Cluster, at: &str, resource: &str) {
    let follower = cluster.follower().await;
    let nats = cluster.nats().await;
    let held = locks::acquire(&nats, resource, "one", 600_000).await;
    let gone = async_nats::connect(at).await.expect("a broker");
    let dead = Waiting::start(&gone, follower, acquire(resource, "gone", "exclusive")).await;
    let mut next = Waiting::start(&nats, follower, acquire(resource, "next", "exclusive")).await;
    drop(dead);
    gone.flush().await.expect("connected");
    drop(gone);
    let mut events = Events::watch(&nats).await;
    locks::release(&nats, resource, held).await;
    let token = next.granted().await;
    assert_eq!(token, held + 2, "one grant was given back");
    let mut reasons = Vec::new();
    while reasons.len() < 2 {
        let (kind, event) = events.next().await;
        if kind == "released" {
            reasons.push(event["reason"].as_str().map(str::to_owned));
        }
    }
    assert_eq!(reasons[1].as_deref(), Some("nobody heard of the grant"));
    // Who hears keeps what it got.
    assert_eq!(locks::get(&nats, resource).await.holders[0].token, token);
}

/// redisson#1104: a waiter that died blocks those behind it, here for the length of its lease.
#[tokio::test]
async fn a_grant_that_nobody_hears_of_is_given_back() {
    let mut cluster = Cluster::start(Options::default()).await;
    let url = cluster.nats_url();
    goes_past_who_is_gone(&mut cluster, &url, "r").await;
    cluster.state_hashes().await;
}

/// Between brokers it takes a moment until one knows who listens at the other, so that a broker
/// could say too early that nobody does. A client's request takes the same road after its
/// subscription, so the grant finds it.
#[tokio::test]
async fn across_brokers_only_what_nobody_hears_of_is_given_back() {
    let (routes, port) = (programs::free_port(), programs::free_port());
    let route = format!("nats://127.0.0.1:{routes}");
    let of_cluster = ["--cluster_name", "two", "--cluster"];
    let flags = of_cluster.into_iter().chain([route.as_str()]);
    let options = Options {
        broker_flags: flags.map(str::to_owned).collect(),
        ..Options::default()
    };
    let mut cluster = Cluster::start(options).await;
    let directory = TempDir::new().expect("a directory");
    let mut second = Command::new(programs::find("nats-server", "MUFAKAT_NATS_SERVER"));
    second
        .arg("-c")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("nats/dev.conf"))
        .args(["-a", "127.0.0.1", "-p", &port.to_string()])
        .args(of_cluster)
        .args([&format!("nats://127.0.0.1:{}", programs::free_port())])
        .args(["--routes", &route]);
    let log = directory.path().join("second.log");
    let _second = Process::start("the second broker", &mut second, &log);
    wait::listens("the second broker", port).await;
    let url = format!("nats://127.0.0.1:{port}");
    let nats = async_nats::connect(&url).await.expect("a broker");
    wait::until("requests cross the brokers", async || {
        let answer = nats.request("mufakat.status", "{}".into()).await;
        answer.ok()
    })
    .await;

    let follower = cluster.follower().await;
    for round in 0..20 {
        let resource = format!("live-{round}");
        let held = locks::acquire(&nats, &resource, "one", 600_000).await;
        // A connection and an inbox that the other broker has never heard of.
        let fresh = async_nats::connect(&url).await.expect("a broker");
        let request = acquire(&resource, "live", "exclusive");
        let mut live = Waiting::start(&fresh, follower, request).await;
        locks::release(&nats, &resource, held).await;
        let token = live.granted().await;
        // What would be given back would be so before the answer to a later command.
        locks::acquire(&nats, &format!("after-{round}"), "one", 600_000).await;
        let holders = locks::get(&nats, &resource).await.holders;
        assert_eq!(holders[0].token, token, "round {round}");
    }
    goes_past_who_is_gone(&mut cluster, &url, "r").await;
}

/// Nodes are back before their clients when a broker restarts: the clients are not gone.
#[tokio::test]
async fn a_client_that_comes_back_to_the_broker_after_the_nodes_finds_its_grant() {
    let mut cluster = Cluster::start(Options::default()).await;
    let follower = cluster.follower().await;
    let nats = cluster.nats().await;
    let held = locks::acquire(&nats, "r", "one", 600_000).await;
    let slow = async_nats::ConnectOptions::new()
        .reconnect_delay_callback(|_| Duration::from_secs(3))
        .connect(cluster.nats_url())
        .await
        .expect("a broker");
    let mut request = acquire("r", "slow", "exclusive");
    request["request_id"] = json!("id");
    let _waits = Waiting::start(&slow, follower, request.clone()).await;
    cluster.kill_broker();
    cluster.start_broker().await;
    cluster.all_follow().await;
    let nats = cluster.nats().await;
    locks::release(&nats, "r", held).await;
    let granted = locks::get(&nats, "r").await.holders;
    assert_eq!(granted[0].owner, "slow");
    // What would be given back would be so before the answer to a later command.
    locks::acquire(&nats, "after", "one", 600_000).await;
    let answer = wire::request_until_ok(&nats, "mufakat.lock.acquire", &request).await;
    assert_eq!(answer["token"], granted[0].token, "{answer}");
}
