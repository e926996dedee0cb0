//! Closed loop: each user acquires and releases its own lock as fast as it can.

use std::time::Duration;

use tokio::time::Instant;

use super::resource::{OwnLock, RunName};
use super::{Seat, Turn, Workload};
use crate::recorder::Operation;

const ACQUIRE: Operation = Operation(0);
const RELEASE: Operation = Operation(1);

/// Users that each acquire and release a lock of their own.
pub struct Locks {
    pub run: RunName,
    /// How long a request may take.
    pub timeout: Duration,
}

impl Workload for Locks {
    type User = OwnLock;

    fn name(&self) -> &'static str {
        "locks"
    }

    fn operations(&self) -> &'static [&'static str] {
        &["lock.acquire", "lock.release"]
    }

    fn prepare(&self, seat: Seat) -> Self::User {
        OwnLock::new(&self.run, seat, self.timeout)
    }

    async fn execute(&self, lock: &mut Self::User, intended: Instant, turn: &Turn) {
        let Some(acquired) = turn.measure(ACQUIRE, intended, lock.acquire()).await else {
            return;
        };
        turn.measure(RELEASE, Instant::now(), lock.release(acquired))
            .await;
    }
}
