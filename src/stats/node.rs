//! Everything one node counts, and its rendering.

use std::sync::Arc;

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use serde::Serialize;

use super::process::Process;
use super::{
    BrokerStats, CacheStats, FloatGauge, Gauge, LockStats, OperationStats, QueueStats, RaftStats,
    RedisStats,
};

/// The media type of [`Stats::encode_text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything one node counts.
#[derive(Debug)]
pub struct Stats {
    pub operations: OperationStats,
    pub raft: RaftStats,
    pub broker: BrokerStats,
    pub redis: RedisStats,
    pub locks: LockStats,
    pub queue: QueueStats,
    pub cache: CacheStats,
    /// Number of the cluster view that this node knows.
    pub view_epoch: Gauge,
    /// Nodes that take part in that view.
    pub view_members: Gauge,
    /// What is left of the right to act on the view, in seconds.
    pub view_lease: FloatGauge,
    registry: Registry,
}

/// Counts since the node started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Costs {
    /// Those that were asked for at least once.
    pub operations: Vec<OperationCosts>,
    /// Flushes of the log by how long they took; see `bounds_ns`.
    pub fsyncs: Vec<u64>,
    /// Inclusive upper bounds of all buckets but the last, which has none.
    pub bounds_ns: Vec<u64>,
}

/// Counts of one operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OperationCosts {
    pub operation: &'static str,
    pub requests: u64,
    pub errors: u64,
    /// Requests by how long they took; see [`Costs::bounds_ns`].
    pub durations: Vec<u64>,
}

impl Stats {
    /// `operations` and `codes` are the label values that [`OperationStats::record`] indexes:
    /// every operation (`lock_acquire`), every error code (`lock_held`).
    pub fn new(operations: &'static [&'static str], codes: &'static [&'static str]) -> Arc<Stats> {
        let mut stats = Stats {
            operations: OperationStats::new(operations, codes),
            raft: RaftStats::new(),
            broker: BrokerStats::new(),
            redis: RedisStats::new(),
            locks: LockStats::new(),
            queue: QueueStats::new(),
            cache: CacheStats::new(),
            view_epoch: Gauge::default(),
            view_members: Gauge::default(),
            view_lease: FloatGauge::default(),
            registry: Registry::default(),
        };
        stats.register();
        Arc::new(stats)
    }

    fn register(&mut self) {
        let process = Box::new(Process::started_now());
        self.registry.register_collector(process);
        let registry = self.registry.sub_registry_with_prefix("mufakat");
        registry.register(
            "build",
            "The program that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        self.operations.register(registry);
        self.raft.register(registry);
        self.broker.register(registry);
        self.redis.register(registry);
        self.locks.register(registry);
        self.queue.register(registry);
        self.cache.register(registry);
        for (name, help, gauge) in [
            ("view_epoch", "Number of the cluster view", &self.view_epoch),
            (
                "view_members",
                "Nodes that take part in the cluster view",
                &self.view_members,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        registry.register_with_unit(
            "view_lease",
            "What is left of this node's right to act on the view; 0: it serves nothing from its cache",
            Unit::Seconds,
            self.view_lease.clone(),
        );
    }

    /// What this node's requests and disk cost so far, for those who compare two readings.
    pub fn costs(&self, labels: &[&'static str]) -> Costs {
        let operation = |(index, label): (usize, &&'static str)| {
            let totals = self.operations.totals(index);
            (totals.requests > 0).then(|| OperationCosts {
                operation: label,
                requests: totals.requests,
                errors: totals.errors,
                durations: self.operations.durations(index).counts(),
            })
        };
        Costs {
            operations: labels.iter().enumerate().filter_map(operation).collect(),
            fsyncs: self.raft.fsync.counts(),
            bounds_ns: self.raft.fsync.bounds().to_vec(),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stats::{Connection, Refusal, Role};

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
            "# TYPE mufakat_redis_connected gauge",
            "# TYPE mufakat_raft_peer_lag_entries gauge",
            "mufakat_lock_waits_ended_total{outcome=\"deadlock\"} 0",
            "mufakat_queue_messages{topic=\"other\",state=\"dead\"} 0",
            "mufakat_cache_hits_total{source=\"home\"} 0",
            "mufakat_view_lease_seconds 0.0",
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
}
