//! Nodes are added and removed while messages are lost and leaders die in the middle.
//!
//! What must hold beside what the history checks of every entry: of one term there is one leader
//! (checked at each look); a wish, repeated until it is granted, comes true; a node that does not get
//! the log gets no vote, and the others go on without it.

use std::time::Duration;

use mufakat::broker::simulated::Faults;
use mufakat::ids::NodeId;
use mufakat::time::now;
use serde_json::Value;

use crate::client::{Client, code};
use crate::cluster::{Cluster, NODES};
use crate::run;

const FOUR: NodeId = NodeId(4);
/// How long one wish may take, in virtual time, with all that goes wrong.
const PATIENCE: Duration = Duration::from_secs(90);

/// Asks a node that runs for a change until it is granted, and returns the voters after it.
async fn wish(cluster: &mut Cluster, client: &mut Client, what: &str, node: NodeId) -> Vec<u64> {
    let begun = now();
    let body = format!(r#"{{"node":{node},"timeout_ms":3000}}"#);
    let operation = format!("admin.cluster.{what}");
    loop {
        // Any node that runs and was there from the beginning.
        let asked = NODES
            .into_iter()
            .find(|node| cluster.nodes.contains_key(node));
        let asked = asked.expect("some node runs");
        let request = (operation.as_str(), body.as_str());
        let patience = Duration::from_secs(4);
        let answer = client.call(cluster, asked, request, patience).await;
        match answer {
            Some(answer) if code(&answer) == "ok" => return ids(&answer["voters"]),
            other => assert!(begun.elapsed() < PATIENCE, "{what} {node}: {other:?}"),
        }
        cluster.pass(100).await;
    }
}

fn ids(list: &Value) -> Vec<u64> {
    let ids = list.as_array().expect("a list");
    ids.iter().map(|id| id.as_u64().expect("an id")).collect()
}

/// Takes locks at a node, so that there is something to agree on.
fn work(cluster: &Cluster, client: &mut Client, node: NodeId, count: u64) {
    for number in 0..count {
        let body = format!(r#"{{"resource":"r{number}","ttl_ms":86400000}}"#);
        client.ask(cluster, node, "lock.acquire", &body);
    }
}

#[test]
fn a_leader_dies_while_a_node_is_added_and_while_one_is_removed() {
    for seed in 1..=4 {
        run(seed, async {
            // With few entries kept, the new node begins with a snapshot.
            let mut cluster = Cluster::of_three(seed, 200).await;
            let mut client = Client::new(&cluster, 1).await;
            for node in NODES {
                work(&cluster, &mut client, node, 50);
                cluster.pass(100).await;
            }
            cluster.network.set_faults(Faults {
                drop: 0.03,
                duplicate: 0.05,
                reorder: 0.05,
                ..Faults::NONE
            });
            cluster.start_joining(FOUR).await;
            let body = r#"{"node":4}"#.to_owned();
            client.ask(&cluster, NODES[0], "admin.cluster.add", &body);
            // Before, while and after the new configuration is agreed on, by the seed.
            cluster.pass(seed * 15).await;
            if let Some((_, leader)) = cluster.leading().filter(|(_, node)| *node != FOUR) {
                cluster.crash(leader, 0).await;
                cluster.pass(seed * 100).await;
                cluster.start(leader).await;
            }
            let voters = wish(&mut cluster, &mut client, "add", FOUR).await;
            assert_eq!(voters, [1, 2, 3, 4]);

            let gone = NODES[seed as usize % 3];
            let left = cluster.nodes[&gone].core.clone();
            let leaves = tokio::spawn(async move { left.removed().await });
            let body = format!(r#"{{"node":{gone}}}"#);
            client.ask(&cluster, FOUR, "admin.cluster.remove", &body);
            cluster.pass(seed * 15).await;
            if let Some((_, leader)) = cluster.leading().filter(|(_, node)| *node != gone) {
                cluster.crash(leader, 0).await;
                cluster.pass(seed * 100).await;
                cluster.start(leader).await;
            }
            let asked = wish(&mut cluster, &mut client, "remove", gone);
            let voters = asked.await;
            assert!(!voters.contains(&gone.0) && voters.len() == 3, "{voters:?}");
            let heard = tokio::time::timeout(PATIENCE, leaves).await;
            heard.expect("it hears of it in time").expect("it runs");
            cluster.crash(gone, 0).await;
            cluster.heal();
            work(&cluster, &mut client, FOUR, 20);
            cluster.settle_of(3).await;
        });
    }
}

/// A node that is removed while it still starts looks later than that.
#[test]
fn who_looks_late_hears_of_its_removal_too() {
    run(1, async {
        let mut cluster = Cluster::of_three(1, 10_000).await;
        let mut client = Client::new(&cluster, 1).await;
        cluster.start_joining(FOUR).await;
        let voters = wish(&mut cluster, &mut client, "add", FOUR).await;
        assert_eq!(voters, [1, 2, 3, 4]);
        let voters = wish(&mut cluster, &mut client, "remove", FOUR).await;
        assert_eq!(voters, [1, 2, 3]);
        let removed = cluster.nodes[&FOUR].core.clone();
        let heard = tokio::time::timeout(PATIENCE, async move { removed.removed().await }).await;
        heard.expect("it hears of it in time");
    });
}

#[test]
fn a_node_that_is_cut_off_gets_no_vote_and_the_others_go_on_without_it() {
    run(1, async {
        let mut cluster = Cluster::of_three(1, 10_000).await;
        let mut client = Client::new(&cluster, 1).await;
        cluster.start_joining(FOUR).await;
        cluster.pass(300).await;
        let number = client.ask(&cluster, NODES[0], "admin.cluster.add", r#"{"node":4}"#);
        // It was greeted, and is a learner at the most.
        cluster.pass(10).await;
        cluster.isolate(FOUR);
        let until = now() + Duration::from_secs(8);
        let answer = client.answer(&mut cluster, number, until).await;
        let answer = answer.expect("an answer");
        assert_ne!(code(&answer), "ok", "{answer}");
        let voters = cluster.core(NODES[0]).handle.known_members().voters();
        assert_eq!(voters, NODES.into(), "a vote before its log is there");

        // One of three may be lost as ever.
        let lost = cluster.followers().into_iter().find(|node| *node != FOUR);
        let lost = lost.expect("two follow");
        cluster.crash(lost, 0).await;
        let asked = NODES
            .into_iter()
            .find(|node| *node != lost)
            .expect("two are left");
        let acquire = ("lock.acquire", r#"{"resource":"a"}"#);
        let patience = Duration::from_secs(10);
        let answer = client.call(&mut cluster, asked, acquire, patience).await;
        assert_eq!(answer.as_ref().map(code), Some("ok"), "{answer:?}");

        cluster.start(lost).await;
        cluster.heal();
        let voters = wish(&mut cluster, &mut client, "add", FOUR).await;
        assert_eq!(voters, [1, 2, 3, 4]);
        cluster.settle_of(4).await;
    });
}
