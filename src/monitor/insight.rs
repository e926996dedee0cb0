//! What a node tells about itself, to clients, operators and Prometheus alike.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use serde::Serialize;

use crate::broker::SharedBroker;
use crate::broker::discovery::{self, ServiceInfo};
use crate::cache::service::CacheService;
use crate::monitor::history::{History, Reading, Told};
use crate::monitor::http::NodeInfo;
use crate::protocol::reply::{self, From};
use crate::protocol::status::{
    CacheCounts, LockCounts, Member, NatsState, QueueCounts, RedisState, StateHash, Status,
};
use crate::protocol::{self, Code, Encoding, Operation, ReplyTo};
use crate::queue::service::QueueService;
use crate::queue::store::Store;
use crate::raft::handle::Handle;
use crate::raft::network::Network;
use crate::stats::{Costs, Stats};
use crate::time::{self, Instant};

/// What one node tells the dashboard of another.
#[derive(Serialize)]
struct Report<'a> {
    status: &'a Status,
    last_log_index: u64,
    cache: &'a protocol::cache::Stats,
    costs: &'a Costs,
}

/// One node's knowledge of itself. Nothing here waits, and nothing is computed on other paths.
pub struct Insight {
    pub handle: Handle,
    pub cache: CacheService,
    pub network: Network,
    pub stats: Arc<Stats>,
    pub clients: SharedBroker,
    pub raft_broker: SharedBroker,
    pub queues: QueueService,
    pub redis: Option<Arc<Store>>,
    pub service: ServiceInfo,
    pub started: Instant,
    /// What requests were answered lately.
    pub history: Mutex<History>,
    /// Held while the state is hashed.
    pub hashing: tokio::sync::Mutex<()>,
    /// Whether requests of clients reach this node: from its subscription until it drains.
    pub serving: AtomicBool,
}

impl Insight {
    /// The reply to `status` that has a hash of the whole state; none if others were made until the deadline.
    /// Hashing is the work of a thread of its own, and one at a time: the state can be large.
    pub async fn hashed_status(&self, deadline: Instant) -> Option<Status> {
        let turn = tokio::time::timeout_at(deadline, self.hashing.lock()).await;
        let _turn = turn.ok()?;
        let state = self.handle.read(|state, _| state.clone());
        let hash = move || StateHash {
            batches: state.batches(),
            hash: format!("{:016x}", state.hash()),
        };
        let hashed = tokio::task::spawn_blocking(hash).await;
        Some(Status {
            state_hash: Some(hashed.expect("a state always encodes")),
            ..self.status()
        })
    }

    /// The reply to `status`.
    pub fn status(&self) -> Status {
        let raft = self.handle.status();
        let (entries, bytes) = self.cache.size();
        let (view, locks) = self
            .handle
            .read(|state, _| (state.view.clone(), state.locks.counts()));
        let member = |(node, voter): (&_, &bool)| Member {
            node: *node,
            voter: *voter,
            incarnation: view.member(*node).map(|member| member.incarnation),
        };
        Status {
            node: self.network.identity().node,
            role: raft.role,
            term: raft.term,
            leader: raft.leader,
            commit_index: raft.commit_index,
            applied_index: raft.applied_index,
            members: raft.members.iter().map(member).collect(),
            epoch: view.epoch(),
            lease_ms: self.cache.lease_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            locks: LockCounts {
                held: locks.held,
                waiting: locks.waiting,
            },
            cache: CacheCounts {
                entries: entries as u64,
                bytes: bytes as u64,
            },
            queue: QueueCounts {
                topics: self.queues.active_topics() as u64,
            },
            nats: NatsState {
                connected: self.clients.is_connected(),
            },
            redis: self.redis.as_deref().map(redis_state),
            state_hash: None,
        }
    }

    /// What the dashboard of another node is told about this one, as JSON.
    pub fn report(&self) -> Bytes {
        let report = Report {
            status: &self.status(),
            last_log_index: self.handle.status().last_log_index,
            cache: &self.cache.stats(),
            costs: &self.stats.costs(operation_labels()),
        };
        serde_json::to_vec(&report)
            .expect("it has a form in JSON")
            .into()
    }

    /// Keeps what requests were answered lately; to be called every second or more often.
    pub fn remember(&self) {
        let read = || {
            let operations = &self.stats.operations;
            let mut requests = Vec::new();
            let mut durations = vec![0; self.bounds_ns().len() + 1];
            for operation in 0..operation_labels().len() {
                let counts = operations.durations(operation).counts();
                requests.push(counts.iter().sum());
                for (sum, count) in durations.iter_mut().zip(counts) {
                    *sum += count;
                }
            }
            Reading {
                requests,
                durations,
            }
        };
        let mut history = self.history.lock().expect("nobody panics with it");
        history.keep(time::now(), read);
    }

    /// What requests this node answered lately.
    pub fn told(&self) -> Told {
        let history = self.history.lock().expect("nobody panics with it");
        history.told(time::now(), operation_labels(), self.bounds_ns())
    }

    /// The bounds of all durations that are told.
    pub fn bounds_ns(&self) -> &[u64] {
        self.stats.raft.fsync.bounds()
    }

    /// The answer to a `$SRV.…` request: what NATS tools ask services.
    pub fn discover(&self, subject: &str) -> Option<Bytes> {
        discovery::answer(subject, &self.service, &self.stats.operations)
    }
}

fn redis_state(store: &Store) -> RedisState {
    let status = store.status();
    RedisState {
        connected: status.answers(),
        durability: status.durability,
        source: status.source,
        settings: status.settings.clone(),
        warnings: status.warnings.clone(),
    }
}

impl NodeInfo for Insight {
    /// Clients are served while requests reach this node, once it knows a leader whom a majority hears. Without Redis all but
    /// the queue is, and but a cache that has its store there.
    fn ready(&self) -> Result<Vec<&'static str>, String> {
        if !self.clients.is_connected() {
            return Err("not connected to NATS".to_owned());
        }
        if self.handle.leader().is_none() {
            return Err("no leader is known".to_owned());
        }
        if !self.handle.is_heard() {
            return Err("this node leads, but no majority answers it".to_owned());
        }
        if !self.serving.load(Ordering::Relaxed) {
            return Err("starting or stopping: takes no requests".to_owned());
        }
        let lacks_redis = |redis: &Arc<Store>| !redis.status().answers();
        if !self.redis.as_ref().is_some_and(lacks_redis) {
            return Ok(Vec::new());
        }
        Ok(match self.cache.has_store() {
            true => vec!["queue", "cache"],
            false => vec!["queue"],
        })
    }

    fn status_json(&self) -> Bytes {
        let from = From {
            node: self.network.identity().node,
            ask_node: None,
        };
        let to = ReplyTo::new("", Encoding::Json);
        reply::success(&to, from, &self.status()).payload
    }

    fn metrics_text(&self) -> String {
        self.metrics()
    }
}

/// The labels that operations have in metrics, in the order of their numbers. They live as long as
/// the process, as the metrics do.
pub fn operation_labels() -> &'static [&'static str] {
    static LABELS: LazyLock<Vec<&str>> = LazyLock::new(|| {
        Operation::ALL
            .iter()
            .map(|operation| operation.label())
            .collect()
    });
    &LABELS
}

/// The same for error codes.
pub fn code_labels() -> &'static [&'static str] {
    static LABELS: LazyLock<Vec<&str>> =
        LazyLock::new(|| Code::ALL.iter().map(|code| code.name()).collect());
    &LABELS
}
