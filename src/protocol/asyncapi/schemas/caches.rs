//! The cache: what it answers.

use serde_json::{Value, json};

use super::{boolean, integer, list, object, one_of, or_null, text};
use crate::protocol::Operation;
use crate::protocol::cache::SAMPLE_DEFAULT;

pub(super) fn summary(operation: Operation) -> &'static str {
    match operation {
        Operation::CacheGet => "The value of a key, from the memory of the node that is asked.",
        Operation::CacheGetMany => "The values of several keys.",
        Operation::CacheSet => "Puts a value in place of the one before.",
        Operation::CacheDelete => "Removes a value.",
        Operation::CacheIncrement => "Adds to an integer.",
        Operation::CacheTouch => "Lets the lifetime of a value begin anew.",
        Operation::CacheInvalidate => {
            "Removes the values with a tag, those whose keys begin with a prefix, or all."
        }
        Operation::CacheAudit => "Compares copies of a node with what their homes have.",
        Operation::CacheExplain => "What a node knows of a key.",
        Operation::CacheStats => "What the cache of a node has and has counted.",
        other => panic!("say in schemas.rs what {other} does"),
    }
}

pub(super) fn is_of_cache(operation: Operation) -> bool {
    operation.name().starts_with("cache.")
}

/// What a field of a request is for, and its default; null where there is none.
pub(super) fn request_field(operation: Operation, name: &str) -> (&'static str, Value) {
    match (operation, name) {
        (_, "key") => (
            "The key. Required in the body or in the subject.",
            Value::Null,
        ),
        (_, "keys") => ("The keys, answered in their order.", Value::Null),
        (_, "value") => ("Text, JSON, or (in MessagePack) binary.", Value::Null),
        (_, "value_base64") => ("A binary value, in JSON.", Value::Null),
        (_, "encoding") => (
            "`json` beside text says that the text is JSON; otherwise what the value is.",
            Value::Null,
        ),
        (_, "if") => (
            "What must be so: `{\"absent\":true}`, `{\"present\":true}` or `{\"version\":…}`.",
            Value::Null,
        ),
        (_, "tags") => (
            "Names under which `cache.invalidate` finds the value; at most 16.",
            json!([]),
        ),
        (_, "fence") => (
            "Only while the lock is held exclusively under this token, and no newer one has \
             written the key: `{\"resource\":…,\"token\":…}`.",
            Value::Null,
        ),
        (_, "tag") => ("Remove the values with this tag.", Value::Null),
        (_, "prefix") => (
            "Remove the values of keys that begin with this.",
            Value::Null,
        ),
        (_, "all") => ("Remove all values.", json!(false)),
        (_, "by") => ("What to add.", json!(1)),
        (_, "initial") => ("What to add to when there is no value.", json!(0)),
        (_, "idle_ms") => ("How long the value lives without being read.", Value::Null),
        (Operation::CacheTouch, "ttl_ms") => ("How long the value lives from now on.", Value::Null),
        (Operation::CacheSet, "ttl_ms") => (
            "How long the value lives; until it is evicted when absent.",
            Value::Null,
        ),
        (Operation::CacheIncrement, "ttl_ms") => (
            "How long the value lives from now on; as long as it would have when absent.",
            Value::Null,
        ),
        (_, "consistency") => (
            "The latest value, or whatever the asked node has.",
            json!("linearizable"),
        ),
        (_, "claim_ms") => (
            "If there is no value, claim the right to load it, for so long.",
            Value::Null,
        ),
        (_, "wait_ms") => (
            "How long to wait for the value if somebody else has claimed it; with `claim_ms`.",
            json!(0),
        ),
        (_, "claim") => (
            "The claim under which the value was loaded: refused when it is over.",
            Value::Null,
        ),
        (_, "request_id") => (
            "Repeats carry the same id, get the first answer and are not executed again; so may \
             the header Nats-Msg-Id instead.",
            Value::Null,
        ),
        (_, "repeat") => (
            "Whether a request with this id may have been executed before: then it is refused as \
             `indeterminate` where that would not be known.",
            json!(false),
        ),
        (_, "sample") => ("How many copies to compare.", json!(SAMPLE_DEFAULT)),
        (_, other) => panic!("say in caches.rs what `{other}` is for"),
    }
}

pub(super) fn success(operation: Operation) -> Vec<(&'static str, Value)> {
    match operation {
        Operation::CacheGet => found(),
        Operation::CacheGetMany => vec![("results", list(object(found())))],
        Operation::CacheSet | Operation::CacheTouch => vec![("version", text())],
        Operation::CacheDelete => vec![("existed", boolean())],
        Operation::CacheIncrement => vec![("value", integer()), ("version", text())],
        Operation::CacheInvalidate => vec![("count", integer())],
        Operation::CacheAudit => vec![
            ("compared", integer()),
            ("mismatches", integer()),
            ("keys?", list(text())),
        ],
        Operation::CacheExplain => vec![
            ("home", or_null("integer")),
            ("second", or_null("integer")),
            (
                "state",
                one_of(&["absent", "home", "writing", "bringing", "copy", "backup"]),
            ),
            ("version?", text()),
            ("sharers", integer()),
        ],
        Operation::CacheStats => cache_stats(),
        other => panic!("say in schemas.rs what {other} answers"),
    }
}

fn found() -> Vec<(&'static str, Value)> {
    vec![
        ("status", one_of(&["hit", "miss"])),
        ("value?", json!({})),
        ("value_base64?", text()),
        ("encoding?", one_of(&["text", "json", "binary"])),
        ("version?", text()),
        ("ttl_ms?", integer()),
        ("source?", one_of(&["local", "home", "store"])),
        ("claim?", text()),
    ]
}

pub(super) fn event_summary(kind: &str) -> &'static str {
    match kind {
        "cache.set" => "A value was written, counted or touched.",
        "cache.delete" => "There is no value any more.",
        _ => "An invalidation is over; each value that it removed has a `delete` of its own.",
    }
}

pub(super) fn events() -> Vec<(&'static str, Value)> {
    let counted = |fields: Vec<(&'static str, Value)>| {
        let counts = vec![("node", integer()), ("boot", text()), ("seq", integer())];
        object([fields, counts].concat())
    };
    let why = one_of(&["deleted", "invalidated", "expired", "evicted"]);
    let invalidated = vec![
        ("tag?", text()),
        ("prefix?", text()),
        ("all?", boolean()),
        ("count", integer()),
    ];
    vec![
        (
            "cache.set",
            counted(vec![("key", text()), ("version", text())]),
        ),
        ("cache.delete", counted(vec![("key", text()), ("why", why)])),
        ("cache.invalidate", counted(invalidated)),
    ]
}

fn cache_stats() -> Vec<(&'static str, Value)> {
    let integers =
        |names: &[&'static str]| object(names.iter().map(|name| (*name, integer())).collect());
    vec![
        ("entries", integer()),
        ("bytes", integer()),
        ("bytes_max", integer()),
        ("lease_ms", integer()),
        ("hits", integers(&["local", "home", "store"])),
        ("misses", integer()),
        ("fills", integer()),
        ("evictions", integer()),
        ("invalidations", integers(&["sent", "acked", "resent"])),
        ("updates", integer()),
        ("writes", integer()),
        ("promoted", integer()),
        ("store?", integers(&["reads", "writes", "errors"])),
    ]
}
