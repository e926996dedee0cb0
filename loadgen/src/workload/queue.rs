//! Users that push, or push, pop and acknowledge, each its own request.

use std::time::Duration;

use anyhow::Result;
use mufakat::client::{Client, ClientError};
use mufakat::protocol::queue::{
    Delivered, Demand, Message, Pop, Popped, Push, ReceiptResult, Receipts, Results, Verdict,
};
use mufakat::protocol::value::Value;
use tokio::time::Instant;

use super::resource::RunName;
use super::{Failure, Seat, Turn, Workload, milliseconds};
use crate::check::Shared;
use crate::check::queue::{Got, QueueCheck, payload};
use crate::recorder::Operation;

const PUSH: Operation = Operation(0);
const POP: Operation = Operation(1);
const ACK: Operation = Operation(2);

/// Bytes of a payload.
const PAYLOAD_BYTES: usize = 100;
/// How long a message that was popped is nobody else's: short, since a check waits for what got lost on its way.
const VISIBILITY: Duration = Duration::from_secs(10);
/// Messages that are taken at once when a topic is emptied.
const EMPTYING_MAX: u64 = 1000;
/// How long a pop waits before the topic counts as empty.
const EMPTYING_WAIT: Duration = Duration::from_millis(500);

/// What both workloads need.
#[derive(Clone)]
pub struct Topics {
    pub run: RunName,
    /// How many topics the users share.
    pub count: u32,
    /// How long a request may take.
    pub timeout: Duration,
    pub check: Shared<QueueCheck>,
}

/// One user's requests.
pub struct User {
    client: Client,
    topic: String,
    push: Push,
    pop: Pop,
}

impl Topics {
    fn user(&self, kind: &str, seat: Seat) -> User {
        let topic = self
            .run
            .with(format!("{kind}.{}", seat.number % self.count));
        let mut push = Push::one(
            topic.clone(),
            Message::new(Value::text("x".repeat(PAYLOAD_BYTES))),
        );
        push.timeout_ms = milliseconds(self.timeout);
        User {
            client: seat.client,
            pop: self.pop(&topic, format!("user-{}", seat.number)),
            topic,
            push,
        }
    }

    fn pop(&self, topic: &str, consumer: String) -> Pop {
        Pop {
            topic: topic.to_owned(),
            demand: Demand {
                visibility_ms: milliseconds(VISIBILITY),
                ..Demand::new(consumer)
            },
            timeout_ms: milliseconds(self.timeout),
        }
    }

    /// Pushes a message; whether it was acknowledged.
    async fn push(&self, user: &mut User, intended: Instant, turn: &Turn) -> bool {
        let topic = &user.topic;
        let pushing = self.check.tell(|check, now| check.pushes(now, topic));
        if let Some(pushing) = &pushing {
            let text = payload(pushing.number, PAYLOAD_BYTES);
            user.push.messages[0].payload = Value::text(text);
        }
        let request = user.client.push(&user.push);
        let (result, _) = turn.sample(PUSH, intended, request).await;
        if let Some(pushing) = &pushing {
            self.check.tell(|check, now| match &result {
                Ok(pushed) => check.pushed(now, topic, pushing, pushed.seq.unwrap_or(0)),
                Err(error) => {
                    let fault = error.fault();
                    check.not_pushed(now, topic, pushing, fault.code, fault.unknown);
                }
            });
        }
        turn.pause_after_failure(result).await.is_some()
    }

    /// Runs a pop and tells the check of it.
    async fn popped(
        &self,
        topic: &str,
        pop: impl Future<Output = Result<Popped, ClientError>>,
    ) -> Result<Popped, ClientError> {
        let popping = self.check.tell(|check, now| check.pops(now, topic));
        let result = pop.await;
        if let Some(popping) = &popping {
            self.check.tell(|check, now| match &result {
                Ok(popped) => {
                    let payloads: Vec<_> = popped.messages.iter().map(bytes).collect();
                    let got = popped.messages.iter().zip(&payloads);
                    let got: Vec<_> = got
                        .map(|(message, payload)| Got {
                            payload,
                            seq: message.seq,
                            deliveries: message.deliveries,
                        })
                        .collect();
                    check.popped(now, topic, popping, &got, VISIBILITY);
                }
                Err(error) => check.not_popped(now, topic, error.fault().code),
            });
        }
        result
    }

    /// Runs an acknowledgement of these messages and tells the check of it.
    async fn settled(
        &self,
        topic: &str,
        messages: &[Delivered],
        ack: impl Future<Output = Result<Results, ClientError>>,
    ) -> Result<Results, ClientError> {
        let result = ack.await;
        self.check.tell(|check, now| {
            for (place, message) in messages.iter().enumerate() {
                let (text, acked) = match &result {
                    Ok(results) => match results.results.get(place) {
                        Some(one) => (
                            ReceiptResult::NAMES[one.result as usize],
                            one.result == ReceiptResult::Acked,
                        ),
                        None => ("no result", false),
                    },
                    Err(error) => (error.fault().code, false),
                };
                check.settled(now, topic, &bytes(message), text, acked);
            }
        });
        result
    }

    fn ack(&self, topic: &str, messages: &[Delivered]) -> Receipts {
        let receipts = messages.iter();
        Receipts {
            topic: topic.to_owned(),
            receipts: receipts
                .filter_map(|message| message.receipt.parse().ok())
                .collect(),
            what: Verdict::Ack { pop: None },
            timeout_ms: milliseconds(self.timeout),
        }
    }

    /// Takes what is left in the topics that are checked, and tells the check when they are empty.
    ///
    /// # Errors
    /// A request failed: then it is not known what is left.
    pub async fn empty(&self, client: &Client) -> Result<()> {
        let topics = self.check.tell(|check, _| check.topics());
        for topic in topics.into_iter().flatten() {
            let mut pop = self.pop(&topic, "emptying".to_owned());
            pop.demand.max = EMPTYING_MAX;
            pop.demand.wait_ms = EMPTYING_WAIT.as_millis() as u64;
            pop.timeout_ms = milliseconds(self.timeout + EMPTYING_WAIT);
            let begun = Instant::now();
            loop {
                let popped = self.popped(&topic, client.pop(&pop)).await?;
                if popped.messages.is_empty() {
                    let comes_again = self
                        .check
                        .tell(|check, _| !check.has_all(&topic) && check.may_be_in_flight(&topic));
                    if comes_again == Some(true) && begun.elapsed() < VISIBILITY * 2 {
                        continue;
                    }
                    break;
                }
                let ack = self.ack(&topic, &popped.messages);
                self.settled(&topic, &popped.messages, client.settle(&ack))
                    .await?;
            }
            self.check.tell(|check, now| check.emptied(now, &topic));
        }
        Ok(())
    }
}

/// A payload that does not fit together is none that was pushed.
fn bytes(message: &Delivered) -> Vec<u8> {
    message
        .payload()
        .map(|value| value.bytes().to_vec())
        .unwrap_or_default()
}

/// Users that only push.
pub struct Pushes(pub Topics);

impl Workload for Pushes {
    type User = User;

    fn name(&self) -> &'static str {
        "queue pushes"
    }

    fn operations(&self) -> &'static [&'static str] {
        &["queue.push"]
    }

    fn prepare(&self, seat: Seat) -> User {
        self.0.user("pushes", seat)
    }

    async fn execute(&self, user: &mut User, intended: Instant, turn: &Turn) {
        self.0.push(user, intended, turn).await;
    }
}

/// Users that push a message, pop one and acknowledge it.
pub struct Cycles(pub Topics);

impl Workload for Cycles {
    type User = User;

    fn name(&self) -> &'static str {
        "queue cycles"
    }

    fn operations(&self) -> &'static [&'static str] {
        &["queue.push", "queue.pop", "queue.ack"]
    }

    fn prepare(&self, seat: Seat) -> User {
        self.0.user("cycles", seat)
    }

    async fn execute(&self, user: &mut User, intended: Instant, turn: &Turn) {
        let topics = &self.0;
        if !topics.push(user, intended, turn).await {
            return;
        }
        let pop = topics.popped(&user.topic, user.client.pop(&user.pop));
        let popped = turn.measure(POP, Instant::now(), pop).await;
        let messages = popped.map_or_else(Vec::new, |popped| popped.messages);
        if messages.is_empty() {
            return;
        }
        let ack = topics.ack(&user.topic, &messages);
        let ack = topics.settled(&user.topic, &messages, user.client.settle(&ack));
        turn.measure(ACK, Instant::now(), ack).await;
    }
}
