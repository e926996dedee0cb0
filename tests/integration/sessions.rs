//! Sessions on a real cluster: kept alive through any node, over at once when they end, and what they
//! held goes on to the next.

use std::time::Duration;

use async_nats::Client;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::documented::Documented;
use crate::waiting::{Waiting, acquire};
use crate::{locks, wait, wire};

/// Asks once; the answer is as documented.
async fn ask(nats: &Client, operation: &str, body: &Value) -> Value {
    let subject = format!("mufakat.{operation}");
    let answer = wire::request(nats, &subject, body, wait::LONG).await;
    let answer = answer.expect("an answer");
    Documented::load().check_answer(operation, &answer);
    answer
}

async fn open(nats: &Client, ttl_ms: u64, lock_delay_ms: u64) -> String {
    let body =
        json!({"ttl_ms": ttl_ms, "lock_delay_ms": lock_delay_ms, "name": "w", "meta": {"a": 1}});
    let opened = ask(nats, "session.open", &body).await;
    assert_eq!(opened["keepalive_ms"], ttl_ms / 3, "{opened}");
    opened["session"].as_str().expect("an id").to_owned()
}

/// etcd#19597, and etcd#11456: a waiter whose session is dead goes on waiting, and is granted.
#[tokio::test]
async fn a_session_that_ends_ends_its_waits_and_hands_over_its_locks() {
    let mut cluster = Cluster::start(Options::default()).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let nats = cluster.nats().await;
    let (dies, lives) = (open(&nats, 1_000, 0).await, open(&nats, 600_000, 0).await);
    let with = |resource: &str, owner: &str, session: &str| {
        let mut request = acquire(resource, owner, "exclusive");
        request.as_object_mut().expect("a map").remove("ttl_ms");
        request["session"] = session.into();
        request
    };
    let held = ask(&nats, "lock.acquire", &with("a", "one", &dies)).await;
    assert_eq!(wire::code(&held), "ok", "{held}");
    assert!(held["expires_in_ms"].as_u64() <= Some(1_000), "{held}");
    ask(&nats, "lock.acquire", &with("b", "two", &lives)).await;
    let mut next = Waiting::start(&nats, follower, with("a", "two", &lives)).await;
    let mut dead = Waiting::start(&nats, leader, with("b", "three", &dies)).await;
    let seen = ask(&nats, "session.get", &json!({"session": dies})).await;
    assert_eq!(
        (&seen["held"], &seen["waiting"]),
        (&json!(1), &json!(1)),
        "{seen}"
    );
    assert_eq!(seen["waits"][0]["resource"], "b", "{seen}");

    // Nobody keeps it alive.
    let refused = dead.answer().await;
    assert_eq!(wire::code(&refused), "session_expired", "{refused}");
    next.granted().await;
    let kept = ask(&nats, "session.keepalive", &json!({"session": dies})).await;
    assert_eq!(wire::code(&kept), "session_expired", "{kept}");
    let late = ask(&nats, "lock.acquire", &with("c", "four", &dies)).await;
    assert_eq!(wire::code(&late), "session_expired", "{late}");
    let unknown = ask(&nats, "lock.acquire", &with("c", "four", "s")).await;
    assert_eq!(wire::code(&unknown), "session_not_found", "{unknown}");

    let kept = ask(&nats, "session.keepalive", &json!({"session": lives})).await;
    assert!(kept["expires_in_ms"].as_u64() > Some(590_000), "{kept}");
    let listed = ask(&nats, "session.list", &json!({"prefix": "w"})).await;
    assert_eq!(listed["sessions"][0]["session"], lives, "{listed}");
    assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(1));
    let closed = ask(&nats, "session.close", &json!({"session": lives})).await;
    assert_eq!(closed["released_count"], 2, "{closed}");
    assert!(locks::get(&nats, "a").await.holders.is_empty());
    cluster.state_hashes().await;
}

/// Consul's lock delay, kept in the state instead of a leader's memory: it survives the leader.
#[tokio::test]
async fn a_lock_delay_survives_the_leader() {
    let mut cluster = Cluster::start(Options::default()).await;
    let leader = cluster.all_follow().await;
    let nats = cluster.nats().await;
    let session = open(&nats, 600_000, 4_000).await;
    let body = json!({"resource": "a", "owner": "one", "session": session});
    ask(&nats, "lock.acquire", &body).await;
    let close = json!({"session": session, "reason": "it hangs"});
    ask(&nats, "admin.session.close", &close).await;
    let body = json!({"resource": "a", "owner": "two"});
    let refused = ask(&nats, "lock.acquire", &body).await;
    assert_eq!(wire::code(&refused), "lock_held", "{refused}");
    assert_eq!(refused["error"]["holders"], json!([]));
    assert!(
        refused["error"]["delay_ms"].as_u64() <= Some(4_000),
        "{refused}"
    );
    cluster.kill(leader);
    let started = std::time::Instant::now();
    let waits = json!({"resource": "a", "owner": "two", "wait_ms": 60_000, "request_id": "r"});
    let granted = wire::request_until_ok(&nats, "mufakat.lock.acquire", &waits).await;
    assert_eq!(granted["owner"], "two");
    println!(
        "granted {:?} after the leader was killed",
        started.elapsed()
    );
    assert!(granted["waited_ms"].as_u64() > Some(0), "{granted}");
}

/// Thousands of sessions are kept alive by few log entries.
#[tokio::test]
async fn many_keepalives_share_a_command() {
    const SESSIONS: usize = 300;
    let mut cluster = Cluster::start(Options::default()).await;
    let leader = cluster.all_follow().await;
    let nats = cluster.nats().await;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(open(&nats, 600_000, 0).await);
    }
    let before = cluster.state_hashes().await.batches;
    let mut pending = Vec::new();
    for session in &sessions {
        let subject = format!("mufakat.node.{leader}.session.keepalive");
        pending.push(wire::send(&nats, &subject, &json!({"session": session})).await);
    }
    for mut answer in pending {
        let answer = answer
            .answer(Duration::from_secs(20))
            .await
            .expect("an answer");
        assert_eq!(wire::code(&answer), "ok", "{answer}");
    }
    let entries = cluster.state_hashes().await.batches - before;
    println!("{SESSIONS} keepalives took {entries} log entries");
    assert!(entries < SESSIONS as u64 / 4, "{entries} entries");
}
