//! `docs/asyncapi.json`: the wire contract for programs, as an AsyncAPI 3.0.0 document.
//!
//! Requests come from the tables that decode them, errors from the table of codes, subjects from
//! [`Prefix`]; replies and events are in [`schemas`], and the integration tests compare them with
//! what nodes really send. A test here keeps the file in the repository equal to what the code
//! says. Exists in tests only, since nothing at run time needs the document.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::protocol::request;
use crate::protocol::subject::QUEUE_GROUP;
use crate::protocol::{Operation, Prefix};

mod schemas;

const DESCRIPTION: &str = "Locks, a queue and a coherent cache for programs that talk NATS. A request \
    is a NATS request with one map in JSON or MessagePack as its body; the reply has the request's encoding. A field \
    that is null counts as absent. docs/protocol.md \
    says the same in prose, with examples.";

/// Set to anything, this makes the test write the file instead of comparing.
const UPDATE: &str = "UPDATE_DOCS";

/// The whole document.
fn document() -> Value {
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Mufakat",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": {"name": env!("CARGO_PKG_LICENSE")},
        },
        "defaultContentType": "application/json",
        "servers": {"broker": {
            "host": "127.0.0.1:4222",
            "protocol": "nats",
            "description": "Any NATS server that the nodes are connected to.",
        }},
        "channels": channels(),
        "operations": operations(),
        "components": {
            "messages": messages(),
            "messageTraits": {"traced": schemas::traced()},
            "schemas": schemas::components(),
            "parameters": {
                "prefix": {
                    "default": Prefix::default().as_str(),
                    "description": "First tokens of every subject of a cluster.",
                },
                "node": {"description": "The number of one node: it answers itself."},
                "topic": {"description": "The topic, one or more tokens; in the body if it has \
                    spaces, `*`, `>` or empty tokens."},
                "key": {"description": "The key, one or more tokens; in the body if it has spaces, `*`, \
                    `>` or empty tokens."},
                "resource": {"description": "The resource, one or more tokens; in the body if it \
                    has spaces, `*`, `>` or empty tokens."},
            },
        },
    })
}

/// The three ways to address an operation: as any node, with the resource, as one node.
fn addresses(operation: Operation) -> Vec<(String, String, &'static [&'static str])> {
    let name = operation.name();
    let mut addresses = vec![(
        name.to_owned(),
        format!("{{prefix}}.{name}"),
        &["prefix"][..],
    )];
    match request::suffix_field(request::schema(operation)) {
        Some("topic") => addresses.push((
            format!("{name}.topic"),
            format!("{{prefix}}.{name}.{{topic}}"),
            &["prefix", "topic"],
        )),
        Some("key") => addresses.push((
            format!("{name}.key"),
            format!("{{prefix}}.{name}.{{key}}"),
            &["prefix", "key"],
        )),
        Some(_) => addresses.push((
            format!("{name}.resource"),
            format!("{{prefix}}.{name}.{{resource}}"),
            &["prefix", "resource"],
        )),
        None => {}
    }
    addresses.push((
        format!("node.{name}"),
        format!("{{prefix}}.node.{{node}}.{name}"),
        &["prefix", "node"],
    ));
    addresses
}

fn channels() -> Value {
    let mut channels = Map::new();
    for &operation in Operation::ALL {
        let name = operation.name();
        for (channel, address, parameters) in addresses(operation) {
            let request = reference("messages", &format!("{name}.request"));
            channels.insert(
                channel,
                json!({
                    "address": address,
                    "parameters": parameters_of(parameters),
                    "messages": {"request": request},
                }),
            );
        }
        channels.insert(
            format!("{name}.reply"),
            json!({
                "address": null,
                "description": "The reply subject that the request names.",
                "messages": {
                    "success": reference("messages", &format!("{name}.success")),
                    "error": reference("messages", "error"),
                },
            }),
        );
    }
    for (kind, _) in schemas::events() {
        channels.insert(
            format!("event.{kind}"),
            json!({
                "address": format!("{{prefix}}.event.{kind}"),
                "parameters": parameters_of(&["prefix"]),
                "messages": {"event": reference("messages", &format!("event.{kind}"))},
            }),
        );
    }
    channels.into()
}

fn operations() -> Value {
    let mut operations = Map::new();
    for &operation in Operation::ALL {
        let name = operation.name();
        for (channel, ..) in addresses(operation) {
            let one_node = channel.starts_with("node.");
            let mut described = json!({
                "action": "receive",
                "summary": schemas::summary(operation),
                "channel": reference("channels", &channel),
                "reply": {"channel": reference("channels", &format!("{name}.reply"))},
            });
            if !one_node {
                described["bindings"] = json!({"nats": {"queue": QUEUE_GROUP}});
            }
            operations.insert(channel, described);
        }
    }
    for (kind, _) in schemas::events() {
        let channel = format!("event.{kind}");
        let described = json!({
            "action": "send",
            "summary": schemas::event_summary(kind),
            "channel": reference("channels", &channel),
        });
        operations.insert(channel, described);
    }
    operations.into()
}

fn messages() -> Value {
    let mut messages = Map::new();
    for &operation in Operation::ALL {
        let name = operation.name();
        let mut message = json!({
            "name": format!("{name}.request"),
            "payload": request_schema(operation),
            "traits": [reference("messageTraits", "traced")],
        });
        if let Some(field) = request::id_field(operation) {
            message["headers"] = schemas::message_id_header(field);
        }
        messages.insert(format!("{name}.request"), message);
        messages.insert(
            format!("{name}.success"),
            json!({"name": format!("{name}.success"), "payload": schemas::success(operation)}),
        );
    }
    messages.insert("error".to_owned(), schemas::error_message());
    for (kind, payload) in schemas::events() {
        let name = format!("event.{kind}");
        messages.insert(name.clone(), json!({"name": name, "payload": payload}));
    }
    messages.into()
}

/// The body of a request, by the table that decodes it. `resource` may be in the subject, so that
/// the schema does not require it.
fn request_schema(operation: Operation) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in request::schema(operation) {
        let mut schema = field.json_schema();
        let (description, default) = schemas::request_field(operation, field.name);
        schema["description"] = description.into();
        if !default.is_null() {
            schema["default"] = default;
        }
        if schemas::is_required(operation, field.name) {
            required.push(field.name);
        }
        properties.insert(field.name.to_owned(), schema);
    }
    let mut schema = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    if let Some(either) = schemas::either(operation) {
        let each = either.iter().map(|field| json!({"required": [field]}));
        schema["anyOf"] = each.collect();
    }
    schema
}

fn parameters_of(names: &[&str]) -> Value {
    let parameters = names.iter().map(|name| {
        let parameter = json!({"$ref": format!("#/components/parameters/{name}")});
        ((*name).to_owned(), parameter)
    });
    Value::Object(parameters.collect())
}

/// A pointer to a channel, or to a component of a kind.
fn reference(kind: &str, name: &str) -> Value {
    match kind {
        "channels" => json!({"$ref": format!("#/channels/{name}")}),
        _ => json!({"$ref": format!("#/components/{kind}/{name}")}),
    }
}

#[test]
fn the_document_in_the_repository_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/asyncapi.json");
    let mut text = serde_json::to_string_pretty(&document()).unwrap();
    text.push('\n');
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == text,
        "docs/asyncapi.json is not what the code says. Run\n  \
         {UPDATE}=1 cargo test --lib asyncapi\nthen read the difference and commit it."
    );
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    found.push(target.clone());
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50, "{}", found.len());
    for target in found {
        let pointer = target.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{target}");
    }
}

#[test]
fn what_a_request_requires_is_what_decoding_misses() {
    use crate::protocol::Request;
    use crate::protocol::request::Envelope;

    for &operation in Operation::ALL {
        let resource = request::suffix_field(request::schema(operation)).map(|_| "a");
        let envelope = Envelope {
            suffix: resource,
            ..Envelope::default()
        };
        let (_, empty) = Request::decode(Some(operation), envelope, b"{}");
        let missing: Option<String> = empty.err().and_then(|refusal| refusal.field);
        let schema = request_schema(operation);
        let any = &schema["anyOf"][0]["required"][0];
        let required = schema["required"][0].as_str().or(any.as_str());
        let required = required.map(str::to_owned);
        assert_eq!(missing, required, "{operation}");
    }
}
