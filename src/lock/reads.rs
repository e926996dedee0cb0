//! What can be seen of the table without changing it. Everything is evaluated at a given moment:
//! what is over then is not shown, even if nothing has ended it yet.

use super::command::{Check, Contention, HolderView, LockView, Outcome, WaiterView};
use super::holding::Hold;
use super::table::Table;
use super::waiting::Waiter;
use crate::ids::Token;
use crate::protocol::ReplyTo;

/// How many holders a refusal names, oldest first: it is an answer, not a listing.
pub const HOLDERS_NAMED_MAX: usize = 32;

impl Table {
    /// Who holds the resource (by token) and who waits for it (in the order of service): all of
    /// them, at most [`claims_per_resource`](super::limits::Limits::claims_per_resource).
    pub fn get(&self, resource: &str, now_ms: u64) -> LockView {
        let Some(lock) = self.locks.get(resource) else {
            return LockView::default();
        };
        let waiters = lock.queue.keys().map(|place| &self.waits[place]);
        LockView {
            holders: self.live_holders(resource, now_ms).collect(),
            waiters: waiters
                .filter(|waiter| waiter.deadline_ms > now_ms)
                .map(|waiter| view_of_waiter(waiter, now_ms))
                .collect(),
        }
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
    pub(super) fn contention(&self, now_ms: u64, resource: &str) -> Contention {
        Contention {
            resource: resource.to_owned(),
            holders: self
                .live_holders(resource, now_ms)
                .take(HOLDERS_NAMED_MAX)
                .collect(),
            queue_length: self
                .locks
                .get(resource)
                .map_or(0, |lock| lock.queue.len() as u64),
        }
    }

    pub(super) fn is_live(&self, hold: &Hold, now_ms: u64) -> bool {
        self.deadlines.lease_end_ms(hold.deadline_ms) > now_ms
    }

    pub(super) fn expires_in_ms(&self, now_ms: u64, hold: &Hold) -> u64 {
        self.deadlines
            .lease_end_ms(hold.deadline_ms)
            .saturating_sub(now_ms)
    }

    fn live_holders(&self, resource: &str, now_ms: u64) -> impl Iterator<Item = HolderView> {
        let tokens = self.locks.get(resource).map(|lock| lock.holders.iter());
        tokens
            .into_iter()
            .flatten()
            .map(|token| (*token, &self.holds[token]))
            .filter(move |(_, hold)| self.is_live(hold, now_ms))
            .map(move |(token, hold)| HolderView {
                owner: hold.claim.owner.to_string(),
                token,
                mode: hold.claim.mode,
                expires_in_ms: self.expires_in_ms(now_ms, hold),
                held_ms: now_ms.saturating_sub(hold.granted_ms),
                meta: hold.claim.meta.clone(),
            })
    }
}

fn view_of_waiter(waiter: &Waiter, now_ms: u64) -> WaiterView {
    WaiterView {
        owner: waiter.claim.owner.to_string(),
        mode: waiter.claim.mode,
        waited_ms: now_ms.saturating_sub(waiter.since_ms),
        request_id: waiter.claim.request_id.as_deref().map(str::to_owned),
    }
}
