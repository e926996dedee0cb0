//! Reads: from this node's memory, or by a question to the key's home. Plain code.

use crate::cache::claims::Wish;
use crate::cache::entry::Key;
use crate::cache::operation::{Hit, Source};
use crate::cache::state::{By, Cache, Waiter};

impl<T> Cache<T> {
    /// What this node's memory has, if the lease allows to serve it.
    pub fn hit(&mut self, key: &str, now_ms: u64) -> Option<Hit> {
        let acting = self.tenure.held(now_ms)?;
        self.uses += 1;
        let entry = match self.copies.touch(key, self.uses) {
            Some(copied) => {
                copied.unread = 0;
                if !copied.is_confirmed {
                    return None;
                }
                if copied.tells {
                    copied.tells = !self.copy_uses.note(key);
                }
                &mut copied.entry
            }
            None => {
                let held = self.held.touch(key, self.uses)?;
                if acting.moves(key) {
                    return None;
                }
                held.entry.read(now_ms);
                &mut held.entry
            }
        };
        if !entry.is_live(now_ms) {
            return None;
        }
        self.counts.hit(Source::Local);
        Some(Hit {
            value: entry.value.clone(),
            version: entry.version,
            left_ms: entry.left_ms(now_ms),
            source: Source::Local,
        })
    }

    /// What this node's memory has, old or not.
    pub fn hit_any(&self, key: &str, now_ms: u64) -> Option<Hit> {
        let copied = self.copy(key).map(|copied| &copied.entry);
        let held = || self.held.peek(key).map(|held| &held.entry);
        let backup = || self.backups.peek(key).map(|backup| &backup.entry);
        let entry = copied.or_else(held).or_else(backup)?;
        entry.is_live(now_ms).then(|| Hit {
            value: entry.value.clone(),
            version: entry.version,
            left_ms: entry.left_ms(now_ms),
            source: Source::Local,
        })
    }

    /// Reads a key for a client, wherever its value is.
    pub fn read(&mut self, key: Key, waiter: Waiter<T>, now_ms: u64) {
        self.read_by(key, waiter.by_client(), now_ms);
    }

    /// The same for a client that would load the value if nobody has it.
    pub fn read_or_claim(&mut self, key: Key, wish: Wish, waiter: Waiter<T>, now_ms: u64) {
        let waiter = Waiter {
            ticket: By::Loader(waiter.ticket, wish.within(waiter.deadline_ms)),
            deadline_ms: waiter.deadline_ms,
        };
        self.read_by(key, waiter, now_ms);
    }

    pub(super) fn read_by(&mut self, key: Key, waiter: Waiter<By<T>>, now_ms: u64) {
        let Some(acting) = self.tenure.acting() else {
            return self.park(key, None, waiter);
        };
        match acting.roster.home(&key) {
            Some(home) if home != acting.stay => self.fill(key, home, waiter, now_ms),
            _ if self.may_decide(&key, now_ms) => self.read_here(key, waiter, now_ms),
            _ => self.park(key, None, waiter),
        }
    }
}
