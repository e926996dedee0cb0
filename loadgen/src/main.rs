//! `loadgen`: puts load on a Mufakat cluster and measures it.
//!
//! A command runs workloads (`workload`), each through `run`: load threads whose users are paced by `pacer` (in an
//! open loop by `schedule`), checked by `check` and recorded by `recorder`; `timeline` adds up what the threads tell
//! each second. `report` holds what is left of that and judges it. `chaos` breaks the cluster meanwhile, `bench` runs a
//! set of commands against a cluster of its own, and `crew` one command on several machines.

use std::env;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap::error::ErrorKind;

mod batching;
mod bench;
mod chaos;
mod check;
mod cli;
mod commands;
mod console;
mod cpu;
mod crew;
mod interrupt;
mod pacer;
mod progress;
mod recorder;
mod report;
mod responder;
mod run;
mod schedule;
mod timeline;
mod workload;

use crew::{Coordinator, Order, Role};
use mufakat::broker::options::NatsOptions;
use mufakat::config;
use report::{Report, compare, files, html};
use run::Recording;
use workload::resource::RunName;

/// Requests failed, or the run could not be done. The command line's own errors are 2.
const ERROR: u8 = 1;
/// A promise of the cluster was broken.
const VIOLATION: u8 = 70;
/// A figure is worse than the baseline's.
const REGRESSION: u8 = 98;
/// A threshold does not hold.
const THRESHOLD: u8 = 99;

fn main() -> ExitCode {
    let cli = consistent(config::parse());
    if let Some(flag) = cli::Cli::stray_flag(env::args_os()) {
        conflict(format!(
            "{flag} belongs behind the command that the workers run"
        ));
    }
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        // What cannot be written is lost: saying so on stderr, which fails too, would be a panic.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .init();
    let executed = match &cli.command {
        cli::Command::Compare(flags) => show_changes(flags),
        cli::Command::Bench(flags) => benchmark(flags),
        cli::Command::Coordinate(flags) => coordinate(flags),
        cli::Command::Worker(flags) => work(flags, &cli.nats),
        _ => execute(&cli, None),
    };
    match executed {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error);
            ExitCode::from(ERROR)
        }
    }
}

/// The command line, if its flags go together.
fn consistent(cli: cli::Cli) -> cli::Cli {
    if let Err(reason) = cli.consistent() {
        conflict(reason);
    }
    cli
}

/// Ends the program as other errors of the command line do.
fn conflict(reason: impl Display) -> ! {
    let mut command = cli::Cli::command();
    command.error(ErrorKind::ArgumentConflict, reason).exit()
}

fn show_changes(flags: &cli::CompareFlags) -> Result<u8> {
    let before = Report::read_json(&flags.before)?;
    let after = Report::read_json(&flags.after)?;
    console::print(compare::text(&before, &after));
    Ok(0)
}

/// Says what went wrong.
fn complain(error: &anyhow::Error) {
    console::note(format_args!("loadgen: {error:#}"));
}

fn benchmark(flags: &cli::BenchFlags) -> Result<u8> {
    let all_well = runtime()?.block_on(bench::run(flags))?;
    Ok(if all_well { 0 } else { ERROR })
}

/// Runs a command by workers.
fn coordinate(flags: &cli::CoordinateFlags) -> Result<u8> {
    let words = ["loadgen"].into_iter();
    let words = words.chain(flags.command.iter().map(String::as_str));
    let command = consistent(config::parse_from(words));
    command.command.shareable()?;
    execute(&command, Some(flags))
}

fn work(flags: &cli::WorkerFlags, nats: &NatsOptions) -> Result<u8> {
    runtime()?.block_on(crew::work(flags, nats))?;
    Ok(0)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}

/// Runs the command, alone or by workers, writes and prints its figures and judges them; returns the exit code.
fn execute(cli: &cli::Cli, workers: Option<&cli::CoordinateFlags>) -> Result<u8> {
    let output = &cli.output;
    // A baseline that cannot be read is told before the run, not after it.
    let baseline = output.baseline.as_deref().map(Report::read_json);
    let baseline = baseline.transpose()?;
    // So are files that cannot be written.
    let results = [&output.json, &output.hdr_log, &output.csv, &output.report];
    for path in results.into_iter().flatten() {
        files::check_writable(path)?;
    }
    if let Some(directory) = &output.hgrm {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot write {}", directory.display()))?;
    }
    let (report, recordings) = runtime()?.block_on(async {
        let name = RunName::new();
        let Some(flags) = workers else {
            return commands::execute(cli, Role::Alone, name).await;
        };
        let coordinator = Coordinator::gather(cli, flags, &name).await?;
        let job = coordinator.job().clone();
        let done = commands::execute(cli, Role::Coordinator(coordinator), name).await;
        // Whatever came of it: nobody is to wait for more.
        let stopped = job.order(Order::Stop).await;
        let (mut report, recordings) = done?;
        if let Err(error) = stopped {
            report.fail(&error);
        }
        Ok((report, recordings))
    })?;
    // Before anything is printed: nobody may be there to read it.
    let written = write_files(output, &report, &recordings);
    console::print(report::table::text(&report));
    let thresholds_hold = judge(output, &report);
    let is_no_worse = baseline.is_none_or(|baseline| !has_regression(&baseline, &report, output));
    let errors = report.error_count();
    if errors > 0 {
        console::note(format_args!("loadgen: {errors} requests failed"));
    }
    for error in &written {
        complain(error);
    }
    if let Some(failure) = &report.failure {
        console::note(format_args!("loadgen: {failure}"));
    }
    // Who breaks a cluster expects errors; only broken promises are news.
    let may_have_errors =
        output.thresholds.iter().any(|one| one.is_about_errors()) || cli.command.chaos().is_some();
    let broken = report
        .check
        .as_ref()
        .is_some_and(|check| check.violations > 0);
    Ok(if broken {
        VIOLATION
    } else if !thresholds_hold {
        THRESHOLD
    } else if !is_no_worse {
        REGRESSION
    } else if (errors > 0 && !may_have_errors) || report.failure.is_some() || !written.is_empty() {
        ERROR
    } else {
        0
    })
}

/// Writes all files that were asked for; why some could not be.
fn write_files(
    output: &cli::OutputFlags,
    report: &Report,
    recordings: &[Recording],
) -> Vec<anyhow::Error> {
    let to =
        |path: &Option<PathBuf>, write: &dyn Fn(&Path) -> Result<()>| path.as_deref().map(write);
    let written = [
        to(&output.json, &|path| report.write_json(path)),
        to(&output.hdr_log, &|path| {
            files::write_hdr_log(path, recordings)
        }),
        to(&output.hgrm, &|path| files::write_hgrm(path, recordings)),
        to(&output.csv, &|path| files::write_csv(path, recordings)),
        to(&output.report, &|path| {
            html::write(path, report, recordings)
        }),
    ];
    written
        .into_iter()
        .flatten()
        .filter_map(Result::err)
        .collect()
}

/// Prints how each threshold was met; whether all hold.
fn judge(output: &cli::OutputFlags, report: &Report) -> bool {
    let thresholds = output.thresholds.iter();
    let judged: Vec<_> = thresholds
        .flat_map(|threshold| threshold.judge(&report.runs))
        .collect();
    for judgement in &judged {
        console::print(format_args!("{judgement}\n"));
    }
    judged.iter().all(|judgement| judgement.holds)
}

/// Prints the run beside its baseline; whether it is worse.
fn has_regression(baseline: &Report, report: &Report, output: &cli::OutputFlags) -> bool {
    console::print(compare::text(baseline, report));
    let changes = compare::changes(baseline, report);
    let worse = changes
        .iter()
        .filter(|change| change.is_regression(output.noise));
    let mut has_any = false;
    for change in worse {
        has_any = true;
        console::print(format_args!(
            "Regression: {} {} {} {:+.1} %\n",
            change.workload, change.operation, change.metric, change.percent
        ));
    }
    if changes.is_empty() {
        console::print("Regression: the baseline has nothing of this run\n");
    }
    has_any || changes.is_empty()
}
