//! Users that ask for the status: the cheapest request that a node answers by itself.

use std::time::Duration;

use mufakat::client::{Client, ClientError, RequestError};
use tokio::time::Instant;

use super::{Seat, Turn, Workload};
use crate::recorder::Operation;

const STATUS: Operation = Operation(0);

/// Users that ask for the status again and again.
pub struct Status {
    /// How long a request may take.
    pub timeout: Duration,
}

impl Workload for Status {
    type User = Client;

    fn name(&self) -> &'static str {
        "status"
    }

    fn operations(&self) -> &'static [&'static str] {
        &["status"]
    }

    fn prepare(&self, seat: Seat) -> Client {
        seat.client
    }

    async fn execute(&self, client: &mut Client, intended: Instant, turn: &Turn) {
        let request = async {
            // The request itself has no field for a timeout.
            let answer = tokio::time::timeout(self.timeout, client.status()).await;
            answer.unwrap_or(Err(ClientError::from(RequestError::TimedOut)))
        };
        turn.measure(STATUS, intended, request).await;
    }
}
