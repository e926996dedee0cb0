//! Whether a write is made, when its turn comes. Plain code.
//!
//! Writes of one key are decided one after the other, each when the one before has taken effect: by what the
//! entry is, by the lock and the claim that it names, and by what became of it if it was made before.

use crate::cache::entry::{Key, Version};
use crate::cache::event::Gone;
use crate::cache::home::Held;
use crate::cache::operation::{Answer, Change, Operation, Why, Write, decide};
use crate::cache::requests::Done;
use crate::cache::state::{By, Cache, Waiter};
use crate::cache::writes::{QUEUE_MAX, removal_cost};
use crate::cache::writing::Origin;

impl<T> Cache<T> {
    /// Changes a key that this node is home to.
    pub(super) fn write_by(&mut self, key: Key, write: Write, waiter: Waiter<By<T>>, now_ms: u64) {
        self.write_knowing(key, (write, waiter), false, now_ms);
    }

    /// The same; `has_none` where the store was asked and has no value.
    pub(super) fn write_knowing(
        &mut self,
        key: Key,
        (write, waiter): (Write, Waiter<By<T>>),
        has_none: bool,
        now_ms: u64,
    ) {
        let home = self.tenure.acting().map(|acting| acting.is_home(&key));
        if home == Some(false) && !self.acting().moves(&key) {
            return self.refuse(waiter, Why::NotHome);
        }
        if !self.may_decide(&key, now_ms) {
            return self.park(key, Some(write), waiter);
        }
        self.end_if_over(&key, now_ms);
        if let Some(queue) = self.writes.queue(&key) {
            if queue.len() >= QUEUE_MAX {
                return self.refuse(waiter, Why::TooMany);
            }
            queue.push_back((write, waiter));
            return;
        }
        if self.settings.store && self.is_to_bring(&key, &write, has_none, now_ms) {
            return self.bring_for_write(key, write, waiter, now_ms);
        }
        if let Some(answer) = self.recall(&key, &write, now_ms) {
            return self.answer(waiter.ticket, answer);
        }
        let operation = &write.operation;
        let current = self.held.peek(&key).map(|held| &held.entry);
        match operation
            .fenced()
            .map(|fenced| fenced.may_write(current, self.fences_forgotten))
        {
            None | Some(Some(true)) => {}
            Some(Some(false)) => return self.refuse(waiter, Why::StaleToken),
            Some(None) => return self.look_up(key, write, waiter),
        }
        if let Operation::Set {
            claim: Some(claim), ..
        } = operation
            && !self.claims.is_open(&key, *claim, now_ms)
        {
            return self.refuse(waiter, Why::ClaimOver);
        }
        let version = self.next_version();
        let current = self.held.peek(&key).map(|held| &held.entry);
        match decide(operation, current, (version, now_ms)) {
            Ok((change, _)) if operation.is_plain() && self.fits_only_alone(&key, &change) => {
                if !self.fits_alone_now(&key, &change) {
                    return self.refuse(waiter, Why::Full);
                }
                // A cache may forget: the value before goes, and the write finds none.
                self.evict(&key, now_ms);
                self.write_by(key, write, waiter, now_ms);
            }
            Ok((change, answer)) => {
                let origin = Origin {
                    waiter: Some(waiter),
                    done: Done::of(&write, &answer),
                    answer,
                };
                self.begin(key, change, version, Some(origin), now_ms);
            }
            Err(answer) => {
                // Who deletes what is not there means what is being loaded, too.
                let ends_claim = matches!(answer, Answer::Removed { .. });
                self.answer(waiter.ticket, answer);
                if ends_claim {
                    self.end_claim(&key, now_ms);
                }
            }
        }
    }

    pub(super) fn next_version(&mut self) -> Version {
        self.sequence += 1;
        let epoch = match self.flaws.versions_without_epoch {
            true => 0,
            false => self.acting().epoch.0,
        };
        Version {
            epoch,
            sequence: self.sequence,
        }
    }

    /// Begins to remove an entry that is over.
    pub(super) fn end_if_over(&mut self, key: &Key, now_ms: u64) {
        let is_over = |held: &Held| !held.entry.is_live(now_ms);
        if !self.writes.contains(key) && self.held.peek(key).is_some_and(is_over) {
            // It begins without room, too: readers wait for its end.
            self.free(removal_cost(key), key, now_ms);
            let version = self.next_version();
            let removal = Change::Remove(Gone::Expired);
            self.begin(key.clone(), removal, version, None, now_ms);
        }
    }
}
