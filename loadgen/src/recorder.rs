//! What happened to the requests: latencies in HDR histograms and errors by code, per operation.
//!
//! Each thread has one `Recorder` and records without a lock; once a second it hands the last interval to the
//! live progress and adds it to its total. The totals of the threads are merged into one `Recording` at the end.
//! Latency is that of successes; errors are counted by code. A request belongs to the recorded time if it was
//! meant to start in it, so that those still under way at the end are not lost.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

/// Latencies below one microsecond count as one.
const LATENCY_US_MIN: u64 = 1;
/// Two minutes, more than any request may take (the broker drops replies after that); longer ones count as this.
const LATENCY_US_MAX: u64 = 120_000_000;
/// A value read from a histogram is within a thousandth of the recorded one.
const SIGNIFICANT_DIGITS: u8 = 3;
/// Error codes kept apart per operation; the rest is counted as `other`. The contract has some 35 codes.
const ERROR_CODES_MAX: usize = 64;

/// An operation of a workload: its place in `Workload::operations`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation(pub usize);

/// Latencies and errors of one operation.
#[derive(Clone, Debug)]
pub struct Series {
    latency_us: Histogram<u64>,
    errors: BTreeMap<String, u64>,
}

impl Series {
    pub fn new() -> Self {
        let latency_us =
            Histogram::new_with_bounds(LATENCY_US_MIN, LATENCY_US_MAX, SIGNIFICANT_DIGITS)
                .expect("the histogram's bounds are constants and valid");
        Self {
            latency_us,
            errors: BTreeMap::new(),
        }
    }

    pub fn succeeded(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_us
            .saturating_record(micros.max(LATENCY_US_MIN));
    }

    pub fn failed(&mut self, code: &str) {
        let known = self.errors.len() < ERROR_CODES_MAX || self.errors.contains_key(code);
        let code = if known { code } else { "other" };
        *self.errors.entry(code.to_owned()).or_default() += 1;
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

    /// The latency below or at which `quantile` (0 to 1) of the successes lie, in milliseconds; 0 without any.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latency_us.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// The longest latency in milliseconds, to the histogram's precision; 0 without any.
    pub fn max_ms(&self) -> f64 {
        self.latency_us.max() as f64 / 1000.0
    }

    /// The mean latency in milliseconds; 0 without any.
    pub fn mean_ms(&self) -> f64 {
        self.latency_us.mean() / 1000.0
    }

    /// Adds another series of the same operation.
    pub fn merge(&mut self, other: &Self) {
        self.latency_us
            .add(&other.latency_us)
            .expect("all series have the same bounds");
        for (code, count) in &other.errors {
            *self.errors.entry(code.clone()).or_default() += count;
        }
    }
}

/// What one thread saw since it last told, one series per operation.
pub struct Interval {
    pub series: Vec<Series>,
    /// Requests that ended but were meant to start in the warm-up.
    pub warm_up_count: u64,
}

/// One thread's recorder.
pub struct Recorder {
    records_from: Instant,
    interval: Interval,
    total: Vec<Series>,
    last_end: Option<Instant>,
}

impl Recorder {
    /// Records requests of so many operations that were meant to start at or after `records_from`.
    pub fn new(operations: usize, records_from: Instant) -> Self {
        let interval = Interval {
            series: vec![Series::new(); operations],
            warm_up_count: 0,
        };
        Self {
            records_from,
            interval,
            total: vec![Series::new(); operations],
            last_end: None,
        }
    }

    /// Records one request; `Err` holds the error's code.
    pub fn record(
        &mut self,
        operation: Operation,
        intended: Instant,
        ended: Instant,
        result: Result<(), &str>,
    ) {
        if intended < self.records_from {
            self.interval.warm_up_count += 1;
            return;
        }
        self.last_end = Some(ended);
        let series = &mut self.interval.series[operation.0];
        match result {
            Ok(()) => series.succeeded(ended.duration_since(intended)),
            Err(code) => series.failed(code),
        }
    }

    /// Ends the interval: adds it to the total and returns it.
    pub fn take_interval(&mut self) -> Interval {
        let fresh = Interval {
            series: vec![Series::new(); self.total.len()],
            warm_up_count: 0,
        };
        let interval = std::mem::replace(&mut self.interval, fresh);
        for (total, series) in self.total.iter_mut().zip(&interval.series) {
            total.merge(series);
        }
        interval
    }

    /// When the last recorded request ended.
    pub fn last_end(&self) -> Option<Instant> {
        self.last_end
    }

    /// All that was recorded, one series per operation.
    pub fn finish(mut self) -> Vec<Series> {
        self.take_interval();
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut series = Series::new();
        for ms in 1..=10_000 {
            series.succeeded(milliseconds(ms));
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
        assert!((series.max_ms() - 10_000.0).abs() <= 10.0);
        assert!((series.mean_ms() - 5000.5).abs() <= 5.0);
    }

    #[test]
    fn latencies_out_of_range_count_at_the_edges() {
        let mut series = Series::new();
        series.succeeded(Duration::ZERO);
        series.succeeded(Duration::from_secs(1000));
        assert_eq!(series.count(), 2);
        assert_eq!(series.quantile_ms(0.0), 0.001);
        assert!((series.max_ms() - 120_000.0).abs() <= 120.0);
    }

    #[test]
    fn threads_merge_to_what_one_thread_would_have_recorded() {
        let (mut one, mut left, mut right) = (Series::new(), Series::new(), Series::new());
        for ms in 1..=1000 {
            one.succeeded(milliseconds(ms * ms % 977));
            if ms % 3 == 0 { &mut left } else { &mut right }.succeeded(milliseconds(ms * ms % 977));
        }
        for series in [&mut one, &mut left] {
            series.failed("timeout");
        }
        left.merge(&right);
        assert_eq!(left.latency_us, one.latency_us);
        assert_eq!(left.errors, one.errors);
    }

    #[tokio::test(start_paused = true)]
    async fn the_intended_start_decides_what_is_recorded() {
        let start = Instant::now();
        let mut recorder = Recorder::new(2, start + milliseconds(100));
        recorder.record(
            Operation(0),
            start + milliseconds(99),
            start + milliseconds(150),
            Ok(()),
        );
        recorder.record(
            Operation(0),
            start + milliseconds(100),
            start + milliseconds(150),
            Ok(()),
        );
        recorder.record(
            Operation(1),
            start + milliseconds(100),
            start + milliseconds(160),
            Err("lock_held"),
        );
        assert_eq!(recorder.last_end(), Some(start + milliseconds(160)));

        let interval = recorder.take_interval();
        assert_eq!(interval.warm_up_count, 1);
        assert_eq!(interval.series[0].count(), 1);

        recorder.record(
            Operation(0),
            start + milliseconds(200),
            start + milliseconds(220),
            Ok(()),
        );
        let total = recorder.finish();
        assert_eq!((total[0].count(), total[0].error_count()), (2, 0));
        assert_eq!((total[1].count(), total[1].error_count()), (0, 1));
        assert!((total[0].max_ms() - 50.0).abs() <= 0.05);
    }

    #[test]
    fn codes_beyond_the_bound_are_counted_together() {
        let mut series = Series::new();
        for code in 0..ERROR_CODES_MAX + 10 {
            series.failed(&format!("code_{code}"));
        }
        series.failed("code_0");
        assert_eq!(series.errors()["other"], 10);
        assert_eq!(series.errors()["code_0"], 2);
        assert_eq!(series.error_count(), ERROR_CODES_MAX as u64 + 11);
    }
}
