//! Nodes start before what they need is there, and not where they do not fit.

use crate::cluster::{Cluster, Options};
use crate::{wait, wire};

use serde_json::json;

/// A test's own runtime is the current thread, as a node's is.
#[tokio::test]
async fn nodes_wait_for_broker_and_redis() {
    let options = Options {
        redis: true,
        ..Options::default()
    };
    let mut cluster = Cluster::prepare(options).await;
    cluster.start_all();
    // Nodes that gave up would be found ended by `all_follow`; here they have looked for a broker.
    for node in cluster.ids() {
        wait::until("a node has opened its data directory", async || {
            cluster
                .data_dir(node)
                .join("identity.json")
                .exists()
                .then_some(())
        })
        .await;
    }
    cluster.start_broker().await;
    cluster.all_follow().await;
    let nats = cluster.nats().await;
    let acquire = json!({"resource": "early"});
    let held = wire::request_until_ok(&nats, "mufakat.lock.acquire", &acquire).await;
    assert!(held["token"].as_u64() >= Some(1), "{held}");

    redis_connected(&cluster, false).await;
    cluster.start_redis().await;
    redis_connected(&cluster, true).await;
}

async fn redis_connected(cluster: &Cluster, connected: bool) {
    wait::until("all nodes see Redis as it is", async || {
        for node in cluster.ids() {
            let status = cluster.status(node).await?;
            (status.redis?.connected == connected).then_some(())?;
        }
        Some(())
    })
    .await;
}

/// It would look for values where the others keep none.
#[tokio::test]
async fn a_node_that_is_set_otherwise_than_those_that_run_does_not_start() {
    let mut cluster = Cluster::start(Options::default()).await;
    cluster.kill(2);
    cluster.set_flags(&["--cache-backups", "off"]);
    cluster.start_node(2);
    let ended = cluster.end(2).await;
    assert_eq!(ended.code(), Some(1), "{ended}");
    let log = cluster.log(2);
    let difference = "--cache-backups is `off` here and `on` on node";
    assert!(log.contains(difference), "{log}");

    cluster.set_flags(&[]);
    cluster.start_node(2);
    cluster.all_follow().await;

    // All at once is how it is changed.
    cluster.kill_all();
    cluster.set_flags(&["--cache-backups", "off"]);
    cluster.start_all();
    cluster.all_follow().await;
}

/// Some of them could found one cluster, and some another.
#[tokio::test]
async fn nodes_with_other_peers_found_nothing_until_all_have_the_same() {
    let mut cluster = Cluster::prepare(Options::default()).await;
    cluster.start_broker().await;
    cluster.start_as(1, "--peers=1,2");
    logged(&cluster, 1, "0 have answered").await;
    cluster.start_as(2, "--peers=2,3");
    cluster.start_as(3, "--peers=2,3");
    logged(
        &cluster,
        1,
        "of the nodes 1,2 (--peers), node 2 one of the nodes 2,3",
    )
    .await;
    for node in [2, 3] {
        let others = "of the nodes 2,3 (--peers), node 1 one of the nodes 1,2";
        logged(&cluster, node, others).await;
    }
    for node in cluster.ids() {
        assert!(!cluster.log(node).contains(FOUNDS));
        cluster.kill(node);
        cluster.start_as(node, "--peers=1,2,3");
    }
    cluster.all_follow().await;
}

/// Each would be a cluster of its own, and grant the same locks.
#[tokio::test]
async fn of_nodes_that_know_nothing_of_each_other_one_at_most_founds_a_cluster() {
    let mut cluster = Cluster::prepare(Options::default()).await;
    for node in cluster.ids() {
        cluster.start_as(node, &format!("--peers={node}"));
    }
    cluster.start_broker().await;
    wait::until("each node founds a cluster or says why not", async || {
        let is_decided =
            |log: String| log.contains(FOUNDS) || log.contains("no cluster is founded");
        let mut ids = cluster.ids().into_iter();
        ids.all(|node| is_decided(cluster.log(node))).then_some(())
    })
    .await;
    let founds = |node: &u64| cluster.log(*node).contains(FOUNDS);
    let founders: Vec<u64> = cluster.ids().into_iter().filter(founds).collect();
    assert!(founders.len() < 2, "{founders:?}");
}

/// What a node logs that founds a cluster.
const FOUNDS: &str = "initialising a new cluster";

async fn logged(cluster: &Cluster, node: u64, text: &str) {
    let what = format!("node {node} says {text:?}");
    let is_there = async || cluster.log(node).contains(text).then_some(());
    wait::until(&what, is_there).await;
}

/// `--peers` tells a node with whom to found a cluster: there is one, without it.
#[tokio::test]
async fn a_new_node_whose_peers_are_a_cluster_without_it_is_refused() {
    let mut cluster = Cluster::start(Options::default()).await;
    cluster.start_as(4, "--peers=1,2,3,4");
    let ended = cluster.end(4).await;
    let log = cluster.log(4);
    assert_eq!(ended.code(), Some(1), "{ended}: {log}");
    assert!(log.contains("no cluster is founded, since node"), "{log}");
    assert!(log.contains("mufakat cluster add 4"), "{log}");

    // A founder that was not there when the others began is in it.
    let mut cluster = Cluster::prepare(Options::default()).await;
    cluster.start_broker().await;
    cluster.start_all();
    logged(&cluster, 1, FOUNDS).await;
    cluster.kill(3);
    cluster.start_node(3);
    cluster.all_follow().await;
}
