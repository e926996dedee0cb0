//! The `mufakat` binary: parse, start logging, dispatch, exit code.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use mufakat::cli::{self, Cli};
use mufakat::config;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Small pieces are allocated and freed by the million here; the system's allocator spent a quarter
/// of a node's time on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli: Cli = config::parse();
    if let Err(wrong) = start_logging(cli.is_service()) {
        let _ = writeln!(io::stderr(), "mufakat: {wrong}");
        return ExitCode::FAILURE;
    }
    // Nothing here needs more than one core; a single thread has no locks to wait for.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(cli::run(cli)).into(),
        Err(error) => {
            let _ = writeln!(io::stderr(), "mufakat: cannot start the runtime: {error}");
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
    let of_variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let filter = match of_variable("MUFAKAT_LOG") {
        Some(text) => filter(&text)?,
        // It is meant for other programs too.
        None => of_variable("RUST_LOG")
            .and_then(|text| EnvFilter::try_new(text).ok())
            .unwrap_or_else(|| EnvFilter::new("warn,mufakat=info,async_nats=error,openraft=off")),
    };
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
        // What cannot be written is lost: saying so on stderr, which fails too, would be a panic.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    if as_json {
        log.json().flatten_event(true).with_span_list(false).init();
    } else {
        let in_colour = on_terminal && of_variable("NO_COLOR").is_none();
        log.with_ansi(in_colour).init();
    }
    Ok(())
}

/// What is logged, by the words of `MUFAKAT_LOG`. A word alone is a level or one of ours: any other would be
/// taken for a part of the program, of which there is none, and nothing would be logged.
fn filter(text: &str) -> Result<EnvFilter, String> {
    const PARTS: [&str; 3] = ["mufakat", "async_nats", "openraft"];
    let refused = |why: &str| {
        format!(
            "MUFAKAT_LOG: {text:?} {why}; right would be debug, mufakat=debug or \
             info,mufakat::request=debug"
        )
    };
    for word in text.split(',').filter(|word| !word.is_empty()) {
        let is_part = PARTS.contains(&word.split("::").next().unwrap_or_default());
        if !word.contains(['=', '[', ']', '{', '}'])
            && !is_part
            && word.parse::<LevelFilter>().is_err()
        {
            return Err(refused(&format!("has `{word}`, which is no level")));
        }
    }
    EnvFilter::try_new(text).map_err(|error| refused(&format!("cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_log_nothing_is_refused() {
        for right in [
            "info",
            "WARN",
            "off",
            "mufakat=debug",
            "info,mufakat::request=debug",
            "mufakat::request",
            "warn,async_nats=error,openraft=off",
            "[request{operation=lock.acquire}]=debug",
            "mufakat[request]=trace",
        ] {
            assert!(filter(right).is_ok(), "{right}");
        }
        for wrong in [
            "inof",
            "mufakat:debug",
            "mufakat=debgu",
            "info,mufakt",
            "info;debug",
        ] {
            let refused = filter(wrong).err();
            let refused = refused.unwrap_or_else(|| panic!("{wrong} is taken"));
            assert!(refused.starts_with("MUFAKAT_LOG: \""), "{refused}");
        }
    }
}
