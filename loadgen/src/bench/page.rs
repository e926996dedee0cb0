//! The page that `bench` writes, in Markdown.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use super::Results;
use super::by_hand::ByHand;
use crate::report::Report;
use crate::report::figures::{Figures, Run};

const INTRODUCTION: &str = "\
# Benchmarks

`make bench` measured these figures and wrote this page: one cluster of its own, one workload after the other, all of
them on one machine with the load generator. So generator, broker, Redis and nodes take CPU time from each other, and
the ratios say more than the rates: to the raw echo of the same broker (a request that a responder only sends back) and
to what the same Redis does when it is asked without a queue in between (`RPUSH`, one value each). A grant and a
release of a lock are on the disks of a majority of the nodes before they are answered, a push on the disk of Redis.
";

const READING: &str = "\
Each line of the first column is a command of [`loadgen`](loadgen.md). Requests are closed loops unless they have a
`--rate`: a client sends one when the last one was answered. \"all\" adds up the requests of a workload; the ratios are
of those. Latency is in milliseconds, from the instant that was meant for the request. The last column is the CPU time
of the load threads, in percent of one core.
";

/// The whole page.
pub fn text(results: &Results) -> String {
    let mut page = INTRODUCTION.to_owned();
    let Some((_, first)) = results.reports.first() else {
        return page;
    };
    page.push_str(&machine(results, first));
    page.push_str("\n## Workloads\n\n");
    page.push_str(READING);
    page.push_str(&workloads(results));
    page.push_str(&generator(results));
    page
}

fn machine(results: &Results, first: &Report) -> String {
    // What the echo, which asks no node, does not know.
    let cluster = results.reports.iter().find_map(|(_, report)| {
        let environment = &report.environment;
        environment.nodes.map(|nodes| (nodes, environment))
    });
    let environment = &first.environment;
    let mut text = String::from("\n| | |\n|---|---|\n");
    let mut row = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = writeln!(text, "| {name} | {value} |");
        }
    };
    let measured = UNIX_EPOCH + Duration::from_millis(first.started_at_ms);
    let measured = humantime::format_rfc3339_seconds(measured).to_string();
    row(
        "measured",
        Some(measured.replace('T', " ").replace('Z', " UTC")),
    );
    row("revision", environment.git_revision.clone());
    row("CPU", environment.cpu.clone());
    row("cores", environment.cores.map(|cores| cores.to_string()));
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    row("memory", environment.memory_bytes.map(gib));
    row("kernel", environment.kernel.clone());
    row("nats-server", environment.broker_version.clone());
    row("Redis", results.redis_version.clone());
    if let Some((nodes, environment)) = cluster {
        let version = environment.mufakat_version.as_deref().unwrap_or_default();
        row("Mufakat", Some(format!("{version}, {nodes} nodes")));
        let durability = environment.redis.as_ref().and_then(|redis| {
            let json = serde_json::to_value(redis).ok()?;
            Some(json.get("durability")?.as_str()?.to_owned())
        });
        row("what a push survives", durability);
    }
    let settings = &first.settings;
    let seconds = settings.duration_ms as f64 / 1000.0;
    let warm_up = settings.warm_up_ms as f64 / 1000.0;
    let each = format!(
        "{seconds} s after {warm_up} s of warm-up, {} clients, {} connection, {} load thread, {}",
        settings.users,
        settings.connections,
        settings.threads,
        settings.encoding.to_uppercase()
    );
    row("each workload", Some(each));
    if environment.debug_build {
        let warning = "**without optimisation: the figures say little**".to_owned();
        row("build", Some(warning));
    }
    text
}

fn workloads(results: &Results) -> String {
    let rate_of = |workload: &str| {
        let mut runs = results.reports.iter().flat_map(|(_, report)| &report.runs);
        let run = runs.find(|run| run.workload == workload);
        run.map(Run::rate_of_all)
    };
    let limits = Limits {
        echo: rate_of("echo"),
        redis: rate_of("redis"),
    };
    let mut text = String::from(
        "\n| workload | operation | per second | p50 | p99 | p99.9 | errors | of the echo | of Redis | generator |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for (command, report) in &results.reports {
        for run in &report.runs {
            text.push_str(&rows(command, run, report, &limits));
        }
    }
    text
}

/// What was possible, per second.
struct Limits {
    echo: Option<f64>,
    redis: Option<f64>,
}

/// A row for each operation, and one for all where there are several. The ratios stand in the last.
fn rows(command: &str, run: &Run, report: &Report, limits: &Limits) -> String {
    let mut name = match run.workload.strip_prefix("queue ") {
        Some(part) => format!("`{command}`, {part}"),
        None => format!("`{command}`"),
    };
    let batch = report.queue.as_ref().map_or(1, |queue| queue.batch);
    let pushes = run.workload.contains("queue");
    // A pace decides the rate of an open loop.
    let is_unpaced = run.sends.is_none();
    let echo = limits
        .echo
        .filter(|_| is_unpaced && run.workload != "redis");
    let redis = limits.redis.filter(|_| is_unpaced && pushes);
    let all = run.rate_of_all();
    let ratios = [
        echo.map(|echo| percent(all / echo)),
        // A request that is about many values is no match for one of Redis about one.
        redis
            .filter(|_| batch == 1)
            .map(|redis| percent(all / redis)),
        cpu_share(run, report),
    ];
    let ratios = ratios.map(Option::unwrap_or_default);
    let used: Vec<&Figures> = run
        .operations
        .iter()
        .filter(|figures| figures.count + figures.errors > 0)
        .collect();
    let mut text = String::new();
    for figures in &used {
        let latency = &figures.latency;
        let mut cells = vec![
            std::mem::take(&mut name),
            figures.operation.clone(),
            thousands(figures.rate),
        ];
        let latencies = [latency.p50_ms, latency.p99_ms, latency.p999_ms];
        cells.extend(latencies.map(|ms| format!("{ms:.2}")));
        cells.push(figures.errors.to_string());
        if used.len() == 1 {
            cells.extend(ratios.clone());
        }
        push_row(&mut text, cells);
    }
    if used.len() > 1 {
        let errors: u64 = used.iter().map(|figures| figures.errors).sum();
        let mut cells = vec![String::new(), "all".to_owned(), thousands(all)];
        cells.extend([
            String::new(),
            String::new(),
            String::new(),
            errors.to_string(),
        ]);
        cells.extend(ratios);
        push_row(&mut text, cells);
    }
    if batch > 1 && used.len() == 1 {
        let messages = all * f64::from(batch);
        let mut cells = vec![String::new(), "messages".to_owned(), thousands(messages)];
        cells.resize(8, String::new());
        cells.extend(redis.map(|redis| percent(messages / redis)));
        push_row(&mut text, cells);
    }
    text
}

/// Cells that are missing at the end are empty.
fn push_row(text: &mut String, mut cells: Vec<String>) {
    cells.resize(10, String::new());
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

/// CPU time of the load threads in percent of a core.
fn cpu_share(run: &Run, report: &Report) -> Option<String> {
    let warm_up_s = report.settings.warm_up_ms as f64 / 1000.0;
    let cpu_s = run.load_threads_cpu_s?;
    Some(percent(cpu_s / (run.elapsed_s + warm_up_s)))
}

/// The generator's echo beside the loop by hand.
fn generator(results: &Results) -> String {
    let echo = results.reports.iter().find_map(|(_, report)| {
        let run = report.runs.iter().find(|run| run.workload == "echo")?;
        Some((run, report))
    });
    let Some((run, report)) = echo else {
        return String::new();
    };
    let by_hand = &results.by_hand;
    let ByHand { elapsed, cpu, .. } = by_hand;
    let hand_cpu = cpu.map(|cpu| percent(cpu.as_secs_f64() / elapsed.as_secs_f64()));
    format!(
        "\n## The generator itself\n\n\
         A loop of `async_nats::Client::request` written by hand, which counts answers and nothing else, sent as many\n\
         requests at a time to the same responder, half before the echo and half after it.\n\n\
         | | requests per second | CPU of its thread |\n|---|--:|--:|\n\
         | by hand | {} | {} |\n| `loadgen echo` | {} | {} |\n\n\
         The echo reached {} of the loop by hand.\n",
        thousands(by_hand.rate()),
        hand_cpu.unwrap_or_default(),
        thousands(run.rate_of_all()),
        cpu_share(run, report).unwrap_or_default(),
        percent(run.rate_of_all() / by_hand.rate()),
    )
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// A number with commas between thousands.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Settings;
    use crate::report::figures::Percentiles;
    use crate::report::summary::QueueSummary;

    fn report(workload: &str, rates: &[(&str, f64)]) -> Report {
        let settings = Settings {
            users: 100,
            duration_ms: 8000,
            warm_up_ms: 2000,
            encoding: "json".to_owned(),
            connections: 1,
            threads: 1,
            ..Settings::default()
        };
        let mut report = Report::begin(Default::default(), settings);
        let figures = |(operation, rate): &(&str, f64)| Figures {
            operation: (*operation).to_owned(),
            count: (rate * 8.0) as u64,
            rate: *rate,
            latency: Percentiles {
                p50_ms: 1.5,
                p99_ms: 3.25,
                p999_ms: 9.0,
                ..Percentiles::default()
            },
            ..Figures::default()
        };
        report.runs.push(Run {
            workload: workload.to_owned(),
            elapsed_s: 8.0,
            load_threads_cpu_s: Some(4.0),
            operations: rates.iter().map(figures).collect(),
            ..Run::default()
        });
        report
    }

    #[test]
    fn a_workload_stands_beside_what_was_possible() {
        let locks = [
            ("lock.acquire", 20_000.0),
            ("lock.release", 20_000.0),
            ("idle", 0.0),
        ];
        let pushes = |rate| report("queue pushes", &[("queue.push", rate)]);
        let mut batches = pushes(9_000.0);
        let run = batches.runs[0].clone();
        batches.queue = Some(QueueSummary::new(&run, &run, 10, None));
        let results = Results {
            reports: vec![
                ("echo", report("echo", &[("echo", 200_000.0)])),
                ("locks", report("locks", &locks)),
                ("queue", pushes(50_000.0)),
                ("queue --batch 10", batches),
                ("redis", report("redis", &[("rpush", 100_000.0)])),
            ],
            by_hand: ByHand {
                requests: 1_600_000,
                elapsed: Duration::from_secs(8),
                cpu: Some(Duration::from_secs(6)),
            },
            redis_version: Some("8.0.0".to_owned()),
        };
        let page = text(&results);
        for row in [
            "| `echo` | echo | 200,000 | 1.50 | 3.25 | 9.00 | 0 | 100 % |  | 40 % |",
            "| `locks` | lock.acquire | 20,000 | 1.50 | 3.25 | 9.00 | 0 |  |  |  |",
            "|  | lock.release | 20,000 | 1.50 | 3.25 | 9.00 | 0 |  |  |  |",
            "|  | all | 40,000 |  |  |  | 0 | 20 % |  | 40 % |",
            "| `queue`, pushes | queue.push | 50,000 | 1.50 | 3.25 | 9.00 | 0 | 25 % | 50 % | 40 % |",
            "| `queue --batch 10`, pushes | queue.push | 9,000 | 1.50 | 3.25 | 9.00 | 0 | 4 % |  | 40 % |",
            "|  | messages | 90,000 |  |  |  |  |  | 90 % |  |",
            "| `redis` | rpush | 100,000 | 1.50 | 3.25 | 9.00 | 0 |  |  | 40 % |",
            "| by hand | 200,000 | 75 % |",
            "The echo reached 100 % of the loop by hand.",
            "| Redis | 8.0.0 |",
        ] {
            assert!(
                page.contains(&format!("{row}\n")),
                "{row} is not in\n{page}"
            );
        }
        assert!(!page.contains("idle"), "{page}");
    }
}
