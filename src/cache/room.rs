//! The memory that the cache may take: never more, and the least recently used entry goes first. Plain
//! code.
//!
//! While others want room, one tenant keeps at most half of it: who has more gives its own up first. A
//! tenant is known to a node once it has asked there.

use crate::cache::entry::{Key, cost};
use crate::cache::operation::Change;
use crate::cache::state::Cache;
use crate::cache::writes::{WRITES_MAX, removal_cost};
use crate::protocol::Tenant;

/// Tenants whose shares are known; those that ask later share one with everybody else.
const TENANTS_MAX: usize = 100;

impl<T> Cache<T> {
    /// What everything kept takes.
    pub(super) fn bytes(&self) -> usize {
        let tables = self.held.bytes() + self.copies.bytes() + self.backups.bytes();
        tables + self.writes.bytes() + self.requests.bytes()
    }

    /// Whether what a change leaves of a key fits, but never beside what is there now.
    pub(super) fn fits_only_alone(&self, key: &str, change: &Change) -> bool {
        let (Change::Put(entry), Some(held)) = (change, self.held.peek(key)) else {
            return false;
        };
        let (new, old) = (cost(key, entry), cost(key, &held.entry));
        new + old > self.settings.bytes_max && new <= self.settings.bytes_max
    }

    /// Whether what a change leaves of a key would fit now if what is there of it made room.
    pub(super) fn fits_alone_now(&self, key: &str, change: &Change) -> bool {
        let Change::Put(entry) = change else {
            return true;
        };
        let new = cost(key, entry);
        let stays = self.writes.bytes() + removal_cost(key) + self.requests.bytes();
        new + stays <= self.settings.bytes_max && self.writes.len() < WRITES_MAX
    }

    /// Frees memory until `bytes` more fit for a key, which itself stays; false if they cannot: nothing makes
    /// room for what does not fit beside all that stays.
    pub(super) fn make_room(&mut self, bytes: usize, for_key: &str, now_ms: u64) -> bool {
        let held = self.held.peek(for_key);
        let stays = held.map_or(0, |held| cost(for_key, &held.entry));
        let stays = stays + self.writes.bytes() + self.requests.bytes();
        if stays + bytes > self.settings.bytes_max {
            return false;
        }
        self.free(bytes, for_key, now_ms);
        self.bytes() + bytes <= self.settings.bytes_max
    }

    /// The same, as far as it goes.
    pub(super) fn free(&mut self, bytes: usize, for_key: &str, now_ms: u64) {
        let aim = self.settings.bytes_max.saturating_sub(bytes);
        self.evict_above(aim, for_key, now_ms);
    }

    /// Keeps a sixteenth free, so that a write seldom has to wait for an eviction.
    pub(super) fn trim(&mut self, now_ms: u64) {
        let aim = self.settings.bytes_max - self.settings.bytes_max / 16;
        self.evict_above(aim, "", now_ms);
    }

    /// Lets a tenant that asks have a share of its own.
    pub fn meet(&mut self, tenant: Option<&Tenant>) {
        let Some(tenant) = tenant.filter(|tenant| !self.held.knows(tenant)) else {
            return;
        };
        if self.held.tenants().len() < TENANTS_MAX {
            self.held.learn(tenant);
            self.copies.learn(tenant);
            self.backups.learn(tenant);
        }
    }

    /// The tenant that has more than half of the memory.
    fn crowding_tenant(&self) -> Option<Tenant> {
        let bytes = |tenant: &Tenant| {
            let (held, copies) = (self.held.bytes_of(tenant), self.copies.bytes_of(tenant));
            held + copies + self.backups.bytes_of(tenant)
        };
        let mut tenants = self.held.tenants();
        let crowds = tenants.find(|tenant| bytes(tenant) > self.settings.bytes_max / 2);
        crowds.cloned()
    }

    /// Evicts the least recently used, `but` one of this node's home, until no more than `aim` is taken,
    /// or nothing is left that can be evicted now.
    fn evict_above(&mut self, aim: usize, but: &str, now_ms: u64) {
        let mut held_in_use = false;
        while self.bytes() > aim
            && let Some(tenant) = self.crowding_tenant()
            && self.evict_oldest((Some(&tenant), but), &mut held_in_use, now_ms)
        {}
        let mut held_in_use = false;
        while self.bytes() > aim && self.evict_oldest((None, but), &mut held_in_use, now_ms) {}
    }

    /// Evicts the least recently used of all tables, of one tenant or of all; false if nothing can be
    /// evicted now.
    fn evict_oldest(
        &mut self,
        (of, but): (Option<&Tenant>, &str),
        held_in_use: &mut bool,
        now_ms: u64,
    ) -> bool {
        let known = |oldest: Option<(&Key, u64)>| oldest.map(|(key, used)| (used, key.clone()));
        let copy = known(self.copies.oldest(of));
        let backup = known(self.backups.oldest(of));
        let used = |oldest: &Option<(u64, Key)>| oldest.as_ref().map(|(used, _)| *used);
        let before = [used(&copy), used(&backup)].into_iter().flatten().min();
        let held = self.held.oldest(of).map(|(_, used)| used);
        let is_held = held.is_some_and(|held| before.is_none_or(|before| held < before));
        if is_held && !*held_in_use {
            *held_in_use = !self.evict_held((of, but), now_ms);
        }
        if !is_held || *held_in_use {
            match (copy, backup) {
                (Some((copy, key)), backup) if backup.as_ref().is_none_or(|b| copy < b.0) => {
                    self.copies.remove(&key);
                }
                (_, Some((_, key))) => drop(self.backups.remove(&key)),
                (_, None) => return false,
            }
            self.counts.evictions += 1;
        }
        true
    }
}
