//! `mufakat dev`: what it prints works, and nothing is left when it ends.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::{wait, wire};

/// Ports of a cluster with the base 0.
const PORTS: [u16; 5] = [4222, 6379, 5001, 5002, 5003];

/// A base at which all ports are free.
fn free_base() -> u16 {
    let start = 14_000 + (std::process::id() % 4_000) as u16 * 2;
    let free = |base: &u16| {
        let bind = |port: &u16| TcpListener::bind(("127.0.0.1", port + base)).is_ok();
        PORTS.iter().all(bind)
    };
    (start..25_000).find(free).expect("ports are free")
}

fn dev(base: u16, data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mufakat"));
    command
        .args(["dev", "--port-base", &base.to_string(), "--data-dir"])
        .arg(data_dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

struct Dev {
    child: Child,
    pid: Pid,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Dev {
    fn start(base: u16, data_dir: &Path) -> Self {
        let mut command = tokio::process::Command::from(dev(base, data_dir));
        let mut child = command.kill_on_drop(true).spawn().expect("it starts");
        let out = child.stdout.take().expect("piped");
        Dev {
            pid: Pid::from_raw(child.id().expect("it runs") as i32).expect("not zero"),
            child,
            lines: BufReader::new(out).lines(),
        }
    }

    /// What it prints when the cluster is ready.
    async fn guide(&mut self) -> Vec<String> {
        let mut guide = Vec::new();
        while !guide.iter().any(|line: &String| line.contains("Ctrl-C")) {
            let line = tokio::time::timeout(wait::LONG, self.lines.next_line()).await;
            let line = line.expect("it gets ready").expect("text");
            guide.push(line.expect("it goes on"));
        }
        guide
    }

    /// Everything that it started, and what that started.
    fn children(&self) -> Vec<Pid> {
        let mut found = vec![self.pid];
        let mut at = 0;
        while let Some(pid) = found.get(at) {
            let id = pid.as_raw_nonzero();
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
            let children = children.unwrap_or_default();
            let pids = children
                .split_whitespace()
                .map(|id| id.parse().expect("a number"));
            found.extend(pids.filter_map(Pid::from_raw));
            at += 1;
        }
        found.remove(0);
        found
    }
}

/// The words of a pasted line after `start`: what stands between single quotes is one.
fn pasted<'a>(line: &'a str, start: &str) -> Option<(&'a str, &'a str)> {
    let (subject, body) = line.strip_prefix(start)?.split_once(' ')?;
    Some((subject, body.trim_matches('\'')))
}

#[tokio::test]
async fn what_it_prints_works_and_nothing_is_left() {
    let directory = TempDir::new().expect("a directory");
    let data_dir = directory.path().join("data");
    let base = free_base();
    let mut dev_cluster = Dev::start(base, &data_dir);
    let guide = dev_cluster.guide().await;
    println!("{}", guide.join("\n"));
    let url = guide
        .iter()
        .find_map(|line| line.strip_prefix("  export NATS_URL="))
        .expect("ports are not the usual ones");

    let nats = async_nats::connect(url).await.expect("the broker is there");
    let requests: Vec<(&str, &str)> = guide
        .iter()
        .filter_map(|line| pasted(line, "  nats req "))
        .collect();
    assert_eq!(requests.len(), 7, "{guide:?}");
    for (subject, body) in requests {
        let body = serde_json::from_str(body).expect("the printed body is JSON");
        let answer = wire::request(&nats, subject, &body, wait::LONG).await;
        let answer = answer.unwrap_or_else(|| panic!("{subject}"));
        assert_eq!(answer["ok"], true, "{subject}: {answer}");
        match subject {
            "mufakat.lock.get.orders.42" => assert_eq!(answer["holders"][0]["owner"], "me"),
            "mufakat.status" => assert_eq!(answer["redis"]["durability"], "fsync", "{answer}"),
            "mufakat.queue.push.mails" => assert_eq!(answer["seq"], 1, "{answer}"),
            "mufakat.queue.pop.mails" => assert_eq!(answer["messages"][0]["payload"], "hello"),
            "mufakat.cache.set.user.42" => assert!(answer["version"].is_string(), "{answer}"),
            "mufakat.cache.get.user.42" => assert_eq!(answer["value"], "Ada", "{answer}"),
            _ => assert!(answer["token"].is_u64()),
        }
    }
    let commands: Vec<&str> = guide
        .iter()
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| line.contains("/mufakat "))
        .collect();
    assert_eq!(commands.len(), 7, "{guide:?}");
    for line in commands {
        let mut shell = tokio::process::Command::new("sh");
        shell
            .args(["-c", line])
            .env("NATS_URL", url)
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = shell.output().await.expect("there is a shell");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{line}: {output:?}");
        let expected = match line {
            line if line.contains("lock run") => "token ",
            line if line.ends_with("status") => "\"leader\":",
            line if line.contains("queue push") => "\"seq\":2",
            line if line.contains("queue work") => "hello again",
            line if line.contains("cache get") => "\"value\":\"Ada\"",
            _ => "\"owner\":\"me\"",
        };
        assert!(said.contains(expected), "{line}: {said}");
    }

    let busy = tokio::process::Command::from(dev(base, &directory.path().join("other")))
        .output()
        .await
        .expect("it starts");
    assert_eq!(busy.status.code(), Some(1));
    let why = String::from_utf8_lossy(&busy.stderr).into_owned();
    let port = (base + PORTS[0]).to_string();
    assert!(why.contains(&port) && why.contains("--port-base"), "{why}");

    let children = dev_cluster.children();
    assert_eq!(children.len(), PORTS.len(), "broker, Redis and nodes");
    kill_process(dev_cluster.pid, Signal::INT).expect("it runs");
    let ended = dev_cluster.child.wait_with_output();
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
    let ended = ended.expect("it ends").expect("our child");
    assert_eq!(ended.status.code(), Some(0));
    let said = String::from_utf8_lossy(&ended.stderr);
    let complaint = said
        .lines()
        .find(|line| line.contains(" ERROR ") || line.contains(" WARN "));
    assert_eq!(complaint, None, "all nodes stop in peace");
    for pid in children {
        assert!(test_kill_process(pid).is_err(), "{pid:?} is left");
    }
}
