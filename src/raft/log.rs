//! The durable Raft log: entries, vote, purges and the committed position, in one stream of records.
//!
//! It is our own and not a library's since an append to a file that grows costs more than twice what
//! writing over zeroes does ([`segment`] has the figures), and the fsync is most of what a lone client
//! waits for.
//!
//! Promises:
//! - `append` reports, and `save_vote` returns, after an fsync that covers it.
//! - All I/O takes effect in the order of the calls; a crash keeps a prefix of it, and everything
//!   that was reported.
//! - A failed write or fsync is final: every waiter gets the error, every later call fails.
//! - A damaged record is refused when opening, never skipped; so are a log of which files are missing,
//!   and one of another node.
//!
//! Limits:
//! - When the end of the last frame, or whole sectors of it, turn into zeroes, that is an interrupted
//!   write to us; a disk that loses fsynced bytes in this way is not noticed.
//! - The committed position is written with the flush after it, so a crash may take it back.
//! - Entries that left the memory cache (32 MiB) are read inside the call, which waits for it.
//!
//! In reading order: [`writer`] (what is shared, and the log's thread), [`index`] (what the log says, in
//! memory), [`records`] (as bytes), [`segment`] (in files), [`newest`] (which is the last one), [`open`]
//! (after a crash).

mod index;
mod newest;
mod open;
mod records;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{LogState, OptionalSend, RaftLogReader};

pub use open::OpenError;
use writer::Shared;
pub use writer::{Flush, OnFlush};

use crate::ids::DiskId;
use crate::raft::types::{Entry, LogId, TypeConfig, Vote};

/// Entries for one message to a follower weigh at most this, unless one alone is larger: the
/// broker takes 1 MB, and other fields need room too.
const MESSAGE_BYTES_MAX: usize = 512 << 10;

/// Where a log is, and whose.
#[derive(Clone, Debug)]
pub struct Site {
    /// The directory of its files; nothing else is in it.
    pub dir: PathBuf,
    /// The file that says which of them is the newest, outside of the directory: who loses that does not lose this.
    pub newest: PathBuf,
    /// The node's: a log that was written with another one is refused.
    pub disk: DiskId,
    /// Whether the node belongs to a cluster: then a log without a vote is not all that there was.
    pub has_cluster: bool,
}

/// The log of this node. Clones are the same log; the last one dropped closes it, which waits for
/// the fsync in flight.
#[derive(Clone)]
pub struct LogStore {
    open: Arc<Open>,
}

/// Closes the log when it is dropped, which never happens on the log's own thread.
struct Open {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl LogStore {
    /// Opens the log at `site`, or begins it. Blocks for reading all of it and for a few fsyncs.
    /// `on_flush` hears of every flush.
    ///
    /// # Errors
    /// See [`OpenError`]; each message says what to do.
    pub fn open(site: &Site, on_flush: OnFlush) -> Result<LogStore, OpenError> {
        LogStore::open_with(site, open::SEGMENT_BYTES, on_flush)
    }

    fn open_with(site: &Site, segment_bytes: u64, on_flush: OnFlush) -> Result<Self, OpenError> {
        let (shared, thread) = open::open(site, segment_bytes, on_flush)?;
        let thread = Some(thread);
        let open = Arc::new(Open { shared, thread });
        Ok(LogStore { open })
    }

    /// The last entry that was purged. A node needs a snapshot that reaches at least this far.
    ///
    /// # Errors
    /// When the log has failed.
    pub fn purged(&self) -> io::Result<Option<LogId>> {
        Ok(self.open.shared.lock()?.index.marks.purged)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = half_open(&range);
        let log = self.open.shared.lock()?;
        log.read(from, to).map(|(entry, _)| entry).collect()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.open.shared.lock()?.index.marks.vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let log = self.open.shared.lock()?;
        let mut sum = 0;
        let fits = |(_, bytes): &(io::Result<Entry>, usize)| {
            let first = sum == 0;
            sum += bytes;
            first || sum <= MESSAGE_BYTES_MAX
        };
        let entries = log.read(start, end).take_while(fits);
        entries.map(|(entry, _)| entry).collect()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let log = self.open.shared.lock()?;
        Ok(LogState {
            last_purged_log_id: log.index.marks.purged,
            last_log_id: log.index.last(),
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, on_disk) = TypeConfig::oneshot();
        {
            let mut log = self.open.shared.lock()?;
            log.save_vote(*vote);
            self.open.shared.flush(log, IOFlushed::signal(done), 0);
        }
        on_disk.await.expect("each flush completes or fails")
    }

    /// Costs no fsync of its own: what is lost here is found again when a leader commits.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut log = self.open.shared.lock()?;
        // Beyond the log lies only what a snapshot covers, which says so itself; and nothing is
        // won by going back.
        match committed {
            Some(id) if committed > log.index.marks.committed && committed <= log.index.last() => {
                log.save_committed(id);
            }
            _ => {}
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.open.shared.lock()?.index.marks.committed)
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.open.shared.room().await;
        let mut log = self.open.shared.lock()?;
        let mut bytes = 0;
        for entry in entries {
            bytes += records::wire_bytes(&entry.payload);
            log.append(entry)?;
        }
        self.open.shared.flush(log, done, bytes);
        Ok(())
    }

    /// Is on disk before whatever is appended after it; a crash before that brings back entries
    /// which nobody has acknowledged.
    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let mut log = self.open.shared.lock()?;
        let index = last.map_or(0, |id| id.index + 1);
        if index < log.index.end_index() {
            log.truncate(index);
        }
        Ok(())
    }

    /// Files that hold only purged entries are deleted once the purge is on disk.
    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let mut log = self.open.shared.lock()?;
        log.purge(upto);
        self.open.shared.flush(log, IOFlushed::noop(), 0);
        Ok(())
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
