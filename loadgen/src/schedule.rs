//! The open loop: rounds arrive at instants that were fixed before, whatever the answers take.
//!
//! The users of a thread stand in line for its arrivals. When all are busy, what comes due waits for one and is
//! sent late; what is late by more than the bound is dropped and counted, so that the backlog of an overloaded run
//! is bounded in time. The source of the idea is wrk2: an arrival's latency counts from the instant it was due.

use std::time::Duration;

use clap::ValueEnum;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand_distr::{Distribution, Exp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::pacer::TIMER_RESOLUTION;

/// How arrivals are spread in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// At equal distances.
    #[default]
    Constant,
    /// At random, independent of each other, as those of many unconnected callers.
    Poisson,
}

impl Arrivals {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Poisson => "poisson",
        }
    }
}

/// Rounds on a schedule.
#[derive(Clone, Debug)]
pub struct OpenLoop {
    /// Rounds that arrive per second, over all threads.
    pub rate: f64,
    pub arrivals: Arrivals,
    /// An arrival that is later than this when its turn comes is dropped.
    pub late_max: Duration,
}

/// What became of the arrivals in the recorded time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sends {
    /// Rounds that were begun.
    pub sent: u64,
    /// How many of those began late, because all users were busy or the generator was.
    pub late: u64,
    /// Arrivals for which there was no user in time. Their latency would be the worst, and is not recorded.
    pub dropped: u64,
}

impl Sends {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            late: self.late + other.late,
            dropped: self.dropped + other.dropped,
        }
    }
}

/// One thread's arrivals.
pub struct Schedule {
    late_max: Duration,
    /// How far the next arrival is from the first instant of the schedule.
    next: Duration,
    start: Instant,
    gaps: Gaps,
    sends: Sends,
}

enum Gaps {
    Constant(Duration),
    Poisson(Exp<f64>, Box<Xoshiro256PlusPlus>),
}

impl Schedule {
    /// The share of one thread of `threads`; those of all threads together are the whole. The seed has to be the
    /// thread's own.
    pub fn new(
        open_loop: &OpenLoop,
        start: Instant,
        (thread, threads): (u32, u32),
        seed: u64,
    ) -> Self {
        let rate = open_loop.rate / f64::from(threads);
        let (first, mut gaps) = match open_loop.arrivals {
            Arrivals::Constant => {
                let first = Duration::from_secs_f64(f64::from(thread) / open_loop.rate);
                (first, Gaps::Constant(Duration::from_secs_f64(1.0 / rate)))
            }
            Arrivals::Poisson => {
                let random = Box::new(Xoshiro256PlusPlus::seed_from_u64(seed));
                let gaps = Exp::new(rate).expect("the command line takes rates above zero");
                (Duration::ZERO, Gaps::Poisson(gaps, random))
            }
        };
        let first = match &mut gaps {
            Gaps::Constant(_) => first,
            Gaps::Poisson(..) => gaps.draw(),
        };
        Self {
            late_max: open_loop.late_max,
            next: first,
            start,
            gaps,
            sends: Sends::default(),
        }
    }

    /// When the next arrival is due.
    pub fn next_due(&self) -> Instant {
        self.start + self.next
    }

    /// Takes the next arrival, this late, and says whether it is to be sent. Those outside of the recorded time are
    /// not counted.
    pub fn take(&mut self, lateness: Duration, recorded: bool) -> bool {
        self.next += self.gaps.draw();
        let sent = lateness <= self.late_max;
        if recorded {
            self.sends.sent += u64::from(sent);
            self.sends.late += u64::from(sent && lateness > TIMER_RESOLUTION);
            self.sends.dropped += u64::from(!sent);
        }
        sent
    }

    /// Drops everything that is due before `until`; what is due before `records_from` is not counted.
    pub fn drop_until(&mut self, records_from: Instant, until: Instant) {
        while self.next_due() < until {
            self.sends.dropped += u64::from(self.next_due() >= records_from);
            self.next += self.gaps.draw();
        }
    }

    pub fn sends(&self) -> Sends {
        self.sends
    }
}

impl Gaps {
    fn draw(&mut self) -> Duration {
        match self {
            Self::Constant(gap) => *gap,
            Self::Poisson(gaps, random) => Duration::from_secs_f64(gaps.sample(random)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_loop(arrivals: Arrivals) -> OpenLoop {
        OpenLoop {
            rate: 100.0,
            arrivals,
            late_max: Duration::from_secs(1),
        }
    }

    fn due_in(schedule: &mut Schedule, length: Duration) -> Vec<Duration> {
        let start = schedule.start;
        let mut due = Vec::new();
        while schedule.next_due() < start + length {
            due.push(schedule.next_due() - start);
            schedule.take(Duration::ZERO, true);
        }
        due
    }

    #[tokio::test(start_paused = true)]
    async fn the_threads_together_keep_equal_distances() {
        let mut all = Vec::new();
        for thread in 0..3 {
            let share = (thread, 3);
            let mut schedule = Schedule::new(
                &open_loop(Arrivals::Constant),
                Instant::now(),
                share,
                u64::from(thread),
            );
            all.extend(due_in(&mut schedule, Duration::from_secs(1)));
        }
        all.sort();
        assert_eq!(all.len(), 100);
        for pair in all.windows(2) {
            let gap = (pair[1] - pair[0]).as_secs_f64();
            assert!((gap - 0.01).abs() < 1e-6, "{gap}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn poisson_arrivals_have_the_rate_and_the_spread_of_it() {
        let mut schedule = Schedule::new(&open_loop(Arrivals::Poisson), Instant::now(), (0, 1), 42);
        let due = due_in(&mut schedule, Duration::from_secs(1000));
        // The number has a standard deviation of 316.
        assert!((99_000..101_000).contains(&due.len()), "{}", due.len());
        let gaps: Vec<f64> = due
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs_f64())
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02);
        let mut again = Schedule::new(&open_loop(Arrivals::Poisson), Instant::now(), (0, 1), 42);
        assert_eq!(due_in(&mut again, Duration::from_secs(1000)), due);
    }

    #[tokio::test(start_paused = true)]
    async fn late_and_dropped_are_counted_apart_and_the_warm_up_not_at_all() {
        let start = Instant::now();
        let mut schedule = Schedule::new(&open_loop(Arrivals::Constant), start, (0, 1), 0);
        assert!(schedule.take(Duration::from_millis(900), false));
        assert!(schedule.take(TIMER_RESOLUTION, true));
        assert!(schedule.take(Duration::from_millis(900), true));
        assert!(!schedule.take(Duration::from_millis(1100), true));
        let expected = Sends {
            sent: 2,
            late: 1,
            dropped: 1,
        };
        assert_eq!(schedule.sends(), expected);
        // Due at 40, 50, … 90 ms, of which those from 60 ms on are recorded.
        let at = |ms| start + Duration::from_millis(ms);
        schedule.drop_until(at(60), at(100));
        assert_eq!(schedule.sends().dropped, 5);
        assert_eq!(schedule.next_due(), at(100));
    }
}
