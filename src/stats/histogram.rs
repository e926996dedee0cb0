//! A distribution in fixed buckets: two atomic additions per value, no lock.
//!
//! The client library's own histogram takes a mutex and adds floating-point numbers; here the
//! values are integers, and becoming seconds is left to the scrape.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Upper bounds of buckets of durations, in microseconds: from a fast local answer to the longest wait.
const DURATION_BOUNDS_MICROS: [u64; 19] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 65_000_000,
];

/// Upper bounds of buckets of counts: powers of two up to more than any batch holds.
const COUNT_BOUNDS: [u64; 14] = [
    1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192,
];

/// Upper bounds of buckets of leases, in milliseconds: from the shortest critical section to the longest
/// lease.
const HOLD_BOUNDS_MS: [u64; 14] = [
    1, 5, 10, 50, 100, 500, 1_000, 5_000, 10_000, 30_000, 60_000, 600_000, 3_600_000, 86_400_000,
];

const NANOS_PER_MICRO: u64 = 1_000;

/// A distribution; clones share their numbers.
#[derive(Clone)]
pub struct Histogram {
    inner: Arc<Inner>,
}

struct Inner {
    /// Inclusive upper bounds, ascending, in the unit of the observed values.
    bounds: Vec<u64>,
    /// One per bound and one for what is above them all.
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
    /// Observed values per exposed unit.
    scale: f64,
}

impl Histogram {
    /// Of lengths of time, observed by [`Self::observe_duration`], exposed in seconds.
    pub fn of_durations() -> Self {
        let bounds = DURATION_BOUNDS_MICROS.map(|micros| micros * NANOS_PER_MICRO);
        Self::new(bounds.to_vec(), 1e9)
    }

    /// Of plain counts, 1 to some thousands.
    pub fn of_counts() -> Self {
        Self::new(COUNT_BOUNDS.to_vec(), 1.0)
    }

    /// Of how long something was held, observed in milliseconds, exposed in seconds.
    pub fn of_holds() -> Self {
        Self::of_milliseconds(&HOLD_BOUNDS_MS)
    }

    /// Of lengths of time with bounds of their own, observed in milliseconds, exposed in seconds.
    pub fn of_milliseconds(bounds: &[u64]) -> Self {
        Self::new(bounds.to_vec(), 1e3)
    }

    fn new(bounds: Vec<u64>, scale: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram {
            inner: Arc::new(Inner {
                bounds,
                counts,
                sum: AtomicU64::new(0),
                scale,
            }),
        }
    }

    /// Adds one value: a count, milliseconds, or nanoseconds in a histogram of durations.
    pub fn observe(&self, value: u64) {
        let bucket = self.inner.bounds.partition_point(|&bound| bound < value);
        self.inner.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.inner.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Adds one length of time to a histogram of durations.
    pub fn observe_duration(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Shows what somebody else has counted in buckets of the same bounds.
    pub fn take_over(&self, counts: &[u64], sum: u64) {
        for (own, count) in self.inner.counts.iter().zip(counts) {
            own.store(*count, Ordering::Relaxed);
        }
        self.inner.sum.store(sum, Ordering::Relaxed);
    }

    /// Inclusive upper bounds of the buckets but the last, which has none: nanoseconds in a
    /// histogram of durations.
    pub fn bounds(&self) -> &[u64] {
        &self.inner.bounds
    }

    /// How many values fell into each bucket.
    pub fn counts(&self) -> Vec<u64> {
        let counts = self.inner.counts.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// How many values were observed.
    pub fn count(&self) -> u64 {
        let counts = self.inner.counts.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Sum of the observed values: nanoseconds in a histogram of durations.
    pub fn sum(&self) -> u64 {
        self.inner.sum.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Histogram({} values)", self.count())
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let inner = &self.inner;
        let bounds = inner.bounds.iter().map(|&bound| bound as f64 / inner.scale);
        let buckets: Vec<(f64, u64)> = bounds
            .chain([f64::INFINITY])
            .zip(&inner.counts)
            .map(|(bound, count)| (bound, count.load(Ordering::Relaxed)))
            .collect();
        // From the same reading as the buckets, since the format wants the last one to equal it.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.sum() as f64 / inner.scale;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive_and_the_rest_is_kept() {
        let histogram = Histogram::of_counts();
        for value in [0, 1, 2, 3, 8192, 8193, u64::MAX - 20_000] {
            histogram.observe(value);
        }
        let counts: Vec<u64> = histogram
            .inner
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        assert_eq!(counts[..3], [2, 1, 1]);
        assert_eq!(counts[13..], [1, 2]);
        assert_eq!(histogram.count(), 7);
    }

    #[test]
    fn durations_are_summed_in_nanoseconds() {
        let histogram = Histogram::of_durations();
        histogram.observe_duration(Duration::from_micros(2));
        histogram.observe_duration(Duration::from_nanos(5));
        assert_eq!((histogram.sum(), histogram.count()), (2005, 2));
    }

    #[test]
    fn bounds_ascend() {
        assert!(DURATION_BOUNDS_MICROS.is_sorted_by(|a, b| a < b));
        assert!(COUNT_BOUNDS.is_sorted_by(|a, b| a < b));
        assert!(HOLD_BOUNDS_MS.is_sorted_by(|a, b| a < b));
    }
}
