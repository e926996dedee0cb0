use super::*;
use crate::protocol::request::Envelope;
use crate::protocol::{Code, Encoding, Request as AnyRequest};

fn decoded(operation: Operation, body: &str) -> Result<Request, Refusal> {
    let envelope = Envelope::default();
    let (_, request) = AnyRequest::decode(Some(operation), envelope, body.as_bytes());
    match request? {
        AnyRequest::Queue(request) => Ok(*request),
        other => panic!("not of the queue: {other:?}"),
    }
}

fn refused(operation: Operation, body: &str) -> (Code, String) {
    let refusal = decoded(operation, body).expect_err(body);
    (refusal.code, refusal.field.clone().unwrap_or_default())
}

#[test]
fn a_push_is_one_message_or_a_batch() {
    let Ok(Request::Push(push)) = decoded(Operation::QueuePush, r#"{"topic":"a","payload":1}"#)
    else {
        panic!("a push");
    };
    let expected = Push::one("a", Message::new(Value::json("1").unwrap()));
    assert_eq!(push, expected);
    let body =
        r#"{"topic":"a","messages":[{"payload":"x","priority":9},{"payload_base64":"AA=="}]}"#;
    let Ok(Request::Push(push)) = decoded(Operation::QueuePush, body) else {
        panic!("a push");
    };
    assert!(push.batch);
    assert_eq!(push.messages[0].priority, 9);
    assert_eq!(push.messages[1].payload, Value::binary(vec![0]));
}

#[test]
fn a_peek_goes_on_by_cursor_or_by_sequence() {
    let look = |body| match decoded(Operation::QueuePeek, body) {
        Ok(Request::Admin(Admin {
            act: Act::Peek { look, .. },
            ..
        })) => look,
        other => panic!("{body}: {other:?}"),
    };
    let state = State::Ready;
    assert_eq!(look(r#"{"topic":"a"}"#), Look::In { state, cursor: 0 });
    let state = State::Dead;
    let dead = look(r#"{"topic":"a","state":"dead","cursor":3}"#);
    assert_eq!(dead, Look::In { state, cursor: 3 });
    let all = look(r#"{"topic":"a","state":"all","after_seq":7}"#);
    assert_eq!(all, Look::After { seq: 7 });
    for (body, field) in [
        (r#"{"topic":"a","after_seq":7}"#, "after_seq"),
        (r#"{"topic":"a","state":"all","cursor":3}"#, "cursor"),
        (r#"{"topic":"a","state":"gone"}"#, "state"),
    ] {
        let expected = (Code::BadRequest, field.to_owned());
        assert_eq!(refused(Operation::QueuePeek, body), expected, "{body}");
    }
}

#[test]
fn what_is_wrong_with_a_push_is_named() {
    for (body, field) in [
        (r#"{"payload":1}"#, "topic"),
        (r#"{"topic":"a"}"#, "payload"),
        (r#"{"topic":"a","messages":[]}"#, "messages"),
        (r#"{"topic":"a","messages":[{}]}"#, "messages[0].payload"),
        (
            r#"{"topic":"a","messages":[{"payload":1}],"payload":1}"#,
            "payload",
        ),
        (r#"{"topic":"a","messages":[{"payload":1}],"id":"x"}"#, "id"),
        (r#"{"topic":"a","payload":1,"priority":10}"#, "priority"),
        (
            r#"{"topic":"a","payload":1,"delay_ms":1,"deliver_at_ms":2}"#,
            "deliver_at_ms",
        ),
        (r#"{"topic":"a","payload":1,"headers":{"a":1}}"#, "headers"),
        (
            r#"{"topic":"a","messages":[{"payload":1,"headers":{"a":1}}]}"#,
            "messages[0].headers",
        ),
        (
            r#"{"topic":"a","payload":1,"headers":{"a":"1","a":"2"}}"#,
            "headers.a",
        ),
        (
            r#"{"topic":"a","messages":[{"payload":1,"headers":{"b":"1","b":"1"}}]}"#,
            "messages[0].headers.b",
        ),
        (
            r#"{"topic":"a","payload":1,"require_durability":"best"}"#,
            "require_durability",
        ),
    ] {
        assert_eq!(
            refused(Operation::QueuePush, body),
            (Code::BadRequest, field.to_owned())
        );
    }
}

#[test]
fn receipts_are_one_or_many_and_must_be_receipts() {
    let body = r#"{"topic":"a","receipt":"7.1.00000000000000ff","pop":{"consumer":"c"}}"#;
    let Ok(Request::Receipts(ack)) = decoded(Operation::QueueAck, body) else {
        panic!("an ack");
    };
    let pop = Some(Demand::new("c"));
    assert_eq!(ack.what, Verdict::Ack { pop });
    assert_eq!(ack.receipts[0].seq, 7);
    for (body, field) in [
        (r#"{"topic":"a"}"#, "receipt"),
        (r#"{"topic":"a","receipts":[]}"#, "receipt"),
        (r#"{"topic":"a","receipt":"7"}"#, "receipt"),
        (
            r#"{"topic":"a","receipt":"7.1.00000000000000ff","pop":{}}"#,
            "consumer",
        ),
    ] {
        assert_eq!(
            refused(Operation::QueueAck, body),
            (Code::BadRequest, field.to_owned())
        );
    }
}

#[test]
fn a_redrive_is_of_some_or_of_all_and_to_a_topic_that_the_subject_allows() {
    let none = r#"{"topic":"a","ids":[]}"#;
    assert_eq!(refused(Operation::QueueRedrive, none).1, "ids");
    let to = |suffix, to: &str| {
        let envelope = Envelope {
            suffix,
            ..Envelope::default()
        };
        let body = format!(r#"{{"topic":"team.a","to":"{to}"}}"#);
        let redrive = Some(Operation::QueueRedrive);
        let (_, request) = AnyRequest::decode(redrive, envelope, body.as_bytes());
        request.map(drop).map_err(|refusal| refusal.field.clone())
    };
    assert_eq!(to(None, "other"), Ok(()));
    assert_eq!(to(Some("team.a"), "team.a.late"), Ok(()));
    assert_eq!(to(Some("team.a"), "team.b"), Err(Some("to".to_owned())));
}

#[test]
fn a_purge_wants_the_topic_again() {
    let wrong = r#"{"topic":"a","states":["dead"],"confirm":"b"}"#;
    assert_eq!(refused(Operation::AdminQueuePurge, wrong).1, "confirm");
    let wrong = r#"{"topic":"a","states":["lost"],"confirm":"a"}"#;
    assert_eq!(refused(Operation::AdminQueuePurge, wrong).1, "states");
    let right = r#"{"topic":"a","states":["dead"],"confirm":"a"}"#;
    assert!(decoded(Operation::AdminQueuePurge, right).is_ok());
}

#[test]
fn what_the_client_writes_is_read_as_it_was() {
    let mut message = Message::new(Value::binary(vec![0, 255]));
    message.id = Some("i".to_owned());
    message.dedup_id = Some("d".to_owned());
    message.dedup_scope = DedupScope::UntilAcked;
    message.priority = 0;
    message.headers = Some(Meta::from_json(r#"{"a":"b"}"#).unwrap());
    let json = Message::new(Value::json("[1.0]").unwrap());
    let batch = Push {
        batch: true,
        messages: vec![message.clone(), json],
        ..Push::one("t", message.clone())
    };
    for push in [Push::one("t", message), batch] {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let body = encoding.encode(&push.in_encoding(encoding));
            let envelope = Envelope::default();
            let (_, read) = AnyRequest::decode(Some(Operation::QueuePush), envelope, &body);
            let expected = AnyRequest::Queue(Box::new(Request::Push(push.clone())));
            assert_eq!(read, Ok(expected));
        }
    }
}
