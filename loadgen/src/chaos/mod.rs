//! `--chaos`: processes of a local cluster are killed, paused and restarted while it is under load, one at a time and
//! on a schedule that a seed decides.
//!
//! The cluster has to be one of `mufakat dev`, which carries the orders out on its own children: nothing here looks
//! for processes, by number or by name. What was broken is mended before the recorded time ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mufakat::client::Client;
use mufakat::dev::control::{self, Order};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::cli::ChaosFlags;

mod schedule;

use schedule::{Blow, Kind, Shape};

pub use schedule::Part;

/// How often it is looked whether the run was stopped.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is going to be broken, and when.
#[derive(Clone, Debug)]
pub struct Chaos {
    data_dir: PathBuf,
    processes: Vec<String>,
    shape: Shape,
    seed: u64,
}

/// Something that was done to the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Since the recorded time began.
    pub at_s: f64,
    /// In words, such as `node-2 killed`.
    pub event: String,
}

impl Chaos {
    /// Asks the cluster of the data directory for its processes.
    ///
    /// # Errors
    /// No `mufakat dev` runs there, the client is connected to another cluster, or nothing is to be broken.
    pub async fn prepare(
        flags: &ChaosFlags,
        data_dir: &Path,
        client: &Client,
        seed: u64,
    ) -> Result<Self> {
        let state = control::give(data_dir, &Order::List)
            .await
            .context("chaos is for clusters that `mufakat dev` started")?;
        let broker = client.requester().nats().server_info();
        if !is_that_of_dev(&broker.host, broker.port, state.nats_port) {
            bail!(
                "the load is for the broker at {}:{}, but the `mufakat dev` in {} has its own at 127.0.0.1:{}",
                broker.host,
                broker.port,
                data_dir.display(),
                state.nats_port
            );
        }
        let chosen = |name: &String| flags.chaos_on.iter().any(|part| part.has(name));
        let mut processes: Vec<_> = state.running.into_iter().filter(chosen).collect();
        processes.sort();
        if processes.is_empty() {
            bail!("the cluster has nothing that chaos is to break");
        }
        Ok(Self {
            data_dir: data_dir.to_owned(),
            processes,
            shape: Shape {
                every: flags.chaos_every,
                outage: flags.chaos_outage,
            },
            seed,
        })
    }

    /// Breaks and mends from an instant on, for a time or until it is stopped or an order cannot be carried out; what
    /// it did, and whether it could go on to the end. Everything that it broke is mended then.
    pub async fn unleash(
        self,
        from: Instant,
        length: Duration,
        stop: Arc<AtomicBool>,
    ) -> (Vec<Mark>, Result<()>) {
        let mut marks = Vec::new();
        for blow in schedule::draw(&self.processes, &self.shape, length, self.seed) {
            if !sleep_until(from + blow.at, &stop).await {
                break;
            }
            let struck = self.strike(&blow, from, &stop, &mut marks).await;
            if struck.is_err() {
                return (marks, struck);
            }
        }
        (marks, Ok(()))
    }

    async fn strike(
        &self,
        blow: &Blow,
        from: Instant,
        stop: &AtomicBool,
        marks: &mut Vec<Mark>,
    ) -> Result<()> {
        let name = &blow.process;
        let (first, done, second, mended) = match blow.kind {
            Kind::Kill => (
                Order::Kill(name.clone()),
                "killed",
                Order::Start(name.clone()),
                "started",
            ),
            Kind::Restart => (
                Order::Stop(name.clone()),
                "stopped",
                Order::Start(name.clone()),
                "started",
            ),
            Kind::Pause => (
                Order::Pause(name.clone()),
                "paused",
                Order::Resume(name.clone()),
                "goes on",
            ),
        };
        self.give(&first).await?;
        mark(marks, from, format!("{name} {done}"));
        let until = Instant::now() + blow.outage;
        // Mended at once when the run is stopped.
        sleep_until(until, stop).await;
        self.give(&second).await?;
        mark(marks, from, format!("{name} {mended}"));
        Ok(())
    }

    async fn give(&self, order: &Order) -> Result<()> {
        let given = control::give(&self.data_dir, order).await;
        given.with_context(|| format!("chaos cannot go on: {order:?}"))?;
        Ok(())
    }
}

fn mark(marks: &mut Vec<Mark>, from: Instant, event: String) {
    let at_s = from.elapsed().as_secs_f64();
    tracing::info!(at_s, event, "chaos");
    marks.push(Mark { at_s, event });
}

/// Whether it came to this instant before the run was stopped.
async fn sleep_until(due: Instant, stop: &AtomicBool) -> bool {
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= due {
            return true;
        }
        tokio::time::sleep_until(due.min(now + LOOK_EVERY)).await;
    }
    false
}

/// Whether a broker that says so of itself is that of a `mufakat dev` on this machine, which binds it to loopback.
fn is_that_of_dev(host: &str, port: u16, nats_port: u16) -> bool {
    host == "127.0.0.1" && port == nats_port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_of_another_cluster_is_not_taken_for_that_of_dev() {
        assert!(is_that_of_dev("127.0.0.1", 5222, 5222));
        assert!(!is_that_of_dev("127.0.0.1", 4222, 5222));
        assert!(!is_that_of_dev("0.0.0.0", 5222, 5222));
    }
}
