//! Data directories that cannot be trusted.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cluster::{Cluster, Options};
use crate::locks;

/// A node with an empty directory would vote as if it had promised nothing.
#[tokio::test]
async fn a_node_that_lost_its_disk_does_not_come_back_under_its_id() {
    let mut cluster = Cluster::start(Options::default()).await;
    let lost = cluster.follower().await;
    assert_eq!(cluster.stop(lost).await.code(), Some(0));
    fs::remove_dir_all(cluster.data_dir(lost)).expect("the directory can be removed");
    cluster.start_node(lost);
    refused(&mut cluster, lost, "knows node").await;
    let nats = cluster.nats().await;
    locks::acquire(&nats, "goes on", "owner", 60_000).await;
}

#[tokio::test]
async fn nodes_do_not_start_with_each_others_directories() {
    let mut cluster = Cluster::start(Options::default()).await;
    let leader = cluster.all_follow().await;
    let others: Vec<u64> = cluster
        .ids()
        .into_iter()
        .filter(|node| *node != leader)
        .collect();
    let [one, other] = others[..] else {
        panic!("three nodes, one leader: {others:?}");
    };
    cluster.kill(one);
    cluster.kill(other);
    let (first, second) = (cluster.data_dir(one), cluster.data_dir(other));
    let aside = first.with_extension("aside");
    rename(&first, &aside);
    rename(&second, &first);
    rename(&aside, &second);
    for (node, found) in [(one, other), (other, one)] {
        cluster.start_node(node);
        let message = format!("belongs to node {found}, not to node {node}");
        refused(&mut cluster, node, &message).await;
    }
    rename(&first, &aside);
    rename(&second, &first);
    rename(&aside, &second);
    cluster.start_all();
    cluster.all_follow().await;
}

/// Its identity is there, so that the others would take its votes, which have forgotten what it promised.
#[tokio::test]
async fn a_node_that_lost_its_log_does_not_come_back() {
    let mut cluster = Cluster::start(Options::default()).await;
    let leader = cluster.all_follow().await;
    let behind = cluster.follower().await;
    let acknowledges = 6 - leader - behind;
    cluster.kill(behind);
    let nats = cluster.nats().await;
    let token = locks::acquire(&nats, "held", "owner", 60_000).await;
    cluster.kill_all();

    let directory = cluster.data_dir(acknowledges);
    let (log, aside) = (directory.join("log"), directory.join("aside"));
    rename(&log, &aside);
    // With the one that is behind it would be a majority that knows of no lock.
    cluster.start_node(behind);
    for _ in 0..2 {
        cluster.start_node(acknowledges);
        refused(&mut cluster, acknowledges, "is not whole: its newest file").await;
        assert!(!log.exists(), "nothing is changed");
    }
    // As a version that kept no note of it would have left it.
    let (note, note_aside) = (directory.join("log.newest"), directory.join("note.aside"));
    rename(&note, &note_aside);
    let snapshots = directory.join("snapshots");
    fs::remove_dir_all(&snapshots).expect("no snapshot was made so early");
    cluster.start_node(acknowledges);
    refused(&mut cluster, acknowledges, "no vote in it").await;
    rename(&cluster.data_dir(leader).join("log"), &log);
    cluster.start_node(acknowledges);
    refused(&mut cluster, acknowledges, "is not this node's").await;
    rename(&log, &cluster.data_dir(leader).join("log"));

    rename(&aside, &log);
    rename(&note_aside, &note);
    cluster.start_all();
    cluster.all_follow().await;
    let next = locks::acquire(&nats, "another", "owner", 60_000).await;
    assert!(next > token, "{next} after {token}");
}

/// All of them would found a cluster in which no lock is held.
#[tokio::test]
async fn nodes_that_all_lost_their_logs_found_nothing() {
    let mut cluster = Cluster::start(Options::default()).await;
    cluster.kill_all();
    for node in cluster.ids() {
        for folder in ["log", "snapshots"] {
            let folder = cluster.data_dir(node).join(folder);
            fs::remove_dir_all(folder).expect("the node made it");
        }
    }
    cluster.start_all();
    for node in cluster.ids() {
        refused(&mut cluster, node, "is not whole").await;
    }
}

#[tokio::test]
async fn a_node_does_not_start_on_a_damaged_log() {
    let mut cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    for number in 0..50 {
        locks::acquire(&nats, &format!("entry-{number}"), "owner", 60_000).await;
    }
    let node = cluster.follower().await;
    cluster.kill(node);
    let file = newest_file(&cluster.data_dir(node).join("log"));
    let mut bytes = fs::read(&file).expect("the log can be read");
    // Zeroes follow what was written.
    let written = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .expect("it has records");
    bytes[written / 2] ^= 0x10;
    fs::write(&file, bytes).expect("the log can be written");
    cluster.start_node(node);
    refused(&mut cluster, node, "the Raft log is damaged").await;
    let log = cluster.log(node);
    assert!(
        log.contains("Do not repair it"),
        "it says what to do: {log}"
    );
}

async fn refused(cluster: &mut Cluster, node: u64, message: &str) {
    let ended = cluster.end(node).await;
    let log = cluster.log(node);
    assert!(ended.code().is_some_and(|code| code != 0), "{ended}: {log}");
    assert!(log.contains(message), "no {message:?} in: {log}");
    let last = log.lines().last().unwrap_or_default();
    println!("node {node}, {ended}: {last}");
}

fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).expect("directories beside each other can be renamed");
}

fn newest_file(directory: &Path) -> PathBuf {
    let files = fs::read_dir(directory).expect("the log is a directory");
    let mut files: Vec<PathBuf> = files
        .map(|file| file.expect("it can be listed").path())
        .filter(|file| file.extension().is_some_and(|extension| extension == "wal"))
        .collect();
    files.sort();
    files.pop().expect("the log has a file")
}
