//! Requests of the node itself, for those who look at it and for what one part of it wants of another node:
//! they take the road of clients' requests.
//!
//! The answer may come from another node, so it comes by the broker, to a subject under
//! `<prefix>.int.own.<node>`: a node's credentials allow nothing else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
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
    last: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Bytes>>>,
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
            last: AtomicU64::new(0),
            waiting: Mutex::new(HashMap::new()),
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
        let waiting = self
            .0
            .waiting
            .lock()
            .expect("no holder panics")
            .remove(&number);
        if let Some(answer) = waiting {
            // Who asked may have given up.
            let _ = answer.send(payload);
        }
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
        let number = shared.last.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut waiting = shared.waiting.lock().expect("no holder panics");
            if waiting.len() >= WAITING_MAX {
                return Err(AskError::Full);
            }
            waiting.insert(number, sender);
        }
        shared.dispatch.take_own(Incoming {
            subject,
            reply: Some(&format!("{}.{number}", shared.inbox)),
            content_type: None,
            message_id: None,
            traceparent: None,
            payload: body,
        });
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(payload)) => Ok(payload),
            _ => {
                shared
                    .waiting
                    .lock()
                    .expect("no holder panics")
                    .remove(&number);
                Err(AskError::Timeout)
            }
        }
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
