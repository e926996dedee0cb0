//! The durable Raft log: entries, vote, purges and the committed position, in one stream of records.
//!
//! The files are raft-log's (`r-<offset>.wal`, checksummed records). This adapter adds group commit
//! ([`flush`]), an encoding in which damage is not mistaken for an interrupted write ([`codec`]),
//! and what must be refused when opening ([`open`]).
//!
//! Promises:
//! - `append` reports, and `save_vote` returns, after an fsync that covers it.
//! - All I/O takes effect in the order of the calls; a crash keeps a prefix of it, and everything
//!   that was reported.
//! - A failed write or fsync is final: every waiter gets the error, every later call fails.
//! - A damaged record is refused when opening, never skipped.
//!
//! Limits:
//! - When the newest file is shortened, or zeroed from the start of a record to its end, that is
//!   an interrupted write to us; a file system that loses fsynced bytes in this way is not noticed.
//! - The committed position is written with the flush after it, so a crash may take it back.
//! - When a file is full (16 MiB) the next one is created, and its directory fsynced, inside
//!   `append`. Entries that left the memory cache (32 MiB) are read inside the call, too. The
//!   calling thread waits for both.

mod codec;
mod flush;
mod open;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{LogState, OptionalSend, RaftLogReader};
use raft_log::api::raft_log_writer::RaftLogWriter;

use codec::{StoredLogId, StoredPayload, StoredVote};
use flush::Shared;
pub use flush::{Flush, OnFlush};
pub use open::OpenError;

use crate::raft::types::{Entry, LogId, TypeConfig, Vote};

/// Entries for one message to a follower weigh at most this, unless one alone is larger: the
/// broker takes 1 MB, and other fields need room too.
const MESSAGE_BYTES_MAX: usize = 512 << 10;

/// The log of this node. Clones are the same log; the last one dropped closes it, which waits for
/// the fsync in flight.
#[derive(Clone)]
pub struct LogStore {
    open: Arc<Open>,
}

/// Closes the log when it is dropped, which never happens on the log's own thread.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl LogStore {
    /// Opens the log in `dir`, which is created if need be. Blocks for reading all of it and for
    /// an fsync. `on_flush` hears of every flush.
    ///
    /// # Errors
    /// See [`OpenError`]; each message says what to do.
    pub fn open(dir: &Path, on_flush: OnFlush) -> Result<LogStore, OpenError> {
        let shared = open::open(dir, on_flush)?;
        let open = Arc::new(Open(shared));
        Ok(LogStore { open })
    }

    /// Whether it holds neither vote nor entries, and none were purged: this node has not taken
    /// part in any cluster yet.
    ///
    /// # Errors
    /// When the log has failed.
    pub fn is_empty(&self) -> io::Result<bool> {
        let held = self.open.0.lock()?;
        let state = held.log().log_state();
        Ok(state.vote().is_none() && state.last().is_none())
    }

    /// The last entry that was purged. A node needs a snapshot that reaches at least this far.
    ///
    /// # Errors
    /// When the log has failed.
    pub fn purged(&self) -> io::Result<Option<LogId>> {
        let held = self.open.0.lock()?;
        Ok(held.log().log_state().purged().map(|id| id.0))
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = half_open(&range);
        let held = self.open.0.lock()?;
        let entries = held.log().read(from, to);
        entries.map(|entry| Ok(to_entry(entry?))).collect()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        let held = self.open.0.lock()?;
        Ok(held.log().log_state().vote().map(|vote| vote.0))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let held = self.open.0.lock()?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for stored in held.log().read(start, end) {
            let stored = stored?;
            bytes += stored.1.wire_bytes();
            if !entries.is_empty() && bytes > MESSAGE_BYTES_MAX {
                break;
            }
            entries.push(to_entry(stored));
        }
        Ok(entries)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let held = self.open.0.lock()?;
        let state = held.log().log_state();
        Ok(LogState {
            last_purged_log_id: state.purged().map(|id| id.0),
            last_log_id: state.last().map(|id| id.0),
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, on_disk) = TypeConfig::oneshot();
        {
            let mut held = self.open.0.lock()?;
            held.write(|log| log.save_vote(StoredVote(*vote)))?;
            held.flush(IOFlushed::signal(done), 0)?;
        }
        on_disk.await.expect("each flush completes or fails")
    }

    /// Costs no fsync of its own: what is lost here is found again when a leader commits.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut held = self.open.0.lock()?;
        let state = held.log().log_state();
        // Beyond the log lies only what a snapshot covers, which says so itself; and nothing is
        // won by going back. raft-log would refuse both.
        let last = state.last().map(|id| id.0);
        let before = state.committed().map(|id| id.0);
        match committed {
            Some(id) if committed > before && committed <= last => {
                held.write(|log| log.commit(StoredLogId(id)))?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let held = self.open.0.lock()?;
        Ok(held.log().log_state().committed().map(|id| id.0))
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.open.0.room().await;
        let mut bytes = 0;
        let entries = entries.into_iter().map(|entry| {
            let payload = StoredPayload(entry.payload);
            bytes += payload.wire_bytes();
            (StoredLogId(entry.log_id), payload)
        });
        let mut held = self.open.0.lock()?;
        held.write(|log| log.append(entries))?;
        held.flush(done, bytes)
    }

    /// Is on disk before whatever is appended after it; a crash before that brings back entries
    /// which nobody has acknowledged.
    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let mut held = self.open.0.lock()?;
        let index = last.map_or(0, |id| id.index + 1);
        let end = held.log().log_state().last().map_or(0, |id| id.0.index + 1);
        if index < end {
            held.write(|log| log.truncate(index))?;
        }
        Ok(())
    }

    /// Files that hold only purged entries are deleted once the purge is on disk.
    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let mut held = self.open.0.lock()?;
        held.write(|log| log.purge(StoredLogId(upto)))?;
        held.flush(IOFlushed::noop(), 0)
    }
}

fn half_open(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    };
    // An empty range must not be an inverted one.
    (from, to.max(from))
}

fn to_entry((log_id, payload): (StoredLogId, StoredPayload)) -> Entry {
    Entry {
        log_id: log_id.0,
        payload: payload.0,
    }
}
