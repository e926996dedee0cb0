//! What a command is about, in a few figures: the workload beside the raw echo of the same run.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::figures::Run;

/// What `locks` is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocksSummary {
    /// Pairs of acquire and release per second.
    pub pairs_per_second: f64,
    /// Beside half the echo's rate: a pair is two requests. Absent where pace or flags make it meaningless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside_echo: Option<BesideEcho>,
    /// Mean commands per Raft entry during the run.
    pub commands_per_entry: Option<f64>,
    /// Why it is not known.
    pub commands_per_entry_note: Option<String>,
}

/// What `queue` is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueSummary {
    pub pushes_per_second: f64,
    pub cycles_per_second: f64,
    /// Messages in one push.
    #[serde(default = "batch_default")]
    pub batch: u32,
    /// Pushes beside the echo's rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushes_beside_echo: Option<BesideEcho>,
    /// Cycles beside a third of it: a cycle is three requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycles_beside_echo: Option<BesideEcho>,
}

/// What `cache` is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheSummary {
    /// Reads and writes per second.
    pub requests_per_second: f64,
    /// How many of the reads found a value, in percent.
    pub hits_percent: f64,
    /// How many of the reads were answered from the memory of the node that was asked, in percent.
    pub local_percent: f64,
    /// All requests beside the echo's rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside_echo: Option<BesideEcho>,
}

/// What `status` and `mix` are about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestsSummary {
    pub workload: String,
    /// Requests of all kinds.
    pub requests_per_second: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside_echo: Option<BesideEcho>,
}

/// The batch of reports that do not name it.
fn batch_default() -> u32 {
    1
}

/// A rate beside that of the raw echo.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BesideEcho {
    /// Requests of the echo per second.
    pub requests_per_second: f64,
    /// What that allows, per second.
    pub limit_per_second: f64,
    /// What was reached of the limit.
    pub percent: f64,
}

impl BesideEcho {
    /// Sets a rate of rounds, each so many requests, beside the echo's.
    pub fn new(rate: f64, requests: f64, echo: &Run) -> Self {
        let requests_per_second = echo.rate("echo");
        let limit_per_second = requests_per_second / requests;
        Self {
            requests_per_second,
            limit_per_second,
            percent: percent(rate, limit_per_second),
        }
    }
}

impl LocksSummary {
    /// Sets the locks' run beside the echo's.
    pub fn new(locks: &Run, echo: Option<&Run>, commands_per_entry: Result<f64>) -> Self {
        let pairs_per_second = locks.rate("lock.release");
        let (commands_per_entry, commands_per_entry_note) = match commands_per_entry {
            Ok(commands) => (Some(commands), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        Self {
            pairs_per_second,
            beside_echo: echo.map(|echo| BesideEcho::new(pairs_per_second, 2.0, echo)),
            commands_per_entry,
            commands_per_entry_note,
        }
    }
}

impl QueueSummary {
    /// Sets pushes and cycles beside the echo.
    pub fn new(pushes: &Run, cycles: &Run, batch: u32, echo: Option<&Run>) -> Self {
        let (pushes, cycles) = (pushes.rate("queue.push"), cycles.rate("queue.ack"));
        Self {
            pushes_per_second: pushes,
            cycles_per_second: cycles,
            batch,
            pushes_beside_echo: echo.map(|echo| BesideEcho::new(pushes, 1.0, echo)),
            cycles_beside_echo: echo.map(|echo| BesideEcho::new(cycles, 3.0, echo)),
        }
    }
}

impl RequestsSummary {
    /// Sets all requests of a run beside the echo's.
    pub fn new(run: &Run, echo: Option<&Run>) -> Self {
        let requests_per_second = run.rate_of_all();
        Self {
            workload: run.workload.clone(),
            requests_per_second,
            beside_echo: echo.map(|echo| BesideEcho::new(requests_per_second, 1.0, echo)),
        }
    }
}

impl CacheSummary {
    /// Sets the cache's run beside the echo's.
    pub fn new(cache: &Run, echo: Option<&Run>) -> Self {
        let reads = cache.rate("cache.get");
        let requests_per_second = cache.rate_of_all();
        let local = cache.rate("cache.get local");
        Self {
            requests_per_second,
            hits_percent: percent(local + cache.rate("cache.get home"), reads),
            local_percent: percent(local, reads),
            beside_echo: echo.map(|echo| BesideEcho::new(requests_per_second, 1.0, echo)),
        }
    }
}

/// `part` of `whole` in percent; 0 of nothing.
fn percent(part: f64, whole: f64) -> f64 {
    let percent = 100.0 * part / whole;
    if percent.is_finite() { percent } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::super::figures::Figures;
    use super::*;

    fn run(rates: &[(&str, f64)]) -> Run {
        let figures = |(operation, rate): &(&str, f64)| Figures {
            operation: (*operation).to_owned(),
            rate: *rate,
            ..Figures::default()
        };
        let (details, operations): (Vec<_>, Vec<_>) = rates
            .iter()
            .map(figures)
            .partition(|figures| figures.operation.contains(' '));
        Run {
            operations,
            details,
            ..Run::default()
        }
    }

    #[test]
    fn locks_are_measured_by_half_the_echo() {
        let (locks, echo) = (run(&[("lock.release", 30.0)]), run(&[("echo", 200.0)]));
        let summary = LocksSummary::new(&locks, Some(&echo), Ok(12.5));
        let beside_echo = BesideEcho {
            requests_per_second: 200.0,
            limit_per_second: 100.0,
            percent: 30.0,
        };
        let expected = LocksSummary {
            pairs_per_second: 30.0,
            beside_echo: Some(beside_echo),
            commands_per_entry: Some(12.5),
            commands_per_entry_note: None,
        };
        assert_eq!(summary, expected);
    }

    #[test]
    fn cycles_are_measured_by_a_third_of_the_echo() {
        let pushes = run(&[("queue.push", 60.0)]);
        let cycles = run(&[("queue.push", 41.0), ("queue.ack", 40.0)]);
        let summary = QueueSummary::new(&pushes, &cycles, 1, Some(&run(&[("echo", 240.0)])));
        let percent = |beside: Option<BesideEcho>| beside.map(|beside| beside.percent);
        assert_eq!(percent(summary.pushes_beside_echo), Some(25.0));
        assert_eq!(percent(summary.cycles_beside_echo), Some(50.0));
    }

    #[test]
    fn hits_are_those_of_reads() {
        let cache = run(&[
            ("cache.get", 80.0),
            ("cache.set", 20.0),
            ("cache.get local", 40.0),
            ("cache.get home", 20.0),
            ("cache.get miss", 20.0),
        ]);
        let summary = CacheSummary::new(&cache, None);
        assert_eq!((summary.hits_percent, summary.local_percent), (75.0, 50.0));
        assert_eq!(summary.requests_per_second, 100.0);
    }

    #[test]
    fn what_was_not_measured_is_not_made_up() {
        let (locks, echo) = (run(&[("lock.release", 30.0)]), run(&[]));
        let summary = LocksSummary::new(&locks, Some(&echo), Err(anyhow!("nobody leads")));
        assert_eq!(summary.beside_echo.map(|beside| beside.percent), Some(0.0));
        assert_eq!(summary.commands_per_entry, None);
        let note = summary.commands_per_entry_note.as_deref();
        assert_eq!(note, Some("nobody leads"));
        let alone = LocksSummary::new(&locks, None, Ok(1.0));
        assert_eq!(alone.beside_echo, None);
    }
}
