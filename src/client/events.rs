//! What happened to locks and cached values, as the nodes publish it.
//!
//! Events are told at most once, and a watcher may miss what happens in its first moments or while its
//! connection is away: whoever needs the state asks for it.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::client::refusals::{Listener, Refused};
use crate::client::{Client, RequestError};

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Such as `lock.granted`.
    pub event: String,
    /// How many of this kind, from the same node, were missed before this one. Only events of the
    /// cache are counted.
    #[serde(skip_serializing_if = "is_zero")]
    pub missed: u64,
    /// The fields that this kind of event has.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl Event {
    /// The lock that it is about; none for a deadlock, which is about several.
    pub fn resource(&self) -> Option<&str> {
        self.fields.get("resource")?.as_str()
    }
}

/// Events in the order in which they arrive; dropping it ends the subscription.
pub struct Events {
    subscriber: async_nats::Subscriber,
    refused: Listener,
    /// What is subscribed to.
    subject: String,
    /// Of a subject, what comes before the name of the event.
    prefix_bytes: usize,
    /// The last count of each kind from each run of each node.
    counts: BTreeMap<(String, String), u64>,
}

/// The field that all replies have and no event.
const OK: &str = "ok";

/// Runs of nodes times kinds of events whose counts are kept; a watcher of so many begins anew.
const COUNTS_MAX: usize = 4_096;

fn is_zero(missed: &u64) -> bool {
    *missed == 0
}

impl Events {
    /// The next event; none when the connection was closed for good. What is no event is passed over.
    /// Dropping the future loses none.
    ///
    /// # Errors
    /// When the broker does not allow the subscription.
    pub async fn next(&mut self) -> Result<Option<Event>, RequestError> {
        loop {
            let message = tokio::select! {
                biased;
                message = self.subscriber.next() => message,
                refused = self.refused.next() => match refused {
                    Refused::Subscribe(subject) if subject == self.subject => {
                        return Err(RequestError::Forbidden(format!("subscribe to {subject}")));
                    }
                    _ => continue,
                },
            };
            let Some(message) = message else {
                return Ok(None);
            };
            let event = message.subject.get(self.prefix_bytes..);
            if let (Some(event), Some(fields)) = (event, fields(&message.payload)) {
                return Ok(Some(Event {
                    event: event.to_owned(),
                    missed: missed(&mut self.counts, event, &fields),
                    fields,
                }));
            }
        }
    }
}

/// What an event says; none of what is no event. A reply is none: in an account that imports the nodes'
/// subjects, the broker brings it to whatever subject its asker named, be it one of events. Replies
/// always have [`OK`].
fn fields(payload: &[u8]) -> Option<Map<String, Value>> {
    let fields: Map<String, Value> = serde_json::from_slice(payload).ok()?;
    (!fields.contains_key(OK)).then_some(fields)
}

/// How many events were missed before one, by its count.
fn missed(
    counts: &mut BTreeMap<(String, String), u64>,
    event: &str,
    fields: &Map<String, Value>,
) -> u64 {
    let boot = fields.get("boot").and_then(Value::as_str);
    let seq = fields.get("seq").and_then(Value::as_u64);
    let (Some(boot), Some(seq)) = (boot, seq) else {
        return 0;
    };
    if counts.len() >= COUNTS_MAX {
        counts.clear();
    }
    let last = counts.insert((boot.to_owned(), event.to_owned()), seq);
    last.map_or(0, |last| seq.saturating_sub(last + 1))
}

impl Client {
    /// Subscribes to what happens to locks.
    ///
    /// # Errors
    /// When the connection was closed for good.
    pub async fn lock_events(&self) -> Result<Events, RequestError> {
        self.events("lock.>").await
    }

    /// Subscribes to what happens to cached values.
    ///
    /// # Errors
    /// When the connection was closed for good.
    pub async fn cache_events(&self) -> Result<Events, RequestError> {
        self.events("cache.>").await
    }

    async fn events(&self, which: &str) -> Result<Events, RequestError> {
        let subject = self.options().prefix.event(which);
        let prefix_bytes = subject.len() - which.len();
        let nats = self.requester().nats();
        let unsendable =
            |error: &dyn std::fmt::Display| RequestError::Unsendable(error.to_string());
        let refused = self.requester().refusals().listen();
        let subscriber = nats.subscribe(subject.clone()).await;
        let subscriber = subscriber.map_err(|e| unsendable(&e))?;
        // From here on the broker knows that somebody watches.
        nats.flush().await.map_err(|e| unsendable(&e))?;
        Ok(Events {
            subscriber,
            refused,
            subject,
            prefix_bytes,
            counts: BTreeMap::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_no_event_wherever_it_comes() {
        let event = br#"{"resource":"a","token":7}"#;
        assert_eq!(fields(event).expect("an event")["token"], 7);
        for other in [
            &br#"{"ok":true,"resource":"a","token":7}"#[..],
            br#"{"ok":false,"node":1,"error":{}}"#,
            b"[]",
            b"",
        ] {
            assert_eq!(fields(other), None, "{other:?}");
        }
    }
}
