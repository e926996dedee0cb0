//! A connection to NATS, as the [`Broker`] that nodes talk through.
//!
//! A node has two: one for Raft and one for clients, since a connection reads before it writes and
//! a flood of requests must not delay heartbeats. Both wait for a broker that is not there yet and
//! come back by themselves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectError, Event, HeaderMap};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::StreamExt;

use crate::broker::options::{NatsOptions, NatsOptionsError, Resolved, addresses};
use crate::broker::{
    Broker, Headers, Message, Outgoing, PublishError, SubscribeError, Subscription,
};
use crate::stats::{Connection, Stats};
use crate::time::{self, Instant};

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
/// Between two explanations of why there is no connection, and between two of what the broker refuses:
/// often enough for whoever sets it up, too seldom to fill a log.
const SAY_EVERY: Duration = Duration::from_secs(10);
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
        let watch = Arc::new(Watch {
            options: options.clone(),
            stats,
            which,
            was_connected: AtomicBool::new(false),
            explained: Mutex::new(None),
            refused: Mutex::new(None),
        });
        let Resolved {
            servers, options, ..
        } = options.resolve()?;
        let client = options
            .name(name)
            // The first of several servers is the one that is nearest, for both connections of a node.
            .retain_servers_order()
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
                watch.note(&event);
                async {}
            })
            .connect(servers)
            .await?;
        Ok(NatsBroker { client })
    }

    /// The client library's handle, for what listens to clients.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// Follows the events of one connection.
struct Watch {
    options: NatsOptions,
    stats: Arc<Stats>,
    which: Connection,
    was_connected: AtomicBool,
    /// When it was last said why there is no connection.
    explained: Mutex<Option<Instant>>,
    /// When it was last said what the broker refuses.
    refused: Mutex<Option<Instant>>,
}

impl Watch {
    fn note(self: &Arc<Self>, event: &Event) {
        let connection = self.label();
        match event {
            Event::Connected => {
                self.stats.broker.set_connected(self.which, true);
                if self.was_connected.swap(true, Ordering::Relaxed) {
                    self.stats.broker.reconnected(self.which);
                }
                tracing::info!(connection, "connected to NATS");
            }
            Event::Disconnected | Event::Closed => {
                self.stats.broker.set_connected(self.which, false);
                tracing::warn!(connection, "lost NATS; reconnecting");
            }
            Event::ServerError(error) if is_due(&self.refused) => {
                tracing::warn!(connection, %error, "NATS reports an error");
            }
            Event::ClientError(_) if is_due(&self.explained) => {
                tokio::spawn(self.clone().explain());
            }
            other => tracing::debug!(connection, event = %other, "NATS"),
        }
    }

    /// Says why there is no connection. The client library tells the kind of failure alone (an error of
    /// input and output, say), and of several servers that of the last one; a try of our own tells the reason
    /// of each (whose certificate is not trusted).
    async fn explain(self: Arc<Self>) {
        let connection = self.label();
        match why_unreachable(&self.options).await {
            Ok(servers) => {
                for (server, error) in servers {
                    tracing::warn!(connection, server, %error, "cannot connect to NATS; trying again");
                }
            }
            Err(error) => {
                tracing::warn!(connection, %error, "cannot connect to NATS; trying again");
            }
        }
    }

    fn label(&self) -> &'static str {
        Connection::LABELS[self.which as usize]
    }
}

/// Tries one server after the other: host and port of each, and why it cannot be reached. None if one can.
async fn why_unreachable(
    options: &NatsOptions,
) -> Result<Vec<(String, ConnectError)>, NatsOptionsError> {
    let Resolved {
        servers, options, ..
    } = options.resolve()?;
    let options = options.connection_timeout(CONNECT_TIMEOUT);
    let mut unreachable = Vec::new();
    for server in servers {
        let name = addresses(std::slice::from_ref(&server));
        match options.clone().connect(server).await {
            Ok(_) => return Ok(Vec::new()),
            Err(error) => unreachable.push((name, error)),
        }
    }
    Ok(unreachable)
}

/// Whether it is time to say it again; if so, notes that it is said now.
fn is_due(said: &Mutex<Option<Instant>>) -> bool {
    let mut said = said.lock().expect("nothing panics while it is held");
    let now = time::now();
    let due = said.is_none_or(|at| now.saturating_duration_since(at) >= SAY_EVERY);
    if due {
        *said = Some(now);
    }
    due
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

    fn payload_max(&self) -> usize {
        self.client.max_payload()
    }

    fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_server_that_cannot_be_reached_is_named_with_its_reason() {
        // Nobody listens there: a port is free again once its listener is dropped.
        let closed = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
            listener.local_addr().expect("it is bound").to_string()
        };
        // What listens there is no broker.
        let other = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let other = other.expect("a port is free");
        let address = other.local_addr().expect("it is bound").to_string();
        tokio::spawn(async move { while other.accept().await.is_ok() {} });
        let servers = [closed(), address, closed()];
        let options = NatsOptions {
            url: Some(format!("nats://u:hush@{}", servers.join(",nats://u:hush@"))),
            ..NatsOptions::default()
        };
        let unreachable = why_unreachable(&options).await.expect("they are addresses");
        let names: Vec<&String> = unreachable.iter().map(|(server, _)| server).collect();
        assert_eq!(names, servers.each_ref());
        let reason = |nth: usize| unreachable[nth].1.to_string();
        assert!(reason(0).contains("refused"), "{}", reason(0));
        assert_ne!(reason(1), reason(0));
    }
}
