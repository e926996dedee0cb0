//! Answers of the cache as the wire says them.

use crate::cache::audit::Report;
use crate::cache::explain::{Counts, Explanation, State};
use crate::cache::operation::{Answer, Hit, Source, Why};
use crate::cache::state::Settings;
use crate::protocol::cache as wire;
use crate::protocol::reply::{self, From, Rendered};
use crate::protocol::value::{InFields, VALUE_BYTES_MAX};
use crate::protocol::{Code, Encoding, ErrorReply, Outcome, ReplyTo};
use crate::stats::cache::Reading;

/// Writes the reply, and says with which code it is refused, if it is.
pub fn rendered(to: &ReplyTo, from: From, answer: Answer) -> (Rendered, Option<Code>) {
    let success = match answer {
        Answer::Found(hit) => reply::success(to, from, &found(to.encoding, hit)),
        Answer::Missed => reply::success(to, from, &wire::Found::MISS),
        Answer::Claimed { claim } => {
            let claim = Some(claim.to_string());
            let missed = wire::Found {
                claim,
                ..wire::Found::MISS
            };
            reply::success(to, from, &missed)
        }
        Answer::Wrote { version } => {
            let version = version.to_string();
            reply::success(to, from, &wire::Written { version })
        }
        Answer::Removed { existed } => reply::success(to, from, &wire::Deleted { existed }),
        Answer::Counted { value, version } => {
            let version = version.to_string();
            reply::success(to, from, &wire::Counted { value, version })
        }
        Answer::Audited(report) => reply::success(to, from, &audited(report)),
        Answer::Swept { removed } => {
            reply::success(to, from, &wire::Invalidated { count: removed })
        }
        Answer::Refused(why) => {
            let error = refusal(why);
            return (reply::failure(to, from, &error), Some(error.code));
        }
    };
    (success, None)
}

/// The same for several keys; one that is refused refuses all.
pub fn rendered_many(to: &ReplyTo, from: From, answers: Vec<Answer>) -> (Rendered, Option<Code>) {
    let mut results = Vec::with_capacity(answers.len());
    let mut bytes = 0;
    for answer in answers {
        let result = match answer {
            Answer::Found(hit) => {
                bytes += hit.value.bytes().len();
                found(to.encoding, hit)
            }
            Answer::Refused(why) => {
                let error = refusal(why);
                return (reply::failure(to, from, &error), Some(error.code));
            }
            _ => wire::Found::MISS,
        };
        results.push(result);
    }
    if bytes > VALUE_BYTES_MAX {
        let error = ErrorReply {
            limit: Some(VALUE_BYTES_MAX as u64),
            ..ErrorReply::new(
                Code::PayloadTooLarge,
                format!("the values have {bytes} bytes together; ask for fewer keys"),
            )
        };
        return (reply::failure(to, from, &error), Some(error.code));
    }
    (reply::success(to, from, &wire::FoundMany { results }), None)
}

fn found(encoding: Encoding, hit: Hit) -> wire::Found {
    let InFields {
        plain,
        base64,
        kind,
    } = hit.value.in_reply(encoding);
    wire::Found {
        status: wire::Status::Hit,
        value: plain,
        value_base64: base64,
        encoding: Some(kind),
        version: Some(hit.version.to_string()),
        ttl_ms: hit.left_ms,
        source: Some(match hit.source {
            Source::Local => wire::Source::Local,
            Source::Home => wire::Source::Home,
            Source::Store => wire::Source::Store,
        }),
        claim: None,
    }
}

fn refusal(why: Why) -> ErrorReply {
    match why {
        Why::NotFound => ErrorReply::new(Code::NotFound, "there is no value"),
        Why::Exists => ErrorReply::new(Code::AlreadyExists, "there is a value already"),
        Why::Mismatch(None) => ErrorReply::new(Code::VersionMismatch, "there is no value"),
        Why::Mismatch(Some(version)) => ErrorReply::new(
            Code::VersionMismatch,
            format!("the value has version {version}"),
        ),
        Why::ClaimOver => ErrorReply::new(
            Code::StaleToken,
            "the claim is over: the key was written or invalidated, or the load took too long",
        ),
        Why::StaleToken => ErrorReply::new(
            Code::StaleToken,
            "the lock is not held under this token, or a newer one has written the key",
        ),
        Why::NotExclusive => ErrorReply::bad_field(
            "fence",
            "`fence` takes the token of an exclusive lock: this hold is shared or has permits",
        ),
        Why::NoLeader => ErrorReply::new(
            Code::NoLeader,
            "the holder of the lock of `fence` could not be read before the deadline",
        )
        .with_outcome(Outcome::NotApplied),
        Why::NotANumber => ErrorReply::new(
            Code::WrongType,
            "the value is not a JSON integer from 0 to 2^53 - 1",
        ),
        Why::TooGreat => ErrorReply::bad_field("by", "the sum would be above 2^53 - 1"),
        Why::NotHome => ErrorReply::new(
            Code::Reconfiguring,
            "this key has moved to another node; try again",
        ),
        Why::NoLease => ErrorReply::new(
            Code::NoLease,
            "no node had the lease for this key before the deadline",
        ),
        Why::TimedOut => ErrorReply::new(
            Code::Timeout,
            "earlier writes of this key took until the deadline; this one was not made",
        )
        .with_outcome(Outcome::NotApplied),
        Why::Indeterminate => ErrorReply::new(
            Code::Indeterminate,
            "not every node acknowledged the write in time; it may still take effect",
        ),
        Why::Full => ErrorReply::new(
            Code::Overloaded,
            "the cache has no room for the value now; try again later",
        ),
        Why::TooLarge { limit } => ErrorReply {
            limit: Some(limit),
            ..ErrorReply::new(
                Code::PayloadTooLarge,
                "the value, or it and the one before it, would take more than all the memory of the cache \
                 (`--cache-bytes`)",
            )
        },
        Why::Stopping => ErrorReply::new(Code::ShuttingDown, "this node is stopping; ask another"),
        Why::TooMany => ErrorReply::new(
            Code::Overloaded,
            "too many requests wait for the cache; try again later",
        ),
        Why::StoreAway => ErrorReply::new(
            Code::StoreUnavailable,
            "the store behind the cache is not reachable; nothing was changed",
        ),
        Why::TooManyIds => ErrorReply::new(
            Code::Overloaded,
            "no room to remember another `request_id` now; try again later",
        ),
        Why::AnotherRequest => ErrorReply {
            field: Some("request_id".to_owned()),
            ..ErrorReply::new(
                Code::RequestMismatch,
                "`request_id` was used before for another write of this key",
            )
        },
        Why::Forgotten => ErrorReply::new(
            Code::Indeterminate,
            "it is not known whether a request with this `request_id` was executed before",
        ),
    }
}

fn audited(report: Report) -> wire::Audited {
    let Report {
        compared,
        mismatches,
        keys,
    } = report;
    wire::Audited {
        compared,
        mismatches,
        keys: keys.iter().map(|key| key.to_string()).collect(),
    }
}

/// The answer to `cache.explain`.
pub fn explained(explanation: Explanation) -> wire::Explained {
    let Explanation {
        home,
        second,
        state,
        version,
        sharers,
    } = explanation;
    let state = match state {
        State::Absent => "absent",
        State::Home => "home",
        State::Writing => "writing",
        State::Bringing => "bringing",
        State::Copy => "copy",
        State::Backup => "backup",
    };
    wire::Explained {
        home,
        second,
        state: state.to_owned(),
        version: version.map(|version| version.to_string()),
        sharers,
    }
}

/// What metrics show of a cache.
pub fn reading(counts: Counts, (entries, bytes): (usize, usize), settings: Settings) -> Reading {
    Reading {
        entries: entries as u64,
        bytes: bytes as u64,
        bytes_max: settings.bytes_max as u64,
        hits: [counts.local, counts.home, counts.store],
        misses: counts.misses,
        fills: counts.fills,
        evictions: counts.evictions,
        invalidations: [
            counts.invalidations_sent,
            counts.invalidations_acked,
            counts.invalidations_resent,
        ],
        invalidation: counts.invalidation,
        updates: counts.updates,
        writes: counts.writes,
        promoted: counts.promoted,
        store: [counts.store_reads, counts.store_writes, counts.store_errors],
    }
}

/// The answer to `cache.stats`.
pub fn stats(
    counts: Counts,
    (entries, bytes): (usize, usize),
    settings: Settings,
    lease_ms: u64,
) -> wire::Stats {
    wire::Stats {
        entries: entries as u64,
        bytes: bytes as u64,
        bytes_max: settings.bytes_max as u64,
        lease_ms,
        hits: wire::Hits {
            local: counts.local,
            home: counts.home,
            store: counts.store,
        },
        misses: counts.misses,
        fills: counts.fills,
        evictions: counts.evictions,
        invalidations: wire::Invalidations {
            sent: counts.invalidations_sent,
            acked: counts.invalidations_acked,
            resent: counts.invalidations_resent,
        },
        updates: counts.updates,
        writes: counts.writes,
        promoted: counts.promoted,
        store: settings.store.then_some(wire::StoreCalls {
            reads: counts.store_reads,
            writes: counts.store_writes,
            errors: counts.store_errors,
        }),
    }
}
