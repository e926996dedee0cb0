//! Users that do all that a program does with a cluster: each round is one of another workload, drawn by weight.

use std::str::FromStr;

use anyhow::{Context, Result, bail};
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use tokio::time::Instant;

use super::cache::{self, Cache};
use super::locks::{self, Locks};
use super::queue::{self, Cycles};
use super::status::Status;
use super::{Random, Seat, Turn, Workload};

/// All operations, in the order of the table's rows, and after them what is told apart of the cache's.
const OPERATIONS: &[&str] = &[
    "lock.acquire",
    "lock.release",
    "queue.push",
    "queue.pop",
    "queue.ack",
    "cache.get",
    "cache.set",
    "cache.increment",
    "status",
];
const DETAILS: &[&str] = &["cache.get local", "cache.get home", "cache.get miss"];

/// Where the operations of each workload are among these.
const LOCKS: &[usize] = &[0, 1];
const QUEUE: &[usize] = &[2, 3, 4];
const CACHE: &[usize] = &[5, 6, 7, 9, 10, 11];
const STATUS: &[usize] = &[8];

/// A weight above this is a mistake, and sums would overflow.
const WEIGHT_MAX: u32 = 1_000_000;

/// How often a round is one of each workload, in proportion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Weights {
    pub locks: u32,
    pub queue: u32,
    pub cache: u32,
    pub status: u32,
}

impl FromStr for Weights {
    type Err = anyhow::Error;

    /// `lock=3,queue=1,cache=6`: what is not named has no rounds.
    fn from_str(text: &str) -> Result<Self> {
        let mut weights = Self::default();
        for part in text.split(',') {
            let (name, weight) = part
                .split_once('=')
                .context("not NAME=WEIGHT, several with commas between them")?;
            let place = match name.trim() {
                "lock" | "locks" => &mut weights.locks,
                "queue" => &mut weights.queue,
                "cache" => &mut weights.cache,
                "status" => &mut weights.status,
                other => bail!("`{other}` is not one of lock, queue, cache, status"),
            };
            let weight = weight.trim().parse().ok();
            *place = weight
                .filter(|weight| *weight <= WEIGHT_MAX)
                .with_context(|| format!("`{part}`: not a weight from 0 to {WEIGHT_MAX}"))?;
        }
        if weights.sum() == 0 {
            bail!("no weight is above 0");
        }
        Ok(weights)
    }
}

impl Weights {
    fn sum(self) -> u32 {
        self.locks + self.queue + self.cache + self.status
    }

    fn draw(self, random: &mut Random) -> Part {
        let mut drawn = random.random_range(0..self.sum());
        for (weight, part) in [
            (self.locks, Part::Locks),
            (self.queue, Part::Queue),
            (self.cache, Part::Cache),
        ] {
            if drawn < weight {
                return part;
            }
            drawn -= weight;
        }
        Part::Status
    }
}

/// What a round is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Locks,
    Queue,
    Cache,
    Status,
}

/// Users that do a bit of everything.
pub struct Mix {
    pub weights: Weights,
    pub locks: Locks,
    pub queue: Cycles,
    pub cache: Cache,
    pub status: Status,
}

/// One user, who is one of each workload.
pub struct User {
    random: Random,
    locks: locks::User,
    queue: queue::User,
    cache: cache::User,
    status: <Status as Workload>::User,
}

impl Workload for Mix {
    type User = User;

    fn name(&self) -> &'static str {
        "mix"
    }

    fn operations(&self) -> &'static [&'static str] {
        OPERATIONS
    }

    fn details(&self) -> &'static [&'static str] {
        DETAILS
    }

    /// What the locks foresee; no other part is refused with such a code.
    fn foreseen(&self) -> &'static [&'static str] {
        self.locks.foreseen()
    }

    fn prepare(&self, mut seat: Seat) -> User {
        let mut part = || Seat {
            number: seat.number,
            client: seat.client.clone(),
            random: Random::from_rng(&mut seat.random),
        };
        User {
            locks: self.locks.prepare(part()),
            queue: self.queue.prepare(part()),
            cache: self.cache.prepare(part()),
            status: self.status.prepare(part()),
            random: seat.random,
        }
    }

    async fn execute(&self, user: &mut User, intended: Instant, turn: &Turn) {
        match self.weights.draw(&mut user.random) {
            Part::Locks => {
                let turn = turn.within(LOCKS);
                self.locks.execute(&mut user.locks, intended, &turn).await;
            }
            Part::Queue => {
                let turn = turn.within(QUEUE);
                self.queue.execute(&mut user.queue, intended, &turn).await;
            }
            Part::Cache => {
                let turn = turn.within(CACHE);
                self.cache.execute(&mut user.cache, intended, &turn).await;
            }
            Part::Status => {
                let turn = turn.within(STATUS);
                self.status.execute(&mut user.status, intended, &turn).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
