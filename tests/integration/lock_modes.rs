//! Permits, several resources together, conversions, and what operators see and do, on a real cluster.

use async_nats::Client;
use futures_util::future::select_all;
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

fn token(answer: &Value) -> u64 {
    let token = answer["token"].as_u64();
    token.unwrap_or_else(|| panic!("no grant: {answer}"))
}

#[tokio::test]
async fn permits_are_counted_and_wait_in_line() {
    let mut cluster = Cluster::start(Options::default()).await;
    let follower = cluster.follower().await;
    let nats = cluster.nats().await;
    let permit = |owner: &str, permits: u32, limit: u32| {
        let mut request = acquire("pool", owner, "permit");
        request["permits"] = permits.into();
        request["limit"] = limit.into();
        request
    };
    let two = ask(&nats, "lock.acquire", &permit("a", 2, 3)).await;
    let one = ask(&nats, "lock.acquire", &permit("b", 1, 3)).await;
    assert_eq!((&two["permits"], &one["permits"]), (&json!(2), &json!(1)));
    let other = ask(&nats, "lock.acquire", &permit("c", 1, 4)).await;
    assert_eq!(wire::code(&other), "limit_mismatch", "{other}");
    assert_eq!(other["error"]["limit"], 3);
    // Who wants many is not overtaken by who wants few.
    let mut many = Waiting::start(&nats, follower, permit("d", 3, 3)).await;
    let mut few = Waiting::start(&nats, follower, permit("e", 1, 3)).await;
    locks::release(&nats, "pool", token(&one)).await;
    assert_eq!(locks::get(&nats, "pool").await.waiters, ["d", "e"]);
    locks::release(&nats, "pool", token(&two)).await;
    let all = many.granted().await;
    locks::release(&nats, "pool", all).await;
    few.granted().await;
    cluster.state_hashes().await;
}

/// redisson#4456: several locks are taken one by one, and some of them stay.
#[tokio::test]
async fn several_resources_are_granted_together_or_not_at_all() {
    let mut cluster = Cluster::start(Options::default()).await;
    let follower = cluster.follower().await;
    let nats = cluster.nats().await;
    let both = |owner: &str, wait_ms: u64| {
        json!({"owner": owner, "wait_ms": wait_ms, "ttl_ms": 600_000,
               "resources": [{"resource": "y"}, {"resource": "x", "mode": "shared"}]})
    };
    let held = locks::acquire(&nats, "y", "one", 600_000).await;
    let refused = ask(&nats, "lock.acquire", &both("two", 0)).await;
    assert_eq!(wire::code(&refused), "lock_held", "{refused}");
    assert_eq!(refused["error"]["resource"], "y");
    assert!(locks::get(&nats, "x").await.holders.is_empty());
    let subject = format!("mufakat.node.{follower}.lock.acquire");
    let mut waits = wire::send(&nats, &subject, &both("two", 60_000)).await;
    wait::until("both queues have it", async || {
        let x = locks::get(&nats, "x").await.waiters == ["two"];
        let y = locks::get(&nats, "y").await.waiters == ["two"];
        (x && y).then_some(())
    })
    .await;
    locks::release(&nats, "y", held).await;
    let granted = waits.answer(wait::LONG).await.expect("an answer");
    Documented::load().check_answer("lock.acquire", &granted);
    assert_eq!(
        granted["resources"].as_array().map(Vec::len),
        Some(2),
        "{granted}"
    );
    let token = token(&granted);
    for resource in ["x", "y"] {
        assert_eq!(locks::get(&nats, resource).await.holders[0].token, token);
    }
    let by_name = json!({"resource": "x", "token": token});
    let refused = ask(&nats, "lock.release", &by_name).await;
    assert_eq!(wire::code(&refused), "not_holder", "{refused}");
    let renewed = ask(&nats, "lock.renew", &json!({"token": token})).await;
    assert_eq!(wire::code(&renewed), "ok", "{renewed}");
    let released = ask(&nats, "lock.release", &json!({"token": token})).await;
    assert_eq!(released["released"], true, "{released}");
    assert!(locks::get(&nats, "y").await.holders.is_empty());
    cluster.state_hashes().await;
}

/// CURATOR-276: a downgrade lets a queued writer in. Two upgraders wait for each other.
#[tokio::test]
async fn a_hold_is_converted_without_being_given_up() {
    let mut cluster = Cluster::start(Options::default()).await;
    let follower = cluster.follower().await;
    let nats = cluster.nats().await;
    let held = locks::acquire(&nats, "r", "one", 600_000).await;
    let mut writer = Waiting::start(&nats, follower, acquire("r", "writer", "exclusive")).await;
    let convert = |token: u64, mode: &str, wait_ms: u64| json!({"resource": "r", "token": token, "mode": mode, "wait_ms": wait_ms});
    let shared = ask(&nats, "lock.convert", &convert(held, "shared", 0)).await;
    assert_eq!(locks::get(&nats, "r").await.waiters, ["writer"], "{shared}");
    let again = ask(&nats, "lock.convert", &convert(held, "shared", 0)).await;
    assert_eq!(token(&again), token(&shared), "a repeat is told the result");
    let back = ask(
        &nats,
        "lock.convert",
        &convert(token(&shared), "exclusive", 0),
    )
    .await;
    assert!(token(&back) > token(&shared), "{back}");
    locks::release(&nats, "r", token(&back)).await;
    let written = writer.granted().await;
    locks::release(&nats, "r", written).await;

    let reader = |owner: &str| json!({"resource": "r", "owner": owner, "mode": "shared"});
    let a = token(&ask(&nats, "lock.acquire", &reader("a")).await);
    let b = token(&ask(&nats, "lock.acquire", &reader("b")).await);
    let subject = format!("mufakat.node.{follower}.lock.convert");
    let mut first = wire::send(&nats, &subject, &convert(a, "exclusive", 60_000)).await;
    wait::until("the first one waits", async || {
        (locks::get(&nats, "r").await.waiters == ["a"]).then_some(())
    })
    .await;
    let second = ask(&nats, "lock.convert", &convert(b, "exclusive", 60_000)).await;
    assert_eq!(wire::code(&second), "deadlock", "{second}");
    locks::release(&nats, "r", b).await;
    let upgraded = first.answer(wait::LONG).await.expect("an answer");
    assert_eq!(upgraded["mode"], "exclusive", "{upgraded}");
    cluster.state_hashes().await;
}

#[tokio::test]
async fn operators_see_who_waits_and_can_end_it() {
    let mut cluster = Cluster::start(Options::default()).await;
    let follower = cluster.follower().await;
    let nats = cluster.nats().await;
    locks::acquire(&nats, "job.1", "one", 600_000).await;
    locks::acquire(&nats, "job.2", "two", 600_000).await;
    let mut first = Waiting::start(&nats, follower, acquire("job.1", "two", "exclusive")).await;
    let mut second = Waiting::start(&nats, follower, acquire("job.1", "three", "exclusive")).await;
    let graph = ask(&nats, "lock.graph", &json!({})).await;
    let edges: Vec<_> = graph["edges"].as_array().expect("a list").iter().collect();
    let shown = |edge: &Value| {
        format!(
            "{} {} {}",
            edge["owner"], edge["waits_for_owner"], edge["because"]
        )
    };
    let shown: Vec<String> = edges.into_iter().map(shown).collect();
    let (to_one, to_two) = (r#""two" "one" "holder""#, r#""three" "two" "queue""#);
    assert!(
        shown.iter().any(|e| e == to_one) && shown.iter().any(|e| e == to_two),
        "{shown:?}"
    );
    let closing = ask(&nats, "lock.acquire", &acquire("job.2", "one", "exclusive")).await;
    assert_eq!(wire::code(&closing), "deadlock", "{closing}");
    let recent = ask(&nats, "lock.deadlocks", &json!({})).await;
    assert_eq!(recent["deadlocks"][0]["victim"], "one", "{recent}");

    let page = ask(&nats, "lock.list", &json!({"prefix": "job.", "limit": 1})).await;
    assert_eq!(page["locks"][0]["waiting"], 2, "{page}");
    let next = json!({"prefix": "job.", "limit": 1, "cursor": page["cursor"]});
    let page = ask(&nats, "lock.list", &next).await;
    assert_eq!(page["locks"][0]["owner"], "two", "{page}");

    let cancel = json!({"resource": "job.1", "owner": "three"});
    let cancelled = ask(&nats, "lock.cancel", &cancel).await;
    assert_eq!(cancelled["cancelled"], true, "{cancelled}");
    let told = second.answer().await;
    assert_eq!(wire::code(&told), "wait_timeout", "{told}");
    let force = json!({"resource": "job.1", "reason": "its host is gone"});
    let released = ask(&nats, "admin.lock.release", &force).await;
    assert_eq!(released["holders"][0]["owner"], "one", "{released}");
    first.granted().await;
    let nobody = json!({"resource": "job.3", "reason": "why not"});
    let refused = ask(&nats, "admin.lock.release", &nobody).await;
    assert_eq!(wire::code(&refused), "not_found", "{refused}");
    cluster.state_hashes().await;
}

/// Cycles of two and of ten, twenty each; the requests that make one come at once, through all nodes,
/// so that each round has another order of arrival.
#[tokio::test]
async fn every_cycle_is_found_in_every_order_of_arrival() {
    const ROUNDS: usize = 20;
    let cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let nodes = cluster.ids();
    for size in [2, 10] {
        for round in 0..ROUNDS {
            let name = |n: usize| format!("{size}.{round}.{}", n % size);
            for n in 0..size {
                locks::acquire(&nats, &name(n), &name(n), 600_000).await;
            }
            let mut pending = Vec::new();
            for n in 0..size {
                // Another one first, and another node.
                let n = (n * 7 + round) % size;
                let node = nodes[(n + round) % nodes.len()];
                let subject = format!("mufakat.node.{node}.lock.acquire");
                let request = acquire(&name(n + 1), &name(n), "exclusive");
                pending.push(wire::send(&nats, &subject, &request).await);
            }
            let answers = pending.iter_mut().map(|p| Box::pin(p.answer(wait::LONG)));
            let (answer, ..) = select_all(answers).await;
            let answer = answer.expect("the cycle is found");
            assert_eq!(wire::code(&answer), "deadlock", "{answer}");
            let cycle = answer["error"]["cycle"].as_array().expect("a cycle");
            assert_eq!(cycle.len(), size, "{answer}");
            let prefix = format!("{size}.{round}.");
            let graph = ask(&nats, "lock.graph", &json!({})).await;
            let edges = graph["edges"].as_array().expect("a list").iter();
            let of_round = edges.filter(|edge| {
                let resource = edge["resource"].as_str();
                resource.is_some_and(|resource| resource.starts_with(&prefix))
            });
            assert!(of_round.count() < size, "one of them gave way");
        }
    }
    let recent = ask(&nats, "lock.deadlocks", &json!({"limit": 1000})).await;
    let found = recent["deadlocks"].as_array().map(Vec::len);
    assert_eq!(
        found,
        Some(2 * ROUNDS),
        "no more and no fewer than there were"
    );
    cluster.state_hashes().await;
}
