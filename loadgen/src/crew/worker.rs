//! One who loads as it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_nats::{Client, Subscriber};
use bytes::Bytes;
use clap::Parser;
use futures_util::StreamExt;
use mufakat::broker::options::NatsOptions;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::coordinator::{Order, join_subject};
use super::wire::{self, Answer, IntervalOnWire, Job, Join, ShareOnWire, Told, What};
use super::{Place, Role};
use crate::cli::{Cli, WorkerFlags};
use crate::commands;
use crate::console;
use crate::interrupt::interrupts;
use crate::recorder::Interval;
use crate::run::Share;
use crate::workload::resource::RunName;

/// How often a worker without a place asks for one.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Longer than the slowest of the other workers may take to get connected.
const START_MAX: Duration = Duration::from_secs(90);

/// Asks for places and runs what it is given, one job after the other until Ctrl-C, or only one with `--once`.
///
/// # Errors
/// The broker cannot be reached, or the coordinator refuses. With `--once` also when the job fails.
pub async fn work(flags: &WorkerFlags, nats: &NatsOptions) -> Result<()> {
    let resolved = nats.resolve()?;
    let client = resolved.options.connect(resolved.servers).await?;
    // Keeps what came while a job ran, which the run hears of by itself: then there is no next job.
    let mut interrupts = interrupts()?;
    loop {
        console::note(format_args!(
            "Waiting for a coordinator of the group {}.",
            flags.group
        ));
        let job = tokio::select! {
            biased;
            _ = interrupts.recv() => return Ok(()),
            job = join(&client, &flags.group) => job?,
        };
        let (place, of, words) = (job.index + 1, job.of, job.words.join(" "));
        console::note(format_args!("Worker {place} of {of}: loadgen {words}"));
        let done = run(&client, job, nats).await;
        if let Err(error) = &done {
            console::note(format_args!("The job failed: {error:#}"));
        }
        if flags.once {
            return done;
        }
    }
}

async fn join(client: &Client, group: &str) -> Result<Job> {
    let join = Join {
        id: client.new_inbox(),
        version: wire::version(),
    };
    loop {
        let asked = Instant::now();
        let subject = join_subject(group);
        match client.request(subject, wire::write(&join)).await {
            Ok(answer) => match wire::read(&answer.payload)? {
                Answer::Job(job) => return Ok(job),
                Answer::Refused(why) => bail!("refused: {why}"),
            },
            // Nobody coordinates yet, or not any more.
            Err(error) => tracing::debug!(%error, "no coordinator"),
        }
        tokio::time::sleep_until(asked + ASK_EVERY).await;
    }
}

async fn run(client: &Client, job: Job, nats: &NatsOptions) -> Result<()> {
    let link = Link::new(client, &job).await?;
    let (told, worker) = (format!("{}.told", job.subject), job.index);
    let done = execute(link, &job, nats).await;
    if let Err(error) = &done {
        let what = What::Failed(format!("{error:#}"));
        let failed = wire::write(&Told { worker, what });
        if let Err(error) = wire::send(client, told, failed).await {
            console::note(format_args!("The coordinator is not told: {error:#}."));
        }
    }
    done
}

async fn execute(link: Link, job: &Job, nats: &NatsOptions) -> Result<()> {
    let words = ["loadgen"]
        .into_iter()
        .chain(job.words.iter().map(String::as_str));
    let mut cli = Cli::try_parse_from(words).context("the coordinator's command")?;
    cli.consistent().context("the coordinator's command")?;
    // How to reach the broker is each machine's own matter.
    cli.nats = nats.clone();
    let name = RunName::from(job.name.clone());
    let (report, _) = commands::execute(&cli, Role::Worker(link), name).await?;
    match report.failure {
        Some(failure) => bail!("{failure}"),
        None => Ok(()),
    }
}

/// What a worker hears of its coordinator, and tells it.
pub struct Link {
    client: Client,
    told: String,
    place: Place,
    starts: Subscriber,
    /// Set when the coordinator stops the job.
    stop: Arc<AtomicBool>,
    listens: JoinHandle<()>,
    runs: u32,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.listens.abort();
    }
}

impl Link {
    async fn new(client: &Client, job: &Job) -> Result<Self> {
        let subject = |order: Order| format!("{}.{}", job.subject, order.name());
        let starts = client.subscribe(subject(Order::Start)).await?;
        let mut stops = client.subscribe(subject(Order::Stop)).await?;
        client.flush().await?;
        let stop = Arc::new(AtomicBool::new(false));
        let told_to_stop = stop.clone();
        let listens = tokio::spawn(async move {
            if stops.next().await.is_some() {
                told_to_stop.store(true, Ordering::Relaxed);
            }
        });
        Ok(Self {
            client: client.clone(),
            told: format!("{}.told", job.subject),
            place: Place {
                index: job.index,
                of: job.of,
            },
            starts,
            stop,
            listens,
            runs: 0,
        })
    }

    pub fn place(&self) -> Place {
        self.place
    }

    /// What ends a run before its time.
    pub fn stop(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// Tells that this worker is connected for the next run, and waits until all are to begin.
    ///
    /// # Errors
    /// The job was stopped, or nothing was heard for long.
    pub async fn wait_for_start(&mut self) -> Result<Instant> {
        self.tell(What::Ready(self.runs)).await?;
        self.runs += 1;
        let until = Instant::now() + START_MAX;
        while !self.stop.load(Ordering::Relaxed) && Instant::now() < until {
            if let Ok(started) = tokio::time::timeout(ASK_EVERY, self.starts.next()).await {
                started.context("the broker is gone")?;
                return Ok(Instant::now());
            }
        }
        bail!("the coordinator stopped before the run began");
    }

    pub async fn tell_interval(&self, interval: &Interval) -> Result<()> {
        let told = self.message(What::Interval(IntervalOnWire::new(interval)));
        self.client.publish(self.told.clone(), told).await?;
        Ok(())
    }

    /// Tells the end of a run, and whether somebody stopped this worker.
    pub async fn tell_end(&self, share: &Share, interrupted: bool) -> Result<()> {
        let share = ShareOnWire::new(share);
        self.tell(What::Ended { share, interrupted }).await
    }

    /// Tells, and waits until the broker has taken it.
    async fn tell(&self, what: What) -> Result<()> {
        wire::send(&self.client, self.told.clone(), self.message(what)).await
    }

    fn message(&self, what: What) -> Bytes {
        let worker = self.place.index;
        wire::write(&Told { worker, what })
    }
}
