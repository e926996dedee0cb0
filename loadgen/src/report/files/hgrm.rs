//! Percentile distributions as HdrHistogram prints them (`.hgrm`), which its plotter takes.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use super::tag;
use crate::run::Recording;

/// Lines for each halving of the distance to 100 %, HdrHistogram's own default.
const TICKS_PER_HALF_DISTANCE: u32 = 5;
/// Values are printed in milliseconds.
const US_PER_MS: f64 = 1000.0;

/// Writes a file for each operation that had a success, named by workload and operation, into a directory, which is
/// made if it is missing.
///
/// # Errors
/// The directory or a file cannot be written.
pub fn write(directory: &Path, recordings: &[Recording]) -> Result<()> {
    let cannot = |path: &Path| format!("cannot write {}", path.display());
    std::fs::create_dir_all(directory).with_context(|| cannot(directory))?;
    for recording in recordings {
        for (name, series) in recording.operations.iter().chain(&recording.details) {
            if series.count() == 0 {
                continue;
            }
            let name = tag(recording.workload, name).replace('/', ".");
            let path = directory.join(format!("{name}.hgrm"));
            std::fs::write(&path, text(series.latency_us())).with_context(|| cannot(&path))?;
        }
    }
    Ok(())
}

pub(super) fn text(latency_us: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut count = 0;
    for step in latency_us.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        count += step.count_since_last_iteration();
        let (value, percentile) = (
            step.value_iterated_to() as f64 / US_PER_MS,
            step.quantile_iterated_to(),
        );
        let _ = write!(text, "{value:12.3} {percentile:2.12} {count:10}");
        let _ = match percentile < 1.0 {
            true => writeln!(text, " {:14.2}", 1.0 / (1.0 - percentile)),
            false => writeln!(text),
        };
    }
    let _ = write!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n\
         #[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]\n",
        latency_us.mean() / US_PER_MS,
        latency_us.stdev() / US_PER_MS,
        latency_us.max() as f64 / US_PER_MS,
        latency_us.len(),
        latency_us.buckets(),
        latency_us.distinct_values(),
    );
    text
}
