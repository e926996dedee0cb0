//! The commands: which workloads each one runs, and what it reports.

use anyhow::{Context, Result};
use async_nats::Subject;
use bytes::Bytes;
use mufakat::client::Client;

use crate::batching::Batches;
use crate::cli::{Cli, Command, EncodingName, QueueFlags, ReferenceFlags, ResponderFlags};
use crate::progress::Progress;
use crate::report::environment::Environment;
use crate::report::{LocksSummary, QueueSummary, Report, Run, Settings, milliseconds};
use crate::responder::Responder;
use crate::run::{Setup, run};
use crate::workload::echo::Echo;
use crate::workload::locks::Locks;
use crate::workload::queue::{Cycles, Pushes, Topics};
use crate::workload::reference::Reference;
use crate::workload::resource::RunName;

/// Runs the command and returns its figures.
///
/// # Errors
/// The broker cannot be reached, or the run could not be done. Requests that fail are in the report.
pub async fn execute(cli: &Cli) -> Result<Report> {
    let setup = cli.setup();
    let client = Client::connect(&setup.connect).await?;
    let mut environment = Environment::read();
    environment.broker_version = Some(client.requester().nats().server_info().version);
    if !matches!(cli.command, Command::Echo(_)) {
        let status = client
            .status()
            .await
            .context("no node of the cluster answers")?;
        environment.mufakat_version = Some(status.version);
    }
    let mut call = Call {
        cli,
        setup,
        client,
        name: RunName::new(),
        progress: Progress::new(),
        report: Report::begin(environment, settings(cli)),
    };
    match &cli.command {
        Command::Reference(flags) => call.reference(flags).await?,
        Command::Locks(flags) => call.locks(&flags.echo).await?,
        Command::Queue(flags) => call.queue(flags).await?,
        Command::Echo(flags) => {
            call.echo(&flags.echo).await?;
        }
    }
    Ok(call.report)
}

/// One call of the program.
struct Call<'a> {
    cli: &'a Cli,
    setup: Setup,
    client: Client,
    name: RunName,
    progress: Progress,
    report: Report,
}

impl Call<'_> {
    async fn reference(&mut self, flags: &ReferenceFlags) -> Result<()> {
        let timeout = self.cli.target.timeout;
        let workload = Reference {
            run: self.name.clone(),
            hold: flags.hold,
            think: flags.think,
            timeout,
        };
        let recording = run(workload, &self.setup, &mut self.progress).await?;
        self.report.runs.push(Run::new(&recording));
        Ok(())
    }

    /// The echo first, the locks after it, on connections of their own each.
    async fn locks(&mut self, flags: &ResponderFlags) -> Result<()> {
        let stopped = self.echo(flags).await?;
        if stopped {
            return Ok(());
        }
        let before = Batches::read(&self.client).await;
        let workload = Locks {
            run: self.name.clone(),
            timeout: self.cli.target.timeout,
        };
        let recording = run(workload, &self.setup, &mut self.progress).await?;
        let after = Batches::read(&self.client).await;
        let commands_per_entry = match (before, after) {
            (Ok(before), Ok(after)) => after.commands_per_entry_since(&before),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        let locks = Run::new(&recording);
        self.report.locks = Some(LocksSummary::new(
            &locks,
            &self.report.runs[0],
            commands_per_entry,
        ));
        self.report.runs.push(locks);
        Ok(())
    }

    /// The echo, pushes alone, then whole cycles, on connections of their own each.
    async fn queue(&mut self, flags: &QueueFlags) -> Result<()> {
        if self.echo(&flags.echo).await? {
            return Ok(());
        }
        let topics = Topics {
            run: self.name.clone(),
            count: flags.topics,
            timeout: self.cli.target.timeout,
        };
        let pushes = run(Pushes(topics.clone()), &self.setup, &mut self.progress).await?;
        let stopped = pushes.stopped;
        self.report.runs.push(Run::new(&pushes));
        if stopped {
            return Ok(());
        }
        let cycles = run(Cycles(topics), &self.setup, &mut self.progress).await?;
        self.report.runs.push(Run::new(&cycles));
        let [echo, pushes, cycles] = &self.report.runs[..] else {
            unreachable!("these three were run");
        };
        self.report.queue = Some(QueueSummary::new(pushes, cycles, echo));
        Ok(())
    }

    /// Returns whether the run was stopped early.
    async fn echo(&mut self, flags: &ResponderFlags) -> Result<bool> {
        let subject = self.name.with("echo");
        let responder = Responder::start(flags.responder, &self.cli.nats, &subject).await?;
        let workload = Echo {
            subject: Subject::from(subject),
            payload: Bytes::from(vec![b'x'; flags.payload as usize]),
            timeout: self.cli.target.timeout,
        };
        let recording = run(workload, &self.setup, &mut self.progress).await?;
        let responder_cpu = responder.stop()?;
        let mut figures = Run::new(&recording);
        figures.responder_cpu_s = responder_cpu.map(|cpu| cpu.as_secs_f64());
        self.report.runs.push(figures);
        Ok(recording.stopped)
    }
}

fn settings(cli: &Cli) -> Settings {
    let plan = cli.command.plan();
    let (command, reference, echo) = match &cli.command {
        Command::Reference(flags) => ("reference", Some(flags), None),
        Command::Locks(flags) => ("locks", None, Some(&flags.echo)),
        Command::Queue(flags) => ("queue", None, Some(&flags.echo)),
        Command::Echo(flags) => ("echo", None, Some(&flags.echo)),
    };
    let target = &cli.target;
    Settings {
        command,
        users: plan.users,
        spawn_per_second: plan.spawn_rate,
        warm_up_ms: milliseconds(plan.warm_up),
        duration_ms: milliseconds(plan.duration),
        requests: plan.requests,
        hold_ms: reference.map(|flags| milliseconds(flags.hold)),
        think_ms: reference.map(|flags| milliseconds(flags.think)),
        echo_payload_bytes: echo.map(|flags| flags.payload),
        echo_responder: echo.map(|flags| flags.responder.name()),
        prefix: target.prefix.to_string(),
        encoding: match target.encoding {
            EncodingName::Json => "json",
            EncodingName::Msgpack => "msgpack",
        },
        target: target.target.to_string(),
        timeout_ms: milliseconds(target.timeout),
        connections: cli.setup().connections,
        threads: target.threads,
    }
}
