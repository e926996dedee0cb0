//! How a hold starts, is prolonged and ends.

use serde::{Deserialize, Serialize};

use super::Name;
use super::claim::{Claim, Wants};
use super::event::{Effect, Event};
use super::outcome::{Acquired, Outcome};
use super::requests::{Became, Remembered};
use super::table::Table;
use super::weighed::Changing;
use crate::ids::Token;
use crate::protocol::Tenant;

/// A grant that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hold {
    pub(super) claim: Claim,
    /// The end of its own lease, if it has one; a new term may have moved the real one.
    pub(super) deadline_ms: Option<u64>,
    pub(super) granted_ms: u64,
    pub(super) waited_ms: u64,
    /// Granted to a wait in this term, and nothing shows yet that its client heard of it.
    pub(super) unheard_in: Option<u64>,
    /// The token that it had before it was converted.
    pub(super) converted_from: Option<Token>,
    /// Later requests of the owner that were answered with this hold. Bounded with all ids.
    pub(super) later_request_ids: Vec<Name>,
}

/// How a hold ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By its holder.
    Willing,
    /// Nobody heard of the grant.
    GivenBack,
    /// Its time or that of its session is over.
    Expired,
    /// By an operator, who says why.
    Forced(Name),
}

/// What the event of a grant that is given back says.
const GIVEN_BACK: &str = "nobody heard of the grant";

impl Table {
    /// Makes a claim a hold. The caller has made sure that it may be.
    pub(super) fn grant(
        &mut self,
        now_ms: u64,
        claim: Claim,
        waited_ms: Option<u64>,
        effects: &mut Vec<Effect>,
    ) -> Acquired {
        self.last_token.0 += 1;
        let token = self.last_token;
        let owner = self.owners.enter(&claim.owner);
        for want in claim.wants.iter() {
            let lock = self.locks.entry(want.resource.clone()).or_default();
            assert!(
                lock.admits(want.grip, now_ms),
                "{} is not free",
                want.resource
            );
            lock.add_holder(token, want.grip);
            let before = owner.holds.insert(want.resource.clone(), token);
            assert!(before.is_none(), "{} is granted twice", want.resource);
            effects.push(Effect::Event(Event::Granted {
                resource: want.resource.clone(),
                owner: claim.owner.clone(),
                token,
                mode: want.grip.mode(),
                waited_ms: waited_ms.unwrap_or(0),
            }));
        }
        if let Some(id) = &claim.request_id {
            self.remember(&claim, id, Became::Held(token));
        }
        let deadline_ms = claim.ttl_ms.map(|ttl_ms| now_ms.saturating_add(ttl_ms));
        if let Some(deadline_ms) = deadline_ms {
            self.deadlines.add_lease(deadline_ms, token);
        }
        if let Some(session) = &claim.session {
            self.sessions.live_mut(session).holds.insert(token);
        }
        self.tenants
            .count(claim.tenant.as_ref(), |owned| owned.holds += 1);
        let hold = Hold {
            claim,
            deadline_ms,
            granted_ms: now_ms,
            waited_ms: waited_ms.unwrap_or(0),
            unheard_in: waited_ms.map(|_| self.terms),
            converted_from: None,
            later_request_ids: Vec::new(),
        };
        let acquired = self.describe(now_ms, token, &hold);
        self.holds.insert(token, hold);
        acquired
    }

    /// The owner holds what it asks for: the same token, and its lease starts anew with the longer
    /// of the two lengths. So it never ends earlier than it would have: only a renewal that says so
    /// may shorten it, or another session than before, to which the hold goes over: it would else end
    /// with a session that its owner may have given up.
    pub(super) fn acquire_again(&mut self, now_ms: u64, token: Token, claim: &Claim) -> Outcome {
        let held = &self.holds[&token].claim;
        let goes_over = claim.session != held.session;
        if goes_over && let Some(refusal) = self.session_over_limit(claim) {
            return refusal;
        }
        let ttl_ms = match (claim.ttl_ms, held.ttl_ms) {
            (asked, _) if goes_over => asked,
            (Some(asked_ms), Some(held_ms)) => Some(asked_ms.max(held_ms)),
            // As long as its session is longer than any lease within it.
            (_, None) => None,
            (None, Some(held_ms)) => Some(held_ms),
        };
        if goes_over {
            self.move_to_session(token, claim.session.as_ref());
        }
        self.set_lease(now_ms, token, ttl_ms);
        self.hold_mut(&token).unheard_in = None;
        if let Some(id) = &claim.request_id {
            self.remember(claim, id, Became::Held(token));
            self.hold_mut(&token).later_request_ids.push(id.clone());
        }
        Outcome::Acquired(Acquired {
            waited_ms: 0,
            ..self.acquired(now_ms, token)
        })
    }

    pub(super) fn release(
        &mut self,
        now_ms: u64,
        (resource, token): (Option<&Name>, Token),
        tenant: Option<&Tenant>,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        self.settle_hold(now_ms, token, effects);
        if !self.is_named_by((resource, token), tenant) {
            return Outcome::NotHolder;
        }
        self.end(now_ms, token, &End::Willing, effects);
        Outcome::Released
    }

    /// The lease starts anew, with `ttl_ms` if that is given. A shorter one is the holder's will.
    pub(super) fn renew(
        &mut self,
        now_ms: u64,
        (resource, token): (Option<&Name>, Token),
        (ttl_ms, tenant): (Option<u64>, Option<&Tenant>),
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        self.settle_hold(now_ms, token, effects);
        if !self.is_named_by((resource, token), tenant) {
            return Outcome::NotHolder;
        }
        let ttl_ms = ttl_ms.or(self.holds[&token].claim.ttl_ms);
        self.set_lease(now_ms, token, ttl_ms);
        self.hold_mut(&token).unheard_in = None;
        Outcome::Renewed {
            expires_in_ms: self.expires_in_ms(now_ms, &self.holds[&token]),
        }
    }

    /// Takes back a grant of which nobody heard; void once its holder has shown that it did, and in a
    /// later term: its leader has told the grant again, and may have been heard.
    pub(super) fn give_back(
        &mut self,
        now_ms: u64,
        token: Token,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        self.settle_hold(now_ms, token, effects);
        let unheard_in = self.holds.get(&token).and_then(|hold| hold.unheard_in);
        if unheard_in != Some(self.terms) {
            return Outcome::NotHolder;
        }
        self.end(now_ms, token, &End::GivenBack, effects);
        Outcome::Released
    }

    /// Ends a hold, says so, and lets through who waits for it.
    pub(super) fn end(
        &mut self,
        now_ms: u64,
        token: Token,
        how: &End,
        effects: &mut Vec<Effect>,
    ) -> Hold {
        let hold = self.take_hold(now_ms, token, how);
        let held_ms = now_ms.saturating_sub(hold.granted_ms);
        let owner = &hold.claim.owner;
        for want in hold.claim.wants.iter() {
            let resource = want.resource.clone();
            let owner = owner.clone();
            let reason = match how {
                End::Expired => {
                    effects.push(Effect::Event(Event::Expired {
                        resource,
                        owner,
                        token,
                        held_ms,
                    }));
                    continue;
                }
                End::Willing => None,
                End::GivenBack => Some(GIVEN_BACK.into()),
                End::Forced(reason) => Some(reason.clone()),
            };
            effects.push(Effect::Event(Event::Released {
                resource,
                owner,
                token,
                held_ms,
                reason,
            }));
        }
        self.end_conversion_of(now_ms, token, owner, effects);
        self.let_through(now_ms, &hold.claim.wants, effects);
        hold
    }

    /// The token with which the owner holds the resource.
    pub(super) fn token_of(&self, owner: &str, resource: &str) -> Option<Token> {
        self.owners.get(owner)?.holds.get(resource).copied()
    }

    /// What the holder is told now.
    pub(super) fn acquired(&self, now_ms: u64, token: Token) -> Acquired {
        self.describe(now_ms, token, &self.holds[&token])
    }

    /// Notes what became of a request under one of its ids.
    pub(super) fn remember(&mut self, claim: &Claim, id: &Name, became: Became) {
        let what = Remembered {
            wants: claim.wants.clone(),
            became,
            tenant: claim.tenant.clone(),
        };
        if self.requests.remember(&claim.owner, id, what) {
            self.owners.enter(&claim.owner).requests += 1;
            self.tenants
                .count(claim.tenant.as_ref(), |owned| owned.request_ids += 1);
        }
    }

    /// Takes a hold out of the table. Who waits for it is not let through yet.
    fn take_hold(&mut self, now_ms: u64, token: Token, how: &End) -> Hold {
        let hold = self.holds.remove(&token).expect("the hold exists");
        let claim = &hold.claim;
        self.tenants
            .count(claim.tenant.as_ref(), |owned| owned.holds -= 1);
        if let Some(deadline_ms) = hold.deadline_ms {
            self.deadlines.remove_lease(deadline_ms, token);
        }
        if let Some(old) = hold.converted_from {
            self.converted.remove(&old);
        }
        for id in claim.request_id.iter().chain(&hold.later_request_ids) {
            self.requests.end(&claim.owner, id, now_ms);
        }
        self.owners.leave(&claim.owner, |owner| {
            for want in claim.wants.iter() {
                owner.holds.remove(&want.resource);
            }
        });
        let delay_ms = self.leave_session(claim, token, how);
        for want in claim.wants.iter() {
            let Some(lock) = self.locks.get_mut(&want.resource) else {
                panic!("{} is held but not in the table", want.resource);
            };
            lock.remove_holder(token, want.grip);
            if delay_ms > 0 {
                let until_ms = now_ms.saturating_add(delay_ms);
                self.deadlines.close(lock, &want.resource, until_ms);
            } else if lock.is_idle() {
                self.locks.remove(&want.resource);
            }
        }
        hold
    }

    /// Takes a hold off its session; returns the lock delay that follows.
    fn leave_session(&mut self, claim: &Claim, token: Token, how: &End) -> u64 {
        let Some(session) = &claim.session else {
            return 0;
        };
        let mut session = self.sessions.get_mut(session);
        session.holds.remove(&token);
        match how {
            End::Willing | End::GivenBack => 0,
            End::Expired | End::Forced(_) => session.lock_delay_ms,
        }
    }

    fn move_to_session(&mut self, token: Token, to: Option<&Name>) {
        let from = std::mem::replace(&mut self.hold_mut(&token).claim.session, to.cloned());
        if let Some(from) = from {
            self.sessions.get_mut(&from).holds.remove(&token);
        }
        if let Some(to) = to {
            self.sessions.live_mut(to).holds.insert(token);
        }
    }

    /// The lease begins anew; none: the hold lasts as long as its session.
    fn set_lease(&mut self, now_ms: u64, token: Token, ttl_ms: Option<u64>) {
        let mut hold = self.holds.get_mut(&token).expect("the hold exists");
        if let Some(before_ms) = hold.deadline_ms {
            self.deadlines.remove_lease(before_ms, token);
        }
        hold.deadline_ms = ttl_ms.map(|ttl_ms| now_ms.saturating_add(ttl_ms));
        hold.claim.ttl_ms = ttl_ms;
        if let Some(deadline_ms) = hold.deadline_ms {
            self.deadlines.add_lease(deadline_ms, token);
        }
    }

    /// Whether a request means this hold: by its one resource and the token, or by the token alone
    /// if whoever asks may have it.
    pub(super) fn is_named_by(
        &self,
        (resource, token): (Option<&Name>, Token),
        tenant: Option<&Tenant>,
    ) -> bool {
        self.holds.get(&token).is_some_and(|hold| {
            let named = resource.is_none_or(|resource| match &hold.claim.wants {
                Wants::One(want) => want.resource == *resource,
                Wants::Set(_) => false,
            });
            named && tenant.is_none_or(|tenant| tenant.has(&hold.claim.owner))
        })
    }

    pub(super) fn hold_mut<'a>(&'a mut self, token: &'a Token) -> Changing<'a, Token, Hold> {
        self.holds.get_mut(token).expect("the hold exists")
    }

    fn describe(&self, now_ms: u64, token: Token, hold: &Hold) -> Acquired {
        Acquired {
            wants: hold.claim.wants.clone(),
            owner: hold.claim.owner.clone(),
            token,
            expires_in_ms: self.expires_in_ms(now_ms, hold),
            waited_ms: hold.waited_ms,
        }
    }
}
