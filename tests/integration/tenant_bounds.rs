//! What one team may have: in a node's hands, while nobody leads and all of it waits, and in queues.

use std::time::Duration;

use serde_json::{Value, json};

use crate::permissions::{User, secured_cluster_with};
use crate::{wait, wire};

/// More than a tenant may have in hand, as docs/protocol.md has it.
const TOO_MANY: usize = 8_200;
/// What one request may take here.
const ANSWER_MAX: Duration = Duration::from_secs(5);

#[tokio::test]
async fn what_a_team_has_in_hand_leaves_room_for_another() {
    let mut cluster = secured_cluster_with(&["--tenant-rate", "0"]).await;
    let a = User::connect(&cluster, "team_a").await;
    let b = User::connect(&cluster, "team_b").await;
    for node in [2, 3] {
        cluster.pause(node);
    }
    let subject = "mufakat.node.1.lock.acquire.x";
    let inbox = a.nats.new_inbox();
    for _ in 0..TOO_MANY {
        let body = json!({"timeout_ms": 30_000}).to_string();
        let asked = a
            .nats
            .publish_with_reply(subject, inbox.clone(), body.into());
        asked.await.expect("connected");
    }
    let ask = async |user: &User| {
        let body = json!({"timeout_ms": 300});
        let answer = wire::request(&user.nats, subject, &body, ANSWER_MAX).await?;
        Some(wire::code(&answer).to_owned())
    };
    wait::until("one more is too many", async || {
        (ask(&a).await? == "overloaded").then_some(())
    })
    .await;
    let of_b = ask(&b).await.expect("an answer");
    assert!(
        ["no_leader", "timeout", "indeterminate"].contains(&&*of_b),
        "{of_b}"
    );
    for node in [2, 3] {
        cluster.resume(node);
    }
    // What is answered is in hand no more.
    wait::until("both are served", async || {
        let served = [ask(&a).await?, ask(&b).await?];
        let known = |code: &String| ["ok", "lock_held"].contains(&&**code);
        served.iter().all(known).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_team_keeps_in_topics_leaves_room_for_another() {
    const BYTES: usize = 100_000;
    let cluster = secured_cluster_with(&["--tenant-queue-bytes", &BYTES.to_string()]).await;
    let a = User::connect(&cluster, "team_a").await;
    let b = User::connect(&cluster, "team_b").await;
    let ask = async |user: &User, operation: &str, body: Value| {
        let subject = format!("mufakat.{operation}");
        let answer = wire::request(&user.nats, &subject, &body, ANSWER_MAX).await;
        answer.unwrap_or_else(|| panic!("{operation}: no answer"))
    };
    let push = async |user: &User, topic: &str| {
        let body = json!({"topic": topic, "payload": "x".repeat(BYTES / 20)});
        ask(user, "queue.push", body).await
    };
    wait::until("queues are served", async || {
        (push(&a, "one").await["ok"] == true).then_some(())
    })
    .await;
    let mut taken = 1;
    let refused = loop {
        let answer = push(&a, "one").await;
        match answer["ok"] == true {
            true => taken += 1,
            false => break answer,
        }
        assert!(taken < 20, "a body is more than its payload");
    };
    assert_eq!(wire::code(&refused), "queue_full", "{refused}");
    assert_eq!(refused["error"]["outcome"], "not_applied", "{refused}");
    assert_eq!(taken, 19);
    // Other topics of the same team hear of it from the log; another team has room of its own.
    wait::until("the log knows", async || {
        let stats = ask(&a, "queue.stats", json!({"topic": "one"})).await;
        (stats["marked_seq"] == taken).then_some(())
    })
    .await;
    wait::until("another topic of the team is full, too", async || {
        (wire::code(&push(&a, "two").await) == "queue_full").then_some(())
    })
    .await;
    assert_eq!(push(&b, "one").await["ok"], true);

    let pop = json!({"topic": "one", "consumer": "c", "max": 100});
    let popped = ask(&a, "queue.pop", pop).await;
    let popped = popped["messages"].as_array().expect("messages");
    let receipts: Vec<&Value> = popped.iter().map(|message| &message["receipt"]).collect();
    assert_eq!(receipts.len(), taken);
    // In flight they are kept still.
    assert_eq!(wire::code(&push(&a, "one").await), "queue_full");
    let acked = ask(
        &a,
        "queue.ack",
        json!({"topic": "one", "receipts": receipts}),
    )
    .await;
    assert_eq!(acked["ok"], true, "{acked}");
    wait::until("there is room again", async || {
        (push(&a, "one").await["ok"] == true).then_some(())
    })
    .await;

    // What died moves to another topic of the same team, whose name for it another team has for its own.
    let pop = json!({"topic": "one", "consumer": "c"});
    let popped = ask(&a, "queue.pop", pop).await;
    let receipt = &popped["messages"][0]["receipt"];
    let dead = json!({"topic": "one", "receipt": receipt, "dead": true});
    ask(&a, "queue.nack", dead).await;
    let redriven = wait::until("the other topic has room", async || {
        let body = json!({"topic": "one", "to": "three"});
        let redriven = ask(&a, "queue.redrive", body).await;
        (wire::code(&redriven) != "queue_full").then_some(redriven)
    })
    .await;
    assert_eq!(redriven["moved"], 1, "{redriven}");
    let ready = async |user: &User| {
        let stats = ask(user, "queue.stats", json!({"topic": "three"})).await;
        stats["ready"].clone()
    };
    assert_eq!((ready(&a).await, ready(&b).await), (json!(1), json!(0)));
}

/// Names of a tenant are longer for who is outside all tenants, by the account.
#[tokio::test]
async fn operators_handle_the_longest_names_of_a_team() {
    let cluster = secured_cluster_with(&[]).await;
    let team = User::connect(&cluster, "team_a").await;
    let operator = User::connect(&cluster, "operator").await;
    let ok = async |user: &User, operation: &str, body: Value| {
        let answer = user.ask(&format!("mufakat.{operation}"), body).await;
        assert_eq!(answer["ok"], true, "{operation}: {answer}");
        answer
    };
    let longest = |last: char| format!("{}{last}", "n".repeat(255));
    let outside = |last: char| format!("TEAM_A/{}", longest(last));
    for last in ['a', 'b'] {
        ok(&team, "lock.acquire", json!({"resource": longest(last)})).await;
        let push = json!({"topic": longest(last), "payload": "x"});
        ok(&team, "queue.push", push).await;
        let set = json!({"key": longest(last), "value": "x"});
        ok(&team, "cache.set", set).await;
    }
    for (operation, list, name) in [
        ("lock.list", "locks", "resource"),
        ("queue.list", "topics", "topic"),
    ] {
        let page = json!({"prefix": "TEAM_A/", "limit": 1});
        let first = ok(&operator, operation, page).await;
        assert_eq!(first[list][0][name], outside('a'), "{first}");
        let page = json!({"prefix": outside('b'), "cursor": first["cursor"]});
        let second = ok(&operator, operation, page).await;
        assert_eq!(second[list][0][name], outside('b'), "{second}");
    }
    let name = outside('a');
    let seen = ok(&operator, "lock.get", json!({"resource": name})).await;
    assert_eq!(seen["holders"].as_array().map(Vec::len), Some(1), "{seen}");
    let release = json!({"resource": name, "reason": "test"});
    ok(&operator, "admin.lock.release", release).await;
    let purge = json!({"topic": name, "states": ["ready"], "confirm": name});
    let purged = ok(&operator, "admin.queue.purge", purge).await;
    assert_eq!(purged["count"], 1, "{purged}");
    let deleted = ok(&operator, "cache.delete", json!({"key": name})).await;
    assert_eq!(deleted["existed"], true, "{deleted}");
    let left = ok(&team, "cache.get", json!({"key": longest('a')})).await;
    assert_eq!(left["status"], "miss", "{left}");
}
