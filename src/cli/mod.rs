//! The command line: flags in, one call of the client, data to stdout and the rest to stderr.
//!
//! Answers are lines for people on a terminal and one line of JSON otherwise or with `--json`.
//! What each exit code says is in [`ExitStatus`] and in the help.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{Arg, Args, Parser, Subcommand};
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
  1    refused; `lock check` found the token not valid, `lock cancel` no wait, `cache get` and
       `delete` no value
  2    wrong usage
  69   no broker, no node or no leader answered
  75   the lock was not acquired: held, waited too long, or a deadlock
  76   the lock was lost while the command of `lock run` was running
  126  the command of `lock run` cannot be executed (127: not found)
  `lock run` otherwise returns the exit code of its command, 128 + N after signal N.

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
    /// Whether it runs a node, whose log others collect.
    pub fn is_service(&self) -> bool {
        matches!(self.command, Command::Node(_))
    }
}

#[derive(Subcommand)]
enum Command {
    /// Take, keep, give back and look at locks.
    Lock(lock::LockArgs),
    /// Push, take and settle messages; look at topics; run a command for each message.
    Queue(queue::QueueArgs),
    /// Read and write values in the memory of the nodes.
    Cache(cache::CacheArgs),
    /// Open, keep and end sessions, which many locks can live with.
    Session(session::SessionArgs),
    /// End locks and sessions of others.
    Admin(admin::AdminArgs),
    /// Add and remove nodes, and choose who leads.
    Cluster(cluster::ClusterArgs),
    Backup(backup::BackupArgs),
    Restore(backup::RestoreArgs),
    /// What a node says about itself and the cluster.
    Status(status::StatusArgs),
    /// The metrics of a node, in the text format of Prometheus.
    Metrics(status::MetricsArgs),
    /// Run one node of a cluster.
    Node(Box<NodeCommand>),
    /// Check or print the configuration that a node would have.
    #[command(subcommand)]
    Config(settings::ConfigCommand),
    /// Ask a node on this machine over HTTP whether it serves, for containers and supervisors.
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Run a whole cluster on this machine, with its broker and Redis, until Ctrl-C.
    Dev(DevArgs),
    Completions(settings::CompletionsArgs),
    Man(settings::ManArgs),
}

/// The flags of one node, with what all commands share. Its settings come from the environment below
/// flags and above the file, so that of those the command line itself takes flags alone.
#[derive(Args)]
#[command(mut_arg("nats", flag_alone))]
struct NodeCommand {
    #[command(flatten)]
    args: NodeArgs,
    #[command(flatten)]
    nats: NatsOptions,
    /// First tokens of every subject of the cluster [env: MUFAKAT_PREFIX] [default: mufakat]
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<Prefix>,
}

fn flag_alone(servers: Arg) -> Arg {
    let help = "Servers to connect to, separated by commas [env: NATS_URL, NATS_URL_FILE] \
                [default: nats://127.0.0.1:4222]";
    servers.env(Resettable::Reset).help(help)
}

impl NodeCommand {
    /// The flags as the configuration takes them, and what a context that they name says.
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

/// How to reach the cluster and how to print.
#[derive(Args)]
struct Connection {
    #[command(flatten)]
    nats: NatsOptions,
    /// First tokens of every subject of the cluster [default: mufakat].
    #[arg(long, env = "MUFAKAT_PREFIX", value_name = "PREFIX", global = true)]
    prefix: Option<Prefix>,
    /// Print JSON, one line, also on a terminal.
    #[arg(long, global = true)]
    json: bool,
}

impl Connection {
    async fn client(&self, target: Target) -> Result<Client, Failure> {
        self.client_in(Encoding::Json, target).await
    }

    /// A client for what carries payloads or values: binary ones travel as they are, and so fit where
    /// their base64 would not.
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

    /// Prints an answer: JSON, or what `lines` makes of it for people.
    fn print<T: Serialize>(
        &self,
        answer: &T,
        lines: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        self.print_to_reader(answer, lines).map(drop)
    }

    /// The same of one of many answers: false once nobody reads any more, as behind `head`.
    fn print_to_reader<T: Serialize>(
        &self,
        answer: &T,
        lines: impl FnOnce(&T) -> String,
    ) -> Result<bool, Failure> {
        print(self.json, answer, lines)
    }

    fn print_text(&self, out: String) -> Result<(), Failure> {
        write_out(out)?;
        Ok(())
    }

    fn conclude(&self, done: Result<ExitStatus, Failure>) -> ExitStatus {
        done.unwrap_or_else(|failure| {
            failure.report(self);
            failure.exit_status()
        })
    }
}

/// Prints as [`Connection::print`] does, for commands without a connection.
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

/// What the exit code of the process says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    Done,
    Refused,
    /// As sysexits.h has it: a service is unavailable.
    Unavailable,
    /// As sysexits.h has it: try again later.
    NotAcquired,
    Lost,
    NotExecutable,
    NotFound,
    /// The code of the command that `lock run` ran.
    OfCommand(u8),
}

impl ExitStatus {
    /// Of a question whose answer is a yes or a no.
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
            ExitStatus::Unavailable => 69,
            ExitStatus::NotAcquired => 75,
            ExitStatus::Lost => 76,
            ExitStatus::NotExecutable => 126,
            ExitStatus::NotFound => 127,
            ExitStatus::OfCommand(code) => code,
        })
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Output(#[from] io::Error),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Failure {
    fn exit_status(&self) -> ExitStatus {
        match self {
            Failure::Connect(ConnectError::Options(_) | ConnectError::Unanswered { .. })
            | Failure::Output(_)
            | Failure::Other(_) => ExitStatus::Refused,
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

    /// One line for people; the whole error as JSON where answers are JSON.
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
                say("  it is not known whether the request took effect");
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
        Command::Restore(args) => conclude_run(backup::restore(&args).await),
        Command::Status(args) => {
            let done = status::status(&args).await;
            args.connection.conclude(done)
        }
        Command::Metrics(args) => {
            let done = status::metrics(&args).await;
            args.connection.conclude(done)
        }
        Command::Node(command) => conclude_run(run_node(*command).await),
        Command::Config(command) => conclude_run(settings::run(command)),
        Command::Completions(args) => conclude_run(settings::completions(&args)),
        Command::Man(args) => conclude_run(settings::man(&args)),
        Command::Healthcheck(args) => conclude_run(healthcheck::run(&args).await),
        Command::Dev(args) => conclude_run(dev::run(args, config::environment()).await),
    }
}

async fn run_node(command: NodeCommand) -> anyhow::Result<()> {
    let nats = command.nats.clone();
    let config = Config::load(command.settings()?, config::environment())?;
    node::run(config, nats).await
}

/// A node or a cluster ends well when it was told to stop, a check when the node serves.
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
        _ => Err(format!("a node's id is a number from 1 to {}", u32::MAX)),
    }
}

/// A length such as `30s`, `1m 30s` or `250ms`, in whole milliseconds.
fn length_ms(text: &str) -> Result<u64, String> {
    let length = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write 250ms, 30s or 1m 30s"))?;
    u64::try_from(length.as_millis()).map_err(|_| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Every command with what its help says.
    fn helps(command: &mut clap::Command, found: &mut Vec<String>) {
        found.push(command.render_long_help().to_string());
        for sub in command.get_subcommands_mut() {
            helps(sub, found);
        }
    }

    #[test]
    fn every_example_in_the_help_is_understood() {
        let mut found = Vec::new();
        helps(&mut Cli::command(), &mut found);
        let examples: Vec<&str> = found
            .iter()
            .flat_map(|help| help.lines())
            .filter_map(|line| line.strip_prefix("  mufakat "))
            .collect();
        assert!(examples.len() >= 12, "{examples:?}");
        for example in examples {
            let before_pipe = example.split(" | ").next().unwrap().replace('\'', "");
            let words = ["mufakat"].into_iter().chain(before_pipe.split(' '));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{example}: {error}");
            }
        }
    }

    /// Lists of commands show it: one line, and another one for each command.
    fn has_lines_of_their_own(command: &clap::Command) {
        let about = |sub: &clap::Command| sub.get_about().expect("it has one").to_string();
        let mut said = std::collections::BTreeSet::new();
        for sub in command.get_subcommands() {
            let line = about(sub);
            assert!(!line.contains('\n'), "{}: {line}", sub.get_name());
            assert!(said.insert(line), "{}: as another one", sub.get_name());
            has_lines_of_their_own(sub);
        }
    }

    #[test]
    fn every_command_is_told_in_a_line_of_its_own() {
        has_lines_of_their_own(&Cli::command());
    }

    #[test]
    fn flags_of_the_connection_may_stand_after_the_verb() {
        let line = "mufakat lock release a 7 --nats nats://x:1 --nats-token t --prefix p --json";
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(line.split(' ')).is_ok());
    }

    #[test]
    fn lengths_have_units() {
        assert_eq!(length_ms("250ms"), Ok(250));
        assert_eq!(length_ms("1m 30s"), Ok(90_000));
        assert!(length_ms("30").unwrap_err().contains("write 250ms"));
        assert!(node_id("0").is_err());
    }
}
