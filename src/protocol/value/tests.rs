use super::*;
use crate::protocol::fields::{Field, Names, Rule};

const FIELDS: &[Field] = &[
    Field::new("value", Rule::Value),
    Field::new("value_base64", Rule::Base64),
    Field::new("encoding", Rule::Choice(Kind::NAMES)),
];

fn decoded(encoding: Encoding, body: &[u8]) -> Result<Option<Value>, Refusal> {
    let mut given = Fields::decode(("cache.set", FIELDS), Names::OfTenant, encoding, body)?;
    Value::build(&mut given, "value", "value_base64")
}

fn of_json(body: &str) -> Value {
    let value = decoded(Encoding::Json, body.as_bytes());
    value.expect("a good value").expect("a value")
}

fn of_pack(body: &impl Serialize) -> Value {
    let body = rmp_serde::to_vec_named(body).unwrap();
    let value = decoded(Encoding::MessagePack, &body);
    value.expect("a good value").expect("a value")
}

fn refused(body: &str) -> (Code, Option<String>) {
    let refusal = decoded(Encoding::Json, body.as_bytes()).expect_err(body);
    (refusal.code, refusal.field.clone())
}

#[test]
fn json_bodies_have_text_json_and_base64() {
    assert_eq!(of_json(r#"{"value":"a\nb"}"#), Value::text("a\nb"));
    for json in [
        "12345678901234567890123",
        "1.0",
        "null",
        "true",
        "[1, {\"a\":1e3}]",
        "{\"value\" : 1}",
        r#"{"half":"\ud800"}"#,
    ] {
        let value = of_json(&format!("{{\"value\":{json}}}"));
        assert_eq!(
            (value.kind(), &value.bytes()[..]),
            (Kind::Json, json.as_bytes())
        );
    }
    assert_eq!(of_json("{\"value\":[1,\r\n2]}").bytes(), "[1,  2]");
    let binary = of_json(r#"{"value_base64":"AP8="}"#);
    assert_eq!(binary, Value::binary(vec![0, 255]));
    assert_eq!(decoded(Encoding::Json, b"{}"), Ok(None));
    assert_eq!(
        decoded(Encoding::Json, br#"{"value_base64":null}"#),
        Ok(None)
    );
}

#[test]
fn messagepack_bodies_have_str_bin_and_trees() {
    #[derive(Serialize)]
    struct Body<T> {
        value: T,
    }
    assert_eq!(of_pack(&Body { value: "é" }), Value::text("é"));
    let value = serde_bytes::ByteBuf::from(vec![0, 255]);
    assert_eq!(of_pack(&Body { value }), Value::binary(vec![0, 255]));
    let tree = serde_json::json!({"a": [1, -2, 1.5, null, true, "x"]});
    let value = of_pack(&Body {
        value: tree.clone(),
    });
    assert_eq!(value, Value::json(&tree.to_string()).unwrap());
    assert_eq!(
        of_pack(&Body { value: u64::MAX }).bytes(),
        "18446744073709551615"
    );
    assert_eq!(of_pack(&Body { value: () }), Value::json("null").unwrap());
}

#[test]
fn a_number_that_json_does_not_have_is_refused_wherever_it_is() {
    fn refused(value: impl Serialize) {
        let body = std::collections::BTreeMap::from([("value", value)]);
        let body = rmp_serde::to_vec_named(&body).unwrap();
        let refusal = decoded(Encoding::MessagePack, &body).expect_err("no such JSON");
        assert_eq!(refusal.code, Code::BadRequest);
        assert_eq!(refusal.field.as_deref(), Some("value"));
    }
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        refused(number);
        refused([number]);
        refused(std::collections::BTreeMap::from([("a", [(1, number)])]));
    }
    refused([f32::NAN]);
}

#[test]
fn a_field_that_is_there_twice_inside_a_map_is_refused() {
    let twice = b"\x81\xa5value\x82\xa1a\x01\xa1a\x02";
    let refusal = decoded(Encoding::MessagePack, twice).expect_err("one would be lost");
    assert_eq!(refusal.code, Code::BadRequest);
    assert_eq!(refusal.field.as_deref(), Some("value"));
}

#[test]
fn text_may_be_said_to_be_json_and_what_is_said_must_hold() {
    let json = of_json(r#"{"value":"{\"a\":1.0}","encoding":"json"}"#);
    assert_eq!(json, Value::json("{\"a\":1.0}").unwrap());
    assert_eq!(
        of_json(r#"{"value":"a","encoding":"text"}"#),
        Value::text("a")
    );
    let field = |name: &str| (Code::BadRequest, Some(name.to_owned()));
    assert_eq!(
        refused(r#"{"value":"{","encoding":"json"}"#),
        field("value")
    );
    assert_eq!(
        refused(r#"{"value":"a","encoding":"binary"}"#),
        field("encoding")
    );
    assert_eq!(
        refused(r#"{"value":1,"encoding":"text"}"#),
        field("encoding")
    );
    assert_eq!(
        refused(r#"{"value":1,"value_base64":"AA=="}"#),
        field("value_base64")
    );
    for wrong in ["A", "AP8", "A P8=", "é"] {
        let body = format!("{{\"value_base64\":\"{wrong}\"}}");
        assert_eq!(refused(&body), field("value_base64"), "{wrong}");
    }
    let deep = format!("{{\"value\":{}{}}}", "[".repeat(101), "]".repeat(101));
    assert_eq!(refused(&deep), field("value"));
    assert_eq!(refused(r#"{"value":"\ud800"}"#), field("value"));
}

#[test]
fn a_value_has_a_greatest_size() {
    let body = |bytes: usize| format!("{{\"value\":\"{}\"}}", "x".repeat(bytes));
    assert_eq!(
        of_json(&body(VALUE_BYTES_MAX)).bytes().len(),
        VALUE_BYTES_MAX
    );
    let (code, field) = refused(&body(VALUE_BYTES_MAX + 1));
    assert_eq!(
        (code, field.as_deref()),
        (Code::PayloadTooLarge, Some("value"))
    );
}

#[test]
fn a_reply_brings_back_what_was_sent_in_both_encodings() {
    #[derive(Serialize, Deserialize)]
    struct Reply {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<Plain>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value_base64: Option<String>,
        encoding: Kind,
    }
    let values = [
        Value::text("a \"text\"\n"),
        Value::text(""),
        Value::json("\"a\"").unwrap(),
        Value::json(r#"{"n": 1.0, "big": 12345678901234567890123}"#).unwrap(),
        Value::binary(vec![0, 1, 255]),
    ];
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        for value in &values {
            let fields = value.in_reply(encoding);
            let written = encoding.encode(&Reply {
                value: fields.plain,
                value_base64: fields.base64,
                encoding: fields.kind,
            });
            let read: Reply = encoding.decode(&written).unwrap();
            let fields = InFields {
                plain: read.value,
                base64: read.value_base64,
                kind: read.encoding,
            };
            assert_eq!(Value::from_reply(fields).as_ref(), Ok(value));
            let kept = Value::from_kept(value.kind(), value.bytes().clone());
            assert_eq!(&kept, value);
        }
    }
    let broken = Value::from_kept(Kind::Json, Bytes::from_static(b"{"));
    assert_eq!(broken.kind(), Kind::Binary);
}
