//! A change of the ring under a thousand topics: what moves, and how long pops wait because of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mufakat::ids::NodeId;
use mufakat::view::rendezvous::Placement;
use serde_json::json;

use crate::cluster::Cluster;
use crate::queue::{Queue, messages, start};
use crate::queue_waits::all_are_in_view;
use crate::{wait, wire};

const TOPICS: usize = 1_000;
/// No pop waits longer because of a change of the view: 2 s, and half as much again since broker, Redis,
/// three unoptimised nodes and other tests share a few cores here.
const WAIT_MAX: Duration = Duration::from_millis(3_000);
/// Pushes under way at a time.
const PUSHES: usize = 32;

fn topics() -> Vec<String> {
    (0..TOPICS).map(|n| format!("moves.{n}")).collect()
}

/// The owner of each topic, as the cluster says.
async fn owners(queue: &Queue) -> BTreeMap<String, u64> {
    wait::until("a node lists all topics", async || {
        let body = json!({"prefix": "moves.", "limit": 1_000, "timeout_ms": 20_000});
        let limit = Duration::from_secs(20);
        let answer = wire::request(&queue.nats, "mufakat.queue.list", &body, limit).await?;
        let listed = answer["topics"].as_array()?.iter();
        let owners: BTreeMap<String, u64> = listed
            .filter_map(|topic| {
                let name = topic["topic"].as_str()?.to_owned();
                Some((name, topic["owner_node"].as_u64()?))
            })
            .collect();
        (owners.len() == TOPICS).then_some(owners)
    })
    .await
}

/// Where the topics belong among these nodes.
fn homes(nodes: &BTreeSet<u64>) -> BTreeMap<String, u64> {
    let placement = Placement::of(Default::default(), nodes.iter().copied().map(NodeId));
    let home = |topic: String| {
        let home = placement.home(topic.as_bytes()).expect("some node");
        (topic, home.0)
    };
    topics().into_iter().map(home).collect()
}

/// Waits until a node's view has just these members.
async fn in_view(cluster: &Cluster, asked: u64, nodes: &BTreeSet<u64>) {
    wait::until("the view has changed", async || {
        let status = cluster.status(asked).await?;
        let acting = status.members.iter().filter(|m| m.incarnation.is_some());
        let acting: BTreeSet<u64> = acting.map(|member| member.node.0).collect();
        (acting == *nodes).then_some(())
    })
    .await;
}

/// One pop that waits for each topic, asked of these nodes.
async fn pops(queue: &Queue, nodes: &BTreeSet<u64>) -> Vec<(String, wire::Pending)> {
    let mut pops = Vec::new();
    for (topic, node) in topics().into_iter().zip(nodes.iter().cycle()) {
        let body = json!({"topic": topic, "consumer": "c", "wait_ms": 60_000});
        let subject = format!("mufakat.node.{node}.queue.pop");
        let pop = wire::send(&queue.nats, &subject, &body).await;
        pops.push((topic, pop));
    }
    wait::until("all pops wait", async || {
        let body = json!({"prefix": "moves.", "limit": 1_000});
        let limit = Duration::from_secs(5);
        let listed = wire::request(&queue.nats, "mufakat.queue.list", &body, limit).await?;
        let topics = listed["topics"].as_array()?.iter();
        let waiting: u64 = topics.filter_map(|t| t["waiters"].as_u64()).sum();
        (waiting == TOPICS as u64).then_some(())
    })
    .await;
    pops
}

/// Pushes one message to every topic, each until it is taken, and returns how long the slowest consumer
/// waited since its push was first sent.
async fn served(queue: &Queue, round: &str, pops: Vec<(String, wire::Pending)>) -> Duration {
    let sent = RefCell::new(BTreeMap::new());
    let answers = async {
        let answered = pops.into_iter().map(async |(topic, mut pop)| {
            let answer = pop.answer(wait::LONG).await;
            let mut answer = answer.unwrap_or_else(|| panic!("no answer about {topic}"));
            // The node that was asked may end, and says so: its client asks another, in the same time.
            while answer["error"]["code"] == "reconfiguring" {
                let body = json!({"topic": topic, "consumer": "c", "wait_ms": 60_000});
                let again = wire::request(&queue.nats, "mufakat.queue.pop", &body, wait::LONG);
                answer = again
                    .await
                    .unwrap_or_else(|| panic!("no answer about {topic}"));
            }
            assert_eq!(messages(&answer).len(), 1, "{topic}: {answer}");
            assert_eq!(messages(&answer)[0]["payload"], round);
            let receipt = messages(&answer)[0]["receipt"].clone();
            (topic, receipt, Instant::now())
        });
        answered
            .collect::<FuturesUnordered<_>>()
            .collect::<Vec<_>>()
            .await
    };
    let pushes = async {
        let pushed = futures_util::stream::iter(topics()).map(async |topic| {
            let body = json!({"topic": topic, "payload": round, "id": format!("{topic}-{round}")});
            sent.borrow_mut().insert(topic, Instant::now());
            wire::request_until_ok(&queue.nats, "mufakat.queue.push", &body).await;
        });
        pushed.buffer_unordered(PUSHES).collect::<Vec<_>>().await
    };
    let (answered, _) = futures_util::join!(answers, pushes);
    for (topic, receipt, _) in &answered {
        assert_eq!(queue.ack(topic, receipt).await, "acked", "{topic}");
    }
    let sent = sent.borrow();
    let waits = answered.iter().map(|(topic, _, at)| *at - sent[topic]);
    waits.max().expect("there are topics")
}

/// The topics that a change gave to another node are those that had to move, and about its share.
fn check_moved(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, node: u64) {
    let moved = before
        .iter()
        .filter(|(topic, owner)| after[*topic] != **owner);
    let moved: Vec<&String> = moved.map(|(topic, _)| topic).collect();
    for topic in &moved {
        assert!(
            before[*topic] == node || after[*topic] == node,
            "{topic} moved"
        );
    }
    // A third, and five standard deviations of a thousand throws.
    let share_max = TOPICS / 3 + 75;
    println!("{} of {TOPICS} topics moved", moved.len());
    assert!(
        (1..=share_max).contains(&moved.len()),
        "{} moved",
        moved.len()
    );
}

#[tokio::test]
async fn queue_topics_move_by_their_share_and_no_pop_waits_for_it() {
    let (mut cluster, queue) = start(3).await;
    all_are_in_view(&cluster).await;
    let (all, without) = (BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2]));
    // What it takes where nothing moves, on this machine now.
    let calm = served(&queue, "calm", pops(&queue, &all).await).await;
    let bound = calm + WAIT_MAX;
    let before = owners(&queue).await;
    assert_eq!(before, homes(&all));

    let waiting = pops(&queue, &all).await;
    cluster.tell_to_stop(3);
    let leave = served(&queue, "leave", waiting).await;
    in_view(&cluster, 1, &without).await;
    cluster.end(3).await;
    let fewer = owners(&queue).await;
    assert_eq!(fewer, homes(&without));
    check_moved(&before, &fewer, 3);

    let waiting = pops(&queue, &without).await;
    cluster.start_node(3);
    in_view(&cluster, 1, &all).await;
    let join = served(&queue, "join", waiting).await;
    let again = owners(&queue).await;
    assert_eq!(again, before);
    check_moved(&fewer, &again, 3);

    // Pops that wait elsewhere outlive a node that has no time for anything.
    let waiting = pops(&queue, &without).await;
    cluster.kill(3);
    let death = served(&queue, "death", waiting).await;
    in_view(&cluster, 1, &without).await;
    check_moved(&again, &owners(&queue).await, 3);

    println!(
        "slowest pop: {calm:?} calm, {leave:?} as a node left, {join:?} as it came, {death:?} as it died"
    );
    assert!(
        leave < bound && join < bound && death < bound,
        "{leave:?}, {join:?}, {death:?}: above {bound:?}"
    );
}
