//! A lock that is kept, and the guard of what it protects.
//!
//! A [`Lease`] vouches for its lock: [`check`](Lease::check) says whether the lock is surely held at
//! this very moment, by a clock that counts suspend, and [`lost`](Lease::lost) ends when it is not any
//! more. What it once found lost stays lost. Limit: between a check and the write that it allows, the
//! program may be stopped for longer than the lease; for that, what is written to compares
//! [`token`](Lease::token)s.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;

use crate::client::kept::{Kept, LeaseLost, Renewal, drifted};
use crate::client::{Client, ClientError};
use crate::ids::Token;
use crate::protocol::lock::{Acquire, Acquired, Release, Released, Renew, TTL_MS_DEFAULT};
use crate::time;

/// A lock that is kept, be it one resource or several. Dropping it stops the renewals, and the lock
/// ends with its lease or its session; release it to let the next one in at once.
#[derive(Debug)]
pub struct Lease {
    client: Client,
    acquired: Acquired,
    /// At least one: what renews the lock, the session that it lives with, or both.
    kept: Vec<Arc<Kept>>,
}

impl Client {
    /// Asks for a lock as [`Client::acquire`] does, under an id also without a wait, and keeps it. May be
    /// dropped as that. With a session in the request it
    /// vouches for no longer than that is kept alive by somebody: [`Session::acquire`] knows that.
    ///
    /// [`Session::acquire`]: super::Session::acquire
    ///
    /// # Errors
    /// As those of [`Client::acquire`].
    pub async fn acquire_lease(&self, request: &Acquire) -> Result<Lease, ClientError> {
        self.keep_acquired(request, None).await
    }

    pub(super) async fn keep_acquired(
        &self,
        request: &Acquire,
        session: Option<Arc<Kept>>,
    ) -> Result<Lease, ClientError> {
        let asked_at = time::boot_now();
        let acquired = self.acquire_by_id(request).await?;
        let mut kept: Vec<Arc<Kept>> = session.into_iter().collect();
        // A lock without a lease of its own is kept by its session alone.
        if kept.is_empty() || request.ttl_ms.is_some() {
            // The grant cannot be earlier than the asking plus the wait, as the slower clock has it.
            let granted_at = asked_at + drifted(Duration::from_millis(acquired.waited_ms));
            let left = Duration::from_millis(acquired.expires_in_ms);
            let ttl = Duration::from_millis(request.ttl_ms.unwrap_or(TTL_MS_DEFAULT));
            let renewal = Renewal::Lock(Renew::of(&acquired));
            let lasts = (granted_at, left);
            kept.push(Arc::new(Kept::start(self.clone(), renewal, ttl, lasts)));
        }
        Ok(Lease {
            client: self.clone(),
            acquired,
            kept,
        })
    }
}

impl Lease {
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
        self.kept.iter().try_for_each(|kept| kept.check())
    }

    /// How long the lock is surely held from now on, if no renewal succeeds: a bound for the timeouts
    /// of what is done under it. Zero once it is lost.
    pub fn left(&self) -> Duration {
        let left = self.kept.iter().map(|kept| kept.left());
        left.min().unwrap_or_default()
    }

    /// Waits until `before` the moment at which the lock stops being surely held, or until it is
    /// known to be lost, which is returned then. Renewals put the moment off.
    pub async fn ending(&self, before: Duration) -> Option<LeaseLost> {
        let ending = self.kept.iter().map(|kept| Box::pin(kept.ending(before)));
        select_all(ending).await.0
    }

    /// Waits until the lock is lost.
    pub async fn lost(&self) -> LeaseLost {
        let lost = self.kept.iter().map(|kept| Box::pin(kept.lost()));
        select_all(lost).await.0
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

    /// Ends the hold and its renewals; a session goes on.
    ///
    /// # Errors
    /// As those of [`Client::release`]; the hold then ends with its lease or its session.
    pub async fn release(self) -> Result<Released, ClientError> {
        let Lease {
            client,
            acquired,
            kept,
        } = self;
        drop(kept);
        client.release(&Release::of(&acquired)).await
    }
}
