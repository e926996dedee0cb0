use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use super::*;

/// Generous, for a busy machine; nothing waits for it unless it fails.
const PATIENCE: Duration = Duration::from_secs(30);

struct RedisServer {
    process: Child,
}

impl RedisServer {
    fn start(port: u16, dir: &tempfile::TempDir, options: &[&str]) -> Self {
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--dir"])
            .arg(dir.path())
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is on PATH");
        RedisServer { process }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, signal).expect("the server runs");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.process.kill().expect("a child can be killed");
        self.process.wait().expect("a child can be waited for");
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

fn link_to(url: &str, shutdown: watch::Receiver<bool>) -> Result<RedisLink, RedisAddressError> {
    RedisLink::start(url.into(), Arc::default(), shutdown)
}

async fn until(link: &mut RedisLink, connected: bool) -> Arc<RedisStatus> {
    let changed = link.status.wait_for(|status| status.connected == connected);
    let status = tokio::time::timeout(PATIENCE, changed).await;
    let status = status.expect("within the time").expect("the link runs");
    status.clone()
}

const SAFE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

#[tokio::test]
async fn waits_for_the_server_and_comes_back_after_its_restart() {
    let (port, dir) = (free_port(), tempfile::tempdir().expect("a directory"));
    let (_keep, shutdown) = watch::channel(false);
    let url = format!("redis://127.0.0.1:{port}");
    let mut link = link_to(url.as_str(), shutdown).expect("a good URL");
    let refused = link.status.wait_for(|s| s.warnings[0].contains("refused"));
    refused.await.expect("the link runs");
    assert!(!link.status().connected);

    let server = RedisServer::start(port, &dir, &SAFE);
    let first = until(&mut link, true).await;
    assert_eq!((first.durability, first.warnings.len()), (Level::Fsync, 0));
    drop(server);
    let lost = until(&mut link, false).await;
    assert_eq!(lost.durability, Level::Unknown);

    let _server = RedisServer::start(port, &dir, &[]);
    let second = until(&mut link, true).await;
    assert_eq!(second.durability, Level::None);
    let run_id = |status: &RedisStatus| status.server.as_ref().map(|s| s.run_id.clone());
    assert!(run_id(&first).is_some() && run_id(&first) != run_id(&second));
}

#[tokio::test]
async fn a_server_that_stops_answering_is_noticed() {
    let (port, dir) = (free_port(), tempfile::tempdir().expect("a directory"));
    let server = RedisServer::start(port, &dir, &SAFE);
    let (_keep, shutdown) = watch::channel(false);
    let url = format!("redis://127.0.0.1:{port}");
    let mut link = link_to(url.as_str(), shutdown).expect("a good URL");
    until(&mut link, true).await;
    server.signal(rustix::process::Signal::STOP);
    until(&mut link, false).await;
    server.signal(rustix::process::Signal::CONT);
    until(&mut link, true).await;
}

#[tokio::test]
async fn durability_is_unknown_where_the_server_shows_nothing() {
    let renamed = ["--rename-command", "CONFIG", ""];
    let restricted = "--user default on nopass ~* +@all -@dangerous";
    let restricted: Vec<&str> = restricted.split(' ').collect();
    for restriction in [&renamed[..], &restricted] {
        let (port, dir) = (free_port(), tempfile::tempdir().expect("a directory"));
        let _server = RedisServer::start(port, &dir, &[&SAFE[..], restriction].concat());
        let (_keep, shutdown) = watch::channel(false);
        let url = format!("redis://127.0.0.1:{port}");
        let mut link = link_to(url.as_str(), shutdown).expect("a good URL");
        let status = until(&mut link, true).await;
        assert_eq!(status.durability, Level::Unknown, "{restriction:?}");
        assert!(status.warnings[0].contains("CONFIG"));
    }
}

#[tokio::test]
async fn shutdown_ends_the_task() {
    let (stop, shutdown) = watch::channel(false);
    let mut link = link_to("redis://127.0.0.1:1", shutdown).expect("a good URL");
    stop.send_replace(true);
    (&mut link.task).await.expect("the task ends in order");
    assert_eq!(link.status().warnings, ["shutting down"]);
}

#[tokio::test]
async fn a_bad_url_is_refused_without_repeating_it() {
    let (_keep, shutdown) = watch::channel(false);
    let error = match link_to("http://user:secret@host", shutdown) {
        Ok(_) => panic!("not a Redis URL"),
        Err(error) => error.to_string(),
    };
    assert!(!error.contains("secret"), "{error}");
}
