//! A Redis of its own for tests that need no cluster.

use std::process::Command;

use mufakat::config::TlsFiles;
use mufakat::queue::address::RedisAddress;
use tempfile::TempDir;

use crate::process::Process;
use crate::{programs, wait};

/// A running Redis, gone when it is dropped.
pub struct RedisServer {
    port: u16,
    _process: Process,
    _directory: TempDir,
}

impl RedisServer {
    /// Starts, and waits until it takes connections.
    pub async fn start() -> Self {
        let port = programs::free_port();
        let directory = TempDir::new().expect("a temporary directory can be made");
        let mut command = Command::new(programs::find("redis-server", "MUFAKAT_REDIS_SERVER"));
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--dir"])
            .arg(directory.path());
        let log = directory.path().join("log");
        let process = Process::start("Redis", &mut command, &log);
        wait::until("Redis listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .ok()
        })
        .await;
        RedisServer {
            port,
            _process: process,
            _directory: directory,
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn address(&self) -> RedisAddress {
        RedisAddress::new(&self.url(), TlsFiles::default())
    }
}
