//! What becomes of requests about a topic whose owner is killed, or stalls.

use std::time::{Duration, Instant};

use mufakat::ids::Incarnation;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::queue::{Queue, messages, result, start};
use crate::queue_waits::all_are_in_view;
use crate::{wait, wire};

const ROUNDS: u64 = 5;
/// No pop waits longer because of a change of the view. Usually it is less than one second, also where unoptimised nodes share
/// two cores with other tests.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// The same for an owner that stalls: a second in which it may only be slow comes first.
const STALLED_MAX: Duration = Duration::from_secs(3);

/// Pushes a message with an id through a node until it is taken.
async fn push(queue: &Queue, node: u64, topic: &str, (id, payload): (&str, Value)) {
    let body = json!({"topic": topic, "payload": payload, "id": id});
    let subject = format!("mufakat.node.{node}.queue.push");
    wait::until("the push is taken", async || {
        let answer = wire::request(&queue.nats, &subject, &body, Duration::from_millis(300)).await;
        answer
            .is_some_and(|answer| answer["ok"] == true)
            .then_some(())
    })
    .await;
}

/// The stay of a node in the view, as another one has it.
async fn incarnation(cluster: &Cluster, node: u64) -> Option<Incarnation> {
    let status = cluster.status(node % 3 + 1).await?;
    let member = status.members.iter().find(|member| member.node.0 == node)?;
    member.incarnation
}

#[tokio::test]
async fn queue_pops_and_pushes_go_on_within_two_seconds_of_an_owners_death() {
    let (mut cluster, queue) = start(3).await;
    let (mut slowest_push, mut slowest_pop) = (Duration::ZERO, Duration::ZERO);
    for round in 0..ROUNDS {
        all_are_in_view(&cluster).await;
        let topic = format!("killed-{round}");
        push(&queue, 1, &topic, ("0", "warm-up".into())).await;
        assert_eq!(queue.pop(&topic, 1).await.len(), 1);
        let owner = queue.stats(&topic).await["owner_node"].as_u64();
        let owner = owner.expect("it has an owner");
        let asked = owner % 3 + 1;
        let pop = json!({"topic": topic, "consumer": "c", "wait_ms": 30_000});
        let subject = format!("mufakat.node.{asked}.queue.pop");
        let mut pop = wire::send(&queue.nats, &subject, &pop).await;
        wait::until("the pop waits at the owner", async || {
            (queue.stats(&topic).await["waiters"] == 1).then_some(())
        })
        .await;
        let killed = Instant::now();
        cluster.kill(owner);
        push(&queue, asked, &topic, ("1", round.into())).await;
        let pushed = killed.elapsed();
        let answer = pop.answer(wait::LONG).await.expect("the pop is answered");
        let popped = killed.elapsed();
        assert_eq!(messages(&answer)[0]["payload"], round, "{answer}");
        println!(
            "round {round}: owner {owner} killed, pushed after {pushed:?}, popped after {popped:?}"
        );
        slowest_push = slowest_push.max(pushed);
        slowest_pop = slowest_pop.max(popped);
        let before = incarnation(&cluster, owner).await;
        cluster.start_node(owner);
        wait::until("it is in the view again", async || {
            let now = incarnation(&cluster, owner).await;
            (now.is_some() && now != before).then_some(())
        })
        .await;
    }
    println!("slowest: push {slowest_push:?}, pop {slowest_pop:?}");
    assert!(
        slowest_push < WAIT_MAX && slowest_pop < WAIT_MAX,
        "above {WAIT_MAX:?}"
    );
}

/// Its connections stay open, so that it is missed by its silence; and it goes on where it stopped.
#[tokio::test]
async fn queue_goes_on_without_an_owner_that_stalls_and_which_then_learns_that_it_is_none() {
    an_owner_stalls(false).await;
}

/// Then an election comes first.
#[tokio::test]
async fn queue_goes_on_without_an_owner_that_stalls_and_leads() {
    an_owner_stalls(true).await;
}

async fn an_owner_stalls(leads: bool) {
    let (mut cluster, queue) = start(3).await;
    all_are_in_view(&cluster).await;
    let leader = cluster.leader().await;
    let mut topics = (0..).map(|n| format!("stalled-{n}"));
    let (topic, owner) = loop {
        let topic = topics.next().expect("endless");
        queue.push(&topic, json!("warm-up")).await;
        assert_eq!(queue.pop(&topic, 1).await.len(), 1);
        let owner = queue.stats(&topic).await["owner_node"].as_u64();
        if (owner == Some(leader)) == leads {
            break (topic, owner.expect("it has an owner"));
        }
    };
    let asked = if leads { owner % 3 + 1 } else { leader };
    let pop = json!({"topic": topic, "consumer": "c", "wait_ms": 30_000});
    let mut pops = Vec::new();
    for node in [asked, owner] {
        let subject = format!("mufakat.node.{node}.queue.pop");
        pops.push(wire::send(&queue.nats, &subject, &pop).await);
    }
    wait::until("the pops wait at the owner", async || {
        (queue.stats(&topic).await["waiters"] == 2).then_some(())
    })
    .await;
    let stalled = Instant::now();
    cluster.pause(owner);
    push(&queue, asked, &topic, ("1", "first".into())).await;
    let answer = pops[0].answer(wait::LONG).await.expect("an answer");
    let popped = stalled.elapsed();
    assert_eq!(messages(&answer)[0]["payload"], "first", "{answer}");
    println!("popped {popped:?} after the owner stalled, which led: {leads}");
    assert!(popped < STALLED_MAX, "{popped:?}");

    // What waits at the stalled node alone is handed on by it once it goes on, and served once.
    cluster.resume(owner);
    push(&queue, asked, &topic, ("2", "second".into())).await;
    let answer = pops[1].answer(wait::LONG).await.expect("an answer");
    let popped = messages(&answer);
    assert_eq!(popped[0]["payload"], "second", "{answer}");
    assert_eq!(popped[0]["deliveries"], 1, "{answer}");
    // A node may need a moment more to learn of the view.
    let ack = json!({"topic": topic, "receipt": popped[0]["receipt"]});
    let acked = wait::until("the owner takes the receipt", async || {
        let answer = queue.ask("queue.ack", ack.clone()).await;
        (wire::code(&answer) != "reconfiguring").then_some(answer)
    })
    .await;
    assert_eq!(result(&acked), "acked", "{acked}");
}
