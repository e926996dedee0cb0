//! A cluster of its own for a benchmark, by `mufakat dev`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::console;

/// A debug build on a busy machine needs some seconds.
const READY_MAX: Duration = Duration::from_secs(60);
/// `mufakat dev` gives its nodes 15 s and its servers 5 s each.
const STOP_MAX: Duration = Duration::from_secs(30);
/// The last line that it prints when the cluster is ready.
const READY: &str = "Ctrl-C stops everything.";

/// Broker, Redis and nodes, with data that goes away with them.
pub struct Cluster {
    child: Child,
    port_base: u16,
    _data: TempDir,
}

impl Cluster {
    /// Starts it, with all ports so much above the usual ones, and waits until it is ready. What does not get so far
    /// is stopped in order.
    ///
    /// # Errors
    /// The program cannot be started, the cluster does not get ready, or Ctrl-C came first.
    pub async fn start(
        mufakat: &Path,
        port_base: u16,
        interrupts: &mut tokio::signal::unix::Signal,
    ) -> Result<Self> {
        // Beside the project, not in a directory for temporary files, which may be memory: there an fsync costs nothing.
        let parent = Path::new(".data");
        std::fs::create_dir_all(parent).context("cannot create .data")?;
        let data = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(parent)
            .context("cannot create a directory in .data")?;
        let mut child = Command::new(mufakat)
            .args(["dev", "--port-base", &port_base.to_string(), "--data-dir"])
            .arg(data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // A Ctrl-C is for this program, which stops the cluster in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", mufakat.display()))?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let cluster = Self {
            child,
            port_base,
            _data: data,
        };
        let ready = tokio::select! {
            ready = until_ready(stdout) => ready,
            _ = interrupts.recv() => Err(anyhow!("stopped")),
        };
        if let Err(error) = ready {
            if let Err(also) = cluster.stop().await {
                console::note(format_args!("{also:#}"));
            }
            return Err(error);
        }
        Ok(cluster)
    }

    pub fn nats_url(&self) -> String {
        format!("nats://127.0.0.1:{}", 4222 + self.port_base)
    }

    pub fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}", 6379 + self.port_base)
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// It had ended before, or does not end.
    pub async fn stop(mut self) -> Result<()> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let pid = id.and_then(Pid::from_raw);
        kill_process(pid.context("the cluster ended by itself")?, Signal::TERM)?;
        let ended = tokio::time::timeout(STOP_MAX, self.child.wait()).await;
        let status = ended.context("the cluster does not stop")??;
        if !status.success() {
            bail!("the cluster did not stop in order: {status}");
        }
        Ok(())
    }
}

async fn until_ready(stdout: ChildStdout) -> Result<()> {
    let ready = tokio::time::timeout(READY_MAX, ready_line(stdout)).await;
    ready.context("the cluster does not get ready")?
}

async fn ready_line(stdout: ChildStdout) -> Result<()> {
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        if line.ends_with(READY) {
            return Ok(());
        }
    }
    bail!("the cluster could not start");
}

/// The program of the same build: beside this one.
///
/// # Errors
/// It is not there.
pub fn program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let beside = own.with_file_name("mufakat");
    if !beside.is_file() {
        bail!(
            "no {}: build it, or name it with --mufakat",
            beside.display()
        );
    }
    Ok(beside)
}
