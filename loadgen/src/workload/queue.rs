//! Closed loop: users that push as fast as they can, or push, pop and acknowledge, each its own request.

use std::time::Duration;

use mufakat::client::Client;
use mufakat::protocol::queue::{Demand, Message, Pop, Push, Receipts, Verdict};
use mufakat::protocol::value::Value;
use tokio::time::Instant;

use super::resource::RunName;
use super::{Seat, Turn, Workload};
use crate::recorder::Operation;

const PUSH: Operation = Operation(0);
const POP: Operation = Operation(1);
const ACK: Operation = Operation(2);

/// Bytes of a payload.
const PAYLOAD_BYTES: usize = 100;

/// What both workloads need.
#[derive(Clone)]
pub struct Topics {
    pub run: RunName,
    /// How many topics the users share.
    pub count: u32,
    /// How long a request may take.
    pub timeout: Duration,
}

impl Topics {
    fn user(&self, kind: &str, seat: Seat) -> User {
        let topic = self
            .run
            .with(format!("{kind}.{}", seat.number % self.count));
        let timeout_ms = u64::try_from(self.timeout.as_millis()).ok();
        let payload = Value::text("x".repeat(PAYLOAD_BYTES));
        let pop = Pop {
            topic: topic.clone(),
            demand: Demand::new(format!("user-{}", seat.number)),
            timeout_ms,
        };
        let mut push = Push::one(topic, Message::new(payload));
        push.timeout_ms = timeout_ms;
        User {
            client: seat.client,
            push,
            pop,
        }
    }
}

/// One user's requests.
pub struct User {
    client: Client,
    push: Push,
    pop: Pop,
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
        turn.measure(PUSH, intended, user.client.push(&user.push))
            .await;
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
        let pushed = turn
            .measure(PUSH, intended, user.client.push(&user.push))
            .await;
        if pushed.is_none() {
            return;
        }
        let popped = turn
            .measure(POP, Instant::now(), user.client.pop(&user.pop))
            .await;
        let receipts = popped.into_iter().flat_map(|popped| popped.messages);
        let receipts: Vec<_> = receipts
            .filter_map(|message| message.receipt.parse().ok())
            .collect();
        if receipts.is_empty() {
            return;
        }
        let done = Receipts {
            topic: user.pop.topic.clone(),
            receipts,
            what: Verdict::Ack { pop: None },
            timeout_ms: user.pop.timeout_ms,
        };
        turn.measure(ACK, Instant::now(), user.client.settle(&done))
            .await;
    }
}
