//! What operators and tools ask about a topic.

use std::collections::BTreeMap;

use super::{BATCH_MAX, DELAY_MS_MAX, Operation, TIMEOUT_MS_FIELD, VISIBILITY_MS_MAX};
use crate::protocol::error::ErrorReply;
use crate::protocol::fields::{Field, Fields, Rule};
use crate::protocol::request::is_under;
use crate::protocol::{INTEGER_MAX, Refusal};

/// Messages that one peek shows, unless it says less.
const LIMIT_DEFAULT: u64 = 100;
/// The most deliveries, and the longest topic, that can be set.
const DELIVERIES_MAX: u64 = 1_000_000;

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    Delayed,
    InFlight,
    Dead,
}

impl State {
    pub const NAMES: &[&str] = &["ready", "delayed", "in_flight", "dead"];
    const ALL: [State; 4] = [State::Ready, State::Delayed, State::InFlight, State::Dead];

    pub fn name(self) -> &'static str {
        State::NAMES[self as usize]
    }

    pub fn of_name(name: &str) -> Option<State> {
        let nth = State::NAMES.iter().position(|known| *known == name)?;
        Some(State::ALL[nth])
    }
}

/// Which messages a peek shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Those of one state, from a place that an earlier answer told.
    In { state: State, cursor: u64 },
    /// Those of every state with a greater sequence number, in its order.
    After { seq: u64 },
}

impl Look {
    const ALL: &str = "all";
    /// What `state` of a peek can be.
    pub const NAMES: &[&str] = &["ready", "delayed", "in_flight", "dead", Look::ALL];

    fn build(given: &mut Fields<'_>) -> Result<Self, Refusal> {
        let name = Look::NAMES[given.choice("state")];
        let (cursor, after_seq) = (given.integer("cursor"), given.integer("after_seq"));
        let (state, unfit) = match State::of_name(name) {
            Some(state) => (Some(state), after_seq.map(|_| "after_seq")),
            None => (None, cursor.map(|_| "cursor")),
        };
        if let Some(unfit) = unfit {
            let message = "`after_seq` is for the state `all`, `cursor` for any other";
            return Err(ErrorReply::bad_field(unfit, message).into());
        }
        Ok(match state {
            Some(state) => Look::In {
                state,
                cursor: cursor.unwrap_or(0),
            },
            None => Look::After {
                seq: after_seq.unwrap_or(0),
            },
        })
    }
}

/// How long a message rests after each failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backoff {
    None,
    Fixed {
        base_ms: u64,
    },
    /// Doubled with each failure, up to the greatest.
    Exponential {
        base_ms: u64,
        max_ms: u64,
    },
}

/// One such request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Absent only where no topic is meant: `queue.list`.
    pub topic: Option<String>,
    pub act: Act,
    pub timeout_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Peek {
        look: Look,
        limit: u64,
    },
    Cancel {
        id: String,
    },
    Configure(Vec<(&'static str, Change)>),
    Stats,
    List {
        prefix: String,
        limit: u64,
        cursor: Option<String>,
    },
    Redrive {
        /// Only these; without any, all.
        ids: Vec<String>,
        /// Only those whose last failure contains this text.
        reason_contains: String,
        /// Only those that died then or later; Unix time.
        dead_since_ms: u64,
        limit: u64,
        /// At most so many become ready in a second; 0: all at once.
        per_second: u64,
        dry_run: bool,
        /// Into this topic instead of their own.
        to: Option<String>,
    },
    Pause,
    Resume,
    Purge {
        states: Vec<State>,
    },
}

/// A setting's new value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Number(u64),
    Text(&'static str),
    /// Back to the default.
    Default,
}

impl Act {
    pub fn operation(&self) -> Operation {
        match self {
            Act::Peek { .. } => Operation::QueuePeek,
            Act::Cancel { .. } => Operation::QueueCancel,
            Act::Configure(_) => Operation::QueueConfigure,
            Act::Stats => Operation::QueueStats,
            Act::List { .. } => Operation::QueueList,
            Act::Redrive { .. } => Operation::QueueRedrive,
            Act::Pause => Operation::QueuePause,
            Act::Resume => Operation::QueueResume,
            Act::Purge { .. } => Operation::AdminQueuePurge,
        }
    }
}

impl Backoff {
    const NAMES: &[&str] = &["none", "fixed", "exponential"];
    const FIELDS: &[Field] = &[
        Field::new("kind", Rule::Choice(Backoff::NAMES)),
        Field::new("base_ms", Rule::Integer(1, DELAY_MS_MAX)),
        Field::new("max_ms", Rule::Integer(1, DELAY_MS_MAX)),
    ];

    fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        let kind = given.chosen("kind");
        let (base_ms, max_ms) = (given.integer("base_ms"), given.integer("max_ms"));
        match (kind, base_ms, max_ms) {
            (Some(0), None, None) => Ok(Backoff::None),
            (Some(1), Some(base_ms), None) => Ok(Backoff::Fixed { base_ms }),
            (Some(2), Some(base_ms), Some(max_ms)) if base_ms <= max_ms => {
                Ok(Backoff::Exponential { base_ms, max_ms })
            }
            _ => Err(ErrorReply::bad_field(
                "backoff",
                "`backoff` is {\"kind\":\"none\"}, {\"kind\":\"fixed\",\"base_ms\":…} or \
                 {\"kind\":\"exponential\",\"base_ms\":…,\"max_ms\":…} with base_ms <= max_ms",
            )
            .into()),
        }
    }

    /// As `queue.configure` shows it.
    pub fn fields(self) -> BTreeMap<String, serde_json::Value> {
        let fields = match self {
            Backoff::None => vec![("kind", "none".into())],
            Backoff::Fixed { base_ms } => {
                vec![("kind", "fixed".into()), ("base_ms", base_ms.into())]
            }
            Backoff::Exponential { base_ms, max_ms } => vec![
                ("kind", "exponential".into()),
                ("base_ms", base_ms.into()),
                ("max_ms", max_ms.into()),
            ],
        };
        let fields = fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        fields.collect()
    }

    fn changes(self) -> [(&'static str, Change); 3] {
        let (kind, base, max) = match self {
            Backoff::None => (Change::Default, Change::Default, Change::Default),
            Backoff::Fixed { base_ms } => (
                Change::Text("fixed"),
                Change::Number(base_ms),
                Change::Default,
            ),
            Backoff::Exponential { base_ms, max_ms } => (
                Change::Text("exponential"),
                Change::Number(base_ms),
                Change::Number(max_ms),
            ),
        };
        [
            ("backoff", kind),
            ("backoff_base_ms", base),
            ("backoff_max_ms", max),
        ]
    }
}

impl Admin {
    const TOPIC: Field = Field::new("topic", Rule::Name);
    pub(in crate::protocol) const TOPIC_FIELDS: &[Field] = &[Admin::TOPIC, TIMEOUT_MS_FIELD];
    pub(in crate::protocol) const PEEK_FIELDS: &[Field] = &[
        Admin::TOPIC,
        Field::new("state", Rule::Choice(Look::NAMES)),
        Field::new("limit", Rule::Integer(1, BATCH_MAX as u64)),
        Field::new("cursor", Rule::Integer(0, INTEGER_MAX)),
        Field::new("after_seq", Rule::Integer(0, INTEGER_MAX)),
        TIMEOUT_MS_FIELD,
    ];
    pub(in crate::protocol) const CANCEL_FIELDS: &[Field] =
        &[Admin::TOPIC, Field::new("id", Rule::Name), TIMEOUT_MS_FIELD];
    pub(in crate::protocol) const CONFIGURE_FIELDS: &[Field] = &[
        Admin::TOPIC,
        Field::new("visibility_ms", Rule::Integer(100, VISIBILITY_MS_MAX)),
        Field::new("max_deliveries", Rule::Integer(1, DELIVERIES_MAX)),
        Field::new("backoff", Rule::Map(Backoff::FIELDS)),
        Field::new("max_length", Rule::Integer(0, INTEGER_MAX)),
        Field::new("overflow", Rule::Choice(&["reject", "dead"])),
        Field::new("dedup_ms", Rule::Integer(0, DELAY_MS_MAX)),
        Field::new("ttl_ms", Rule::Integer(0, DELAY_MS_MAX)),
        TIMEOUT_MS_FIELD,
    ];
    pub(in crate::protocol) const LIST_FIELDS: &[Field] = &[
        Field::new("prefix", Rule::Name),
        Field::new("limit", Rule::Integer(1, BATCH_MAX as u64)),
        Field::new("cursor", Rule::Name),
        TIMEOUT_MS_FIELD,
    ];
    pub(in crate::protocol) const REDRIVE_FIELDS: &[Field] = &[
        Admin::TOPIC,
        Field::new("ids", Rule::Names(BATCH_MAX)),
        Field::new("reason_contains", Rule::Name),
        Field::new("dead_since_ms", Rule::Integer(0, INTEGER_MAX)),
        Field::new("limit", Rule::Integer(1, INTEGER_MAX)),
        Field::new("per_second", Rule::Integer(1, 1_000)),
        Field::new("dry_run", Rule::Boolean),
        Field::new("to", Rule::Name),
        TIMEOUT_MS_FIELD,
    ];
    pub(in crate::protocol) const PURGE_FIELDS: &[Field] = &[
        Admin::TOPIC,
        Field::new("states", Rule::Names(4)),
        Field::new("confirm", Rule::Name),
        TIMEOUT_MS_FIELD,
    ];

    pub(super) fn build(
        operation: Operation,
        mut given: Fields<'_>,
        suffix: Option<&str>,
    ) -> Result<Self, Refusal> {
        let topic = match operation {
            Operation::QueueList => None,
            _ => Some(given.required_text("topic")?),
        };
        let act = match operation {
            Operation::QueuePeek => Act::Peek {
                look: Look::build(&mut given)?,
                limit: given.integer("limit").unwrap_or(LIMIT_DEFAULT),
            },
            Operation::QueueCancel => Act::Cancel {
                id: given.required_text("id")?,
            },
            Operation::QueueConfigure => Act::Configure(changes(&mut given)?),
            Operation::QueueStats => Act::Stats,
            Operation::QueueList => Act::List {
                prefix: given.text("prefix").unwrap_or_default(),
                limit: given.integer("limit").unwrap_or(LIMIT_DEFAULT),
                cursor: given.text("cursor"),
            },
            Operation::QueueRedrive => redrive(&mut given, suffix)?,
            Operation::QueuePause => Act::Pause,
            Operation::QueueResume => Act::Resume,
            Operation::AdminQueuePurge => purge(&mut given, topic.as_deref().unwrap_or_default())?,
            other => unreachable!("{other} is no operation of the queue"),
        };
        Ok(Admin {
            topic,
            act,
            timeout_ms: given.integer("timeout_ms"),
        })
    }
}

/// A 0 puts what can be without a limit back to none.
fn changes(given: &mut Fields<'_>) -> Result<Vec<(&'static str, Change)>, Refusal> {
    let mut changes = Vec::new();
    for name in ["visibility_ms", "max_deliveries", "dedup_ms"] {
        changes.extend(given.integer(name).map(|n| (name, Change::Number(n))));
    }
    for name in ["max_length", "ttl_ms"] {
        changes.extend(given.integer(name).map(|number| match number {
            0 => (name, Change::Default),
            number => (name, Change::Number(number)),
        }));
    }
    let overflow = given.chosen("overflow").map(|nth| ["reject", "dead"][nth]);
    changes.extend(overflow.map(|kind| ("overflow", Change::Text(kind))));
    if let Some(backoff) = given.map("backoff") {
        changes.extend(Backoff::build(backoff)?.changes());
    }
    Ok(changes)
}

fn redrive(given: &mut Fields<'_>, suffix: Option<&str>) -> Result<Act, Refusal> {
    let ids = given.names("ids");
    if ids.as_ref().is_some_and(Vec::is_empty) {
        let message = "`ids` must have at least one id; leave it out to mean all";
        return Err(ErrorReply::bad_field("ids", message).into());
    }
    let to = given.text("to");
    if let (Some(to), Some(suffix)) = (&to, suffix)
        && !is_under(to, suffix)
    {
        let message = format!("`to` `{to}` is neither the name in the subject nor below it");
        return Err(ErrorReply::bad_field("to", message).into());
    }
    Ok(Act::Redrive {
        ids: ids.unwrap_or_default(),
        reason_contains: given.text("reason_contains").unwrap_or_default(),
        dead_since_ms: given.integer("dead_since_ms").unwrap_or(0),
        limit: given.integer("limit").unwrap_or(INTEGER_MAX),
        per_second: given.integer("per_second").unwrap_or(0),
        dry_run: given.boolean("dry_run").unwrap_or(false),
        to,
    })
}

fn purge(given: &mut Fields<'_>, topic: &str) -> Result<Act, Refusal> {
    if given.text("confirm").as_deref() != Some(topic) {
        let message = "`confirm` must repeat the topic: its messages are deleted for good";
        return Err(ErrorReply::bad_field("confirm", message).into());
    }
    let names = given.names("states").unwrap_or_default();
    let states = names.iter().map(|name| State::of_name(name));
    match states.collect::<Option<Vec<State>>>() {
        Some(states) if !states.is_empty() => Ok(Act::Purge { states }),
        _ => {
            let message = format!("`states` must be some of {}", State::NAMES.join(", "));
            Err(ErrorReply::bad_field("states", message).into())
        }
    }
}
