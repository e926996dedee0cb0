//! The echo as one would write it by hand, with nothing of this generator in it: what shows whether the generator is
//! the bottleneck.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use mufakat::broker::options::NatsOptions;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cpu;

/// What a loop by hand came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ByHand {
    pub requests: u64,
    pub elapsed: Duration,
    /// CPU time of its thread, where the system tells.
    pub cpu: Option<Duration>,
}

impl ByHand {
    /// Two parts of one measurement.
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            elapsed: self.elapsed + other.elapsed,
            cpu: self.cpu.zip(other.cpu).map(|(one, two)| one + two),
        }
    }

    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }
}

/// Sends requests to a subject where a responder listens, from so many tasks on one thread, each with one under way;
/// counts answers and nothing else.
///
/// # Errors
/// The broker cannot be reached, or a request fails.
pub async fn measure(
    nats: &NatsOptions,
    subject: &str,
    payload: &Bytes,
    clients: u32,
    duration: Duration,
) -> Result<ByHand> {
    let (nats, subject, payload) = (nats.clone(), subject.to_owned(), payload.clone());
    let work = move || -> Result<ByHand> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(echo(&nats, subject, payload, clients, duration))
    };
    let thread = std::thread::Builder::new()
        .name("by-hand".to_owned())
        .spawn(work)
        .context("cannot start a thread")?;
    tokio::task::spawn_blocking(move || thread.join())
        .await?
        .map_err(|_| anyhow!("the loop by hand panicked"))?
}

async fn echo(
    nats: &NatsOptions,
    subject: String,
    payload: Bytes,
    clients: u32,
    duration: Duration,
) -> Result<ByHand> {
    let resolved = nats.resolve()?;
    let client = resolved.options.connect(resolved.servers).await?;
    let subject = async_nats::Subject::from(subject);
    let cpu_before = cpu::of_this_thread();
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (client, subject, payload) = (client.clone(), subject.clone(), payload.clone());
        tasks.spawn(async move {
            let mut requests = 0;
            while start.elapsed() < duration {
                client.request(subject.clone(), payload.clone()).await?;
                requests += 1;
            }
            Ok::<u64, async_nats::RequestError>(requests)
        });
    }
    let mut requests = 0;
    while let Some(ended) = tasks.join_next().await {
        requests += ended?.context("the loop by hand got no answer")?;
    }
    let cpu_after = cpu::of_this_thread();
    Ok(ByHand {
        requests,
        elapsed: start.elapsed(),
        cpu: cpu_after
            .zip(cpu_before)
            .map(|(after, before)| after - before),
    })
}
