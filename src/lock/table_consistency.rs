//! What must always be true of the parts of a table, checked after every step of every test.

use std::collections::BTreeMap;

use super::command::Mode;
use super::requests::Became;
use super::table::Table;

impl Table {
    /// Panics unless every index agrees with what it indexes.
    pub(super) fn assert_consistent(&self) {
        let mut deadlines = super::deadlines::Deadlines::default();
        deadlines.raise_lease_floor(self.deadlines.lease_end_ms(0));
        let mut ids = BTreeMap::new();
        let (mut owner_holds, mut owner_waits) = (0, 0);
        for (token, hold) in &self.holds {
            let claim = &hold.claim;
            assert!(*token <= self.last_token);
            assert!(self.locks[&claim.resource].holders.contains(token));
            assert_eq!(self.locks[&claim.resource].mode, claim.mode);
            assert_eq!(self.token_of(&claim.owner, &claim.resource), Some(*token));
            deadlines.add_lease(hold.deadline_ms, *token);
            for id in claim.request_id.iter().chain(&hold.later_request_ids) {
                ids.insert((claim.owner.clone(), id.clone()), Became::Held(*token));
            }
        }
        for (place, waiter) in &self.waits {
            let claim = &waiter.claim;
            assert_eq!(self.locks[&claim.resource].queue[place], claim.mode);
            assert_eq!(self.owners.get(&claim.owner).unwrap().waiting, Some(*place));
            deadlines.add_wait(waiter.deadline_ms, *place);
            if let Some(id) = &claim.request_id {
                ids.insert((claim.owner.clone(), id.clone()), Became::Waiting(*place));
            }
        }
        assert_eq!(deadlines, self.deadlines);
        self.requests.assert_consistent(&ids);
        for (name, owner) in self.owners.iter() {
            owner_holds += owner.holds.len();
            owner_waits += usize::from(owner.waiting.is_some());
            assert_eq!(owner.requests, self.requests.count_of(name), "{name}");
            assert!(owner.requests > 0 || owner.waiting.is_some() || !owner.holds.is_empty());
        }
        let lock_holds: usize = self.locks.values().map(|lock| lock.holders.len()).sum();
        let lock_waits: usize = self.locks.values().map(|lock| lock.queue.len()).sum();
        assert_eq!(
            (owner_holds, owner_waits),
            (self.holds.len(), self.waits.len())
        );
        assert_eq!(
            (lock_holds, lock_waits),
            (self.holds.len(), self.waits.len())
        );
        for (name, lock) in &self.locks {
            assert!(
                !lock.holders.is_empty(),
                "{name} has waiters at most, but no holder"
            );
            assert!(
                lock.mode == Mode::Shared || lock.holders.len() == 1,
                "{name}"
            );
            let first = lock.queue.values().next();
            assert!(
                first.is_none_or(|mode| !lock.admits(*mode)),
                "{name} is left waiting"
            );
        }
    }
}
