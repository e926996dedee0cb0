//! Who waits for whom, derived from the lock table at the moment of asking; nothing is stored, so
//! nothing goes stale.
//!
//! A node is an owner that waits; an owner has one wait, so its place in a queue names it. A
//! waiter depends on every holder whose mode is incompatible with its own and on every earlier
//! waiter of the same queue whose mode is: exactly what keeps it from being granted. All of them
//! have to go before it is served, so a cycle is a deadlock, and it stays one until a member gives
//! up.
//!
//! A cycle can only come to be when a wait starts. Granting a waiter relabels the edges to it from
//! `queue` to `holder` or takes them away; ending a wait or a hold takes edges away; a grant on a
//! resource with an empty queue adds none. So [`cycle_through`] the new wait is all that is needed.
//!
//! What is over at the given moment counts as gone, even if nothing has ended it yet.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use super::command::{Because, CycleEdge, Deadlock, DeadlockPolicy, Mode};
use super::table::Table;
use super::waiting::Place;
use crate::ids::Token;

/// Why an edge leads to an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// It holds, by this token, what the one before it waits for.
    AsHolder(Token),
    /// It stands before the other in a queue.
    InQueue,
}

/// A cycle of waits in the order of waiting; each owner with the edge that leads to it, the first
/// one with the edge from the last.
#[derive(Debug)]
pub(super) struct Cycle {
    members: Vec<(Place, Reached)>,
}

/// A shortest cycle through the wait at `start`, if there is one.
///
/// Breadth first, without recursion, and linear in the reachable part of the table: each resource
/// remembers how far its holders and its queue have been looked at, so that a thousand waiters in
/// one queue are not compared pair by pair. There is no other bound on the search; the number of
/// waiters has one.
pub(super) fn cycle_through(table: &Table, start: Place, now_ms: u64) -> Option<Cycle> {
    let mut search = Search::new(table, start, now_ms);
    while search.step() {}
    search.came_from.contains_key(&start).then(|| search.path())
}

struct Search<'a> {
    table: &'a Table,
    now_ms: u64,
    start: Place,
    /// For each waiting owner found: who led to it, and why. The start is in it once it is reached.
    came_from: BTreeMap<Place, (Place, Reached)>,
    frontier: VecDeque<Place>,
    scanned: BTreeMap<&'a str, Scanned>,
    /// Edges looked at: what the search costs.
    looked_at: u64,
}

/// How far a resource has been looked at.
#[derive(Default)]
struct Scanned {
    holders: bool,
    /// Everybody before this place has been found.
    all_before: Place,
    /// Every exclusive waiter before this place has been found.
    exclusive_before: Place,
}

impl<'a> Search<'a> {
    fn new(table: &'a Table, start: Place, now_ms: u64) -> Self {
        Search {
            table,
            now_ms,
            start,
            came_from: BTreeMap::new(),
            frontier: VecDeque::from([start]),
            scanned: BTreeMap::new(),
            looked_at: 0,
        }
    }

    /// Looks at one more waiter; false when the start has been reached or nobody is left.
    fn step(&mut self) -> bool {
        if self.came_from.contains_key(&self.start) {
            return false;
        }
        let next = self.frontier.pop_front();
        if let Some(place) = next {
            self.expand(place);
        }
        next.is_some()
    }

    /// Finds everybody on whom the waiter depends and who was not found before.
    fn expand(&mut self, place: Place) {
        let table = self.table;
        let waiter = &table.waits[&place];
        if waiter.deadline_ms <= self.now_ms {
            return;
        }
        let (resource, mode) = (&*waiter.claim.resource, waiter.claim.mode);
        let lock = &table.locks[resource];
        let scanned = self.scanned.entry(resource).or_default();
        // Holders that are incompatible with one waiter are so with every waiter that is
        // incompatible with any of them: they all hold in one mode.
        let look_at_holders = !scanned.holders && !lock.admits(mode);
        scanned.holders |= look_at_holders;
        let from = match mode {
            Mode::Exclusive => scanned.all_before,
            Mode::Shared => scanned.all_before.max(scanned.exclusive_before),
        };
        match mode {
            Mode::Exclusive => scanned.all_before = place.max(from),
            Mode::Shared => scanned.exclusive_before = place.max(from),
        }
        if look_at_holders {
            for &token in &lock.holders {
                self.reach_holder(token, place);
            }
        }
        if from < place {
            for (&earlier, &earlier_mode) in lock.queue.range(from..place) {
                if mode == Mode::Exclusive || earlier_mode == Mode::Exclusive {
                    self.reach(earlier, place, Reached::InQueue);
                }
            }
        }
    }

    /// A holder that does not wait depends on nobody.
    fn reach_holder(&mut self, token: Token, from: Place) {
        let hold = &self.table.holds[&token];
        let owner = self.table.owners.get(&hold.claim.owner);
        let waiting = owner.and_then(|owner| owner.waiting);
        if let Some(place) = waiting
            && self.table.is_live(hold, self.now_ms)
        {
            self.reach(place, from, Reached::AsHolder(token));
        }
    }

    fn reach(&mut self, place: Place, from: Place, how: Reached) {
        self.looked_at += 1;
        if let Entry::Vacant(new) = self.came_from.entry(place) {
            new.insert((from, how));
            self.frontier.push_back(place);
        }
    }

    /// The way by which the start was reached from itself.
    fn path(&self) -> Cycle {
        let mut members = Vec::new();
        let mut at = self.start;
        loop {
            let (from, how) = self.came_from[&at];
            members.push((at, how));
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
        self.members.iter().map(|&(place, _)| place)
    }

    /// The cycle as the outside is told it.
    pub(super) fn describe(
        &self,
        table: &Table,
        victim: Place,
        policy: DeadlockPolicy,
    ) -> Deadlock {
        let nexts = self.members.iter().cycle().skip(1);
        let cycle = self.members.iter().zip(nexts).map(|(member, next)| {
            let (claim, next_claim) = (&table.waits[&member.0].claim, &table.waits[&next.0].claim);
            let token = match member.1 {
                Reached::AsHolder(token) => Some(token),
                Reached::InQueue => None,
            };
            CycleEdge {
                owner: claim.owner.to_string(),
                holds: token.map(|token| table.holds[&token].claim.resource.to_string()),
                token,
                waits_for_owner: next_claim.owner.to_string(),
                resource: claim.resource.to_string(),
                because: match next.1 {
                    Reached::AsHolder(_) => Because::Holder,
                    Reached::InQueue => Because::Queue,
                },
            }
        });
        Deadlock {
            cycle: cycle.collect(),
            victim: table.waits[&victim].claim.owner.to_string(),
            policy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::{Acquire, Command, Outcome, Wait};
    use super::*;
    use crate::protocol::{Encoding, ReplyTo};

    fn acquire(owner: usize, resource: usize, wait_ms: Option<u64>) -> Command {
        let reply = ReplyTo {
            subject: String::new(),
            encoding: Encoding::Json,
        };
        Command::Acquire(Acquire {
            resource: format!("r{resource}"),
            mode: Mode::Exclusive,
            owner: format!("o{owner}"),
            request_id: None,
            ttl_ms: 30_000,
            wait: wait_ms.map(|wait_ms| Wait { wait_ms, reply }),
            on_deadlock: DeadlockPolicy::Requester,
            meta: None,
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
        let last = Place(WAITERS as u64);
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
