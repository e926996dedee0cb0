//! A store in a plain map, which decides what the scripts in Redis decide; and the way to it in the world:
//! calls are late, connections are lost with their answers, and the store is away for a while.

use std::collections::BTreeMap;

use rand::RngExt;

use super::world::{Event, World};
use crate::cache::entry::{Key, Sent};
use crate::cache::message::Matching;
use crate::cache::requests::Done;
use crate::cache::through::{Call, CallId, Outcome};
use crate::ids::{BootId, Epoch, NodeId};

/// How long results are kept, which is longer than a client repeats a write.
const RESULTS_MS: u64 = 60_000;

/// What the store does not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lax {
    /// It takes calls of an older view.
    pub no_epoch_check: bool,
    /// Only writes tell it of a newer view.
    pub reads_raise_nothing: bool,
    /// It takes calls that come over an older connection.
    pub no_connection_check: bool,
}

#[derive(Clone, Debug)]
struct Kept {
    sent: Sent,
    sequence: u64,
    until_ms: u64,
}

/// A store that keeps what it has.
#[derive(Clone, Debug, Default)]
pub(super) struct MapStore {
    lax: Lax,
    epoch: Epoch,
    /// The newest connection of each node, and the view under which it was used.
    connections: BTreeMap<NodeId, (Epoch, u64)>,
    sequence: u64,
    voids: Vec<(Matching, u64)>,
    values: BTreeMap<Key, Kept>,
    results: BTreeMap<(Key, Key), (Done, u64)>,
}

impl MapStore {
    pub(super) fn new(lax: Lax) -> Self {
        MapStore {
            lax,
            ..MapStore::default()
        }
    }

    /// Executes a call that comes over a connection of a node.
    pub(super) fn execute(&mut self, from: (NodeId, u64), call: &Call, now_ms: u64) -> Outcome {
        let epoch = call.epoch();
        let newest = self.connections.get(&from.0).copied().unwrap_or_default();
        let is_old_view = epoch < self.epoch && !self.lax.no_epoch_check;
        let is_late = newest.0 == epoch && from.1 < newest.1 && !self.lax.no_connection_check;
        if is_old_view || is_late {
            return Outcome::Fenced;
        }
        if !(self.lax.reads_raise_nothing && matches!(call, Call::Bring { .. })) {
            self.epoch = self.epoch.max(epoch);
        }
        self.connections.insert(from.0, (epoch, from.1));
        match call {
            Call::Keep {
                key,
                version,
                entry,
                done,
                ..
            } => {
                // Redis has forgotten what is over.
                let known = self.values.get(key).filter(|kept| now_ms < kept.until_ms);
                let known = known.map(|kept| kept.sent.version);
                if known.is_none_or(|known| known < *version) {
                    self.sequence += 1;
                    self.values.remove(key);
                    if let Some(sent) = entry {
                        let kept = Kept {
                            until_ms: sent.left_ms.map_or(u64::MAX, |left| now_ms + left),
                            sent: sent.clone(),
                            sequence: self.sequence,
                        };
                        self.values.insert(key.clone(), kept);
                    }
                    if let Some(done) = done {
                        let name = (key.clone(), done.id.clone());
                        let result = (done.clone(), now_ms + RESULTS_MS);
                        self.results.insert(name, result);
                    }
                }
                Outcome::Done
            }
            Call::Bring { key, id, .. } => {
                if self
                    .values
                    .get(key)
                    .is_some_and(|kept| self.is_void(key, kept))
                {
                    self.values.remove(key);
                }
                let kept = self.values.get(key).filter(|kept| now_ms < kept.until_ms);
                let entry = kept.map(|kept| {
                    let left_ms = kept.sent.left_ms.map(|_| kept.until_ms - now_ms);
                    kept.sent.clone().with_left(left_ms)
                });
                let name = id.as_ref().map(|id| (key.clone(), id.clone()));
                let done = name.and_then(|name| self.results.get(&name));
                let done = done.filter(|(_, until_ms)| now_ms < *until_ms);
                let done = done.map(|(done, until_ms)| (done.clone(), until_ms - now_ms));
                Outcome::Brought { entry, done }
            }
            Call::Void { matching, .. } => {
                self.sequence += 1;
                self.voids.push((matching.clone(), self.sequence));
                Outcome::Done
            }
        }
    }

    fn is_void(&self, key: &Key, kept: &Kept) -> bool {
        let entry = kept.sent.clone().kept(0);
        let mut voids = self.voids.iter();
        voids.any(|(matching, at)| kept.sequence <= *at && matching.is_of(key, &entry))
    }
}

/// The store and the ways to it.
pub(super) struct Ways {
    store: MapStore,
    /// The connection of each run of a node, and when what was last sent over it arrives.
    connections: BTreeMap<(NodeId, BootId), (u64, u64)>,
    under_way: Vec<(NodeId, BootId, CallId)>,
    is_away: bool,
}

impl Ways {
    pub(super) fn new(lax: Lax) -> Self {
        Ways {
            store: MapStore::new(lax),
            connections: BTreeMap::new(),
            under_way: Vec::new(),
            is_away: false,
        }
    }
}

impl World {
    /// A node calls the store. What is sent over one connection arrives in order.
    pub(super) fn call(&mut self, id: NodeId, boot: BootId, (call_id, call): (CallId, Call)) {
        let slow = if self.rng.random_bool(0.08) { 120 } else { 6 };
        let mut way = self.rng.random_range(1..slow);
        if self.rng.random_bool(0.02) {
            // The connection hangs, and is soon given up: what it has taken arrives much later.
            way += self.rng.random_range(200..800);
            let given_up = self.rng.random_range(2..40);
            self.at(given_up, Event::LoseConnection(id));
        }
        let ways = self.ways.as_mut().expect("there is a store");
        if ways.is_away {
            return self.at(1, Event::Called(id, boot, call_id, Outcome::Away));
        }
        let (connection, last) = ways.connections.entry((id, boot)).or_insert((1, 0));
        *last = (self.now + way).max(*last);
        let (connection, after) = (*connection, *last - self.now);
        ways.under_way.push((id, boot, call_id));
        let event = Event::Call(id, boot, connection, call_id, Box::new(call));
        self.at(after, event);
    }

    /// A call arrives, whatever its caller does by now.
    pub(super) fn execute(
        &mut self,
        (id, boot): (NodeId, BootId),
        connection: u64,
        (call_id, call): (CallId, &Call),
    ) {
        let ways = self.ways.as_mut().expect("there is a store");
        let outcome = ways.store.execute((id, connection), call, self.now);
        let is_waited_for = |waiting: &(NodeId, BootId, CallId)| *waiting == (id, boot, call_id);
        let place = ways.under_way.iter().position(is_waited_for);
        if let Some(place) = place {
            ways.under_way.swap_remove(place);
            self.seen.called += 1;
            let way = self.rng.random_range(1..6);
            self.at(way, Event::Called(id, boot, call_id, outcome));
        }
    }

    /// All that is under way over a node's connection has no answer any more.
    pub(super) fn lose_connection(&mut self, id: NodeId) {
        let ways = self.ways.as_mut().expect("there is a store");
        for ((node, _), (connection, last)) in &mut ways.connections {
            if *node == id {
                *connection += 1;
                *last = 0;
            }
        }
        let lost: Vec<_> = ways.under_way.extract_if(.., |(n, ..)| *n == id).collect();
        for (id, boot, call_id) in lost {
            let way = self.rng.random_range(1..6);
            self.at(way, Event::Called(id, boot, call_id, Outcome::Unknown));
        }
    }

    /// The store goes away, or comes back.
    pub(super) fn turn_store(&mut self) {
        let is_away = {
            let ways = self.ways.as_mut().expect("there is a store");
            ways.is_away = !ways.is_away;
            ways.is_away
        };
        let length = match is_away {
            true => self.rng.random_range(10..300),
            false => self.rng.random_range(500..4_000),
        };
        if is_away {
            for id in 1..=3 {
                self.lose_connection(NodeId(id));
            }
        }
        self.at(length, Event::TurnStore);
    }
}
