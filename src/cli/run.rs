//! `mufakat lock run`: runs a command only while a lock is held.
//!
//! The command is stopped before its lease can end by this machine's clock: SIGTERM, then SIGKILL, to its whole
//! process group. On a terminal the command shares our group so that it can read from the terminal. Then only the
//! command itself is signalled. Elsewhere Ctrl-Z stops this process and not the command, which is stopped here, too:
//! it must not go on while nobody renews the lease.
//!
//! Limit: if this process is killed with SIGKILL, the command goes on without a lock. It has its token in
//! `MUFAKAT_TOKEN`, so that whatever it writes to can refuse the older token.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process;
use std::task::Poll;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};

use crate::cli::lock::WantedArgs;
use crate::cli::output::say;
use crate::cli::{Connection, ExitStatus, Failure};
use crate::client::{Client, ClientError, Lease, LeaseLost, Target};
use crate::protocol::lock::{Acquire, Acquired};
use crate::time::{self, Instant};

/// How long the command has after SIGTERM, or a quarter of the lease if that is shorter.
pub(super) const STOP_MAX: Duration = Duration::from_secs(5);
/// The same when the lock is already lost and may have another holder.
const STOP_WHEN_LOST: Duration = Duration::from_millis(200);
/// How often to look whether the system has stopped the command.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Signals that are passed on to the command.
const PASSED_ON: [Signal; 6] = [
    Signal::INT,
    Signal::TERM,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
];
/// Those of them that a terminal sends to a whole group, so that a command that shares ours gets them from it.
const OF_TERMINAL: [Signal; 2] = [Signal::INT, Signal::QUIT];
/// How long before the end of the lease SIGKILL is sent, or a twentieth of the lease if that is shorter.
const KILL_BEFORE_MAX: Duration = Duration::from_millis(100);

/// Hold a lock while a command runs
///
/// The command gets MUFAKAT_TOKEN, MUFAKAT_RESOURCE and MUFAKAT_OWNER in its environment.
///
/// The lease is renewed as long as the command runs, through elections and broker restarts. If the
/// lock cannot be kept, the command gets SIGTERM when a quarter of the lease is left (5 s at most),
/// and SIGKILL while the lock is still held.
///
/// Signals:
///   - SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on to the command and its
///     process group. Before the command has started they end the wait for the lock.
///   - With a terminal on stdin they are passed on to the command itself, except SIGINT and
///     SIGQUIT, which the terminal sends.
///   - Ctrl-Z stops the command as well. It goes on only if it still has the lock.
///   - A signal that is ignored at the start, as SIGHUP under nohup, stays ignored.
///
/// Without a terminal on stdin, a command that reads from the terminal is killed, and the lock is
/// released. Processes that the command leaves in the background when it exits go on without the
/// lock.
///
/// Exit codes:
///   the command's own, or 128 + N if signal N ended it
///   69   the cluster cannot be reached; the command did not run
///   75   the lock was not acquired: held, waited too long, a deadlock, or lost before the command
///        started; the command did not run
///   76   the lock was lost or could not be kept, and the command was stopped
///   126  the command cannot be executed (127: not found)
///   128 + N if signal N came before the lock
///
/// Examples:
///   mufakat lock run nightly-report -- ./report.sh
///   mufakat lock run deploy --ttl 10s --wait 10m -- make deploy
///   mufakat lock run catalogue --shared -- ./read-it.sh
///   mufakat lock run printers --permits 1 --limit 3 --wait 1h -- lp file.pdf
///   mufakat lock run orders.42 stock.7 -- ./move.sh
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RunArgs {
    #[command(flatten)]
    what: WantedArgs,
    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) async fn run(connection: &Connection, args: RunArgs) -> Result<ExitStatus, Failure> {
    let mut signals = Signals::listen(&PASSED_ON)?;
    let client = connection.client(Target::Leader).await?;
    let request = Acquire {
        request_id: Some(client.new_request_id()),
        ..args.what.request()
    };
    let lease = tokio::select! {
        lease = acquire(&client, &request) => lease?,
        signal = signals.next() => {
            if let Err(error) = client.abandon(&request).await {
                say(format_args!(
                    "mufakat: what is granted all the same ends with its lease: {error}"
                ));
            }
            return Ok(after_signal(signal.as_raw()));
        }
    };
    // This process may have stood still since the grant.
    if let Err(lost) = lease.check() {
        say(format_args!(
            "mufakat: the lock was lost before the command started: {lost}"
        ));
        return Ok(ExitStatus::NotAcquired);
    }
    let own_group = !io::stdin().is_terminal();
    // Of a shared group the terminal stops all.
    let mut suspends = match own_group {
        true => Signals::listen(&[Signal::TSTP])?,
        false => Signals::listen(&[])?,
    };
    match spawn(&args.command, &lease, own_group) {
        Ok(child) => {
            let ttl = lease.left();
            let running = Running {
                pid: child.id().and_then(|id| Pid::from_raw(id as i32)),
                child,
                own_group,
                lease,
                ttl,
            };
            running.until_end(&mut signals, &mut suspends).await
        }
        Err(error) => {
            say(format_args!(
                "mufakat: cannot run {}: {error}",
                args.command[0].display()
            ));
            release(lease).await;
            Ok(match error.kind() {
                io::ErrorKind::NotFound => ExitStatus::NotFound,
                _ => ExitStatus::NotExecutable,
            })
        }
    }
}

fn spawn(command: &[OsString], lease: &Lease, own_group: bool) -> io::Result<Child> {
    let acquired = lease.acquired();
    let mut command_line = Command::new(&command[0]);
    command_line
        .args(&command[1..])
        .env("MUFAKAT_TOKEN", acquired.token.to_string())
        .env("MUFAKAT_RESOURCE", names(acquired))
        .env("MUFAKAT_OWNER", &acquired.owner)
        .kill_on_drop(true);
    if own_group {
        command_line.process_group(0);
    }
    command_line.spawn()
}

/// Acquires the lock. A session is kept alive as long as the lock is held, whoever opened it.
async fn acquire(client: &Client, request: &Acquire) -> Result<Lease, ClientError> {
    match &request.session {
        Some(session) => client.join_session(session).await?.acquire(request).await,
        None => client.acquire_lease(request).await,
    }
}

/// The names of the locks that are held, separated by spaces.
fn names(acquired: &Acquired) -> String {
    let several = acquired.resources.iter().map(|held| held.resource.as_str());
    let sole = acquired.sole_resource();
    several.chain(sole.as_deref()).collect::<Vec<_>>().join(" ")
}

async fn release(lease: Lease) {
    let resource = names(lease.acquired());
    if let Err(error) = lease.release().await {
        say(format_args!(
            "mufakat: {resource} was not released, and is held until its lease ends: {error}"
        ));
    }
}

/// A command that runs under a lock.
struct Running {
    child: Child,
    pid: Option<Pid>,
    own_group: bool,
    lease: Lease,
    ttl: Duration,
}

impl Running {
    async fn until_end(
        mut self,
        signals: &mut Signals,
        suspends: &mut Signals,
    ) -> Result<ExitStatus, Failure> {
        let stop_for = STOP_MAX.min(self.ttl / 4);
        loop {
            tokio::select! {
                exited = self.child.wait() => {
                    let status = of_command(exited?);
                    release(self.lease).await;
                    return Ok(status);
                }
                signal = signals.next() => {
                    if self.own_group || !OF_TERMINAL.contains(&signal) {
                        self.signal(signal);
                    }
                }
                _ = suspends.next() => self.suspend(),
                () = tokio::time::sleep(LOOK_EVERY), if self.own_group => {
                    if self.pid.is_some_and(wants_the_terminal) {
                        return self.refuse_the_terminal().await;
                    }
                }
                lost = self.lease.ending(stop_for) => return self.stop(lost).await,
            }
        }
    }

    /// Stops this process, and before that the command, which goes on afterwards if the lock is still held.
    fn suspend(&self) {
        self.signal(Signal::STOP);
        note(rustix::process::kill_process(
            rustix::process::getpid(),
            Signal::STOP,
        ));
        // SIGCONT has come. A command that has lost the lock is ended as it stands.
        if self.lease.check().is_ok() {
            self.signal(Signal::CONT);
        }
    }

    /// Ends a command that would wait for the terminal for ever, and keep the lock.
    async fn refuse_the_terminal(mut self) -> Result<ExitStatus, Failure> {
        say(
            "mufakat: the command wants the terminal, which it cannot have since stdin is none; \
             redirect within it: sh -c '… < file'",
        );
        self.signal(Signal::KILL);
        let status = of_command(self.child.wait().await?);
        release(self.lease).await;
        Ok(status)
    }

    /// Stops the command while the lock is surely still held, or at once if it is lost.
    async fn stop(mut self, lost: Option<LeaseLost>) -> Result<ExitStatus, Failure> {
        self.signal(Signal::TERM);
        let resource = names(self.lease.acquired());
        let kill_at: Instant = match &lost {
            Some(why) => {
                say(format_args!(
                    "mufakat: {resource} was lost; stopping the command: {why}"
                ));
                time::now() + STOP_WHEN_LOST
            }
            None => {
                say(format_args!(
                    "mufakat: {resource} cannot be renewed; stopping the command"
                ));
                let left = self.lease.left();
                time::now() + left.saturating_sub(KILL_BEFORE_MAX.min(self.ttl / 20))
            }
        };
        let exited = tokio::time::timeout_at(kill_at, self.child.wait()).await;
        // Other processes of the group may outlive the command.
        self.signal(Signal::KILL);
        if exited.is_err() {
            self.child.wait().await?;
        }
        if lost.is_none() {
            release(self.lease).await;
        }
        Ok(ExitStatus::Lost)
    }

    fn signal(&self, signal: Signal) {
        let Some(pid) = self.pid else { return };
        match self.own_group {
            true => signal_group(pid, signal),
            // Once the command has been waited for, its process id may belong to another process.
            false if self.child.id().is_none() => {}
            false => note(rustix::process::kill_process(pid, signal)),
        }
    }
}

/// Sends a signal to the process group of a command that has one of its own.
pub(super) fn signal_group(pid: Pid, signal: Signal) {
    note(rustix::process::kill_process_group(pid, signal));
}

/// Whether the system has stopped a command that reads from the terminal, or writes to one on which only the
/// foreground group may write.
pub(super) fn wants_the_terminal(command: Pid) -> bool {
    let look = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let stopped = waitid(WaitId::Pid(command), look).ok().flatten();
    let signal = stopped.and_then(|status| status.stopping_signal());
    signal.is_some_and(|signal| [Signal::TTIN.as_raw(), Signal::TTOU.as_raw()].contains(&signal))
}

/// The signals that this process ignores, as a mask whose lowest bit is signal 1. Empty where the system has no
/// `/proc`.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// Logs a signal that could not be sent: the command may just have ended.
fn note(sent: rustix::io::Result<()>) {
    if let Err(error) = sent {
        tracing::debug!(%error, "cannot signal the command");
    }
}

/// The exit code of the command, as a shell would report it.
fn of_command(status: process::ExitStatus) -> ExitStatus {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus::OfCommand(code as u8),
        (None, Some(signal)) => after_signal(signal),
        (None, None) => ExitStatus::Refused,
    }
}

fn after_signal(signal: i32) -> ExitStatus {
    ExitStatus::OfCommand((128 + signal) as u8)
}

/// Signals that this process handles instead of being ended by them.
pub(super) struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    /// A signal that was ignored at the start, as SIGHUP under `nohup`, stays ignored.
    pub(super) fn listen(signals: &[Signal]) -> io::Result<Self> {
        let ignored = ignored();
        let taken = signals.iter().filter(|signal| {
            let bit = signal.as_raw() - 1;
            ignored >> bit & 1 == 0
        });
        let listen = |signal: &Signal| {
            let kind = SignalKind::from_raw(signal.as_raw());
            unix::signal(kind).map(|listener| (*signal, listener))
        };
        Ok(Signals(taken.map(listen).collect::<io::Result<_>>()?))
    }

    pub(super) async fn next(&mut self) -> Signal {
        std::future::poll_fn(|cx| {
            let came = |(signal, listener): &mut (Signal, unix::Signal)| {
                listener.poll_recv(cx).is_ready().then_some(*signal)
            };
            match self.0.iter_mut().find_map(came) {
                Some(signal) => Poll::Ready(signal),
                None => Poll::Pending,
            }
        })
        .await
    }
}
