//! Random requests over random faults, many seeds.
//!
//! What must hold: all nodes apply the same; tokens rise and an exclusive holder is alone (checked at
//! each step of the history); a grant that a client heard of is in the history; each request is in
//! the log once at most; a lease is valid for as long as it was promised; whoever asks a node that
//! lives is answered once when nothing is disturbed; in the end nobody holds or waits.

use std::collections::BTreeMap;
use std::time::Duration;

use mufakat::broker::simulated::Faults;
use mufakat::ids::{NodeId, Token};
use mufakat::time::{Instant, now};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::client::{Client, code, token};
use crate::cluster::{Cluster, NODES};
use crate::run;

const SEEDS: std::ops::Range<u64> = 100..140;
const CLIENTS: u64 = 4;
const RESOURCES: u32 = 3;
/// Rounds of one run, each with requests, perhaps a fault, and up to [`ROUND_MS_MAX`] of time.
const ROUNDS: u32 = 40;
const ROUND_MS_MAX: u64 = 400;
const TTL_MS: u64 = 3_000;
const WAIT_MS: u64 = 2_000;
const TIMEOUT_MS: u64 = 4_000;
/// After a disturbance, until answers are promised again: an election or two.
const RECOVERY: Duration = Duration::from_secs(3);

struct Asked {
    what: What,
    at: Instant,
    answered: u32,
}

enum What {
    Acquire { resource: String },
    Release,
    Renew { resource: String, token: u64 },
    Check { token: u64 },
}

/// A lease that a client knows it has, and until when for certain.
struct Lease {
    resource: String,
    token: u64,
    until: Instant,
    released: bool,
}

struct World {
    rng: StdRng,
    cluster: Cluster,
    clients: Vec<Client>,
    asked: Vec<BTreeMap<u64, Asked>>,
    leases: Vec<Lease>,
    granted: Vec<u64>,
    answers: u64,
    trace: u64,
}

#[test]
fn random_requests_over_random_faults() {
    match std::env::var("SIMULATION_SEED") {
        Ok(seed) => {
            one_run(seed.parse().expect("SIMULATION_SEED is a number"));
        }
        Err(_) => SEEDS.for_each(|seed| {
            one_run(seed);
        }),
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [7, 8] {
        assert_eq!(one_run(seed), one_run(seed), "seed {seed} gave two runs");
    }
    assert_ne!(one_run(7), one_run(8));
}

/// A hash over all that clients heard, when they heard it, and what the nodes decided.
fn one_run(seed: u64) -> u64 {
    run(seed, async {
        let snapshot_entries = if seed.is_multiple_of(2) { 60 } else { 10_000 };
        let cluster = Cluster::of_three(seed, snapshot_entries).await;
        let mut world = World {
            rng: StdRng::seed_from_u64(seed),
            clients: Vec::new(),
            asked: (0..CLIENTS).map(|_| BTreeMap::new()).collect(),
            leases: Vec::new(),
            granted: Vec::new(),
            answers: 0,
            trace: seed,
            cluster,
        };
        for number in 0..CLIENTS {
            world
                .clients
                .push(Client::new(&world.cluster, number).await);
        }
        for _ in 0..ROUNDS {
            world.disturb().await;
            for client in 0..CLIENTS as usize {
                world.request(client);
            }
            let ms = world.rng.random_range(20..=ROUND_MS_MAX);
            world.pass(ms).await;
        }
        world.end().await
    })
}

impl World {
    async fn pass(&mut self, ms: u64) {
        let end = now() + Duration::from_millis(ms);
        while now() < end {
            self.cluster.pass(10).await;
            for client in 0..self.clients.len() {
                for (number, answer) in self.clients[client].heard() {
                    self.hear(client, number, &answer);
                }
            }
        }
    }

    /// Perhaps does something to the nodes or to the network.
    async fn disturb(&mut self) {
        let node = NODES[self.rng.random_range(0..NODES.len())];
        match self.rng.random_range(0..12) {
            0 if self.cluster.nodes.len() == NODES.len() => {
                let kept = self.rng.random_range(0..3);
                self.cluster.crash(node, kept).await;
            }
            1..=3 => {
                let dead = NODES
                    .into_iter()
                    .find(|n| !self.cluster.nodes.contains_key(n));
                if let Some(dead) = dead {
                    self.cluster.start(dead).await;
                }
            }
            4 => self.cluster.isolate(node),
            5 => {
                let other = NODES[self.rng.random_range(0..NODES.len())];
                self.cluster.disturbed_at = now();
                self.cluster.network.cut(node, other);
            }
            6 | 7 => self.cluster.heal(),
            8 => {
                self.cluster.disturbed_at = now();
                self.cluster.network.set_faults(Faults {
                    drop: self.rng.random_range(0.0..0.2),
                    duplicate: self.rng.random_range(0.0..0.2),
                    reorder: self.rng.random_range(0.0..0.2),
                    delay_max: Duration::from_millis(self.rng.random_range(1..400)),
                    ..Faults::NONE
                });
            }
            _ => {}
        }
    }

    fn request(&mut self, client: usize) {
        let nodes: Vec<NodeId> = self.cluster.nodes.keys().copied().collect();
        let node = nodes[self.rng.random_range(0..nodes.len())];
        let resource = format!("r{}", self.rng.random_range(0..RESOURCES));
        let pick = self.rng.random_range(0..self.leases.len().max(1));
        let held = self.leases.get_mut(pick).filter(|lease| !lease.released);
        let timeout = format!(r#""timeout_ms":{TIMEOUT_MS}"#);
        let (operation, body, what) = match (self.rng.random_range(0..8), held) {
            (0..=2, Some(lease)) => {
                lease.released = true;
                let Lease {
                    resource, token, ..
                } = &*lease;
                let body = format!(r#"{{"resource":"{resource}","token":{token},{timeout}}}"#);
                ("lock.release", body, What::Release)
            }
            (
                3,
                Some(Lease {
                    resource, token, ..
                }),
            ) => {
                let body = format!(r#"{{"resource":"{resource}","token":{token},{timeout}}}"#);
                let (resource, token) = (resource.clone(), *token);
                ("lock.renew", body, What::Renew { resource, token })
            }
            (
                4,
                Some(Lease {
                    resource, token, ..
                }),
            ) => {
                let body = format!(r#"{{"resource":"{resource}","token":{token},{timeout}}}"#);
                ("lock.check", body, What::Check { token: *token })
            }
            _ => {
                let mode = if self.rng.random_bool(0.2) {
                    "shared"
                } else {
                    "exclusive"
                };
                let wait_ms = if self.rng.random_bool(0.5) {
                    WAIT_MS
                } else {
                    0
                };
                let body = format!(
                    r#"{{"resource":"{resource}","mode":"{mode}","ttl_ms":{TTL_MS},"wait_ms":{wait_ms},{timeout}}}"#
                );
                ("lock.acquire", body, What::Acquire { resource })
            }
        };
        let number = self.clients[client].ask(&self.cluster, node, operation, &body);
        let at = now();
        let answered = 0;
        self.asked[client].insert(number, Asked { what, at, answered });
    }

    fn hear(&mut self, client: usize, number: u64, answer: &Value) {
        self.answers += 1;
        self.note(&format!("{client} {number} {answer}"));
        let asked = self.asked[client]
            .get_mut(&number)
            .expect("an answer to a request");
        asked.answered += 1;
        let ok = code(answer) == "ok";
        let until = asked.at + Duration::from_millis(TTL_MS);
        match &asked.what {
            What::Acquire { resource } if ok => {
                self.granted.push(token(answer));
                if asked.answered == 1 {
                    let resource = resource.clone();
                    let token = token(answer);
                    self.leases.push(Lease {
                        resource,
                        token,
                        until,
                        released: false,
                    });
                }
            }
            What::Renew { resource, token } if ok => {
                let known = |l: &&mut Lease| (&l.resource, l.token) == (resource, *token);
                if let Some(lease) = self.leases.iter_mut().find(known) {
                    lease.until = lease.until.max(until);
                }
            }
            What::Check { token } if ok => {
                let lease = self.leases.iter().find(|lease| lease.token == *token);
                let lease = lease.expect("only what is known is checked");
                let lives = !lease.released && now() < lease.until;
                assert!(
                    !lives || answer["valid"] == true,
                    "a lease ended early: {answer}"
                );
            }
            _ => {}
        }
    }

    fn note(&mut self, what: &str) {
        let line = format!("{} {what} {}", self.trace, self.answers);
        self.trace = xxhash_rust::xxh3::xxh3_64(line.as_bytes());
    }

    /// Peace returns; everything must come to its end.
    async fn end(&mut self) -> u64 {
        self.cluster.heal();
        for node in NODES {
            if !self.cluster.nodes.contains_key(&node) {
                self.cluster.start(node).await;
            }
        }
        self.cluster.leader().await;
        self.pass(RECOVERY.as_millis() as u64).await;
        // Requests in peace are all answered.
        for client in 0..CLIENTS as usize {
            self.request(client);
        }
        self.pass(TIMEOUT_MS + WAIT_MS + TTL_MS + 2_000).await;
        let last = self.cluster.disturbed_at;
        for (client, asked) in self.asked.iter().enumerate() {
            for (number, asked) in asked {
                let in_peace = asked.at > last + RECOVERY;
                let times = asked.answered;
                assert!(
                    times == 1 || !in_peace,
                    "request {number} of client {client} was answered {times} times"
                );
            }
        }
        self.cluster.settle().await;
        let counts = self
            .cluster
            .core(NODES[0])
            .handle
            .read(|state, _| state.locks.counts());
        assert_eq!(
            (counts.held, counts.waiting),
            (0, 0),
            "somebody holds or waits for ever"
        );
        let replay = self.cluster.history.replay();
        for token in &self.granted {
            assert!(
                replay.grants.contains_key(&Token(*token)),
                "grant {token} vanished"
            );
        }
        assert!(
            replay.most_of_one_request() <= 1,
            "a request took effect twice"
        );
        self.note(&format!("{:x}", replay.state.hash()));
        let lost = self.cluster.network.lost();
        println!(
            "  {} grants, {} answers, {lost} messages lost",
            self.granted.len(),
            self.answers
        );
        self.trace
    }
}
