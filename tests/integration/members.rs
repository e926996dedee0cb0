//! Nodes are added and removed while clients work.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mufakat::client::{Client, ClientError, Target};
use mufakat::ids::NodeId;
use mufakat::protocol::Code;
use mufakat::protocol::cluster::Changed;

use crate::cluster::{Cluster, Options};
use crate::rolling_restart::{self, Counts, pairs};
use crate::{programs, wait};

const PATIENCE_MS: u64 = 60_000;

async fn voters(client: &Client) -> Vec<u64> {
    let members = client.members().await.expect("a leader answers");
    let voters = members.members.iter().filter(|member| member.voter);
    voters.map(|member| member.node.0).collect()
}

/// Has a node added that has just been started: what came of it once it is there.
async fn add_once_there(client: &Client, node: u64) -> Result<Changed, ClientError> {
    wait::until("the node is there", async || {
        let added = client.add_node(NodeId(node), PATIENCE_MS).await;
        let is_away = |error: &ClientError| {
            matches!(error.code(), Some(Code::NotFound | Code::Reconfiguring))
        };
        (!added.as_ref().is_err_and(is_away)).then_some(added)
    })
    .await
}

pub async fn add(client: &Client, node: u64) {
    let added = add_once_there(client, node).await;
    let added = added.unwrap_or_else(|error| panic!("node {node} is not added: {error}"));
    assert!(added.voters.contains(&NodeId(node)), "{added:?}");
}

async fn remove(client: &Client, node: u64) {
    let removed = client.remove_node(NodeId(node), PATIENCE_MS).await;
    let removed = removed.unwrap_or_else(|error| panic!("node {node} is not removed: {error}"));
    assert!(!removed.voters.contains(&NodeId(node)), "{removed:?}");
}

/// Code and message of a refusal.
fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (Code, String) {
    let error = result.expect_err("refused");
    (error.code().expect("by a node"), error.to_string())
}

#[tokio::test]
async fn three_become_five_and_three_again_without_a_failed_request() {
    let mut cluster = Cluster::start(Options::default()).await;
    let counts = Counts::default();
    let clients = rolling_restart::clients(&cluster).await;
    let numbered = (0..).zip(&clients);
    let load = join_all(numbered.map(|(n, client)| pairs(&counts, n, client)));
    let changes = async {
        let operator = cluster.client(Target::Any).await;
        cluster.start_joining(4);
        cluster.start_joining(5);
        add(&operator, 4).await;
        add(&operator, 5).await;
        add(&operator, 5).await; // Again: there is nothing left to do.
        assert_eq!(voters(&operator).await, [1, 2, 3, 4, 5]);

        let five = Some(NodeId(5));
        let transferred = operator.transfer_leadership(five, PATIENCE_MS).await;
        assert_eq!(transferred.expect("it can lead").leader, NodeId(5));
        // The leader itself, which answers before it has gone, and one of those that founded the cluster.
        let of_leader = cluster.client(Target::Node(NodeId(5))).await;
        remove(&of_leader, 5).await;
        remove(&operator, 1).await;
        for node in [5, 1] {
            let ended = cluster.end(node).await;
            assert_eq!(ended.code(), Some(0), "node {node}: {ended}");
        }
        remove(&operator, 1).await; // Again.
        assert_eq!(voters(&operator).await, [2, 3, 4]);
        counts.stop.set(true);
        operator
    };
    let ((), operator) = futures_util::join!(async { drop(load.await) }, changes);
    let failed = counts.retryable.take();
    println!(
        "{} calls ended well, the longest in {:?}",
        counts.ok.get(),
        counts.longest.get()
    );
    assert!(failed.is_empty(), "failed: {failed:?}");
    assert!(counts.ok.get() > 40, "there was hardly any load");
    cluster.state_hashes().await;

    // Who was removed does not come back by itself, but with the same disk it may.
    cluster.start_node(1);
    let ended = cluster.end(1).await;
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(cluster.log(1).contains("was removed from the cluster"));
    cluster.start_joining(1);
    add(&operator, 1).await;
    cluster.state_hashes().await;
}

/// Its own log knows nothing of its removal.
#[tokio::test]
async fn a_node_that_was_removed_while_it_was_away_ends_before_it_serves() {
    let mut cluster = Cluster::start(Options::default()).await;
    let operator = cluster.client(Target::Any).await;
    let leader = cluster.all_follow().await;
    let away = (1..=3).find(|node| *node != leader).expect("one follows");
    cluster.kill(away);
    remove(&operator, away).await;
    let joins = |cluster: &Cluster| cluster.log(away).matches("Join {").count();
    let before = joins(&cluster);
    assert!(before > 0, "it says so");
    cluster.start_node(away);
    let ended = cluster.end(away).await;
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(cluster.log(away).contains("was removed from the cluster"));
    assert_eq!(joins(&cluster), before, "it came into the view");
}

/// What it remembers is a removal that was taken back while it was away.
#[tokio::test]
async fn a_member_that_is_behind_does_not_turn_away_a_node_that_was_added_again() {
    let mut cluster = Cluster::start(Options {
        nodes: 5,
        ..Options::default()
    })
    .await;
    let operator = cluster.client(Target::Any).await;
    let leader = cluster.all_follow().await;
    let mut others = (1..=5).filter(|node| *node != leader);
    let (again, behind) = (others.next().expect("five"), others.next().expect("five"));
    let third = others.next().expect("five");
    remove(&operator, again).await;
    cluster.end(again).await;
    let removed_at = cluster.status(leader).await.expect("it runs").commit_index;
    wait::until("the removal is applied", async || {
        let status = cluster.status(behind).await?;
        (status.applied_index >= removed_at).then_some(())
    })
    .await;
    cluster.kill(behind);
    cluster.start_joining(again);
    add(&operator, again).await;
    for node in cluster.ids() {
        if node != behind {
            cluster.kill(node);
        }
    }
    // A majority of five, which has no other.
    for node in [behind, third, again] {
        cluster.start_node(node);
    }
    cluster.leader().await;
}

#[tokio::test]
async fn a_lost_disk_comes_back_under_a_new_id_only() {
    let mut cluster = Cluster::start(Options::default()).await;
    let operator = cluster.client(Target::Any).await;
    // That nobody is there is said at once.
    let asked = Instant::now();
    let (code, message) = refused(operator.add_node(NodeId(4), PATIENCE_MS).await);
    assert_eq!(code, Code::NotFound, "{message}");
    assert!(message.contains("--id 4 --join"), "{message}");
    assert!(asked.elapsed() < Duration::from_millis(PATIENCE_MS / 4));
    assert_eq!(voters(&operator).await, [1, 2, 3]);

    cluster.kill(3);
    cluster.lose_disk(3);
    cluster.start_joining(3);
    let ended = cluster.end(3).await;
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(
        cluster
            .log(3)
            .contains("must not come back under its old id")
    );

    // With one of three gone, the one that is left beside the leader is needed.
    let leader = cluster.leader().await;
    let needed = 3 - leader;
    let (code, message) = refused(operator.remove_node(NodeId(needed), 5_000).await);
    assert_eq!(code, Code::Reconfiguring, "{message}");
    assert!(message.contains("no majority"), "{message}");
    remove(&operator, 3).await;
    cluster.start_joining(4);
    add(&operator, 4).await;
    assert_eq!(voters(&operator).await, [1, 2, 4]);

    // The number is still that of the lost disk.
    cluster.lose_disk(3);
    cluster.start_joining(3);
    let (code, message) = refused(add_once_there(&operator, 3).await);
    assert_eq!(code, Code::BadRequest, "{message}");
    assert!(message.contains("a new id"), "{message}");
    let (code, _) = refused(operator.remove_node(NodeId(9), 5_000).await);
    assert_eq!(code, Code::NotFound);
    cluster.kill(3);
    cluster.state_hashes().await;
}

/// Their peers, all of them as empty, know nothing; the two that came later do.
#[tokio::test]
async fn founders_that_all_lost_their_disks_found_no_second_cluster_beside_what_is_left() {
    let mut cluster = Cluster::start(Options::default()).await;
    let operator = cluster.client(Target::Any).await;
    for node in [4, 5] {
        cluster.start_joining(node);
        add(&operator, node).await;
    }
    for node in 1..=3 {
        cluster.kill(node);
        cluster.lose_disk(node);
    }
    for node in 1..=3 {
        cluster.start_node(node);
    }
    for node in 1..=3 {
        let ended = cluster.end(node).await;
        assert_eq!(ended.code(), Some(1), "node {node}: {ended}");
        let log = cluster.log(node);
        assert!(log.contains("must not come back under its old id"), "{log}");
    }
    // Nor does a node that it never knew.
    let mut other = std::process::Command::new(env!("CARGO_BIN_EXE_mufakat"));
    programs::without_settings(&mut other);
    other
        .args(["node", "--id", "7", "--peers", "7"])
        .args(["--nats", &cluster.nats_url(), "--data-dir"])
        .arg(cluster.data_dir(7));
    let mut other = tokio::process::Command::from(other);
    let ended = tokio::time::timeout(wait::LONG, other.kill_on_drop(true).output()).await;
    let ended = ended.expect("it ends").expect("it runs");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("that has the same subjects"), "{said}");
}
