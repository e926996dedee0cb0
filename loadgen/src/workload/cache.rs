//! Users that read and write the keys they share, as programs use a cache: a read that finds nothing is followed by
//! a write of the key.

use std::ops::RangeInclusive;
use std::time::Duration;

use mufakat::client::Client;
use mufakat::protocol::cache::{Found, Get, Set, Source, Status};
use mufakat::protocol::value::Value;
use rand::RngExt;
use rand_distr::{Distribution, Zipf};
use tokio::time::Instant;

use super::resource::RunName;
use super::{Random, Seat, Turn, Workload};
use crate::recorder::Operation;

const GET: Operation = Operation(0);
const SET: Operation = Operation(1);
const LOCAL: Operation = Operation(2);
const HOME: Operation = Operation(3);
const MISS: Operation = Operation(4);

/// What a run writes goes away by itself after this; a key of a longer run is written again.
const TTL_MS: u64 = 10 * 60_000;

/// Users that read and write keys.
pub struct Cache {
    pub run: RunName,
    pub keys: Keys,
    /// How many of the rounds are reads, 0 to 1.
    pub reads: f64,
    /// Bytes of a value, drawn evenly.
    pub value_bytes: RangeInclusive<usize>,
    /// How long a request may take.
    pub timeout: Duration,
}

/// Which key a round is about.
pub enum Keys {
    /// Each of so many as often as any other.
    Uniform(u32),
    /// A few of them most of the time.
    Zipf(Zipf<f64>),
}

impl Keys {
    /// `number` keys; with an exponent the n-th of them is used `1 / n^exponent` times as often as the first.
    pub fn new(number: u32, zipf: Option<f64>) -> Self {
        match zipf {
            None => Self::Uniform(number),
            Some(exponent) => Self::Zipf(
                Zipf::new(f64::from(number), exponent)
                    .expect("the command line takes exponents above zero"),
            ),
        }
    }

    /// One of them, counted from 0.
    fn draw(&self, random: &mut Random) -> u32 {
        match self {
            Self::Uniform(number) => random.random_range(0..*number),
            // Ranks are counted from 1.
            Self::Zipf(zipf) => zipf.sample(random) as u32 - 1,
        }
    }
}

/// One user.
pub struct User {
    client: Client,
    random: Random,
    timeout_ms: Option<u64>,
}

impl Workload for Cache {
    type User = User;

    fn name(&self) -> &'static str {
        "cache"
    }

    fn operations(&self) -> &'static [&'static str] {
        &["cache.get", "cache.set"]
    }

    fn details(&self) -> &'static [&'static str] {
        &["cache.get local", "cache.get home", "cache.get miss"]
    }

    fn prepare(&self, seat: Seat) -> User {
        User {
            client: seat.client,
            random: seat.random,
            timeout_ms: u64::try_from(self.timeout.as_millis()).ok(),
        }
    }

    async fn execute(&self, user: &mut User, intended: Instant, turn: &Turn) {
        let key = self.run.with(self.keys.draw(&mut user.random));
        if !user.random.random_bool(self.reads) {
            self.write(user, key, intended, turn).await;
            return;
        }
        let mut get = Get::new(key);
        get.timeout_ms = user.timeout_ms;
        let read = user.client.cache_get(&get);
        let (found, sample) = turn.sample(GET, intended, read).await;
        let Some(found) = turn.pause_after_failure(found).await else {
            return;
        };
        turn.detail(detail(&found), sample);
        if found.status == Status::Miss {
            self.write(user, get.key, Instant::now(), turn).await;
        }
    }
}

impl Cache {
    async fn write(&self, user: &mut User, key: String, intended: Instant, turn: &Turn) {
        let bytes = user.random.random_range(self.value_bytes.clone());
        let mut set = Set::new(key, Value::text("x".repeat(bytes)));
        set.ttl_ms = Some(TTL_MS);
        set.timeout_ms = user.timeout_ms;
        turn.measure(SET, intended, user.client.cache_set(&set))
            .await;
    }
}

/// Where a read's answer came from.
fn detail(found: &Found) -> Operation {
    match (found.status, found.source) {
        (Status::Miss, _) => MISS,
        (Status::Hit, Some(Source::Local)) => LOCAL,
        (Status::Hit, _) => HOME,
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn counts(keys: &Keys) -> Vec<u32> {
        let mut random = Random::seed_from_u64(7);
        let mut counts = vec![0; 100];
        for _ in 0..100_000 {
            counts[keys.draw(&mut random) as usize] += 1;
        }
        counts
    }

    #[test]
    fn uniform_keys_are_used_alike() {
        for count in counts(&Keys::new(100, None)) {
            // The standard deviation is 31.
            assert!((850..1150).contains(&count), "{count}");
        }
    }

    #[test]
    fn zipf_keys_are_used_by_their_rank() {
        let counts = counts(&Keys::new(100, Some(1.0)));
        let harmonic: f64 = (1..=100).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1, 2, 10, 100] {
            let expected = 100_000.0 / harmonic / f64::from(rank);
            let count = f64::from(counts[rank as usize - 1]);
            assert!(
                (count - expected).abs() < 5.0 * expected.sqrt(),
                "{rank}: {count}"
            );
        }
    }
}
