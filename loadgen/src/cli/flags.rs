//! The flags of each command, and those of all.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mufakat::protocol::Prefix;

use super::shapes::{CacheShape, LocksShape, QueueShape};
use super::values::{self, EncodingName, Target};
use crate::chaos::Part;
use crate::pacer::Plan;
use crate::report::threshold::Threshold;
use crate::responder;
use crate::schedule::Arrivals;
use crate::workload::mix::Weights;

#[derive(Args)]
pub struct ReferenceFlags {
    /// Users, each with one request under way at a time
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub users: u32,
    /// Users that join per second
    #[arg(long, default_value = "10", value_parser = values::positive_rate)]
    pub spawn_rate: f64,
    /// How long to go on, the joining included
    #[arg(long, default_value = "60s", value_parser = values::duration)]
    pub duration: Duration,
    /// Time before that which is not recorded
    #[arg(long, default_value = "0s", value_parser = values::duration)]
    pub warm_up: Duration,
    /// How long each lock is held
    #[arg(long, default_value = "300ms", value_parser = values::duration)]
    pub hold: Duration,
    /// Pause of each user before an acquire and before a status request. Its users' pauses, not its capacity,
    /// set the original's rates; 2s gives a load like its own
    #[arg(long, default_value = "0s", value_parser = values::duration)]
    pub think: Duration,
    /// Begin no round after so many requests
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
}

impl ReferenceFlags {
    /// The users of the scenario think within their rounds, not between them.
    pub fn plan(&self, seed: u64) -> Plan {
        Plan {
            users: self.users,
            spawn_rate: Some(self.spawn_rate),
            think: Duration::ZERO,
            open_loop: None,
            warm_up: self.warm_up,
            duration: self.duration,
            requests: self.requests,
            seed,
        }
    }
}

#[derive(Args)]
pub struct LocksFlags {
    #[command(flatten)]
    pub pace: PaceFlags,
    #[command(flatten)]
    pub echo: ResponderFlags,
    #[command(flatten)]
    pub check: CheckFlags,
    #[command(flatten)]
    pub chaos: ChaosFlags,
    #[command(flatten)]
    pub shape: LocksShape,
}

#[derive(Args)]
pub struct QueueFlags {
    #[command(flatten)]
    pub pace: PaceFlags,
    #[command(flatten)]
    pub echo: ResponderFlags,
    #[command(flatten)]
    pub check: CheckFlags,
    #[command(flatten)]
    pub chaos: ChaosFlags,
    #[command(flatten)]
    pub shape: QueueShape,
}

#[derive(Args)]
pub struct CacheFlags {
    #[command(flatten)]
    pub pace: PaceFlags,
    #[command(flatten)]
    pub echo: ResponderFlags,
    #[command(flatten)]
    pub check: CheckFlags,
    #[command(flatten)]
    pub chaos: ChaosFlags,
    #[command(flatten)]
    pub shape: CacheShape,
}

#[derive(Args)]
pub struct MixFlags {
    /// How often a round is one of each workload, as in lock=3,queue=1,cache=6; of lock, queue, cache and status
    #[arg(value_name = "WEIGHTS", default_value = "lock=3,queue=1,cache=6")]
    pub weights: Weights,
    #[command(flatten)]
    pub pace: PaceFlags,
    #[command(flatten)]
    pub echo: ResponderFlags,
    #[command(flatten)]
    pub check: CheckFlags,
    #[command(flatten)]
    pub chaos: ChaosFlags,
    #[command(flatten)]
    pub locks: LocksShape,
    #[command(flatten)]
    pub queue: QueueShape,
    #[command(flatten)]
    pub cache: CacheShape,
}

#[derive(Args)]
pub struct StatusFlags {
    #[command(flatten)]
    pub pace: PaceFlags,
    #[command(flatten)]
    pub echo: ResponderFlags,
}

#[derive(Args)]
#[command(next_help_heading = "Chaos")]
pub struct ChaosFlags {
    /// Kill, pause and restart processes of the cluster while loading; the data directory of its `mufakat dev`, if it
    /// is not .data/dev
    ///
    /// One process at a time, on a schedule that --seed decides, from the end of the warm-up to shortly before the
    /// end of the run. Requests that fail meanwhile do not fail the run; with --check, broken promises do. The echo
    /// is left out.
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = ".data/dev")]
    pub chaos: Option<PathBuf>,
    /// What to break, several with commas between them
    #[arg(
        long,
        value_enum,
        value_name = "PARTS",
        default_value = "nodes",
        value_delimiter = ',',
        requires = "chaos"
    )]
    pub chaos_on: Vec<Part>,
    /// Time between one process being back and the next blow, in the mean
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = values::gap, requires = "chaos")]
    pub chaos_every: Duration,
    /// How long a process is away at most; a fifth of it at least
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = values::gap, requires = "chaos")]
    pub chaos_outage: Duration,
}

#[derive(Args)]
pub struct CheckFlags {
    /// Check the promises while loading; a violation is printed with what happened around it, exit code 70
    ///
    /// Locks: at most one holder of an exclusive lock, and tokens that rise. Queue: nothing that was acknowledged is
    /// lost, nothing is made up, first deliveries come in order; at the end the topics are emptied. Cache: no read is
    /// older than a write that was acknowledged before, and no increment is lost.
    #[arg(long)]
    pub check: bool,
}

#[derive(Args)]
pub struct EchoFlags {
    #[command(flatten)]
    pub pace: PaceFlags,
    #[command(flatten)]
    pub echo: ResponderFlags,
}

#[derive(Args)]
pub struct RedisFlags {
    #[command(flatten)]
    pub pace: PaceFlags,
    /// Address of Redis
    #[arg(
        long,
        env = "REDIS_URL",
        hide_env_values = true,
        default_value = "redis://127.0.0.1:6379"
    )]
    pub redis: String,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=900_000))]
    pub value_bytes: u32,
}

#[derive(Args)]
pub struct BenchFlags {
    /// Where to write the page
    #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md")]
    pub page: PathBuf,
    /// The program that starts the cluster; absent: `mufakat` beside this program
    #[arg(long, value_name = "PATH")]
    pub mufakat: Option<PathBuf>,
    /// Added to every usual port of the cluster, as `mufakat dev` does
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u16).range(0..=50_000))]
    pub port_base: u16,
    /// Clients of each workload
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub clients: u32,
    /// How long to record each workload
    #[arg(long, default_value = "8s", value_parser = values::duration)]
    pub duration: Duration,
    /// Time before each that is not recorded
    #[arg(long, default_value = "2s", value_parser = values::duration)]
    pub warm_up: Duration,
}

#[derive(Args)]
pub struct CoordinateFlags {
    /// How many workers to wait for
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub workers: u32,
    /// Workers of which group, so that two coordinators do not take each other's
    #[arg(long, value_parser = values::group, default_value = "default")]
    pub group: String,
    /// The command with all its flags, how to reach the broker included
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub command: Vec<String>,
}

#[derive(Args)]
pub struct WorkerFlags {
    /// Which group to work for
    #[arg(long, value_parser = values::group, default_value = "default")]
    pub group: String,
    /// End after one job, with 1 if it failed
    #[arg(long)]
    pub once: bool,
}

#[derive(Args)]
#[command(next_help_heading = "Pace")]
pub struct PaceFlags {
    /// Clients, each with one round under way at a time; with --rate the most rounds under way at once
    #[arg(long, visible_alias = "users", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub clients: u32,
    /// Clients that join per second; absent: all at once
    #[arg(long, value_name = "PER_SECOND", value_parser = values::positive_rate, conflicts_with = "rate")]
    pub spawn_rate: Option<f64>,
    /// Pause of each client between two rounds
    #[arg(long, default_value = "0s", value_parser = values::duration, conflicts_with = "rate")]
    pub think: Duration,
    /// Open loop: rounds that begin per second, whatever the answers take; absent: a client begins a round when
    /// its last one has ended (closed loop)
    ///
    /// Latency counts from the instant at which a round was due. One that finds all clients busy begins late, and is
    /// dropped when it is later than --timeout; both are counted.
    #[arg(long, value_name = "PER_SECOND", value_parser = values::positive_rate)]
    pub rate: Option<f64>,
    /// How the rounds of --rate are spread in time
    #[arg(long, value_enum, default_value_t, requires = "rate")]
    pub arrivals: Arrivals,
    /// How long to record
    #[arg(long, default_value = "10s", value_parser = values::duration)]
    pub duration: Duration,
    /// Time before that which is not recorded
    #[arg(long, default_value = "2s", value_parser = values::duration)]
    pub warm_up: Duration,
    /// Begin no round after so many requests, those of the warm-up included
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
}

#[derive(Args)]
#[command(next_help_heading = "Echo")]
pub struct ResponderFlags {
    /// Bytes of an echo's request and of its reply
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    pub payload: u32,
    /// How the echo responder is built
    #[arg(long, value_enum, default_value_t)]
    pub responder: responder::Form,
    /// Leave the echo out
    #[arg(long)]
    pub skip_echo: bool,
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
    /// Whom to ask: any, leader (whom answers name as faster to ask), node=ID, or spread (each client always the
    /// same node, one client after another)
    #[arg(long, default_value = "leader", global = true)]
    pub target: Target,
    /// How long a request may take, the client's own repetitions included
    #[arg(long, default_value = "5s", value_parser = values::timeout, global = true)]
    pub timeout: Duration,
    /// NATS connections, shared by the clients
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000), global = true)]
    pub connections: u32,
    /// Load threads, each with its own share of connections and clients
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64), global = true)]
    pub threads: u32,
    /// What random choices (keys, sizes, arrivals) are drawn from
    #[arg(long, default_value_t = 1, global = true)]
    pub seed: u64,
}

#[derive(Args)]
#[command(next_help_heading = "Results")]
pub struct OutputFlags {
    /// Write all figures and settings to a file
    #[arg(long, value_name = "FILE", global = true)]
    pub json: Option<PathBuf>,
    /// Write the histograms of each second to a file, as HdrHistogram's interval log (V2)
    #[arg(long, value_name = "FILE", global = true)]
    pub hdr_log: Option<PathBuf>,
    /// Write the percentiles of each operation into a directory, as HdrHistogram's plotter takes them
    #[arg(long, value_name = "DIRECTORY", global = true)]
    pub hgrm: Option<PathBuf>,
    /// Write a line for each second and operation to a file
    #[arg(long, value_name = "FILE", global = true)]
    pub csv: Option<PathBuf>,
    /// Write a page with charts to a file, for a browser
    #[arg(long, value_name = "FILE", global = true)]
    pub report: Option<PathBuf>,
    /// What has to be reached, as in 'lock.acquire.p99<20ms'; may be given several times
    ///
    /// OPERATION.METRIC, one of <, <=, > and >=, and a limit. Metrics: mean, p50, p90, p95, p99, p99.9, max (with us, ms
    /// or s), rate (successes per second), count, errors (a number, or with % their share), unknown (errors that may
    /// have taken effect), and of an open loop arrivals.dropped. An operation that was not measured fails.
    #[arg(long = "threshold", value_name = "CONDITION", global = true)]
    pub thresholds: Vec<Threshold>,
    /// A report (--json) that the rates, p50, p95 and p99 may not be worse than
    #[arg(long, value_name = "FILE", global = true)]
    pub baseline: Option<PathBuf>,
    /// By how much they may be worse than the baseline; what the seconds of the runs differ by is allowed as well
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = values::percent, global = true)]
    pub noise: f64,
}

impl OutputFlags {
    /// One of them that was given, if any was.
    pub fn given(&self) -> Option<&'static str> {
        let flags = [
            ("--json", self.json.is_some()),
            ("--hdr-log", self.hdr_log.is_some()),
            ("--hgrm", self.hgrm.is_some()),
            ("--csv", self.csv.is_some()),
            ("--report", self.report.is_some()),
            ("--threshold", !self.thresholds.is_empty()),
            ("--baseline", self.baseline.is_some()),
        ];
        let given = flags.into_iter().find(|(_, is_given)| *is_given);
        given.map(|(flag, _)| flag)
    }
}

#[derive(Args)]
pub struct CompareFlags {
    /// The report of the earlier run
    pub before: PathBuf,
    /// The report of the later run
    pub after: PathBuf,
}
