//! Runs one workload: a thread with a current-thread runtime for each share of users, connections and requests.
//!
//! Each thread connects, waits for the common start, runs its users as local tasks and hands its recorder back.
//! Nothing is shared between threads in the loop but the flag that stops them. One thread is the default: on
//! few cores it does more requests than two.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use mufakat::client::{Client, ConnectOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::cpu;
use crate::pacer::{Pacer, Plan};
use crate::progress::Progress;
use crate::recorder::{Interval, Recorder, Series};
use crate::workload::{Seat, Turn, Workload};

/// How often a thread tells what it recorded.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long after the end of an interval it is shown, so that every thread has told.
const DRAW_AFTER: Duration = Duration::from_millis(100);
/// Intervals waiting for the display; when full, the interval is not shown (its counts are in the total).
const INTERVALS_WAITING_MAX: usize = 64;

/// How a workload is run.
#[derive(Clone)]
pub struct Setup {
    /// How to reach the broker and the cluster.
    pub connect: ConnectOptions,
    pub plan: Plan,
    /// Threads, at least 1.
    pub threads: u32,
    /// Connections over all threads, at least one each.
    pub connections: u32,
}

/// What a run recorded, over all threads.
pub struct Recording {
    /// The workload's name.
    pub workload: &'static str,
    /// The operations by name, in the workload's order.
    pub series: Vec<(&'static str, Series)>,
    /// The recorded time.
    pub elapsed: Duration,
    /// CPU time of the generator's own threads in the whole run; `None` where the system does not tell.
    pub cpu: Option<Duration>,
    /// Whether the user stopped the run before its end.
    pub stopped: bool,
}

/// Runs the workload to its end or to Ctrl-C, showing progress. A round that was begun is finished: a run lasts
/// at most one round longer than planned.
///
/// # Errors
/// The target cannot be reached, or a thread could not start.
pub async fn run<W: Workload>(
    workload: W,
    setup: &Setup,
    progress: &mut Progress,
) -> Result<Recording> {
    let workload = Arc::new(workload);
    let stop = Arc::new(AtomicBool::new(false));
    let (intervals, mut shown) = mpsc::channel(INTERVALS_WAITING_MAX);
    let mut crew = Vec::new();
    for index in 0..setup.threads {
        crew.push(Hand::hire(
            index,
            setup,
            workload.clone(),
            intervals.clone(),
            stop.clone(),
        )?);
    }
    drop(intervals);

    for hand in &mut crew {
        hand.connected().await?;
    }
    let start = Instant::now();
    for hand in &mut crew {
        hand.start(start);
    }
    progress.begin(workload.name(), workload.operations(), &setup.plan, start);
    let mut draws = tokio::time::interval_at(start + INTERVAL + DRAW_AFTER, INTERVAL);
    loop {
        tokio::select! {
            interval = shown.recv() => match interval {
                Some(interval) => progress.add(&interval),
                None => break,
            },
            now = draws.tick() => progress.draw(now, INTERVAL),
            _ = tokio::signal::ctrl_c() => stop.store(true, Ordering::Relaxed),
        }
    }
    progress.end();
    merge(
        crew,
        &*workload,
        &setup.plan,
        start,
        stop.load(Ordering::Relaxed),
    )
}

fn merge<W: Workload>(
    crew: Vec<Hand>,
    workload: &W,
    plan: &Plan,
    start: Instant,
    stopped: bool,
) -> Result<Recording> {
    let mut series: Vec<_> = workload
        .operations()
        .iter()
        .map(|name| (*name, Series::new()))
        .collect();
    let records_from = start + plan.warm_up;
    let ends_at = records_from + plan.duration;
    let mut ended = records_from;
    let mut cpu = Some(Duration::ZERO);
    for hand in crew {
        let share = hand
            .thread
            .join()
            .map_err(|_| anyhow!("a load thread panicked"))??;
        for ((_, total), part) in series.iter_mut().zip(&share.series) {
            total.merge(part);
        }
        ended = ended.max(share.last_end.unwrap_or(records_from));
        cpu = cpu.zip(share.cpu).map(|(sum, part)| sum + part);
    }
    // A run that its duration ended is as long as its plan says; one that was cut short, as long as it recorded.
    let ended = if stopped || plan.requests.is_some() {
        ended.min(ends_at)
    } else {
        ends_at
    };
    Ok(Recording {
        workload: workload.name(),
        series,
        elapsed: ended.duration_since(records_from),
        cpu,
        stopped,
    })
}

/// One load thread as the main thread sees it.
struct Hand {
    thread: std::thread::JoinHandle<Result<Share>>,
    connected: oneshot::Receiver<Result<()>>,
    start: Option<oneshot::Sender<Instant>>,
}

/// What a thread hands back.
struct Share {
    series: Vec<Series>,
    last_end: Option<Instant>,
    cpu: Option<Duration>,
}

impl Hand {
    fn hire<W: Workload>(
        index: u32,
        setup: &Setup,
        workload: Arc<W>,
        intervals: mpsc::Sender<Interval>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        let (tell_connected, connected) = oneshot::channel();
        let (start, started) = oneshot::channel();
        let setup = setup.clone();
        let thread = std::thread::Builder::new()
            .name(format!("load-{index}"))
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                let hands = Work {
                    index,
                    setup,
                    workload,
                    intervals,
                    stop,
                };
                LocalSet::new().block_on(&runtime, hands.work(tell_connected, started))
            })
            .context("cannot start a load thread")?;
        Ok(Self {
            thread,
            connected,
            start: Some(start),
        })
    }

    /// Waits until the thread has its connections.
    async fn connected(&mut self) -> Result<()> {
        (&mut self.connected)
            .await
            .context("a load thread ended before it was connected")?
    }

    fn start(&mut self, start: Instant) {
        if let Some(sender) = self.start.take() {
            // A thread that died meanwhile tells so when it is joined.
            let _ = sender.send(start);
        }
    }
}

/// One load thread from inside.
struct Work<W> {
    index: u32,
    setup: Setup,
    workload: Arc<W>,
    intervals: mpsc::Sender<Interval>,
    stop: Arc<AtomicBool>,
}

impl<W: Workload> Work<W> {
    async fn work(
        self,
        connected: oneshot::Sender<Result<()>>,
        start: oneshot::Receiver<Instant>,
    ) -> Result<Share> {
        let Setup {
            connect: options,
            plan,
            threads,
            connections,
        } = &self.setup;
        let lines = match connect(
            options,
            share_of(u64::from(*connections), self.index, *threads).max(1),
        )
        .await
        {
            Ok(lines) => lines,
            Err(error) => {
                let _ = connected.send(Err(error));
                bail!("not connected");
            }
        };
        let _ = connected.send(Ok(()));
        let start = start
            .await
            .context("the run was given up before it began")?;

        let cpu_before = cpu::of_this_thread();
        let requests = plan
            .requests
            .map(|requests| share_of(requests, self.index, *threads));
        let pacer = Rc::new(Pacer::new(plan.clone(), start, requests, self.stop.clone()));
        let recorder = Recorder::new(self.workload.operations().len(), pacer.records_from());
        let recorder = Rc::new(RefCell::new(recorder));
        let teller = tokio::task::spawn_local(tell(recorder.clone(), self.intervals.clone()));

        let mut users = Vec::new();
        for (place, number) in (self.index..plan.users)
            .step_by(*threads as usize)
            .enumerate()
        {
            let seat = Seat {
                number,
                client: lines[place % lines.len()].clone(),
            };
            let turn = Turn {
                pacer: pacer.clone(),
                recorder: recorder.clone(),
            };
            users.push(tokio::task::spawn_local(live(
                self.workload.clone(),
                seat,
                turn,
            )));
        }
        for user in users {
            user.await.context("a user's task panicked")?;
        }
        teller.abort();
        // The task was aborted and drops its clone of the recorder when it is awaited.
        let _ = teller.await;
        let cpu = cpu::of_this_thread()
            .zip(cpu_before)
            .map(|(after, before)| after.saturating_sub(before));
        let recorder = Rc::into_inner(recorder)
            .context("a user outlived the run")?
            .into_inner();
        Ok(Share {
            last_end: recorder.last_end(),
            series: recorder.finish(),
            cpu,
        })
    }
}

async fn connect(options: &ConnectOptions, connections: u64) -> Result<Vec<Client>> {
    let mut lines = Vec::new();
    for _ in 0..connections {
        lines.push(Client::connect(options).await?);
    }
    Ok(lines)
}

/// One user, from joining to the end of the run.
async fn live<W: Workload>(workload: Arc<W>, seat: Seat, turn: Turn) {
    let Some(mut intended) = turn.pacer.join(seat.number).await else {
        return;
    };
    let mut user = workload.prepare(seat);
    loop {
        workload.execute(&mut user, intended, &turn).await;
        if !turn.pacer.is_open() {
            return;
        }
        intended = Instant::now();
    }
}

/// Tells the display what was recorded, until it is aborted.
async fn tell(recorder: Rc<RefCell<Recorder>>, intervals: mpsc::Sender<Interval>) {
    let mut ticks = tokio::time::interval_at(Instant::now() + INTERVAL, INTERVAL);
    loop {
        ticks.tick().await;
        let interval = recorder.borrow_mut().take_interval();
        // When the display lags behind or is gone, an interval is not shown; the total has it.
        let _ = intervals.try_send(interval);
    }
}

/// What thread `index` of `threads` gets of `total`; all shares together are the total.
fn share_of(total: u64, index: u32, threads: u32) -> u64 {
    let (index, threads) = (u64::from(index), u64::from(threads));
    total / threads + u64::from(index < total % threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_total() {
        for total in 0..20 {
            for threads in 1..6 {
                assert_eq!(
                    (0..threads)
                        .map(|index| share_of(total, index, threads))
                        .sum::<u64>(),
                    total
                );
            }
        }
    }
}
