//! The program, as tests run it.

use std::ffi::OsStr;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::broker::Broker;

/// Longer than anything here takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

/// Starts it with this broker; what it writes is ours.
pub fn loadgen<W: AsRef<OsStr>>(broker: &Broker, words: impl IntoIterator<Item = W>) -> Child {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(words)
        .env("NATS_URL", &broker.url)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("loadgen runs")
}

/// Its exit code and what it said.
pub async fn ended(child: Child) -> (Option<i32>, String) {
    let output = tokio::time::timeout(LONG, child.wait_with_output()).await;
    let Output {
        status,
        stdout,
        stderr,
    } = output.expect("it ends").expect("its output");
    let said = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (status.code(), said.join("\n"))
}
