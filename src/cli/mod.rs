//! The command line: flags in, one call of the client, data to stdout and the rest to stderr.
//!
//! On a terminal, answers are text for people. Into a pipe, or with `--json`, each answer is one line of JSON.
//! [`ExitStatus`] and the help list the exit codes.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{Arg, Args, Parser, Subcommand};
use rustix::fs::Mode;
use serde::Serialize;

use crate::broker::options::{NatsOptions, NatsOptionsError};
use crate::cli::output::{say, write_out};
use crate::client::{Client, ClientError, ClientOptions, ConnectError, ConnectOptions, Target};
use crate::config::{self, Config, NodeArgs};
use crate::dev::{self, DevArgs};
use crate::ids::NodeId;
use crate::node;
use crate::protocol::{Code, Encoding, Outcome, Prefix};

mod admin;
mod backup;
mod cache;
mod cluster;
mod events;
mod healthcheck;
mod lock;
pub(crate) mod output;
mod queue;
mod reader;
mod run;
mod session;
mod settings;
mod status;
mod work;

const AFTER_HELP: &str = "\
Exit codes:
  0    done
  1    refused, or a negative answer: the token is not valid (`lock check`), nothing was waiting
       (`lock cancel`, `queue cancel`), a key has no value (`cache get`, `cache delete`), or a copy
       is stale (`cache audit`)
  2    wrong usage
  69   no broker, no node or no leader answered
  75   the lock was not acquired: held, waited too long, or a deadlock
  76   the lock was lost while the command of `lock run` was running
  126  the command of `lock run` or `queue work` cannot be executed (127: not found)
  `lock run` otherwise returns the exit code of its command, or 128 + N if signal N ended it.

Examples:
  mufakat status
  mufakat lock acquire orders.42 --ttl 1m --wait 10s
  mufakat lock run nightly-report --wait 1m -- ./report.sh
  mufakat queue push mails 'hello'
  mufakat queue work mails -- ./send-mail
  mufakat cache set user.42 Ada --ttl 10m
  mufakat lock get orders.42 --json --nats nats://127.0.0.1:4222";

/// Locks, a queue and a coherent cache for programs that talk NATS.
#[derive(Parser)]
#[command(name = "mufakat", version, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

impl Cli {
    /// Whether this command line runs a node, whose log other programs collect.
    pub fn is_service(&self) -> bool {
        matches!(self.command, Command::Node(_))
    }
}

#[derive(Subcommand)]
enum Command {
    /// Acquire, renew, release and inspect locks.
    Lock(lock::LockArgs),
    /// Push, receive and acknowledge messages, and manage topics.
    Queue(queue::QueueArgs),
    /// Read, write and invalidate cached values.
    Cache(cache::CacheArgs),
    /// Open, keep alive and close sessions, each of which can hold many locks.
    Session(session::SessionArgs),
    /// As an operator, end the locks and sessions of others.
    Admin(admin::AdminArgs),
    /// List, add and remove nodes, and move the leadership.
    Cluster(cluster::ClusterArgs),
    Backup(backup::BackupArgs),
    Restore(backup::RestoreArgs),
    Status(status::StatusArgs),
    Metrics(status::MetricsArgs),
    /// Run one node of a cluster.
    Node(Box<NodeCommand>),
    /// Check or print the configuration that a node would use.
    #[command(subcommand)]
    Config(settings::ConfigCommand),
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Run a whole cluster on this machine, with broker and Redis, until Ctrl-C.
    Dev(DevArgs),
    Completions(settings::CompletionsArgs),
    Man(settings::ManArgs),
}

/// The flags of one node, with those that all commands share.
///
/// The configuration of a node reads the environment itself, below flags and above the file. The command line
/// therefore takes only flags for its settings.
#[derive(Args)]
#[command(mut_arg("nats", flag_alone))]
struct NodeCommand {
    #[command(flatten)]
    args: NodeArgs,
    /// First tokens of every subject of the cluster [env: MUFAKAT_PREFIX] [default: mufakat]
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<Prefix>,
    #[command(flatten)]
    nats: NatsOptions,
}

fn flag_alone(servers: Arg) -> Arg {
    let help = "Servers to connect to, separated by commas [env: NATS_URL, NATS_URL_FILE] \
                [default: nats://127.0.0.1:4222]";
    servers.env(Resettable::Reset).help(help)
}

impl NodeCommand {
    /// The flags in the form that the configuration takes, with the servers of the context if one is named.
    fn settings(self) -> Result<NodeArgs, NatsOptionsError> {
        let servers = self.nats.servers_of_context()?;
        Ok(NodeArgs {
            nats: self.nats.url,
            nats_context: self.nats.context.zip(servers),
            prefix: self.prefix.map(String::from),
            ..self.args
        })
    }
}

/// The heading of the flags in [`Connection`] beside those of NATS.
const CLUSTER_AND_OUTPUT: &str = "Cluster and output";

/// How to reach the cluster and how to print.
#[derive(Args)]
struct Connection {
    #[command(flatten)]
    nats: NatsOptions,
    /// First tokens of every subject of the cluster [default: mufakat].
    #[arg(
        long,
        env = "MUFAKAT_PREFIX",
        hide_env_values = true,
        value_name = "PREFIX"
    )]
    #[arg(global = true, help_heading = CLUSTER_AND_OUTPUT)]
    prefix: Option<Prefix>,
    /// Print one line of JSON, even on a terminal.
    #[arg(long, global = true, help_heading = CLUSTER_AND_OUTPUT)]
    json: bool,
}

impl Connection {
    async fn client(&self, target: Target) -> Result<Client, Failure> {
        self.client_in(Encoding::Json, target).await
    }

    /// A client for requests that carry payloads or values. Binary ones travel unencoded and so may be larger than
    /// their base64 could be.
    async fn client_of_values(&self, target: Target) -> Result<Client, Failure> {
        self.client_in(Encoding::MessagePack, target).await
    }

    async fn client_in(&self, encoding: Encoding, target: Target) -> Result<Client, Failure> {
        let client = Client::connect(&ConnectOptions {
            nats: self.nats.clone(),
            client: ClientOptions {
                prefix: self.prefix.clone().unwrap_or_default(),
                encoding,
                target,
            },
        })
        .await?;
        Ok(client)
    }

    /// Prints an answer: as JSON, or as the text that `lines` makes of it.
    fn print<T: Serialize>(
        &self,
        answer: &T,
        lines: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        self.print_to_reader(answer, lines).map(drop)
    }

    /// Prints one of many answers. False once nobody reads stdout any more, as behind `head`.
    fn print_to_reader<T: Serialize>(
        &self,
        answer: &T,
        lines: impl FnOnce(&T) -> String,
    ) -> Result<bool, Failure> {
        print(self.json, answer, lines)
    }

    fn conclude(&self, done: Result<ExitStatus, Failure>) -> ExitStatus {
        done.unwrap_or_else(|failure| {
            failure.report(self);
            failure.exit_status()
        })
    }
}

/// Prints an answer of a command without a connection, as [`Connection::print_to_reader`] does.
fn print<T: Serialize>(
    json: bool,
    answer: &T,
    lines: impl FnOnce(&T) -> String,
) -> Result<bool, Failure> {
    let out = match json || !io::stdout().is_terminal() {
        true => serde_json::to_string(answer).expect("an answer that was JSON is JSON again"),
        false => lines(answer),
    };
    Ok(write_out(out)?)
}

/// What the exit code of the process means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    Done,
    Refused,
    /// Clap's code for a command line that it rejects.
    WrongUsage,
    /// EX_UNAVAILABLE of sysexits.h.
    Unavailable,
    /// EX_TEMPFAIL of sysexits.h: try again later.
    NotAcquired,
    Lost,
    NotExecutable,
    NotFound,
    /// The code of the command that `lock run` ran.
    OfCommand(u8),
}

impl ExitStatus {
    /// The exit code of a question whose answer is yes or no.
    fn of_finding(found: bool) -> Self {
        match found {
            true => ExitStatus::Done,
            false => ExitStatus::Refused,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> ExitCode {
        ExitCode::from(match status {
            ExitStatus::Done => 0,
            ExitStatus::Refused => 1,
            ExitStatus::WrongUsage => 2,
            ExitStatus::Unavailable => 69,
            ExitStatus::NotAcquired => 75,
            ExitStatus::Lost => 76,
            ExitStatus::NotExecutable => 126,
            ExitStatus::NotFound => 127,
            ExitStatus::OfCommand(code) => code,
        })
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Output(#[from] io::Error),
    /// An argument, or the payload on stdin, is not what its flags declare.
    #[error("{0}")]
    Usage(String),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Failure {
    fn exit_status(&self) -> ExitStatus {
        match self {
            Failure::Connect(ConnectError::Options(_) | ConnectError::Unanswered { .. })
            | Failure::Output(_)
            | Failure::Other(_) => ExitStatus::Refused,
            Failure::Usage(_) => ExitStatus::WrongUsage,
            Failure::Connect(_) => ExitStatus::Unavailable,
            Failure::Client(error) => match error.code() {
                Some(Code::LockHeld | Code::WaitTimeout | Code::Deadlock) => {
                    ExitStatus::NotAcquired
                }
                Some(
                    Code::NoLeader
                    | Code::NoLease
                    | Code::Reconfiguring
                    | Code::Timeout
                    | Code::Indeterminate
                    | Code::ShuttingDown,
                ) => ExitStatus::Unavailable,
                None if error.retryable() => ExitStatus::Unavailable,
                Some(_) | None => ExitStatus::Refused,
            },
        }
    }

    /// Reports the failure on stderr: as text, or with `--json` the whole error as one line of JSON.
    fn report(&self, connection: &Connection) {
        if let (true, Failure::Client(ClientError::Refused(error))) = (connection.json, self) {
            let text = serde_json::to_string(error).expect("an error that was JSON is JSON again");
            say(text);
            return;
        }
        say(format_args!("mufakat: {self}"));
        if let Failure::Client(error) = self {
            for line in lock::lines::details(error) {
                say(format_args!("  {line}"));
            }
            if error.outcome() == Outcome::Unknown {
                say("  the request may or may not have taken effect");
            }
        }
    }
}

/// Runs one command line to its end.
pub async fn run(cli: Cli) -> ExitStatus {
    match cli.command {
        Command::Lock(args) => {
            let done = lock::run(&args.connection, args.command).await;
            args.connection.conclude(done)
        }
        Command::Queue(args) => {
            let done = queue::run(&args.connection, args.command).await;
            args.connection.conclude(done)
        }
        Command::Cache(args) => {
            let done = cache::run(&args.connection, args.command).await;
            args.connection.conclude(done)
        }
        Command::Session(args) => {
            let done = session::run(&args).await.map(|()| ExitStatus::Done);
            args.connection.conclude(done)
        }
        Command::Admin(args) => {
            let done = admin::run(&args).await.map(|()| ExitStatus::Done);
            args.connection.conclude(done)
        }
        Command::Cluster(args) => {
            let done = cluster::run(&args).await.map(|()| ExitStatus::Done);
            args.connection.conclude(done)
        }
        Command::Backup(args) => {
            let done = backup::back_up(&args).await.map(|()| ExitStatus::Done);
            args.connection.conclude(done)
        }
        Command::Restore(args) => {
            write_for_own_user();
            conclude_run(backup::restore(&args).await)
        }
        Command::Status(args) => {
            let done = status::status(&args).await;
            args.connection.conclude(done)
        }
        Command::Metrics(args) => {
            let done = status::metrics(&args).await;
            args.connection.conclude(done)
        }
        Command::Node(command) => {
            write_for_own_user();
            conclude_run(run_node(*command).await)
        }
        Command::Config(command) => conclude_run(settings::run(command)),
        Command::Completions(args) => conclude_run(settings::completions(&args)),
        Command::Man(args) => conclude_run(settings::man(&args)),
        Command::Healthcheck(args) => conclude_run(healthcheck::run(&args).await),
        Command::Dev(args) => {
            write_for_own_user();
            conclude_run(dev::run(args, config::environment()).await)
        }
    }
}

/// From now on what this process creates is for its own user alone: logs and snapshots name owners and hold
/// what these attached.
fn write_for_own_user() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

async fn run_node(command: NodeCommand) -> anyhow::Result<()> {
    let nats = command.nats.clone();
    let config = Config::load(command.settings()?, config::environment())?;
    node::run(config, nats).await
}

/// Success means that a node or a cluster was told to stop, or that a check found a node ready.
fn conclude_run(ran: anyhow::Result<()>) -> ExitStatus {
    match ran {
        Ok(()) => ExitStatus::Done,
        Err(error) => {
            say(format_args!("mufakat: {error:#}"));
            ExitStatus::Refused
        }
    }
}

fn node_id(text: &str) -> Result<NodeId, String> {
    match text.parse::<u32>() {
        Ok(id) if id > 0 => Ok(NodeId(id.into())),
        _ => Err(format!("a node id is a number from 1 to {}", u32::MAX)),
    }
}

/// Asks one node, or any if none is named.
fn target(node: Option<NodeId>) -> Target {
    node.map_or(Target::Any, Target::Node)
}

/// A duration such as `30s`, `1m 30s` or `250ms`, in whole milliseconds.
fn length_ms(text: &str) -> Result<u64, String> {
    let length = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write 250ms, 30s or 1m 30s"))?;
    u64::try_from(length.as_millis()).map_err(|_| "too long".to_owned())
}

#[cfg(test)]
mod tests;
