//! What a node does not take, and calls.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use openraft::raft::{StreamAppendError, VoteRequest};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::cluster::{Cluster, PREFIX, disk_id};
use super::{ALL, ALL_IDS};
use crate::broker::Outgoing;
use crate::ids::{BootId, DiskId, NodeId};
use crate::raft::call::{Handler, Trust};
use crate::raft::frame::{self, Frame, Header, Lane};
use crate::raft::message::{Append, Election, Refusal, StreamAnswer};
use crate::raft::network::{CallError, Identity, Network, Target};
use crate::raft::types::Vote;
use crate::time::now;

#[tokio::test(start_paused = true)]
async fn random_bytes_are_counted_and_dropped() {
    let mut cluster = Cluster::of_three(7).await;
    let mut rng = StdRng::seed_from_u64(7);
    let broker = cluster.broker.broker(NodeId(99));
    let lanes = [
        Lane::Vote,
        Lane::Beat,
        Lane::Append,
        Lane::Snapshot,
        Lane::Call,
    ];
    let sender = stranger(2, disk_id(2));
    for round in 0..2000 {
        let lane = lanes[round % lanes.len()];
        let mut bytes = vec![0; rng.random_range(0..200)];
        rng.fill_bytes(&mut bytes);
        let whole = if round % 2 == 0 {
            Bytes::from(bytes)
        } else {
            // A valid envelope around a body that is of no lane, or only by chance.
            let header = Header::new(lane, &sender, Some(disk_id(1))).at(1 << 40, round as u64);
            frame::encode(&header, &serde_bytes::Bytes::new(&bytes), 0).unwrap()
        };
        let subject = format!("{PREFIX}.int.raft.1.{}", lane.token());
        let reply = Some("nowhere".to_owned());
        broker
            .publish(Outgoing {
                headers: Vec::new(),
                subject,
                reply,
                payload: whole,
            })
            .unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let refused = &cluster.nodes[&1].network.counters().undecodable;
    assert!(refused.load(Ordering::Relaxed) > 1000);
    cluster.write(&ALL, 10, 100).await;
    cluster.applied_everywhere(&ALL, 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_or_outdated_heartbeat_or_stream_is_refused() {
    let cluster = Cluster::of_three(8).await;
    let leader = cluster.leader_among(&ALL).await;
    let follower = ALL.into_iter().find(|node| *node != leader).unwrap();
    let boot = cluster.nodes[&leader].network.identity().boot;
    let counters = cluster.nodes[&follower].network.counters();
    let outdated = || counters.outdated.load(Ordering::Relaxed);
    let sender = Identity {
        boot,
        ..stranger(leader, disk_id(leader))
    };
    let beat = Append {
        vote: Vote::new_committed(1000, NodeId(leader)),
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    };
    for (lane, stream, sequence) in [(Lane::Beat, 0, 1), (Lane::Append, 1, 0)] {
        let before = outdated();
        // A later one of each lane has been taken already: numbers only grow.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let header = Header::new(lane, &sender, Some(disk_id(follower))).at(stream, sequence);
        publish(&cluster, follower, &header, &beat);
        let refused = || (outdated() > before).then_some(());
        cluster.until("it is refused", refused).await;
        assert_eq!(outdated(), before + 1, "{lane:?}");
    }
    assert!(cluster.term(follower) < 1000);
}

#[tokio::test(start_paused = true)]
async fn another_disk_is_refused_on_both_sides() {
    let cluster = Cluster::of_three(9).await;
    let leader = cluster.leader_among(&ALL).await;
    let follower = ALL.into_iter().find(|node| *node != leader).unwrap();
    let vote = Election::Vote(VoteRequest::new(Vote::new(1000, NodeId(leader)), None));
    let timeout = Duration::from_secs(1);

    // A peer that came back with an empty disk under its old id has no vote.
    let impostor = listening(&cluster, stranger(leader, DiskId(666))).await;
    let target = Target {
        node: NodeId(follower),
        disk: Some(disk_id(follower)),
    };
    let answer = impostor.ask(Lane::Vote, target, &vote, 0, timeout).await;
    assert_eq!(
        answer.unwrap_err(),
        CallError::Refused(Refusal::UnknownDisk)
    );

    // Nor is a vote asked of a node whose disk is not the one that is meant.
    let target = Target {
        disk: Some(DiskId(667)),
        ..target
    };
    let answer = cluster.nodes[&leader]
        .network
        .ask(Lane::Vote, target, &vote, 0, timeout)
        .await;
    assert_eq!(answer.unwrap_err(), CallError::Refused(Refusal::OtherDisk));
    assert!(ALL.iter().all(|node| cluster.term(*node) < 1000));

    let counters = cluster.nodes[&follower].network.counters();
    assert_eq!(counters.from_wrong_disk.load(Ordering::Relaxed), 1);
    assert_eq!(counters.not_for_this_disk.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn calls_reach_handlers_and_nobody_there_is_known_at_once() {
    let mut cluster = Cluster::of_three(20).await;
    let echo: Handler = Arc::new(|caller, body| {
        async move {
            Ok([&body[..], caller.node.to_string().as_bytes()]
                .concat()
                .into())
        }
        .boxed()
    });
    cluster.nodes[&2]
        .network
        .handle("echo", Trust::Members, echo.clone());
    cluster.nodes[&2]
        .network
        .handle("hello", Trust::Anyone, echo);
    let network = cluster.nodes[&1].network.clone();
    let timeout = Duration::from_secs(5);
    let call = |to, kind| network.call(NodeId(to), kind, Bytes::from_static(b"hi "), timeout);
    assert_eq!(call(2, "echo").await.unwrap(), "hi 1");
    let unknown = CallError::Refused(Refusal::UnknownCall);
    assert_eq!(call(2, "no such thing").await.unwrap_err(), unknown);

    let newcomer = listening(&cluster, stranger(7, DiskId(7))).await;
    let call_as = |kind| newcomer.call(NodeId(2), kind, Bytes::new(), timeout);
    assert_eq!(call_as("hello").await.unwrap(), "7");
    let refused = CallError::Refused(Refusal::UnknownDisk);
    assert_eq!(call_as("echo").await.unwrap_err(), refused);

    let slow: Handler = Arc::new(|_, body| {
        async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Ok(body)
        }
        .boxed()
    });
    cluster.nodes[&2]
        .network
        .handle("slow", Trust::Members, slow);
    let hurry = Duration::from_millis(100);
    let late = network
        .call(NodeId(2), "slow", Bytes::from_static(b"late"), hurry)
        .await;
    assert_eq!(late.unwrap_err(), CallError::Timeout);
    assert_eq!(call(2, "slow").await.unwrap(), "hi ");
    assert_eq!(network.counters().late_answers.load(Ordering::Relaxed), 1);

    let start = now();
    cluster.crash(3).await;
    assert_eq!(call(3, "echo").await.unwrap_err(), CallError::NoResponders);
    assert!(
        start.elapsed() < Duration::from_millis(100),
        "took {:?}",
        start.elapsed()
    );

    cluster.broker.isolate(NodeId(2), &ALL_IDS);
    assert_eq!(call(2, "echo").await.unwrap_err(), CallError::Timeout);
    cluster.broker.disconnect(NodeId(1));
    assert_eq!(call(2, "echo").await.unwrap_err(), CallError::Disconnected);
}

fn stranger(node: u64, disk: DiskId) -> Identity {
    Identity {
        node: NodeId(node),
        disk,
        boot: BootId(4711),
    }
}

/// Another process's end of the network, which hears its answers.
async fn listening(cluster: &Cluster, identity: Identity) -> Network {
    let broker = cluster.broker.broker(NodeId(98));
    let known = |node: NodeId| (node.0 <= 3).then(|| disk_id(node.0));
    let network = Network::new(identity, broker, PREFIX, Arc::new(known));
    let (running, stop) = tokio::sync::watch::channel(false);
    let listener = network.listen().await.unwrap();
    tokio::spawn(async move {
        listener.run(stop).await;
        drop(running);
    });
    network
}

fn publish(cluster: &Cluster, to: u64, header: &Header, body: &impl serde::Serialize) {
    let payload = frame::encode(header, body, 0).unwrap();
    let subject = format!("{PREFIX}.int.raft.{to}.{}", header.lane.token());
    let reply = Some("nowhere".to_owned());
    let broker = cluster.broker.broker(NodeId(97));
    broker
        .publish(Outgoing {
            headers: Vec::new(),
            subject,
            reply,
            payload,
        })
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_answered_with_a_reset_and_a_repetition_with_nothing() {
    let cluster = Cluster::of_three(21).await;
    let leader = cluster.leader_among(&ALL).await;
    let follower = ALL.into_iter().find(|node| *node != leader).unwrap();
    let other = ALL
        .into_iter()
        .find(|node| ![leader, follower].contains(node))
        .unwrap();
    let inbox = cluster
        .broker
        .broker(NodeId(97))
        .subscribe("nowhere".to_owned(), 16);
    let mut inbox = inbox.await.unwrap();
    let sender = stranger(other, disk_id(other));
    let outdated = Append {
        vote: Vote::new_committed(0, NodeId(other)),
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    };
    for sequence in [0, 0, 2] {
        let to = Some(disk_id(follower));
        let header = Header::new(Lane::Append, &sender, to).at(5, sequence);
        publish(&cluster, follower, &header, &outdated);
    }
    let counters = cluster.nodes[&follower].network.counters();
    let repeated = || (counters.repeated.load(Ordering::Relaxed) == 1).then_some(());
    cluster
        .until("the repetition is passed over", repeated)
        .await;
    let mut answers = Vec::new();
    let answered = || {
        while let Some(message) = inbox.try_next() {
            let frame = Frame::decode(&message.payload).unwrap();
            let answer: Result<StreamAnswer, Refusal> = frame.body().unwrap();
            assert_eq!(frame.header.stream, 5);
            answers.push((frame.header.sequence, answer.unwrap()));
        }
        (answers.len() >= 2).then_some(())
    };
    cluster.until("both others are answered", answered).await;
    answers.sort_by_key(|(sequence, _)| *sequence);
    assert!(
        matches!(
            answers[..],
            [
                (
                    0,
                    StreamAnswer::Appended(Err(StreamAppendError::HigherVote(_)))
                ),
                (2, StreamAnswer::Reset)
            ]
        ),
        "{answers:?}"
    );
    assert_eq!(counters.repeated.load(Ordering::Relaxed), 1);
    assert_eq!(counters.gaps.load(Ordering::Relaxed), 1);
}
