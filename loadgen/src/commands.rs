//! The commands: which workloads each one runs, and what it reports.

use std::sync::Arc;

use anyhow::{Context, Result};
use async_nats::Subject;
use bytes::Bytes;
use mufakat::client::Client;
use mufakat::protocol::lock::{Acquire, Release};

use crate::batching::Batches;
use crate::chaos::Chaos;
use crate::check::cache::CacheCheck;
use crate::check::counters::CounterCheck;
use crate::check::locks::LockCheck;
use crate::check::queue::QueueCheck;
use crate::check::{History, Shared};
use crate::cli::{
    CacheFlags, CacheShape, Cli, Command, LocksFlags, LocksShape, MixFlags, QueueFlags, QueueShape,
    RedisFlags, ReferenceFlags, ResponderFlags, Target,
};
use crate::crew::Role;
use crate::interrupt::unless_interrupted;
use crate::progress::Progress;
use crate::report::Report;
use crate::report::environment::Environment;
use crate::report::figures::Run;
use crate::report::summary::{CacheSummary, LocksSummary, QueueSummary, RequestsSummary};
use crate::responder::Responder;
use crate::run::{Recording, Setup, run};
use crate::workload::Workload;
use crate::workload::cache::{Cache, Keys};
use crate::workload::echo::Echo;
use crate::workload::locks::Locks;
use crate::workload::mix::Mix;
use crate::workload::queue::{Cycles, Pushes, Topics};
use crate::workload::raw_redis::RawRedis;
use crate::workload::reference::Reference;
use crate::workload::resource::RunName;
use crate::workload::status::Status;

mod settings;

use settings::settings;

/// The time in which a cluster that was broken grants a lock again.
const RECOVERY_MS_MAX: u64 = 30_000;

/// Runs the command and returns its figures, and the recordings that they come from. A coordinator and its workers run
/// the same command under the same name.
///
/// # Errors
/// Nothing was recorded: the broker cannot be reached, or the first run could not be done. What fails later, and
/// requests that fail, are in the report.
pub async fn execute(cli: &Cli, role: Role, name: RunName) -> Result<(Report, Vec<Recording>)> {
    let mut setup = cli.setup();
    let workers = match &role {
        Role::Alone => 1,
        Role::Coordinator(coordinator) => coordinator.workers(),
        Role::Worker(link) => {
            setup.place = link.place();
            link.place().of
        }
    };
    let client = Client::connect(&setup.connect).await?;
    let mut environment = Environment::read();
    environment.broker_version = Some(client.requester().nats().server_info().version);
    if !matches!(cli.command, Command::Echo(_) | Command::Redis(_)) {
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
    if let Some((flags, data_dir)) = cli.command.chaos() {
        let chaos = Chaos::prepare(flags, data_dir, &client, cli.target.seed).await?;
        setup.chaos = Some(chaos);
    }
    let mut call = Call {
        cli,
        setup,
        client,
        role,
        name,
        progress: Progress::new(),
        report: Report::begin(environment, settings(cli, workers)),
        recordings: Vec::new(),
        checks: Checks::new(false),
    };
    let done = call.execute().await;
    call.found();
    match done {
        Err(error) if call.recordings.is_empty() => return Err(error),
        Err(error) => call.report.fail(&error),
        Ok(()) => {}
    }
    Ok((call.report, call.recordings))
}

/// One call of the program.
struct Call<'a> {
    cli: &'a Cli,
    setup: Setup,
    client: Client,
    role: Role,
    name: RunName,
    progress: Progress,
    report: Report,
    recordings: Vec<Recording>,
    checks: Checks,
}

impl Call<'_> {
    async fn execute(&mut self) -> Result<()> {
        match &self.cli.command {
            Command::Reference(flags) => self.reference(flags).await?,
            Command::Locks(flags) => self.locks(flags).await?,
            Command::Queue(flags) => self.queue(flags).await?,
            Command::Cache(flags) => self.cache(flags).await?,
            Command::Status(_) => self.status().await?,
            Command::Mix(flags) => self.mix(flags).await?,
            Command::Echo(_) => {
                self.echo().await?;
            }
            Command::Redis(flags) => self.redis(flags).await?,
            Command::Bench(_)
            | Command::Coordinate(_)
            | Command::Worker(_)
            | Command::Compare(_) => {
                unreachable!("these consist of other commands, or make no run")
            }
        }
        self.recovers().await
    }

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
        self.checks = Checks::new(flags.check.check);
        let workload = self.locks_of(&flags.shape);
        self.run(workload).await?;
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
        self.checks = Checks::new(flags.check.check);
        let topics = self.topics_of(&flags.shape);
        if !self.run(Pushes(topics.clone())).await? {
            self.run(Cycles(topics.clone())).await?;
        }
        self.empty(&topics).await?;
        let (pushes, cycles) = (
            self.result_of("queue pushes"),
            self.result_of("queue cycles"),
        );
        let summary = pushes.zip(cycles).map(|(pushes, cycles)| {
            QueueSummary::new(pushes, cycles, flags.shape.batch, self.limit())
        });
        self.report.queue = summary;
        Ok(())
    }

    /// The echo first, the cache after it, on connections of their own each.
    async fn cache(&mut self, flags: &CacheFlags) -> Result<()> {
        if self.echo().await? {
            return Ok(());
        }
        self.checks = Checks::new(flags.check.check);
        let workload = self.cache_of(&flags.shape);
        self.run(workload).await?;
        let (cache, echo) = (self.result_of("cache"), self.limit());
        self.report.cache = cache.map(|cache| CacheSummary::new(cache, echo));
        Ok(())
    }

    /// The echo first, the status after it, on connections of their own each.
    async fn status(&mut self) -> Result<()> {
        if self.echo().await? {
            return Ok(());
        }
        let timeout = self.cli.target.timeout;
        self.run(Status { timeout }).await?;
        self.report.requests = self.requests_summary("status");
        Ok(())
    }

    /// The echo first, the mix after it, on connections of their own each.
    async fn mix(&mut self, flags: &MixFlags) -> Result<()> {
        if self.echo().await? {
            return Ok(());
        }
        self.checks = Checks::new(flags.check.check);
        let topics = self.topics_of(&flags.queue);
        let workload = Mix {
            weights: flags.weights,
            locks: self.locks_of(&flags.locks),
            queue: Cycles(topics.clone()),
            cache: self.cache_of(&flags.cache),
            status: Status {
                timeout: self.cli.target.timeout,
            },
        };
        self.run(workload).await?;
        self.empty(&topics).await?;
        self.report.requests = self.requests_summary("mix");
        Ok(())
    }

    /// Redis alone.
    async fn redis(&mut self, flags: &RedisFlags) -> Result<()> {
        let (key, bytes) = (self.name.with("list"), flags.value_bytes as usize);
        let workload = RawRedis::new(&flags.redis, key, bytes, self.cli.target.timeout)?;
        // What is in the way of the first command is told as the reason, not as so many failures.
        workload.remove().await.context("cannot use Redis")?;
        let workload = Arc::new(workload);
        self.run_shared(workload.clone()).await?;
        workload
            .remove()
            .await
            .context("the list cannot be removed")
    }

    fn locks_of(&self, shape: &LocksShape) -> Locks {
        Locks {
            run: self.name.clone(),
            shared_locks: shape.locks,
            set: shape.set,
            shared_mode: shape.shared,
            hold: shape.hold,
            wait: shape.wait(),
            timeout: self.cli.target.timeout,
            check: self.checks.locks.clone(),
        }
    }

    fn topics_of(&self, shape: &QueueShape) -> Topics {
        Topics {
            run: self.name.clone(),
            count: shape.topics,
            batch: shape.batch,
            message_bytes: shape.message_bytes.clone(),
            timeout: self.cli.target.timeout,
            check: self.checks.queue.clone(),
        }
    }

    fn cache_of(&self, shape: &CacheShape) -> Cache {
        Cache {
            run: self.name.clone(),
            keys: Keys::new(shape.keys, shape.zipf),
            increments: shape.increments,
            reads: shape.reads,
            value_bytes: shape.value_bytes.clone(),
            timeout: self.cli.target.timeout,
            check: self.checks.cache.clone(),
            counter_check: self.checks.counters.clone(),
        }
    }

    /// Takes what is left in topics that are checked.
    async fn empty(&self, topics: &Topics) -> Result<()> {
        let emptied = unless_interrupted(topics.empty(&self.client)).await;
        emptied.context("cannot tell what is left in the topics")
    }

    /// After the chaos, which mended all that it broke, the cluster grants a lock again.
    async fn recovers(&self) -> Result<()> {
        if self.setup.chaos.is_none() {
            return Ok(());
        }
        let mut acquire = Acquire::new(self.name.with("after-chaos"));
        acquire.timeout_ms = Some(RECOVERY_MS_MAX);
        let granted = async {
            let acquired = self.client.acquire(&acquire).await?;
            self.client.release(&Release::of(&acquired)).await?;
            Ok(())
        };
        let granted = unless_interrupted(granted).await;
        granted.context("the cluster does not recover from the chaos")
    }

    /// Unless it is left out. Returns whether the run was stopped early.
    async fn echo(&mut self) -> Result<bool> {
        let echo = self.cli.command.echo();
        // Beside a cluster that is broken on purpose the limit says nothing.
        let wanted = |flags: &&ResponderFlags| !flags.skip_echo && self.setup.chaos.is_none();
        let Some(flags) = echo.filter(wanted) else {
            return Ok(false);
        };
        let subject = self.name.with("echo");
        // One responder is for all workers.
        let responder = match &self.role {
            Role::Worker(_) => None,
            _ => Some(Responder::start(flags.responder, &self.cli.nats, &subject).await?),
        };
        let workload = Echo {
            subject: Subject::from(subject),
            payload: Bytes::from(vec![b'x'; flags.payload as usize]),
            timeout: self.cli.target.timeout,
        };
        let stopped = self.run(workload).await?;
        let responder_cpu = responder.map(Responder::stop).transpose()?.flatten();
        if let Some(figures) = self.report.runs.last_mut() {
            figures.responder_cpu_s = responder_cpu.map(|cpu| cpu.as_secs_f64());
        }
        Ok(stopped)
    }

    /// Runs a workload and reports its figures. Returns whether it was stopped early.
    async fn run(&mut self, workload: impl Workload) -> Result<bool> {
        self.run_shared(Arc::new(workload)).await
    }

    async fn run_shared(&mut self, workload: Arc<impl Workload>) -> Result<bool> {
        let (setup, progress) = (&self.setup, &mut self.progress);
        let mut recording = match &mut self.role {
            Role::Alone => run(workload, setup, progress, None).await?,
            Role::Worker(link) => run(workload, setup, progress, Some(link)).await?,
            Role::Coordinator(coordinator) => coordinator.run(&*workload, setup, progress).await?,
        };
        let failure = recording.failure.take();
        self.report.runs.push(Run::new(&recording));
        let stopped = recording.stopped;
        self.recordings.push(recording);
        failure.map_or(Ok(stopped), Err)
    }

    /// Reports what the checkers found, if there were any.
    fn found(&mut self) {
        for history in self.checks.histories() {
            let check = self.report.check.get_or_insert_default();
            check.violations += history.violation_count();
            check.history.push_str(&history.text());
        }
    }

    fn requests_summary(&self, workload: &str) -> Option<RequestsSummary> {
        let run = self.result_of(workload)?;
        Some(RequestsSummary::new(run, self.limit()))
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

/// A checker for each service, or none where nothing is to be checked.
struct Checks {
    locks: Shared<LockCheck>,
    queue: Shared<QueueCheck>,
    cache: Shared<CacheCheck>,
    counters: Shared<CounterCheck>,
}

impl Checks {
    fn new(checks: bool) -> Self {
        Self {
            locks: Shared::new(checks),
            queue: Shared::new(checks),
            cache: Shared::new(checks),
            counters: Shared::new(checks),
        }
    }

    /// What each of them heard and found; each can be taken once.
    fn histories(&self) -> impl Iterator<Item = History> {
        let all = [
            self.locks
                .tell(|check, _| std::mem::take(&mut check.history)),
            self.queue
                .tell(|check, _| std::mem::take(&mut check.history)),
            self.cache
                .tell(|check, _| std::mem::take(&mut check.history)),
            self.counters
                .tell(|check, _| std::mem::take(&mut check.history)),
        ];
        all.into_iter().flatten()
    }
}
