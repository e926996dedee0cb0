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

/// Put load on a Mufakat cluster and measure it
///
/// Tables go to stdout, progress and notes to stderr. Ctrl-C ends a run early and prints what was recorded.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES, max_term_width = 100)]
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
  loadgen locks --rate 2000 --arrivals poisson     2,000 pairs per second (open loop)
  loadgen locks --locks 5 --hold 2ms --shared 0.5 --check
  loadgen mix --check --chaos --duration 5m        while processes of `mufakat dev` are killed
  loadgen queue --clients 20 --think 10ms          20 clients that pause between rounds
  loadgen cache --reads 0.95 --zipf 1 --keys 10000
  loadgen mix lock=3,queue=1,cache=6 --check
  loadgen reference --report run.html --json run.json
  loadgen locks --threshold 'lock.acquire.p99<20ms' --threshold 'lock.acquire.errors<0.1%'
  loadgen queue --baseline yesterday.json --noise 5%
  loadgen coordinate 2 locks --clients 400         from two machines that run `loadgen worker`
  loadgen compare yesterday.json today.json

Exit codes; the first one that applies:
  2   wrong usage
  70  a promise was broken (--check)
  99  a threshold does not hold
  98  worse than the baseline
  1   requests failed (ignored with --chaos or a threshold on errors), or the run failed
  0   otherwise";

#[derive(Subcommand)]
pub enum Command {
    /// Run the scenario of the prototype that Mufakat replaces, and compare with its results
    ///
    /// Users join one after another. Each user repeats these steps: acquire a lock of its own, hold it, release it, and
    /// ask twice for the status.
    Reference(ReferenceFlags),
    /// Acquire and release locks, compared with the raw echo of the broker
    ///
    /// Each client acquires and releases a lock of its own, or with --locks some of the locks that all clients share:
    /// exclusive or --shared, one or a --set, held for --hold. Before that, the same clients send raw NATS requests to
    /// a responder in this program: half of their rate is the limit for pairs of two requests.
    #[command(visible_alias = "lock")]
    Locks(LocksFlags),
    /// Push messages, then push, pop and acknowledge, compared with the raw echo of the broker
    ///
    /// Before that, the same clients send raw NATS requests to a responder in this program. A push is one request; a
    /// cycle of push, pop and acknowledgement is three. With --batch each request is about that many messages.
    Queue(QueueFlags),
    /// Read and write keys of the cache, compared with the raw echo of the broker
    ///
    /// Before that, the same clients send raw NATS requests to a responder in this program. A round is one read or one
    /// write; a read that finds nothing is followed by a write of the key. Any node may be asked, and reads that it
    /// answers from its own memory are reported separately. Without --target the broker picks a node for each request;
    /// with `--target spread` each client asks a node of its own.
    Cache(CacheFlags),
    /// Ask for the status, compared with the raw echo of the broker
    Status(StatusFlags),
    /// Run a mix of workloads: each round is drawn by weight
    ///
    /// The rounds are those of `locks`, `status` and `cache`, and the cycles of `queue`. Each operation has its own
    /// results; --check checks all services. Before that, the same clients send raw NATS requests.
    Mix(MixFlags),
    /// Measure only the raw echo of the broker
    Echo(EchoFlags),
    /// Send commands to Redis itself, to measure it without a queue on top
    ///
    /// Each round is one RPUSH to a list that is removed at the end. The broker is needed too: connections to it are
    /// opened as for every other workload.
    Redis(RedisFlags),
    /// Run the standard set against a cluster that it starts itself, and write a page with the results
    ///
    /// Starts `mufakat dev` with other ports and temporary data, runs one workload after another, and compares each
    /// with the raw echo of that broker and with Redis alone.
    Bench(BenchFlags),
    /// Run a command on several machines, and merge their results
    ///
    /// Waits for the given number of workers, then lets all of them run the command together. Clients, rates and
    /// numbers of requests are divided among the workers; each has the full number of threads and connections.
    /// Histograms are merged, never averaged. This program writes the result files.
    Coordinate(CoordinateFlags),
    /// Generate load for a coordinator
    ///
    /// Takes part in one run after another until Ctrl-C. The NATS connection is set on this machine, everything else by
    /// the coordinator.
    Worker(WorkerFlags),
    /// Compare two reports that --json wrote
    ///
    /// The noise is twice the standard error of a result from second to second, of both runs together. A smaller change
    /// may be chance.
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

    /// The processes to break meanwhile and their data directory, if --chaos was given.
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

    /// Checks that several machines can run it together.
    ///
    /// # Errors
    /// They cannot; says why.
    pub fn shareable(&self) -> Result<()> {
        let checks = match self {
            Self::Locks(flags) => flags.check.check,
            Self::Queue(flags) => flags.check.check,
            Self::Cache(flags) => flags.check.check,
            Self::Mix(flags) => flags.check.check,
            Self::Reference(_) | Self::Status(_) | Self::Echo(_) | Self::Redis(_) => false,
            Self::Bench(_) | Self::Coordinate(_) | Self::Worker(_) | Self::Compare(_) => {
                bail!("`{}` is not a workload", self.name())
            }
        };
        if checks {
            bail!("--check works only for the requests of one process");
        }
        if self.chaos().is_some() {
            bail!("--chaos works only for a load from one process");
        }
        Ok(())
    }

    /// The flags of the echo beside the workload, if there is one.
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
    /// Checks that the flags go together, beyond the rules that clap knows.
    ///
    /// # Errors
    /// Some flags contradict each other.
    pub fn consistent(&self) -> Result<()> {
        if let Command::Compare(_) | Command::Bench(_) | Command::Worker(_) = self.command
            && let Some(flag) = self.output.given()
        {
            let name = self.command.name();
            bail!("{flag} needs the results of a workload, and `{name}` is not a workload");
        }
        if let Some(shape) = self.command.locks()
            && let Some(locks) = shape.locks
            && shape.set > locks
        {
            let set = shape.set;
            bail!("--set {set} takes more locks together than --locks {locks} provides");
        }
        Ok(())
    }

    /// A flag that these words give to `coordinate` itself. It would have no effect: the command of the workers has its
    /// own flags.
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
                // The nodes are not known yet: this client asks for them.
                Target::Spread => client::Target::Any,
            },
        };
        client::ConnectOptions {
            nats: self.nats.clone(),
            client,
        }
    }

    /// How the workload of the command is run, with at least as many connections as threads. The caller adds the nodes
    /// among which users are spread.
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
    fn everything_has_help_that_fits_a_terminal() {
        let mut program = Cli::command();
        program.build();
        assert!(EXAMPLES.lines().all(|line| line.chars().count() <= 100));
        for command in program.get_subcommands() {
            let name = command.get_name();
            let about = command.get_about().expect(name).to_string();
            assert!(!about.ends_with('.'), "{name}: {about}");
            for arg in command.get_arguments() {
                let place = format!("{name} {}", arg.get_id());
                let help = arg.get_help().expect(&place).to_string();
                assert!(!help.is_empty() && !help.ends_with('.'), "{place}: {help}");
                let shows = arg.get_env().is_some() && !arg.is_hide_env_values_set();
                assert!(!shows, "{place}");
            }
        }
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
