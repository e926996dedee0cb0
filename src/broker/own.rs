//! Requests of the node itself, for those who look at it and for what one part of it wants of another node:
//! they take the road of clients' requests.
//!
//! The answer may come from another node, so it comes by the broker, to a subject under
//! `<prefix>.int.own.<node>`: a node's credentials allow nothing else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};

use crate::broker::dispatch::Dispatch;
use crate::broker::relay::Incoming;
use crate::broker::{SharedBroker, SubscribeError};
use crate::protocol::{Operation, Tenant};
use crate::queue::service::Road;

/// Answers that came and were not yet looked at.
const ANSWERS_MAX: usize = 256;
/// Requests that wait for an answer; people ask few.
const WAITING_MAX: usize = 256;

/// The way of the node's own requests; clones share it.
#[derive(Clone)]
pub struct OwnRequests(Arc<Shared>);

struct Shared {
    dispatch: Arc<Dispatch>,
    inbox: String,
    waiting: Waiting,
}

/// Who waits for which answer.
#[derive(Default)]
struct Waiting {
    last: AtomicU64,
    askers: Mutex<HashMap<u64, oneshot::Sender<Bytes>>>,
}

/// Somebody who waits; dropping it makes room for another.
struct Asker<'a> {
    waiting: &'a Waiting,
    number: u64,
    answer: oneshot::Receiver<Bytes>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("no answer in time")]
    Timeout,
    #[error("too many requests wait")]
    Full,
}

impl OwnRequests {
    /// Listens to answers, until `stopped`.
    ///
    /// # Errors
    /// When the broker refuses the subscription.
    pub async fn listen(
        dispatch: Arc<Dispatch>,
        broker: &SharedBroker,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<Self, SubscribeError> {
        let inbox = format!("{}.int.own.{}", dispatch.prefix, dispatch.me);
        let mut answers = broker.subscribe(format!("{inbox}.>"), ANSWERS_MAX).await?;
        let own = OwnRequests(Arc::new(Shared {
            dispatch,
            inbox,
            waiting: Waiting::default(),
        }));
        let hearing = own.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    answer = answers.next() => match answer {
                        Some(answer) => hearing.hear(&answer.subject, answer.payload),
                        None => return,
                    },
                    _ = stopped.changed() => return,
                }
            }
        });
        Ok(own)
    }

    fn hear(&self, subject: &str, payload: Bytes) {
        let number = subject.rsplit('.').next();
        let Some(number) = number.and_then(|number| number.parse().ok()) else {
            return;
        };
        self.0.waiting.answer(number, payload);
    }

    /// The reply to a request with this body, in its encoding.
    ///
    /// # Errors
    /// When there is none within `limit`.
    pub async fn ask(
        &self,
        operation: Operation,
        body: &Bytes,
        limit: Duration,
    ) -> Result<Bytes, AskError> {
        let subject = self.0.dispatch.prefix.operation(operation);
        self.ask_at(&subject, body, limit).await
    }

    async fn ask_at(
        &self,
        subject: &str,
        body: &Bytes,
        limit: Duration,
    ) -> Result<Bytes, AskError> {
        let shared = &self.0;
        let mut asker = shared.waiting.enter()?;
        shared.dispatch.take_own(Incoming {
            subject,
            reply: Some(&format!("{}.{}", shared.inbox, asker.number)),
            content_type: None,
            message_id: None,
            traceparent: None,
            payload: body,
        });
        match tokio::time::timeout(limit, &mut asker.answer).await {
            Ok(Ok(payload)) => Ok(payload),
            _ => Err(AskError::Timeout),
        }
    }
}

impl Waiting {
    /// # Errors
    /// [`AskError::Full`].
    fn enter(&self) -> Result<Asker<'_>, AskError> {
        let mut askers = self.askers();
        if askers.len() >= WAITING_MAX {
            return Err(AskError::Full);
        }
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        askers.insert(number, sender);
        Ok(Asker {
            waiting: self,
            number,
            answer,
        })
    }

    fn answer(&self, number: u64, payload: Bytes) {
        if let Some(asker) = self.askers().remove(&number) {
            // Who asked may be about to give up.
            let _ = asker.send(payload);
        }
    }

    fn askers(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Bytes>>> {
        self.askers.lock().expect("no holder panics")
    }
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        self.waiting.askers().remove(&self.number);
    }
}

impl Road for OwnRequests {
    fn ask(
        &self,
        whose: Option<Tenant>,
        (operation, body): (Operation, Bytes),
        limit: Duration,
    ) -> BoxFuture<'_, Option<Bytes>> {
        let prefix = &self.0.dispatch.prefix;
        let subject = match &whose {
            Some(tenant) => prefix.tenant_operation(tenant, operation),
            None => prefix.operation(operation),
        };
        Box::pin(async move { self.ask_at(&subject, &body, limit).await.ok() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_up_makes_room() {
        let waiting = Waiting::default();
        let lost = (0..WAITING_MAX).map(|_| waiting.enter().expect("there is room"));
        let mut lost: Vec<Asker<'_>> = lost.collect();
        assert_eq!(waiting.enter().err(), Some(AskError::Full));
        drop(lost.pop());
        let mut last = waiting.enter().expect("one has given up");
        assert_eq!(waiting.enter().err(), Some(AskError::Full));
        drop(lost);
        let (late, own) = (last.number - 1, Bytes::from_static(b"own"));
        waiting.answer(late, Bytes::from_static(b"late"));
        waiting.answer(last.number, own.clone());
        assert_eq!(last.answer.try_recv(), Ok(own));
        drop(last);
        assert!(waiting.askers().is_empty());
    }
}
