//! Users that push, or push, pop and acknowledge, each its own request about one message or a batch.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::Result;
use mufakat::client::{Client, ClientError};
use mufakat::protocol;
use mufakat::protocol::queue::{
    Delivered, Demand, Message, Peeked, Pop, Popped, Push, Pushed, ReceiptResult, Receipts,
    Results, Verdict,
};
use mufakat::protocol::value::Value;
use rand::RngExt;
use serde_json::json;
use tokio::time::Instant;

use super::resource::RunName;
use super::{Failure, PAUSE_AFTER_FAILURE, Random, Seat, Turn, Workload, milliseconds, timeout_ms};
use crate::check::Shared;
use crate::check::queue::{Got, Pushing, QueueCheck, Settled};
use crate::recorder::{Fault, Operation};

const PUSH: Operation = Operation(0);
const POP: Operation = Operation(1);
const ACK: Operation = Operation(2);

/// How long a message that was popped is nobody else's: short, since a check waits for what got lost on its way.
const VISIBILITY: Duration = Duration::from_secs(5);
/// How much later than its visibility ends a message may come again.
const LATE_MAX: Duration = Duration::from_secs(1);
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
    /// Messages in one push, and most in one pop and one acknowledgement.
    pub batch: u32,
    /// Bytes of a payload, drawn evenly.
    pub message_bytes: RangeInclusive<usize>,
    /// How long a request may take.
    pub timeout: Duration,
    pub check: Shared<QueueCheck>,
}

/// One user's requests.
pub struct User {
    client: Client,
    random: Random,
    topic: String,
    push: Push,
    pop: Pop,
}

impl Topics {
    fn user(&self, kind: &str, seat: Seat) -> User {
        let topic = self
            .run
            .with(format!("{kind}.{}", seat.number % self.count));
        let messages = vec![self.message(*self.message_bytes.start()); self.batch as usize];
        let push = Push {
            topic: topic.clone(),
            messages,
            batch: self.batch > 1,
            require_durability: None,
            timeout_ms: milliseconds(self.timeout),
        };
        User {
            client: seat.client,
            random: seat.random,
            pop: self.pop(&topic, format!("user-{}", seat.number)),
            topic,
            push,
        }
    }

    fn message(&self, bytes: usize) -> Message {
        Message::new(Value::text("x".repeat(bytes)))
    }

    fn pop(&self, topic: &str, consumer: String) -> Pop {
        Pop {
            topic: topic.to_owned(),
            demand: Demand {
                max: u64::from(self.batch),
                visibility_ms: milliseconds(VISIBILITY),
                ..Demand::new(consumer)
            },
            timeout_ms: milliseconds(self.timeout),
        }
    }

    /// Pushes a message or a batch; whether it was acknowledged.
    async fn push(&self, user: &mut User, intended: Instant, turn: &Turn) -> bool {
        let pushing = self.fill(user);
        let request = user.client.push(&user.push);
        let (result, _) = turn.sample(PUSH, intended, request).await;
        let topic = &user.topic;
        for (place, pushing) in pushing.iter().enumerate() {
            self.check.tell(|check, now| match &result {
                Ok(pushed) => check.pushed(now, topic, pushing, seq(pushed, place)),
                Err(error) => {
                    let fault = error.fault();
                    check.not_pushed(now, topic, pushing, fault.code, fault.unknown);
                }
            });
        }
        turn.pause_after_failure(result).await.is_some()
    }

    /// Gives the messages of the next push their sizes, and their numbers where they are checked: one for each.
    fn fill(&self, user: &mut User) -> Vec<Pushing> {
        let User {
            random,
            topic,
            push,
            ..
        } = user;
        let varies = self.message_bytes.start() < self.message_bytes.end();
        let mut numbers = Vec::new();
        for message in &mut push.messages {
            let bytes = random.random_range(self.message_bytes.clone());
            let pushing = self
                .check
                .tell(|check, now| check.pushes(now, topic, bytes));
            if pushing.is_none() && !varies {
                break;
            }
            *message = match &pushing {
                Some(pushing) => Message::new(Value::text(pushing.payload())),
                None => self.message(bytes),
            };
            numbers.extend(pushing);
        }
        numbers
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
                    let payloads = popped.messages.iter();
                    let payloads: Vec<_> =
                        payloads.map(|message| bytes(message.payload())).collect();
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
                let (text, came) = match &result {
                    Ok(results) => of_receipt(results.results.get(place).map(|one| one.result)),
                    Err(error) => of_failure(error.fault()),
                };
                check.settled(now, topic, &bytes(message.payload()), text, came);
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
    /// Requests failed for long: then it is not known what is left.
    pub async fn empty(&self, client: &Client) -> Result<()> {
        let topics = self.check.tell(|check, _| check.topics());
        for topic in topics.into_iter().flatten() {
            self.take_all(client, &topic).await?;
            if self.check.tell(|check, _| check.has_all(&topic)) == Some(false) {
                self.look_for_dead(client, &topic).await?;
            }
            self.check.tell(|check, now| check.emptied(now, &topic));
        }
        Ok(())
    }

    /// Takes what is left in a topic. It ends because a message that comes again and again is dead at last.
    async fn take_all(&self, client: &Client, topic: &str) -> Result<()> {
        let mut pop = self.pop(topic, "emptying".to_owned());
        pop.demand.max = EMPTYING_MAX;
        pop.demand.wait_ms = EMPTYING_WAIT.as_millis() as u64;
        pop.timeout_ms = timeout_ms(self.timeout + EMPTYING_WAIT);
        let mut failing_since = None;
        let mut empty_since = None;
        loop {
            let popped = match self.popped(topic, client.pop(&pop)).await {
                Ok(popped) => popped,
                // A cluster that was broken on purpose may need a moment.
                Err(error) => {
                    let since = failing_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > VISIBILITY {
                        return Err(error.into());
                    }
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                    continue;
                }
            };
            failing_since = None;
            if popped.messages.is_empty() {
                // A delivery may have got lost on its way, also one that a client has asked for again by
                // itself: its message comes again after its visibility. So does one that was not acknowledged.
                let has_all = self.check.tell(|check, _| check.has_all(topic));
                let since = empty_since.get_or_insert_with(Instant::now);
                if has_all == Some(true) || since.elapsed() > VISIBILITY + LATE_MAX {
                    return Ok(());
                }
                continue;
            }
            empty_since = None;
            let ack = self.ack(topic, &popped.messages);
            let settled = self.settled(topic, &popped.messages, client.settle(&ack));
            if let Err(error) = settled.await {
                // What it was about has come, and may come again.
                tracing::debug!(%error, topic, "acknowledgement failed");
            }
        }
    }

    /// Tells the check which messages of a topic are dead.
    async fn look_for_dead(&self, client: &Client, topic: &str) -> Result<()> {
        let mut cursor = None;
        loop {
            let body = json!({"topic": topic, "state": "dead", "cursor": cursor});
            let peek = client.ask_queue(protocol::Operation::QueuePeek, topic, &body);
            let peeked: Peeked = peek.await?;
            self.check.tell(|check, now| {
                for message in &peeked.messages {
                    check.died(now, topic, &bytes(message.payload()));
                }
            });
            cursor = peeked.cursor;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }
}

/// What came of a receipt, in words and for the check.
fn of_receipt(result: Option<ReceiptResult>) -> (&'static str, Settled) {
    let Some(result) = result else {
        return ("no result", Settled::Unknown);
    };
    let settled = match result {
        ReceiptResult::Acked | ReceiptResult::AlreadyAcked => Settled::Done,
        ReceiptResult::StaleReceipt => Settled::NotDone,
        // No acknowledgement has these results.
        ReceiptResult::Returned | ReceiptResult::Extended => Settled::Unknown,
    };
    (result.name(), settled)
}

fn of_failure(fault: Fault) -> (&'static str, Settled) {
    match fault.unknown {
        true => (fault.code, Settled::Unknown),
        false => (fault.code, Settled::NotDone),
    }
}

/// The sequence that a message of a push was given; 0, which none has, if the answer names none.
fn seq(pushed: &Pushed, place: usize) -> u64 {
    let seq = match &pushed.results {
        Some(results) => results.get(place).map(|one| one.seq),
        None => pushed.seq,
    };
    seq.unwrap_or(0)
}

/// A payload that does not fit together is none that was pushed.
fn bytes(payload: Result<Value, String>) -> Vec<u8> {
    payload
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

/// Users that push, pop as many messages as they pushed, and acknowledge what they got.
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
