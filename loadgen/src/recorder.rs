//! What happened to the requests: latencies in HDR histograms and errors by code, per operation.
//!
//! Each thread has one `Recorder` and records without a lock; once a second it hands the last interval to
//! `timeline`, which adds up all threads. Latency is that of successes, once from the instant that was meant for
//! the request and once from the one at which it was really sent; errors are counted by code. A request belongs to
//! the recorded time if it was meant to start in it, so that those still under way at the end are not lost.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::{AdditionError, Histogram};
use tokio::time::Instant;

/// Latencies below one microsecond count as one.
const LATENCY_US_MIN: u64 = 1;
/// Two minutes, more than any request may take (the broker drops replies after that); longer ones count as this.
const LATENCY_US_MAX: u64 = 120_000_000;
/// A value read from a histogram is within a thousandth of the recorded one.
const SIGNIFICANT_DIGITS: u8 = 3;
/// Error codes kept apart per operation; the rest is counted as `other`. The protocol has some 35 codes.
const ERROR_CODES_MAX: usize = 64;

/// An operation of a workload: its place in `Workload::operations` and, after those, in `Workload::details`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation(pub usize);

/// When one request was meant to be sent, was sent, and was answered.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub intended: Instant,
    pub started: Instant,
    pub ended: Instant,
}

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: &'static str,
    /// Whether it may have taken effect nevertheless.
    pub unknown: bool,
}

/// Latencies and errors of one operation.
#[derive(Clone, Debug)]
pub struct Series {
    latency_us: Histogram<u64>,
    since_send_us: Histogram<u64>,
    errors: BTreeMap<String, u64>,
    refusals: BTreeMap<String, u64>,
    unknown: u64,
}

impl Series {
    pub fn new() -> Self {
        let histogram =
            Histogram::new_with_bounds(LATENCY_US_MIN, LATENCY_US_MAX, SIGNIFICANT_DIGITS)
                .expect("the histogram's bounds are constants and valid");
        Self {
            latency_us: histogram.clone(),
            since_send_us: histogram,
            errors: BTreeMap::new(),
            refusals: BTreeMap::new(),
            unknown: 0,
        }
    }

    /// What another process recorded.
    ///
    /// # Errors
    /// A histogram has latencies beyond the bounds.
    pub fn of(
        latency_us: &Histogram<u64>,
        since_send_us: &Histogram<u64>,
        errors: BTreeMap<String, u64>,
        refusals: BTreeMap<String, u64>,
        unknown: u64,
    ) -> Result<Self, AdditionError> {
        let mut series = Self::new();
        series.latency_us.add(latency_us)?;
        series.since_send_us.add(since_send_us)?;
        for (code, number) in errors {
            count(&mut series.errors, &code, number);
        }
        for (code, number) in refusals {
            count(&mut series.refusals, &code, number);
        }
        series.unknown = unknown;
        Ok(series)
    }

    /// Counts a success with its latency from the intended and from the actual start.
    pub fn succeeded(&mut self, latency: Duration, since_send: Duration) {
        let micros = |length: Duration| {
            u64::try_from(length.as_micros())
                .unwrap_or(u64::MAX)
                .max(LATENCY_US_MIN)
        };
        self.latency_us.saturating_record(micros(latency));
        self.since_send_us.saturating_record(micros(since_send));
    }

    pub fn failed(&mut self, fault: Fault) {
        self.unknown += u64::from(fault.unknown);
        count(&mut self.errors, fault.code, 1);
    }

    /// Counts an answer that the workload foresees, such as a lock that somebody else holds.
    pub fn refused(&mut self, code: &str) {
        count(&mut self.refusals, code, 1);
    }

    /// Successes.
    pub fn count(&self) -> u64 {
        self.latency_us.len()
    }

    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Errors by code.
    pub fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }

    /// Refusals that the workload foresees, by code; they are no errors.
    pub fn refusals(&self) -> &BTreeMap<String, u64> {
        &self.refusals
    }

    /// How many of the errors may have taken effect.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Latencies of successes in microseconds, from the instant meant for each.
    pub fn latency_us(&self) -> &Histogram<u64> {
        &self.latency_us
    }

    /// Latencies of successes in microseconds, from the instant at which each was sent.
    pub fn since_send_us(&self) -> &Histogram<u64> {
        &self.since_send_us
    }

    /// The latency below or at which `quantile` (0 to 1) of the successes lie, in milliseconds; 0 without any.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latency_us.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// Adds another series of the same operation.
    pub fn merge(&mut self, other: &Self) {
        const SAME: &str = "all series have the same bounds";
        self.latency_us.add(&other.latency_us).expect(SAME);
        self.since_send_us.add(&other.since_send_us).expect(SAME);
        for (code, number) in &other.errors {
            count(&mut self.errors, code, *number);
        }
        for (code, number) in &other.refusals {
            count(&mut self.refusals, code, *number);
        }
        self.unknown += other.unknown;
    }
}

fn count(codes: &mut BTreeMap<String, u64>, code: &str, number: u64) {
    let known = codes.len() < ERROR_CODES_MAX || codes.contains_key(code);
    let code = if known { code } else { "other" };
    *codes.entry(code.to_owned()).or_default() += number;
}

/// What one thread saw since it last told, one series per operation and detail.
pub struct Interval {
    /// The second of the recorded time, from 0; `None` in the warm-up.
    pub second: Option<u32>,
    pub series: Vec<Series>,
    /// Requests that ended but were meant to start in the warm-up.
    pub warm_up_count: u64,
}

/// One thread's recorder.
pub struct Recorder {
    records_from: Instant,
    /// Codes that are answers, not errors.
    foreseen: &'static [&'static str],
    series: Vec<Series>,
    warm_up_count: u64,
    last_end: Option<Instant>,
}

impl Recorder {
    /// Records requests of so many operations and details that were meant to start at or after `records_from`.
    pub fn new(series: usize, records_from: Instant, foreseen: &'static [&'static str]) -> Self {
        Self {
            records_from,
            foreseen,
            series: vec![Series::new(); series],
            warm_up_count: 0,
            last_end: None,
        }
    }

    /// Records one request.
    pub fn record(&mut self, operation: Operation, sample: Sample, result: Result<(), Fault>) {
        let Sample {
            intended,
            started,
            ended,
        } = sample;
        if intended < self.records_from {
            self.warm_up_count += 1;
            return;
        }
        self.last_end = Some(ended);
        let series = &mut self.series[operation.0];
        match result {
            Ok(()) => series.succeeded(
                ended.duration_since(intended),
                ended.duration_since(started),
            ),
            Err(fault) if self.foreseen.contains(&fault.code) => series.refused(fault.code),
            Err(fault) => series.failed(fault),
        }
    }

    /// Records a success once more under a detail of its operation; in the warm-up nothing.
    pub fn record_detail(&mut self, detail: Operation, sample: Sample) {
        if sample.intended >= self.records_from {
            self.series[detail.0].succeeded(
                sample.ended.duration_since(sample.intended),
                sample.ended.duration_since(sample.started),
            );
        }
    }

    /// Ends the interval, which was the given second of the recorded time, and begins another.
    pub fn take_interval(&mut self, second: Option<u32>) -> Interval {
        let fresh = vec![Series::new(); self.series.len()];
        Interval {
            second,
            series: std::mem::replace(&mut self.series, fresh),
            warm_up_count: std::mem::take(&mut self.warm_up_count),
        }
    }

    /// When the last recorded request ended.
    pub fn last_end(&self) -> Option<Instant> {
        self.last_end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn succeed(series: &mut Series, ms: u64) {
        series.succeeded(milliseconds(ms), milliseconds(ms));
    }

    fn fault(code: &'static str) -> Fault {
        Fault {
            code,
            unknown: code == "timeout",
        }
    }

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut series = Series::new();
        for ms in 1..=10_000 {
            series.succeeded(milliseconds(ms), milliseconds(1));
        }
        for (quantile, expected_ms) in [
            (0.5, 5000.0),
            (0.95, 9500.0),
            (0.99, 9900.0),
            (0.999, 9990.0),
        ] {
            let ms = series.quantile_ms(quantile);
            assert!(
                (ms - expected_ms).abs() <= expected_ms / 1000.0,
                "{quantile}: {ms}"
            );
        }
        assert_eq!(series.count(), 10_000);
        assert!(series.since_send_us().max() <= 1001);
    }

    #[test]
    fn latencies_out_of_range_count_at_the_edges() {
        let mut series = Series::new();
        series.succeeded(Duration::ZERO, Duration::ZERO);
        succeed(&mut series, 1_000_000);
        assert_eq!(series.count(), 2);
        assert_eq!(series.quantile_ms(0.0), 0.001);
        assert!((series.quantile_ms(1.0) - 120_000.0).abs() <= 120.0);
    }

    #[test]
    fn threads_merge_to_what_one_thread_would_have_recorded() {
        let (mut one, mut left, mut right) = (Series::new(), Series::new(), Series::new());
        for ms in 1..=1000 {
            succeed(&mut one, ms * ms % 977);
            let part = if ms % 3 == 0 { &mut left } else { &mut right };
            succeed(part, ms * ms % 977);
        }
        for series in [&mut one, &mut right] {
            series.failed(fault("timeout"));
            series.refused("lock_held");
        }
        left.merge(&right);
        assert_eq!(left.latency_us, one.latency_us);
        assert_eq!(left.since_send_us, one.since_send_us);
        assert_eq!((&left.errors, &left.refusals), (&one.errors, &one.refusals));
        assert_eq!((left.unknown, left.error_count()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_intended_start_decides_what_is_recorded() {
        let start = Instant::now();
        let mut recorder = Recorder::new(3, start + milliseconds(100), &["lock_held"]);
        let sample = |intended: u64, started: u64, ended: u64| Sample {
            intended: start + milliseconds(intended),
            started: start + milliseconds(started),
            ended: start + milliseconds(ended),
        };
        recorder.record(Operation(0), sample(99, 99, 150), Ok(()));
        recorder.record_detail(Operation(2), sample(99, 99, 150));
        recorder.record(Operation(0), sample(100, 140, 150), Ok(()));
        recorder.record_detail(Operation(2), sample(100, 140, 150));
        recorder.record(Operation(1), sample(100, 100, 160), Err(fault("lock_held")));
        recorder.record(Operation(1), sample(100, 100, 170), Err(fault("timeout")));
        assert_eq!(recorder.last_end(), Some(start + milliseconds(170)));

        let interval = recorder.take_interval(Some(0));
        assert_eq!(interval.warm_up_count, 1);
        let [first, second, detail] = &interval.series[..] else {
            panic!("three series");
        };
        assert_eq!((first.count(), first.error_count()), (1, 0));
        assert!((49_900..=50_100).contains(&first.latency_us().max()));
        assert!((9_900..=10_100).contains(&first.since_send_us().max()));
        assert_eq!((second.count(), second.error_count()), (0, 1));
        assert_eq!((second.unknown(), second.refusals()["lock_held"]), (1, 1));
        assert_eq!(detail.count(), 1);
        assert_eq!(recorder.take_interval(Some(1)).series[0].count(), 0);
    }

    #[test]
    fn codes_beyond_the_bound_are_counted_together() {
        let mut codes = BTreeMap::new();
        for code in 0..ERROR_CODES_MAX + 10 {
            count(&mut codes, &format!("code_{code}"), 1);
        }
        count(&mut codes, "code_0", 1);
        assert_eq!((codes["other"], codes["code_0"]), (10, 2));
        assert_eq!(codes.values().sum::<u64>(), ERROR_CODES_MAX as u64 + 11);
    }
}
