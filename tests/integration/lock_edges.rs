//! Requests about locks at the edges of what they may ask: more than an answer holds, names that stand for
//! others, waits that are longer than their client's patience.

use std::time::{Duration, Instant};

use async_nats::Client;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::documented::Documented;
use crate::waiting::{Waiting, acquire};
use crate::{locks, wait, wire};

/// Asks once at a subject of an operation; the answer is as documented.
async fn ask_at(
    nats: &Client,
    (node, operation, suffix): (u64, &str, &str),
    body: &Value,
) -> Value {
    let subject = format!("mufakat.node.{node}.{operation}{suffix}");
    let answer = wire::request(nats, &subject, body, wait::LONG).await;
    let answer = answer.unwrap_or_else(|| panic!("no answer to {subject}"));
    Documented::load().check_answer(operation, &answer);
    answer
}

fn message(answer: &Value) -> &str {
    answer["error"]["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_lock_of_very_many_is_told_as_far_as_an_answer_goes() {
    const HOLDERS: usize = 700;
    const WAITERS: usize = 20;
    let mut cluster = Cluster::start(Options::default()).await;
    let follower = cluster.follower().await;
    let leader = cluster.all_follow().await;
    let nats = cluster.nats().await;
    let meta = json!({"note": "n".repeat(1_000)});
    let requests = (0..HOLDERS).map(|number| {
        let (nats, meta) = (&nats, &meta);
        async move {
            let owner = format!("holder {number}");
            let body = json!({"resource": "big", "owner": owner, "mode": "shared",
                              "ttl_ms": 600_000, "meta": meta});
            wire::request_until_ok(nats, "mufakat.lock.acquire", &body).await;
        }
    });
    join_all(requests).await;
    let mut waiting = Vec::new();
    for number in 0..WAITERS {
        let body = acquire("big", &format!("waiter {number}"), "exclusive");
        waiting.push(wire::send(&nats, "mufakat.lock.acquire", &body).await);
    }
    let get = |consistency: &str| json!({"resource": "big", "consistency": consistency});
    wait::until("all wait", async || {
        let answer = ask_at(&nats, (leader, "lock.get", ""), &get("linearizable")).await;
        (answer["waiters"].as_array()?.len() == WAITERS).then_some(())
    })
    .await;
    for (node, consistency) in [(leader, "stale"), (follower, "linearizable")] {
        let answer = ask_at(&nats, (node, "lock.get", ""), &get(consistency)).await;
        let holders = answer["holders"].as_array().expect("a list");
        assert!((100..HOLDERS).contains(&holders.len()), "{}", holders.len());
        assert_eq!(answer["held"], HOLDERS);
        assert_eq!(answer["waiters"].as_array().expect("a list").len(), WAITERS);
        assert!(answer["waiting"].is_null(), "the list is whole");
    }
}

#[tokio::test]
async fn an_answer_that_the_broker_would_not_carry_is_told() {
    let options = Options {
        redis: true,
        ..Options::default()
    };
    let cluster = Cluster::start(options).await;
    let nats = cluster.nats().await;
    let stats = json!({"topic": "t"});
    wire::request_until_ok(&nats, "mufakat.queue.stats", &stats).await;
    // As base64 it is longer than a message.
    let push = rmp_serde::to_vec_named(&Push {
        topic: "t",
        payload: serde_bytes::Bytes::new(&[7; 850 * 1024]),
    });
    let pushed = nats.request("mufakat.queue.push", push.expect("encodes").into());
    pushed.await.expect("an answer");
    wait::until("it is there", async || {
        let stats = wire::request_until_ok(&nats, "mufakat.queue.stats", &stats).await;
        (stats["ready"] == 1).then_some(())
    })
    .await;
    let body = json!({"topic": "t", "state": "ready"});
    let answer = wire::request(&nats, "mufakat.queue.peek", &body, wait::LONG).await;
    let answer = answer.expect("an answer");
    Documented::load().check_answer("queue.peek", &answer);
    assert_eq!(wire::code(&answer), "payload_too_large", "{answer}");
    assert_eq!(answer["error"]["outcome"], "not_applied");
}

#[derive(serde::Serialize)]
struct Push<'a> {
    topic: &'a str,
    payload: &'a serde_bytes::Bytes,
}

#[tokio::test]
async fn a_cancel_finds_the_wait_of_a_request_id() {
    let mut cluster = Cluster::start(Options::default()).await;
    let follower = cluster.follower().await;
    let nats = cluster.nats().await;
    let token = locks::acquire(&nats, "p", "a", 600_000).await;
    let wait_of = |owner: &str, id: &str| {
        let mut request = acquire("p", owner, "exclusive");
        request["request_id"] = id.into();
        request
    };
    let mut b = Waiting::start(&nats, follower, wait_of("b", "r1")).await;
    let cancel = json!({"request_id": "r1"});
    let at = (follower, "lock.cancel", ".p");
    let cancelled = ask_at(&nats, at, &cancel).await;
    assert_eq!(cancelled["cancelled"], true, "{cancelled}");
    assert_eq!(wire::code(&b.answer().await), "wait_timeout");
    let nothing = ask_at(&nats, at, &cancel).await;
    assert_eq!(nothing["cancelled"], false, "{nothing}");

    let mut c = Waiting::start(&nats, follower, wait_of("c", "r2")).await;
    let mut d = Waiting::start(&nats, follower, wait_of("d", "r2")).await;
    let refused = ask_at(&nats, at, &json!({"request_id": "r2"})).await;
    assert_eq!(wire::code(&refused), "bad_request", "{refused}");
    assert_eq!(refused["error"]["field"], "owner");
    let named = json!({"request_id": "r2", "owner": "d"});
    assert_eq!(ask_at(&nats, at, &named).await["cancelled"], true);
    assert_eq!(wire::code(&d.answer().await), "wait_timeout");

    // What was granted meanwhile is told, and only of the resource in question.
    locks::release(&nats, "p", token).await;
    let granted = c.granted().await;
    let late = ask_at(&nats, at, &json!({"request_id": "r2"})).await;
    assert_eq!(
        (&late["cancelled"], &late["token"]),
        (&json!(false), &json!(granted))
    );
    let other = (follower, "lock.cancel", ".q");
    let of_other = ask_at(&nats, other, &json!({"request_id": "r2", "owner": "c"})).await;
    assert_eq!(of_other["cancelled"], false);
    assert!(of_other["token"].is_null(), "{of_other}");
    cluster.state_hashes().await;
}

#[tokio::test]
async fn a_set_is_given_back_under_the_name_in_the_subject() {
    let mut cluster = Cluster::start(Options::default()).await;
    let follower = cluster.follower().await;
    let nats = cluster.nats().await;
    let set = json!({"owner": "s", "resources": [{"resource": "tm.a"}, {"resource": "tm.b"}]});
    let at = |operation: &'static str, suffix: &'static str| (follower, operation, suffix);
    for _ in 0..3 {
        let taken = ask_at(&nats, at("lock.acquire", ".tm"), &set).await;
        let body = json!({"token": taken["token"]});
        // The node may not have seen the grant yet.
        let renewed = ask_at(&nats, at("lock.renew", ".tm"), &body).await;
        assert_eq!(wire::code(&renewed), "ok", "{renewed}");
        let beside = ask_at(&nats, at("lock.release", ".tm.a"), &body).await;
        assert_eq!(wire::code(&beside), "not_holder", "{beside}");
        let named = json!({"token": taken["token"], "resource": "tm"});
        let in_body = ask_at(&nats, at("lock.release", ""), &named).await;
        assert_eq!(wire::code(&in_body), "not_holder", "{in_body}");
        let released = ask_at(&nats, at("lock.release", ".tm"), &body).await;
        assert_eq!(wire::code(&released), "ok", "{released}");
    }
    assert!(locks::get(&nats, "tm.a").await.holders.is_empty());
}

#[tokio::test]
async fn a_wait_is_no_longer_than_its_client_waits() {
    let mut cluster = Cluster::start(Options::default()).await;
    let follower = cluster.follower().await;
    let nats = cluster.nats().await;
    let shared = json!({"resource": "w", "owner": "a", "mode": "shared", "ttl_ms": 600_000});
    let first = wire::request_until_ok(&nats, "mufakat.lock.acquire", &shared).await;
    let shared = json!({"resource": "w", "owner": "b", "mode": "shared", "ttl_ms": 600_000});
    wire::request_until_ok(&nats, "mufakat.lock.acquire", &shared).await;
    let timeout_ms = 1_500;
    let take = json!({"resource": "w", "owner": "c", "wait_ms": 60_000, "timeout_ms": timeout_ms});
    let convert = json!({"resource": "w", "token": first["token"], "mode": "exclusive",
                         "wait_ms": 60_000, "timeout_ms": timeout_ms});
    for (operation, body) in [("lock.acquire", take), ("lock.convert", convert)] {
        let asked_at = Instant::now();
        let answer = ask_at(&nats, (follower, operation, ""), &body).await;
        assert_eq!(wire::code(&answer), "wait_timeout", "{answer}");
        assert!(asked_at.elapsed() > Duration::from_millis(timeout_ms / 2));
        assert!(locks::get(&nats, "w").await.waiters.is_empty());
    }
    let hurried = json!({"resource": "w", "owner": "c", "wait_ms": 60_000, "timeout_ms": 200});
    let answer = ask_at(&nats, (follower, "lock.acquire", ""), &hurried).await;
    assert_eq!(wire::code(&answer), "lock_held", "{answer}");
}

#[tokio::test]
async fn a_refusal_says_what_stands_in_the_way() {
    let mut cluster = Cluster::start(Options::default()).await;
    let follower = cluster.follower().await;
    let nats = cluster.nats().await;
    let shared = |owner: &str| json!({"resource": "c", "owner": owner, "mode": "shared"});
    let mine = ask_at(&nats, (follower, "lock.acquire", ""), &shared("a")).await;
    ask_at(&nats, (follower, "lock.acquire", ""), &shared("b")).await;
    let mut convert = json!({"resource": "c", "token": mine["token"], "mode": "exclusive"});
    for (wait_ms, code) in [(0, "lock_held"), (200, "wait_timeout")] {
        convert["wait_ms"] = wait_ms.into();
        let refused = ask_at(&nats, (follower, "lock.convert", ""), &convert).await;
        assert_eq!(wire::code(&refused), code, "{refused}");
        let holders = refused["error"]["holders"].as_array().expect("a list");
        let owners: Vec<_> = holders.iter().map(|holder| &holder["owner"]).collect();
        assert_eq!(owners, ["b"], "{refused}");
        assert!(!message(&refused).contains("`a`"), "{refused}");
    }

    let permits = |permits: u32| json!({"resource": "p", "owner": "a", "mode": "permit", "permits": permits, "limit": 5});
    ask_at(&nats, (follower, "lock.acquire", ""), &permits(1)).await;
    let more = ask_at(&nats, (follower, "lock.acquire", ""), &permits(2)).await;
    assert_eq!(wire::code(&more), "mode_conflict", "{more}");
    assert!(message(&more).contains("not 2 of 5 permits"), "{more}");
}
