//! What clients ask of the cache, and the answers.

use serde::{Deserialize, Serialize};

use crate::protocol::fields::{Field, Fields, Rule};
use crate::protocol::value::{InFields, Kind, Plain, Value};
use crate::protocol::{Code, Encoding, ErrorReply, INTEGER_MAX, Refusal, TIMEOUT_MS_FIELD};

mod answers;
mod conditions;
mod repeats;

pub use answers::*;
use conditions::{FENCE, IF, condition, fence};
pub use conditions::{Fence, If};
pub use repeats::Repeat;
use repeats::{REPEAT, REQUEST_ID};

/// The greatest lifetime in milliseconds: a year.
pub const TTL_MS_MAX: u64 = 366 * 24 * 3_600_000;
/// The most keys that one `cache.get_many` names.
pub const KEYS_MAX: usize = 256;
/// How long a loader may claim a missing value, and wait for another's; the least of the former.
pub const CLAIM_MS_MAX: u64 = 60_000;
const CLAIM_MS_MIN: u64 = 100;
/// The most copies that one `cache.audit` compares, and how many it does unless it is told.
pub const SAMPLE_MAX: u64 = 10_000;
pub const SAMPLE_DEFAULT: u64 = 100;
/// The most tags that one value has.
pub const TAGS_MAX: usize = 16;

const KEY: Field = Field::new("key", Rule::Name);
const TTL_MS: Field = Field::new("ttl_ms", Rule::Integer(1, TTL_MS_MAX));
const CONSISTENCY: Field = Field::new("consistency", Rule::Choice(&["linearizable", "any"]));
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How new the value that a read gives has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// The latest.
    #[default]
    Linearizable,
    /// Whatever the asked node has, also when it could not know that it is old.
    Any,
}

impl Consistency {
    fn is_default(&self) -> bool {
        *self == Consistency::Linearizable
    }

    fn nth(index: usize) -> Self {
        [Consistency::Linearizable, Consistency::Any][index]
    }
}

/// `cache.get`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Get {
    pub key: String,
    #[serde(skip_serializing_if = "Consistency::is_default")]
    pub consistency: Consistency,
    /// If there is no value, claim the right to load it, for so long: 100 to [`CLAIM_MS_MAX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim_ms: Option<u64>,
    /// How long to wait for the value if somebody else loads it: 0 to [`CLAIM_MS_MAX`].
    #[serde(skip_serializing_if = "is_zero")]
    pub wait_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// `cache.get_many`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GetMany {
    /// 1 to [`KEYS_MAX`].
    pub keys: Vec<String>,
    #[serde(skip_serializing_if = "Consistency::is_default")]
    pub consistency: Consistency,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// `cache.set`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub key: String,
    pub value: Value,
    /// For ever when absent.
    pub ttl_ms: Option<u64>,
    /// How long it lives without being read.
    pub idle_ms: Option<u64>,
    pub condition: Option<If>,
    /// Names under which `cache.invalidate` finds it: at most [`TAGS_MAX`].
    pub tags: Vec<String>,
    pub fence: Option<Fence>,
    /// The claim under which it was loaded.
    pub claim: Option<String>,
    pub repeat: Repeat,
    pub timeout_ms: Option<u64>,
}

/// `cache.delete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delete {
    pub key: String,
    #[serde(rename = "if", skip_serializing_if = "Option::is_none")]
    pub condition: Option<If>,
    #[serde(flatten)]
    pub repeat: Repeat,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// `cache.increment`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Increment {
    pub key: String,
    /// 0 to 2^53 - 1.
    pub by: u64,
    /// What to add to when there is no value.
    pub initial: u64,
    /// Kept as it is when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    #[serde(flatten)]
    pub repeat: Repeat,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// `cache.touch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Touch {
    pub key: String,
    pub ttl_ms: u64,
    #[serde(flatten)]
    pub repeat: Repeat,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// `cache.invalidate`: removes the values that have the tag, whose keys begin with the prefix, or all;
/// one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Invalidate {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// `cache.explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explain {
    pub key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// `cache.audit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// How many copies to compare: 1 to [`SAMPLE_MAX`], [`SAMPLE_DEFAULT`] when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// `cache.stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AskStats {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Get {
    pub(super) const FIELDS: &[Field] = &[
        KEY,
        CONSISTENCY,
        Field::new("claim_ms", Rule::Integer(CLAIM_MS_MIN, CLAIM_MS_MAX)),
        Field::new("wait_ms", Rule::Integer(0, CLAIM_MS_MAX)),
        TIMEOUT_MS_FIELD,
    ];

    pub fn new(key: impl Into<String>) -> Self {
        Get {
            key: key.into(),
            consistency: Consistency::default(),
            claim_ms: None,
            wait_ms: 0,
            timeout_ms: None,
        }
    }

    pub(super) fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        let (claim_ms, wait_ms) = (given.integer("claim_ms"), given.integer("wait_ms"));
        if claim_ms.is_none() && wait_ms.is_some() {
            let message = "`wait_ms` needs `claim_ms`: it limits the wait for the client that loads the value";
            return Err(ErrorReply::bad_field("wait_ms", message).into());
        }
        Ok(Get {
            key: given.required_text("key")?,
            consistency: Consistency::nth(given.choice("consistency")),
            claim_ms,
            wait_ms: wait_ms.unwrap_or(0),
            timeout_ms: given.integer("timeout_ms"),
        })
    }
}

impl GetMany {
    pub(super) const FIELDS: &[Field] = &[
        Field::new("keys", Rule::Names(KEYS_MAX)),
        CONSISTENCY,
        TIMEOUT_MS_FIELD,
    ];

    pub(super) fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        let keys = given.names("keys").unwrap_or_default();
        if keys.is_empty() {
            let message = format!("`keys` must be a list of 1 to {KEYS_MAX} names");
            return Err(ErrorReply::bad_field("keys", message).into());
        }
        Ok(GetMany {
            keys,
            consistency: Consistency::nth(given.choice("consistency")),
            timeout_ms: given.integer("timeout_ms"),
        })
    }
}

impl Set {
    pub(super) const FIELDS: &[Field] = &[
        KEY,
        Field::new("value", Rule::Value),
        Field::new("value_base64", Rule::Base64),
        Field::new("encoding", Rule::Choice(Kind::NAMES)),
        TTL_MS,
        Field::new("idle_ms", Rule::Integer(1, TTL_MS_MAX)),
        IF,
        Field::new("tags", Rule::Names(TAGS_MAX)),
        FENCE,
        Field::new("claim", Rule::Name),
        REQUEST_ID,
        REPEAT,
        TIMEOUT_MS_FIELD,
    ];

    pub fn new(key: impl Into<String>, value: Value) -> Self {
        Set {
            key: key.into(),
            value,
            ttl_ms: None,
            idle_ms: None,
            condition: None,
            tags: Vec::new(),
            fence: None,
            claim: None,
            repeat: Repeat::default(),
            timeout_ms: None,
        }
    }

    pub(super) fn build(mut given: Fields<'_>, suffix: Option<&str>) -> Result<Self, Refusal> {
        let value = Value::build(&mut given, "value", "value_base64")?;
        let missing = || ErrorReply::bad_field("value", "`value` is missing: text, JSON or binary");
        let tags = given.names("tags").unwrap_or_default();
        if suffix.is_some() && !tags.is_empty() {
            let message = "with `tags` the key must be in the body, not in the subject";
            return Err(ErrorReply::bad_field("tags", message).into());
        }
        Ok(Set {
            key: given.required_text("key")?,
            value: value.ok_or_else(missing)?,
            ttl_ms: given.integer("ttl_ms"),
            idle_ms: given.integer("idle_ms"),
            condition: condition(&mut given)?,
            tags,
            fence: fence(&mut given, suffix)?,
            claim: given.text("claim"),
            repeat: Repeat::build(&mut given)?,
            timeout_ms: given.integer("timeout_ms"),
        })
    }

    /// The request as a body in `encoding` has it.
    pub fn body(&self, encoding: Encoding) -> impl Serialize + use<> {
        #[derive(Serialize)]
        struct Body {
            key: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            value: Option<Plain>,
            #[serde(skip_serializing_if = "Option::is_none")]
            value_base64: Option<String>,
            encoding: Kind,
            #[serde(skip_serializing_if = "Option::is_none")]
            ttl_ms: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            idle_ms: Option<u64>,
            #[serde(rename = "if", skip_serializing_if = "Option::is_none")]
            condition: Option<If>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            tags: Vec<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            fence: Option<Fence>,
            #[serde(skip_serializing_if = "Option::is_none")]
            claim: Option<String>,
            #[serde(flatten)]
            repeat: Repeat,
            #[serde(skip_serializing_if = "Option::is_none")]
            timeout_ms: Option<u64>,
        }
        let InFields {
            plain,
            base64,
            kind,
        } = self.value.in_request(encoding);
        Body {
            key: self.key.clone(),
            value: plain,
            value_base64: base64,
            encoding: kind,
            ttl_ms: self.ttl_ms,
            idle_ms: self.idle_ms,
            condition: self.condition.clone(),
            tags: self.tags.clone(),
            fence: self.fence.clone(),
            claim: self.claim.clone(),
            repeat: self.repeat.clone(),
            timeout_ms: self.timeout_ms,
        }
    }
}

impl Delete {
    pub(super) const FIELDS: &[Field] = &[KEY, IF, REQUEST_ID, REPEAT, TIMEOUT_MS_FIELD];

    pub fn new(key: impl Into<String>) -> Self {
        Delete {
            key: key.into(),
            condition: None,
            repeat: Repeat::default(),
            timeout_ms: None,
        }
    }

    pub(super) fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        Ok(Delete {
            key: given.required_text("key")?,
            condition: condition(&mut given)?,
            repeat: Repeat::build(&mut given)?,
            timeout_ms: given.integer("timeout_ms"),
        })
    }
}

impl Increment {
    pub(super) const FIELDS: &[Field] = &[
        KEY,
        Field::new("by", Rule::Integer(0, INTEGER_MAX)),
        Field::new("initial", Rule::Integer(0, INTEGER_MAX)),
        TTL_MS,
        REQUEST_ID,
        REPEAT,
        TIMEOUT_MS_FIELD,
    ];

    pub fn new(key: impl Into<String>) -> Self {
        Increment {
            key: key.into(),
            by: 1,
            initial: 0,
            ttl_ms: None,
            repeat: Repeat::default(),
            timeout_ms: None,
        }
    }

    pub(super) fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        Ok(Increment {
            key: given.required_text("key")?,
            by: given.integer("by").unwrap_or(1),
            initial: given.integer("initial").unwrap_or(0),
            ttl_ms: given.integer("ttl_ms"),
            repeat: Repeat::build(&mut given)?,
            timeout_ms: given.integer("timeout_ms"),
        })
    }
}

impl Touch {
    pub(super) const FIELDS: &[Field] = &[KEY, TTL_MS, REQUEST_ID, REPEAT, TIMEOUT_MS_FIELD];

    pub(super) fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        Ok(Touch {
            key: given.required_text("key")?,
            ttl_ms: given.required_integer("ttl_ms")?,
            repeat: Repeat::build(&mut given)?,
            timeout_ms: given.integer("timeout_ms"),
        })
    }
}

impl Invalidate {
    pub(super) const FIELDS: &[Field] = &[
        Field::new("tag", Rule::Name),
        Field::new("prefix", Rule::Name),
        Field::new("all", Rule::Boolean),
        TIMEOUT_MS_FIELD,
    ];

    pub(super) fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        let invalidate = Invalidate {
            tag: given.text("tag"),
            prefix: given.text("prefix"),
            all: given.boolean("all").unwrap_or(false),
            timeout_ms: given.integer("timeout_ms"),
        };
        let count = usize::from(invalidate.tag.is_some())
            + usize::from(invalidate.prefix.is_some())
            + usize::from(invalidate.all);
        match count {
            1 => Ok(invalidate),
            _ => Err(ErrorReply::new(
                Code::BadRequest,
                "give exactly one of `tag`, `prefix` and `all` (true)",
            )
            .into()),
        }
    }
}

impl Explain {
    pub(super) const FIELDS: &[Field] = &[KEY, TIMEOUT_MS_FIELD];

    pub(super) fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        Ok(Explain {
            key: given.required_text("key")?,
            timeout_ms: given.integer("timeout_ms"),
        })
    }
}

impl Audit {
    pub(super) const FIELDS: &[Field] = &[
        Field::new("sample", Rule::Integer(1, SAMPLE_MAX)),
        TIMEOUT_MS_FIELD,
    ];

    pub(super) fn build(mut given: Fields<'_>) -> Self {
        Audit {
            sample: given.integer("sample"),
            timeout_ms: given.integer("timeout_ms"),
        }
    }
}

impl AskStats {
    pub(super) const FIELDS: &[Field] = &[TIMEOUT_MS_FIELD];

    pub(super) fn build(mut given: Fields<'_>) -> Self {
        AskStats {
            timeout_ms: given.integer("timeout_ms"),
        }
    }
}
