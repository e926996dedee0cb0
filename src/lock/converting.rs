//! How a hold changes its mode without ever being given up: downgrades at once, upgrades when no
//! other holder is left, before everybody else who waits.

use super::Name;
use super::claim::{Claim, Grip, Wants};
use super::command::{Convert, DeadlockPolicy};
use super::event::{Effect, Event};
use super::outcome::{Acquired, Outcome};
use super::table::Table;
use crate::ids::Token;
use crate::protocol::lock::Mode;

impl Table {
    /// `lock.convert`. A refusal leaves the hold as it is. The repeat of a conversion is told its
    /// result while the hold lasts, and takes over its wait.
    pub(super) fn convert(
        &mut self,
        now_ms: u64,
        request: &Convert,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let Convert {
            resource,
            token,
            to,
            wait,
        } = request;
        self.settle(now_ms, resource, effects);
        let repeat = wait.as_ref();
        let wait = repeat.filter(|wait| wait.wait_ms > 0);
        let Some(hold) = self.holds.get(token) else {
            return match self.converted.get(token) {
                Some(new) if self.holds[new].claim.wants.grip_of(resource) == Some(*to) => {
                    Outcome::Acquired(self.acquired(now_ms, *new))
                }
                _ => Outcome::NotHolder,
            };
        };
        match &hold.claim.wants {
            wants if wants.grip_of(resource).is_none() => return Outcome::NotHolder,
            Wants::One(want) if want.grip.mode() != Mode::Permit => {}
            _ => return Outcome::Inconvertible,
        }
        let owner = hold.claim.owner.clone();
        if let Some(place) = self.owners.get(&owner).and_then(|owner| owner.waiting) {
            let waiting = &self.waits[&place];
            let is_repeat = waiting.converts == Some(*token)
                && waiting.claim.wants.grip_of(resource) == Some(*to);
            return match (is_repeat, wait) {
                (false, _) => self.already_waiting(place),
                (true, Some(wait)) => self.reattach(now_ms, place, wait),
                (true, None) => self.give_up(now_ms, (place, repeat), effects),
            };
        }
        if hold.claim.wants.grip_of(resource) == Some(*to) {
            return Outcome::Acquired(self.acquired(now_ms, *token));
        }
        let admitted = *to == Grip::Shared || self.locks[resource].admits_upgrade(*token, now_ms);
        if admitted {
            let acquired = self.regrip(now_ms, *token, (*to, 0), effects);
            let wants = Wants::one(resource.clone(), *to);
            self.let_through(now_ms, &wants, effects);
            return Outcome::Acquired(acquired);
        }
        let Some(wait) = wait else {
            return Outcome::Held(self.contention(now_ms, resource));
        };
        let claim = Claim {
            wants: Wants::one(resource.clone(), *to),
            owner,
            session: hold.claim.session.clone(),
            ttl_ms: hold.claim.ttl_ms,
            request_id: None,
            meta: None,
            tenant: hold.claim.tenant.clone(),
        };
        let how = (wait, DeadlockPolicy::Requester);
        self.start_wait(now_ms, (claim, Some(*token)), how, effects)
    }

    /// Gives a hold another mode and a new token; its lease goes on. The caller lets others through.
    pub(super) fn regrip(
        &mut self,
        now_ms: u64,
        token: Token,
        (to, waited_ms): (Grip, u64),
        effects: &mut Vec<Effect>,
    ) -> Acquired {
        let mut hold = self.holds.remove(&token).expect("the hold exists");
        self.last_token.0 += 1;
        let new = self.last_token;
        let Wants::One(want) = &mut hold.claim.wants else {
            panic!("sets are not converted");
        };
        let lock = self.locks.get_mut(&want.resource);
        let lock = lock.expect("the lock is in the table");
        lock.remove_holder(token, want.grip);
        lock.add_holder(new, to);
        want.grip = to;
        let resource = want.resource.clone();
        if let Some(deadline_ms) = hold.deadline_ms {
            self.deadlines.remove_lease(deadline_ms, token);
            self.deadlines.add_lease(deadline_ms, new);
        }
        for id in hold.claim.request_id.iter().chain(&hold.later_request_ids) {
            self.requests.regranted(&hold.claim.owner, id, new);
        }
        let owner = self.owners.enter(&hold.claim.owner);
        owner.holds.insert(resource.clone(), new);
        if let Some(session) = &hold.claim.session {
            let mut session = self.sessions.get_mut(session);
            session.holds.remove(&token);
            session.holds.insert(new);
        }
        if let Some(old) = hold.converted_from.replace(token) {
            self.converted.remove(&old);
        }
        self.converted.insert(token, new);
        hold.unheard_in = None;
        hold.waited_ms = waited_ms;
        effects.push(Effect::Event(Event::Granted {
            resource,
            owner: hold.claim.owner.clone(),
            token: new,
            mode: to.mode(),
            waited_ms,
        }));
        self.holds.insert(new, hold);
        self.acquired(now_ms, new)
    }

    /// The hold of `token` has ended: so does the wait for its conversion.
    pub(super) fn end_conversion_of(
        &mut self,
        now_ms: u64,
        token: Token,
        owner: &Name,
        effects: &mut Vec<Effect>,
    ) {
        let waiting = self.owners.get(owner).and_then(|owner| owner.waiting);
        if let Some(place) = waiting
            && self.waits[&place].converts == Some(token)
        {
            let waiter = self.drop_waiter(place);
            self.tell(now_ms, &waiter, Outcome::NotHolder, effects);
        }
    }
}
