//! Random bytes on every subject, and real messages between nodes damaged, cut, misdirected and
//! repeated: a coded error or silence, nothing changed, no node stopped.
//!
//! The seed is printed; `MUFAKAT_SEED` sets it.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use mufakat::protocol::status::StateHash;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::waiting::{Waiting, acquire};
use crate::{locks, rest, wait, wire};

/// Messages with random bytes to each client subject.
const PER_SUBJECT: usize = 60;
/// How often a real message is damaged or repeated, in one way or another.
const PER_FRAME: usize = 8;
/// As many real messages of each subject are kept.
const FRAMES_PER_SUBJECT: usize = 40;
/// After so many messages the nodes may catch up: the test is about content, not about floods.
const BURST: usize = 50;
const LANES: [&str; 6] = ["vote", "beat", "append", "snapshot", "call", "nonsense"];

/// A cluster under test, with what has to stay as it is.
struct Target {
    cluster: Cluster,
    nats: Client,
    random: StdRng,
    sent: usize,
    inbox: String,
    answers: Subscriber,
    before: Before,
}

#[derive(Debug, PartialEq)]
struct Before {
    state: StateHash,
    /// Each node's term and leader.
    terms: BTreeMap<u64, (u64, Option<u64>)>,
}

impl Before {
    async fn of(cluster: &Cluster) -> Self {
        let state = rest::state_at_rest(cluster).await;
        let mut terms = BTreeMap::new();
        for node in cluster.ids() {
            let status = wait::until("a status", async || cluster.status(node).await).await;
            terms.insert(node, (status.term, status.leader.map(|leader| leader.0)));
        }
        Before { state, terms }
    }
}

/// Messages between nodes, as they were overheard.
type Frames = Vec<Message>;

impl Target {
    /// A cluster at rest that has served, and what its nodes said to each other meanwhile.
    async fn start() -> (Self, Frames) {
        let seed = match std::env::var("MUFAKAT_SEED") {
            Ok(seed) => seed.parse().expect("MUFAKAT_SEED is a number"),
            Err(_) => rand::random(),
        };
        println!("MUFAKAT_SEED={seed}");
        // Terms must not change by themselves, on however busy a machine.
        let slow = ["--election-min", "6s", "--election-max", "8s"];
        let mut cluster = Cluster::prepare(Options::flags(&slow)).await;
        cluster.start_broker().await;
        let nats = cluster.nats().await;
        let overheard = nats.subscribe("mufakat.int.>").await.expect("not closed");
        nats.flush().await.expect("connected");
        cluster.start_all();
        cluster.all_follow().await;
        rest::state_at_rest(&cluster).await;
        serve(&cluster, &nats).await;
        let frames = take_frames(overheard).await;
        let inbox = nats.new_inbox();
        let answers = nats.subscribe(inbox.clone()).await.expect("not closed");
        let before = Before::of(&cluster).await;
        let target = Target {
            cluster,
            nats,
            random: StdRng::seed_from_u64(seed),
            sent: 0,
            inbox,
            answers,
            before,
        };
        (target, frames)
    }

    async fn send(&mut self, subject: &str, reply: Option<&str>, payload: Vec<u8>) {
        self.send_with(subject, reply, HeaderMap::new(), payload)
            .await;
    }

    async fn send_with(
        &mut self,
        subject: &str,
        reply: Option<&str>,
        headers: HeaderMap,
        payload: Vec<u8>,
    ) {
        let (subject, payload) = (subject.to_owned(), Bytes::from(payload));
        let published = match reply {
            Some(reply) => {
                let reply = reply.to_owned();
                self.nats
                    .publish_with_reply_and_headers(subject, reply, headers, payload)
                    .await
            }
            None => {
                self.nats
                    .publish_with_headers(subject, headers, payload)
                    .await
            }
        };
        published.expect("not closed");
        self.sent += 1;
        if self.sent.is_multiple_of(BURST) {
            self.all_answer().await;
        }
    }

    /// Every node has taken what was sent to it and still answers.
    async fn all_answer(&self) {
        for node in self.cluster.ids() {
            wait::until("a node answers", async || self.cluster.status(node).await).await;
        }
    }

    fn bytes(&mut self, length_max: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.random.random_range(2..length_max)];
        self.random.fill_bytes(&mut bytes);
        // Often one that passes the first look.
        match self.random.random_range(0..4) {
            0 => bytes[0] = b'{',
            1 => bytes[0] = self.random.random_range(0x81..=0x8f),
            _ => {}
        }
        bytes
    }

    /// Demands that nothing changed, that all nodes run, and that tokens go up as before.
    async fn check(mut self, newest_token: u64) {
        self.all_answer().await;
        let after = Before::of(&self.cluster).await;
        assert_eq!(self.before, after, "something changed");
        self.cluster.all_follow().await;
        let token = locks::acquire(&self.nats, "after", "after", 60_000).await;
        assert!(token > newest_token, "token {token} after {newest_token}");
        rest::state_at_rest(&self.cluster).await;
        println!("{} messages", self.sent);
    }

    async fn newest_token(&mut self) -> u64 {
        let token = locks::acquire(&self.nats, "newest", "newest", 60_000).await;
        locks::release(&self.nats, "newest", token).await;
        self.before = Before::of(&self.cluster).await;
        token
    }
}

/// Requests of all kinds through every node, so that nodes have something to say.
async fn serve(cluster: &Cluster, nats: &Client) {
    for round in 0..4 {
        for node in cluster.ids() {
            let resource = format!("frames-{round}-{node}");
            let token = locks::acquire(nats, &resource, "holder", 60_000).await;
            let request = acquire(&resource, "waiter", "exclusive");
            let mut waiting = Waiting::start(nats, node, request).await;
            let get = json!({"resource": resource});
            let subject = format!("mufakat.node.{node}.lock.get");
            wire::request_until_ok(nats, &subject, &get).await;
            let release = json!({"resource": resource, "token": token});
            let subject = format!("mufakat.node.{node}.lock.release");
            wire::request_until_ok(nats, &subject, &release).await;
            let token = waiting.granted().await;
            locks::release(nats, &resource, token).await;
        }
    }
}

/// What was overheard so far, a bounded number of each subject (answers: of each node).
async fn take_frames(mut overheard: Subscriber) -> Frames {
    let mut kept: BTreeMap<String, usize> = BTreeMap::new();
    let mut frames = Frames::new();
    let patience = Duration::from_millis(5);
    let mut taken = 0;
    while taken < 20_000
        && let Ok(Some(frame)) = tokio::time::timeout(patience, overheard.next()).await
    {
        taken += 1;
        let kind = frame
            .subject
            .split('.')
            .take(5)
            .collect::<Vec<_>>()
            .join(".");
        let count = kept.entry(kind).or_default();
        *count += 1;
        if *count <= FRAMES_PER_SUBJECT {
            frames.push(frame);
        }
    }
    println!("overheard {taken}, kept of each: {kept:?}");
    for kind in ["vote", "beat", "append", "call", "reply", "int.forward"] {
        assert!(kept.keys().any(|key| key.contains(kind)), "no {kind}");
    }
    frames
}

#[tokio::test]
async fn random_requests_are_refused() {
    let (mut target, _) = Target::start().await;
    let newest = target.newest_token().await;
    let inbox = target.inbox.clone();
    let mut expected = 0;
    for subject in [
        "lock.acquire",
        "lock.acquire.a",
        "lock.release",
        "lock.release.a.b",
        "lock.renew",
        "lock.check",
        "lock.get",
        "lock.get.a",
        "lock.x",
        "status",
        "metrics",
        "session.open",
        "queue.push.t",
        "cache.get.k",
        "cluster.members",
        "admin.x",
        "node.1.lock.acquire",
        "node.2.lock.get.a",
        "node.3.status",
        "node.1.x",
        "node.2.>",
        "lock.*",
    ] {
        for _ in 0..PER_SUBJECT {
            let mut headers = HeaderMap::new();
            match target.random.random_range(0..6) {
                0 => headers.insert("Content-Type", "application/json"),
                1 => headers.insert("Content-Type", "application/msgpack"),
                2 => headers.insert("Nats-Msg-Id", "an id"),
                _ => {}
            }
            let payload = target.bytes(200);
            let subject = format!("mufakat.{subject}");
            target
                .send_with(&subject, Some(&inbox), headers, payload.clone())
                .await;
            target.send(&subject, None, payload).await;
            expected += 1;
        }
    }
    for _ in 0..expected {
        let answer = tokio::time::timeout(wait::LONG, target.answers.next()).await;
        let answer = answer
            .expect("every request is answered")
            .expect("subscribed");
        let code = refusal_code(&answer.payload);
        assert!(
            ["bad_request", "unknown_operation"].contains(&code.as_str()),
            "{code}"
        );
    }
    for subject in [
        "$SRV.PING",
        "$SRV.INFO.mufakat",
        "$SRV.STATS.mufakat.x",
        "$SRV.x",
    ] {
        for _ in 0..PER_SUBJECT {
            let payload = target.bytes(200);
            target.send(subject, Some(&inbox), payload).await;
        }
    }
    target.check(newest).await;
}

fn refusal_code(payload: &[u8]) -> String {
    let answer: Value = match payload.first() {
        Some(b'{') => serde_json::from_slice(payload).expect("answers are JSON"),
        Some(_) => rmp_serde::from_slice(payload).expect("or MessagePack"),
        None => panic!("nobody listens"),
    };
    assert_eq!(answer["ok"], false, "{answer}");
    answer["error"]["code"]
        .as_str()
        .expect("errors have a code")
        .to_owned()
}

#[tokio::test]
async fn random_bytes_between_nodes_are_ignored() {
    let (mut target, frames) = Target::start().await;
    let newest = target.newest_token().await;
    let inbox = target.inbox.clone();
    let mut subjects: Vec<String> = Vec::new();
    for node in target.cluster.ids() {
        subjects.push(format!("mufakat.int.forward.{node}"));
        subjects.push(format!("mufakat.int.event.{node}"));
        subjects.extend(LANES.map(|lane| format!("mufakat.int.raft.{node}.{lane}")));
    }
    subjects.push("mufakat.int.raft.all.call".to_owned());
    let replies = frames
        .iter()
        .filter(|frame| frame.subject.contains(".reply."));
    subjects.extend(replies.map(|frame| frame.subject.to_string()).take(20));
    for subject in subjects {
        for _ in 0..PER_SUBJECT {
            let payload = target.bytes(400);
            let reply = target.random.random_bool(0.5).then_some(inbox.as_str());
            target.send(&subject, reply, payload).await;
        }
    }
    target.check(newest).await;
}

#[tokio::test]
async fn damaged_and_misdirected_frames_are_ignored() {
    let (mut target, frames) = Target::start().await;
    let newest = target.newest_token().await;
    for frame in &frames {
        for _ in 0..PER_FRAME {
            let mut payload = frame.payload.to_vec();
            let mut subject = frame.subject.to_string();
            let way = target.random.random_range(0..4);
            match way {
                0 => payload.truncate(target.random.random_range(0..payload.len())),
                1 => {
                    let other = &frames[target.random.random_range(0..frames.len())].payload;
                    let at = target.random.random_range(0..payload.len());
                    payload.truncate(at);
                    payload.extend(&other[at.min(other.len())..]);
                    if payload == frame.payload {
                        continue;
                    }
                }
                2 => {
                    for _ in 0..target.random.random_range(1..4) {
                        let at = target.random.random_range(0..payload.len());
                        payload[at] ^= 1 << target.random.random_range(0..8);
                    }
                }
                _ => {
                    let node = target.random.random_range(1..=3);
                    let lane = LANES[target.random.random_range(0..LANES.len())];
                    subject = format!("mufakat.int.raft.{node}.{lane}");
                }
            }
            let reply = frame.reply.as_ref().map(|reply| reply.as_str());
            target.send(&subject, reply, payload).await;
        }
    }
    target.check(newest).await;
}

#[tokio::test]
async fn frames_that_come_late_and_again_change_nothing() {
    let (mut target, frames) = Target::start().await;
    let newest = target.newest_token().await;
    for _ in 0..2 {
        for frame in &frames {
            let reply = frame.reply.as_ref().map(|reply| reply.as_str());
            target
                .send(&frame.subject, reply, frame.payload.to_vec())
                .await;
        }
    }
    let mut order: Vec<usize> = (0..frames.len()).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, target.random.random_range(0..=at));
    }
    for index in order {
        let frame = &frames[index];
        let reply = frame.reply.as_ref().map(|reply| reply.as_str());
        target
            .send(&frame.subject, reply, frame.payload.to_vec())
            .await;
    }
    target.check(newest).await;
}
