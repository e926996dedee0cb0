//! What is counted about the connection to Redis; nothing is shown where a node was told of none.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::{Registry, Unit};

use super::{Histogram, Labelled, Sometimes, take_over};

/// What a write may survive, the best first; the names are those of the protocol.
pub const DURABILITIES: [&str; 5] = ["fsync", "os", "interval", "none", "unknown"];

#[derive(Debug)]
pub struct RedisStats {
    connected: Sometimes,
    durability: Labelled<Sometimes>,
    reconnects: Counter,
    /// Length of each call of a script on the way of messages, and what it waits for.
    pub call: Histogram,
}

impl RedisStats {
    pub(super) fn new() -> Self {
        RedisStats {
            connected: Sometimes::default(),
            durability: Labelled::new("level", &DURABILITIES, Sometimes::default),
            reconnects: Counter::default(),
            call: Histogram::of_durations(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "redis_connected",
            "1 while Redis answers; absent on a node without Redis",
            self.connected.clone(),
        );
        registry.register(
            "redis_durability",
            "1 for what an acknowledged push survives now; absent on a node without Redis",
            self.durability.clone(),
        );
        registry.register(
            "redis_reconnects",
            "Connections to Redis after the first, to each server",
            self.reconnects.clone(),
        );
        registry.register_with_unit(
            "redis_call",
            "Calls of Redis that move messages",
            Unit::Seconds,
            self.call.clone(),
        );
    }

    /// Shows whether Redis answers, what a write survives, and how many connections took the place of one before.
    pub fn show(&self, connected: bool, durability: &str, reconnects: u64) {
        self.connected.set(Some(u64::from(connected)));
        for (index, level) in DURABILITIES.iter().enumerate() {
            self.durability[index].set(Some(u64::from(*level == durability)));
        }
        take_over(&self.reconnects, reconnects);
    }
}
