//! `mufakat lock run`: a command that runs only while a lock is held.
//!
//! The command is stopped before the lease can be over as this machine's clock has it: SIGTERM,
//! then SIGKILL, to its whole process group. On a terminal it shares our group, so that it can
//! read from the terminal; then only the command itself is signalled. Elsewhere Ctrl-Z stops this
//! process and not the command, which is stopped here, too: it may not go on while nobody renews.
//!
//! Limit: when this process itself is killed with SIGKILL the command goes on without a lock.
//! `MUFAKAT_TOKEN` is there so that what it writes to can refuse the older token.

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

/// The command has this long after SIGTERM, or a quarter of the lease if that is shorter.
pub(super) const STOP_MAX: Duration = Duration::from_secs(5);
/// The same when the lock is lost already and somebody else may have it.
const STOP_WHEN_LOST: Duration = Duration::from_millis(200);
/// How often it is looked whether the system has stopped the command.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Signals that the command gets.
const PASSED_ON: [Signal; 6] = [
    Signal::INT,
    Signal::TERM,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
];
/// Those of them that a terminal sends to all of a group, so that a command that shares ours has them.
const OF_TERMINAL: [Signal; 2] = [Signal::INT, Signal::QUIT];
/// SIGKILL comes this long before the lease's end, or a twentieth of the lease if that is shorter.
const KILL_BEFORE_MAX: Duration = Duration::from_millis(100);

/// Hold a lock while a command runs.
///
/// The command finds MUFAKAT_TOKEN, MUFAKAT_RESOURCE and MUFAKAT_OWNER in its environment. The lease
/// is renewed for as long as it runs, through elections and restarts of the broker. If the lock
/// cannot be kept all the same, the command gets SIGTERM a quarter of the lease before its end (5 s at
/// most), then SIGKILL while the lock is still held. SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and
/// SIGUSR2 are passed on to it, but for those that are ignored already, as SIGHUP is under nohup; before
/// it has started they end the wait for the lock. Off a terminal
/// all this is for the command's process group, and so for what it has started; a command that wants to read
/// from the terminal nevertheless is stopped by the system, which ends it here, too. On a terminal SIGINT and
/// SIGQUIT are not passed on: the terminal itself sends them to the command. Ctrl-Z stops the command as well;
/// it goes on only if it still has the lock. What still runs in the
/// background when the command exits goes on without the lock.
///
/// Exit codes:
///   the command's own, or 128 + N when signal N ended it
///   69   the cluster cannot be reached; the command did not run
///   75   the lock was not acquired: held, waited too long, or a deadlock; the command did not run
///   76   the lock was lost or could not be kept, and the command was stopped
///   126  the command cannot be executed (127: not found)
///   128 + N when signal N came before the lock
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

/// Takes the lock. A session is kept alive for as long as the lock is held, whoever opened it.
async fn acquire(client: &Client, request: &Acquire) -> Result<Lease, ClientError> {
    match &request.session {
        Some(session) => client.join_session(session).await?.acquire(request).await,
        None => client.acquire_lease(request).await,
    }
}

/// What is held, with spaces between several.
fn names(acquired: &Acquired) -> String {
    let several = acquired.resources.iter().map(|held| held.resource.as_str());
    let sole = acquired.sole_resource();
    several.chain(sole.as_deref()).collect::<Vec<_>>().join(" ")
}

async fn release(lease: Lease) {
    let resource = names(lease.acquired());
    if let Err(error) = lease.release().await {
        say(format_args!(
            "mufakat: {resource} was not released and ends with its lease: {error}"
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
        // Somebody has sent SIGCONT. A command that has lost the lock is ended as it stands.
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

    /// Ends the command while the lock is still surely held, or as soon as can be.
    async fn stop(mut self, lost: Option<LeaseLost>) -> Result<ExitStatus, Failure> {
        self.signal(Signal::TERM);
        let resource = names(self.lease.acquired());
        let kill_at: Instant = match &lost {
            Some(why) => {
                say(format_args!(
                    "mufakat: {resource} is lost, stopping the command: {why}"
                ));
                time::now() + STOP_WHEN_LOST
            }
            None => {
                say(format_args!(
                    "mufakat: {resource} cannot be renewed, stopping the command"
                ));
                let left = self.lease.left();
                time::now() + left.saturating_sub(KILL_BEFORE_MAX.min(self.ttl / 20))
            }
        };
        let exited = tokio::time::timeout_at(kill_at, self.child.wait()).await;
        // Also after the command has ended: others of its group may not have.
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
            // Once the command was waited for, its number may be another process's.
            false if self.child.id().is_none() => {}
            false => note(rustix::process::kill_process(pid, signal)),
        }
    }
}

/// Sends a signal to a command that has a process group of its own, and to what it has started.
pub(super) fn signal_group(pid: Pid, signal: Signal) {
    note(rustix::process::kill_process_group(pid, signal));
}

/// Whether the system has stopped a command that would read from the terminal, or write to one that lets only
/// its own group write.
pub(super) fn wants_the_terminal(command: Pid) -> bool {
    let look = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let stopped = waitid(WaitId::Pid(command), look).ok().flatten();
    let signal = stopped.and_then(|status| status.stopping_signal());
    signal.is_some_and(|signal| [Signal::TTIN.as_raw(), Signal::TTOU.as_raw()].contains(&signal))
}

/// The signals that this process ignores, the lowest bit for the first; none where the system does not tell.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// The command may have ended in this very moment.
fn note(sent: rustix::io::Result<()>) {
    if let Err(error) = sent {
        tracing::debug!(%error, "cannot signal the command");
    }
}

/// The exit code of the command, as a shell has it.
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

/// Signals that this process takes instead of ending by them.
pub(super) struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    /// What this process was started to ignore, as `nohup` has it for SIGHUP, stays ignored.
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
