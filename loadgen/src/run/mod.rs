//! Runs one workload: a thread with a current-thread runtime for each share of users, connections and requests.
//!
//! Each thread (`hand`) connects, waits for the common start, runs its users as local tasks and tells each second
//! what it recorded. Nothing is shared between threads in the loop but the flag that stops them. One thread is the
//! default: on few cores it does more requests than two.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use mufakat::client::ConnectOptions;
use mufakat::ids::NodeId;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval};

use crate::chaos::{Chaos, Mark};
use crate::crew::{Link, Place};
use crate::interrupt::{interrupts, unless_interrupted};
use crate::pacer::Plan;
use crate::progress::Progress;
use crate::recorder::Series;
use crate::schedule::Sends;
use crate::timeline::{Second, Timeline};
use crate::workload::Workload;

mod hand;

use hand::Hand;

pub use hand::Share;

/// How often a thread tells what it recorded.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// How long after the end of an interval it is shown, so that every thread has told.
const DRAW_AFTER: Duration = Duration::from_millis(100);
/// Intervals on their way from the threads; when full, a thread's next one waits and grows.
const INTERVALS_WAITING_MAX: usize = 64;

/// How a workload is run.
#[derive(Clone)]
pub struct Setup {
    /// How to reach the broker and the cluster.
    pub connect: ConnectOptions,
    /// The nodes among which users are spread, each asking always the same; empty: as `connect` says.
    pub spread: Vec<NodeId>,
    pub plan: Plan,
    /// Threads, at least 1.
    pub threads: u32,
    /// Where they are among those of all workers.
    pub place: Place,
    /// Connections over all threads, at least one each.
    pub connections: u32,
    /// What is broken meanwhile.
    pub chaos: Option<Chaos>,
    /// Whether the histogram of each second is kept.
    pub keeps_histograms: bool,
}

/// What a run recorded, over all threads.
pub struct Recording {
    /// The workload's name.
    pub workload: &'static str,
    /// When the recorded time began.
    pub recorded_from: SystemTime,
    /// The operations by name, in the workload's order.
    pub operations: Vec<(&'static str, Series)>,
    /// What was told apart within operations.
    pub details: Vec<(&'static str, Series)>,
    /// The same second by second: operations, then details.
    pub seconds: Vec<Second>,
    /// What became of the arrivals of an open loop.
    pub sends: Option<Sends>,
    /// The recorded time.
    pub elapsed: Duration,
    /// CPU time of the generator's own threads in the whole run; `None` where the system does not tell.
    pub cpu: Option<Duration>,
    /// What was done to the cluster meanwhile.
    pub marks: Vec<Mark>,
    /// Whether the user stopped the run before its end.
    pub stopped: bool,
    /// Why the run was not all that it was to be, if so; what it recorded counts.
    pub failure: Option<anyhow::Error>,
}

impl Recording {
    /// The names of operations and details, in the order of each second's moments.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let all = self.operations.iter().chain(&self.details);
        all.map(|(name, _)| *name)
    }
}

/// Runs the workload to its end or to Ctrl-C, showing progress. A round that was begun is finished: a run lasts
/// at most one round and one think time longer than planned. A worker begins when its coordinator says so, ends also
/// when that stops the job, and tells it what it records.
///
/// # Errors
/// The target cannot be reached, a thread could not start, or Ctrl-C came before the start; of a worker also: the
/// coordinator cannot be reached.
pub async fn run<W: Workload>(
    workload: Arc<W>,
    setup: &Setup,
    progress: &mut Progress,
    mut coordinator: Option<&mut Link>,
) -> Result<Recording> {
    let stop = match &coordinator {
        Some(link) => link.stop(),
        None => Arc::new(AtomicBool::new(false)),
    };
    let (intervals, mut told) = mpsc::channel(INTERVALS_WAITING_MAX);
    let mut crew = Vec::new();
    for index in 0..setup.threads {
        let (workload, intervals) = (workload.clone(), intervals.clone());
        crew.push(Hand::hire(index, setup, workload, intervals, stop.clone())?);
    }
    drop(intervals);

    for hand in &mut crew {
        unless_interrupted(hand.connected()).await?;
    }
    let mut interrupts = interrupts()?;
    let start = match &mut coordinator {
        Some(link) => unless_interrupted(link.wait_for_start()).await?,
        None => Instant::now(),
    };
    let recorded_from = SystemTime::now() + setup.plan.warm_up;
    for hand in &mut crew {
        hand.start(start);
    }
    let chaos = setup.chaos.clone().map(|chaos| {
        let (from, length) = (start + setup.plan.warm_up, setup.plan.duration);
        tokio::spawn(chaos.unleash(from, length, stop.clone()))
    });
    let series = workload.operations().len() + workload.details().len();
    let mut timeline = Timeline::new(series, setup.keeps_histograms);
    progress.begin(workload.name(), workload.operations(), &setup.plan, start);
    let mut draws = draws(&setup.plan, start);
    let mut interrupted = false;
    loop {
        tokio::select! {
            interval = told.recv() => match interval {
                Some(interval) => {
                    progress.add(&interval);
                    timeline.add(&interval);
                    if let Some(link) = &coordinator {
                        link.tell_interval(&interval).await?;
                    }
                }
                None => break,
            },
            now = draws.tick() => progress.draw(now, INTERVAL),
            _ = interrupts.recv() => {
                interrupted = true;
                stop.store(true, Ordering::Relaxed);
            }
        }
    }
    progress.end();
    // A job that was stopped goes on with no other run.
    let stopped = stop.load(Ordering::Relaxed);
    let (marks, done) = match chaos {
        Some(chaos) => {
            stop.store(true, Ordering::Relaxed);
            chaos.await.context("the chaos panicked")?
        }
        None => (Vec::new(), Ok(())),
    };
    let shares: Result<Vec<_>> = crew.into_iter().map(Hand::join).collect();
    let shares = shares?;
    if let Some(link) = &coordinator {
        link.tell_end(&Share::sum(&shares), interrupted).await?;
    }
    let conclusion = Conclusion {
        plan: &setup.plan,
        recorded_from,
        shares,
        marks,
        stopped,
    };
    let mut recording = conclusion.recording(&*workload, timeline);
    recording.failure = done.err();
    Ok(recording)
}

/// How a run ended.
pub struct Conclusion<'a> {
    pub plan: &'a Plan,
    pub recorded_from: SystemTime,
    /// Those of all threads.
    pub shares: Vec<Share>,
    pub marks: Vec<Mark>,
    pub stopped: bool,
}

impl Conclusion<'_> {
    /// What the run recorded.
    pub fn recording(self, workload: &impl Workload, timeline: Timeline) -> Recording {
        let Self {
            plan,
            recorded_from,
            shares,
            marks,
            stopped,
        } = self;
        let Share {
            last_end,
            cpu,
            sends,
        } = Share::sum(&shares);
        // A run that its duration ended is as long as its plan says; one that was cut short, as long as it recorded.
        let elapsed = if stopped || plan.requests.is_some() {
            last_end.unwrap_or_default().min(plan.duration)
        } else {
            plan.duration
        };
        let (totals, seconds) = timeline.finish(elapsed);
        let mut totals = totals.into_iter();
        let mut named = |names: &[&'static str]| -> Vec<_> {
            names.iter().copied().zip(totals.by_ref()).collect()
        };
        Recording {
            workload: workload.name(),
            recorded_from,
            operations: named(workload.operations()),
            details: named(workload.details()),
            seconds,
            sends,
            elapsed,
            cpu,
            marks,
            stopped,
            failure: None,
        }
    }
}

/// When what came in is shown.
pub fn draws(plan: &Plan, start: Instant) -> Interval {
    tokio::time::interval_at(first_tick(plan, start) + DRAW_AFTER, INTERVAL)
}

/// When the first interval ends: seconds are counted from the begin of the recorded time, which is a whole number of
/// them later.
fn first_tick(plan: &Plan, start: Instant) -> Instant {
    let part = Duration::from_nanos(u64::from(plan.warm_up.subsec_nanos()));
    if part.is_zero() {
        start + INTERVAL
    } else {
        start + part
    }
}
