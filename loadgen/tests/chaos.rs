//! `--chaos` on a cluster of `mufakat dev`: it breaks what it says, mends all of it, and no promise is broken.
//!
//! The program `mufakat` has to be there, beside the load generator: a build of the whole workspace leaves it there.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use mufakat::dev::control::{self, Order};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

mod ports;

use ports::{PORTS, free_base};

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// A cluster that ends with this.
struct Dev {
    child: Child,
    base: u16,
}

impl Dev {
    async fn start(data_dir: &Path) -> Self {
        let base = free_base();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_loadgen")).with_file_name("mufakat");
        let mut child = Command::new(&program)
            .args(["dev", "--port-base", &base.to_string(), "--data-dir"])
            .arg(data_dir)
            // Where the installed servers are looked for.
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}: build the workspace", program.display()));
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = async {
            loop {
                let line = lines.next_line().await.expect("text");
                if line.expect("it gets ready").contains("Ctrl-C") {
                    return;
                }
            }
        };
        tokio::time::timeout(LONG, ready).await.expect("in time");
        Self { child, base }
    }

    fn nats(&self) -> String {
        format!("nats://127.0.0.1:{}", PORTS[0] + self.base)
    }

    /// Tells it to stop; its exit code.
    async fn stop(mut self) -> Option<i32> {
        let id = self.child.id().expect("it runs");
        let pid = Pid::from_raw(id as i32).expect("not zero");
        kill_process(pid, Signal::TERM).expect("it runs");
        let ended = tokio::time::timeout(LONG, self.child.wait()).await;
        ended.expect("it ends").expect("our child").code()
    }
}

async fn load(dev: &Dev, data_dir: &Path, more: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["mix", "lock=1,queue=1,cache=2", "--check", "--clients", "8"])
        .args(["--locks", "4", "--keys", "20", "--increments", "0.1"])
        .arg(format!("--chaos={}", data_dir.display()))
        .args(["--nats", &dev.nats()])
        .args(more)
        .kill_on_drop(true)
        .output()
        .await
        .expect("loadgen runs");
    let (out, errors) = (&output.stdout, &output.stderr);
    let said = [out, errors].map(|text| String::from_utf8_lossy(text).into_owned());
    (output, said.join("\n"))
}

#[tokio::test]
async fn promises_hold_while_processes_are_killed_paused_and_restarted() {
    let directory = TempDir::new().expect("a directory");
    let (data_dir, json) = (directory.path().join("data"), directory.path().join("json"));
    let dev = Dev::start(&data_dir).await;

    let (output, said) = load(&dev, directory.path(), &[]).await;
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no `mufakat dev` runs"), "{said}");

    let schedule = ["--chaos-on", "nodes,broker,redis", "--chaos-every", "1s"];
    let report = ["--json", json.to_str().expect("text")];
    let lengths = [
        "--duration",
        "15s",
        "--warm-up",
        "500ms",
        "--chaos-outage",
        "800ms",
    ];
    let flags = [&schedule[..], &report, &lengths].concat();
    let (output, said) = load(&dev, &data_dir, &flags).await;
    println!("{said}");
    assert_eq!(output.status.code(), Some(0), "errors alone are no failure");
    assert!(said.contains("Check: no violation."), "it was checked");

    let report = std::fs::read(&json).expect("a report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    let run = &report["runs"][0];
    let marks = run["marks"].as_array().expect("marks");
    assert!(marks.len() >= 8, "{marks:?}");
    let mut pairs = marks.chunks(2);
    assert!(
        pairs.all(|pair| {
            let [broken, mended] = pair else { return false };
            let text = |mark: &Value| mark["event"].as_str().unwrap_or_default().to_owned();
            let (broken, mended) = (text(broken), text(mended));
            let (process, _) = broken.split_once(' ').unwrap_or_default();
            mended == format!("{process} started") || mended == format!("{process} goes on")
        }),
        "{marks:?}"
    );
    let last = marks.last().and_then(|mark| mark["at_s"].as_f64());
    assert!(last.is_some_and(|at_s| at_s < run["elapsed_s"].as_f64().unwrap_or(0.0)));
    // What was started again is the cluster's own, and stops with it.
    assert_eq!(dev.stop().await, Some(0));
}

#[tokio::test]
async fn a_cluster_that_does_not_recover_fails_the_run() {
    let directory = TempDir::new().expect("a directory");
    let data_dir = directory.path().join("data");
    let dev = Dev::start(&data_dir).await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["locks", "--check", "--clients", "2", "--timeout", "1s"])
        .args([
            "--warm-up",
            "0s",
            "--duration",
            "8s",
            "--chaos-outage",
            "100ms",
        ])
        .arg(format!("--chaos={}", data_dir.display()))
        .args(["--nats", &dev.nats()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("loadgen runs");
    // By then the chaos has mended what it broke.
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let calm = async {
        loop {
            let line = lines.next_line().await.expect("text");
            if line.expect("it goes on").contains("7/8s") {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, calm).await.expect("in time");
    for node in 1..=3 {
        let order = Order::Kill(format!("node-{node}"));
        control::give(&data_dir, &order).await.expect("it runs");
    }
    let mut errors = String::new();
    let said = async {
        while let Ok(Some(line)) = lines.next_line().await {
            errors.push_str(&line);
        }
    };
    let (_, output) = tokio::join!(said, child.wait_with_output());
    let output = output.expect("its output");
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("does not recover"), "{errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("lock.acquire"), "the table: {text}");
}
