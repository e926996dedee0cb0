//! What a transition wants done by the node that leads: plain values.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::Name;
use super::listing::{Room, cycle_within};
use super::outcome::{CycleEdge, Deadlock, DeadlockPolicy, Mode, Outcome};
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
    /// Told as far as one message holds it.
    Deadlock(#[serde(serialize_with = "within_a_message")] Arc<Deadlock>),
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

fn within_a_message<S: Serializer>(deadlock: &Deadlock, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Told<'a> {
        cycle: Vec<CycleEdge>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cycle_length: Option<u64>,
        victim: &'a str,
        policy: DeadlockPolicy,
    }
    let (cycle, cycle_length) = cycle_within(deadlock, &mut Room::of_an_answer());
    let told = Told {
        cycle,
        cycle_length,
        victim: &deadlock.victim,
        policy: deadlock.policy,
    };
    told.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lock::outcome::Because;

    /// What a broker carries in one message if it is told nothing else.
    const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

    fn ring(owners: usize, width: usize) -> Event {
        let name = |number: usize| format!("{:o>width$}", number % owners);
        let edge = |number: usize| CycleEdge {
            owner: name(number).into(),
            holds: Some(name(number).into()),
            token: Some(Token(number as u64 + 1)),
            waits_for_owner: name(number + 1).into(),
            resource: name(number + 1).into(),
            because: Because::Holder,
        };
        Event::Deadlock(Arc::new(Deadlock {
            cycle: (0..owners).map(edge).collect(),
            victim: name(0),
            policy: DeadlockPolicy::Requester,
        }))
    }

    #[test]
    fn a_deadlock_is_told_as_far_as_a_message_holds_it() {
        let told = serde_json::to_vec(&ring(1_200, 210)).expect("events encode");
        assert!(told.len() < MESSAGE_BYTES_MAX, "{} bytes", told.len());
        let told: serde_json::Value = serde_json::from_slice(&told).expect("JSON");
        assert_eq!(told["cycle_length"], 1_200);
        assert!(told["cycle"].as_array().expect("a list").len() > 500);

        let told = serde_json::to_value(ring(2, 1)).expect("events encode");
        let edge = |own: &str, next: &str, token: u64| {
            json!({
                "owner": own, "holds": own, "token": token,
                "waits_for_owner": next, "resource": next, "because": "holder",
            })
        };
        let whole = json!({
            "cycle": [edge("0", "1", 1), edge("1", "0", 2)],
            "victim": "0",
            "policy": "requester",
        });
        assert_eq!(told, whole);
    }
}
