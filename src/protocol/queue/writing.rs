//! Requests as the client writes them.

use serde::Serialize;

use super::{Backoff, DedupScope, Demand, Message, PRIORITY_DEFAULT, Push, Receipts, Verdict};
use crate::protocol::Encoding;
use crate::protocol::meta::Meta;
use crate::protocol::status::Durability;
use crate::protocol::value::{InFields, Kind, Plain};

/// A message in a body of one encoding.
#[derive(Serialize)]
struct MessageFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Plain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dedup_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dedup_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dedup_scope: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<&'a Meta>,
}

impl<'a> MessageFields<'a> {
    fn new(message: &'a Message, encoding: Encoding) -> Self {
        let InFields {
            plain,
            base64,
            kind,
        } = message.payload.in_request(encoding);
        MessageFields {
            payload: plain,
            payload_base64: base64,
            encoding: (kind == Kind::Json).then_some(kind),
            id: message.id.as_deref(),
            dedup_id: message.dedup_id.as_deref(),
            dedup_ms: message.dedup_ms,
            dedup_scope: match message.dedup_scope {
                DedupScope::Window => None,
                DedupScope::UntilAcked => Some("until_acked"),
            },
            delay_ms: message.delay_ms,
            deliver_at_ms: message.deliver_at_ms,
            priority: Some(message.priority).filter(|&p| p != PRIORITY_DEFAULT),
            ttl_ms: message.ttl_ms,
            group: message.group.as_deref(),
            headers: message.headers.as_ref(),
        }
    }
}

/// A push in a body of one encoding.
#[derive(Serialize)]
pub struct PushFields<'a> {
    topic: &'a str,
    // One message is written out beside the topic: without flattening, which a tree would cost.
    #[serde(flatten)]
    one: Option<MessageFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<MessageFields<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    require_durability: Option<Durability>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
}

impl Push {
    /// The request as `encoding` has it.
    pub fn in_encoding(&self, encoding: Encoding) -> PushFields<'_> {
        let fields = |message| MessageFields::new(message, encoding);
        let one = self.messages.first().filter(|_| !self.batch).map(fields);
        PushFields {
            topic: &self.topic,
            one,
            messages: self
                .batch
                .then(|| self.messages.iter().map(fields).collect()),
            require_durability: self.require_durability,
            timeout_ms: self.timeout_ms,
        }
    }
}

impl Serialize for Receipts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            topic: &'a str,
            receipts: Vec<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pop: Option<&'a Demand>,
            #[serde(skip_serializing_if = "Option::is_none")]
            delay_ms: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            dead: Option<bool>,
            #[serde(skip_serializing_if = "Option::is_none")]
            reason: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            visibility_ms: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            timeout_ms: Option<u64>,
        }
        let mut fields = Fields {
            topic: &self.topic,
            receipts: self.receipts.iter().map(ToString::to_string).collect(),
            pop: None,
            delay_ms: None,
            dead: None,
            reason: None,
            visibility_ms: None,
            timeout_ms: self.timeout_ms,
        };
        match &self.what {
            Verdict::Ack { pop } => fields.pop = pop.as_ref(),
            Verdict::Nack {
                delay_ms,
                dead,
                reason,
            } => {
                fields.delay_ms = *delay_ms;
                fields.dead = dead.then_some(true);
                fields.reason = reason.as_deref();
            }
            Verdict::Extend { visibility_ms } => fields.visibility_ms = Some(*visibility_ms),
        }
        fields.serialize(serializer)
    }
}

impl Serialize for Backoff {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.fields().serialize(serializer)
    }
}
