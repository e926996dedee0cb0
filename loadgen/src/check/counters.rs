//! Counters of the cache: each increment adds exactly one.
//!
//! A counter that is at its beginning again was forgotten, which a cache may do; it is not checked from then on. Its
//! new beginning is an increment that gives 1, whose answer may come after those of later ones, or never. So a value
//! that goes back is wrong only if no increment can have been that beginning.

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
    /// Those on their way, by their number.
    on_their_way: BTreeSet<u64>,
    /// Whether there is one with an unknown outcome.
    has_unknown: bool,
    values: BTreeSet<u64>,
    /// What is wrong unless the counter began again.
    suspicions: Vec<Suspicion>,
    forgotten: bool,
}

/// A value that went back.
struct Suspicion {
    what: String,
    /// Increments that were on their way, each of which may have been the new beginning.
    beginnings: BTreeSet<u64>,
}

/// An increment on its way.
pub struct Counting {
    number: u64,
    floor: u64,
}

impl CounterCheck {
    /// An increment is about to be sent.
    pub fn counts(&mut self, now: Instant, key: &str) -> Counting {
        self.history
            .note(now, key, "an increment is sent".to_owned());
        let counter = self.counters.entry(key.to_owned()).or_default();
        counter.sent += 1;
        let number = counter.sent;
        counter.on_their_way.insert(number);
        Counting {
            number,
            floor: counter.values.last().copied().unwrap_or(0),
        }
    }

    /// The increment was answered with the counter's value.
    pub fn counted(&mut self, now: Instant, key: &str, counting: &Counting, value: u64) {
        self.history
            .note(now, key, format!("an increment gives {value}"));
        let counter = self.counters.entry(key.to_owned()).or_default();
        counter.on_their_way.remove(&counting.number);
        let was_there = !counter.values.insert(value);
        if value == 1 && (was_there || counting.floor > 0) {
            counter.forget();
        }
        if counter.forgotten {
            return;
        }
        let most = counter.sent - counter.refused;
        if value > most {
            let what = format!("{value} is more than the {most} increments");
            self.history.violation(key, what);
        } else if was_there {
            counter.suspect(format!("two increments give {value}"));
        } else if value <= counting.floor {
            counter.suspect(format!("{value} comes after {}", counting.floor));
        }
        self.judge(key, counting);
    }

    /// The increment failed, perhaps with an unknown outcome.
    pub fn not_counted(
        &mut self,
        now: Instant,
        key: &str,
        counting: &Counting,
        code: &str,
        unknown: bool,
    ) {
        self.history.note(now, key, format!("an increment: {code}"));
        let counter = self.counters.entry(key.to_owned()).or_default();
        counter.on_their_way.remove(&counting.number);
        counter.refused += u64::from(!unknown);
        counter.has_unknown |= unknown;
        if unknown && !counter.suspicions.is_empty() {
            counter.forget();
        }
        self.judge(key, counting);
    }

    /// This increment has ended and was no new beginning: what is wrong without one is told.
    fn judge(&mut self, key: &str, ended: &Counting) {
        let counter = self.counters.entry(key.to_owned()).or_default();
        for suspicion in &mut counter.suspicions {
            suspicion.beginnings.remove(&ended.number);
        }
        let proven = |suspicion: &mut Suspicion| suspicion.beginnings.is_empty();
        for suspicion in counter.suspicions.extract_if(.., proven) {
            self.history.violation(key, suspicion.what);
        }
    }
}

impl Counter {
    fn suspect(&mut self, what: String) {
        if self.has_unknown {
            self.forget();
            return;
        }
        let beginnings = self.on_their_way.clone();
        self.suspicions.push(Suspicion { what, beginnings });
    }

    /// The counter began again, or may have.
    fn forget(&mut self) {
        self.forgotten = true;
        self.suspicions.clear();
    }
}
