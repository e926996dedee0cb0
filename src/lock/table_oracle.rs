//! The wait-for graph of the naive model, from all pairs: what the real search is compared with.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Name;
use super::claim::{Grip, Want};
use super::command::*;
use super::event::Event;
use super::outcome::*;
use super::table_model::{Hold, Model, Waiter, conflict};
use crate::ids::Token;

impl Model {
    /// The owners whose waits never end if nobody gives up: whoever does not wait finishes and gives
    /// back all it has, and so does whoever can then be granted, until nothing changes any more.
    pub(super) fn deadlocked(&self) -> BTreeSet<Name> {
        let mut rest = self.clone();
        loop {
            let waits: BTreeSet<_> = rest.waits.iter().map(|w| w.request.owner.clone()).collect();
            rest.holds
                .retain(|hold| waits.contains(&hold.request.owner));
            rest.closed.clear();
            let free = |waiter: &Waiter| rest.blocked_on(waiter).is_none();
            match rest.waits.iter().position(free) {
                Some(at) => rest.waits.remove(at),
                None => return waits,
            };
        }
    }

    /// Follows the deadlocks that the real table reports, checks each, and that none is left.
    pub(super) fn break_cycles(
        &mut self,
        request: &Acquire,
        reported: &[Arc<Deadlock>],
    ) -> Outcome {
        for deadlock in reported {
            self.check_deadlock(deadlock, request);
            self.event(Event::Deadlock(deadlock.clone()));
            let outcome = Outcome::Deadlock(deadlock.clone());
            let victim = deadlock.victim.as_str().into();
            let at = self.wait_of(&victim).expect("the victim waits");
            if victim == request.owner {
                let last = reported.last();
                assert_eq!(Some(deadlock), last, "the requester gave way before");
                let waiter = self.waits.remove(at);
                self.let_through(&waiter.request.wants);
                return outcome;
            }
            self.end_wait(at, outcome);
        }
        let left = self.deadlocked();
        assert!(left.is_empty(), "a deadlock was not found: {left:?}");
        if let Some(at) = self.wait_of(&request.owner) {
            let resource = self.blocked_on(&self.waits[at]).expect("blocked").clone();
            self.event(Event::Contended {
                queue_length: self.queue_length(&resource),
                resource,
                owner: request.owner.clone(),
            });
        }
        Outcome::Waiting
    }

    /// A reported deadlock must be a cycle of this graph through the requester, of owners that never
    /// go on, told truly, and the policy's choice.
    fn check_deadlock(&self, deadlock: &Deadlock, request: &Acquire) {
        let cycle = &deadlock.cycle;
        assert_eq!(deadlock.policy, request.on_deadlock);
        assert!(cycle.len() >= 2);
        let owners: BTreeSet<Name> = cycle.iter().map(|e| e.owner.clone()).collect();
        assert_eq!(owners.len(), cycle.len(), "each owner once");
        assert!(owners.contains(&request.owner));
        assert!(owners.is_subset(&self.deadlocked()), "{deadlock:?}");
        for (i, edge) in cycle.iter().enumerate() {
            let next = &cycle[(i + 1) % cycle.len()];
            assert_eq!(edge.waits_for_owner, next.owner);
            let at = self.wait_of(&edge.owner).unwrap();
            let blockers = self.blockers(at);
            let about = (&next.owner, &edge.resource);
            let found = blockers
                .iter()
                .find(|b| (&b.0, &b.1) == about && b.2.is_some() == next.token.is_some());
            let (.., token) = found.unwrap_or_else(|| panic!("no such edge: {edge:?}"));
            assert_eq!(next.token, *token, "{edge:?}");
            assert_eq!(next.holds.is_some(), token.is_some());
            assert_eq!(edge.because == Because::Holder, token.is_some());
        }
        let youngest = owners.iter().max_by_key(|owner| self.ages[*owner]);
        let victim = deadlock.victim.as_str().into();
        match deadlock.policy {
            DeadlockPolicy::Requester => assert_eq!(victim, request.owner),
            DeadlockPolicy::Youngest => assert_eq!(Some(&victim), youngest),
        }
    }

    /// For whom a waiter waits, for which resource, and by which hold.
    fn blockers(&self, at: usize) -> Vec<(Name, Name, Option<Token>)> {
        let waiter = &self.waits[at];
        let mut blockers = Vec::new();
        for want in waiter.request.wants.iter() {
            let resource = &want.resource;
            let in_the_way = !self.holders_admit(want, waiter.converts);
            for hold in self.holds.iter().filter(|_| in_the_way) {
                if hold.wants.grip_of(resource).is_some() && waiter.converts != Some(hold.token) {
                    let owner = hold.request.owner.clone();
                    blockers.push((owner, resource.clone(), Some(hold.token)));
                }
            }
            for before in &self.waits[..at] {
                let grip = before.request.wants.grip_of(resource);
                if grip.is_some_and(|grip| conflict(grip, want.grip)) {
                    blockers.push((before.request.owner.clone(), resource.clone(), None));
                }
            }
        }
        blockers
    }

    /// The first resource that keeps a waiter waiting.
    pub(super) fn blocked_on<'a>(&self, waiter: &'a Waiter) -> Option<&'a Name> {
        let owner = &waiter.request.owner;
        let earlier = self.waits.iter().take_while(|w| w.request.owner != *owner);
        let earlier: Vec<_> = earlier.collect();
        let blocks = |want: &&Want| {
            let ahead = |w: &&Waiter| {
                let grip = w.request.wants.grip_of(&want.resource);
                grip.is_some_and(|grip| conflict(grip, want.grip))
            };
            !self.admits(want, waiter.converts) || earlier.iter().any(ahead)
        };
        let want = waiter.request.wants.iter().find(blocks)?;
        Some(&want.resource)
    }

    /// Whether lock delay and holders, but for the one that is to be converted, leave room.
    pub(super) fn admits(&self, want: &Want, converts: Option<Token>) -> bool {
        let closed = self.closed.get(&want.resource);
        let open = closed.is_none_or(|until| *until <= self.now_ms);
        open && self.holders_admit(want, converts)
    }

    pub(super) fn holders_admit(&self, want: &Want, converts: Option<Token>) -> bool {
        let others = self.holds.iter().filter(|h| converts != Some(h.token));
        let grips: Vec<_> = others
            .filter_map(|hold| hold.wants.grip_of(&want.resource))
            .collect();
        grips.is_empty()
            || match want.grip {
                Grip::Exclusive => false,
                Grip::Shared => grips.iter().all(|grip| *grip == Grip::Shared),
                Grip::Permits { permits, limit } => {
                    let held: Option<u32> = grips.iter().map(|grip| grip.permits()).sum();
                    held.is_some_and(|held| held + permits <= limit)
                }
            }
    }

    pub(super) fn contention(&self, resource: &Name) -> Contention {
        Contention {
            resource: resource.clone(),
            holders: self.holders(resource),
            queue_length: self.queue_length(resource),
            delay_ms: self.delay_ms(resource),
        }
    }

    pub(super) fn contention_of(&self, at: usize) -> Contention {
        let waiter = &self.waits[at];
        let first = &waiter.request.wants.as_slice()[0].resource;
        let contention = self.contention(self.blocked_on(waiter).unwrap_or(first));
        Contention {
            queue_length: contention.queue_length - 1,
            ..contention
        }
    }

    pub(super) fn delay_ms(&self, resource: &str) -> Option<u64> {
        let until = self.closed.get(resource)?;
        (*until > self.now_ms).then(|| until - self.now_ms)
    }

    pub(super) fn holders(&self, resource: &str) -> Vec<HolderView> {
        let here = self.holds.iter().filter_map(|hold| {
            let live = self.end_of(hold) > self.now_ms;
            let grip = hold.wants.grip_of(resource).filter(|_| live)?;
            Some(HolderView {
                owner: hold.request.owner.clone(),
                token: hold.token,
                grip,
                session: hold.request.session.clone(),
                expires_in_ms: self.end_of(hold) - self.now_ms,
                held_ms: self.now_ms - hold.granted_ms,
                meta: hold.request.meta.clone(),
            })
        });
        here.collect()
    }

    fn queue_length(&self, resource: &Name) -> u64 {
        let here = |w: &&Waiter| w.request.wants.grip_of(resource).is_some();
        self.waits.iter().filter(here).count() as u64
    }

    pub(super) fn acquired(&self, hold: &Hold) -> Acquired {
        Acquired {
            wants: hold.wants.clone(),
            owner: hold.request.owner.clone(),
            token: hold.token,
            expires_in_ms: self.end_of(hold) - self.now_ms,
            waited_ms: hold.waited_ms,
        }
    }

    pub(super) fn end_of(&self, hold: &Hold) -> u64 {
        let own_ms = hold
            .deadline_ms
            .map_or(u64::MAX, |at| at.max(self.floor_ms));
        let session = hold.request.session.as_ref();
        session.map_or(own_ms, |id| own_ms.min(self.session_end(id)))
    }
}
