//! When leases, waits, sessions and lock delays end: the only index by time.

use imbl::OrdSet;
use serde::{Deserialize, Serialize};

use super::Name;
use super::resource::Lock;
use super::waiting::Place;
use crate::ids::Token;

/// The deadlines of all holds, waits, sessions and lock delays. What ends *at* a moment is over at
/// that moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Deadlines {
    leases: OrdSet<(u64, Token)>,
    waits: OrdSet<(u64, Place)>,
    sessions: OrdSet<(u64, Name)>,
    /// Sessions that are over and not yet gone: due at any time, and first.
    ending: OrdSet<Name>,
    delays: OrdSet<(u64, Name)>,
    /// No lease and no session ends before this moment, whatever its own deadline says. One number
    /// instead of a walk over all leases at the start of a term.
    lease_floor_ms: u64,
    /// Leases and sessions with a deadline before this moment were over when a term began: the floor does not bring
    /// them back.
    #[serde(default)]
    over_before_ms: u64,
}

/// Something whose time has come. At the same deadline waits come first, so that a wait which
/// ends together with the lease before it is not granted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Over {
    Wait(Place),
    Lease(Token),
    Session(Name),
    /// The lock delay of a resource.
    Delay(Name),
}

impl Deadlines {
    pub(super) fn add_lease(&mut self, deadline_ms: u64, token: Token) {
        self.leases.insert((deadline_ms, token));
    }

    pub(super) fn remove_lease(&mut self, deadline_ms: u64, token: Token) {
        let known = self.leases.remove(&(deadline_ms, token));
        assert!(
            known.is_some(),
            "the lease of token {token} has no deadline"
        );
    }

    pub(super) fn add_wait(&mut self, deadline_ms: u64, place: Place) {
        self.waits.insert((deadline_ms, place));
    }

    pub(super) fn remove_wait(&mut self, deadline_ms: u64, place: Place) {
        let known = self.waits.remove(&(deadline_ms, place));
        assert!(
            known.is_some(),
            "the wait at place {place:?} has no deadline"
        );
    }

    pub(super) fn add_session(&mut self, deadline_ms: u64, id: &Name) {
        self.sessions.insert((deadline_ms, id.clone()));
    }

    pub(super) fn remove_session(&mut self, deadline_ms: u64, id: &Name) {
        let known = self.sessions.remove(&(deadline_ms, id.clone()));
        assert!(known.is_some(), "session {id} has no deadline");
    }

    pub(super) fn add_ending(&mut self, id: &Name) {
        self.ending.insert(id.clone());
    }

    pub(super) fn remove_ending(&mut self, id: &Name) {
        let known = self.ending.remove(id);
        assert!(known.is_some(), "session {id} is not ending");
    }

    /// Nobody gets the resource before `until_ms`; an earlier moment does not replace a later one.
    pub(super) fn close(&mut self, lock: &mut Lock, resource: &Name, until_ms: u64) {
        let before_ms = lock.closed_until_ms.unwrap_or(0);
        if before_ms < until_ms {
            self.delays.remove(&(before_ms, resource.clone()));
            self.delays.insert((until_ms, resource.clone()));
            lock.closed_until_ms = Some(until_ms);
        }
    }

    /// How many resources are closed for a while.
    pub(super) fn closed(&self) -> usize {
        self.delays.len()
    }

    /// The lock delay is over.
    pub(super) fn open(&mut self, lock: &mut Lock, resource: &Name) {
        if let Some(until_ms) = lock.closed_until_ms.take() {
            let known = self.delays.remove(&(until_ms, resource.clone()));
            assert!(known.is_some(), "the delay of {resource} has no deadline");
        }
    }

    /// No lease ends before `floor_ms`; an earlier floor is not lowered by a later one.
    pub(super) fn raise_lease_floor(&mut self, floor_ms: u64) {
        self.lease_floor_ms = self.lease_floor_ms.max(floor_ms);
    }

    /// What is over at `now_ms` stays over, although the floor is raised next. To be called before.
    pub(super) fn keep_over(&mut self, now_ms: u64) {
        // Else nothing is over: all of it ends at the floor or later.
        if self.lease_floor_ms <= now_ms {
            self.over_before_ms = now_ms + 1;
        }
    }

    /// When a lease or a session with this deadline really ends.
    pub(super) fn lease_end_ms(&self, deadline_ms: u64) -> u64 {
        match deadline_ms < self.over_before_ms {
            true => deadline_ms,
            false => deadline_ms.max(self.lease_floor_ms),
        }
    }

    /// The same moments, of nothing yet.
    #[cfg(test)]
    pub(super) fn emptied(&self) -> Self {
        Deadlines {
            lease_floor_ms: self.lease_floor_ms,
            over_before_ms: self.over_before_ms,
            ..Deadlines::default()
        }
    }

    /// The earliest end of anything.
    pub(super) fn next_ms(&self) -> Option<u64> {
        if !self.ending.is_empty() {
            return Some(0);
        }
        let waits = self.waits.get_min().map(|(at, _)| *at);
        let leases = self.leases.get_min().map(|(at, _)| self.lease_end_ms(*at));
        let sessions = self
            .sessions
            .get_min()
            .map(|(at, _)| self.lease_end_ms(*at));
        let delays = self.delays.get_min().map(|(at, _)| *at);
        [waits, leases, sessions, delays]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether anything is over at `now_ms`.
    pub(super) fn is_any_over(&self, now_ms: u64) -> bool {
        self.next_ms().is_some_and(|next_ms| next_ms <= now_ms)
    }

    /// What ends first, if it is over at `now_ms`.
    pub(super) fn first_over(&self, now_ms: u64) -> Option<Over> {
        if let Some(id) = self.ending.get_min() {
            return Some(Over::Session(id.clone()));
        }
        let next_ms = self.next_ms().filter(|next_ms| *next_ms <= now_ms)?;
        if let Some((at, place)) = self.waits.get_min()
            && *at == next_ms
        {
            return Some(Over::Wait(*place));
        }
        if let Some((at, token)) = self.leases.get_min()
            && self.lease_end_ms(*at) == next_ms
        {
            return Some(Over::Lease(*token));
        }
        if let Some((at, id)) = self.sessions.get_min()
            && self.lease_end_ms(*at) == next_ms
        {
            return Some(Over::Session(id.clone()));
        }
        self.delays
            .get_min()
            .map(|(_, resource)| Over::Delay(resource.clone()))
    }
}
