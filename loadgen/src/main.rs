//! `loadgen`: puts load on a Mufakat cluster and measures it.
//!
//! A command runs workloads (`workload`), each through `run`: load threads whose users are paced by `pacer` (in an
//! open loop by `schedule`) and recorded by `recorder`; `timeline` adds up what the threads tell each second. `report`
//! holds what is left of that.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

mod batching;
mod cli;
mod commands;
mod cpu;
mod pacer;
mod progress;
mod recorder;
mod report;
mod responder;
mod run;
mod schedule;
mod timeline;
mod workload;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match execute(&cli) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(errors) => {
            eprintln!("loadgen: {errors} requests failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("loadgen: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the command and prints its figures; returns how many requests failed.
fn execute(cli: &cli::Cli) -> Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(commands::execute(cli))?;
    print!("{}", report::table::text(&report));
    if let Some(path) = &cli.target.json {
        report.write_json(path)?;
    }
    Ok(report.error_count())
}
