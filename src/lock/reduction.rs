//! Which waits can never end, by reduction of the wait-for graph.
//!
//! Whoever does not wait finishes some day and gives back what it holds. So does a waiter that can
//! then be granted, and so on. What is left when nothing more can be granted is deadlocked: for a
//! resource with permits that is more than a cycle, since a waiter needs only enough of them
//! (Holt, "Some Deadlock Properties of Computer Systems", 1972).

use std::collections::{BTreeMap, BTreeSet};

use super::claim::Grip;
use super::resource::Lock;
use super::table::Table;
use super::waiting::Place;
use crate::protocol::lock::Mode;

/// Those of the waits `among` that are never served, if nobody gives up. `among` is closed: all
/// waits on which a member depends are members.
pub(super) fn never_served(table: &Table, among: &BTreeSet<Place>, now_ms: u64) -> BTreeSet<Place> {
    let mut reduction = Reduction::new(table, among, now_ms);
    let mut candidates: Vec<Place> = among.iter().copied().collect();
    while let Some(place) = candidates.pop() {
        if reduction.left.contains(&place) && reduction.can_be_served(place) {
            reduction.serve(place, &mut candidates);
        }
    }
    reduction.left
}

struct Reduction<'a> {
    table: &'a Table,
    now_ms: u64,
    left: BTreeSet<Place>,
    resources: BTreeMap<&'a str, Rest<'a>>,
}

/// What is left of one resource: its holders and waiters that are not known to finish.
struct Rest<'a> {
    lock: &'a Lock,
    holders: u64,
    permits: u32,
    strong: BTreeSet<Place>,
    shared: BTreeSet<Place>,
}

impl<'a> Reduction<'a> {
    fn new(table: &'a Table, among: &BTreeSet<Place>, now_ms: u64) -> Self {
        let mut reduction = Reduction {
            table,
            now_ms,
            left: BTreeSet::new(),
            resources: BTreeMap::new(),
        };
        for place in among {
            let waiter = &table.waits[place];
            if table.is_wait_over(waiter, now_ms) {
                continue;
            }
            reduction.left.insert(*place);
            for want in waiter.claim.wants.iter() {
                let rest = reduction.rest(&want.resource);
                match want.grip {
                    Grip::Shared => rest.shared.insert(*place),
                    _ => rest.strong.insert(*place),
                };
            }
        }
        for place in &reduction.left {
            let record = table.owners.get(&table.waits[place].claim.owner);
            for (resource, token) in &record.expect("a waiter has a record").holds {
                let hold = &table.holds[token];
                if let Some(rest) = reduction.resources.get_mut(&**resource)
                    && table.is_live(hold, now_ms)
                {
                    rest.holders += 1;
                    let grip = hold.claim.wants.grip_of(resource);
                    rest.permits += grip.and_then(Grip::permits).unwrap_or(0);
                }
            }
        }
        reduction
    }

    fn rest(&mut self, resource: &'a str) -> &mut Rest<'a> {
        let lock = &self.table.locks[resource];
        self.resources.entry(resource).or_insert_with(|| Rest {
            lock,
            holders: 0,
            permits: 0,
            strong: BTreeSet::new(),
            shared: BTreeSet::new(),
        })
    }

    /// Whether the waiter is granted once everybody who is not left has finished.
    fn can_be_served(&self, place: Place) -> bool {
        let waiter = &self.table.waits[&place];
        waiter.claim.wants.iter().all(|want| {
            let rest = &self.resources[&*want.resource];
            let others = rest.holders - u64::from(waiter.converts.is_some());
            let admitted = others == 0
                || match want.grip {
                    Grip::Exclusive => false,
                    Grip::Shared => rest.lock.mode == Mode::Shared,
                    Grip::Permits { permits, limit } => {
                        rest.lock.mode == Mode::Permit && rest.permits + permits <= limit
                    }
                };
            let after = |first: Option<&Place>| first.is_none_or(|first| *first >= place);
            let is_first = after(rest.strong.first())
                && (want.grip == Grip::Shared || after(rest.shared.first()));
            admitted && is_first
        })
    }

    /// The waiter is granted and finishes: nothing is left of it. Adds those who may be next.
    fn serve(&mut self, place: Place, candidates: &mut Vec<Place>) {
        self.left.remove(&place);
        let waiter = &self.table.waits[&place];
        for want in waiter.claim.wants.iter() {
            let rest = self.resources.get_mut(&*want.resource);
            let rest = rest.expect("every wanted resource is looked at");
            let was_strong = rest.strong.remove(&place);
            rest.shared.remove(&place);
            rest.add_first(was_strong, candidates);
        }
        let record = self.table.owners.get(&waiter.claim.owner);
        for (resource, token) in &record.expect("a waiter has a record").holds {
            let hold = &self.table.holds[token];
            if let Some(rest) = self.resources.get_mut(&**resource)
                && self.table.is_live(hold, self.now_ms)
            {
                rest.holders -= 1;
                let grip = hold.claim.wants.grip_of(resource);
                rest.permits -= grip.and_then(Grip::permits).unwrap_or(0);
                rest.add_first(true, candidates);
            }
        }
    }
}

impl Rest<'_> {
    /// Those whom nobody in the queue keeps from being served: the first strong waiter, or the
    /// shared ones before it, of whom a departing shared one says nothing new.
    fn add_first(&self, shared_too: bool, candidates: &mut Vec<Place>) {
        let strong = self.strong.first().copied();
        let before = strong.unwrap_or(Place::LAST);
        match self.shared.first() {
            Some(shared) if *shared < before => {
                if shared_too {
                    candidates.extend(self.shared.range(..before));
                }
            }
            _ => candidates.extend(strong),
        }
    }
}
