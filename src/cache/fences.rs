//! Fences: writes by whoever holds a lock, so that a holder that stalled past its lease does not
//! overwrite what its successor wrote. Plain code.
//!
//! An entry remembers the newest token with which it was written, however it is changed. A write with
//! that token is made, one with an older token is refused. Any other token is looked up among the
//! locks first: a cache may forget, and with the entry the newer token that it had. What was looked
//! up counts only while nothing has been forgotten since.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use crate::cache::entry::{Entry, Fence, Key};
use crate::cache::operation::{Operation, Write};
use crate::cache::state::{By, Cache, Effect, Waiter};
use crate::ids::Token;

/// A fence, and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fenced {
    pub fence: Fence,
    /// The lock was seen held under this token after the cache had forgotten so many fences.
    pub seen_held: Option<u64>,
}

/// What is known about it makes no other write of one.
impl Hash for Fenced {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fence.hash(state);
    }
}

impl Fenced {
    pub fn new(resource: Key, token: Token) -> Self {
        Fenced {
            fence: Fence { resource, token },
            seen_held: None,
        }
    }

    /// Decides whether the write may be made over this entry; None when it has to be looked up
    /// first whether the lock is held. What a key has forgotten since that was seen may have been a
    /// newer token, so that it is looked up again.
    pub fn may_write(&self, current: Option<&Entry>, forgotten: u64) -> Option<bool> {
        let known = current.and_then(Entry::fence);
        let known = known.filter(|known| known.resource == self.fence.resource);
        let is_seen_held = self.seen_held.is_some();
        match known.map(|known| self.fence.token.cmp(&known.token)) {
            Some(Ordering::Less) => Some(false),
            Some(Ordering::Equal) => Some(true),
            Some(Ordering::Greater) => is_seen_held.then_some(true),
            None => (self.seen_held == Some(forgotten)).then_some(true),
        }
    }
}

impl<T> Cache<T> {
    /// Lets it be found out whether the lock of the write's fence is held.
    pub(super) fn look_up(&mut self, key: Key, mut write: Write, waiter: Waiter<By<T>>) {
        if let Operation::Set {
            fence: Some(fenced),
            ..
        } = &mut write.operation
        {
            fenced.seen_held = Some(self.fences_forgotten);
        }
        if let By::Client(ticket) = waiter.ticket {
            let deadline_ms = waiter.deadline_ms;
            self.effects.push(Effect::LookUp {
                key,
                write,
                waiter: Waiter {
                    ticket,
                    deadline_ms,
                },
            });
        }
    }

    /// Removes what this node is home to.
    pub(super) fn forget(&mut self, key: &str) {
        let held = self.held.remove(key);
        let fence = held.as_ref().and_then(|held| held.entry.fence());
        self.fences_forgotten += u64::from(fence.is_some());
    }
}
