//! The `mufakat` binary: parse, start logging, dispatch, exit code.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use mufakat::cli::{self, Cli};
use mufakat::config;
use tracing_subscriber::EnvFilter;

/// Small pieces are allocated and freed by the million here; the system's allocator spent a quarter
/// of a node's time on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli: Cli = config::parse();
    if let Err(wrong) = start_logging(cli.is_service()) {
        eprintln!("mufakat: {wrong}");
        return ExitCode::FAILURE;
    }
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
///
/// They are text on a terminal and of commands, and one JSON object a line of a service, whose log others
/// collect; `MUFAKAT_LOG_FORMAT` is `text` or `json` for whoever wants it otherwise.
fn start_logging(is_service: bool) -> Result<(), String> {
    let of_variable = |name| {
        let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
        EnvFilter::try_new(text).ok()
    };
    let filter = of_variable("MUFAKAT_LOG")
        .or_else(|| of_variable("RUST_LOG"))
        .unwrap_or_else(|| EnvFilter::new("warn,mufakat=info,async_nats=error,openraft=off"));
    let on_terminal = io::stderr().is_terminal();
    let format = std::env::var("MUFAKAT_LOG_FORMAT").unwrap_or_default();
    let as_json = match format.as_str() {
        "json" => true,
        "text" => false,
        "" => is_service && !on_terminal,
        _ => return Err(format!("MUFAKAT_LOG_FORMAT is text or json, not {format}")),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    if as_json {
        log.json().flatten_event(true).with_span_list(false).init();
    } else {
        log.with_ansi(on_terminal).init();
    }
    Ok(())
}
