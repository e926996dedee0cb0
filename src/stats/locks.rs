//! What is counted about locks and sessions.
//!
//! What happens to a lock is counted by the node that leads at that moment, once, so the sum over all
//! nodes is the cluster's. How many there are is in every node's state, and alike on all.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::{Registry, Unit};

use super::{Gauge, Histogram, Labelled};

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitEnd {
    Granted,
    WaitTimeout,
    Cancelled,
    Deadlock,
    SessionExpired,
    /// What a conversion waited to convert is not held any more.
    NotHolder,
}

impl WaitEnd {
    /// The label values, in the order of the variants: error codes, where the client gets one.
    pub const LABELS: [&'static str; 6] = [
        "granted",
        "wait_timeout",
        "cancelled",
        "deadlock",
        "session_expired",
        "not_holder",
    ];
}

#[derive(Debug)]
pub struct LockStats {
    /// Grants that are live in this node's replicated state.
    pub held: Gauge,
    /// Requests that stand in a queue in this node's replicated state.
    pub waiting: Gauge,
    /// Sessions in this node's replicated state.
    pub sessions: Gauge,
    pub granted: Counter,
    pub released: Counter,
    pub expired: Counter,
    pub deadlocks: Counter,
    pub waits_started: Counter,
    waits_ended: Labelled<Counter>,
    wait: Histogram,
    /// In milliseconds: how long grants were held that ended.
    pub hold_ms: Histogram,
    pub sessions_opened: Counter,
    pub sessions_closed: Counter,
    pub sessions_expired: Counter,
}

impl LockStats {
    pub(super) fn new() -> Self {
        LockStats {
            held: Gauge::default(),
            waiting: Gauge::default(),
            sessions: Gauge::default(),
            granted: Counter::default(),
            released: Counter::default(),
            expired: Counter::default(),
            deadlocks: Counter::default(),
            waits_started: Counter::default(),
            waits_ended: Labelled::new("outcome", &WaitEnd::LABELS, Counter::default),
            wait: Histogram::of_durations(),
            hold_ms: Histogram::of_holds(),
            sessions_opened: Counter::default(),
            sessions_closed: Counter::default(),
            sessions_expired: Counter::default(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        for (name, help, gauge) in [
            (
                "locks_held",
                "Live grants in the replicated state",
                &self.held,
            ),
            (
                "locks_waiting",
                "Requests that wait for a lock, in the replicated state",
                &self.waiting,
            ),
            (
                "sessions",
                "Sessions in the replicated state",
                &self.sessions,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, counter) in [
            (
                "lock_grants",
                "Grants, one for each resource of a set",
                &self.granted,
            ),
            (
                "lock_releases",
                "Grants that their holders or operators ended",
                &self.released,
            ),
            ("lock_expiries", "Grants whose lease ran out", &self.expired),
            (
                "lock_deadlocks",
                "Deadlocks found and resolved",
                &self.deadlocks,
            ),
            (
                "lock_waits_started",
                "Requests that began to wait",
                &self.waits_started,
            ),
            ("sessions_opened", "Sessions opened", &self.sessions_opened),
            (
                "sessions_closed",
                "Sessions closed by their owners or operators",
                &self.sessions_closed,
            ),
            (
                "sessions_expired",
                "Sessions whose lease ran out",
                &self.sessions_expired,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "lock_waits_ended",
            "Waits that ended, by how",
            self.waits_ended.clone(),
        );
        for (name, help, lengths) in [
            (
                "lock_wait",
                "How long waits took that ended, however they did",
                &self.wait,
            ),
            (
                "lock_hold",
                "How long grants were held that ended",
                &self.hold_ms,
            ),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, lengths.clone());
        }
    }

    /// Counts a wait that ended after `waited_ms` in the queue.
    pub fn wait_ended(&self, how: WaitEnd, waited_ms: u64) {
        self.waits_ended[how as usize].inc();
        self.wait
            .observe_duration(std::time::Duration::from_millis(waited_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_the_variants() {
        assert_eq!(WaitEnd::LABELS[WaitEnd::Granted as usize], "granted");
        assert_eq!(WaitEnd::LABELS[WaitEnd::NotHolder as usize], "not_holder");
        assert_eq!(WaitEnd::LABELS.len(), WaitEnd::NotHolder as usize + 1);
    }
}
