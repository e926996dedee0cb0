//! Clients take a few locks while nodes and the broker die at random, and their history is checked.
//!
//! What makes a history right: tokens are unique, and of two grants of one lock the later one came
//! after the release of the earlier one was asked for, or after the earlier lease could be over.
//! A hold whose token its client never learnt ends with its lease.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_nats::Client;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::dice::Dice;
use crate::{locks, wait, wire};

const CLIENTS: usize = 24;
const RESOURCES: u64 = 4;
const TTL: Duration = Duration::from_secs(5);
const RUN: Duration = Duration::from_secs(18);
/// What the request's own deadline is beyond its wait, and the client's beyond that.
const PATIENCE_MS: u64 = 1_500;
const SLACK: Duration = Duration::from_millis(1_000);

/// A grant that a client knows of.
#[derive(Debug)]
struct Grant {
    resource: String,
    token: u64,
    /// When it was first asked for, so that its lease began later than this.
    asked_at: Instant,
    granted_at: Instant,
    /// When its release was first asked for.
    released_at: Option<Instant>,
}

struct Run {
    dice: Dice,
    stop: Cell<bool>,
    grants: RefCell<Vec<Grant>>,
    /// How requests ended.
    codes: RefCell<BTreeMap<String, usize>>,
    logs: Vec<PathBuf>,
}

impl Run {
    /// Whether the cluster says of the grant of a request that nobody heard of it, since its client had
    /// stopped waiting, and that it was therefore given back.
    fn was_given_back(&self, request_id: &str) -> bool {
        let owner = format!("request:{request_id}");
        let says = |line: &str| line.contains(&owner) && line.contains("nobody heard of the grant");
        let logs = self
            .logs
            .iter()
            .filter_map(|log| fs::read_to_string(log).ok());
        logs.into_iter().any(|log| log.lines().any(says))
    }
}

#[tokio::test]
async fn a_history_under_chaos_is_that_of_locks() {
    let mut cluster = Cluster::start(Options::flags(&["--snapshot-entries", "500"])).await;
    history_is_that_of_locks(&mut cluster, disturb).await;
}

/// Lets clients take locks while something is disturbed again and again, and looks at their history.
pub async fn history_is_that_of_locks(
    cluster: &mut Cluster,
    mut disturb: impl AsyncFnMut(&mut Cluster, &Dice),
) {
    let run = Run {
        dice: Dice::roll(),
        stop: Cell::new(false),
        grants: RefCell::default(),
        codes: RefCell::default(),
        logs: cluster
            .ids()
            .into_iter()
            .map(|node| cluster.log_path(node))
            .collect(),
    };
    let mut connections = Vec::new();
    for _ in 0..CLIENTS {
        connections.push(cluster.nats().await);
    }
    let clients = join_all(connections.iter().map(|nats| client(&run, nats)));
    let chaos = async {
        let ends_at = Instant::now() + RUN;
        while Instant::now() < ends_at {
            disturb(cluster, &run.dice).await;
        }
        run.stop.set(true);
    };
    futures_util::join!(clients, chaos);

    let grants = run.grants.take();
    println!("{} grants; answers: {:?}", grants.len(), run.codes.take());
    assert!(grants.len() > 50, "there was hardly any load");
    verify(grants);
    cluster.all_follow().await;
    let nats = cluster.nats().await;
    for number in 0..RESOURCES {
        let resource = format!("chaos-{number}");
        wait::until("the queue drains", async || {
            let seen = locks::get(&nats, &resource).await;
            (seen.waiters.is_empty() && seen.holders.is_empty()).then_some(())
        })
        .await;
    }
    let state = cluster.state_hashes().await;
    println!(
        "the same state on all nodes after {} batches",
        state.batches
    );
}

/// What can happen to a node, to all of them, or to the broker.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Killed,
    AllKilled,
    Stopped,
    Paused,
    BrokerKilled,
}

impl Failure {
    fn any(dice: &Dice) -> Self {
        match dice.below(10) {
            0 => Failure::AllKilled,
            1 => Failure::BrokerKilled,
            2 => Failure::Stopped,
            3 | 4 => Failure::Paused,
            _ => Failure::Killed,
        }
    }
}

/// One failure, some time with it, and some time without.
async fn disturb(cluster: &mut Cluster, dice: &Dice) {
    let failure = Failure::any(dice);
    let node = 1 + dice.below(cluster.ids().len() as u64);
    let (away_ms, back_ms) = (200 + dice.below(1_500), 300 + dice.below(1_500));
    println!("{failure:?} (node {node}) for {away_ms} ms, then {back_ms} ms of peace");
    match failure {
        Failure::Killed => cluster.kill(node),
        Failure::AllKilled => cluster.kill_all(),
        Failure::Paused => cluster.pause(node),
        Failure::BrokerKilled => cluster.kill_broker(),
        Failure::Stopped => {
            let ended = cluster.stop(node).await;
            assert_eq!(ended.code(), Some(0), "node {node}: {ended}");
        }
    }
    // The length of a failure is what is random here, not a wait for something.
    tokio::time::sleep(Duration::from_millis(away_ms)).await;
    match failure {
        Failure::Paused => cluster.resume(node),
        Failure::BrokerKilled => cluster.start_broker().await,
        Failure::Killed | Failure::AllKilled | Failure::Stopped => cluster.start_all(),
    }
    tokio::time::sleep(Duration::from_millis(back_ms)).await;
}

async fn client(run: &Run, nats: &Client) {
    while !run.stop.get() {
        let Some(place) = acquire(run, nats).await else {
            continue;
        };
        if run.dice.below(4) == 0 {
            check_held(run, nats, place).await;
        }
        tokio::time::sleep(Duration::from_millis(run.dice.below(10))).await;
        release(run, nats, place).await;
    }
}

/// Asks for a lock, again with the same id while the outcome is unknown. Returns the place of the
/// grant in the history.
async fn acquire(run: &Run, nats: &Client) -> Option<usize> {
    let resource = format!("chaos-{}", run.dice.below(RESOURCES));
    let wait_ms = [0, 300, 3_000][run.dice.below(3) as usize];
    let body = json!({
        "resource": resource,
        "ttl_ms": TTL.as_millis() as u64,
        "wait_ms": wait_ms,
        "timeout_ms": wait_ms + PATIENCE_MS,
        "request_id": format!("{:016x}", run.dice.below(u64::MAX)),
    });
    let asked_at = Instant::now();
    loop {
        let answer = ask(run, nats, "mufakat.lock.acquire", &body).await;
        match answer.as_ref().map(wire::code) {
            Some("ok") => {
                let token = answer.expect("just seen")["token"].as_u64();
                let mut grants = run.grants.borrow_mut();
                grants.push(Grant {
                    resource,
                    token: token.expect("a grant has a token"),
                    asked_at,
                    granted_at: Instant::now(),
                    released_at: None,
                });
                return Some(grants.len() - 1);
            }
            Some("lock_held" | "wait_timeout") => return None,
            // It was granted after an earlier attempt, and its lease is over or nobody heard of it.
            Some("not_holder") => {
                let id = body["request_id"].as_str().expect("it has one");
                assert!(
                    asked_at.elapsed() >= TTL || run.was_given_back(id),
                    "a hold ended early: {answer:?}"
                );
                return None;
            }
            Some("no_leader" | "timeout" | "indeterminate" | "shutting_down") | None => {}
            Some(other) => panic!("{other} for {body}: {answer:?}"),
        }
    }
}

/// A hold whose lease cannot be over is valid.
async fn check_held(run: &Run, nats: &Client, place: usize) {
    let (body, lease_to) = held(run, place);
    let answer = ask(run, nats, "mufakat.lock.check", &body).await;
    if let Some(answer) = answer.filter(|answer| wire::code(answer) == "ok") {
        let valid = answer["valid"] == true;
        assert!(
            valid || Instant::now() >= lease_to,
            "{body} is held: {answer}"
        );
    }
}

async fn release(run: &Run, nats: &Client, place: usize) {
    let (body, lease_to) = held(run, place);
    run.grants.borrow_mut()[place].released_at = Some(Instant::now());
    let mut unknown = false;
    loop {
        let answer = ask(run, nats, "mufakat.lock.release", &body).await;
        match answer.as_ref().map(wire::code) {
            Some("ok") => break,
            Some("not_holder") => {
                let may_be_over = unknown || Instant::now() >= lease_to;
                assert!(may_be_over, "{body} was held: {answer:?}");
                break;
            }
            Some("indeterminate") | None => unknown = true,
            Some("no_leader" | "timeout" | "shutting_down") => {}
            Some(other) => panic!("{other} for {body}: {answer:?}"),
        }
    }
    if run.dice.below(4) == 0 {
        let answer = ask(run, nats, "mufakat.lock.check", &body).await;
        if let Some(answer) = answer.filter(|answer| wire::code(answer) == "ok") {
            assert_eq!(answer["valid"], false, "{body} was released: {answer}");
        }
    }
}

/// The hold as requests name it, and the earliest time at which its lease can be over.
fn held(run: &Run, place: usize) -> (Value, Instant) {
    let grant = &run.grants.borrow()[place];
    let body = json!({
        "resource": grant.resource, "token": grant.token, "timeout_ms": PATIENCE_MS,
    });
    (body, grant.asked_at + TTL)
}

/// One attempt, which any node may take.
async fn ask(run: &Run, nats: &Client, subject: &str, body: &Value) -> Option<Value> {
    let timeout_ms = body["timeout_ms"].as_u64().expect("all requests have one");
    let limit = Duration::from_millis(timeout_ms) + SLACK;
    let answer = wire::request(nats, subject, body, limit).await;
    let operation = subject.rsplit('.').next().unwrap_or_default();
    let code = answer.as_ref().map_or("no answer", wire::code);
    let ended = format!("{operation} {code}");
    *run.codes.borrow_mut().entry(ended).or_default() += 1;
    if answer.is_none() {
        // Nobody listens for a moment when all nodes are dead.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    answer
}

fn verify(mut grants: Vec<Grant>) {
    grants.sort_by(|a, b| (&a.resource, a.token).cmp(&(&b.resource, b.token)));
    let tokens: BTreeSet<u64> = grants.iter().map(|grant| grant.token).collect();
    assert_eq!(tokens.len(), grants.len(), "a token was granted twice");
    for pair in grants.windows(2) {
        let [earlier, later] = pair else {
            unreachable!("windows of two");
        };
        if earlier.resource != later.resource {
            continue;
        }
        let lease_to = earlier.asked_at + TTL;
        let free_from = earlier.released_at.map_or(lease_to, |at| at.min(lease_to));
        assert!(
            later.granted_at >= free_from,
            "two held it: {earlier:?} {later:?}"
        );
        assert!(
            later.granted_at >= earlier.asked_at,
            "tokens went back: {earlier:?} {later:?}"
        );
    }
}
