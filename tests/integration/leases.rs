//! Leases: a holder that goes silent loses the lock to the next one, a holder that renews keeps it.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::{Cluster, Options};
use crate::waiting::{Events, Waiting, acquire};
use crate::{locks, wait, wire};

const TTL_MS: u64 = 1_500;

#[tokio::test]
async fn a_lease_that_runs_out_hands_the_lock_over() {
    let mut cluster = Cluster::start(Options::default()).await;
    let follower = cluster.follower().await;
    let nats = cluster.nats().await;
    let mut events = Events::watch(&nats).await;
    let asked_at = Instant::now();
    let first = locks::acquire(&nats, "l", "silent", TTL_MS).await;
    let mut next = Waiting::start(&nats, follower, acquire("l", "next", "exclusive")).await;
    let token = next.granted().await;
    let handed_over = asked_at.elapsed();
    println!("a lease of {TTL_MS} ms was handed over after {handed_over:?}");
    assert!(handed_over >= Duration::from_millis(TTL_MS), "cut short");
    assert!(handed_over < Duration::from_secs(10), "{handed_over:?}");
    assert!(token > first);
    let late = json!({"resource": "l", "token": first});
    for verb in ["renew", "release"] {
        let subject = format!("mufakat.lock.{verb}");
        let answer = wire::request(&nats, &subject, &late, crate::wait::LONG).await;
        assert_eq!(wire::code(&answer.expect("an answer")), "not_holder");
    }
    let checked = wire::request_until_ok(&nats, "mufakat.lock.check", &late).await;
    assert_eq!(checked["valid"], false);
    assert_eq!(checked["current_token"], token);
    events
        .expect(&[
            ("granted", "l", "silent"),
            ("contended", "l", "next"),
            ("expired", "l", "silent"),
            ("granted", "l", "next"),
        ])
        .await;
}

#[tokio::test]
async fn a_lease_that_is_renewed_goes_on() {
    let cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    // Long against what a renewal takes on a busy machine.
    let ttl_ms = 4 * TTL_MS;
    let token = locks::acquire(&nats, "k", "keeper", ttl_ms).await;
    let renew = json!({"resource": "k", "token": token});
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(ttl_ms + TTL_MS) {
        let renewed = wire::request_until_ok(&nats, "mufakat.lock.renew", &renew).await;
        let left = renewed["expires_in_ms"].as_u64().expect("a number");
        assert!(left <= ttl_ms && left > ttl_ms / 2, "{left}");
        wait::until("a part of the lease is used up", async || {
            let left_ms = locks::get(&nats, "k").await.holders[0].expires_in_ms;
            (left_ms + TTL_MS / 5 <= ttl_ms).then_some(())
        })
        .await;
    }
    let longer = json!({"resource": "k", "token": token, "ttl_ms": 500_000});
    wire::request_until_ok(&nats, "mufakat.lock.renew", &longer).await;
    let seen = locks::get(&nats, "k").await;
    assert_eq!(seen.holders[0].token, token);
    assert!(seen.holders[0].expires_in_ms > 400_000, "{seen:?}");
    locks::release(&nats, "k", token).await;
}
