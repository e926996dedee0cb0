//! All nodes die at once and come back.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::{Cluster, Options};
use crate::locks::{self, Seen};
use crate::{wait, wire};

const TTL_MS: u64 = 120_000;
/// How much of a lease is used up before the nodes die: more than what [`LOST_MS_MAX`] gives back.
const USED_MS: u64 = 4_000;
/// Lease time that reached no log: the clock is logged every 0.4 s, later on a busy machine.
const LOST_MS_MAX: u64 = 2_000;
/// How long all nodes are down, which no lease may notice.
const DOWN: Duration = Duration::from_secs(3);

#[tokio::test]
async fn locks_leases_waiters_and_tokens_survive() {
    let mut cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let mut tokens = Vec::new();
    for number in 0..20 {
        let resource = format!("kept-{number}");
        tokens.push((
            locks::acquire(&nats, &resource, "holder", TTL_MS).await,
            resource,
        ));
    }
    let mut waiters = Vec::new();
    for number in 0..5 {
        let owner = format!("waiter-{number}");
        let wait = json!({
            "resource": "kept-0", "owner": owner, "ttl_ms": TTL_MS, "wait_ms": 60_000,
        });
        waiters.push(wire::send(&nats, "mufakat.lock.acquire", &wait).await);
        wait::until("it waits", async || {
            let waiters = locks::get(&nats, "kept-0").await.waiters;
            (waiters.len() == number + 1).then_some(())
        })
        .await;
    }
    wait::until("some of the leases is used up", async || {
        let left_ms = locks::get(&nats, "kept-19").await.holders[0].expires_in_ms;
        (left_ms <= TTL_MS - USED_MS).then_some(())
    })
    .await;
    let before = all(&nats, &tokens).await;

    cluster.kill_all();
    // Time in which nobody leads is what this is about.
    tokio::time::sleep(DOWN).await;
    let restarted_at = Instant::now();
    cluster.start_all();
    let after = all(&nats, &tokens).await;
    let running = restarted_at.elapsed();
    println!(
        "all {} locks read {running:?} after the restart",
        tokens.len()
    );
    for (before, after) in before.iter().zip(&after) {
        same_but_time(before, after, running);
    }

    let (mut token, _) = tokens[0];
    let newest = tokens.iter().map(|(token, _)| *token).max();
    assert!(locks::acquire(&nats, "new", "holder", TTL_MS).await > newest.expect("some"));
    for (number, waiter) in waiters.iter_mut().enumerate() {
        locks::release(&nats, "kept-0", token).await;
        let granted = waiter
            .answer(wait::LONG)
            .await
            .expect("granted in its turn");
        assert_eq!(wire::code(&granted), "ok", "{granted}");
        assert_eq!(granted["owner"], format!("waiter-{number}"));
        let next = granted["token"].as_u64().expect("a grant has a token");
        assert!(next > token, "token {next} follows {token}");
        token = next;
    }
    cluster.all_follow().await;
    cluster.state_hashes().await;
}

async fn all(nats: &async_nats::Client, tokens: &[(u64, String)]) -> Vec<Seen> {
    let mut all = Vec::new();
    for (_, resource) in tokens {
        all.push(locks::get(nats, resource).await);
    }
    all
}

/// The same holders and waiters; of the lease went no more than the time since the restart, and
/// no more came back than may have been lost.
fn same_but_time(before: &Seen, after: &Seen, running: Duration) {
    assert_eq!(before.waiters, after.waiters);
    assert_eq!(before.holders.len(), 1, "{before:?}");
    assert_eq!(after.holders.len(), 1, "{after:?}");
    let (before, after) = (&before.holders[0], &after.holders[0]);
    assert_eq!((&before.owner, before.token), (&after.owner, after.token));
    let running_ms = running.as_millis() as u64;
    assert!(
        after.expires_in_ms + running_ms + 500 >= before.expires_in_ms,
        "a lease is shorter by more than the {running_ms} ms that nodes ran: {before:?} {after:?}"
    );
    assert!(
        after.expires_in_ms <= before.expires_in_ms + LOST_MS_MAX,
        "a lease began anew: {before:?} {after:?}"
    );
}
