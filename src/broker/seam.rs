//! What the rest of a node needs of a message broker, and nothing of NATS.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{BoxStream, Stream, StreamExt};

/// What nodes need of a message broker among themselves: at most once, unordered in the worst
/// case. Real nodes have NATS behind it, simulations a seeded network with virtual time.
pub trait Broker: Send + Sync + 'static {
    /// Hands a message to the broker without waiting. An `Ok` promises nothing about delivery.
    /// With `reply` set, a broker that knows of no subscriber answers there with
    /// [`Message::no_responders`].
    fn publish(&self, message: Outgoing) -> Result<(), PublishError>;

    /// Messages to `subject`, where a last token `>` matches all that follows. What does not fit
    /// into `capacity` is dropped.
    fn subscribe(
        &self,
        subject: String,
        capacity: usize,
    ) -> BoxFuture<'static, Result<Subscription, SubscribeError>>;

    /// Whether the connection stands, as far as is known here.
    fn is_connected(&self) -> bool;

    /// How often the connection was made. A number that changed says that messages may be missing
    /// since, and that others may have lost their connections too.
    fn connects(&self) -> u64;
}

/// A broker shared by the parts of a node.
pub type SharedBroker = Arc<dyn Broker>;

/// Headers of a message: few, with names that are known beforehand.
pub type Headers = Vec<(&'static str, String)>;

#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    pub subject: String,
    pub reply: Option<String>,
    /// None on hot paths: they cost parsing at every hop.
    pub headers: Headers,
    pub payload: Bytes,
}

#[derive(Clone, Debug)]
pub struct Message {
    pub subject: String,
    pub reply: Option<String>,
    pub payload: Bytes,
    /// The broker says that nobody listens on the subject that was published to.
    pub no_responders: bool,
}

/// A stream of messages; dropping it ends the subscription.
pub struct Subscription {
    messages: BoxStream<'static, Message>,
}

impl Subscription {
    pub fn new(messages: impl Stream<Item = Message> + Send + 'static) -> Self {
        Subscription {
            messages: messages.boxed(),
        }
    }

    /// The next message; none when the broker has gone for good.
    pub async fn next(&mut self) -> Option<Message> {
        self.messages.next().await
    }

    /// The next message if one is here already.
    pub fn try_next(&mut self) -> Option<Message> {
        self.messages.next().now_or_never().flatten()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    #[error("not connected to the broker")]
    Disconnected,
    #[error("the queue to the broker is full")]
    Full,
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot subscribe: {0}")]
pub struct SubscribeError(pub String);
