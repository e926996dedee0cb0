//! `--check` against a stand-in for a cluster that breaks its promises, one way at a time: each is found, printed and
//! told by the exit code; the stand-in that keeps them passes.

use std::collections::{BTreeMap, VecDeque};

use futures_util::StreamExt;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;

mod broker;
mod program;

use broker::Broker;
use program::{ended, loadgen};

/// How the stand-in breaks its promises.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    GrantsTwice,
    RepeatsTokens,
    LosesMessages,
    InventsMessages,
    ReversesMessages,
    ServesOldValues,
    LosesIncrements,
    /// Gives out nothing more when the load is over.
    RefusesToBeEmptied,
    /// That as well.
    InventsMessagesAndRefuses,
    /// Loses what was handed out when it refuses its acknowledgement.
    LosesUnacknowledged,
}

/// One node that knows locks, queues and a cache.
struct StandIn {
    fault: Fault,
    requests: u64,
    tokens: u64,
    /// Holder's token by resource.
    locks: BTreeMap<String, u64>,
    seq: u64,
    /// Messages by topic.
    queues: BTreeMap<String, VecDeque<(u64, String)>>,
    /// All values that a key had.
    cache: BTreeMap<String, Vec<String>>,
    counters: BTreeMap<String, u64>,
}

impl StandIn {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            requests: 0,
            tokens: 0,
            locks: BTreeMap::new(),
            seq: 0,
            queues: BTreeMap::new(),
            cache: BTreeMap::new(),
            counters: BTreeMap::new(),
        }
    }

    fn answer(&mut self, operation: &str, request: &Value) -> Value {
        self.requests += 1;
        let text = |field: &str| request[field].as_str().unwrap_or_default().to_owned();
        let fields = match operation {
            "status" => status(),
            "lock.acquire" => match self.acquire(text("resource")) {
                Some(token) => {
                    json!({"resource": text("resource"), "owner": text("owner"), "token": token,
                    "mode": "exclusive", "expires_in_ms": 30_000, "waited_ms": 0})
                }
                None => return refusal("lock_held", 409),
            },
            "lock.release" => {
                self.locks.remove(&text("resource"));
                json!({"released": true})
            }
            "queue.push" => match request["messages"].as_array() {
                None => self.push(text("topic"), text("payload")),
                Some(messages) => {
                    let mut results = Vec::new();
                    for message in messages {
                        let payload = message["payload"].as_str().unwrap_or_default();
                        results.push(self.push(text("topic"), payload.to_owned()));
                    }
                    json!({"results": results, "durability": results[0]["durability"]})
                }
            },
            "queue.pop" if text("consumer") == "emptying" && self.refuses_to_be_emptied() => {
                return refusal("store_unavailable", 503);
            }
            "queue.ack" if self.fault == Fault::LosesUnacknowledged => {
                return refusal("bad_request", 400);
            }
            "queue.pop" => {
                let max = request["max"].as_u64().unwrap_or(1);
                let messages = (0..max).map_while(|_| self.pop(text("topic")));
                json!({"messages": messages.collect::<Vec<_>>()})
            }
            "queue.ack" => {
                let receipts = request["receipts"].as_array().cloned().unwrap_or_default();
                let one = |receipt| json!({"receipt": receipt, "result": "acked"});
                json!({"results": receipts.into_iter().map(one).collect::<Vec<_>>()})
            }
            "queue.peek" => json!({"messages": []}),
            "cache.get" => self.get(&text("key")),
            "cache.set" => {
                self.cache
                    .entry(text("key"))
                    .or_default()
                    .push(text("value"));
                json!({"version": "1"})
            }
            "cache.increment" => {
                let counter = self.counters.entry(text("key")).or_default();
                let loses = self.fault == Fault::LosesIncrements && *counter == 3;
                *counter += u64::from(!loses || self.requests.is_multiple_of(3));
                json!({"value": *counter, "version": "1"})
            }
            _ => return refusal("unknown_operation", 400),
        };
        let mut reply = json!({"ok": true, "node": 1});
        let (into, from) = (reply.as_object_mut(), fields.as_object());
        into.unwrap().extend(from.unwrap().clone());
        reply
    }

    fn refuses_to_be_emptied(&self) -> bool {
        matches!(
            self.fault,
            Fault::RefusesToBeEmptied | Fault::InventsMessagesAndRefuses
        )
    }

    fn acquire(&mut self, resource: String) -> Option<u64> {
        let is_free = !self.locks.contains_key(&resource);
        if !is_free && self.fault != Fault::GrantsTwice {
            return None;
        }
        if self.fault != Fault::RepeatsTokens || self.tokens == 0 {
            self.tokens += 1;
        }
        self.locks.insert(resource, self.tokens);
        Some(self.tokens)
    }

    fn push(&mut self, topic: String, payload: String) -> Value {
        self.seq += 1;
        if self.fault != Fault::LosesMessages || !self.seq.is_multiple_of(10) {
            let queue = self.queues.entry(topic).or_default();
            queue.push_back((self.seq, payload));
        }
        json!({"id": format!("m{}", self.seq), "seq": self.seq, "duplicate": false,
            "durability": {"level": "fsync", "source": "inspected", "checked_at_ms": 0}})
    }

    fn pop(&mut self, topic: String) -> Option<Value> {
        let queue = self.queues.entry(topic).or_default();
        let next = match self.fault {
            Fault::ReversesMessages => queue.pop_back(),
            Fault::InventsMessages | Fault::InventsMessagesAndRefuses
                if self.requests.is_multiple_of(7) =>
            {
                self.seq += 1;
                Some((self.seq, "999999999".to_owned()))
            }
            _ => queue.pop_front(),
        };
        let (seq, payload) = next?;
        Some(
            json!({"id": format!("m{seq}"), "seq": seq, "payload": payload, "encoding": "text",
                "receipt": format!("{seq}.1.00000000000000ff"), "deliveries": 1, "pushed_at_ms": 0,
                "visible_until_ms": 0}),
        )
    }

    fn get(&self, key: &str) -> Value {
        let values = self.cache.get(key).map_or(&[][..], Vec::as_slice);
        let value = match self.fault {
            Fault::ServesOldValues => values.first(),
            _ => values.last(),
        };
        match value {
            Some(value) => {
                json!({"status": "hit", "value": value, "encoding": "text", "version": "1",
                "source": "local"})
            }
            None => json!({"status": "miss"}),
        }
    }
}

fn refusal(code: &str, status: u16) -> Value {
    json!({"ok": false, "node": 1, "error": {"code": code, "status": status, "message": code, "retryable": false,
        "outcome": "not_applied"}})
}

fn status() -> Value {
    json!({"role": "leader", "term": 1, "leader": 1, "commit_index": 1, "applied_index": 1,
        "members": [{"node": 1, "voter": true, "incarnation": null}], "epoch": 1, "lease_ms": 1000,
        "version": "0.0.0", "uptime_ms": 1, "locks": {"held": 0, "waiting": 0},
        "cache": {"entries": 0, "bytes": 0}, "queue": {"topics": 0}, "nats": {"connected": true}})
}

/// A stand-in with its broker, which both end with this.
struct Cluster {
    broker: Broker,
    answers: JoinHandle<()>,
    /// Whether its topics are being emptied.
    emptying: watch::Receiver<bool>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

impl Cluster {
    async fn start(fault: Fault) -> Self {
        let (broker, client) = Broker::start().await;
        let mut requests = client.subscribe("mufakat.>").await.expect("subscribed");
        client
            .flush()
            .await
            .expect("the broker has the subscription");
        let (tell_emptying, emptying) = watch::channel(false);
        let answers = tokio::spawn(async move {
            let mut cluster = StandIn::new(fault);
            while let Some(request) = requests.next().await {
                let subject = request.subject.trim_start_matches("mufakat.");
                let operation = subject.trim_start_matches("node.1.");
                let body: Value = serde_json::from_slice(&request.payload).unwrap_or_default();
                if body["consumer"] == "emptying" {
                    tell_emptying.send_replace(true);
                }
                let answer = cluster.answer(operation, &body).to_string();
                if let Some(reply) = request.reply {
                    let _ = client.publish(reply, answer.into()).await;
                }
            }
        });
        Self {
            broker,
            answers,
            emptying,
        }
    }

    fn load(&self, command: &str) -> Child {
        let always = "--skip-echo --check --warm-up 0s --clients 4 --requests 400 --duration 10s";
        let words = command.split_whitespace().chain(always.split_whitespace());
        loadgen(&self.broker, words)
    }
}

/// Runs the load generator against a stand-in with this fault.
async fn load(fault: Fault, command: &str) -> (Option<i32>, String) {
    let cluster = Cluster::start(fault).await;
    ended(cluster.load(command)).await
}

const LOCKS: &str = "locks --locks 2 --hold 2ms --wait 0s";
const QUEUE: &str = "queue";
const BATCHES: &str = "queue --batch 5 --message-bytes 10-50";
const MIX: &str =
    "mix lock=1,queue=2,cache=3 --locks 2 --wait 0s --keys 3 --reads 0.5 --increments 0.3";
const CACHE: &str = "cache --keys 3 --reads 0.5 --increments 0.3";

async fn is_found(fault: Fault, command: &str, what: &str) {
    let (code, text) = load(fault, command).await;
    assert_eq!(code, Some(70), "{fault:?}: {text}");
    assert!(
        text.contains("VIOLATION") && text.contains(what),
        "{fault:?}: {text}"
    );
}

#[tokio::test]
async fn a_cluster_that_keeps_its_promises_passes() {
    for command in [LOCKS, QUEUE, BATCHES, CACHE, MIX] {
        let (code, text) = load(Fault::None, command).await;
        assert_eq!(code, Some(0), "{command}: {text}");
        assert!(text.contains("Check: no violation."), "{command}: {text}");
    }
}

#[tokio::test]
async fn broken_locks_are_found() {
    is_found(Fault::GrantsTwice, LOCKS, "hold it at the same time").await;
    is_found(Fault::RepeatsTokens, LOCKS, "was granted twice").await;
}

#[tokio::test]
async fn a_broken_queue_is_found() {
    for command in [QUEUE, BATCHES, MIX] {
        is_found(Fault::LosesMessages, command, "is lost").await;
    }
    is_found(
        Fault::InventsMessages,
        QUEUE,
        "was never pushed to this topic",
    )
    .await;
    is_found(Fault::ReversesMessages, QUEUE, "for the first time").await;
    is_found(Fault::LosesUnacknowledged, QUEUE, "is lost").await;
}

#[tokio::test]
async fn what_was_measured_and_found_is_told_when_topics_cannot_be_emptied() {
    let directory = TempDir::new().expect("a directory");
    for (fault, expected) in [
        (Fault::RefusesToBeEmptied, 1),
        (Fault::InventsMessagesAndRefuses, 70),
    ] {
        let json = directory.path().join(format!("{expected}.json"));
        let command = format!("{QUEUE} --timeout 500ms --json {}", json.display());
        let (code, text) = load(fault, &command).await;
        assert_eq!(code, Some(expected), "{text}");
        assert!(text.contains("queue cycles: "), "the table: {text}");
        let failure = "cannot tell what is left in the topics";
        assert!(text.contains(failure), "{text}");
        let report = std::fs::read(&json).expect("a report");
        let report: Value = serde_json::from_slice(&report).expect("JSON");
        assert!(report["failure"].as_str().expect("text").contains(failure));
        let violations = report["check"]["violations"].as_u64();
        assert_eq!(violations > Some(0), expected == 70, "{text}");
    }
}

#[tokio::test]
async fn topics_are_emptied_until_the_user_has_enough() {
    let mut cluster = Cluster::start(Fault::LosesMessages).await;
    let child = cluster.load("queue --topics 40");
    let pid = Pid::from_raw(child.id().expect("it runs") as i32).expect("not zero");
    let emptying = cluster.emptying.wait_for(|emptying| *emptying);
    let emptying = tokio::time::timeout(program::LONG, emptying).await;
    emptying.expect("in time").expect("it is told");
    kill_process(pid, Signal::INT).expect("it runs");
    let (code, text) = ended(child).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("queue cycles: "), "the table: {text}");
    assert!(text.contains("interrupted"), "{text}");
}

#[tokio::test]
async fn a_broken_cache_is_found() {
    is_found(
        Fault::ServesOldValues,
        CACHE,
        "had replaced before the read",
    )
    .await;
    is_found(Fault::LosesIncrements, CACHE, "increments give").await;
}
