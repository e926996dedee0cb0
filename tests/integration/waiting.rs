//! Queues for locks: who is served when, what watchers hear, and how a request finds its place again.

use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::documented::Documented;
use crate::wire::{self, Pending};
use crate::{locks, wait};

/// A client that waits for a lock through one node.
pub struct Waiting {
    pub owner: String,
    pending: Pending,
}

impl Waiting {
    /// Asks through `node`, and returns when the request stands in the queue.
    pub async fn start(nats: &Client, node: u64, acquire: Value) -> Self {
        let subject = format!("mufakat.node.{node}.lock.acquire");
        let pending = wire::send(nats, &subject, &acquire).await;
        let text = |field: &str| acquire[field].as_str().expect("given").to_owned();
        let (owner, resource) = (text("owner"), text("resource"));
        wait::until("the request stands in the queue", async || {
            let seen = locks::get(nats, &resource).await;
            seen.waiters.contains(&owner).then_some(())
        })
        .await;
        Waiting { owner, pending }
    }

    /// The answer, which has to come.
    pub async fn answer(&mut self) -> Value {
        let answer = self.pending.answer(wait::LONG).await;
        answer.unwrap_or_else(|| panic!("no answer to {}", self.owner))
    }

    /// The token of the grant that has to come.
    pub async fn granted(&mut self) -> u64 {
        let answer = self.answer().await;
        assert_eq!(answer["owner"], self.owner, "{answer}");
        answer["token"].as_u64().expect("a grant has a token")
    }
}

/// A request that waits long, of an owner who keeps what it gets.
pub fn acquire(resource: &str, owner: &str, mode: &str) -> Value {
    json!({"resource": resource, "owner": owner, "mode": mode, "wait_ms": 60_000, "ttl_ms": 600_000})
}

/// What watchers hear.
pub struct Events {
    subscription: Subscriber,
    documented: Documented,
}

impl Events {
    pub async fn watch(nats: &Client) -> Self {
        let subscription = nats.subscribe("mufakat.event.lock.>").await;
        let subscription = subscription.expect("not closed");
        // The broker has it before anything that other connections ask for.
        nats.flush().await.expect("connected");
        Events {
            subscription,
            documented: Documented::load(),
        }
    }

    /// The next event: its kind, which is the end of its subject, and its fields.
    pub async fn next(&mut self) -> (String, Value) {
        let message = tokio::time::timeout(wait::LONG, self.subscription.next()).await;
        let message = message.expect("an event comes").expect("subscribed");
        let subject = message.subject.as_str();
        let kind = subject
            .strip_prefix("mufakat.event.lock.")
            .expect("its subject");
        let event: Value = serde_json::from_slice(&message.payload).expect("events are JSON");
        self.documented.check_event(kind, &event);
        (kind.to_owned(), event)
    }

    /// Demands that the next events are these: kind, resource and owner.
    pub async fn expect(&mut self, expected: &[(&str, &str, &str)]) {
        for &(kind, resource, owner) in expected {
            let (heard, event) = self.next().await;
            let about = (&event["resource"], &event["owner"]);
            assert_eq!(heard, kind, "{event}");
            assert_eq!(about, (&json!(resource), &json!(owner)), "{kind}");
        }
    }
}

#[tokio::test]
async fn waiters_are_served_in_order_and_shared_ones_together() {
    let mut cluster = Cluster::start(Options::default()).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let nats = cluster.nats().await;
    let mut events = Events::watch(&nats).await;
    let first = locks::acquire(&nats, "q", "first", 600_000).await;
    let mut queue = Vec::new();
    for (owner, mode) in [
        ("a", "exclusive"),
        ("b", "shared"),
        ("c", "shared"),
        ("d", "exclusive"),
        ("e", "shared"),
    ] {
        let node = if queue.len() % 2 == 0 {
            follower
        } else {
            leader
        };
        queue.push(Waiting::start(&nats, node, acquire("q", owner, mode)).await);
    }
    let [a, b, c, d, e] = queue.try_into().ok().expect("five");
    let [mut a, mut b, mut c, mut d, mut e] = [a, b, c, d, e];
    // A try never overtakes a waiter, not even one it is compatible with.
    let held = json!({"resource": "q", "owner": "hasty", "mode": "shared"});
    let refused = wire::request(&nats, "mufakat.lock.acquire", &held, wait::LONG).await;
    assert_eq!(wire::code(&refused.expect("an answer")), "lock_held");

    locks::release(&nats, "q", first).await;
    let token_a = a.granted().await;
    assert!(token_a > first);
    locks::release(&nats, "q", token_a).await;
    let (token_b, token_c) = (b.granted().await, c.granted().await);
    let seen = locks::get(&nats, "q").await;
    assert_eq!(seen.holders.len(), 2, "{seen:?}");
    assert_eq!(seen.waiters, ["d", "e"]);
    locks::release(&nats, "q", token_b).await;
    assert_eq!(locks::get(&nats, "q").await.waiters, ["d", "e"]);
    locks::release(&nats, "q", token_c).await;
    let token_d = d.granted().await;
    locks::release(&nats, "q", token_d).await;
    let token_e = e.granted().await;
    locks::release(&nats, "q", token_e).await;
    let tokens = [first, token_a, token_b, token_c, token_d, token_e];
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");

    let contended = ["a", "b", "c", "d", "e"].map(|owner| ("contended", "q", owner));
    events.expect(&[("granted", "q", "first")]).await;
    events.expect(&contended).await;
    for (left, entered) in [
        ("first", &["a"][..]),
        ("a", &["b", "c"]),
        ("b", &[]),
        ("c", &["d"]),
        ("d", &["e"]),
        ("e", &[]),
    ] {
        events.expect(&[("released", "q", left)]).await;
        for owner in entered {
            events.expect(&[("granted", "q", owner)]).await;
        }
    }
}

#[tokio::test]
async fn a_request_finds_its_place_again_through_another_node() {
    let mut cluster = Cluster::start(Options::default()).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let nats = cluster.nats().await;
    let first = locks::acquire(&nats, "r", "first", 600_000).await;
    let mut request = acquire("r", "w", "exclusive");
    request["request_id"] = "again".into();
    let _left_alone = Waiting::start(&nats, follower, request.clone()).await;
    let mut behind = Waiting::start(&nats, leader, acquire("r", "behind", "exclusive")).await;
    let mut repeated = Waiting::start(&nats, leader, request.clone()).await;
    assert_eq!(locks::get(&nats, "r").await.waiters, ["w", "behind"]);

    locks::release(&nats, "r", first).await;
    let token = repeated.granted().await;
    // Held: the same grant, through any node.
    for node in cluster.ids() {
        let subject = format!("mufakat.node.{node}.lock.acquire");
        let same = wire::request_until_ok(&nats, &subject, &request).await;
        assert_eq!(same["token"], token);
    }
    let mut other = request.clone();
    other["resource"] = "another".into();
    let refused = wire::request(&nats, "mufakat.lock.acquire", &other, wait::LONG).await;
    let refused = refused.expect("an answer");
    assert_eq!(wire::code(&refused), "request_mismatch", "{refused}");
    assert_eq!(refused["error"]["field"], "resource");

    // Ended: a late repeat does not take the lock again, free or not.
    locks::release(&nats, "r", token).await;
    let token = behind.granted().await;
    late_repeat(&nats, &request).await;
    locks::release(&nats, "r", token).await;
    late_repeat(&nats, &request).await;
    assert_eq!(locks::get(&nats, "r").await.holders, []);

    // A repeat that does not wait gives up the place, and who asked before hears of it.
    locks::acquire(&nats, "g", "first", 600_000).await;
    let mut hasty = acquire("g", "w", "exclusive");
    hasty["request_id"] = "given up".into();
    let mut waiting = Waiting::start(&nats, follower, hasty.clone()).await;
    hasty["wait_ms"] = 0.into();
    let refused = wire::request(&nats, "mufakat.lock.acquire", &hasty, wait::LONG).await;
    assert_eq!(wire::code(&refused.expect("an answer")), "lock_held");
    let ended = waiting.answer().await;
    assert_eq!(wire::code(&ended), "wait_timeout", "{ended}");
    assert_eq!(locks::get(&nats, "g").await.waiters, [""; 0]);
}

async fn late_repeat(nats: &Client, request: &Value) {
    let late = wire::request(nats, "mufakat.lock.acquire", request, wait::LONG).await;
    assert_eq!(wire::code(&late.expect("an answer")), "not_holder");
}

#[tokio::test]
async fn a_wait_ends_in_time_and_its_owner_waits_for_one_thing_only() {
    let mut cluster = Cluster::start(Options::default()).await;
    let follower = cluster.follower().await;
    let nats = cluster.nats().await;
    locks::acquire(&nats, "t", "holder", 600_000).await;
    let mut short = acquire("t", "w", "exclusive");
    short["wait_ms"] = 1_500.into();
    let mut waiting = Waiting::start(&nats, follower, short).await;
    let elsewhere = acquire("free", "w", "exclusive");
    let granted = wire::request_until_ok(&nats, "mufakat.lock.acquire", &elsewhere).await;
    assert_eq!(granted["owner"], "w", "what is free is no second wait");
    locks::acquire(&nats, "held", "holder", 600_000).await;
    let second = acquire("held", "w", "exclusive");
    let refused = wire::request(&nats, "mufakat.lock.acquire", &second, wait::LONG).await;
    let refused = refused.expect("an answer");
    assert_eq!(wire::code(&refused), "already_waiting", "{refused}");
    assert_eq!(refused["error"]["resource"], "t");

    let ended = waiting.answer().await;
    assert_eq!(wire::code(&ended), "wait_timeout", "{ended}");
    assert_eq!(ended["error"]["holders"][0]["owner"], "holder");
    assert_eq!(ended["error"]["queue_length"], 0);
    assert_eq!(locks::get(&nats, "t").await.waiters, [""; 0]);
}
