//! What a consumer asks for.

use serde::Serialize;

use super::{BATCH_MAX, VISIBILITY_MS_MAX, WAIT_MS_MAX};
use crate::protocol::Refusal;
use crate::protocol::fields::{Field, Fields, Rule};

/// What a pop asks for, alone or behind an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Demand {
    /// Who takes the messages; shown to operators.
    pub consumer: String,
    /// 1 to [`BATCH_MAX`].
    pub max: u64,
    /// At most [`WAIT_MS_MAX`]; 0: what is there now.
    pub wait_ms: u64,
    /// How long the messages are this consumer's alone; absent: as the topic says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility_ms: Option<u64>,
}

impl Demand {
    pub(super) const FIELDS: &[Field] = &[
        Field::new("consumer", Rule::Name),
        Field::new("max", Rule::Integer(1, BATCH_MAX as u64)),
        Field::new("wait_ms", Rule::Integer(0, WAIT_MS_MAX)),
        Field::new("visibility_ms", Rule::Integer(100, VISIBILITY_MS_MAX)),
    ];

    /// One message, if there is one now.
    pub fn new(consumer: impl Into<String>) -> Self {
        Demand {
            consumer: consumer.into(),
            max: 1,
            wait_ms: 0,
            visibility_ms: None,
        }
    }

    pub(super) fn build(given: &mut Fields<'_>) -> Result<Self, Refusal> {
        Ok(Demand {
            consumer: given.required_text("consumer")?,
            max: given.integer("max").unwrap_or(1),
            wait_ms: given.integer("wait_ms").unwrap_or(0),
            visibility_ms: given.integer("visibility_ms"),
        })
    }
}
