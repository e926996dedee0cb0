//! How long nobody is granted anything when the leader goes, under load.
//!
//! `make failover` runs 20 rounds each and prints the distribution; in a test run there are few, and
//! the limits are wide, since other tests run at the same time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mufakat::client::{Client, ClientError, Target};
use mufakat::protocol::lock::{Acquire, Release};

use crate::cluster::{Cluster, Options};
use crate::dice::Dice;
use crate::wait;

const ROUNDS_IN_TEST: usize = 2;
const CLIENTS: usize = 16;
/// Each client rests so long between two locks.
const REST: Duration = Duration::from_millis(3);
/// Grants of a leader before it goes.
const GRANTS_BEFORE: usize = 20 * CLIENTS;
/// How long grants are watched after the leader went.
const WATCHED: Duration = Duration::from_millis(1_500);

/// A node that was away is sent a snapshot: then it cannot know what became of what it forwarded before.
const SHORT_LOG: [&str; 4] = ["--snapshot-entries", "200", "--snapshot-keep-entries", "20"];

/// What this project aims at, on a machine that does nothing else.
const KILLED_MEDIAN: Duration = Duration::from_millis(400);
const KILLED_WORST: Duration = Duration::from_millis(1_500);
const STOPPED_MEDIAN: Duration = Duration::from_millis(50);
/// What any machine has to keep, while it does much else.
const ANY_MACHINE: Duration = Duration::from_secs(8);

/// What the clients see.
#[derive(Default)]
struct Seen {
    stop: Cell<bool>,
    grants: RefCell<Vec<Instant>>,
    /// The longest call since this was last taken, retries included, by the client's target.
    slowest: RefCell<BTreeMap<&'static str, Duration>>,
    failed: RefCell<BTreeMap<String, usize>>,
}

#[tokio::test]
async fn the_gap_after_a_kill_of_the_leader() {
    let (gaps, _) = measure("kill -9 of the leader", async |cluster, leader| {
        cluster.kill(leader);
    })
    .await;
    judge(&gaps, KILLED_MEDIAN, KILLED_WORST);
}

/// Nor does any request fail: the node hands over what it has.
#[tokio::test]
async fn the_gap_after_a_leader_is_told_to_stop() {
    let (gaps, failed) = measure("SIGTERM to the leader", async |cluster, leader| {
        cluster.stop(leader).await;
    })
    .await;
    judge(&gaps, STOPPED_MEDIAN, KILLED_WORST);
    assert!(failed.is_empty(), "requests failed: {failed:?}");
}

/// Sorted gaps, and how calls failed, over all rounds.
async fn measure(
    what: &str,
    mut end: impl AsyncFnMut(&mut Cluster, u64),
) -> (Vec<Duration>, BTreeMap<String, usize>) {
    let dice = Dice::roll();
    let mut cluster = Cluster::start(Options::flags(&SHORT_LOG)).await;
    let seen = Seen::default();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let target = [Target::Leader, Target::Leader, Target::Leader, Target::Any][number % 4];
        clients.push((target, cluster.client(target).await));
    }
    let load = (0..)
        .zip(&clients)
        .map(|(number, client)| load(&seen, number, client));
    let rounds = async {
        let mut gaps = Vec::new();
        for _ in 0..rounds() {
            let leader = cluster.all_follow().await;
            seen.grants.take();
            wait::until("all clients are served", async || {
                (seen.grants.borrow().len() >= GRANTS_BEFORE).then_some(())
            })
            .await;
            // Anywhere between two heartbeats.
            tokio::time::sleep(Duration::from_millis(dice.below(100))).await;
            seen.slowest.take();
            let ended_at = Instant::now();
            end(&mut cluster, leader).await;
            wait::until("grants go on", async || {
                let last = *seen.grants.borrow().last()?;
                (last > ended_at + WATCHED).then_some(())
            })
            .await;
            let gap = longest_gap(&seen.grants.take(), ended_at);
            println!(
                "  {gap:?} without a grant; slowest calls: {:?}",
                seen.slowest.take()
            );
            gaps.push(gap);
            cluster.start_node(leader);
        }
        seen.stop.set(true);
        gaps
    };
    let (_, mut gaps) = futures_util::join!(join_all(load), rounds);
    gaps.sort();
    let failed = seen.failed.take();
    println!(
        "{what}, {} rounds: median {:?}, worst {:?}; failed calls: {failed:?}",
        gaps.len(),
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1],
    );
    cluster.all_follow().await;
    cluster.state_hashes().await;
    (gaps, failed)
}

fn rounds() -> usize {
    match std::env::var("FAILOVER_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("FAILOVER_ROUNDS is a number"),
        Err(_) => ROUNDS_IN_TEST,
    }
}

/// The longest time between two grants, of those that end after `from`.
fn longest_gap(grants: &[Instant], from: Instant) -> Duration {
    let gaps = grants.windows(2).filter(|pair| pair[1] > from);
    gaps.map(|pair| pair[1] - pair[0])
        .max()
        .expect("grants went on")
}

/// The goals hold where somebody measures on purpose.
fn judge(gaps: &[Duration], median: Duration, worst: Duration) {
    let measured = std::env::var_os("FAILOVER_ROUNDS").is_some();
    let limits = if measured {
        (median, worst)
    } else {
        (ANY_MACHINE, ANY_MACHINE)
    };
    let (found, longest) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    assert!(found <= limits.0, "median {found:?} of {gaps:?}");
    assert!(longest <= limits.1, "worst of {gaps:?}");
}

async fn load(seen: &Seen, number: usize, (target, client): &(Target, Client)) {
    let mut request = Acquire::new(format!("own-{number}"));
    request.owner = Some(format!("client-{number}"));
    request.ttl_ms = Some(600_000);
    let target = match target {
        Target::Any => "any node",
        _ => "leader",
    };
    while !seen.stop.get() {
        // An owner that holds the lock already, by a request whose answer it never got, is given
        // the same token again.
        let started = Instant::now();
        if let Some(acquired) = note(seen, target, started, client.acquire(&request).await) {
            seen.grants.borrow_mut().push(Instant::now());
            let release = Release::new(acquired.resource, acquired.token);
            let started = Instant::now();
            note(seen, target, started, client.release(&release).await);
        }
        tokio::time::sleep(REST).await;
    }
}

fn note<T>(
    seen: &Seen,
    target: &'static str,
    started: Instant,
    result: Result<T, ClientError>,
) -> Option<T> {
    let mut slowest = seen.slowest.borrow_mut();
    let longest = slowest.entry(target).or_default();
    *longest = (*longest).max(started.elapsed());
    result
        .inspect_err(|error| {
            assert!(error.retryable(), "lost: {error}");
            *seen
                .failed
                .borrow_mut()
                .entry(error.to_string())
                .or_default() += 1;
        })
        .ok()
}
