//! What the process takes of the machine, under the names that such metrics have everywhere.
//!
//! Read from `/proc` at each scrape: a few small files, no disk. Where there is none, what it would say is
//! left out.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::time;

const KIB: u64 = 1_024;

/// The process that this is.
#[derive(Debug)]
pub struct Process {
    started_unix_ms: u64,
}

impl Process {
    /// Taken for the start of the process.
    pub fn started_now() -> Self {
        Process {
            started_unix_ms: time::unix_ms(),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bytes = |name| field(&status, name).map(|kib| kib * KIB);
        let gauges = [
            (
                "process_resident_memory",
                "Memory that is in use",
                Some(Unit::Bytes),
                bytes("VmRSS"),
            ),
            (
                "process_virtual_memory",
                "Memory that is set aside",
                Some(Unit::Bytes),
                bytes("VmSize"),
            ),
            (
                "process_threads",
                "Threads",
                None,
                field(&status, "Threads"),
            ),
            ("process_open_fds", "Open files and sockets", None, open()),
            (
                "process_max_fds",
                "The most files and sockets that may be open",
                None,
                getrlimit(Resource::Nofile).current,
            ),
        ];
        for (name, help, unit, value) in gauges {
            if let Some(value) = value {
                let gauge = ConstGauge::new(value);
                let kind = gauge.metric_type();
                gauge.encode(encoder.encode_descriptor(name, help, unit.as_ref(), kind)?)?;
            }
        }
        let started = ConstGauge::new(self.started_unix_ms as f64 / 1e3);
        started.encode(encoder.encode_descriptor(
            "process_start_time",
            "Unix time of the start",
            Some(&Unit::Seconds),
            started.metric_type(),
        )?)?;
        let took = clock_gettime(ClockId::ProcessCPUTime);
        let took = ConstCounter::new(took.tv_sec as f64 + took.tv_nsec as f64 / 1e9);
        took.encode(encoder.encode_descriptor(
            "process_cpu",
            "Time on processors, for the program and for the system on its behalf",
            Some(&Unit::Seconds),
            took.metric_type(),
        )?)
    }
}

/// The first number of a line of `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(known, _)| *known == name)?;
    value.split_whitespace().next()?.parse().ok()
}

fn open() -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // One of them is the directory that is being read.
    Some(entries.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn fields_of_a_status_are_read() {
        let status = "Name:\tx\nVmRSSX:\t1 kB\nVmRSS:\t    2052 kB\nThreads:\t7\n";
        assert_eq!(field(status, "VmRSS"), Some(2052));
        assert_eq!(field(status, "Threads"), Some(7));
        assert_eq!(field(status, "Name"), None);
        assert_eq!(field(status, "VmSize"), None);
    }

    #[test]
    fn what_the_process_takes_is_plausible() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process::started_now()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("it is a string");
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let value = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
            value.trim().parse().expect("a number")
        };
        assert!(value("process_resident_memory_bytes ") > 1e6);
        assert!(value("process_cpu_seconds_total ") > 0.0);
        assert!(value("process_open_fds ") >= 3.0);
        assert!(value("process_max_fds ") >= value("process_open_fds "));
        assert!(value("process_threads ") >= 1.0);
        let age = time::unix_ms() as f64 / 1e3 - value("process_start_time_seconds ");
        assert!((0.0..60.0).contains(&age), "{age}");
    }
}
