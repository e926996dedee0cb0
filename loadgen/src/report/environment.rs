//! Where and with what a run was made. What the system does not tell is left out.

use std::fs;

use mufakat::protocol::status::RedisState;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Environment {
    /// Version of the load generator.
    pub version: String,
    /// Revision that it was built from.
    pub git_revision: Option<String>,
    /// Whether it was built without optimisation: then its figures mean little.
    pub debug_build: bool,
    pub cpu: Option<String>,
    /// Cores that this process may use.
    pub cores: Option<usize>,
    pub memory_bytes: Option<u64>,
    pub kernel: Option<String>,
    pub broker_version: Option<String>,
    /// Version of a node; absent for `echo`, which asks none.
    pub mufakat_version: Option<String>,
    /// How many nodes the cluster has, likewise. A majority of them fsyncs every grant of a lock.
    #[serde(default)]
    pub nodes: Option<usize>,
    /// What a write survives that Redis acknowledged, likewise; absent without Redis.
    #[serde(default)]
    pub redis: Option<RedisState>,
}

impl Environment {
    /// What this machine and this program tell; the versions of what is measured are the caller's to add.
    pub fn read() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git_revision: option_env!("LOADGEN_GIT_REVISION").map(str::to_owned),
            debug_build: cfg!(debug_assertions),
            cpu: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().ok().map(usize::from),
            memory_bytes: field("/proc/meminfo", "MemTotal")
                .as_deref()
                .and_then(bytes),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .ok()
                .map(|text| text.trim().to_owned()),
            broker_version: None,
            mufakat_version: None,
            nodes: None,
            redis: None,
        }
    }
}

/// The value of the first line `name: value` in a file of the kernel.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// `12 kB` in bytes.
fn bytes(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_in_bytes() {
        assert_eq!(bytes("16 kB"), Some(16_384));
        assert_eq!(bytes("16 MB"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_about_the_machine() {
        let environment = Environment::read();
        assert!(environment.cores.is_some_and(|cores| cores > 0));
        assert!(environment.memory_bytes.is_some_and(|bytes| bytes > 0));
        assert!(environment.kernel.is_some_and(|kernel| !kernel.is_empty()));
    }
}
