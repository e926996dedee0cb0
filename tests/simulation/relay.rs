//! What one node hands to another is executed there, once, and answered from there.

use std::time::Duration;

use bytes::Bytes;
use mufakat::broker::relay::{Incoming, Keep};
use mufakat::broker::simulated::Faults;
use mufakat::ids::NodeId;
use mufakat::protocol::{Encoding, ReplyTo};
use mufakat::raft::state::State;
use mufakat::time::now;
use mufakat::view::rendezvous::Placement;
use mufakat::view::tenure::Stay;
use serde_json::Value;

use crate::client::{Client, code};
use crate::cluster::Cluster;
use crate::run;

const HERE: NodeId = NodeId(1);
const THERE: NodeId = NodeId(2);

fn hand_on(cluster: &Cluster, number: u64, within: Duration) {
    let relay = &cluster.core(HERE).dispatch.relay;
    let reply = ReplyTo::new(format!("inbox.1.{number}"), Encoding::Json);
    let payload = Bytes::from_static(b"{}");
    let incoming = incoming("mufakat.status", &payload);
    let sent = relay.send(THERE, &incoming, (&reply, now() + within));
    sent.expect("the request leaves");
}

/// Hands on a pop that may wait, and is kept meanwhile.
fn hand_on_a_pop(cluster: &Cluster, topic: &str, wait: Duration) {
    let core = cluster.core(HERE);
    let member = |state: &State, _| state.view.latest_member(THERE);
    let incarnation = core.handle.read(member).expect("a member").incarnation;
    let until = now() + Duration::from_secs(30);
    let keep = Keep {
        executor: Stay {
            node: THERE,
            incarnation,
        },
        wait_until: now() + wait,
        again: false,
    };
    let reply = ReplyTo::new("inbox.1.1".to_owned(), Encoding::Json);
    let wait_ms = wait.as_millis();
    let payload = format!(r#"{{"topic":"{topic}","consumer":"c","wait_ms":{wait_ms}}}"#);
    let payload = Bytes::from(payload);
    let incoming = incoming("mufakat.queue.pop", &payload);
    let relay = &core.dispatch.relay;
    let sent = relay.send_kept(keep, &incoming, (&reply, until));
    sent.expect("the request leaves");
}

fn incoming<'a>(subject: &'a str, payload: &'a Bytes) -> Incoming<'a> {
    Incoming {
        subject,
        reply: None,
        content_type: None,
        message_id: None,
        traceparent: None,
        payload,
    }
}

async fn answers(cluster: &mut Cluster, client: &mut Client) -> Vec<(u64, Value)> {
    cluster.pass(200).await;
    client.heard()
}

#[test]
fn a_request_is_executed_where_it_was_handed_and_answered_from_there() {
    run(1, async {
        let mut cluster = Cluster::of_three(1, 10_000).await;
        let mut client = Client::new(&cluster, 1).await;
        hand_on(&cluster, 7, Duration::from_secs(1));
        let heard = answers(&mut cluster, &mut client).await;
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert_eq!(heard[0].0, 7);
        assert_eq!(heard[0].1["node"], THERE.0);
    });
}

#[test]
fn what_arrives_twice_is_executed_once() {
    run(1, async {
        let mut cluster = Cluster::of_three(1, 10_000).await;
        let mut client = Client::new(&cluster, 1).await;
        cluster.network.set_faults(Faults {
            duplicate: 1.0,
            ..Faults::NONE
        });
        for number in 0..20 {
            hand_on(&cluster, number, Duration::from_secs(1));
        }
        let heard = answers(&mut cluster, &mut client).await;
        assert_eq!(heard.len(), 20);
    });
}

#[test]
fn what_arrives_after_its_time_is_not_executed() {
    run(1, async {
        let mut cluster = Cluster::of_three(1, 10_000).await;
        let mut client = Client::new(&cluster, 1).await;
        hand_on(&cluster, 1, Duration::from_secs(1));
        assert_eq!(answers(&mut cluster, &mut client).await.len(), 1);
        cluster.network.set_faults(Faults {
            delay_min: Duration::from_millis(120),
            delay_max: Duration::from_millis(130),
            ..Faults::NONE
        });
        hand_on(&cluster, 2, Duration::from_millis(100));
        hand_on(&cluster, 3, Duration::from_millis(400));
        let heard = answers(&mut cluster, &mut client).await;
        let numbers: Vec<u64> = heard.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [3]);
    });
}

#[test]
fn that_nobody_listens_is_said_at_once_by_the_node_that_handed_it_on() {
    run(1, async {
        let mut cluster = Cluster::of_three(1, 10_000).await;
        let mut client = Client::new(&cluster, 1).await;
        cluster.crash(THERE, 0).await;
        hand_on(&cluster, 1, Duration::from_secs(60));
        hand_on(&cluster, 2, Duration::from_secs(60));
        let heard = answers(&mut cluster, &mut client).await;
        assert_eq!(heard.len(), 2, "{heard:?}");
        for (_, answer) in heard {
            assert_eq!(answer["node"], HERE.0);
            assert_eq!(code(&answer), "reconfiguring");
            assert_eq!(answer["error"]["outcome"], "not_applied");
        }
    });
}

/// A pop comes to a node that does not own its topic; the third node does, and this one when that is gone. So
/// long it may wait.
async fn handed_early(wait: Duration) -> (Cluster, Client) {
    let mut cluster = Cluster::of_three(1, 10_000).await;
    let client = Client::new(&cluster, 1).await;
    cluster.pass(2_000).await;
    let latest = |state: &State, _| Placement::latest(&state.view);
    let placement = cluster.core(HERE).handle.read(latest);
    let moves = |topic: &String| {
        placement.home_and_second(topic.as_bytes()) == Some((NodeId(3), Some(THERE)))
    };
    let mut topics = (0..).map(|n| format!("topic-{n}"));
    let topic = topics.find(moves).expect("endless");
    hand_on_a_pop(&cluster, &topic, wait);
    (cluster, client)
}

#[test]
fn a_pop_that_comes_before_its_view_waits_for_it() {
    run(1, async {
        let (mut cluster, mut client) = handed_early(Duration::from_secs(30)).await;
        assert_eq!(answers(&mut cluster, &mut client).await, []);
        cluster.crash(NodeId(3), 0).await;
        cluster.pass(1_000).await;
        let heard = answers(&mut cluster, &mut client).await;
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert_eq!(heard[0].1["node"], THERE.0);
        // Executed, that is, but for the Redis that is not there.
        assert_eq!(code(&heard[0].1), "store_unavailable");
    });
}

#[test]
fn a_pop_that_was_handed_to_the_wrong_node_is_refused_in_the_end() {
    for (wait_ms, at_ms) in [(30_000, 2_000), (600, 600)] {
        run(1, async {
            let (mut cluster, mut client) = handed_early(Duration::from_millis(wait_ms)).await;
            cluster.pass(at_ms - 300).await;
            assert_eq!(answers(&mut cluster, &mut client).await, []);
            let heard = answers(&mut cluster, &mut client).await;
            assert_eq!(heard.len(), 1, "{heard:?}");
            assert_eq!(code(&heard[0].1), "reconfiguring");
            assert_eq!(heard[0].1["error"]["outcome"], "not_applied");
        });
    }
}
