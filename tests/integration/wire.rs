//! Requests as any NATS client sends them: JSON, an inbox each, no library of ours.

use std::time::Duration;

use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use serde_json::Value;

/// A request on its way, with the subscription that its answer comes to.
pub struct Pending {
    answers: Subscriber,
}

/// Sends a request from an inbox of its own, as `nats req` does.
pub async fn send(nats: &Client, subject: &str, body: &Value) -> Pending {
    let inbox = nats.new_inbox();
    let answers = nats.subscribe(inbox.clone()).await.expect("not closed");
    let payload = serde_json::to_vec(body).expect("JSON encodes");
    nats.publish_with_reply(subject.to_owned(), inbox, payload.into())
        .await
        .expect("not closed");
    Pending { answers }
}

impl Pending {
    /// The answer, if one comes in time. An empty message of the broker says that nobody listens;
    /// it counts as none.
    pub async fn answer(&mut self, limit: Duration) -> Option<Value> {
        let message = tokio::time::timeout(limit, self.answers.next())
            .await
            .ok()??;
        if message.payload.is_empty() {
            return None;
        }
        let text = String::from_utf8_lossy(&message.payload);
        let answer = serde_json::from_slice(&message.payload);
        Some(answer.unwrap_or_else(|e| panic!("{e}: {text}")))
    }
}

/// Sends a request and waits for its answer.
pub async fn request(nats: &Client, subject: &str, body: &Value, limit: Duration) -> Option<Value> {
    send(nats, subject, body).await.answer(limit).await
}

/// Sends a request that changes nothing by being repeated, until it is answered with success.
pub async fn request_until_ok(nats: &Client, subject: &str, body: &Value) -> Value {
    let mut last = None;
    let answered = crate::wait::look_until(async || {
        let answer = request(nats, subject, body, Duration::from_secs(2)).await?;
        last = Some(answer.clone());
        (answer["ok"] == true).then_some(answer)
    });
    let answer = answered.await;
    answer.unwrap_or_else(|| panic!("{subject} {body}: no success; the last answer is {last:?}"))
}

/// The code of an answer that refuses, or `ok`.
pub fn code(answer: &Value) -> &str {
    match answer["error"]["code"].as_str() {
        Some(code) => code,
        None => "ok",
    }
}
