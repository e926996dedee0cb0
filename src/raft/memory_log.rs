//! The disk of a simulated node: a log in memory with a crash that loses what was not flushed, and
//! snapshots, each durable as soon as it is saved.
//!
//! A [`MemoryDisk`] outlives the node that uses it. Each change is visible at once, durable after the
//! flush time, and always in order: what survives a crash is a prefix of what was done. Bounds are
//! the simulation's; nothing here is meant for production.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};

use super::command::Batch;
use super::snapshot::{Snapshots, decode_state};
use super::state::State as Replicated;
use super::types::{Entry, LogId, SnapshotMeta, TypeConfig, Vote};

/// A read for replication ends before this many bytes of commands, so that one request fits into a
/// frame; it always has at least one entry.
const READ_BYTES_MAX: usize = 512 * 1024;

/// The disk of one simulated node; clones share it.
#[derive(Clone)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Counts crashes: a log that was opened before the last one is dead.
    generation: u64,
    /// From a change to its being durable.
    flush: Duration,
    live: Contents,
    durable: Contents,
    /// Changes that are not durable yet, oldest first, each with who waits for it.
    unflushed: VecDeque<(Change, Option<IOFlushed<TypeConfig>>)>,
    /// Changes made durable since the disk exists.
    flushed: u64,
    snapshot: Option<(SnapshotMeta, Bytes)>,
}

#[derive(Clone, Default)]
struct Contents {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

enum Change {
    Vote(Vote),
    Committed(Option<LogId>),
    Append(Vec<Entry>),
    TruncateAfter(Option<LogId>),
    Purge(LogId),
}

impl Contents {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Vote(vote) => self.vote = Some(*vote),
            Change::Committed(committed) => self.committed = *committed,
            Change::Append(entries) => {
                let numbered = entries
                    .iter()
                    .map(|entry| (entry.log_id.index, entry.clone()));
                self.entries.extend(numbered);
            }
            Change::TruncateAfter(last) => {
                let keep = last.map_or(0, |log_id| log_id.index + 1);
                self.entries.split_off(&keep);
            }
            Change::Purge(log_id) => {
                self.entries = self.entries.split_off(&(log_id.index + 1));
                self.purged = self.purged.max(Some(*log_id));
            }
        }
    }
}

impl MemoryDisk {
    /// An empty disk; `flush` is the (virtual) time from a change to its being durable.
    pub fn new(flush: Duration) -> Self {
        let disk = MemoryDisk {
            state: Arc::default(),
        };
        disk.set_flush(flush);
        disk
    }

    /// From now on a change takes so long until it is durable.
    pub fn set_flush(&self, flush: Duration) {
        self.state().flush = flush;
    }

    /// The log on this disk, for one run of a node.
    pub fn open(&self) -> MemoryLog {
        MemoryLog {
            disk: self.clone(),
            generation: self.state().generation,
        }
    }

    /// The node dies: of the changes that are not durable yet only the `kept` oldest survive, and logs
    /// that were opened before answer with errors.
    pub fn crash(&self, kept: usize) {
        let mut state = self.state();
        state.generation += 1;
        let unflushed = std::mem::take(&mut state.unflushed);
        for (change, _) in unflushed.into_iter().take(kept) {
            state.durable.apply(&change);
            state.flushed += 1;
        }
        state.live = state.durable.clone();
    }

    /// The entries in the log from `first` to `last`, each with its index and term, and the batch
    /// if it carries one: for simulations to check what was applied.
    pub fn read(&self, first: u64, last: u64) -> Vec<(u64, u64, Option<Batch>)> {
        let state = self.state();
        let entries = state.live.entries.range(first..=last);
        let batch = |entry: &Entry| match &entry.payload {
            EntryPayload::Normal(batch) => Some(batch.clone()),
            _ => None,
        };
        entries
            .map(|(index, entry)| (*index, entry.log_id.leader_id.term, batch(entry)))
            .collect()
    }

    fn keep(&self, meta: &SnapshotMeta, data: Bytes) {
        let mut state = self.state();
        let newest = state.snapshot.as_ref().map(|(meta, _)| meta.last_log_id);
        if newest <= Some(meta.last_log_id) {
            state.snapshot = Some((meta.clone(), data));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl Snapshots for MemoryDisk {
    fn save(&self, meta: &SnapshotMeta, state: Replicated) -> BoxFuture<'static, io::Result<()>> {
        self.keep(meta, state.encode().into());
        async { Ok(()) }.boxed()
    }

    fn receive(
        &self,
        meta: &SnapshotMeta,
        data: Bytes,
    ) -> BoxFuture<'static, io::Result<Replicated>> {
        let state = decode_state(&data);
        if state.is_ok() {
            self.keep(meta, data);
        }
        async { state }.boxed()
    }

    fn load(&self) -> BoxFuture<'static, io::Result<Option<(SnapshotMeta, Bytes)>>> {
        let snapshot = self.state().snapshot.clone();
        async { Ok(snapshot) }.boxed()
    }
}

/// The log as one run of a node sees it.
#[derive(Clone)]
pub struct MemoryLog {
    disk: MemoryDisk,
    generation: u64,
}

impl MemoryLog {
    fn state(&self) -> Result<MutexGuard<'_, State>, io::Error> {
        let state = self.disk.state();
        if state.generation == self.generation {
            Ok(state)
        } else {
            Err(io::Error::other("this run of the node is over"))
        }
    }

    /// Makes a change; it is durable one flush later. Answers the number of the change.
    fn change(
        &self,
        change: Change,
        done: Option<IOFlushed<TypeConfig>>,
    ) -> Result<u64, io::Error> {
        let mut state = self.state()?;
        state.live.apply(&change);
        state.unflushed.push_back((change, done));
        Ok(state.flushed + state.unflushed.len() as u64)
    }

    async fn flush_up_to(self, number: u64) {
        let flush = self.disk.state().flush;
        tokio::time::sleep(flush).await;
        let mut completed = Vec::new();
        // A crash meanwhile took the changes with it; nobody waits for them any more.
        if let Ok(mut state) = self.state() {
            while state.flushed < number {
                let Some((change, done)) = state.unflushed.pop_front() else {
                    break;
                };
                state.durable.apply(&change);
                state.flushed += 1;
                completed.extend(done);
            }
        }
        for done in completed {
            done.io_completed(Ok(()));
        }
    }
}

impl RaftLogReader<TypeConfig> for MemoryLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let bounds: (Bound<u64>, Bound<u64>) =
            (range.start_bound().cloned(), range.end_bound().cloned());
        let state = self.state()?;
        Ok(state
            .live
            .entries
            .range(bounds)
            .map(|(_, entry)| entry.clone())
            .collect())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let mut bytes = 0;
        let state = self.state()?;
        let entries = state.live.entries.range(start..end).map(|(_, entry)| entry);
        Ok(entries
            .take_while(|entry| {
                let first = bytes == 0;
                bytes += 1 + match &entry.payload {
                    EntryPayload::Normal(batch) => batch.encoded.len(),
                    _ => 0,
                };
                first || bytes <= READ_BYTES_MAX
            })
            .cloned()
            .collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.state()?.live.vote)
    }
}

impl RaftLogStorage<TypeConfig> for MemoryLog {
    type LogReader = MemoryLog;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.state()?;
        let last = state
            .live
            .entries
            .values()
            .next_back()
            .map(|entry| entry.log_id());
        Ok(LogState {
            last_purged_log_id: state.live.purged,
            last_log_id: last.or(state.live.purged),
        })
    }

    async fn get_log_reader(&mut self) -> MemoryLog {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let number = self.change(Change::Vote(*vote), None)?;
        self.clone().flush_up_to(number).await;
        self.state().map(|_| ())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.change(Change::Committed(committed), None).map(|_| ())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.state()?.live.committed)
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().collect();
        let number = self.change(Change::Append(entries), Some(done))?;
        tokio::spawn(self.clone().flush_up_to(number));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let number = self.change(Change::TruncateAfter(last), None)?;
        tokio::spawn(self.clone().flush_up_to(number));
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let number = self.change(Change::Purge(log_id), None)?;
        tokio::spawn(self.clone().flush_up_to(number));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    #[tokio::test(start_paused = true)]
    async fn a_crash_loses_what_was_not_flushed_and_ends_the_run() {
        let disk = MemoryDisk::new(Duration::from_millis(10));
        let mut log = disk.open();
        let (first, second) = (Vote::new(1, NodeId(1)), Vote::new(2, NodeId(1)));
        log.save_vote(&first).await.unwrap();
        let saving = tokio::spawn({
            let mut log = log.clone();
            async move { log.save_vote(&second).await }
        });
        // It is written, but not durable.
        while log.read_vote().await.unwrap() != Some(second) {
            tokio::task::yield_now().await;
        }

        disk.crash(0);
        assert!(saving.await.unwrap().is_err(), "the flush never happened");
        assert!(log.read_vote().await.is_err());
        assert_eq!(disk.open().read_vote().await.unwrap(), Some(first));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_crash_keeps_is_a_prefix() {
        let disk = MemoryDisk::new(Duration::from_secs(1));
        let log = disk.open();
        for term in 1..=3 {
            log.change(Change::Vote(Vote::new(term, NodeId(1))), None)
                .unwrap();
        }
        disk.crash(2);
        let kept = disk.open().read_vote().await.unwrap();
        assert_eq!(kept, Some(Vote::new(2, NodeId(1))));
    }
}
