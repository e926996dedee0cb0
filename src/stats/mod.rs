//! What the parts of a node count, and its rendering for Prometheus.
//!
//! Recording costs a few atomic additions: every label value is known when the node starts, so a
//! series is an index into an array, and nothing is hashed, looked up or locked. Gauges that
//! mirror a state kept elsewhere are set by whoever has that state, right before a scrape.
//!
//! Limits: the numbers live as long as the process, and one scrape may see parts of a record that
//! is being made (a request counted whose duration is not).
//!
//! - [`node`]: all of it together.
//! - [`operations`]: requests, errors and durations by operation.
//! - [`raft`], [`broker`], [`locks`], [`queue`], [`cache`], [`redis_link`]: what those parts count.
//! - [`process`]: what the process takes of the machine.
//! - [`histogram`]: a distribution in fixed buckets.
//! - [`labelled`]: one metric per value of a label, by index.
//! - [`samples`]: the same as values, for those who read no text format.
//! - [`sometimes`]: a gauge that is not always there.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;

pub mod broker;
pub mod cache;
pub mod histogram;
pub mod labelled;
pub mod locks;
pub mod node;
pub mod operations;
pub mod process;
pub mod queue;
pub mod raft;
pub mod redis_link;
#[cfg(test)]
mod reference;
pub mod samples;
pub mod sometimes;

pub use broker::{BrokerStats, Connection};
pub use cache::CacheStats;
pub use histogram::Histogram;
pub use labelled::Labelled;
pub use locks::{LockStats, WaitEnd};
pub use node::{CONTENT_TYPE, Costs, Stats};
pub use operations::{OperationStats, Totals};
pub use queue::{QueueStats, TopicStats};
pub use raft::{Failure, Peer, RaftStats, Refusal, Role};
pub use redis_link::RedisStats;
pub use sometimes::Sometimes;

/// A number that goes up and down.
pub type Gauge = prometheus_client::metrics::gauge::Gauge<u64, AtomicU64>;

/// A number that goes up and down, with fractions.
pub type FloatGauge = prometheus_client::metrics::gauge::Gauge<f64, AtomicU64>;

/// Shows what somebody else has counted since the node started.
fn take_over(counter: &Counter, total: u64) {
    counter.inner().store(total, Ordering::Relaxed);
}
