//! The leader's clock: where lease time comes from. Plain code.
//!
//! Lease time is monotonic over the life of the cluster and stands still while nobody leads, while
//! the leader has no quorum, and for whatever part of a pause exceeds [`STEP_MAX`]: a lease may
//! last longer than asked, never shorter.

use std::time::Duration;

use crate::time::Instant;

/// The most that one step is credited: a paused process must not end leases that holders could
/// not renew meanwhile.
pub const STEP_MAX: Duration = Duration::from_millis(500);

/// Lease time of one leader in one term.
#[derive(Debug)]
pub struct LeaderClock {
    lease_time: Duration,
    stepped_at: Instant,
}

impl LeaderClock {
    /// Starts at the lease time that the state had when this term's first entry was applied.
    pub fn new(now_ms: u64, at: Instant) -> Self {
        LeaderClock {
            lease_time: Duration::from_millis(now_ms),
            stepped_at: at,
        }
    }

    /// Advances to `at` and returns the lease time in milliseconds. Without a quorum confirmed
    /// within an election timeout (`confirmed`) the time since the last step is lost.
    pub fn step(&mut self, at: Instant, confirmed: bool) -> u64 {
        let elapsed = at.saturating_duration_since(self.stepped_at);
        self.stepped_at = self.stepped_at.max(at);
        if confirmed {
            self.lease_time += elapsed.min(STEP_MAX);
        }
        self.now_ms()
    }

    /// The lease time of the last step, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.lease_time.as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn advances_with_time_while_a_quorum_confirms() {
        let start = crate::time::now();
        let mut clock = LeaderClock::new(1000, start);
        assert_eq!(clock.step(at(start, 100), true), 1100);
        assert_eq!(clock.step(at(start, 350), true), 1350);
    }

    #[test]
    fn a_pause_is_credited_with_half_a_second() {
        let start = crate::time::now();
        let mut clock = LeaderClock::new(0, start);
        assert_eq!(clock.step(at(start, 60_000), true), 500);
        assert_eq!(clock.step(at(start, 60_100), true), 600);
    }

    #[test]
    fn stands_still_without_a_quorum() {
        let start = crate::time::now();
        let mut clock = LeaderClock::new(0, start);
        for tick in 1..=600 {
            assert_eq!(clock.step(at(start, tick * 100), false), 0);
        }
        assert_eq!(clock.step(at(start, 60_100), true), 100);
    }

    #[test]
    fn fractions_of_a_millisecond_add_up() {
        let start = crate::time::now();
        let mut clock = LeaderClock::new(0, start);
        for tick in 1..=10_000u64 {
            clock.step(start + Duration::from_micros(tick * 100), true);
        }
        assert_eq!(clock.now_ms(), 1000);
    }
}
