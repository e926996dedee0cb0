//! Outcomes of the lock table as the wire says them.

use crate::lock::command::{
    Check, Contention, Deadlock, HolderView, LockView, Outcome, WaiterView,
};
use crate::protocol::lock as wire;
use crate::protocol::reply::{self, From, Rendered};
use crate::protocol::{Code, Encoding, ErrorReply, Refusal};

/// Writes the reply to a command, and says with which code it is refused, if it is.
pub fn rendered(encoding: Encoding, from: From, outcome: Outcome) -> (Rendered, Option<Code>) {
    let success = match outcome {
        Outcome::Acquired(acquired) => reply::success(encoding, from, &acquired),
        Outcome::Released => reply::success(encoding, from, &wire::Released { released: true }),
        Outcome::Renewed { expires_in_ms } => {
            reply::success(encoding, from, &wire::Renewed { expires_in_ms })
        }
        refused => {
            let error = refusal(refused);
            return (reply::failure(encoding, from, &error), Some(error.code));
        }
    };
    (success, None)
}

/// The error that stands for a refusal of the table.
fn refusal(outcome: Outcome) -> Refusal {
    Box::new(match outcome {
        Outcome::Held(contention) => {
            let message = match contention.holders.first() {
                Some(holder) => format!("`{}` is held by `{}`", contention.resource, holder.owner),
                None => format!("others wait for `{}`", contention.resource),
            };
            contended(ErrorReply::new(Code::LockHeld, message), contention)
        }
        Outcome::WaitTimeout(contention) => {
            let message = format!("`{}` did not become free in time", contention.resource);
            contended(ErrorReply::new(Code::WaitTimeout, message), contention)
        }
        Outcome::Deadlock(deadlock) => deadlocked(*deadlock),
        Outcome::AlreadyWaiting { resource } => ErrorReply {
            resource: Some(resource.clone()),
            ..ErrorReply::new(
                Code::AlreadyWaiting,
                format!(
                    "the owner waits for `{resource}` already; an owner waits for one at a time"
                ),
            )
        },
        Outcome::NotHolder => ErrorReply::new(
            Code::NotHolder,
            "the token is not that of a live hold on the resource",
        ),
        Outcome::ModeConflict { held, token } => ErrorReply {
            mode: Some(held),
            token: Some(token),
            ..ErrorReply::new(
                Code::ModeConflict,
                format!(
                    "the owner holds the resource in mode {} already",
                    held.name()
                ),
            )
        },
        Outcome::RequestMismatch { field } => ErrorReply {
            field: Some(field.clone()),
            ..ErrorReply::new(
                Code::RequestMismatch,
                format!("`request_id` was used before with another `{field}`"),
            )
        },
        Outcome::Overloaded { what, limit } => ErrorReply::overloaded(&what, limit),
        Outcome::Acquired(_) | Outcome::Waiting | Outcome::Released | Outcome::Renewed { .. } => {
            unreachable!("not a refusal")
        }
    })
}

fn contended(error: ErrorReply, contention: Contention) -> ErrorReply {
    ErrorReply {
        resource: Some(contention.resource),
        holders: Some(contention.holders.into_iter().map(wire_holder).collect()),
        queue_length: Some(contention.queue_length),
        ..error
    }
}

fn deadlocked(deadlock: Deadlock) -> ErrorReply {
    let Deadlock {
        cycle,
        victim,
        policy,
    } = deadlock;
    let around: Vec<&str> = cycle.iter().map(|edge| edge.owner.as_str()).collect();
    let message = format!(
        "waiting would never end: {} wait for one another",
        around.join(", ")
    );
    ErrorReply {
        cycle,
        victim: Some(victim),
        policy: Some(policy),
        ..ErrorReply::new(Code::Deadlock, message)
    }
}

fn wire_holder(holder: HolderView) -> wire::Holder {
    let HolderView {
        owner,
        token,
        mode,
        expires_in_ms,
        held_ms,
        meta,
    } = holder;
    let meta = meta.map(crate::protocol::meta::Meta::from_kept);
    wire::Holder {
        owner,
        token,
        mode,
        expires_in_ms,
        held_ms,
        meta,
    }
}

fn wire_waiter(waiter: WaiterView) -> wire::Waiter {
    let WaiterView {
        owner,
        mode,
        waited_ms,
        request_id,
    } = waiter;
    wire::Waiter {
        owner,
        mode,
        waited_ms,
        request_id,
    }
}

/// The answer to `lock.get`.
pub fn view(view: LockView) -> wire::View {
    wire::View {
        holders: view.holders.into_iter().map(wire_holder).collect(),
        waiters: view.waiters.into_iter().map(wire_waiter).collect(),
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
