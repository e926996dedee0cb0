//! Queues: requests go to the node that owns the topic, once an answer has told who that is.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::call::{Before, Call, Direct};
use crate::client::{Client, ClientError, Target};
use crate::protocol::Operation;
use crate::protocol::queue::{Pop, Popped, Push, Pushed, Receipts, Results, Verdict};
use crate::protocol::reply::Answer;

/// Topics whose owner is remembered; beyond that any node is asked.
const OWNERS_MAX: usize = 10_000;

/// The owners of topics, as answers told them.
pub(super) type Owners = BTreeMap<String, Arc<Direct>>;

impl Client {
    /// Adds messages to a topic. It is asked again after an unknown outcome only if every message
    /// has an id, which makes a repeat the same message.
    ///
    /// # Errors
    /// `queue_full`, `durability_unavailable` and the other errors of `docs/protocol.md`.
    pub async fn push(&self, request: &Push) -> Result<Pushed, ClientError> {
        let call = Call {
            repeatable: request.messages.iter().all(|message| message.id.is_some()),
            ..Call::new(Operation::QueuePush, request.timeout_ms, 0)
        };
        let encoding = self.options().encoding;
        let body = encoding.encode(&request.in_encoding(encoding));
        self.ask_owner(&request.topic, call, |_| body.clone()).await
    }

    /// Takes messages. When an answer is lost, its messages come again after their visibility.
    ///
    /// # Errors
    /// `topic_paused` and the other errors of `docs/protocol.md`.
    pub async fn pop(&self, request: &Pop) -> Result<Popped, ClientError> {
        let wait_ms = request.demand.wait_ms;
        let call = Call::new(Operation::QueuePop, request.timeout_ms, wait_ms);
        let body = |before: Before| {
            if before.elapsed_ms == 0 {
                return self.encode(request);
            }
            let mut again = request.clone();
            before.cut(&mut again.demand.wait_ms, &mut again.timeout_ms);
            self.encode(&again)
        };
        self.ask_owner(&request.topic, call, body).await
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
        let call = Call::new(operation, request.timeout_ms, wait_ms);
        let body = |before: Before| {
            if before.elapsed_ms == 0 {
                return self.encode(request);
            }
            let mut again = request.clone();
            if let Verdict::Ack { pop: Some(pop) } = &mut again.what {
                before.cut(&mut pop.wait_ms, &mut again.timeout_ms);
            }
            self.encode(&again)
        };
        self.ask_owner(&request.topic, call, body).await
    }

    /// Any other request about a topic, or about all (`queue.list`, with an empty `topic`). One whose answer
    /// counts what it did is not asked again after an unknown outcome: the second answer would not count what
    /// the first attempt did.
    ///
    /// # Errors
    /// The errors of `docs/protocol.md`.
    pub async fn ask_queue<T: DeserializeOwned>(
        &self,
        operation: Operation,
        topic: &str,
        request: &impl Serialize,
    ) -> Result<T, ClientError> {
        let call = Call {
            repeatable: !counts_what_it_did(operation),
            ..Call::new(operation, None, 0)
        };
        let body = self.encode(request);
        self.ask_owner(topic, call, |_| body.clone()).await
    }

    async fn ask_owner<T: DeserializeOwned>(
        &self,
        topic: &str,
        call: Call,
        mut body: impl FnMut(Before) -> Bytes,
    ) -> Result<T, ClientError> {
        let attempt = |before: Before| self.ask_once(topic, call, before.elapsed_ms, body(before));
        Ok(call.until_answered(attempt).await?)
    }

    async fn ask_once<T: DeserializeOwned>(
        &self,
        topic: &str,
        call: Call,
        elapsed_ms: u64,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let owner = self.owner(topic);
        let direct = owner.clone().or_else(|| self.pinned());
        let answer = self
            .attempt_at::<T>(call, elapsed_ms, direct.as_deref(), body)
            .await;
        self.learn_owner(topic, owner.as_deref(), &answer);
        answer?.result.map_err(ClientError::Refused)
    }

    /// Remembers whom to ask about a topic; forgets a node that did not answer.
    fn learn_owner<T>(
        &self,
        topic: &str,
        asked: Option<&Direct>,
        answer: &Result<Answer<T>, ClientError>,
    ) {
        if self.options().target != Target::Leader || topic.is_empty() {
            return;
        }
        let told = answer.as_ref().ok().and_then(|answer| {
            let executed = answer.result.is_ok().then_some(answer.node);
            answer.ask_node.or(executed)
        });
        let mut owners = self.owners().lock().unwrap_or_else(PoisonError::into_inner);
        match (told, asked) {
            (Some(node), Some(asked)) if asked.node() == node => {}
            (Some(node), _) if owners.len() < OWNERS_MAX || asked.is_some() => {
                let direct = Direct::new(&self.options().prefix, node);
                owners.insert(topic.to_owned(), Arc::new(direct));
            }
            (None, Some(_)) => {
                owners.remove(topic);
            }
            _ => {}
        }
    }

    fn owner(&self, topic: &str) -> Option<Arc<Direct>> {
        let owners = self.owners().lock().unwrap_or_else(PoisonError::into_inner);
        owners.get(topic).cloned()
    }
}

/// Whether its answer tells what this very request did, such as how many messages it moved.
fn counts_what_it_did(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::QueueCancel | Operation::QueueRedrive | Operation::AdminQueuePurge
    )
}
