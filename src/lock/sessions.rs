//! Sessions: one lease for whatever a client holds and waits for.
//!
//! A session ends by its own time, by its client, or by an operator. From that moment nothing of
//! it is live, whatever else has to be done: waits and holds are then taken out of the table, at
//! most so many in one entry, before anything else that is due.

use std::collections::BTreeSet;
use std::ops::Bound;

use imbl::{OrdSet, Vector};
use serde::{Deserialize, Serialize};

use super::Name;
use super::command::OpenSession;
use super::deadlines::Deadlines;
use super::event::{Effect, Event};
use super::holding::End;
use super::outcome::{Ended, Kept, Outcome};
use super::room::over_limit;
use super::table::Table;
use super::waiting::Place;
use super::weighed::{Changing, Weigh, Weighed};
use super::weight::Weight;
use crate::ids::Token;
use crate::protocol::Tenant;

/// How many holds the answer to a close names: it is an answer, not a listing.
pub const RELEASED_NAMED_MAX: usize = 1_000;

/// How long it is known of a session that it is over; later it is not known at all.
pub const REMEMBERED_MS: u64 = 300_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) name: Option<Name>,
    pub(super) ttl_ms: u64,
    pub(super) lock_delay_ms: u64,
    pub(super) meta: Option<String>,
    pub(super) opened_ms: u64,
    /// The lease's own end; a new term may have moved the real one.
    pub(super) deadline_ms: u64,
    pub(super) holds: BTreeSet<Token>,
    pub(super) waits: BTreeSet<Place>,
    /// Once it is over: since when, and how its holds end.
    over: Option<(u64, Closing)>,
    /// Among whose sessions it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<Tenant>,
}

/// By what a session ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Closing {
    Client,
    Time,
    Operator(Name),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sessions {
    by_id: Weighed<Name, Session>,
    /// Those that ended lately.
    gone: OrdSet<Name>,
    /// The same in the order in which they are forgotten.
    forgetting: Vector<(u64, Name)>,
}

impl Sessions {
    pub(super) fn get(&self, id: &str) -> Option<&Session> {
        self.by_id.get(id)
    }

    /// The session of a claim: it outlives its claims.
    pub(super) fn get_mut<'a>(&'a mut self, id: &'a Name) -> Changing<'a, Name, Session> {
        self.by_id.get_mut(id).expect("a claim's session exists")
    }

    pub(super) fn live_mut<'a>(&'a mut self, id: &'a Name) -> Changing<'a, Name, Session> {
        let session = self.get_mut(id);
        assert!(session.over.is_none(), "session {id} is over");
        session
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn weight(&self) -> Weight {
        self.by_id.weight()
    }

    pub(super) fn weight_of_tenant(&self, tenant: &Tenant) -> Weight {
        self.by_id.weight_of_tenant(tenant)
    }

    /// When the session of a claim ends, or has ended.
    pub(super) fn end_ms(&self, id: &Name, deadlines: &Deadlines) -> u64 {
        let session = self.by_id.get(id).expect("a claim's session exists");
        match session.over {
            Some((at_ms, _)) => at_ms,
            None => deadlines.lease_end_ms(session.deadline_ms),
        }
    }

    pub(super) fn is_over(&self, id: &Name, now_ms: u64, deadlines: &Deadlines) -> bool {
        self.end_ms(id, deadlines) <= now_ms
    }

    /// Sessions from this id on that are not over, in the order of their ids.
    pub(super) fn live_from<'a>(
        &'a self,
        from: Bound<&str>,
        now_ms: u64,
        deadlines: &'a Deadlines,
    ) -> impl Iterator<Item = (&'a Name, &'a Session)> {
        self.by_id
            .range::<_, str>((from, Bound::Unbounded))
            .filter(move |(id, _)| !self.is_over(id, now_ms, deadlines))
    }

    /// Forgets the oldest that is gone, if its time is over; false if there is none.
    pub(super) fn forget_next(&mut self, now_ms: u64) -> bool {
        match self.forgetting.front() {
            Some((until_ms, _)) if *until_ms <= now_ms => self.forget_oldest(),
            _ => return false,
        }
        true
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.forgetting.pop_front() {
            self.gone.remove(&id);
        }
    }

    /// Without those that ended lately.
    #[cfg(test)]
    pub(super) fn living(&self) -> Self {
        Sessions {
            by_id: self.by_id.clone(),
            ..Sessions::default()
        }
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Name, &Session)> {
        self.by_id.iter()
    }
}

#[cfg(test)]
impl Session {
    pub(super) fn is_ending(&self) -> bool {
        self.over.is_some()
    }
}

impl Table {
    pub(super) fn open_session(
        &mut self,
        now_ms: u64,
        request: &OpenSession,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let id = &request.session;
        if self.sessions.get(id).is_some() || self.sessions.gone.contains(id) {
            // Ids are random, so that none comes twice.
            return Outcome::SessionExpired {
                session: id.clone(),
            };
        }
        let deadline_ms = now_ms.saturating_add(request.ttl_ms);
        let session = Session {
            name: request.name.clone(),
            ttl_ms: request.ttl_ms,
            lock_delay_ms: request.lock_delay_ms,
            meta: request.meta.clone(),
            opened_ms: now_ms,
            deadline_ms,
            holds: BTreeSet::new(),
            waits: BTreeSet::new(),
            over: None,
            tenant: request.tenant.clone(),
        };
        if let Some(refusal) = self.sessions_over_limit(id, &session) {
            return refusal;
        }
        self.tenants
            .count(request.tenant.as_ref(), |owned| owned.sessions += 1);
        self.sessions.by_id.insert(id.clone(), session);
        self.deadlines.add_session(deadline_ms, id);
        effects.push(Effect::Event(Event::SessionOpened {
            session: id.clone(),
            name: request.name.clone(),
            ttl_ms: request.ttl_ms,
        }));
        Outcome::SessionOpened {
            session: id.clone(),
            ttl_ms: request.ttl_ms,
        }
    }

    /// Lets the leases of sessions begin anew. What a session holds under a lease of its own is
    /// not prolonged by that.
    pub(super) fn keep_alive(&mut self, now_ms: u64, ids: &[Name]) -> Outcome {
        let kept = ids.iter().map(|id| match self.session_refusal(now_ms, id) {
            None => {
                let mut session = self.sessions.live_mut(id);
                let deadline_ms = now_ms.saturating_add(session.ttl_ms);
                self.deadlines.remove_session(session.deadline_ms, id);
                self.deadlines.add_session(deadline_ms, id);
                session.deadline_ms = deadline_ms;
                drop(session);
                Kept::Alive {
                    expires_in_ms: self.sessions.end_ms(id, &self.deadlines) - now_ms,
                }
            }
            Some(Outcome::SessionExpired { .. }) => Kept::Expired,
            Some(_) => Kept::Unknown,
        });
        Outcome::KeptAlive(kept.collect())
    }

    /// Ends a session: at once for everybody who asks, and in the table as far as one entry goes.
    pub(super) fn close_session(
        &mut self,
        now_ms: u64,
        (id, reason): (&Name, Option<&Name>),
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        if let Some(refusal) = self.session_refusal(now_ms, id) {
            return refusal;
        }
        let session = self.sessions.get(id).expect("it is not refused");
        let name = session.name.clone();
        let holds = &session.holds;
        let released_count = holds.len() as u64;
        let named = holds.iter().take(RELEASED_NAMED_MAX);
        let released = named.map(|token| (self.holds[token].claim.wants.clone(), *token));
        let ended = Ended {
            released: released.collect(),
            released_count,
        };
        let closing = match reason {
            Some(reason) => Closing::Operator(reason.clone()),
            None => Closing::Client,
        };
        self.begin_ending(id, now_ms, closing);
        effects.push(Effect::Event(Event::SessionClosed {
            session: id.clone(),
            name,
            held: released_count,
            reason: reason.cloned(),
        }));
        for _ in 0..self.limits.endings_per_entry {
            if !self.end_next_of(now_ms, id, effects) {
                break;
            }
        }
        Outcome::SessionClosed(Box::new(ended))
    }

    fn sessions_over_limit(&self, id: &Name, session: &Session) -> Option<Outcome> {
        let limits = &self.limits;
        let known = self.sessions.len() as u64;
        let mut refusal = over_limit("sessions", known, 1, limits.sessions);
        if let Some(tenant) = &session.tenant {
            let own = self.tenants.owned_by(tenant).sessions;
            let limit = limits.sessions_per_tenant;
            refusal = refusal.or_else(|| over_limit("sessions_per_tenant", own, 1, limit));
        }
        let more = session.weight(id).bytes;
        refusal.or_else(|| self.bytes_over_limit(session.tenant.as_ref(), more))
    }

    /// Why a session cannot be used, if it cannot.
    pub(super) fn session_refusal(&self, now_ms: u64, id: &Name) -> Option<Outcome> {
        let session = id.clone();
        match self.sessions.get(id) {
            Some(_) if !self.sessions.is_over(id, now_ms, &self.deadlines) => None,
            Some(_) => Some(Outcome::SessionExpired { session }),
            None if self.sessions.gone.contains(id) => Some(Outcome::SessionExpired { session }),
            None => Some(Outcome::SessionNotFound { session }),
        }
    }

    /// A session's time is over: one more step of its ending.
    pub(super) fn expire_session(&mut self, now_ms: u64, id: &Name, effects: &mut Vec<Effect>) {
        let Some(session) = self.sessions.get(id) else {
            return;
        };
        if session.over.is_none() {
            let event = Event::SessionExpired {
                session: id.clone(),
                name: session.name.clone(),
                held: session.holds.len() as u64,
            };
            let end_ms = self.deadlines.lease_end_ms(session.deadline_ms);
            self.begin_ending(id, end_ms, Closing::Time);
            effects.push(Effect::Event(event));
        }
        self.end_next_of(now_ms, id, effects);
    }

    fn begin_ending(&mut self, id: &Name, at_ms: u64, closing: Closing) {
        let mut session = self.sessions.live_mut(id);
        session.over = Some((at_ms, closing));
        self.deadlines.remove_session(session.deadline_ms, id);
        self.deadlines.add_ending(id);
    }

    /// Ends one wait or hold of a session that is over, waits first; without any, the session is
    /// gone, and this is false.
    fn end_next_of(&mut self, now_ms: u64, id: &Name, effects: &mut Vec<Effect>) -> bool {
        let session = self.sessions.get(id).expect("it is not gone");
        if let Some(place) = session.waits.first().copied() {
            let outcome = Outcome::SessionExpired {
                session: id.clone(),
            };
            self.end_wait(now_ms, place, outcome, effects);
            return true;
        }
        if let Some(token) = session.holds.first().copied() {
            let how = self.end_of_holds(id);
            self.end(now_ms, token, &how, effects);
            return true;
        }
        let gone = self.sessions.by_id.remove(id).expect("it was just there");
        self.tenants
            .count(gone.tenant.as_ref(), |owned| owned.sessions -= 1);
        self.deadlines.remove_ending(id);
        let sessions = &mut self.sessions;
        sessions.gone.insert(id.clone());
        let until_ms = now_ms.saturating_add(REMEMBERED_MS);
        sessions.forgetting.push_back((until_ms, id.clone()));
        if sessions.gone.len() as u64 > self.limits.sessions {
            sessions.forget_oldest();
        }
        false
    }

    /// How the holds of a session end, if it is over.
    pub(super) fn end_of_holds(&self, id: &Name) -> End {
        match self
            .sessions
            .get(id)
            .and_then(|session| session.over.as_ref())
        {
            Some((_, Closing::Client)) => End::Willing,
            Some((_, Closing::Operator(reason))) => End::Forced(reason.clone()),
            Some((_, Closing::Time)) | None => End::Expired,
        }
    }
}
