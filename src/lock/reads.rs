//! What can be seen of the table without changing it. Everything is evaluated at a given moment:
//! what is over then is not shown, even if nothing has ended it yet.

use super::Name;
use super::claim::Claim;
use super::holding::Hold;
use super::listing::Room;
use super::outcome::{Check, Contention, HolderView, LockView, Outcome, Requesters, WaiterView};
use super::table::Table;
use super::waiting::{Place, Waiter};
use crate::ids::Token;
use crate::protocol::ReplyTo;
use crate::protocol::request::is_under;

/// How many holders a refusal names, oldest first: it is an answer, not a listing.
pub const HOLDERS_NAMED_MAX: usize = 32;

impl Table {
    /// Who holds the resource (by token) and who waits for it (in the order of service): as many as
    /// one answer holds, the first of both.
    pub fn get(&self, resource: &str, now_ms: u64) -> LockView {
        let Some((resource, lock)) = self.locks.get_key_value(resource) else {
            return LockView::default();
        };
        let mut room = Room::of_an_answer();
        let mut of_holders = room.half();
        let tokens = lock.holders.iter().copied();
        let live = tokens.filter(|token| self.is_live(&self.holds[token], now_ms));
        let (holders, held) = fitting(live, |token| {
            let claim = &self.holds[&token].claim;
            let session = claim.session.as_ref().map_or(0, |session| session.len());
            let names = claim.owner.len() + session + claim.meta.as_ref().map_or(0, String::len);
            let fits = of_holders.take(names);
            fits.then(|| self.view_of_holder(token, resource, now_ms))
        });
        room.rejoin(of_holders);
        let waiters = lock.waiters().map(|place| &self.waits[&place]);
        let live = waiters.filter(|waiter| !self.is_wait_over(waiter, now_ms));
        let (waiters, waiting) = fitting(live, |waiter| {
            let claim = &waiter.claim;
            let optional = |name: &Option<Name>| name.as_ref().map_or(0, |name| name.len());
            let names = claim.owner.len() + optional(&claim.session) + optional(&claim.request_id);
            let fits = room.take(names);
            fits.then(|| view_of_waiter(waiter, resource, now_ms))
        });
        LockView {
            held: (held > holders.len()).then_some(held as u64),
            waiting: (waiting > waiters.len()).then_some(waiting as u64),
            holders,
            waiters,
            delay_ms: self.delay_ms(resource, now_ms),
        }
    }

    /// Whose requests with this id, and of this session if one is named, wait for the resource or hold it: as
    /// many as one answer holds.
    pub fn requesters(
        &self,
        resource: &str,
        (request_id, session): (&Name, Option<&Name>),
        now_ms: u64,
    ) -> Requesters {
        let Some(lock) = self.locks.get(resource) else {
            return Requesters::default();
        };
        let of_session = |claim: &Claim| session.is_none() || claim.session.as_ref() == session;
        let waits = lock.waiters().map(|place| &self.waits[&place]);
        let waits = waits.filter(|waiter| !self.is_wait_over(waiter, now_ms));
        let waiting = waits
            .map(|waiter| &waiter.claim)
            .filter(|claim| claim.request_id.as_ref() == Some(request_id) && of_session(claim));
        let holds = lock.holders.iter().map(|token| &self.holds[token]);
        let holding = holds.filter(|hold| {
            let mut ids = hold.claim.request_id.iter().chain(&hold.later_request_ids);
            self.is_live(hold, now_ms) && of_session(&hold.claim) && ids.any(|id| id == request_id)
        });
        let mut room = Room::of_an_answer();
        let mut fits = |owner: &Name| room.take(owner.len());
        let waiting = waiting.map(|claim| claim.owner.clone());
        let holding = holding.map(|hold| hold.claim.owner.clone());
        Requesters {
            waiting: waiting.take_while(&mut fits).collect(),
            holding: holding.take_while(&mut fits).collect(),
        }
    }

    /// Whether the token is that of several resources, each of which is this one or lies under it.
    pub fn is_set_under(&self, resource: &str, token: Token) -> bool {
        let wants = self.holds.get(&token).map(|hold| &hold.claim.wants);
        wants.is_some_and(|wants| {
            let mut each = wants.iter();
            wants.is_set() && each.all(|want| is_under(&want.resource, resource))
        })
    }

    /// Whether the token is that of a live hold on the resource.
    pub fn check(&self, resource: &str, token: Token, now_ms: u64) -> Check {
        let lock = self.locks.get(resource);
        let live = |token: &&Token| self.is_live(&self.holds[*token], now_ms);
        let asked = lock
            .and_then(|lock| lock.holders.get(&token))
            .filter(live)
            .map(|token| &self.holds[token]);
        Check {
            valid: asked.is_some(),
            current_token: lock.and_then(|lock| lock.holders.iter().rev().find(live).copied()),
            expires_in_ms: asked.map(|hold| self.expires_in_ms(now_ms, hold)),
        }
    }

    /// The answers to waits that ended within the last seconds of state time, oldest first, for a
    /// new leader to publish again. A grant is told as it is at `now_ms` (what is left of its
    /// lease); one that is over by then is left out.
    pub fn recent_endings(&self, now_ms: u64) -> impl Iterator<Item = (&ReplyTo, Outcome)> {
        self.endings
            .iter(now_ms)
            .filter_map(move |(reply, outcome)| {
                let outcome = match outcome {
                    Outcome::Acquired(then) => {
                        let hold = self.holds.get(&then.token)?;
                        if !self.is_live(hold, now_ms) {
                            return None;
                        }
                        Outcome::Acquired(self.acquired(now_ms, then.token))
                    }
                    other => other.clone(),
                };
                Some((reply, outcome))
            })
    }

    /// Who is in the way, as a refusal tells it: the first [`HOLDERS_NAMED_MAX`] holders.
    pub(super) fn contention(&self, now_ms: u64, resource: &Name) -> Contention {
        Contention {
            resource: resource.clone(),
            holders: self
                .live_holders(resource, now_ms)
                .take(HOLDERS_NAMED_MAX)
                .collect(),
            queue_length: self
                .locks
                .get(resource)
                .map_or(0, |lock| lock.queue_len() as u64),
            delay_ms: self.delay_ms(resource, now_ms),
        }
    }

    /// The same for a waiter, who does not count itself.
    pub(super) fn contention_of(&self, now_ms: u64, place: Place) -> Contention {
        let waiter = &self.waits[&place];
        let first = &waiter.claim.wants.as_slice()[0].resource;
        let resource = self.blocked_on(waiter, place, now_ms).unwrap_or(first);
        let contention = self.contention(now_ms, resource);
        Contention {
            queue_length: contention.queue_length - 1,
            ..contention
        }
    }

    pub(super) fn is_live(&self, hold: &Hold, now_ms: u64) -> bool {
        self.hold_end_ms(hold) > now_ms
    }

    /// When a hold ends: with its own lease or with its session, whichever is first.
    pub(super) fn hold_end_ms(&self, hold: &Hold) -> u64 {
        let own = hold.deadline_ms;
        let own_ms = own.map_or(u64::MAX, |at_ms| self.deadlines.lease_end_ms(at_ms));
        match &hold.claim.session {
            None => own_ms,
            Some(session) => own_ms.min(self.sessions.end_ms(session, &self.deadlines)),
        }
    }

    /// When a wait ends: by itself, with its session, or with the hold that it is to convert.
    pub(super) fn wait_end_ms(&self, waiter: &Waiter) -> u64 {
        let session = waiter.claim.session.as_ref();
        let session_ms = session.map(|id| self.sessions.end_ms(id, &self.deadlines));
        let hold_ms = waiter
            .converts
            .map(|token| self.hold_end_ms(&self.holds[&token]));
        [session_ms, hold_ms]
            .into_iter()
            .flatten()
            .fold(waiter.deadline_ms, u64::min)
    }

    pub(super) fn is_wait_over(&self, waiter: &Waiter, now_ms: u64) -> bool {
        self.wait_end_ms(waiter) <= now_ms
    }

    pub(super) fn expires_in_ms(&self, now_ms: u64, hold: &Hold) -> u64 {
        self.hold_end_ms(hold).saturating_sub(now_ms)
    }

    pub(super) fn view_of_holder(&self, token: Token, resource: &str, now_ms: u64) -> HolderView {
        let hold = &self.holds[&token];
        HolderView {
            owner: hold.claim.owner.clone(),
            token,
            grip: hold.claim.wants.grip_of(resource).expect("it is held"),
            session: hold.claim.session.clone(),
            expires_in_ms: self.expires_in_ms(now_ms, hold),
            held_ms: now_ms.saturating_sub(hold.granted_ms),
            meta: hold.claim.meta.clone(),
        }
    }

    /// What is left of the resource's lock delay.
    fn delay_ms(&self, resource: &str, now_ms: u64) -> Option<u64> {
        let until_ms = self.locks.get(resource)?.closed_until_ms?;
        (until_ms > now_ms).then(|| until_ms - now_ms)
    }

    fn live_holders(&self, resource: &Name, now_ms: u64) -> impl Iterator<Item = HolderView> {
        let tokens = self.locks.get(resource).map(|lock| lock.holders.iter());
        tokens
            .into_iter()
            .flatten()
            .filter(move |token| self.is_live(&self.holds[*token], now_ms))
            .map(move |token| self.view_of_holder(*token, resource, now_ms))
    }
}

/// The first of them, until one does not fit, and how many there are.
fn fitting<T, V>(
    all: impl Iterator<Item = T>,
    mut view: impl FnMut(T) -> Option<V>,
) -> (Vec<V>, usize) {
    let (mut views, mut count) = (Vec::new(), 0);
    for one in all {
        if views.len() == count
            && let Some(view) = view(one)
        {
            views.push(view);
        }
        count += 1;
    }
    (views, count)
}

fn view_of_waiter(waiter: &Waiter, resource: &str, now_ms: u64) -> WaiterView {
    let claim = &waiter.claim;
    WaiterView {
        owner: claim.owner.clone(),
        grip: claim.wants.grip_of(resource).expect("it is wanted"),
        session: claim.session.clone(),
        waited_ms: now_ms.saturating_sub(waiter.since_ms),
        request_id: claim.request_id.clone(),
    }
}
