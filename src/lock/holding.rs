//! How a hold starts, is prolonged and ends.

use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};

use super::Name;
use super::command::{Acquire, Acquired, Effect, Event, Mode, Outcome};
use super::requests::{Became, Remembered};
use super::table::{Lock, Table};
use crate::ids::Token;

/// What a request lays claim to, waiting or holding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    pub(super) resource: Name,
    pub(super) owner: Name,
    pub(super) mode: Mode,
    pub(super) ttl_ms: u64,
    pub(super) request_id: Option<Name>,
    pub(super) meta: Option<String>,
}

/// A grant that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hold {
    pub(super) claim: Claim,
    /// The lease's own end; a new term may have moved the real one.
    pub(super) deadline_ms: u64,
    pub(super) granted_ms: u64,
    pub(super) waited_ms: u64,
    /// Later requests of the owner that were answered with this hold. Bounded with all ids.
    pub(super) later_request_ids: Vec<Name>,
}

impl Claim {
    pub(super) fn of(request: &Acquire) -> Self {
        Claim {
            resource: request.resource.as_str().into(),
            owner: request.owner.as_str().into(),
            mode: request.mode,
            ttl_ms: request.ttl_ms,
            request_id: request.request_id.as_deref().map(Name::from),
            meta: request.meta.clone(),
        }
    }
}

impl Table {
    /// Makes a claim a hold. The caller has made sure that it may be.
    pub(super) fn grant(
        &mut self,
        now_ms: u64,
        claim: Claim,
        waited_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Acquired {
        self.last_token.0 += 1;
        let token = self.last_token;
        let lock = self
            .locks
            .entry(claim.resource.clone())
            .or_insert_with(|| Lock::new(claim.mode));
        assert!(lock.admits(claim.mode), "{} is not free", claim.resource);
        lock.mode = claim.mode;
        lock.holders.insert(token);
        let owner = self.owners.enter(&claim.owner);
        let before = owner.holds.insert(claim.resource.clone(), token);
        assert!(before.is_none(), "{} is granted twice", claim.resource);
        if let Some(id) = &claim.request_id {
            self.remember(&claim, id, Became::Held(token));
        }
        let deadline_ms = now_ms.saturating_add(claim.ttl_ms);
        self.deadlines.add_lease(deadline_ms, token);
        effects.push(Effect::Event(Event::Granted {
            resource: claim.resource.to_string(),
            owner: claim.owner.to_string(),
            token,
            mode: claim.mode,
            waited_ms,
        }));
        let hold = Hold {
            claim,
            deadline_ms,
            granted_ms: now_ms,
            waited_ms,
            later_request_ids: Vec::new(),
        };
        let acquired = self.describe(now_ms, token, &hold);
        self.holds.insert(token, hold);
        acquired
    }

    /// The owner holds the resource and asks again: the same token, and its lease starts anew with
    /// the longer of the two lengths. So it never ends earlier than it would have: only a renewal
    /// that says so may shorten it.
    pub(super) fn acquire_again(&mut self, now_ms: u64, token: Token, claim: &Claim) -> Outcome {
        let hold = &self.holds[&token];
        if hold.claim.mode != claim.mode {
            return Outcome::ModeConflict {
                held: hold.claim.mode,
                token,
            };
        }
        let ttl_ms = claim.ttl_ms.max(hold.claim.ttl_ms);
        self.set_lease(token, now_ms.saturating_add(ttl_ms), ttl_ms);
        if let Some(id) = &claim.request_id {
            self.remember(claim, id, Became::Held(token));
            self.hold_mut(token).later_request_ids.push(id.clone());
        }
        Outcome::Acquired(Acquired {
            waited_ms: 0,
            ..self.acquired(now_ms, token)
        })
    }

    pub(super) fn release(
        &mut self,
        now_ms: u64,
        resource: &str,
        token: Token,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        if !self.is_held_by(resource, token) {
            return Outcome::NotHolder;
        }
        let hold = self.end_hold(now_ms, token);
        effects.push(Effect::Event(Event::Released {
            resource: hold.claim.resource.to_string(),
            owner: hold.claim.owner.to_string(),
            token,
            held_ms: now_ms.saturating_sub(hold.granted_ms),
        }));
        self.let_through(now_ms, &hold.claim.resource, effects);
        Outcome::Released
    }

    /// The lease starts anew, with `ttl_ms` if that is given. A shorter one is the holder's will.
    pub(super) fn renew(
        &mut self,
        now_ms: u64,
        resource: &str,
        token: Token,
        ttl_ms: Option<u64>,
    ) -> Outcome {
        if !self.is_held_by(resource, token) {
            return Outcome::NotHolder;
        }
        let ttl_ms = ttl_ms.unwrap_or(self.holds[&token].claim.ttl_ms);
        self.set_lease(token, now_ms.saturating_add(ttl_ms), ttl_ms);
        Outcome::Renewed {
            expires_in_ms: self.expires_in_ms(now_ms, &self.holds[&token]),
        }
    }

    /// A lease is over.
    pub(super) fn expire_hold(&mut self, now_ms: u64, token: Token, effects: &mut Vec<Effect>) {
        let hold = self.end_hold(now_ms, token);
        effects.push(Effect::Event(Event::Expired {
            resource: hold.claim.resource.to_string(),
            owner: hold.claim.owner.to_string(),
            token,
            held_ms: now_ms.saturating_sub(hold.granted_ms),
        }));
        self.let_through(now_ms, &hold.claim.resource, effects);
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
            resource: claim.resource.clone(),
            mode: claim.mode,
            became,
        };
        if self.requests.remember(&claim.owner, id, what) {
            self.owners.enter(&claim.owner).requests += 1;
        }
    }

    /// Takes a hold out of the table. Who waits for it is not let through yet.
    fn end_hold(&mut self, now_ms: u64, token: Token) -> Hold {
        let hold = self.holds.remove(&token).expect("the hold exists");
        let claim = &hold.claim;
        self.deadlines.remove_lease(hold.deadline_ms, token);
        for id in claim.request_id.iter().chain(&hold.later_request_ids) {
            self.requests.end(&claim.owner, id, now_ms);
        }
        self.owners.leave(&claim.owner, |owner| {
            owner.holds.remove(&claim.resource);
        });
        let Entry::Occupied(mut lock) = self.locks.entry(claim.resource.clone()) else {
            panic!("{} is held but not in the table", claim.resource);
        };
        lock.get_mut().holders.remove(&token);
        if lock.get().is_idle() {
            lock.remove();
        }
        hold
    }

    fn set_lease(&mut self, token: Token, deadline_ms: u64, ttl_ms: u64) {
        let before_ms = self.holds[&token].deadline_ms;
        self.deadlines.remove_lease(before_ms, token);
        self.deadlines.add_lease(deadline_ms, token);
        let hold = self.hold_mut(token);
        hold.deadline_ms = deadline_ms;
        hold.claim.ttl_ms = ttl_ms;
    }

    fn is_held_by(&self, resource: &str, token: Token) -> bool {
        self.holds
            .get(&token)
            .is_some_and(|hold| *hold.claim.resource == *resource)
    }

    fn hold_mut(&mut self, token: Token) -> &mut Hold {
        self.holds.get_mut(&token).expect("the hold exists")
    }

    fn describe(&self, now_ms: u64, token: Token, hold: &Hold) -> Acquired {
        Acquired {
            resource: hold.claim.resource.to_string(),
            owner: hold.claim.owner.to_string(),
            token,
            mode: hold.claim.mode,
            expires_in_ms: self.expires_in_ms(now_ms, hold),
            waited_ms: hold.waited_ms,
        }
    }
}
