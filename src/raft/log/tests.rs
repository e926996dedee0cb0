//! What the log promises, with what the tests of it share.

mod conformance;
mod damage;
mod failure;
mod format;
mod missing;
mod order;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use openraft::EntryPayload;
use openraft::type_config::alias::CommittedLeaderIdOf;

use super::*;
use crate::ids::{BootId, DiskId, NodeId};
use crate::raft::command::{Batch, Command, Proposed, Stamp};

fn quiet() -> OnFlush {
    Arc::new(|_| {})
}

/// The log of a node of no cluster, with its note inside, so that a copy has it, too.
fn site(dir: &Path) -> Site {
    Site {
        dir: dir.to_owned(),
        newest: dir.join("log.newest"),
        disk: DiskId(5),
        has_cluster: false,
    }
}

fn open(dir: &Path) -> LogStore {
    LogStore::open(&site(dir), quiet()).unwrap()
}

/// Opens with files of 2 KiB, unless one flush is larger: some twenty entries that come one by one.
fn open_small(dir: &Path) -> LogStore {
    LogStore::open_with(&site(dir), 2048, quiet()).unwrap()
}

fn refusal(dir: &Path) -> OpenError {
    open::recover(&site(dir)).map(|_| ()).unwrap_err()
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId {
        leader_id: CommittedLeaderIdOf::<TypeConfig>::new(term),
        index,
    }
}

/// An entry that carries its own index as the number of its batch.
fn entry(term: u64, index: u64) -> Entry {
    entry_of(term, index, 1)
}

fn entry_of(term: u64, index: u64, commands: usize) -> Entry {
    let stamp = Stamp {
        now_ms: 1_000 + index,
        proposer: NodeId(1),
        boot: BootId(9),
        number: index,
    };
    let command = Command::TermStarted {
        grace_ms: index,
        keeps_over: false,
    };
    let proposed = Proposed {
        origin: None,
        command,
    };
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(Batch::new(stamp, vec![proposed; commands])),
    }
}

/// Appends and waits until it is on disk.
async fn append(store: &mut LogStore, entries: Vec<Entry>) -> io::Result<()> {
    let (done, on_disk) = TypeConfig::oneshot();
    store.append(entries, IOFlushed::signal(done)).await?;
    on_disk.await.expect("each append is completed")
}

/// Appends each entry with a flush of its own.
async fn append_each(store: &mut LogStore, entries: impl Iterator<Item = Entry>) {
    for entry in entries {
        append(store, vec![entry]).await.unwrap();
    }
}

/// Everything a log says, comparable.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// Id and number of each batch.
    entries: Vec<(LogId, u64)>,
}

async fn contents(store: &mut LogStore) -> Contents {
    let state = store.get_log_state().await.unwrap();
    let entries = store.try_get_log_entries(..).await.unwrap();
    let number = |entry: Entry| match entry.payload {
        EntryPayload::Normal(batch) => (entry.log_id, batch.number),
        other => panic!("these tests append batches, not {other:?}"),
    };
    Contents {
        vote: store.read_vote().await.unwrap(),
        committed: store.read_committed().await.unwrap(),
        purged: state.last_purged_log_id,
        last: state.last_log_id,
        entries: entries.into_iter().map(number).collect(),
    }
}

/// What a kill at this moment would leave: a copy of the files, taken without closing.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|f| f.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|f| f.extension().is_some_and(|e| e == "wal"))
        .collect();
    files.sort();
    files
}
