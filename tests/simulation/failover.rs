//! Elections that begin when the broker knows that the leader is gone: soon, and never without need.

use std::cell::Cell;
use std::time::Duration;

use mufakat::ids::NodeId;
use mufakat::time::{Instant, now};
use mufakat::view::cluster::Member;

use crate::client::{Client, token};
use crate::cluster::{Cluster, NODES};
use crate::run;

const PATIENCE: Duration = Duration::from_secs(30);
/// One and a half heartbeats and what an election takes; without the broker's word it is the lease of
/// 800 ms and 400 to 800 ms more.
const AT_ONCE: Duration = Duration::from_millis(400);

/// From a crash: three heartbeats, a look each 100 ms, a question and the change of the view.
const GONE_WITHIN: Duration = Duration::from_millis(700);
/// From the election: a heartbeat in which it could have answered, and the change of the view.
const LEAVES_WITHIN: Duration = Duration::from_millis(400);

/// The stay of a node in the view, as another one has it.
fn stay(cluster: &Cluster, seen_by: NodeId, node: NodeId) -> Option<Member> {
    let handle = &cluster.core(seen_by).handle;
    handle.read(|state, _| state.view.latest_member(node))
}

/// Waits until a node has left the view, as another one has it.
async fn leaves(cluster: &mut Cluster, seen_by: NodeId, node: NodeId) -> Duration {
    let begun = now();
    while stay(cluster, seen_by, node).is_some() {
        cluster.pass(5).await;
        assert!(begun.elapsed() < PATIENCE, "node {node} stays in the view");
    }
    begun.elapsed()
}

async fn acquire(cluster: &mut Cluster, client: &mut Client, at: NodeId, resource: &str) -> u64 {
    let body = format!(r#"{{"resource":"{resource}","owner":"a","ttl_ms":60000}}"#);
    let answer = client
        .call(cluster, at, ("lock.acquire", &body), PATIENCE)
        .await;
    token(&answer.expect("a grant"))
}

/// Waits for a leader of a later term among those that run.
async fn next_leader(cluster: &mut Cluster, after: u64) -> (NodeId, Duration) {
    let begun: Instant = now();
    loop {
        if let Some((term, leader)) = cluster.leading()
            && term > after
        {
            return (leader, begun.elapsed());
        }
        assert!(begun.elapsed() < PATIENCE, "nobody leads");
        cluster.pass(5).await;
    }
}

#[test]
fn a_leader_that_crashed_is_replaced_at_once_and_no_grant_is_lost() {
    let mut slowest = Duration::ZERO;
    for seed in 1..=20 {
        run(seed, async {
            let mut cluster = Cluster::of_three(seed, 10_000).await;
            let mut client = Client::new(&cluster, 1).await;
            cluster.pass(1_000).await;
            let mut last = 0;
            for round in 0..3 {
                let leader = cluster.leader().await;
                let (term, _) = cluster.leading().expect("one leads");
                let resource = format!("r{round}");
                let granted = acquire(&mut cluster, &mut client, leader, &resource).await;
                assert!(granted > last, "token {granted} follows {last}");
                cluster.pass(seed * 7 % 130).await;
                cluster.crash(leader, 0).await;
                let (next, took) = next_leader(&mut cluster, term).await;
                assert!(took < AT_ONCE, "node {next} took {took:?}");
                slowest = slowest.max(took);
                let again = acquire(&mut cluster, &mut client, next, &resource).await;
                assert_eq!(again, granted, "the owner has the same grant still");
                last = granted;
                cluster.start(leader).await;
            }
            cluster.leader().await;
            cluster.settle().await;
        });
    }
    println!("  the slowest took {slowest:?}");
}

/// Only the leader's connection breaks: it is replaced, comes back, and follows.
#[test]
fn a_leader_without_its_connection_is_replaced_and_follows_when_it_is_back() {
    for seed in 1..=5 {
        run(seed, async {
            let mut cluster = Cluster::of_three(seed, 10_000).await;
            let mut client = Client::new(&cluster, 1).await;
            cluster.pass(1_000).await;
            let leader = cluster.leader().await;
            let (term, _) = cluster.leading().expect("one leads");
            let granted = acquire(&mut cluster, &mut client, leader, "r").await;
            cluster.network.disconnect(leader);
            let (next, took) = next_leader(&mut cluster, term).await;
            assert!(took < AT_ONCE, "node {next} took {took:?}");
            cluster.heal();
            assert_eq!(cluster.leader().await, next);
            let again = acquire(&mut cluster, &mut client, leader, "r").await;
            assert_eq!(again, granted);
            cluster.pass(3_000).await;
            assert_eq!(
                cluster.leading(),
                Some((term + 1, next)),
                "one election is enough"
            );
            cluster.settle().await;
        });
    }
}

/// The broker knows at once that it is gone: three heartbeats are waited for, and not the suspicion time.
#[test]
fn a_follower_that_crashed_leaves_the_view_before_it_is_suspected() {
    for seed in 1..=20 {
        run(seed, async {
            let mut cluster = Cluster::of_three(seed, 10_000).await;
            cluster.pass(2_000).await;
            let leader = cluster.leader().await;
            let follower = cluster.followers()[seed as usize % 2];
            cluster.crash(follower, 0).await;
            let took = leaves(&mut cluster, leader, follower).await;
            assert!(took < GONE_WITHIN, "it took {took:?}");
            cluster.start(follower).await;
            cluster.leader().await;
            cluster.settle().await;
        });
    }
}

/// A leader that stalls keeps its connections: it is missed after its lease and an election timeout, and is
/// then not given the suspicion time of one second once more before it leaves the view.
#[test]
fn a_leader_that_stalls_leaves_the_view_soon_after_the_election() {
    for seed in 1..=20 {
        run(seed, async {
            let mut cluster = Cluster::of_three(seed, 10_000).await;
            cluster.pass(2_000).await;
            let leader = cluster.leader().await;
            let (term, _) = cluster.leading().expect("one leads");
            cluster.network.isolate(leader, &NODES);
            let (next, elected) = next_leader(&mut cluster, term).await;
            let took = leaves(&mut cluster, next, leader).await;
            assert!(
                took < LEAVES_WITHIN,
                "elected after {elected:?}, left {took:?} later"
            );
            cluster.heal();
            cluster.pass(3_000).await;
            let back = stay(&cluster, next, leader);
            assert!(back.is_some(), "it does not come back");
            cluster.settle().await;
        });
    }
}

/// What a member of the view does needs no disk. One whose log is behind would be removed and come back again
/// and again, and no view would become active meanwhile.
#[test]
fn a_follower_with_a_slow_disk_stays_in_the_view() {
    for seed in 1..=3 {
        run(seed, async {
            let mut cluster = Cluster::of_three(seed, 10_000).await;
            let mut client = Client::new(&cluster, 1).await;
            cluster.pass(2_000).await;
            let leader = cluster.leader().await;
            let stays = NODES.map(|node| stay(&cluster, leader, node));
            let slow = cluster.followers()[seed as usize % 2];
            cluster.slow_disk(slow, Duration::from_millis(1_200));
            for round in 0..100 {
                acquire(&mut cluster, &mut client, leader, &format!("r{round}")).await;
                cluster.pass(100).await;
            }
            assert_eq!(NODES.map(|node| stay(&cluster, leader, node)), stays);
            cluster.slow_disk(slow, Duration::from_millis(2));
            cluster.settle().await;
        });
    }
}

/// It goes on sending: heartbeats rest when nobody answers, and so must entries, or its followers would take
/// them for a sign that it leads.
#[test]
fn a_leader_that_hears_nobody_is_replaced_also_while_it_has_entries_to_send() {
    for seed in 1..=5 {
        run(seed, async {
            let mut cluster = Cluster::of_three(seed, 10_000).await;
            let mut client = Client::new(&cluster, 1).await;
            cluster.pass(2_000).await;
            let leader = cluster.leader().await;
            let (term, _) = cluster.leading().expect("one leads");
            for other in cluster.followers() {
                cluster.network.cut(other, leader);
            }
            let body = r#"{"resource":"r","owner":"a","ttl_ms":60000}"#;
            client.ask(&cluster, leader, "lock.acquire", body);
            let (_, took) = next_leader(&mut cluster, term).await;
            assert!(took < Duration::from_secs(3), "it took {took:?}");
            cluster.heal();
            cluster.settle().await;
        });
    }
}

/// Nobody was heard for longer than the suspicion time, by a leader that is none the less the leader still: it
/// knows only of itself that it was away.
#[test]
fn a_leader_that_was_cut_off_and_leads_still_removes_nobody() {
    for seed in 1..=20 {
        run(seed, async {
            let mut cluster = Cluster::of_three(seed, 10_000).await;
            cluster.pass(2_000).await;
            let leader = cluster.leader().await;
            let before = cluster.leading();
            let stays = NODES.map(|node| stay(&cluster, leader, node));
            cluster.network.isolate(leader, &NODES);
            cluster.pass(1_130).await;
            cluster.heal();
            cluster.pass(3_000).await;
            cluster.settle().await;
            if cluster.leading() == before {
                assert_eq!(NODES.map(|node| stay(&cluster, leader, node)), stays);
            }
        });
    }
}

/// It was cut off as long, and answers within a heartbeat.
#[test]
fn a_leader_that_is_replaced_and_answers_stays_in_the_view() {
    for seed in 1..=5 {
        run(seed, async {
            let mut cluster = Cluster::of_three(seed, 10_000).await;
            cluster.pass(2_000).await;
            let leader = cluster.leader().await;
            let (term, _) = cluster.leading().expect("one leads");
            let before = stay(&cluster, leader, leader);
            assert!(before.is_some(), "the leader is in the view");
            cluster.network.isolate(leader, &NODES);
            let (next, _) = next_leader(&mut cluster, term).await;
            cluster.heal();
            cluster.pass(3_000).await;
            assert_eq!(stay(&cluster, next, leader), before);
            cluster.settle().await;
        });
    }
}

/// All connections break, as when the broker starts again, and the leader's comes back last.
#[test]
fn a_broker_that_restarts_is_not_a_leader_that_died() {
    for seed in 1..=5 {
        run(seed, async {
            let mut cluster = Cluster::of_three(seed, 10_000).await;
            cluster.pass(1_000).await;
            let leader = cluster.leader().await;
            let before = cluster.leading();
            for node in NODES {
                cluster.network.disconnect(node);
            }
            cluster.pass(150).await;
            for follower in cluster.followers() {
                cluster.network.reconnect(follower);
            }
            // Less than the lease in all: after that a leader without majority falls silent by itself.
            cluster.pass(300).await;
            cluster.network.reconnect(leader);
            cluster.pass(3_000).await;
            assert_eq!(cluster.leading(), before, "the leader changed");
            cluster.settle().await;
        });
    }
}

/// A follower that alone finds nobody at the leader's subject changes nothing.
#[test]
fn one_node_that_sees_no_leader_disturbs_nobody() {
    for seed in 1..=5 {
        run(seed, async {
            let mut cluster = Cluster::of_three(seed, 10_000).await;
            cluster.pass(1_000).await;
            let before = cluster.leading();
            let follower = cluster.followers()[0];
            for _ in 0..3 {
                cluster.network.disconnect(follower);
                cluster.pass(2_500).await;
                cluster.network.reconnect(follower);
                cluster.pass(1_500).await;
            }
            assert_eq!(cluster.leading(), before, "the leader changed");
            cluster.settle().await;
        });
    }
}

/// All are told to stop, and the others say so only after they were asked to lead: the leader does not wait for
/// one of them until its time is over.
#[test]
fn who_hands_over_hears_that_the_others_stop_too() {
    run(1, async {
        let mut cluster = Cluster::of_three(1, 10_000).await;
        cluster.pass(1_000).await;
        let leader = cluster.leader().await;
        let others = cluster.followers();
        for &node in &others {
            cluster.isolate(node);
        }
        let answers = Cell::new(0);
        let staying = async || {
            answers.set(answers.get() + 1);
            let stay = if answers.get() == 1 { &others[..] } else { &[] };
            stay.iter().copied().collect()
        };
        let handle = cluster.core(leader).handle.clone();
        let begun = now();
        handle.hand_over(staying, begun + PATIENCE).await;
        assert_eq!(answers.get(), 2);
        assert!(begun.elapsed() < AT_ONCE, "took {:?}", begun.elapsed());
    });
}

/// The one that is asked first does not hear it: another one is asked, though both could lead as well.
#[test]
fn another_is_asked_to_lead_when_the_first_does_not() {
    run(1, async {
        let mut cluster = Cluster::of_three(1, 10_000).await;
        cluster.pass(1_000).await;
        let leader = cluster.leader().await;
        let others = cluster.followers();
        cluster.isolate(others[0]);
        let handle = cluster.core(leader).handle.clone();
        let staying = async || others.iter().copied().collect();
        let begun = now();
        handle.hand_over(staying, begun + PATIENCE).await;
        assert!(begun.elapsed() < AT_ONCE, "took {:?}", begun.elapsed());
        assert_eq!(handle.leader(), Some(others[1]));
    });
}
