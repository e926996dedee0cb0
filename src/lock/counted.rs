//! What is counted of what happens to locks.

use super::event::{Effect, Event};
use super::outcome::Outcome;
use crate::stats::{LockStats, WaitEnd};

/// Counts what a transition wants done; called where it is done, on the node that leads.
pub fn count(stats: &LockStats, effect: &Effect) {
    match effect {
        Effect::WaitEnded {
            waited_ms, outcome, ..
        } => stats.wait_ended(end_of(outcome), *waited_ms),
        Effect::Event(event) => match event {
            Event::Granted { .. } => drop(stats.granted.inc()),
            Event::Released { held_ms, .. } => {
                stats.released.inc();
                stats.hold_ms.observe(*held_ms);
            }
            Event::Expired { held_ms, .. } => {
                stats.expired.inc();
                stats.hold_ms.observe(*held_ms);
            }
            Event::Deadlock(_) => drop(stats.deadlocks.inc()),
            Event::Contended { .. } => drop(stats.waits_started.inc()),
            Event::SessionOpened { .. } => drop(stats.sessions_opened.inc()),
            Event::SessionExpired { .. } => drop(stats.sessions_expired.inc()),
            Event::SessionClosed { .. } => drop(stats.sessions_closed.inc()),
        },
    }
}

fn end_of(outcome: &Outcome) -> WaitEnd {
    match outcome {
        Outcome::Acquired(_) => WaitEnd::Granted,
        Outcome::WaitTimeout(_) => WaitEnd::WaitTimeout,
        Outcome::WaitCancelled { .. } => WaitEnd::Cancelled,
        Outcome::Deadlock(_) => WaitEnd::Deadlock,
        Outcome::SessionExpired { .. } => WaitEnd::SessionExpired,
        Outcome::NotHolder => WaitEnd::NotHolder,
        other => unreachable!("no wait ends with {other:?}"),
    }
}
