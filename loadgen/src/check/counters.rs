//! Counters of the cache: each increment adds exactly one.
//!
//! A counter that is at its beginning again was forgotten, which a cache may do; it is not checked from then on.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use super::History;

#[derive(Default)]
pub struct CounterCheck {
    pub history: History,
    counters: HashMap<String, Counter>,
}

#[derive(Default)]
struct Counter {
    sent: u64,
    /// Increments that surely did not take effect.
    refused: u64,
    values: BTreeSet<u64>,
    forgotten: bool,
}

/// An increment on its way.
pub struct Counting {
    floor: u64,
}

impl CounterCheck {
    /// An increment is about to be sent.
    pub fn counts(&mut self, now: Instant, key: &str) -> Counting {
        self.history
            .note(now, key, "an increment is sent".to_owned());
        let counter = self.counters.entry(key.to_owned()).or_default();
        counter.sent += 1;
        Counting {
            floor: counter.values.last().copied().unwrap_or(0),
        }
    }

    /// The increment was answered with the counter's value.
    pub fn counted(&mut self, now: Instant, key: &str, counting: &Counting, value: u64) {
        self.history
            .note(now, key, format!("an increment gives {value}"));
        let counter = self.counters.entry(key.to_owned()).or_default();
        counter.forgotten |= value == 1 && counting.floor > 0;
        if counter.forgotten {
            return;
        }
        let wrong = if !counter.values.insert(value) {
            Some(format!("two increments give {value}"))
        } else if value <= counting.floor {
            Some(format!("{value} comes after {}", counting.floor))
        } else if value > counter.sent - counter.refused {
            Some(format!(
                "{value} is more than the {} increments",
                counter.sent - counter.refused
            ))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            self.history.violation(key, wrong);
        }
    }

    /// The increment failed, perhaps with an unknown outcome.
    pub fn not_counted(&mut self, now: Instant, key: &str, code: &str, unknown: bool) {
        self.history.note(now, key, format!("an increment: {code}"));
        let counter = self.counters.entry(key.to_owned()).or_default();
        counter.refused += u64::from(!unknown);
    }
}
