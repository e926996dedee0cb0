//! What a cache says of itself: what a key is to it, what it counted. Plain code.

use crate::cache::entry::{Entry, Version};
use crate::cache::operation::Source;
use crate::cache::state::Cache;
use crate::ids::NodeId;
use crate::stats::cache::Delays;

/// What the cache has counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads answered from this node's memory.
    pub local: u64,
    /// Reads answered by what the key's home had.
    pub home: u64,
    /// Reads answered by what the store had.
    pub store: u64,
    /// Reads that found nothing.
    pub misses: u64,
    /// Questions to homes, repeats not counted.
    pub fills: u64,
    /// Entries that made room for others.
    pub evictions: u64,
    /// Sharers told that their copy is old; repeats are `resent`.
    pub invalidations_sent: u64,
    pub invalidations_acked: u64,
    pub invalidations_resent: u64,
    /// From telling the sharers of a write to its taking effect.
    pub invalidation: Delays,
    /// Copies of this node's that followed a write.
    pub updates: u64,
    /// Writes that took effect here.
    pub writes: u64,
    /// Entries that a backup kept when their home was lost.
    pub promoted: u64,
    /// Questions to the store, repeats not counted.
    pub store_reads: u64,
    /// Writes that the store has kept.
    pub store_writes: u64,
    /// Calls of the store that failed.
    pub store_errors: u64,
}

impl Counts {
    /// A read is answered.
    pub(super) fn hit(&mut self, source: Source) {
        *match source {
            Source::Local => &mut self.local,
            Source::Home => &mut self.home,
            Source::Store => &mut self.store,
        } += 1;
    }
}

/// What one node knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Who orders its writes; none while this node is in no view.
    pub home: Option<NodeId>,
    /// Who becomes the home when that one leaves.
    pub second: Option<NodeId>,
    pub state: State,
    /// Of the value that this node keeps.
    pub version: Option<Version>,
    /// How many nodes are told when the value is old.
    pub sharers: u32,
}

/// What a key is to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Absent,
    /// This node is its home and has a value.
    Home,
    /// This node is its home, and a write has not taken effect.
    Writing,
    /// This node is its home, and asks the store.
    Bringing,
    Copy,
    Backup,
}

impl<T> Cache<T> {
    /// What this node knows of a key.
    pub fn explain(&self, key: &str, now_ms: u64) -> Explanation {
        let homes = self
            .tenure
            .acting()
            .and_then(|acting| acting.roster.homes(key));
        // What is over is as good as not there.
        let live = |entry: &Entry| entry.is_live(now_ms).then_some(entry.version);
        let held = || {
            let held = self.held.peek(key)?;
            Some((State::Home, live(&held.entry)?, held.sharers()))
        };
        let copied = || {
            let copied = self.copy(key)?;
            Some((State::Copy, live(&copied.entry)?, 0))
        };
        let backup = || {
            let backup = self.backups.peek(key)?;
            Some((State::Backup, live(&backup.entry)?, 0))
        };
        let found = held().or_else(copied).or_else(backup);
        let (state, version, sharers) = match found {
            Some((state, version, sharers)) => (state, Some(version), sharers),
            None => (State::Absent, None, 0),
        };
        Explanation {
            home: homes.map(|homes| homes.home.node),
            second: homes.and_then(|homes| homes.second).map(|stay| stay.node),
            state: match self.writes.is_bringing(key) {
                Some(true) => State::Bringing,
                Some(false) => State::Writing,
                None => state,
            },
            version,
            sharers,
        }
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Entries and bytes that this node keeps.
    pub fn size(&self) -> (usize, usize) {
        let entries = self.held.count() + self.copies.count() + self.backups.count();
        (entries, self.bytes())
    }
}
