//! The processes of a local cluster: how they are started and stopped, their logs, and how they ended.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::commands::Line;
use super::control::Order;
use super::cpus;
use super::{NODES_STOP_MAX, POLL};
use crate::cli::output::say;
use crate::time::now;

/// Longest line of a log that is handled as a whole; longer ones are copied in pieces.
const LOG_LINE_BYTES_MAX: u64 = 16 * 1024;
/// How much of the end of a log is shown when its process has ended by itself.
const LAST_BYTES: u64 = 2 * 1024;
const LAST_LINES: usize = 5;
/// How long the rest of a killed process's log may take to read from its pipe.
const LOG_END_MAX: Duration = Duration::from_secs(1);

/// The processes, in the order in which they were started.
#[derive(Default)]
pub(super) struct Processes {
    running: Vec<Process>,
    /// Processes that an order killed or stopped, and another order may start again.
    stopped: Vec<Line>,
}

/// One running process.
pub(super) struct Process {
    line: Line,
    child: Child,
    /// Copies a node's log and repeats its warnings here.
    log: Option<JoinHandle<()>>,
    /// Whether it was told to end. A node that is told twice does not drain.
    told_to_end: bool,
}

/// A process that ended without being told to.
pub(super) struct Ended {
    line: Line,
    status: ExitStatus,
}

impl Processes {
    /// Starts a process with a log of its own. The log of the previous run is kept as `*.log.old`.
    pub(super) fn start(&mut self, line: Line) -> anyhow::Result<()> {
        let spawned = spawn(&line)?;
        self.running.push(Process::new(line, spawned));
        Ok(())
    }

    /// The processes that ended since the last call.
    pub(super) fn ended(&mut self) -> Vec<Ended> {
        let (mut ended, mut running) = (Vec::new(), Vec::new());
        for mut process in self.running.drain(..) {
            match process.child.try_wait() {
                Ok(Some(status)) => ended.push(Ended {
                    line: process.line,
                    status,
                }),
                // A child whose state is unknown counts as running; stopping it decides.
                Ok(None) | Err(_) => running.push(process),
            }
        }
        self.running = running;
        ended
    }

    /// The ids of the running nodes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = u8> {
        self.running.iter().filter_map(|process| process.line.node)
    }

    /// Whether any node is left, running or stopped by an order.
    pub(super) fn has_nodes(&self) -> bool {
        let stopped = self.stopped.iter().filter_map(|line| line.node);
        self.nodes().chain(stopped).next().is_some()
    }

    /// The names of the running processes.
    pub(super) fn running(&self) -> Vec<String> {
        self.running
            .iter()
            .map(|process| process.name().to_owned())
            .collect()
    }

    /// The names of the processes that an order has stopped.
    pub(super) fn stopped(&self) -> Vec<String> {
        self.stopped.iter().map(|line| line.name.clone()).collect()
    }

    /// Carries out an order.
    pub(super) async fn obey(&mut self, order: &Order) -> anyhow::Result<()> {
        match order {
            Order::List => {}
            Order::Kill(name) => {
                let killed = self.take(name)?.killed().await;
                self.stopped.push(killed);
            }
            Order::Stop(name) => {
                let process = self.find(name)?;
                process.tell_to_end();
                // It stays among the running ones meanwhile, so that a stop of all in the midst of this waits for it.
                let _ended = tokio::time::timeout(NODES_STOP_MAX, process.child.wait()).await;
                // A process that does not end is killed; killing one that has ended does nothing.
                let stopped = self.take(name)?.killed().await;
                self.stopped.push(stopped);
            }
            Order::Start(name) => {
                let place = self.stopped.iter().position(|line| line.name == *name);
                let place = place.with_context(|| format!("no order has stopped {name}"))?;
                let spawned = spawn(&self.stopped[place])?;
                let line = self.stopped.remove(place);
                self.running.push(Process::new(line, spawned));
            }
            Order::Pause(name) => self.find(name)?.signal(Signal::STOP),
            Order::Resume(name) => self.find(name)?.signal(Signal::CONT),
        }
        Ok(())
    }

    fn find(&mut self, name: &str) -> anyhow::Result<&mut Process> {
        let mut running = self.running.iter_mut();
        let found = running.find(|process| process.name() == name);
        found.with_context(|| format!("{name} is not running"))
    }

    fn take(&mut self, name: &str) -> anyhow::Result<Process> {
        match self
            .running
            .iter()
            .position(|process| process.name() == name)
        {
            Some(place) => Ok(self.running.remove(place)),
            None => bail!("{name} is not running"),
        }
    }

    /// Tells the chosen processes to end, waits for them, and kills those that still run after `max`.
    pub(super) async fn stop(&mut self, chosen: impl Fn(&Process) -> bool, max: Duration) {
        for process in self.running.iter_mut().filter(|process| chosen(process)) {
            process.tell_to_end();
        }
        let until = now() + max;
        loop {
            for Ended { line, status } in self.ended() {
                // The exit code of a node tells whether it drained; that of a broker tells nothing.
                if line.node.is_some() && !status.success() {
                    let (name, log) = (line.name, line.log.display());
                    say(format_args!(
                        "{name} did not stop cleanly ({status}); its log: {log}"
                    ));
                }
            }
            if !self.running.iter().any(&chosen) {
                return;
            }
            if now() > until {
                break;
            }
            tokio::time::sleep(POLL / 5).await;
        }
        for process in self.running.extract_if(.., |process| chosen(process)) {
            say(format_args!(
                "{} did not stop within {max:?}: killing it",
                process.line.name
            ));
            let _ended = process.killed().await;
        }
    }

    /// Kills all remaining processes.
    pub(super) async fn kill(&mut self) {
        for process in self.running.drain(..) {
            let _ended = process.killed().await;
        }
    }
}

impl Process {
    fn new(line: Line, (child, log): Spawned) -> Self {
        Process {
            line,
            child,
            log,
            told_to_end: false,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.line.name
    }

    pub(super) fn is_node(&self) -> bool {
        self.line.node.is_some()
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = pid(&self.child) {
            // The child has not been waited for, so its process id cannot belong to another process.
            // It is no error if it has just ended.
            let _already_gone = kill_process(pid, signal);
        }
    }

    /// Tells it to end, once. A paused process is resumed so that it can.
    fn tell_to_end(&mut self) {
        if !self.told_to_end {
            self.signal(Signal::TERM);
        }
        self.told_to_end = true;
        self.signal(Signal::CONT);
    }

    async fn killed(mut self) -> Line {
        // Fails only for a child that has ended already.
        let _already_gone = self.child.kill().await;
        if let Some(log) = self.log {
            let _cut_off = tokio::time::timeout(LOG_END_MAX, log).await;
        }
        self.line
    }
}

impl Ended {
    /// The end of its log, indented.
    pub(super) fn last_lines(&self) -> String {
        let text = last_bytes(&self.line.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LAST_LINES);
        let indented = lines[from..].iter().map(|line| format!("    {line}"));
        indented.collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line {
            name, words, log, ..
        } = &self.line;
        let (status, log) = (self.status, log.display());
        write!(
            f,
            "{name} ended by itself ({status}) and is not started again."
        )?;
        write!(f, "\n  its log: {log}\n  start it: {}", shell(words))
    }
}

/// A process, and what copies its log.
type Spawned = (Child, Option<JoinHandle<()>>);

fn spawn(line: &Line) -> anyhow::Result<Spawned> {
    let log = new_log(&line.log)?;
    let mut words = line
        .prefix
        .iter()
        .copied()
        .chain(line.words.iter().map(String::as_str));
    let program = words.next().expect("a command line has a program");
    let mut command = Command::new(program);
    command
        .args(words)
        .env_clear()
        .envs(&line.environment)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        // Ctrl-C must not reach the children with the terminal's group: they are stopped in order.
        .process_group(0)
        .kill_on_drop(true);
    match line.node {
        Some(_) => command.stderr(Stdio::piped()),
        None => command.stderr(log.try_clone()?),
    };
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", line.words[0]))?;
    if let (Some(node), Some(pid)) = (line.node, pid(&child)) {
        cpus::bind(node, pid);
    }
    let copy = |pipe| tokio::spawn(copy_log(pipe, log, line.name.clone()));
    let log = child.stderr.take().map(copy);
    Ok((child, log))
}

/// Quotes words for a shell.
fn shell(words: &[String]) -> String {
    let plain = |word: &str| {
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:,=+@%".contains(&byte);
        !word.is_empty() && word.bytes().all(safe)
    };
    let quoted = words.iter().map(|word| match plain(word) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

fn new_log(path: &Path) -> anyhow::Result<File> {
    let cannot = || format!("cannot write {}", path.display());
    if path.exists() {
        let old = PathBuf::from(format!("{}.old", path.display()));
        fs::rename(path, old).with_context(cannot)?;
    }
    let append = File::options().create(true).append(true).open(path);
    append.with_context(cannot)
}

fn last_bytes(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LAST_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The process id of a child that has not been waited for.
fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()?).ok()?)
}

/// Copies the log of a node to its file, and warnings and errors also to stderr of this process. Ends with the node. A
/// full disk ends the copy; the node then sees a closed pipe.
async fn copy_log(pipe: impl AsyncRead + Unpin, mut file: File, name: String) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut pipe)
            .take(LOG_LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .await;
        if !matches!(read, Ok(1..)) || file.write_all(&line).is_err() {
            return;
        }
        if is_warning(&line) {
            say(format_args!(
                "{name}: {}",
                String::from_utf8_lossy(&line).trim_end()
            ));
        }
    }
}

/// Whether a log line is a warning or worse: the level is among its first three words.
fn is_warning(line: &[u8]) -> bool {
    let mut words = line
        .split(|byte| byte.is_ascii_whitespace())
        .filter(|word| !word.is_empty());
    words
        .by_ref()
        .take(3)
        .any(|word| [&b"WARN"[..], b"ERROR"].contains(&word))
}

#[cfg(test)]
mod tests;
