//! The memory that the cache may take: never more, and the least recently used entry goes first.
//! Plain code.

use crate::cache::state::Cache;

impl<T> Cache<T> {
    /// What everything kept takes.
    pub(super) fn bytes(&self) -> usize {
        self.held.bytes() + self.copies.bytes() + self.backups.bytes() + self.writes.bytes()
    }

    /// Frees memory until `bytes` more fit for a key, which itself stays; false if they cannot.
    pub(super) fn make_room(&mut self, bytes: usize, for_key: &str, now_ms: u64) -> bool {
        let aim = self.settings.bytes_max.saturating_sub(bytes);
        self.evict_above(aim, for_key, now_ms);
        self.bytes() + bytes <= self.settings.bytes_max
    }

    /// Keeps a sixteenth free, so that a write seldom has to wait for an eviction.
    pub(super) fn trim(&mut self, now_ms: u64) {
        let aim = self.settings.bytes_max - self.settings.bytes_max / 16;
        self.evict_above(aim, "", now_ms);
    }

    /// Evicts the least recently used of all tables, `but` one of this node's home, until no more than
    /// `aim` is taken, or nothing is left that can be evicted now.
    fn evict_above(&mut self, aim: usize, but: &str, now_ms: u64) {
        let mut all_held_in_use = false;
        while self.bytes() > aim {
            let copy = self.copies.oldest().map(|(_, used)| used);
            let backup = self.backups.oldest().map(|(_, used)| used);
            let held = self.held.oldest().map(|(_, used)| used);
            let held = held.filter(|_| !all_held_in_use);
            let Some(oldest) = [copy, backup, held].into_iter().flatten().min() else {
                return;
            };
            if copy == Some(oldest) {
                let key = self.copies.oldest().map(|(key, _)| key.clone());
                self.copies.remove(&key.expect("there is an oldest copy"));
            } else if backup == Some(oldest) {
                let key = self.backups.oldest().map(|(key, _)| key.clone());
                self.backups
                    .remove(&key.expect("there is an oldest backup"));
            } else if !self.evict_held(but, now_ms) {
                all_held_in_use = true;
                continue;
            }
            self.counts.evictions += 1;
        }
    }
}
