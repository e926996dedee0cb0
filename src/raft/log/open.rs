//! Opening the log: settings, recovery, and what is refused.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::{Config, RaftLog};

use super::codec::LogTypes;
use super::flush::{OnFlush, Shared};

/// A file of the log is full at this size. Entries of the newest file stay in memory, each new
/// file costs a directory fsync, and a purge frees whole files only.
const CHUNK_BYTES_MAX: usize = 16 << 20;

/// Entries kept in memory: those that a follower a few seconds behind still needs. It exceeds a
/// chunk, since what is in the newest chunk is in memory in any case.
const CACHE_BYTES_MAX: usize = 32 << 20;
/// Keeps small entries from filling the cache with overhead: at most some 100 bytes for each.
const CACHE_ENTRIES_MAX: usize = 100_000;

/// Buffer for reading one chunk when opening.
const READ_BUFFER_BYTES: usize = 1 << 20;

/// raft-log's thread frees queued bytes only after its callback, in which the next flush starts:
/// a limit could make it wait for itself. The adapter bounds what waits instead.
const QUEUE_BYTES_MAX: usize = usize::MAX >> 1;

/// What to do about a damaged log. Restoring an old copy would take back votes and entries that
/// others rely on.
const DAMAGE_ADVICE: &str = "Do not repair it, and do not restore a copy: a node that forgets \
    votes or entries can undo what the cluster acknowledged. If a majority of the other nodes is \
    intact, remove this node from the cluster, delete its data directory, and add it again under \
    a new node id. Otherwise keep all data directories as they are and ask for help";

/// Why a log was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What the files say cannot be trusted. Nothing was changed.
    #[error("the Raft log is damaged: {file}: {reason}. {DAMAGE_ADVICE}.", file = file.display())]
    Damaged { file: PathBuf, reason: String },
    /// Another process, or another part of this one, has it open.
    #[error("the Raft log in {} is in use", dir.display())]
    InUse { dir: PathBuf },
    #[error("the Raft log in {} cannot be opened: {source}", dir.display())]
    Io { dir: PathBuf, source: io::Error },
}

pub(super) fn open(dir: &Path, on_flush: OnFlush) -> Result<Arc<Shared>, OpenError> {
    open_with(dir, config(dir), on_flush)
}

pub(super) fn open_with(
    dir: &Path,
    config: Config,
    on_flush: OnFlush,
) -> Result<Arc<Shared>, OpenError> {
    let io_error = |source| OpenError::Io {
        dir: dir.to_owned(),
        source,
    };
    create(dir).map_err(io_error)?;
    let chunks = chunks(dir).map_err(io_error)?;
    check_empty(&chunks)?;
    let mut log = RaftLog::open(Arc::new(config)).map_err(|e| explain(dir, e))?;
    report_cut(chunks.last());
    check_beginning(dir, &log)?;
    sync(&mut log).map_err(io_error)?;
    Ok(Shared::new(log, on_flush))
}

fn create(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

pub(super) fn config(dir: &Path) -> Config {
    let mut config = Config::new(dir.display());
    config.wal.chunk_max_size = Some(CHUNK_BYTES_MAX);
    config.wal.read_buffer_size = Some(READ_BUFFER_BYTES);
    config.wal.truncate_incomplete_record = Some(true);
    // One request per fsync, at once: the adapter does the grouping, without a timer.
    config.wal.flush_batch_wait = Some(Duration::ZERO);
    config.wal.flush_queue_max_bytes = Some(QUEUE_BYTES_MAX);
    config.log_cache_capacity = Some(CACHE_BYTES_MAX);
    config.log_cache_max_items = Some(CACHE_ENTRIES_MAX);
    config
}

/// The log's files and their sizes, oldest first: their names sort by offset.
fn chunks(dir: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut chunks = Vec::new();
    for file in fs::read_dir(dir)? {
        let file = file?;
        if file.path().extension().is_some_and(|e| e == "wal") {
            chunks.push((file.path(), file.metadata()?.len()));
        }
    }
    chunks.sort();
    Ok(chunks)
}

/// A file that follows an empty one has lost what it follows. A crash leaves empty files at the
/// end only, and raft-log panics on any other.
fn check_empty(chunks: &[(PathBuf, u64)]) -> Result<(), OpenError> {
    for pair in chunks.windows(2) {
        let [(file, size), (_, next_size)] = pair else {
            unreachable!("windows of two");
        };
        if *size == 0 && *next_size > 0 {
            return Err(OpenError::Damaged {
                file: file.clone(),
                reason: "the file is empty, though the log goes on after it".into(),
            });
        }
    }
    Ok(())
}

/// A write that a crash interrupted is cut: normal after a crash, so no warning.
fn report_cut(newest: Option<&(PathBuf, u64)>) {
    let Some((file, before)) = newest else { return };
    let after = fs::metadata(file).map_or(0, |m| m.len());
    if after < *before {
        let cut = before - after;
        tracing::info!(file = %file.display(), "cut {cut} bytes of an interrupted write");
    }
}

fn explain(dir: &Path, error: io::Error) -> OpenError {
    let dir = dir.to_owned();
    match error.kind() {
        // raft-log reports what it cannot decode, a short file before the newest, a gap, and
        // records that contradict each other by these kinds.
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other => {
            let reason = error.to_string();
            let file = named_chunk(&reason).map_or(dir.clone(), |name| dir.join(name));
            OpenError::Damaged { file, reason }
        }
        io::ErrorKind::WouldBlock => OpenError::InUse { dir },
        _ => OpenError::Io { dir, source: error },
    }
}

/// The file of the chunk that raft-log's message names by its number.
fn named_chunk(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("ChunkId(")?;
    let (number, _) = rest.split_once(')')?;
    Some(format!("r-{number}.wal"))
}

/// Entries follow what was purged without a gap: else the oldest file is missing, which raft-log
/// does not notice. Gaps further on it refuses itself.
fn check_beginning(dir: &Path, log: &RaftLog<LogTypes>) -> Result<(), OpenError> {
    let state = log.log_state();
    let purged = state.purged().map(|id| id.0);
    let Some(last) = state
        .last()
        .map(|id| id.0)
        .filter(|last| Some(*last) > purged)
    else {
        return Ok(());
    };
    let first = purged.map_or(0, |id| id.index + 1);
    match log.read(first, first + 1).next() {
        Some(_) => Ok(()),
        None => Err(OpenError::Damaged {
            file: dir.to_owned(),
            reason: format!(
                "entry {first} is missing, though the log goes on to {}",
                last.index
            ),
        }),
    }
}

/// Fsyncs what was found: a killed process leaves records that were written but not fsynced, and
/// from here on every record that was found counts as kept.
fn sync(log: &mut RaftLog<LogTypes>) -> io::Result<()> {
    log.flush(true, None)?;
    log.wait_worker_idle()
}
