//! The table at the end, as text for a terminal or a README.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::figures::{Figures, Percentiles, Run};
use super::prototype::{PROTOTYPE, Prototype, REQUESTS_PER_SECOND};
use super::summary::{BesideEcho, CacheSummary, LocksSummary, QueueSummary, RequestsSummary};
use super::{CheckSummary, Report};

pub const HEADER: [&str; 9] = [
    "operation",
    "count",
    "errors",
    "per second",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
];
/// What is not known.
const UNKNOWN: &str = "-";

/// Everything that is printed at the end of a call.
pub fn text(report: &Report) -> String {
    let beside_prototype = report.settings.command == "reference";
    let mut parts = Vec::new();
    for run in &report.runs {
        parts.push(head(run, &report.settings.encoding.to_uppercase()));
        parts.push(table(run, beside_prototype));
        parts.extend(sends(run));
        parts.extend(errors(run));
        parts.extend(refusals(run));
        parts.extend(cpu(run));
        parts.extend(marks(run));
    }
    parts.extend(summaries(report));
    let is_complete = report.failure.is_none();
    let check = report.check.as_ref();
    parts.extend(check.map(|check| check_summary(check, is_complete)));
    if report.environment.debug_build {
        parts.push(
            "Built without optimisation: these figures say little about a release build."
                .to_owned(),
        );
    }
    let mut text = parts.join("\n");
    text.push('\n');
    text
}

/// What the command was about, in a sentence or two.
pub fn summaries(report: &Report) -> Vec<String> {
    let locks = report.locks.as_ref().map(locks_summary);
    let queue = report.queue.as_ref().map(queue_summary);
    let cache = report.cache.as_ref().map(cache_summary);
    let requests = report.requests.as_ref().map(requests_summary);
    [locks, queue, cache, requests]
        .into_iter()
        .flatten()
        .collect()
}

fn head(run: &Run, encoding: &str) -> String {
    let stopped = if run.stopped { ", stopped early" } else { "" };
    let encoding = if run.workload == "echo" {
        String::new()
    } else {
        format!(", {encoding}")
    };
    format!(
        "{}: {:.1} s recorded{encoding}{stopped}",
        run.workload, run.elapsed_s
    )
}

/// One run's operations, and their sum if there are several. What is told apart within an operation follows it, and
/// beside the prototype its figures. In an open loop latencies from the sending stand below those from the arrival.
fn table(run: &Run, beside_prototype: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(HEADER);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for figures in run.operations.iter().filter(|figures| !is_idle(figures)) {
        table.add_row(operation_row(&figures.operation, figures));
        if run.sends.is_some() && figures.count > 0 {
            let latencies = latencies(&figures.since_send).map(Some);
            table.add_row(row("  since sending", [""; 3], latencies));
        }
        let details = run.details.iter();
        let details = details.filter_map(|detail| {
            let name = detail.operation.strip_prefix(&figures.operation)?;
            Some(operation_row(&format!(" {name}"), detail))
        });
        table.add_rows(details);
        let prototype = PROTOTYPE
            .iter()
            .find(|prototype| prototype.operation == figures.operation);
        if let Some(prototype) = prototype.filter(|_| beside_prototype) {
            table.add_row(prototype_row(prototype));
        }
    }
    if run.operations.len() > 1 {
        table.add_row(sum_row(run));
    }
    if beside_prototype {
        table.add_row(row(
            "  prototype",
            [UNKNOWN, UNKNOWN, &rate(REQUESTS_PER_SECOND)],
            [None; 5],
        ));
    }
    table.to_string()
}

/// Whether the run had no use for the operation.
fn is_idle(figures: &Figures) -> bool {
    figures.count + figures.errors == 0 && figures.refusals_by_code.is_empty()
}

fn operation_row(name: &str, figures: &Figures) -> Vec<Cell> {
    let counts = [
        &figures.count.to_string(),
        &figures.errors.to_string(),
        &*rate(figures.rate),
    ];
    let known = figures.count > 0;
    let latencies = latencies(&figures.latency).map(|ms| known.then_some(ms));
    row(name, counts.map(|text| text), latencies)
}

fn latencies(percentiles: &Percentiles) -> [f64; 5] {
    let Percentiles {
        p50_ms,
        p95_ms,
        p99_ms,
        p999_ms,
        max_ms,
        ..
    } = *percentiles;
    [p50_ms, p95_ms, p99_ms, p999_ms, max_ms]
}

fn prototype_row(prototype: &Prototype) -> Vec<Cell> {
    let rate = prototype.rate.map_or(UNKNOWN.to_owned(), rate);
    let latencies = [
        prototype.p50_ms,
        prototype.p95_ms,
        prototype.p99_ms,
        None,
        None,
    ];
    row("  prototype", [UNKNOWN, UNKNOWN, &rate], latencies)
}

fn sum_row(run: &Run) -> Vec<Cell> {
    let count: u64 = run.operations.iter().map(|figures| figures.count).sum();
    let errors: u64 = run.operations.iter().map(|figures| figures.errors).sum();
    let rates: f64 = run.operations.iter().map(|figures| figures.rate).sum();
    row(
        "all",
        [&count.to_string(), &errors.to_string(), &rate(rates)],
        [None; 5],
    )
}

fn row(name: &str, counts: [&str; 3], latencies_ms: [Option<f64>; 5]) -> Vec<Cell> {
    let latencies = latencies_ms.map(|ms| ms.map_or(UNKNOWN.to_owned(), |ms| format!("{ms:.2}")));
    let mut cells = vec![Cell::new(name)];
    cells.extend(counts.iter().map(Cell::new));
    cells.extend(latencies.iter().map(Cell::new));
    cells
}

fn rate(per_second: f64) -> String {
    if per_second < 1000.0 {
        format!("{per_second:.1}")
    } else {
        format!("{per_second:.0}")
    }
}

/// What became of the arrivals of an open loop.
fn sends(run: &Run) -> Option<String> {
    let sends = run.sends?;
    Some(format!(
        "Arrivals: {} sent, {} of them late; {} dropped",
        sends.sent, sends.late, sends.dropped
    ))
}

/// The errors by operation and code, if there are any.
fn errors(run: &Run) -> Option<String> {
    let mut codes = Vec::new();
    let mut unknown = 0;
    for figures in &run.operations {
        unknown += figures.unknown;
        for (code, count) in &figures.errors_by_code {
            codes.push(format!("{} {code} {count}", figures.operation));
        }
    }
    let unknown = match unknown {
        0 => String::new(),
        _ => format!(" ({unknown} of them may have taken effect)"),
    };
    (!codes.is_empty()).then(|| format!("Errors: {}{unknown}", codes.join(", ")))
}

/// What the workload foresees, by operation and code, if there is any.
fn refusals(run: &Run) -> Option<String> {
    let mut codes = Vec::new();
    for figures in &run.operations {
        for (code, count) in &figures.refusals_by_code {
            codes.push(format!("{} {code} {count}", figures.operation));
        }
    }
    (!codes.is_empty()).then(|| format!("Refused, as foreseen: {}", codes.join(", ")))
}

/// What the generator itself costs, so that one sees whether it is the bottleneck.
fn cpu(run: &Run) -> Option<String> {
    let load = run.load_threads_cpu_s?;
    let responder = run.responder_cpu_s.map_or(String::new(), |cpu| {
        format!(", its echo responder {cpu:.2} s")
    });
    Some(format!(
        "CPU time of the generator: load threads {load:.2} s{responder} (warm-up included)"
    ))
}

/// What was done to the cluster meanwhile, a line each.
fn marks(run: &Run) -> Option<String> {
    let marks = run.marks.iter();
    let lines = marks.map(|mark| format!("\n  {:>6.1} s  {}", mark.at_s, mark.event));
    (!run.marks.is_empty()).then(|| format!("Chaos:{}", lines.collect::<String>()))
}

fn locks_summary(summary: &LocksSummary) -> String {
    let mut text = format!("Locks: {} pairs/s", rate(summary.pairs_per_second));
    if let Some(echo) = &summary.beside_echo {
        text.push_str(&format!(
            ". Raw echo: {} requests/s, that is {} pairs/s. Locks reach {:.1} % of that",
            rate(echo.requests_per_second),
            rate(echo.limit_per_second),
            echo.percent
        ));
    }
    text.push_str(".\nCommands per Raft entry: ");
    match summary.commands_per_entry {
        Some(commands) => text.push_str(&format!("{commands:.1} on average")),
        None => {
            let note = summary.commands_per_entry_note.as_deref();
            text.push_str(&format!("not known ({})", note.unwrap_or("not measured")));
        }
    }
    text
}

fn queue_summary(summary: &QueueSummary) -> String {
    let mut text = format!("Queue: {} pushes/s", rate(summary.pushes_per_second));
    if summary.batch > 1 {
        let messages = summary.pushes_per_second * f64::from(summary.batch);
        let (batch, messages) = (summary.batch, rate(messages));
        text.push_str(&format!(" of {batch}, that is {messages} messages/s"));
    }
    if let Some(echo) = &summary.pushes_beside_echo {
        text.push_str(&of_echo(echo));
    }
    text.push_str(&format!(
        ". {} cycles of push, pop and ack/s",
        rate(summary.cycles_per_second)
    ));
    if let Some(echo) = &summary.cycles_beside_echo {
        text.push_str(&format!(", {:.1} % of a third of it", echo.percent));
    }
    text.push('.');
    text
}

fn cache_summary(summary: &CacheSummary) -> String {
    let mut text = format!("Cache: {} requests/s", rate(summary.requests_per_second));
    if let Some(echo) = &summary.beside_echo {
        text.push_str(&of_echo(echo));
    }
    text.push_str(&format!(
        ". Of the reads {:.1} % found a value, {:.1} % in the memory of the node that was asked.",
        summary.hits_percent, summary.local_percent
    ));
    text
}

fn requests_summary(summary: &RequestsSummary) -> String {
    let (name, rate) = (&summary.workload, rate(summary.requests_per_second));
    let beside_echo = summary.beside_echo.as_ref().map_or(String::new(), of_echo);
    format!("All of {name}: {rate} requests/s{beside_echo}.")
}

fn check_summary(check: &CheckSummary, is_complete: bool) -> String {
    match check.violations {
        0 if is_complete => "Check: no violation.".to_owned(),
        0 => "Check: no violation until the call failed.".to_owned(),
        _ => check.history.trim_end().to_owned(),
    }
}

fn of_echo(echo: &BesideEcho) -> String {
    format!(
        ", {:.1} % of the raw echo's {} requests/s",
        echo.percent,
        rate(echo.requests_per_second)
    )
}

#[cfg(test)]
mod tests;
