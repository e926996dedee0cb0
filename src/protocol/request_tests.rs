//! What requests are refused, and with which words: the words are part of the contract's promise
//! that an error says what would be right.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::ids::Token;
use crate::protocol::lock::{DeadlockPolicy, Mode};

fn decode(operation: Operation, body: &[u8]) -> Result<Request, Refusal> {
    Request::decode(Some(operation), Envelope::default(), body).1
}

/// Code, field and message of the refusal of a JSON body.
fn refused(operation: Operation, body: &str) -> (Code, Option<String>, String) {
    let refusal = decode(operation, body.as_bytes()).expect_err(body);
    (
        refusal.code,
        refusal.field.clone(),
        refusal.message.to_string(),
    )
}

#[test]
fn a_full_acquire_is_read_from_both_encodings() {
    let body = json!({
        "resource": "orders.42", "mode": "shared", "owner": "w", "ttl_ms": 100, "wait_ms": 60000,
        "on_deadlock": "youngest", "meta": {"job": 1}, "request_id": "r", "timeout_ms": 120000,
    });
    let expected = Request::LockAcquire(Acquire {
        mode: Mode::Shared,
        owner: Some("w".into()),
        ttl_ms: Some(100),
        wait_ms: 60_000,
        on_deadlock: DeadlockPolicy::Youngest,
        meta: Some(crate::protocol::meta::Meta::from_json(r#"{"job":1}"#).unwrap()),
        request_id: Some("r".into()),
        timeout_ms: Some(120_000),
        ..Acquire::new("orders.42")
    });
    let json = decode(Operation::LockAcquire, body.to_string().as_bytes());
    assert_eq!(json.as_ref(), Ok(&expected));
    let pack = rmp_serde::to_vec(&body).unwrap();
    assert_eq!(decode(Operation::LockAcquire, &pack), Ok(expected));
}

#[test]
fn what_is_absent_or_null_has_its_default() {
    let body = r#" {"resource":"a","owner":null,"ttl_ms":null,"mode":null,"meta":null} "#;
    let request = decode(Operation::LockAcquire, body.as_bytes()).unwrap();
    assert_eq!(request, Request::LockAcquire(Acquire::new("a")));
    assert_eq!(request.timeout_ms(), 5_000);
    assert!(decode(Operation::Status, b"").is_ok());
}

#[test]
fn bad_requests_name_the_field_and_what_would_be_right() {
    let cases = [
        (
            r#"{"resource":"a","tll_ms":5}"#,
            "tll_ms",
            "unknown field `tll_ms`: lock.acquire has resource, resources, mode, permits, limit, owner, session, ttl_ms, wait_ms, on_deadlock, meta, request_id, timeout_ms",
        ),
        (
            r#"{}"#,
            "resource",
            "`resource` is missing: it must be text of 1 to 256 bytes without control characters",
        ),
        (
            r#"{"resource":""}"#,
            "resource",
            "`resource` must be text of 1 to 256 bytes without control characters, not 0 bytes",
        ),
        (
            r#"{"resource":"a\u0007"}"#,
            "resource",
            "`resource` must be text of 1 to 256 bytes without control characters, not one with control characters",
        ),
        (
            r#"{"resource":7}"#,
            "resource",
            "`resource` must be text of 1 to 256 bytes without control characters, not a number",
        ),
        (
            r#"{"resource":"a","resource":"a"}"#,
            "resource",
            "`resource` is given twice",
        ),
        (
            r#"{"owner":null,"resource":"a","owner":"b"}"#,
            "owner",
            "`owner` is given twice",
        ),
        (
            r#"{"resource":"a","ttl_ms":99}"#,
            "ttl_ms",
            "`ttl_ms` must be an integer from 100 to 86400000, not 99",
        ),
        (
            r#"{"resource":"a","ttl_ms":-1}"#,
            "ttl_ms",
            "`ttl_ms` must be an integer from 100 to 86400000, not a negative number",
        ),
        (
            r#"{"resource":"a","ttl_ms":1000.0}"#,
            "ttl_ms",
            "`ttl_ms` must be an integer from 100 to 86400000, not a number with a fraction, an exponent or more digits than an integer has here",
        ),
        (
            r#"{"resource":"a","ttl_ms":1e3}"#,
            "ttl_ms",
            "`ttl_ms` must be an integer from 100 to 86400000, not a number with a fraction, an exponent or more digits than an integer has here",
        ),
        (
            r#"{"resource":"a","ttl_ms":"30s"}"#,
            "ttl_ms",
            "`ttl_ms` must be an integer from 100 to 86400000, not text",
        ),
        (
            r#"{"resource":"a","ttl_ms":9007199254740992}"#,
            "ttl_ms",
            "`ttl_ms` must be an integer from 100 to 86400000, not a number that is out of range",
        ),
        (
            r#"{"resource":"a","wait_ms":60001}"#,
            "wait_ms",
            "`wait_ms` must be an integer from 0 to 60000, not 60001",
        ),
        (
            r#"{"resource":"a","mode":"upgrade"}"#,
            "mode",
            "`mode` must be \"exclusive\" or \"shared\" or \"permit\", not \"upgrade\"",
        ),
        (
            r#"{"resource":"a","mode":true}"#,
            "mode",
            "`mode` must be \"exclusive\" or \"shared\" or \"permit\", not a truth value",
        ),
        (
            r#"{"resource":"a","mode":[1,{"b":2}]}"#,
            "mode",
            "`mode` must be \"exclusive\" or \"shared\" or \"permit\", not a list",
        ),
        (
            r#"{"resource":"a","meta":"x"}"#,
            "meta",
            "`meta` must be an object of at most 1024 bytes as JSON, not another type",
        ),
        (
            r#"{"resource":"a","meta":{"n":1e999}}"#,
            "meta",
            "`meta` must be an object of at most 1024 bytes as JSON, not one that is broken inside",
        ),
        (
            r#"{"resource":"a","timeout_ms":0}"#,
            "timeout_ms",
            "`timeout_ms` must be an integer from 1 to 120000, not 0",
        ),
    ];
    for (body, field, message) in cases {
        assert_eq!(
            refused(Operation::LockAcquire, body),
            (Code::BadRequest, Some(field.into()), message.into()),
        );
    }
}

#[test]
fn an_unknown_field_comes_with_the_fields_that_exist() {
    let body = br#"{"resource":"a","token":1,"request_id":"r"}"#;
    let refusal = decode(Operation::LockRelease, body).unwrap_err();
    assert_eq!(refusal.field.as_deref(), Some("request_id"));
    assert_eq!(refusal.fields, ["resource", "token", "timeout_ms"]);
}

#[test]
fn what_is_not_one_map_is_refused() {
    let cases: [(&[u8], &str); 7] = [
        (b"[1]", "no such map starts with the byte 0x5b"),
        (b"\xff", "no such map starts with the byte 0xff"),
        (b"{", "EOF while parsing"),
        (b"{}x", "trailing characters"),
        (b" ", "EOF while parsing"),
        (b"\x80\x80", "1 bytes follow it"),
        (b"\x81\xa5owner", "`owner` cannot be read"),
    ];
    for (body, words) in cases {
        let refusal = decode(Operation::LockAcquire, body).unwrap_err();
        assert_eq!(refusal.code, Code::BadRequest);
        assert!(refusal.message.contains(words), "{}", refusal.message);
    }
}

#[test]
fn messagepack_types_that_json_lacks_are_refused_by_field() {
    // An extension, a float, binary; integers in signed form are integers.
    let bodies: [(&[u8], Option<&str>); 4] = [
        (b"\x81\xa5token\xd4\x01\x02", Some("token")),
        (b"\x81\xa5token\xca\x3f\x80\x00\x00", Some("token")),
        (b"\x81\xa8resource\xc4\x01a", Some("resource")),
        (b"\x82\xa8resource\xa1a\xa5token\xd0\x05", None),
    ];
    for (body, field) in bodies {
        let decoded = decode(Operation::LockRelease, body);
        assert_eq!(decoded.err().and_then(|e| e.field).as_deref(), field);
    }
}

#[test]
fn the_content_type_overrides_the_first_byte() {
    let envelope = |content_type| Envelope {
        content_type: Some(content_type),
        ..Envelope::default()
    };
    let with = |content_type, body: &[u8]| {
        Request::decode(Some(Operation::Status), envelope(content_type), body)
    };
    assert_eq!(with("application/msgpack", b"").0, Encoding::MessagePack);
    assert!(with("application/msgpack", b"").1.is_ok());
    assert!(with("application/msgpack", b"{}").1.is_err());
    for json in ["application/json; charset=utf-8", " Application/JSON;q=1"] {
        assert_eq!(with(json, b"{}"), with("application/json", b"{}"));
    }
    let (encoding, refusal) = with("text/plain", b"\x80");
    assert_eq!(encoding, Encoding::Json);
    assert_eq!(refusal.unwrap_err().field.as_deref(), Some("Content-Type"));
}

#[test]
fn a_suffix_is_the_resource() {
    let with = |operation, suffix, body: &str| {
        let envelope = Envelope {
            suffix: Some(suffix),
            ..Envelope::default()
        };
        Request::decode(Some(operation), envelope, body.as_bytes()).1
    };
    let get = Request::LockGet(Get::new("orders.42"));
    assert_eq!(with(Operation::LockGet, "orders.42", ""), Ok(get.clone()));
    let same = r#"{"resource":"orders.42"}"#;
    assert_eq!(with(Operation::LockGet, "orders.42", same), Ok(get));
    for (operation, suffix, body) in [
        (
            Operation::LockGet,
            "orders.42",
            r#"{"resource":"orders.43"}"#,
        ),
        (Operation::LockGet, "orders.*", ""),
        (Operation::LockGet, "orders..42", ""),
        (Operation::LockGet, "", ""),
        (Operation::Status, "orders.42", ""),
    ] {
        let refusal = with(operation, suffix, body).expect_err(suffix);
        assert_eq!(refusal.code, Code::BadRequest);
    }
}

#[test]
fn the_message_id_header_is_the_request_id_where_there_is_one() {
    let with = |operation, id, body: &str| {
        let envelope = Envelope {
            message_id: Some(id),
            ..Envelope::default()
        };
        Request::decode(Some(operation), envelope, body.as_bytes()).1
    };
    let own = with(Operation::LockAcquire, "r", r#"{"resource":"a"}"#);
    let Ok(Request::LockAcquire(acquire)) = own else {
        panic!("an acquire takes the header");
    };
    assert_eq!(acquire.request_id.as_deref(), Some("r"));
    let body = r#"{"resource":"a","request_id":"s"}"#;
    let differing = with(Operation::LockAcquire, "r", body);
    assert_eq!(differing.unwrap_err().field.as_deref(), Some("request_id"));
    for (operation, body) in [
        (Operation::LockGet, r#"{"resource":"a"}"#),
        (
            Operation::QueuePush,
            r#"{"topic":"a","messages":[{"payload":1}]}"#,
        ),
    ] {
        let kept_nowhere = with(operation, "r", body).unwrap_err();
        assert_eq!(kept_nowhere.field.as_deref(), Some("Nats-Msg-Id"));
    }
}

#[test]
fn there_are_no_other_operations() {
    let (_, unknown) = Request::decode(None, Envelope::default(), b"{}");
    assert_eq!(unknown.unwrap_err().code, Code::UnknownOperation);
}

#[test]
fn several_resources_are_each_checked_by_name() {
    let acquire = |body: &str| {
        let (_, request) = Request::decode(
            Some(Operation::LockAcquire),
            Envelope::default(),
            body.as_bytes(),
        );
        request
    };
    for (body, field, said) in [
        (r#"{"resources":[]}"#, "resources", "at least one"),
        (
            r#"{"resources":"a"}"#,
            "resources",
            "a list of at most 32 objects",
        ),
        (
            r#"{"resources":["a"]}"#,
            "resources",
            "a list of at most 32 objects",
        ),
        (
            r#"{"resources":[{"resource":"a"},{}]}"#,
            "resources[1].resource",
            "`resource` is missing",
        ),
        (
            r#"{"resources":[{"resource":"a","mod":"x"}]}"#,
            "resources[0].mod",
            "unknown field `mod`",
        ),
        (
            r#"{"resources":[{"resource":"a"},{"resource":"a"}]}"#,
            "resources",
            "`a` is given twice",
        ),
        (
            r#"{"resource":"b","resources":[{"resource":"a"}]}"#,
            "resource",
            "not both",
        ),
        (
            r#"{"resource":"a","mode":"permit"}"#,
            "limit",
            "`limit` is missing",
        ),
        (
            r#"{"resource":"a","mode":"permit","permits":3,"limit":2}"#,
            "permits",
            "more than the limit of 2",
        ),
        (
            r#"{"resource":"a","permits":2}"#,
            "permits",
            "for mode \"permit\"",
        ),
        (
            r#"{"resource":"a","limit":2}"#,
            "limit",
            "for mode \"permit\"",
        ),
        (
            r#"{"resources":[{"resource":"a"}],"limit":2}"#,
            "limit",
            "for mode \"permit\"",
        ),
    ] {
        let refusal = acquire(body).expect_err(body);
        assert_eq!(refusal.code, Code::BadRequest, "{body}");
        assert_eq!(refusal.field.as_deref(), Some(field), "{body}");
        assert!(
            refusal.message.contains(said),
            "{body}: {}",
            refusal.message
        );
    }
    let many: Vec<String> = (0..33)
        .map(|n| format!(r#"{{"resource":"{n}"}}"#))
        .collect();
    let refusal = acquire(&format!(r#"{{"resources":[{}]}}"#, many.join(","))).unwrap_err();
    assert_eq!(
        (refusal.code, refusal.limit),
        (Code::TooManyItems, Some(32))
    );
    let body = r#"{"mode":"permit","limit":5,"resources":[{"resource":"b","mode":"shared"},{"resource":"a","permits":2}]}"#;
    let Request::LockAcquire(acquire) = acquire(body).unwrap() else {
        panic!("an acquire");
    };
    let wanted: Vec<_> = acquire.wanted().collect();
    assert_eq!(
        wanted,
        [("b", Mode::Shared, 0, 0), ("a", Mode::Permit, 2, 5)]
    );
}

#[test]
fn several_resources_lie_under_the_subject() {
    let acquire = |suffix: &str, body: &str| {
        let envelope = Envelope {
            suffix: Some(suffix),
            ..Envelope::default()
        };
        Request::decode(Some(Operation::LockAcquire), envelope, body.as_bytes()).1
    };
    let body = r#"{"resources":[{"resource":"team_a.x"},{"resource":"team_a"}]}"#;
    assert!(acquire("team_a", body).is_ok());
    for suffix in ["team", "team_a.x", "team_b"] {
        let refusal = acquire(suffix, body).expect_err(suffix);
        assert_eq!(refusal.field.as_deref(), Some("resources"));
    }
}

fn operation() -> impl Strategy<Value = Operation> {
    proptest::sample::select(Operation::ALL)
}

proptest! {
    #[test]
    fn any_bytes_are_a_request_or_a_refusal(
        operation in operation(),
        first in proptest::sample::select(vec![b'{', b' ', 0x81, 0x82, 0xde, 0xdf, 0xff]),
        rest in proptest::collection::vec(any::<u8>(), 0..64),
        suffix in proptest::option::of(".{0,8}"),
    ) {
        let body = [&[first], &rest[..]].concat();
        let envelope = Envelope { suffix: suffix.as_deref(), ..Envelope::default() };
        let (encoding, decoded) = Request::decode(Some(operation), envelope, &body);
        if let Err(refusal) = decoded {
            encoding.encode(&*refusal);
        }
    }

    #[test]
    fn any_json_is_a_request_or_a_refusal(
        operation in operation(),
        keys in proptest::collection::vec(
            proptest::sample::select(vec!["resource", "token", "ttl_ms", "meta", "mode", "x"]), 0..4),
        values in proptest::collection::vec(
            proptest::sample::select(vec!["1", "-0", "\"a\"", "null", "{\"a\":\"\\ud800\"}", "1e5",
                "[[]]", "{}", "true", "\"\\u0000\"", "184467440737095516160"]), 4),
    ) {
        let fields: Vec<_> = keys.iter().zip(&values).map(|(k, v)| format!("\"{k}\":{v}")).collect();
        let body = format!("{{{}}}", fields.join(","));
        let _ = decode(operation, body.as_bytes());
    }

    #[test]
    fn what_the_client_writes_is_read_as_it_was(
        resource in "[^\\p{Cc}]{1,60}",
        owner in proptest::option::of("[a-z]{1,9}"),
        ttl_ms in 100u64..86_400_000,
        wait_ms in 0u64..60_000,
        token in 1u64..(1 << 53),
        json in any::<bool>(),
    ) {
        let encoding = if json { Encoding::Json } else { Encoding::MessagePack };
        let acquire = Acquire { owner, ttl_ms: Some(ttl_ms), wait_ms, ..Acquire::new(resource.clone()) };
        prop_assert_eq!(
            decode(Operation::LockAcquire, &encoding.encode(&acquire)),
            Ok(Request::LockAcquire(acquire))
        );
        let renew = Renew { ttl_ms: Some(ttl_ms), ..Renew::new(resource, Token(token)) };
        prop_assert_eq!(
            decode(Operation::LockRenew, &encoding.encode(&renew)),
            Ok(Request::LockRenew(renew))
        );
    }
}

#[test]
fn a_cache_is_told_what_to_invalidate_and_fences_name_lock_and_token() {
    let asked = |operation, suffix, body: &str| {
        let envelope = Envelope {
            suffix,
            ..Envelope::default()
        };
        let (_, request) = Request::decode(Some(operation), envelope, body.as_bytes());
        request.map_err(|refusal| (refusal.code, refusal.field))
    };
    for body in [
        "{}",
        r#"{"all":false}"#,
        r#"{"tag":"a","prefix":"b"}"#,
        r#"{"prefix":"b","all":true}"#,
    ] {
        let refused = asked(Operation::CacheInvalidate, None, body).unwrap_err();
        assert_eq!(refused, (Code::BadRequest, None), "{body}");
    }
    asked(Operation::CacheInvalidate, None, r#"{"all":true}"#).unwrap();
    for fence in [r#"{}"#, r#"{"resource":"a"}"#, r#"{"token":1}"#] {
        let body = format!(r#"{{"value":"x","fence":{fence}}}"#);
        let refused = asked(Operation::CacheSet, Some("k"), &body).unwrap_err();
        assert_eq!(refused, (Code::BadRequest, Some("fence".into())), "{body}");
    }
    // A name in the subject may be all that the asker's account allows.
    let set = |resource: &str| {
        let body = format!(r#"{{"value":"x","fence":{{"resource":"{resource}","token":1}}}}"#);
        asked(Operation::CacheSet, Some("team.k"), &body).map(|_| ())
    };
    assert_eq!(set("team.k"), Ok(()));
    assert_eq!(set("team.k.lock"), Ok(()));
    let refused = (Code::BadRequest, Some("fence".into()));
    assert_eq!(set("team.other"), Err(refused.clone()));
    assert_eq!(set("team.kk"), Err(refused));
}
