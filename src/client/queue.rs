//! Queues: requests go to the node that owns the topic, once an answer has told who that is.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::call::{Direct, PAUSE_MS_MAX, PAUSE_MS_MIN, TRAVEL_MS};
use crate::client::{Client, ClientError, Target};
use crate::protocol::queue::{Pop, Popped, Push, Pushed, Receipts, Results, Verdict};
use crate::protocol::{Operation, Outcome, TIMEOUT_MS_DEFAULT};
use crate::time;

/// Topics whose owner is remembered; beyond that any node is asked.
const OWNERS_MAX: usize = 10_000;
/// How long an owner that was asked by its id may take, beyond the wait asked for, before any other
/// node is asked.
const DIRECT_MS: u64 = 1_500;

/// The owners of topics, as answers told them.
pub(super) type Owners = BTreeMap<String, Arc<Direct>>;

/// One request about a topic.
struct Ask<'a> {
    operation: Operation,
    topic: &'a str,
    body: Bytes,
    timeout_ms: u64,
    wait_ms: u64,
    /// Whether it may be asked again although it may have taken effect.
    repeatable: bool,
}

impl Client {
    /// Adds messages to a topic. It is asked again after an unknown outcome only if every message
    /// has an id, which makes a repeat the same message.
    ///
    /// # Errors
    /// `queue_full`, `durability_unavailable` and the other errors of `docs/protocol.md`.
    pub async fn push(&self, request: &Push) -> Result<Pushed, ClientError> {
        let encoding = self.options().encoding;
        self.ask_owner(Ask {
            operation: Operation::QueuePush,
            topic: &request.topic,
            body: encoding.encode(&request.in_encoding(encoding)),
            timeout_ms: request.timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT),
            wait_ms: 0,
            repeatable: request.messages.iter().all(|message| message.id.is_some()),
        })
        .await
    }

    /// Takes messages. When an answer is lost, its messages come again after their visibility.
    ///
    /// # Errors
    /// `topic_paused` and the other errors of `docs/protocol.md`.
    pub async fn pop(&self, request: &Pop) -> Result<Popped, ClientError> {
        let wait_ms = request.demand.wait_ms;
        self.ask_owner(Ask {
            operation: Operation::QueuePop,
            topic: &request.topic,
            body: self.encode(request),
            timeout_ms: request.timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT + wait_ms),
            wait_ms,
            repeatable: true,
        })
        .await
    }

    /// Says of messages that they are done, not done, or not done yet.
    ///
    /// # Errors
    /// Only when the cluster or Redis do not answer; a stale receipt is a result.
    pub async fn settle(&self, request: &Receipts) -> Result<Results, ClientError> {
        let (operation, wait_ms) = match &request.what {
            Verdict::Ack { pop } => {
                let wait_ms = pop.as_ref().map_or(0, |pop| pop.wait_ms);
                (Operation::QueueAck, wait_ms)
            }
            Verdict::Nack { .. } => (Operation::QueueNack, 0),
            Verdict::Extend { .. } => (Operation::QueueExtend, 0),
        };
        self.ask_owner(Ask {
            operation,
            topic: &request.topic,
            body: self.encode(request),
            timeout_ms: request.timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT + wait_ms),
            wait_ms,
            repeatable: true,
        })
        .await
    }

    /// Any other request about a topic, or about all (`queue.list`, with an empty `topic`).
    ///
    /// # Errors
    /// The errors of `docs/protocol.md`.
    pub async fn ask_queue<T: DeserializeOwned>(
        &self,
        operation: Operation,
        topic: &str,
        request: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask_owner(Ask {
            operation,
            topic,
            body: self.encode(request),
            timeout_ms: TIMEOUT_MS_DEFAULT,
            wait_ms: 0,
            repeatable: true,
        })
        .await
    }

    async fn ask_owner<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T, ClientError> {
        let started = time::now();
        let mut pause_ms = PAUSE_MS_MIN;
        loop {
            let elapsed_ms = started.elapsed().as_millis() as u64;
            let error = match self.ask_once(&ask, elapsed_ms).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let may_repeat = ask.repeatable || error.outcome() == Outcome::NotApplied;
            let elapsed_ms = started.elapsed().as_millis() as u64 + pause_ms;
            if !error.passes_by_itself() || !may_repeat || elapsed_ms >= ask.timeout_ms {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
        }
    }

    async fn ask_once<T: DeserializeOwned>(
        &self,
        ask: &Ask<'_>,
        elapsed_ms: u64,
    ) -> Result<T, ClientError> {
        let left_ms = ask.timeout_ms.saturating_sub(elapsed_ms) + TRAVEL_MS;
        let owner = self.owner(ask.topic);
        let (subject, timeout_ms) = match (&owner, self.pinned()) {
            (Some(owner), _) => (owner.subject(ask.operation), DIRECT_MS + ask.wait_ms),
            (None, Some(node)) => (node.subject(ask.operation), left_ms),
            (None, None) => (self.shared_subject(ask.operation), left_ms),
        };
        let timeout = Duration::from_millis(timeout_ms.min(left_ms));
        let only = owner.as_deref().map(|owner| owner.only(ask.repeatable));
        let answer = self
            .exchange::<T>(only, subject, ask.body.clone(), timeout)
            .await;
        let told = answer.as_ref().ok().and_then(|answer| {
            let executed = answer.result.is_ok().then_some(answer.node);
            answer.ask_node.or(executed)
        });
        if self.options().target == Target::Leader && !ask.topic.is_empty() {
            let mut owners = self.owners().lock().unwrap_or_else(PoisonError::into_inner);
            match (told, &owner) {
                (Some(node), Some(owner)) if owner.node() == node => {}
                (Some(node), _) if owners.len() < OWNERS_MAX || owner.is_some() => {
                    let direct = Direct::new(&self.options().prefix, node);
                    owners.insert(ask.topic.to_owned(), Arc::new(direct));
                }
                (None, Some(_)) => {
                    owners.remove(ask.topic);
                }
                _ => {}
            }
        }
        answer?.result.map_err(ClientError::Refused)
    }

    fn owner(&self, topic: &str) -> Option<Arc<Direct>> {
        let owners = self.owners().lock().unwrap_or_else(PoisonError::into_inner);
        owners.get(topic).cloned()
    }
}
