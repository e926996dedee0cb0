//! What homes hear of the reads of copies. Plain code.
//!
//! A read that a copy answers costs no message, so that the home of a key which everybody reads sees
//! no use of it, and would evict it first: with the entry go all copies. So a home that is short of
//! memory says with each copy that it wants to hear of its uses, and is told now and then.

use std::collections::BTreeMap;

use crate::cache::entry::Key;
use crate::cache::message::Message;
use crate::cache::state::Cache;
use crate::ids::NodeId;

/// How often homes are told.
const TELL_EVERY_MS: u64 = 500;
/// Uses that are remembered between; others are told after their next read.
const NOTED_MAX: usize = 20_000;
/// Keys in one message, of at most 321 bytes each.
const KEYS_MAX: usize = 1_000;

/// The copies that were read since their homes were told last.
#[derive(Clone, Debug, Default)]
pub struct Uses {
    noted: Vec<Key>,
    tell_at_ms: u64,
}

impl Uses {
    pub fn waits(&self) -> bool {
        !self.noted.is_empty()
    }

    /// Remembers that a copy was read; false if there is no room for it.
    pub fn note(&mut self, key: &str) -> bool {
        let is_room = self.noted.len() < NOTED_MAX;
        if is_room {
            self.noted.push(key.into());
        }
        is_room
    }
}

impl<T> Cache<T> {
    /// Whether this node wants to hear of the uses of copies: three quarters of its memory are taken.
    pub(super) fn wants_uses(&self) -> bool {
        self.bytes() > self.settings.bytes_max / 4 * 3
    }

    pub(super) fn tick_uses(&mut self, now_ms: u64) {
        if now_ms < self.copy_uses.tell_at_ms || self.copy_uses.noted.is_empty() {
            return;
        }
        self.copy_uses.tell_at_ms = now_ms + TELL_EVERY_MS;
        let mut told: BTreeMap<NodeId, Vec<Key>> = BTreeMap::new();
        for key in std::mem::take(&mut self.copy_uses.noted) {
            if let (Some(home), Some(copied)) = (self.home(&key), self.copies.peek_mut(&key)) {
                copied.tells = true;
                told.entry(home).or_default().push(key);
            }
        }
        for (home, keys) in told {
            for keys in keys.chunks(KEYS_MAX) {
                let keys = keys.to_vec();
                self.send(home, Message::Used { keys });
            }
        }
    }

    /// Copies of these were read.
    pub(super) fn used(&mut self, keys: &[Key]) {
        for key in keys {
            self.uses += 1;
            self.held.touch(key, self.uses);
        }
    }
}
