//! The lock table: plain code, one transition per command. Time comes in as an argument, effects
//! go out as values; equal inputs give equal tables and equal bytes on every node.
//!
//! The caller passes times that never go back, calls [`Table::expire`] before the commands of an
//! entry, and performs the effects in order.

use std::collections::BTreeMap;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::Name;
use super::claim::{Claim, Grip, Wants};
use super::command::{Acquire, Command, Grace, Wait};
use super::deadlines::{Deadlines, Over};
use super::endings::Endings;
use super::event::Effect;
use super::holding::{End, Hold};
use super::limits::Limits;
use super::outcome::Outcome;
use super::owners::Owners;
use super::recent_deadlocks::RecentDeadlocks;
use super::requests::{Became, Remembered, Requests};
use super::resource::Lock;
use super::sessions::Sessions;
use super::tenants::Tenants;
use super::waiting::{Place, Waiter};
use super::weighed::Weighed;
use crate::ids::Token;
use crate::protocol::Tenant;

/// All locks, their holders and waiters, the sessions, and what is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub(super) limits: Limits,
    /// How many terms have begun.
    pub(super) terms: u64,
    /// The newest token; the next grant gets the one after it.
    pub(super) last_token: Token,
    /// The number of the newest wait.
    pub(super) last_place: u64,
    /// Every resource that is held, waited for or closed for a while, and no other.
    pub(super) locks: OrdMap<Name, Lock>,
    pub(super) holds: Weighed<Token, Hold>,
    pub(super) waits: Weighed<Place, Waiter>,
    /// How many waits each tenant has, of those that have any.
    pub(super) tenants_waits: BTreeMap<Tenant, u64>,
    /// From the token that a hold had to the one that its conversion gave it.
    pub(super) converted: OrdMap<Token, Token>,
    pub(super) owners: Owners,
    pub(super) sessions: Sessions,
    pub(super) requests: Requests,
    pub(super) deadlines: Deadlines,
    pub(super) endings: Endings,
    pub(super) deadlocks: RecentDeadlocks,
    /// How much else each tenant has.
    #[serde(default, skip_serializing_if = "Tenants::is_empty")]
    pub(super) tenants: Tenants,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Grants that have not ended.
    pub held: u64,
    pub waiting: u64,
    /// Resources that are held or waited for, or closed for a while.
    pub resources: u64,
    /// Owners that hold, wait or have remembered requests.
    pub owners: u64,
    pub sessions: u64,
    /// Remembered request ids.
    pub request_ids: u64,
}

impl Table {
    /// A table with other limits, as in a term of today's leaders.
    pub fn new(limits: Limits) -> Self {
        Table {
            limits: Limits {
                by_weight: true,
                ..limits
            },
            ..Table::default()
        }
    }

    /// Runs one command at `now_ms`. What is over on the resources that it touches ends first, so
    /// that nothing over is treated as live even if [`expire`](Self::expire) left it behind.
    pub fn apply(&mut self, now_ms: u64, command: &Command, effects: &mut Vec<Effect>) -> Outcome {
        match command {
            Command::Acquire(request) => self.acquire(now_ms, request, effects),
            Command::Release {
                resource,
                token,
                tenant,
            } => {
                let named = (resource.as_ref(), *token);
                self.release(now_ms, named, tenant.as_ref(), effects)
            }
            Command::Renew {
                resource,
                token,
                tenant,
                ttl_ms,
            } => {
                let named = (resource.as_ref(), *token);
                self.renew(now_ms, named, (*ttl_ms, tenant.as_ref()), effects)
            }
            Command::Convert(request) => self.convert(now_ms, request, effects),
            Command::Cancel {
                resource,
                owner,
                request_id,
                session,
            } => {
                let request = (request_id.as_ref(), session.as_ref());
                self.cancel(now_ms, (resource, owner), request, effects)
            }
            Command::GiveBack { token } => self.give_back(now_ms, *token, effects),
            Command::OpenSession(request) => self.open_session(now_ms, request, effects),
            Command::KeepAlive { sessions } => self.keep_alive(now_ms, sessions),
            Command::CloseSession { session, reason } => {
                self.close_session(now_ms, (session, reason.as_ref()), effects)
            }
            Command::ForceRelease {
                resource,
                token,
                reason,
            } => self.force_release(now_ms, (resource, *token), reason, effects),
        }
    }

    /// Ends the leases, waits, sessions and lock delays that are over at `now_ms`, in the order of
    /// their deadlines (waits before leases, then by age), and forgets what is remembered; at most
    /// [`Limits::endings_per_entry`] of each. The rest follows with the next call.
    pub fn expire(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        for _ in 0..self.limits.endings_per_entry {
            let Some(over) = self.deadlines.first_over(now_ms) else {
                break;
            };
            self.end_over(now_ms, over, effects);
        }
        for _ in 0..self.limits.endings_per_entry {
            let Some((owner, known)) = self.requests.forget_next(now_ms) else {
                break;
            };
            self.owners.leave(&owner, |owner| owner.requests -= 1);
            self.tenants
                .count(known.tenant.as_ref(), |owned| owned.request_ids -= 1);
        }
        for _ in 0..self.limits.endings_per_entry {
            if !self.sessions.forget_next(now_ms) {
                break;
            }
        }
        self.endings.trim(now_ms);
    }

    /// A leader begins its term: no lease ends within the grace, since holders could not renew while
    /// there was no leader. Waits are not prolonged.
    pub fn start_term(&mut self, now_ms: u64, grace: Grace) {
        self.terms += 1;
        if grace.keeps_over {
            self.deadlines.keep_over(now_ms);
            // Leaders that say so know of weights, too.
            self.limits.by_weight = true;
        }
        self.deadlines
            .raise_lease_floor(now_ms.saturating_add(grace.ms));
    }

    /// When the next lease, wait, session or lock delay ends: an entry is due then, if there is no
    /// other traffic.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.next_ms()
    }

    /// When the next request id may be forgotten. No entry is due for that: any later one will do.
    pub fn next_forgetting(&self) -> Option<u64> {
        self.requests.next_forgetting_ms()
    }

    /// The newest token that was granted.
    pub fn last_token(&self) -> Token {
        self.last_token
    }

    /// Leaves out the next so many tokens.
    pub fn skip_tokens(&mut self, count: u64) {
        self.last_token.0 += count;
    }

    pub fn counts(&self) -> Counts {
        Counts {
            held: self.holds.len() as u64,
            waiting: self.waits.len() as u64,
            resources: self.locks.len() as u64,
            owners: self.owners.len() as u64,
            sessions: self.sessions.len() as u64,
            request_ids: self.requests.len() as u64,
        }
    }

    fn acquire(&mut self, now_ms: u64, request: &Acquire, effects: &mut Vec<Effect>) -> Outcome {
        for want in request.wants.iter() {
            self.settle(now_ms, &want.resource, effects);
        }
        self.settle_wait_of(now_ms, &request.owner, effects);
        if let Some(id) = &request.request_id {
            if let Some(known) = self.requests.find(&request.owner, id).cloned() {
                return self.repeat(now_ms, request, &known, effects);
            }
            if let Some(refusal) = self.request_ids_over_limit(request) {
                return refusal;
            }
        }
        let session = request.session.as_ref();
        if let Some(refusal) = session.and_then(|id| self.session_refusal(now_ms, id)) {
            return refusal;
        }
        let claim = Claim::of(request);
        if let Some(answer) = self.answer_to_holder(now_ms, &claim) {
            return answer;
        }
        if let Some(refusal) = self.limit_mismatch(&claim) {
            return refusal;
        }
        let Some(blocking) = self.blocking(now_ms, &claim) else {
            return match self.claims_over_limit(&claim) {
                Some(refusal) => refusal,
                None => Outcome::Acquired(self.grant(now_ms, claim, None, effects)),
            };
        };
        match effective_wait(request) {
            Some(wait) => {
                let how = (wait, request.on_deadlock);
                self.start_wait(now_ms, (claim, None), how, effects)
            }
            None => Outcome::Held(self.contention(now_ms, blocking)),
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
        let field = difference(&known.wants, &request.wants).or_else(|| {
            // What a session that its client has given up holds is not what the repeat asks for.
            let session = self.session_of(known.became)?;
            (*session != request.session).then_some("session")
        });
        if let Some(field) = field {
            return Outcome::RequestMismatch {
                field: field.to_owned(),
            };
        }
        match (known.became, effective_wait(request)) {
            (Became::Ended { .. }, _) => Outcome::NotHolder,
            (Became::Held(token), _) => {
                self.hold_mut(&token).unheard_in = None;
                Outcome::Acquired(self.acquired(now_ms, token))
            }
            (Became::Waiting(place), Some(wait)) => self.reattach(now_ms, place, wait),
            (Became::Waiting(place), None) => {
                self.give_up(now_ms, (place, request.wait.as_ref()), effects)
            }
        }
    }

    /// The session with which what became of a request ends, while it lives.
    fn session_of(&self, became: Became) -> Option<&Option<Name>> {
        match became {
            Became::Held(token) => Some(&self.holds[&token].claim.session),
            Became::Waiting(place) => Some(&self.waits[&place].claim.session),
            Became::Ended { .. } => None,
        }
    }

    /// What an owner is told that holds some of what it asks for, or waits for it: exactly what it
    /// holds is its again; anything else is refused, or a cycle could come to be without a wait.
    fn answer_to_holder(&mut self, now_ms: u64, claim: &Claim) -> Option<Outcome> {
        let owner = self.owners.get(&claim.owner)?;
        for want in claim.wants.iter() {
            let Some(&token) = owner.holds.get(&want.resource) else {
                continue;
            };
            let held = &self.holds[&token].claim.wants;
            if *held == claim.wants {
                return Some(self.acquire_again(now_ms, token, claim));
            }
            let grip = held.grip_of(&want.resource).expect("it is held");
            return Some(Outcome::ModeConflict {
                resource: want.resource.clone(),
                held: grip.mode(),
                token,
            });
        }
        let place = owner.waiting?;
        let waits_for = &self.waits[&place].claim.wants;
        let mut both = claim.wants.iter();
        let overlaps = both.any(|want| waits_for.grip_of(&want.resource).is_some());
        // A try for something else is no second blocked request.
        (overlaps && waits_for.is_set()).then(|| self.already_waiting(place))
    }

    fn limit_mismatch(&self, claim: &Claim) -> Option<Outcome> {
        claim.wants.iter().find_map(|want| {
            let Grip::Permits { .. } = want.grip else {
                return None;
            };
            let limit = self.locks.get(&want.resource)?.other_limit(want.grip)?;
            let resource = want.resource.clone();
            Some(Outcome::LimitMismatch { resource, limit })
        })
    }

    /// The first resource that keeps a new claim from being granted.
    fn blocking<'a>(&self, now_ms: u64, claim: &'a Claim) -> Option<&'a Name> {
        let mut wants = claim.wants.iter();
        let blocked = wants.find(|want| {
            self.locks.get(&want.resource).is_some_and(|lock| {
                !lock.admits(want.grip, now_ms) || !lock.may_pass(want.grip, Place::LAST)
            })
        });
        blocked.map(|want| &want.resource)
    }

    /// Ends what is over on one resource. There is something over only after a mass expiry, so
    /// that the walk over the resource is rare.
    pub(super) fn settle(&mut self, now_ms: u64, resource: &Name, effects: &mut Vec<Effect>) {
        if !self.deadlines.is_any_over(now_ms) {
            return;
        }
        let Some(lock) = self.locks.get(resource) else {
            return;
        };
        let leases = lock
            .holders
            .iter()
            .map(|&token| (self.hold_end_ms(&self.holds[&token]), Over::Lease(token)));
        let waits = lock
            .waiters()
            .map(|place| (self.wait_end_ms(&self.waits[&place]), Over::Wait(place)));
        let delay = lock
            .closed_until_ms
            .map(|until_ms| (until_ms, Over::Delay(resource.clone())));
        let mut over: Vec<_> = leases
            .chain(waits)
            .chain(delay)
            .filter(|(end_ms, _)| *end_ms <= now_ms)
            .collect();
        over.sort_unstable();
        for (_, over) in over {
            self.end_over(now_ms, over, effects);
        }
    }

    /// The same for all that a token stands for.
    pub(super) fn settle_hold(&mut self, now_ms: u64, token: Token, effects: &mut Vec<Effect>) {
        if !self.deadlines.is_any_over(now_ms) {
            return;
        }
        if let Some(wants) = self.holds.get(&token).map(|hold| hold.claim.wants.clone()) {
            for want in wants.iter() {
                self.settle(now_ms, &want.resource, effects);
            }
        }
    }

    fn settle_wait_of(&mut self, now_ms: u64, owner: &Name, effects: &mut Vec<Effect>) {
        if !self.deadlines.is_any_over(now_ms) {
            return;
        }
        if let Some(place) = self.owners.get(owner).and_then(|owner| owner.waiting)
            && self.is_wait_over(&self.waits[&place], now_ms)
        {
            self.end_over(now_ms, Over::Wait(place), effects);
        }
    }

    /// Ends something whose time has come, unless it has ended meanwhile.
    fn end_over(&mut self, now_ms: u64, over: Over, effects: &mut Vec<Effect>) {
        match over {
            Over::Lease(token) => {
                if let Some(hold) = self.holds.get(&token) {
                    let how = match &hold.claim.session {
                        Some(id) if self.sessions.is_over(id, now_ms, &self.deadlines) => {
                            self.end_of_holds(id)
                        }
                        _ => End::Expired,
                    };
                    self.end(now_ms, token, &how, effects);
                }
            }
            Over::Wait(place) => {
                if self.waits.contains_key(&place) {
                    let outcome = self.outcome_of_over(now_ms, place);
                    self.end_wait(now_ms, place, outcome, effects);
                }
            }
            Over::Session(id) => self.expire_session(now_ms, &id, effects),
            Over::Delay(resource) => {
                let Some(lock) = self.locks.get_mut(&resource) else {
                    return;
                };
                self.deadlines.open(lock, &resource);
                if lock.is_idle() {
                    self.locks.remove(&resource);
                } else {
                    let wants = Wants::one(resource, Grip::Shared);
                    self.let_through(now_ms, &wants, effects);
                }
            }
        }
    }
}

/// A wait of no time is a try.
fn effective_wait(request: &Acquire) -> Option<&Wait> {
    request.wait.as_ref().filter(|wait| wait.wait_ms > 0)
}

/// The field in which a repeat differs from the request that it repeats.
fn difference(known: &Wants, asked: &Wants) -> Option<&'static str> {
    if known.is_set() || asked.is_set() {
        return (known != asked).then_some("resources");
    }
    let (known, asked) = (&known.as_slice()[0], &asked.as_slice()[0]);
    if known.resource != asked.resource {
        Some("resource")
    } else if known.grip.mode() != asked.grip.mode() {
        Some("mode")
    } else if known.grip.permits() != asked.grip.permits() {
        Some("permits")
    } else {
        (known.grip != asked.grip).then_some("limit")
    }
}
