//! The scenario of the original prototype: acquire, hold, release, and two `status` requests per acquire.
//!
//! A release is meant for the end of the hold, and its latency counts from there. The original's users also
//! paused between requests; `think` is that pause, before each acquire and each status request.

use std::time::Duration;

use tokio::time::Instant;

use super::resource::{OwnLock, RunName};
use super::{Seat, Turn, Workload};
use crate::recorder::Operation;

const ACQUIRE: Operation = Operation(0);
const RELEASE: Operation = Operation(1);
const STATUS: Operation = Operation(2);

/// The original asked for the status twice as often as for a lock.
const STATUS_PER_ACQUIRE: u32 = 2;

/// Users that each hold a lock of their own for a while.
pub struct Reference {
    pub run: RunName,
    /// How long a lock is held.
    pub hold: Duration,
    /// Pause before each acquire and each status request; zero for none.
    pub think: Duration,
    /// How long a request may take.
    pub timeout: Duration,
}

impl Workload for Reference {
    type User = OwnLock;

    fn name(&self) -> &'static str {
        "reference"
    }

    fn operations(&self) -> &'static [&'static str] {
        &["lock.acquire", "lock.release", "status"]
    }

    fn prepare(&self, seat: Seat) -> Self::User {
        OwnLock::new(&self.run, seat, self.timeout)
    }

    async fn execute(&self, lock: &mut Self::User, intended: Instant, turn: &Turn) {
        let intended = self.think(intended, turn).await;
        if let Some(acquired) = turn.measure(ACQUIRE, intended, lock.acquire()).await {
            let release_at = turn.pacer.pause(Instant::now(), self.hold).await;
            turn.measure(RELEASE, release_at, lock.release(acquired))
                .await;
        }
        for _ in 0..STATUS_PER_ACQUIRE {
            let intended = self.think(Instant::now(), turn).await;
            turn.measure(STATUS, intended, lock.client().status()).await;
        }
    }
}

impl Reference {
    async fn think(&self, since: Instant, turn: &Turn) -> Instant {
        if self.think.is_zero() {
            since
        } else {
            turn.pacer.pause(since, self.think).await
        }
    }
}
