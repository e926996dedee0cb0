//! What replies and events look like, and what fields are for, in JSON Schema.

use serde_json::{Map, Value, json};

use crate::protocol::status::DurabilitySource;
use crate::protocol::{Code, INTEGER_MAX, LIMIT_DEFAULT, Operation, TIMEOUT_MS_DEFAULT};

mod caches;
mod clusters;
mod locks;
mod queues;

pub(super) fn summary(operation: Operation) -> &'static str {
    match operation {
        Operation::LockAcquire => {
            "Takes a lock, exclusive or shared, at once or within `wait_ms`; the reply has the \
             fencing token."
        }
        Operation::LockRelease => "Ends the hold that a token stands for.",
        Operation::LockRenew => "Lets the lease of a hold begin anew.",
        Operation::LockCheck => "Whether a token is that of a live hold.",
        Operation::LockGet => "Who holds a resource and who waits for it.",
        Operation::LockConvert => "Changes the mode of a hold without giving it up.",
        Operation::LockCancel => "Ends a wait.",
        Operation::LockList => "What is held or waited for, page by page.",
        Operation::LockGraph => "Who waits for whom.",
        Operation::LockDeadlocks => "The deadlocks found lately, newest first.",
        Operation::SessionOpen => "Opens a session: one lease for many locks.",
        Operation::SessionKeepalive => "Lets the lease of a session begin anew.",
        Operation::SessionClose => "Ends a session, its holds and its waits.",
        Operation::SessionGet => "What a session holds and waits for.",
        Operation::SessionList => "All sessions, page by page.",
        Operation::AdminLockRelease => "Ends a hold, or all holds of a resource.",
        Operation::AdminSessionClose => "Ends a session, its holds and its waits.",
        Operation::Status => "What a node knows about itself and the cluster.",
        Operation::Metrics => "All metrics of a node.",
        other if queues::is_of_queue(other) => queues::summary(other),
        other if clusters::is_of_cluster(other) => clusters::summary(other),
        other => caches::summary(other),
    }
}

pub(super) fn event_summary(kind: &str) -> &'static str {
    match kind {
        "lock.granted" => "A lock was granted.",
        "lock.released" => "A hold was given back, or taken from its holder for a reason.",
        "lock.expired" => "The lease of a hold or of its session ran out.",
        "lock.deadlock" => "A cycle of waits was found and its victim refused.",
        "lock.contended" => "Somebody starts to wait.",
        "session.opened" => "A session was opened.",
        "session.expired" => "The lease of a session ran out.",
        "session.closed" => "A session was closed, by its client or for a reason.",
        other if other.starts_with("cache.") => caches::event_summary(other),
        other => queues::event_summary(other),
    }
}

/// What a field of a request is for, and its default; null where there is none.
pub(super) fn request_field(operation: Operation, name: &str) -> (&'static str, Value) {
    if queues::is_of_queue(operation) && name != "timeout_ms" {
        return queues::request_field(operation, name);
    }
    if clusters::is_of_cluster(operation) && name != "timeout_ms" {
        return clusters::request_field(operation, name);
    }
    if caches::is_of_cache(operation) && name != "timeout_ms" {
        return caches::request_field(operation, name);
    }
    match (operation, name) {
        (_, "resource") => (
            "The lock. Required in the body or in the subject.",
            Value::Null,
        ),
        (Operation::LockConvert, "mode") => ("The new mode.", Value::Null),
        (_, "mode") => (
            "One holder, any number of shared ones, or holders of permits.",
            json!("exclusive"),
        ),
        (_, "resources") => (
            "Several resources, all or nothing; what an item leaves out is as the request says.",
            Value::Null,
        ),
        (_, "permits") => ("How many permits, in mode `permit`.", json!(1)),
        (Operation::LockAcquire, "limit") => (
            "How many permits there are; required in mode `permit`.",
            Value::Null,
        ),
        (_, "limit") => ("How many items at most.", json!(LIMIT_DEFAULT)),
        (_, "prefix") => ("Only names that begin with this.", Value::Null),
        (_, "cursor") => ("That of the page before.", Value::Null),
        (_, "name") => ("For people.", Value::Null),
        (_, "lock_delay_ms") => (
            "How long nobody gets what the session loses otherwise than by its own will.",
            json!(0),
        ),
        (_, "reason") => ("Why; it is in the event and in the log.", Value::Null),
        (Operation::LockCancel, "owner") => ("Whose wait.", Value::Null),
        (Operation::LockCancel, "request_id") => {
            ("Only the wait of the request with this id.", Value::Null)
        }
        (_, "owner") => (
            "One thread of control. Absent: one is made up and returned.",
            Value::Null,
        ),
        (Operation::LockAcquire, "session") => {
            ("The hold ends with it at the latest.", Value::Null)
        }
        (Operation::LockCancel, "session") => {
            ("Only the wait of a request that named it.", Value::Null)
        }
        (_, "session") => ("The session.", Value::Null),
        (Operation::LockAcquire, "ttl_ms") => (
            "Length of the lease, 30000 when absent; with a session only to shorten it.",
            Value::Null,
        ),
        (Operation::SessionOpen, "ttl_ms") => ("Length of the lease.", Value::Null),
        (Operation::LockRenew, "ttl_ms") => (
            "Length of the lease from now on. Absent: as long as it was.",
            Value::Null,
        ),
        (_, "wait_ms") => (
            "0: one try, which overtakes nobody. Otherwise how long to wait in the queue.",
            json!(0),
        ),
        (_, "on_deadlock") => (
            "Who gives way when waiting would close a cycle: this request, or the owner in the \
             cycle that was first seen last.",
            json!("requester"),
        ),
        (_, "meta") => ("Shown to whoever asks about it.", Value::Null),
        (_, "request_id") => (
            "Repeats carry the same id; so may the header Nats-Msg-Id instead.",
            Value::Null,
        ),
        (Operation::LockAcquire | Operation::LockConvert, "timeout_ms") => (
            "How long the asker waits for the reply; 5000 + `wait_ms` when absent.",
            Value::Null,
        ),
        (_, "timeout_ms") => (
            "How long the asker waits for the reply.",
            json!(TIMEOUT_MS_DEFAULT),
        ),
        (Operation::AdminLockRelease, "token") => ("Only this hold.", Value::Null),
        (_, "token") => ("The token of the grant.", Value::Null),
        (_, "consistency") => (
            "Not older than the request, or what the node that answers knows.",
            json!("linearizable"),
        ),
        (_, "format") => (
            "As OpenMetrics text, or as values of the reply's encoding.",
            json!("text"),
        ),
        (_, "state_hash") => (
            "Whether to add a hash of the replicated state, which takes time with its size.",
            json!("omit"),
        ),
        (_, other) => panic!("say in schemas.rs what `{other}` is for"),
    }
}

/// Fields of which a request has one.
pub(super) fn either(operation: Operation) -> Option<&'static [&'static str]> {
    match operation {
        Operation::LockCancel => Some(&["owner", "request_id"]),
        Operation::CacheSet => Some(&["value", "value_base64"]),
        _ => queues::either(operation),
    }
}

pub(super) fn message_id_header(field: &str) -> Value {
    let what = format!("The same as `{field}`; both must agree.");
    json!({"type": "object", "properties": {"Nats-Msg-Id": describe(text(), &what)}})
}

/// What any request may have in its headers.
pub(super) fn traced() -> Value {
    let what =
        "The trace that the request belongs to (W3C Trace Context); one that is not valid is none.";
    json!({"headers": {"type": "object", "properties": {"traceparent": describe(text(), what)}}})
}

/// Whether a request without this field is refused; apart from names that may be in the subject.
pub(super) fn is_required(operation: Operation, name: &str) -> bool {
    if queues::is_of_queue(operation) {
        queues::is_required(operation, name)
    } else if clusters::is_of_cluster(operation) {
        clusters::is_required(operation, name)
    } else {
        locks::is_required(operation, name)
    }
}

/// The reply to a request that did what it asks for.
pub(super) fn success(operation: Operation) -> Value {
    let own = match operation {
        Operation::LockAcquire | Operation::LockConvert => locks::acquired(),
        Operation::LockRelease => vec![("released", json!({"const": true}))],
        Operation::LockRenew => vec![("expires_in_ms", integer())],
        Operation::LockCheck => vec![
            ("valid", boolean()),
            ("current_token?", component("token")),
            ("expires_in_ms?", integer()),
        ],
        Operation::LockGet => locks::view(),
        Operation::LockCancel => vec![("cancelled", boolean()), ("token?", component("token"))],
        Operation::LockList => locks::listing(),
        Operation::LockGraph => locks::graph(),
        Operation::LockDeadlocks => locks::deadlocks(),
        Operation::SessionOpen => vec![
            ("session", text()),
            ("ttl_ms", integer()),
            ("keepalive_ms", integer()),
        ],
        Operation::SessionKeepalive => vec![("expires_in_ms", integer())],
        Operation::SessionClose | Operation::AdminSessionClose => locks::session_closed(),
        Operation::SessionGet => locks::session(),
        Operation::SessionList => locks::sessions(),
        Operation::AdminLockRelease => vec![("holders", list(component("holder")))],
        Operation::Status => status(),
        Operation::Metrics => metrics(),
        other if queues::is_of_queue(other) => queues::success(other),
        other if clusters::is_of_cluster(other) => clusters::success(other),
        other => caches::success(other),
    };
    envelope(true, own)
}

fn status() -> Vec<(&'static str, Value)> {
    let member = object(vec![
        ("node", integer()),
        ("voter", boolean()),
        ("incarnation", or_null("integer")),
    ]);
    let redis = object(vec![
        ("connected", boolean()),
        (
            "durability",
            one_of(&["fsync", "os", "interval", "none", "unknown"]),
        ),
        ("source", one_of(DurabilitySource::NAMES)),
        (
            "settings",
            json!({"type": "object", "additionalProperties": text()}),
        ),
        ("warnings", list(text())),
    ]);
    vec![
        (
            "role",
            one_of(&["leader", "follower", "candidate", "learner"]),
        ),
        ("term", integer()),
        ("leader", or_null("integer")),
        ("commit_index", integer()),
        ("applied_index", integer()),
        ("members", list(member)),
        ("epoch", integer()),
        ("lease_ms", integer()),
        ("version", text()),
        ("uptime_ms", integer()),
        (
            "locks",
            object(vec![("held", integer()), ("waiting", integer())]),
        ),
        (
            "cache",
            object(vec![("entries", integer()), ("bytes", integer())]),
        ),
        ("queue", object(vec![("topics", integer())])),
        ("nats", object(vec![("connected", boolean())])),
        ("redis?", redis),
        (
            "state_hash?",
            object(vec![("batches", integer()), ("hash", text())]),
        ),
    ]
}

fn metrics() -> Vec<(&'static str, Value)> {
    let sample = object(vec![
        ("name", text()),
        (
            "labels?",
            json!({"type": "object", "additionalProperties": text()}),
        ),
        ("value", json!({"type": ["integer", "number"]})),
    ]);
    let family = object(vec![
        ("name", text()),
        ("type", one_of(&["counter", "gauge", "histogram", "info"])),
        ("unit?", one_of(&["seconds", "bytes"])),
        ("help", text()),
        ("samples", list(sample)),
    ]);
    vec![
        (
            "metrics?",
            describe(
                text(),
                "OpenMetrics text, as under /metrics; with `format` `text`.",
            ),
        ),
        (
            "families?",
            describe(list(family), "The same as values; with `format` `values`."),
        ),
    ]
}

/// The reply to a request that is refused or failed.
pub(super) fn error_message() -> Value {
    let headers = object(vec![
        ("Nats-Service-Error", describe(text(), "The message.")),
        ("Nats-Service-Error-Code", describe(text(), "The status.")),
    ]);
    json!({
        "name": "error",
        "headers": headers,
        "payload": envelope(false, vec![("error", component("error"))]),
    })
}

/// Events by kind, with their schemas.
pub(super) fn events() -> Vec<(&'static str, Value)> {
    let about = |more: Vec<(&'static str, Value)>| {
        let mut fields = vec![("resource", text()), ("owner", text())];
        fields.extend(more);
        object(fields)
    };
    let ended = || vec![("token", component("token")), ("held_ms", integer())];
    let released = [ended(), vec![("reason?", text())]].concat();
    let granted = vec![
        ("token", component("token")),
        ("mode", component("mode")),
        ("waited_ms", integer()),
    ];
    let deadlock = vec![
        ("cycle", list(component("cycle_edge"))),
        ("cycle_length?", integer()),
        ("victim", text()),
        ("policy", component("policy")),
    ];
    let mut events = vec![
        ("lock.granted", about(granted)),
        ("lock.released", about(released)),
        ("lock.expired", about(ended())),
        ("lock.deadlock", object(deadlock)),
        ("lock.contended", about(vec![("queue_length", integer())])),
    ];
    events.extend(locks::session_events());
    events.extend(queues::events());
    events.extend(caches::events());
    events
}

/// What several messages have in common.
pub(super) fn components() -> Value {
    let holder = object(vec![
        ("owner", text()),
        ("token", component("token")),
        ("mode", component("mode")),
        ("permits?", integer()),
        ("session?", text()),
        ("expires_in_ms", integer()),
        ("held_ms", integer()),
        ("meta", or_null("object")),
    ]);
    let waiter = object(vec![
        ("owner", text()),
        ("mode", component("mode")),
        ("permits?", integer()),
        ("session?", text()),
        ("waited_ms", integer()),
        ("request_id?", text()),
    ]);
    let cycle_edge = object(vec![
        ("owner", text()),
        ("holds", or_null("string")),
        ("token", or_null("integer")),
        ("waits_for_owner", text()),
        ("resource", text()),
        ("because", one_of(&["holder", "queue"])),
    ]);
    json!({
        "token": describe(integer(), "Greater than every token granted before, over all resources."),
        "mode": one_of(&["exclusive", "shared", "permit"]),
        "policy": one_of(&["requester", "youngest"]),
        "holder": holder,
        "waiter": waiter,
        "cycle_edge": cycle_edge,
        "error": error(),
        "message": queues::message(),
        "topic_stats": queues::stats(),
    })
}

fn error() -> Value {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    object(vec![
        ("code", one_of(&codes)),
        ("status", integer()),
        ("message", describe(text(), "For people.")),
        ("retryable", boolean()),
        ("outcome", one_of(&["not_applied", "applied", "unknown"])),
        (
            "field?",
            describe(text(), "The field of the request that is wrong."),
        ),
        (
            "fields?",
            describe(list(text()), "The fields that the operation has."),
        ),
        ("resource?", text()),
        ("holders?", list(component("holder"))),
        ("queue_length?", integer()),
        (
            "delay_ms?",
            describe(integer(), "What is left of a lock delay."),
        ),
        ("cycle?", list(component("cycle_edge"))),
        (
            "cycle_length?",
            describe(integer(), "Its length, if a reply cannot hold it all."),
        ),
        ("victim?", text()),
        ("policy?", component("policy")),
        ("mode?", component("mode")),
        ("token?", component("token")),
        ("limit?", describe(integer(), "The bound that is reached.")),
    ])
}

fn envelope(ok: bool, own: Vec<(&'static str, Value)>) -> Value {
    let mut fields = vec![
        ("ok", json!({"const": ok})),
        ("node", describe(integer(), "The node that answers.")),
        (
            "ask_node?",
            describe(integer(), "The node that is faster to ask."),
        ),
    ];
    fields.extend(own);
    object(fields)
}

/// An object with these fields; a question mark behind the name says that it may be absent.
fn object(fields: Vec<(&'static str, Value)>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, schema) in fields {
        match name.strip_suffix('?') {
            Some(name) => properties.insert(name.to_owned(), schema),
            None => {
                required.push(name);
                properties.insert(name.to_owned(), schema)
            }
        };
    }
    json!({"type": "object", "properties": properties, "required": required})
}

fn text() -> Value {
    json!({"type": "string"})
}

fn boolean() -> Value {
    json!({"type": "boolean"})
}

fn integer() -> Value {
    json!({"type": "integer", "minimum": 0, "maximum": INTEGER_MAX})
}

fn or_null(kind: &str) -> Value {
    json!({"type": [kind, "null"]})
}

fn one_of(names: &[&str]) -> Value {
    json!({"type": "string", "enum": names})
}

fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

fn component(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn describe(mut schema: Value, description: &str) -> Value {
    schema["description"] = description.into();
    schema
}
