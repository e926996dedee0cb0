//! What a transition wants done by the node that leads: plain values.

use std::sync::Arc;

use serde::Serialize;

use super::Name;
use super::outcome::{Deadlock, Mode, Outcome};
use crate::ids::Token;
use crate::protocol::{ReplyTo, Tenant};

/// What a transition wants done by the node that leads; the others drop it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A wait is over: tell the client.
    WaitEnded {
        reply: ReplyTo,
        /// How long it stood in the queue, in state time.
        waited_ms: u64,
        /// The hold that was to be converted, if it was a conversion that waited.
        converts: Option<Token>,
        outcome: Outcome,
    },
    Event(Event),
}

/// What watchers are told in JSON, under `<prefix>.event.<kind>`. Of a set, each resource has an
/// event of its own, with the same token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Event {
    Granted {
        resource: Name,
        owner: Name,
        token: Token,
        mode: Mode,
        waited_ms: u64,
    },
    Released {
        resource: Name,
        owner: Name,
        token: Token,
        held_ms: u64,
        /// Why somebody else than the holder ended it.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Name>,
    },
    Expired {
        resource: Name,
        owner: Name,
        token: Token,
        held_ms: u64,
    },
    Deadlock(Arc<Deadlock>),
    /// Somebody starts to wait for a resource that is held or has a queue.
    Contended {
        resource: Name,
        owner: Name,
        queue_length: u64,
    },
    SessionOpened {
        session: Name,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<Name>,
        ttl_ms: u64,
    },
    SessionExpired {
        session: Name,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<Name>,
        /// How many holds end with it.
        held: u64,
    },
    SessionClosed {
        session: Name,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<Name>,
        held: u64,
        /// Why an operator closed it.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Name>,
    },
}

impl Event {
    /// The last tokens of the subjects that watchers hear of events under.
    pub const KINDS: [&'static str; 8] = [
        "lock.granted",
        "lock.released",
        "lock.expired",
        "lock.deadlock",
        "lock.contended",
        "session.opened",
        "session.expired",
        "session.closed",
    ];

    /// The tenant whom it concerns, and nobody else but operators.
    pub fn tenant(&self) -> Option<Tenant> {
        match self {
            Event::Granted { resource, .. }
            | Event::Released { resource, .. }
            | Event::Expired { resource, .. }
            | Event::Contended { resource, .. } => Tenant::of_name(resource),
            Event::SessionOpened { session, .. }
            | Event::SessionExpired { session, .. }
            | Event::SessionClosed { session, .. } => Tenant::of_name(session),
            // Operators can tie the locks of several tenants together.
            Event::Deadlock(deadlock) => Tenant::of_name(&deadlock.victim).filter(|tenant| {
                let mut edges = deadlock.cycle.iter();
                edges.all(|edge| tenant.has(&edge.owner) && tenant.has(&edge.resource))
            }),
        }
    }

    /// The place of this event's kind in [`Event::KINDS`].
    pub fn kind_index(&self) -> usize {
        match self {
            Event::Granted { .. } => 0,
            Event::Released { .. } => 1,
            Event::Expired { .. } => 2,
            Event::Deadlock(_) => 3,
            Event::Contended { .. } => 4,
            Event::SessionOpened { .. } => 5,
            Event::SessionExpired { .. } => 6,
            Event::SessionClosed { .. } => 7,
        }
    }
}
