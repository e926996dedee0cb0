//! All metrics at one moment: what is kept elsewhere is taken over, then everything is rendered.
//!
//! Nothing here waits or asks anybody, so a scrape costs what its text costs, and gets what is known.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ids::NodeId;
use crate::monitor::insight::Insight;
use crate::protocol::status::{self, Metrics, MetricsFormat};
use crate::raft::handle::Observed;
use crate::stats::{self, Connection, Peer, Refusal, samples};

impl Insight {
    /// All metrics in the text format of OpenMetrics.
    pub fn metrics(&self) -> String {
        self.show_raft();
        self.show_refused_frames();
        self.show_state();
        let broker = &self.stats.broker;
        broker.set_connected(Connection::Clients, self.clients.is_connected());
        broker.set_connected(Connection::Raft, self.raft_broker.is_connected());
        if let Some(store) = &self.redis {
            let status = store.status();
            let durability = status.durability.name();
            let redis = &self.stats.redis;
            redis.show(status.answers(), durability, store.reconnects());
        }
        self.stats.cache.show(&self.cache.reading());
        let lease_ms = self.cache.lease_ms();
        self.stats.view_lease.set(lease_ms as f64 / 1e3);
        let queue = &self.stats.queue;
        queue.active.set(self.queues.active_topics() as u64);
        queue.waiting.set(self.queues.waiting_pops());
        self.queues.scraped();
        self.stats.encode_text()
    }

    /// The reply to `metrics`.
    pub fn metrics_as(&self, format: MetricsFormat) -> Metrics {
        let text = self.metrics();
        let families = match format {
            MetricsFormat::Text => Vec::new(),
            MetricsFormat::Values => samples::read(&text).expect("it is a text of ours"),
        };
        Metrics {
            node: self.network.identity().node,
            metrics: match format {
                MetricsFormat::Text => text,
                MetricsFormat::Values => String::new(),
            },
            families,
        }
    }

    fn show_raft(&self) {
        let (raft, shown) = (self.handle.status(), &self.stats.raft);
        shown.set_role(role_label(raft.role));
        shown.term.set(raft.term);
        shown.leader.set(raft.leader.map_or(0, |leader| leader.0));
        shown.commit_index.set(raft.commit_index);
        shown.applied_index.set(raft.applied_index);
        shown.last_log_index.set(raft.last_log_index);
        shown.snapshot_index.set(raft.snapshot_index);
        let voters = raft.members.values().filter(|votes| **votes).count();
        shown.voters.set(voters as u64);
        shown.proposals_pending.set(self.handle.pending() as u64);
        let observed = self.handle.observe();
        let reachable = observed.as_ref().map(|seen| self.handle.reachable(seen));
        shown
            .voters_reachable
            .set(reachable.map(|count| count as u64));
        shown.show_peers(observed.as_ref().map_or_else(Vec::new, peers));
    }

    fn show_refused_frames(&self) {
        let counters = self.network.counters();
        let refused: [(Refusal, &[&AtomicU64]); 5] = [
            (Refusal::Malformed, &[&counters.undecodable]),
            (
                Refusal::Disk,
                &[&counters.not_for_this_disk, &counters.from_wrong_disk],
            ),
            (Refusal::Stream, &[&counters.outdated]),
            (Refusal::Sequence, &[&counters.repeated, &counters.gaps]),
            (Refusal::Full, &[&counters.overflows]),
        ];
        for (reason, counts) in refused {
            let total = counts.iter().map(|c| c.load(Ordering::Relaxed)).sum();
            self.stats.raft.set_frames_refused(reason, total);
        }
    }

    fn show_state(&self) {
        let (epoch, members, locks) = self.handle.read(|state, _| {
            let view = &state.view;
            (view.epoch(), view.members().len(), state.locks.counts())
        });
        self.stats.view_epoch.set(epoch.0);
        self.stats.view_members.set(members as u64);
        self.stats.locks.held.set(locks.held);
        self.stats.locks.waiting.set(locks.waiting);
        self.stats.locks.sessions.set(locks.sessions);
    }
}

/// The other nodes, as the leader sees them.
fn peers(seen: &Observed) -> Vec<Peer> {
    let others = seen
        .members
        .disks
        .keys()
        .filter(|node| Some(**node) != seen.me);
    let peer = |node: &NodeId| Peer {
        node: node.0,
        lag: seen
            .last_log_index
            .saturating_sub(seen.matched.get(node).copied().unwrap_or(0)),
        silent: seen.silence.get(node).copied(),
    };
    others.map(peer).collect()
}

fn role_label(role: status::Role) -> stats::Role {
    match role {
        status::Role::Leader => stats::Role::Leader,
        status::Role::Follower => stats::Role::Follower,
        status::Role::Candidate => stats::Role::Candidate,
        status::Role::Learner => stats::Role::Learner,
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::status::Durability;
    use crate::stats::redis_link::DURABILITIES;

    #[test]
    fn every_durability_has_its_series() {
        for level in [
            Durability::Fsync,
            Durability::Os,
            Durability::Interval,
            Durability::None,
            Durability::Unknown,
        ] {
            assert!(DURABILITIES.contains(&level.name()), "{level:?}");
        }
    }
}
