//! The wire contract for clients, in types: subjects, encodings, requests, replies, error codes.

use serde::{Deserialize, Serialize};

pub mod error;

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
}
