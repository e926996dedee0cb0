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
