//! A connection to NATS, as the [`Broker`] that nodes talk through.
//!
//! A node has two: one for Raft and one for clients, since a connection reads before it writes and
//! a flood of requests must not delay heartbeats. Both wait for a broker that is not there yet and
//! come back by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Event, HeaderMap};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::StreamExt;

use crate::broker::options::NatsOptions;
use crate::broker::{
    Broker, Headers, Message, Outgoing, PublishError, SubscribeError, Subscription,
};
use crate::stats::{Connection, Stats};

/// Messages handed over and not yet written. What does not fit is refused: for Raft that is a
/// lost message, for a reply a client that asks again.
const OUTGOING_MAX: usize = 65_536;
/// Messages of one subscription not yet looked at; the client library drops what is beyond.
const INCOMING_MAX: usize = 65_536;
/// A half-open connection is noticed after two of these.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// Between two attempts to reach a broker that is gone: service is to be back within seconds.
const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const NO_RESPONDERS: async_nats::StatusCode = async_nats::StatusCode::NO_RESPONDERS;

/// One connection to NATS.
#[derive(Clone)]
pub struct NatsBroker {
    client: Client,
}

impl NatsBroker {
    /// Connects, or goes on trying in the background: it never fails for a broker that is away.
    ///
    /// # Errors
    /// When the options contradict each other or name files that can't be read.
    pub async fn connect(
        options: &NatsOptions,
        name: String,
        (stats, which): (Arc<Stats>, Connection),
    ) -> anyhow::Result<Self> {
        let was_connected = AtomicBool::new(false);
        let client = options
            .connect_options()?
            .name(name)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(|attempt| {
                let delay = Duration::from_millis(50 << attempt.clamp(1, 5));
                delay.min(RECONNECT_DELAY_MAX)
            })
            .client_capacity(OUTGOING_MAX)
            .subscription_capacity(INCOMING_MAX)
            .event_callback(move |event| {
                note_event(&event, &stats, which, &was_connected);
                async {}
            })
            .connect(options.servers()?)
            .await?;
        Ok(NatsBroker { client })
    }

    /// The client library's handle, for what listens to clients.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

fn note_event(event: &Event, stats: &Stats, which: Connection, was_connected: &AtomicBool) {
    let connection = Connection::LABELS[which as usize];
    match event {
        Event::Connected => {
            stats.broker.set_connected(which, true);
            if was_connected.swap(true, Ordering::Relaxed) {
                stats.broker.reconnected(which);
            }
            tracing::info!(connection, "connected to NATS");
        }
        Event::Disconnected | Event::Closed => {
            stats.broker.set_connected(which, false);
            tracing::warn!(connection, "lost NATS; reconnecting");
        }
        other => tracing::debug!(connection, event = %other, "NATS"),
    }
}

impl NatsBroker {
    async fn send(&self, message: Outgoing) -> Result<(), async_nats::PublishError> {
        let Outgoing {
            subject,
            reply,
            headers,
            payload,
        } = message;
        let client = &self.client;
        match (reply, headers.is_empty()) {
            (None, true) => client.publish(subject, payload).await,
            (Some(reply), true) => client.publish_with_reply(subject, reply, payload).await,
            (None, false) => {
                client
                    .publish_with_headers(subject, header_map(headers), payload)
                    .await
            }
            (Some(reply), false) => {
                let headers = header_map(headers);
                client
                    .publish_with_reply_and_headers(subject, reply, headers, payload)
                    .await
            }
        }
    }
}

fn header_map(headers: Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(name, value.as_str());
    }
    map
}

impl Broker for NatsBroker {
    fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        if !self.is_connected() {
            return Err(PublishError::Disconnected);
        }
        // Outside the runtime's budget: that would refuse the 129th message of a turn for no reason.
        let sent = tokio::task::unconstrained(self.send(message)).now_or_never();
        // A publish that does not complete at once found the queue to the connection full.
        match sent {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => {
                tracing::debug!(%error, "not published");
                Err(PublishError::Full)
            }
            None => Err(PublishError::Full),
        }
    }

    fn subscribe(
        &self,
        subject: String,
        _capacity: usize,
    ) -> BoxFuture<'static, Result<Subscription, SubscribeError>> {
        let client = self.client.clone();
        async move {
            let subscriber = client
                .subscribe(subject)
                .await
                .map_err(|e| SubscribeError(e.to_string()))?;
            Ok(Subscription::new(subscriber.map(|message| Message {
                no_responders: message.status == Some(NO_RESPONDERS),
                subject: message.subject.into_string(),
                reply: message.reply.map(async_nats::Subject::into_string),
                payload: message.payload,
            })))
        }
        .boxed()
    }

    fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }
}
