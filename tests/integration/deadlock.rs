//! Deadlocks: found when the cycle closes, told with the whole cycle, ended by the victim.

use async_nats::Client;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::waiting::{Events, Waiting, acquire};
use crate::{locks, wait, wire};

/// Each holds one lock and asks for the other's; `second` closes the cycle.
struct Cycle {
    tokens: [u64; 2],
    first: Waiting,
    /// The answer to the request that closed the cycle, if there is one at once.
    second: wire::Pending,
}

impl Cycle {
    async fn close(nats: &Client, nodes: [u64; 2], policy: &str) -> Self {
        let tokens = [
            locks::acquire(nats, &format!("{policy}-1"), "one", 600_000).await,
            locks::acquire(nats, &format!("{policy}-2"), "two", 600_000).await,
        ];
        let ask = |resource: &str, owner: &str| {
            let mut request = acquire(resource, owner, "exclusive");
            request["on_deadlock"] = policy.into();
            request
        };
        let request = ask(&format!("{policy}-2"), "one");
        let first = Waiting::start(nats, nodes[0], request).await;
        let subject = format!("mufakat.node.{}.lock.acquire", nodes[1]);
        let request = ask(&format!("{policy}-1"), "two");
        let second = wire::send(nats, &subject, &request).await;
        Cycle {
            tokens,
            first,
            second,
        }
    }
}

/// What answer and event say about the cycle of `one` and `two`, wherever it begins.
fn check_cycle(told: &Value, policy: &str, victim: &str, tokens: [u64; 2]) {
    assert_eq!(told["policy"], policy, "{told}");
    assert_eq!(told["victim"], victim, "{told}");
    let mut cycle = told["cycle"].as_array().expect("a list").clone();
    cycle.sort_by_key(|edge| edge["owner"].to_string());
    let (lock_1, lock_2) = (format!("{policy}-1"), format!("{policy}-2"));
    let edge = |owner, holds: &str, token: u64, for_owner, resource: &str| {
        json!({"owner": owner, "holds": holds, "token": token, "waits_for_owner": for_owner,
               "resource": resource, "because": "holder"})
    };
    let expected = [
        edge("one", &lock_1, tokens[0], "two", &lock_2),
        edge("two", &lock_2, tokens[1], "one", &lock_1),
    ];
    assert_eq!(cycle, expected);
}

async fn deadlock_event(events: &mut Events) -> Value {
    loop {
        let (kind, event) = events.next().await;
        if kind == "deadlock" {
            return event;
        }
    }
}

#[tokio::test]
async fn a_deadlock_of_two_is_told_with_its_cycle() {
    let mut cluster = Cluster::start(Options::default()).await;
    let nodes = [cluster.leader().await, cluster.follower().await];
    let nats = cluster.nats().await;
    let mut events = Events::watch(&nats).await;

    // The request that would close the cycle is refused; the other goes on waiting.
    let mut closed = Cycle::close(&nats, nodes, "requester").await;
    let refused = closed.second.answer(wait::LONG).await.expect("an answer");
    assert_eq!(wire::code(&refused), "deadlock", "{refused}");
    assert_eq!(refused["error"]["outcome"], "not_applied");
    check_cycle(&refused["error"], "requester", "two", closed.tokens);
    let event = deadlock_event(&mut events).await;
    check_cycle(&event, "requester", "two", closed.tokens);
    assert_eq!(locks::get(&nats, "requester-2").await.waiters, ["one"]);
    locks::release(&nats, "requester-2", closed.tokens[1]).await;
    let token = closed.first.granted().await;
    locks::release(&nats, "requester-2", token).await;
    locks::release(&nats, "requester-1", closed.tokens[0]).await;

    // The owner that was first seen last gives way: the one that takes its first lock last.
    let nodes = [nodes[1], nodes[0]];
    let mut closed = Cycle::close(&nats, nodes, "youngest").await;
    let refused = closed.second.answer(wait::LONG).await.expect("an answer");
    assert_eq!(wire::code(&refused), "deadlock", "{refused}");
    check_cycle(&refused["error"], "youngest", "two", closed.tokens);
    let event = deadlock_event(&mut events).await;
    check_cycle(&event, "youngest", "two", closed.tokens);
    locks::release(&nats, "youngest-2", closed.tokens[1]).await;
    closed.first.granted().await;
}

#[tokio::test]
async fn the_youngest_gives_way_though_it_waited_first() {
    let mut cluster = Cluster::start(Options::default()).await;
    let follower = cluster.follower().await;
    let nats = cluster.nats().await;
    let old = locks::acquire(&nats, "of-old", "old", 600_000).await;
    let young = locks::acquire(&nats, "of-young", "young", 600_000).await;
    let mut first = Waiting::start(&nats, follower, acquire("of-old", "young", "exclusive")).await;
    let mut request = acquire("of-young", "old", "exclusive");
    request["on_deadlock"] = "youngest".into();
    let mut closing = wire::send(&nats, "mufakat.lock.acquire", &request).await;

    let refused = first.answer().await;
    assert_eq!(wire::code(&refused), "deadlock", "{refused}");
    assert_eq!(refused["error"]["victim"], "young");
    assert_eq!(refused["error"]["cycle"].as_array().map(Vec::len), Some(2));
    // The victim keeps what it holds, gives it back, and the other one goes on.
    locks::release(&nats, "of-young", young).await;
    let granted = closing.answer(wait::LONG).await.expect("an answer");
    assert_eq!(granted["owner"], "old", "{granted}");
    locks::release(&nats, "of-old", old).await;
}
