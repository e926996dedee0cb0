//! The envelope of every answer: `{"ok":true,"node":1,…}` or `{"ok":false,"node":1,"error":{…}}`.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::protocol::{Encoding, ErrorReply, Refusal};

/// The header with the message of an error.
pub const SERVICE_ERROR: &str = "Nats-Service-Error";
/// The header with the status of an error.
pub const SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";

/// An answer ready to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Never empty.
    pub payload: Bytes,
    /// Names and values; empty for a success.
    pub headers: Vec<(&'static str, String)>,
}

/// Who answers, and who would have been faster to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct From {
    pub node: NodeId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask_node: Option<NodeId>,
}

#[derive(Serialize)]
struct Success<'a, T> {
    ok: bool,
    #[serde(flatten)]
    from: From,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Serialize)]
struct Failure<'a> {
    ok: bool,
    #[serde(flatten)]
    from: From,
    error: &'a ErrorReply,
}

/// Writes the answer to a request that did what it asks for.
pub fn success<T: Serialize>(encoding: Encoding, from: From, body: &T) -> Rendered {
    Rendered {
        payload: encoding.encode(&Success {
            ok: true,
            from,
            body,
        }),
        headers: Vec::new(),
    }
}

/// Writes the answer to a request that is refused or failed.
pub fn failure(encoding: Encoding, from: From, error: &ErrorReply) -> Rendered {
    // A header is one line; a message may quote what a client sent.
    let line = error.message.replace(|c: char| c.is_control(), " ");
    Rendered {
        payload: encoding.encode(&Failure {
            ok: false,
            from,
            error,
        }),
        headers: vec![
            (SERVICE_ERROR, line),
            (SERVICE_ERROR_CODE, error.status.to_string()),
        ],
    }
}

/// An answer as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    pub node: NodeId,
    pub ask_node: Option<NodeId>,
    pub result: Result<T, Refusal>,
}

#[derive(Deserialize)]
struct Head {
    ok: bool,
    node: NodeId,
    #[serde(default)]
    ask_node: Option<NodeId>,
    #[serde(default)]
    error: Option<Refusal>,
}

/// Reads an answer.
///
/// # Errors
/// When the bytes are not an answer to such a request; in words.
pub fn read<T: DeserializeOwned>(encoding: Encoding, payload: &[u8]) -> Result<Answer<T>, String> {
    let head: Head = encoding.decode(payload)?;
    let result = match head.error {
        None if head.ok => Ok(encoding.decode(payload)?),
        Some(error) if !head.ok => Err(error),
        _ => return Err("the answer says neither success nor why not".to_owned()),
    };
    Ok(Answer {
        node: head.node,
        ask_node: head.ask_node,
        result,
    })
}
