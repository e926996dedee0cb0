//! What a follower forwards takes effect exactly once, whatever becomes of the leader.

use std::collections::BTreeSet;
use std::time::Duration;

use mufakat::ids::NodeId;
use mufakat::time::now;

use crate::client::{Client, code};
use crate::cluster::{Cluster, NODES};
use crate::run;

const REQUESTS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(15);

/// How the leader goes while it has, or should have, what was forwarded.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// The forwards never arrive.
    Forwards,
    /// They arrive, and the leader dies before any other node has them.
    Uncommitted,
    /// The same, and the leader comes back with its log.
    Deposed,
}

#[test]
fn forwards_to_a_lost_leader_are_submitted_again_and_applied_once() {
    for loss in [Loss::Forwards, Loss::Uncommitted, Loss::Deposed] {
        for seed in 1..=3 {
            println!("{loss:?}");
            run(seed, leader_lost(seed, loss));
        }
    }
}

async fn leader_lost(seed: u64, loss: Loss) {
    let mut cluster = Cluster::of_three(seed, 10_000).await;
    let mut client = Client::new(&cluster, 1).await;
    let leader = cluster.leader().await;
    let entry = cluster.followers()[0];
    match loss {
        Loss::Forwards => cluster.network.cut(entry, leader),
        Loss::Uncommitted | Loss::Deposed => {
            for other in cluster.followers() {
                cluster.network.cut(leader, other);
            }
        }
    }
    let body = |n: usize| format!(r#"{{"resource":"r{n}","timeout_ms":12000}}"#);
    let mut open: BTreeSet<u64> = (0..REQUESTS)
        .map(|n| client.ask(&cluster, entry, "lock.acquire", &body(n)))
        .collect();
    cluster.pass(300).await;
    match loss {
        Loss::Forwards | Loss::Uncommitted => cluster.crash(leader, 9).await,
        Loss::Deposed => {
            cluster.isolate(leader);
            cluster.pass(3_000).await;
            cluster.heal();
        }
    }
    let begun = now();
    while !open.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "no answer to {open:?}");
        cluster.pass(10).await;
        for (number, answer) in client.heard() {
            assert_eq!(code(&answer), "ok", "{answer}");
            open.remove(&number);
        }
    }
    cluster.heal();
    if !cluster.nodes.contains_key(&leader) {
        cluster.start(leader).await;
    }
    cluster.settle().await;
    let replay = cluster.history.replay();
    assert_eq!(replay.grants.len(), REQUESTS);
    assert_eq!(replay.most_of_one_request(), 1);
}

#[test]
fn a_forward_that_was_given_up_holds_up_no_other() {
    run(1, async {
        let mut cluster = Cluster::of_three(1, 10_000).await;
        let mut client = Client::new(&cluster, 1).await;
        let leader = cluster.leader().await;
        let entry = cluster.followers()[0];
        let term = cluster.leading();
        // The leader has taken forwards of this node before, and knows which comes next.
        let first = ("lock.acquire", r#"{"resource":"c"}"#);
        let answer = client.call(&mut cluster, entry, first, PATIENCE).await;
        assert_eq!(code(&answer.expect("an answer")), "ok");
        cluster.network.cut(entry, leader);
        let short = ("lock.acquire", r#"{"resource":"a","timeout_ms":400}"#);
        let answer = client.call(&mut cluster, entry, short, PATIENCE).await;
        assert_eq!(code(&answer.expect("an answer")), "indeterminate");

        cluster.heal();
        let next = ("lock.acquire", r#"{"resource":"b","timeout_ms":4000}"#);
        let answer = client.call(&mut cluster, entry, next, PATIENCE).await;
        assert_eq!(code(&answer.expect("an answer")), "ok");
        assert_eq!(
            cluster.leading(),
            term,
            "the leader changed, which hides the gap"
        );
        let replay = cluster.history.replay();
        assert_eq!(replay.grants.len(), 2, "what was given up took effect");
    });
}

#[test]
fn what_a_leader_without_its_quorum_was_refused_is_granted_in_the_end() {
    run(1, async {
        let mut cluster = Cluster::of_three(1, 10_000).await;
        let mut client = Client::new(&cluster, 1).await;
        // All have joined the view, and nothing is in flight.
        cluster.pass(2_000).await;
        let leader = cluster.leader().await;
        let others: Vec<NodeId> = NODES.into_iter().filter(|node| *node != leader).collect();
        for other in &others {
            cluster.network.cut(*other, leader);
        }
        cluster.pass(900).await;
        let mut open = BTreeSet::new();
        for n in 0..4 {
            let body = format!(r#"{{"resource":"r{n}","timeout_ms":6000}}"#);
            open.insert(client.ask(&cluster, leader, "lock.acquire", &body));
            cluster.pass(25).await;
        }
        cluster.heal();
        let until = now() + PATIENCE;
        while let Some(number) = open.first().copied() {
            let mut heard = client.heard();
            heard.retain(|(_, answer)| code(answer) == "ok");
            open.retain(|number| !heard.iter().any(|(of, _)| of == number));
            assert!(now() < until, "no grant for request {number}");
            cluster.pass(10).await;
        }
        assert_eq!(cluster.history.replay().most_of_one_request(), 1);
    });
}
