//! The envelope of every answer: `{"ok":true,"node":1,…}` or `{"ok":false,"node":1,"error":{…}}`.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::protocol::tenant::outward::Outward;
use crate::protocol::{Encoding, ErrorReply, Refusal, ReplyTo};

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

impl Rendered {
    /// About how many bytes a broker carries for it: its limit counts the headers, too.
    pub fn bytes(&self) -> usize {
        /// What a header costs beside its name and value, and all of them together.
        const HEADER: usize = ": \r\n".len();
        const HEADERS: usize = "NATS/1.0\r\n\r\n".len();
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| name.len() + value.len() + HEADER);
        self.payload.len() + HEADERS + headers.sum::<usize>()
    }
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
pub fn success<T: Serialize>(to: &ReplyTo, from: From, body: &T) -> Rendered {
    let success = Success {
        ok: true,
        from,
        body,
    };
    Rendered {
        payload: encoded(to, &success),
        headers: Vec::new(),
    }
}

/// Writes the answer to a request that is refused or failed.
pub fn failure(to: &ReplyTo, from: From, error: &ErrorReply) -> Rendered {
    let failure = Failure {
        ok: false,
        from,
        error,
    };
    // A header is one line; a message may quote what a client sent.
    let mut line = error.message.replace(|c: char| c.is_control(), " ");
    if let Some(tenant) = &to.tenant {
        line = line.replace(&tenant.namespace(), "");
    }
    Rendered {
        payload: encoded(to, &failure),
        headers: vec![
            (SERVICE_ERROR, line),
            (SERVICE_ERROR_CODE, error.status.to_string()),
        ],
    }
}

fn encoded<T: Serialize>(to: &ReplyTo, reply: &T) -> Bytes {
    match &to.tenant {
        None => to.encoding.encode(reply),
        Some(tenant) => to.encoding.encode(&Outward::new(reply, tenant)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Token;
    use crate::protocol::Code;
    use crate::protocol::lock::{Acquired, Holder, Mode, View};
    use crate::protocol::meta::Meta;

    const FROM: From = From {
        node: NodeId(2),
        ask_node: Some(NodeId(1)),
    };

    fn to(encoding: Encoding) -> ReplyTo {
        ReplyTo::new("_INBOX.x", encoding)
    }

    fn acquired() -> Acquired {
        Acquired {
            resource: "a".into(),
            resources: Vec::new(),
            owner: "w".into(),
            token: Token(7),
            mode: Some(Mode::Shared),
            permits: None,
            expires_in_ms: 100,
            waited_ms: 0,
        }
    }

    fn holder() -> Holder {
        Holder {
            owner: "w".into(),
            token: Token(7),
            mode: Mode::Exclusive,
            permits: None,
            session: None,
            expires_in_ms: 100,
            held_ms: 5,
            meta: Some(Meta::from_json("{ \"n\" : 1.0,\n\"s\":\"a \\\" b\" }").unwrap()),
        }
    }

    #[test]
    fn a_success_is_one_line_that_begins_with_ok() {
        let reply = success(&to(Encoding::Json), FROM, &acquired());
        assert_eq!(
            reply.payload,
            r#"{"ok":true,"node":2,"ask_node":1,"resource":"a","owner":"w","token":7,"mode":"shared","expires_in_ms":100,"waited_ms":0}"#
        );
        assert_eq!(reply.headers, []);
    }

    #[test]
    fn a_failure_has_its_details_inside_and_its_status_outside() {
        let error = ErrorReply {
            holders: Some(vec![holder()]),
            queue_length: Some(3),
            ..ErrorReply::new(Code::LockHeld, "held\nby w")
        };
        let from = From {
            ask_node: None,
            ..FROM
        };
        let reply = failure(&to(Encoding::Json), from, &error);
        assert_eq!(
            reply.payload,
            r#"{"ok":false,"node":2,"error":{"code":"lock_held","status":409,"message":"held\nby w","retryable":true,"outcome":"not_applied","holders":[{"owner":"w","token":7,"mode":"exclusive","expires_in_ms":100,"held_ms":5,"meta":{"n":1.0,"s":"a \" b"}}],"queue_length":3}}"#
        );
        assert_eq!(
            reply.headers,
            [
                (SERVICE_ERROR, "held by w".to_owned()),
                (SERVICE_ERROR_CODE, "409".to_owned())
            ]
        );
    }

    #[test]
    fn what_is_written_is_read_back_in_both_encodings() {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let reply = success(&to(encoding), FROM, &acquired());
            let answer = read::<Acquired>(encoding, &reply.payload).unwrap();
            assert_eq!(answer.result, Ok(acquired()));
            assert_eq!((answer.node, answer.ask_node), (NodeId(2), Some(NodeId(1))));

            let view = View {
                held: None,
                waiting: None,
                holders: vec![holder()],
                waiters: vec![],
                delay_ms: None,
            };
            let reply = success(&to(encoding), FROM, &view);
            let answer = read::<View>(encoding, &reply.payload).unwrap();
            assert_eq!(answer.result, Ok(view));

            let error = ErrorReply {
                holders: Some(vec![holder()]),
                ..ErrorReply::new(Code::LockHeld, "held")
            };
            let reply = failure(&to(encoding), FROM, &error);
            let answer = read::<Acquired>(encoding, &reply.payload).unwrap();
            assert_eq!(answer.result, Err(Box::new(error)));
        }
    }

    #[test]
    fn what_is_no_answer_is_said_so() {
        for payload in [
            &b""[..],
            b"{}",
            b"{\"ok\":true,\"node\":1}",
            b"{\"ok\":false,\"node\":1}",
        ] {
            assert!(read::<Acquired>(Encoding::Json, payload).is_err());
        }
    }
}
