//! The `mufakat` program as tests run it: in an environment without settings of others, its output theirs.

use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, test_kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::cluster::Cluster;
use crate::wait;

/// A `mufakat` command line for this cluster, with no settings of others.
pub fn mufakat(cluster: &Cluster, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mufakat"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("MUFAKAT_") || name.starts_with("NATS_") {
            command.env_remove(name);
        }
    }
    command
        .args(words)
        .env("NATS_URL", cluster.nats_url())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Another program in the environment of this line.
pub fn in_environment_of(line: &Command, program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, value) in line.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// The same, hearing Ctrl-C: whoever runs the tests in the background ignores it, and so would what they start.
pub fn hearing_ctrl_c(line: Command) -> Command {
    let mut command = in_environment_of(&line, "env");
    command
        .arg("--default-signal=INT,QUIT")
        .arg(line.get_program())
        .args(line.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs it to its end without holding up this thread's other work.
pub async fn run(cluster: &Cluster, words: &[&str]) -> Output {
    let mut command = tokio::process::Command::from(mufakat(cluster, words));
    let output = tokio::time::timeout(wait::LONG, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{words:?} does not end"));
    output.expect("it starts")
}

pub fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal ended it")
}

pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("text")
}

pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("text")
}

/// Runs a command that has to succeed, and reads the one line of JSON that it prints.
pub async fn done(cluster: &Cluster, words: &[&str]) -> Value {
    let output = run(cluster, words).await;
    assert_eq!(code(&output), 0, "{words:?}: {}", stderr(&output));
    let text = stdout(&output);
    assert!(text.ends_with('\n') && text.lines().count() == 1, "{text}");
    serde_json::from_str(text).expect("JSON when stdout is no terminal")
}

/// Runs a command that must not succeed; returns what it says about it.
pub async fn fails(cluster: &Cluster, words: &[&str], exit: i32) -> String {
    let output = run(cluster, words).await;
    assert_eq!(code(&output), exit, "{words:?}: {}", stderr(&output));
    stderr(&output).to_owned()
}

/// A `lock run` whose command has started.
pub struct Running {
    pub child: tokio::process::Child,
    /// The command's own process.
    pub command: Pid,
}

impl Running {
    pub async fn start(cluster: &Cluster, resource: &str, ttl: &str, script: &str) -> Self {
        let words = [
            "lock", "run", resource, "--ttl", ttl, "--", "sh", "-c", script,
        ];
        Self::of(mufakat(cluster, &words)).await
    }

    pub async fn of(line: Command) -> Self {
        let mut line = tokio::process::Command::from(line);
        let mut child = line.kill_on_drop(true).spawn().expect("it starts");
        let out = child.stdout.take().expect("piped");
        let mut lines = BufReader::new(out).lines();
        let line = tokio::time::timeout(wait::LONG, lines.next_line()).await;
        let line = line
            .expect("the command starts")
            .expect("text")
            .expect("a line");
        let command = Pid::from_raw(line.parse().expect("a number")).expect("not zero");
        Running { child, command }
    }

    pub async fn exit_code(&mut self) -> Option<i32> {
        let ended = tokio::time::timeout(wait::LONG, self.child.wait()).await;
        ended.expect("it ends").expect("it is our child").code()
    }

    pub fn command_runs(&self) -> bool {
        test_kill_process(self.command).is_ok()
    }
}

/// What takes whatever is written as a full disk does.
pub fn full_disk() -> std::fs::File {
    let full = std::fs::File::options().write(true).open("/dev/full");
    full.expect("every Linux has it")
}
