//! Redis servers for tests beside the one of a cluster, and sentinels.

use std::fs;
use std::process::Command;

use mufakat::config::TlsFiles;
use mufakat::queue::address::RedisAddress;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::Process;
use crate::secured::Secured;
use crate::{programs, wait};

/// A running Redis, gone when it is dropped.
pub struct RedisServer {
    port: u16,
    /// Where it takes TLS, if it does.
    tls_port: Option<u16>,
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

    /// The same with the password `secret`, and TLS at a port of its own, which is for nodes and other servers.
    pub async fn start_secured(secured: &Secured, flags: &[&str]) -> Self {
        let passwords = ["--requirepass", "secret", "--masterauth", "secret"];
        let (tls_port, tls) = tls(secured);
        let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
        let server = RedisServer::start_with(&[&passwords, &tls[..], flags].concat()).await;
        RedisServer {
            tls_port: Some(tls_port),
            ..server
        }
    }

    /// A sentinel with a password that watches a server as `mymaster`, alone, and is quick to decide.
    pub async fn sentinel_of(master: &RedisServer, password: &str) -> Self {
        RedisServer::sentinel(master, password, &[]).await
    }

    /// The same by TLS, which it takes as its master does.
    pub async fn secured_sentinel_of(
        master: &RedisServer,
        password: &str,
        secured: &Secured,
    ) -> Self {
        let (tls_port, tls) = tls(secured);
        let sentinel = RedisServer::sentinel(master, password, &tls).await;
        RedisServer {
            tls_port: Some(tls_port),
            ..sentinel
        }
    }

    async fn sentinel(master: &RedisServer, password: &str, flags: &[String]) -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let file = directory.path().join("sentinel.conf");
        let settings = format!(
            "sentinel monitor mymaster 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds mymaster 500\n\
             sentinel failover-timeout mymaster 5000\n\
             {}",
            master.node_port(),
            match &*master.password {
                "" => String::new(),
                password => format!("sentinel auth-pass mymaster {password}\n"),
            }
        );
        fs::write(&file, settings).expect("the file can be written");
        let file = file.to_str().expect("UTF-8").to_owned();
        let own = [&file, "--sentinel", "--requirepass", password];
        let flags: Vec<&str> = own
            .into_iter()
            .chain(flags.iter().map(String::as_str))
            .collect();
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
            tls_port: None,
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

    /// Where nodes and other servers come.
    pub fn node_port(&self) -> u16 {
        self.tls_port.unwrap_or(self.port)
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

/// A port for TLS, and the flags by which it is taken there and used to reach other servers.
fn tls(secured: &Secured) -> (u16, Vec<String>) {
    let port = programs::free_port();
    let mut flags: Vec<String> = ["--tls-replication", "yes", "--tls-port"]
        .map(str::to_owned)
        .into();
    flags.push(port.to_string());
    flags.extend(secured.redis_tls());
    (port, flags)
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
