//! The leader dies while many wait.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::json;

use crate::cluster::{Cluster, Options};
use crate::wire::Pending;
use crate::{locks, wait, wire};

const WAITERS: usize = 100;

/// Each waiter asked once, before the leader was killed, and is granted in its turn.
///
/// redisson#4822: after a failover one client alone ever got the lock, all others waited for ever.
#[tokio::test]
async fn every_waiter_is_granted_in_its_turn() {
    let mut cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let held = json!({"resource": "one", "owner": "first", "ttl_ms": 600_000});
    let first = wire::request_until_ok(&nats, "mufakat.lock.acquire", &held).await;

    let mut waiters: BTreeMap<String, Pending> = BTreeMap::new();
    for number in 0..WAITERS {
        let owner = format!("waiter-{number}");
        let wait = json!({
            "resource": "one", "owner": owner, "ttl_ms": 600_000, "wait_ms": 60_000,
        });
        let pending = wire::send(&nats, "mufakat.lock.acquire", &wait).await;
        waiters.insert(owner, pending);
    }
    let queue = wait::until("all wait", async || {
        let queue = locks::get(&nats, "one").await.waiters;
        (queue.len() == WAITERS).then_some(queue)
    })
    .await;

    let leader = cluster.leader().await;
    let killed_at = Instant::now();
    cluster.kill(leader);
    let mut token = first["token"].as_u64().expect("a grant has a token");
    locks::release(&nats, "one", token).await;
    println!(
        "released {:?} after the leader was killed",
        killed_at.elapsed()
    );
    for (place, owner) in queue.iter().enumerate() {
        let pending = waiters.get_mut(owner).expect("all in the queue wait here");
        let granted = pending.answer(wait::LONG).await;
        let granted = granted.unwrap_or_else(|| panic!("{owner}, at place {place}, got nothing"));
        if place == 0 {
            println!(
                "granted {:?} after the leader was killed",
                killed_at.elapsed()
            );
        }
        assert_eq!(wire::code(&granted), "ok", "{owner}: {granted}");
        assert_eq!(granted["owner"].as_str(), Some(&**owner));
        let next = granted["token"].as_u64().expect("a grant has a token");
        assert!(next > token, "token {next} of {owner} follows {token}");
        token = next;
        locks::release(&nats, "one", token).await;
    }
    println!("all {WAITERS} granted {:?} after", killed_at.elapsed());
    let end = locks::get(&nats, "one").await;
    assert!(end.holders.is_empty() && end.waiters.is_empty(), "{end:?}");
    cluster.start_node(leader);
    cluster.all_follow().await;
    cluster.state_hashes().await;
}

/// The grant is committed, and the leader dies before anybody can be sure that it told.
#[tokio::test]
async fn a_grant_is_told_though_the_leader_dies_at_once() {
    let mut cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let mut last = 0;
    for round in 0..3 {
        let resource = format!("handover-{round}");
        let held = json!({"resource": resource, "ttl_ms": 600_000});
        let held = wire::request_until_ok(&nats, "mufakat.lock.acquire", &held).await;
        let token = held["token"].as_u64().expect("a grant has a token");
        assert!(token > last, "token {token} follows {last}");
        let wait = json!({"resource": resource, "ttl_ms": 600_000, "wait_ms": 60_000});
        let mut waiter = wire::send(&nats, "mufakat.lock.acquire", &wait).await;
        wait::until("it waits", async || {
            let waiters = locks::get(&nats, &resource).await.waiters;
            (waiters.len() == 1).then_some(())
        })
        .await;
        let leader = cluster.all_follow().await;
        let release = json!({"resource": resource, "token": token});
        // Nothing is waited for between the release and the kill, so that the leader may die
        // before the release is committed, after it, or after the waiter was told.
        let _answer = wire::send(&nats, "mufakat.lock.release", &release).await;
        nats.flush().await.expect("not closed");
        cluster.kill(leader);
        locks::release_again(&nats, &resource, token).await;
        let granted = waiter.answer(wait::LONG).await.expect("the waiter is told");
        assert_eq!(wire::code(&granted), "ok", "{granted}");
        last = granted["token"].as_u64().expect("a grant has a token");
        assert!(last > token, "token {last} follows {token}");
        cluster.start_node(leader);
    }
}

/// The release reaches the followers' logs, and the leader dies before any of them can say so: the
/// grant is committed by the next leader, which alone can tell of it.
#[tokio::test]
async fn a_grant_that_the_next_leader_commits_is_told() {
    let mut cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let token = locks::acquire(&nats, "left", "holder", 600_000).await;
    let wait = json!({"resource": "left", "owner": "waiter", "wait_ms": 60_000});
    let mut waiter = wire::send(&nats, "mufakat.lock.acquire", &wait).await;
    wait::until("it waits", async || {
        let waiters = locks::get(&nats, "left").await.waiters;
        (waiters == ["waiter"]).then_some(())
    })
    .await;
    let leader = cluster.all_follow().await;
    let followers: Vec<u64> = cluster
        .ids()
        .into_iter()
        .filter(|id| *id != leader)
        .collect();
    for follower in &followers {
        cluster.pause(*follower);
    }
    // Entries that only carry time make the log longer too, so commands are counted as well.
    let logged = async || {
        let commands = cluster.metric(leader, "mufakat_raft_batch_commands_sum");
        let last = cluster.metric(leader, "mufakat_raft_last_log_index");
        Some((commands.await?, last.await?))
    };
    let before = logged().await.expect("the leader answers");
    let release = json!({"resource": "left", "token": token});
    let subject = format!("mufakat.node.{leader}.lock.release");
    let _unanswered = wire::send(&nats, &subject, &release).await;
    wait::until("the release is in the leader's log", async || {
        let now = logged().await?;
        (now.0 > before.0 && now.1 > before.1).then_some(())
    })
    .await;
    cluster.kill(leader);
    let killed_at = Instant::now();
    for follower in &followers {
        cluster.resume(*follower);
    }
    let granted = waiter.answer(wait::LONG).await.expect("the waiter is told");
    println!("told {:?} after the leader was killed", killed_at.elapsed());
    assert_eq!(wire::code(&granted), "ok", "{granted}");
    assert!(granted["token"].as_u64() > Some(token), "{granted}");
}
