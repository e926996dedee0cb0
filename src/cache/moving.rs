//! What changes hands when the view does. Plain code.
//!
//! While a view is prepared, each key that moves rests, and its value is sent to the home that it
//! will have: by the home, or, when that one does not stay, by the second node from its backup. A
//! node says that it has frozen only when everything has arrived, or when that takes too long: a
//! cache may forget, and the others wait.
//!
//! With a store nothing is sent: what the next home takes from there is certain to be the latest.
//!
//! What arrives belongs to one preparation. It is promoted when that very view becomes active, and
//! forgotten in every other case. What is left of its lifetime counts from a moment before anybody knew of
//! the preparation, since nobody knows how long it was on its way: it ends a little earlier than it would have
//! where it came from. When only the second node of a key changes, its home writes the value anew, as it is,
//! once the view is active.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::backups::Backup;
use crate::cache::entry::{Key, Sent, cost};
use crate::cache::message::Message;
use crate::cache::operation::Change;
use crate::cache::requests::{Name, Past};
use crate::cache::state::Cache;
use crate::ids::{Epoch, Incarnation, NodeId};
use crate::view::cluster::Preparation;
use crate::view::tenure::{Acting, Roster, Stay};

/// How long a node delays a change of the view to send what moves: half a lease, about, in which
/// some hundred megabytes arrive.
const MOVE_MS_MAX: u64 = 1_500;
/// Batches on their way at once, and what one of them has at most; a value that is larger travels alone, and
/// fits into one message then.
const BATCHES_MAX: usize = 4;
const BATCH_BYTES: usize = 128 * 1024;
const BATCH_KEYS: usize = 512;
/// What a result takes in a batch beside its names, about.
const RESULT_BYTES: usize = 48;
/// How long until a batch is sent again.
const SEND_AGAIN_MS: u64 = 60;
/// Values that are written anew for a second node at once.
const REFRESHES_MAX: usize = 256;

/// What this node sends and has sent for the view that is prepared, and what it writes anew for the
/// one that is active.
#[derive(Clone, Debug, Default)]
pub struct Moving {
    prepared: Preparation,
    deadline_ms: u64,
    left: Vec<(NodeId, Item)>,
    /// Results for second nodes, the same.
    left_results: Vec<(NodeId, Item)>,
    sent: BTreeMap<u64, Batch>,
    last_batch: u64,
    refresh: Vec<Key>,
}

#[derive(Clone, Debug)]
struct Batch {
    to: NodeId,
    items: Vec<Item>,
    /// Whether it is for the view that is prepared, or for a second node in the active one.
    is_for_next: bool,
    again_at_ms: u64,
}

/// What is sent: what this node has of it then.
#[derive(Clone, Debug)]
enum Item {
    Value(Key),
    Result(Name),
}

impl Moving {
    pub fn waits(&self) -> bool {
        let is_left = !self.left.is_empty() || !self.left_results.is_empty();
        is_left || !self.sent.is_empty() || !self.refresh.is_empty()
    }

    /// Whether all has arrived, or is given up.
    pub fn has_moved(&self, now_ms: u64) -> bool {
        let is_sent = self.sent.values().any(|batch| batch.is_for_next);
        (self.left.is_empty() && !is_sent) || self.deadline_ms <= now_ms
    }

    /// The values and the results that second nodes do not have for certain.
    fn take_untold(&mut self) -> (BTreeSet<Key>, BTreeSet<Name>) {
        let is_to_second = |_: &u64, batch: &mut Batch| !batch.is_for_next;
        let sent = self.sent.extract_if(.., is_to_second);
        let sent = sent.flat_map(|(_, batch)| batch.items);
        let left = self.left_results.drain(..).map(|(_, item)| item);
        let names = sent.chain(left).filter_map(|item| match item {
            Item::Result(name) => Some(name),
            Item::Value(_) => None,
        });
        let names = names.collect();
        (self.refresh.drain(..).collect(), names)
    }

    fn stop(&mut self) {
        self.left.clear();
        self.sent.retain(|_, batch| !batch.is_for_next);
    }
}

impl<T> Cache<T> {
    /// Begins to send what the prepared view gives to others; with none there is nothing to send.
    pub(super) fn begin_moving(&mut self, now_ms: u64) {
        self.moving.stop();
        let Some(acting) = self.tenure.acting().filter(|_| !self.settings.store) else {
            return;
        };
        let (Some(prepared), Some(next)) = (acting.preparation(), acting.next()) else {
            return;
        };
        let stays = |stay: Stay| next.stay(stay.node) == Some(stay);
        let mut left = Vec::new();
        for (key, _) in self.held.iter() {
            if let Some(home) = next.home(key).filter(|home| *home != acting.stay) {
                left.push((home.node, Item::Value(key.clone())));
            }
        }
        for (key, backup) in self.backups.iter() {
            let is_lost = backup.arriving.is_none() && !stays(backup.home);
            if let Some(home) = next.home(key).filter(|h| is_lost && *h != acting.stay) {
                left.push((home.node, Item::Value(key.clone())));
            }
        }
        let all = acting.roster.stays().iter();
        for home in all.filter(|stay| **stay == acting.stay || !stays(**stay)) {
            for name in self.requests.of(*home, |_| true) {
                if let Some(home) = next.home(&name.0).filter(|home| *home != acting.stay) {
                    left.push((home.node, Item::Result(name)));
                }
            }
        }
        // Results go first, then what was used most recently; each node's together.
        left.sort_by_key(|(node, _)| *node);
        self.moving.prepared = prepared;
        self.moving.deadline_ms = now_ms + MOVE_MS_MAX;
        self.moving.left = left;
        self.send_batches(now_ms);
    }

    fn send_batches(&mut self, now_ms: u64) {
        for is_for_next in [true, false] {
            while self.moving.sent.len() < BATCHES_MAX {
                let Some((to, items)) = self.next_batch(is_for_next) else {
                    break;
                };
                let batch = Batch {
                    to,
                    items,
                    is_for_next,
                    again_at_ms: 0,
                };
                self.moving.last_batch += 1;
                let number = self.moving.last_batch;
                self.moving.sent.insert(number, batch);
                self.send_batch(number, now_ms);
            }
        }
    }

    fn next_batch(&mut self, is_for_next: bool) -> Option<(NodeId, Vec<Item>)> {
        let mut left = match is_for_next {
            true => std::mem::take(&mut self.moving.left),
            false => std::mem::take(&mut self.moving.left_results),
        };
        let to = left.last().map(|(to, _)| *to);
        let mut items = Vec::new();
        let mut bytes = 0;
        let mut is_room = |item: &Item| {
            bytes += match item {
                Item::Value(key) => self.kept(key).map_or(0, |(_, bytes)| bytes),
                Item::Result((key, id)) => RESULT_BYTES + key.len() + id.len(),
            };
            bytes <= BATCH_BYTES
        };
        while let Some((_, item)) = left.pop_if(|(node, item)| {
            let is_first = items.is_empty();
            Some(*node) == to && items.len() < BATCH_KEYS && (is_room(item) || is_first)
        }) {
            items.push(item);
        }
        match is_for_next {
            true => self.moving.left = left,
            false => self.moving.left_results = left,
        }
        Some((to?, items))
    }

    /// What this node has of a key that it is home or second of.
    fn kept(&self, key: &str) -> Option<(&crate::cache::entry::Entry, usize)> {
        let held = self.held.peek(key).map(|held| &held.entry);
        let entry = held.or_else(|| self.backups.peek(key).map(|backup| &backup.entry))?;
        Some((entry, cost(key, entry)))
    }

    fn send_batch(&mut self, number: u64, now_ms: u64) {
        let home = self.acting().stay.incarnation;
        let batch = &self.moving.sent[&number];
        let mut entries = Vec::new();
        let mut past = Vec::new();
        for item in &batch.items {
            match item {
                Item::Value(key) => {
                    let kept = self.kept(key).map(|(entry, _)| entry);
                    let live = kept.filter(|entry| entry.is_live(now_ms));
                    entries.extend(live.map(|entry| (key.clone(), entry.sent(now_ms))));
                }
                Item::Result(name) => past.extend(self.requests.past(name, now_ms)),
            }
        }
        let message = match batch.is_for_next {
            true => Message::Move {
                prepared: self.moving.prepared,
                home,
                batch: number,
                entries,
                past,
            },
            false => Message::Remember {
                epoch: self.acting().epoch,
                home,
                batch: number,
                past,
            },
        };
        let to = batch.to;
        let batch = self
            .moving
            .sent
            .get_mut(&number)
            .expect("it was just there");
        batch.again_at_ms = now_ms + SEND_AGAIN_MS;
        self.send(to, message);
    }

    /// Keeps what will be this node's, if the view that is prepared becomes active.
    pub(super) fn arrive(
        &mut self,
        from: NodeId,
        (prepared, home, batch): (Preparation, Incarnation, u64),
        (entries, past): (Vec<(Key, Sent)>, Vec<Past>),
        now_ms: u64,
    ) {
        if self.tenure.prepared() != Some(prepared) {
            return;
        }
        let stay = Stay {
            node: from,
            incarnation: home,
        };
        self.results_arrive((stay, prepared), past, now_ms);
        for (key, sent) in entries {
            let entry = sent.kept(self.tenure.prepared_after_ms()).unread();
            let known = self.backups.peek(&key);
            let is_newer = known.is_none_or(|b| b.entry.version < entry.version);
            let bytes = cost(&key, &entry);
            if is_newer && self.make_room(bytes, &key, now_ms) {
                self.uses += 1;
                let backup = Backup {
                    entry,
                    home: stay,
                    arriving: Some(prepared),
                };
                self.backups.insert(key, (backup, bytes), self.uses);
            }
        }
        self.send(from, Message::Moved { home, batch });
    }

    /// Keeps results of a home that this node has become the second of.
    pub(super) fn take_past(
        &mut self,
        from: NodeId,
        (epoch, home, batch): (Epoch, Incarnation, u64),
        past: Vec<Past>,
        now_ms: u64,
    ) {
        let is_same = |acting: &Acting| acting.epoch == epoch;
        let stay = Stay {
            node: from,
            incarnation: home,
        };
        if self.tenure.acting().is_some_and(is_same) && self.remember_older(stay, past, now_ms) {
            self.send(from, Message::Moved { home, batch });
        }
    }

    /// A batch has arrived.
    pub(super) fn moved(&mut self, from: NodeId, home: Incarnation, batch: u64, now_ms: u64) {
        let mine = self.tenure.acting().map(|acting| acting.stay.incarnation);
        let is_to = |batch: &Batch| batch.to == from;
        if mine == Some(home) && self.moving.sent.get(&batch).is_some_and(is_to) {
            self.moving.sent.remove(&batch);
            self.send_batches(now_ms);
        }
    }

    /// Writes anew, as they are, the values whose second node is another now, and tells that node the
    /// results of writes; so, too, what second nodes were not told until now.
    pub(super) fn begin_refresh(&mut self, before: &Roster, after: &Roster) {
        let (values, results) = self.moving.take_untold();
        if !self.settings.backups {
            return;
        }
        let second = |roster: &Roster, key: &str| roster.homes(key).and_then(|h| h.second);
        let is_changed = |key: &Key| second(before, key) != second(after, key);
        self.moving.refresh = self
            .held
            .keys_where(|key, _| is_changed(key) || values.contains(key));
        let is_told = |name: &Name| is_changed(&name.0) || results.contains(name);
        for name in self.requests.of(self.acting().stay, is_told) {
            if let Some(second) = second(after, &name.0) {
                let item = (second.node, Item::Result(name));
                self.moving.left_results.push(item);
            }
        }
        self.moving.left_results.sort_by_key(|(node, _)| *node);
    }

    pub(super) fn tick_moving(&mut self, now_ms: u64) {
        let again = self.moving.sent.iter();
        let again: Vec<u64> = again
            .filter(|(_, batch)| batch.again_at_ms <= now_ms)
            .map(|(number, _)| *number)
            .collect();
        for number in again {
            self.send_batch(number, now_ms);
        }
        if self.tenure.acting().is_some() {
            self.send_batches(now_ms);
        }
        while self.writes.len() < REFRESHES_MAX {
            let Some(key) = self.moving.refresh.pop() else {
                return;
            };
            if !self.may_decide(&key, now_ms) {
                self.moving.refresh.push(key);
                return;
            }
            let held = self
                .held
                .peek(&key)
                .filter(|held| held.entry.is_live(now_ms));
            if let (Some(held), false) = (held, self.writes.contains(&key)) {
                let (entry, version) = (held.entry.clone(), held.entry.version);
                self.begin(key, Change::Put(entry), version, None, now_ms);
            }
        }
    }

    /// Nothing that moves is this node's business any more; what second nodes are told is.
    pub(super) fn stop_moving(&mut self) {
        self.moving.stop();
    }

    pub(super) fn forget_moving(&mut self) {
        self.moving.stop();
        self.moving.take_untold();
    }
}
