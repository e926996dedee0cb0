//! When users start, when they may go on, and from when a request's latency counts.
//!
//! In a closed loop, users join at once or at a fixed rate, each at its own intended instant, and a user begins
//! another round when the last one ended and its think time is over. In an open loop, rounds arrive on a schedule
//! that no answer can slow down; users only carry them out (see `schedule`). Either way rounds begin as long as the
//! run is open: until its duration is over, its number of requests is reached, or it was stopped.
//!
//! Where a pace exists (arrivals, the ramp, a hold, a think time), latency counts from the intended instant, so that
//! a generator or a server that stalls cannot hide the stall by sending less (coordinated omission).
//! Limit: the timer of the runtime ticks in milliseconds; a wake-up within `TIMER_RESOLUTION` is on time.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::schedule::{OpenLoop, Schedule, Sends};

/// How late a timer may wake us without the delay being counted as latency: the runtime rounds up to whole
/// milliseconds and looks at its timers after the tasks that were ready.
pub const TIMER_RESOLUTION: Duration = Duration::from_millis(2);
/// How often a user who waits looks whether the run was stopped.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The shape of a run in time.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Users over all threads, each with one round under way at a time.
    pub users: u32,
    /// Users that join per second; `None`: all at once.
    pub spawn_rate: Option<f64>,
    /// Pause of each user between two rounds of a closed loop.
    pub think: Duration,
    /// Rounds on a schedule; `None`: a closed loop.
    pub open_loop: Option<OpenLoop>,
    /// Time at the start whose requests are not recorded.
    pub warm_up: Duration,
    /// Length of the recorded time.
    pub duration: Duration,
    /// Requests, warm-up included, after which no round is begun; `None`: no bound.
    pub requests: Option<u64>,
    /// What random choices are drawn from.
    pub seed: u64,
}

impl Plan {
    /// When a user (counted from 0) joins, from the start of the run.
    pub fn joins_after(&self, user: u32) -> Duration {
        match self.spawn_rate {
            Some(rate) => Duration::from_secs_f64(f64::from(user) / rate),
            None => Duration::ZERO,
        }
    }

    /// Whether rounds follow each other as fast as answers come, so that the rate is what the cluster can do.
    pub fn is_unpaced(&self) -> bool {
        self.spawn_rate.is_none() && self.think.is_zero() && self.open_loop.is_none()
    }
}

/// One thread's view of the plan, with its share of the requests and of the arrivals.
pub struct Pacer {
    plan: Plan,
    start: Instant,
    stop: Arc<AtomicBool>,
    requests_left: Cell<u64>,
    /// Idle users stand in line for the next arrival, the first of them asleep until it is due.
    line: Option<Mutex<Schedule>>,
}

impl Pacer {
    /// `requests` is this thread's share of the plan's requests, `schedule` that of its arrivals.
    pub fn new(
        plan: Plan,
        start: Instant,
        requests: Option<u64>,
        schedule: Option<Schedule>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self {
            plan,
            start,
            stop,
            requests_left: Cell::new(requests.unwrap_or(u64::MAX)),
            line: schedule.map(Mutex::new),
        }
    }

    /// Waits for the user's first round. Returns the instant intended for it, or `None` if the run is over before
    /// that.
    pub async fn join(&self, user: u32) -> Option<Instant> {
        if self.line.is_some() {
            return self.arrival().await;
        }
        let due = self.start + self.plan.joins_after(user);
        if due >= self.ends_at() {
            return None;
        }
        let intended = sleep_until(due, || self.is_open()).await;
        self.is_open().then_some(intended)
    }

    /// Waits for the next round of a user that has just ended one, as `join` does for the first.
    pub async fn next_round(&self) -> Option<Instant> {
        if self.line.is_some() {
            return self.arrival().await;
        }
        if !self.is_open() {
            return None;
        }
        let now = Instant::now();
        if self.plan.think.is_zero() {
            return Some(now);
        }
        let due = now + self.plan.think;
        if due >= self.ends_at() {
            return None;
        }
        let intended = sleep_until(due, || self.is_open()).await;
        self.is_open().then_some(intended)
    }

    /// Takes the next arrival when it is due.
    async fn arrival(&self) -> Option<Instant> {
        let mut schedule = self.line.as_ref()?.lock().await;
        loop {
            let due = schedule.next_due();
            if due >= self.ends_at() {
                return None;
            }
            let intended = sleep_until(due, || self.is_open()).await;
            if !self.is_open() {
                return None;
            }
            let now = Instant::now();
            let recorded = intended >= self.records_from();
            if schedule.take(now.duration_since(due), recorded) {
                return Some(intended);
            }
        }
    }

    /// What became of this thread's arrivals, those included that came due in the run but found no user.
    pub async fn sends(&self) -> Option<Sends> {
        let mut schedule = self.line.as_ref()?.lock().await;
        let until = self.ends_at().min(Instant::now());
        if self.requests_left.get() > 0 {
            schedule.drop_until(self.records_from(), until);
        }
        Some(schedule.sends())
    }

    /// Waits within a round for `length` from `since`; returns the instant from which the next request counts. The
    /// round is finished as planned when the time or the requests are used up; only a stop cuts the wait short.
    pub async fn pause(&self, since: Instant, length: Duration) -> Instant {
        sleep_until(since + length, || !self.is_stopped()).await
    }

    /// Whether another round may begin.
    pub fn is_open(&self) -> bool {
        self.requests_left.get() > 0 && !self.is_stopped() && Instant::now() < self.ends_at()
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
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
}

/// Sleeps until it is due, or only as long as the wait has a purpose; returns the instant from which what follows
/// counts.
async fn sleep_until(due: Instant, has_purpose: impl Fn() -> bool) -> Instant {
    while Instant::now() < due && has_purpose() {
        tokio::time::sleep_until(due.min(Instant::now() + LOOK_EVERY)).await;
    }
    on_time(due, Instant::now())
}

/// The instant from which a request counts that was due at one instant and is sent at another.
fn on_time(due: Instant, now: Instant) -> Instant {
    if now.duration_since(due) <= TIMER_RESOLUTION {
        now
    } else {
        due
    }
}

#[cfg(test)]
mod tests;
