//! Each node in turn is told to stop, under load.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use async_nats::client::RequestErrorKind;
use futures_util::StreamExt;
use futures_util::future::join_all;
use mufakat::client::{Client, ClientError, Target};
use mufakat::protocol::lock::{Acquire, Release};
use serde_json::json;

use crate::cluster::{Cluster, Options};
use crate::{cache, wire};

const CLIENTS: usize = 8;
/// Light load: each client rests so long between two locks.
const REST: Duration = Duration::from_millis(5);
/// Longer than a node takes to stop: what is not answered by then never is.
const SILENCE: Duration = Duration::from_secs(8);

/// How the calls of a load ended.
#[derive(Default)]
pub struct Counts {
    pub stop: Cell<bool>,
    pub ok: Cell<usize>,
    /// The longest that one call took.
    pub longest: Cell<Duration>,
    /// How often each call ended otherwise; all of them retryable.
    pub retryable: RefCell<BTreeMap<String, usize>>,
}

impl Counts {
    fn note<T>(&self, started: Instant, result: Result<T, ClientError>) -> Option<T> {
        self.longest.set(self.longest.get().max(started.elapsed()));
        match result {
            Ok(value) => {
                self.ok.set(self.ok.get() + 1);
                Some(value)
            }
            Err(error) => {
                assert!(error.retryable(), "lost: {error}");
                assert!(error.code().is_some(), "no node answered: {error}");
                *self
                    .retryable
                    .borrow_mut()
                    .entry(error.to_string())
                    .or_default() += 1;
                None
            }
        }
    }
}

/// Those that put load on a cluster: half of them ask any node, half the leader.
pub async fn clients(cluster: &Cluster) -> Vec<Client> {
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let target = [Target::Any, Target::Leader][number % 2];
        clients.push(cluster.client(target).await);
    }
    clients
}

#[tokio::test]
async fn no_request_is_lost() {
    let mut cluster = Cluster::start(Options::default()).await;
    let counts = Counts::default();
    let clients = clients(&cluster).await;
    let load = join_all(
        (0..)
            .zip(&clients)
            .map(|(n, client)| pairs(&counts, n, client)),
    );
    let restarts = async {
        // The leader is among them, and goes last too if its role moved to the last one.
        for node in cluster.ids() {
            let before = counts.ok.get();
            restart(&mut cluster, node).await;
            println!("node {node}: {} calls meanwhile", counts.ok.get() - before);
        }
        let leader = cluster.all_follow().await;
        restart(&mut cluster, leader).await;
        counts.stop.set(true);
    };
    futures_util::join!(load, restarts);
    let retryable = counts.retryable.take();
    println!(
        "{} calls ended well, the longest in {:?}; otherwise: {retryable:?}",
        counts.ok.get(),
        counts.longest.get()
    );
    assert!(counts.ok.get() > 40, "there was hardly any load");
    cluster.state_hashes().await;
}

/// What each client of the cache allows a request; longer than a node takes to stop.
const CACHE_TIMEOUT_MS: u64 = 4_000;

/// Reads and changes of the cache through every node: who stops has them answered, be it by a refusal.
#[tokio::test]
async fn no_request_of_the_cache_is_left_without_an_answer() {
    let mut cluster = Cluster::start(Options::default()).await;
    cache::all_hold(&cluster).await;
    let nats = cluster.nats().await;
    let counts = (
        Cell::new(false),
        Cell::new(0),
        RefCell::new(BTreeMap::new()),
    );
    let (stop, ok, refused) = &counts;
    let ask = async |number: usize| {
        let key = format!("key-{}", number % 50);
        let (operation, body) = match number % 4 {
            0 => ("set", json!({"key": key, "value": number})),
            1 => ("increment", json!({"key": format!("count-{}", number % 7)})),
            2 => ("get", json!({"key": key, "claim_ms": 500, "wait_ms": 500})),
            _ => ("get", json!({"key": key})),
        };
        let mut body = body;
        body["timeout_ms"] = CACHE_TIMEOUT_MS.into();
        let subject = format!("mufakat.cache.{operation}");
        let mut sent = wire::send(&nats, &subject, &body).await;
        match sent.answer(SILENCE).await {
            Some(answer) if answer["ok"] == true => ok.set(ok.get() + 1),
            Some(answer) => {
                let error = &answer["error"];
                assert_eq!(error["retryable"], true, "{subject} {body}: {answer}");
                let code = error["code"].as_str().expect("a code").to_owned();
                *refused.borrow_mut().entry(code).or_insert(0) += 1;
            }
            None => panic!("never answered: {subject} {body}"),
        }
    };
    let load = join_all((0..4 * CLIENTS).map(async |client| {
        let mut number = client;
        while !stop.get() {
            ask(number).await;
            number += 4 * CLIENTS + 1;
            tokio::time::sleep(REST).await;
        }
    }));
    let restarts = async {
        for node in cluster.ids() {
            let ended = cluster.stop(node).await;
            assert_eq!(ended.code(), Some(0), "{ended}");
            cluster.start_node(node);
            cluster.all_follow().await;
        }
        stop.set(true);
    };
    futures_util::join!(load, restarts);
    println!("{} ended well; refused: {:?}", ok.get(), refused.take());
    assert!(ok.get() > 100, "there was hardly any load");
}

/// Requests under way at a time, while one node after the other is told to stop: so many that some are
/// on their way to it.
const STORM: usize = 300;

/// A subscription that ends while the broker delivers to it loses what is on its way, unless both
/// sides agree on the last message. Whoever is told that nobody listens can ask again; who is told
/// nothing cannot know.
#[tokio::test]
async fn what_the_broker_gave_to_a_node_that_stops_is_answered() {
    let mut cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let inbox = nats.new_inbox();
    let mut answers = nats
        .subscribe(format!("{inbox}.*"))
        .await
        .expect("connected");
    let told_to_stop = Cell::new(false);
    let storm = async {
        let mut waits: BTreeSet<usize> = BTreeSet::new();
        for number in 0.. {
            let stopped = told_to_stop.get();
            if stopped && waits.is_empty() {
                return number;
            }
            if !stopped {
                let subject = ["mufakat.node.1.status", "mufakat.lock.unknown"][number % 2];
                let reply = format!("{inbox}.{number}");
                let sent = nats.publish_with_reply(subject, reply, "{}".into()).await;
                sent.expect("connected");
                waits.insert(number);
            }
            while waits.len() >= STORM || (stopped && !waits.is_empty()) {
                let next = tokio::time::timeout(SILENCE, answers.next()).await;
                let Ok(answer) = next else {
                    panic!("never answered: {waits:?} of {number}");
                };
                let subject = answer.expect("connected").subject;
                let answered = subject.rsplit('.').next().and_then(|n| n.parse().ok());
                waits.remove(&answered.expect("a number was asked for"));
            }
        }
        unreachable!("there are not so many numbers")
    };
    let stops = async {
        for node in [1, 2] {
            let ended = cluster.stop(node).await;
            assert_eq!(ended.code(), Some(0), "{ended}");
            cluster.start_node(node);
            cluster.all_follow().await;
        }
        told_to_stop.set(true);
    };
    let (asked, ()) = futures_util::join!(storm, stops);
    println!("{asked} requests, all answered");
}

/// What the nodes rely on when they leave their subscriptions (`broker::leaving`).
#[tokio::test]
async fn the_broker_ends_a_subscription_at_once_after_a_count_that_it_cannot_read() {
    let mut cluster = Cluster::prepare(Options::default()).await;
    cluster.start_broker().await;
    let nats = cluster.nats().await;
    let mut left = nats.subscribe("left").await.expect("connected");
    left.unsubscribe_after(u64::MAX).await.expect("connected");
    let asked = nats.request("left", "anybody?".into()).await;
    let error = asked.expect_err("nobody listens");
    assert_eq!(error.kind(), RequestErrorKind::NoResponders, "{error}");
}

/// Stops a node, which hands over first, and starts it again.
async fn restart(cluster: &mut Cluster, node: u64) {
    let leader = cluster.all_follow().await;
    let led = cluster.status(leader).await.expect("it runs").term;
    let stopped_at = Instant::now();
    let ended = cluster.stop(node).await;
    assert_eq!(ended.code(), Some(0), "{ended}");
    println!("node {node} stopped in {:?}", stopped_at.elapsed());
    if node == leader {
        let log = cluster.log(node);
        let (_, stopping) = log
            .rsplit_once("stopping: handing over")
            .expect("it says so");
        assert!(
            stopping.contains(r#""role":"Follower"#),
            "node {node} led term {led} and did not see another leader before its end: {log}"
        );
    }
    let new_leader = cluster.leader().await;
    if node == leader {
        println!(
            "node {new_leader} leads {:?} after that",
            stopped_at.elapsed()
        );
    }
    cluster.start_node(node);
    cluster.all_follow().await;
}

/// Takes and gives back a lock of its own, until it is told to stop.
pub async fn pairs(counts: &Counts, number: usize, client: &Client) {
    let mut request = Acquire::new(format!("own-{number}"));
    request.owner = Some(format!("client-{number}"));
    request.ttl_ms = Some(600_000);
    while !counts.stop.get() {
        let started = Instant::now();
        // An owner that holds the lock already, by a request whose answer it never got, is given
        // the same token again.
        if let Some(acquired) = counts.note(started, client.acquire(&request).await) {
            let release = Release::new(acquired.resource, acquired.token);
            let started = Instant::now();
            counts.note(started, client.release(&release).await);
        }
        tokio::time::sleep(REST).await;
    }
}
