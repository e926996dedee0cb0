//! What requests look like: subjects, headers, encodings, and what is refused.

use std::time::Duration;

use futures_util::StreamExt;
use mufakat::protocol::Encoding;
use serde_json::json;

use crate::cluster::{Cluster, Options};
use crate::documented::Documented;
use crate::{raw, rest};

/// A request that is refused: subject after the prefix, headers, body, the field that is named.
type Refused<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [u8], Option<&'a str>);

const JSON_TYPE: (&str, &str) = ("Content-Type", "application/json");
const PACK_TYPE: (&str, &str) = ("Content-Type", "application/msgpack");
const ID: (&str, &str) = ("Nats-Msg-Id", "one");

#[rustfmt::skip]
const BAD_REQUESTS: &[Refused<'_>] = &[
    // Subjects.
    ("lock.acquire.a.b", &[], b"{\"resource\":\"a\"}", Some("resource")),
    ("lock.acquire.a*", &[], b"{}", Some("resource")),
    ("status.a", &[], b"{}", None),
    ("metrics.a", &[], b"{}", None),
    ("node.1.status.a", &[], b"{}", None),
    // What a body is.
    ("lock.acquire", &[], b"", Some("resource")),
    ("lock.acquire", &[], b"\0", None),
    ("lock.acquire", &[], b"[]", None),
    ("lock.acquire", &[], b"hello", None),
    ("lock.acquire", &[], b"\x90", None),
    ("lock.acquire.a", &[], b"{", None),
    ("lock.acquire.a", &[], b"{}{}", None),
    ("lock.acquire.a", &[], b"\x80\x80", None),
    ("lock.acquire.a", &[], b"\x81\xa5owner", Some("owner")),
    ("lock.acquire.a", &[JSON_TYPE], b"\x80", None),
    ("lock.acquire.a", &[("Content-Type", "text/plain")], b"{}", Some("Content-Type")),
    ("status", &[], b"{\"state_hash\":\"include\"} x", None),
    // Fields.
    ("lock.acquire.a", &[], b"{\"ownr\":\"x\"}", Some("ownr")),
    ("lock.release.a", &[], b"{\"token\":1,\"owner\":\"x\"}", Some("owner")),
    ("status", &[], b"{\"resource\":\"x\"}", Some("resource")),
    ("metrics", &[], b"{\"state_hash\":\"include\"}", Some("state_hash")),
    ("lock.acquire.a", &[], b"{\"owner\":\"x\",\"owner\":\"x\"}", Some("owner")),
    ("lock.acquire.a", &[], b"\x82\xa5owner\xa1x\xa5owner\xa1x", Some("owner")),
    ("lock.acquire.a", &[], b"{\"owner\":7}", Some("owner")),
    ("lock.acquire.a", &[], b"{\"owner\":\"\"}", Some("owner")),
    ("lock.acquire.a", &[], b"{\"owner\":\"a\\u0007\"}", Some("owner")),
    ("lock.acquire.a", &[], b"\x81\xa5owner\xc4\x01x", Some("owner")),
    ("lock.acquire.a", &[], b"{\"mode\":\"permit\"}", Some("limit")),
    ("lock.acquire.a", &[], b"{\"meta\":[]}", Some("meta")),
    ("lock.get.a", &[], b"{\"consistency\":\"any\"}", Some("consistency")),
    // Integers.
    ("lock.acquire.a", &[], b"{\"ttl_ms\":99}", Some("ttl_ms")),
    ("lock.acquire.a", &[], b"{\"ttl_ms\":86400001}", Some("ttl_ms")),
    ("lock.acquire.a", &[], b"{\"ttl_ms\":1000.0}", Some("ttl_ms")),
    ("lock.acquire.a", &[], b"{\"ttl_ms\":1e3}", Some("ttl_ms")),
    ("lock.acquire.a", &[], b"{\"ttl_ms\":\"1000\"}", Some("ttl_ms")),
    ("lock.acquire.a", &[], b"{\"wait_ms\":-1}", Some("wait_ms")),
    ("lock.acquire.a", &[], b"{\"wait_ms\":60001}", Some("wait_ms")),
    ("lock.acquire.a", &[], b"\x81\xa6ttl_ms\xca\x44\x7a\x00\x00", Some("ttl_ms")),
    ("lock.check.a", &[], b"{\"token\":9007199254740992}", Some("token")),
    ("lock.check.a", &[], b"{\"token\":0}", Some("token")),
    ("lock.release.a", &[], b"{}", Some("token")),
    ("lock.release.a", &[], b"{\"token\":null}", Some("token")),
    // Request ids.
    ("lock.acquire.a", &[ID], b"{\"request_id\":\"two\"}", Some("request_id")),
    ("lock.release.a", &[ID], b"{\"token\":1}", Some("Nats-Msg-Id")),
    ("lock.release.a", &[], b"{\"token\":1,\"request_id\":\"one\"}", Some("request_id")),
];

#[tokio::test]
async fn bad_requests_are_refused_by_name() {
    let cluster = Cluster::start(Options::default()).await;
    let (nats, documented) = (cluster.nats().await, Documented::load());
    let before = rest::state_at_rest(&cluster).await;
    for &(subject, headers, body, field) in BAD_REQUESTS {
        let shown = format!("{subject} {headers:?} {}", body.escape_ascii());
        let subject = format!("mufakat.{subject}");
        let answer = raw::ask_bytes(&nats, &subject, headers, body).await;
        documented.check_answer("", &answer.body);
        assert_eq!(answer.refusal(), ("bad_request", 400), "{shown}");
        let error = &answer.body["error"];
        assert_eq!(error["outcome"], "not_applied", "{shown}");
        assert_eq!(error["retryable"], false, "{shown}");
        assert_eq!(error["field"].as_str(), field, "{shown}");
        let pack = matches!(body.first(), Some(0x80..=0x8f)) && headers.is_empty();
        assert_eq!(answer.encoding == Encoding::MessagePack, pack, "{shown}");
    }
    let long = format!("{{\"meta\":{{\"a\":\"{}\"}}}}", "x".repeat(1_100));
    let answer = raw::ask_bytes(&nats, "mufakat.lock.acquire.a", &[], long).await;
    assert_eq!(answer.body["error"]["field"], "meta");

    let unknown = raw::ask_bytes(&nats, "mufakat.lock.get.a", &[], "{\"x\":1}").await;
    let fields = json!(["resource", "consistency", "timeout_ms"]);
    assert_eq!(unknown.body["error"]["fields"], fields);
    let after = rest::state_at_rest(&cluster).await;
    assert_eq!(before, after, "what is refused changes nothing");
}

/// Subject after the prefix, headers, body.
type Form<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [u8]);

#[tokio::test]
async fn forms_of_the_same_request_mean_the_same() {
    let cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let first = raw::ask_bytes(&nats, "mufakat.lock.acquire.f.1", &[ID], "").await;
    let first = first.success();
    assert_eq!(first["resource"], "f.1");
    let body = "{\"resource\":\"f.1\",\"request_id\":\"one\",\"ttl_ms\":null}";
    let pack = b"\x81\xa8resource\xa3f.1";
    let same: [Form<'_>; 5] = [
        ("lock.acquire", &[], body.as_bytes()),
        ("lock.acquire.f.1", &[ID], body.as_bytes()),
        ("lock.acquire", &[ID], b" \r\n{\"resource\":\"f.1\"}\n"),
        ("lock.acquire", &[ID, PACK_TYPE], pack),
        ("node.2.lock.acquire.f.1", &[ID], b"\xde\x00\x00"),
    ];
    for (subject, headers, body) in same {
        let subject = format!("mufakat.{subject}");
        let answer = raw::ask_bytes(&nats, &subject, headers, body)
            .await
            .success();
        assert_eq!(answer["token"], first["token"], "{subject} {headers:?}");
        assert_eq!(answer["owner"], first["owner"], "{subject} {headers:?}");
    }
    // Without owner and id, each request is a new owner's.
    let other = raw::ask_bytes(&nats, "mufakat.lock.acquire.f.2", &[], "").await;
    assert_ne!(other.success()["owner"], first["owner"]);
    // Names that a subject cannot have.
    let odd = json!({"resource": "two words.*.>..ü"});
    let answer = raw::ask(&nats, Encoding::Json, "mufakat.lock.acquire", &odd).await;
    assert_eq!(answer.success()["resource"], odd["resource"]);
}

#[tokio::test]
async fn what_does_not_exist_is_an_unknown_operation() {
    let cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    for subject in [
        "lock.x",
        "lock.acquired",
        "lock.get_many.a",
        "queue.x",
        "queue.pushed.a.b",
        "cache.list",
        "session.opened",
        "cluster.nodes",
        "admin.lock.acquire",
        "admin.x",
        "node.1.lock.x",
        "node.2.queue.x.a",
        "node.3.anything",
    ] {
        let answer = raw::ask_bytes(&nats, &format!("mufakat.{subject}"), &[], "{}").await;
        assert_eq!(answer.refusal(), ("unknown_operation", 400), "{subject}");
        if let Some(node) = subject.strip_prefix("node.") {
            assert_eq!(answer.body["node"].to_string(), node[..1], "{subject}");
        }
    }
    for (subject, code) in [
        ("t.TEAM.lock.x", ("unknown_operation", 400)),
        ("t.TEAM.node.1.lock.x", ("unknown_operation", 400)),
        ("t.TEAM.metrics", ("forbidden", 403)),
        ("t.TEAM.admin.lock.release.x", ("forbidden", 403)),
        ("t.a+b.lock.list", ("forbidden", 403)),
    ] {
        let answer = raw::ask_bytes(&nats, &format!("mufakat.{subject}"), &[], "{}").await;
        assert_eq!(answer.refusal(), code, "{subject}");
    }
    let pack = raw::ask_bytes(&nats, "mufakat.cache.get", &[], "\u{0}").await;
    assert_eq!(pack.refusal(), ("bad_request", 400));
}

#[tokio::test]
async fn nodes_do_not_answer_into_the_cluster_nor_without_a_reply_subject() {
    let cluster = Cluster::start(Options::default()).await;
    let (nats, mut heard) = (cluster.nats().await, Vec::new());
    let replies = [
        "mufakat.lock.acquire.x",
        "mufakat.int.x",
        "mufakat",
        "$SYS.x",
        "$x",
    ];
    for reply in replies {
        heard.push(nats.subscribe(reply).await.unwrap());
    }
    for reply in replies {
        nats.publish_with_reply("mufakat.node.1.lock.acquire.r", reply, "{}".into())
            .await
            .unwrap();
        nats.publish_with_reply("$SRV.PING", reply, "".into())
            .await
            .unwrap();
    }
    nats.publish("mufakat.node.1.lock.acquire.r", "{}".into())
        .await
        .unwrap();
    // The same connection and the same subscription of the node: this one comes after the others.
    let get = raw::ask_bytes(&nats, "mufakat.node.1.lock.get.r", &[], "").await;
    assert_eq!(get.success()["holders"], json!([]));
    for mut subscription in heard {
        let message = tokio::time::timeout(Duration::from_millis(100), subscription.next());
        let message = message.await;
        assert!(message.is_err(), "{message:?}");
    }
}

/// What a node forwards at once fits into one message, however long the reply subjects are: both
/// nodes that are left collect requests while nobody leads, then one forwards all of its own.
#[tokio::test]
async fn many_long_reply_subjects_pass_through_a_follower() {
    const REQUESTS: usize = 500;
    let mut cluster = Cluster::start(Options::default()).await;
    let leader = cluster.all_follow().await;
    let nats = cluster.nats().await;
    let inbox = nats.new_inbox();
    let mut answers = nats.subscribe(format!("{inbox}.>")).await.unwrap();
    let padding = "x".repeat(3_800);
    cluster.kill(leader);
    let left: Vec<u64> = cluster.ids().into_iter().filter(|n| *n != leader).collect();
    for number in 0..REQUESTS {
        for node in &left {
            let subject = format!("mufakat.node.{node}.lock.release.long");
            let reply = format!("{inbox}.{padding}.{number}");
            let body = "{\"token\":1,\"timeout_ms\":60000}";
            nats.publish_with_reply(subject, reply, body.into())
                .await
                .unwrap();
        }
    }
    for _ in 0..left.len() * REQUESTS {
        let answer = tokio::time::timeout(crate::wait::LONG, answers.next()).await;
        let answer = answer.expect("every request is answered").unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(crate::wire::code(&answer), "not_holder", "{answer}");
    }
}
