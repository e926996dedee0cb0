//! The wire contract for clients, in types: subjects, encodings, requests, replies, error codes.
//!
//! A message becomes a request in three steps: [`subject`] says which operation it is for,
//! [`encoding`] how its body is written, and [`request`] decodes the body by the operation's list
//! of [`fields`]. Whatever is wrong with it is a value, an [`ErrorReply`] that names the field and
//! says what would be right; no bytes make this module panic. [`reply`] writes the answer.
//!
//! Limits: integers are below 2^53, names are 1 to 256 bytes; what each field takes is beside the
//! request's type.

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub mod admin;
#[cfg(test)]
mod asyncapi;
pub mod backup;
pub mod cache;
mod checked;
pub mod cluster;
pub mod encoding;
pub mod error;
pub mod fields;
mod found;
pub mod lock;
pub mod meta;
pub mod queue;
pub mod reply;
pub mod request;
pub mod session;
pub mod status;
pub mod subject;
pub mod tenant;
pub mod value;

pub use error::{Code, ErrorReply, Outcome};
pub use meta::Meta;
pub use request::Request;
pub use subject::{Operation, Prefix};
pub use tenant::Tenant;

use crate::trace::Traced;
use fields::{Field, Rule};

/// Why a request is refused; boxed, since the path without errors pays for its size.
pub type Refusal = Box<ErrorReply>;

/// The greatest integer on the wire: JavaScript and JSON tools keep integers up to it exact.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// The greatest name (resource, owner, id) in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// How long a request is good for when it does not say; a wait comes on top.
pub const TIMEOUT_MS_DEFAULT: u64 = 5_000;

/// The longest `timeout_ms`: brokers drop replies that come later than two minutes.
pub const TIMEOUT_MS_MAX: u64 = 120_000;

/// A wait for a lock or for messages ends this long before the time of its request is up, so that the client hears
/// of the end: that of a wait for a lock is an entry of the log, made up to a tenth of a second late.
pub const WAIT_ENDS_BEFORE: Duration = Duration::from_millis(250);

/// Items in an answer that lists something, when the request does not say: at most [`LIMIT_MAX`].
pub const LIMIT_DEFAULT: u64 = 100;
/// The most items in an answer; one also ends before the broker's greatest message.
pub const LIMIT_MAX: u64 = 1_000;

const LIMIT_FIELD: Field = Field::new("limit", Rule::Integer(1, LIMIT_MAX));
const TIMEOUT_MS_FIELD: Field = Field::new("timeout_ms", Rule::Integer(1, TIMEOUT_MS_MAX));

/// How a body is encoded. A reply has the encoding of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    #[default]
    Json,
    MessagePack,
}

/// Where the answer to a request goes. It travels in forwards and in replicated waits, so that
/// whichever node ends the request can answer the client directly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTo {
    /// The client's reply subject.
    pub subject: String,
    pub encoding: Encoding,
    /// Whose names the answer shows as the tenant knows them.
    pub tenant: Option<Tenant>,
    /// Whether another node was asked and handed the request on: the answer then names this node, which is
    /// faster to ask. Neither sent nor replicated.
    #[serde(skip)]
    pub handed: bool,
    /// Which trace the request belongs to, at this node: it is not sent and not replicated.
    #[serde(skip)]
    pub trace: Traced,
}

impl ReplyTo {
    /// For a client outside all tenants.
    pub fn new(subject: impl Into<String>, encoding: Encoding) -> Self {
        ReplyTo {
            subject: subject.into(),
            encoding,
            tenant: None,
            handed: false,
            trace: Traced::default(),
        }
    }

    /// The same for who keeps it longer than the request is in hand.
    pub fn untraced(&self) -> Self {
        ReplyTo {
            trace: Traced::default(),
            ..self.clone()
        }
    }
}
