//! What is left of a run: figures for people (`table`) and for programs (JSON).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub mod compare;
pub mod environment;
pub mod figures;
pub mod files;
pub mod html;
pub mod prototype;
pub mod summary;
pub mod table;
pub mod threshold;

use environment::Environment;
use figures::Run;
use summary::{CacheSummary, LocksSummary, QueueSummary, RequestsSummary};

/// All figures of one call of the program.
#[derive(Serialize, Deserialize)]
pub struct Report {
    /// When the report was begun, as Unix time in milliseconds.
    pub started_at_ms: u64,
    pub environment: Environment,
    pub settings: Settings,
    pub runs: Vec<Run>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locks: Option<LocksSummary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueSummary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheSummary>,
    /// Of `status` and `mix`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<RequestsSummary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckSummary>,
    /// Why the call could not be brought to its end, if so; what it had until then is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// What came of checking while loading.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CheckSummary {
    pub violations: u64,
    /// The first of them, with what happened around each.
    pub history: String,
}

/// What was asked for; lengths are in milliseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    pub command: String,
    pub users: u32,
    pub spawn_per_second: Option<f64>,
    #[serde(default)]
    pub think_ms: u64,
    /// Of an open loop: rounds per second, and how they are spread.
    #[serde(default)]
    pub rate_per_second: Option<f64>,
    #[serde(default)]
    pub arrivals: Option<String>,
    pub warm_up_ms: u64,
    pub duration_ms: u64,
    pub requests: Option<u64>,
    #[serde(default)]
    pub seed: u64,
    /// The workload's own flags.
    #[serde(default)]
    pub workload: BTreeMap<String, serde_json::Value>,
    pub echo_payload_bytes: Option<u32>,
    pub echo_responder: Option<String>,
    pub prefix: String,
    pub encoding: String,
    pub target: String,
    pub timeout_ms: u64,
    /// Of each worker.
    pub connections: u32,
    pub threads: u32,
    /// Processes that loaded together.
    #[serde(default = "workers_default")]
    pub workers: u32,
}

/// Of reports that do not name it.
fn workers_default() -> u32 {
    1
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
            cache: None,
            requests: None,
            check: None,
            failure: None,
        }
    }

    /// The call cannot be brought to its end; the first reason counts.
    pub fn fail(&mut self, reason: &anyhow::Error) {
        self.failure.get_or_insert_with(|| format!("{reason:#}"));
    }

    /// Requests that failed, over all runs.
    pub fn error_count(&self) -> u64 {
        self.runs
            .iter()
            .flat_map(|run| &run.operations)
            .map(|figures| figures.errors)
            .sum()
    }

    /// Reads what `write_json` wrote.
    ///
    /// # Errors
    /// The file cannot be read or is no report.
    pub fn read_json(path: &Path) -> Result<Self> {
        let cannot = || format!("cannot read {}", path.display());
        let text = std::fs::read(path).with_context(cannot)?;
        serde_json::from_slice(&text).with_context(cannot)
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
