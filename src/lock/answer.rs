//! Outcomes of the lock table as the wire says them.

use crate::lock::claim::{Grip, Wants};
use crate::lock::command::Asked;
use crate::lock::listing::{Room, cycle_within};
use crate::lock::outcome::{
    Acquired, Check, Contention, Deadlock, Ended, HolderView, LockView, Mode, Outcome, WaiterView,
};
use crate::protocol::lock as wire;
use crate::protocol::reply::{self, From, Rendered};
use crate::protocol::{Code, ErrorReply, Refusal, ReplyTo, admin, session};

/// How many owners the message of a deadlock names: it is one line, and goes into a header.
const OWNERS_NAMED_MAX: usize = 8;

/// Writes the reply to a command, and says with which code it is refused, if it is.
pub fn rendered(
    to: &ReplyTo,
    from: From,
    (asked, outcome): (Asked, Outcome),
) -> (Rendered, Option<Code>) {
    let success = match outcome {
        Outcome::Acquired(grant) => reply::success(to, from, &acquired(grant)),
        Outcome::Released => reply::success(to, from, &wire::Released { released: true }),
        Outcome::Renewed { expires_in_ms } => {
            reply::success(to, from, &wire::Renewed { expires_in_ms })
        }
        Outcome::Cancelled { cancelled, token } => {
            reply::success(to, from, &wire::Cancelled { cancelled, token })
        }
        Outcome::SessionOpened { session, ttl_ms } => {
            let opened = session::Opened {
                session: session.to_string(),
                ttl_ms,
                keepalive_ms: ttl_ms / session::KEEPALIVES_PER_TTL,
            };
            reply::success(to, from, &opened)
        }
        Outcome::SessionClosed(ended) => reply::success(to, from, &closed(*ended)),
        Outcome::ForceReleased(holders) => {
            let holders = holders.into_iter().map(wire_holder).collect();
            reply::success(to, from, &admin::LockReleased { holders })
        }
        refused => {
            let error = refusal(asked, refused);
            return (reply::failure(to, from, &error), Some(error.code));
        }
    };
    (success, None)
}

/// The error that stands for a refusal of the table.
pub fn refusal(asked: Asked, outcome: Outcome) -> Refusal {
    Box::new(match outcome {
        Outcome::Held(contention) => {
            let contention = of_others(asked, contention);
            let resource = &contention.resource;
            let message = match (contention.holders.first(), contention.delay_ms) {
                (Some(holder), _) => format!("`{resource}` is held by `{}`", holder.owner),
                (None, Some(_)) => format!("`{resource}` is closed after a session lost it"),
                (None, None) => format!("others wait for `{resource}`"),
            };
            contended(ErrorReply::new(Code::LockHeld, message), contention)
        }
        Outcome::WaitTimeout(contention) => {
            let message = format!("`{}` did not become free in time", contention.resource);
            let contention = of_others(asked, contention);
            contended(ErrorReply::new(Code::WaitTimeout, message), contention)
        }
        Outcome::WaitCancelled { resource } => {
            let message = format!("the wait for `{resource}` was cancelled");
            about(&resource, ErrorReply::new(Code::WaitTimeout, message))
        }
        Outcome::Deadlock(deadlock) => deadlocked(&deadlock),
        Outcome::AlreadyWaiting { resource } => {
            let message = format!(
                "the owner waits for `{resource}` already; an owner waits for one at a time"
            );
            about(&resource, ErrorReply::new(Code::AlreadyWaiting, message))
        }
        Outcome::NotHolder => ErrorReply::new(
            Code::NotHolder,
            "the token is not that of a live hold on the resource",
        ),
        Outcome::ModeConflict {
            resource,
            held,
            token,
        } => {
            let message = held_otherwise(held, asked.grip);
            ErrorReply {
                mode: Some(held),
                token: Some(token),
                ..about(&resource, ErrorReply::new(Code::ModeConflict, message))
            }
        }
        Outcome::Inconvertible => ErrorReply::new(
            Code::ModeConflict,
            "only a hold of one resource, exclusive or shared, can be converted",
        ),
        Outcome::LimitMismatch { resource, limit } => {
            let message = format!("others use `{resource}` with a limit of {limit}");
            ErrorReply {
                limit: Some(u64::from(limit)),
                ..about(&resource, ErrorReply::new(Code::LimitMismatch, message))
            }
        }
        Outcome::RequestMismatch { field } => {
            let message = format!("`request_id` was used before with another `{field}`");
            ErrorReply {
                field: Some(field),
                ..ErrorReply::new(Code::RequestMismatch, message)
            }
        }
        Outcome::Overloaded { what, limit } => ErrorReply::overloaded(&what, limit),
        Outcome::SessionNotFound { session } => session_not_found(&session),
        Outcome::SessionExpired { session } => session_expired(&session),
        Outcome::NotHeld { resource } => {
            let message = format!("nobody holds `{resource}`");
            about(&resource, ErrorReply::new(Code::NotFound, message))
        }
        Outcome::Acquired(_)
        | Outcome::Waiting
        | Outcome::Released
        | Outcome::Renewed { .. }
        | Outcome::Cancelled { .. }
        | Outcome::SessionOpened { .. }
        | Outcome::KeptAlive(_)
        | Outcome::SessionClosed(_)
        | Outcome::ForceReleased(_) => unreachable!("not a refusal"),
    })
}

pub fn session_not_found(session: &str) -> ErrorReply {
    let message = format!("there is no session `{session}`");
    ErrorReply::new(Code::SessionNotFound, message)
}

pub fn session_expired(session: &str) -> ErrorReply {
    let message = format!("session `{session}` is over");
    ErrorReply::new(Code::SessionExpired, message)
}

/// Without the hold that was to be converted.
fn of_others(asked: Asked, mut contention: Contention) -> Contention {
    let holders = &mut contention.holders;
    holders.retain(|holder| Some(holder.token) != asked.converts);
    contention
}

/// How what the owner holds differs from what it asks for.
fn held_otherwise(held: Mode, asked: Option<Grip>) -> String {
    let held_in = format!(
        "the owner holds the resource in mode {} already",
        held.name()
    );
    match asked {
        Some(grip) if grip.mode() != held => held_in,
        Some(Grip::Permits { permits, limit }) => {
            format!("{held_in}, but not {permits} of {limit} permits, or not by itself")
        }
        Some(_) => format!("{held_in}, together with others"),
        None => format!("{held_in}, and not together with exactly these"),
    }
}

fn about(resource: &str, error: ErrorReply) -> ErrorReply {
    ErrorReply {
        resource: Some(resource.to_owned()),
        ..error
    }
}

fn contended(error: ErrorReply, contention: Contention) -> ErrorReply {
    ErrorReply {
        holders: Some(contention.holders.into_iter().map(wire_holder).collect()),
        queue_length: Some(contention.queue_length),
        delay_ms: contention.delay_ms,
        ..about(&contention.resource, error)
    }
}

fn deadlocked(deadlock: &Deadlock) -> ErrorReply {
    let named = deadlock.cycle.iter().take(OWNERS_NAMED_MAX);
    let named: Vec<&str> = named.map(|edge| &*edge.owner).collect();
    let more = match deadlock.cycle.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!(
        "waiting would never end: {}{more} wait for one another",
        named.join(", ")
    );
    let (cycle, cycle_length) = cycle_within(deadlock, &mut Room::of_an_answer());
    ErrorReply {
        cycle,
        cycle_length,
        victim: Some(deadlock.victim.clone()),
        policy: Some(deadlock.policy),
        ..ErrorReply::new(Code::Deadlock, message)
    }
}

fn acquired(grant: Acquired) -> wire::Acquired {
    let (mut resource, mut resources) = (String::new(), Vec::new());
    let (mut mode, mut permits) = (None, None);
    match &grant.wants {
        Wants::One(want) => {
            resource = want.resource.to_string();
            (mode, permits) = (Some(want.grip.mode()), want.grip.permits());
        }
        Wants::Set(wants) => {
            let held = wants.iter().map(|want| wire::HeldResource {
                resource: want.resource.to_string(),
                mode: want.grip.mode(),
                permits: want.grip.permits(),
            });
            resources = held.collect();
        }
    }
    wire::Acquired {
        resource,
        resources,
        owner: grant.owner.to_string(),
        token: grant.token,
        mode,
        permits,
        expires_in_ms: grant.expires_in_ms,
        waited_ms: grant.waited_ms,
    }
}

/// The answer to `session.close`, as much as one message holds.
fn closed(ended: Ended) -> session::Closed {
    let mut room = Room::of_an_answer();
    let released = ended.released.iter().flat_map(|(wants, token)| {
        let named = wants.iter();
        named.map(|want| session::ReleasedResource {
            resource: want.resource.to_string(),
            token: *token,
        })
    });
    session::Closed {
        released: released
            .take_while(|released| room.take(released.resource.len()))
            .collect(),
        released_count: ended.released_count,
    }
}

fn wire_holder(holder: HolderView) -> wire::Holder {
    wire::Holder {
        owner: holder.owner.to_string(),
        token: holder.token,
        mode: holder.grip.mode(),
        permits: holder.grip.permits(),
        session: holder.session.as_deref().map(str::to_owned),
        expires_in_ms: holder.expires_in_ms,
        held_ms: holder.held_ms,
        meta: holder.meta.map(crate::protocol::meta::Meta::from_kept),
    }
}

fn wire_waiter(waiter: WaiterView) -> wire::Waiter {
    wire::Waiter {
        owner: waiter.owner.to_string(),
        mode: waiter.grip.mode(),
        permits: waiter.grip.permits(),
        session: waiter.session.as_deref().map(str::to_owned),
        waited_ms: waiter.waited_ms,
        request_id: waiter.request_id.as_deref().map(str::to_owned),
    }
}

/// The answer to `lock.get`.
pub fn view(view: LockView) -> wire::View {
    wire::View {
        holders: view.holders.into_iter().map(wire_holder).collect(),
        waiters: view.waiters.into_iter().map(wire_waiter).collect(),
        held: view.held,
        waiting: view.waiting,
        delay_ms: view.delay_ms,
    }
}

/// The answer to `lock.check`.
pub fn checked(check: Check) -> wire::Checked {
    let Check {
        valid,
        current_token,
        expires_in_ms,
    } = check;
    wire::Checked {
        valid,
        current_token,
        expires_in_ms,
    }
}
