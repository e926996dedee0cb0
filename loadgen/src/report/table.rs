//! The table at the end, as text for a terminal or a README.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::prototype::{PROTOTYPE, Prototype, REQUESTS_PER_SECOND};
use super::{Figures, LocksSummary, QueueSummary, Report, Run};

const HEADER: [&str; 9] = [
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
        parts.extend(errors(run));
        parts.extend(cpu(run));
    }
    parts.extend(report.locks.as_ref().map(summary));
    parts.extend(report.queue.as_ref().map(queue_summary));
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

/// One run's operations, and their sum if there are several. Beside the prototype, its figures follow each
/// operation that it has.
fn table(run: &Run, beside_prototype: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(HEADER);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for figures in &run.operations {
        table.add_row(operation_row(figures));
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

fn operation_row(figures: &Figures) -> Vec<Cell> {
    let counts = [
        &figures.count.to_string(),
        &figures.errors.to_string(),
        &*rate(figures.rate),
    ];
    let Figures {
        p50_ms,
        p95_ms,
        p99_ms,
        p999_ms,
        max_ms,
        ..
    } = *figures;
    let known = figures.count > 0;
    let latencies = [p50_ms, p95_ms, p99_ms, p999_ms, max_ms].map(|ms| known.then_some(ms));
    row(figures.operation, counts.map(|text| text), latencies)
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

/// The errors by operation and code, if there are any.
fn errors(run: &Run) -> Option<String> {
    let mut codes = Vec::new();
    for figures in &run.operations {
        for (code, count) in &figures.errors_by_code {
            codes.push(format!("{} {code} {count}", figures.operation));
        }
    }
    (!codes.is_empty()).then(|| format!("Errors: {}", codes.join(", ")))
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

fn summary(summary: &LocksSummary) -> String {
    let mut text = format!(
        "Locks: {} pairs/s. Raw echo: {} requests/s, that is {} pairs/s. Locks reach {:.1} % of that.\n",
        rate(summary.pairs_per_second),
        rate(summary.echo_requests_per_second),
        rate(summary.echo_pairs_per_second),
        summary.percent_of_echo_pairs,
    );
    match (
        &summary.commands_per_entry,
        &summary.commands_per_entry_note,
    ) {
        (Some(commands), _) => text.push_str(&format!(
            "Commands per Raft entry: {commands:.1} on average"
        )),
        (None, note) => {
            let note = note.as_deref().unwrap_or("not measured");
            text.push_str(&format!("Commands per Raft entry: not known ({note})"));
        }
    }
    text
}

fn queue_summary(summary: &QueueSummary) -> String {
    format!(
        "Queue: {} pushes/s, {:.1} % of the raw echo's {} requests/s. {} cycles of push, pop and ack/s, {:.1} % of a \
         third of it.",
        rate(summary.pushes_per_second),
        summary.pushes_percent,
        rate(summary.echo_requests_per_second),
        rate(summary.cycles_per_second),
        summary.cycles_percent,
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn figures(operation: &'static str, count: u64, errors: u64) -> Figures {
        Figures {
            operation,
            count,
            errors,
            errors_by_code: BTreeMap::from_iter(
                (errors > 0).then(|| ("no_leader".to_owned(), errors)),
            ),
            rate: count as f64 / 60.0,
            mean_ms: 2.0,
            p50_ms: 1.5,
            p95_ms: 3.25,
            p99_ms: 4.0,
            p999_ms: 8.25,
            max_ms: 12.0,
        }
    }

    fn run(operations: Vec<Figures>) -> Run {
        let workload = "reference";
        Run {
            workload,
            stopped: false,
            elapsed_s: 60.0,
            load_threads_cpu_s: None,
            responder_cpu_s: None,
            operations,
        }
    }

    #[test]
    fn the_reference_table_stands_beside_the_prototype() {
        let run = run(vec![
            figures("acquire", 18_000, 0),
            figures("release", 18_000, 0),
            figures("status", 0, 7),
        ]);
        let expected = "\
| operation   | count | errors | per second | p50 ms | p95 ms | p99 ms | p99.9 ms | max ms |
|-------------|-------|--------|------------|--------|--------|--------|----------|--------|
| acquire     | 18000 |      0 |      300.0 |   1.50 |   3.25 |   4.00 |     8.25 |  12.00 |
|   prototype |     - |      - |       15.4 |  49.00 |  57.00 |  66.00 |        - |      - |
| release     | 18000 |      0 |      300.0 |   1.50 |   3.25 |   4.00 |     8.25 |  12.00 |
| status      |     0 |      7 |        0.0 |      - |      - |      - |        - |      - |
|   prototype |     - |      - |          - |   6.00 |      - |      - |        - |      - |
| all         | 36000 |      7 |      600.0 |      - |      - |      - |        - |      - |
|   prototype |     - |      - |       48.6 |      - |      - |      - |        - |      - |";
        let text = table(&run, true);
        assert_eq!(text, expected, "\n{text}");
        assert_eq!(errors(&run).as_deref(), Some("Errors: status no_leader 7"));
    }

    #[test]
    fn one_operation_has_no_sum() {
        let text = table(&run(vec![figures("echo", 600_000, 0)]), false);
        assert_eq!(text.lines().count(), 3, "\n{text}");
        assert!(text.contains("|      10000 |"), "\n{text}");
    }

    #[test]
    fn the_summary_says_what_is_not_known() {
        let locks = LocksSummary {
            pairs_per_second: 30_000.0,
            echo_requests_per_second: 200_000.0,
            echo_pairs_per_second: 100_000.0,
            percent_of_echo_pairs: 30.0,
            commands_per_entry: None,
            commands_per_entry_note: Some("nobody leads".to_owned()),
        };
        assert_eq!(
            summary(&locks),
            "Locks: 30000 pairs/s. Raw echo: 200000 requests/s, that is 100000 pairs/s. Locks reach 30.0 % of that.\n\
             Commands per Raft entry: not known (nobody leads)"
        );
        let known = LocksSummary {
            commands_per_entry: Some(47.25),
            ..locks
        };
        assert!(summary(&known).ends_with("Commands per Raft entry: 47.2 on average"));
    }
}
