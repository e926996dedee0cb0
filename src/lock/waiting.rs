//! How a wait starts, is taken over by a repeat of its request, and ends.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Name;
use super::claim::{Claim, Wants};
use super::command::{DeadlockPolicy, Wait};
use super::event::{Effect, Event};
use super::outcome::{Deadlock, Outcome};
use super::requests::Became;
use super::resource::Lock;
use super::room::over_limit;
use super::table::Table;
use super::wait_graph::cycle_through;
use super::weight::bytes_of_reply;
use crate::ids::Token;
use crate::protocol::{ReplyTo, Tenant};

/// A place in every queue that its wait stands in: conversions before all others, else numbered
/// over all resources in the order in which the waits started.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub(super) struct Place {
    /// False for a conversion.
    arrived: bool,
    number: u64,
}

impl Place {
    /// Before all others; nobody stands there.
    pub(super) const FIRST: Place = Place {
        arrived: false,
        number: 0,
    };
    /// Behind all others; nobody stands there.
    pub(super) const LAST: Place = Place {
        arrived: true,
        number: u64::MAX,
    };
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiter {
    /// What is wanted; of a conversion, the resource in its new mode.
    pub(super) claim: Claim,
    /// The hold that is to be converted.
    pub(super) converts: Option<Token>,
    /// Who is told at the end: the latest repeat of the request.
    pub(super) reply: ReplyTo,
    pub(super) since_ms: u64,
    pub(super) deadline_ms: u64,
}

impl Table {
    /// Puts a claim that cannot be granted now into its queues, unless its owner waits already, a
    /// bound is reached, or it would wait for itself.
    ///
    /// When the policy ends other waits instead, this one may be let through at once: the effect
    /// that its wait ended is then among the effects already.
    pub(super) fn start_wait(
        &mut self,
        now_ms: u64,
        (claim, converts): (Claim, Option<Token>),
        (wait, policy): (&Wait, DeadlockPolicy),
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        if let Some(refusal) = self.wait_refusal(&claim, wait.reply.tenant.as_ref()) {
            return refusal;
        }
        let (wants, owner) = (claim.wants.clone(), claim.owner.clone());
        let place = self.enqueue(now_ms, (claim, converts), wait);
        if self.is_waited_for(&owner)
            && let Some(deadlock) = self.break_cycles(now_ms, place, policy, effects)
        {
            self.drop_waiter(place);
            self.let_through(now_ms, &wants, effects);
            return Outcome::Deadlock(deadlock);
        }
        if self.waits.contains_key(&place) {
            let contended = self.blocked_on(&self.waits[&place], place, now_ms);
            let resource = contended.expect("a waiter is blocked").clone();
            effects.push(Effect::Event(Event::Contended {
                queue_length: self.locks[&resource].queue_len() as u64,
                resource,
                owner,
            }));
        }
        Outcome::Waiting
    }

    /// The wait goes on for its repeat: same place, new reply subject, and the time to wait starts
    /// again. Who asked before is told nothing, since nothing is decided: told so at once, two who ask for
    /// the same again and again would take the place from each other without end.
    pub(super) fn reattach(&mut self, now_ms: u64, place: Place, wait: &Wait) -> Outcome {
        let waiter = &self.waits[&place];
        let more = bytes_of_reply(&wait.reply).saturating_sub(bytes_of_reply(&waiter.reply));
        if let Some(refusal) = self.bytes_over_limit(waiter.claim.tenant.as_ref(), more) {
            return refusal;
        }
        let mut waiter = self.waits.get_mut(&place).expect("the wait exists");
        self.deadlines.remove_wait(waiter.deadline_ms, place);
        waiter.deadline_ms = now_ms.saturating_add(wait.wait_ms);
        self.deadlines.add_wait(waiter.deadline_ms, place);
        let before = std::mem::replace(&mut waiter.reply, wait.reply.clone());
        drop(waiter);
        self.count_wait(wait.reply.tenant.as_ref());
        self.discount_wait(before.tenant.as_ref());
        Outcome::Waiting
    }

    /// The repeat of a waiting request does not want to wait any more: the place is given up, and
    /// the repeat is told who holds the lock. A place that nobody listens for would end as a grant
    /// that nobody releases. Who asked before is told that the wait is over, unless the repeat is
    /// answered there.
    pub(super) fn give_up(
        &mut self,
        now_ms: u64,
        (place, repeat): (Place, Option<&Wait>),
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let contention = self.contention_of(now_ms, place);
        let waiter = self.drop_waiter(place);
        if repeat.is_none_or(|repeat| repeat.reply.subject != waiter.reply.subject) {
            // Not kept for a new leader: an entry that gives up a place makes the state that it always made.
            effects.push(Effect::WaitEnded {
                reply: waiter.reply.clone(),
                waited_ms: now_ms.saturating_sub(waiter.since_ms),
                converts: waiter.converts,
                outcome: Outcome::WaitCancelled {
                    resource: contention.resource.clone(),
                },
            });
        }
        self.let_through(now_ms, &waiter.claim.wants, effects);
        Outcome::Held(contention)
    }

    /// `lock.cancel`: ends the wait of this owner for the resource, of this request and with this session
    /// if they are named; tells the token if the request has been granted instead.
    pub(super) fn cancel(
        &mut self,
        now_ms: u64,
        (resource, owner): (&Name, &Name),
        (request_id, session): (Option<&Name>, Option<&Name>),
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        self.settle(now_ms, resource, effects);
        let of_session = |claim: &Claim| session.is_none() || claim.session.as_ref() == session;
        let waiting = self.owners.get(owner).and_then(|owner| owner.waiting);
        let meant = |place: &Place| {
            let claim = &self.waits[place].claim;
            let same_id = request_id.is_none() || claim.request_id.as_ref() == request_id;
            same_id && of_session(claim) && claim.wants.grip_of(resource).is_some()
        };
        if let Some(place) = waiting.filter(meant) {
            let outcome = Outcome::WaitCancelled {
                resource: resource.clone(),
            };
            self.end_wait(now_ms, place, outcome, effects);
            return Outcome::Cancelled {
                cancelled: true,
                token: None,
            };
        }
        let held = match request_id.and_then(|id| self.requests.find(owner, id)) {
            Some(known) => {
                let is_meant = known.wants.grip_of(resource).is_some();
                known.became.token().filter(|_| is_meant)
            }
            None if request_id.is_none() => self.token_of(owner, resource),
            None => None,
        };
        Outcome::Cancelled {
            cancelled: false,
            token: held.filter(|token| of_session(&self.holds[token].claim)),
        }
    }

    /// Ends a wait without a grant, tells why, and lets others through.
    pub(super) fn end_wait(
        &mut self,
        now_ms: u64,
        place: Place,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        let waiter = self.drop_waiter(place);
        let wants = waiter.claim.wants.clone();
        self.tell(now_ms, &waiter, outcome, effects);
        self.let_through(now_ms, &wants, effects);
    }

    /// Why a wait whose time has come ends: its own time, or that of its session or hold.
    pub(super) fn outcome_of_over(&self, now_ms: u64, place: Place) -> Outcome {
        let waiter = &self.waits[&place];
        let is_gone = |token| !self.is_live(&self.holds[&token], now_ms);
        match &waiter.claim.session {
            Some(session) if self.sessions.is_over(session, now_ms, &self.deadlines) => {
                Outcome::SessionExpired {
                    session: session.clone(),
                }
            }
            _ if waiter.converts.is_some_and(is_gone) => Outcome::NotHolder,
            _ => Outcome::WaitTimeout(self.contention_of(now_ms, place)),
        }
    }

    /// Grants everything that has become grantable on these resources, in the order of the queues.
    /// A wait that is over ends on the way; what that frees elsewhere follows.
    pub(super) fn let_through(&mut self, now_ms: u64, wants: &Wants, effects: &mut Vec<Effect>) {
        let mut freed = Vec::new();
        for want in wants.iter() {
            self.serve(now_ms, &want.resource, &mut freed, effects);
        }
        while let Some(wants) = freed.pop() {
            for want in wants.iter() {
                self.serve(now_ms, &want.resource, &mut freed, effects);
            }
        }
    }

    /// Each step takes one waiter out of the queue or goes past one that waits for something else,
    /// so there are at most as many as waiters on the resource.
    fn serve(
        &mut self,
        now_ms: u64,
        resource: &Name,
        freed: &mut Vec<Wants>,
        effects: &mut Vec<Effect>,
    ) {
        let mut after = Place::FIRST;
        while let Some(lock) = self.locks.get(resource) {
            let Some((place, is_strong)) = lock.next_waiter(after) else {
                return;
            };
            let waiter = &self.waits[&place];
            if self.is_wait_over(waiter, now_ms) {
                let outcome = self.outcome_of_over(now_ms, place);
                let waiter = self.drop_waiter(place);
                self.tell(now_ms, &waiter, outcome, effects);
                if waiter.claim.wants.is_set() {
                    freed.push(waiter.claim.wants);
                }
            } else if self.blocked_on(waiter, place, now_ms).is_none() {
                // Permits may be left for those who stood behind it in its other queues.
                let wants = &waiter.claim.wants;
                freed.extend(wants.is_set().then(|| wants.clone()));
                self.grant_waiter(now_ms, place, effects);
            } else if is_strong || !lock.holders_admit(super::claim::Grip::Shared) {
                return;
            } else {
                after = place;
            }
        }
    }

    /// The first resource that keeps a waiter from being granted.
    pub(super) fn blocked_on<'a>(
        &self,
        waiter: &'a Waiter,
        place: Place,
        now_ms: u64,
    ) -> Option<&'a Name> {
        let blocks = |want: &&super::claim::Want| {
            let lock = &self.locks[&want.resource];
            let admitted = match waiter.converts {
                Some(token) => lock.admits_upgrade(token, now_ms),
                None => lock.admits(want.grip, now_ms),
            };
            !admitted || !lock.may_pass(want.grip, place)
        };
        let want = waiter.claim.wants.iter().find(blocks)?;
        Some(&want.resource)
    }

    fn wait_refusal(&self, claim: &Claim, tenant: Option<&Tenant>) -> Option<Outcome> {
        let owner = self.owners.get(&claim.owner);
        if let Some(place) = owner.and_then(|owner| owner.waiting) {
            return Some(self.already_waiting(place));
        }
        let limits = &self.limits;
        let mut refusal = over_limit("waiters", self.waits.len() as u64, 1, limits.waiters);
        if let Some(tenant) = tenant {
            let own = self.tenants_waits.get(tenant).copied().unwrap_or(0);
            let limit = limits.waiters_per_tenant;
            refusal = refusal.or_else(|| over_limit("waiters_per_tenant", own, 1, limit));
        }
        for want in claim.wants.iter() {
            let here = self.locks.get(&want.resource).map_or(0, Lock::queue_len);
            let limit = limits.waiters_per_resource;
            refusal = refusal.or_else(|| over_limit("waiters_per_resource", here as u64, 1, limit));
        }
        refusal.or_else(|| self.claims_over_limit(claim))
    }

    pub(super) fn already_waiting(&self, place: Place) -> Outcome {
        let wants = &self.waits[&place].claim.wants;
        Outcome::AlreadyWaiting {
            resource: wants.as_slice()[0].resource.clone(),
        }
    }

    fn enqueue(
        &mut self,
        now_ms: u64,
        (claim, converts): (Claim, Option<Token>),
        wait: &Wait,
    ) -> Place {
        self.last_place += 1;
        let place = Place {
            arrived: converts.is_none(),
            number: self.last_place,
        };
        for want in claim.wants.iter() {
            let lock = self.locks.entry(want.resource.clone()).or_default();
            lock.add_waiter(place, want.grip);
        }
        self.owners.enter(&claim.owner).waiting = Some(place);
        if let Some(id) = &claim.request_id {
            self.remember(&claim, id, Became::Waiting(place));
        }
        if let Some(session) = &claim.session {
            self.sessions.live_mut(session).waits.insert(place);
        }
        let deadline_ms = now_ms.saturating_add(wait.wait_ms);
        self.deadlines.add_wait(deadline_ms, place);
        let waiter = Waiter {
            claim,
            converts,
            reply: wait.reply.clone(),
            since_ms: now_ms,
            deadline_ms,
        };
        self.count_wait(waiter.reply.tenant.as_ref());
        self.waits.insert(place, waiter);
        place
    }

    /// Whether any edge of the wait-for graph leads to an owner whose wait is the newest. If none
    /// does, the owner is in no cycle; and a new cycle must go through the new wait, since all other
    /// edges were there before. An edge to an owner comes from a waiter for something that it holds,
    /// or from behind it in its queue: nobody is behind the newest place, unless it is that of a
    /// conversion, and that owner holds the resource. Most requests hold nothing that is wanted,
    /// and are spared the search.
    fn is_waited_for(&self, owner: &str) -> bool {
        let record = self.owners.get(owner).expect("a waiter has a record");
        let mut held = record.holds.keys();
        held.any(|resource| self.locks[resource].queue_len() > 0)
    }

    /// Ends waits until the new one at `place` is in no cycle any more; tells the deadlock if it is
    /// itself the victim. Only a cycle through the new wait can exist, and each round ends one
    /// wait, so there are at most as many rounds as waiters.
    fn break_cycles(
        &mut self,
        now_ms: u64,
        place: Place,
        policy: DeadlockPolicy,
        effects: &mut Vec<Effect>,
    ) -> Option<Arc<Deadlock>> {
        // A victim's leaving can let the new wait through: then it waits for nobody.
        while self.waits.contains_key(&place) {
            let cycle = cycle_through(self, place, now_ms)?;
            let victim = match policy {
                DeadlockPolicy::Requester => place,
                DeadlockPolicy::Youngest => cycle
                    .places()
                    .max_by_key(|place| self.age(*place))
                    .expect("a cycle has members"),
            };
            let deadlock = cycle.describe(&self.waits[&victim].claim.owner, policy);
            let deadlock = Arc::new(deadlock);
            self.deadlocks.push(now_ms, deadlock.clone());
            effects.push(Effect::Event(Event::Deadlock(deadlock.clone())));
            if victim == place {
                return Some(deadlock);
            }
            self.end_wait(now_ms, victim, Outcome::Deadlock(deadlock), effects);
        }
        None
    }

    /// When the waiting owner was first seen. The numbers are distinct; the name would decide.
    fn age(&self, place: Place) -> (u64, &str) {
        let owner = &self.waits[&place].claim.owner;
        let record = self.owners.get(owner).expect("a waiter has a record");
        (record.first_seen, owner)
    }

    fn grant_waiter(&mut self, now_ms: u64, place: Place, effects: &mut Vec<Effect>) {
        let waiter = self.take_waiter(place);
        // The record stays: the owner is the same one, now holding.
        self.owners.enter(&waiter.claim.owner).waiting = None;
        let waited_ms = now_ms.saturating_sub(waiter.since_ms);
        let acquired = match waiter.converts {
            None => self.grant(now_ms, waiter.claim.clone(), Some(waited_ms), effects),
            Some(token) => {
                let to = waiter.claim.wants.as_slice()[0].grip;
                self.regrip(now_ms, token, (to, waited_ms), effects)
            }
        };
        self.tell(now_ms, &waiter, Outcome::Acquired(acquired), effects);
    }

    /// Takes a waiter out of the table for good, with what was remembered of its request.
    pub(super) fn drop_waiter(&mut self, place: Place) -> Waiter {
        let waiter = self.take_waiter(place);
        let claim = &waiter.claim;
        if let Some(id) = &claim.request_id {
            let known = self.requests.forget(&claim.owner, id);
            self.tenants
                .count(known.tenant.as_ref(), |owned| owned.request_ids -= 1);
        }
        self.owners.leave(&claim.owner, |owner| {
            owner.waiting = None;
            owner.requests -= u64::from(claim.request_id.is_some());
        });
        for want in claim.wants.iter() {
            if self.locks[&want.resource].is_idle() {
                self.locks.remove(&want.resource);
            }
        }
        waiter
    }

    fn take_waiter(&mut self, place: Place) -> Waiter {
        let waiter = self.waits.remove(&place).expect("the wait exists");
        self.deadlines.remove_wait(waiter.deadline_ms, place);
        for want in waiter.claim.wants.iter() {
            self.locks
                .get_mut(&want.resource)
                .expect("the lock is in the table")
                .remove_waiter(place, want.grip);
        }
        if let Some(session) = &waiter.claim.session {
            self.sessions.get_mut(session).waits.remove(&place);
        }
        self.discount_wait(waiter.reply.tenant.as_ref());
        waiter
    }

    fn count_wait(&mut self, of: Option<&Tenant>) {
        if let Some(tenant) = of {
            *self.tenants_waits.entry(tenant.clone()).or_default() += 1;
        }
    }

    fn discount_wait(&mut self, of: Option<&Tenant>) {
        let Some(tenant) = of else { return };
        let waits = self.tenants_waits.get_mut(tenant);
        let waits = waits.expect("a wait was counted when it began");
        *waits -= 1;
        if *waits == 0 {
            self.tenants_waits.remove(tenant);
        }
    }

    /// Answers a wait, and keeps the answer for a new leader.
    pub(super) fn tell(
        &mut self,
        now_ms: u64,
        waiter: &Waiter,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        let reply = waiter.reply.clone();
        self.endings.push(
            now_ms,
            (reply.clone(), outcome.clone()),
            self.limits.recent_endings,
        );
        effects.push(Effect::WaitEnded {
            reply,
            waited_ms: now_ms.saturating_sub(waiter.since_ms),
            converts: waiter.converts,
            outcome,
        });
    }
}
