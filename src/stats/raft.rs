//! What is counted about replication.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::{Registry, Unit};

use super::{Gauge, Histogram, Labelled};

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
        ] {
            registry.register(name, help, gauge.clone());
        }
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
        let counter = &self.frames_refused[reason as usize];
        counter.inc_by(total.saturating_sub(counter.get()));
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
    }
}
