//! The longer replies about locks and sessions.

use serde_json::Value;

use crate::protocol::Operation;

use super::{boolean, component, describe, integer, list, object, one_of, or_null, text};

/// Fields by name; a question mark says that one may be absent.
type Fields = Vec<(&'static str, Value)>;

pub(super) fn acquired() -> Fields {
    let held = object(vec![
        ("resource", text()),
        ("mode", component("mode")),
        ("permits?", integer()),
    ]);
    vec![
        ("resource?", describe(text(), "If it is one.")),
        ("resources?", describe(list(held), "If it is several.")),
        ("owner", text()),
        ("token", component("token")),
        ("mode?", component("mode")),
        ("permits?", integer()),
        ("expires_in_ms", integer()),
        ("waited_ms", integer()),
    ]
}

pub(super) fn view() -> Fields {
    let count = || describe(integer(), "How many, if a reply cannot name them all.");
    vec![
        ("holders", list(component("holder"))),
        ("waiters", list(component("waiter"))),
        ("held?", count()),
        ("waiting?", count()),
        ("delay_ms?", integer()),
    ]
}

pub(super) fn listing() -> Fields {
    let listed = object(vec![
        ("resource", text()),
        ("held", integer()),
        ("waiting", integer()),
        ("mode?", component("mode")),
        ("owner?", describe(text(), "The oldest holder.")),
        ("token?", component("token")),
        ("expires_in_ms?", integer()),
    ]);
    vec![("locks", list(listed)), ("cursor?", text())]
}

pub(super) fn graph() -> Fields {
    let edge = object(vec![
        ("owner", text()),
        ("waits_for_owner", text()),
        ("resource", text()),
        ("because", one_of(&["holder", "queue"])),
        ("waited_ms", integer()),
    ]);
    let truncated = describe(boolean(), "Whether there are more than a reply holds.");
    vec![("edges", list(edge)), ("truncated", truncated)]
}

pub(super) fn deadlocks() -> Fields {
    let past = object(vec![
        ("ago_ms", integer()),
        ("cycle", list(component("cycle_edge"))),
        ("cycle_length?", integer()),
        ("victim", text()),
        ("policy", component("policy")),
    ]);
    vec![("deadlocks", list(past))]
}

pub(super) fn session_closed() -> Fields {
    let released = object(vec![("resource", text()), ("token", component("token"))]);
    let count = "How many holds there were; resources that were taken together are one.";
    let truncated = describe(
        boolean(),
        "Whether more resources were held than are named.",
    );
    vec![
        ("released", list(released)),
        ("released_count", describe(integer(), count)),
        ("truncated", truncated),
    ]
}

pub(super) fn session() -> Fields {
    let hold = object(vec![
        ("resource", text()),
        ("owner", text()),
        ("token", component("token")),
        ("mode", component("mode")),
        ("expires_in_ms", integer()),
        ("held_ms", integer()),
    ]);
    let wait = object(vec![
        ("resource", text()),
        ("owner", text()),
        ("mode", component("mode")),
        ("waited_ms", integer()),
    ]);
    vec![
        ("session", text()),
        ("name?", text()),
        ("ttl_ms", integer()),
        ("lock_delay_ms", integer()),
        ("expires_in_ms", integer()),
        ("open_ms", integer()),
        ("meta", or_null("object")),
        ("held", integer()),
        ("waiting", integer()),
        ("holds", list(hold)),
        ("waits", list(wait)),
    ]
}

pub(super) fn sessions() -> Fields {
    let listed = object(vec![
        ("session", text()),
        ("name?", text()),
        ("ttl_ms", integer()),
        ("expires_in_ms", integer()),
        ("held", integer()),
        ("waiting", integer()),
    ]);
    vec![("sessions", list(listed)), ("cursor?", text())]
}

pub(super) fn session_events() -> Vec<(&'static str, Value)> {
    let about = |more: Fields| {
        let mut fields = vec![("session", text()), ("name?", text())];
        fields.extend(more);
        object(fields)
    };
    let closed = vec![("held", integer()), ("reason?", text())];
    vec![
        ("session.opened", about(vec![("ttl_ms", integer())])),
        ("session.expired", about(vec![("held", integer())])),
        ("session.closed", about(closed)),
    ]
}

/// Whether a request without this field is refused; apart from names that may be in the subject.
pub(in crate::protocol::asyncapi) fn is_required(operation: Operation, name: &str) -> bool {
    match name {
        "token" => operation != Operation::AdminLockRelease,
        "mode" => operation == Operation::LockConvert,
        "ttl_ms" => matches!(operation, Operation::SessionOpen | Operation::CacheTouch),
        "session" => !matches!(operation, Operation::LockAcquire | Operation::LockCancel),
        "reason" | "keys" => true,
        _ => false,
    }
}
