//! The flags of each command, and those that all commands share.

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
    /// Number of users, each with one request in flight at a time
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub users: u32,
    /// Number of users that join per second
    #[arg(long, value_name = "PER_SECOND", default_value = "10", value_parser = values::positive_rate)]
    pub spawn_rate: f64,
    /// How long to record, including the time in which users join
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::duration)]
    pub duration: Duration,
    /// Time before the recording starts
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = values::duration)]
    pub warm_up: Duration,
    /// How long each lock is held
    #[arg(long, value_name = "DURATION", default_value = "300ms", value_parser = values::duration)]
    pub hold: Duration,
    /// Pause of each user before an acquire and before a status request; 2s gives the load of the
    /// original prototype, whose rates were set by these pauses and not by its capacity
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = values::duration)]
    pub think: Duration,
    /// Start no round after this many requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
}

impl ReferenceFlags {
    /// The users of this scenario pause within their rounds, not between them.
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
    /// Share of each workload among the rounds; workloads: lock, queue, cache, status
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
    /// Kill, pause and restart processes of the `mufakat dev` in this data directory [default
    /// without DIR: .data/dev]
    ///
    /// Acts on one process at a time, on a schedule that --seed determines, from the end of the warm-up to shortly
    /// before the end of the run. Failed requests do not fail the run; with --check, broken promises do. The echo is
    /// skipped.
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = ".data/dev")]
    pub chaos: Option<PathBuf>,
    /// Kinds of processes to break, separated by commas
    #[arg(
        long,
        value_enum,
        value_name = "PARTS",
        default_value = "nodes",
        value_delimiter = ',',
        requires = "chaos"
    )]
    pub chaos_on: Vec<Part>,
    /// Mean time from the return of one process to the next failure
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = values::gap, requires = "chaos")]
    pub chaos_every: Duration,
    /// Maximum time for which a process is away; the minimum is a fifth of it
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = values::gap, requires = "chaos")]
    pub chaos_outage: Duration,
}

#[derive(Args)]
#[command(next_help_heading = "Checking")]
pub struct CheckFlags {
    /// Check the promises of the cluster while loading; a violation is printed with its context
    ///
    /// The exit code is 70 if a promise was broken. Locks: an exclusive lock has at most one holder, and tokens rise.
    /// Queue: no acknowledged message is lost, none is made up, and first deliveries are in order; at the end the
    /// topics are emptied. Cache: no read is older than a write that was acknowledged before it, and no increment is
    /// lost.
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
    /// URL of Redis
    #[arg(
        long,
        value_name = "URL",
        env = "REDIS_URL",
        hide_env_values = true,
        default_value = "redis://127.0.0.1:6379"
    )]
    pub redis: String,
    /// Size of a value in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=900_000))]
    pub value_bytes: u32,
    #[command(flatten)]
    pub pace: PaceFlags,
}

#[derive(Args)]
pub struct BenchFlags {
    /// File to write the page to
    #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md")]
    pub page: PathBuf,
    /// Program that starts the cluster [default: `mufakat` beside this program]
    #[arg(long, value_name = "PATH")]
    pub mufakat: Option<PathBuf>,
    /// Number to add to every usual port of the cluster, as in `mufakat dev`
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u16).range(0..=50_000))]
    pub port_base: u16,
    /// Number of clients of each workload
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub clients: u32,
    /// How long to record each workload
    #[arg(long, value_name = "DURATION", default_value = "8s", value_parser = values::duration)]
    pub duration: Duration,
    /// Time before the recording of each workload starts
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = values::duration)]
    pub warm_up: Duration,
}

#[derive(Args)]
pub struct CoordinateFlags {
    /// Number of workers to wait for
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub workers: u32,
    /// Group of the workers; it keeps apart the workers of two coordinators
    #[arg(long, value_parser = values::group, default_value = "default")]
    pub group: String,
    /// Command with all its flags, including those of the NATS connection
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub command: Vec<String>,
}

#[derive(Args)]
pub struct WorkerFlags {
    /// Group to work for
    #[arg(long, value_parser = values::group, default_value = "default")]
    pub group: String,
    /// Exit after one job, with 1 if it failed
    #[arg(long)]
    pub once: bool,
}

#[derive(Args)]
#[command(next_help_heading = "Pace")]
pub struct PaceFlags {
    /// Number of clients, each with one round in flight; with --rate the maximum of rounds in flight
    #[arg(long, value_name = "N", visible_alias = "users", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub clients: u32,
    /// Number of clients that join per second [default: all at once]
    #[arg(long, value_name = "PER_SECOND", value_parser = values::positive_rate, conflicts_with = "rate")]
    pub spawn_rate: Option<f64>,
    /// Pause of each client between two rounds
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = values::duration, conflicts_with = "rate")]
    pub think: Duration,
    /// Start this many rounds per second, however long replies take (open loop) [default: each client
    /// starts a round when its last one has ended (closed loop)]
    ///
    /// Latency counts from the time at which a round was due. A round that finds all clients busy starts late. It is
    /// dropped if it is later than --timeout. Late and dropped rounds are counted.
    #[arg(long, value_name = "PER_SECOND", value_parser = values::positive_rate)]
    pub rate: Option<f64>,
    /// How the rounds of --rate are spread over time
    #[arg(long, value_enum, default_value_t, requires = "rate")]
    pub arrivals: Arrivals,
    /// How long to record
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    pub duration: Duration,
    /// Time before the recording starts
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = values::duration)]
    pub warm_up: Duration,
    /// Start no round after this many requests, including those of the warm-up
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
}

#[derive(Args)]
#[command(next_help_heading = "Echo")]
pub struct ResponderFlags {
    /// Size of the request and of the reply of an echo, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 16, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    pub payload: u32,
    /// Implementation of the echo responder
    #[arg(long, value_enum, default_value_t)]
    pub responder: responder::Form,
    /// Skip the echo
    #[arg(long)]
    pub skip_echo: bool,
}

#[derive(Args)]
#[command(next_help_heading = "Cluster and load threads")]
pub struct TargetFlags {
    /// First tokens of every subject of the cluster
    #[arg(
        long,
        value_name = "PREFIX",
        env = "MUFAKAT_PREFIX",
        hide_env_values = true,
        default_value_t,
        global = true
    )]
    pub prefix: Prefix,
    /// Encoding of the requests
    #[arg(long, value_enum, default_value_t, global = true)]
    pub encoding: EncodingName,
    /// Node to ask: any; leader (the node that replies name as faster to ask); node=ID; or spread (each
    /// client always asks the same node, clients take the nodes in turn)
    #[arg(long, value_name = "NODE", default_value = "leader", global = true)]
    pub target: Target,
    /// Timeout of a request, including the retries of the client
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = values::timeout, global = true)]
    pub timeout: Duration,
    /// Number of NATS connections, which the clients share
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000), global = true)]
    pub connections: u32,
    /// Number of load threads, each with its share of the connections and clients
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64), global = true)]
    pub threads: u32,
    /// Seed of all random choices (keys, sizes, arrivals)
    #[arg(long, value_name = "N", default_value_t = 1, global = true)]
    pub seed: u64,
}

#[derive(Args)]
#[command(next_help_heading = "Results")]
pub struct OutputFlags {
    /// Write all results and settings to this file, as JSON
    #[arg(long, value_name = "FILE", global = true)]
    pub json: Option<PathBuf>,
    /// Write the histograms of each second to this file, as interval log (V2) of HdrHistogram
    #[arg(long, value_name = "FILE", global = true)]
    pub hdr_log: Option<PathBuf>,
    /// Write the percentiles of each operation to this directory, for the plotter of HdrHistogram
    #[arg(long, value_name = "DIRECTORY", global = true)]
    pub hgrm: Option<PathBuf>,
    /// Write a line for each second and operation to this file
    #[arg(long, value_name = "FILE", global = true)]
    pub csv: Option<PathBuf>,
    /// Write a page with charts to this file, as HTML
    #[arg(long, value_name = "FILE", global = true)]
    pub report: Option<PathBuf>,
    /// Condition that must hold, such as 'lock.acquire.p99<20ms'; may be given several times
    ///
    /// OPERATION.METRIC, one of <, <=, > and >=, and a limit. The metrics are: mean, p50, p90, p95, p99, p99.9 and max
    /// (with us, ms or s); rate (successes per second); count; errors (a number, or with % a share); unknown (errors
    /// that may have taken effect); and for an open loop arrivals.dropped. A condition on an operation that was not
    /// measured fails.
    #[arg(long = "threshold", value_name = "CONDITION", global = true)]
    pub thresholds: Vec<Threshold>,
    /// Report (--json) to compare with: rates, p50, p95 and p99 may not be worse
    #[arg(long, value_name = "FILE", global = true)]
    pub baseline: Option<PathBuf>,
    /// How much worse than the baseline results may be, beyond the variation between seconds
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = values::percent, global = true)]
    pub noise: f64,
}

impl OutputFlags {
    /// One of these flags that was given, if any was.
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
    /// Report of the earlier run
    pub before: PathBuf,
    /// Report of the later run
    pub after: PathBuf,
}
