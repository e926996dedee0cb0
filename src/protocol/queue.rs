//! The queue service on the wire: `queue.*` and `admin.queue.purge`.
//!
//! Requests are decoded by the rules beside them, so that a request that exists as a value is valid.
//! What they are answered with is in [`replies`].

use std::collections::BTreeMap;

use serde::Serialize;

use crate::protocol::error::ErrorReply;
use crate::protocol::fields::{Field, Fields, Rule};
use crate::protocol::meta::Meta;
use crate::protocol::status::Durability;
use crate::protocol::value::{Kind, Value};
use crate::protocol::{Operation, Refusal, TIMEOUT_MS_FIELD};

mod demand;
mod receipt;
mod replies;
mod writing;

pub use demand::Demand;
pub use receipt::Receipt;
pub use replies::{
    Cancelled, Configured, Dead, Delivered, Delivery, DurabilityReached, Failed, Listed, Paused,
    Peeked, Popped, Purged, Pushed, PushedOne, Rates, ReceiptResult, Redriven, ResultOf, Results,
    Settings, Shown, Stats,
};

/// Messages of one push or pop, and receipts of one request.
pub const BATCH_MAX: usize = 1_000;
/// The longest wait of a pop; longer ones are made of several.
pub const WAIT_MS_MAX: u64 = 60_000;
/// How long a message is in flight when neither request nor topic say.
pub const VISIBILITY_MS_DEFAULT: u64 = 30_000;
/// The longest visibility: half a day.
pub const VISIBILITY_MS_MAX: u64 = 43_200_000;
/// The longest delay, time to live and window of deduplication: a year.
pub const DELAY_MS_MAX: u64 = 31_536_000_000;
/// Within this an id means the same message, when neither request nor topic say.
pub const DEDUP_MS_DEFAULT: u64 = 120_000;
/// The last priority to be served is 0, the first 9.
pub const PRIORITY_MAX: u64 = 9;
pub const PRIORITY_DEFAULT: u64 = 4;
/// So many counted failures send a message to the dead state.
pub const MAX_DELIVERIES_DEFAULT: u64 = 10;
/// Headers of one message, as JSON.
pub const HEADERS_BYTES_MAX: usize = 4_096;

/// Whether an id stands for its message for a time, or until the message is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DedupScope {
    #[default]
    Window,
    UntilAcked,
}

impl DedupScope {
    const NAMES: &[&str] = &["window", "until_acked"];
}

/// A message to be pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub payload: Value,
    /// A push with an id that was seen lately is the same message.
    pub id: Option<String>,
    /// What it is known by instead of its id: only a push with the same one is the same message.
    pub dedup_id: Option<String>,
    pub dedup_ms: Option<u64>,
    pub dedup_scope: DedupScope,
    pub delay_ms: Option<u64>,
    /// Unix time before which it is not handed out; instead of `delay_ms`.
    pub deliver_at_ms: Option<u64>,
    /// 0 to [`PRIORITY_MAX`].
    pub priority: u64,
    /// So long after the push it is dropped, unless it is in flight.
    pub ttl_ms: Option<u64>,
    /// Messages of a group are handed out in order, one at a time.
    pub group: Option<String>,
    /// An object of text, handed out with the payload.
    pub headers: Option<Meta>,
}

impl Message {
    const FIELDS: &[Field] = &[
        Field::new("payload", Rule::Value),
        Field::new("payload_base64", Rule::Base64),
        Field::new("encoding", Rule::Choice(Kind::NAMES)),
        Field::new("id", Rule::Name),
        Field::new("dedup_ms", Rule::Integer(0, DELAY_MS_MAX)),
        Field::new("dedup_scope", Rule::Choice(DedupScope::NAMES)),
        Field::new("delay_ms", Rule::Integer(0, DELAY_MS_MAX)),
        Field::new("deliver_at_ms", Rule::Integer(0, super::INTEGER_MAX)),
        Field::new("priority", Rule::Integer(0, PRIORITY_MAX)),
        Field::new("ttl_ms", Rule::Integer(1, DELAY_MS_MAX)),
        Field::new("group", Rule::Name),
        Field::new("headers", Rule::Object(HEADERS_BYTES_MAX)),
        Field::new("dedup_id", Rule::Name),
    ];

    pub fn new(payload: Value) -> Self {
        Message {
            payload,
            id: None,
            dedup_id: None,
            dedup_ms: None,
            dedup_scope: DedupScope::Window,
            delay_ms: None,
            deliver_at_ms: None,
            priority: PRIORITY_DEFAULT,
            ttl_ms: None,
            group: None,
            headers: None,
        }
    }

    /// None without a payload.
    fn build(given: &mut Fields<'_>) -> Result<Option<Self>, Refusal> {
        let Some(payload) = Value::build(given, "payload", "payload_base64")? else {
            return Ok(None);
        };
        let message = Message {
            payload,
            id: given.text("id"),
            dedup_id: given.text("dedup_id"),
            dedup_ms: given.integer("dedup_ms"),
            dedup_scope: [DedupScope::Window, DedupScope::UntilAcked][given.choice("dedup_scope")],
            delay_ms: given.integer("delay_ms"),
            deliver_at_ms: given.integer("deliver_at_ms"),
            priority: given.integer("priority").unwrap_or(PRIORITY_DEFAULT),
            ttl_ms: given.integer("ttl_ms"),
            group: given.text("group"),
            headers: given.object("headers"),
        };
        if message.delay_ms.is_some() && message.deliver_at_ms.is_some() {
            return Err(only_one("deliver_at_ms", "delay_ms"));
        }
        if let Some(headers) = &message.headers
            && serde_json::from_str::<BTreeMap<String, String>>(headers.as_json()).is_err()
        {
            let what = "`headers` must be an object whose values are text";
            return Err(ErrorReply::bad_field("headers", what).into());
        }
        Ok(Some(message))
    }
}

fn only_one(field: &'static str, other: &str) -> Refusal {
    let message = format!("give either `{field}` or `{other}`, not both");
    ErrorReply::bad_field(field, message).into()
}

/// `queue.push`: all of it or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    pub topic: String,
    /// 1 to [`BATCH_MAX`].
    pub messages: Vec<Message>,
    /// Whether `messages` was given, which decides the form of the reply.
    pub batch: bool,
    pub require_durability: Option<Durability>,
    pub timeout_ms: Option<u64>,
}

impl Push {
    const DURABILITY: &[&str] = &["fsync", "os", "interval"];
    pub(super) const FIELDS: &[Field] = &[
        Field::new("topic", Rule::Name),
        Message::FIELDS[0],
        Message::FIELDS[1],
        Message::FIELDS[2],
        Message::FIELDS[3],
        Message::FIELDS[4],
        Message::FIELDS[5],
        Message::FIELDS[6],
        Message::FIELDS[7],
        Message::FIELDS[8],
        Message::FIELDS[9],
        Message::FIELDS[10],
        Message::FIELDS[11],
        Message::FIELDS[12],
        Field::new("messages", Rule::List(Message::FIELDS, BATCH_MAX)),
        Field::new("require_durability", Rule::Choice(Push::DURABILITY)),
        TIMEOUT_MS_FIELD,
    ];

    /// One message.
    pub fn one(topic: impl Into<String>, message: Message) -> Self {
        Push {
            topic: topic.into(),
            messages: vec![message],
            batch: false,
            require_durability: None,
            timeout_ms: None,
        }
    }

    fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        let topic = given.required_text("topic")?;
        let levels = [Durability::Fsync, Durability::Os, Durability::Interval];
        let require_durability = given.chosen("require_durability").map(|nth| levels[nth]);
        let timeout_ms = given.integer("timeout_ms");
        let batch = given.list("messages");
        let lone = lone_fields(&mut given);
        let one = Message::build(&mut given)?;
        let (messages, batch) = match (one, batch) {
            (Some(one), None) => (vec![one], false),
            (None, Some(batch)) => {
                if let Some(field) = lone {
                    return Err(only_one(field, "messages"));
                }
                (batch_of(batch)?, true)
            }
            (Some(_), Some(_)) => return Err(only_one("payload", "messages")),
            (None, None) => {
                let message =
                    "`payload` is missing: give it for one message, or `messages` for several";
                return Err(ErrorReply::bad_field("payload", message).into());
            }
        };
        Ok(Push {
            topic,
            messages,
            batch,
            require_durability,
            timeout_ms,
        })
    }
}

/// A field that says something about one message, beside the payload.
fn lone_fields(given: &mut Fields<'_>) -> Option<&'static str> {
    let fields = Message::FIELDS[2..].iter().map(|field| field.name);
    fields.into_iter().find(|name| given.is_given(name))
}

fn batch_of(batch: Vec<Fields<'static>>) -> Result<Vec<Message>, Refusal> {
    if batch.is_empty() {
        let message = "`messages` must have at least one message";
        return Err(ErrorReply::bad_field("messages", message).into());
    }
    let built = batch.into_iter().enumerate().map(|(at, mut fields)| {
        let path = format!("messages[{at}]");
        match Message::build(&mut fields) {
            Ok(Some(message)) => Ok(message),
            Ok(None) => {
                let message = format!("`{path}.payload` is missing");
                Err(ErrorReply::bad_field(format!("{path}.payload"), message).into())
            }
            Err(mut refusal) => {
                if let Some(field) = &mut refusal.field {
                    *field = format!("{path}.{field}");
                }
                Err(refusal)
            }
        }
    });
    built.collect()
}

/// `queue.pop`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pop {
    pub topic: String,
    #[serde(flatten)]
    pub demand: Demand,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Pop {
    pub(super) const FIELDS: &[Field] = &[
        Field::new("topic", Rule::Name),
        Demand::FIELDS[0],
        Demand::FIELDS[1],
        Demand::FIELDS[2],
        Demand::FIELDS[3],
        TIMEOUT_MS_FIELD,
    ];
}

/// What is done with messages that a receipt each stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipts {
    pub topic: String,
    pub receipts: Vec<Receipt>,
    pub what: Verdict,
    pub timeout_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done; then, in the same trip, more are asked for.
    Ack { pop: Option<Demand> },
    /// Not done.
    Nack {
        /// Absent: by the topic's backoff.
        delay_ms: Option<u64>,
        /// To the dead state at once.
        dead: bool,
        reason: Option<String>,
    },
    /// Not done yet.
    Extend { visibility_ms: u64 },
}

impl Receipts {
    const RECEIPT: Field = Field::new("receipt", Rule::Name);
    const MANY: Field = Field::new("receipts", Rule::Names(BATCH_MAX));
    pub(super) const ACK_FIELDS: &[Field] = &[
        Field::new("topic", Rule::Name),
        Receipts::RECEIPT,
        Receipts::MANY,
        Field::new("pop", Rule::Map(Demand::FIELDS)),
        TIMEOUT_MS_FIELD,
    ];
    pub(super) const NACK_FIELDS: &[Field] = &[
        Field::new("topic", Rule::Name),
        Receipts::RECEIPT,
        Receipts::MANY,
        Field::new("delay_ms", Rule::Integer(0, DELAY_MS_MAX)),
        Field::new("dead", Rule::Boolean),
        Field::new("reason", Rule::Name),
        TIMEOUT_MS_FIELD,
    ];
    pub(super) const EXTEND_FIELDS: &[Field] = &[
        Field::new("topic", Rule::Name),
        Receipts::RECEIPT,
        Receipts::MANY,
        Field::new("visibility_ms", Rule::Integer(100, VISIBILITY_MS_MAX)),
        TIMEOUT_MS_FIELD,
    ];

    fn build(given: &mut Fields<'_>, what: Verdict) -> Result<Self, Refusal> {
        let topic = given.required_text("topic")?;
        let texts = match (given.text("receipt"), given.names("receipts")) {
            (Some(_), Some(_)) => return Err(only_one("receipt", "receipts")),
            (Some(one), None) => vec![one],
            (None, Some(many)) if !many.is_empty() => many,
            (None, _) => {
                let message = "`receipt` is missing: give one, or `receipts` with at least one";
                return Err(ErrorReply::bad_field("receipt", message).into());
            }
        };
        let receipts: Result<_, Refusal> = texts.iter().map(|text| receipt_of(text)).collect();
        Ok(Receipts {
            topic,
            receipts: receipts?,
            what,
            timeout_ms: given.integer("timeout_ms"),
        })
    }
}

fn receipt_of(text: &str) -> Result<Receipt, Refusal> {
    text.parse().map_err(|_| {
        ErrorReply::bad_field("receipt", "a receipt is what a pop gave, unchanged").into()
    })
}

/// A request to the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Push(Push),
    Pop(Pop),
    Receipts(Receipts),
    Admin(Admin),
}

mod admin;
pub use admin::{Act, Admin, Backoff, Change, Look, State};

impl Request {
    /// `suffix` is what the subject names.
    pub(super) fn build(
        operation: Operation,
        mut given: Fields<'_>,
        suffix: Option<&str>,
    ) -> Result<Self, Refusal> {
        let verdict = match operation {
            Operation::QueuePush => return Ok(Request::Push(Push::build(given)?)),
            Operation::QueuePop => {
                return Ok(Request::Pop(Pop {
                    topic: given.required_text("topic")?,
                    demand: Demand::build(&mut given)?,
                    timeout_ms: given.integer("timeout_ms"),
                }));
            }
            Operation::QueueAck => Verdict::Ack {
                pop: match given.map("pop") {
                    Some(mut pop) => Some(Demand::build(&mut pop)?),
                    None => None,
                },
            },
            Operation::QueueNack => Verdict::Nack {
                delay_ms: given.integer("delay_ms"),
                dead: given.boolean("dead").unwrap_or(false),
                reason: given.text("reason"),
            },
            Operation::QueueExtend => Verdict::Extend {
                visibility_ms: given.required_integer("visibility_ms")?,
            },
            _ => return Ok(Request::Admin(Admin::build(operation, given, suffix)?)),
        };
        Ok(Request::Receipts(Receipts::build(&mut given, verdict)?))
    }

    /// The id of a message that is pushed alone.
    pub fn id(&self) -> Option<&str> {
        match self {
            Request::Push(push) if !push.batch => push.messages.first()?.id.as_deref(),
            _ => None,
        }
    }

    pub fn operation(&self) -> Operation {
        match self {
            Request::Push(_) => Operation::QueuePush,
            Request::Pop(_) => Operation::QueuePop,
            Request::Receipts(receipts) => match receipts.what {
                Verdict::Ack { .. } => Operation::QueueAck,
                Verdict::Nack { .. } => Operation::QueueNack,
                Verdict::Extend { .. } => Operation::QueueExtend,
            },
            Request::Admin(admin) => admin.act.operation(),
        }
    }

    /// The topic whose owner executes this; none for what any node can do.
    pub fn topic(&self) -> Option<&str> {
        match self {
            Request::Push(push) => Some(&push.topic),
            Request::Pop(pop) => Some(&pop.topic),
            Request::Receipts(receipts) => Some(&receipts.topic),
            Request::Admin(admin) => admin.topic.as_deref(),
        }
    }

    /// How long it may wait for messages; 0 for what waits for none.
    pub fn wait_ms(&self) -> u64 {
        self.timeout_and_wait().1
    }

    pub(super) fn timeout_and_wait(&self) -> (Option<u64>, u64) {
        match self {
            Request::Push(push) => (push.timeout_ms, 0),
            Request::Pop(pop) => (pop.timeout_ms, pop.demand.wait_ms),
            Request::Receipts(receipts) => match &receipts.what {
                Verdict::Ack { pop: Some(pop) } => (receipts.timeout_ms, pop.wait_ms),
                _ => (receipts.timeout_ms, 0),
            },
            Request::Admin(admin) => (admin.timeout_ms, 0),
        }
    }
}

#[cfg(test)]
mod tests;
