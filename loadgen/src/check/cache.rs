//! The cache: no read is older than a write that was acknowledged, or seen by another read, before it was sent.
//!
//! Each write of a key has a number in its value. A read that gives the value of one write is wrong if that write was
//! acknowledged before another one was even sent, and the other one had surely taken effect when the read was sent.
//! A read that gives the value of a write acknowledges it, too.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;

use super::History;

/// Writes of a key that are remembered, unless reads on their way need more.
const WRITES_KEPT: usize = 256;

#[derive(Default)]
pub struct CacheCheck {
    pub history: History,
    keys: HashMap<String, Register>,
}

/// One key.
#[derive(Default)]
struct Register {
    numbers: u64,
    writes: BTreeMap<u64, Write>,
    /// When the latest write was sent that has surely taken effect.
    settled: Option<Instant>,
    /// `settled` as it was when each read on its way was sent.
    reads: BTreeMap<u64, Option<Instant>>,
}

struct Write {
    bytes: usize,
    sent: Instant,
    /// When somebody first knew that it had taken effect: its writer, or a reader.
    acknowledged: Option<Instant>,
    refused: bool,
}

/// A read on its way.
pub struct Reading(u64);

/// The value of a write, at least so many bytes.
pub fn value(number: u64, bytes: usize) -> String {
    format!("{number:<bytes$}")
}

impl CacheCheck {
    /// A write of a value with at least so many bytes is about to be sent; returns its number.
    pub fn writes(&mut self, now: Instant, key: &str, bytes: usize) -> u64 {
        let register = self.keys.entry(key.to_owned()).or_default();
        register.numbers += 1;
        let number = register.numbers;
        let write = Write {
            bytes,
            sent: now,
            acknowledged: None,
            refused: false,
        };
        register.writes.insert(number, write);
        register.forget();
        self.history
            .note(now, key, format!("write {number} is sent"));
        number
    }

    /// The write was acknowledged.
    pub fn written(&mut self, now: Instant, key: &str, number: u64) {
        self.history
            .note(now, key, format!("write {number} is acknowledged"));
        let register = self.keys.entry(key.to_owned()).or_default();
        if let Some(write) = register.writes.get_mut(&number) {
            write.acknowledged.get_or_insert(now);
            register.settled = register.settled.max(Some(write.sent));
        }
    }

    /// The write failed, perhaps with an unknown outcome.
    pub fn not_written(&mut self, now: Instant, key: &str, number: u64, code: &str, unknown: bool) {
        self.history
            .note(now, key, format!("write {number}: {code}"));
        let register = self.keys.entry(key.to_owned()).or_default();
        if let Some(write) = register.writes.get_mut(&number) {
            write.refused = !unknown;
        }
    }

    /// A read is about to be sent.
    pub fn reads(&mut self, _now: Instant, key: &str) -> Reading {
        let register = self.keys.entry(key.to_owned()).or_default();
        register.numbers += 1;
        let number = register.numbers;
        register.reads.insert(number, register.settled);
        Reading(number)
    }

    /// A read was answered; `None` without a value, which a cache may always say.
    pub fn read(&mut self, now: Instant, key: &str, reading: &Reading, value: Option<&[u8]>) {
        let register = self.keys.entry(key.to_owned()).or_default();
        let floor = register.reads.remove(&reading.0).flatten();
        let Some(got) = value else {
            self.history
                .note(now, key, "a read finds nothing".to_owned());
            return;
        };
        let number = std::str::from_utf8(got).ok();
        let number = number.and_then(|text| text.trim_end().parse::<u64>().ok());
        let Some(number) = number.filter(|number| *number <= register.numbers) else {
            let what = "a read finds a value that nobody wrote".to_owned();
            self.history.violation(key, what);
            return;
        };
        self.history
            .note(now, key, format!("a read finds write {number}"));
        let wrong = match register.writes.get_mut(&number) {
            // Forgotten, because it was older than all reads on their way.
            None => Some("which later writes replaced long before"),
            Some(write) if write.refused => Some("which was refused"),
            Some(write) if got != self::value(number, write.bytes).as_bytes() => {
                Some("with another value")
            }
            Some(write) => match (write.acknowledged, floor) {
                (Some(acknowledged), Some(floor)) if acknowledged < floor => {
                    Some("which a later write had replaced before the read was sent")
                }
                _ => {
                    write.acknowledged.get_or_insert(now);
                    register.settled = register.settled.max(Some(write.sent));
                    None
                }
            },
        };
        if let Some(wrong) = wrong {
            let what = format!("a read finds write {number}, {wrong}");
            self.history.violation(key, what);
        }
    }

    /// A read failed.
    pub fn not_read(&mut self, now: Instant, key: &str, reading: &Reading, code: &str) {
        self.history
            .note(now, key, format!("a read failed: {code}"));
        if let Some(register) = self.keys.get_mut(key) {
            register.reads.remove(&reading.0);
        }
    }
}

impl Register {
    /// Drops the oldest writes that every read on its way, and every later one, has to find replaced.
    fn forget(&mut self) {
        let floor = self.reads.values().copied().min().unwrap_or(self.settled);
        while self.writes.len() > WRITES_KEPT {
            let oldest = self.writes.first_entry();
            let Some(oldest) = oldest.filter(|oldest| {
                let acknowledged = oldest.get().acknowledged;
                acknowledged.is_some() && acknowledged < floor
            }) else {
                return;
            };
            oldest.remove();
        }
    }
}
