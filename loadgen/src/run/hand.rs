//! One load thread, as the main thread sees it and from inside.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use mufakat::client::{Client, ClientOptions, Target};
use rand::SeedableRng;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::{INTERVAL, Setup, first_tick};
use crate::cpu;
use crate::pacer::Pacer;
use crate::recorder::{Interval, Recorder};
use crate::schedule::{Schedule, Sends};
use crate::workload::{Random, Seat, Turn, Workload};

/// The thread as the main thread sees it.
pub struct Hand {
    thread: std::thread::JoinHandle<Result<Share>>,
    connected: oneshot::Receiver<Result<()>>,
    start: Option<oneshot::Sender<Instant>>,
}

/// What a thread hands back at its end, or several together.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// When the last recorded request ended, since the recorded time began.
    pub last_end: Option<Duration>,
    /// CPU time in the whole run; `None` where the system does not tell.
    pub cpu: Option<Duration>,
    /// What became of the arrivals of an open loop.
    pub sends: Option<Sends>,
}

impl Share {
    /// All of them together.
    pub fn sum(shares: &[Self]) -> Self {
        let none = Self {
            last_end: None,
            cpu: Some(Duration::ZERO),
            sends: None,
        };
        shares.iter().fold(none, |sum, part| Self {
            last_end: sum.last_end.max(part.last_end),
            cpu: sum.cpu.zip(part.cpu).map(|(sum, part)| sum + part),
            sends: match (sum.sends, part.sends) {
                (Some(sum), Some(part)) => Some(sum.plus(part)),
                (sum, part) => sum.or(part),
            },
        })
    }
}

impl Hand {
    pub fn hire<W: Workload>(
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
                let work = Work {
                    index,
                    setup,
                    workload,
                    intervals,
                    stop,
                };
                LocalSet::new().block_on(&runtime, work.work(tell_connected, started))
            })
            .context("cannot start a load thread")?;
        Ok(Self {
            thread,
            connected,
            start: Some(start),
        })
    }

    /// Waits until the thread has its connections.
    pub async fn connected(&mut self) -> Result<()> {
        (&mut self.connected)
            .await
            .context("a load thread ended before it was connected")?
    }

    pub fn start(&mut self, start: Instant) {
        if let Some(sender) = self.start.take() {
            // A thread that died meanwhile tells so when it is joined.
            let _ = sender.send(start);
        }
    }

    /// Waits for its end.
    pub fn join(self) -> Result<Share> {
        self.thread
            .join()
            .map_err(|_| anyhow!("a load thread panicked"))?
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
        let lines = match self.connect().await {
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
        let turn = self.turn(start);
        let plan = &self.setup.plan;
        let (end, ended) = oneshot::channel();
        let ticks = first_tick(plan, start);
        let teller =
            tokio::task::spawn_local(tell(turn.clone(), ticks, self.intervals.clone(), ended));

        let mut users = Vec::new();
        let (first, threads) = self.of_all();
        let numbers = (first..plan.users).step_by(threads as usize);
        for (place, number) in numbers.enumerate() {
            let seat = Seat {
                number,
                client: lines[place % lines.len()].clone(),
                random: Random::seed_from_u64(plan.seed.wrapping_add(u64::from(number))),
            };
            let user = self.workload.prepare(seat);
            let (workload, turn) = (self.workload.clone(), turn.clone());
            users.push(tokio::task::spawn_local(live(workload, number, user, turn)));
        }
        for user in users {
            user.await.context("a user's task panicked")?;
        }
        // The teller tells the rest and ends.
        let _ = end.send(());
        teller.await.context("the teller panicked")?;
        let cpu = cpu::of_this_thread()
            .zip(cpu_before)
            .map(|(after, before)| after.saturating_sub(before));
        let last_end = turn.recorder.borrow().last_end();
        let last_end = last_end.map(|end| end.duration_since(turn.pacer.records_from()));
        Ok(Share {
            last_end,
            cpu,
            sends: turn.pacer.sends().await,
        })
    }

    /// This thread's number among those of all workers, and how many those are.
    fn of_all(&self) -> (u32, u32) {
        let Setup { place, threads, .. } = &self.setup;
        (place.index * threads + self.index, place.of * threads)
    }

    /// What the thread's users share.
    fn turn(&self, start: Instant) -> Turn {
        let (plan, (index, threads)) = (&self.setup.plan, self.of_all());
        let requests = plan
            .requests
            .map(|requests| share_of(requests, index, threads));
        let schedule = plan.open_loop.as_ref().map(|open_loop| {
            // Users draw from seeds that follow the plan's; those of schedules are far from them.
            let seed = plan.seed.wrapping_sub(1 + u64::from(index));
            Schedule::new(open_loop, start, (index, threads), seed)
        });
        let stop = self.stop.clone();
        let pacer = Pacer::new(plan.clone(), start, requests, schedule, stop);
        let series = self.workload.operations().len() + self.workload.details().len();
        let recorder = Recorder::new(series, pacer.records_from(), self.workload.foreseen());
        Turn::new(pacer, recorder)
    }

    /// This thread's connections, each once for every node among which users are spread.
    async fn connect(&self) -> Result<Vec<Client>> {
        let Setup {
            connect: options,
            spread,
            threads,
            connections,
            ..
        } = &self.setup;
        let mut lines = Vec::new();
        for _ in 0..share_of(u64::from(*connections), self.index, *threads).max(1) {
            let line = Client::connect(options).await?;
            if spread.is_empty() {
                lines.push(line);
                continue;
            }
            for node in spread {
                let options = ClientOptions {
                    target: Target::Node(*node),
                    ..options.client.clone()
                };
                lines.push(line.apart_with(options).await?);
            }
        }
        Ok(lines)
    }
}

/// One user, from joining to the end of the run.
async fn live<W: Workload>(workload: Arc<W>, number: u32, mut user: W::User, turn: Turn) {
    let mut round = turn.pacer.join(number).await;
    while let Some(intended) = round {
        workload.execute(&mut user, intended, &turn).await;
        round = turn.pacer.next_round().await;
    }
}

/// Tells each second what was recorded in it, and at the end the rest.
async fn tell(
    turn: Turn,
    first: Instant,
    intervals: mpsc::Sender<Interval>,
    mut ended: oneshot::Receiver<()>,
) {
    let (from, until) = (turn.pacer.records_from(), turn.pacer.ends_at());
    let last = until
        .duration_since(from)
        .as_nanos()
        .div_ceil(INTERVAL.as_nanos());
    let second = |at: Instant| {
        let seconds = at.checked_duration_since(from)?.as_nanos() / INTERVAL.as_nanos();
        // What ends after the run was meant to start in it, and belongs to its last second.
        u32::try_from(seconds.min(last.saturating_sub(1))).ok()
    };
    let mut ticks = tokio::time::interval_at(first, INTERVAL);
    loop {
        let (told, is_over) = tokio::select! {
            tick = ticks.tick() => (tick.checked_sub(INTERVAL).and_then(second), false),
            _ = &mut ended => (second(Instant::now()), true),
        };
        let interval = turn.recorder.borrow_mut().take_interval(told);
        // Nobody listens any more only when the run was given up.
        let _ = intervals.send(interval).await;
        if is_over {
            return;
        }
    }
}

/// What thread `index` of `threads` gets of `total`; all shares together are the total.
fn share_of(total: u64, index: u32, threads: u32) -> u64 {
    let (index, threads) = (u64::from(index), u64::from(threads));
    total / threads + u64::from(index < total % threads)
}

#[cfg(test)]
mod tests;
