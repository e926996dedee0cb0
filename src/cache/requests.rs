//! What became of writes that had a request id, so that a repeat gets the answer of the first. Plain
//! code.
//!
//! ```text
//!   a write with an id ─► it takes effect: the result is kept ─► its time is over: forgotten
//!                                  │  ▲
//!                         a repeat ┘  └ the answer of the first, and nothing is executed
//! ```
//!
//! A result belongs to its key and is kept by the key's home, whatever becomes of the value. The second
//! node has it, with what the write leaves, before the write takes effect; it moves with the key. None is
//! forgotten early: where there is no room, a new id is refused. What changed nothing is not remembered.
//!
//! With a store the result is kept there, in the same step as what the write leaves, instead of at a second
//! node, and a home that may not know everything asks the store before it executes a write with an id.
//!
//! **What may be missing.** A node that comes into the view knows nothing for certain of what was before, and
//! one that inherits a key knows for certain only what took effect while it was the second. So each node
//! keeps the moment since which it knows everything about the keys that it is home to; as long as that is
//! not long ago, a repeat of something unknown is refused as of unknown outcome. Who does not say that a
//! write may be a repeat takes the risk that it is executed again.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::cache::backups::{inherits, keeps};
use crate::cache::entry::{Key, Version};
use crate::cache::operation::{Answer, Operation, Why, Write};
use crate::cache::state::Cache;
use crate::protocol::Tenant;
use crate::view::cluster::{Preparation, View};
use crate::view::tenure::{Roster, Stay, outlasting};

/// How long a result is kept: longer than clients ask again, and as long as a queue knows its ids
/// unless it is told otherwise.
pub const REMEMBERED_MS: u64 = 120_000;

/// What a result takes beside its names, about.
const DONE_BYTES: usize = 250;
/// The part of the memory that results may take for a home to accept a new id; and for a second node to
/// keep one, which leaves room for homes that have more than others.
const PART_OF_HOME: usize = 4;
const PART_OF_SECOND: usize = 2;
/// The part of a home's room for results that one tenant may take.
const PART_OF_TENANT: usize = 2;

/// A write that has taken effect, and how it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub id: Key,
    /// Tells it from another write with the same id.
    digest: u64,
    became: Became,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Became {
    Wrote(Version),
    Removed,
    Counted(u64, Version),
}

impl Done {
    /// What is to be remembered of a write that is answered so; none if it has no id.
    pub fn of(write: &Write, answer: &Answer) -> Option<Self> {
        let became = match answer {
            Answer::Wrote { version } => Became::Wrote(*version),
            Answer::Removed { existed: true } => Became::Removed,
            Answer::Counted { value, version } => Became::Counted(*value, *version),
            _ => return None,
        };
        write.id.clone().map(|id| Done {
            id,
            digest: digest(&write.operation),
            became,
        })
    }

    fn answer(&self) -> Answer {
        match self.became {
            Became::Wrote(version) => Answer::Wrote { version },
            Became::Removed => Answer::Removed { existed: true },
            Became::Counted(value, version) => Answer::Counted { value, version },
        }
    }

    /// What it takes in memory.
    pub(super) fn cost(&self, key: &str) -> usize {
        DONE_BYTES + key.len() + self.id.len()
    }
}

fn digest(operation: &Operation) -> u64 {
    let mut hasher = Xxh3::new();
    operation.hash(&mut hasher);
    hasher.finish()
}

/// A result on its way to another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    key: Key,
    done: Done,
    /// How much longer it is kept.
    left_ms: u64,
}

impl Past {
    /// About how many bytes it takes.
    pub fn size_hint(&self) -> usize {
        48 + self.key.len() + self.done.id.len()
    }
}

/// A key, and the id of a write of it.
pub(super) type Name = (Key, Key);

#[derive(Clone, Debug)]
struct Remembered {
    done: Done,
    until_ms: u64,
    /// This node, or the home that it is the second node of.
    home: Stay,
    /// The preparation with which this node becomes the home; none otherwise.
    arriving: Option<Preparation>,
}

/// The results that this node keeps.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    by_name: BTreeMap<Name, Remembered>,
    /// In the order in which they are forgotten.
    forgetting: BTreeSet<(u64, Name)>,
    bytes: usize,
    /// The same by the account that the key may be of.
    bytes_of: BTreeMap<Box<str>, usize>,
    /// Since when this node is told of everything that takes effect at homes that it is the second of.
    second_since_ms: u64,
    /// Since when it knows of everything that has taken effect on keys that it is home to.
    whole_since_ms: u64,
}

impl Requests {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn insert(&mut self, name: Name, remembered: Remembered) {
        self.remove(&name);
        let bytes = remembered.done.cost(&name.0);
        self.bytes += bytes;
        if let Some(account) = Tenant::account_in(&name.0) {
            *self.bytes_of.entry(account.into()).or_default() += bytes;
        }
        self.forgetting.insert((remembered.until_ms, name.clone()));
        self.by_name.insert(name, remembered);
    }

    fn remove(&mut self, name: &Name) {
        if let Some(remembered) = self.by_name.remove(name) {
            let bytes = remembered.done.cost(&name.0);
            self.bytes -= bytes;
            if let Some(account) = Tenant::account_in(&name.0)
                && let Some(all) = self.bytes_of.get_mut(account)
            {
                *all -= bytes;
                if *all == 0 {
                    self.bytes_of.remove(account);
                }
            }
            self.forgetting.remove(&(remembered.until_ms, name.clone()));
        }
    }

    /// Changes each result, or forgets it when `keep` says false.
    fn keep(&mut self, mut keep: impl FnMut(&Key, &mut Remembered) -> bool) {
        let all = self.by_name.iter_mut();
        let over = all.filter_map(|(name, kept)| (!keep(&name.0, kept)).then(|| name.clone()));
        let over: Vec<Name> = over.collect();
        for name in over {
            self.remove(&name);
        }
    }

    /// The results of a home for which `wanted`.
    pub(super) fn of(&self, home: Stay, wanted: impl Fn(&Name) -> bool) -> Vec<Name> {
        let is_of = |kept: &Remembered| kept.home == home && kept.arriving.is_none();
        let found = self.by_name.iter();
        let found = found.filter(|(name, kept)| is_of(kept) && wanted(name));
        found.map(|(name, _)| name.clone()).collect()
    }

    /// A result as it is sent; none if it is forgotten by now.
    pub(super) fn past(&self, name: &Name, now_ms: u64) -> Option<Past> {
        let kept = self.by_name.get(name)?;
        Some(Past {
            key: name.0.clone(),
            done: kept.done.clone(),
            left_ms: kept.until_ms.saturating_sub(now_ms),
        })
    }

    pub(super) fn clear(&mut self) {
        self.by_name.clear();
        self.forgetting.clear();
        self.bytes_of.clear();
        self.bytes = 0;
    }
}

impl<T> Cache<T> {
    /// How a write of a key that this node may decide about is answered without being executed, if so.
    pub(super) fn recall(&self, key: &Key, write: &Write, now_ms: u64) -> Option<Answer> {
        let id = write.id.as_ref()?;
        let mine = Some(self.acting().stay);
        let known = self.requests.by_name.get(&(key.clone(), id.clone()));
        let known = known.filter(|kept| Some(kept.home) == mine && kept.arriving.is_none());
        if let Some(kept) = known.filter(|kept| now_ms < kept.until_ms) {
            return Some(match kept.done.digest == digest(&write.operation) {
                true => kept.done.answer(),
                false => Answer::Refused(Why::AnotherRequest),
            });
        }
        let is_whole = self.knows_results(now_ms);
        let may_be_missing = !is_whole && !self.settings.store;
        if write.is_repeat && may_be_missing && !self.flaws.repeats_are_new {
            return Some(Answer::Refused(Why::Forgotten));
        }
        let bytes = DONE_BYTES + key.len() + id.len();
        let room = self.settings.bytes_max / PART_OF_HOME;
        let tenant = Tenant::of_name(key).filter(|tenant| self.held.knows(tenant));
        let of_tenant = tenant.and_then(|t| self.requests.bytes_of.get::<str>(t.borrow()).copied());
        let is_room = self.requests.bytes + bytes <= room
            && of_tenant.is_none_or(|all| all + bytes <= room / PART_OF_TENANT);
        (!is_room).then_some(Answer::Refused(Why::TooManyIds))
    }

    /// Whether every result of the keys that this node is home to is here.
    fn knows_results(&self, now_ms: u64) -> bool {
        let since_ms = self.requests.whole_since_ms;
        since_ms.saturating_add(self.settings.remember_ms) <= now_ms
    }

    /// Whether the store is to be asked what became of the id of a write.
    pub(super) fn is_to_seek(&self, key: &Key, write: &Write, now_ms: u64) -> bool {
        let is_unknown = |id: &Key| {
            let name = (key.clone(), id.clone());
            !self.requests.by_name.contains_key(&name)
        };
        write.sought != Some(self.acting().epoch)
            && !self.knows_results(now_ms)
            && !self.flaws.repeats_are_new
            && write.id.as_ref().is_some_and(is_unknown)
    }

    /// Keeps a result that the store had; false if there is no room.
    pub(super) fn remember_brought(
        &mut self,
        key: &Key,
        (done, left_ms): (Done, u64),
        now_ms: u64,
    ) -> bool {
        let is_room = self.has_room_for(key, &done, now_ms);
        if is_room {
            let home = self.acting().stay;
            self.keep_past((key.clone(), done), left_ms, (home, None), now_ms);
        }
        is_room
    }

    /// Keeps the result of a write that takes effect here.
    pub(super) fn remember(&mut self, key: &Key, done: Done, now_ms: u64) {
        let home = self.acting().stay;
        self.keep_past(
            (key.clone(), done),
            self.settings.remember_ms,
            (home, None),
            now_ms,
        );
    }

    /// Keeps a result of a home that this node is the second of; false if there is no room.
    pub(super) fn remember_for(
        &mut self,
        home: Stay,
        (key, done): (&Key, &Done),
        now_ms: u64,
    ) -> bool {
        if self.flaws.no_results_at_second {
            return true;
        }
        let left_ms = self.settings.remember_ms;
        let is_kept = self.has_room_for(key, done, now_ms);
        if is_kept {
            self.keep_past((key.clone(), done.clone()), left_ms, (home, None), now_ms);
        }
        is_kept
    }

    /// Keeps older results of a home that this node is the second of by now; false if there is no room.
    pub(super) fn remember_older(&mut self, home: Stay, past: Vec<Past>, now_ms: u64) -> bool {
        let me = self.acting().stay;
        for Past { key, done, left_ms } in past {
            let homes = self.acting().roster.homes(&key);
            if homes.is_none_or(|homes| homes.home != home || homes.second != Some(me)) {
                continue;
            }
            if !self.has_room_for(&key, &done, now_ms) {
                return false;
            }
            self.keep_past((key, done), left_ms, (home, None), now_ms);
        }
        true
    }

    /// Keeps results that will be this node's, if the view that is prepared becomes active.
    pub(super) fn results_arrive(
        &mut self,
        (home, prepared): (Stay, Preparation),
        past: Vec<Past>,
        now_ms: u64,
    ) {
        for Past { key, done, left_ms } in past {
            let known = self.requests.by_name.get(&(key.clone(), done.id.clone()));
            // What this node keeps for the present home counts until then.
            let is_free = known.is_none_or(|kept| kept.arriving.is_some());
            if is_free && self.has_room_for(&key, &done, now_ms) {
                self.keep_past((key, done), left_ms, (home, Some(prepared)), now_ms);
            }
        }
    }

    fn has_room_for(&mut self, key: &Key, done: &Done, now_ms: u64) -> bool {
        let bytes = done.cost(key);
        self.requests.bytes + bytes <= self.settings.bytes_max / PART_OF_SECOND
            && self.make_room(bytes, key, now_ms)
    }

    fn keep_past(
        &mut self,
        (key, done): (Key, Done),
        left_ms: u64,
        (home, arriving): (Stay, Option<Preparation>),
        now_ms: u64,
    ) {
        let name = (key, done.id.clone());
        let remembered = Remembered {
            done,
            until_ms: now_ms.saturating_add(left_ms),
            home,
            arriving,
        };
        self.requests.insert(name, remembered);
    }

    /// This node has come into a view: what was before may be missing.
    pub(super) fn begin_requests(&mut self, view: &View, now_ms: u64) {
        self.requests.whole_since_ms = now_ms;
        self.requests.second_since_ms = now_ms + longest_act_ms(view);
        self.adopt_results();
    }

    /// Inherits results with their keys, keeps what is still the same, forgets the rest.
    pub(super) fn adopt_requests(&mut self, before: &Roster, view: &View, now_ms: u64) {
        let (after, me) = (self.acting().roster.clone(), self.acting().stay);
        let stays = |stay: &Stay| after.stay(stay.node) == Some(*stay);
        if self.settings.store {
            self.requests.whole_since_ms = now_ms;
        } else if !before.stays().iter().all(stays) {
            let since_ms = match self.settings.backups {
                true => self.requests.second_since_ms,
                false => now_ms,
            };
            self.requests.whole_since_ms = self.requests.whole_since_ms.max(since_ms);
        }
        // Until then a home may act on the view before, and tell another second node.
        self.requests.second_since_ms = now_ms + longest_act_ms(view);
        self.requests.keep(|key, kept| {
            if kept.arriving.is_some() {
                return true;
            }
            if kept.home == me {
                return after.home(key) == Some(me);
            }
            if inherits(key, kept.home, me, (before, &after)) {
                kept.home = me;
                return true;
            }
            keeps(key, kept.home, me, &after)
        });
        self.adopt_results();
    }

    /// What arrived for the view that is active now is this node's; the rest is forgotten.
    fn adopt_results(&mut self) {
        let activated = self.tenure.activated();
        let Some(acting) = self.tenure.acting() else {
            return;
        };
        self.requests.keep(|key, kept| {
            if kept.arriving == Some(activated) && acting.roster.home(key) == Some(acting.stay) {
                kept.home = acting.stay;
                kept.arriving = None;
            }
            kept.arriving.is_none()
        });
    }

    /// Forgets what arrived for a view that is not prepared any more.
    pub(super) fn forget_arriving_results(&mut self) {
        let prepared = self.tenure.prepared();
        self.requests
            .keep(|_, kept| kept.arriving.is_none() || kept.arriving == prepared);
    }

    /// Forgets results whose time is over.
    pub(super) fn forget_results(&mut self, now_ms: u64) {
        while let Some((until_ms, name)) = self.requests.forgetting.first() {
            if now_ms < *until_ms {
                return;
            }
            let name = name.clone();
            self.requests.remove(&name);
        }
    }
}

/// How long after a view is active some member may act on the view before.
fn longest_act_ms(view: &View) -> u64 {
    let leases = view.members().map(|(_, member)| member.lease_ms);
    outlasting(leases.max().unwrap_or(0))
}
