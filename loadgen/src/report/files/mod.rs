//! Recordings as files for other tools: HdrHistogram's interval log and percentile distributions, and CSV.

mod csv;
mod hdr_log;
mod hgrm;
#[cfg(test)]
mod tests;

pub use csv::write as write_csv;
pub use hdr_log::write as write_hdr_log;
pub use hgrm::write as write_hgrm;

/// An operation of a run in one word: `queue_cycles/queue.push`.
fn tag(workload: &str, operation: &str) -> String {
    format!("{workload}/{operation}").replace(' ', "_")
}
