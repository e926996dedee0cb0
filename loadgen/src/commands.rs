//! The commands: which workloads each one runs, and what it reports.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use async_nats::Subject;
use bytes::Bytes;
use mufakat::client::Client;
use serde_json::{Value, json};

use crate::batching::Batches;
use crate::check::{History, Shared};
use crate::cli::{CacheFlags, Cli, Command, LocksFlags, QueueFlags, ReferenceFlags, Target};
use crate::progress::Progress;
use crate::report::environment::Environment;
use crate::report::figures::Run;
use crate::report::summary::{CacheSummary, LocksSummary, QueueSummary};
use crate::report::{Report, Settings, milliseconds};
use crate::responder::Responder;
use crate::run::{Recording, Setup, run};
use crate::workload::Workload;
use crate::workload::cache::{Cache, Keys};
use crate::workload::echo::Echo;
use crate::workload::locks::Locks;
use crate::workload::queue::{Cycles, Pushes, Topics};
use crate::workload::reference::Reference;
use crate::workload::resource::RunName;

/// Runs the command and returns its figures, and the recordings that they come from.
///
/// # Errors
/// The broker cannot be reached, or the run could not be done. Requests that fail are in the report.
pub async fn execute(cli: &Cli) -> Result<(Report, Vec<Recording>)> {
    let mut setup = cli.setup();
    let client = Client::connect(&setup.connect).await?;
    let mut environment = Environment::read();
    environment.broker_version = Some(client.requester().nats().server_info().version);
    if !matches!(cli.command, Command::Echo(_)) {
        let status = client
            .status()
            .await
            .context("no node of the cluster answers")?;
        if cli.target.target == Target::Spread {
            setup.spread = status.members.iter().map(|member| member.node).collect();
        }
        environment.mufakat_version = Some(status.version);
        environment.nodes = Some(status.members.len());
        environment.redis = status.redis;
    }
    let mut call = Call {
        cli,
        setup,
        client,
        name: RunName::new(),
        progress: Progress::new(),
        report: Report::begin(environment, settings(cli)),
        recordings: Vec::new(),
    };
    match &cli.command {
        Command::Reference(flags) => call.reference(flags).await?,
        Command::Locks(flags) => call.locks(flags).await?,
        Command::Queue(flags) => call.queue(flags).await?,
        Command::Cache(flags) => call.cache(flags).await?,
        Command::Echo(_) => {
            call.echo().await?;
        }
        Command::Compare(_) => unreachable!("a comparison makes no run"),
    }
    Ok((call.report, call.recordings))
}

/// One call of the program.
struct Call<'a> {
    cli: &'a Cli,
    setup: Setup,
    client: Client,
    name: RunName,
    progress: Progress,
    report: Report,
    recordings: Vec<Recording>,
}

impl Call<'_> {
    async fn reference(&mut self, flags: &ReferenceFlags) -> Result<()> {
        let workload = Reference {
            run: self.name.clone(),
            hold: flags.hold,
            think: flags.think,
            timeout: self.cli.target.timeout,
        };
        self.run(workload).await?;
        Ok(())
    }

    /// The echo first, the locks after it, on connections of their own each.
    async fn locks(&mut self, flags: &LocksFlags) -> Result<()> {
        if self.echo().await? {
            return Ok(());
        }
        let before = Batches::read(&self.client).await;
        let check = Shared::new(flags.check.check);
        let workload = Locks {
            run: self.name.clone(),
            shared_locks: flags.locks,
            set: flags.set,
            shared_mode: flags.shared,
            hold: flags.hold,
            wait: flags.wait(),
            timeout: self.cli.target.timeout,
            check: check.clone(),
        };
        self.run(workload).await?;
        self.checked(check.tell(|check, _| std::mem::take(&mut check.history)));
        let after = Batches::read(&self.client).await;
        let commands_per_entry = match (before, after) {
            (Ok(before), Ok(after)) => after.commands_per_entry_since(&before),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        let (locks, echo) = (self.result_of("locks"), self.limit());
        let summary = locks.map(|locks| LocksSummary::new(locks, echo, commands_per_entry));
        self.report.locks = summary;
        Ok(())
    }

    /// The echo, pushes alone, then whole cycles, on connections of their own each.
    async fn queue(&mut self, flags: &QueueFlags) -> Result<()> {
        if self.echo().await? {
            return Ok(());
        }
        let check = Shared::new(flags.check.check);
        let topics = Topics {
            run: self.name.clone(),
            count: flags.topics,
            timeout: self.cli.target.timeout,
            check: check.clone(),
        };
        if !self.run(Pushes(topics.clone())).await? {
            self.run(Cycles(topics.clone())).await?;
        }
        let emptied = topics.empty(&self.client).await;
        emptied.context("cannot tell what is left in the topics")?;
        self.checked(check.tell(|check, _| std::mem::take(&mut check.history)));
        let (pushes, cycles) = (
            self.result_of("queue pushes"),
            self.result_of("queue cycles"),
        );
        let summary = pushes
            .zip(cycles)
            .map(|(pushes, cycles)| QueueSummary::new(pushes, cycles, self.limit()));
        self.report.queue = summary;
        Ok(())
    }

    /// The echo first, the cache after it, on connections of their own each.
    async fn cache(&mut self, flags: &CacheFlags) -> Result<()> {
        if self.echo().await? {
            return Ok(());
        }
        let (check, counter_check) = (
            Shared::new(flags.check.check),
            Shared::new(flags.check.check),
        );
        let workload = Cache {
            run: self.name.clone(),
            keys: Keys::new(flags.keys, flags.zipf),
            increments: flags.increments,
            reads: flags.reads,
            value_bytes: flags.value_bytes.clone(),
            timeout: self.cli.target.timeout,
            check: check.clone(),
            counter_check: counter_check.clone(),
        };
        self.run(workload).await?;
        self.checked(check.tell(|check, _| std::mem::take(&mut check.history)));
        self.checked(counter_check.tell(|check, _| std::mem::take(&mut check.history)));
        let (cache, echo) = (self.result_of("cache"), self.limit());
        self.report.cache = cache.map(|cache| CacheSummary::new(cache, echo));
        Ok(())
    }

    /// Unless it is left out. Returns whether the run was stopped early.
    async fn echo(&mut self) -> Result<bool> {
        let Some(flags) = self.cli.command.echo().filter(|flags| !flags.skip_echo) else {
            return Ok(false);
        };
        let subject = self.name.with("echo");
        let responder = Responder::start(flags.responder, &self.cli.nats, &subject).await?;
        let workload = Echo {
            subject: Subject::from(subject),
            payload: Bytes::from(vec![b'x'; flags.payload as usize]),
            timeout: self.cli.target.timeout,
        };
        let stopped = self.run(workload).await?;
        let responder_cpu = responder.stop()?;
        if let Some(figures) = self.report.runs.last_mut() {
            figures.responder_cpu_s = responder_cpu.map(|cpu| cpu.as_secs_f64());
        }
        Ok(stopped)
    }

    /// Runs a workload and reports its figures. Returns whether it was stopped early.
    async fn run(&mut self, workload: impl Workload) -> Result<bool> {
        let recording = run(Arc::new(workload), &self.setup, &mut self.progress).await?;
        self.report.runs.push(Run::new(&recording));
        let stopped = recording.stopped;
        self.recordings.push(recording);
        Ok(stopped)
    }

    /// Reports what a checker found, if there was one.
    fn checked(&mut self, history: Option<History>) {
        let Some(history) = history else { return };
        let check = self.report.check.get_or_insert_default();
        check.violations += history.violation_count();
        check.history.push_str(&history.text());
    }

    fn result_of(&self, workload: &str) -> Option<&Run> {
        let mut runs = self.report.runs.iter();
        runs.find(|run| run.workload == workload)
    }

    /// The echo's figures where they are a limit: a pace makes its rate one that was asked for.
    fn limit(&self) -> Option<&Run> {
        let unpaced = self.setup.plan.is_unpaced();
        self.result_of("echo").filter(|_| unpaced)
    }
}

fn settings(cli: &Cli) -> Settings {
    let (plan, target, echo) = (cli.plan(), &cli.target, cli.command.echo());
    let echo = echo.filter(|flags| !flags.skip_echo);
    let open_loop = plan.open_loop.as_ref();
    Settings {
        command: cli.command.name().to_owned(),
        users: plan.users,
        spawn_per_second: plan.spawn_rate,
        think_ms: milliseconds(plan.think),
        rate_per_second: open_loop.map(|open_loop| open_loop.rate),
        arrivals: open_loop.map(|open_loop| open_loop.arrivals.name().to_owned()),
        warm_up_ms: milliseconds(plan.warm_up),
        duration_ms: milliseconds(plan.duration),
        requests: plan.requests,
        seed: plan.seed,
        workload: own_settings(&cli.command),
        echo_payload_bytes: echo.map(|flags| flags.payload),
        echo_responder: echo.map(|flags| flags.responder.name().to_owned()),
        prefix: target.prefix.to_string(),
        encoding: target.encoding.name().to_owned(),
        target: target.target.to_string(),
        timeout_ms: milliseconds(target.timeout),
        connections: cli.setup().connections,
        threads: target.threads,
    }
}

/// The flags that only this command has.
fn own_settings(command: &Command) -> BTreeMap<String, Value> {
    let own = match command {
        Command::Reference(flags) => vec![
            ("hold_ms", json!(milliseconds(flags.hold))),
            ("think_ms", json!(milliseconds(flags.think))),
        ],
        Command::Locks(flags) => vec![
            ("locks", json!(flags.locks)),
            ("set", json!(flags.set)),
            ("shared", json!(flags.shared)),
            ("hold_ms", json!(milliseconds(flags.hold))),
            ("wait_ms", json!(milliseconds(flags.wait()))),
            ("check", json!(flags.check.check)),
        ],
        Command::Queue(flags) => vec![
            ("topics", json!(flags.topics)),
            ("check", json!(flags.check.check)),
        ],
        Command::Cache(flags) => vec![
            ("increments", json!(flags.increments)),
            ("reads", json!(flags.reads)),
            ("keys", json!(flags.keys)),
            ("zipf", json!(flags.zipf)),
            ("value_bytes_min", json!(flags.value_bytes.start())),
            ("value_bytes_max", json!(flags.value_bytes.end())),
            ("check", json!(flags.check.check)),
        ],
        Command::Echo(_) | Command::Compare(_) => Vec::new(),
    };
    own.into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
