//! Producers and consumers while nodes, Redis and the broker are killed and topics move.
//!
//! Afterwards every acknowledged push was handed out to somebody who acknowledged it, nothing was handed
//! out that nobody pushed, and every second delivery has one of the reasons that docs/protocol.md names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mufakat::queue::slots::slot_of;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::dice::Dice;
use crate::queue::{Queue, serves};
use crate::redis_cluster::RedisCluster;
use crate::{wait, wire};

const TOPICS: [&str; 3] = ["chaos.a", "chaos.b", "chaos.c"];
const PRODUCERS: usize = 10;
const CONSUMERS: usize = 10;
/// How long in the usual run; `MUFAKAT_CHAOS_SECONDS` makes it longer.
const USUALLY: Duration = Duration::from_secs(45);
/// The same of variants.
pub const BRIEFLY: Duration = Duration::from_secs(20);
const ATTEMPT: Duration = Duration::from_secs(3);
const VISIBILITY_MS: u64 = 4_000;

#[derive(Default)]
struct Seen {
    /// Ids of pushes that were answered with success.
    acknowledged: BTreeSet<String>,
    /// Ids that were sent at all.
    sent: BTreeSet<String>,
    /// How many times each id was handed out, and how many times somebody was told `acked`.
    delivered: BTreeMap<String, u64>,
    acked: BTreeMap<String, u64>,
    /// Answers about receipts.
    results: BTreeMap<String, u64>,
    /// Requests that nobody answered.
    unanswered: u64,
}

struct Run {
    seen: Mutex<Seen>,
    stop_pushing: AtomicBool,
    stop_popping: AtomicBool,
}

async fn produce(run: Arc<Run>, nats: async_nats::Client, number: usize) {
    let mut count = 0;
    while !run.stop_pushing.load(Ordering::Relaxed) {
        count += 1;
        let id = format!("{number}-{count}");
        let topic = TOPICS[count % TOPICS.len()];
        run.seen.lock().unwrap().sent.insert(id.clone());
        let body = json!({"topic": topic, "payload": id, "id": id, "require_durability": "fsync",
            "timeout_ms": 2_500});
        // With its id a push may be repeated until it is known.
        for _ in 0..5 {
            match wire::request(&nats, "mufakat.queue.push", &body, ATTEMPT).await {
                Some(answer) if answer["ok"] == true => {
                    run.seen.lock().unwrap().acknowledged.insert(id.clone());
                    break;
                }
                Some(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                None => run.seen.lock().unwrap().unanswered += 1,
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn consume(run: Arc<Run>, nats: async_nats::Client, number: usize) {
    let mut turn = number;
    while !run.stop_popping.load(Ordering::Relaxed) {
        turn += 1;
        let topic = TOPICS[turn % TOPICS.len()];
        let body = json!({"topic": topic, "consumer": format!("c{number}"), "max": 5,
            "wait_ms": 300, "visibility_ms": VISIBILITY_MS, "timeout_ms": 2_500});
        let answer = wire::request(&nats, "mufakat.queue.pop", &body, ATTEMPT).await;
        let Some(answer) = answer else {
            run.seen.lock().unwrap().unanswered += 1;
            continue;
        };
        let Some(messages) = answer["messages"].as_array() else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        for message in messages {
            let id = message["payload"]
                .as_str()
                .expect("what was pushed")
                .to_owned();
            *run.seen
                .lock()
                .unwrap()
                .delivered
                .entry(id.clone())
                .or_default() += 1;
            acknowledge(&run, &nats, (topic, &id, &message["receipt"])).await;
        }
    }
}

async fn acknowledge(
    run: &Run,
    nats: &async_nats::Client,
    (topic, id, receipt): (&str, &str, &Value),
) {
    let body = json!({"topic": topic, "receipt": receipt, "timeout_ms": 2_500});
    for _ in 0..5 {
        match wire::request(nats, "mufakat.queue.ack", &body, ATTEMPT).await {
            Some(answer) if answer["ok"] == true => {
                let result = answer["results"][0]["result"].as_str().unwrap().to_owned();
                let mut seen = run.seen.lock().unwrap();
                if result != "stale_receipt" {
                    *seen.acked.entry(id.to_owned()).or_default() += 1;
                }
                *seen.results.entry(result).or_default() += 1;
                return;
            }
            Some(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            None => run.seen.lock().unwrap().unanswered += 1,
        }
    }
}

/// How often each thing was disturbed.
pub type Disturbances = BTreeMap<&'static str, u64>;

/// Kills something every few seconds, and lets it come back.
async fn disturb(
    cluster: &mut Cluster,
    until: Instant,
    mut disturb_redis: impl AsyncFnMut(&mut Cluster, &Dice) -> &'static str,
) -> Disturbances {
    let dice = Dice::roll();
    let mut disturbances = BTreeMap::new();
    while Instant::now() < until {
        let what = match dice.below(4) {
            0 => disturb_redis(cluster, &dice).await,
            1 => {
                cluster.kill_broker();
                cluster.start_broker().await;
                "broker killed"
            }
            _ => {
                let node = dice.below(3) + 1;
                cluster.kill(node);
                tokio::time::sleep(Duration::from_millis(dice.below(2_000))).await;
                cluster.start_node(node);
                "node killed, its topics moved and came back"
            }
        };
        *disturbances.entry(what).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(1_500 + dice.below(1_500))).await;
    }
    disturbances
}

#[tokio::test]
async fn queue_chaos_loses_and_invents_nothing() {
    let options = Options {
        redis: true,
        ..Options::default()
    };
    let mut cluster = Cluster::start(options).await;
    let kill_redis = async |cluster: &mut Cluster, _: &Dice| {
        cluster.kill_redis();
        cluster.start_redis().await;
        "Redis killed"
    };
    loses_and_invents_nothing(&mut cluster, USUALLY, async |cluster, until| {
        disturb(cluster, until, kill_redis).await
    })
    .await;
}

/// Masters have no replicas here: what one has fsynced comes back with it.
#[tokio::test]
async fn queue_chaos_in_a_redis_cluster_loses_and_invents_nothing() {
    let mut redis = RedisCluster::start().await;
    let url = redis.url();
    let mut cluster = Cluster::start(Options::flags(&["--redis", &url])).await;
    let mut at: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in TOPICS {
        at.insert(topic, redis.master_of(topic));
    }
    let disturb_redis = async |_: &mut Cluster, dice: &Dice| {
        if dice.below(2) == 0 {
            let master = &mut redis.masters[dice.below(3) as usize];
            master.kill();
            tokio::time::sleep(Duration::from_millis(dice.below(1_000))).await;
            master.start_again().await;
            return "master killed";
        }
        let topic = TOPICS[dice.below(3) as usize];
        let from = at[topic];
        let to = (from + 1 + dice.below(2) as usize) % 3;
        redis.until_whole().await;
        redis.begin_move(slot_of(topic), (from, to));
        redis.end_move(slot_of(topic), (from, to));
        at.insert(topic, to);
        "topic moved to another master"
    };
    loses_and_invents_nothing(&mut cluster, BRIEFLY, async |cluster, until| {
        disturb(cluster, until, disturb_redis).await
    })
    .await;
}

/// Lets producers and consumers work while something is disturbed until a moment, and looks at what they saw.
pub async fn loses_and_invents_nothing(
    cluster: &mut Cluster,
    usually: Duration,
    disturb: impl AsyncFnOnce(&mut Cluster, Instant) -> Disturbances,
) {
    let queue = Queue::of(cluster).await;
    serves(&queue).await;
    let run = Arc::new(Run {
        seen: Mutex::default(),
        stop_pushing: AtomicBool::new(false),
        stop_popping: AtomicBool::new(false),
    });
    let mut producers = Vec::new();
    let mut consumers = Vec::new();
    for number in 0..PRODUCERS {
        producers.push(tokio::spawn(produce(
            run.clone(),
            cluster.nats().await,
            number,
        )));
    }
    for number in 0..CONSUMERS {
        consumers.push(tokio::spawn(consume(
            run.clone(),
            cluster.nats().await,
            number,
        )));
    }
    let seconds = std::env::var("MUFAKAT_CHAOS_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok());
    let length = seconds.map_or(usually, Duration::from_secs);
    let until = Instant::now() + length;
    let disturbances = disturb(cluster, until).await;
    run.stop_pushing.store(true, Ordering::Relaxed);
    for producer in producers {
        producer.await.expect("a producer ends");
    }
    cluster.all_follow().await;
    wait::until("every topic is empty", async || {
        for topic in TOPICS {
            let body = json!({"topic": topic});
            let stats = wire::request(&queue.nats, "mufakat.queue.stats", &body, ATTEMPT).await?;
            let left = ["ready", "delayed", "in_flight"].map(|state| stats[state].as_u64());
            (left == [Some(0); 3] && stats["dead"] == 0).then_some(())?;
        }
        Some(())
    })
    .await;
    run.stop_popping.store(true, Ordering::Relaxed);
    for consumer in consumers {
        consumer.await.expect("a consumer ends");
    }
    let seen = run.seen.lock().unwrap();
    let lost: Vec<&String> = seen
        .acknowledged
        .iter()
        .filter(|id| !seen.delivered.contains_key(*id))
        .collect();
    let invented: Vec<&String> = seen
        .delivered
        .keys()
        .filter(|id| !seen.sent.contains(*id))
        .collect();
    let again: u64 = seen.delivered.values().map(|times| times - 1).sum();
    println!(
        "{length:?}; {disturbances:?}; {} pushes acknowledged of {}, {} messages delivered, {again} \
         deliveries repeated, results {:?}, {} requests unanswered",
        seen.acknowledged.len(),
        seen.sent.len(),
        seen.delivered.len(),
        seen.results,
        seen.unanswered,
    );
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(invented.is_empty(), "invented: {invented:?}");
    assert!(seen.acknowledged.len() > 100, "hardly anything was pushed");
    for (id, times) in &seen.acked {
        // A message is done once: a second receipt is stale.
        assert!(
            *times <= 1 || seen.delivered[id] == 1,
            "{id} was acknowledged {times} times"
        );
    }
}
