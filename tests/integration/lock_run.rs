//! `mufakat lock run` and the terminal: who is stopped, who goes on, and who gets a signal.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::cluster::{Cluster, Options};
use crate::command_line::{Running, in_environment_of, mufakat};
use crate::{locks, wait, wire};

async fn one_node() -> Cluster {
    let options = Options {
        nodes: 1,
        ..Options::default()
    };
    Cluster::start(options).await
}

/// A line of a shell with a terminal of its own, in which `$0` is the program.
pub fn on_terminal(cluster: &Cluster, line: &str) -> Command {
    let ours = mufakat(cluster, &[]);
    let line = line.replace("$0", &ours.get_program().to_string_lossy());
    let mut on_terminal = in_environment_of(&ours, "script");
    on_terminal
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    on_terminal
}

fn is_stopped(pid: Pid) -> bool {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let stat = std::fs::read_to_string(path).expect("it is there");
    let state = stat.rsplit(") ").next().expect("a state");
    state.starts_with('T')
}

/// Ctrl-Z stops `lock run`, and nobody renews.
#[tokio::test]
async fn a_command_stands_still_while_its_lock_run_does() {
    let cluster = one_node().await;
    let nats = cluster.nats().await;
    let files = tempfile::tempdir().expect("a directory");
    let work = files.path().join("work");
    let script = format!(
        "echo $$; while :; do echo >> {}; sleep 0.05; done",
        work.display()
    );
    let mut running = Running::start(&cluster, "z", "5s", &script).await;
    let pid = running.child.id().expect("it runs") as i32;
    let pid = Pid::from_raw(pid).expect("not zero");
    let command = running.command;
    let suspend = async || {
        kill_process(pid, Signal::TSTP).expect("it runs");
        wait::until("both are stopped", async || {
            (is_stopped(pid) && is_stopped(command)).then_some(())
        })
        .await;
    };
    suspend().await;
    kill_process(pid, Signal::CONT).expect("it is there");
    wait::until("the command goes on under its lock", async || {
        (!is_stopped(command)).then_some(())
    })
    .await;

    suspend().await;
    let done = std::fs::metadata(&work).expect("it works").len();
    let next = json!({"resource": "z", "owner": "next", "ttl_ms": 60_000, "wait_ms": 20_000});
    let granted = wire::request(&nats, "mufakat.lock.acquire", &next, wait::LONG).await;
    assert_eq!(granted.expect("an answer")["owner"], "next");
    kill_process(pid, Signal::CONT).expect("it is there");
    assert_eq!(running.exit_code().await, Some(76));
    let more = std::fs::metadata(&work).expect("it worked").len();
    assert_eq!(done, more, "the command went on without the lock");
    assert!(!running.command_runs());
}

/// The system stops it and tells nobody; the lock would be renewed for ever.
#[tokio::test]
async fn a_command_that_wants_the_terminal_is_ended_and_the_lock_released() {
    let cluster = one_node().await;
    let nats = cluster.nats().await;
    let line = "$0 lock run t -- sh -c 'read answer </dev/tty' </dev/null";
    let mut on_terminal = tokio::process::Command::from(on_terminal(&cluster, line));
    let mut running = on_terminal.kill_on_drop(true).spawn().expect("it starts");
    // Its input stays open, as that of a terminal does.
    let _input = running.stdin.take();
    let output = tokio::time::timeout(wait::LONG, running.wait_with_output()).await;
    let output = output.expect("it ends").expect("our child");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("wants the terminal"), "{said}");
    assert_eq!(output.status.code(), Some(128 + 9), "{said}");
    assert_eq!(locks::get(&nats, "t").await.holders, []);
}

#[tokio::test]
async fn a_command_on_a_terminal_gets_the_signals_that_the_terminal_does_not_send() {
    let cluster = one_node().await;
    let script = "trap \"exit 9\" USR1; echo $PPID; while :; do sleep 0.1; done";
    let line = format!("$0 lock run u -- sh -c '{script}'");
    // What it writes is the number of `lock run`.
    let mut running = Running::of(on_terminal(&cluster, &line)).await;
    let input = running.child.stdin.take();
    kill_process(running.command, Signal::USR1).expect("it runs");
    assert_eq!(running.exit_code().await, Some(9));
    drop(input);
}

#[tokio::test]
async fn words_of_a_command_need_not_be_text() {
    let cluster = one_node().await;
    let mut line = mufakat(&cluster, &["lock", "run", "o", "--", "printf", "%s"]);
    line.arg(OsStr::from_bytes(b"\xff"));
    let output = tokio::process::Command::from(line).output();
    assert_eq!(output.await.expect("it starts").stdout, b"\xff");
}
