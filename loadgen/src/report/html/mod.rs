//! `--report`: one page that needs nothing but itself, for people who were not there.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use super::figures::{Figures, Run};
use super::{Report, table};
use crate::recorder::Series;
use crate::run::Recording;

mod charts;

const STYLE: &str = include_str!("style.css");

/// Writes the page. The recordings are those of the report's runs, in their order.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, report: &Report, recordings: &[Recording]) -> Result<()> {
    let page = page(report, recordings)?;
    std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))
}

fn page(report: &Report, recordings: &[Recording]) -> Result<String> {
    let command = escaped(&report.settings.command);
    let started = std::time::UNIX_EPOCH + Duration::from_millis(report.started_at_ms);
    let started = humantime::format_rfc3339_seconds(started)
        .to_string()
        .replace('T', " ")
        .replace('Z', " UTC");
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>loadgen {command}, {started}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Mufakat under load: {command}</h1>\n<p class=\"muted\">{started}</p>\n"
    );
    for line in table::summaries(report) {
        let _ = writeln!(page, "<p>{}</p>", escaped(&line));
    }
    if let Some(failure) = &report.failure {
        let _ = writeln!(page, "<p class=\"bad\">Failed: {}</p>", escaped(failure));
    }
    let is_kept = report
        .check
        .as_ref()
        .is_some_and(|check| check.violations == 0);
    if is_kept && report.failure.is_none() {
        page.push_str("<p class=\"good\">Every promise that was checked was kept.</p>\n");
    }
    if let Some(check) = report.check.as_ref().filter(|check| check.violations > 0) {
        let _ = writeln!(
            page,
            "<div class=\"card\"><h3 class=\"bad\">{} violations</h3><pre>{}</pre></div>",
            check.violations,
            escaped(&check.history)
        );
    }
    for (run, recording) in report.runs.iter().zip(recordings) {
        page.push_str(&section(run, recording)?);
    }
    page.push_str(&facts(report));
    page.push_str("</body>\n</html>\n");
    Ok(page)
}

/// One run: its figures, its table and its charts.
fn section(run: &Run, recording: &Recording) -> Result<String> {
    let stopped = if run.stopped { ", stopped early" } else { "" };
    let mut section = format!(
        "<h2>{} <span class=\"muted\">{:.1} s{stopped}</span></h2>\n{}{}",
        escaped(&run.workload),
        run.elapsed_s,
        tiles(run),
        figures_table(run),
    );
    let used = |(_, series): &&(&str, Series)| series.count() > 0;
    let histograms: Vec<&Histogram<u64>> = recording
        .operations
        .iter()
        .filter(used)
        .map(|(_, series)| series.latency_us())
        .collect();
    // What has no line has no colour either.
    let run = without_idle(run);
    let legend = legend(&run, "");
    let mut signs = String::new();
    if run.operations.iter().any(|figures| figures.errors > 0) {
        signs.push_str("<span><i class=\"band\"></i>errors in this second</span>");
    }
    if !run.marks.is_empty() {
        signs.push_str("<span><i class=\"mark\"></i>something was broken or mended</span>");
    }
    let charts = [
        (
            "Latency by percentile, ms",
            legend.clone(),
            charts::percentiles(&histograms)?,
        ),
        (
            "Successes per second",
            self::legend(&run, &signs),
            charts::throughput(&run)?,
        ),
        (
            "Latency over time, ms: 99th percentile, and the median as a thin line",
            self::legend(&run, &signs),
            charts::latency(&run)?,
        ),
    ];
    for (title, legend, chart) in charts {
        let _ = writeln!(
            section,
            "<div class=\"card\"><h3>{title}</h3>{legend}{chart}</div>"
        );
    }
    section.push_str(&marks(&run));
    Ok(section)
}

/// What was done to the cluster meanwhile.
fn marks(run: &Run) -> String {
    if run.marks.is_empty() {
        return String::new();
    }
    let mut html = String::from("<div class=\"card\"><h3>What was broken and mended</h3><dl>");
    for mark in &run.marks {
        let (at_s, event) = (mark.at_s, escaped(&mark.event));
        let _ = write!(html, "<dt>{at_s:.1} s</dt><dd>{event}</dd>");
    }
    html.push_str("</dl></div>\n");
    html
}

/// The run without operations that it had no use for.
fn without_idle(run: &Run) -> Run {
    let used = |place: &usize| run.operations[*place].count > 0;
    let places: Vec<usize> = (0..run.operations.len()).filter(used).collect();
    let mut run = run.clone();
    run.operations = places
        .iter()
        .map(|place| run.operations[*place].clone())
        .collect();
    for second in &mut run.seconds {
        let moments = places
            .iter()
            .filter_map(|place| second.operations.get(*place));
        second.operations = moments.cloned().collect();
    }
    run
}

fn tiles(run: &Run) -> String {
    let errors: u64 = run.operations.iter().map(|figures| figures.errors).sum();
    let class = if errors > 0 { "bad" } else { "good" };
    let mut tiles = format!(
        "<div class=\"tiles\"><div class=\"card\"><b>{}</b><span>requests per second</span></div>",
        grouped(run.rate_of_all())
    );
    if let Some(worst) = run
        .operations
        .iter()
        .filter(|figures| figures.count > 0)
        .max_by(|a, b| a.latency.p99_ms.total_cmp(&b.latency.p99_ms))
    {
        let _ = write!(
            tiles,
            "<div class=\"card\"><b>{:.2} ms</b><span>p99 of {}</span></div>",
            worst.latency.p99_ms,
            escaped(&worst.operation)
        );
    }
    let _ = write!(
        tiles,
        "<div class=\"card\"><b class=\"{class}\">{}</b><span>errors</span></div>",
        grouped(errors as f64)
    );
    if let Some(sends) = run.sends {
        let class = if sends.dropped > 0 { "bad" } else { "good" };
        let _ = write!(
            tiles,
            "<div class=\"card\"><b class=\"{class}\">{}</b><span>arrivals dropped, {} late</span></div>",
            grouped(sends.dropped as f64),
            grouped(sends.late as f64)
        );
    }
    tiles.push_str("</div>\n");
    tiles
}

fn figures_table(run: &Run) -> String {
    let mut html = String::from("<div class=\"card scroll\"><table><tr>");
    for head in table::HEADER {
        let _ = write!(html, "<th>{head}</th>");
    }
    html.push_str("</tr>\n");
    for figures in &run.operations {
        html.push_str(&row(&figures.operation, "", figures));
        for detail in &run.details {
            if let Some(name) = detail.operation.strip_prefix(&figures.operation) {
                html.push_str(&row(name.trim(), " class=\"detail\"", detail));
            }
        }
    }
    html.push_str("</table></div>\n");
    html
}

fn row(name: &str, class: &str, figures: &Figures) -> String {
    let latency = &figures.latency;
    let errors = match figures.errors {
        0 => "0".to_owned(),
        errors => format!("<span class=\"bad\">{errors}</span>"),
    };
    let mut row = format!(
        "<tr><td{class}>{}</td><td>{}</td><td>{errors}</td><td>{}</td>",
        escaped(name),
        grouped(figures.count as f64),
        grouped(figures.rate),
    );
    for ms in [
        latency.p50_ms,
        latency.p95_ms,
        latency.p99_ms,
        latency.p999_ms,
        latency.max_ms,
    ] {
        let _ = match figures.count {
            0 => write!(row, "<td>-</td>"),
            _ => write!(row, "<td>{ms:.2}</td>"),
        };
    }
    row.push_str("</tr>\n");
    row
}

fn legend(run: &Run, more: &str) -> String {
    let mut legend = String::from("<div class=\"legend\">");
    for (place, figures) in run.operations.iter().enumerate() {
        let _ = write!(
            legend,
            "<span><i style=\"background:var(--series-{})\"></i>{}</span>",
            place % charts::SERIES.len() + 1,
            escaped(&figures.operation)
        );
    }
    legend.push_str(more);
    legend.push_str("</div>");
    legend
}

/// Settings and machine, as the JSON has them.
fn facts(report: &Report) -> String {
    let mut html = String::new();
    let parts = [
        ("Settings", serde_json::to_value(&report.settings)),
        (
            "Machine and versions",
            serde_json::to_value(&report.environment),
        ),
    ];
    for (title, value) in parts {
        let _ = write!(html, "<h2>{title}</h2><div class=\"card\"><dl>");
        if let Ok(serde_json::Value::Object(fields)) = value {
            for (name, value) in &fields {
                facts_of(&mut html, name, value);
            }
        }
        html.push_str("</dl></div>\n");
    }
    html
}

fn facts_of(html: &mut String, name: &str, value: &serde_json::Value) {
    let text = match value {
        serde_json::Value::Null => return,
        serde_json::Value::Object(fields) => {
            for (inner, value) in fields {
                facts_of(html, &format!("{name} {inner}"), value);
            }
            return;
        }
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let name = name.replace('_', " ");
    let _ = write!(
        html,
        "<dt>{}</dt><dd>{}</dd>",
        escaped(&name),
        escaped(&text)
    );
}

/// A number with thin spaces between thousands, and a digit after the point below a hundred.
fn grouped(number: f64) -> String {
    if number < 100.0 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::Mark;
    use crate::recorder::{Fault, Interval};
    use crate::report::Settings;
    use crate::timeline::Timeline;

    #[test]
    fn a_page_has_everything_and_needs_nothing() {
        let mut timeline = Timeline::new(2, false);
        for second in 0..5 {
            let mut series = Series::new();
            for n in 1..1000 {
                series.succeeded(Duration::from_micros(n * n), Duration::from_micros(n));
            }
            series.failed(Fault {
                code: "no_leader",
                unknown: false,
            });
            timeline.add(&Interval {
                second: Some(second),
                series: vec![series, Series::new()],
                warm_up_count: 0,
            });
        }
        let elapsed = Duration::from_secs(5);
        let (totals, seconds) = timeline.finish(elapsed);
        let names = ["cache.get", "cache.increment"];
        let recording = Recording {
            workload: "cache",
            recorded_from: std::time::UNIX_EPOCH,
            operations: names.into_iter().zip(totals).collect(),
            details: Vec::new(),
            seconds,
            sends: None,
            elapsed,
            cpu: None,
            marks: vec![Mark {
                at_s: 2.5,
                event: "node-2 killed".to_owned(),
            }],
            stopped: false,
            failure: None,
        };
        let settings = Settings {
            command: "<cache>".to_owned(),
            ..Settings::default()
        };
        let mut report = Report::begin(Default::default(), settings);
        report.runs.push(Run::new(&recording));
        let page = page(&report, &[recording]).unwrap();
        assert_eq!(page.matches("<svg").count(), 6);
        assert!(page.contains("&lt;cache&gt;") && !page.contains("<cache>"));
        assert!(page.contains("errors in this second"));
        assert!(page.contains("<dt>2.5 s</dt><dd>node-2 killed</dd>"));
        assert_eq!(
            page.matches("stroke=\"#62615C\" stroke-width").count(),
            4,
            "a line in each chart over time"
        );
        for outside in ["http://", "https://", "url("] {
            let others = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!others.contains(outside), "{outside}");
        }
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(grouped(1_234_567.0), "1\u{202f}234\u{202f}567");
        assert_eq!(
            (grouped(12.34), grouped(0.0)),
            ("12.3".to_owned(), "0".to_owned())
        );
    }
}
