//! The figures of one run, as the table and the JSON have them.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::milliseconds;
use crate::chaos::Mark;
use crate::recorder::Series;
use crate::run::Recording;
use crate::schedule::Sends;
use crate::timeline::{Moment, Second};

/// One workload's figures.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    pub workload: String,
    /// When the recorded time began, as Unix time in milliseconds.
    #[serde(default)]
    pub recorded_from_ms: u64,
    /// Whether Ctrl-C ended it early.
    pub stopped: bool,
    /// The recorded time.
    pub elapsed_s: f64,
    /// CPU time of the load threads in the whole run, warm-up included; absent where the system does not tell.
    pub load_threads_cpu_s: Option<f64>,
    /// CPU time of the echo responder, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub responder_cpu_s: Option<f64>,
    /// What was done to the cluster meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
    /// What became of the arrivals of an open loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sends: Option<Sends>,
    pub operations: Vec<Figures>,
    /// What is told apart within operations, and counted there as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Figures>,
    /// Each second of the recorded time.
    #[serde(default)]
    pub seconds: Vec<SecondFigures>,
}

/// One operation's figures. Latencies are those of successes, from the instant that was meant for the request.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    pub operation: String,
    /// Successes.
    pub count: u64,
    pub errors: u64,
    pub errors_by_code: BTreeMap<String, u64>,
    /// How many of the errors may have taken effect.
    #[serde(default)]
    pub unknown: u64,
    /// Refusals that the workload foresees, such as a lock that another client holds; no errors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refusals_by_code: BTreeMap<String, u64>,
    /// Successes per second.
    pub rate: f64,
    #[serde(flatten)]
    pub latency: Percentiles,
    /// The same from the instant at which each request was sent.
    #[serde(default)]
    pub since_send: Percentiles,
}

/// Latencies in milliseconds; 0 without any success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub mean_ms: f64,
    pub p50_ms: f64,
    #[serde(default)]
    pub p90_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

/// One second.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SecondFigures {
    /// Since the recorded time began.
    pub from_s: f64,
    /// 1, or less at the end of a run.
    pub length_s: f64,
    /// In the order of the run's operations.
    pub operations: Vec<MomentFigures>,
}

/// One operation in one second, by the end of its requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MomentFigures {
    /// Successes.
    pub count: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub errors: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refusals: u64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Run {
    pub fn new(recording: &Recording) -> Self {
        let elapsed_s = recording.elapsed.as_secs_f64();
        let figures = |named: &[(&str, Series)]| -> Vec<Figures> {
            let named = named.iter();
            named
                .map(|(name, series)| Figures::new(name, series, elapsed_s))
                .collect()
        };
        let since = recording.recorded_from.duration_since(UNIX_EPOCH);
        let operations = recording.operations.len();
        let seconds = recording.seconds.iter();
        Self {
            workload: recording.workload.to_owned(),
            recorded_from_ms: since.map_or(0, milliseconds),
            stopped: recording.stopped,
            elapsed_s,
            load_threads_cpu_s: recording.cpu.map(|cpu| cpu.as_secs_f64()),
            responder_cpu_s: None,
            marks: recording.marks.clone(),
            sends: recording.sends,
            operations: figures(&recording.operations),
            details: figures(&recording.details),
            seconds: seconds
                .map(|second| SecondFigures::new(second, operations))
                .collect(),
        }
    }

    /// The figures of an operation or a detail.
    pub fn figures(&self, operation: &str) -> Option<&Figures> {
        let mut all = self.operations.iter().chain(&self.details);
        all.find(|figures| figures.operation == operation)
    }

    /// Successes per second of an operation; 0 if the workload has no such operation.
    pub fn rate(&self, operation: &str) -> f64 {
        self.figures(operation).map_or(0.0, |figures| figures.rate)
    }

    /// Successes per second of all operations.
    pub fn rate_of_all(&self) -> f64 {
        self.operations.iter().map(|figures| figures.rate).sum()
    }
}

impl Figures {
    fn new(operation: &str, series: &Series, elapsed_s: f64) -> Self {
        let rate = if elapsed_s > 0.0 {
            series.count() as f64 / elapsed_s
        } else {
            0.0
        };
        Self {
            operation: operation.to_owned(),
            count: series.count(),
            errors: series.error_count(),
            errors_by_code: series.errors().clone(),
            unknown: series.unknown(),
            refusals_by_code: series.refusals().clone(),
            rate,
            latency: Percentiles::new(series.latency_us()),
            since_send: Percentiles::new(series.since_send_us()),
        }
    }
}

impl Percentiles {
    fn new(latency_us: &Histogram<u64>) -> Self {
        let quantile_ms = |quantile| latency_us.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            mean_ms: latency_us.mean() / 1000.0,
            p50_ms: quantile_ms(0.5),
            p90_ms: quantile_ms(0.9),
            p95_ms: quantile_ms(0.95),
            p99_ms: quantile_ms(0.99),
            p999_ms: quantile_ms(0.999),
            max_ms: latency_us.max() as f64 / 1000.0,
        }
    }
}

impl SecondFigures {
    fn new(second: &Second, operations: usize) -> Self {
        let moments = second.moments.iter().take(operations);
        Self {
            from_s: second.from.as_secs_f64(),
            length_s: second.length.as_secs_f64(),
            operations: moments.map(MomentFigures::new).collect(),
        }
    }
}

impl MomentFigures {
    fn new(moment: &Moment) -> Self {
        Self {
            count: moment.count,
            errors: moment.error_count(),
            unknown: moment.unknown,
            refusals: moment.refusals,
            p50_ms: moment.p50_ms,
            p95_ms: moment.p95_ms,
            p99_ms: moment.p99_ms,
            max_ms: moment.max_ms,
        }
    }
}
