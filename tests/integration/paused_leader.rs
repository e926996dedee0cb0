//! A leader that stalls long enough to be replaced, and then goes on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::{cache, locks, wait, wire};

const TTL_MS: u64 = 600_000;
const VALUES: usize = 150;
const SUSPICION: Duration = Duration::from_secs(1);
/// A lease that the new leader grants and that ends while the old one is back.
const SHORT_MS: u64 = 3_000;

#[tokio::test]
async fn the_old_leader_answers_nothing_stale() {
    let mut cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let old_token = locks::acquire(&nats, "moved", "before", TTL_MS).await;
    let old = cluster.all_follow().await;
    let old_term = cluster.status(old).await.expect("it runs").term;

    cluster.pause(old);
    let paused_at = Instant::now();
    // Common subjects still reach the paused node, so requests go to the others by name.
    let at = |node: u64, operation: &str| format!("mufakat.node.{node}.{operation}");
    let mut reads = Vec::new();
    for node in cluster.ids().into_iter().filter(|node| *node != old) {
        let get = json!({"resource": "moved"});
        reads.push(wire::send(&nats, &at(node, "lock.get"), &get).await);
    }
    let new = wait::until("a new leader", async || {
        for node in cluster.ids().into_iter().filter(|node| *node != old) {
            let status = cluster.status(node).await?;
            if status.term > old_term && status.leader.is_some_and(|leader| leader.0 != old) {
                return status.leader.map(|leader| leader.0);
            }
        }
        None
    })
    .await;
    println!(
        "node {new} leads {:?} after node {old} was paused",
        paused_at.elapsed()
    );

    // Reads that were on their way to the old leader are asked of the new one.
    for mut read in reads {
        let answer = read.answer(wait::LONG).await.expect("an answer");
        assert_eq!(wire::code(&answer), "ok", "{answer}");
        println!(
            "a read went to the new leader {:?} after the pause",
            paused_at.elapsed()
        );
    }
    let release = json!({"resource": "moved", "token": old_token});
    wire::request_until_ok(&nats, &at(new, "lock.release"), &release).await;
    let take = json!({"resource": "moved", "owner": "after", "ttl_ms": TTL_MS});
    let moved = wire::request_until_ok(&nats, &at(new, "lock.acquire"), &take).await;
    let token = moved["token"].as_u64().expect("a grant has a token");
    assert!(token > old_token, "token {token} follows {old_token}");
    let short_asked_at = Instant::now();
    let take = json!({"resource": "short", "ttl_ms": SHORT_MS});
    let short = wire::request_until_ok(&nats, &at(new, "lock.acquire"), &take).await;

    // These lie in front of the old leader when it wakes up, and it may handle them before it
    // hears of the new term.
    let check = json!({"resource": "moved", "token": old_token});
    let mut checks = Vec::new();
    let mut gets = Vec::new();
    for _ in 0..20 {
        checks.push(wire::send(&nats, &at(old, "lock.check"), &check).await);
        let get = json!({"resource": "moved"});
        gets.push(wire::send(&nats, &at(old, "lock.get"), &get).await);
    }
    let take = json!({"resource": "moved", "owner": "third", "ttl_ms": TTL_MS});
    let mut try_held = wire::send(&nats, &at(old, "lock.acquire"), &take).await;
    let take = json!({"resource": "fresh", "ttl_ms": TTL_MS});
    let mut try_free = wire::send(&nats, &at(old, "lock.acquire"), &take).await;
    nats.flush().await.expect("not closed");
    cluster.resume(old);

    for mut check in checks {
        let answer = check.answer(wait::LONG).await.expect("an answer");
        assert!(
            is_no_leader(&answer) || answer["valid"] == false,
            "stale: {answer}"
        );
    }
    for mut get in gets {
        let answer = get.answer(wait::LONG).await.expect("an answer");
        if !is_no_leader(&answer) {
            let holders = locks::seen(&answer).holders;
            let holders: Vec<_> = holders.iter().map(|h| (&*h.owner, h.token)).collect();
            assert_eq!(holders, [("after", token)], "stale: {answer}");
        }
    }
    let answer = try_held.answer(wait::LONG).await.expect("an answer");
    let code = wire::code(&answer);
    assert!(
        ["lock_held", "no_leader", "timeout", "indeterminate"].contains(&code),
        "{answer}"
    );
    let answer = try_free.answer(wait::LONG).await.expect("an answer");
    if let Some(fresh) = answer["token"].as_u64() {
        assert!(fresh > token, "token {fresh} was granted after {token}");
    }

    assert_eq!(cluster.all_follow().await, new, "the old leader steps down");
    lasts(&nats, &short, short_asked_at).await;
    cluster.state_hashes().await;
}

/// What a leader does not hear while it is stopped is no silence of others: they stay in the view, with all that
/// they keep. The stopped one is replaced and leaves; the second nodes have what it kept.
#[tokio::test]
async fn what_the_cache_keeps_outlives_a_leader_that_stalls() {
    for pause in [Duration::from_millis(1_300), Duration::from_secs(2)] {
        let mut cluster = Cluster::start(Options::default()).await;
        cache::all_hold(&cluster).await;
        let nats = cluster.nats().await;
        let keys: Vec<String> = (0..VALUES).map(|n| format!("key-{n}")).collect();
        for key in &keys {
            let set = json!({"key": key, "value": key});
            wire::request_until_ok(&nats, "mufakat.cache.set", &set).await;
        }
        let leader = cluster.all_follow().await;
        let healthy = cluster.ids().into_iter().find(|node| *node != leader);
        let healthy = healthy.expect("three nodes");

        cluster.pause(leader);
        tokio::time::sleep(pause).await;
        cluster.resume(leader);
        // Whoever would be thrown out is so once it is suspected and the change is made.
        tokio::time::sleep(SUSPICION + Duration::from_secs(1)).await;
        cluster.all_follow().await;
        cache::all_hold(&cluster).await;
        for key in &keys {
            let get = json!({"key": key});
            let get_at = format!("mufakat.node.{healthy}.cache.get");
            let found = wire::request_until_ok(&nats, &get_at, &get).await;
            assert_eq!(found["value"], **key, "after {pause:?}: {found}");
        }
    }
}

fn is_no_leader(answer: &Value) -> bool {
    wire::code(answer) == "no_leader"
}

/// The lease ends, and not before its length has passed since it was asked for.
async fn lasts(nats: &async_nats::Client, granted: &Value, asked_at: Instant) {
    let check = json!({"resource": "short", "token": granted["token"]});
    wait::until("the short lease ends", async || {
        let answer = wire::request_until_ok(nats, "mufakat.lock.check", &check).await;
        (answer["valid"] == false).then_some(())
    })
    .await;
    let lasted = asked_at.elapsed();
    println!("a lease of {SHORT_MS} ms lasted {lasted:?}");
    assert!(
        lasted >= Duration::from_millis(SHORT_MS),
        "it ended after {lasted:?}"
    );
}
