//! What this node keeps in case another one is lost. Plain code.
//!
//! A backup is never served. It belongs to one stay of its home and is promoted only when that home
//! leaves and this node, second until then, is the home in the very next view; in every other change
//! it is forgotten, since its home may have gone on without it.

use crate::cache::entry::{Entry, Key, Sent, cost};
use crate::cache::home::Held;
use crate::cache::message::Message;
use crate::cache::requests::Done;
use crate::cache::state::Cache;
use crate::ids::{Epoch, Incarnation, NodeId};
use crate::view::cluster::Preparation;
use crate::view::tenure::{Roster, Stay};

/// An entry of another home.
#[derive(Clone, Debug)]
pub struct Backup {
    pub entry: Entry,
    pub home: Stay,
    /// The preparation with which this node becomes its home; none while it is a backup.
    pub arriving: Option<Preparation>,
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
        (write, key, entry, done): (u64, Key, Option<Sent>, Option<Done>),
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
        let known = self.floors.entry(from).or_default();
        *known = floor.max(*known);
        if write < *known {
            return;
        }
        if let Some(done) = done
            && !self.remember_for(sender, (&key, &done), now_ms)
        {
            // The home says it again, and the client is told that the outcome is unknown.
            return;
        }
        self.backups.remove(&key);
        if let Some(sent) = entry {
            let entry = sent.kept(now_ms);
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
        let writes = vec![write];
        self.send(from, Message::Stored { home, writes });
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
        self.floors
            .retain(|node, _| before.stay(*node) == after.stay(*node));
    }

    fn promote(&mut self, keys: Vec<Key>, now_ms: u64) {
        for key in keys {
            let backup = self.backups.remove(&key).expect("it was just there");
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
