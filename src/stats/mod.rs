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
//! - [`raft`], [`broker`]: what those parts count.
//! - [`histogram`]: a distribution in fixed buckets.
//! - [`labelled`]: one metric per value of a label, by index.

use std::sync::atomic::AtomicU64;

pub mod broker;
pub mod histogram;
pub mod labelled;
pub mod node;
pub mod operations;
pub mod raft;

pub use broker::{BrokerStats, Connection};
pub use histogram::Histogram;
pub use labelled::Labelled;
pub use node::{CONTENT_TYPE, Costs, Stats};
pub use operations::{OperationStats, Totals};
pub use raft::{RaftStats, Refusal, Role};

/// A number that goes up and down.
pub type Gauge = prometheus_client::metrics::gauge::Gauge<u64, AtomicU64>;
