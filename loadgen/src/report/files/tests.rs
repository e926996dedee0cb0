use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_STANDARD, Engine};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use super::*;
use crate::recorder::{Fault, Interval, Series};
use crate::run::Recording;
use crate::timeline::Timeline;

/// Three seconds of two operations, of which the second was idle for one of them.
fn recording() -> Recording {
    let mut timeline = Timeline::new(2, true);
    for second in 0..3_u64 {
        let (mut push, mut pop) = (Series::new(), Series::new());
        for n in 0..1000 {
            let latency = Duration::from_micros(100 + (n * n * 7919 + second * 104_729) % 90_000);
            push.succeeded(latency, latency);
            if second != 1 {
                pop.succeeded(latency * 2, latency);
            }
        }
        push.failed(Fault {
            code: "no_answer",
            unknown: true,
        });
        timeline.add(&Interval {
            second: Some(second as u32),
            series: vec![push, pop],
            warm_up_count: 0,
        });
    }
    let elapsed = Duration::from_millis(2500);
    let (totals, seconds) = timeline.finish(elapsed);
    let names = ["queue.push", "queue.pop"];
    Recording {
        workload: "queue cycles",
        recorded_from: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
        operations: names.into_iter().zip(totals).collect(),
        details: Vec::new(),
        seconds,
        sends: None,
        elapsed,
        cpu: None,
        marks: Vec::new(),
        stopped: false,
        failure: None,
    }
}

#[test]
fn the_interval_log_is_read_back_by_the_standard_reader() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.hlog");
    write_hdr_log(&path, &[recording()]).unwrap();
    let text = std::fs::read(&path).unwrap();
    let mut read: BTreeMap<String, Histogram<u64>> = BTreeMap::new();
    let mut intervals = Vec::new();
    for entry in IntervalLogIterator::new(&text) {
        match entry.expect("the log is well formed") {
            LogEntry::BaseTime(since) | LogEntry::StartTime(since) => {
                assert_eq!(since, Duration::from_millis(1_700_000_000_250));
            }
            LogEntry::Interval(interval) => {
                let bytes = BASE64_STANDARD
                    .decode(interval.encoded_histogram())
                    .unwrap();
                let histogram: Histogram<u64> =
                    Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
                let tag = interval.tag().expect("a tag").as_str().to_owned();
                intervals.push((tag.clone(), interval.start_timestamp(), interval.duration()));
                let sum = read
                    .entry(tag)
                    .or_insert_with(|| Histogram::new_from(&histogram));
                sum.add(&histogram).unwrap();
            }
        }
    }
    assert_eq!(intervals.len(), 5, "an idle second has no interval");
    let last = (
        "queue_cycles/queue.pop".to_owned(),
        Duration::from_secs(2),
        Duration::from_millis(500),
    );
    assert_eq!(intervals[4], last);
    for (name, series) in recording().operations {
        let read = &read[&format!("queue_cycles/{name}")];
        assert_eq!(read, series.latency_us(), "{name}");
        for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
            let written = series.latency_us().value_at_quantile(quantile);
            assert_eq!(
                read.value_at_quantile(quantile),
                written,
                "{name} {quantile}"
            );
        }
    }
}

#[test]
fn a_percentile_distribution_ends_at_the_greatest_value_and_all_counts() {
    let recording = recording();
    let text = hgrm::text(recording.operations[0].1.latency_us());
    let lines: Vec<Vec<&str>> = text
        .lines()
        .skip(2)
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0].len(), 4, "{text}");
    let last = lines.last().unwrap();
    assert_eq!((last[1], last[2]), ("1.000000000000", "3000"), "{text}");
    let percentiles = lines.iter().map(|line| line[1].parse::<f64>().unwrap());
    assert!(percentiles.is_sorted());
    assert!(text.contains("Total count    =         3000]"), "{text}");
}

#[test]
fn csv_has_a_line_for_each_second_and_operation() {
    let text = csv::text(&[recording()]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 7);
    assert!(lines[1].starts_with("queue cycles,queue.push,0,1.000,1000,1,1,0,"));
    assert_eq!(
        lines[4],
        "queue cycles,queue.pop,1,1.000,0,0,0,0,0.000,0.000,0.000,0.000"
    );
    let columns = |line: &str| line.split(',').count();
    assert!(lines.iter().all(|line| columns(line) == columns(lines[0])));
}
