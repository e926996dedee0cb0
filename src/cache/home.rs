//! What this node is home to: the values, who has a copy of each, and who reads them. Plain code.
//!
//! While a key is being written, readers get the value before, and the home keeps no note of them, so
//! that the write waits for nobody who came after it.
//!
//! An entry that is over, or makes room for another, is removed by a write: a sharer or a backup may
//! still have it. What makes room is not served from that moment on, and its memory is free.

use crate::cache::claims::Wish;
use crate::cache::entry::{Entry, Key};
use crate::cache::event::Gone;
use crate::cache::message::{Found, Message};
use crate::cache::operation::{Answer, Change, Hit, Source, Why};
use crate::cache::state::{By, Cache, Waiter};
use crate::cache::writes::{QUEUE_MAX, WRITES_MAX};
use crate::ids::{Epoch, Incarnation, NodeId};
use crate::protocol::Tenant;
use crate::view::tenure::Roster;

/// A value that this node is home to.
#[derive(Clone, Debug)]
pub struct Held {
    pub entry: Entry,
    /// The members that have a copy, by their places in the roster.
    pub(super) sharers: u64,
}

impl Held {
    /// An entry of which nobody has a copy.
    pub fn unshared(entry: Entry) -> Self {
        Held { entry, sharers: 0 }
    }

    /// How many members may have a copy.
    pub fn sharers(&self) -> u32 {
        self.sharers.count_ones()
    }
}

/// Who reads a key at its home.
#[derive(Clone, Debug)]
pub enum Reader<T> {
    Client(Waiter<T>),
    Peer {
        node: NodeId,
        epoch: Epoch,
        asker: Incarnation,
        fill: u64,
        wish: Option<Wish>,
    },
}

impl<T> Cache<T> {
    /// Reads a key that this node is home to, and may decide about, for a client.
    pub(super) fn read_here(&mut self, key: Key, waiter: Waiter<By<T>>, now_ms: u64) {
        self.read_for(key, Reader::Client(waiter), now_ms);
    }

    /// Answers another node's question.
    pub fn fetch(
        &mut self,
        node: NodeId,
        (epoch, asker, fill): (Epoch, Incarnation, u64),
        (key, wish): (Key, Option<Wish>),
        now_ms: u64,
    ) {
        let reader = Reader::Peer {
            node,
            epoch,
            asker,
            fill,
            wish: wish.map(|wish| wish.kept(now_ms)),
        };
        match self.may_decide(&key, now_ms) {
            true => self.read_for(key, reader, now_ms),
            false => self.say(reader, Found::NotNow),
        }
    }

    pub(super) fn read_for(&mut self, key: Key, reader: Reader<By<T>>, now_ms: u64) {
        self.read_from(key, reader, Source::Home, now_ms);
    }

    /// The same, where what is in memory is from.
    pub(super) fn read_from(
        &mut self,
        key: Key,
        reader: Reader<By<T>>,
        source: Source,
        now_ms: u64,
    ) {
        if !self.may_decide(&key, now_ms) {
            return match reader {
                Reader::Client(waiter) => self.park(key, None, waiter),
                peer @ Reader::Peer { .. } => self.say(peer, Found::NotNow),
            };
        }
        self.end_if_over(&key, now_ms);
        self.uses += 1;
        let held = self.held.touch(&key, self.uses);
        let Some(held) = held else {
            return self.miss(key, reader, now_ms);
        };
        if !held.entry.is_live(now_ms) {
            // It is being removed, which a backup has to know before anybody hears of it.
            let readers = self.writes.readers(&key);
            match readers.len() >= QUEUE_MAX {
                true => self.say(reader, Found::NotNow),
                false => readers.push(reader),
            }
            return;
        }
        held.entry.read(now_ms);
        let entry = held.entry.sent_copy(now_ms);
        let is_written = self.writes.contains(&key);
        let shared = !is_written && self.note_sharer(&key, &reader);
        let tell_uses = self.wants_uses();
        let found = Found::Hit {
            entry,
            shared,
            tell_uses,
            brought: source == Source::Store,
        };
        self.say(reader, found);
    }

    /// Enters the reader among those who are told when the value is old, if both nodes act on the
    /// same view.
    fn note_sharer(&mut self, key: &str, reader: &Reader<By<T>>) -> bool {
        let Reader::Peer {
            node, epoch, asker, ..
        } = reader
        else {
            return false;
        };
        let acting = self.acting();
        let same_view = acting.epoch == *epoch
            && acting.roster.stay(*node).map(|stay| stay.incarnation) == Some(*asker);
        let place = acting.roster.place(*node);
        match (same_view, place, self.held.peek_mut(key)) {
            (true, Some(place), Some(held)) => {
                held.sharers |= 1 << place;
                true
            }
            _ => false,
        }
    }

    pub(super) fn say(&mut self, reader: Reader<By<T>>, found: Found) {
        match (reader, found) {
            (
                Reader::Peer {
                    node, asker, fill, ..
                },
                found,
            ) => {
                let epoch = self.tenure.acting().map_or(Epoch(0), |acting| acting.epoch);
                let message = Message::Filled {
                    epoch,
                    asker,
                    fill,
                    found,
                };
                self.send(node, message);
            }
            (Reader::Client(waiter), Found::Hit { entry, brought, .. }) => {
                let source = match brought {
                    true => Source::Store,
                    false => Source::Local,
                };
                self.counts.hit(source);
                let left_ms = entry.left_ms;
                let entry = entry.kept(0);
                let hit = Hit {
                    value: entry.value,
                    version: entry.version,
                    left_ms,
                    source,
                };
                self.answer(waiter.ticket, Answer::Found(hit));
            }
            (Reader::Client(waiter), Found::Claimed { claim }) => {
                self.counts.misses += 1;
                self.answer(waiter.ticket, Answer::Claimed { claim });
            }
            (Reader::Client(waiter), Found::Miss) => {
                self.counts.misses += 1;
                self.answer(waiter.ticket, Answer::Missed);
            }
            (Reader::Client(waiter), Found::NotNow) => self.refuse(waiter, Why::TooMany),
            (Reader::Client(waiter), Found::StoreAway) => self.refuse(waiter, Why::StoreAway),
        }
    }

    /// Evicts the least recently used entry, of one tenant or of all, `but` one and those that are being
    /// written; false if there is none.
    pub(super) fn evict_held(&mut self, (of, but): (Option<&Tenant>, &str), now_ms: u64) -> bool {
        if self.writes.len() >= WRITES_MAX {
            return false;
        }
        for _ in 0..self.held.count() {
            let Some(key) = self.held.oldest(of).map(|(key, _)| key.clone()) else {
                return false;
            };
            if self.writes.contains(&key) || *key == *but {
                // It is in use.
                self.uses += 1;
                self.held.touch(&key, self.uses);
                continue;
            }
            self.evict(&key, now_ms);
            return true;
        }
        false
    }

    /// Evicts what is not being written. What others may have of it is removed by a write, while its memory is
    /// free at once.
    pub(super) fn evict(&mut self, key: &Key, now_ms: u64) {
        let version = self.next_version();
        let removal = Change::Remove(Gone::Evicted);
        self.begin(key.clone(), removal, version, None, now_ms);
        self.forget(key);
        self.counts.evictions += 1;
    }

    /// Forgets the sharers that have left, and finds the others at their new places.
    pub(super) fn adopt_sharers(&mut self, before: &Roster, after: &Roster) {
        let keys = self.held.keys_where(|_, held| held.sharers != 0);
        for key in keys {
            let held = self.held.peek_mut(&key).expect("it was just there");
            held.sharers = moved(held.sharers, before, after);
        }
    }
}

/// A set of members of one view as the set of those that stay in another.
pub(super) fn moved(places: u64, before: &Roster, after: &Roster) -> u64 {
    let mut moved = 0;
    for (place, stay) in before.stays().iter().enumerate() {
        if places >> place & 1 == 1 && after.stay(stay.node) == Some(*stay) {
            moved |= 1 << after.place(stay.node).expect("it has a stay");
        }
    }
    moved
}
