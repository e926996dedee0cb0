//! `mufakat lock …`: one verb for each operation of the lock service.

use std::fmt::Write;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::run::{self, RunArgs};
use crate::cli::{Connection, ExitStatus, Failure, length_ms};
use crate::client::{ClientError, Target};
use crate::ids::Token;
use crate::protocol::lock::{
    Acquire, Acquired, Because, Check, Checked, Consistency, DeadlockPolicy, Get, Holder, Mode,
    Release, Renew, View,
};
use crate::protocol::meta::Meta;

mod watch;

use watch::WatchArgs;

#[derive(Args)]
pub(super) struct LockArgs {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    pub(super) command: LockCommand,
}

#[derive(Subcommand)]
pub(super) enum LockCommand {
    Acquire(AcquireArgs),
    Release(ReleaseArgs),
    Renew(RenewArgs),
    Check(CheckArgs),
    Get(GetArgs),
    Run(RunArgs),
    Watch(WatchArgs),
}

/// Take a lock and print its token. It ends with its lease unless it is renewed.
///
/// Examples:
///   mufakat lock acquire orders.42
///   mufakat lock acquire orders.42 --wait 10s --ttl 1m --owner worker-7
///   mufakat lock acquire orders.42 --mode shared --meta '{"job":"report"}'
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct AcquireArgs {
    #[command(flatten)]
    pub(super) what: WantedArgs,
    /// Repeats with the same id attach to the same place; made up when absent.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// What `acquire` and `run` have in common.
#[derive(Args)]
pub(super) struct WantedArgs {
    /// Name of the lock: 1 to 256 bytes without control characters.
    #[arg(value_name = "RESOURCE")]
    pub(super) resource: String,
    /// One holder, or any number of shared ones.
    #[arg(long, value_enum, default_value = "exclusive")]
    mode: ModeArg,
    /// Any number of holders, all shared: short for `--mode shared`.
    #[arg(long, conflicts_with = "mode")]
    shared: bool,
    /// One thread of control; made up when absent.
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// Length of the lease: 100ms to 1day.
    #[arg(long, value_name = "LENGTH", default_value = "30s", value_parser = length_ms)]
    pub(super) ttl: u64,
    /// How long to wait in the queue, as long as you like. Without it: one try.
    #[arg(long, value_name = "LENGTH", default_value = "0s", value_parser = length_ms)]
    wait: u64,
    /// A JSON object of at most 1 KiB, shown to whoever asks about the lock.
    #[arg(long, value_name = "JSON", value_parser = meta)]
    meta: Option<Meta>,
    /// Who gives way if waiting would close a cycle: this request, or the youngest owner of it.
    #[arg(long, value_enum, default_value = "requester")]
    on_deadlock: PolicyArg,
}

impl WantedArgs {
    pub(super) fn request(self) -> Acquire {
        Acquire {
            mode: match self.mode {
                _ if self.shared => Mode::Shared,
                ModeArg::Exclusive => Mode::Exclusive,
                ModeArg::Shared => Mode::Shared,
            },
            owner: self.owner,
            ttl_ms: Some(self.ttl),
            wait_ms: self.wait,
            on_deadlock: match self.on_deadlock {
                PolicyArg::Requester => DeadlockPolicy::Requester,
                PolicyArg::Youngest => DeadlockPolicy::Youngest,
            },
            meta: self.meta,
            ..Acquire::new(self.resource)
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeArg {
    Exclusive,
    Shared,
}

#[derive(Clone, Copy, ValueEnum)]
enum PolicyArg {
    Requester,
    Youngest,
}

/// Give a lock back.
///
/// Examples:
///   mufakat lock release orders.42 17
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ReleaseArgs {
    #[command(flatten)]
    hold: HoldArgs,
}

/// Let the lease of a lock begin anew.
///
/// Examples:
///   mufakat lock renew orders.42 17
///   mufakat lock renew orders.42 17 --ttl 5m
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RenewArgs {
    #[command(flatten)]
    hold: HoldArgs,
    /// Another length of the lease: 100ms to 1day.
    #[arg(long, value_name = "LENGTH", value_parser = length_ms)]
    ttl: Option<u64>,
}

/// Ask whether a token is that of a live hold; exit code 1 if it is not.
///
/// Examples:
///   mufakat lock check orders.42 17
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    hold: HoldArgs,
}

/// One hold.
#[derive(Args)]
struct HoldArgs {
    /// Name of the lock.
    #[arg(value_name = "RESOURCE")]
    resource: String,
    /// The token that `acquire` printed.
    #[arg(value_name = "TOKEN", env = "MUFAKAT_TOKEN", value_parser = token)]
    token: Token,
}

/// Show who holds a lock and who waits for it.
///
/// Examples:
///   mufakat lock get orders.42
///   mufakat lock get orders.42 --json
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct GetArgs {
    /// Name of the lock.
    #[arg(value_name = "RESOURCE")]
    resource: String,
    /// Take what any node knows, without asking a majority.
    #[arg(long)]
    stale: bool,
}

pub(super) async fn run(
    connection: &Connection,
    command: LockCommand,
) -> Result<ExitStatus, Failure> {
    // A command that asks once gains nothing from learning who leads.
    match command {
        LockCommand::Acquire(args) => {
            let mut request = args.what.request();
            request.request_id = args.request_id;
            let client = connection.client(Target::Any).await?;
            connection.print(&client.acquire(&request).await?, acquired_line)?;
        }
        LockCommand::Release(ReleaseArgs { hold }) => {
            let client = connection.client(Target::Any).await?;
            let request = Release::new(hold.resource, hold.token);
            connection.print(&client.release(&request).await?, |_| "released".to_owned())?;
        }
        LockCommand::Renew(RenewArgs { hold, ttl }) => {
            let client = connection.client(Target::Any).await?;
            let mut request = Renew::new(hold.resource, hold.token);
            request.ttl_ms = ttl;
            connection.print(&client.renew(&request).await?, |renewed| {
                format!("renewed, expires in {}", length(renewed.expires_in_ms))
            })?;
        }
        LockCommand::Check(CheckArgs { hold }) => {
            let client = connection.client(Target::Any).await?;
            let checked = client.check(&Check::new(hold.resource, hold.token)).await?;
            connection.print(&checked, checked_line)?;
            if !checked.valid {
                return Ok(ExitStatus::Refused);
            }
        }
        LockCommand::Get(args) => {
            let client = connection.client(Target::Any).await?;
            let mut request = Get::new(args.resource);
            if args.stale {
                request.consistency = Consistency::Stale;
            }
            connection.print(&client.get(&request).await?, view_lines)?;
        }
        LockCommand::Run(args) => return run::run(connection, args).await,
        LockCommand::Watch(args) => watch::run(connection, args).await?,
    }
    Ok(ExitStatus::Done)
}

/// What an error says beyond its message, a line each.
pub(super) fn details(error: &ClientError) -> Vec<String> {
    let Some(error) = error.details() else {
        return Vec::new();
    };
    let mut lines: Vec<String> = error.holders.iter().flatten().map(holder_line).collect();
    match error.queue_length {
        None | Some(0) => {}
        Some(length) => lines.push(format!("{length} waiting")),
    }
    for edge in &error.cycle {
        lines.push(format!(
            "{} waits for {}, {} {}",
            edge.owner,
            edge.waits_for_owner,
            match edge.because {
                Because::Holder => "which holds",
                Because::Queue => "which is before it in the queue of",
            },
            edge.resource
        ));
    }
    lines
}

fn acquired_line(acquired: &Acquired) -> String {
    let held = acquired.mode.map(|mode| (&acquired.resource, mode));
    let several = acquired
        .resources
        .iter()
        .map(|held| (&held.resource, held.mode));
    let held = held.into_iter().chain(several);
    let held: Vec<String> = held
        .map(|(resource, mode)| format!("{resource} {}", mode.name()))
        .collect();
    format!(
        "{}: token {}, owner {}, expires in {}, waited {}",
        held.join(", "),
        acquired.token,
        acquired.owner,
        length(acquired.expires_in_ms),
        length(acquired.waited_ms)
    )
}

fn checked_line(checked: &Checked) -> String {
    match (checked.expires_in_ms, checked.current_token) {
        (Some(left), _) if checked.valid => format!("valid, expires in {}", length(left)),
        (_, Some(current)) => format!("not valid, the current token is {current}"),
        (_, None) => "not valid, nobody holds the lock".to_owned(),
    }
}

fn view_lines(view: &View) -> String {
    let mut lines = String::new();
    if view.holders.is_empty() {
        lines.push_str("free\n");
    }
    for holder in &view.holders {
        lines.push_str(&holder_line(holder));
        lines.push('\n');
    }
    for waiter in &view.waiters {
        let waited = length(waiter.waited_ms);
        let mode = waiter.mode.name();
        // Writing into a string cannot fail.
        let _ = writeln!(lines, "{} waits ({mode}), since {waited}", waiter.owner);
    }
    lines
}

fn holder_line(holder: &Holder) -> String {
    let meta = match &holder.meta {
        Some(meta) => format!(", {}", meta.as_json()),
        None => String::new(),
    };
    format!(
        "{} holds it ({}), token {}, since {}, expires in {}{meta}",
        holder.owner,
        holder.mode.name(),
        holder.token,
        length(holder.held_ms),
        length(holder.expires_in_ms)
    )
}

fn length(ms: u64) -> humantime::FormattedDuration {
    humantime::format_duration(std::time::Duration::from_millis(ms))
}

fn meta(text: &str) -> Result<Meta, String> {
    Meta::from_json(text).map_err(|error| format!("not a JSON object: {error}"))
}

fn token(text: &str) -> Result<Token, String> {
    text.parse()
        .map(Token)
        .map_err(|_| "a token is a whole number".to_owned())
}
