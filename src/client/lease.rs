//! Keeping a lock: one task that renews it until it is released or lost.
//!
//! The holder's own view of its lease errs on the safe side: it ends at *send time + ttl × (1 −
//! drift) − margin*, counted from before the request left. Renewals begin at a third of the lease
//! and are tried again until that moment; only then, or when a node says `not_holder`, the lock
//! counts as lost. Limit: the clock is the monotonic one, which stands still while the machine is
//! suspended; after a suspend, the next renewal finds out. Fencing tokens are for what is left.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::{Client, ClientError};
use crate::ids::Token;
use crate::protocol::Code;
use crate::protocol::lock::{Acquired, Release, Released, Renew};
use crate::time::{self, Instant};

/// Clocks of client and leader differ in rate by at most one part in so many.
const DRIFT_DIVISOR: u32 = 100;

/// Kept back from every lease, for noticing its end: at most this, and at most a tenth of it.
const MARGIN_MAX: Duration = Duration::from_millis(250);

/// The pause between renewals that fail; at most a tenth of the lease.
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(200);

/// A renewal is given up, and tried again, after this or a third of the lease.
const RENEW_TIMEOUT_MAX: Duration = Duration::from_secs(2);

/// Why a lease is over without having been released.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LeaseLost {
    /// A node says that the token is not that of a live hold.
    #[error("the cluster says that the lock is no longer held")]
    NotHolder,
    /// No renewal succeeded in time; the cluster may still count the lock as held for a moment.
    #[error("no renewal succeeded before the lease's end: {0}")]
    NotRenewed(String),
}

#[derive(Clone, Debug)]
enum State {
    /// Surely held until then.
    Held(Instant),
    Lost(LeaseLost),
}

/// A lock that is kept. Dropping it stops the renewals, and the lock ends with its lease; release
/// it to let the next one in at once.
#[derive(Debug)]
pub struct Lease {
    client: Client,
    acquired: Acquired,
    state: watch::Receiver<State>,
    renewer: JoinHandle<()>,
}

impl Lease {
    /// Keeps a lock that was asked for at `asked_at` with a lease of `ttl`.
    pub fn keep(client: Client, acquired: Acquired, ttl: Duration, asked_at: Instant) -> Self {
        // The grant cannot be earlier than the asking plus the wait, as the slower clock has it.
        let granted_at = asked_at + drifted(Duration::from_millis(acquired.waited_ms));
        let left = Duration::from_millis(acquired.expires_in_ms);
        let (sender, state) = watch::channel(State::Held(local_end(granted_at, left)));
        let renewer = Renewer {
            client: client.clone(),
            request: Renew::of(&acquired),
            ttl,
            state: sender,
        };
        let renewer = tokio::spawn(renewer.run());
        Lease {
            client,
            acquired,
            state,
            renewer,
        }
    }

    pub fn acquired(&self) -> &Acquired {
        &self.acquired
    }

    pub fn token(&self) -> Token {
        self.acquired.token
    }

    /// Until when the lock is surely held; it moves with each renewal. In the past once lost.
    pub fn held_until(&self) -> Instant {
        match &*self.state.borrow() {
            State::Held(until) => *until,
            State::Lost(_) => time::now(),
        }
    }

    /// Waits until `before` the moment at which the lock stops being surely held, or until it is
    /// known to be lost. Renewals put the moment off.
    pub async fn ending(&mut self, before: Duration) -> Option<LeaseLost> {
        loop {
            let until = match &*self.state.borrow_and_update() {
                State::Lost(why) => return Some(why.clone()),
                State::Held(until) => *until,
            };
            let ending = until.checked_sub(before).unwrap_or_else(time::now);
            tokio::select! {
                changed = self.state.changed() => changed.expect("the renewer ends only after a loss"),
                () = tokio::time::sleep_until(ending) => return None,
            }
        }
    }

    /// Waits until the lock is lost.
    pub async fn lost(&mut self) -> LeaseLost {
        let state = self
            .state
            .wait_for(|state| matches!(state, State::Lost(_)))
            .await
            .expect("the renewer ends only after a loss");
        match &*state {
            State::Lost(why) => why.clone(),
            State::Held(_) => unreachable!("waited for a loss"),
        }
    }

    /// Ends the hold and the renewals.
    ///
    /// # Errors
    /// As those of [`Client::release`]; the hold then ends with its lease.
    pub async fn release(self) -> Result<Released, ClientError> {
        self.renewer.abort();
        let request = Release::of(&self.acquired);
        self.client.release(&request).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewer.abort();
    }
}

struct Renewer {
    client: Client,
    request: Renew,
    ttl: Duration,
    state: watch::Sender<State>,
}

impl Renewer {
    async fn run(mut self) {
        let mut held_until = match &*self.state.borrow() {
            State::Held(until) => *until,
            State::Lost(_) => unreachable!("a lease starts as held"),
        };
        let mut renew_at = time::now() + (held_until - time::now()).min(self.ttl) / 3;
        let mut failure = String::from("no answer");
        loop {
            tokio::time::sleep_until(renew_at.min(held_until)).await;
            let sent_at = time::now();
            if sent_at >= held_until {
                self.state
                    .send_replace(State::Lost(LeaseLost::NotRenewed(failure)));
                return;
            }
            match self.renew_until(held_until).await {
                Ok(left) => {
                    held_until = local_end(sent_at, left);
                    self.state.send_replace(State::Held(held_until));
                    renew_at = sent_at + left / 3;
                }
                Err(error) if error.code() == Some(Code::NotHolder) => {
                    self.state.send_replace(State::Lost(LeaseLost::NotHolder));
                    return;
                }
                Err(error) => {
                    failure = error.to_string();
                    renew_at = time::now() + RETRY_PAUSE_MAX.min(self.ttl / 10);
                }
            }
        }
    }

    async fn renew_until(&mut self, held_until: Instant) -> Result<Duration, ClientError> {
        let left = held_until - time::now();
        let timeout = left.min(RENEW_TIMEOUT_MAX).min(self.ttl / 3);
        self.request.timeout_ms = Some((timeout.as_millis() as u64).max(1));
        let renewed = tokio::time::timeout(left, self.client.renew(&self.request))
            .await
            .map_err(|_| ClientError::from(crate::client::RequestError::TimedOut))??;
        Ok(Duration::from_millis(renewed.expires_in_ms))
    }
}

/// A length that the cluster measured, as the slower of two clocks has it.
fn drifted(length: Duration) -> Duration {
    length - length / DRIFT_DIVISOR
}

/// The end of a lease that surely had `left` to go at `from`.
fn local_end(from: Instant, left: Duration) -> Instant {
    from + drifted(left).saturating_sub(MARGIN_MAX.min(left / 10))
}
