//! Request and reply over one inbox: many requests at once, each waiting for its own answer.
//!
//! All answers arrive on one wildcard subscription; the last token of a reply subject says which
//! slot of a table waits for it. A request costs two short strings and no channel. An answer that
//! comes after its request gave up finds the slot's generation gone and is dropped.
//!
//! Limits: [`PENDING_MAX`] requests at a time, more are refused at once. A request that is on its
//! way when the connection breaks fails within [`WATCH_INTERVAL`] instead of at its timeout.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{StatusCode, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::JoinHandle;

/// A message, as the broker's client library has it.
pub use async_nats::Message;

/// Requests in flight at a time. Below the capacity of the inbox's channel (65536), so that
/// answers are never dropped for want of room while each request has one answer.
pub const PENDING_MAX: usize = 32_768;

/// How often the connection is looked at for the sake of requests in flight.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Nothing was sent.
    #[error("not connected to the broker")]
    Disconnected,
    /// The connection broke while the answer was awaited: the request may have taken effect.
    #[error("the connection to the broker broke before the answer came")]
    ConnectionLost,
    /// The broker knows of nobody who listens.
    #[error("nobody listens on the subject")]
    NoResponders,
    /// The request may have taken effect or may yet.
    #[error("no answer in time")]
    TimedOut,
    /// Nothing was sent: [`PENDING_MAX`] is reached.
    #[error("too many requests are in flight")]
    TooMany,
    /// Nothing was sent: the subject or the payload's size.
    #[error("the request cannot be sent: {0}")]
    Unsendable(String),
}

impl RequestError {
    /// Whether it is certain that no node got the request.
    pub fn not_sent(&self) -> bool {
        !matches!(self, RequestError::ConnectionLost | RequestError::TimedOut)
    }
}

/// Sends requests and hands each its answer. Clones share the connection, the inbox and the limit.
#[derive(Clone, Debug)]
pub struct Requester {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    nats: async_nats::Client,
    statistics: Arc<async_nats::client::Statistics>,
    /// Ends with a dot; a slot's key follows.
    inbox: String,
    pending: Arc<Mutex<Slots>>,
    /// The one that hands out answers, and the one that watches the connection.
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Requester {
    /// Subscribes to an inbox of its own. Runs two tasks, which end with the last clone.
    ///
    /// # Errors
    /// When the connection was closed for good.
    pub async fn new(nats: async_nats::Client) -> Result<Self, RequestError> {
        let inbox = format!("{}.", nats.new_inbox());
        let answers = nats
            .subscribe(format!("{inbox}*"))
            .await
            .map_err(|error| RequestError::Unsendable(error.to_string()))?;
        let pending = Arc::new(Mutex::new(Slots::default()));
        let statistics = nats.statistics();
        let tasks = [
            tokio::spawn(hand_out(answers, inbox.len(), Arc::downgrade(&pending))),
            tokio::spawn(watch(
                nats.clone(),
                Arc::clone(&statistics),
                Arc::downgrade(&pending),
            )),
        ];
        Ok(Requester {
            inner: Arc::new(Inner {
                nats,
                statistics,
                inbox,
                pending,
                tasks,
            }),
        })
    }

    /// The connection that the requests go through.
    pub fn nats(&self) -> &async_nats::Client {
        &self.inner.nats
    }

    /// Whether the connection stands, as far as is known here.
    pub fn is_connected(&self) -> bool {
        self.inner.nats.connection_state() == State::Connected
    }

    /// Sends a request and waits for its answer, at most `timeout`. A `Subject` that is kept and
    /// cloned costs less than a text. Dropping the future gives the answer up.
    ///
    /// # Errors
    /// [`RequestError::not_sent`] says whether the request may have taken effect.
    pub async fn request(
        &self,
        subject: impl Into<Subject>,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Message, RequestError> {
        let inner = &self.inner;
        if !self.is_connected() {
            return Err(RequestError::Disconnected);
        }
        let connects = inner.statistics.connects.load(Ordering::Relaxed);
        let key = lock(&inner.pending)
            .reserve(connects)
            .ok_or(RequestError::TooMany)?;
        let answer = Answer {
            pending: &inner.pending,
            key,
        };
        let sent_and_answered = async {
            let reply = format!("{}{:x}", inner.inbox, key.0);
            inner
                .nats
                .publish_with_reply(subject.into(), reply, payload)
                .await
                .map_err(|error| RequestError::Unsendable(error.to_string()))?;
            answer.await
        };
        match tokio::time::timeout(timeout, sent_and_answered).await {
            Ok(Ok(message)) if message.status == Some(StatusCode::NO_RESPONDERS) => {
                Err(RequestError::NoResponders)
            }
            Ok(result) => result,
            Err(_) => Err(RequestError::TimedOut),
        }
    }
}

async fn hand_out(
    mut answers: async_nats::Subscriber,
    inbox_bytes: usize,
    pending: Weak<Mutex<Slots>>,
) {
    while let Some(message) = answers.next().await {
        let Some(pending) = pending.upgrade() else {
            return;
        };
        let key = message
            .subject
            .get(inbox_bytes..)
            .and_then(|token| u64::from_str_radix(token, 16).ok());
        if let Some(key) = key {
            lock(&pending).finish(Key(key), Ok(message));
        }
    }
}

async fn watch(
    nats: async_nats::Client,
    statistics: Arc<async_nats::client::Statistics>,
    pending: Weak<Mutex<Slots>>,
) {
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        let Some(pending) = pending.upgrade() else {
            return;
        };
        let connects = statistics.connects.load(Ordering::Relaxed);
        let connected = nats.connection_state() == State::Connected;
        lock(&pending).fail_stale(if connected { connects } else { connects + 1 });
    }
}

/// A panic while the table is locked leaves it whole: every change to it is one assignment.
fn lock(pending: &Mutex<Slots>) -> MutexGuard<'_, Slots> {
    pending
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Place in the table (low 32 bits) and generation (high 32 bits), so that a late answer to an
/// earlier user of the place is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key(u64);

impl Key {
    fn new(place: usize, generation: u32) -> Self {
        Key(u64::from(generation) << 32 | place as u64)
    }

    fn place(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Who waits for answers. Grows to the most that were ever in flight at a time.
#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// How often the connection had been made when the request was sent.
    connects: u64,
    state: SlotState,
}

#[derive(Debug)]
enum SlotState {
    Free,
    Waiting(Option<Waker>),
    Done(Box<Result<Message, RequestError>>),
}

impl Slots {
    fn reserve(&mut self, connects: u64) -> Option<Key> {
        let place = match self.free.pop() {
            Some(place) => place as usize,
            None if self.slots.len() < PENDING_MAX => {
                self.slots.push(Slot {
                    generation: 0,
                    connects,
                    state: SlotState::Free,
                });
                self.slots.len() - 1
            }
            None => return None,
        };
        let slot = &mut self.slots[place];
        slot.generation = slot.generation.wrapping_add(1);
        slot.connects = connects;
        slot.state = SlotState::Waiting(None);
        Some(Key::new(place, slot.generation))
    }

    /// Hands an answer to whoever waits for it, if it still does; the first answer counts.
    fn finish(&mut self, key: Key, result: Result<Message, RequestError>) {
        let Some(slot) = self.slots.get_mut(key.place()) else {
            return;
        };
        if slot.generation != key.generation() {
            return;
        }
        if let SlotState::Waiting(waker) = &mut slot.state {
            let waker = waker.take();
            slot.state = SlotState::Done(Box::new(result));
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Fails what was sent before the connection was last made.
    fn fail_stale(&mut self, connects: u64) {
        for place in 0..self.slots.len() {
            let slot = &self.slots[place];
            if slot.connects < connects && matches!(slot.state, SlotState::Waiting(_)) {
                let key = Key::new(place, slot.generation);
                self.finish(key, Err(RequestError::ConnectionLost));
            }
        }
    }

    fn poll(&mut self, key: Key, cx: &Context<'_>) -> Poll<Result<Message, RequestError>> {
        let slot = &mut self.slots[key.place()];
        match std::mem::replace(&mut slot.state, SlotState::Waiting(None)) {
            SlotState::Done(result) => Poll::Ready(*result),
            SlotState::Waiting(_) => {
                slot.state = SlotState::Waiting(Some(cx.waker().clone()));
                Poll::Pending
            }
            SlotState::Free => unreachable!("a slot is freed only by its own answer's drop"),
        }
    }

    fn release(&mut self, key: Key) {
        let slot = &mut self.slots[key.place()];
        debug_assert_eq!(slot.generation, key.generation());
        slot.state = SlotState::Free;
        self.free.push(key.place() as u32);
    }
}

/// An answer to come; dropping it frees its slot.
struct Answer<'a> {
    pending: &'a Mutex<Slots>,
    key: Key,
}

impl Future for Answer<'_> {
    type Output = Result<Message, RequestError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        lock(self.pending).poll(self.key, cx)
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        lock(self.pending).release(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            subject: "inbox.1".into(),
            reply: None,
            payload: Bytes::new(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        }
    }

    fn is_done(slots: &mut Slots, key: Key) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        slots.poll(key, &mut cx).is_ready()
    }

    #[test]
    fn a_late_answer_does_not_reach_the_next_user_of_its_slot() {
        let mut slots = Slots::default();
        let first = slots.reserve(1).unwrap();
        slots.release(first);
        let second = slots.reserve(1).unwrap();
        assert_eq!(first.place(), second.place());
        slots.finish(first, Ok(message()));
        assert!(!is_done(&mut slots, second));
        slots.finish(second, Ok(message()));
        assert!(is_done(&mut slots, second));
    }

    #[test]
    fn requests_beyond_the_bound_are_refused_until_one_ends() {
        let mut slots = Slots::default();
        let keys: Vec<_> = (0..PENDING_MAX)
            .map(|_| slots.reserve(1).unwrap())
            .collect();
        assert_eq!(slots.reserve(1), None);
        slots.release(keys[5]);
        assert!(slots.reserve(1).is_some());
    }

    #[test]
    fn only_what_was_sent_before_the_connection_was_made_fails_with_it() {
        let mut slots = Slots::default();
        let (old, new) = (slots.reserve(1).unwrap(), slots.reserve(2).unwrap());
        slots.fail_stale(2);
        assert!(is_done(&mut slots, old));
        assert!(!is_done(&mut slots, new));
    }

    #[test]
    fn keys_that_nobody_gave_out_are_passed_over() {
        let mut slots = Slots::default();
        slots.finish(Key(u64::MAX), Ok(message()));
        slots.finish(Key(0), Ok(message()));
    }
}
