//! What is left of a run: figures for people (`table`) and for programs (JSON).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::recorder::Series;
use crate::run::Recording;

pub mod environment;
pub mod prototype;
pub mod table;

use environment::Environment;

/// All figures of one call of the program.
#[derive(Serialize)]
pub struct Report {
    /// When the report was begun, as Unix time in milliseconds.
    pub started_at_ms: u64,
    pub environment: Environment,
    pub settings: Settings,
    pub runs: Vec<Run>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locks: Option<LocksSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueSummary>,
}

/// What was asked for; lengths are in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    pub command: &'static str,
    pub users: u32,
    pub spawn_per_second: Option<f64>,
    pub warm_up_ms: u64,
    pub duration_ms: u64,
    pub requests: Option<u64>,
    pub hold_ms: Option<u64>,
    pub think_ms: Option<u64>,
    pub echo_payload_bytes: Option<u32>,
    pub echo_responder: Option<&'static str>,
    pub prefix: String,
    pub encoding: &'static str,
    pub target: String,
    pub timeout_ms: u64,
    pub connections: u32,
    pub threads: u32,
}

/// One workload's figures.
#[derive(Serialize)]
pub struct Run {
    pub workload: &'static str,
    /// Whether Ctrl-C ended it early.
    pub stopped: bool,
    /// The recorded time.
    pub elapsed_s: f64,
    /// CPU time of the load threads in the whole run, warm-up included; absent where the system does not tell.
    pub load_threads_cpu_s: Option<f64>,
    /// CPU time of the echo responder, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub responder_cpu_s: Option<f64>,
    pub operations: Vec<Figures>,
}

/// One operation's figures. Latencies are those of successes, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub operation: &'static str,
    /// Successes.
    pub count: u64,
    pub errors: u64,
    pub errors_by_code: BTreeMap<String, u64>,
    /// Successes per second.
    pub rate: f64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

/// What `locks` is about.
#[derive(Clone, Debug, Serialize)]
pub struct LocksSummary {
    /// Pairs of acquire and release per second.
    pub pairs_per_second: f64,
    pub echo_requests_per_second: f64,
    /// Half the echo's rate: a pair is two requests.
    pub echo_pairs_per_second: f64,
    /// What the locks reach of that.
    pub percent_of_echo_pairs: f64,
    /// Mean commands per Raft entry during the run.
    pub commands_per_entry: Option<f64>,
    /// Why it is not known.
    pub commands_per_entry_note: Option<String>,
}

/// What `queue` is about.
#[derive(Clone, Debug, Serialize)]
pub struct QueueSummary {
    pub pushes_per_second: f64,
    pub cycles_per_second: f64,
    pub echo_requests_per_second: f64,
    /// What pushes reach of the echo's rate.
    pub pushes_percent: f64,
    /// What cycles reach of a third of it: a cycle is three requests.
    pub cycles_percent: f64,
}

/// A length in whole milliseconds.
pub fn milliseconds(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

impl Report {
    /// An empty report that begins now.
    pub fn begin(environment: Environment, settings: Settings) -> Self {
        let started = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            started_at_ms: milliseconds(started),
            environment,
            settings,
            runs: Vec::new(),
            locks: None,
            queue: None,
        }
    }

    /// Requests that failed, over all runs.
    pub fn error_count(&self) -> u64 {
        self.runs
            .iter()
            .flat_map(|run| &run.operations)
            .map(|figures| figures.errors)
            .sum()
    }

    /// Writes everything as JSON, for people to read as well.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Run {
    pub fn new(recording: &Recording) -> Self {
        let elapsed_s = recording.elapsed.as_secs_f64();
        let figures =
            |(name, series): &(&'static str, Series)| Figures::new(name, series, elapsed_s);
        Self {
            workload: recording.workload,
            stopped: recording.stopped,
            elapsed_s,
            load_threads_cpu_s: recording.cpu.map(|cpu| cpu.as_secs_f64()),
            responder_cpu_s: None,
            operations: recording.series.iter().map(figures).collect(),
        }
    }

    /// Successes per second of an operation; 0 if the workload has no such operation.
    pub fn rate(&self, operation: &str) -> f64 {
        self.operations
            .iter()
            .find(|figures| figures.operation == operation)
            .map_or(0.0, |figures| figures.rate)
    }
}

impl Figures {
    fn new(operation: &'static str, series: &Series, elapsed_s: f64) -> Self {
        let rate = if elapsed_s > 0.0 {
            series.count() as f64 / elapsed_s
        } else {
            0.0
        };
        Self {
            operation,
            count: series.count(),
            errors: series.error_count(),
            errors_by_code: series.errors().clone(),
            rate,
            mean_ms: series.mean_ms(),
            p50_ms: series.quantile_ms(0.5),
            p95_ms: series.quantile_ms(0.95),
            p99_ms: series.quantile_ms(0.99),
            p999_ms: series.quantile_ms(0.999),
            max_ms: series.max_ms(),
        }
    }
}

impl LocksSummary {
    /// Sets the locks' run beside the echo's.
    pub fn new(locks: &Run, echo: &Run, commands_per_entry: Result<f64>) -> Self {
        let pairs_per_second = locks.rate("release");
        let echo_requests_per_second = echo.rate("echo");
        let echo_pairs_per_second = echo_requests_per_second / 2.0;
        let percent = 100.0 * pairs_per_second / echo_pairs_per_second;
        let (commands_per_entry, commands_per_entry_note) = match commands_per_entry {
            Ok(commands) => (Some(commands), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        Self {
            pairs_per_second,
            echo_requests_per_second,
            echo_pairs_per_second,
            percent_of_echo_pairs: if percent.is_finite() { percent } else { 0.0 },
            commands_per_entry,
            commands_per_entry_note,
        }
    }
}

impl QueueSummary {
    /// Sets pushes and cycles beside the echo.
    pub fn new(pushes: &Run, cycles: &Run, echo: &Run) -> Self {
        let echo = echo.rate("echo");
        let percent = |rate: f64, of: f64| match 100.0 * rate / of {
            percent if percent.is_finite() => percent,
            _ => 0.0,
        };
        let (pushes, cycles) = (pushes.rate("push"), cycles.rate("ack"));
        Self {
            pushes_per_second: pushes,
            cycles_per_second: cycles,
            echo_requests_per_second: echo,
            pushes_percent: percent(pushes, echo),
            cycles_percent: percent(cycles, echo / 3.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn run(workload: &'static str, operation: &'static str, count: u64) -> Run {
        let mut series = Series::new();
        for _ in 0..count {
            series.succeeded(Duration::from_millis(2));
        }
        let elapsed = Duration::from_secs(10);
        Run::new(&Recording {
            workload,
            series: vec![(operation, series)],
            elapsed,
            cpu: None,
            stopped: false,
        })
    }

    #[test]
    fn locks_are_measured_by_half_the_echo() {
        let (locks, echo) = (run("locks", "release", 300), run("echo", "echo", 2000));
        let summary = LocksSummary::new(&locks, &echo, Ok(12.5));
        assert_eq!(summary.pairs_per_second, 30.0);
        assert_eq!(summary.echo_requests_per_second, 200.0);
        assert_eq!(summary.echo_pairs_per_second, 100.0);
        assert_eq!(summary.percent_of_echo_pairs, 30.0);
        assert_eq!(
            (summary.commands_per_entry, summary.commands_per_entry_note),
            (Some(12.5), None)
        );
    }

    #[test]
    fn cycles_are_measured_by_a_third_of_the_echo() {
        let (pushes, echo) = (run("queue pushes", "push", 600), run("echo", "echo", 2400));
        let summary = QueueSummary::new(&pushes, &run("queue cycles", "ack", 400), &echo);
        assert_eq!(
            (summary.pushes_percent, summary.cycles_percent),
            (25.0, 50.0)
        );
    }

    #[test]
    fn what_was_not_measured_is_not_made_up() {
        let (locks, echo) = (run("locks", "release", 300), run("echo", "echo", 0));
        let summary = LocksSummary::new(&locks, &echo, Err(anyhow!("nobody leads")));
        assert_eq!(summary.percent_of_echo_pairs, 0.0);
        assert_eq!(summary.commands_per_entry, None);
        assert_eq!(
            summary.commands_per_entry_note.as_deref(),
            Some("nobody leads")
        );
    }
}
