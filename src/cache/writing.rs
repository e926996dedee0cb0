//! What is under way with the keys that this node is home to: at most one write, or one question to the store,
//! for each. Plain code.

use std::collections::{BTreeMap, VecDeque};

use crate::cache::entry::{Key, Version};
use crate::cache::home::Reader;
use crate::cache::operation::{Answer, Change, Write};
use crate::cache::requests::Done;
use crate::cache::state::Waiter;
use crate::cache::through::Through;
use crate::ids::NodeId;

/// How long until sharers are told again, at first; it doubles.
const TELL_AGAIN_MS: u64 = 20;
/// How long a second node may take to hear of a lifetime and to answer, when it is told at once.
const WAY_MS: u64 = 100;

/// Who asked for a write, and what to answer.
#[derive(Clone, Debug)]
pub(super) struct Origin<T> {
    /// None when the client has given up.
    pub(super) waiter: Option<Waiter<T>>,
    pub(super) answer: Answer,
    /// What to remember for repeats, if it has an id.
    pub(super) done: Option<Done>,
}

/// What is under way with a key.
#[derive(Clone, Debug)]
pub(super) enum Doing {
    Change(Change),
    /// The store is asked for the value, and for what became of the write with this id.
    Bring(Option<Key>),
}

/// A write that has not taken effect, or a question to the store, which writes wait for alike.
#[derive(Clone, Debug)]
pub(super) struct Writing<T> {
    pub(super) id: u64,
    pub(super) doing: Doing,
    pub(super) version: Version,
    pub(super) began_ms: u64,
    /// The sharers that have not acknowledged.
    pub(super) pending: u64,
    /// Those that keep what this write leaves.
    pub(super) updated: u64,
    /// When the sharers were first told; none if there were none.
    pub(super) told_at_ms: Option<u64>,
    /// The second node, until it keeps what this write leaves.
    pub(super) backup: Option<NodeId>,
    /// The call of the store, until it has answered.
    pub(super) through: Option<Through>,
    pub(super) again_at_ms: u64,
    pub(super) pause_ms: u64,
    /// Who asked for it; none for what this node does by itself.
    pub(super) origin: Option<Origin<T>>,
    pub(super) queue: VecDeque<(Write, Waiter<T>)>,
    pub(super) readers: Vec<Reader<T>>,
    pub(super) bytes: usize,
}

impl<T> Writing<T> {
    /// With nobody to tell.
    pub(super) fn new(
        id: u64,
        (doing, version): (Doing, Version),
        bytes: usize,
        now_ms: u64,
    ) -> Self {
        Writing {
            id,
            doing,
            version,
            began_ms: now_ms,
            pending: 0,
            updated: 0,
            told_at_ms: None,
            backup: None,
            through: None,
            again_at_ms: now_ms + TELL_AGAIN_MS,
            pause_ms: TELL_AGAIN_MS,
            origin: None,
            queue: VecDeque::new(),
            readers: Vec::new(),
            bytes,
        }
    }

    /// How long the second node may take to hear what it is told at a moment, and to answer: longer each time.
    pub(super) fn way_ms(&self, told_ms: u64) -> u64 {
        WAY_MS + told_ms.saturating_sub(self.began_ms)
    }

    /// Whether an answer of the second node counts: a lifetime that was longer on its way would end too late
    /// there.
    pub(super) fn is_in_time(&self, told_ms: Option<u64>, now_ms: u64) -> bool {
        told_ms.is_none_or(|told_ms| now_ms.saturating_sub(told_ms) <= self.way_ms(told_ms))
    }
}

/// The writes that have not taken effect: at most one for each key.
#[derive(Clone, Debug)]
pub struct Writes<T> {
    pub(super) by_key: BTreeMap<Key, Writing<T>>,
    pub(super) by_id: BTreeMap<u64, Key>,
    last_id: u64,
    bytes: usize,
}

impl<T> Default for Writes<T> {
    fn default() -> Self {
        Writes {
            by_key: BTreeMap::new(),
            by_id: BTreeMap::new(),
            last_id: 0,
            bytes: 0,
        }
    }
}

impl<T> Writes<T> {
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn contains(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// Who reads a key that is being written, when that is over.
    pub(super) fn readers(&mut self, key: &str) -> &mut Vec<Reader<T>> {
        let writing = self.by_key.get_mut(key);
        &mut writing.expect("it is being written").readers
    }

    /// The writes that wait for the one of this key, if there is one.
    pub(super) fn queue(&mut self, key: &str) -> Option<&mut VecDeque<(Write, Waiter<T>)>> {
        let writing = self.by_key.get_mut(key)?;
        Some(&mut writing.queue)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The id of the write that begins next.
    pub(super) fn next_id(&self) -> u64 {
        self.last_id + 1
    }

    /// Below this every write is over.
    pub(super) fn floor(&self) -> u64 {
        let first = self.by_id.keys().next();
        first.copied().unwrap_or(self.next_id())
    }

    /// Whether the key's value is asked of the store, or is being changed; none if neither.
    pub(super) fn is_bringing(&self, key: &str) -> Option<bool> {
        let writing = self.by_key.get(key)?;
        Some(matches!(writing.doing, Doing::Bring(_)))
    }

    pub(super) fn insert(&mut self, key: Key, writing: Writing<T>) {
        self.last_id = self.last_id.max(writing.id);
        self.bytes += writing.bytes;
        self.by_id.insert(writing.id, key.clone());
        let before = self.by_key.insert(key, writing);
        assert!(before.is_none(), "one write of a key at a time");
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Writing<T>> {
        let writing = self.by_key.remove(key)?;
        self.by_id.remove(&writing.id);
        self.bytes -= writing.bytes;
        Some(writing)
    }
}
