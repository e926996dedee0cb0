//! The command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use mufakat::broker::options::NatsOptions;
use mufakat::client;
use mufakat::ids::NodeId;
use mufakat::protocol::{Encoding, Prefix, TIMEOUT_MS_MAX};

use crate::pacer::Plan;
use crate::responder;
use crate::run::Setup;

/// No run is longer: a bound that keeps instants from overflowing.
const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Puts load on a Mufakat cluster and measures it.
///
/// Tables go to stdout, progress and notes to stderr. Exit codes: 0 all requests succeeded, 1 some failed or
/// the run could not be done, 2 the command line is wrong. Ctrl-C ends a run early; what it recorded is printed.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub nats: NatsOptions,
    #[command(flatten)]
    pub target: TargetFlags,
}

#[derive(Subcommand)]
pub enum Command {
    /// The scenario of the original prototype, beside its figures
    ///
    /// Users join one after another. Each one, again and again: acquires a lock of its own, holds it, releases
    /// it, and asks twice for the status.
    Reference(ReferenceFlags),
    /// Acquire and release as fast as it goes, beside the raw echo of the broker
    ///
    /// Each client acquires and releases a lock of its own. Before that, the same clients send raw NATS requests
    /// to a responder in this program: half of that rate is the limit for pairs of two requests.
    Locks(LocksFlags),
    /// Push as fast as it goes, then push, pop and acknowledge, beside the raw echo of the broker
    ///
    /// First the same clients send raw NATS requests to a responder in this program. A push is one request, a cycle
    /// of push, pop and acknowledgement is three.
    Queue(QueueFlags),
    /// The raw echo of the broker alone
    Echo(EchoFlags),
}

impl Command {
    /// The shape of the command's run.
    pub fn plan(&self) -> Plan {
        match self {
            Self::Reference(flags) => Plan {
                users: flags.users,
                spawn_rate: Some(flags.spawn_rate),
                warm_up: flags.warm_up,
                duration: flags.duration,
                requests: flags.requests,
            },
            Self::Locks(LocksFlags { closed, .. })
            | Self::Queue(QueueFlags { closed, .. })
            | Self::Echo(EchoFlags { closed, .. }) => Plan {
                users: closed.clients,
                spawn_rate: None,
                warm_up: closed.warm_up,
                duration: closed.duration,
                requests: closed.requests,
            },
        }
    }
}

#[derive(Args)]
pub struct ReferenceFlags {
    /// Users, each with one request under way at a time
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub users: u32,
    /// Users that join per second
    #[arg(long, default_value = "10", value_parser = positive_rate)]
    pub spawn_rate: f64,
    /// How long to go on, the joining included
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub duration: Duration,
    /// Time before that which is not recorded
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub warm_up: Duration,
    /// How long each lock is held
    #[arg(long, default_value = "300ms", value_parser = duration)]
    pub hold: Duration,
    /// Pause of each user before an acquire and before a status request. Its users' pauses, not its capacity,
    /// set the original's rates; 2s gives a load like its own
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub think: Duration,
    /// Begin no round after so many requests
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
}

#[derive(Args)]
pub struct LocksFlags {
    #[command(flatten)]
    pub closed: ClosedLoopFlags,
    #[command(flatten)]
    pub echo: ResponderFlags,
}

#[derive(Args)]
pub struct QueueFlags {
    #[command(flatten)]
    pub closed: ClosedLoopFlags,
    #[command(flatten)]
    pub echo: ResponderFlags,
    /// Topics that the clients share
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub topics: u32,
}

#[derive(Args)]
pub struct EchoFlags {
    #[command(flatten)]
    pub closed: ClosedLoopFlags,
    #[command(flatten)]
    pub echo: ResponderFlags,
}

#[derive(Args)]
pub struct ClosedLoopFlags {
    /// Clients, each with one request under way at a time
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub clients: u32,
    /// How long to record
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// Time before that which is not recorded
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub warm_up: Duration,
    /// Begin no round after so many requests, those of the warm-up included
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
}

#[derive(Args)]
pub struct ResponderFlags {
    /// Bytes of an echo's request and of its reply
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    pub payload: u32,
    /// How the echo responder is built
    #[arg(long, value_enum, default_value_t)]
    pub responder: responder::Form,
}

#[derive(Args)]
#[command(next_help_heading = "Cluster and load threads")]
pub struct TargetFlags {
    /// First part of the cluster's subjects
    #[arg(long, env = "MUFAKAT_PREFIX", default_value_t, global = true)]
    pub prefix: Prefix,
    /// How requests are encoded
    #[arg(long, value_enum, default_value_t, global = true)]
    pub encoding: EncodingName,
    /// Whom to ask: any, leader (whom answers name as faster to ask) or node=ID
    #[arg(long, default_value = "leader", global = true)]
    pub target: Target,
    /// How long a request may take, the client's own repetitions included
    #[arg(long, default_value = "5s", value_parser = timeout, global = true)]
    pub timeout: Duration,
    /// NATS connections, shared by the clients
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000), global = true)]
    pub connections: u32,
    /// Load threads, each with its own share of connections and clients
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64), global = true)]
    pub threads: u32,
    /// Write all figures and settings to a file
    #[arg(long, value_name = "FILE", global = true)]
    pub json: Option<PathBuf>,
}

/// An encoding's name on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EncodingName {
    #[default]
    Json,
    Msgpack,
}

/// Whom to ask, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target(pub client::Target);

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(Self(match text {
            "any" => client::Target::Any,
            "leader" => client::Target::Leader,
            _ => match text.strip_prefix("node=") {
                Some(id) => {
                    client::Target::Node(NodeId(id.parse().context("a node's id is a number")?))
                }
                None => bail!("not one of any, leader, node=ID"),
            },
        }))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            client::Target::Any => f.write_str("any"),
            client::Target::Leader => f.write_str("leader"),
            client::Target::Node(node) => write!(f, "node={node}"),
        }
    }
}

impl Cli {
    /// How to reach the cluster.
    pub fn connect_options(&self) -> client::ConnectOptions {
        let encoding = match self.target.encoding {
            EncodingName::Json => Encoding::Json,
            EncodingName::Msgpack => Encoding::MessagePack,
        };
        let Target(target) = self.target.target;
        let client = client::ClientOptions {
            prefix: self.target.prefix.clone(),
            encoding,
            target,
        };
        client::ConnectOptions {
            nats: self.nats.clone(),
            client,
        }
    }

    /// How the command's workload is run. There are at least as many connections as threads.
    pub fn setup(&self) -> Setup {
        let TargetFlags {
            threads,
            connections,
            ..
        } = self.target;
        Setup {
            connect: self.connect_options(),
            plan: self.command.plan(),
            threads,
            connections: connections.max(threads),
        }
    }
}

fn duration(text: &str) -> Result<Duration> {
    let length = humantime::parse_duration(text)?;
    if length > DURATION_MAX {
        bail!("longer than 30 days")
    } else {
        Ok(length)
    }
}

fn timeout(text: &str) -> Result<Duration> {
    let length = humantime::parse_duration(text)?;
    let range = Duration::from_millis(1)..=Duration::from_millis(TIMEOUT_MS_MAX);
    if range.contains(&length) {
        Ok(length)
    } else {
        bail!("not between 1ms and {TIMEOUT_MS_MAX}ms")
    }
}

fn positive_rate(text: &str) -> Result<f64> {
    let rate: f64 = text.parse()?;
    // Slower than one user in a day is a mistake, and would overflow the schedule.
    if rate.is_finite() && rate >= 1.0 / 86_400.0 {
        Ok(rate)
    } else {
        bail!("not a rate above zero")
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn targets_are_read() {
        assert_eq!("any".parse::<Target>().unwrap().0, client::Target::Any);
        assert_eq!(
            "node=2".parse::<Target>().unwrap().0,
            client::Target::Node(NodeId(2))
        );
        assert!("node=x".parse::<Target>().is_err());
        assert!("follower".parse::<Target>().is_err());
    }

    #[test]
    fn rates_are_above_zero() {
        assert_eq!(positive_rate("0.5").unwrap(), 0.5);
        for wrong in ["0", "-1", "inf", "NaN", "1e-300", "x"] {
            assert!(positive_rate(wrong).is_err(), "{wrong}");
        }
    }
}
