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
            let message = held_message(asked, &contention);
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
            "no live hold on the resource has this token or `request_id`: it has ended, or there was none",
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
        Outcome::Overloaded { what, limit } => ErrorReply::overloaded(counted_by(&what), limit),
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

/// What a limit counts, in words; `limit` is the field of [`Limits`](super::limits::Limits).
fn counted_by(limit: &str) -> &str {
    match limit {
        "waiters" => "waiting requests",
        "waiters_per_tenant" => "waiting requests of this account",
        "waiters_per_resource" => "waiting requests for this lock",
        "claims" => "holders and waiting requests",
        "claims_per_tenant" => "holders and waiting requests of this account",
        "claims_per_resource" => "holders and waiting requests of this lock",
        "claims_per_session" => "holds and waiting requests of this session",
        "bytes" => "bytes of locks, waiting requests, sessions and remembered request ids",
        "bytes_per_tenant" => {
            "bytes of locks, waiting requests, sessions and remembered request ids of this account"
        }
        "sessions_per_tenant" => "sessions of this account",
        "request_ids" => "remembered request ids",
        "request_ids_per_tenant" => "remembered request ids of this account",
        other => other,
    }
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

/// What is in the way. Holders that share are not in the way of one who would share, too.
fn held_message(asked: Asked, contention: &Contention) -> String {
    let (resource, holders) = (&contention.resource, &contention.holders);
    let shares = |grip| grip == Grip::Shared;
    let would_share = asked.grip.is_some_and(shares);
    let in_the_way = holders.iter().find(|h| !(would_share && shares(h.grip)));
    match (in_the_way, contention.delay_ms) {
        (Some(holder), None) => format!("`{resource}` is held by `{}`", holder.owner),
        (Some(holder), Some(_)) => format!(
            "`{resource}` is held by `{}`, and closed after a session lost it",
            holder.owner
        ),
        (None, Some(_)) => format!("`{resource}` is closed after a session lost it"),
        (None, None) => format!("others wait for `{resource}`"),
    }
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
        None => format!("{held_in}, and not as it was asked for"),
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
        "deadlock: {}{more} would wait for one another",
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
    let mut released = Vec::new();
    let mut truncated = (ended.released.len() as u64) < ended.released_count;
    let named = ended.released.iter();
    for (want, token) in named.flat_map(|(wants, token)| wants.iter().map(move |w| (w, token))) {
        if !room.take(want.resource.len()) {
            truncated = true;
            break;
        }
        released.push(session::ReleasedResource {
            resource: want.resource.to_string(),
            token: *token,
        });
    }
    session::Closed {
        released,
        released_count: ended.released_count,
        truncated,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Token;
    use crate::lock::claim::Want;

    fn held(asked: Option<Grip>, grips: &[Grip], delay_ms: Option<u64>) -> String {
        let holder = |grip: &Grip| HolderView {
            owner: "h".into(),
            token: Token(1),
            grip: *grip,
            session: None,
            expires_in_ms: 1,
            held_ms: 1,
            meta: None,
        };
        let contention = Contention {
            resource: "r".into(),
            holders: grips.iter().map(holder).collect(),
            queue_length: 0,
            delay_ms,
        };
        let asked = Asked {
            grip: asked,
            converts: None,
        };
        refusal(asked, Outcome::Held(contention))
            .message
            .into_owned()
    }

    #[test]
    fn a_refusal_says_what_is_in_the_way() {
        let (exclusive, shared) = (Grip::Exclusive, Grip::Shared);
        let by_holder = "`r` is held by `h`";
        let by_delay = "`r` is closed after a session lost it";
        let by_both = "`r` is held by `h`, and closed after a session lost it";
        assert_eq!(held(Some(shared), &[exclusive], None), by_holder);
        assert_eq!(held(Some(exclusive), &[shared], None), by_holder);
        assert_eq!(held(Some(exclusive), &[shared], Some(5)), by_both);
        assert_eq!(held(None, &[shared], Some(5)), by_both);
        assert_eq!(held(Some(shared), &[shared], Some(5)), by_delay);
        assert_eq!(held(Some(exclusive), &[], Some(5)), by_delay);
        assert_eq!(held(Some(shared), &[shared], None), "others wait for `r`");
    }

    #[test]
    fn what_is_held_otherwise_is_told_as_far_as_it_is_known() {
        let told = |grip| held_otherwise(Mode::Shared, grip);
        let held = "the owner holds the resource in mode shared already";
        assert_eq!(told(Some(Grip::Exclusive)), held);
        assert_eq!(
            told(Some(Grip::Shared)),
            format!("{held}, together with others")
        );
        assert_eq!(told(None), format!("{held}, and not as it was asked for"));
    }

    /// Holds of so many resources each, of which the answer is to name all or not.
    fn closing(holds: u64, resources: usize, width: usize) -> session::Closed {
        let want = |number: usize| Want {
            resource: format!("{number:0>width$}").into(),
            grip: Grip::Exclusive,
        };
        let wants = Wants::Set((0..resources).map(want).collect());
        closed(Ended {
            released: (1..=holds.min(1_000))
                .map(|token| (wants.clone(), Token(token)))
                .collect(),
            released_count: holds,
        })
    }

    #[test]
    fn the_answer_to_a_close_says_whether_it_names_everything() {
        let all = closing(2, 3, 1);
        assert_eq!((all.released.len(), all.released_count), (6, 2));
        assert!(!all.truncated);

        let too_many = closing(1_001, 1, 4);
        assert_eq!(
            (too_many.released.len(), too_many.released_count),
            (1_000, 1_001)
        );
        assert!(too_many.truncated);

        // Fewer holds than are named, of more resources than an answer holds.
        let too_long = closing(500, 32, 200);
        assert!(too_long.released.len() > 500 && too_long.truncated);
    }
}
