//! How a wait starts, is taken over by a repeat of its request, and ends.

use serde::{Deserialize, Serialize};

use super::command::{Deadlock, DeadlockPolicy, Effect, Event, Outcome, Wait};
use super::holding::Claim;
use super::requests::Became;
use super::table::{Lock, Table, over_limit};
use super::wait_graph::cycle_through;
use crate::protocol::ReplyTo;

/// A place in a queue: numbered over all resources in the order in which the waits started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Place(pub(super) u64);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiter {
    pub(super) claim: Claim,
    /// Who is told at the end: the latest repeat of the request.
    pub(super) reply: ReplyTo,
    pub(super) since_ms: u64,
    pub(super) deadline_ms: u64,
}

impl Table {
    /// Puts a claim that cannot be granted now at the end of the queue, unless its owner waits
    /// already, a bound is reached, or it would wait for itself.
    ///
    /// When the policy ends other waits instead, this one may be let through at once: its
    /// [`Effect::WaitEnded`] is then among the effects already.
    pub(super) fn start_wait(
        &mut self,
        now_ms: u64,
        claim: Claim,
        (wait, policy): (&Wait, DeadlockPolicy),
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        if let Some(refusal) = self.wait_refusal(&claim) {
            return refusal;
        }
        let (resource, owner) = (claim.resource.clone(), claim.owner.clone());
        let place = self.enqueue(now_ms, claim, wait);
        if self.is_waited_for(&owner)
            && let Some(deadlock) = self.break_cycles(now_ms, place, policy, effects)
        {
            self.drop_waiter(place);
            return Outcome::Deadlock(Box::new(deadlock));
        }
        if self.waits.contains_key(&place) {
            effects.push(Effect::Event(Event::Contended {
                resource: resource.to_string(),
                owner: owner.to_string(),
                queue_length: self.locks[&resource].queue.len() as u64,
            }));
        }
        Outcome::Waiting
    }

    /// The wait goes on for its repeat: same place, new reply subject, and the time to wait starts
    /// again.
    pub(super) fn reattach(&mut self, now_ms: u64, place: Place, wait: &Wait) -> Outcome {
        let waiter = self.waits.get_mut(&place).expect("the wait exists");
        self.deadlines.remove_wait(waiter.deadline_ms, place);
        waiter.deadline_ms = now_ms.saturating_add(wait.wait_ms);
        self.deadlines.add_wait(waiter.deadline_ms, place);
        waiter.reply = wait.reply.clone();
        Outcome::Waiting
    }

    /// The repeat of a waiting request does not want to wait any more: the place is given up, and
    /// the repeat is told who holds the lock. A place that nobody listens for would end as a grant
    /// that nobody releases.
    pub(super) fn give_up(
        &mut self,
        now_ms: u64,
        place: Place,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let waiter = self.drop_waiter(place);
        let resource = &waiter.claim.resource;
        let contention = self.contention(now_ms, resource);
        self.let_through(now_ms, resource, effects);
        Outcome::Held(contention)
    }

    /// Ends a wait without a grant. Who waits behind it is not let through yet.
    pub(super) fn time_out(&mut self, now_ms: u64, place: Place, effects: &mut Vec<Effect>) {
        let waiter = self.drop_waiter(place);
        let contention = self.contention(now_ms, &waiter.claim.resource);
        let outcome = Outcome::WaitTimeout(contention);
        self.tell(now_ms, (waiter.reply, waiter.since_ms), outcome, effects);
    }

    /// Grants, from the front of the queue, everything that is compatible with the holders. Each
    /// step takes one waiter out, so there are at most as many as waiters on the resource.
    pub(super) fn let_through(&mut self, now_ms: u64, resource: &str, effects: &mut Vec<Effect>) {
        while let Some(lock) = self.locks.get(resource) {
            let Some((&place, &mode)) = lock.queue.first_key_value() else {
                return;
            };
            if self.waits[&place].deadline_ms <= now_ms {
                self.time_out(now_ms, place, effects);
            } else if lock.admits(mode) {
                self.grant_waiter(now_ms, place, effects);
            } else {
                return;
            }
        }
    }

    fn wait_refusal(&self, claim: &Claim) -> Option<Outcome> {
        let owner = self.owners.get(&claim.owner);
        if let Some(place) = owner.and_then(|owner| owner.waiting) {
            return Some(Outcome::AlreadyWaiting {
                resource: self.waits[&place].claim.resource.to_string(),
            });
        }
        let here = self.locks[&claim.resource].queue.len();
        let limits = &self.limits;
        over_limit("waiters", self.waits.len(), limits.waiters)
            .or_else(|| over_limit("waiters_per_resource", here, limits.waiters_per_resource))
            .or_else(|| self.claims_over_limit(&claim.resource))
    }

    fn enqueue(&mut self, now_ms: u64, claim: Claim, wait: &Wait) -> Place {
        self.last_place.0 += 1;
        let place = self.last_place;
        self.lock_mut(&claim.resource)
            .queue
            .insert(place, claim.mode);
        self.owners.enter(&claim.owner).waiting = Some(place);
        if let Some(id) = &claim.request_id {
            self.remember(&claim, id, Became::Waiting(place));
        }
        let deadline_ms = now_ms.saturating_add(wait.wait_ms);
        self.deadlines.add_wait(deadline_ms, place);
        let waiter = Waiter {
            claim,
            reply: wait.reply.clone(),
            since_ms: now_ms,
            deadline_ms,
        };
        self.waits.insert(place, waiter);
        place
    }

    /// Whether any edge of the wait-for graph leads to an owner whose wait is the newest. If none
    /// does, the owner is in no cycle; and a new cycle must go through the new wait, since all other
    /// edges were there before. An edge to an owner comes from a waiter for something that it holds,
    /// or from behind it in its queue, where nobody is behind the newest place. Most requests hold
    /// nothing that is wanted, and are spared the search.
    fn is_waited_for(&self, owner: &str) -> bool {
        let record = self.owners.get(owner).expect("a waiter has a record");
        let mut held = record.holds.keys();
        held.any(|resource| !self.locks[resource].queue.is_empty())
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
    ) -> Option<Deadlock> {
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
            let deadlock = cycle.describe(self, victim, policy);
            effects.push(Effect::Event(Event::Deadlock(deadlock.clone())));
            if victim == place {
                return Some(deadlock);
            }
            let waiter = self.drop_waiter(victim);
            let outcome = Outcome::Deadlock(Box::new(deadlock));
            self.tell(now_ms, (waiter.reply, waiter.since_ms), outcome, effects);
            self.let_through(now_ms, &waiter.claim.resource, effects);
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
        let acquired = self.grant(now_ms, waiter.claim, waited_ms, effects);
        let outcome = Outcome::Acquired(acquired);
        self.tell(now_ms, (waiter.reply, waiter.since_ms), outcome, effects);
    }

    /// Takes a waiter out of the table for good, with what was remembered of its request.
    fn drop_waiter(&mut self, place: Place) -> Waiter {
        let waiter = self.take_waiter(place);
        let claim = &waiter.claim;
        if let Some(id) = &claim.request_id {
            self.requests.forget(&claim.owner, id);
        }
        self.owners.leave(&claim.owner, |owner| {
            owner.waiting = None;
            owner.requests -= u64::from(claim.request_id.is_some());
        });
        if self.locks[&claim.resource].is_idle() {
            self.locks.remove(&claim.resource);
        }
        waiter
    }

    fn take_waiter(&mut self, place: Place) -> Waiter {
        let waiter = self.waits.remove(&place).expect("the wait exists");
        self.deadlines.remove_wait(waiter.deadline_ms, place);
        self.lock_mut(&waiter.claim.resource).queue.remove(&place);
        waiter
    }

    /// Answers a wait, and keeps the answer for a new leader.
    fn tell(
        &mut self,
        now_ms: u64,
        (reply, since_ms): (ReplyTo, u64),
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        self.endings.push(
            now_ms,
            (reply.clone(), outcome.clone()),
            self.limits.recent_endings,
        );
        let waited_ms = now_ms.saturating_sub(since_ms);
        effects.push(Effect::WaitEnded {
            reply,
            waited_ms,
            outcome,
        });
    }

    fn lock_mut(&mut self, resource: &str) -> &mut Lock {
        self.locks
            .get_mut(resource)
            .expect("the lock is in the table")
    }
}
