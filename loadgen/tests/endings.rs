//! How the program ends when somebody stops it, or takes away what it writes to.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr};

mod broker;
mod program;

use broker::Broker;
use program::{LONG, ended, loadgen};

fn start(broker: &Broker, words: &str) -> Child {
    loadgen(broker, words.split_whitespace())
}

async fn code(child: Child) -> Option<i32> {
    ended(child).await.0
}

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(child.id().expect("it runs") as i32).expect("not zero");
    kill_process(pid, Signal::INT).expect("it runs");
}

/// Takes what it says on stderr.
fn stderr(child: &mut Child) -> Lines<BufReader<ChildStderr>> {
    BufReader::new(child.stderr.take().expect("piped")).lines()
}

/// Waits for a line that contains this.
async fn until(lines: &mut Lines<BufReader<ChildStderr>>, what: &str) {
    let said = async {
        loop {
            let line = lines.next_line().await.expect("text");
            if line.expect("it says more").contains(what) {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, said).await.expect("in time");
}

fn report(json: &Path) -> Value {
    let report = std::fs::read(json).expect("a report");
    serde_json::from_slice(&report).expect("JSON")
}

#[tokio::test]
async fn a_reader_that_goes_away_loses_no_files() {
    let (broker, _) = Broker::start().await;
    let directory = TempDir::new().expect("a directory");
    let json = directory.path().join("report.json");
    let words = format!("echo --warm-up 0s --duration 2s --json {}", json.display());
    let mut child = start(&broker, &words);
    drop(child.stdout.take());
    drop(child.stderr.take());
    assert_eq!(code(child).await, Some(0));
    assert_eq!(report(&json)["runs"][0]["workload"], "echo");
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_told_before_the_run() {
    let (broker, _) = Broker::start().await;
    // Longer than the test waits.
    let words = "echo --duration 1h --csv /nowhere/seconds.csv";
    let mut child = start(&broker, words);
    let mut lines = stderr(&mut child);
    until(&mut lines, "cannot write /nowhere").await;
    assert_eq!(code(child).await, Some(1));
}

#[tokio::test]
async fn an_idle_worker_ends_at_ctrl_c_also_after_a_job() {
    let (broker, _) = Broker::start().await;
    let mut worker = start(&broker, "worker --group idle");
    let job = "coordinate --group idle 1 echo --requests 100 --warm-up 0s --duration 1s";
    assert_eq!(code(start(&broker, job)).await, Some(0));
    let mut lines = stderr(&mut worker);
    until(&mut lines, "Worker 1 of 1").await;
    until(&mut lines, "Waiting for a coordinator").await;
    interrupt(&worker);
    assert_eq!(code(worker).await, Some(0));
}

#[tokio::test]
async fn a_worker_that_is_stopped_stops_the_whole_load() {
    let (broker, _) = Broker::start().await;
    let directory = TempDir::new().expect("a directory");
    let json = directory.path().join("report.json");
    let worker = || start(&broker, "worker --group stops");
    let (stopped, other) = (worker(), worker());
    let job = "coordinate --group stops 2 echo --warm-up 0s --duration 1h --json";
    let mut coordinator = start(&broker, &format!("{job} {}", json.display()));
    let mut lines = stderr(&mut coordinator);
    until(&mut lines, " p50 ").await;
    interrupt(&stopped);
    assert_eq!(code(stopped).await, Some(0));
    assert_eq!(code(coordinator).await, Some(0));
    assert_eq!(report(&json)["runs"][0]["stopped"], true);
    interrupt(&other);
    assert_eq!(code(other).await, Some(0));
}
