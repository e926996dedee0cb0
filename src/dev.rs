//! `mufakat dev`: a broker, a Redis and a few nodes on this machine, started and stopped together.
//!
//! All its processes listen on 127.0.0.1 alone and keep data and logs under one directory. They are stopped with this
//! process: nodes first, so that they can hand over and drain, then Redis, then the broker. A process that dies is
//! reported but not restarted, since a cluster that heals in secret teaches nothing. To make it fail and heal, give
//! orders ([`control`]).
//!
//! Limits: at most [`NODES_MAX`] nodes. A SIGKILL of this process ends its children only if the `setpriv` program of
//! util-linux is installed, as on every Debian; otherwise they stay behind.

mod commands;
pub mod control;
mod cpus;
mod guide;
mod ports;
mod processes;
mod programs;
mod ready;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::output::{say, write_out};
use crate::time::now;
use commands::Commands;
use control::{Answer, Control, State};
use ports::Ports;
use processes::{Process, Processes};
use programs::Search;

/// Maximum number of nodes of one `mufakat dev`: enough to try every failure, few enough for a laptop.
pub const NODES_MAX: u8 = 9;

/// The broker and Redis answer within milliseconds, but Redis may first load its data.
const SERVER_START_MAX: Duration = Duration::from_secs(20);
/// How often a starting cluster is asked whether it is ready, and a running one is checked for dead processes.
const POLL: Duration = Duration::from_millis(100);
/// How often a cluster that is not ready yet reports the missing nodes.
const REMIND: Duration = Duration::from_secs(10);
/// Time for the nodes to hand over, finish and drain before they are killed.
const NODES_STOP_MAX: Duration = Duration::from_secs(15);
/// Time for Redis to write its last bytes, and for the broker to close.
const SERVER_STOP_MAX: Duration = Duration::from_secs(5);

/// The flags of `mufakat dev`.
#[derive(Args, Clone, Debug)]
pub struct DevArgs {
    /// Number of nodes to start
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u8).range(1..=i64::from(NODES_MAX)))]
    pub nodes: u8,
    /// Directory for all data and logs; use another one for another number of nodes
    #[arg(long, value_name = "DIR", default_value = ".data/dev")]
    pub data_dir: PathBuf,
    /// Number to add to every port: 4222 (NATS), 6379 (Redis), 5001, 5002, … (HTTP of the nodes)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub port_base: u16,
    /// The nats-server program, 2.12 or newer [env: MUFAKAT_NATS_SERVER] [default: .tools/bin, then PATH]
    #[arg(long, value_name = "PATH")]
    pub nats_server: Option<PathBuf>,
    /// The redis-server program [env: MUFAKAT_REDIS_SERVER] [default: .tools/bin, then PATH]
    #[arg(long, value_name = "PATH")]
    pub redis_server: Option<PathBuf>,
}

/// Starts everything, reports when the cluster is ready, and stops everything at SIGINT, SIGTERM or SIGHUP.
///
/// # Errors
/// The cluster could not start, or no node is left.
pub async fn run(args: DevArgs, environment: BTreeMap<String, String>) -> anyhow::Result<()> {
    let mut signals = StopSignals::listen()?;
    let cluster = Cluster::prepare(&args, &environment)?;
    let mut processes = Processes::default();
    let outcome = tokio::select! {
        biased;
        () = signals.received() => Ok(()),
        outcome = cluster.serve(&mut processes) => outcome,
    };
    say("Stopping.");
    tokio::select! {
        biased;
        () = signals.received() => say("Second signal: killing the remaining processes."),
        () = stop(&mut processes) => {}
    }
    processes.kill().await;
    outcome
}

/// Nodes first: they hand over and drain while the broker still carries their messages.
async fn stop(processes: &mut Processes) {
    processes.stop(Process::is_node, NODES_STOP_MAX).await;
    let redis = |process: &Process| process.name() == commands::REDIS;
    processes.stop(redis, SERVER_STOP_MAX).await;
    processes.stop(|_| true, SERVER_STOP_MAX).await;
}

/// The signals that end this process.
struct StopSignals {
    signals: [Signal; 3],
}

impl StopSignals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            signals: [
                listen(SignalKind::interrupt())?,
                listen(SignalKind::terminate())?,
                listen(SignalKind::hangup())?,
            ],
        })
    }

    async fn received(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// A cluster whose requirements were checked before its first process starts.
struct Cluster {
    ports: Ports,
    commands: Commands,
    data_dir: PathBuf,
    /// Held while this process lives, so that no other one uses the same data.
    _lock: File,
}

impl Cluster {
    fn prepare(args: &DevArgs, environment: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let ports = Ports::new(args.nodes, args.port_base)?;
        let mufakat = std::env::current_exe().context("cannot tell where this program is")?;
        let search = Search::new(&mufakat, environment)?;
        let nats = search.program(&programs::NATS, args.nats_server.as_deref())?;
        programs::new_enough(&nats)?;
        let redis = search.program(&programs::REDIS, args.redis_server.as_deref())?;
        ports.all_free()?;
        let data_dir = std::path::absolute(&args.data_dir)?;
        let lock = locked(&data_dir)?;
        let configuration = match search.beside_the_project(Path::new("nats/dev.conf")) {
            Some(file) => file,
            None => commands::write_broker_configuration(&data_dir)?,
        };
        let commands = Commands {
            mufakat,
            nats,
            redis,
            configuration,
            data_dir: data_dir.clone(),
            setpriv: programs::setpriv(),
            environment: commands::for_children(environment),
        };
        Ok(Self {
            ports,
            commands,
            data_dir,
            _lock: lock,
        })
    }

    /// Runs until no node is left. The caller stops what still runs.
    async fn serve(&self, processes: &mut Processes) -> anyhow::Result<()> {
        let started = now();
        let Self {
            ports, commands, ..
        } = self;
        processes.start(commands.nats(ports))?;
        self.server_ready(processes, ready::nats, ports.nats)
            .await?;
        processes.start(commands.redis(ports)?)?;
        self.server_ready(processes, ready::redis, ports.redis)
            .await?;
        for node in ports.nodes() {
            processes.start(commands.node(ports, node)?)?;
        }
        self.nodes_ready(processes).await?;
        let control = self.control();
        let here = std::env::current_dir().unwrap_or_default();
        say(format_args!(
            "Ready after {:.1} s.",
            started.elapsed().as_secs_f64()
        ));
        write_out(guide::text(ports, commands, &self.data_dir, &here))?;
        loop {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                Some(stream) = asked(control.as_ref()) => self.obey(processes, stream).await,
            }
            report_ended(processes)?;
        }
    }

    /// The socket for orders. The cluster runs without one if it cannot be made, for example because the path of the
    /// directory is too long for a socket.
    fn control(&self) -> Option<Control> {
        let control = Control::listen(&self.data_dir);
        if let Err(error) = &control {
            say(format_args!(
                "This cluster takes no orders (`loadgen --chaos` needs them): {error}"
            ));
        }
        control.ok()
    }

    async fn obey(&self, processes: &mut Processes, mut stream: UnixStream) {
        let Some(order) = control::order(&mut stream).await else {
            return;
        };
        let answer = match processes.obey(&order).await {
            Ok(()) => Answer::Done(State {
                nats_port: self.ports.nats,
                running: processes.running(),
                stopped: processes.stopped(),
            }),
            Err(error) => Answer::Refused(format!("{error:#}")),
        };
        control::answer(&mut stream, &answer).await;
    }

    /// Waits until the server that was started last answers.
    async fn server_ready(
        &self,
        processes: &mut Processes,
        answers: impl AsyncFn(u16) -> bool,
        port: u16,
    ) -> anyhow::Result<()> {
        let until = now() + SERVER_START_MAX;
        while !answers(port).await {
            if let Some(ended) = processes.ended().pop() {
                bail!("{ended}\n{}", ended.last_lines());
            }
            if now() > until {
                bail!("no answer on port {port} after {SERVER_START_MAX:?}");
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until every node that still runs is ready.
    async fn nodes_ready(&self, processes: &mut Processes) -> anyhow::Result<()> {
        let mut remind_at = now() + REMIND;
        loop {
            report_ended(processes)?;
            let mut missing = Vec::new();
            for node in processes.nodes() {
                if !ready::node(self.ports.http(node)).await {
                    missing.push(node);
                }
            }
            if missing.is_empty() {
                return Ok(());
            }
            if now() > remind_at {
                remind(&missing, &self.data_dir);
                remind_at = now() + REMIND;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The next connection with an order, or none if it failed. Without a socket, never returns.
async fn asked(control: Option<&Control>) -> Option<UnixStream> {
    match control {
        Some(control) => control.asked().await.ok(),
        None => std::future::pending().await,
    }
}

fn remind(missing: &[u8], data_dir: &Path) {
    let nodes: Vec<String> = missing.iter().map(u8::to_string).collect();
    let (nodes, logs) = (nodes.join(", "), data_dir.display());
    say(format_args!(
        "Not ready yet: node {nodes}. Logs are in {logs}."
    ));
}

/// Reports the processes that ended since the last call.
///
/// # Errors
/// No node is left.
fn report_ended(processes: &mut Processes) -> anyhow::Result<()> {
    for ended in processes.ended() {
        say(format_args!("{ended}\n{}", ended.last_lines()));
    }
    if !processes.has_nodes() {
        bail!("no node is left");
    }
    Ok(())
}

/// Creates the data directory and takes its lock.
fn locked(data_dir: &Path) -> anyhow::Result<File> {
    let shown = data_dir.display();
    std::fs::create_dir_all(data_dir).with_context(|| format!("cannot create {shown}"))?;
    let lock =
        File::create(data_dir.join("lock")).with_context(|| format!("cannot use {shown}"))?;
    if lock.try_lock().is_err() {
        bail!("another `mufakat dev` uses {shown}: stop it, or give another --data-dir");
    }
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_serves_one_at_a_time() {
        let dir = tempfile::tempdir().expect("directory");
        let first = locked(dir.path()).expect("free");
        let refused = locked(dir.path()).expect_err("held").to_string();
        assert!(refused.contains("give another --data-dir"), "{refused}");
        drop(first);
        locked(dir.path()).expect("free again");
    }
}
