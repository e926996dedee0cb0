//! The processes of a local cluster: their logs, their ends, and how they are stopped.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::POLL;
use super::commands::Line;
use crate::time::now;

/// Longest line of a log that is looked at as one; longer ones are copied in pieces.
const LOG_LINE_BYTES_MAX: u64 = 16 * 1024;
/// How much of a log's end is shown when its process ended by itself.
const LAST_BYTES: u64 = 2 * 1024;
const LAST_LINES: usize = 5;
/// What a killed process still has in its pipe is read within this time.
const LOG_END_MAX: Duration = Duration::from_secs(1);

/// What runs, in the order of its start.
#[derive(Default)]
pub(super) struct Processes {
    running: Vec<Process>,
}

/// One running process.
pub(super) struct Process {
    line: Line,
    child: Child,
    /// Copies a node's log and repeats its warnings here.
    log: Option<JoinHandle<()>>,
}

/// A process that ended without having been told to.
pub(super) struct Ended {
    line: Line,
    status: ExitStatus,
}

impl Processes {
    /// Starts a process with a log of its own; the log of the run before is kept as `*.log.old`.
    pub(super) fn start(&mut self, line: Line) -> anyhow::Result<()> {
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
            // A Ctrl-C reaches the terminal's whole group; children are stopped in order instead.
            .process_group(0)
            .kill_on_drop(true);
        match line.node {
            Some(_) => command.stderr(Stdio::piped()),
            None => command.stderr(log.try_clone()?),
        };
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", line.words[0]))?;
        let copy = |pipe| tokio::spawn(copy_log(pipe, log, line.name.clone()));
        let log = child.stderr.take().map(copy);
        self.running.push(Process { line, child, log });
        Ok(())
    }

    /// Those that ended since the last call.
    pub(super) fn ended(&mut self) -> Vec<Ended> {
        let (mut ended, mut running) = (Vec::new(), Vec::new());
        for mut process in self.running.drain(..) {
            match process.child.try_wait() {
                Ok(Some(status)) => ended.push(Ended {
                    line: process.line,
                    status,
                }),
                // A child that cannot be asked is taken to run; stopping it decides.
                Ok(None) | Err(_) => running.push(process),
            }
        }
        self.running = running;
        ended
    }

    /// The numbers of the nodes that run.
    pub(super) fn nodes(&self) -> impl Iterator<Item = u8> {
        self.running.iter().filter_map(|process| process.line.node)
    }

    /// Tells the chosen ones to end, waits for them, and kills what still runs after `max`.
    pub(super) async fn stop(&mut self, chosen: impl Fn(&Process) -> bool, max: Duration) {
        for process in self.running.iter().filter(|process| chosen(process)) {
            process.signal(Signal::TERM);
        }
        let until = now() + max;
        loop {
            for Ended { line, status } in self.ended() {
                // A broker's exit code says nothing; a node's says whether it drained.
                if line.node.is_some() && !status.success() {
                    let (name, log) = (line.name, line.log.display());
                    eprintln!("{name} did not stop in order ({status}); its log: {log}");
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
            eprintln!(
                "{} did not stop within {max:?}: killing it",
                process.line.name
            );
            process.killed().await;
        }
    }

    /// Kills what is left.
    pub(super) async fn kill(&mut self) {
        for process in self.running.drain(..) {
            process.killed().await;
        }
    }
}

impl Process {
    pub(super) fn name(&self) -> &str {
        &self.line.name
    }

    pub(super) fn is_node(&self) -> bool {
        self.line.node.is_some()
    }

    fn signal(&self, signal: Signal) {
        let pid = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            // The child is not yet waited for, so its number cannot belong to another process;
            // that it has just ended is no error.
            let _already_gone = kill_process(pid, signal);
        }
    }

    async fn killed(mut self) {
        // Fails only for a child that has ended already.
        let _already_gone = self.child.kill().await;
        if let Some(log) = self.log {
            let _cut_off = tokio::time::timeout(LOG_END_MAX, log).await;
        }
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

/// Words as a shell reads them back.
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

/// Copies a node's log to its file, and warnings and errors to this process's own output. Ends
/// with the node. A full disk ends the copy; the node then sees a closed pipe.
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
            eprint!("{name}: {}", String::from_utf8_lossy(&line));
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
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A shell that runs `script` as node 1, with its log in `directory`.
    fn shell_line(directory: &Path, script: &str) -> Line {
        Line {
            name: "node-1".to_owned(),
            node: Some(1),
            words: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            prefix: &[],
            environment: BTreeMap::new(),
            log: directory.join("node-1.log"),
        }
    }

    async fn until_log_has(path: &Path, wanted: &str) {
        let until = now() + Duration::from_secs(20);
        while !fs::read_to_string(path)
            .unwrap_or_default()
            .contains(wanted)
        {
            assert!(now() < until, "{wanted} never came to {}", path.display());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn an_end_is_reported_once_with_its_log() {
        let directory = tempfile::tempdir().expect("directory");
        let mut processes = Processes::default();
        let line = shell_line(directory.path(), "echo the log is damaged >&2; exit 3");
        let log = line.log.clone();
        processes.start(line).expect("start");
        until_log_has(&log, "damaged").await;
        let ended = loop {
            if let Some(ended) = processes.ended().pop() {
                break ended;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let text = ended.to_string();
        assert!(
            text.starts_with("node-1 ended by itself (exit status: 3)"),
            "{text}"
        );
        assert!(text.contains("start it: /bin/sh -c 'echo"), "{text}");
        assert_eq!(ended.last_lines(), "    the log is damaged");
        assert!(processes.ended().is_empty() && processes.nodes().next().is_none());
    }

    #[tokio::test]
    async fn a_process_is_asked_to_stop_before_it_is_killed() {
        let directory = tempfile::tempdir().expect("directory");
        let mut processes = Processes::default();
        let polite =
            "trap 'echo drained >&2; exit 0' TERM; echo up >&2; while :; do sleep 0.01; done";
        let line = shell_line(directory.path(), polite);
        let log = line.log.clone();
        processes.start(line).expect("start");
        until_log_has(&log, "up").await;
        processes.stop(|_| true, Duration::from_secs(20)).await;
        until_log_has(&log, "drained").await;
        assert!(processes.running.is_empty());
    }

    #[tokio::test]
    async fn a_stubborn_process_is_killed_and_the_other_left_alone() {
        let directory = tempfile::tempdir().expect("directory");
        let mut processes = Processes::default();
        let mut stubborn = shell_line(
            directory.path(),
            "trap '' TERM; echo up >&2; exec sleep 600",
        );
        stubborn.name = "stubborn".to_owned();
        let log = stubborn.log.clone();
        processes.start(stubborn).expect("start");
        until_log_has(&log, "up").await;
        let other = directory.path().join("other");
        fs::create_dir(&other).expect("directory");
        processes
            .start(shell_line(&other, "exec sleep 600"))
            .expect("start");
        let chosen = |process: &Process| process.name() == "stubborn";
        processes.stop(chosen, Duration::from_millis(50)).await;
        let left: Vec<&str> = processes.running.iter().map(Process::name).collect();
        assert_eq!(left, ["node-1"]);
        processes.kill().await;
    }

    #[tokio::test]
    async fn the_log_of_the_run_before_is_kept() {
        let directory = tempfile::tempdir().expect("directory");
        let log = directory.path().join("nats.log");
        fs::write(&log, "before").expect("write");
        new_log(&log).expect("new");
        assert_eq!(fs::read(&log).expect("read"), b"");
        assert_eq!(
            fs::read(directory.path().join("nats.log.old")).expect("read"),
            b"before"
        );
    }

    #[test]
    fn warnings_are_found_by_their_level() {
        assert!(is_warning(b"2026-01-01T00:00:00Z  WARN mufakat: late\n"));
        assert!(is_warning(b"ERROR mufakat: gone\n"));
        assert!(!is_warning(
            b"2026-01-01T00:00:00Z  INFO mufakat: said WARN\n"
        ));
        assert!(!is_warning(b"\n"));
    }

    #[test]
    fn command_lines_can_be_pasted() {
        let words = ["/a b/x", "--save", "", "it's", "1,2,3"].map(str::to_owned);
        assert_eq!(shell(&words), r"'/a b/x' --save '' 'it'\''s' 1,2,3");
    }
}
