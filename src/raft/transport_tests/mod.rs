//! Openraft over the simulated broker: elections, replication, faults, snapshots, refusals.
//!
//! The seed decides what the network does; openraft draws its election timeouts by itself.

mod cluster;
mod refusals;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;

use self::cluster::Cluster;
use super::network::Counters;
use crate::broker::simulated::Faults;
use crate::ids::NodeId;
use crate::time::now;

const ALL: [u64; 3] = [1, 2, 3];
const ALL_IDS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

#[tokio::test(start_paused = true)]
async fn three_nodes_elect_a_leader_and_apply_the_same() {
    let mut cluster = Cluster::of_three(1).await;
    cluster.write(&ALL, 100, 1000).await;
    let applied = cluster.applied_everywhere(&ALL, 100).await;
    assert_eq!(applied, (1..=100).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_bad_network_changes_nothing_but_the_time_it_takes() {
    for seed in 10..15 {
        let mut cluster = Cluster::of_three(seed).await;
        cluster.broker.set_faults(Faults {
            drop: 0.1,
            duplicate: 0.1,
            reorder: 0.1,
            ..Faults::NONE
        });
        for round in 1..=10 {
            cluster.write(&ALL, 20, 1000).await;
            tokio::time::sleep(Duration::from_millis(50 * round)).await;
        }
        let count = |counter: fn(&Counters) -> &AtomicU64| {
            let of = |node| counter(cluster.nodes[node].network.counters()).load(Ordering::Relaxed);
            ALL.iter().map(of).sum::<u64>()
        };
        assert!(
            count(|c| &c.gaps) > 0 && count(|c| &c.repeated) > 0,
            "the faults did nothing"
        );

        // Whatever a leader took while it led is either nowhere or everywhere in its place.
        cluster.broker.set_faults(Faults::NONE);
        cluster.write(&ALL, 1, 1000).await;
        let last = cluster.written();
        cluster
            .until("the last batch", || {
                cluster.has_applied(1, last).then_some(())
            })
            .await;
        let applied = cluster.applied_everywhere(&ALL, 150).await;
        assert!(
            applied.is_sorted_by(|a, b| a < b),
            "seed {seed}: {applied:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_partitioned_leader_is_replaced_and_refused() {
    let mut cluster = Cluster::of_three(2).await;
    let old = cluster.leader_among(&ALL).await;
    let rest: Vec<u64> = ALL.into_iter().filter(|node| *node != old).collect();
    let old_term = cluster.term(old);
    cluster.write(&ALL, 10, 100).await;
    cluster.applied_everywhere(&ALL, 10).await;

    cluster.broker.isolate(NodeId(old), &ALL_IDS);
    // Its lease is still valid, so that it takes these into its log, for nothing.
    cluster.write_through(old, 5, 100).await;
    let new = cluster.write(&rest, 10, 100).await;
    assert!(cluster.term(new) > old_term);
    let applied = cluster.applied_everywhere(&rest, 20).await;
    assert!(
        !applied.contains(&11),
        "what the old leader took alone is committed nowhere"
    );
    assert_eq!(cluster.recorders[&old].0.lock().unwrap().numbers.len(), 10);

    cluster.broker.heal();
    assert_eq!(cluster.leader_among(&ALL).await, new);
    assert_eq!(cluster.applied_everywhere(&ALL, 20).await, applied);
}

#[tokio::test(start_paused = true)]
async fn an_isolated_follower_raises_no_term() {
    let mut cluster = Cluster::of_three(3).await;
    let leader = cluster.leader_among(&ALL).await;
    let term = cluster.term(leader);
    let alone = ALL.into_iter().find(|node| *node != leader).unwrap();
    cluster.broker.isolate(NodeId(alone), &ALL_IDS);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(cluster.term(alone), term);
    cluster.broker.heal();
    cluster.write(&ALL, 10, 100).await;
    cluster.applied_everywhere(&ALL, 10).await;
    assert_eq!(cluster.leader_among(&ALL).await, leader);
    assert!(ALL.iter().all(|node| cluster.term(*node) == term));
}

/// The half that openraft would grant by itself: one that hears nothing but is heard.
#[tokio::test(start_paused = true)]
async fn a_deaf_follower_asks_in_vain() {
    let cluster = Cluster::of_three(4).await;
    let leader = cluster.leader_among(&ALL).await;
    let term = cluster.term(leader);
    let deaf = ALL.into_iter().find(|node| *node != leader).unwrap();
    cluster.broker.cut(NodeId(leader), NodeId(deaf));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(ALL.iter().all(|node| cluster.term(*node) == term));
    cluster.broker.heal();
    assert_eq!(cluster.leader_among(&ALL).await, leader);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_catches_up_by_snapshot() {
    for (seed, drop) in [(5, 0.0), (6, 0.1)] {
        let mut cluster = Cluster::of_three(seed).await;
        let leader = cluster.leader_among(&ALL).await;
        let away = ALL.into_iter().find(|node| *node != leader).unwrap();
        let here: Vec<u64> = ALL.into_iter().filter(|node| *node != away).collect();
        cluster.crash(away).await;
        cluster.write(&here, 40, 100_000).await;
        let applied = cluster.applied_everywhere(&here, 40).await;

        let raft = cluster.nodes[&leader].raft.clone();
        raft.trigger().snapshot().await.unwrap();
        cluster
            .until("the log to be purged", || {
                raft.metrics().borrow_watched().purged.map(|_| ())
            })
            .await;
        cluster.broker.set_faults(Faults {
            drop,
            reorder: drop,
            duplicate: drop,
            ..Faults::NONE
        });
        cluster.start(away).await;
        assert_eq!(cluster.applied_everywhere(&ALL, 40).await, applied);
        let installed = cluster.recorders[&away]
            .0
            .lock()
            .unwrap()
            .snapshots_installed;
        assert!(installed > 0, "it came by the log");
        cluster.broker.set_faults(Faults::NONE);
        cluster.write(&ALL, 1, 10).await;
        cluster.applied_everywhere(&ALL, 41).await;
    }
}

/// Ten requests, one at a time, would take ten round trips.
#[tokio::test(start_paused = true)]
async fn appends_do_not_wait_for_each_other() {
    let mut cluster = Cluster::of_three(30).await;
    let leader = cluster.leader_among(&ALL).await;
    let delay = Duration::from_millis(30);
    let faults = Faults {
        delay_min: delay,
        delay_max: delay,
        ..Faults::NONE
    };
    cluster.broker.set_faults(faults);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = now();
    cluster.write_through(leader, 160, 100).await;
    cluster
        .until("the commit", || {
            cluster.has_applied(leader, 160).then_some(())
        })
        .await;
    assert!(start.elapsed() < 4 * delay, "took {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn crashes_in_turn_lose_nothing_that_was_applied() {
    let mut cluster = Cluster::of_three(31).await;
    for round in 0..6 {
        let leader = cluster.write(&ALL, 20, 1000).await;
        let last = cluster.written();
        cluster
            .until("the commit", || {
                cluster.has_applied(leader, last).then_some(())
            })
            .await;
        cluster.write_through(leader, 5, 1000).await;
        let dead = if round % 2 == 0 {
            leader
        } else {
            round % 3 + 1
        };
        cluster.crash(dead).await;
        let rest: Vec<u64> = ALL.into_iter().filter(|node| *node != dead).collect();
        cluster.leader_among(&rest).await;
        cluster.start(dead).await;
        let applied = cluster
            .applied_everywhere(&ALL, 20 * (round as usize + 1))
            .await;
        assert!((0..=round).all(|past| (1..=20).all(|n| applied.contains(&(past * 25 + n)))));
    }
}
