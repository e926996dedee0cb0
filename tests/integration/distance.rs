//! Hosts that are far from each other: between each node and the broker messages take their time, each
//! direction its own, and now and then so long that the others take a node for dead. The same clients as under
//! chaos work meanwhile, and what they saw is checked in the same way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Options};
use crate::dice::Dice;
use crate::{cache_chaos, chaos, queue_chaos};

/// Between hosts of a region: two links, so twice this from node to node.
const NEAR_MS: u64 = 10;
/// Longer than the longest silence before an election, and than a lease on the view.
const FAR_MS: u64 = 1_200;
/// Who is far loses its lease on the view, and its place in it.
const FLAGS: [&str; 4] = ["--view-lease", "1s", "--suspicion", "800ms"];

async fn distant_cluster(redis: bool) -> Cluster {
    let options = Options {
        redis,
        ..Options::flags(&FLAGS)
    };
    let mut cluster = Cluster::prepare(options).await;
    cluster.start_broker().await;
    if redis {
        cluster.start_redis().await;
    }
    cluster.add_links().await;
    settle(&cluster);
    cluster.start_all();
    cluster.all_follow().await;
    cluster
}

/// The usual distance.
fn settle(cluster: &Cluster) {
    for node in cluster.ids() {
        cluster.link(node).set_delays(NEAR_MS, NEAR_MS);
    }
}

/// Moves hosts about, each way in its turn, and leaves some time in peace.
async fn disturb(cluster: &mut Cluster, dice: &Dice, turn: usize) -> &'static str {
    let node = 1 + dice.below(cluster.ids().len() as u64);
    let far = match turn % 4 {
        0 => {
            cluster.link(node).set_delays(FAR_MS, NEAR_MS);
            "one node is heard late"
        }
        1 => {
            cluster.link(node).set_delays(NEAR_MS, FAR_MS);
            "one node hears late"
        }
        2 => {
            cluster.link(node).set_delays(FAR_MS, FAR_MS);
            "one node is far away"
        }
        _ => {
            for node in cluster.ids() {
                cluster
                    .link(node)
                    .set_delays(dice.below(100), dice.below(100));
            }
            "each node is somewhere else"
        }
    };
    tokio::time::sleep(Duration::from_millis(1_500 + dice.below(1_500))).await;
    settle(cluster);
    tokio::time::sleep(Duration::from_millis(1_000 + dice.below(1_000))).await;
    far
}

#[tokio::test]
async fn distant_hosts_leave_locks_exclusive() {
    let mut cluster = distant_cluster(false).await;
    let mut turns = 0..;
    chaos::history_is_that_of_locks(&mut cluster, async |cluster, dice| {
        let turn = turns.next().expect("it has no end");
        println!("{}", disturb(cluster, dice, turn).await);
    })
    .await;
    cluster.all_follow().await;
}

#[tokio::test]
async fn distant_hosts_leave_every_key_linearizable() {
    let mut cluster = distant_cluster(false).await;
    let (operations, local) =
        cache_chaos::leaves_every_key_linearizable(&mut cluster, disturb).await;
    assert!(operations > 100 && local > 10, "there was hardly any load");
    cluster.all_follow().await;
}

#[tokio::test]
async fn distant_hosts_lose_and_invent_no_message() {
    let mut cluster = distant_cluster(true).await;
    queue_chaos::loses_and_invents_nothing(
        &mut cluster,
        queue_chaos::BRIEFLY,
        async |cluster, until| {
            let dice = Dice::roll();
            let mut turns = BTreeMap::new();
            for turn in 0.. {
                *turns
                    .entry(disturb(cluster, &dice, turn).await)
                    .or_default() += 1;
                if Instant::now() > until {
                    break;
                }
            }
            turns
        },
    )
    .await;
    cluster.all_follow().await;
}
