//! Changes of keys, from what the wire asks for.

use crate::cache::entry::{Key, Version};
use crate::cache::fences::Fenced;
use crate::cache::message::Matching;
use crate::cache::operation::{Condition, Operation, Write};
use crate::protocol::cache as wire;
use crate::protocol::{Code, ErrorReply, Refusal, Request};

/// The key and what is to be done to it.
///
/// # Errors
/// `version_mismatch` when a condition names a version that was never given, `stale_token` the same of
/// a claim.
///
/// # Panics
/// When the request is no change of a key.
pub fn of(request: Request) -> Result<(String, Write), Refusal> {
    let (key, operation, repeat) = match request {
        Request::CacheSet(set) => {
            let operation = Operation::Set {
                value: set.value,
                ttl_ms: set.ttl_ms,
                idle_ms: set.idle_ms.unwrap_or(0),
                condition: condition(set.condition.as_ref())?,
                claim: set.claim.as_deref().map(claim).transpose()?,
                tags: tags(set.tags),
                fence: set
                    .fence
                    .map(|fence| Fenced::new(fence.resource.into(), fence.token)),
            };
            (set.key, operation, set.repeat)
        }
        Request::CacheDelete(delete) => {
            let condition = condition(delete.condition.as_ref())?;
            let operation = Operation::Delete { condition };
            (delete.key, operation, delete.repeat)
        }
        Request::CacheIncrement(increment) => {
            let operation = Operation::Increment {
                by: increment.by,
                initial: increment.initial,
                ttl_ms: increment.ttl_ms,
            };
            (increment.key, operation, increment.repeat)
        }
        Request::CacheTouch(touch) => {
            let ttl_ms = touch.ttl_ms;
            (touch.key, Operation::Touch { ttl_ms }, touch.repeat)
        }
        other => unreachable!("{} changes no key", other.operation()),
    };
    let write = Write {
        operation,
        id: repeat.request_id.map(Key::from),
        is_repeat: repeat.repeat,
        sought: None,
    };
    Ok((key, write))
}

fn claim(text: &str) -> Result<Version, Refusal> {
    let never = |_| {
        let message = format!("`{text}` is not a claim that a cache gave");
        Box::new(ErrorReply::new(Code::StaleToken, message))
    };
    text.parse().map_err(never)
}

/// What an invalidation removes.
pub fn matching(asked: wire::Invalidate) -> Matching {
    match (asked.tag, asked.prefix) {
        (Some(tag), _) => Matching::Tag(tag.into()),
        (None, Some(prefix)) => Matching::Prefix(prefix.into()),
        (None, None) => Matching::All,
    }
}

fn tags(mut asked: Vec<String>) -> Vec<Key> {
    asked.sort_unstable();
    asked.dedup();
    asked.into_iter().map(Key::from).collect()
}

/// The condition that a request names.
///
/// # Errors
/// `version_mismatch` when its version is none that was ever given.
fn condition(asked: Option<&wire::If>) -> Result<Condition, Refusal> {
    let Some(asked) = asked else {
        return Ok(Condition::Always);
    };
    match &asked.version {
        Some(version) => version.parse().map(Condition::Version).map_err(|_| {
            let message = format!("`{version}` is not a version that a cache gave");
            Box::new(ErrorReply::new(Code::VersionMismatch, message))
        }),
        None if asked.absent => Ok(Condition::Absent),
        None => Ok(Condition::Present),
    }
}
