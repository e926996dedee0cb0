//! Pops that wait, while the node that owns their topic dies or changes.

use std::time::Duration;

use mufakat::protocol::status::Member;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::queue::{Queue, messages, result, start};
use crate::{wait, wire};

const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Which node owns a topic, according to any that answers.
pub async fn owner_of(queue: &Queue, topic: &str) -> Option<u64> {
    let body = json!({"topic": topic});
    let limit = Duration::from_secs(2);
    let answer = wire::request(&queue.nats, "mufakat.queue.stats", &body, limit).await?;
    answer["owner_node"].as_u64()
}

/// Waits until every node says that all are in the view, and in which.
pub async fn all_are_in_view(cluster: &Cluster) {
    wait::until("all nodes are in one view", async || {
        let mut epochs = Vec::new();
        for node in cluster.ids() {
            let status = cluster.status(node).await?;
            let is_in = |member: &Member| member.incarnation.is_some();
            epochs.push(status.members.iter().all(is_in).then_some(status.epoch)?);
        }
        epochs
            .windows(2)
            .all(|pair| pair[0] == pair[1])
            .then_some(())
    })
    .await;
}

/// Waits until all nodes say that topic `a` is this node's.
pub async fn all_know_the_owner(cluster: &Cluster, queue: &Queue, owner: u64) {
    for node in cluster.ids() {
        wait::until("a node knows the owner", async || {
            let (subject, body) = (
                format!("mufakat.node.{node}.queue.stats"),
                json!({"topic": "a"}),
            );
            let answer =
                wire::request(&queue.nats, &subject, &body, Duration::from_secs(1)).await?;
            // The owner answers, whoever is asked.
            (answer["ok"] == true && answer["node"] == owner).then_some(())
        })
        .await;
    }
}

async fn pops_wait(queue: &Queue, topic: &str, count: u64) {
    wait::until("the pops wait", async || {
        let body = json!({"topic": topic});
        let limit = Duration::from_secs(2);
        let answer = wire::request(&queue.nats, "mufakat.queue.stats", &body, limit).await?;
        (answer["waiters"] == count).then_some(())
    })
    .await;
}

async fn push_is_taken(queue: &Queue, topic: &str, payload: u64) {
    // With its id a push may be repeated until it is known.
    let body = json!({"topic": topic, "payload": payload, "id": format!("{topic}-{payload}")});
    wire::request_until_ok(&queue.nats, "mufakat.queue.push", &body).await;
}

#[tokio::test]
async fn queue_pops_that_wait_move_with_their_topic() {
    let (mut cluster, queue) = start(3).await;
    all_are_in_view(&cluster).await;
    let owner = owner_of(&queue, "a").await.expect("an owner");
    cluster.kill(owner);
    wait::until("another node owns the topic", async || {
        let now = owner_of(&queue, "a").await?;
        (now != owner).then_some(())
    })
    .await;
    let body = json!({"topic": "a", "consumer": "c", "wait_ms": 30_000});
    let mut waiting = wire::send(&queue.nats, "mufakat.queue.pop", &body).await;
    pops_wait(&queue, "a", 1).await;
    cluster.start_node(owner);
    // Until all know of it, a push may still come to the node that had the topic meanwhile.
    all_know_the_owner(&cluster, &queue, owner).await;
    push_is_taken(&queue, "a", 1).await;
    let answer = waiting.answer(ANSWER_MAX).await.expect("an answer");
    assert_eq!(messages(&answer).len(), 1);
    assert_eq!(answer["node"], owner);
    let receipt = &messages(&answer)[0]["receipt"];
    assert_eq!(queue.ack("a", receipt).await, "acked");
}

/// Asks a node that does not own the topic, so that it hands the request on.
async fn pop_by(queue: &Queue, node: u64, body: &Value) -> wire::Pending {
    let subject = format!("mufakat.node.{node}.queue.pop");
    wire::send(&queue.nats, &subject, body).await
}

#[tokio::test]
async fn queue_pops_that_wait_are_handed_on_again_when_their_owner_dies() {
    let (mut cluster, queue) = start(3).await;
    all_are_in_view(&cluster).await;
    let owner = owner_of(&queue, "a").await.expect("an owner");
    let other = owner % 3 + 1;
    // One pop is answered before; it must not take a message a second time.
    let body = json!({"topic": "a", "consumer": "served", "wait_ms": 60_000});
    let mut served = pop_by(&queue, other, &body).await;
    pops_wait(&queue, "a", 1).await;
    push_is_taken(&queue, "a", 1).await;
    let answer = served.answer(ANSWER_MAX).await.expect("an answer");
    let receipt = messages(&answer)[0]["receipt"].clone();
    assert_eq!(queue.ack("a", &receipt).await, "acked");

    let body = json!({"topic": "a", "consumer": "waits", "wait_ms": 60_000});
    let mut waiting = pop_by(&queue, other, &body).await;
    pops_wait(&queue, "a", 1).await;
    its_owner_dies(&mut cluster, &queue, owner).await;
    push_is_taken(&queue, "a", 2).await;
    let answer = waiting.answer(ANSWER_MAX).await.expect("an answer");
    let popped = messages(&answer);
    assert_eq!(popped.len(), 1, "{answer}");
    assert_eq!(popped[0]["payload"], 2);
    assert_eq!(queue.ack("a", &popped[0]["receipt"]).await, "acked");
    push_is_taken(&queue, "a", 3).await;
    assert_eq!(queue.counts("a").await, [1, 0, 0, 0], "nobody else waits");
    let second = served.answer(Duration::from_millis(1)).await;
    assert_eq!(second, None, "no pop has two answers");
}

/// The pop that waits for topic `a` waits at another node then.
async fn its_owner_dies(cluster: &mut Cluster, queue: &Queue, owner: u64) {
    cluster.kill(owner);
    wait::until("another node owns the topic", async || {
        let now = owner_of(queue, "a").await?;
        (now != owner).then_some(())
    })
    .await;
    pops_wait(queue, "a", 1).await;
}

#[tokio::test]
async fn queue_acks_with_a_pop_are_known_when_their_owner_dies() {
    let (mut cluster, queue) = start(3).await;
    all_are_in_view(&cluster).await;
    let owner = owner_of(&queue, "a").await.expect("an owner");
    let other = owner % 3 + 1;
    push_is_taken(&queue, "a", 1).await;
    let popped = queue.pop("a", 1).await;
    let pop = json!({"consumer": "c", "wait_ms": 60_000});
    let body = json!({"topic": "a", "receipt": popped[0]["receipt"], "pop": pop});
    let subject = format!("mufakat.node.{other}.queue.ack");
    let mut waiting = wire::send(&queue.nats, &subject, &body).await;
    pops_wait(&queue, "a", 1).await;
    its_owner_dies(&mut cluster, &queue, owner).await;
    push_is_taken(&queue, "a", 2).await;
    let answer = waiting.answer(ANSWER_MAX).await.expect("an answer");
    assert_eq!(result(&answer), "already_acked");
    assert_eq!(messages(&answer)[0]["payload"], 2);
}
