//! What the cache of a node has and has counted, taken over from the cache itself before each scrape.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::{Registry, Unit};

use super::{Gauge, Histogram, Labelled, take_over};

/// Upper bounds of the buckets of [`Reading::invalidation`], in milliseconds, inclusive: from one round
/// trip to longer than a lost node is waited out.
pub const INVALIDATION_BOUNDS_MS: [u64; 12] =
    [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000];

/// Where the values of hits came from, in the order of [`Reading::hits`].
const SOURCES: [&str; 3] = ["local", "home", "store"];
/// In the order of [`Reading::store`].
const STORE_CALLS: [&str; 3] = ["read", "written", "failed"];
/// In the order of [`Reading::invalidations`].
const INVALIDATIONS: [&str; 3] = ["sent", "acked", "resent"];

/// How long the sharers of writes took to drop their copies; the last bucket has no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    pub counts: [u64; INVALIDATION_BOUNDS_MS.len() + 1],
    pub sum_ms: u64,
}

impl Delays {
    pub fn add(&mut self, ms: u64) {
        self.counts[INVALIDATION_BOUNDS_MS.partition_point(|&bound| bound < ms)] += 1;
        self.sum_ms += ms;
    }
}

/// What a cache says of itself at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub entries: u64,
    pub bytes: u64,
    pub bytes_max: u64,
    /// By where the value was: in this node's memory, in that of the key's home, or in the store.
    pub hits: [u64; SOURCES.len()],
    pub misses: u64,
    pub fills: u64,
    pub evictions: u64,
    /// Sent, acknowledged, sent again.
    pub invalidations: [u64; INVALIDATIONS.len()],
    pub invalidation: Delays,
    pub updates: u64,
    pub writes: u64,
    pub promoted: u64,
    /// Questions to the store, writes that it has kept, calls that failed.
    pub store: [u64; STORE_CALLS.len()],
}

#[derive(Debug)]
pub struct CacheStats {
    entries: Gauge,
    bytes: Gauge,
    bytes_max: Gauge,
    hits: Labelled<Counter>,
    misses: Counter,
    fills: Counter,
    evictions: Counter,
    invalidations: Labelled<Counter>,
    invalidation_ms: Histogram,
    updates: Counter,
    writes: Counter,
    promoted: Counter,
    store: Labelled<Counter>,
}

impl CacheStats {
    pub(super) fn new() -> Self {
        CacheStats {
            entries: Gauge::default(),
            bytes: Gauge::default(),
            bytes_max: Gauge::default(),
            hits: Labelled::new("source", &SOURCES, Counter::default),
            misses: Counter::default(),
            fills: Counter::default(),
            evictions: Counter::default(),
            invalidations: Labelled::new("kind", &INVALIDATIONS, Counter::default),
            invalidation_ms: Histogram::of_milliseconds(&INVALIDATION_BOUNDS_MS),
            updates: Counter::default(),
            writes: Counter::default(),
            promoted: Counter::default(),
            store: Labelled::new("result", &STORE_CALLS, Counter::default),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "cache_entries",
            "Values, copies and backups in this node's memory",
            self.entries.clone(),
        );
        for (name, help, bytes) in [
            (
                "cache",
                "Memory that values, copies and backups take",
                &self.bytes,
            ),
            (
                "cache_limit",
                "The most memory that the cache may take",
                &self.bytes_max,
            ),
        ] {
            registry.register_with_unit(name, help, Unit::Bytes, bytes.clone());
        }
        registry.register(
            "cache_hits",
            "Reads that found a value, in this node's memory, at the key's home, or in the store",
            self.hits.clone(),
        );
        for (name, help, counter) in [
            ("cache_misses", "Reads that found nothing", &self.misses),
            ("cache_fills", "Questions to homes", &self.fills),
            (
                "cache_evictions",
                "Entries that made room for others",
                &self.evictions,
            ),
            (
                "cache_updates",
                "Copies that took a new value with the news of its write",
                &self.updates,
            ),
            (
                "cache_writes",
                "Writes that took effect at this node as the key's home",
                &self.writes,
            ),
            (
                "cache_promotions",
                "Values that a backup kept when their home was lost",
                &self.promoted,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "cache_invalidations",
            "Copies that were told to be old, that were dropped, that were told again",
            self.invalidations.clone(),
        );
        registry.register(
            "cache_store_calls",
            "Questions to the store, writes that it has kept, calls of it that failed",
            self.store.clone(),
        );
        registry.register_with_unit(
            "cache_invalidation",
            "From telling the nodes that have copies to the write's taking effect",
            Unit::Seconds,
            self.invalidation_ms.clone(),
        );
    }

    /// Shows what the cache says of itself.
    pub fn show(&self, reading: &Reading) {
        self.entries.set(reading.entries);
        self.bytes.set(reading.bytes);
        self.bytes_max.set(reading.bytes_max);
        for (index, &total) in reading.hits.iter().enumerate() {
            take_over(&self.hits[index], total);
        }
        for (index, &total) in reading.invalidations.iter().enumerate() {
            take_over(&self.invalidations[index], total);
        }
        for (index, &total) in reading.store.iter().enumerate() {
            take_over(&self.store[index], total);
        }
        for (counter, total) in [
            (&self.misses, reading.misses),
            (&self.fills, reading.fills),
            (&self.evictions, reading.evictions),
            (&self.updates, reading.updates),
            (&self.writes, reading.writes),
            (&self.promoted, reading.promoted),
        ] {
            take_over(counter, total);
        }
        let Delays { counts, sum_ms } = reading.invalidation;
        self.invalidation_ms.take_over(&counts, sum_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let mut delays = Delays::default();
        for ms in [0, 1, 2, 3, 5_000, 5_001] {
            delays.add(ms);
        }
        assert_eq!(delays.counts, [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(delays.sum_ms, 10_007);
    }
}
