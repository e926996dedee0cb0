//! What this node keeps in case another one is lost. Plain code.
//!
//! A backup is never served. It belongs to one stay of its home and is promoted only when that home
//! leaves and this node, second until then, is the home in the very next view; in every other change
//! it is forgotten, since its home may have gone on without it.
//!
//! A second node hears of no reads: the idle time of what it keeps begins when that is promoted. What is left of
//! a lifetime counts from when the message came, which the home has shortened by how long that may have taken;
//! the answer to one that took longer does not count there.

use std::collections::BTreeMap;

use crate::cache::entry::{Entry, Key, Sent, cost};
use crate::cache::home::Held;
use crate::cache::message::Message;
use crate::cache::requests::Done;
use crate::cache::state::Cache;
use crate::ids::{Epoch, Incarnation, NodeId};
use crate::view::cluster::Preparation;
use crate::view::tenure::{Roster, Stay};

/// Keys whose latest write is known of one home, while an earlier write of another key is not over:
/// more than a home writes at once.
const HEARD_MAX: usize = 50_000;

/// An entry of another home.
#[derive(Clone, Debug)]
pub struct Backup {
    pub entry: Entry,
    pub home: Stay,
    /// The preparation with which this node becomes its home; none while it is a backup.
    pub arriving: Option<Preparation>,
}

/// What a second node has heard of one home's writes: a message that is late, or comes once more, must not
/// undo what a later one has left.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// Every write below this one is over.
    floor: u64,
    /// The latest write of each key, and the key of each of these, down to the floor.
    by_key: BTreeMap<Key, u64>,
    by_write: BTreeMap<u64, Key>,
}

impl Heard {
    /// Whether no later write of the key has been heard of. Where that cannot be noted the message
    /// counts as lost.
    fn is_latest(&mut self, floor: u64, write: u64, key: &Key) -> bool {
        self.floor = floor.max(self.floor);
        while let Some((write, _)) = self.by_write.first_key_value()
            && *write < self.floor
            && let Some((_, key)) = self.by_write.pop_first()
        {
            self.by_key.remove(&key);
        }
        let latest = self.by_key.get(key).copied();
        if write < self.floor || latest.is_some_and(|latest| write < latest) {
            return false;
        }
        if let Some(latest) = latest {
            self.by_write.remove(&latest);
        } else if self.by_key.len() >= HEARD_MAX {
            return false;
        }
        self.by_key.insert(key.clone(), write);
        self.by_write.insert(write, key.clone());
        true
    }
}

/// Whether `me` is still the second node of the key at the same home.
pub(super) fn keeps(key: &str, home: Stay, me: Stay, after: &Roster) -> bool {
    let homes = after.homes(key);
    homes.is_some_and(|homes| homes.home == home && homes.second == Some(me))
}

/// Whether `me` was the second node of the key at its home, and is the home now.
pub(super) fn inherits(
    key: &str,
    home: Stay,
    me: Stay,
    (before, after): (&Roster, &Roster),
) -> bool {
    after.home(key) == Some(me) && keeps(key, home, me, before)
}

impl<T> Cache<T> {
    /// Keeps what a write of a home left, and says so.
    pub fn store(
        &mut self,
        from: NodeId,
        (epoch, home, floor): (Epoch, Incarnation, u64),
        (write, told_ms): (u64, Option<u64>),
        (key, entry, done): (Key, Option<Sent>, Option<Done>),
        now_ms: u64,
    ) {
        let Some(acting) = self.tenure.acting() else {
            return;
        };
        let sender = Stay {
            node: from,
            incarnation: home,
        };
        let homes = acting.roster.homes(&key);
        let mine = homes.is_some_and(|h| h.home == sender && h.second == Some(acting.stay));
        // What moves rests: the next home may have been told of it already.
        if acting.epoch != epoch || !mine || acting.moves(&key) {
            return;
        }
        let heard = self.heard.entry(from).or_default();
        if !heard.is_latest(floor, write, &key) {
            return;
        }
        if let Some(done) = done
            && !self.remember_for(sender, (&key, &done), now_ms)
        {
            // The home says it again, and the client is told that the outcome is unknown.
            return;
        }
        let before = self.backups.remove(&key).map(|backup| backup.entry);
        if let Some(sent) = entry {
            let mut entry = sent.kept(now_ms).unread();
            if let Some(before) = before.filter(|before| before.version == entry.version) {
                // It has come once more, and one of both took longer.
                entry.expires_at_ms = entry.expires_at_ms.min(before.expires_at_ms);
            }
            let bytes = cost(&key, &entry);
            if self.make_room(bytes, &key, now_ms) {
                self.uses += 1;
                let backup = Backup {
                    entry,
                    home: sender,
                    arriving: None,
                };
                self.backups.insert(key, (backup, bytes), self.uses);
            }
        }
        let message = Message::Stored {
            home,
            write,
            told_ms,
        };
        self.send(from, message);
    }

    /// Promotes what succeeds directly, keeps what is still the same, forgets the rest.
    pub(super) fn adopt_backups(&mut self, before: &Roster, after: &Roster, now_ms: u64) {
        let me = self.acting().stay;
        let kept = |key: &Key, backup: &Backup| {
            backup.arriving.is_some() || keeps(key, backup.home, me, after)
        };
        let inherited = |key: &Key, backup: &Backup| {
            backup.arriving.is_none() && inherits(key, backup.home, me, (before, after))
        };
        let any_home = |key: &Key, _: &Backup| after.home(key) == Some(me);
        let promoted = match self.flaws.no_purge_of_backups {
            true => self.backups.keys_where(any_home),
            false => self.backups.keys_where(inherited),
        };
        self.promote(promoted, now_ms);
        if !self.flaws.no_purge_of_backups {
            self.backups.retain(kept);
        }
        self.heard
            .retain(|node, _| before.stay(*node) == after.stay(*node));
    }

    fn promote(&mut self, keys: Vec<Key>, now_ms: u64) {
        for key in keys {
            let mut backup = self.backups.remove(&key).expect("it was just there");
            backup.entry.read(now_ms);
            if backup.entry.is_live(now_ms) {
                let bytes = cost(&key, &backup.entry);
                self.counts.promoted += 1;
                self.uses += 1;
                let held = Held::unshared(backup.entry);
                self.held.insert(key, (held, bytes), self.uses);
            }
        }
    }

    /// Promotes what arrived for the view that is active now.
    pub(super) fn adopt_arrivals(&mut self, now_ms: u64) {
        let Some(acting) = self.tenure.acting() else {
            return;
        };
        let activated = self.tenure.activated();
        let arrived = self.backups.keys_where(|key, backup| {
            backup.arriving == Some(activated) && acting.roster.home(key) == Some(acting.stay)
        });
        self.promote(arrived, now_ms);
        self.forget_arrivals();
    }

    /// Forgets what arrived for a view that is not prepared any more.
    pub(super) fn forget_arrivals(&mut self) {
        let prepared = self.tenure.prepared();
        self.backups
            .retain(|_, backup| backup.arriving.is_none() || backup.arriving == prepared);
    }
}
