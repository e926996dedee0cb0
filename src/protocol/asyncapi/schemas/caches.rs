//! The cache: what it answers.

use serde_json::{Value, json};

use super::{boolean, integer, list, object, one_of, or_null, text};
use crate::protocol::Operation;

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
        Operation::CacheExplain => "What a node knows of a key.",
        Operation::CacheStats => "What the cache of a node has and has counted.",
        other => panic!("say in schemas.rs what {other} does"),
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
        Operation::CacheExplain => vec![
            ("home", or_null("integer")),
            ("second", or_null("integer")),
            (
                "state",
                one_of(&["absent", "home", "writing", "copy", "backup"]),
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
        ("source?", one_of(&["local", "home"])),
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
        ("hits", integers(&["local", "home"])),
        ("misses", integer()),
        ("fills", integer()),
        ("evictions", integer()),
        ("invalidations", integers(&["sent", "acked", "resent"])),
        ("writes", integer()),
        ("promoted", integer()),
    ]
}
