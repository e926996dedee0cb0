//! Redis servers for tests beside the one of a cluster, and sentinels.

use std::fs;
use std::process::Command;

use mufakat::config::TlsFiles;
use mufakat::queue::address::RedisAddress;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::Process;
use crate::{programs, wait};

/// A running Redis, gone when it is dropped.
pub struct RedisServer {
    port: u16,
    /// Empty if it asks for none.
    password: String,
    name: String,
    flags: Vec<String>,
    process: Process,
    directory: TempDir,
}

impl RedisServer {
    /// Starts, and waits until it takes connections.
    pub async fn start() -> Self {
        RedisServer::start_with(&[]).await
    }

    /// The same with further flags.
    pub async fn start_with(flags: &[&str]) -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        RedisServer::run(directory, "Redis", flags).await
    }

    /// A sentinel with a password that watches a server as `mymaster`, alone, and is quick to decide.
    pub async fn sentinel_of(master: &RedisServer, password: &str) -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let file = directory.path().join("sentinel.conf");
        let settings = format!(
            "sentinel monitor mymaster 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds mymaster 500\n\
             sentinel failover-timeout mymaster 5000\n\
             {}",
            master.port,
            match &*master.password {
                "" => String::new(),
                password => format!("sentinel auth-pass mymaster {password}\n"),
            }
        );
        fs::write(&file, settings).expect("the file can be written");
        let file = file.to_str().expect("UTF-8").to_owned();
        let flags = [&file, "--sentinel", "--requirepass", password];
        RedisServer::run(directory, "a sentinel", &flags).await
    }

    async fn run(directory: TempDir, name: &str, flags: &[&str]) -> Self {
        let port = programs::free_port();
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let process = process(name, (&directory, port), &flags).await;
        let mut pairs = flags.windows(2);
        let password = pairs.find(|pair| pair[0] == "--requirepass");
        RedisServer {
            port,
            password: password.map_or(String::new(), |pair| pair[1].clone()),
            name: name.to_owned(),
            flags,
            process,
            directory,
        }
    }

    /// After a kill: with its port, and what it has on its disk.
    pub async fn start_again(&mut self) {
        self.process = process(&self.name, (&self.directory, self.port), &self.flags).await;
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn address(&self) -> RedisAddress {
        RedisAddress::new(&self.url(), TlsFiles::default())
    }

    /// A connection past the nodes.
    pub fn connection(&self) -> redis::Connection {
        let url = format!("redis://:{}@127.0.0.1:{}", self.password, self.port);
        let client = redis::Client::open(url).expect("a URL");
        client.get_connection().expect("it runs")
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

async fn process(name: &str, (directory, port): (&TempDir, u16), flags: &[String]) -> Process {
    let mut command = Command::new(programs::find("redis-server", "MUFAKAT_REDIS_SERVER"));
    // The file of settings comes first.
    command.args(flags);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"]);
    command.arg(directory.path());
    let is_sentinel = flags.iter().any(|flag| flag == "--sentinel");
    if !is_sentinel {
        command.args(["--save", ""]);
    }
    let process = Process::start(name, &mut command, &directory.path().join("log"));
    wait::until("Redis listens", async || {
        let address = ("127.0.0.1", port);
        tokio::net::TcpStream::connect(address).await.ok()
    })
    .await;
    process
}
