//! Keeping what ends by itself: one task that renews it until it is ended or lost.
//!
//! The client's own view of a lease errs on the safe side: it ends at *send time + length × (1 −
//! drift) − margin*, counted from before the request left, by the clock that counts suspend
//! ([`time::boot_now`]). Renewals begin at a third of the lease and are tried again until that moment,
//! each with a timeout below what is left; only then, or when a node says that it is over, it is lost.
//! A loss is final: what was once found lost is never vouched for again.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::{Client, ClientError, RequestError};
use crate::protocol::lock::Renew;
use crate::protocol::session::One;
use crate::time::{self, BootInstant};

/// Clocks of client and leader differ in rate by at most one part in so many.
const DRIFT_DIVISOR: u32 = 100;

/// Kept back from every lease, for noticing its end: at most this, and at most a tenth of it.
const MARGIN_MAX: Duration = Duration::from_millis(250);

/// The pause between renewals that fail; at most a tenth of the lease.
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(200);

/// A renewal is given up, and tried again, after this or a third of the lease.
const RENEW_TIMEOUT_MAX: Duration = Duration::from_secs(2);

/// How late a suspend of the machine is noticed by whoever waits for a loss. Timers stand still with
/// the machine, so that one look each is needed after it.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Why something is no longer held although nobody gave it back.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LeaseLost {
    /// A node says that the token is not that of a live hold, or that the session is over.
    #[error("the cluster says that it is over")]
    NotHolder,
    /// No renewal succeeded in time; the cluster may still count it as held for a moment.
    #[error("no renewal succeeded before the lease's end: {0}")]
    NotRenewed(String),
    /// This program closed the session that it lived with.
    #[error("its session was closed")]
    SessionClosed,
}

#[derive(Clone, Debug)]
enum State {
    /// Surely held until then.
    Held(BootInstant),
    Lost(LeaseLost),
}

/// How something is renewed.
#[derive(Debug)]
pub(super) enum Renewal {
    Lock(Renew),
    Session(One),
}

/// Something that is renewed in the background. Dropping it stops the renewals.
#[derive(Debug)]
pub(super) struct Kept {
    state: watch::Sender<State>,
    renewer: JoinHandle<()>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.renewer.abort();
    }
}

impl Kept {
    /// Keeps what surely has `left` to go at `from`, and gets `ttl` with each renewal.
    pub(super) fn start(
        client: Client,
        renewal: Renewal,
        ttl: Duration,
        (from, left): (BootInstant, Duration),
    ) -> Self {
        let until = local_end(from, left);
        let (state, _) = watch::channel(State::Held(until));
        let renewer = Renewer {
            client,
            renewal,
            ttl,
            state: state.clone(),
            failure: String::from("no answer"),
        };
        Kept {
            renewer: tokio::spawn(renewer.run(until)),
            state,
        }
    }

    /// Whether it is surely held at this moment.
    ///
    /// # Errors
    /// Once it is not, and ever after.
    pub(super) fn check(&self) -> Result<(), LeaseLost> {
        end_if_due(&self.state, "nobody renewed it");
        match &*self.state.borrow() {
            State::Held(_) => Ok(()),
            State::Lost(why) => Err(why.clone()),
        }
    }

    /// Ends the renewals; from now on it counts as lost.
    pub(super) fn end(&self, why: LeaseLost) {
        self.renewer.abort();
        self.state.send_replace(State::Lost(why));
    }

    /// How long it is surely held from now on, if it is not renewed; zero once lost.
    pub(super) fn left(&self) -> Duration {
        match &*self.state.borrow() {
            State::Held(until) => time::boot_now().until(*until),
            State::Lost(_) => Duration::ZERO,
        }
    }

    /// Waits until `before` the moment at which it stops being surely held, or until it is known to
    /// be lost, which is returned then. Renewals put the moment off.
    pub(super) async fn ending(&self, before: Duration) -> Option<LeaseLost> {
        let mut state = self.state.subscribe();
        loop {
            let left = match &*state.borrow_and_update() {
                State::Lost(why) => return Some(why.clone()),
                State::Held(until) => time::boot_now().until(*until),
            };
            if left <= before {
                return None;
            }
            tokio::select! {
                changed = state.changed() => changed.expect("this has a sender"),
                () = tokio::time::sleep((left - before).min(LOOK_EVERY)) => {}
            }
        }
    }

    /// Waits until it is lost.
    pub(super) async fn lost(&self) -> LeaseLost {
        let mut state = self.state.subscribe();
        let lost = state.wait_for(|state| matches!(state, State::Lost(_)));
        match &*lost.await.expect("this has a sender") {
            State::Lost(why) => why.clone(),
            State::Held(_) => unreachable!("waited for a loss"),
        }
    }
}

/// What is held no longer becomes lost; says whether it is lost.
fn end_if_due(state: &watch::Sender<State>, failure: &str) -> bool {
    let now = time::boot_now();
    state.send_if_modified(|state| match state {
        State::Held(until) if *until <= now => {
            *state = State::Lost(LeaseLost::NotRenewed(failure.to_owned()));
            true
        }
        _ => false,
    });
    matches!(*state.borrow(), State::Lost(_))
}

struct Renewer {
    client: Client,
    renewal: Renewal,
    ttl: Duration,
    state: watch::Sender<State>,
    /// Why the last renewal failed.
    failure: String,
}

impl Renewer {
    async fn run(mut self, mut held_until: BootInstant) {
        let left = time::boot_now().until(held_until);
        let mut renew_at = time::boot_now() + left.min(self.ttl) / 3;
        loop {
            let until_next = time::boot_now().until(renew_at.min(held_until));
            tokio::time::sleep(until_next.min(LOOK_EVERY)).await;
            if end_if_due(&self.state, &self.failure) {
                return;
            }
            let sent_at = time::boot_now();
            if sent_at < renew_at {
                continue;
            }
            let Some(renewed) = self.renew(sent_at.until(held_until)).await else {
                return;
            };
            match renewed {
                Ok(left) => {
                    held_until = local_end(sent_at, left);
                    if self.is_lost_or_held_until(held_until) {
                        return;
                    }
                    renew_at = sent_at + left / 3;
                }
                Err(error) if error.is_over() => {
                    self.state.send_replace(State::Lost(LeaseLost::NotHolder));
                    return;
                }
                Err(error) => {
                    self.failure = error.to_string();
                    renew_at = time::boot_now() + RETRY_PAUSE_MAX.min(self.ttl / 10);
                }
            }
        }
    }

    /// A renewal that comes after the end was noticed changes nothing any more.
    fn is_lost_or_held_until(&self, later: BootInstant) -> bool {
        end_if_due(&self.state, &self.failure)
            || !self.state.send_if_modified(|state| match state {
                State::Held(until) => {
                    *until = later;
                    true
                }
                State::Lost(_) => false,
            })
    }

    /// Asks once for a renewal, and tells how long it then has to go. None if it is found lost before the
    /// answer comes: that is looked at all the while, as the request's timers stand still with the machine.
    async fn renew(&mut self, left: Duration) -> Option<Result<Duration, ClientError>> {
        let timeout = left.min(RENEW_TIMEOUT_MAX).min(self.ttl / 3);
        let timeout_ms = Some((timeout.as_millis() as u64).max(1));
        let Renewer {
            client,
            renewal,
            state,
            failure,
            ..
        } = self;
        let renewed = async {
            match renewal {
                Renewal::Lock(request) => {
                    request.timeout_ms = timeout_ms;
                    let renewed = client.renew(request).await;
                    renewed.map(|renewed| renewed.expires_in_ms)
                }
                Renewal::Session(request) => {
                    request.timeout_ms = timeout_ms;
                    let kept = client.session_keepalive(request).await;
                    kept.map(|kept| kept.expires_in_ms)
                }
            }
        };
        let mut renewed = pin!(tokio::time::timeout(left, renewed));
        loop {
            tokio::select! {
                renewed = &mut renewed => {
                    let timed_out = |_| Err(ClientError::from(RequestError::TimedOut));
                    return Some(renewed.unwrap_or_else(timed_out).map(Duration::from_millis));
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if end_if_due(state, failure) {
                return None;
            }
        }
    }
}

/// A length that the cluster measured, as the slower of two clocks has it.
pub(super) fn drifted(length: Duration) -> Duration {
    length - length / DRIFT_DIVISOR
}

/// The end of a lease that surely had `left` to go at `from`.
fn local_end(from: BootInstant, left: Duration) -> BootInstant {
    from + drifted(left).saturating_sub(MARGIN_MAX.min(left / 10))
}
