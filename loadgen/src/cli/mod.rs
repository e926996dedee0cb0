//! The command line.

use clap::{Parser, Subcommand};
use mufakat::broker::options::NatsOptions;
use mufakat::client;
use mufakat::protocol::Encoding;

use crate::pacer::Plan;
use crate::run::Setup;
use crate::schedule::OpenLoop;

mod flags;
mod values;

pub use flags::{
    CacheFlags, EchoFlags, LocksFlags, PaceFlags, QueueFlags, ReferenceFlags, ResponderFlags,
    TargetFlags,
};
pub use values::{EncodingName, Target};

/// Puts load on a Mufakat cluster and measures it.
///
/// Tables go to stdout, progress and notes to stderr. Exit codes: 0 all requests succeeded, 1 some failed or
/// the run could not be done, 2 the command line is wrong. Ctrl-C ends a run early; what it recorded is printed.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub nats: NatsOptions,
    #[command(flatten)]
    pub target: TargetFlags,
}

const EXAMPLES: &str = "\
Examples:
  loadgen locks                                    as fast as 100 clients can
  loadgen locks --rate 2000 --arrivals poisson     2,000 pairs per second, whatever the answers take
  loadgen queue --clients 20 --think 10ms          20 clients that pause between rounds
  loadgen cache --reads 0.95 --zipf 1 --keys 10000
  loadgen reference --json run.json";

#[derive(Subcommand)]
pub enum Command {
    /// The scenario of the original prototype, beside its figures
    ///
    /// Users join one after another. Each one, again and again: acquires a lock of its own, holds it, releases
    /// it, and asks twice for the status.
    Reference(ReferenceFlags),
    /// Acquire and release locks, beside the raw echo of the broker
    ///
    /// Each client acquires and releases a lock of its own. Before that, the same clients send raw NATS requests
    /// to a responder in this program: half of that rate is the limit for pairs of two requests.
    #[command(visible_alias = "lock")]
    Locks(LocksFlags),
    /// Push, then push, pop and acknowledge, beside the raw echo of the broker
    ///
    /// First the same clients send raw NATS requests to a responder in this program. A push is one request, a cycle
    /// of push, pop and acknowledgement is three.
    Queue(QueueFlags),
    /// Read and write keys of the cache, beside the raw echo of the broker
    ///
    /// First the same clients send raw NATS requests to a responder in this program. A round is one read or one
    /// write; a read that finds nothing is followed by a write of the key. Any node may be asked, and what it
    /// answers from its own memory is told apart: unless --target says otherwise the broker picks one for each
    /// request, and with `--target spread` each client asks a node of its own.
    Cache(CacheFlags),
    /// The raw echo of the broker alone
    Echo(EchoFlags),
}

impl Command {
    /// The name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reference(_) => "reference",
            Self::Locks(_) => "locks",
            Self::Queue(_) => "queue",
            Self::Cache(_) => "cache",
            Self::Echo(_) => "echo",
        }
    }

    fn pace(&self) -> Option<&PaceFlags> {
        match self {
            Self::Reference(_) => None,
            Self::Locks(flags) => Some(&flags.pace),
            Self::Queue(flags) => Some(&flags.pace),
            Self::Cache(flags) => Some(&flags.pace),
            Self::Echo(flags) => Some(&flags.pace),
        }
    }

    /// How the echo beside the workload is made, if there is one.
    pub fn echo(&self) -> Option<&ResponderFlags> {
        match self {
            Self::Reference(_) => None,
            Self::Locks(flags) => Some(&flags.echo),
            Self::Queue(flags) => Some(&flags.echo),
            Self::Cache(flags) => Some(&flags.echo),
            Self::Echo(flags) => Some(&flags.echo),
        }
    }
}

impl Cli {
    /// The shape of the command's run.
    pub fn plan(&self) -> Plan {
        let seed = self.target.seed;
        match (&self.command, self.command.pace()) {
            (Command::Reference(flags), _) => flags.plan(seed),
            (_, Some(pace)) => Plan {
                users: pace.clients,
                spawn_rate: pace.spawn_rate,
                think: pace.think,
                open_loop: pace.rate.map(|rate| OpenLoop {
                    rate,
                    arrivals: pace.arrivals,
                    late_max: self.target.timeout,
                }),
                warm_up: pace.warm_up,
                duration: pace.duration,
                requests: pace.requests,
                seed,
            },
            (_, None) => unreachable!("every other command has a pace"),
        }
    }

    /// How to reach the cluster.
    pub fn connect_options(&self) -> client::ConnectOptions {
        let encoding = match self.target.encoding {
            EncodingName::Json => Encoding::Json,
            EncodingName::Msgpack => Encoding::MessagePack,
        };
        let client = client::ClientOptions {
            prefix: self.target.prefix.clone(),
            encoding,
            target: match self.target.target {
                Target::One(target) => target,
                // Whoever asks for the nodes themselves, before they are known.
                Target::Spread => client::Target::Any,
            },
        };
        client::ConnectOptions {
            nats: self.nats.clone(),
            client,
        }
    }

    /// How the command's workload is run. There are at least as many connections as threads. The nodes among which
    /// users are spread are the caller's to add.
    pub fn setup(&self) -> Setup {
        let TargetFlags {
            threads,
            connections,
            ..
        } = self.target;
        Setup {
            connect: self.connect_options(),
            spread: Vec::new(),
            plan: self.plan(),
            threads,
            connections: connections.max(threads),
            keeps_histograms: false,
        }
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
    fn an_open_loop_has_neither_ramp_nor_think_time() {
        for other in [["--think", "1s"], ["--spawn-rate", "5"]] {
            let arguments = ["loadgen", "locks", "--rate", "10"];
            let parsed = Cli::try_parse_from(arguments.into_iter().chain(other));
            assert!(parsed.is_err(), "{other:?}");
        }
        let parsed = Cli::try_parse_from(["loadgen", "locks", "--arrivals", "poisson"]);
        assert!(parsed.is_err(), "arrivals need a rate");
    }

    #[test]
    fn every_example_is_a_command_line() {
        for line in EXAMPLES.lines().skip(1) {
            let (line, _) = line.split_once("    ").map_or((line.trim(), ""), |_| {
                let end = line.trim().find("   ").unwrap_or(line.trim().len());
                (&line.trim()[..end], "")
            });
            let parsed = Cli::try_parse_from(line.split_whitespace());
            if let Err(error) = parsed {
                panic!("{line}: {error}");
            }
        }
    }
}
