//! When users start, when they may go on, and from when a request's latency counts.
//!
//! Users join at a fixed rate, each at its own intended instant. A user goes on with another round as long
//! as the run is open: until its duration is over, its number of requests is reached, or it was stopped.
//!
//! Where a pace exists (the ramp, a hold, a think time), latency counts from the intended instant, so that a
//! generator or a server that stalls cannot hide the stall by sending less (coordinated omission).
//! Limit: the timer of the runtime ticks in milliseconds; a wake-up within `TIMER_RESOLUTION` is on time.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How late a timer may wake us without the delay being counted as latency: the runtime rounds up to whole
/// milliseconds and looks at its timers after the tasks that were ready.
pub const TIMER_RESOLUTION: Duration = Duration::from_millis(2);

/// The shape of a run in time.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Users (closed loops) over all threads.
    pub users: u32,
    /// Users that join per second; `None`: all at once.
    pub spawn_rate: Option<f64>,
    /// Time at the start whose requests are not recorded.
    pub warm_up: Duration,
    /// Length of the recorded time.
    pub duration: Duration,
    /// Requests, warm-up included, after which no round is begun; `None`: no bound.
    pub requests: Option<u64>,
}

impl Plan {
    /// When a user (counted from 0) joins, from the start of the run.
    pub fn joins_after(&self, user: u32) -> Duration {
        match self.spawn_rate {
            Some(rate) => Duration::from_secs_f64(f64::from(user) / rate),
            None => Duration::ZERO,
        }
    }
}

/// One thread's view of the plan, with its share of the requests.
pub struct Pacer {
    plan: Plan,
    start: Instant,
    stop: Arc<AtomicBool>,
    requests_left: Cell<u64>,
}

impl Pacer {
    /// `requests` is this thread's share of the plan's requests.
    pub fn new(plan: Plan, start: Instant, requests: Option<u64>, stop: Arc<AtomicBool>) -> Self {
        Self {
            plan,
            start,
            stop,
            requests_left: Cell::new(requests.unwrap_or(u64::MAX)),
        }
    }

    /// Waits for the user's turn to join. Returns the instant intended for it, or `None` if the run is over
    /// before that.
    pub async fn join(&self, user: u32) -> Option<Instant> {
        let due = self.start + self.plan.joins_after(user);
        if due >= self.ends_at() {
            return None;
        }
        let intended = self.sleep_until(due).await;
        self.is_open().then_some(intended)
    }

    /// Waits for `length` from `since`; returns the instant from which the next request counts.
    pub async fn pause(&self, since: Instant, length: Duration) -> Instant {
        self.sleep_until(since + length).await
    }

    /// Whether another round may begin.
    pub fn is_open(&self) -> bool {
        self.requests_left.get() > 0
            && !self.stop.load(Ordering::Relaxed)
            && Instant::now() < self.ends_at()
    }

    /// Takes one request from this thread's share. A round that was begun is finished, so the share may be
    /// exceeded by what is left of the rounds under way.
    pub fn count_request(&self) {
        self.requests_left
            .set(self.requests_left.get().saturating_sub(1));
    }

    /// The first instant whose requests are recorded.
    pub fn records_from(&self) -> Instant {
        self.start + self.plan.warm_up
    }

    /// The instant at which no round begins any more.
    pub fn ends_at(&self) -> Instant {
        self.records_from() + self.plan.duration
    }

    async fn sleep_until(&self, due: Instant) -> Instant {
        tokio::time::sleep_until(due).await;
        let now = Instant::now();
        if now.duration_since(due) <= TIMER_RESOLUTION {
            now
        } else {
            due
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            users: 100,
            spawn_rate: Some(10.0),
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(60),
            requests: None,
        }
    }

    fn pacer(plan: Plan, requests: Option<u64>) -> Pacer {
        Pacer::new(
            plan,
            Instant::now(),
            requests,
            Arc::new(AtomicBool::new(false)),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn ten_users_join_each_second() {
        let pacer = std::rc::Rc::new(pacer(plan(), None));
        let start = Instant::now();
        let joins = (0..100).map(|user| {
            let pacer = pacer.clone();
            async move { pacer.join(user).await.map(|_| start.elapsed()) }
        });
        let at: Vec<Duration> = futures_util::future::join_all(joins)
            .await
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(at.len(), 100);
        for second in 0..10 {
            let from = Duration::from_secs(second);
            let joined = at
                .iter()
                .filter(|at| **at >= from && **at < from + Duration::from_secs(1))
                .count();
            assert_eq!(joined, 10, "users that joined in second {second}");
        }
        assert_eq!(at[99], Duration::from_millis(9900));
    }

    #[tokio::test(start_paused = true)]
    async fn users_whose_turn_comes_after_the_end_do_not_join() {
        let pacer = pacer(
            Plan {
                duration: Duration::from_secs(2),
                ..plan()
            },
            None,
        );
        assert!(pacer.join(19).await.is_some());
        assert!(pacer.join(20).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_wake_up_counts_from_the_intended_instant() {
        let pacer = pacer(plan(), None);
        let since = Instant::now();
        let hold = Duration::from_millis(300);
        assert_eq!(pacer.pause(since, hold).await, since + hold);

        // The generator stalls for a second: the hold ended long ago.
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(pacer.pause(since, hold).await, since + hold);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_closes_by_time_by_count_and_by_stop() {
        let by_time = pacer(
            Plan {
                warm_up: Duration::from_secs(1),
                ..plan()
            },
            None,
        );
        tokio::time::advance(Duration::from_millis(60_999)).await;
        assert!(
            by_time.is_open(),
            "the warm-up comes on top of the duration"
        );
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!by_time.is_open());

        let by_count = pacer(plan(), Some(2));
        by_count.count_request();
        assert!(by_count.is_open());
        by_count.count_request();
        assert!(!by_count.is_open());

        let stop = Arc::new(AtomicBool::new(false));
        let by_stop = Pacer::new(plan(), Instant::now(), None, stop.clone());
        assert!(by_stop.is_open());
        stop.store(true, Ordering::Relaxed);
        assert!(!by_stop.is_open());
    }
}
