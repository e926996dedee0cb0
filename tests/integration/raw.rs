//! Requests with any bytes and headers, and answers with theirs.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Request};
use bytes::Bytes;
use mufakat::protocol::Encoding;
use serde_json::{Map, Value};

/// No answer takes longer, on however busy a machine.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// An answer with its headers.
pub struct Answer {
    pub body: Value,
    pub encoding: Encoding,
    headers: Option<HeaderMap>,
}

impl Answer {
    fn of(message: async_nats::Message) -> Self {
        let payload = &message.payload;
        assert!(!payload.is_empty(), "an answer is never empty");
        let (encoding, body) = if payload[0] == b'{' {
            assert!(!payload.contains(&b'\n'), "JSON answers are one line");
            let json = serde_json::from_slice(payload);
            (Encoding::Json, json.expect("an answer is JSON"))
        } else {
            let pack = rmp_serde::from_slice(payload);
            (
                Encoding::MessagePack,
                pack.expect("an answer is MessagePack"),
            )
        };
        let answer = Answer {
            body,
            encoding,
            headers: message.headers,
        };
        answer.check_envelope();
        answer
    }

    /// What holds for every answer, whatever was asked.
    fn check_envelope(&self) {
        let body = &self.body;
        assert!(body["node"].as_u64() >= Some(1), "{body}");
        let error = &body["error"];
        if body["ok"] == true {
            assert!(error.is_null(), "{body}");
            assert!(self.headers.is_none(), "{body}: {:?}", self.headers);
            return;
        }
        assert_eq!(body["ok"], false, "{body}");
        let outcomes = ["not_applied", "applied", "unknown"];
        assert!(
            outcomes.contains(&error["outcome"].as_str().unwrap()),
            "{body}"
        );
        assert!(error["retryable"].is_boolean(), "{body}");
        let status = error["status"].as_u64().expect("errors have a status");
        assert_eq!(
            self.header("Nats-Service-Error-Code"),
            Some(status.to_string())
        );
        assert_eq!(
            self.header("Nats-Service-Error"),
            error["message"].as_str().map(str::to_owned)
        );
    }

    fn header(&self, name: &str) -> Option<String> {
        let headers = self.headers.as_ref()?;
        headers.get(name).map(ToString::to_string)
    }

    /// Code and status of an answer that refuses.
    pub fn refusal(&self) -> (&str, u64) {
        let error = &self.body["error"];
        match (error["code"].as_str(), error["status"].as_u64()) {
            (Some(code), Some(status)) => (code, status),
            _ => panic!("not refused: {}", self.body),
        }
    }

    /// The body of a success.
    pub fn success(self) -> Value {
        assert_eq!(self.body["ok"], true, "{}", self.body);
        self.body
    }
}

/// Sends bytes with headers and takes the answer.
pub async fn ask_bytes(
    nats: &Client,
    subject: &str,
    headers: &[(&str, &str)],
    payload: impl Into<Bytes>,
) -> Answer {
    let mut request = Request::new()
        .payload(payload.into())
        .timeout(Some(ANSWER_MAX));
    if !headers.is_empty() {
        let mut map = HeaderMap::new();
        for &(name, value) in headers {
            map.insert(name, value);
        }
        request = request.headers(map);
    }
    let answer = nats.send_request(subject.to_owned(), request).await;
    Answer::of(answer.unwrap_or_else(|e| panic!("{subject}: {e}")))
}

/// Sends a map in an encoding and takes the answer, which has to have the same.
pub async fn ask(nats: &Client, encoding: Encoding, subject: &str, body: &Value) -> Answer {
    let payload = match encoding {
        Encoding::Json => serde_json::to_vec(body).expect("JSON encodes"),
        Encoding::MessagePack => rmp_serde::to_vec_named(body).expect("JSON has such a form"),
    };
    let answer = ask_bytes(nats, subject, &[], payload).await;
    assert_eq!(answer.encoding, encoding, "{subject} {body}");
    answer
}

/// The names of the fields of an object, sorted.
pub fn names(object: &Value) -> Vec<&str> {
    let object: &Map<String, Value> = object.as_object().expect("an object");
    let mut names: Vec<&str> = object.keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}
