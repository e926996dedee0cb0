//! The lock table: plain code, one transition per command. Time comes in as an argument, effects
//! go out as values; equal inputs give equal tables and equal bytes on every node.
//!
//! The caller passes times that never go back, calls [`Table::expire`] before the commands of an
//! entry, and performs the effects in order.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Name;
use super::command::{Acquire, Command, Effect, Mode, Outcome, Wait};
use super::deadlines::{Deadlines, Over};
use super::endings::Endings;
use super::holding::{Claim, Hold};
use super::limits::Limits;
use super::owners::Owners;
use super::requests::{Became, Remembered, Requests};
use super::waiting::{Place, Waiter};
use crate::ids::Token;

/// All locks, their holders and waiters, and what is remembered of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub(super) limits: Limits,
    /// The newest token; the next grant gets the one after it.
    pub(super) last_token: Token,
    pub(super) last_place: Place,
    /// Every resource that is held or waited for, and no other.
    pub(super) locks: BTreeMap<Name, Lock>,
    pub(super) holds: BTreeMap<Token, Hold>,
    pub(super) waits: BTreeMap<Place, Waiter>,
    pub(super) owners: Owners,
    pub(super) requests: Requests,
    pub(super) deadlines: Deadlines,
    pub(super) endings: Endings,
}

/// One resource. Its first waiter is incompatible with its holders: anybody else would have been
/// let through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lock {
    /// How its holders hold it; without holders it says nothing.
    pub(super) mode: Mode,
    pub(super) holders: BTreeSet<Token>,
    /// In the order of service.
    pub(super) queue: BTreeMap<Place, Mode>,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Grants that have not ended.
    pub held: u64,
    pub waiting: u64,
    /// Resources that are held or waited for.
    pub resources: u64,
    /// Owners that hold, wait or have remembered requests.
    pub owners: u64,
    /// Remembered request ids.
    pub request_ids: u64,
}

impl Table {
    pub fn new(limits: Limits) -> Self {
        Table {
            limits,
            ..Table::default()
        }
    }

    /// Runs one command at `now_ms`. What is over on the resources that it touches ends first, so
    /// that nothing over is treated as live even if [`expire`](Self::expire) left it behind.
    pub fn apply(&mut self, now_ms: u64, command: &Command, effects: &mut Vec<Effect>) -> Outcome {
        match command {
            Command::Acquire(request) => self.acquire(now_ms, request, effects),
            Command::Release { resource, token } => {
                self.settle(now_ms, resource, effects);
                self.release(now_ms, resource, *token, effects)
            }
            Command::Renew {
                resource,
                token,
                ttl_ms,
            } => {
                self.settle(now_ms, resource, effects);
                self.renew(now_ms, resource, *token, *ttl_ms)
            }
        }
    }

    /// Ends the leases and waits that are over at `now_ms`, in the order of their deadlines (waits
    /// before leases, then by age), and forgets request ids; at most
    /// [`Limits::endings_per_entry`] of each. The rest follows with the next call.
    pub fn expire(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        for _ in 0..self.limits.endings_per_entry {
            let Some(over) = self.deadlines.first_over(now_ms) else {
                break;
            };
            self.end_over(now_ms, over, effects);
        }
        for _ in 0..self.limits.endings_per_entry {
            let Some(owner) = self.requests.forget_next(now_ms) else {
                break;
            };
            self.owners.leave(&owner, |owner| owner.requests -= 1);
        }
        self.endings.trim(now_ms);
    }

    /// A leader begins its term: no lease ends within `grace_ms`, since holders could not renew
    /// while there was no leader. Waits are not prolonged.
    pub fn start_term(&mut self, now_ms: u64, grace_ms: u64) {
        self.deadlines
            .raise_lease_floor(now_ms.saturating_add(grace_ms));
    }

    /// When the next lease or wait ends: an entry is due then, if there is no other traffic.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.next_ms()
    }

    /// When the next request id may be forgotten. No entry is due for that: any later one will do.
    pub fn next_forgetting(&self) -> Option<u64> {
        self.requests.next_forgetting_ms()
    }

    pub fn counts(&self) -> Counts {
        Counts {
            held: self.holds.len() as u64,
            waiting: self.waits.len() as u64,
            resources: self.locks.len() as u64,
            owners: self.owners.len() as u64,
            request_ids: self.requests.len() as u64,
        }
    }

    fn acquire(&mut self, now_ms: u64, request: &Acquire, effects: &mut Vec<Effect>) -> Outcome {
        self.settle(now_ms, &request.resource, effects);
        let claim = Claim::of(request);
        self.settle_wait_of(now_ms, &claim.owner, effects);
        if let Some(id) = &claim.request_id {
            if let Some(known) = self.requests.find(&claim.owner, id).cloned() {
                return self.repeat(now_ms, request, &known, effects);
            }
            if let Some(refusal) =
                over_limit("request_ids", self.requests.len(), self.limits.request_ids)
            {
                return refusal;
            }
        }
        if let Some(token) = self.token_of(&claim.owner, &claim.resource) {
            return self.acquire_again(now_ms, token, &claim);
        }
        if self.is_free_for(&claim) {
            return match self.claims_over_limit(&claim.resource) {
                Some(refusal) => refusal,
                None => Outcome::Acquired(self.grant(now_ms, claim, 0, effects)),
            };
        }
        match effective_wait(request) {
            Some(wait) => self.start_wait(now_ms, claim, (wait, request.on_deadlock), effects),
            None => Outcome::Held(self.contention(now_ms, &claim.resource)),
        }
    }

    /// Answers the repeat of a remembered request from the current state. Nothing here adds an
    /// edge to the wait-for graph, so no cycle has to be looked for: a place in the queue is kept
    /// or given up, and a hold stays as it is.
    fn repeat(
        &mut self,
        now_ms: u64,
        request: &Acquire,
        known: &Remembered,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let differs = if *known.resource != *request.resource {
            Some("resource")
        } else if known.mode != request.mode {
            Some("mode")
        } else {
            None
        };
        if let Some(field) = differs {
            return Outcome::RequestMismatch {
                field: field.to_owned(),
            };
        }
        match (known.became, effective_wait(request)) {
            (Became::Ended { .. }, _) => Outcome::NotHolder,
            (Became::Held(token), _) => Outcome::Acquired(self.acquired(now_ms, token)),
            (Became::Waiting(place), Some(wait)) => self.reattach(now_ms, place, wait),
            (Became::Waiting(place), None) => self.give_up(now_ms, place, effects),
        }
    }

    /// Ends what is over on one resource. There is something over only after a mass expiry, so
    /// that the walk over the resource is rare.
    fn settle(&mut self, now_ms: u64, resource: &str, effects: &mut Vec<Effect>) {
        if self.deadlines.first_over(now_ms).is_none() {
            return;
        }
        let Some(lock) = self.locks.get(resource) else {
            return;
        };
        let leases = lock.holders.iter().map(|&token| {
            let end_ms = self.deadlines.lease_end_ms(self.holds[&token].deadline_ms);
            (end_ms, Over::Lease(token))
        });
        let waits = lock
            .queue
            .keys()
            .map(|&place| (self.waits[&place].deadline_ms, Over::Wait(place)));
        let mut over: Vec<_> = leases
            .chain(waits)
            .filter(|&(end_ms, _)| end_ms <= now_ms)
            .collect();
        over.sort_unstable();
        for (_, over) in over {
            self.end_over(now_ms, over, effects);
        }
    }

    fn settle_wait_of(&mut self, now_ms: u64, owner: &Name, effects: &mut Vec<Effect>) {
        if self.deadlines.first_over(now_ms).is_none() {
            return;
        }
        if let Some(place) = self.owners.get(owner).and_then(|owner| owner.waiting) {
            let resource = self.waits[&place].claim.resource.clone();
            self.settle(now_ms, &resource, effects);
        }
    }

    /// Ends a lease or a wait whose time has come, unless it has ended meanwhile.
    fn end_over(&mut self, now_ms: u64, over: Over, effects: &mut Vec<Effect>) {
        match over {
            Over::Lease(token) if self.holds.contains_key(&token) => {
                self.expire_hold(now_ms, token, effects);
            }
            Over::Wait(place) if self.waits.contains_key(&place) => {
                let resource = self.waits[&place].claim.resource.clone();
                self.time_out(now_ms, place, effects);
                self.let_through(now_ms, &resource, effects);
            }
            Over::Lease(_) | Over::Wait(_) => {}
        }
    }

    fn is_free_for(&self, claim: &Claim) -> bool {
        self.locks
            .get(&claim.resource)
            .is_none_or(|lock| lock.queue.is_empty() && lock.admits(claim.mode))
    }

    pub(super) fn claims_over_limit(&self, resource: &str) -> Option<Outcome> {
        let here = self
            .locks
            .get(resource)
            .map_or(0, |lock| lock.holders.len() + lock.queue.len());
        let everywhere = self.holds.len() + self.waits.len();
        over_limit("claims", everywhere, self.limits.claims)
            .or_else(|| over_limit("claims_per_resource", here, self.limits.claims_per_resource))
    }
}

impl Lock {
    pub(super) fn new(mode: Mode) -> Self {
        Lock {
            mode,
            holders: BTreeSet::new(),
            queue: BTreeMap::new(),
        }
    }

    /// Whether the holders leave room for one more in this mode; who waits is not looked at.
    pub(super) fn admits(&self, mode: Mode) -> bool {
        self.holders.is_empty() || (self.mode == Mode::Shared && mode == Mode::Shared)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.queue.is_empty()
    }
}

/// A wait of no time is a try.
fn effective_wait(request: &Acquire) -> Option<&Wait> {
    request.wait.as_ref().filter(|wait| wait.wait_ms > 0)
}

/// The refusal, if one more would be too many.
pub(super) fn over_limit(what: &str, count: usize, limit: u64) -> Option<Outcome> {
    (count as u64 >= limit).then(|| Outcome::Overloaded {
        what: what.to_owned(),
        limit,
    })
}
