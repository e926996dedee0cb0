//! Values as they are kept: versions, how long they live, what they cost, how they travel.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::Token;
use crate::protocol::value::{Kind, Value};

/// The moment that never comes, in milliseconds.
pub const NEVER: u64 = u64::MAX;

/// What an entry takes beside its key and value: links, pointers and numbers, about.
pub const ENTRY_BYTES: usize = 200;

/// What marks take beside names, and a name beside its text.
const MARKS_BYTES: usize = 72;
const NAME_BYTES: usize = 32;

/// Names one write of one key. The epoch is that of the view under which it was made, so that no
/// two homes of a key ever give the same version, and a later one is greater.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Version {
    pub epoch: u64,
    pub sequence: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.sequence)
    }
}

/// The text is no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoVersion;

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let (epoch, sequence) = text.split_once('-').ok_or(NoVersion)?;
        let number = |text: &str| text.parse().map_err(|_| NoVersion);
        Ok(Version {
            epoch: number(epoch)?,
            sequence: number(sequence)?,
        })
    }
}

/// One value with all that goes wherever it is kept. Times are by the keeper's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub value: Value,
    pub version: Version,
    /// [`NEVER`] without a lifetime.
    pub expires_at_ms: u64,
    /// How long it lives without being read; 0 for ever.
    pub idle_ms: u64,
    /// When it will have lain idle; [`NEVER`] if it may.
    pub idle_at_ms: u64,
    /// None in a copy.
    pub marks: Option<Arc<Marks>>,
}

/// What few entries have, and no reader sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The names under which a sweep finds the entry.
    pub tags: Vec<Key>,
    /// The newest with which it was written.
    pub fence: Option<Fence>,
}

impl Marks {
    /// Marks of an entry, if it has any.
    pub fn kept(self) -> Option<Arc<Marks>> {
        (self != Marks::default()).then(|| Arc::new(self))
    }

    /// What they take in memory: each tag is counted as if no other entry had it.
    fn bytes(&self) -> usize {
        let tags: usize = self.tags.iter().map(|tag| NAME_BYTES + tag.len()).sum();
        let fence = self.fence.iter().map(|fence| fence.resource.len());
        MARKS_BYTES + tags + fence.sum::<usize>()
    }
}

/// A write is made by whoever holds this lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fence {
    pub resource: Key,
    pub token: Token,
}

impl Entry {
    pub fn is_live(&self, now_ms: u64) -> bool {
        now_ms < self.expires_at_ms && now_ms < self.idle_at_ms
    }

    /// The newest fence with which it was written.
    pub fn fence(&self) -> Option<&Fence> {
        self.marks.as_ref()?.fence.as_ref()
    }

    /// Lets its idle time begin anew, unless its life is over.
    pub fn read(&mut self, now_ms: u64) {
        if self.idle_ms > 0 && self.is_live(now_ms) {
            self.idle_at_ms = now_ms.saturating_add(self.idle_ms);
        }
    }

    /// The same where nobody reads it: its idle time begins when somebody may.
    pub fn unread(self) -> Self {
        Entry {
            idle_at_ms: NEVER,
            ..self
        }
    }

    /// What is left of its lifetime; none if it has none.
    pub fn left_ms(&self, now_ms: u64) -> Option<u64> {
        (self.expires_at_ms != NEVER).then(|| self.expires_at_ms.saturating_sub(now_ms))
    }

    /// As another node gets it that keeps all of it.
    pub fn sent(&self, now_ms: u64) -> Sent {
        Sent {
            marks: self.marks.clone(),
            ..self.sent_copy(now_ms)
        }
    }

    /// As another node gets it that only reads it.
    pub fn sent_copy(&self, now_ms: u64) -> Sent {
        Sent {
            kind: self.value.kind(),
            bytes: self.value.bytes().clone(),
            version: self.version,
            left_ms: self.left_ms(now_ms),
            idle_ms: self.idle_ms,
            marks: None,
        }
    }
}

/// An entry on its way: what is left of its lifetime instead of when it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    kind: Kind,
    bytes: Bytes,
    pub version: Version,
    pub left_ms: Option<u64>,
    pub idle_ms: u64,
    pub marks: Option<Arc<Marks>>,
}

impl Sent {
    /// About how many bytes it takes.
    pub fn size_hint(&self) -> usize {
        48 + self.bytes.len() + self.marks.as_ref().map_or(0, |marks| marks.bytes())
    }

    /// The same with so much left of its lifetime.
    pub fn with_left(self, left_ms: Option<u64>) -> Self {
        Sent { left_ms, ..self }
    }

    /// The entry as it is kept by whose clock it was sent at `sent_at_ms` or later.
    pub fn kept(self, sent_at_ms: u64) -> Entry {
        let until = |left: u64| sent_at_ms.saturating_add(left);
        Entry {
            value: Value::from_kept(self.kind, self.bytes),
            version: self.version,
            expires_at_ms: self.left_ms.map_or(NEVER, until),
            idle_ms: self.idle_ms,
            idle_at_ms: match self.idle_ms {
                0 => NEVER,
                idle_ms => until(idle_ms),
            },
            marks: self.marks,
        }
    }
}

/// What an entry counts in the memory that the cache may take.
pub fn cost(key: &str, entry: &Entry) -> usize {
    let marks = entry.marks.as_ref().map_or(0, |marks| marks.bytes());
    ENTRY_BYTES + key.len() + entry.value.bytes().len() + marks
}

/// A key, shared by the tables that have it.
pub type Key = Arc<str>;
