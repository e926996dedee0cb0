//! Copies that follow the writes of their homes instead of being lost to them. Plain code.
//!
//! ```text
//!           news of a write, with what it will leave         the write has taken effect
//!   valid --------------------------------------> unconfirmed -------------------------> valid
//! ```
//!
//! An acknowledged invalidation costs each reader a question afterwards, although what it asks for was known
//! before. So the news of a write has what the write will leave, where that is small, and a sharer that reads the
//! key keeps this in place of what it had, unserved. It says so when it acknowledges. When the write takes effect
//! the home notes these sharers of the new value, and only then says that it has, with whatever it has to say
//! next. That may be lost, or late: who reads meanwhile asks, and a later write makes old what was not confirmed
//! as it does everything else. A sharer takes it only for the very version that it has. So nobody serves a value
//! that its home does not know of, or before its write has taken effect, when no older one is left.
//!
//! A copy that was not read while several writes came is lost to the next one, and so are all copies to a write
//! that others of the key wait for: a key that is written more than read costs what an invalidation costs.

use crate::cache::copies::{Copied, shortened};
use crate::cache::entry::{Key, NEVER, Sent, Version, cost};
use crate::cache::message::{Confirmed, Old};
use crate::cache::operation::Change;
use crate::cache::state::{Cache, Effect};
use crate::cache::writing::Doing;
use crate::view::tenure::{DRIFT_PERCENT, Stay};

/// The largest value that goes with the news of its write. The news goes to all nodes, so a large one should
/// be asked for by those who want it.
const UPDATE_BYTES_MAX: usize = 4 << 10;
/// How many writes a copy follows without being read.
const UNREAD_MAX: u8 = 2;
/// Writes that have taken effect and wait to be said, of keys of at most 321 bytes; what of others came
/// with their news has to be asked for.
const CONFIRMED_MAX: usize = 1_000;

impl<T> Cache<T> {
    /// What goes with the news of a write: nothing if others of the key wait, since the next makes it old at once.
    /// Nor does a value that ends when nobody reads it: its home would not know when it was read last.
    pub(super) fn update(&self, old: &Old, now_ms: u64) -> Option<Sent> {
        let writing = self.writes.by_key.get(&old.key)?;
        let Doing::Change(Change::Put(entry)) = &writing.doing else {
            return None;
        };
        let is_last = writing.id == old.write && writing.queue.is_empty();
        let is_small = entry.value.bytes().len() <= UPDATE_BYTES_MAX;
        (is_last && is_small && entry.idle_ms == 0).then(|| entry.sent_copy(now_ms))
    }

    /// The copy of a key, if it may be served.
    pub(super) fn copy(&self, key: &str) -> Option<&Copied> {
        self.copies.peek(key).filter(|copied| copied.is_confirmed)
    }

    /// A copy that is older than this version is lost, or makes place for what the home says will be there, and
    /// of which it may want to hear uses; whether this node has the version afterwards.
    pub(super) fn outdate(
        &mut self,
        (key, version): (&Key, Version),
        (home, update): (Stay, Option<(Sent, bool)>),
        now_ms: u64,
    ) -> bool {
        let Some(copied) = self.copies.peek(key) else {
            return false;
        };
        if copied.entry.version >= version {
            return copied.entry.version == version;
        }
        let is_from_home = self
            .tenure
            .acting()
            .is_some_and(|acting| acting.roster.home(key) == Some(home));
        let follows = is_from_home && copied.unread < UNREAD_MAX;
        let unread = copied.unread + 1;
        let room = self.settings.bytes_max - (self.bytes() - cost(key, &copied.entry));
        let update = update.filter(|_| follows).map(|(sent, tells)| {
            let entry = shortened(sent).kept(now_ms);
            (cost(key, &entry), entry, tells)
        });
        match update.filter(|(bytes, ..)| *bytes <= room) {
            Some((bytes, entry, tells)) => {
                let next = Copied {
                    entry,
                    tells,
                    is_confirmed: self.flaws.serves_unconfirmed,
                    unread,
                };
                self.copies.replace(key, (next, bytes));
                true
            }
            None => {
                self.copies.remove(key);
                false
            }
        }
    }

    /// These writes have taken effect.
    pub(super) fn confirm(&mut self, confirmed: Vec<Confirmed>) {
        for Confirmed {
            key,
            version,
            took_ms,
        } in confirmed
        {
            let Some(copied) = self.copies.peek_mut(&key) else {
                continue;
            };
            let is_same = copied.entry.version == version || self.flaws.confirms_any;
            if is_same && !copied.is_confirmed {
                copied.is_confirmed = true;
                self.counts.updates += 1;
                // What was left of its lifetime when it was sent counted from when it came.
                if copied.entry.expires_at_ms != NEVER {
                    let way_ms = took_ms + took_ms * 2 * DRIFT_PERCENT / 100 + 1;
                    copied.entry.expires_at_ms = copied.entry.expires_at_ms.saturating_sub(way_ms);
                }
            }
        }
    }

    /// A write has taken effect, whose value the sharers keep that are entered.
    pub(super) fn say_confirmed(&mut self, key: &Key, version: Version, took_ms: u64) {
        if self.confirmed.len() < CONFIRMED_MAX {
            self.confirmed.push(Confirmed {
                key: key.clone(),
                version,
                took_ms,
            });
        }
    }

    /// What no other news has taken along.
    pub(super) fn tick_updates(&mut self) {
        if !self.confirmed.is_empty() {
            self.effects.push(Effect::Confirm);
        }
    }
}
