//! Recordings as files for other tools: HdrHistogram's interval log and percentile distributions, and CSV.

mod csv;
mod hdr_log;
mod hgrm;
#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::path::Path;

use anyhow::{Context, Result};

pub use csv::write as write_csv;
pub use hdr_log::write as write_hdr_log;
pub use hgrm::write as write_hgrm;

/// Finds out before a run whether a file can be written after it. One that is not there yet is created, empty; what is
/// no file, such as a pipe, is left alone.
///
/// # Errors
/// It cannot be written.
pub fn check_writable(path: &Path) -> Result<()> {
    if path.metadata().is_ok_and(|found| !found.is_file()) && !path.is_dir() {
        return Ok(());
    }
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// An operation of a run in one word: `queue_cycles/queue.push`.
fn tag(workload: &str, operation: &str) -> String {
    format!("{workload}/{operation}").replace(' ', "_")
}
