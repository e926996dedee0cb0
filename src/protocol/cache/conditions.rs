//! What must be so for a change of a key to be made.

use serde::Serialize;

use crate::ids::Token;
use crate::protocol::fields::{Field, Fields, Rule};
use crate::protocol::request::is_under;
use crate::protocol::{ErrorReply, INTEGER_MAX, Refusal};

pub(super) const IF: Field = Field::new(
    "if",
    Rule::Map(&[
        Field::new("absent", Rule::Boolean),
        Field::new("present", Rule::Boolean),
        Field::new("version", Rule::Name),
    ]),
);

pub(super) const FENCE: Field = Field::new(
    "fence",
    Rule::Map(&[
        Field::new("resource", Rule::Name),
        Field::new("token", Rule::Integer(1, INTEGER_MAX)),
    ]),
);

/// What must be so for a change to be made; one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct If {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub present: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A write is made by whoever holds this lock, exclusively and under this token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fence {
    pub resource: String,
    pub token: Token,
}

pub(super) fn fence(
    given: &mut Fields<'_>,
    suffix: Option<&str>,
) -> Result<Option<Fence>, Refusal> {
    let Some(mut map) = given.map("fence") else {
        return Ok(None);
    };
    let (Some(resource), Some(token)) = (map.text("resource"), map.integer("token")) else {
        let message = "`fence` must be {\"resource\":\"…\",\"token\":…}";
        return Err(ErrorReply::bad_field("fence", message).into());
    };
    if suffix.is_some_and(|suffix| !is_under(&resource, suffix)) {
        let message = format!(
            "`fence.resource` `{resource}` is neither the name in the subject nor below it"
        );
        return Err(ErrorReply::bad_field("fence", message).into());
    }
    Ok(Some(Fence {
        resource,
        token: Token(token),
    }))
}

pub(super) fn condition(given: &mut Fields<'_>) -> Result<Option<If>, Refusal> {
    let Some(mut map) = given.map("if") else {
        return Ok(None);
    };
    let condition = If {
        absent: map.boolean("absent").unwrap_or(false),
        present: map.boolean("present").unwrap_or(false),
        version: map.text("version"),
    };
    let count = usize::from(condition.absent)
        + usize::from(condition.present)
        + usize::from(condition.version.is_some());
    match count {
        1 => Ok(Some(condition)),
        _ => Err(ErrorReply::bad_field(
            "if",
            "`if` must be {\"absent\":true}, {\"present\":true} or {\"version\":\"…\"}",
        )
        .into()),
    }
}
