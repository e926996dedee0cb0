//! What the caches of nodes say to each other.
//!
//! Each message may be lost, repeated, late or overtaken by another. An incarnation in it says for
//! which stay of a node it was meant: what was meant for an earlier one is passed over.

use serde::{Deserialize, Serialize};

use crate::cache::claims::Wish;
use crate::cache::entry::{Entry, Key, Sent, Version};
use crate::cache::requests::{Done, Past};
use crate::ids::{Epoch, Incarnation, NodeId};
use crate::protocol::Tenant;
use crate::view::cluster::Preparation;

/// A message from one node to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Asks a home for a value. The home may keep the asker as a sharer if both act on one epoch.
    Fetch {
        epoch: Epoch,
        asker: Incarnation,
        fill: u64,
        key: Key,
        /// That of a client that would load the value: times count from when the question is there.
        wish: Option<Wish>,
    },
    /// What the home had when the question was there.
    Filled {
        epoch: Epoch,
        asker: Incarnation,
        fill: u64,
        found: Found,
    },
    /// Keep this, or forget the key, in case the home is lost.
    Store {
        epoch: Epoch,
        home: Incarnation,
        /// Every write below this one is over: what a message says of it is not true any more.
        floor: u64,
        write: u64,
        /// When the home has told of a lifetime, by its own clock, which the answer repeats. What is left is
        /// shortened by how long the home lets both be under way.
        told_ms: Option<u64>,
        key: Key,
        entry: Option<Sent>,
        /// The write, if it had an id.
        done: Option<Done>,
    },
    /// These will be the receiver's, if the view that is prepared becomes active.
    Move {
        prepared: Preparation,
        home: Incarnation,
        batch: u64,
        entries: Vec<(Key, Sent)>,
        past: Vec<Past>,
    },
    /// Writes from before the receiver was the second node of their keys.
    Remember {
        epoch: Epoch,
        home: Incarnation,
        batch: u64,
        past: Vec<Past>,
    },
    /// The sender keeps what the batch has.
    Moved { home: Incarnation, batch: u64 },
    /// The sender has no copy any more that these writes of the home's make old.
    Invalidated {
        home: Incarnation,
        writes: Vec<u64>,
        /// The same, and it keeps what these will leave.
        updated: Vec<u64>,
    },
    /// The sender keeps what this write of the home's left, as that told it then.
    Stored {
        home: Incarnation,
        write: u64,
        told_ms: Option<u64>,
    },
    /// Remove everything that matches and that the receiver is home to under this epoch.
    Sweep {
        epoch: Epoch,
        asker: Incarnation,
        /// Every sweep of the sender's below this one is over.
        floor: u64,
        sweep: u64,
        matching: Matching,
    },
    /// Copies of these were read.
    Used { keys: Vec<Key> },
    /// What does the receiver have of these keys?
    Compare {
        asker: Incarnation,
        audit: u64,
        keys: Vec<Key>,
    },
    /// What the home had, key by key; none of a key that it may not decide about, or is writing.
    Compared {
        asker: Incarnation,
        audit: u64,
        found: Vec<(Key, Option<Had>)>,
    },
    /// It is removed, and nobody has a copy of it any more.
    Swept {
        asker: Incarnation,
        sweep: u64,
        removed: u64,
    },
}

/// What a home has of a key when it is compared with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Had {
    Nothing,
    Value { version: Version, digest: u64 },
}

/// What a sweep removes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Matching {
    All,
    /// Keys that begin with this.
    Prefix(Key),
    /// Entries that have this tag.
    Tag(Key),
}

impl Matching {
    /// The account in the name, where it is one of a tenant's.
    pub fn account(&self) -> Option<&str> {
        match self {
            Matching::All => None,
            Matching::Prefix(name) | Matching::Tag(name) => Tenant::account_in(name),
        }
    }

    pub fn is_of(&self, key: &str, entry: &Entry) -> bool {
        match self {
            Matching::All => true,
            Matching::Prefix(prefix) => key.starts_with(&**prefix),
            Matching::Tag(tag) => entry
                .marks
                .as_ref()
                .is_some_and(|marks| marks.tags.contains(tag)),
        }
    }
}

impl Message {
    /// About how many bytes it takes.
    pub fn size_hint(&self) -> usize {
        let sent = |entry: &Sent| entry.size_hint();
        let all = |past: &[Past]| past.iter().map(Past::size_hint).sum::<usize>();
        32 + match self {
            Message::Fetch { key, .. } => key.len(),
            Message::Filled { found, .. } => match found {
                Found::Hit { entry, .. } => sent(entry),
                Found::Miss | Found::Claimed { .. } | Found::NotNow | Found::StoreAway => 0,
            },
            Message::Store {
                key, entry, done, ..
            } => {
                let done = done.as_ref().map_or(0, |done| 32 + done.id.len());
                key.len() + entry.as_ref().map_or(0, sent) + done
            }
            Message::Move { entries, past, .. } => {
                let each = |(key, entry): &(Key, Sent)| key.len() + sent(entry);
                entries.iter().map(each).sum::<usize>() + all(past)
            }
            Message::Remember { past, .. } => all(past),
            Message::Moved { .. } | Message::Swept { .. } | Message::Stored { .. } => 0,
            Message::Used { keys } | Message::Compare { keys, .. } => {
                keys.iter().map(|key| key.len() + 3).sum()
            }
            Message::Compared { found, .. } => found.iter().map(|(key, _)| key.len() + 32).sum(),
            Message::Sweep { matching, .. } => match matching {
                Matching::All => 0,
                Matching::Prefix(name) | Matching::Tag(name) => name.len(),
            },
            Message::Invalidated {
                writes, updated, ..
            } => 9 * (writes.len() + updated.len()),
        }
    }
}

/// What a home had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    Hit {
        entry: Sent,
        /// Whether the home knows that the asker has it, and will say when it is old.
        shared: bool,
        /// Whether the home wants to hear when the asker's copy is read.
        tell_uses: bool,
        /// Whether the home has asked the store for it.
        brought: bool,
    },
    Miss,
    /// The same, and the asker has the right to load the value.
    Claimed {
        claim: Version,
    },
    /// The home may not say: it has no lease, or the key is about to move.
    NotNow,
    /// The store cannot be asked now.
    StoreAway,
}

/// Old copies, said to all nodes at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalidation {
    pub home: Incarnation,
    /// The nodes that the bits of `pending` stand for, the lowest bit first.
    pub nodes: Vec<NodeId>,
    pub items: Vec<Old>,
    /// Whether the home wants to hear when copies that follow these writes are read.
    pub tell_uses: bool,
    pub confirmed: Vec<Confirmed>,
}

/// One key whose copies below a version are old.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Old {
    pub write: u64,
    pub key: Key,
    pub version: Version,
    /// Who must answer.
    pub pending: u64,
    /// What the write will leave, for those of them that read the key; put in when it is said.
    pub update: Option<Sent>,
}

/// A write that has taken effect: what came with the news of it may be served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    pub key: Key,
    pub version: Version,
    /// How long that took from when the news of it was first sent.
    pub took_ms: u64,
}

impl Invalidation {
    /// About how many bytes it takes.
    pub fn size_hint(&self) -> usize {
        let items = self.items.iter().map(Old::size_hint);
        let confirmed = self.confirmed.iter().map(|it| 48 + it.key.len());
        32 + items.sum::<usize>() + confirmed.sum::<usize>()
    }
}

impl Old {
    /// About how many bytes it takes.
    pub fn size_hint(&self) -> usize {
        48 + self.key.len() + self.update.as_ref().map_or(0, Sent::size_hint)
    }
}
