//! The `mufakat` binary: parse, start logging, dispatch, exit code.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use mufakat::cli::{self, Cli};
use mufakat::config;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

/// A node allocates and frees small pieces by the million. The allocator of the system spent a quarter of a node's
/// time on that.
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

/// What is logged of the libraries unless the filter names them: errors of the NATS client library, and nothing of the
/// Raft library. That logs an error twice a second while a quorum is missing or a node stops. We report ourselves what
/// stops Raft.
const OF_LIBRARIES: &str = "async_nats=error,openraft=off";

/// Starts logging to stderr.
///
/// The filter is `MUFAKAT_LOG`, else `RUST_LOG`, else it passes our own messages from `info`; [`OF_LIBRARIES`] comes
/// before it.
///
/// The format is one JSON object per line for a service without a terminal, and text otherwise. `MUFAKAT_LOG_FORMAT`
/// (`text` or `json`) overrides this.
fn start_logging(is_service: bool) -> Result<(), String> {
    let of_variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let filter = match of_variable("MUFAKAT_LOG") {
        Some(text) => filter(&text)?,
        // This variable is for other programs too, so that a wrong value is ignored.
        None => of_variable("RUST_LOG")
            .and_then(|text| with_libraries(&text).ok())
            .unwrap_or_else(|| with_libraries("warn,mufakat=info").expect("it is a filter")),
    };
    let on_terminal = io::stderr().is_terminal();
    let format = std::env::var("MUFAKAT_LOG_FORMAT").unwrap_or_default();
    let as_json = match format.as_str() {
        "json" => true,
        "text" => false,
        "" => is_service && !on_terminal,
        _ => {
            return Err(format!(
                "MUFAKAT_LOG_FORMAT must be text or json, not {format}"
            ));
        }
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A message that cannot be written is lost: reporting that on stderr would fail too, and panic.
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

/// Parses `MUFAKAT_LOG`. A single word must be a level or one of our targets: any other word would be taken for a target
/// that does not exist, and nothing would be logged.
fn filter(text: &str) -> Result<EnvFilter, String> {
    const PARTS: [&str; 3] = ["mufakat", "async_nats", "openraft"];
    let refused = |why: &str| {
        format!(
            "MUFAKAT_LOG: {text:?} {why}; for example debug, mufakat=debug or \
             info,mufakat::request=debug"
        )
    };
    for word in text.split(',').filter(|word| !word.is_empty()) {
        let is_part = PARTS.contains(&word.split("::").next().unwrap_or_default());
        if !word.contains(['=', '[', ']', '{', '}'])
            && !is_part
            && word.parse::<LevelFilter>().is_err()
        {
            return Err(refused(&format!("contains `{word}`, which is not a level")));
        }
    }
    with_libraries(text).map_err(|error| refused(&format!("is not a log filter: {error}")))
}

/// What comes later wins, so that a library that is named is logged.
fn with_libraries(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("{OF_LIBRARIES},{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_as_quiet_as_by_default_unless_they_are_named() {
        for (text, of_raft) in [
            ("info", "openraft=off"),
            ("info,mufakat::request=debug", "openraft=off"),
            ("openraft=debug,info", "openraft=debug"),
        ] {
            let filter = filter(text).expect("a filter").to_string();
            let directives: Vec<&str> = filter.split(',').collect();
            let of_raft_found = directives.iter().filter(|one| one.starts_with("openraft"));
            assert_eq!(of_raft_found.collect::<Vec<_>>(), [&of_raft], "{filter}");
            assert!(directives.contains(&"async_nats=error"), "{filter}");
            assert!(directives.contains(&"info"), "{filter}");
        }
    }

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
