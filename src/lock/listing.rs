//! What lists many things of the table: locks, sessions, who waits for whom, recent deadlocks. In
//! the form in which it is answered, and never more than one answer holds.

use std::ops::Bound::{Excluded, Included, Unbounded};

use super::Name;
use super::claim::Grip;
use super::outcome::{Because, CycleEdge, Deadlock, Outcome};
use super::resource::Lock;
use super::table::Table;
use super::waiting::{Place, Waiter};
use crate::protocol::lock as wire;
use crate::protocol::meta::Meta;
use crate::protocol::{Tenant, session};

/// About how many bytes an answer may have: half of a broker's greatest message, since JSON writes
/// some characters with more bytes than they have here.
pub const ANSWER_BYTES_MAX: usize = 512 * 1024;

/// About how many bytes an item takes beside its names.
const ITEM_BYTES: usize = 160;

/// What is left of an answer.
pub(super) struct Room(usize);

impl Room {
    pub(super) fn of_an_answer() -> Self {
        Room(ANSWER_BYTES_MAX)
    }

    /// Takes half of it away, for the first of two lists.
    pub(super) fn half(&mut self) -> Self {
        let half = self.0 / 2;
        self.0 -= half;
        Room(half)
    }

    /// Gives back what the first list has left.
    pub(super) fn rejoin(&mut self, rest: Room) {
        self.0 += rest.0;
    }

    /// Whether one more item with names of so many bytes fits; then it is counted.
    pub(super) fn take(&mut self, names: usize) -> bool {
        let left = self.0.checked_sub(names + ITEM_BYTES);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

impl Table {
    /// `lock.list`: what is held, waited for or closed, in the order of the names. What has only claims
    /// that are over is free, though nothing has ended them yet.
    pub fn list(&self, query: &Page, now_ms: u64) -> wire::Listing {
        let (mut room, mut listing) = (Room::of_an_answer(), wire::Listing::default());
        let (after, is_any_over) = (query.after(), self.deadlines.is_any_over(now_ms));
        for (resource, lock) in self.locks.range::<_, str>((after, Unbounded)) {
            if !query.covers(resource) {
                break;
            }
            // Counting one by one costs a visit to each claim: only when some of them may be over.
            let (held, waiting) = match is_any_over {
                true => self.live_claims(lock, now_ms),
                false => (lock.holders.len(), lock.queue_len()),
            };
            if held == 0 && waiting == 0 && !lock.is_closed(now_ms) {
                continue;
            }
            let fits = room.take(2 * resource.len() + 256);
            if listing.locks.len() == query.limit || !fits {
                listing.cursor = listing.locks.last().map(|last| last.resource.clone());
                break;
            }
            let counts = (held as u64, waiting as u64);
            listing
                .locks
                .push(self.listed((resource, lock), counts, now_ms));
        }
        listing
    }

    /// How many holders and waiters a resource has that are not over.
    fn live_claims(&self, lock: &Lock, now_ms: u64) -> (usize, usize) {
        let holds = lock.holders.iter().map(|token| &self.holds[token]);
        let waits = lock.waiters().map(|place| &self.waits[&place]);
        (
            holds.filter(|hold| self.is_live(hold, now_ms)).count(),
            waits
                .filter(|wait| !self.is_wait_over(wait, now_ms))
                .count(),
        )
    }

    fn listed(
        &self,
        (resource, lock): (&Name, &Lock),
        (held, waiting): (u64, u64),
        now_ms: u64,
    ) -> wire::Listed {
        let live = |token: &&_| self.is_live(&self.holds[*token], now_ms);
        let oldest = lock.holders.iter().find(live);
        let oldest = oldest.map(|token| self.view_of_holder(*token, resource, now_ms));
        wire::Listed {
            resource: resource.to_string(),
            held,
            waiting,
            mode: oldest.as_ref().map(|holder| holder.grip.mode()),
            owner: oldest.as_ref().map(|holder| holder.owner.to_string()),
            token: oldest.as_ref().map(|holder| holder.token),
            expires_in_ms: oldest.map(|holder| holder.expires_in_ms),
        }
    }

    /// `lock.graph`: for each waiter, the holders in its way, and of those before it in the queue the
    /// ones after which nobody else is in its way. With a tenant, only of its own.
    pub fn graph(&self, tenant: Option<&Tenant>, now_ms: u64) -> wire::WaitGraph {
        let (mut room, mut graph) = (Room::of_an_answer(), wire::WaitGraph::default());
        for (place, waiter) in self.waits.iter() {
            let shown = tenant.is_none_or(|tenant| tenant.has(&waiter.claim.owner));
            if !shown || self.is_wait_over(waiter, now_ms) {
                continue;
            }
            self.edges_of(*place, waiter, now_ms, |edge| {
                let names = edge.owner.len() + edge.waits_for_owner.len() + edge.resource.len();
                match room.take(names) {
                    true => graph.edges.push(edge),
                    false => graph.truncated = true,
                }
                !graph.truncated
            });
            if graph.truncated {
                break;
            }
        }
        graph
    }

    /// Hands over the edges of one waiter until the receiver has enough.
    fn edges_of(
        &self,
        place: Place,
        waiter: &Waiter,
        now_ms: u64,
        mut take: impl FnMut(wire::Edge) -> bool,
    ) {
        let edge = |to: &Name, resource: &Name, because| wire::Edge {
            owner: waiter.claim.owner.to_string(),
            waits_for_owner: to.to_string(),
            resource: resource.to_string(),
            because,
            waited_ms: now_ms.saturating_sub(waiter.since_ms),
        };
        for want in waiter.claim.wants.iter() {
            let lock = &self.locks[&want.resource];
            let in_the_way = waiter.converts.is_some() || !lock.holders_admit(want.grip);
            let holders = lock.holders.iter().filter(|_| in_the_way);
            for token in holders.filter(|token| waiter.converts != Some(**token)) {
                let hold = &self.holds[token];
                let live = self.is_live(hold, now_ms);
                let edge = edge(&hold.claim.owner, &want.resource, Because::Holder);
                if live && !take(edge) {
                    return;
                }
            }
            let last_strong = lock.strong.range(..place).next_back().map(|(at, _)| *at);
            let shared = (want.grip != Grip::Shared).then(|| {
                let from = last_strong.map_or(Unbounded, Excluded);
                lock.shared.range((from, Excluded(place))).copied()
            });
            for before in last_strong.into_iter().chain(shared.into_iter().flatten()) {
                let before = &self.waits[&before];
                let live = !self.is_wait_over(before, now_ms);
                let edge = edge(&before.claim.owner, &want.resource, Because::Queue);
                if live && !take(edge) {
                    return;
                }
            }
        }
    }

    /// `lock.deadlocks`: those found lately, newest first; with a tenant, only of its own.
    pub fn recent_deadlocks(
        &self,
        (limit, tenant): (usize, Option<&Tenant>),
        now_ms: u64,
    ) -> wire::RecentDeadlocks {
        let mut room = Room::of_an_answer();
        let mut deadlocks = Vec::new();
        let shown = self.deadlocks.newest_first();
        let shown =
            shown.filter(|(_, found)| tenant.is_none_or(|tenant| tenant.has(&found.victim)));
        for (at_ms, deadlock) in shown.take(limit) {
            let (cycle, cycle_length) = cycle_within(deadlock, &mut room);
            if cycle.is_empty() {
                break;
            }
            deadlocks.push(wire::PastDeadlock {
                ago_ms: now_ms.saturating_sub(at_ms),
                cycle,
                cycle_length,
                victim: deadlock.victim.clone(),
                policy: deadlock.policy,
            });
        }
        wire::RecentDeadlocks { deadlocks }
    }

    /// `session.get`.
    ///
    /// # Errors
    /// When there is no such session, or it is over.
    pub fn session(&self, id: &str, now_ms: u64) -> Result<session::View, Outcome> {
        let id = &Name::from(id);
        if let Some(refusal) = self.session_refusal(now_ms, id) {
            return Err(refusal);
        }
        let of = self.sessions.get(id).expect("it is live");
        let mut room = Room::of_an_answer();
        let holds = of.holds.iter().flat_map(|token| {
            let hold = &self.holds[token];
            let wants = hold.claim.wants.iter();
            wants.map(move |want| session::Hold {
                resource: want.resource.to_string(),
                owner: hold.claim.owner.to_string(),
                token: *token,
                mode: want.grip.mode(),
                expires_in_ms: self.expires_in_ms(now_ms, hold),
                held_ms: now_ms.saturating_sub(hold.granted_ms),
            })
        });
        let fitting = holds.take_while(|hold| room.take(hold.resource.len() + hold.owner.len()));
        let holds = fitting.collect();
        let waits = of.waits.iter().flat_map(|place| {
            let waiter = &self.waits[place];
            let wants = waiter.claim.wants.iter();
            wants.map(move |want| session::Wait {
                resource: want.resource.to_string(),
                owner: waiter.claim.owner.to_string(),
                mode: want.grip.mode(),
                waited_ms: now_ms.saturating_sub(waiter.since_ms),
            })
        });
        let fitting = waits.take_while(|wait| room.take(wait.resource.len() + wait.owner.len()));
        Ok(session::View {
            session: id.to_string(),
            name: of.name.as_deref().map(str::to_owned),
            ttl_ms: of.ttl_ms,
            lock_delay_ms: of.lock_delay_ms,
            expires_in_ms: self.sessions.end_ms(id, &self.deadlines) - now_ms,
            open_ms: now_ms.saturating_sub(of.opened_ms),
            meta: of.meta.clone().map(Meta::from_kept),
            held: of.holds.len() as u64,
            waiting: of.waits.len() as u64,
            holds,
            waits: fitting.collect(),
        })
    }

    /// `session.list`: those that are not over, in the order of their ids; the prefix is that of
    /// their names. With a tenant, only its own.
    pub fn list_sessions(
        &self,
        query: &Page,
        tenant: Option<&Tenant>,
        now_ms: u64,
    ) -> session::Listing {
        let (mut room, mut listing) = (Room::of_an_answer(), session::Listing::default());
        let from = query.cursor.as_deref().map_or(Unbounded, Excluded);
        for (id, of) in self.sessions.live_from(from, now_ms, &self.deadlines) {
            let shown = tenant.is_none_or(|tenant| tenant.has(id));
            if !shown || !query.covers(of.name.as_deref().unwrap_or_default()) {
                continue;
            }
            if listing.sessions.len() == query.limit || !room.take(id.len() + 256) {
                listing.cursor = listing.sessions.last().map(|last| last.session.clone());
                break;
            }
            listing.sessions.push(session::Listed {
                session: id.to_string(),
                name: of.name.as_deref().map(str::to_owned),
                ttl_ms: of.ttl_ms,
                expires_in_ms: self.sessions.end_ms(id, &self.deadlines) - now_ms,
                held: of.holds.len() as u64,
                waiting: of.waits.len() as u64,
            });
        }
        listing
    }
}

/// Which part of a list is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Page {
    pub prefix: Option<Name>,
    /// The last name of the page before.
    pub cursor: Option<Name>,
    pub limit: usize,
}

impl From<wire::List> for Page {
    fn from(list: wire::List) -> Self {
        Page {
            limit: list.limit(),
            prefix: list.prefix.map(Name::from),
            cursor: list.cursor.map(Name::from),
        }
    }
}

impl Page {
    /// Where the page begins: behind the cursor, and not before the prefix.
    fn after(&self) -> std::ops::Bound<&str> {
        match (&self.cursor, &self.prefix) {
            (Some(cursor), prefix) if prefix.as_ref().is_none_or(|prefix| prefix <= cursor) => {
                Excluded(cursor)
            }
            (_, Some(prefix)) => Included(prefix),
            (_, None) => Unbounded,
        }
    }

    fn covers(&self, name: &str) -> bool {
        let prefix = self.prefix.as_deref().unwrap_or_default();
        name.starts_with(prefix)
    }
}

/// As much of a cycle as there is room for, and its length if that is not all.
pub(super) fn cycle_within(deadlock: &Deadlock, room: &mut Room) -> (Vec<CycleEdge>, Option<u64>) {
    let names = |edge: &CycleEdge| {
        let held = edge.holds.as_ref().map_or(0, |held| held.len());
        edge.owner.len() + edge.waits_for_owner.len() + edge.resource.len() + held
    };
    let fitting = deadlock
        .cycle
        .iter()
        .take_while(|edge| room.take(names(edge)));
    let cycle: Vec<CycleEdge> = fitting.cloned().collect();
    let length = deadlock.cycle.len();
    let cut = (cycle.len() < length).then_some(length as u64);
    (cycle, cut)
}
