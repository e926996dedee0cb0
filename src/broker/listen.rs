//! What clients send to a node: subscriptions in, [`Dispatch`] out.
//!
//! All nodes share the queue group of the common subjects, so that each request reaches one of
//! them; `<prefix>.node.<id>.>`, the same of tenants and NATS service discovery reach every one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt;
use futures_util::stream::SelectAll;
use tokio::sync::watch;

use crate::broker::dispatch::Dispatch;
use crate::broker::leaving::leave;
use crate::broker::relay::Incoming;
use crate::protocol::encoding::CONTENT_TYPE;
use crate::protocol::request::MESSAGE_ID;
use crate::protocol::subject::QUEUE_GROUP;
use crate::trace::TRACEPARENT;

/// The subscriptions of one node to what clients send.
pub struct Listener {
    client: Client,
    requests: SelectAll<Subscriber>,
    discovery: SelectAll<Subscriber>,
}

impl Listener {
    /// Subscribes; from now on requests reach this node.
    ///
    /// # Errors
    /// When the connection has ended for good.
    pub async fn subscribe(
        client: Client,
        dispatch: &Dispatch,
    ) -> Result<Self, async_nats::SubscribeError> {
        let mut requests = SelectAll::new();
        for subject in dispatch.prefix.shared_subscriptions() {
            let shared = client.queue_subscribe(subject, QUEUE_GROUP.to_owned());
            requests.push(shared.await?);
        }
        for subject in dispatch.prefix.node_subscriptions(dispatch.me) {
            requests.push(client.subscribe(subject).await?);
        }
        let mut discovery = SelectAll::new();
        for subject in dispatch.insight.service.subjects() {
            discovery.push(client.subscribe(subject).await?);
        }
        Ok(Listener {
            client,
            requests,
            discovery,
        })
    }

    /// Takes messages, and says that the node serves, until `shutdown`; then no more come to this
    /// node, and what had come is taken.
    pub async fn run(mut self, dispatch: Arc<Dispatch>, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            // Before that the broker may not know of the subscriptions, and no request comes.
            _ = self.client.flush() => dispatch.insight.serving.store(true, Ordering::Relaxed),
            _ = shutdown.changed() => return,
        }
        loop {
            tokio::select! {
                message = self.requests.next() => match message {
                    Some(message) => take(&dispatch, message),
                    None => return,
                },
                Some(message) = self.discovery.next() => self.discover(&dispatch, message).await,
                _ = shutdown.changed() => break,
            }
        }
        let fence = dispatch.prefix.fence(dispatch.me);
        leave(&self.client, fence, self.requests, |message| {
            take(&dispatch, message);
        })
        .await;
    }

    async fn discover(&self, dispatch: &Dispatch, message: Message) {
        let Some(reply) = message.reply.filter(|to| dispatch.prefix.may_reply_to(to)) else {
            return;
        };
        if let Some(answer) = dispatch.insight.discover(message.subject.as_str()) {
            let _ = self.client.publish(reply, answer).await;
        }
    }
}

fn take(dispatch: &Arc<Dispatch>, message: Message) {
    let header = |name: &str| {
        let headers = message.headers.as_ref()?;
        headers.get(name).map(async_nats::HeaderValue::as_str)
    };
    dispatch.take(Incoming {
        subject: message.subject.as_str(),
        reply: message.reply.as_ref().map(async_nats::Subject::as_str),
        content_type: header(CONTENT_TYPE),
        message_id: header(MESSAGE_ID),
        traceparent: TRACEPARENT.into_iter().find_map(header),
        payload: &message.payload,
    });
}
