//! Answers to `$SRV.PING`, `INFO` and `STATS`, so that `nats service` finds the nodes (NATS micro,
//! ADR-32). Plain code; the subscriptions belong to the listener.
//!
//! Written by hand rather than with the client library's service module, which subscribes to each
//! endpoint by itself: here whole families are subscribed, so that what does not exist is answered.
//!
//! Promises: every node answers, and an answer passes the schema check of the NATS command line:
//! a description, metadata that is an object, names of endpoints in `[A-Za-z0-9_-]+`, durations in
//! nanoseconds, errors as text.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;

use crate::ids::{BootId, NodeId};
use crate::protocol::subject::QUEUE_GROUP;
use crate::stats::OperationStats;

/// The service's name, for all nodes.
pub const NAME: &str = "mufakat";

const VERBS: [&str; 3] = ["PING", "INFO", "STATS"];

/// What a node tells about itself.
#[derive(Clone, Debug)]
pub struct ServiceInfo {
    /// Another one for each run of each node; one token of a subject.
    id: String,
    /// RFC 3339, in UTC.
    started: String,
    endpoints: Vec<Endpoint>,
}

/// One operation that clients can ask for.
#[derive(Clone, Debug)]
struct Endpoint {
    name: String,
    subject: String,
    /// Its index in [`OperationStats`].
    operation: usize,
    metadata: EndpointMetadata,
}

/// Texts about an endpoint, as ADR-32 wants them.
#[derive(Clone, Debug, Serialize)]
struct EndpointMetadata {
    /// What a request may have, in JSON Schema.
    request_schema: String,
}

impl ServiceInfo {
    /// `operations` are the operations' names as in subjects (`lock.acquire`), each with its index in
    /// [`OperationStats`] and the JSON Schema of its requests; `started_ms` is Unix time.
    pub fn new<'a>(
        (node, boot): (NodeId, BootId),
        prefix: &str,
        operations: impl IntoIterator<Item = (usize, &'a str, String)>,
        started_ms: u64,
    ) -> Self {
        let endpoint = |(operation, name, request_schema): (usize, &str, String)| Endpoint {
            name: name.replace('.', "-"),
            subject: format!("{prefix}.{name}"),
            operation,
            metadata: EndpointMetadata { request_schema },
        };
        let started = UNIX_EPOCH + Duration::from_millis(started_ms);
        ServiceInfo {
            id: format!("{node}-{:016x}", boot.0),
            started: humantime::format_rfc3339_millis(started).to_string(),
            endpoints: operations.into_iter().map(endpoint).collect(),
        }
    }

    /// What to subscribe to, outside any queue group: every node answers.
    pub fn subjects(&self) -> Vec<String> {
        let of_verb = |verb: &str| {
            [
                format!("$SRV.{verb}"),
                format!("$SRV.{verb}.{NAME}"),
                format!("$SRV.{verb}.{NAME}.{}", self.id),
            ]
        };
        VERBS.into_iter().flat_map(of_verb).collect()
    }
}

/// The JSON that answers a request to `subject`; none when it is not for this node.
pub fn answer(subject: &str, info: &ServiceInfo, stats: &OperationStats) -> Option<Bytes> {
    let mut tokens = subject.strip_prefix("$SRV.")?.split('.');
    let verb = tokens.next()?;
    let is_for_us = tokens.next().is_none_or(|name| name == NAME)
        && tokens.next().is_none_or(|id| id == info.id)
        && tokens.next().is_none();
    if !is_for_us {
        return None;
    }
    match verb {
        "PING" => Some(encode(&identity(info, "io.nats.micro.v1.ping_response"))),
        "INFO" => Some(encode(&info_response(info))),
        "STATS" => Some(encode(&stats_response(info, stats))),
        _ => None,
    }
}

fn encode(response: &impl Serialize) -> Bytes {
    let json = serde_json::to_vec(response);
    json.expect("text and numbers always encode").into()
}

/// The fields that all three answers share.
#[derive(Serialize)]
struct Identity<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'static str,
    id: &'a str,
    /// Semantic version of the program.
    version: &'static str,
    metadata: NoMetadata,
}

/// `{}`: the schema wants an object, never null.
#[derive(Serialize)]
struct NoMetadata {}

fn identity<'a>(info: &'a ServiceInfo, kind: &'static str) -> Identity<'a> {
    Identity {
        kind,
        name: NAME,
        id: &info.id,
        version: env!("CARGO_PKG_VERSION"),
        metadata: NoMetadata {},
    }
}

#[derive(Serialize)]
struct InfoResponse<'a> {
    #[serde(flatten)]
    identity: Identity<'a>,
    description: &'static str,
    endpoints: Vec<EndpointInfo<'a>>,
}

#[derive(Serialize)]
struct EndpointInfo<'a> {
    name: &'a str,
    subject: &'a str,
    queue_group: &'static str,
    metadata: &'a EndpointMetadata,
}

fn info_response<'a>(info: &'a ServiceInfo) -> InfoResponse<'a> {
    let endpoint = |endpoint: &'a Endpoint| EndpointInfo {
        name: &endpoint.name,
        subject: &endpoint.subject,
        queue_group: QUEUE_GROUP,
        metadata: &endpoint.metadata,
    };
    InfoResponse {
        identity: identity(info, "io.nats.micro.v1.info_response"),
        description: env!("CARGO_PKG_DESCRIPTION"),
        endpoints: info.endpoints.iter().map(endpoint).collect(),
    }
}

#[derive(Serialize)]
struct StatsResponse<'a> {
    #[serde(flatten)]
    identity: Identity<'a>,
    started: &'a str,
    endpoints: Vec<EndpointStats<'a>>,
}

#[derive(Serialize)]
struct EndpointStats<'a> {
    name: &'a str,
    subject: &'a str,
    queue_group: &'static str,
    num_requests: u64,
    num_errors: u64,
    /// The code of the last error; empty if there was none.
    last_error: &'static str,
    /// Nanoseconds, as is the next.
    processing_time: u64,
    average_processing_time: u64,
}

fn stats_response<'a>(info: &'a ServiceInfo, stats: &OperationStats) -> StatsResponse<'a> {
    let endpoint = |endpoint: &'a Endpoint| {
        let totals = stats.totals(endpoint.operation);
        let average = totals.processing_ns.checked_div(totals.requests);
        EndpointStats {
            name: &endpoint.name,
            subject: &endpoint.subject,
            queue_group: QUEUE_GROUP,
            num_requests: totals.requests,
            num_errors: totals.errors,
            last_error: totals.last_error.unwrap_or_default(),
            processing_time: totals.processing_ns,
            average_processing_time: average.unwrap_or_default(),
        }
    };
    StatsResponse {
        identity: identity(info, "io.nats.micro.v1.stats_response"),
        started: &info.started,
        endpoints: info.endpoints.iter().map(endpoint).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::stats::Stats;

    const ID: &str = "3-00000000000000ff";

    fn info() -> ServiceInfo {
        let schema = || r#"{"type":"object"}"#.to_owned();
        let operations = [
            (0, "lock.acquire", schema()),
            (2, "cache.get_many", schema()),
        ];
        let started_ms = 1_700_000_000_123;
        ServiceInfo::new((NodeId(3), BootId(255)), "team.m", operations, started_ms)
    }

    fn stats() -> Arc<Stats> {
        Stats::new(
            &["lock_acquire", "unknown", "cache_get_many"],
            &["lock_held"],
        )
    }

    fn asked(subject: &str, stats: &Stats) -> Option<Value> {
        let json = answer(subject, &info(), &stats.operations)?;
        Some(serde_json::from_slice(&json).expect("it is JSON"))
    }

    #[test]
    fn a_ping_is_answered_with_who_is_there() {
        let expected = json!({
            "type": "io.nats.micro.v1.ping_response",
            "name": "mufakat",
            "id": ID,
            "version": env!("CARGO_PKG_VERSION"),
            "metadata": {},
        });
        assert_eq!(asked("$SRV.PING", &stats()), Some(expected));
    }

    #[test]
    fn info_lists_the_endpoints() {
        let expected = json!({
            "type": "io.nats.micro.v1.info_response",
            "name": "mufakat",
            "id": ID,
            "version": env!("CARGO_PKG_VERSION"),
            "description": env!("CARGO_PKG_DESCRIPTION"),
            "metadata": {},
            "endpoints": [
                {"name": "lock-acquire", "subject": "team.m.lock.acquire", "queue_group": "q",
                 "metadata": {"request_schema": r#"{"type":"object"}"#}},
                {"name": "cache-get_many", "subject": "team.m.cache.get_many", "queue_group": "q",
                 "metadata": {"request_schema": r#"{"type":"object"}"#}},
            ],
        });
        assert_eq!(asked("$SRV.INFO.mufakat", &stats()), Some(expected));
    }

    #[test]
    fn stats_tell_numbers_errors_and_nanoseconds() {
        let stats = stats();
        let lasted = Duration::from_nanos;
        stats.operations.record(0, lasted(100), None);
        stats.operations.record(0, lasted(50), Some(0));
        let expected = json!({
            "type": "io.nats.micro.v1.stats_response",
            "name": "mufakat",
            "id": ID,
            "version": env!("CARGO_PKG_VERSION"),
            "metadata": {},
            "started": "2023-11-14T22:13:20.123Z",
            "endpoints": [
                {"name": "lock-acquire", "subject": "team.m.lock.acquire", "queue_group": "q",
                 "num_requests": 2, "num_errors": 1, "last_error": "lock_held",
                 "processing_time": 150, "average_processing_time": 75},
                {"name": "cache-get_many", "subject": "team.m.cache.get_many", "queue_group": "q",
                 "num_requests": 0, "num_errors": 0, "last_error": "",
                 "processing_time": 0, "average_processing_time": 0},
            ],
        });
        let subject = format!("$SRV.STATS.mufakat.{ID}");
        assert_eq!(asked(&subject, &stats), Some(expected));
    }

    #[test]
    fn every_subscribed_subject_has_an_answer() {
        let subjects = info().subjects();
        assert_eq!(subjects.len(), 9);
        assert!(subjects.contains(&format!("$SRV.PING.mufakat.{ID}")));
        for subject in subjects {
            assert!(asked(&subject, &stats()).is_some(), "{subject}");
        }
    }

    #[test]
    fn what_is_for_others_has_no_answer() {
        for subject in [
            "$SRV",
            "$SRV.",
            "$SRV.PONG",
            "$SRV.ping",
            "$SRV.PING.other",
            "$SRV.PING.mufakat.4-00000000000000ff",
            "$SRV.PING.mufakat.3-00000000000000ff.more",
            "$SRV.PING.",
            "mufakat.PING",
            "",
        ] {
            assert_eq!(asked(subject, &stats()), None, "{subject}");
        }
    }

    #[test]
    fn names_pass_the_schema_of_the_command_line() {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        for endpoint in info().endpoints {
            assert!(endpoint.name.chars().all(is_allowed), "{}", endpoint.name);
        }
    }
}
