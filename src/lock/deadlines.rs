//! When leases and waits end: the only index by time.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::waiting::Place;
use crate::ids::Token;

/// The deadlines of all holds and waits. What ends *at* a moment is over at that moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Deadlines {
    leases: BTreeSet<(u64, Token)>,
    waits: BTreeSet<(u64, Place)>,
    /// No lease ends before this moment, whatever its own deadline says. One number instead of a
    /// walk over all leases at the start of a term.
    lease_floor_ms: u64,
}

/// Something whose time has come. At the same deadline waits come first, so that a wait which
/// ends together with the lease before it is not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Over {
    Wait(Place),
    Lease(Token),
}

impl Deadlines {
    pub(super) fn add_lease(&mut self, deadline_ms: u64, token: Token) {
        self.leases.insert((deadline_ms, token));
    }

    pub(super) fn remove_lease(&mut self, deadline_ms: u64, token: Token) {
        let known = self.leases.remove(&(deadline_ms, token));
        assert!(known, "the lease of token {token} has no deadline");
    }

    pub(super) fn add_wait(&mut self, deadline_ms: u64, place: Place) {
        self.waits.insert((deadline_ms, place));
    }

    pub(super) fn remove_wait(&mut self, deadline_ms: u64, place: Place) {
        let known = self.waits.remove(&(deadline_ms, place));
        assert!(known, "the wait at place {place:?} has no deadline");
    }

    /// No lease ends before `floor_ms`; an earlier floor is not lowered by a later one.
    pub(super) fn raise_lease_floor(&mut self, floor_ms: u64) {
        self.lease_floor_ms = self.lease_floor_ms.max(floor_ms);
    }

    /// When a lease with this deadline really ends.
    pub(super) fn lease_end_ms(&self, deadline_ms: u64) -> u64 {
        deadline_ms.max(self.lease_floor_ms)
    }

    /// The earliest end of a lease or a wait.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.first().map(|(deadline_ms, _)| deadline_ms)
    }

    /// What ends first, if it is over at `now_ms`.
    pub(super) fn first_over(&self, now_ms: u64) -> Option<Over> {
        let (deadline_ms, over) = self.first()?;
        (deadline_ms <= now_ms).then_some(over)
    }

    fn first(&self) -> Option<(u64, Over)> {
        let wait = self
            .waits
            .first()
            .map(|&(at, place)| (at, Over::Wait(place)));
        let lease = self
            .leases
            .first()
            .map(|&(at, token)| (self.lease_end_ms(at), Over::Lease(token)));
        match (wait, lease) {
            (Some(wait), Some(lease)) => Some(wait.min(lease)),
            (wait, lease) => wait.or(lease),
        }
    }
}
