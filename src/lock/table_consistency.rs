//! What must always be true of the parts of a table, checked after every step of every test.

use std::collections::{BTreeMap, BTreeSet};

use super::Name;
use super::claim::Claim;
use super::requests::Became;
use super::table::Table;
use super::tenants::Tenants;
use crate::protocol::lock::Mode;

impl Table {
    /// Panics unless every index agrees with what it indexes.
    pub(super) fn assert_consistent(&self, now_ms: u64) {
        let mut ids = BTreeMap::new();
        let (mut owner_holds, mut owner_waits) = (0, 0);
        let (mut held, mut wanted, mut converted) = (0, 0, BTreeMap::new());
        for (token, hold) in self.holds.iter() {
            let claim = &hold.claim;
            assert!(*token <= self.last_token);
            for want in claim.wants.iter() {
                assert!(self.locks[&want.resource].holders.contains(token));
                assert_eq!(self.locks[&want.resource].mode, want.grip.mode());
                assert_eq!(self.token_of(&claim.owner, &want.resource), Some(*token));
                held += 1;
            }
            for id in claim.request_id.iter().chain(&hold.later_request_ids) {
                ids.insert((claim.owner.clone(), id.clone()), Became::Held(*token));
            }
            converted.extend(hold.converted_from.map(|old| (old, *token)));
        }
        let mut tenants_waits = BTreeMap::new();
        for (place, waiter) in self.waits.iter() {
            let claim = &waiter.claim;
            if let Some(tenant) = &waiter.reply.tenant {
                *tenants_waits.entry(tenant.clone()).or_default() += 1;
            }
            for want in claim.wants.iter() {
                let lock = &self.locks[&want.resource];
                let is_shared = want.grip.mode() == Mode::Shared;
                assert_eq!(lock.shared.contains(place), is_shared);
                assert_eq!(lock.strong.contains_key(place), !is_shared);
                wanted += 1;
            }
            assert_eq!(self.owners.get(&claim.owner).unwrap().waiting, Some(*place));
            assert!(
                waiter
                    .converts
                    .is_none_or(|token| self.holds.contains_key(&token))
            );
            if let Some(id) = &claim.request_id {
                ids.insert((claim.owner.clone(), id.clone()), Became::Waiting(*place));
            }
            let blocked = self.blocked_on(waiter, *place, now_ms).is_some();
            assert!(blocked || self.is_wait_over(waiter, now_ms), "left waiting");
        }
        assert!(self.converted.iter().eq(&converted));
        assert_eq!(tenants_waits, self.tenants_waits);
        self.requests.assert_consistent(&ids);
        for (name, owner) in self.owners.iter() {
            owner_holds += owner.holds.len();
            owner_waits += usize::from(owner.waiting.is_some());
            assert_eq!(owner.requests, self.requests.count_of(name), "{name}");
            assert!(owner.requests > 0 || owner.waiting.is_some() || !owner.holds.is_empty());
        }
        assert_eq!((owner_holds, owner_waits), (held, self.waits.len()));
        let lock_holds: usize = self.locks.values().map(|lock| lock.holders.len()).sum();
        let lock_waits: usize = self.locks.values().map(|lock| lock.queue_len()).sum();
        assert_eq!((lock_holds, lock_waits), (held, wanted));
        self.assert_weight_consistent((held + wanted) as u64);
        self.assert_locks_consistent();
        self.assert_deadlines_consistent();
        self.assert_tenants_consistent();
    }

    fn assert_tenants_consistent(&self) {
        let mut tenants = Tenants::default();
        for hold in self.holds.values() {
            tenants.count(hold.claim.tenant.as_ref(), |owned| owned.holds += 1);
        }
        for (_, session) in self.sessions.iter() {
            tenants.count(session.tenant.as_ref(), |owned| owned.sessions += 1);
        }
        for tenant in self.requests.tenants() {
            tenants.count(tenant, |owned| owned.request_ids += 1);
        }
        assert_eq!(tenants, self.tenants);
    }

    /// Each resource of each claim counts once, and what is written takes no more bytes than are counted.
    fn assert_weight_consistent(&self, claims: u64) {
        /// What there is of a tenant beside its claims: two counts of it, with its name.
        const TENANT: usize = 200;
        assert_eq!(self.weight().claims, claims);
        for (id, _) in self.sessions.iter() {
            let all = self.holds.weight_of_session(id) + self.waits.weight_of_session(id);
            let holds = self.holds.values().map(|hold| &hold.claim);
            let claims = holds.chain(self.waits.values().map(|waiter| &waiter.claim));
            let own = claims.filter(|claim| claim.session.as_ref() == Some(id));
            let counted: usize = own.map(|claim| claim.wants.as_slice().len()).sum();
            assert_eq!(all.claims, counted as u64, "{id}");
        }
        let counted = Table {
            endings: Default::default(),
            deadlocks: Default::default(),
            sessions: self.sessions.living(),
            ..self.clone()
        };
        let bytes_of = |table: &Table| rmp_serde::to_vec(table).expect("it encodes").len();
        let empty = bytes_of(&Table::new(self.limits)) + 50;
        let tenants = self.tenants.len() + self.tenants_waits.len();
        let uncounted = empty + TENANT * tenants;
        assert!(bytes_of(&counted) as u64 <= self.weight().bytes + uncounted as u64);
    }

    fn assert_locks_consistent(&self) {
        for (name, lock) in &self.locks {
            assert!(!lock.is_idle(), "{name} leaves a trace");
            assert!(
                lock.mode != Mode::Exclusive || lock.holders.len() <= 1,
                "{name}"
            );
            let holders = lock.holders.iter().map(|token| &self.holds[token].claim);
            let permits: u32 = holders
                .filter_map(|claim| claim.wants.grip_of(name)?.permits())
                .sum();
            let known = lock
                .permits
                .as_ref()
                .map_or((0, 0), |all| (all.held, all.limit));
            assert_eq!(permits, known.0, "{name}");
            assert!(known.0 <= known.1, "{name}: more permits than there are");
        }
    }

    fn assert_deadlines_consistent(&self) {
        let mut deadlines = self.deadlines.emptied();
        for (token, hold) in self.holds.iter() {
            if let Some(deadline_ms) = hold.deadline_ms {
                deadlines.add_lease(deadline_ms, *token);
            }
            assert!(hold.deadline_ms.is_some() || hold.claim.session.is_some());
        }
        for (place, waiter) in self.waits.iter() {
            deadlines.add_wait(waiter.deadline_ms, *place);
        }
        let of = |id: &Name, claim: &Claim| claim.session.as_ref() == Some(id);
        for (id, session) in self.sessions.iter() {
            match session.is_ending() {
                true => deadlines.add_ending(id),
                false => deadlines.add_session(session.deadline_ms, id),
            }
            let holds = self.holds.iter().filter(|(_, hold)| of(id, &hold.claim));
            let holds: BTreeSet<_> = holds.map(|(token, _)| *token).collect();
            let waits = self
                .waits
                .iter()
                .filter(|(_, waiter)| of(id, &waiter.claim));
            let waits: BTreeSet<_> = waits.map(|(place, _)| *place).collect();
            assert_eq!((&session.holds, &session.waits), (&holds, &waits), "{id}");
        }
        for (resource, lock) in &self.locks {
            if let Some(until_ms) = lock.closed_until_ms {
                deadlines.close(&mut super::resource::Lock::default(), resource, until_ms);
            }
        }
        assert_eq!(deadlines, self.deadlines);
    }
}
