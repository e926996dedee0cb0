//! Group commit: one flush at a time, and all that queued meanwhile in the next.
//!
//! Calls change the [`Index`] and add records to the frame that is collecting; the log's own thread
//! takes the frame, writes it, fsyncs, and completes in order whatever it covered. Nothing waits on
//! a timer.
//!
//! A failed write or fsync is final: what the disk holds is unknown from then on, so everything
//! waiting gets the error and every later call fails. The node stops, and recovers by opening.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use openraft::storage::IOFlushed;
use tokio::sync::Notify;

use super::index::{Index, Location, Marks, Read};
use super::newest::Newest;
use super::records::{self, Payload, Place};
use super::segment::{self, Blank, HEAD_BYTES, HEADER_BYTES, Owner, Segment};
use crate::raft::types::{Entry, LogId, TypeConfig, Vote};

/// Payload bytes that may wait for the flush after the one in flight; `append` waits above it. It
/// is far more than a leader batches while one fsync runs.
pub(super) const WAITING_BYTES_MAX: usize = 64 << 20;

/// A buffer that grew beyond this is not kept for later frames.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// One flush as metrics see it.
#[derive(Clone, Copy, Debug)]
pub struct Flush {
    /// From taking the records until they are on disk: write and fsync.
    pub duration: Duration,
    /// How many appends and votes it completed.
    pub completed: usize,
}

/// Called after each successful flush on the log's thread, which it holds up: it must be quick.
pub type OnFlush = Arc<dyn Fn(Flush) + Send + Sync>;

/// The log and what waits for its disk.
pub(super) struct Shared {
    held: Mutex<Log>,
    /// Wakes the log's thread.
    work: Condvar,
    /// Wakes appends that wait for [`WAITING_BYTES_MAX`].
    flush_started: Notify,
}

/// What calls change, under the lock.
pub(super) struct Log {
    pub index: Index,
    /// The files that have entries, oldest first, each with the highest index that was in it.
    files: VecDeque<(Segment, u64)>,
    frame: Collecting,
    /// The log's thread waits for work.
    idle: bool,
    closing: bool,
    /// Why nothing is accepted any more.
    failure: Option<Failure>,
}

/// The frame that the next flush writes.
struct Collecting {
    /// Counts flushes since the log was opened.
    number: u64,
    /// Room for the head, then the body.
    bytes: Vec<u8>,
    entries: Vec<(u64, Place)>,
    waiting: Vec<IOFlushed<TypeConfig>>,
    waiting_bytes: usize,
    /// Something waits for it to be on disk.
    wanted: bool,
    /// As they are before this frame.
    marks: Marks,
}

impl Collecting {
    fn new(number: u64, marks: Marks, bytes: Vec<u8>) -> Self {
        let mut bytes = bytes;
        bytes.clear();
        bytes.resize(HEAD_BYTES, 0);
        Collecting {
            number,
            bytes,
            entries: Vec::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            wanted: false,
            marks,
        }
    }

    fn is_empty(&self) -> bool {
        self.bytes.len() == HEAD_BYTES
    }

    /// How many bytes it takes at `offset` of a file.
    fn bytes_at(&self, offset: u64) -> u64 {
        segment::frame_bytes(offset, self.bytes.len() - HEAD_BYTES) as u64
    }

    /// Puts what the log says beside its entries at the beginning: a file's first frame does not
    /// rely on older files, which may be deleted.
    fn put_marks(&mut self) {
        let mut marks = Vec::new();
        self.marks.put(&mut marks);
        for (_, place) in &mut self.entries {
            place.offset += marks.len() as u64;
        }
        self.bytes.splice(HEAD_BYTES..HEAD_BYTES, marks);
    }
}

#[derive(Clone)]
struct Failure {
    kind: io::ErrorKind,
    reason: String,
}

impl Failure {
    fn new(error: &io::Error) -> Self {
        Failure {
            kind: error.kind(),
            reason: error.to_string(),
        }
    }

    fn to_error(&self) -> io::Error {
        let Failure { kind, reason } = self;
        io::Error::new(*kind, format!("the log has failed and is closed: {reason}"))
    }
}

/// What the log's thread writes with.
pub(super) struct Writer {
    pub dir: PathBuf,
    pub owner: Owner,
    pub newest: Newest,
    /// New files are this large, or as large as one frame needs.
    pub segment_bytes: u64,
    pub current: Segment,
    /// Where the next frame begins in it.
    pub offset: u64,
    /// The next frame's number.
    pub number: u64,
    /// The file after it, being made once this one is half full.
    pub spare: Option<JoinHandle<io::Result<Blank>>>,
    pub on_flush: OnFlush,
}

impl Shared {
    /// A log with what opening found, and the thread that writes it.
    pub fn start(
        index: Index,
        files: VecDeque<(Segment, u64)>,
        writer: Writer,
    ) -> io::Result<(Arc<Self>, JoinHandle<()>)> {
        let marks = index.marks;
        let shared = Arc::new(Shared {
            held: Mutex::new(Log {
                index,
                files,
                frame: Collecting::new(1, marks, Vec::new()),
                idle: false,
                closing: false,
                failure: None,
            }),
            work: Condvar::new(),
            flush_started: Notify::new(),
        });
        let thread = thread::Builder::new().name("raft log".to_owned()).spawn({
            let shared = shared.clone();
            move || {
                // In a node a panic ends the process; whoever else uses the log hears of it.
                let written = catch_unwind(AssertUnwindSafe(|| shared.write(writer)));
                let ended = match written {
                    Ok(()) => io::Error::other("closed"),
                    Err(_) => io::Error::other("the log's thread panicked"),
                };
                shared.fail(&ended, Vec::new());
            }
        })?;
        Ok((shared, thread))
    }

    /// The log, unless it is closed or has failed.
    pub fn lock(&self) -> io::Result<MutexGuard<'_, Log>> {
        let log = self.held();
        match &log.failure {
            Some(failure) => Err(failure.to_error()),
            None => Ok(log),
        }
    }

    fn held(&self) -> MutexGuard<'_, Log> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until fewer than [`WAITING_BYTES_MAX`] wait for the next flush.
    pub async fn room(&self) {
        loop {
            let flush_started = self.flush_started.notified();
            if self.held().frame.waiting_bytes < WAITING_BYTES_MAX {
                return;
            }
            flush_started.await;
        }
    }

    /// Flushes what was written, together with all that queues while a flush runs. `done` is
    /// completed when it is on disk; it weighs `bytes`.
    pub fn flush(&self, mut log: MutexGuard<'_, Log>, done: IOFlushed<TypeConfig>, bytes: usize) {
        log.frame.wanted = true;
        log.frame.waiting.push(done);
        log.frame.waiting_bytes += bytes;
        let is_idle = mem::take(&mut log.idle);
        // The thread that wakes wants the lock at once.
        drop(log);
        if is_idle {
            self.work.notify_one();
        }
    }

    /// Has the log's thread write and fsync what is left, and end; what comes later is refused.
    pub fn close(&self) {
        self.held().closing = true;
        self.work.notify_one();
    }

    /// Refuses everything from now on and tells what waits. The first reason stays.
    fn fail(&self, error: &io::Error, covered: Vec<IOFlushed<TypeConfig>>) {
        let mut log = self.held();
        let failure = log
            .failure
            .get_or_insert_with(|| Failure::new(error))
            .clone();
        log.frame.waiting_bytes = 0;
        let waiting = mem::take(&mut log.frame.waiting);
        drop(log);
        self.flush_started.notify_waiters();
        // The failure is set first, so that nothing is accepted after the first error is seen.
        for waiter in covered.into_iter().chain(waiting) {
            waiter.io_completed(Err(failure.to_error()));
        }
    }

    /// The log's thread.
    fn write(&self, mut writer: Writer) {
        let mut bytes = Vec::new();
        while let Some(mut frame) = self.next_frame(mem::take(&mut bytes)) {
            let started = Instant::now();
            let covered = mem::take(&mut frame.waiting);
            if let Err(error) = self.write_frame(&mut writer, &mut frame) {
                tracing::error!(%error, "the log could not be written or fsynced; this node stops");
                return self.fail(&error, covered);
            }
            let flush = Flush {
                duration: started.elapsed(),
                completed: covered.len(),
            };
            for waiter in covered {
                waiter.io_completed(Ok(()));
            }
            if let Err(error) = self.delete_purged(&writer) {
                tracing::error!(%error, "a purged file of the log could not be deleted; this node stops");
                return self.fail(&error, Vec::new());
            }
            (writer.on_flush)(flush);
            if frame.bytes.capacity() <= BUFFER_BYTES_MAX {
                bytes = frame.bytes;
            }
        }
        if let Some(spare) = writer.spare {
            let _ = spare.join();
        }
    }

    /// Waits for records that somebody wants on disk; when closing, for none. `bytes` is a buffer
    /// for the frame that collects next.
    fn next_frame(&self, bytes: Vec<u8>) -> Option<Collecting> {
        let mut log = self.held();
        loop {
            let wanted = log.frame.wanted || (log.closing && !log.frame.is_empty());
            if wanted {
                break;
            }
            if log.closing {
                return None;
            }
            log.idle = true;
            log = self.work.wait(log).unwrap_or_else(PoisonError::into_inner);
        }
        log.idle = false;
        let next = Collecting::new(log.frame.number + 1, log.index.marks, bytes);
        let frame = mem::replace(&mut log.frame, next);
        drop(log);
        self.flush_started.notify_waiters();
        Some(frame)
    }

    fn write_frame(&self, writer: &mut Writer, frame: &mut Collecting) -> io::Result<()> {
        let begins_file = writer.offset == HEADER_BYTES;
        if begins_file {
            frame.put_marks();
        }
        if writer.offset + frame.bytes_at(writer.offset) > writer.current.size {
            if !begins_file {
                frame.put_marks();
            }
            self.next_file(writer, frame.bytes_at(HEADER_BYTES))?;
        }
        let offset = writer.offset;
        segment::seal(&mut frame.bytes, writer.number, offset);
        writer.current.file.write_all_at(&frame.bytes, offset)?;
        writer.current.file.sync_data()?;
        writer.offset += frame.bytes.len() as u64;
        writer.number += 1;
        if writer.spare.is_none() && writer.offset > writer.current.size / 2 {
            writer.make_spare();
        }
        let in_file = |&(index, place): &(u64, Place)| {
            let offset = offset + place.offset;
            (index, Place { offset, ..place })
        };
        let mut log = self.held();
        let first = writer.current.first;
        let entries = frame.entries.iter().map(in_file);
        log.index.written(frame.number, first, entries);
        let highest = frame.entries.iter().map(|(index, _)| *index).max();
        let (_, in_current) = log.files.back_mut().expect("the current file is the last");
        *in_current = (*in_current).max(highest.unwrap_or(0));
        Ok(())
    }

    /// Goes on in a new file that has room for a frame of `bytes`.
    fn next_file(&self, writer: &mut Writer, bytes: u64) -> io::Result<()> {
        let size = writer.segment_bytes.max(HEADER_BYTES + bytes);
        // One that could not be made, as on a disk that was full then, is tried again.
        let spare = writer.spare.take();
        let spare = spare.and_then(|making| making.join().ok()?.ok());
        let blank = match spare.filter(|blank| blank.size() >= size) {
            Some(blank) => blank,
            None => Blank::create(&writer.dir, size)?,
        };
        // In this order, and both before the first frame is written: see `newest`.
        let segment = blank.adopt(&writer.dir, writer.number, writer.owner)?;
        writer.newest.note(segment.first)?;
        let mut log = self.held();
        if writer.current.first == segment.first {
            // It had no frame yet, and the new file has its name.
            log.files.pop_back();
        }
        log.files.push_back((segment.clone(), 0));
        drop(log);
        writer.current = segment;
        writer.offset = HEADER_BYTES;
        Ok(())
    }

    /// Deletes the oldest files as long as everything in them is purged.
    fn delete_purged(&self, writer: &Writer) -> io::Result<()> {
        let mut gone = Vec::new();
        {
            let mut log = self.held();
            // What the frame before this one said, and so is on disk.
            let purged = log.frame.marks.purged.map_or(0, |id| id.index + 1);
            while log.files.len() > 1 && log.files.front().is_some_and(|(_, last)| *last < purged) {
                gone.extend(log.files.pop_front());
            }
        }
        for (segment, _) in &gone {
            fs::remove_file(&segment.path)?;
        }
        if !gone.is_empty() {
            File::open(&writer.dir)?.sync_all()?;
        }
        Ok(())
    }
}

impl Writer {
    /// Begins to write the zeroes of the next file, so that it is there when it is needed.
    fn make_spare(&mut self) {
        let (dir, size) = (self.dir.clone(), self.segment_bytes);
        let made = thread::Builder::new()
            .name("raft log file".to_owned())
            .spawn(move || {
                Blank::create(&dir, size).inspect_err(|error| {
                    let dir = dir.display();
                    tracing::warn!(%error, %dir, "cannot make the next file of the log ahead");
                })
            });
        // Without a thread the file is made when it is needed.
        self.spare = made.ok();
    }
}

impl Log {
    pub fn save_vote(&mut self, vote: Vote) {
        records::put_vote(&mut self.frame.bytes, &vote);
        self.index.marks.vote = Some(vote);
    }

    pub fn save_committed(&mut self, committed: LogId) {
        records::put_committed(&mut self.frame.bytes, committed);
        self.index.marks.committed = Some(committed);
    }

    /// # Errors
    /// When it does not follow the last entry.
    pub fn append(&mut self, entry: Entry) -> io::Result<()> {
        let Entry { log_id, payload } = entry;
        let place = records::put_entry(&mut self.frame.bytes, log_id, &payload);
        self.frame.entries.push((log_id.index, place));
        let location = Location::Flush(self.frame.number);
        self.index.append((log_id, payload), location)
    }

    pub fn truncate(&mut self, first: u64) {
        records::put_truncated(&mut self.frame.bytes, first);
        self.frame.entries.retain(|(index, _)| *index < first);
        self.index.truncate(first);
    }

    pub fn purge(&mut self, upto: LogId) {
        records::put_purged(&mut self.frame.bytes, upto);
        self.index.purge(upto);
    }

    /// The entries from `from` up to but without `to` that are there, and each one's size in a message.
    pub fn read(&self, from: u64, to: u64) -> impl Iterator<Item = (io::Result<Entry>, usize)> {
        self.index.read(from, to).map(|(read, bytes)| {
            let entry = match read {
                Read::Cached(log_id, payload) => Ok(Entry {
                    log_id,
                    payload: Payload::clone(payload),
                }),
                Read::From(first, place) => self.read_from(first, place),
            };
            (entry, bytes)
        })
    }

    fn read_from(&self, first: u64, place: Place) -> io::Result<Entry> {
        let file = self
            .files
            .iter()
            .find(|(segment, _)| segment.first == first);
        let (segment, _) = file.expect("a file stays as long as an entry in it");
        let mut bytes = vec![0; place.bytes as usize];
        segment.file.read_exact_at(&mut bytes, place.offset)?;
        records::read_entry(&bytes)
    }
}
