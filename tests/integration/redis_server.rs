//! A Redis of its own for tests that need no cluster.

use std::path::PathBuf;
use std::process::Command;

use mufakat::config::TlsFiles;
use mufakat::queue::address::RedisAddress;
use tempfile::TempDir;

use crate::process::Process;
use crate::{programs, wait};

/// A running Redis, gone when it is dropped.
pub struct RedisServer {
    port: u16,
    flags: Vec<String>,
    process: Option<Process>,
    directory: TempDir,
}

impl RedisServer {
    /// Starts with flags beyond those that keep it apart from others.
    pub async fn start(flags: &[&str]) -> Self {
        let mut server = RedisServer {
            port: programs::free_port(),
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            process: None,
            directory: TempDir::new().expect("a temporary directory can be made"),
        };
        server.start_again().await;
        server
    }

    /// Starts on the same port with what is in the directory.
    pub async fn start_again(&mut self) {
        let mut command = Command::new(programs::find("redis-server", "MUFAKAT_REDIS_SERVER"));
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--dir"])
            .arg(self.directory.path())
            .args(&self.flags);
        let log = self.directory.path().join("log");
        self.process = Some(Process::start("Redis", &mut command, &log));
        wait::until("Redis listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", self.port))
                .await
                .ok()
        })
        .await;
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.take().expect("Redis runs").kill();
    }

    pub fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn address(&self) -> RedisAddress {
        RedisAddress::new(&self.url(), TlsFiles::default())
    }
}
