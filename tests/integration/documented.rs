//! Compares what nodes send with `docs/asyncapi.json`.
//!
//! Knows the part of JSON Schema that the document uses. Stricter than the document in one thing:
//! a field that it does not name is an error here, though clients have to pass over it.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// The document.
pub struct Documented(Value);

impl Documented {
    pub fn load() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/asyncapi.json");
        let text = fs::read_to_string(path).expect("the document is in the repository");
        Documented(serde_json::from_str(&text).expect("it is JSON"))
    }

    /// Demands that an answer to an operation, such as `lock.acquire`, is as documented.
    pub fn check_answer(&self, operation: &str, answer: &Value) {
        let message = match answer["ok"] == true {
            true => format!("{operation}.success"),
            false => "error".to_owned(),
        };
        self.check_message(&message, answer);
    }

    /// The same for an event, such as `granted`.
    pub fn check_event(&self, kind: &str, event: &Value) {
        self.check_message(&format!("event.lock.{kind}"), event);
    }

    fn check_message(&self, message: &str, value: &Value) {
        let schema = &self.0["components"]["messages"][message]["payload"];
        assert!(schema.is_object(), "the document has no message {message}");
        if let Err(why) = self.check(schema, value) {
            panic!("{message} {value}: {why}");
        }
    }

    fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        if let Some(target) = schema["$ref"].as_str() {
            let target = self.0.pointer(&target[1..]).expect("references lead there");
            return self.check(target, value);
        }
        if let Some(constant) = schema.get("const") {
            return demand(constant == value, || format!("is not {constant}"));
        }
        if let Some(names) = schema["enum"].as_array() {
            demand(names.contains(value), || format!("{value} is no {names:?}"))?;
        }
        let kinds = match &schema["type"] {
            Value::Array(kinds) => kinds.clone(),
            kind => vec![kind.clone()],
        };
        let kind = kind_of(value);
        demand(kinds.iter().any(|k| k == kind), || {
            format!("{value} is not {kinds:?}")
        })?;
        if let (Some(number), Some(max)) = (value.as_u64(), schema["maximum"].as_u64()) {
            demand(number <= max, || format!("{number} is more than {max}"))?;
        }
        for item in value.as_array().into_iter().flatten() {
            self.check(&schema["items"], item)?;
        }
        match schema["properties"].as_object() {
            Some(_) => self.check_fields(schema, value),
            None => Ok(()),
        }
    }

    fn check_fields(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let fields = value.as_object().expect("its type was checked");
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().expect("names are text");
            demand(fields.contains_key(name), || format!("`{name}` is missing"))?;
        }
        for (name, value) in fields {
            let field = schema["properties"].get(name);
            let field = field.ok_or_else(|| format!("`{name}` is not documented"))?;
            self.check(field, value)
                .map_err(|why| format!("`{name}`: {why}"))?;
        }
        Ok(())
    }
}

fn demand(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
