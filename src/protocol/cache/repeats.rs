//! What tells repeats of a write from other writes.

use serde::Serialize;

use crate::protocol::fields::{Field, Fields, Rule};
use crate::protocol::{ErrorReply, Refusal};

pub(super) const REQUEST_ID: Field = Field::new("request_id", Rule::Name);
pub(super) const REPEAT: Field = Field::new("repeat", Rule::Boolean);

/// Which write of a key it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repeat {
    /// Repeats have the same: they get the first answer, and are not executed again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Whether a request with this id may have been executed before. Then it is refused as
    /// `indeterminate` where that would not be known.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repeat: bool,
}

impl Repeat {
    pub(super) fn build(given: &mut Fields<'_>) -> Result<Self, Refusal> {
        let repeat = Repeat {
            request_id: given.text("request_id"),
            repeat: given.boolean("repeat").unwrap_or(false),
        };
        if repeat.repeat && repeat.request_id.is_none() {
            let message = "`repeat` needs `request_id`";
            return Err(ErrorReply::bad_field("repeat", message).into());
        }
        Ok(repeat)
    }
}
