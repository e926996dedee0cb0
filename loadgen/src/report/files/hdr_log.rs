//! The interval log of HdrHistogram: a histogram for each second and operation, in microseconds.
//!
//! Source: the `HistogramLogWriter` of HdrHistogram and the format that its readers take. The tag of an interval is
//! the workload and the operation; the greatest value of an interval is written in milliseconds.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};

use super::tag;
use crate::run::Recording;

/// Microseconds in a millisecond.
const MAX_VALUE_DIVISOR: f64 = 1000.0;

/// Writes the log of all recordings, in the order of their time.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, recordings: &[Recording]) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut file = BufWriter::new(file);
    let mut serializer = V2DeflateSerializer::new();
    let start = recordings
        .iter()
        .map(|recording| recording.recorded_from)
        .min()
        .unwrap_or(UNIX_EPOCH);
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("[Logged with Mufakat loadgen; values are microseconds]")
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(MAX_VALUE_DIVISOR)
        .begin_log_with(&mut file, &mut serializer)?;
    for recording in recordings {
        let since_start = recording.recorded_from.duration_since(start);
        let since_start = since_start.unwrap_or(Duration::ZERO);
        for second in &recording.seconds {
            for (name, moment) in recording.names().zip(&second.moments) {
                let Some(bytes) = moment.histogram.as_deref().filter(|_| moment.count > 0) else {
                    continue;
                };
                let tag = tag(recording.workload, name);
                let histogram = read(bytes)?;
                log.write_histogram(
                    &histogram,
                    since_start + second.from,
                    second.length,
                    Tag::new(&tag),
                )
                .map_err(|error| anyhow!("cannot write {}: {error}", path.display()))?;
            }
        }
    }
    file.flush()
        .with_context(|| format!("cannot write {}", path.display()))
}

fn read(mut bytes: &[u8]) -> Result<Histogram<u64>> {
    Deserializer::new()
        .deserialize(&mut bytes)
        .map_err(|error| anyhow!("a histogram that was just written cannot be read: {error}"))
}
