//! Requests, errors and durations by operation.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};

use super::{Histogram, Labelled};

/// What requests cost and how they ended, by the index of their operation.
#[derive(Debug)]
pub struct OperationStats {
    requests: Labelled<Counter>,
    durations: Labelled<Histogram>,
    errors: Errors,
}

/// The numbers of one operation so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub requests: u64,
    pub errors: u64,
    /// Code of the last request that failed.
    pub last_error: Option<&'static str>,
    /// Sum over all requests, from arrival to reply; a wait counts in full.
    pub processing_ns: u64,
}

impl OperationStats {
    pub(super) fn new(operations: &'static [&'static str], codes: &'static [&'static str]) -> Self {
        OperationStats {
            requests: Labelled::new("operation", operations, Counter::default),
            durations: Labelled::new("operation", operations, Histogram::of_durations),
            errors: Errors::new(operations, codes),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("requests", "Requests answered", self.requests.clone());
        registry.register(
            "request_errors",
            "Requests refused or failed",
            self.errors.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "From the arrival of a request to its reply",
            Unit::Seconds,
            self.durations.clone(),
        );
    }

    /// Counts one answered request. `operation` and `error` (absent: it succeeded) are indexes
    /// into the label values given to [`super::Stats::new`].
    ///
    /// # Panics
    /// When an index is beyond those values.
    pub fn record(&self, operation: usize, duration: Duration, error: Option<usize>) {
        self.requests[operation].inc();
        self.durations[operation].observe_duration(duration);
        if let Some(code) = error {
            self.errors.record(operation, code);
        }
    }

    /// How long the requests of one operation took so far.
    pub fn durations(&self, operation: usize) -> &Histogram {
        &self.durations[operation]
    }

    /// The numbers of one operation so far.
    pub fn totals(&self, operation: usize) -> Totals {
        Totals {
            requests: self.requests[operation].get(),
            errors: self.errors.total(operation),
            last_error: self.errors.last(operation),
            processing_ns: self.durations[operation].sum(),
        }
    }
}

/// Counts by operation and code; clones share their numbers. Of the many pairs only those that
/// occurred are rendered.
#[derive(Clone, Debug)]
struct Errors {
    operations: &'static [&'static str],
    codes: &'static [&'static str],
    /// Row by row: an operation's codes stand side by side.
    counts: Arc<[Counter]>,
    /// For each operation the code of its last error plus one; 0 if there was none.
    last: Arc<[AtomicUsize]>,
}

impl Errors {
    fn new(operations: &'static [&'static str], codes: &'static [&'static str]) -> Self {
        let cells = operations.len() * codes.len();
        Errors {
            operations,
            codes,
            counts: (0..cells).map(|_| Counter::default()).collect(),
            last: operations.iter().map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    fn row(&self, operation: usize) -> &[Counter] {
        let start = operation * self.codes.len();
        &self.counts[start..start + self.codes.len()]
    }

    fn record(&self, operation: usize, code: usize) {
        self.row(operation)[code].inc();
        self.last[operation].store(code + 1, Ordering::Relaxed);
    }

    fn total(&self, operation: usize) -> u64 {
        self.row(operation).iter().map(|count| count.get()).sum()
    }

    fn last(&self, operation: usize) -> Option<&'static str> {
        let code = self.last[operation]
            .load(Ordering::Relaxed)
            .checked_sub(1)?;
        Some(self.codes[code])
    }
}

impl EncodeMetric for Errors {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for (index, operation) in self.operations.iter().enumerate() {
            for (code, count) in self.codes.iter().zip(self.row(index)) {
                if count.get() > 0 {
                    let labels = [("operation", *operation), ("code", *code)];
                    count.encode(encoder.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        <Counter as TypedMetric>::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_per_operation() {
        let stats = OperationStats::new(&["a", "b"], &["held", "internal"]);
        stats.record(1, Duration::from_nanos(30), None);
        stats.record(1, Duration::from_nanos(12), Some(1));
        stats.record(1, Duration::ZERO, Some(0));
        assert_eq!(stats.totals(0), Totals::default());
        let expected = Totals {
            requests: 3,
            errors: 2,
            last_error: Some("held"),
            processing_ns: 42,
        };
        assert_eq!(stats.totals(1), expected);
    }
}
