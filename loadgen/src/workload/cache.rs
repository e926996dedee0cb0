//! Users that read and write the keys they share, as programs use a cache: a read that finds nothing is followed by
//! a write of the key. Some rounds may add to counters instead.

use std::ops::RangeInclusive;
use std::time::Duration;

use mufakat::client::Client;
use mufakat::protocol::cache::{Found, Get, Increment, Set, Source, Status};
use mufakat::protocol::value::Value;
use rand::RngExt;
use rand_distr::{Distribution, Zipf};
use tokio::time::Instant;

use super::resource::RunName;
use super::{Failure, Random, Seat, Turn, Workload, milliseconds};
use crate::check::Shared;
use crate::check::cache::{CacheCheck, value};
use crate::check::counters::CounterCheck;
use crate::recorder::Operation;

const GET: Operation = Operation(0);
const SET: Operation = Operation(1);
const INCREMENT: Operation = Operation(2);
const LOCAL: Operation = Operation(3);
const HOME: Operation = Operation(4);
const MISS: Operation = Operation(5);

/// Counters that the users share: few, so that increments meet.
const COUNTERS: u32 = 10;

/// What a run writes goes away by itself after this; a key of a longer run is written again.
const TTL_MS: u64 = 10 * 60_000;

/// Users that read and write keys.
pub struct Cache {
    pub run: RunName,
    pub keys: Keys,
    /// How many of the rounds add to a counter, 0 to 1.
    pub increments: f64,
    /// How many of the others are reads, 0 to 1.
    pub reads: f64,
    /// Bytes of a value, drawn evenly.
    pub value_bytes: RangeInclusive<usize>,
    /// How long a request may take.
    pub timeout: Duration,
    pub check: Shared<CacheCheck>,
    pub counter_check: Shared<CounterCheck>,
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
        &["cache.get", "cache.set", "cache.increment"]
    }

    fn details(&self) -> &'static [&'static str] {
        &["cache.get local", "cache.get home", "cache.get miss"]
    }

    fn prepare(&self, seat: Seat) -> User {
        User {
            client: seat.client,
            random: seat.random,
            timeout_ms: milliseconds(self.timeout),
        }
    }

    async fn execute(&self, user: &mut User, intended: Instant, turn: &Turn) {
        if user.random.random_bool(self.increments) {
            self.increment(user, intended, turn).await;
            return;
        }
        let key = self.run.with(self.keys.draw(&mut user.random));
        if !user.random.random_bool(self.reads) {
            self.write(user, key, intended, turn).await;
            return;
        }
        let mut get = Get::new(key);
        get.timeout_ms = user.timeout_ms;
        let reading = self.check.tell(|check, now| check.reads(now, &get.key));
        let read = user.client.cache_get(&get);
        let (found, sample) = turn.sample(GET, intended, read).await;
        if let Some(reading) = &reading {
            self.check.tell(|check, now| match &found {
                Ok(found) => {
                    // A value that does not fit together is none that was written.
                    let value = found.value().unwrap_or(Some(Value::text("")));
                    let value = value.as_ref().map(|value| &value.bytes()[..]);
                    check.read(now, &get.key, reading, value);
                }
                Err(error) => check.not_read(now, &get.key, reading, error.fault().code),
            });
        }
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
        let number = self.check.tell(|check, now| check.writes(now, &key, bytes));
        let text = match number {
            Some(number) => value(number, bytes),
            None => "x".repeat(bytes),
        };
        let mut set = Set::new(key, Value::text(text));
        set.ttl_ms = Some(TTL_MS);
        set.timeout_ms = user.timeout_ms;
        let write = user.client.cache_set(&set);
        let (written, _) = turn.sample(SET, intended, write).await;
        if let Some(number) = number {
            self.check.tell(|check, now| match &written {
                Ok(_) => check.written(now, &set.key, number),
                Err(error) => {
                    let fault = error.fault();
                    check.not_written(now, &set.key, number, fault.code, fault.unknown);
                }
            });
        }
        turn.pause_after_failure(written).await;
    }

    async fn increment(&self, user: &mut User, intended: Instant, turn: &Turn) {
        let counter = user.random.random_range(0..COUNTERS);
        let mut increment = Increment::new(self.run.with(format!("counter.{counter}")));
        increment.ttl_ms = Some(TTL_MS);
        increment.timeout_ms = user.timeout_ms;
        let key = &increment.key;
        let counting = self.counter_check.tell(|check, now| check.counts(now, key));
        let request = user.client.cache_increment(&increment);
        let (counted, _) = turn.sample(INCREMENT, intended, request).await;
        if let Some(counting) = &counting {
            self.counter_check.tell(|check, now| match &counted {
                Ok(counted) => check.counted(now, key, counting, counted.value),
                Err(error) => {
                    let fault = error.fault();
                    check.not_counted(now, key, counting, fault.code, fault.unknown);
                }
            });
        }
        turn.pause_after_failure(counted).await;
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
