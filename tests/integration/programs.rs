//! Where the servers' programs are, and which ports are free.

use std::env;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU16, Ordering};

/// The program's path: by its variable, in what `make tools` put beside the project, on PATH.
pub fn find(name: &str, variable: &str) -> PathBuf {
    let found = look_for(&[name], variable);
    found.unwrap_or_else(|| panic!("found no {name}: run `make tools`, or name it by {variable}"))
}

/// The same for a program that goes by one of several names, if it is there.
pub fn look_for(names: &[&str], variable: &str) -> Option<PathBuf> {
    if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    [beside]
        .into_iter()
        .chain(env::split_paths(&path))
        .flat_map(|directory| names.iter().map(move |name| directory.join(name)))
        .find(|file| file.is_file())
}

/// Takes from a node's environment what sets up others, but for what is logged.
pub fn without_settings(command: &mut Command) {
    const SETTINGS: [&str; 4] = ["MUFAKAT_", "NATS_", "OTEL_", "REDIS_"];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if SETTINGS.iter().any(|prefix| text.starts_with(prefix)) && text != "MUFAKAT_LOG" {
            command.env_remove(&name);
        }
    }
}

/// Below the ports that systems hand out by themselves: a port of those can be taken by any
/// connection while its server is down, even by one of a client to itself.
const PORT_FIRST: u16 = 20_000;
const PORT_COUNT: u16 = 12_000;

/// A port that nobody listens on, another one at each call in this process.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that test at the same time start at different places.
    let start = (process::id() % u32::from(PORT_COUNT)) as u16;
    for _ in 0..PORT_COUNT {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = (u32::from(start) * 37 + u32::from(next)) % u32::from(PORT_COUNT);
        let port = PORT_FIRST + offset as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port from {PORT_FIRST} on is free");
}
