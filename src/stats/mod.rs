//! What the parts of a node count, and its rendering for Prometheus.
//!
//! Recording costs a few atomic additions: every label value is known when the node starts, so a
//! series is an index into an array, and nothing is hashed, looked up or locked. Gauges that
//! mirror a state kept elsewhere are set by whoever has that state, right before a scrape.
//!
//! Limits: the numbers live as long as the process, and one scrape may see parts of a record that
//! is being made (a request counted whose duration is not).
//!
//! - [`histogram`]: a distribution in fixed buckets.
//! - [`labelled`]: one metric per value of a label, by index.
//! - [`operations`]: requests, errors and durations by operation.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub mod histogram;
pub mod labelled;
pub mod operations;

pub use histogram::Histogram;
pub use labelled::Labelled;
pub use operations::OperationStats;

/// A number that goes up and down.
pub type Gauge = prometheus_client::metrics::gauge::Gauge<u64, AtomicU64>;

/// Everything one node counts.
#[derive(Debug)]
pub struct Stats {
    pub operations: OperationStats,
    pub raft: RaftStats,
    pub broker: BrokerStats,
    /// Grants that are live in this node's replicated state.
    pub locks_held: Gauge,
    /// Requests that stand in a queue in this node's replicated state.
    pub locks_waiting: Gauge,
    /// 1 while the connection to Redis answers.
    pub redis_connected: Gauge,
    /// Number of the cluster view that this node knows.
    pub view_epoch: Gauge,
    registry: Registry,
}

/// A node's part in Raft, one series each, 1 for the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    Candidate,
    Learner,
}

impl Role {
    /// The label values, in the order of the variants.
    pub const LABELS: [&'static str; 4] = ["leader", "follower", "candidate", "learner"];

    /// As in the reply to `status`.
    pub fn as_str(self) -> &'static str {
        Self::LABELS[self as usize]
    }
}

/// Why a frame from another node was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not decode, or its checksum is wrong.
    Malformed,
    /// It comes from another cluster.
    Cluster,
    /// The membership knows the sender with another disk.
    Disk,
    /// It comes from an earlier run of the sender, or is meant for an earlier run of this node.
    Boot,
    /// It belongs to a stream that a newer one has replaced.
    Stream,
    /// It is a repeat, or one before it is missing.
    Sequence,
    /// It was made in a term that is over.
    Term,
    /// The queue that it goes to is full.
    Full,
}

impl Refusal {
    /// The label values, in the order of the variants.
    pub const LABELS: [&'static str; 8] = [
        "malformed",
        "cluster",
        "disk",
        "boot",
        "stream",
        "sequence",
        "term",
        "full",
    ];
}

/// The connections of a node to the broker: apart, so that clients cannot delay Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    Raft,
    Clients,
}

impl Connection {
    /// The label values, in the order of the variants.
    pub const LABELS: [&'static str; 2] = ["raft", "clients"];
}

#[derive(Debug)]
pub struct RaftStats {
    role: Labelled<Gauge>,
    pub term: Gauge,
    /// Id of the known leader; 0 while there is none.
    pub leader: Gauge,
    pub commit_index: Gauge,
    pub applied_index: Gauge,
    pub last_log_index: Gauge,
    /// Last index that the newest snapshot covers; 0 without one.
    pub snapshot_index: Gauge,
    /// Commands in each entry that this node proposed.
    pub batch_commands: Histogram,
    /// From proposing an entry to its being applied here.
    pub commit: Histogram,
    /// Length of each flush of the log to the disk.
    pub fsync: Histogram,
    frames_refused: Labelled<Counter>,
}

impl RaftStats {
    fn new() -> Self {
        RaftStats {
            role: Labelled::new("role", &Role::LABELS, Gauge::default),
            term: Gauge::default(),
            leader: Gauge::default(),
            commit_index: Gauge::default(),
            applied_index: Gauge::default(),
            last_log_index: Gauge::default(),
            snapshot_index: Gauge::default(),
            batch_commands: Histogram::of_counts(),
            commit: Histogram::of_durations(),
            fsync: Histogram::of_durations(),
            frames_refused: Labelled::new("reason", &Refusal::LABELS, Counter::default),
        }
    }

    fn register(&self, registry: &mut Registry) {
        let gauges: [(&str, &str, &Gauge); 6] = [
            ("raft_term", "Current term", &self.term),
            ("raft_leader", "Known leader, 0 if none", &self.leader),
            (
                "raft_commit_index",
                "Last committed index",
                &self.commit_index,
            ),
            (
                "raft_applied_index",
                "Last applied index",
                &self.applied_index,
            ),
            (
                "raft_last_log_index",
                "Last index in the log",
                &self.last_log_index,
            ),
            (
                "raft_snapshot_index",
                "Last index in the snapshot",
                &self.snapshot_index,
            ),
        ];
        registry.register("raft_role", "1 for the current role", self.role.clone());
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "raft_batch_commands",
            "Commands in each proposed entry",
            self.batch_commands.clone(),
        );
        registry.register_with_unit(
            "raft_commit",
            "From proposing an entry to its being applied",
            Unit::Seconds,
            self.commit.clone(),
        );
        registry.register_with_unit(
            "raft_fsync",
            "Flushes of the log to the disk",
            Unit::Seconds,
            self.fsync.clone(),
        );
        registry.register(
            "raft_frames_refused",
            "Frames from other nodes that were not taken",
            self.frames_refused.clone(),
        );
    }

    /// Sets the series of `role` to 1, the others to 0.
    pub fn set_role(&self, role: Role) {
        for index in 0..Role::LABELS.len() {
            self.role[index].set(u64::from(index == role as usize));
        }
    }

    pub fn frame_refused(&self, reason: Refusal) {
        self.frames_refused[reason as usize].inc();
    }
}

#[derive(Debug)]
pub struct BrokerStats {
    connected: Labelled<Gauge>,
    reconnects: Labelled<Counter>,
}

impl BrokerStats {
    fn new() -> Self {
        BrokerStats {
            connected: Labelled::new("connection", &Connection::LABELS, Gauge::default),
            reconnects: Labelled::new("connection", &Connection::LABELS, Counter::default),
        }
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "nats_connected",
            "1 while the connection to NATS stands",
            self.connected.clone(),
        );
        registry.register(
            "nats_reconnects",
            "Connections to NATS after the first",
            self.reconnects.clone(),
        );
    }

    pub fn set_connected(&self, connection: Connection, connected: bool) {
        self.connected[connection as usize].set(u64::from(connected));
    }

    pub fn reconnected(&self, connection: Connection) {
        self.reconnects[connection as usize].inc();
    }
}

impl Stats {
    /// `operations` and `codes` are the label values that [`OperationStats::record`] indexes:
    /// every operation (`lock_acquire`), every error code (`lock_held`).
    pub fn new(operations: &'static [&'static str], codes: &'static [&'static str]) -> Arc<Stats> {
        let mut stats = Stats {
            operations: OperationStats::new(operations, codes),
            raft: RaftStats::new(),
            broker: BrokerStats::new(),
            locks_held: Gauge::default(),
            locks_waiting: Gauge::default(),
            redis_connected: Gauge::default(),
            view_epoch: Gauge::default(),
            registry: Registry::with_prefix("mufakat"),
        };
        stats.register();
        Arc::new(stats)
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "build",
            "The program that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        self.operations.register(registry);
        self.raft.register(registry);
        self.broker.register(registry);
        for (name, help, gauge) in [
            ("locks_held", "Live grants", &self.locks_held),
            (
                "locks_waiting",
                "Requests waiting for a lock",
                &self.locks_waiting,
            ),
            (
                "redis_connected",
                "1 while Redis answers",
                &self.redis_connected,
            ),
            ("view_epoch", "Number of the cluster view", &self.view_epoch),
        ] {
            registry.register(name, help, gauge.clone());
        }
    }

    /// All metrics in the OpenMetrics text format ([`CONTENT_TYPE`]).
    pub fn encode_text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a string does not fail");
        text
    }
}

/// The media type of [`Stats::encode_text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stats() -> Arc<Stats> {
        Stats::new(&["lock_acquire", "status"], &["lock_held", "internal"])
    }

    fn assert_line(text: &str, line: &str) {
        assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
    }

    #[test]
    fn every_metric_of_a_fresh_node_is_there() {
        let stats = stats();
        stats.raft.set_role(Role::Follower);
        let text = stats.encode_text();
        let version = env!("CARGO_PKG_VERSION");
        for line in [
            format!("mufakat_build_info{{version=\"{version}\"}} 1").as_str(),
            "mufakat_requests_total{operation=\"lock_acquire\"} 0",
            "# TYPE mufakat_request_errors counter",
            "mufakat_request_duration_seconds_count{operation=\"status\"} 0",
            "# TYPE mufakat_request_duration_seconds histogram",
            "mufakat_raft_role{role=\"leader\"} 0",
            "mufakat_raft_role{role=\"follower\"} 1",
            "mufakat_raft_term 0",
            "mufakat_raft_leader 0",
            "mufakat_raft_commit_index 0",
            "mufakat_raft_applied_index 0",
            "mufakat_raft_last_log_index 0",
            "mufakat_raft_snapshot_index 0",
            "mufakat_raft_batch_commands_count 0",
            "mufakat_raft_commit_seconds_count 0",
            "mufakat_raft_fsync_seconds_count 0",
            "mufakat_raft_frames_refused_total{reason=\"sequence\"} 0",
            "mufakat_locks_held 0",
            "mufakat_locks_waiting 0",
            "mufakat_nats_connected{connection=\"raft\"} 0",
            "mufakat_nats_reconnects_total{connection=\"clients\"} 0",
            "mufakat_redis_connected 0",
            "mufakat_view_epoch 0",
            "# EOF",
        ] {
            assert_line(&text, line);
        }
    }

    #[test]
    fn what_is_recorded_is_rendered() {
        let stats = stats();
        stats.operations.record(0, Duration::from_millis(3), None);
        stats
            .operations
            .record(0, Duration::from_micros(60), Some(0));
        stats.raft.set_role(Role::Leader);
        stats.raft.batch_commands.observe(3);
        stats.raft.frame_refused(Refusal::Full);
        stats.broker.set_connected(Connection::Clients, true);
        stats.broker.reconnected(Connection::Raft);
        stats.view_epoch.set(7);
        let text = stats.encode_text();
        for line in [
            "mufakat_requests_total{operation=\"lock_acquire\"} 2",
            "mufakat_request_errors_total{operation=\"lock_acquire\",code=\"lock_held\"} 1",
            "mufakat_request_duration_seconds_sum{operation=\"lock_acquire\"} 0.00306",
            "mufakat_request_duration_seconds_bucket{le=\"0.0001\",operation=\"lock_acquire\"} 1",
            "mufakat_raft_role{role=\"leader\"} 1",
            "mufakat_raft_role{role=\"follower\"} 0",
            "mufakat_raft_batch_commands_bucket{le=\"2.0\"} 0",
            "mufakat_raft_batch_commands_bucket{le=\"4.0\"} 1",
            "mufakat_raft_frames_refused_total{reason=\"full\"} 1",
            "mufakat_nats_connected{connection=\"clients\"} 1",
            "mufakat_nats_reconnects_total{connection=\"raft\"} 1",
            "mufakat_view_epoch 7",
        ] {
            assert_line(&text, line);
        }
        assert!(!text.contains("code=\"internal\""), "{text}");
    }

    #[test]
    fn label_arrays_follow_the_variants() {
        assert_eq!(Role::LABELS[Role::Learner as usize], "learner");
        assert_eq!(Role::LABELS.len(), Role::Learner as usize + 1);
        assert_eq!(Refusal::LABELS[Refusal::Sequence as usize], "sequence");
        assert_eq!(Refusal::LABELS.len(), Refusal::Full as usize + 1);
        assert_eq!(Connection::LABELS[Connection::Clients as usize], "clients");
    }
}
