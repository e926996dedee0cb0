//! How holds, waits and sessions of the naive model begin and end.

use std::sync::Arc;

use super::Name;
use super::claim::{Grip, Want, Wants};
use super::command::*;
use super::event::{Effect, Event};
use super::outcome::*;
use super::requests::REMEMBERED_MS;
use super::table_model::{End, Hold, Model, Session};
use crate::ids::Token;

impl Model {
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.next_over().map(|(at_ms, ..)| at_ms)
    }

    /// What ends first: when, of which kind, and what decides among equals; the last are its index
    /// and its name.
    #[allow(clippy::type_complexity)]
    fn next_over(&self) -> Option<(u64, u8, u64, usize, Name)> {
        let none = Name::from("");
        let waits = self.waits.iter().enumerate();
        let waits = waits.map(|(at, w)| (w.deadline_ms, 0, at as u64, at, none.clone()));
        let leases = self.holds.iter().enumerate().filter_map(|(at, hold)| {
            let own_ms = hold.deadline_ms?;
            // Among equal deadlines the older token, and holds are in their order.
            Some((own_ms.max(self.floor_ms), 1, own_ms, at, none.clone()))
        });
        let sessions = self.sessions.iter().map(|(id, of)| {
            (
                of.deadline_ms.max(self.floor_ms),
                2,
                of.deadline_ms,
                0,
                id.clone(),
            )
        });
        let delays = self.closed.iter();
        let delays = delays.map(|(resource, until)| (*until, 3, 0, 0, resource.clone()));
        waits.chain(leases).chain(sessions).chain(delays).min()
    }

    pub(super) fn expire(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        while let Some((at_ms, kind, _, at, name)) = self.next_over() {
            if at_ms > now_ms {
                break;
            }
            match kind {
                0 => {
                    let outcome = self.outcome_of_over(at);
                    self.end_wait(at, outcome);
                }
                1 => self.end_hold(at, &End::Expired),
                2 => {
                    let held = self.holds_of(&name) as u64;
                    self.event(Event::SessionExpired {
                        session: name.clone(),
                        name: self.sessions[&name].open.name.clone(),
                        held,
                    });
                    self.end_session(&name, &End::Expired);
                }
                _ => {
                    self.closed.remove(&name);
                    self.let_through(&Wants::one(name, Grip::Shared));
                }
            }
        }
        self.ended.retain(|(_, until_ms)| *until_ms > now_ms);
        self.gone.retain(|_, until_ms| *until_ms > now_ms);
        self.forget_idle_owners();
    }

    pub(super) fn grant(&mut self, request: Acquire, waited_ms: Option<u64>) -> Acquired {
        self.note_owner(&request.owner);
        self.last_token += 1;
        let token = Token(self.last_token);
        for want in request.wants.iter() {
            self.event(Event::Granted {
                resource: want.resource.clone(),
                owner: request.owner.clone(),
                token,
                mode: want.grip.mode(),
                waited_ms: waited_ms.unwrap_or(0),
            });
        }
        let hold = Hold {
            wants: request.wants.clone(),
            token,
            deadline_ms: request.ttl_ms.map(|ttl_ms| self.now_ms + ttl_ms),
            granted_ms: self.now_ms,
            waited_ms: waited_ms.unwrap_or(0),
            ttl_ms: request.ttl_ms,
            ids: request.request_id.iter().map(|_| request.clone()).collect(),
            unheard: waited_ms.is_some(),
            converted_from: None,
            request,
        };
        let acquired = self.acquired(&hold);
        self.holds.push(hold);
        acquired
    }

    pub(super) fn set_lease(&mut self, at: usize, ttl_ms: Option<u64>) {
        let hold = &mut self.holds[at];
        hold.ttl_ms = ttl_ms;
        hold.deadline_ms = ttl_ms.map(|ttl_ms| self.now_ms + ttl_ms);
        hold.unheard = false;
    }

    pub(super) fn end_hold(&mut self, at: usize, how: &End) {
        let hold = self.holds.remove(at);
        let session = hold
            .request
            .session
            .as_ref()
            .map(|id| &self.sessions[id].open);
        let delay_ms = session.map_or(0, |open| open.lock_delay_ms);
        let held_ms = self.now_ms - hold.granted_ms;
        for want in hold.wants.iter() {
            let (resource, owner) = (want.resource.clone(), hold.request.owner.clone());
            let token = hold.token;
            if delay_ms > 0 && matches!(how, End::Expired | End::Forced(_)) {
                let until = self.closed.entry(resource.clone()).or_insert(0);
                *until = (*until).max(self.now_ms + delay_ms);
            }
            let reason = match how {
                End::Expired => {
                    self.event(Event::Expired {
                        resource,
                        owner,
                        token,
                        held_ms,
                    });
                    continue;
                }
                End::Willing => None,
                End::GivenBack => Some("nobody heard of the grant".into()),
                End::Forced(reason) => Some(reason.clone()),
            };
            self.event(Event::Released {
                resource,
                owner,
                token,
                held_ms,
                reason,
            });
        }
        let until_ms = self.now_ms + REMEMBERED_MS;
        let ids = hold.ids.into_iter();
        self.ended.extend(ids.map(|of| (of, until_ms)));
        let converting = self
            .waits
            .iter()
            .position(|w| w.converts == Some(hold.token));
        if let Some(at) = converting {
            let waiter = self.waits.remove(at);
            self.tell(&waiter, Outcome::NotHolder);
        }
        self.let_through(&hold.wants);
    }

    pub(super) fn outcome_of_over(&self, at: usize) -> Outcome {
        match &self.waits[at].request.session {
            Some(session) if self.session_end(session) <= self.now_ms => Outcome::SessionExpired {
                session: session.clone(),
            },
            _ if self.is_converting_nothing(at) => Outcome::NotHolder,
            _ => Outcome::WaitTimeout(self.contention_of(at)),
        }
    }

    pub(super) fn end_wait(&mut self, at: usize, outcome: Outcome) {
        let waiter = self.waits.remove(at);
        let wants = waiter.request.wants.clone();
        self.tell(&waiter, outcome);
        self.let_through(&wants);
    }

    pub(super) fn give_up(&mut self, at: usize, repeat: Option<&Wait>) -> Outcome {
        let contention = self.contention_of(at);
        let waiter = self.waits.remove(at);
        if repeat.is_none_or(|repeat| repeat.reply != waiter.reply) {
            let resource = contention.resource.clone();
            self.tell(&waiter, Outcome::WaitCancelled { resource });
        }
        self.let_through(&waiter.request.wants);
        Outcome::Held(contention)
    }

    pub(super) fn let_through(&mut self, wants: &Wants) {
        let mut freed = vec![wants.clone()];
        while let Some(wants) = freed.pop() {
            for want in wants.iter() {
                self.serve(&want.resource, &mut freed);
            }
        }
    }

    /// Goes through the queue once, since what is granted only takes away.
    fn serve(&mut self, resource: &Name, freed: &mut Vec<Wants>) {
        let mut at = 0;
        while at < self.waits.len() {
            let waiter = self.waits[at].clone();
            if waiter.request.wants.grip_of(resource).is_none() {
                at += 1;
            } else if self.is_over(at) {
                let outcome = self.outcome_of_over(at);
                self.waits.remove(at);
                self.tell(&waiter, outcome);
                if waiter.request.wants.is_set() {
                    freed.push(waiter.request.wants);
                }
            } else if self.blocked_on(&waiter).is_none() {
                self.waits.remove(at);
                let waited_ms = self.now_ms - waiter.since_ms;
                let acquired = match waiter.converts {
                    Some(token) => {
                        let to = waiter.request.wants.as_slice()[0].grip;
                        self.regrip(token, to, waited_ms)
                    }
                    None => self.grant(waiter.request.clone(), Some(waited_ms)),
                };
                self.tell(&waiter, Outcome::Acquired(acquired));
                if waiter.request.wants.is_set() {
                    freed.push(waiter.request.wants);
                }
            } else {
                // Nobody who is not compatible with this one is served before it; but one whose
                // time is over behind it is left to its own deadline.
                let shared = waiter.request.wants.grip_of(resource) == Some(Grip::Shared);
                let want = Wants::one(resource.clone(), Grip::Shared);
                if !shared || !self.holders_admit(&want.as_slice()[0], None) {
                    return;
                }
                at += 1;
            }
        }
    }

    pub(super) fn convert(&mut self, request: &Convert, reported: &[Arc<Deadlock>]) -> Outcome {
        let (resource, token, to) = (&request.resource, request.token, request.to);
        let lasting = request.wait.as_ref().filter(|wait| wait.wait_ms > 0);
        let Some(at) = self.held(token) else {
            let after = |hold: &&Hold| hold.converted_from == Some(token);
            return match self.holds.iter().find(after) {
                Some(hold) if hold.wants.grip_of(resource) == Some(to) => {
                    Outcome::Acquired(self.acquired(hold))
                }
                _ => Outcome::NotHolder,
            };
        };
        let hold = self.holds[at].clone();
        let Some(held) = hold.wants.grip_of(resource) else {
            return Outcome::NotHolder;
        };
        if hold.wants.is_set() || held.mode() == Mode::Permit {
            return Outcome::Inconvertible;
        }
        if let Some(at) = self.wait_of(&hold.request.owner) {
            let waiter = &self.waits[at];
            let same = waiter.converts == Some(token)
                && waiter.request.wants.grip_of(resource) == Some(to);
            return match lasting {
                _ if !same => self.already_waiting(at),
                Some(wait) => self.reattach(at, wait),
                None => self.give_up(at, request.wait.as_ref()),
            };
        }
        if held == to {
            return Outcome::Acquired(self.acquired(&hold));
        }
        let want = Want {
            resource: resource.clone(),
            grip: to,
        };
        if to == Grip::Shared || self.admits(&want, Some(token)) {
            let acquired = self.regrip(token, to, 0);
            self.let_through(&Wants::One(want));
            return Outcome::Acquired(acquired);
        }
        let Some(wait) = lasting else {
            return Outcome::Held(self.contention(resource));
        };
        let upgrade = Acquire {
            wants: Wants::One(want),
            request_id: None,
            on_deadlock: DeadlockPolicy::Requester,
            ..hold.request
        };
        self.start_wait(&upgrade, Some(token), wait, reported)
    }

    fn regrip(&mut self, token: Token, to: Grip, waited_ms: u64) -> Acquired {
        let at = self.held(token).expect("held");
        let mut hold = self.holds.remove(at);
        let resource = hold.wants.as_slice()[0].resource.clone();
        self.last_token += 1;
        hold.token = Token(self.last_token);
        hold.converted_from = Some(token);
        hold.wants = Wants::one(resource.clone(), to);
        hold.unheard = false;
        hold.waited_ms = waited_ms;
        self.event(Event::Granted {
            resource,
            owner: hold.request.owner.clone(),
            token: hold.token,
            mode: to.mode(),
            waited_ms,
        });
        self.holds.push(hold.clone());
        self.acquired(&hold)
    }

    pub(super) fn force_release(
        &mut self,
        resource: &Name,
        token: Option<Token>,
        reason: &Name,
    ) -> Outcome {
        let asked = |hold: &&Hold| {
            let same = token.is_none_or(|token| hold.token == token);
            same && hold.wants.grip_of(resource).is_some()
        };
        let tokens: Vec<_> = self.holds.iter().filter(asked).map(|h| h.token).collect();
        if tokens.is_empty() {
            return match token {
                Some(_) => Outcome::NotHolder,
                None => Outcome::NotHeld {
                    resource: resource.clone(),
                },
            };
        }
        let mut views = self.holders(resource);
        views.retain(|view| tokens.contains(&view.token));
        for token in tokens {
            if let Some(at) = self.held(token) {
                self.end_hold(at, &End::Forced(reason.clone()));
            }
        }
        Outcome::ForceReleased(views)
    }

    pub(super) fn open_session(&mut self, open: &OpenSession) -> Outcome {
        let id = &open.session;
        let session = Session {
            open: open.clone(),
            deadline_ms: self.now_ms + open.ttl_ms,
            over: false,
        };
        self.sessions.insert(id.clone(), session);
        self.event(Event::SessionOpened {
            session: id.clone(),
            name: open.name.clone(),
            ttl_ms: open.ttl_ms,
        });
        Outcome::SessionOpened {
            session: id.clone(),
            ttl_ms: open.ttl_ms,
        }
    }

    pub(super) fn keep_alive(&mut self, ids: &[Name]) -> Outcome {
        let kept = ids.iter().map(|id| match self.session_refusal(id) {
            None => {
                let session = self.sessions.get_mut(id).unwrap();
                session.deadline_ms = self.now_ms + session.open.ttl_ms;
                let expires_in_ms = self.session_end(id) - self.now_ms;
                Kept::Alive { expires_in_ms }
            }
            Some(Outcome::SessionExpired { .. }) => Kept::Expired,
            Some(_) => Kept::Unknown,
        });
        Outcome::KeptAlive(kept.collect())
    }

    pub(super) fn close(&mut self, id: &Name, reason: Option<&Name>) -> Outcome {
        if let Some(refusal) = self.session_refusal(id) {
            return refusal;
        }
        let of_session = |hold: &&Hold| hold.request.session.as_ref() == Some(id);
        let released = self.holds.iter().filter(of_session);
        let released: Vec<_> = released.map(|h| (h.wants.clone(), h.token)).collect();
        let released_count = released.len() as u64;
        self.event(Event::SessionClosed {
            session: id.clone(),
            name: self.sessions[id].open.name.clone(),
            held: released_count,
            reason: reason.cloned(),
        });
        let how = reason.map_or(End::Willing, |reason| End::Forced(reason.clone()));
        self.end_session(id, &how);
        Outcome::SessionClosed(Box::new(Ended {
            released,
            released_count,
        }))
    }

    fn end_session(&mut self, id: &Name, how: &End) {
        let of_session = |request: &Acquire| request.session.as_ref() == Some(id);
        self.sessions.get_mut(id).unwrap().over = true;
        while let Some(at) = self.waits.iter().position(|w| of_session(&w.request)) {
            let session = id.clone();
            self.end_wait(at, Outcome::SessionExpired { session });
        }
        while let Some(at) = self.holds.iter().position(|h| of_session(&h.request)) {
            self.end_hold(at, how);
        }
        self.sessions.remove(id);
        self.gone.insert(id.clone(), self.now_ms + REMEMBERED_MS);
    }

    fn holds_of(&self, id: &Name) -> usize {
        let of_session = |hold: &&Hold| hold.request.session.as_ref() == Some(id);
        self.holds.iter().filter(of_session).count()
    }

    pub(super) fn session_refusal(&self, id: &Name) -> Option<Outcome> {
        let session = id.clone();
        match (self.sessions.contains_key(id), self.gone.contains_key(id)) {
            (true, _) => None,
            (_, true) => Some(Outcome::SessionExpired { session }),
            (_, false) => Some(Outcome::SessionNotFound { session }),
        }
    }

    pub(super) fn session_end(&self, id: &Name) -> u64 {
        let session = &self.sessions[id];
        match session.over {
            true => 0,
            false => session.deadline_ms.max(self.floor_ms),
        }
    }

    pub(super) fn is_over(&self, at: usize) -> bool {
        let waiter = &self.waits[at];
        let session = waiter.request.session.as_ref();
        let dead = session.is_some_and(|id| self.session_end(id) <= self.now_ms);
        dead || waiter.deadline_ms <= self.now_ms || self.is_converting_nothing(at)
    }

    /// Whether the hold that is to be converted is over.
    fn is_converting_nothing(&self, at: usize) -> bool {
        let token = self.waits[at].converts;
        let hold = token.and_then(|token| self.held(token));
        hold.is_some_and(|at| self.end_of(&self.holds[at]) <= self.now_ms)
    }

    pub(super) fn tell(&mut self, waiter: &super::table_model::Waiter, outcome: Outcome) {
        self.effects.push(Effect::WaitEnded {
            reply: waiter.reply.clone(),
            waited_ms: self.now_ms - waiter.since_ms,
            converts: waiter.converts,
            outcome,
        });
    }
}
