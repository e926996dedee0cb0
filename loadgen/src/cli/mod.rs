//! The command line.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Result, bail};
use clap::parser::ValueSource;
use clap::{Arg, CommandFactory, Parser, Subcommand};
use mufakat::broker::options::NatsOptions;
use mufakat::client;
use mufakat::protocol::Encoding;

use crate::crew::Place;
use crate::pacer::Plan;
use crate::run::Setup;
use crate::schedule::OpenLoop;

mod flags;
mod shapes;
mod values;

pub use flags::{
    BenchFlags, CacheFlags, ChaosFlags, CompareFlags, CoordinateFlags, EchoFlags, LocksFlags,
    MixFlags, OutputFlags, PaceFlags, QueueFlags, RedisFlags, ReferenceFlags, ResponderFlags,
    StatusFlags, TargetFlags, WorkerFlags,
};
pub use shapes::{CacheShape, LocksShape, QueueShape};
pub use values::{EncodingName, Target};

/// Puts load on a Mufakat cluster and measures it.
///
/// Tables go to stdout, progress and notes to stderr. Ctrl-C ends a run early; what it recorded is printed.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub nats: NatsOptions,
    #[command(flatten)]
    pub target: TargetFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}

const EXAMPLES: &str = "\
Examples:
  loadgen locks                                    as fast as 100 clients can
  loadgen locks --rate 2000 --arrivals poisson     2,000 pairs per second, whatever the answers take
  loadgen locks --locks 5 --hold 2ms --shared 0.5 --check
  loadgen mix --check --chaos --duration 5m        while processes of a `mufakat dev` are killed
  loadgen queue --clients 20 --think 10ms          20 clients that pause between rounds
  loadgen cache --reads 0.95 --zipf 1 --keys 10000
  loadgen mix lock=3,queue=1,cache=6 --check
  loadgen reference --report run.html --json run.json
  loadgen locks --threshold 'lock.acquire.p99<20ms' --threshold 'lock.acquire.errors<0.1%'
  loadgen queue --baseline yesterday.json --noise 5%
  loadgen coordinate 2 locks --clients 400         from two machines that run `loadgen worker`
  loadgen compare yesterday.json today.json

Exit codes, the first that fits:
  2   the command line is wrong
  70  a promise was broken (--check)
  99  a threshold does not hold
  98  worse than the baseline
  1   requests failed (unless a threshold is about errors, or with --chaos), or the run could not be done
  0   otherwise";

#[derive(Subcommand)]
pub enum Command {
    /// The scenario of the original prototype, beside its figures
    ///
    /// Users join one after another. Each one, again and again: acquires a lock of its own, holds it, releases
    /// it, and asks twice for the status.
    Reference(ReferenceFlags),
    /// Acquire and release locks, beside the raw echo of the broker
    ///
    /// Each client acquires and releases a lock of its own, or with --locks some of those that all share: exclusive or
    /// --shared, one or a --set, held for --hold. Before that, the same clients send raw NATS requests
    /// to a responder in this program: half of that rate is the limit for pairs of two requests.
    #[command(visible_alias = "lock")]
    Locks(LocksFlags),
    /// Push, then push, pop and acknowledge, beside the raw echo of the broker
    ///
    /// First the same clients send raw NATS requests to a responder in this program. A push is one request, a cycle
    /// of push, pop and acknowledgement is three; with --batch each is about so many messages.
    Queue(QueueFlags),
    /// Read and write keys of the cache, beside the raw echo of the broker
    ///
    /// First the same clients send raw NATS requests to a responder in this program. A round is one read or one
    /// write; a read that finds nothing is followed by a write of the key. Any node may be asked, and what it
    /// answers from its own memory is told apart: unless --target says otherwise the broker picks one for each
    /// request, and with `--target spread` each client asks a node of its own.
    Cache(CacheFlags),
    /// Ask for the status, beside the raw echo of the broker
    Status(StatusFlags),
    /// A bit of everything: each round is one of another workload, drawn by weight
    ///
    /// The rounds are those of `locks`, `status` and `cache`, and the cycles of `queue`. Each operation has figures of
    /// its own; with --check all services are checked. First the same clients send raw NATS requests.
    Mix(MixFlags),
    /// The raw echo of the broker alone
    Echo(EchoFlags),
    /// Commands to Redis itself: what it can do without a queue around it
    ///
    /// Each round is one RPUSH to a list that is removed at the end. The broker has to be there too: connections to it
    /// are opened as for every other workload.
    Redis(RedisFlags),
    /// The standard set against a cluster that it starts itself; writes a page with what came out
    ///
    /// Starts `mufakat dev` with other ports and data that goes away with it, runs one workload after another, and
    /// sets each beside the raw echo of that broker and beside Redis alone.
    Bench(BenchFlags),
    /// Runs a command on several machines, and adds up what they record
    ///
    /// Waits for so many workers, then lets all of them run the command together. Clients, rates and numbers of requests
    /// are shared out; threads and connections are those of each worker. Histograms are merged, never averaged. What
    /// flags of results ask for is written here.
    Coordinate(CoordinateFlags),
    /// Loads as a coordinator says
    ///
    /// Takes part in one run after another until Ctrl-C. How to reach the broker is this machine's own matter; all else
    /// is the coordinator's.
    Worker(WorkerFlags),
    /// Two reports side by side, as --json writes them
    ///
    /// The noise is twice the standard error of a figure from second to second, of both runs together. A change that
    /// is less may be chance.
    Compare(CompareFlags),
}

impl Command {
    /// The name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reference(_) => "reference",
            Self::Locks(_) => "locks",
            Self::Queue(_) => "queue",
            Self::Cache(_) => "cache",
            Self::Status(_) => "status",
            Self::Mix(_) => "mix",
            Self::Echo(_) => "echo",
            Self::Redis(_) => "redis",
            Self::Bench(_) => "bench",
            Self::Coordinate(_) => "coordinate",
            Self::Worker(_) => "worker",
            Self::Compare(_) => "compare",
        }
    }

    fn pace(&self) -> Option<&PaceFlags> {
        match self {
            Self::Reference(_)
            | Self::Bench(_)
            | Self::Coordinate(_)
            | Self::Worker(_)
            | Self::Compare(_) => None,
            Self::Redis(flags) => Some(&flags.pace),
            Self::Locks(flags) => Some(&flags.pace),
            Self::Queue(flags) => Some(&flags.pace),
            Self::Cache(flags) => Some(&flags.pace),
            Self::Status(flags) => Some(&flags.pace),
            Self::Mix(flags) => Some(&flags.pace),
            Self::Echo(flags) => Some(&flags.pace),
        }
    }

    fn locks(&self) -> Option<&LocksShape> {
        match self {
            Self::Locks(flags) => Some(&flags.shape),
            Self::Mix(flags) => Some(&flags.locks),
            _ => None,
        }
    }

    /// What is to be broken meanwhile, and in which data directory, where that was asked for.
    pub fn chaos(&self) -> Option<(&ChaosFlags, &Path)> {
        let flags = match self {
            Self::Locks(flags) => &flags.chaos,
            Self::Queue(flags) => &flags.chaos,
            Self::Cache(flags) => &flags.chaos,
            Self::Mix(flags) => &flags.chaos,
            Self::Reference(_)
            | Self::Status(_)
            | Self::Echo(_)
            | Self::Redis(_)
            | Self::Bench(_)
            | Self::Coordinate(_)
            | Self::Worker(_)
            | Self::Compare(_) => return None,
        };
        Some((flags, flags.chaos.as_deref()?))
    }

    /// Whether several machines can run it together.
    ///
    /// # Errors
    /// Why they cannot.
    pub fn shareable(&self) -> Result<()> {
        let checks = match self {
            Self::Locks(flags) => flags.check.check,
            Self::Queue(flags) => flags.check.check,
            Self::Cache(flags) => flags.check.check,
            Self::Mix(flags) => flags.check.check,
            Self::Reference(_) | Self::Status(_) | Self::Echo(_) | Self::Redis(_) => false,
            Self::Bench(_) | Self::Coordinate(_) | Self::Worker(_) | Self::Compare(_) => {
                bail!("`{}` is no workload", self.name())
            }
        };
        if checks {
            bail!("--check knows only the requests of one process");
        }
        if self.chaos().is_some() {
            bail!("--chaos is for a load from one process");
        }
        Ok(())
    }

    /// How the echo beside the workload is made, if there is one.
    pub fn echo(&self) -> Option<&ResponderFlags> {
        match self {
            Self::Reference(_)
            | Self::Redis(_)
            | Self::Bench(_)
            | Self::Coordinate(_)
            | Self::Worker(_)
            | Self::Compare(_) => None,
            Self::Locks(flags) => Some(&flags.echo),
            Self::Queue(flags) => Some(&flags.echo),
            Self::Cache(flags) => Some(&flags.echo),
            Self::Status(flags) => Some(&flags.echo),
            Self::Mix(flags) => Some(&flags.echo),
            Self::Echo(flags) => Some(&flags.echo),
        }
    }
}

impl Cli {
    /// Whether the flags go together, where that is more than clap can be told.
    ///
    /// # Errors
    /// Which do not, and why.
    pub fn consistent(&self) -> Result<()> {
        if let Command::Compare(_) | Command::Bench(_) | Command::Worker(_) = self.command
            && let Some(flag) = self.output.given()
        {
            let name = self.command.name();
            bail!("{flag} says what is made of the results of a workload, which `{name}` is not");
        }
        if let Some(shape) = self.command.locks()
            && let Some(locks) = shape.locks
            && shape.set > locks
        {
            let set = shape.set;
            bail!("--set {set} takes more locks together than --locks {locks} has");
        }
        Ok(())
    }

    /// A flag that these words give to `coordinate` itself, where it would go unused: what the workers run has
    /// flags of its own.
    pub fn stray_flag(words: impl IntoIterator<Item = OsString>) -> Option<String> {
        let command = Self::command();
        let matches = command.clone().try_get_matches_from(words).ok()?;
        matches.subcommand_matches("coordinate")?;
        let is_given = |arg: &&Arg| {
            let source = matches.value_source(arg.get_id().as_str());
            source == Some(ValueSource::CommandLine)
        };
        let stray = command.get_arguments().find(is_given)?;
        Some(format!("--{}", stray.get_long()?))
    }

    /// The words that this command was given, for another machine: the cluster is the same there, whatever its
    /// environment says.
    pub fn for_another_machine(&self, words: &[String]) -> Vec<String> {
        let mut words = words.to_vec();
        let is_prefix = |word: &String| word == "--prefix" || word.starts_with("--prefix=");
        if !words.iter().any(is_prefix) {
            words.push(format!("--prefix={}", self.target.prefix));
        }
        words
    }

    /// The shape of the run of a command that makes one.
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
            (_, None) => unreachable!("every other command that makes a run has a pace"),
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
            chaos: None,
            place: Place::ALONE,
            plan: self.plan(),
            threads,
            connections: connections.max(threads),
            keeps_histograms: self.output.hdr_log.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
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
    fn flags_that_do_not_go_together_are_refused() {
        let refusal = |words: &[&str]| {
            let words = ["loadgen"].iter().chain(words);
            let parsed = Cli::try_parse_from(words).expect("clap takes it");
            parsed.consistent().err().map(|error| error.to_string())
        };
        for command in ["locks", "mix"] {
            let refused = refusal(&[command, "--locks", "2", "--set", "3"]).expect("a refusal");
            assert!(refused.contains("--set 3"), "{refused}");
            assert_eq!(refusal(&[command, "--locks", "3", "--set", "3"]), None);
        }
        let refused = refusal(&["compare", "a.json", "b.json", "--csv", "c"]).expect("a refusal");
        assert!(refused.contains("--csv"), "{refused}");
    }

    #[test]
    fn the_prefix_goes_with_the_words_to_another_machine() {
        let sent = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            let all = ["loadgen".to_owned()].into_iter().chain(words.clone());
            let parsed = Cli::try_parse_from(all).expect("clap takes it");
            parsed.for_another_machine(&words)
        };
        assert_eq!(sent(&["echo", "--prefix", "a"]), ["echo", "--prefix", "a"]);
        assert_eq!(sent(&["echo", "--prefix=a"]), ["echo", "--prefix=a"]);
        let words = sent(&["echo"]);
        assert!(words[1].starts_with("--prefix="), "{words:?}");
    }

    #[test]
    fn flags_of_what_workers_run_come_behind_it() {
        let stray = |words: &str| Cli::stray_flag(words.split(' ').map(OsString::from));
        let behind = "loadgen coordinate --group g 1 locks --json a --nats nats://b";
        assert_eq!(stray(behind), None);
        let before = "loadgen --json a coordinate 1 locks";
        assert_eq!(stray(before).as_deref(), Some("--json"));
        let between = "loadgen coordinate --nats nats://b 1 locks";
        assert_eq!(stray(between).as_deref(), Some("--nats"));
        assert_eq!(stray("loadgen --json a locks"), None);
    }

    #[test]
    fn every_example_is_a_command_line() {
        let examples = EXAMPLES.lines().skip(1);
        for line in examples.take_while(|line| !line.is_empty()) {
            let (line, _) = line.split_once("    ").map_or((line.trim(), ""), |_| {
                let end = line.trim().find("   ").unwrap_or(line.trim().len());
                (&line.trim()[..end], "")
            });
            let words = line.split_whitespace();
            let parsed = Cli::try_parse_from(words.map(|word| word.trim_matches('\'')));
            if let Err(error) = parsed {
                panic!("{line}: {error}");
            }
        }
    }
}
