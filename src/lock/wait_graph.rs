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

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use foldhash::fast::RandomState;

use super::Name;
use super::claim::{Grip, Want};
use super::command::DeadlockPolicy;
use super::dependants::Dependants;
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

#[derive(Clone, Copy, Debug)]
struct Edge<'a> {
    /// The waiter that it comes from, by the order of finding.
    from: usize,
    /// What it is about.
    resource: &'a Name,
    reached: Reached,
}

/// A waiting owner that the search has come to.
#[derive(Clone, Copy, Debug)]
struct Found<'a> {
    place: Place,
    waiter: &'a Waiter,
    /// What led to it first. The start has one once the cycle is closed.
    edge: Option<Edge<'a>>,
}

/// A cycle of waits.
#[derive(Debug)]
pub(super) struct Cycle<'a> {
    found: Vec<Found<'a>>,
    /// Who of those found is in it, in the order of waiting: each is led to from the one before it, the first
    /// one from the last.
    members: Vec<usize>,
}

/// A shortest cycle through the wait at `start` of which no member is ever served, if there is one.
///
/// Breadth first, without recursion, and linear in the reachable part of the table: each resource
/// remembers how far its holders and its queue have been looked at, so that a thousand waiters in
/// one queue are not compared pair by pair. In turns with it goes a search for those who wait for the
/// start: when there are no more of them, there is no cycle, however much the start depends on. There is no
/// other bound on the search; the number of waiters has one.
pub(super) fn cycle_through(table: &Table, start: Place, now_ms: u64) -> Option<Cycle<'_>> {
    let mut search = Search::new(table, start, now_ms);
    search.close_unless_spared(&mut Dependants::new(table, start));
    if !search.has_closed() {
        return None;
    }
    if search.met_permits {
        while search.step() {}
        let reached = search.found.iter().map(|found| found.place).collect();
        let stuck = never_served(table, &reached, now_ms);
        if !stuck.contains(&start) {
            return None;
        }
        search = Search::new(table, start, now_ms);
        search.scope.among = Some(stuck);
        while !search.has_closed() && search.step() {}
    }
    // The new wait may only stand behind a cycle: a new term of an earlier version could bring back leases that were
    // over, and with them a cycle that was none when it closed.
    search.has_closed().then(|| search.cycle())
}

/// What a search looks at.
struct Scope<'a> {
    table: &'a Table,
    now_ms: u64,
    /// Only waits among these; all when absent.
    among: Option<BTreeSet<Place>>,
}

struct Search<'a> {
    scope: Scope<'a>,
    /// The start and all waiting owners found, in the order of finding; those from `next` on have not been
    /// looked at.
    found: Vec<Found<'a>>,
    next: usize,
    /// The places of those found.
    places: HashSet<Place, RandomState>,
    scanned: HashMap<&'a str, Scanned, RandomState>,
    /// Whether an edge to a holder of permits was looked at.
    met_permits: bool,
    /// Edges looked at: what the search costs.
    looked_at: u64,
}

/// How far a resource has been looked at.
#[derive(Default)]
struct Scanned {
    holders: bool,
    /// Every strong waiter before this place has been found.
    strong_before: Place,
    /// Every shared waiter before this place has been found.
    shared_before: Place,
}

impl<'a> Search<'a> {
    fn new(table: &'a Table, start: Place, now_ms: u64) -> Self {
        let scope = Scope {
            table,
            now_ms,
            among: None,
        };
        let first = Found {
            place: start,
            waiter: &table.waits[&start],
            edge: None,
        };
        Search {
            scope,
            found: vec![first],
            next: 0,
            places: HashSet::from_iter([start]),
            scanned: HashMap::default(),
            met_permits: false,
            looked_at: 0,
        }
    }

    /// Whether the start has been reached from itself.
    fn has_closed(&self) -> bool {
        self.found[0].edge.is_some()
    }

    /// Goes on until the start is reached from itself, or cannot be.
    fn close_unless_spared(&mut self, dependants: &mut Dependants<'a>) {
        while !self.has_closed() && self.step() && dependants.step() {}
    }

    /// Looks at one more waiter; false when nobody is left.
    fn step(&mut self) -> bool {
        let is_left = self.next < self.found.len();
        if is_left {
            self.next += 1;
            self.expand(self.next - 1);
        }
        is_left
    }

    /// Finds everybody on whom a waiter depends and who was not found before.
    ///
    /// Holders that are incompatible with one waiter are so with every waiter that is incompatible
    /// with any of them: they all hold in one mode. Only a conversion leaves its own hold out.
    fn expand(&mut self, from: usize) {
        let Found { place, waiter, .. } = self.found[from];
        let table = self.scope.table;
        if table.is_wait_over(waiter, self.scope.now_ms) {
            return;
        }
        for want in waiter.claim.wants.iter() {
            let lock = &table.locks[&want.resource];
            // Nobody comes again to a resource that nobody else waits for.
            let waits_alone = lock.queue_len() == 1;
            let mut unscanned = Scanned::default();
            let scanned = match waits_alone {
                true => &mut unscanned,
                false => self.scanned.entry(&want.resource).or_default(),
            };
            let own = waiter.converts;
            let is_blocked = !scanned.holders && self.scope.is_blocked(own, want, lock);
            if is_blocked {
                scanned.holders = own.is_none();
                self.met_permits |= own.is_none() && lock.permits_only(want.grip);
            }
            let (strong, shared) = scanned.queue_until(place, want.grip);
            let edge = |reached| Edge {
                from,
                resource: &want.resource,
                reached,
            };
            if is_blocked {
                let others = lock.holders.iter().filter(|token| own != Some(**token));
                for &token in others {
                    self.reach_holder(token, edge(Reached::AsHolder(token)));
                }
            }
            if waits_alone {
                continue;
            }
            for &earlier in lock.strong.range(strong).map(|(at, _)| at) {
                self.reach(earlier, edge(Reached::InQueue));
            }
            for &earlier in lock.shared.range(shared) {
                self.reach(earlier, edge(Reached::InQueue));
            }
        }
    }

    /// A holder that does not wait depends on nobody.
    fn reach_holder(&mut self, token: Token, edge: Edge<'a>) {
        let table = self.scope.table;
        let hold = &table.holds[&token];
        let owner = table.owners.get(&hold.claim.owner);
        let waiting = owner.and_then(|owner| owner.waiting);
        if let Some(place) = waiting
            && table.is_live(hold, self.scope.now_ms)
        {
            self.reach(place, edge);
        }
    }

    fn reach(&mut self, place: Place, edge: Edge<'a>) {
        self.looked_at += 1;
        if let Some(among) = &self.scope.among
            && !among.contains(&place)
        {
            return;
        }
        if self.places.insert(place) {
            self.found.push(Found {
                place,
                waiter: &self.scope.table.waits[&place],
                edge: Some(edge),
            });
        } else if place == self.found[0].place {
            self.found[0].edge.get_or_insert(edge);
        }
    }

    /// The way by which the start was reached from itself.
    fn cycle(self) -> Cycle<'a> {
        let mut members = vec![0];
        let mut at = self.found[0].led_to_by().from;
        while at != 0 {
            members.push(at);
            at = self.found[at].led_to_by().from;
        }
        members[1..].reverse();
        let found = self.found;
        Cycle { found, members }
    }
}

impl<'a> Found<'a> {
    fn led_to_by(&self) -> &Edge<'a> {
        self.edge.as_ref().expect("an edge led to it")
    }
}

impl Scope<'_> {
    /// Whether others hold what keeps a waiter from being served. Of holders of permits those of
    /// waits that are not looked at go: what they give back may be enough.
    fn is_blocked(&self, own: Option<Token>, want: &Want, lock: &Lock) -> bool {
        own.is_some()
            || !(lock.holders_admit(want.grip)
                || lock.permits_only(want.grip) && self.enough_go(want, lock))
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
}

impl Scanned {
    /// Which strong and which shared waiters before `place` are in the way of this grip and have not
    /// been found; they count as found from now on.
    fn queue_until(&mut self, place: Place, grip: Grip) -> (Range<Place>, Range<Place>) {
        let strong = self.strong_before.min(place)..place;
        let shared = match grip {
            Grip::Shared => place..place,
            _ => self.shared_before.min(place)..place,
        };
        self.strong_before = self.strong_before.max(strong.end);
        if grip != Grip::Shared {
            self.shared_before = self.shared_before.max(shared.end);
        }
        (strong, shared)
    }
}

impl<'a> Cycle<'a> {
    fn members(&self) -> impl Iterator<Item = &Found<'a>> + Clone {
        self.members.iter().map(|at| &self.found[*at])
    }

    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        self.members().map(|member| member.place)
    }

    /// The cycle as the outside is told it.
    pub(super) fn describe(&self, victim: &Name, policy: DeadlockPolicy) -> Deadlock {
        let nexts = self.members().cycle().skip(1);
        let cycle = self.members().zip(nexts).map(|(member, next)| {
            let (before, after) = (member.led_to_by(), next.led_to_by());
            let (holds, token) = match before.reached {
                Reached::AsHolder(token) => (Some(before.resource.clone()), Some(token)),
                Reached::InQueue => (None, None),
            };
            CycleEdge {
                owner: member.waiter.claim.owner.clone(),
                holds,
                token,
                waits_for_owner: next.waiter.claim.owner.clone(),
                resource: after.resource.clone(),
                because: match after.reached {
                    Reached::AsHolder(_) => Because::Holder,
                    Reached::InQueue => Because::Queue,
                },
            }
        });
        Deadlock {
            cycle: cycle.collect(),
            victim: victim.to_string(),
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

    /// The start depends on thousands, and all that waits for it is one request that holds nothing.
    #[test]
    fn a_wait_for_which_hardly_anybody_waits_is_soon_known_to_close_nothing() {
        const WAITERS: usize = 5_000;
        let (mut table, mut effects) = (Table::default(), Vec::new());
        table.apply(0, &acquire(0, 0, None), &mut effects);
        for owner in 1..WAITERS {
            table.apply(0, &acquire(owner, owner, None), &mut effects);
            table.apply(0, &acquire(owner, owner - 1, Some(1)), &mut effects);
        }
        let (start, its, last) = (WAITERS + 1, WAITERS + 1, WAITERS - 1);
        table.apply(0, &acquire(start, its, None), &mut effects);
        table.apply(0, &acquire(start + 1, its, Some(1)), &mut effects);
        table.apply(0, &acquire(start, last, Some(1)), &mut effects);
        let newest = table.waits.get_max().unwrap().0;
        let mut search = Search::new(&table, newest, 0);
        search.close_unless_spared(&mut Dependants::new(&table, newest));
        assert!(!search.has_closed());
        assert!(search.looked_at <= 5, "{}", search.looked_at);
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
        let last = table.waits.get_max().unwrap().0;
        let mut search = Search::new(&table, last, 0);
        while search.step() {}
        assert_eq!(search.found.len(), WAITERS);
        assert!(
            search.looked_at <= 2 * WAITERS as u64,
            "{}",
            search.looked_at
        );
    }
}
