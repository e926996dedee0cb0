//! What all threads recorded: the sum over the run, and what each second was like.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

use crate::recorder::{Interval, Series};

/// Seconds whose intervals may still arrive: threads tell within milliseconds of each other.
const OPEN_MAX: usize = 3;
/// Seconds that are kept apart, a day; what comes later is in the sum alone.
const SECONDS_MAX: u32 = 24 * 3600;

/// One second of the recorded time.
pub struct Second {
    /// Since the recorded time began.
    pub from: Duration,
    /// A second, or less at the end of a run.
    pub length: Duration,
    /// One for each operation and detail.
    pub moments: Vec<Moment>,
}

/// One operation in one second, by the end of its requests. Latencies count from the intended start.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    /// Successes.
    pub count: u64,
    pub errors: BTreeMap<String, u64>,
    pub unknown: u64,
    pub refusals: u64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// The histogram in microseconds, in HdrHistogram's compressed V2 form, where it is to be kept.
    pub histogram: Option<Vec<u8>>,
}

/// Collects intervals.
pub struct Timeline {
    totals: Vec<Series>,
    open: BTreeMap<u32, Vec<Series>>,
    seconds: Vec<(u32, Vec<Moment>)>,
    keeps_histograms: bool,
}

impl Timeline {
    /// Of so many operations and details. Histograms of each second take memory: some kilobytes each.
    pub fn new(series: usize, keeps_histograms: bool) -> Self {
        Self {
            totals: vec![Series::new(); series],
            open: BTreeMap::new(),
            seconds: Vec::new(),
            keeps_histograms,
        }
    }

    /// Takes in what one thread recorded.
    pub fn add(&mut self, interval: &Interval) {
        merge(&mut self.totals, &interval.series);
        let Some(second) = interval.second.filter(|second| *second < SECONDS_MAX) else {
            return;
        };
        // A thread that is seconds late has its requests counted in the oldest second that is still open.
        let sealed = self.seconds.last().map_or(0, |(last, _)| last + 1);
        let second = second.max(sealed);
        let open = self
            .open
            .entry(second)
            .or_insert_with(|| vec![Series::new(); self.totals.len()]);
        merge(open, &interval.series);
        while self.open.len() > OPEN_MAX {
            self.seal();
        }
    }

    /// The sum of all, and the seconds of a recorded time of this length, without gaps.
    pub fn finish(mut self, elapsed: Duration) -> (Vec<Series>, Vec<Second>) {
        while !self.open.is_empty() {
            self.seal();
        }
        let idle = vec![Moment::of(&Series::new(), self.keeps_histograms); self.totals.len()];
        let mut seconds = Vec::new();
        for (number, moments) in self.seconds {
            while (seconds.len() as u64) < u64::from(number) {
                seconds.push(second(seconds.len(), elapsed, idle.clone()));
            }
            seconds.push(second(seconds.len(), elapsed, moments));
        }
        (self.totals, seconds)
    }

    fn seal(&mut self) {
        if let Some((second, series)) = self.open.pop_first() {
            let moments = series.iter();
            let moments = moments.map(|series| Moment::of(series, self.keeps_histograms));
            self.seconds.push((second, moments.collect()));
        }
    }
}

fn merge(sums: &mut [Series], parts: &[Series]) {
    for (sum, part) in sums.iter_mut().zip(parts) {
        sum.merge(part);
    }
}

fn second(number: usize, elapsed: Duration, moments: Vec<Moment>) -> Second {
    let from = Duration::from_secs(number as u64);
    Second {
        from,
        // Never zero: the last requests of a run may end after it.
        length: elapsed
            .saturating_sub(from)
            .clamp(Duration::from_millis(1), Duration::from_secs(1)),
        moments,
    }
}

impl Moment {
    fn of(series: &Series, keeps_histogram: bool) -> Self {
        Self {
            count: series.count(),
            errors: series.errors().clone(),
            unknown: series.unknown(),
            refusals: series.refusals().values().sum(),
            p50_ms: series.quantile_ms(0.5),
            p95_ms: series.quantile_ms(0.95),
            p99_ms: series.quantile_ms(0.99),
            max_ms: series.quantile_ms(1.0),
            histogram: keeps_histogram.then(|| compressed(series.latency_us())),
        }
    }

    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }
}

fn compressed(histogram: &Histogram<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .expect("a histogram can be written to memory");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(second: Option<u32>, count: u64) -> Interval {
        let mut series = Series::new();
        for _ in 0..count {
            series.succeeded(Duration::from_millis(2), Duration::from_millis(1));
        }
        Interval {
            second,
            series: vec![series],
            warm_up_count: 0,
        }
    }

    fn counts(timeline: Timeline) -> (u64, Vec<u64>) {
        let (totals, seconds) = timeline.finish(Duration::from_millis(6500));
        let counts = seconds.iter().map(|second| second.moments[0].count);
        (totals[0].count(), counts.collect())
    }

    #[test]
    fn seconds_add_up_over_threads_and_have_no_gaps() {
        let mut timeline = Timeline::new(1, false);
        for (second, count) in [(0, 3), (0, 4), (1, 1), (3, 5), (3, 1), (6, 2)] {
            timeline.add(&interval(Some(second), count));
        }
        assert_eq!(counts(timeline), (16, vec![7, 1, 0, 6, 0, 0, 2]));
    }

    #[test]
    fn what_comes_late_is_counted_in_the_oldest_open_second() {
        let mut timeline = Timeline::new(1, false);
        timeline.add(&interval(None, 0));
        for second in 0..5 {
            timeline.add(&interval(Some(second), 1));
        }
        timeline.add(&interval(Some(0), 10));
        assert_eq!(counts(timeline), (15, vec![1, 1, 11, 1, 1]));
    }

    #[test]
    fn the_last_second_is_as_long_as_the_run() {
        let mut timeline = Timeline::new(1, false);
        timeline.add(&interval(Some(6), 1));
        let (_, seconds) = timeline.finish(Duration::from_millis(6500));
        assert_eq!(seconds[5].length, Duration::from_secs(1));
        assert_eq!(seconds[6].from, Duration::from_secs(6));
        assert_eq!(seconds[6].length, Duration::from_millis(500));
    }
}
