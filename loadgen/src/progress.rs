//! Live progress on stderr: a bar that is redrawn on a terminal, a plain line each second otherwise.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::console;
use crate::pacer::Plan;
use crate::recorder::{Interval, Series};

/// How a bar looks; lengths are in milliseconds of the run.
const BAR: &str = "{prefix} [{bar:24}] {msg}";

/// The display of one run after another.
pub struct Progress {
    terminal: bool,
    bar: ProgressBar,
    name: &'static str,
    operations: &'static [&'static str],
    start: Instant,
    length: Duration,
    /// What came in since the display was last drawn, over all threads.
    series: Vec<Series>,
    warm_up_count: u64,
}

impl Progress {
    /// A display on stderr, as a bar if that is a terminal.
    pub fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            bar: ProgressBar::hidden(),
            name: "",
            operations: &[],
            start: Instant::now(),
            length: Duration::ZERO,
            series: Vec::new(),
            warm_up_count: 0,
        }
    }

    /// Begins to show a run of the named workload.
    pub fn begin(
        &mut self,
        name: &'static str,
        operations: &'static [&'static str],
        plan: &Plan,
        start: Instant,
    ) {
        self.name = name;
        self.operations = operations;
        self.start = start;
        self.length = plan.warm_up + plan.duration;
        self.series = vec![Series::new(); operations.len()];
        self.warm_up_count = 0;
        if self.terminal {
            let style =
                ProgressStyle::with_template(BAR).expect("the template is a constant and valid");
            self.bar = ProgressBar::new(self.length.as_millis() as u64)
                .with_style(style)
                .with_prefix(name);
        }
    }

    /// Takes in what one thread recorded.
    pub fn add(&mut self, interval: &Interval) {
        for (sum, series) in self.series.iter_mut().zip(&interval.series) {
            sum.merge(series);
        }
        self.warm_up_count += interval.warm_up_count;
    }

    /// Shows what came in during the last `span` and forgets it.
    pub fn draw(&mut self, now: Instant, span: Duration) {
        let elapsed = now.duration_since(self.start);
        let line = line(self.operations, &self.series, self.warm_up_count, span);
        if self.terminal {
            self.bar.set_position(elapsed.as_millis() as u64);
            self.bar.set_message(line);
        } else {
            let (name, elapsed, length) = (self.name, elapsed.as_secs(), self.length.as_secs());
            console::note(format_args!("{name} {elapsed:>3}/{length}s  {line}"));
        }
        for series in &mut self.series {
            *series = Series::new();
        }
        self.warm_up_count = 0;
    }

    /// Takes the bar away.
    pub fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// One second in one line: rate, median, 99th percentile and errors of each operation.
fn line(operations: &[&str], series: &[Series], warm_up_count: u64, span: Duration) -> String {
    let mut parts = Vec::new();
    if warm_up_count > 0 {
        parts.push(format!(
            "warming up {:.0}/s",
            warm_up_count as f64 / span.as_secs_f64()
        ));
    }
    for (name, series) in operations.iter().zip(series) {
        if series.count() + series.error_count() == 0 {
            continue;
        }
        let rate = series.count() as f64 / span.as_secs_f64();
        let (p50, p99) = (series.quantile_ms(0.5), series.quantile_ms(0.99));
        let mut part = format!("{name} {rate:.0}/s p50 {p50:.2} p99 {p99:.2} ms");
        if series.error_count() > 0 {
            part.push_str(&format!(" {} errors", series.error_count()));
        }
        parts.push(part);
    }
    if parts.is_empty() {
        "no request ended".to_owned()
    } else {
        parts.join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Fault;

    #[test]
    fn a_line_tells_rates_latencies_and_errors() {
        let mut acquire = Series::new();
        for _ in 0..20 {
            acquire.succeeded(Duration::from_millis(5), Duration::from_millis(5));
        }
        let mut status = Series::new();
        status.failed(Fault {
            code: "no_leader",
            unknown: false,
        });
        let series = [acquire, Series::new(), status];
        let operations = ["acquire", "release", "status"];
        assert_eq!(
            line(&operations, &series, 0, Duration::from_secs(2)),
            "acquire 10/s p50 5.00 p99 5.00 ms | status 0/s p50 0.00 p99 0.00 ms 1 errors"
        );
        assert_eq!(
            line(&["echo"], &[Series::new()], 500, Duration::from_secs(1)),
            "warming up 500/s"
        );
        assert_eq!(
            line(&["echo"], &[Series::new()], 0, Duration::from_secs(1)),
            "no request ended"
        );
    }
}
