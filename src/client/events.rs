//! What happened to locks, as the nodes publish it.
//!
//! Events are told at most once, and a watcher may miss what happens in its first moments or while its
//! connection is away: whoever needs the state asks for it.

use futures_util::StreamExt;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::client::{Client, RequestError};

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Such as `lock.granted`.
    pub event: String,
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
    /// Of a subject, what comes before the name of the event.
    prefix_bytes: usize,
}

impl Events {
    /// The next event; none when the connection was closed for good. What is no event is passed over.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let message = self.subscriber.next().await?;
            let event = message.subject.get(self.prefix_bytes..);
            let fields = serde_json::from_slice(&message.payload);
            if let (Some(event), Ok(fields)) = (event, fields) {
                return Some(Event {
                    event: event.to_owned(),
                    fields,
                });
            }
        }
    }
}

impl Client {
    /// Subscribes to what happens to locks.
    ///
    /// # Errors
    /// When the connection was closed for good.
    pub async fn lock_events(&self) -> Result<Events, RequestError> {
        let subject = self.options().prefix.event("lock.>");
        let prefix_bytes = subject.len() - "lock.>".len();
        let nats = self.requester().nats();
        let unsendable =
            |error: &dyn std::fmt::Display| RequestError::Unsendable(error.to_string());
        let subscriber = nats.subscribe(subject).await.map_err(|e| unsendable(&e))?;
        // From here on the broker knows that somebody watches.
        nats.flush().await.map_err(|e| unsendable(&e))?;
        Ok(Events {
            subscriber,
            prefix_bytes,
        })
    }
}
