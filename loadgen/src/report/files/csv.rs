//! One line for each second and operation, for spreadsheets.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::run::Recording;

/// No name and no code has a comma or a quote in it, so that nothing needs quoting.
const HEADER: &str = "workload,operation,second,length_s,count,errors,unknown,refusals,p50_ms,p95_ms,p99_ms,max_ms\n";

/// Writes the file.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, recordings: &[Recording]) -> Result<()> {
    std::fs::write(path, text(recordings))
        .with_context(|| format!("cannot write {}", path.display()))
}

pub(super) fn text(recordings: &[Recording]) -> String {
    let mut text = HEADER.to_owned();
    for recording in recordings {
        for second in &recording.seconds {
            for (name, moment) in recording.names().zip(&second.moments) {
                let _ = writeln!(
                    text,
                    "{},{name},{},{:.3},{},{},{},{},{:.3},{:.3},{:.3},{:.3}",
                    recording.workload,
                    second.from.as_secs(),
                    second.length.as_secs_f64(),
                    moment.count,
                    moment.error_count(),
                    moment.unknown,
                    moment.refusals,
                    moment.p50_ms,
                    moment.p95_ms,
                    moment.p99_ms,
                    moment.max_ms,
                );
            }
        }
    }
    text
}
