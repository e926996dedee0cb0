//! The `mufakat` binary: parse, start logging, dispatch, exit code.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use mufakat::cli::{self, Cli};
use tracing_subscriber::EnvFilter;

/// Small pieces are allocated and freed by the million here; the system's allocator spent a quarter
/// of a node's time on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging();
    // Nothing here needs more than one core; a single thread has no locks to wait for.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(cli::run(cli)).into(),
        Err(error) => {
            eprintln!("mufakat: cannot start the runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Logs go to stderr: `MUFAKAT_LOG`, else `RUST_LOG`, else errors of the broker's client library and
/// everything from `info` of ours. Nothing of the Raft library: it calls it an error when a quorum is
/// gone or a node stops, twice a second; what stops Raft we say ourselves.
fn start_logging() {
    let filter = EnvFilter::try_from_env("MUFAKAT_LOG")
        .or_else(|_| EnvFilter::try_from_default_env())
        .unwrap_or_else(|_| EnvFilter::new("warn,mufakat=info,async_nats=error,openraft=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}
