//! Writes of what this node is home to, until they take effect. Plain code.
//!
//! ```text
//!              a write: sharers and the second node are told
//!   settled ----------------------------------------------------> writing --+
//!      ^                                                            |       | told again until they
//!      +------------------------------------------------------------+ <-----+ answer or leave the view
//!        all have answered, the lease holds, the key does not move: it takes effect
//! ```
//!
//! With a store the second node is not told, but the store, and a write takes effect when that has kept it,
//! too ([`through`](crate::cache::through)).
//!
//! Writes of one key wait for each other, in the order in which they came.

use crate::cache::entry::{Entry, Key, NEVER, Version, cost};
use crate::cache::event::{Event, Gone};
use crate::cache::home::{Held, Reader, moved};
use crate::cache::message::{Found, Message, Old};
use crate::cache::operation::{Change, Why};
use crate::cache::state::{By, Cache, Effect, Waiter};
use crate::cache::through::Through;
use crate::cache::writing::{Doing, Origin, Writing};
use crate::ids::{Incarnation, NodeId};
use crate::view::tenure::{Acting, Roster};

/// Writes and readers of one key that wait for the write before them.
pub(super) const QUEUE_MAX: usize = 10_000;
/// Keys that are being written at once; a further write is refused as overloaded.
pub(super) const WRITES_MAX: usize = 20_000;
/// How long until sharers are told again, at most.
const TELL_AGAIN_MS_MAX: u64 = 160;
/// What a key that is being removed takes beside its name.
const REMOVAL_BYTES: usize = 64;

/// Whether the store is told of it. What only makes room stays there.
fn goes_through(change: &Change) -> bool {
    !matches!(change, Change::Remove(Gone::Evicted))
}

pub(super) fn removal_cost(key: &str) -> usize {
    REMOVAL_BYTES + key.len()
}

impl<T> Cache<T> {
    /// Begins a write; with nobody to tell it takes effect at once.
    pub(super) fn begin(
        &mut self,
        key: Key,
        change: Change,
        version: Version,
        origin: Option<Origin<By<T>>>,
        now_ms: u64,
    ) {
        let (bytes, without_room) = match &change {
            Change::Put(entry) => (cost(&key, entry), Why::Full),
            Change::Remove(_) => (removal_cost(&key), Why::TooMany),
        };
        let done = origin.as_ref().and_then(|origin| origin.done.as_ref());
        let bytes = bytes + done.map_or(0, |done| done.cost(&key));
        // An eviction, which nobody asked for, takes less than what it frees.
        let takes_more = origin.is_some() || matches!(change, Change::Put(_));
        if self.writes.by_key.len() >= WRITES_MAX && origin.is_some() {
            return self.refuse_origin(origin, Why::TooMany);
        }
        if takes_more && !self.make_room(bytes, &key, now_ms) {
            let held = self.held.peek(&key).map(|held| cost(&key, &held.entry));
            let limit = self.settings.bytes_max;
            let is_hopeless = without_room == Why::Full && bytes + held.unwrap_or(0) > limit;
            let why = match is_hopeless {
                true => Why::TooLarge {
                    limit: limit as u64,
                },
                false => without_room,
            };
            return self.refuse_origin(origin, why);
        }
        let held = self.held.peek(&key);
        // A value that is written anew, for its second node alone, makes no copy old.
        let is_same = held.is_some_and(|held| held.entry.version == version);
        let pending = held.filter(|_| !is_same).map_or(0, |held| held.sharers);
        let backup = self.second(&key);
        let goes_through = self.settings.store && goes_through(&change);
        if pending == 0 && backup.is_none() && !goes_through {
            self.put(&key, change, 0, now_ms);
            return self.answer_origin(&key, origin, now_ms);
        }
        let doing = (Doing::Change(change), version);
        let writing = Writing {
            pending,
            told_at_ms: (pending != 0).then_some(now_ms),
            backup,
            through: goes_through.then(Through::default),
            origin,
            ..Writing::new(self.writes.next_id(), doing, bytes, now_ms)
        };
        self.counts.invalidations_sent += u64::from(pending.count_ones());
        self.writes.insert(key.clone(), writing);
        self.tell(&key, now_ms);
        if self.flaws.no_wait_for_acknowledgement
            && let Some(writing) = self.writes.by_key.get_mut(&key)
        {
            writing.pending = 0;
            self.settle(&key, now_ms);
        }
        if self.flaws.no_wait_for_store
            && let Some(writing) = self.writes.by_key.get_mut(&key)
        {
            writing.through = None;
            self.settle(&key, now_ms);
        }
    }

    pub(super) fn refuse_origin(&mut self, origin: Option<Origin<By<T>>>, why: Why) {
        if let Some(waiter) = origin.and_then(|origin| origin.waiter) {
            self.refuse(waiter, why);
        }
    }

    /// The write has taken effect. What is being loaded may be older.
    fn answer_origin(&mut self, key: &Key, origin: Option<Origin<By<T>>>, now_ms: u64) {
        let Some(origin) = origin else {
            return;
        };
        if let Some(done) = origin.done {
            self.remember(key, done, now_ms);
        }
        if let Some(waiter) = origin.waiter {
            self.answer(waiter.ticket, origin.answer);
        }
        self.end_claim(key, now_ms);
    }

    /// The node that keeps the key's value in case this one is lost.
    fn second(&self, key: &str) -> Option<NodeId> {
        let homes = self.acting().roster.homes(key)?;
        homes
            .second
            .map(|stay| stay.node)
            .filter(|_| self.settings.backups)
    }

    /// Tells everybody who has not answered.
    pub(super) fn tell(&mut self, key: &Key, now_ms: u64) {
        let floor = self.writes.floor();
        let (epoch, home) = {
            let acting = self.acting();
            (acting.epoch, acting.stay.incarnation)
        };
        let writing = &self.writes.by_key[key];
        let old = (writing.pending != 0).then(|| Old {
            write: writing.id,
            key: key.clone(),
            version: writing.version,
            pending: writing.pending,
            update: None,
        });
        let store = writing.backup.map(|to| {
            let (entry, told_ms) = match &writing.doing {
                Doing::Change(Change::Put(entry)) => {
                    let has_end = entry.expires_at_ms != NEVER;
                    let sent = entry.sent(now_ms + writing.way_ms(now_ms));
                    (Some(sent), has_end.then_some(now_ms))
                }
                Doing::Change(Change::Remove(_)) | Doing::Bring(_) => (None, None),
            };
            let message = Message::Store {
                epoch,
                home,
                floor,
                write: writing.id,
                told_ms,
                key: key.clone(),
                entry,
                done: writing.origin.as_ref().and_then(|o| o.done.clone()),
            };
            (to, message)
        });
        self.effects.extend(old.map(Effect::Invalidate));
        if let Some((to, message)) = store {
            self.send(to, message);
        }
        if self.settings.store {
            self.call_store(key, now_ms);
        }
    }

    /// The write takes effect on what this node has; `sharers` have it already.
    fn put(&mut self, key: &Key, change: Change, sharers: u64, now_ms: u64) {
        let held = self.held.peek(key).map(|held| held.entry.version);
        match change {
            Change::Put(entry) if held == Some(entry.version) => {}
            Change::Put(entry) => {
                self.counts.writes += 1;
                let bytes = cost(key, &entry);
                let version = entry.version;
                self.uses += 1;
                let resource = |entry: &Entry| entry.fence().map(|fence| fence.resource.clone());
                let after = resource(&entry);
                let held = Held { entry, sharers };
                let before = self.held.insert(key.clone(), (held, bytes), self.uses);
                let before = before.and_then(|held| resource(&held.entry));
                self.fences_forgotten += u64::from(before.is_some() && before != after);
                let key = key.clone();
                self.effects
                    .push(Effect::Event(Event::Set { key, version }));
                self.trim(now_ms);
            }
            Change::Remove(why) => {
                self.counts.writes += 1;
                self.forget(key);
                let key = key.clone();
                self.effects
                    .push(Effect::Event(Event::Deleted { key, why }));
            }
        }
    }

    /// A sharer has no copy any more that these writes make old, and keeps what those that are
    /// `updated` will leave.
    pub fn acknowledged(
        &mut self,
        from: NodeId,
        home: Incarnation,
        (writes, updated): (&[u64], &[u64]),
        now_ms: u64,
    ) {
        let Some(acting) = self.tenure.acting() else {
            return;
        };
        let place = acting.roster.place(from);
        if acting.stay.incarnation != home {
            return;
        }
        let writes = writes.iter().map(|id| (id, false));
        let updated = updated.iter().map(|id| (id, true));
        for (id, is_updated) in writes.chain(updated) {
            if let (Some(key), Some(place)) = (self.writes.by_id.get(id).cloned(), place) {
                let writing = self.writes.by_key.get_mut(&key).expect("it has this id");
                let bit = 1 << place;
                if writing.pending & bit != 0 {
                    self.counts.invalidations_acked += 1;
                    writing.pending &= !bit;
                    writing.updated |= if is_updated { bit } else { 0 };
                }
                self.settle(&key, now_ms);
            }
        }
    }

    /// The second node keeps what this write left, as it was told then.
    pub fn stored(
        &mut self,
        from: NodeId,
        home: Incarnation,
        (id, told_ms): (u64, Option<u64>),
        now_ms: u64,
    ) {
        let is_mine = |acting: &Acting| acting.stay.incarnation == home;
        if !self.tenure.acting().is_some_and(is_mine) {
            return;
        }
        if let Some(key) = self.writes.by_id.get(&id).cloned() {
            let writing = self.writes.by_key.get_mut(&key).expect("it has this id");
            if writing.backup == Some(from) && writing.is_in_time(told_ms, now_ms) {
                writing.backup = None;
            }
            self.settle(&key, now_ms);
        }
    }

    /// Lets the key's write take effect if everybody has answered and this node may decide.
    pub(super) fn settle(&mut self, key: &Key, now_ms: u64) {
        let is_answered =
            |w: &Writing<By<T>>| w.pending == 0 && w.backup.is_none() && w.through.is_none();
        let answered = self.writes.by_key.get(key).is_some_and(is_answered);
        if !answered || !self.may_decide(key, now_ms) {
            return;
        }
        let writing = self.writes.remove(key).expect("it was just there");
        let took_ms = writing.told_at_ms.map(|at_ms| now_ms.saturating_sub(at_ms));
        if let Some(took_ms) = took_ms {
            self.counts.invalidation.add(took_ms);
        }
        if let Doing::Change(change) = writing.doing {
            let is_noted = !self.flaws.no_note_of_updates;
            let sharers = if is_noted { writing.updated } else { 0 };
            self.put(key, change, sharers, now_ms);
        }
        if let (Some(took_ms), true) = (took_ms, writing.updated != 0) {
            self.say_confirmed(key, writing.version, took_ms);
        }
        self.answer_origin(key, writing.origin, now_ms);
        for reader in writing.readers {
            self.read_for(key.clone(), reader, now_ms);
        }
        for (write, waiter) in writing.queue {
            self.write_by(key.clone(), write, waiter, now_ms);
        }
    }

    /// The same for all keys, when the lease or the view has changed.
    pub(super) fn settle_all(&mut self, now_ms: u64) {
        let keys: Vec<Key> = self.writes.by_key.keys().cloned().collect();
        for key in keys {
            self.settle(&key, now_ms);
        }
    }

    /// The same for writes; a second node that is new has to keep what they leave.
    pub(super) fn adopt_writes(&mut self, before: &Roster, after: &Roster, now_ms: u64) {
        let keys: Vec<Key> = self.writes.by_key.keys().cloned().collect();
        for key in keys {
            let second = |roster: &Roster| roster.homes(&key).and_then(|homes| homes.second);
            let (old, new) = (second(before), second(after));
            let backups = self.settings.backups;
            let writing = self.writes.by_key.get_mut(&key).expect("it was just there");
            writing.pending = moved(writing.pending, before, after);
            writing.updated = moved(writing.updated, before, after);
            if old != new {
                writing.backup = new.map(|stay| stay.node).filter(|_| backups);
            }
            self.tell(&key, now_ms);
        }
    }

    /// Ends writes that this node may not decide about any more. Whether they took effect depends on
    /// what the second node makes of them.
    pub(super) fn abandon_writes(&mut self, over: impl Fn(&str) -> bool) {
        let keys = self.writes.by_key.keys();
        let keys: Vec<Key> = keys.filter(|key| over(key)).cloned().collect();
        for key in keys {
            let writing = self.writes.remove(&key).expect("it was just there");
            self.refuse_origin(writing.origin, Why::Indeterminate);
            for (write, waiter) in writing.queue {
                self.park(key.clone(), Some(write), waiter);
            }
            for reader in writing.readers {
                match reader {
                    Reader::Client(waiter) => self.park(key.clone(), None, waiter),
                    peer @ Reader::Peer { .. } => self.say(peer, Found::NotNow),
                }
            }
        }
    }

    pub(super) fn tick_writes(&mut self, now_ms: u64) {
        let mut again = Vec::new();
        let mut late = Vec::new();
        for (key, writing) in &mut self.writes.by_key {
            let is_late = |waiter: &Waiter<By<T>>| waiter.deadline_ms <= now_ms;
            if let Some(origin) = &mut writing.origin {
                let waiter = origin.waiter.take_if(|waiter| is_late(waiter));
                late.extend(waiter.map(|waiter| (waiter, Why::Indeterminate)));
            }
            let queue = std::mem::take(&mut writing.queue);
            for (write, waiter) in queue {
                match is_late(&waiter) {
                    true => late.push((waiter, Why::TimedOut)),
                    false => writing.queue.push_back((write, waiter)),
                }
            }
            for reader in std::mem::take(&mut writing.readers) {
                match reader {
                    Reader::Client(waiter) if is_late(&waiter) => {
                        late.push((waiter, Why::TimedOut))
                    }
                    reader => writing.readers.push(reader),
                }
            }
            if writing.again_at_ms <= now_ms {
                writing.pause_ms = (writing.pause_ms * 2).min(TELL_AGAIN_MS_MAX);
                writing.again_at_ms = now_ms + writing.pause_ms;
                self.counts.invalidations_resent += u64::from(writing.pending.count_ones());
                again.push(key.clone());
            }
        }
        for (waiter, why) in late {
            self.refuse(waiter, why);
        }
        for key in again {
            self.tell(&key, now_ms);
        }
    }
}
