//! The one who keeps the time and adds up the figures.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use tokio::time::Instant;

use super::wire::{self, Answer, Job, Join, Told, What};
use crate::cli::{Cli, CoordinateFlags};
use crate::console;
use crate::interrupt::{interrupts, unless_interrupted};
use crate::progress::Progress;
use crate::run::{self, Conclusion, Recording, Setup, Share};
use crate::timeline::Timeline;
use crate::workload::Workload;
use crate::workload::resource::RunName;

/// Time for the workers to connect; they do what a run by itself does before it begins.
const CONNECT_MAX: Duration = Duration::from_secs(60);
/// A worker whose threads tell nothing for so long, though each tells every second, is lost.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// What workers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// To begin the run that they are ready for.
    Start,
    /// To end the run, and to wait for no other.
    Stop,
}

impl Order {
    /// The end of its subject.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }
}

/// Where workers of one coordinator hear of it.
#[derive(Clone)]
pub struct JobSubjects {
    nats: Client,
    begin: String,
}

impl JobSubjects {
    /// Gives an order to all workers; when it was sent.
    ///
    /// # Errors
    /// The broker does not take it.
    pub async fn order(&self, order: Order) -> Result<Instant> {
        let subject = format!("{}.{}", self.begin, order.name());
        wire::send(&self.nats, subject, Default::default()).await?;
        Ok(Instant::now())
    }
}

/// Workers that have a place, and a command to run with them.
pub struct Coordinator {
    job: JobSubjects,
    workers: u32,
    told: Subscriber,
    /// Runs of the command that have begun.
    runs: u32,
}

impl Coordinator {
    /// Waits until so many workers of the group have asked for a place, and gives each the command. `name` is what the
    /// resources of the run begin with.
    ///
    /// # Errors
    /// The broker cannot be reached, or a request for a place cannot be read.
    pub async fn gather(command: &Cli, flags: &CoordinateFlags, name: &RunName) -> Result<Self> {
        let (group, workers) = (&flags.group, flags.workers);
        let resolved = command.nats.resolve()?;
        let nats = resolved.options.connect(resolved.servers).await?;
        let job = name.as_str().to_owned();
        let told = nats.subscribe(format!("{job}.told")).await?;
        // Of several coordinators of a group one hears of each request.
        let mut joins = nats
            .queue_subscribe(join_subject(group), "coordinators".to_owned())
            .await?;
        nats.flush().await?;
        console::note(format_args!(
            "Waiting for {workers} workers of the group {group}."
        ));
        let mut places = BTreeMap::new();
        while (places.len() as u32) < workers {
            let request = joins.next().await.context("the broker is gone")?;
            let Some(reply) = request.reply else { continue };
            let join: Join = wire::read(&request.payload)?;
            let answer = if join.version == wire::version() {
                let next = places.len() as u32;
                // One that asks again has not got its answer.
                let index = *places.entry(join.id).or_insert(next);
                Answer::Job(Job {
                    subject: job.clone(),
                    index,
                    of: workers,
                    words: command.for_another_machine(&flags.command),
                    name: name.as_str().to_owned(),
                })
            } else {
                let (theirs, ours) = (join.version, wire::version());
                console::note(format_args!("Refused a worker of version {theirs}."));
                Answer::Refused(format!("the coordinator has version {ours}"))
            };
            nats.publish(reply, wire::write(&answer)).await?;
        }
        nats.flush().await?;
        let begin = job;
        Ok(Self {
            job: JobSubjects { nats, begin },
            workers,
            told,
            runs: 0,
        })
    }

    pub fn job(&self) -> &JobSubjects {
        &self.job
    }

    /// How many workers there are.
    pub fn workers(&self) -> u32 {
        self.workers
    }

    /// Lets all workers run this part of the command, and adds up what they record. As a run by itself it ends with
    /// its plan or at Ctrl-C, here or at a worker.
    ///
    /// # Errors
    /// A worker failed or is lost. The others are told to stop.
    pub async fn run<W: Workload>(
        &mut self,
        workload: &W,
        setup: &Setup,
        progress: &mut Progress,
    ) -> Result<Recording> {
        let recorded = self.record(workload, setup, progress).await;
        // Why the run failed is the error, whatever becomes of the order.
        if recorded.is_err()
            && let Err(error) = self.job.order(Order::Stop).await
        {
            console::note(format_args!("The workers are not told to stop: {error:#}."));
        }
        recorded
    }

    async fn record<W: Workload>(
        &mut self,
        workload: &W,
        setup: &Setup,
        progress: &mut Progress,
    ) -> Result<Recording> {
        let ready = tokio::time::timeout(CONNECT_MAX, unless_interrupted(self.all_ready()));
        ready.await.context("not all workers get connected")??;
        let mut interrupts = interrupts()?;
        let start = self.job.order(Order::Start).await?;
        let plan = &setup.plan;
        let recorded_from = SystemTime::now() + plan.warm_up;
        let series = workload.operations().len() + workload.details().len();
        let mut timeline = Timeline::new(series, setup.keeps_histograms);
        progress.begin(workload.name(), workload.operations(), plan, start);
        let mut draws = run::draws(plan, start);
        let mut heard = vec![start; self.workers as usize];
        let mut shares: Vec<Option<Share>> = heard.iter().map(|_| None).collect();
        let mut stopped = false;
        while shares.iter().any(Option::is_none) {
            tokio::select! {
                told = self.told.next() => {
                    let told: Told = wire::read(&told.context("the broker is gone")?.payload)?;
                    let worker = told.worker as usize;
                    ensure!(worker < heard.len(), "a worker that has no place");
                    heard[worker] = Instant::now();
                    match told.what {
                        What::Interval(interval) => {
                            let interval = interval.read(series)?;
                            progress.add(&interval);
                            timeline.add(&interval);
                        }
                        What::Ended { share, interrupted } => {
                            shares[worker] = Some(share.read());
                            // What the others went on to do would be another load.
                            if interrupted && !stopped {
                                console::note(format_args!("Worker {} was stopped.", worker + 1));
                                stopped = true;
                                self.job.order(Order::Stop).await?;
                            }
                        }
                        What::Failed(why) => bail!("worker {}: {why}", worker + 1),
                        What::Ready(_) => bail!("worker {} is in another run", worker + 1),
                    }
                }
                now = draws.tick() => {
                    progress.draw(now, run::INTERVAL);
                    let waited_for = shares.iter().zip(&heard).position(|(share, heard)| {
                        share.is_none() && now.duration_since(*heard) > SILENCE_MAX
                    });
                    if let Some(worker) = waited_for {
                        bail!("worker {} tells nothing any more", worker + 1);
                    }
                }
                _ = interrupts.recv() => {
                    stopped = true;
                    self.job.order(Order::Stop).await?;
                }
            }
        }
        progress.end();
        let conclusion = Conclusion {
            plan,
            recorded_from,
            shares: shares.into_iter().flatten().collect(),
            marks: Vec::new(),
            stopped,
        };
        Ok(conclusion.recording(workload, timeline))
    }

    /// Waits until all are connected for the next run.
    async fn all_ready(&mut self) -> Result<()> {
        let mut ready = vec![false; self.workers as usize];
        while ready.contains(&false) {
            let told = self.told.next().await.context("the broker is gone")?;
            let told: Told = wire::read(&told.payload)?;
            match told.what {
                What::Ready(run) if run == self.runs => {
                    let place = ready.get_mut(told.worker as usize);
                    *place.context("a worker that has no place")? = true;
                }
                What::Failed(why) => bail!("worker {}: {why}", told.worker + 1),
                // What is left of an earlier run.
                What::Ready(_) | What::Interval(_) | What::Ended { .. } => {}
            }
        }
        self.runs += 1;
        Ok(())
    }
}

/// Where workers of a group ask for a place.
pub fn join_subject(group: &str) -> String {
    format!("loadgen.{group}.join")
}
