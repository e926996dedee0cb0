//! The search for a deadlock from its other end: without anybody who waits for a new wait there is no cycle through
//! it, however much it waits for itself.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::table::Table;
use super::waiting::Place;

/// Who waits for the start, over others. More than really do, since what is wanted is not compared with what is
/// held: so whoever is not found does not wait for it.
pub(super) struct Dependants<'a> {
    table: &'a Table,
    start: Place,
    /// In the order of finding, the start first; those from `next` on have not been looked at.
    found: Vec<Place>,
    next: usize,
    places: HashSet<Place, RandomState>,
    /// The resources whose whole queue was found.
    held: HashSet<&'a str, RandomState>,
    /// Of a resource, the place behind which all waiters were found.
    behind: HashMap<&'a str, Place, RandomState>,
    /// Whether the start waits for one of them: there may be a cycle, and nothing more is to be found out here.
    has_closed: bool,
}

impl<'a> Dependants<'a> {
    pub(super) fn new(table: &'a Table, start: Place) -> Self {
        Dependants {
            table,
            start,
            found: vec![start],
            next: 0,
            places: HashSet::from_iter([start]),
            held: HashSet::default(),
            behind: HashMap::default(),
            has_closed: false,
        }
    }

    /// Looks at one more waiter; false once it is sure that no cycle leads through the start.
    pub(super) fn step(&mut self) -> bool {
        if self.has_closed {
            return true;
        }
        let Some(&place) = self.found.get(self.next) else {
            return false;
        };
        self.next += 1;
        let table = self.table;
        let claim = &table.waits[&place].claim;
        let owner = table.owners.get(&claim.owner);
        for resource in owner.into_iter().flat_map(|owner| owner.holds.keys()) {
            // What the start holds it may want in another mode, and others may hold it, too: these look again.
            if place == self.start || self.held.insert(resource) {
                let waiters = table.locks[resource].waiters();
                waiters.for_each(|waiter| self.reach(waiter, place));
            }
        }
        for want in claim.wants.iter() {
            let known = self.behind.get(&*want.resource).copied();
            if known.is_some_and(|known| known <= place) {
                continue;
            }
            self.behind.insert(&want.resource, place);
            let waiters = table.locks[&want.resource].waiters_behind(place);
            let new = waiters.take_while(|waiter| known.is_none_or(|known| *waiter <= known));
            new.for_each(|waiter| self.reach(waiter, place));
        }
        true
    }

    fn reach(&mut self, waiter: Place, from: Place) {
        if self.places.insert(waiter) {
            self.found.push(waiter);
        } else if waiter == self.start && from != self.start {
            self.has_closed = true;
        }
    }
}
