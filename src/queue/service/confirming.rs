//! How durable a push became, before its client hears of it.
//!
//! Where Redis has replicas its own fsync is half of it: the answer waits until they have said that they
//! have the push on their disks, a second at most, and not longer than its client waits. It says what was reached, also
//! when that is less.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::answers::Body;
use super::{Shape, Shared, Ticket};
use crate::protocol::Refusal;
use crate::protocol::error::{Code, ErrorReply, Outcome};
use crate::protocol::queue::{DurabilityReached, Pushed, PushedOne};
use crate::protocol::status::{Durability, DurabilitySource};
use crate::queue::durability::Copies;
use crate::queue::owner::Told;
use crate::queue::script::Stored;
use crate::queue::store::{RedisStatus, Route};
use crate::time;

/// Calls whose pushes wait for replicas; those of further calls are told at once, as less durable.
const CONFIRMING_MAX: usize = 1_024;

/// What is told of one push: sequence numbers, and whether the ids were known.
type Taken = Vec<(u64, bool)>;

impl Shared {
    /// Tells clients what became of a call that went this way; of pushes only when it is known how durable
    /// they are.
    pub(super) fn tell_all(
        self: &Arc<Self>,
        topic: &Arc<str>,
        told: Vec<(Ticket, Told)>,
        route: Route,
    ) {
        let status = route.status();
        let replicas = status.replicas;
        let mut pushed = Vec::new();
        for (ticket, told) in told {
            match told {
                Told::Pushed(Some(taken)) if replicas > 0 => pushed.push((ticket, taken)),
                Told::Pushed(Some(taken)) => self.tell_pushed(&ticket, taken, inspected(&status)),
                told => self.tell(topic, ticket, told),
            }
        }
        if pushed.is_empty() {
            return;
        }
        let before = self.confirming.fetch_add(1, Ordering::AcqRel);
        let shared = self.clone();
        tokio::spawn(async move {
            let reached = async {
                match before < CONFIRMING_MAX {
                    true => confirmed(&route, replicas).await,
                    false => less_than_confirmed(),
                }
            };
            let reached = reached.shared();
            let telling = pushed.into_iter().map(async |(ticket, taken)| {
                let reached = tokio::time::timeout_at(ticket.deadline, reached.clone()).await;
                let reached = reached.unwrap_or_else(|_| less_than_confirmed());
                shared.tell_pushed(&ticket, taken, reached);
            });
            join_all(telling).await;
            shared.confirming.fetch_sub(1, Ordering::AcqRel);
        });
    }

    fn tell_pushed(&self, ticket: &Ticket, taken: Taken, reached: DurabilityReached) {
        let Shape::Push {
            ids,
            batch,
            required,
        } = &ticket.shape
        else {
            unreachable!("the ticket of a push says what was pushed");
        };
        if let Some(required) = required.filter(|required| reached.level.rank() < required.rank()) {
            // What was found when it came has not lasted.
            let refusal = unavailable(required, reached.level).with_outcome(Outcome::Applied);
            self.refuse_ticket(ticket, &refusal);
            return;
        }
        let results = ids
            .iter()
            .zip(taken)
            .map(|(id, (seq, duplicate))| PushedOne {
                id: Stored::id_of(id.as_deref(), seq),
                seq,
                duplicate,
            });
        let mut results: Vec<PushedOne> = results.collect();
        let pushed = match batch {
            true => Pushed {
                id: None,
                seq: None,
                duplicate: None,
                results: Some(results),
                durability: reached,
            },
            false => {
                let one = results.pop().expect("a push has a message");
                Pushed {
                    id: Some(one.id),
                    seq: Some(one.seq),
                    duplicate: Some(one.duplicate),
                    results: None,
                    durability: reached,
                }
            }
        };
        self.send(ticket, &Body::Pushed(pushed));
    }
}

/// What a write survives that is no matter of replicas.
fn inspected(status: &RedisStatus) -> DurabilityReached {
    let server = status.server.as_ref();
    DurabilityReached {
        level: status.durability,
        source: status.source,
        checked_at_ms: server.map_or(0, |server| server.checked_at_ms),
    }
}

async fn confirmed(route: &Route, replicas: u64) -> DurabilityReached {
    match route.copies(replicas).await {
        Copies::Fsynced => DurabilityReached {
            level: Durability::Fsync,
            source: DurabilitySource::Confirmed,
            checked_at_ms: time::unix_ms(),
        },
        Copies::Behind | Copies::Untold => less_than_confirmed(),
    }
}

/// The server itself has fsynced; but another one may take its place.
fn less_than_confirmed() -> DurabilityReached {
    DurabilityReached {
        level: Durability::Interval,
        source: DurabilitySource::Inspected,
        checked_at_ms: time::unix_ms(),
    }
}

pub(super) fn unavailable(wanted: Durability, reached: Durability) -> Refusal {
    let message = format!(
        "`{}` is required, and Redis offers `{}` now; `status` says why",
        wanted.name(),
        reached.name()
    );
    ErrorReply::new(Code::DurabilityUnavailable, message).into()
}
