//! What is counted about replication.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::{Gauge, Histogram, Labelled, Sometimes, take_over};

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
    /// It is from, or for, another disk than the membership knows.
    Disk,
    /// It belongs to a stream that a newer one has replaced.
    Stream,
    /// It is a repeat, or one before it is missing.
    Sequence,
    /// The queue that it goes to is full.
    Full,
    /// Forwarded commands that do not decode, or whose checksum is wrong.
    Forward,
}

impl Refusal {
    /// The label values, in the order of the variants.
    pub const LABELS: [&'static str; 6] =
        ["malformed", "disk", "stream", "sequence", "full", "forward"];
}

/// Why a command that this node took has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    NoLeader,
    Timeout,
    Indeterminate,
    Overloaded,
    ShuttingDown,
}

impl Failure {
    /// The label values, in the order of the variants: the codes that clients get.
    pub const LABELS: [&'static str; 5] = [
        "no_leader",
        "timeout",
        "indeterminate",
        "overloaded",
        "shutting_down",
    ];
}

/// Another node, as the one that leads sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub node: u64,
    /// Entries of the leader's log that are not known to be on its disk.
    pub lag: u64,
    /// Since it last answered; none if it never did.
    pub silent: Option<Duration>,
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
    /// Elections in which this node stood.
    pub elections: Counter,
    /// Leaders that this node saw take over; the same node in a later term is another.
    pub leader_changes: Counter,
    /// Commands of this node and its clients that were taken on their way into the log.
    pub proposals: Counter,
    /// Those of them that have no outcome yet, and those that others forwarded here.
    pub proposals_pending: Gauge,
    proposals_failed: Labelled<Counter>,
    /// Nodes with a vote, as far as this node knows.
    pub voters: Gauge,
    /// How many of them answer the leader, itself included; on the leader alone.
    pub voters_reachable: Sometimes,
    peers: Peers,
}

/// The other nodes, as the one that leads sees them; none elsewhere. Clones share it.
#[derive(Clone, Debug, Default)]
struct Peers(Arc<Mutex<Vec<Peer>>>);

impl Peers {
    fn lock(&self) -> MutexGuard<'_, Vec<Peer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftStats {
    pub(super) fn new() -> Self {
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
            elections: Counter::default(),
            leader_changes: Counter::default(),
            proposals: Counter::default(),
            proposals_pending: Gauge::default(),
            proposals_failed: Labelled::new("reason", &Failure::LABELS, Counter::default),
            voters: Gauge::default(),
            voters_reachable: Sometimes::default(),
            peers: Peers::default(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("raft_role", "1 for the current role", self.role.clone());
        for (name, help, gauge) in [
            ("raft_term", "Current term", &self.term),
            ("raft_leader", "Known leader, 0 if none", &self.leader),
            ("raft_commit_index", "Last committed", &self.commit_index),
            ("raft_applied_index", "Last applied", &self.applied_index),
            (
                "raft_last_log_index",
                "Last in the log",
                &self.last_log_index,
            ),
            (
                "raft_snapshot_index",
                "Last in the snapshot",
                &self.snapshot_index,
            ),
            (
                "raft_voters",
                "Nodes with a vote, as far as is known",
                &self.voters,
            ),
            (
                "raft_proposals_pending",
                "Commands on their way into the log",
                &self.proposals_pending,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, counter) in [
            (
                "raft_elections",
                "Elections in which this node stood",
                &self.elections,
            ),
            (
                "raft_leader_changes",
                "Leaders that this node saw take over, each term anew",
                &self.leader_changes,
            ),
            (
                "raft_proposals",
                "Commands of this node and its clients, taken on their way into the log",
                &self.proposals,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "raft_proposals_failed",
            "Commands without an outcome",
            self.proposals_failed.clone(),
        );
        registry.register(
            "raft_voters_reachable",
            "Nodes with a vote that answer the leader, itself included; on the leader alone",
            self.voters_reachable.clone(),
        );
        registry.register(
            "raft_peer_lag_entries",
            "Entries not known to be on the peer's disk; on the leader alone",
            Lag(self.peers.clone()),
        );
        registry.register_with_unit(
            "raft_peer_silent",
            "Since the peer last answered, if it ever did; on the leader alone",
            Unit::Seconds,
            Silence(self.peers.clone()),
        );
        let batch_commands = self.batch_commands.clone();
        registry.register(
            "raft_batch_commands",
            "Commands in each proposed entry",
            batch_commands,
        );
        for (name, help, durations) in [
            (
                "raft_commit",
                "From proposing an entry to its being applied",
                &self.commit,
            ),
            ("raft_fsync", "Flushes of the log to the disk", &self.fsync),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, durations.clone());
        }
        let frames_refused = self.frames_refused.clone();
        registry.register(
            "raft_frames_refused",
            "Frames that were not taken",
            frames_refused,
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

    /// Takes over how many frames were refused so far where others count them.
    pub fn set_frames_refused(&self, reason: Refusal, total: u64) {
        take_over(&self.frames_refused[reason as usize], total);
    }

    pub fn proposal_failed(&self, why: Failure) {
        self.proposals_failed[why as usize].inc();
    }

    /// Shows the other nodes, on the leader; nothing elsewhere.
    pub fn show_peers(&self, peers: Vec<Peer>) {
        *self.peers.lock() = peers;
    }
}

/// How far each peer is behind.
#[derive(Debug)]
struct Lag(Peers);

impl EncodeMetric for Lag {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for peer in &*self.0.lock() {
            let labels = [("peer", peer.node)];
            ConstGauge::new(peer.lag).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// How long each peer has been silent.
#[derive(Debug)]
struct Silence(Peers);

impl EncodeMetric for Silence {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for peer in &*self.0.lock() {
            if let Some(silent) = peer.silent {
                let labels = [("peer", peer.node)];
                let silent = ConstGauge::new(silent.as_secs_f64());
                silent.encode(encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_the_variants() {
        assert_eq!(Role::Leader.as_str(), "leader");
        assert_eq!(Role::LABELS[Role::Learner as usize], "learner");
        assert_eq!(Role::LABELS.len(), Role::Learner as usize + 1);
        assert_eq!(Refusal::LABELS[Refusal::Malformed as usize], "malformed");
        assert_eq!(Refusal::LABELS[Refusal::Sequence as usize], "sequence");
        assert_eq!(Refusal::LABELS.len(), Refusal::Forward as usize + 1);
        assert_eq!(Failure::LABELS[Failure::Timeout as usize], "timeout");
        assert_eq!(Failure::LABELS.len(), Failure::ShuttingDown as usize + 1);
    }
}
