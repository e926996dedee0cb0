//! The wait-for graph of the naive model, from all pairs: what the real search is compared with.

use std::collections::BTreeSet;

use super::command::*;
use super::table_model::Model;

impl Model {
    /// Whether some waiter waits, over others, for itself.
    pub(super) fn has_cycle(&self) -> bool {
        self.waits.iter().any(|waiter| {
            let mut reached = BTreeSet::new();
            let mut next = self.blockers(&waiter.request.owner);
            while let Some(owner) = next.pop() {
                if reached.insert(owner.clone()) {
                    next.extend(self.blockers(&owner));
                }
            }
            reached.contains(&waiter.request.owner)
        })
    }

    /// Follows the deadlocks that the real table reports, checks each, and that none is left.
    pub(super) fn break_cycles(&mut self, request: &Acquire, reported: &[Deadlock]) -> Outcome {
        for deadlock in reported {
            self.check_deadlock(deadlock, request);
            self.effects
                .push(Effect::Event(Event::Deadlock(deadlock.clone())));
            let outcome = Outcome::Deadlock(Box::new(deadlock.clone()));
            let at = self.wait_of(&deadlock.victim).expect("the victim waits");
            let victim = self.waits.remove(at);
            if deadlock.victim == request.owner {
                assert_eq!(
                    Some(deadlock),
                    reported.last(),
                    "the requester gave way before"
                );
                return outcome;
            }
            self.tell((victim.reply, victim.since_ms), outcome);
            self.let_through(&victim.request.resource);
        }
        assert!(!self.has_cycle(), "a deadlock was not found");
        if self.wait_of(&request.owner).is_some() {
            self.effects.push(Effect::Event(Event::Contended {
                resource: request.resource.clone(),
                owner: request.owner.clone(),
                queue_length: self.queue_length(&request.resource),
            }));
        }
        Outcome::Waiting
    }

    /// A reported deadlock must be a cycle of this graph through the requester, told truly, and the
    /// policy's choice.
    fn check_deadlock(&self, deadlock: &Deadlock, request: &Acquire) {
        let cycle = &deadlock.cycle;
        assert_eq!(deadlock.policy, request.on_deadlock);
        assert!(cycle.len() >= 2);
        let owners: BTreeSet<_> = cycle.iter().map(|edge| &edge.owner).collect();
        assert_eq!(owners.len(), cycle.len(), "each owner once");
        assert!(owners.contains(&request.owner));
        for (i, edge) in cycle.iter().enumerate() {
            let next = &cycle[(i + 1) % cycle.len()];
            assert_eq!(edge.waits_for_owner, next.owner);
            assert!(self.blockers(&edge.owner).contains(&next.owner), "{edge:?}");
            let wanted = self.waits[self.wait_of(&edge.owner).unwrap()]
                .request
                .resource
                .clone();
            assert_eq!(edge.resource, wanted);
            match edge.because {
                Because::Holder => {
                    assert_eq!(next.holds.as_ref(), Some(&wanted));
                    let at = self.held(&wanted, next.token.unwrap()).unwrap();
                    assert_eq!(self.holds[at].request.owner, next.owner);
                }
                Because::Queue => {
                    assert_eq!((next.holds.as_ref(), next.token), (None, None));
                    let ahead = self.wait_of(&next.owner).unwrap();
                    assert_eq!(self.waits[ahead].request.resource, wanted);
                }
            }
        }
        let youngest = owners.iter().max_by_key(|owner| self.ages[**owner]);
        match deadlock.policy {
            DeadlockPolicy::Requester => assert_eq!(deadlock.victim, request.owner),
            DeadlockPolicy::Youngest => assert_eq!(Some(&&deadlock.victim), youngest),
        }
    }

    /// For whom an owner waits: all incompatible holders and all earlier incompatible waiters.
    fn blockers(&self, owner: &str) -> Vec<String> {
        let Some(at) = self.wait_of(owner) else {
            return Vec::new();
        };
        let request = &self.waits[at].request;
        let holders = self.holds.iter().map(|hold| &hold.request);
        let earlier = self.waits[..at].iter().map(|waiter| &waiter.request);
        holders
            .chain(earlier)
            .filter(|other| other.resource == request.resource)
            .filter(|other| other.mode == Mode::Exclusive || request.mode == Mode::Exclusive)
            .map(|other| other.owner.clone())
            .collect()
    }
}
