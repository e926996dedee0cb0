//! Group commit: one flush at a time, and all that queued meanwhile in the next.
//!
//! raft-log's own thread writes and fsyncs what a flush hands it, then calls [`FlushDone`] on that
//! thread, which completes everything the flush covered, in order, and starts the next flush if
//! anything waits. Nothing waits on a timer.
//!
//! A failed write or fsync is final: what the disk holds is unknown from then on, so everything
//! waiting gets the error and every later call fails. The node stops, and recovers by opening.

use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use openraft::storage::IOFlushed;
use raft_log::RaftLog;
use raft_log::api::raft_log_writer::RaftLogWriter;
use tokio::sync::Notify;

use super::codec::LogTypes;
use crate::raft::types::TypeConfig;

/// Payload bytes that may wait for the flush after the one in flight; `append` waits above it.
///
/// It is far more than a leader batches while one fsync runs. It also keeps the queue of
/// raft-log's thread (1024 requests, three for each chunk filled) from ever being full, which
/// matters because that thread itself starts flushes and would wait for itself.
pub(super) const WAITING_BYTES_MAX: usize = 64 << 20;

/// One flush as metrics see it.
#[derive(Clone, Copy, Debug)]
pub struct Flush {
    /// From handing the records over until they are on disk: a thread's wake-up, write, fsync.
    pub duration: Duration,
    /// How many appends and votes it completed.
    pub completed: usize,
}

/// Called after each successful flush on the log's thread, which it holds up: it must be quick.
pub type OnFlush = Arc<dyn Fn(Flush) + Send + Sync>;

/// The log and what waits for its disk. Locks are taken in the order of the fields.
pub(super) struct Shared {
    /// `None` once closed.
    log: Mutex<Option<RaftLog<LogTypes>>>,
    /// Never held while raft-log is called, since raft-log may drop a [`FlushDone`] in there.
    queue: Mutex<Queue>,
    flush_started: Notify,
    on_flush: OnFlush,
}

#[derive(Default)]
struct Queue {
    in_flight: bool,
    /// Records were written that no flush covers yet.
    wanted: bool,
    waiting: Vec<IOFlushed<TypeConfig>>,
    waiting_bytes: usize,
    /// Why nothing is accepted any more.
    failure: Option<Failure>,
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

/// The log while it is held; see [`Shared::lock`].
pub(super) struct Held<'a> {
    shared: &'a Arc<Shared>,
    log: MutexGuard<'a, Option<RaftLog<LogTypes>>>,
}

impl Shared {
    pub fn new(log: RaftLog<LogTypes>, on_flush: OnFlush) -> Arc<Self> {
        Arc::new(Shared {
            log: Mutex::new(Some(log)),
            queue: Mutex::default(),
            flush_started: Notify::new(),
            on_flush,
        })
    }

    /// The log, unless it is closed or has failed.
    pub fn lock<'a>(self: &'a Arc<Self>) -> io::Result<Held<'a>> {
        let log = self.log.lock().expect("nothing panics holding the log");
        if let Some(failure) = &self.queue().failure {
            return Err(failure.to_error());
        }
        assert!(
            log.is_some(),
            "a log that is not failed has not been closed"
        );
        Ok(Held { shared: self, log })
    }

    /// Waits until fewer than [`WAITING_BYTES_MAX`] wait for the next flush.
    pub async fn room(&self) {
        loop {
            let flush_started = self.flush_started.notified();
            if self.queue().waiting_bytes < WAITING_BYTES_MAX {
                return;
            }
            flush_started.await;
        }
    }

    /// Writes and fsyncs what is left, ends the log's thread, and refuses all that comes later.
    ///
    /// It waits for the log's thread, so that thread must not call it.
    pub fn close(&self) {
        let log = self
            .log
            .lock()
            .expect("nothing panics holding the log")
            .take();
        drop(log);
        self.fail(&io::Error::other("closed"));
    }

    /// Refuses everything from now on and tells what waits. The first reason stays.
    fn fail(&self, error: &io::Error) {
        let mut queue = self.queue();
        let failure = queue
            .failure
            .get_or_insert_with(|| Failure::new(error))
            .clone();
        queue.waiting_bytes = 0;
        let waiting = mem::take(&mut queue.waiting);
        drop(queue);
        self.flush_started.notify_waiters();
        for waiter in waiting {
            waiter.io_completed(Err(failure.to_error()));
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing panics holding the queue")
    }

    /// On the log's thread, after a flush succeeded.
    fn flush_waiting(self: &Arc<Self>) {
        let mut log = self.log.lock().expect("nothing panics holding the log");
        let Some(log) = log.as_mut() else { return };
        let mut queue = self.queue();
        queue.in_flight = false;
        let next = self.next_flush(&mut queue);
        drop(queue);
        // An error has reached all waiters by the drop of what was handed over.
        let _ = start(log, next);
    }

    /// What to hand to the log's thread now, if anything and if it is free.
    fn next_flush(self: &Arc<Self>, queue: &mut Queue) -> Option<FlushDone> {
        if queue.in_flight || !queue.wanted || queue.failure.is_some() {
            return None;
        }
        queue.in_flight = true;
        queue.wanted = false;
        queue.waiting_bytes = 0;
        self.flush_started.notify_waiters();
        Some(FlushDone {
            shared: self.clone(),
            covered: mem::take(&mut queue.waiting),
            started_at: Instant::now(),
            finished: false,
        })
    }
}

fn start(log: &mut RaftLog<LogTypes>, next: Option<FlushDone>) -> io::Result<()> {
    match next {
        Some(done) => log.flush(true, Some(done)),
        None => Ok(()),
    }
}

impl Held<'_> {
    pub fn log(&self) -> &RaftLog<LogTypes> {
        self.log.as_ref().expect("checked when it was locked")
    }

    /// Writes with `write`. An error is final: openraft stops, and so does the log.
    pub fn write<T>(
        &mut self,
        write: impl FnOnce(&mut RaftLog<LogTypes>) -> io::Result<T>,
    ) -> io::Result<T> {
        let log = self.log.as_mut().expect("checked when it was locked");
        write(log).inspect_err(|error| self.shared.fail(error))
    }

    /// Flushes what was written: now, or together with all that queues while a flush runs.
    /// `done` is completed when it is on disk; it weighs `bytes`.
    pub fn flush(mut self, done: IOFlushed<TypeConfig>, bytes: usize) -> io::Result<()> {
        let mut queue = self.shared.queue();
        queue.wanted = true;
        queue.waiting.push(done);
        queue.waiting_bytes += bytes;
        let next = self.shared.next_flush(&mut queue);
        drop(queue);
        self.write(|log| start(log, next))
    }
}

/// What raft-log calls when a flush has ended, or drops when its thread has.
pub(super) struct FlushDone {
    shared: Arc<Shared>,
    covered: Vec<IOFlushed<TypeConfig>>,
    started_at: Instant,
    finished: bool,
}

impl FlushDone {
    fn fail(&mut self, error: &io::Error) {
        self.finished = true;
        // The failure is set first, so that nothing is accepted after the first error is seen.
        self.shared.fail(error);
        for waiter in self.covered.drain(..) {
            waiter.io_completed(Err(Failure::new(error).to_error()));
        }
    }
}

impl raft_log::Callback for FlushDone {
    fn send(mut self, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::error!(%error, "the log could not be written or fsynced; this node stops");
            return self.fail(&error);
        }
        self.finished = true;
        let flush = Flush {
            duration: self.started_at.elapsed(),
            completed: self.covered.len(),
        };
        for waiter in self.covered.drain(..) {
            waiter.io_completed(Ok(()));
        }
        self.shared.flush_waiting();
        (self.shared.on_flush)(flush);
    }
}

impl Drop for FlushDone {
    fn drop(&mut self) {
        if !self.finished {
            self.fail(&io::Error::other("the log's thread has ended"));
        }
    }
}
