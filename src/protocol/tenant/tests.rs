use serde::Serialize;

use super::*;
use crate::ids::NodeId;
use crate::protocol::reply::{self, From};
use crate::protocol::request::Envelope;
use crate::protocol::{Encoding, Meta, Prefix, ReplyTo};

fn tenant(account: &str) -> Tenant {
    Tenant::of_account(account).expect("a valid account")
}

/// What a request of the tenant `TEAM` for this subject becomes, as text.
fn entered(subject: &str, body: &serde_json::Value) -> Result<String, Code> {
    let address = Prefix::default().parse(subject).expect("of a request");
    let envelope = Envelope {
        suffix: address.suffix,
        of_tenant: true,
        ..Envelope::default()
    };
    let body = body.to_string();
    let (_, request) = Request::decode(address.operation, envelope, body.as_bytes());
    let mut request = request.map_err(|refusal| refusal.code)?;
    let team = tenant(address.account.expect("of a tenant"));
    request.enter(&team).map_err(|refusal| refusal.code)?;
    Ok(format!("{request:?}"))
}

#[test]
fn accounts_are_plain_words() {
    for good in [
        "TEAM_A",
        "a-b",
        "AD6WSCHPBNGP6CHHYNEVDTCJ7NWIJFSFWFIPRFULHEVBOIPYT5CKPDAI",
    ] {
        assert!(Tenant::of_account(good).is_some(), "{good}");
    }
    for bad in ["", "a/b", "a b", "ä", "a.b", &"a".repeat(65)] {
        assert!(Tenant::of_account(bad).is_none(), "{bad}");
    }
}

#[test]
fn a_name_goes_in_and_comes_out() {
    let team = tenant("A");
    assert_eq!(team.inside("x/y"), "A/x/y");
    assert_eq!(team.outside("A/x/y"), "x/y");
    assert!(team.has("A/x"));
    for others in ["AB/x", "A", "x", "B/A/x"] {
        assert_eq!(team.outside(others), others);
        assert!(!team.has(others), "{others}");
    }
}

#[test]
fn every_operation_of_a_tenant_is_within_its_names_or_refused() {
    let body = |operation: Operation| match operation.name() {
        "lock.acquire" => {
            serde_json::json!({"owner": "NAME", "session": "NAME", "request_id": "NAME"})
        }
        "lock.release" | "lock.renew" | "lock.check" => serde_json::json!({"token": 1}),
        "lock.convert" => serde_json::json!({"token": 1, "mode": "shared"}),
        "lock.cancel" => serde_json::json!({"owner": "NAME"}),
        "lock.list" | "queue.list" => serde_json::json!({"prefix": "NAME", "cursor": "NAME"}),
        "session.list" => serde_json::json!({"cursor": "NAME"}),
        "session.open" => serde_json::json!({"ttl_ms": 1000}),
        name if name.starts_with("session.") => serde_json::json!({"session": "NAME"}),
        "queue.push" => serde_json::json!({"payload": "x"}),
        "queue.pop" => serde_json::json!({"consumer": "c"}),
        "queue.ack" | "queue.nack" => serde_json::json!({"receipt": "1.1.0000000000000000"}),
        "queue.extend" => {
            serde_json::json!({"receipt": "1.1.0000000000000000", "visibility_ms": 1000})
        }
        "queue.peek" => serde_json::json!({"state": "ready"}),
        "queue.redrive" => serde_json::json!({"to": "NAME"}),
        "queue.cancel" => serde_json::json!({"id": "i"}),
        "cache.get_many" => serde_json::json!({"keys": ["NAME", "NAME"]}),
        "cache.set" => serde_json::json!({
            "key": "NAME", "value": "x", "tags": ["NAME"], "fence": {"resource": "NAME", "token": 1}
        }),
        "cache.invalidate" => serde_json::json!({"tag": "NAME"}),
        "cache.touch" => serde_json::json!({"ttl_ms": 1000}),
        "admin.lock.release" => serde_json::json!({"resource": "NAME", "reason": "r"}),
        "admin.session.close" => serde_json::json!({"session": "NAME", "reason": "r"}),
        "admin.queue.purge" => {
            serde_json::json!({"topic": "NAME", "states": ["dead"], "confirm": "NAME"})
        }
        "admin.cluster.add" | "admin.cluster.remove" => serde_json::json!({"node": 4}),
        _ => serde_json::json!({}),
    };
    for &operation in Operation::ALL {
        let schema = crate::protocol::request::schema(operation);
        let named = crate::protocol::request::suffix_field(schema).is_some();
        let own_body = operation.name().starts_with("admin.");
        // With a name in the subject there are no tags.
        let is_tagged = operation == Operation::CacheSet;
        let suffix = if named && !own_body && !is_tagged {
            ".NAME"
        } else {
            ""
        };
        let subject = format!("mufakat.t.TEAM.{operation}{suffix}");
        let about_all = own_body
            || matches!(
                operation,
                Operation::Metrics
                    | Operation::CacheStats
                    | Operation::CacheAudit
                    | Operation::ClusterMembers
            );
        assert_eq!(may_ask(operation).is_err(), about_all, "{operation}");
        match entered(&subject, &body(operation)) {
            Ok(request) => {
                assert!(!about_all, "{operation}: {request}");
                let names = request.matches("NAME").count();
                assert_eq!(request.matches("TEAM/NAME").count(), names, "{request}");
                assert!(names > 0 || !named, "{operation}: {request}");
            }
            Err(code) => {
                assert_eq!(code, Code::Forbidden, "{operation}");
                assert!(about_all, "{operation} is for tenants, too");
            }
        }
    }
    let all = entered("mufakat.t.TEAM.lock.list", &serde_json::json!({})).unwrap();
    assert!(all.contains("prefix: Some(\"TEAM/\")"), "{all}");
    let all = serde_json::json!({"all": true});
    let all = entered("mufakat.t.TEAM.cache.invalidate", &all).unwrap();
    assert!(
        all.contains("prefix: Some(\"TEAM/\")") && all.contains("all: false"),
        "{all}"
    );
}

/// Whether a request with this name in each of its places is taken.
fn is_taken(of_tenant: bool, subject: &str, name: &str) -> Result<(), Option<String>> {
    let envelope = |suffix| Envelope {
        suffix,
        of_tenant,
        ..Envelope::default()
    };
    let address = Prefix::default().parse(subject).expect("of a request");
    let body = serde_json::json!({
        "key": name, "value": "x", "tags": [name], "fence": {"resource": name, "token": 1},
    });
    let bodies = match address.operation {
        Some(Operation::CacheSet) => vec![(None, body)],
        Some(Operation::LockGet) => vec![
            (None, serde_json::json!({"resource": name})),
            (Some(name), serde_json::json!({})),
        ],
        _ => vec![(None, serde_json::json!({"prefix": name, "cursor": name}))],
    };
    for (suffix, body) in bodies {
        let body = body.to_string();
        let (_, request) = Request::decode(address.operation, envelope(suffix), body.as_bytes());
        request.map_err(|refusal| refusal.field)?;
    }
    Ok(())
}

#[test]
fn who_is_outside_can_name_whatever_a_tenant_can() {
    let longest = "n".repeat(256);
    let account = "A".repeat(ACCOUNT_BYTES_MAX);
    for subject in [
        "mufakat.lock.get",
        "mufakat.lock.list",
        "mufakat.queue.list",
        "mufakat.cache.set",
    ] {
        let outside = |name: &str| is_taken(false, subject, name).is_ok();
        for taken in [
            longest.clone(),
            format!("TEAM/{longest}"),
            format!("{account}/{longest}"),
            format!("a/b/{}", &longest[3..]),
            "TEAM/".to_owned(),
        ] {
            assert!(outside(&taken), "{subject} {taken}");
        }
        for refused in [
            format!("{longest}n"),
            format!("TEAM/{longest}n"),
            format!("{account}A/{longest}"),
            format!("no account/{longest}"),
            format!("/{longest}"),
            "TEAM/\u{7}".to_owned(),
        ] {
            assert!(!outside(&refused), "{subject} {refused}");
        }
        assert_eq!(is_taken(true, subject, &longest), Ok(()));
        let too_long = is_taken(true, subject, &format!("TEAM/{longest}"));
        assert!(too_long.is_err(), "a tenant's own names have no account");
    }
}

#[derive(Serialize)]
struct Nested<'a> {
    owner: &'a str,
    holds: Option<&'a str>,
    keys_like: [&'a str; 1],
}

#[derive(Serialize)]
struct Reply<'a> {
    resource: &'a str,
    cycle: Vec<Nested<'a>>,
    note: &'a str,
    meta: Meta,
    value: serde_json::Value,
    #[serde(flatten)]
    more: Nested<'a>,
}

#[test]
fn replies_show_names_without_the_account_and_leave_the_rest() {
    let nested = || Nested {
        owner: "TEAM/w",
        holds: Some("TEAM/r"),
        keys_like: ["TEAM/k"],
    };
    let body = Reply {
        resource: "TEAM/TEAM/r",
        cycle: vec![nested()],
        note: "TEAM/n",
        meta: Meta::from_json(r#"{"owner":"TEAM/w","n":1.0}"#).unwrap(),
        value: serde_json::json!({"owner": "TEAM/w"}),
        more: nested(),
    };
    let expected = serde_json::json!({
        "ok": true, "node": 1, "resource": "TEAM/r",
        "cycle": [{"owner": "w", "holds": "r", "keys_like": ["TEAM/k"]}],
        "note": "TEAM/n", "meta": {"owner": "TEAM/w", "n": 1.0}, "value": {"owner": "TEAM/w"},
        "owner": "w", "holds": "r", "keys_like": ["TEAM/k"],
    });
    let from = From {
        node: NodeId(1),
        ask_node: None,
    };
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let to = ReplyTo {
            tenant: Some(tenant("TEAM")),
            ..ReplyTo::new("_INBOX.x", encoding)
        };
        let payload = reply::success(&to, from, &body).payload;
        let shown: serde_json::Value = encoding.decode(&payload).unwrap();
        assert_eq!(shown, expected, "{encoding:?}");
        if encoding == Encoding::Json {
            let text = String::from_utf8(payload.to_vec()).unwrap();
            assert!(text.contains(r#""n":1.0"#), "{text}");
        }
        let error = ErrorReply {
            resource: Some("TEAM/r".into()),
            ..ErrorReply::new(Code::LockHeld, "`TEAM/r` is held by `TEAM/w`")
        };
        let refused = reply::failure(&to, from, &error);
        let shown: serde_json::Value = encoding.decode(&refused.payload).unwrap();
        assert_eq!(shown["error"]["message"], "`r` is held by `w`");
        assert_eq!(shown["error"]["resource"], "r");
        assert_eq!(refused.headers[0].1, "`r` is held by `w`");
    }
}
