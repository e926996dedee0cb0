//! A lock that is kept, and the guard of what it protects.
//!
//! A [`Lease`] vouches for its lock: [`check`](Lease::check) says whether the lock is surely held at
//! this very moment, by a clock that counts suspend, and [`lost`](Lease::lost) ends when it is not any
//! more. What it once found lost stays lost. Limit: between a check and the write that it allows, the
//! program may be stopped for longer than the lease; for that, what is written to compares
//! [`token`](Lease::token)s.

use std::future::Future;
use std::time::Duration;

use crate::client::kept::{Kept, LeaseLost, Renewal, drifted};
use crate::client::{Client, ClientError};
use crate::ids::Token;
use crate::protocol::lock::{Acquired, Release, Released, Renew};
use crate::time::BootInstant;

/// A lock that is kept. Dropping it stops the renewals, and the lock ends with its lease; release
/// it to let the next one in at once.
#[derive(Debug)]
pub struct Lease {
    client: Client,
    acquired: Acquired,
    kept: Kept,
}

impl Lease {
    /// Keeps a lock that was asked for at `asked_at` with a lease of `ttl`.
    pub(super) fn keep(
        client: Client,
        acquired: Acquired,
        ttl: Duration,
        asked_at: BootInstant,
    ) -> Self {
        // The grant cannot be earlier than the asking plus the wait, as the slower clock has it.
        let granted_at = asked_at + drifted(Duration::from_millis(acquired.waited_ms));
        let left = Duration::from_millis(acquired.expires_in_ms);
        let renew = Renew::of(&acquired);
        let renewal = Renewal::Lock(renew);
        Lease {
            kept: Kept::start(client.clone(), renewal, ttl, (granted_at, left)),
            client,
            acquired,
        }
    }

    pub fn acquired(&self) -> &Acquired {
        &self.acquired
    }

    pub fn token(&self) -> Token {
        self.acquired.token
    }

    /// Whether the lock is surely held at this moment: look right before each use of what it protects.
    ///
    /// # Errors
    /// From the moment on at which nobody can vouch for the lock.
    pub fn check(&self) -> Result<(), LeaseLost> {
        self.kept.check()
    }

    /// How long the lock is surely held from now on, if no renewal succeeds: a bound for the timeouts
    /// of what is done under it. Zero once it is lost.
    pub fn left(&self) -> Duration {
        self.kept.left()
    }

    /// Waits until `before` the moment at which the lock stops being surely held, or until it is
    /// known to be lost, which is returned then. Renewals put the moment off.
    pub async fn ending(&self, before: Duration) -> Option<LeaseLost> {
        self.kept.ending(before).await
    }

    /// Waits until the lock is lost.
    pub async fn lost(&self) -> LeaseLost {
        self.kept.lost().await
    }

    /// Runs `work` as long as the lock is held; drops it in the midst if the lock is lost.
    ///
    /// # Errors
    /// When the lock was lost before the work was done.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> Result<T, LeaseLost> {
        tokio::select! {
            biased;
            why = self.lost() => Err(why),
            done = work => self.check().map(|()| done),
        }
    }

    /// Ends the hold and the renewals.
    ///
    /// # Errors
    /// As those of [`Client::release`]; the hold then ends with its lease.
    pub async fn release(self) -> Result<Released, ClientError> {
        let Lease {
            client,
            acquired,
            kept,
        } = self;
        drop(kept);
        let request = Release::of(&acquired);
        client.release(&request).await
    }
}
