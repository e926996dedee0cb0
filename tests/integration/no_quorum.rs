//! One node of three is left: nothing can be decided, and nothing is lost.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::{Cluster, Options};
use crate::{http, locks, wait, wire};

/// A lease that would end several times over while there is no quorum.
const SHORT_MS: u64 = 2_500;
const LONG_MS: u64 = 600_000;
/// How long a client waits for each answer.
const TIMEOUT_MS: u64 = 3_000;
/// An answer at the deadline may be late by what a busy machine takes.
const LATE_MAX: Duration = Duration::from_secs(3);
/// Without a quorum, longer than the short lease and the grace of a new leader.
const ALONE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_leader_left_alone_decides_nothing() {
    without_quorum(true).await;
}

#[tokio::test]
async fn a_follower_left_alone_decides_nothing() {
    without_quorum(false).await;
}

async fn without_quorum(leader_stays: bool) {
    let mut cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let kept = locks::acquire(&nats, "kept", "holder", LONG_MS).await;
    let leader = cluster.all_follow().await;
    let left = if leader_stays {
        leader
    } else {
        cluster.follower().await
    };
    let subject = format!("mufakat.node.{left}.lock.acquire");
    let wait_early = json!({
        "resource": "kept", "owner": "early", "wait_ms": 1_000, "timeout_ms": TIMEOUT_MS,
    });
    let early = wire::send(&nats, &subject, &wait_early).await;
    wait::until("it waits", async || {
        let waiters = locks::get(&nats, "kept").await.waiters;
        (waiters == ["early"]).then_some(())
    })
    .await;
    let short = locks::acquire(&nats, "short", "holder", SHORT_MS).await;
    let early_asked_at = Instant::now();
    for node in cluster.ids().into_iter().filter(|node| *node != left) {
        cluster.kill(node);
    }
    let killed_at = Instant::now();

    let bodies = [
        ("lock.acquire", json!({"resource": "free"})),
        (
            "lock.acquire",
            json!({"resource": "kept", "owner": "late", "wait_ms": 1_000}),
        ),
        ("lock.release", json!({"resource": "kept", "token": kept})),
        ("lock.get", json!({"resource": "kept"})),
        ("lock.check", json!({"resource": "kept", "token": kept})),
    ];
    let asked = bodies.map(|(operation, mut body)| {
        body["timeout_ms"] = TIMEOUT_MS.into();
        let nats = &nats;
        async move {
            let subject = format!("mufakat.node.{left}.{operation}");
            let pending = wire::send(nats, &subject, &body).await;
            undecided(operation, pending, Instant::now()).await;
        }
    });
    futures_util::future::join_all(asked).await;
    // Its end cannot be decided either, though its place in the queue is in the log.
    undecided("the early wait", early, early_asked_at).await;

    // Time without a quorum is what this is about.
    tokio::time::sleep(ALONE.saturating_sub(killed_at.elapsed())).await;
    cluster.start_all();
    let holders = locks::get(&nats, "short").await.holders;
    println!("served {:?} after the quorum was lost", killed_at.elapsed());
    let tokens: Vec<u64> = holders.iter().map(|holder| holder.token).collect();
    assert_eq!(
        tokens,
        [short],
        "lease time stood still, so the short lease still runs"
    );
    cluster.all_follow().await;
    let state = locks::get(&nats, "kept").await;
    // The release may have been kept by the log of a leader left alone: then it took effect.
    let known = |holder: &locks::Held| holder.token >= kept;
    assert!(state.holders.iter().all(known), "{state:?}");
    locks::acquire(&nats, "afterwards", "holder", LONG_MS).await;
    cluster.state_hashes().await;
}

/// An answer by the deadline, which says neither yes nor no.
async fn undecided(operation: &str, mut pending: wire::Pending, asked_at: Instant) {
    let answer = pending
        .answer(Duration::from_millis(TIMEOUT_MS) + LATE_MAX)
        .await;
    let answer = answer.unwrap_or_else(|| panic!("{operation}: no answer by its deadline"));
    println!(
        "{operation}: {} after {:?}",
        wire::code(&answer),
        asked_at.elapsed()
    );
    let code = wire::code(&answer);
    assert!(
        ["indeterminate", "timeout", "no_leader"].contains(&code),
        "{answer}"
    );
}

#[tokio::test]
async fn a_follower_left_alone_knows_of_no_leader() {
    /// So long some clients wait, and longer than a late answer takes others.
    const PATIENCE_MS: [u64; 2] = [500, 9_000];
    let mut cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let token = locks::acquire(&nats, "kept", "holder", LONG_MS).await;
    let open = json!({"ttl_ms": 60_000});
    let session = wire::request_until_ok(&nats, "mufakat.session.open", &open).await;
    let left = cluster.follower().await;
    for node in cluster.ids().into_iter().filter(|node| *node != left) {
        cluster.kill(node);
    }
    wait::until("no leader is known", async || {
        let status = cluster.status(left).await?;
        status.leader.is_none().then_some(())
    })
    .await;
    let ready = http::get(&cluster, left, "/readyz").await;
    assert_eq!(ready, Some((503, "no leader is known\n".to_owned())));

    let bodies = [
        ("lock.acquire", json!({"resource": "free"})),
        ("lock.release", json!({"resource": "kept", "token": token})),
        (
            "lock.cancel",
            json!({"resource": "kept", "request_id": "r"}),
        ),
        ("session.open", json!({"ttl_ms": 60_000})),
        ("session.keepalive", json!({"session": session["session"]})),
        ("session.keepalive", json!({"session": session["session"]})),
    ];
    let asked = bodies
        .iter()
        .flat_map(|asked| PATIENCE_MS.map(|ms| (asked, ms)));
    let asked = asked.map(|((operation, body), timeout_ms)| {
        let (nats, mut body) = (&nats, body.clone());
        body["timeout_ms"] = timeout_ms.into();
        async move {
            let subject = format!("mufakat.node.{left}.{operation}");
            let asked_at = Instant::now();
            let limit = Duration::from_millis(timeout_ms) + LATE_MAX;
            let answer = wire::request(nats, &subject, &body, limit).await;
            let answer = answer.unwrap_or_else(|| panic!("{operation}: none by {timeout_ms} ms"));
            println!(
                "{operation} in {timeout_ms} ms: after {:?}",
                asked_at.elapsed()
            );
            assert_eq!(wire::code(&answer), "no_leader", "{operation}: {answer}");
            assert!(answer["ask_node"].is_null(), "{answer}");
        }
    });
    futures_util::future::join_all(asked).await;
    let said = cluster.log(left).matches("the leader is gone").count();
    assert!(said <= 1, "it is said {said} times");

    cluster.start_all();
    cluster.all_follow().await;
    let holders = locks::get(&nats, "kept").await.holders;
    assert_eq!(holders[0].token, token);
}

#[tokio::test]
async fn a_majority_whose_leader_is_heard_again_serves_again() {
    let mut cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let leader = cluster.all_follow().await;
    let left = cluster.follower().await;
    let third = cluster
        .ids()
        .into_iter()
        .find(|node| ![leader, left].contains(node));
    cluster.kill(third.expect("there are three"));
    cluster.pause(leader);
    wait::until("no sign of the leader", async || {
        let status = cluster.status(left).await?;
        status.leader.is_none().then_some(())
    })
    .await;
    cluster.resume(leader);
    let leads = wait::until("it is heard again", async || {
        cluster.status(left).await?.leader
    })
    .await;
    assert!(
        [leader, left].contains(&leads.0),
        "node {leads} leads, which is dead"
    );
    let acquire = format!("mufakat.node.{left}.lock.acquire");
    let body = json!({"resource": "free", "owner": "o"});
    wire::request_until_ok(&nats, &acquire, &body).await;
}

#[tokio::test]
async fn a_second_signal_ends_a_node_that_still_drains() {
    let mut cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let left = cluster.follower().await;
    for node in cluster.ids() {
        if node != left {
            cluster.kill(node);
        }
    }
    // Without a quorum it is held, so that there is something to drain.
    let subject = format!("mufakat.node.{left}.lock.acquire");
    let body = json!({"resource": "held", "timeout_ms": 30_000});
    let _held = wire::send(&nats, &subject, &body).await;
    wire::request_until_ok(&nats, &format!("mufakat.node.{left}.status"), &json!({})).await;
    cluster.tell_to_stop(left);
    let log = cluster.log_path(left);
    wait::until("the node drains", async || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.contains("stopping: handing over").then_some(())
    })
    .await;
    cluster.tell_to_stop(left);
    let ended = cluster.end(left).await;
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(
        cluster
            .log(left)
            .contains("stopped at once by a second signal")
    );
}
