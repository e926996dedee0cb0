//! Two reports side by side: what changed, and whether that is more than the runs' own noise.
//!
//! The noise of a figure is what it differs by from second to second: twice the standard error of the mean of the
//! seconds' figures, of both runs together, in percent. A change below that may be chance. What differs between runs
//! (the disk's mood, the neighbours on the machine) is not in it: compare several runs before believing a small change.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::Report;
use super::figures::{Figures, MomentFigures, Run};

/// The share of a second below which the last one of a run says too little.
const WHOLE_SECOND: f64 = 0.9;

/// A figure that is compared.
struct Metric {
    name: &'static str,
    /// Whether more is better.
    more_is_better: bool,
    of_run: fn(&Figures) -> f64,
    /// Of a second of this length.
    of_second: fn(&MomentFigures, f64) -> f64,
}

/// The rate is the first: without any success there is nothing else.
const METRICS: [Metric; 4] = [
    Metric {
        name: "per second",
        more_is_better: true,
        of_run: |figures| figures.rate,
        of_second: |second, length_s| second.count as f64 / length_s,
    },
    Metric {
        name: "p50 ms",
        more_is_better: false,
        of_run: |figures| figures.latency.p50_ms,
        of_second: |second, _| second.p50_ms,
    },
    Metric {
        name: "p95 ms",
        more_is_better: false,
        of_run: |figures| figures.latency.p95_ms,
        of_second: |second, _| second.p95_ms,
    },
    Metric {
        name: "p99 ms",
        more_is_better: false,
        of_run: |figures| figures.latency.p99_ms,
        of_second: |second, _| second.p99_ms,
    },
];

/// One figure of one operation in both reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub workload: String,
    pub operation: String,
    pub metric: &'static str,
    pub before: f64,
    pub after: f64,
    /// In percent of `before`.
    pub percent: f64,
    /// In percent; `None` where the runs are too short to tell.
    pub noise_percent: Option<f64>,
    more_is_better: bool,
}

impl Change {
    /// Whether it is a change for the worse by more than so many percent and more than the noise.
    pub fn is_regression(&self, percent: f64) -> bool {
        let worse = if self.more_is_better {
            -self.percent
        } else {
            self.percent
        };
        worse > percent.max(self.noise_percent.unwrap_or(0.0))
    }

    fn verdict(&self) -> &'static str {
        match self.noise_percent {
            _ if self.after == 0.0 && self.more_is_better => "no success",
            None => "too short to tell",
            Some(noise) if self.percent.abs() <= noise => "within noise",
            Some(_) if (self.percent > 0.0) == self.more_is_better => "better",
            Some(_) => "worse",
        }
    }
}

/// The changes of all operations that the first report has successes of and the second one has, too, in the order of
/// the second report. One that never succeeded any more has no latencies to compare.
pub fn changes(before: &Report, after: &Report) -> Vec<Change> {
    let mut changes = Vec::new();
    for run in &after.runs {
        let Some(old) = before.runs.iter().find(|old| old.workload == run.workload) else {
            continue;
        };
        for figures in &run.operations {
            let old_figures = old.figures(&figures.operation);
            let Some(old_figures) = old_figures.filter(|old| old.count > 0) else {
                continue;
            };
            let metrics = match figures.count {
                0 => &METRICS[..1],
                _ => &METRICS[..],
            };
            let change = |metric: &Metric| Change {
                workload: run.workload.clone(),
                operation: figures.operation.clone(),
                metric: metric.name,
                before: (metric.of_run)(old_figures),
                after: (metric.of_run)(figures),
                percent: 100.0 * ((metric.of_run)(figures) / (metric.of_run)(old_figures) - 1.0),
                noise_percent: noise(metric, old, &figures.operation)
                    .zip(noise(metric, run, &figures.operation))
                    .map(|(old, new)| old.hypot(new)),
                more_is_better: metric.more_is_better,
            };
            changes.extend(metrics.iter().map(change));
        }
    }
    changes
}

/// Twice the standard error of the mean over a run's seconds, in percent of it.
fn noise(metric: &Metric, run: &Run, operation: &str) -> Option<f64> {
    let place = run
        .operations
        .iter()
        .position(|figures| figures.operation == operation)?;
    let seconds = run.seconds.iter();
    let values: Vec<f64> = seconds
        .filter(|second| second.length_s >= WHOLE_SECOND)
        .filter_map(|second| Some((second.operations.get(place)?, second.length_s)))
        .filter(|(moment, _)| moment.count > 0)
        .map(|(moment, length_s)| (metric.of_second)(moment, length_s))
        .collect();
    let number = values.len() as f64;
    if number < 3.0 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / number;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let error = (squares / (number - 1.0) / number).sqrt();
    Some(200.0 * error / mean).filter(|noise| noise.is_finite())
}

/// What stands in the way of a fair comparison.
pub fn caveats(before: &Report, after: &Report) -> Vec<String> {
    let mut caveats = Vec::new();
    let (old, new) = (&before.settings, &after.settings);
    let old_settings = serde_json::to_value(old).unwrap_or_default();
    let new_settings = serde_json::to_value(new).unwrap_or_default();
    if let (Some(old), Some(new)) = (old_settings.as_object(), new_settings.as_object()) {
        for (name, value) in new {
            if old.get(name) != Some(value) {
                let old = old.get(name).unwrap_or(&serde_json::Value::Null);
                caveats.push(format!("{name} was {old} and is {value}"));
            }
        }
    }
    let (old, new) = (&before.environment, &after.environment);
    if old.debug_build || new.debug_build {
        caveats.push("a build of the load generator without optimisation is involved".to_owned());
    }
    if (&old.cpu, old.cores) != (&new.cpu, new.cores) {
        caveats.push("the machines differ".to_owned());
    }
    caveats
}

/// The changes as a table, with what stands in the way below.
pub fn text(before: &Report, after: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "workload",
        "operation",
        "figure",
        "before",
        "after",
        "change",
        "noise",
        "",
    ]);
    for column in table.column_iter_mut().skip(3).take(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for change in changes(before, after) {
        let noise = change
            .noise_percent
            .map_or("-".to_owned(), |noise| format!("{noise:.1} %"));
        table.add_row([
            Cell::new(&change.workload),
            Cell::new(&change.operation),
            Cell::new(change.metric),
            Cell::new(format!("{:.2}", change.before)),
            Cell::new(format!("{:.2}", change.after)),
            Cell::new(format!("{:+.1} %", change.percent)),
            Cell::new(noise),
            Cell::new(change.verdict()),
        ]);
    }
    let mut text = format!("{table}\n");
    for caveat in caveats(before, after) {
        text.push_str(&format!("Beware: {caveat}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::figures::SecondFigures;
    use super::*;

    /// A run whose seconds have these counts, with a median of `p50_ms`.
    fn report(counts: &[u64], p50_ms: f64) -> Report {
        let mut report = Report::begin(Default::default(), Default::default());
        let mut figures = Figures {
            operation: "echo".to_owned(),
            count: counts.iter().sum(),
            rate: counts.iter().sum::<u64>() as f64 / counts.len() as f64,
            ..Figures::default()
        };
        figures.latency.p50_ms = p50_ms;
        let second = |(number, count): (usize, &u64)| SecondFigures {
            from_s: number as f64,
            length_s: 1.0,
            operations: vec![MomentFigures {
                count: *count,
                p50_ms,
                ..MomentFigures::default()
            }],
        };
        report.runs.push(Run {
            workload: "echo".to_owned(),
            operations: vec![figures],
            seconds: counts.iter().enumerate().map(second).collect(),
            ..Run::default()
        });
        report
    }

    #[test]
    fn a_change_is_judged_by_the_noise_of_the_seconds() {
        let (quiet, loud) = (
            report(&[100, 101, 99, 100], 2.0),
            report(&[50, 150, 60, 140], 2.2),
        );
        let slower = report(&[90, 91, 89, 90], 2.2);
        let changes = changes(&quiet, &slower);
        let [rate, p50] = &changes[..2] else {
            panic!("rate and median");
        };
        assert!((rate.percent + 10.0).abs() < 0.01, "{rate:?}");
        // The standard deviation is 0.816, that of the mean 0.408.
        let expected = (0.816_f64).hypot(0.816 / 0.9);
        assert!(
            (rate.noise_percent.unwrap() - expected).abs() < 0.01,
            "{rate:?}"
        );
        assert_eq!((rate.verdict(), p50.verdict()), ("worse", "worse"));
        assert!(rate.is_regression(5.0) && !rate.is_regression(11.0));
        assert!(p50.is_regression(5.0));
        let back = super::changes(&slower, &quiet);
        assert_eq!((back[0].verdict(), back[1].verdict()), ("better", "better"));
        assert!(!back[0].is_regression(5.0) && !back[1].is_regression(5.0));
        let noisy = super::changes(&loud, &slower);
        assert_eq!(noisy[0].verdict(), "within noise");
        assert!(!noisy[0].is_regression(5.0), "{:?}", noisy[0]);
    }

    #[test]
    fn an_operation_that_succeeds_no_more_is_a_regression() {
        let (before, after) = (report(&[100; 4], 2.0), report(&[0; 4], 0.0));
        let [rate] = &changes(&before, &after)[..] else {
            panic!("the rate alone");
        };
        assert_eq!((rate.percent, rate.verdict()), (-100.0, "no success"));
        assert!(rate.is_regression(5.0));
        assert!(changes(&after, &before).is_empty());
    }

    #[test]
    fn short_runs_have_no_noise_and_different_ones_a_caveat() {
        let (short, long) = (report(&[100, 100], 2.0), report(&[100; 10], 2.0));
        assert_eq!(changes(&short, &long)[0].verdict(), "too short to tell");
        assert!(caveats(&short, &long).is_empty());
        let mut other = report(&[100; 10], 2.0);
        other.settings.users = 7;
        other.environment.cores = Some(64);
        let expected = ["users was 0 and is 7", "the machines differ"];
        assert_eq!(caveats(&short, &other), expected);
    }
}
