//! What requests to the queue are answered with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::protocol::Encoding;
use crate::protocol::meta::{self, Meta};
use crate::protocol::status::{Durability, DurabilitySource};
use crate::protocol::value::{InFields, Kind, Plain, Value};

/// How durable a push really is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurabilityReached {
    pub level: Durability,
    pub source: DurabilitySource,
    /// Unix time at which the settings were read last.
    pub checked_at_ms: u64,
}

/// `queue.push`: the fields of one message, or `results` of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Vec<PushedOne>>,
    pub durability: DurabilityReached,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushedOne {
    /// The one that was given, or a made up one.
    pub id: String,
    /// Grows with each message of the topic.
    pub seq: u64,
    /// The id stood for a message already; `seq` is that message's.
    pub duplicate: bool,
}

/// A message that was handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    pub id: String,
    pub seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<Plain>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    encoding: Kind,
    /// An empty object when it was pushed without any.
    #[serde(default, serialize_with = "meta::or_empty")]
    pub headers: Option<Meta>,
    /// Stands for this delivery in `ack`, `nack` and `extend`.
    pub receipt: String,
    /// How many times the message was handed out, this one included.
    pub deliveries: u64,
    pub pushed_at_ms: u64,
    /// From then on others may get it, by the clock of Redis.
    pub visible_until_ms: u64,
    /// Why the newest failure was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl Delivered {
    /// A message whose payload is written for `encoding`.
    pub fn new(message: Delivery, encoding: Encoding) -> Self {
        let InFields {
            plain,
            base64,
            kind,
        } = message.payload.in_reply(encoding);
        Delivered {
            id: message.id,
            seq: message.seq,
            payload: plain,
            payload_base64: base64,
            encoding: kind,
            headers: message.headers,
            receipt: message.receipt,
            deliveries: message.deliveries,
            pushed_at_ms: message.pushed_at_ms,
            visible_until_ms: message.visible_until_ms,
            last_error: message.last_error,
        }
    }

    /// The same message as a reply in `encoding` has it.
    pub fn written_for(mut self, encoding: Encoding) -> Self {
        let Self {
            payload,
            payload_base64,
            encoding: kind,
            ..
        } = &mut self;
        InFields::rewrite((payload, payload_base64, kind), encoding);
        self
    }

    /// # Errors
    /// When the fields do not fit together, which no node sends.
    pub fn payload(&self) -> Result<Value, String> {
        Value::from_reply(InFields {
            plain: self.payload.clone(),
            base64: self.payload_base64.clone(),
            kind: self.encoding,
        })
    }
}

/// What a [`Delivered`] is made of.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub id: String,
    pub seq: u64,
    pub payload: Value,
    pub headers: Option<Meta>,
    pub receipt: String,
    pub deliveries: u64,
    pub pushed_at_ms: u64,
    pub visible_until_ms: u64,
    pub last_error: Option<String>,
}

/// `queue.pop`; nothing there is an empty list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Popped {
    pub messages: Vec<Delivered>,
}

/// What became of a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptResult {
    Acked,
    /// Within the last hour, by this very receipt.
    AlreadyAcked,
    /// Handed back, or dead as was asked.
    Returned,
    Extended,
    /// The message is somebody else's, gone, or back in the queue.
    StaleReceipt,
}

impl ReceiptResult {
    pub const NAMES: &[&str] = &[
        "acked",
        "already_acked",
        "returned",
        "extended",
        "stale_receipt",
    ];

    /// The result as it stands in a reply.
    pub fn name(self) -> &'static str {
        ReceiptResult::NAMES[self as usize]
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultOf {
    pub receipt: String,
    pub result: ReceiptResult,
    /// Of an extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible_until_ms: Option<u64>,
}

/// `queue.ack`, `queue.nack` and `queue.extend`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    pub results: Vec<ResultOf>,
    /// Of the pop behind an acknowledgement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Delivered>>,
}

/// One failed delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub at_ms: u64,
    pub delivery: u64,
    pub consumer: String,
    pub reason: String,
}

/// Why and when a message died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dead {
    /// `max_deliveries`, `nack` or `overflow`.
    pub why: String,
    pub at_ms: u64,
}

/// A message as a peek shows it: no receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    pub id: String,
    pub seq: u64,
    /// `ready` (also behind others of its group), `delayed`, `in_flight` or `dead`.
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Plain>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    pub encoding: Kind,
    #[serde(default, serialize_with = "meta::or_empty")]
    pub headers: Option<Meta>,
    pub pushed_at_ms: u64,
    /// Of a delayed message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at_ms: Option<u64>,
    /// Of one in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible_until_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    pub deliveries: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead: Option<Dead>,
    /// The newest, the oldest of them first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failed>,
}

impl Shown {
    /// The same message as a reply in `encoding` has it.
    pub fn written_for(mut self, encoding: Encoding) -> Self {
        let Self {
            payload,
            payload_base64,
            encoding: kind,
            ..
        } = &mut self;
        InFields::rewrite((payload, payload_base64, kind), encoding);
        self
    }

    /// # Errors
    /// When the fields do not fit together, which no node sends.
    pub fn payload(&self) -> Result<Value, String> {
        Value::from_reply(InFields {
            plain: self.payload.clone(),
            base64: self.payload_base64.clone(),
            kind: self.encoding,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peeked {
    pub messages: Vec<Shown>,
    /// Where to go on; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
    /// Of all states: every message up to this number that is there was shown, now or before. Ask
    /// with it next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_seq: Option<u64>,
    /// Of all states: the newest number that a message has got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seq: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    pub cancelled: bool,
}

/// The settings of a topic that are in force, defaults included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub visibility_ms: u64,
    pub max_deliveries: u64,
    pub backoff: BTreeMap<String, serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u64>,
    pub overflow: String,
    pub dedup_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    #[serde(flatten)]
    pub settings: Settings,
}

/// How much went through a topic lately, in messages per second: the mean over the last 50 to 60 seconds,
/// as far as its owner owned it. Messages that came again count again as delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    pub pushed: f64,
    pub delivered: f64,
    pub acked: f64,
}

/// `queue.stats`. Messages behind others of their group count as ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    pub topic: String,
    pub ready: u64,
    pub delayed: u64,
    pub in_flight: u64,
    pub dead: u64,
    /// Age of the oldest message that is ready or in flight longest; 0 if there is none.
    pub oldest_age_ms: u64,
    /// Pops that wait; none if the topic's owner did not say.
    pub waiters: Option<u64>,
    /// None if the topic's owner did not say.
    #[serde(default)]
    pub rates: Option<Rates>,
    /// Messages taken and acknowledged since the topic began.
    pub pushed: u64,
    pub acked: u64,
    /// The highest sequence number that the cluster's log knows of; see `data_loss_detected`.
    pub marked_seq: u64,
    pub paused: bool,
    pub owner_node: Option<NodeId>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    pub topics: Vec<Stats>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redriven {
    /// With `dry_run`: how many would be.
    pub moved: u64,
    /// How many are dead in the topic now.
    pub dead: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    pub paused: bool,
    /// Whether that was a change.
    pub changed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    pub count: u64,
}
