//! Who waits for whom, derived from the lock table at the moment of asking; nothing is stored, so
//! nothing goes stale.
//!
//! A node is an owner that waits; an owner has one wait, so its place names it. For each resource
//! that it wants, a waiter depends on every holder that is incompatible with it and on every earlier
//! waiter that is: exactly what keeps it from being granted. Of exclusive and shared holders all
//! have to go before it is served, and all earlier waiters, so that a cycle of such edges is a
//! deadlock. Of the holders of permits only enough have to go: a cycle through such an edge may
//! dissolve, and [`reduction`](super::reduction) decides. Either way it stays a deadlock until a
//! member gives up.
//!
//! A deadlock can only come to be when a wait starts. Granting a waiter relabels the edges to it
//! from `queue` to `holder` or takes them away; ending a wait or a hold takes edges away; a grant to
//! a request that does not wait is compatible with everybody who waits, and a conversion without a
//! wait is its owner's, who waits for nothing. So [`cycle_through`] the new wait is all that is
//! needed. With it out of the way all others could be served, so whatever can't be served now waits,
//! over others, for it: there is a cycle through it.
//!
//! What is over at the given moment counts as gone, even if nothing has ended it yet.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use super::Name;
use super::claim::{Grip, Want};
use super::command::DeadlockPolicy;
use super::outcome::{Because, CycleEdge, Deadlock};
use super::reduction::never_served;
use super::resource::Lock;
use super::table::Table;
use super::waiting::{Place, Waiter};
use crate::ids::Token;

/// Why an edge leads to an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// It holds, by this token, what the one before it waits for.
    AsHolder(Token),
    /// It stands before the other in a queue.
    InQueue,
}

/// An edge: the waiter that it comes from, the resource that it is about, and why.
type From<'a> = (Place, &'a Name, Reached);

/// A cycle of waits in the order of waiting; each owner with the edge that leads to it, the first
/// one with the edge from the last.
#[derive(Debug)]
pub(super) struct Cycle {
    members: Vec<(Place, Name, Reached)>,
}

/// A shortest cycle through the wait at `start` of which no member is ever served, if there is one.
///
/// Breadth first, without recursion, and linear in the reachable part of the table: each resource
/// remembers how far its holders and its queue have been looked at, so that a thousand waiters in
/// one queue are not compared pair by pair. There is no other bound on the search; the number of
/// waiters has one.
pub(super) fn cycle_through(table: &Table, start: Place, now_ms: u64) -> Option<Cycle> {
    let mut search = Search::new(table, start, now_ms);
    while !search.has_closed() && search.step() {}
    if !search.has_closed() {
        return None;
    }
    if search.met_permits {
        while search.step() {}
        let reached = search.found.iter().copied().collect();
        let stuck = never_served(table, &reached, now_ms);
        if !stuck.contains(&start) {
            return None;
        }
        search = Search::new(table, start, now_ms);
        search.among = Some(stuck);
        while !search.has_closed() && search.step() {}
    }
    Some(search.path())
}

struct Search<'a> {
    table: &'a Table,
    now_ms: u64,
    start: Place,
    /// Only waits among these are looked at; all when absent.
    among: Option<BTreeSet<Place>>,
    /// For each waiting owner found, the edge that led to it. The start is in it once it is reached.
    came_from: HashMap<Place, From<'a>>,
    /// The start and all waiting owners found, in the order of finding; those from `next` on have not been
    /// looked at.
    found: Vec<Place>,
    next: usize,
    scanned: HashMap<&'a str, Scanned>,
    /// Whether an edge to a holder of permits was looked at.
    met_permits: bool,
    /// Edges looked at: what the search costs.
    looked_at: u64,
}

/// How far a resource has been looked at.
struct Scanned {
    holders: bool,
    /// Every strong waiter before this place has been found.
    strong_before: Place,
    /// Every shared waiter before this place has been found.
    shared_before: Place,
}

impl<'a> Search<'a> {
    fn new(table: &'a Table, start: Place, now_ms: u64) -> Self {
        Search {
            table,
            now_ms,
            start,
            among: None,
            came_from: HashMap::new(),
            found: vec![start],
            next: 0,
            scanned: HashMap::new(),
            met_permits: false,
            looked_at: 0,
        }
    }

    /// Whether the start has been reached from itself.
    fn has_closed(&self) -> bool {
        self.came_from.contains_key(&self.start)
    }

    /// Looks at one more waiter; false when nobody is left.
    fn step(&mut self) -> bool {
        let next = self.found.get(self.next).copied();
        if let Some(place) = next {
            self.next += 1;
            self.expand(place);
        }
        next.is_some()
    }

    /// Finds everybody on whom the waiter depends and who was not found before.
    fn expand(&mut self, place: Place) {
        let table = self.table;
        let waiter = &table.waits[&place];
        if table.is_wait_over(waiter, self.now_ms) {
            return;
        }
        for want in waiter.claim.wants.iter() {
            let lock = &table.locks[&want.resource];
            self.scan_holders((place, waiter), want, lock);
            self.scan_queue(place, want, lock);
        }
    }

    /// Holders that are incompatible with one waiter are so with every waiter that is incompatible
    /// with any of them: they all hold in one mode. Only a conversion leaves its own hold out.
    fn scan_holders(&mut self, (place, waiter): (Place, &Waiter), want: &'a Want, lock: &'a Lock) {
        let seen = self.scanned_of(&want.resource).holders;
        let own = waiter.converts;
        if seen || (own.is_none() && lock.holders_admit(want.grip)) {
            return;
        }
        if own.is_none() && lock.permits_only(want.grip) {
            if self.enough_go(want, lock) {
                return;
            }
            self.met_permits = true;
        }
        self.scanned_of(&want.resource).holders = own.is_none();
        for &token in &lock.holders {
            if own != Some(token) {
                self.reach_holder(token, (place, &want.resource));
            }
        }
    }

    /// Among waits that are never served: whether the holders of permits that are not among them
    /// give back enough.
    fn enough_go(&self, want: &Want, lock: &Lock) -> bool {
        let (Some(among), Grip::Permits { permits, limit }) = (&self.among, want.grip) else {
            return false;
        };
        let kept = lock.holders.iter().filter_map(|token| {
            let hold = &self.table.holds[token];
            let place = self.table.owners.get(&hold.claim.owner)?.waiting?;
            let stays = among.contains(&place) && self.table.is_live(hold, self.now_ms);
            let grip = hold.claim.wants.grip_of(&want.resource)?;
            grip.permits().filter(|_| stays)
        });
        kept.sum::<u32>() + permits <= limit
    }

    fn scan_queue(&mut self, place: Place, want: &'a Want, lock: &'a Lock) {
        let scanned = self.scanned_of(&want.resource);
        let strong_from = scanned.strong_before;
        scanned.strong_before = place.max(strong_from);
        let shared_from = scanned.shared_before;
        let is_strong = want.grip != Grip::Shared;
        if is_strong {
            scanned.shared_before = place.max(shared_from);
        }
        let edge = (place, &want.resource, Reached::InQueue);
        if strong_from < place {
            for &earlier in lock.strong.range(strong_from..place).map(|(at, _)| at) {
                self.reach(earlier, edge);
            }
        }
        if is_strong && shared_from < place {
            for &earlier in lock.shared.range(shared_from..place) {
                self.reach(earlier, edge);
            }
        }
    }

    fn scanned_of(&mut self, resource: &'a Name) -> &mut Scanned {
        self.scanned.entry(resource).or_insert(Scanned {
            holders: false,
            strong_before: Place::FIRST,
            shared_before: Place::FIRST,
        })
    }

    /// A holder that does not wait depends on nobody.
    fn reach_holder(&mut self, token: Token, (from, resource): (Place, &'a Name)) {
        let hold = &self.table.holds[&token];
        let owner = self.table.owners.get(&hold.claim.owner);
        let waiting = owner.and_then(|owner| owner.waiting);
        if let Some(place) = waiting
            && self.table.is_live(hold, self.now_ms)
        {
            self.reach(place, (from, resource, Reached::AsHolder(token)));
        }
    }

    fn reach(&mut self, place: Place, edge: From<'a>) {
        self.looked_at += 1;
        if let Some(among) = &self.among
            && !among.contains(&place)
        {
            return;
        }
        if let Entry::Vacant(new) = self.came_from.entry(place) {
            new.insert(edge);
            self.found.push(place);
        }
    }

    /// The way by which the start was reached from itself.
    fn path(&self) -> Cycle {
        let mut members = Vec::new();
        let mut at = self.start;
        loop {
            let (from, resource, how) = self.came_from[&at];
            members.push((at, resource.clone(), how));
            at = from;
            if at == self.start {
                break;
            }
        }
        members[1..].reverse();
        Cycle { members }
    }
}

impl Cycle {
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        self.members.iter().map(|(place, ..)| *place)
    }

    /// The cycle as the outside is told it.
    pub(super) fn describe(
        &self,
        table: &Table,
        victim: Place,
        policy: DeadlockPolicy,
    ) -> Deadlock {
        let owner_of = |place: &Place| table.waits[place].claim.owner.to_string();
        let nexts = self.members.iter().cycle().skip(1);
        let cycle = self.members.iter().zip(nexts).map(|(member, next)| {
            let (place, wanted, reached) = member;
            let (next_place, waits_for, why) = next;
            let token = match reached {
                Reached::AsHolder(token) => Some(*token),
                Reached::InQueue => None,
            };
            CycleEdge {
                owner: owner_of(place),
                holds: token.map(|_| wanted.to_string()),
                token,
                waits_for_owner: owner_of(next_place),
                resource: waits_for.to_string(),
                because: match why {
                    Reached::AsHolder(_) => Because::Holder,
                    Reached::InQueue => Because::Queue,
                },
            }
        });
        Deadlock {
            cycle: cycle.collect(),
            victim: owner_of(&victim),
            policy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::claim::Wants;
    use super::super::command::{Acquire, Command, Wait};
    use super::super::outcome::Outcome;
    use super::*;
    use crate::protocol::{Encoding, ReplyTo};

    fn acquire(owner: usize, resource: usize, wait_ms: Option<u64>) -> Command {
        let reply = ReplyTo::new("", Encoding::Json);
        Command::Acquire(Acquire {
            wants: Wants::one(format!("r{resource}"), Grip::Exclusive),
            owner: format!("o{owner}").into(),
            request_id: None,
            session: None,
            ttl_ms: Some(30_000),
            wait: wait_ms.map(|wait_ms| Wait { wait_ms, reply }),
            on_deadlock: DeadlockPolicy::Requester,
            meta: None,
            tenant: None,
        })
    }
    /// Each owner holds a resource and waits for that of the one before it; the first one closes
    /// the ring. A search that recursed or compared pairs would not end well.
    #[test]
    fn a_ring_of_ten_thousand_owners_is_found() {
        const OWNERS: usize = 10_000;
        let (mut table, mut effects) = (Table::default(), Vec::new());
        for owner in 0..OWNERS {
            table.apply(0, &acquire(owner, owner, None), &mut effects);
        }
        for owner in (1..OWNERS).rev() {
            let outcome = table.apply(0, &acquire(owner, owner - 1, Some(1)), &mut effects);
            assert_eq!(outcome, Outcome::Waiting);
        }
        let outcome = table.apply(0, &acquire(0, OWNERS - 1, Some(1)), &mut effects);
        let Outcome::Deadlock(deadlock) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(deadlock.cycle.len(), OWNERS);
        assert_eq!(deadlock.victim, "o0");
    }

    /// Each waiter depends on all before it; a search that looked at each pair would look at
    /// twelve million.
    #[test]
    fn a_queue_is_looked_at_once() {
        const WAITERS: usize = 5_000;
        let (mut table, mut effects) = (Table::default(), Vec::new());
        table.apply(0, &acquire(0, 0, None), &mut effects);
        for owner in 1..=WAITERS {
            table.apply(0, &acquire(owner, 0, Some(1)), &mut effects);
        }
        let last = *table.waits.last_key_value().unwrap().0;
        let mut search = Search::new(&table, last, 0);
        while search.step() {}
        assert_eq!(search.came_from.len(), WAITERS - 1);
        assert!(
            search.looked_at <= 2 * WAITERS as u64,
            "{}",
            search.looked_at
        );
    }
}
