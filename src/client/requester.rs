//! Request and reply over one inbox: many requests at once, each waiting for its own answer.
//!
//! All answers arrive on one wildcard subscription; the last token of a reply subject says which
//! slot of a table waits for it. A request costs two short strings and no channel. An answer that
//! comes after its request gave up finds the slot's generation gone and is dropped.
//!
//! Limits: [`PENDING_MAX`] requests at a time, more are refused at once. A request that is on its
//! way when the connection breaks fails within [`WATCH_INTERVAL`] instead of at its timeout. So does,
//! within about two of them, a request to one node whose process has died: a node that owes answers
//! and gives none is probed, and the broker says whether anybody listens there. A request that may
//! not be asked again is given longer, since a node that stops in good order leaves it to another. What
//! the broker does not allow fails as soon as it says so.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{StatusCode, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::refusals::{Listener, Refusals, Refused};
use crate::client::slots::{Direct, Key, Probed, Slots};

/// A message, as the broker's client library has it.
pub use async_nats::Message;

/// Requests in flight at a time. Below the capacity of the inbox's channel (65536), so that
/// answers are never dropped for want of room while each request has one answer.
pub const PENDING_MAX: usize = 32_768;

/// How often the connection, and nodes that owe answers, are looked at.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// How long answers that are on their way are waited for at the end.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Nothing was sent.
    #[error("not connected to the broker")]
    Disconnected,
    /// The connection broke while the answer was awaited: the request may have taken effect.
    #[error("the connection to the broker broke before the answer came")]
    ConnectionLost,
    /// The node that was asked is gone: the request may have taken effect.
    #[error("the node died before the answer came")]
    NodeGone,
    /// The broker knows of nobody who listens.
    #[error("nobody listens on the subject")]
    NoResponders,
    /// The request may have taken effect or may yet.
    #[error("no answer in time")]
    TimedOut,
    /// Nothing was sent: [`PENDING_MAX`] is reached.
    #[error("too many requests are in flight")]
    TooMany,
    /// The broker does not let answers come: the request may have taken effect.
    #[error("forbidden: the broker does not allow this user to {0}, so that no answer comes")]
    Unheard(String),
    /// [`Requester::close`] came first: the request may have taken effect.
    #[error("the client was closed before the answer came")]
    Closed,
    /// No node got it: the broker does not let this user publish to the subject, or subscribe to it.
    #[error("forbidden: the broker does not allow this user to {0}")]
    Forbidden(String),
    /// Nothing was sent: the subject or the payload's size.
    #[error("the request cannot be sent: {0}")]
    Unsendable(String),
}

impl RequestError {
    /// Whether it is certain that no node got the request.
    pub fn not_sent(&self) -> bool {
        !matches!(
            self,
            RequestError::ConnectionLost
                | RequestError::NodeGone
                | RequestError::TimedOut
                | RequestError::Unheard(_)
                | RequestError::Closed
        )
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
    refusals: Refusals,
    statistics: Arc<async_nats::client::Statistics>,
    /// Ends with a dot; a slot's key follows.
    inbox: String,
    pending: Arc<Mutex<Slots>>,
    stage: watch::Sender<Stage>,
    /// The one that hands out answers, the one that watches the connection, and the one that hears what
    /// is refused on it.
    tasks: [JoinHandle<()>; 3],
}

/// How far a requester is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// The broker is told that nobody listens any more; answers may be on their way.
    Closing,
    Closed,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Requester {
    /// Subscribes to an inbox of its own. Runs three tasks, which end with the last clone.
    ///
    /// # Errors
    /// When the connection was closed for good.
    pub async fn new(nats: async_nats::Client) -> Result<Self, RequestError> {
        Requester::hearing(nats, Refusals::default()).await
    }

    /// Another one on the same connection.
    ///
    /// # Errors
    /// When the connection was closed for good.
    pub(super) async fn apart(&self) -> Result<Self, RequestError> {
        Requester::hearing(self.inner.nats.clone(), self.inner.refusals.clone()).await
    }

    /// As [`Requester::new`], with what is told about what the broker refuses on this connection.
    pub(super) async fn hearing(
        nats: async_nats::Client,
        refusals: Refusals,
    ) -> Result<Self, RequestError> {
        let inbox = format!("{}.", nats.new_inbox());
        let refused = refusals.listen();
        let answers = nats
            .subscribe(format!("{inbox}*"))
            .await
            .map_err(|error| RequestError::Unsendable(error.to_string()))?;
        let pending = Arc::new(Mutex::new(Slots::default()));
        let statistics = nats.statistics();
        let stage = watch::Sender::new(Stage::Open);
        let tasks = [
            tokio::spawn(hand_out(
                (answers, inbox.len()),
                stage.clone(),
                Arc::downgrade(&pending),
            )),
            tokio::spawn(look_after(
                nats.clone(),
                inbox.clone(),
                Arc::clone(&statistics),
                Arc::downgrade(&pending),
            )),
            tokio::spawn(fail_refused(
                refused,
                (format!("{inbox}*"), Arc::clone(&statistics)),
                Arc::downgrade(&pending),
            )),
        ];
        Ok(Requester {
            inner: Arc::new(Inner {
                nats,
                refusals,
                statistics,
                inbox,
                pending,
                stage,
                tasks,
            }),
        })
    }

    /// The connection that the requests go through.
    pub fn nats(&self) -> &async_nats::Client {
        &self.inner.nats
    }

    /// What is told about what the broker refuses.
    pub(super) fn refusals(&self) -> &Refusals {
        &self.inner.refusals
    }

    /// Whether the connection stands, as far as is known here.
    pub fn is_connected(&self) -> bool {
        self.inner.nats.connection_state() == State::Connected
    }

    /// Ends the inbox. Answers that are on their way still come; once this returns none does any more, and
    /// what waits for one fails, as every later request does. From then on the broker tells nodes that
    /// nobody takes their answer.
    pub async fn close(&self) {
        let inner = &self.inner;
        inner.stage.send_if_modified(|stage| {
            let is_open = *stage == Stage::Open;
            if is_open {
                *stage = Stage::Closing;
            }
            is_open
        });
        let mut stage = inner.stage.subscribe();
        let closed = stage.wait_for(|stage| *stage == Stage::Closed);
        // Without a connection there is nobody to tell.
        let _ = tokio::time::timeout(CLOSE_MAX, closed).await;
        lock(&inner.pending).fail_all(&RequestError::Closed);
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
        self.request_of(None, subject.into(), payload, timeout)
            .await
    }

    /// As [`Requester::request`]; `direct` names the one node that listens on `subject`, and how to
    /// find out whether it lives when it owes answers and gives none.
    ///
    /// # Errors
    /// As those of [`Requester::request`], and [`RequestError::NodeGone`].
    pub(super) async fn request_of(
        &self,
        direct: Option<Direct<'_>>,
        subject: Subject,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Message, RequestError> {
        let inner = &self.inner;
        if *inner.stage.borrow() != Stage::Open {
            return Err(RequestError::Closed);
        }
        if !self.is_connected() {
            return Err(RequestError::Disconnected);
        }
        let connects = inner.statistics.connects.load(Ordering::Relaxed);
        let key = lock(&inner.pending).reserve(connects, subject.clone(), direct)?;
        let answer = Answer {
            pending: &inner.pending,
            key,
        };
        let sent_and_answered = async {
            let reply = format!("{}{:x}", inner.inbox, key.0);
            inner
                .nats
                .publish_with_reply(subject, reply, payload)
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
    (mut answers, inbox_bytes): (async_nats::Subscriber, usize),
    stage: watch::Sender<Stage>,
    pending: Weak<Mutex<Slots>>,
) {
    let mut closing = stage.subscribe();
    let mut is_closing = false;
    loop {
        let close = async { drop(closing.wait_for(|stage| *stage == Stage::Closing).await) };
        let message = tokio::select! {
            message = answers.next() => message,
            () = close, if !is_closing => {
                is_closing = true;
                // What the broker has sent before it knows comes before the end.
                let _ = answers.drain().await;
                continue;
            }
        };
        let Some(message) = message else {
            stage.send_replace(Stage::Closed);
            return;
        };
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

async fn look_after(
    nats: async_nats::Client,
    inbox: String,
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
        let silent = {
            let mut slots = lock(&pending);
            slots.fail_stale(if connected { connects } else { connects + 1 });
            slots.silent()
        };
        for node in silent {
            if nobody_listens(&nats, &inbox, connects, &pending, &node).await {
                lock(&pending).fail_of(node.node);
            }
        }
    }
}

/// Fails what the broker does not let pass; all, if it does not let answers come.
async fn fail_refused(
    mut refused: Listener,
    (inbox, statistics): (String, Arc<async_nats::client::Statistics>),
    pending: Weak<Mutex<Slots>>,
) {
    loop {
        let refused = refused.next().await;
        let Some(pending) = pending.upgrade() else {
            return;
        };
        match refused {
            Refused::Publish(subject) => lock(&pending).refuse(&subject),
            Refused::Subscribe(subject) if subject == inbox => {
                let what = format!("subscribe to its inbox {inbox} (--nats-inbox-prefix)");
                let connects = statistics.connects.load(Ordering::Relaxed);
                lock(&pending).deafen(connects, RequestError::Unheard(what));
            }
            Refused::Subscribe(_) => {}
        }
    }
}

/// Whether the broker says so of the node; no answer within [`WATCH_INTERVAL`] says nothing.
async fn nobody_listens(
    nats: &async_nats::Client,
    inbox: &str,
    connects: u64,
    pending: &Mutex<Slots>,
    node: &Probed,
) -> bool {
    let Ok(key) = lock(pending).reserve(connects, node.subject.clone(), None) else {
        return false;
    };
    let answer = Answer { pending, key };
    let reply = format!("{inbox}{:x}", key.0);
    let probe = nats.publish_with_reply(node.subject.clone(), reply, Bytes::new());
    let answered = async { (probe.await.is_ok()).then_some(answer.await) };
    match tokio::time::timeout(WATCH_INTERVAL, answered).await {
        Ok(Some(Ok(message))) => message.status == Some(StatusCode::NO_RESPONDERS),
        _ => false,
    }
}

/// A panic while the table is locked leaves it whole: every change to it is one assignment.
fn lock(pending: &Mutex<Slots>) -> MutexGuard<'_, Slots> {
    pending
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
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
