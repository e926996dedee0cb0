//! The physical limit: raw NATS requests to the echo responder, by the same client code as the locks.

use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;
use mufakat::client::Requester;
use tokio::time::Instant;

use super::{Seat, Turn, Workload};
use crate::recorder::Operation;

const ECHO: Operation = Operation(0);

/// Users that each keep one request under way.
pub struct Echo {
    /// Where the responder listens.
    pub subject: Subject,
    /// What is sent, and sent back.
    pub payload: Bytes,
    /// How long a request waits for its answer.
    pub timeout: Duration,
}

impl Workload for Echo {
    type User = Requester;

    fn name(&self) -> &'static str {
        "echo"
    }

    fn operations(&self) -> &'static [&'static str] {
        &["echo"]
    }

    fn prepare(&self, seat: Seat) -> Self::User {
        seat.client.requester().clone()
    }

    async fn execute(&self, requester: &mut Self::User, intended: Instant, turn: &Turn) {
        let request = requester.request(self.subject.clone(), self.payload.clone(), self.timeout);
        turn.measure(ECHO, intended, request).await;
    }
}
