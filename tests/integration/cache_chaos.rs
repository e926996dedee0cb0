//! Readers and writers of a cache of about three values, while nodes are stopped, killed and restarted
//! and the broker is too; and the same with Redis behind the cache, which is killed and stopped as well. What they saw has to be linearizable, key by key, by the checker of the
//! cache's model.
//!
//! Each node has memory for three values, so that values go all the time; a miss therefore says
//! nothing. A write whose outcome nobody knows may take effect at any time after it was asked for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::Client;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::cache::all_hold;
use crate::cluster::{Cluster, Options};
use crate::dice::Dice;
use crate::{wait, wire};

#[path = "../../src/cache/model_tests/checker.rs"]
mod checker;

use checker::{Did, Operation};

const CLIENTS: usize = 9;
const KEYS: u64 = 5;
const NODES: u64 = 3;
/// How long in the usual run; `MUFAKAT_CHAOS_SECONDS` makes it longer.
const SECONDS: u64 = 15;
const LEASE: Duration = Duration::from_millis(600);
const TIMEOUT_MS: u64 = 2_000;
const ATTEMPT: Duration = Duration::from_millis(2_500);
/// Digits of a value: three of them fill the 64 KiB that a node has.
const VALUE_DIGITS: usize = 18_000;
/// The operations before the one that cannot be explained that a failure shows.
const SHOWN: usize = 40;

#[derive(Default)]
struct Counts {
    operations: u64,
    /// Reads from the memory of the node that was asked, from a home's, from the store, and of nothing.
    local: u64,
    home: u64,
    stored: u64,
    missed: u64,
    /// Values that invalidations removed.
    invalidated: u64,
    unknown: u64,
    refused: BTreeMap<String, u64>,
}

struct Run {
    dice: Dice,
    start: Instant,
    stop: Cell<bool>,
    written: Cell<u64>,
    histories: RefCell<BTreeMap<u64, Vec<Operation>>>,
    /// The number and version that some client saw last of each key.
    known: RefCell<BTreeMap<u64, (u64, String)>>,
    counts: RefCell<Counts>,
}

/// Leases are short, and memory has not room for all keys.
const FLAGS: [&str; 6] = [
    "--view-lease",
    "600ms",
    "--suspicion",
    "500ms",
    "--cache-bytes",
    "65536",
];

#[tokio::test]
async fn cache_chaos_leaves_every_key_linearizable() {
    let mut cluster = Cluster::start(Options::flags(&FLAGS)).await;
    let (operations, local) = leaves_every_key_linearizable(&mut cluster, disturb).await;
    assert!(operations > 300 && local > 50, "there was hardly any load");
}

#[tokio::test]
async fn cache_chaos_with_a_store_leaves_every_key_linearizable() {
    let flags = [&FLAGS[..], &["--cache-store", "redis"]].concat();
    let mut cluster = Cluster::start(Options {
        redis: true,
        ..Options::flags(&flags)
    })
    .await;
    let disturbed = leaves_every_key_linearizable(&mut cluster, disturb_with_redis).await;
    let (operations, local) = disturbed;
    assert!(operations > 200 && local > 20, "there was hardly any load");
}

/// Lets clients read and write while something is disturbed, in turns, and has the checker look at what
/// they saw. Returns how many operations there were, and how many of them were reads that the asked node
/// answered from its memory.
pub async fn leaves_every_key_linearizable(
    cluster: &mut Cluster,
    mut disturb: impl AsyncFnMut(&mut Cluster, &Dice, usize) -> &'static str,
) -> (u64, u64) {
    all_hold(cluster).await;
    let run = Run {
        dice: Dice::roll(),
        start: Instant::now(),
        stop: Cell::new(false),
        written: Cell::new(0),
        histories: RefCell::default(),
        known: RefCell::default(),
        counts: RefCell::default(),
    };
    let seconds = std::env::var("MUFAKAT_CHAOS_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok());
    let length = Duration::from_secs(seconds.unwrap_or(SECONDS));
    let mut connections = Vec::new();
    for _ in 0..CLIENTS {
        connections.push(cluster.nats().await);
    }
    let auditor = cluster.nats().await;
    let mut audited = 0;
    let mut faults = BTreeMap::new();
    let clients = join_all(connections.iter().map(|nats| client(&run, nats)));
    let chaos = async {
        for turn in 0.. {
            let fault = disturb(cluster, &run.dice, turn).await;
            *faults.entry(fault).or_insert(0) += 1;
            audited += audit(&auditor).await;
            if run.start.elapsed() > length {
                break;
            }
        }
        run.stop.set(true);
    };
    futures_util::join!(clients, chaos);
    let Counts {
        operations,
        local,
        home,
        stored,
        missed,
        invalidated,
        unknown,
        refused,
    } = run.counts.take();
    println!(
        "{} s: {operations} operations; {local} reads from the asked node's memory, {home} from a \
         home's, {stored} from the store, {missed} of nothing; {invalidated} values invalidated; {audited} copies audited; {unknown} outcomes unknown, refused {refused:?}; faults {faults:?}",
        length.as_secs()
    );
    for (key, history) in run.histories.take() {
        verify(key, history);
    }
    all_hold(cluster).await;
    all_agree(cluster).await;
    (operations, local)
}

/// Panics with the operations around the first that no order explains.
fn verify(key: u64, mut history: Vec<Operation>) {
    if checker::is_linearizable(&history) {
        return;
    }
    history.sort_by_key(|operation| operation.asked);
    let (mut good, mut bad) = (0, history.len());
    while good + 1 < bad {
        let middle = (good + bad) / 2;
        match checker::is_linearizable(&until(&history, middle)) {
            true => good = middle,
            false => bad = middle,
        }
    }
    let shown = &history[bad.saturating_sub(SHOWN)..bad];
    let shown: Vec<String> = shown.iter().map(|o| format!("{o:?}")).collect();
    panic!("key {key} is not linearizable:\n{}", shown.join("\n"));
}

/// The first `count` operations as they were known when the next one was asked.
fn until(history: &[Operation], count: usize) -> Vec<Operation> {
    let cut = history.get(count).map_or(u64::MAX, |next| next.asked);
    let known = history[..count].iter().map(|operation| Operation {
        answered: operation.answered.filter(|at| *at < cut),
        ..*operation
    });
    known.collect()
}

async fn client(run: &Run, nats: &Client) {
    while !run.stop.get() {
        let key = run.dice.below(KEYS);
        let node = run.dice.below(NODES) + 1;
        operate(run, nats, (node, key)).await;
        tokio::time::sleep(Duration::from_millis(1 + run.dice.below(4))).await;
    }
}

/// What a request may do, if it succeeds.
enum Asked {
    Get,
    Set(u64),
    Replace(u64, u64),
    Delete,
    /// All keys.
    Invalidate,
}

async fn operate(run: &Run, nats: &Client, (node, key): (u64, u64)) {
    let name = format!("chaos-{key}");
    let known = run.known.borrow().get(&key).cloned();
    let what = run.dice.below(100);
    let (operation, body, asked_for) = match (what, known) {
        (0..76, _) => ("get", json!({}), Asked::Get),
        (76..79, _) => ("delete", json!({}), Asked::Delete),
        (79, _) => ("invalidate", json!({"prefix": "chaos-"}), Asked::Invalidate),
        (80..90, Some((before, version))) => {
            let number = next(run);
            let body = json!({"value": text(number), "if": {"version": version}});
            ("set", body, Asked::Replace(before, number))
        }
        _ => {
            let number = next(run);
            ("set", json!({"value": text(number)}), Asked::Set(number))
        }
    };
    let mut body = body;
    let keys = match asked_for {
        Asked::Invalidate => 0..KEYS,
        _ => {
            body["key"] = name.into();
            key..key + 1
        }
    };
    body["timeout_ms"] = TIMEOUT_MS.into();
    let subject = format!("mufakat.node.{node}.cache.{operation}");
    let asked = now(run);
    let answer = wire::request(nats, &subject, &body, ATTEMPT).await;
    let answered = now(run);
    run.counts.borrow_mut().operations += 1;
    if let Some((did, is_known)) = did(run, key, asked_for, answer) {
        let answered = is_known.then_some(answered);
        for key in keys {
            let mut histories = run.histories.borrow_mut();
            histories.entry(key).or_default().push(Operation {
                did,
                asked,
                answered,
            });
        }
    }
}

/// What came of a request, and whether that is known; nothing if it did nothing.
fn did(run: &Run, key: u64, asked_for: Asked, answer: Option<Value>) -> Option<(Did, bool)> {
    let mut counts = run.counts.borrow_mut();
    let intended = match asked_for {
        Asked::Get => None,
        Asked::Set(number) => Some(Did::Wrote(number)),
        Asked::Replace(before, number) => Some(Did::Replaced(before, number)),
        Asked::Delete | Asked::Invalidate => Some(Did::Removed),
    };
    let refusal = answer.as_ref().map(|answer| &answer["error"]);
    let is_unknown = refusal.is_none_or(|error| error["outcome"] == "unknown");
    if is_unknown {
        counts.unknown += 1;
        return intended.map(|did| (did, false));
    }
    let answer = answer.expect("it is known");
    if answer["ok"] != true {
        let code = wire::code(&answer).to_owned();
        *counts.refused.entry(code).or_default() += 1;
        return None;
    }
    let version = || answer["version"].as_str().expect("a version").to_owned();
    let mut known = run.known.borrow_mut();
    match asked_for {
        Asked::Get if answer["status"] == "miss" => {
            counts.missed += 1;
            None
        }
        Asked::Get => {
            match answer["source"].as_str() {
                Some("local") => counts.local += 1,
                Some("store") => counts.stored += 1,
                _ => counts.home += 1,
            }
            let number = number(&answer["value"]);
            known.insert(key, (number, version()));
            Some((Did::Read(number), true))
        }
        Asked::Set(number) | Asked::Replace(_, number) => {
            known.insert(key, (number, version()));
            intended.map(|did| (did, true))
        }
        // A cache may have forgotten the value, which is no removal.
        Asked::Invalidate => {
            counts.invalidated += answer["count"].as_u64().expect("a count");
            intended.map(|did| (did, true))
        }
        Asked::Delete if answer["existed"] == false => None,
        Asked::Delete => intended.map(|did| (did, true)),
    }
}

/// A number that no other write has.
fn next(run: &Run) -> u64 {
    run.written.set(run.written.get() + 1);
    run.written.get()
}

fn now(run: &Run) -> u64 {
    run.start.elapsed().as_micros() as u64
}

fn text(number: u64) -> String {
    format!("{number:0>VALUE_DIGITS$}")
}

fn number(value: &Value) -> u64 {
    let text = value.as_str().expect("text, as it was written");
    text.parse().expect("a number, as it was written")
}

/// Stops, kills or restarts something, each kind in its turn, and leaves some time in peace.
async fn disturb(cluster: &mut Cluster, dice: &Dice, turn: usize) -> &'static str {
    let node = dice.below(NODES) + 1;
    let fault = match turn % 5 {
        0 => {
            pause(cluster, node, LEASE * 3).await;
            "stopped for three leases"
        }
        1 => {
            cluster.kill(node);
            tokio::time::sleep(Duration::from_millis(dice.below(1_500))).await;
            cluster.start_node(node);
            "killed"
        }
        2 => {
            pause(cluster, node, LEASE / 2).await;
            "stopped for half a lease"
        }
        3 => {
            cluster.kill_broker();
            cluster.start_broker().await;
            "broker killed"
        }
        _ => {
            cluster.stop(node).await;
            cluster.start_node(node);
            "ended and started again"
        }
    };
    tokio::time::sleep(Duration::from_millis(300 + dice.below(900))).await;
    fault
}

/// The same, and Redis killed or stopped between.
async fn disturb_with_redis(cluster: &mut Cluster, dice: &Dice, turn: usize) -> &'static str {
    let fault = match turn % 6 {
        0 | 3 => {
            cluster.kill_redis();
            tokio::time::sleep(Duration::from_millis(dice.below(800))).await;
            cluster.start_redis().await;
            "Redis killed"
        }
        4 => {
            cluster.pause_redis();
            tokio::time::sleep(Duration::from_millis(500 + dice.below(1_000))).await;
            cluster.resume_redis();
            "Redis stopped"
        }
        _ => return disturb(cluster, dice, dice.below(5) as usize).await,
    };
    tokio::time::sleep(Duration::from_millis(300 + dice.below(900))).await;
    fault
}

async fn pause(cluster: &mut Cluster, node: u64, length: Duration) {
    cluster.pause(node);
    tokio::time::sleep(length).await;
    cluster.resume(node);
}

/// How many copies of all nodes could be compared with what their homes have; none of them is old.
async fn audit(nats: &Client) -> u64 {
    let mut compared = 0;
    for node in 1..=NODES {
        let subject = format!("mufakat.node.{node}.cache.audit");
        let audited = wire::request(nats, &subject, &json!({}), ATTEMPT).await;
        if let Some(audited) = audited.filter(|audited| audited["ok"] == true) {
            assert_eq!(audited["mismatches"], 0, "{audited}");
            compared += audited["compared"].as_u64().expect("a count");
        }
    }
    compared
}

/// When all is quiet, whoever has a value has the same.
async fn all_agree(cluster: &Cluster) {
    let nats = cluster.nats().await;
    for key in 0..KEYS {
        let name = format!("chaos-{key}");
        wait::until("all nodes answer alike", async || {
            let mut seen = Vec::new();
            for node in 1..=NODES {
                let subject = format!("mufakat.node.{node}.cache.get");
                let body = json!({"key": name});
                let answer = wire::request(&nats, &subject, &body, ATTEMPT).await?;
                (answer["ok"] == true).then_some(())?;
                if answer["status"] == "hit" {
                    seen.push((number(&answer["value"]), answer["version"].clone()));
                }
            }
            seen.dedup();
            assert!(seen.len() <= 1, "{name}: {seen:?}");
            Some(())
        })
        .await;
    }
}
