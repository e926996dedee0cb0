//! The typed client that the command line, the load generator and tests use.
//!
//! A [`Client`] sends requests through a [`Requester`] and asks again while that is safe and can
//! help: nobody leads, nobody listens, the connection broke, the node that was asked died. It is
//! safe since an acquire that waits carries a request id (made up when absent), a try without one is
//! asked again only if it surely did nothing, and a token is never granted twice, so that a repeated
//! release or renewal concerns nothing but the same hold. What
//! would do more when repeated, or tell less, is asked once: its outcome may then be unknown. A
//! [`Lease`] keeps a lock until it is released or lost.
//!
//! ```no_run
//! # use mufakat::client::{Client, ConnectOptions};
//! # use mufakat::protocol::lock::Acquire;
//! # fn write(_token: mufakat::ids::Token) {}
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(&ConnectOptions::default()).await?;
//! let mut request = Acquire::new("orders.42");
//! request.wait_ms = 10_000;
//! let lease = client.acquire_lease(&request).await?;
//! lease.check()?; // Right before each use of what the lock protects.
//! write(lease.token()); // Which refuses a token lower than one it has seen.
//! lease.release().await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Session`]s keep any number of locks with one renewer; [`Lease::during`] stops work when its lock
//! is lost.
//!
//! With [`Target::Leader`] the client learns from answers which node to ask, and goes back to any node
//! when that one does not answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::Subject;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::broker::options::{self, NatsOptions, NatsOptionsError};
use crate::ids::NodeId;
use crate::protocol::lock::{Check, Checked, Get, Release, Released, Renew, Renewed, View};
use crate::protocol::status::{Ask, Metrics, MetricsFormat, Status};
use crate::protocol::{Encoding, Operation, Prefix};
use crate::stats::samples::Family;

mod acquire;
mod cache;
mod call;
mod cluster;
pub mod error;
pub mod events;
#[cfg(test)]
mod fake_broker;
mod kept;
pub mod lease;
mod locks;
mod queue;
mod refusals;
pub mod requester;
pub mod session;
mod slots;

pub use error::ClientError;
pub use kept::LeaseLost;
pub use lease::Lease;
pub use requester::{Message, RequestError, Requester};
pub use session::Session;

use call::{Call, Direct, Subjects};
use refusals::Refusals;

/// Whom to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// Whichever node the broker picks.
    Any,
    /// The node that answers name as the fastest to ask, once known; until then any.
    #[default]
    Leader,
    /// One node, always.
    Node(NodeId),
}

/// How to talk to a cluster.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    pub prefix: Prefix,
    pub encoding: Encoding,
    pub target: Target,
}

/// How to reach a cluster and how to talk to it.
#[derive(Clone, Default)]
pub struct ConnectOptions {
    pub nats: NatsOptions,
    pub client: ClientOptions,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Options(#[from] NatsOptionsError),
    #[error(
        "nodes answer to no inbox under `{inbox}`: it may not be under their own prefix, {prefix}, nor \
         begin with $ (--nats-inbox-prefix)"
    )]
    Unanswered { inbox: String, prefix: Prefix },
    #[error("cannot connect to {servers}: {reason}")]
    Unreachable {
        servers: String,
        reason: async_nats::ConnectError,
    },
    #[error(transparent)]
    Inbox(#[from] RequestError),
}

/// A connection to a cluster. Clones share everything.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    requester: Requester,
    options: ClientOptions,
    shared: Subjects,
    /// The node to ask, and the subjects that reach it.
    direct: Mutex<Option<Arc<Direct>>>,
    /// The node to ask about each topic.
    owners: Mutex<queue::Owners>,
}

impl Client {
    /// Connects; fails if the broker cannot be reached now, reconnects by itself afterwards.
    ///
    /// # Errors
    /// When options contradict each other, name unreadable files or an inbox that nodes do not answer to,
    /// and when no server answers.
    pub async fn connect(connect: &ConnectOptions) -> Result<Self, ConnectError> {
        let resolved = connect.nats.resolve()?;
        let prefix = &connect.client.prefix;
        if let Some(inbox) = resolved.inbox_prefix
            && !prefix.may_reply_to(&inbox)
        {
            let prefix = prefix.clone();
            return Err(ConnectError::Unanswered { inbox, prefix });
        }
        let refusals = Refusals::default();
        let told = refusals.clone();
        let nats = resolved
            .options
            .event_callback(move |event| {
                told.note(&event);
                async {}
            })
            .connect(&resolved.servers[..])
            .await
            .map_err(|reason| ConnectError::Unreachable {
                servers: options::addresses(&resolved.servers),
                reason,
            })?;
        let requester = Requester::hearing(nats, refusals).await?;
        Ok(Client::of(requester, connect.client.clone()))
    }

    /// A client on a connection that exists. What the broker forbids ends unanswered, since the connection's
    /// maker alone hears of it.
    ///
    /// # Errors
    /// When the connection was closed for good.
    pub async fn new(
        nats: async_nats::Client,
        options: ClientOptions,
    ) -> Result<Self, RequestError> {
        Ok(Client::of(Requester::new(nats).await?, options))
    }

    fn of(requester: Requester, options: ClientOptions) -> Self {
        let shared = Subjects::new(|operation| options.prefix.operation(operation));
        let direct = match options.target {
            Target::Node(node) => Some(Arc::new(Direct::new(&options.prefix, node))),
            Target::Any | Target::Leader => None,
        };
        Client {
            inner: Arc::new(Inner {
                requester,
                options,
                shared,
                direct: Mutex::new(direct),
                owners: Mutex::default(),
            }),
        }
    }

    /// Another client on the same connection, which can be closed without this one.
    ///
    /// # Errors
    /// When the connection was closed for good.
    pub async fn apart(&self) -> Result<Self, RequestError> {
        self.apart_with(self.options().clone()).await
    }

    /// The same with other options.
    ///
    /// # Errors
    /// As [`Client::apart`].
    pub async fn apart_with(&self, options: ClientOptions) -> Result<Self, RequestError> {
        Ok(Client::of(self.requester().apart().await?, options))
    }

    /// Gives up what waits for an answer, once what was on its way has come; see [`Requester::close`].
    pub async fn close(&self) {
        self.requester().close().await;
    }

    /// What carries the requests; usable for any subject.
    pub fn requester(&self) -> &Requester {
        &self.inner.requester
    }

    fn owners(&self) -> &Mutex<queue::Owners> {
        &self.inner.owners
    }

    pub fn options(&self) -> &ClientOptions {
        &self.inner.options
    }

    /// An id that no other request has: 128 random bits.
    pub fn new_request_id(&self) -> String {
        format!("{:032x}", rand::random::<u128>())
    }

    /// Ends a hold. When an earlier attempt of the same call went unanswered, `not_holder` means
    /// that the hold is over, and counts as released.
    ///
    /// # Errors
    /// `not_holder` when the token is not that of a live hold.
    pub async fn release(&self, request: &Release) -> Result<Released, ClientError> {
        let call = Call::new(Operation::LockRelease, request.timeout_ms, 0);
        self.end(call, request, Released { released: true }).await
    }

    /// Lets a lease begin anew.
    ///
    /// # Errors
    /// `not_holder` when the token is not that of a live hold.
    pub async fn renew(&self, request: &Renew) -> Result<Renewed, ClientError> {
        self.repeat(Operation::LockRenew, request.timeout_ms, request)
            .await
    }

    /// Asks whether a token is that of a live hold.
    ///
    /// # Errors
    /// Only when the cluster does not answer.
    pub async fn check(&self, request: &Check) -> Result<Checked, ClientError> {
        self.repeat(Operation::LockCheck, request.timeout_ms, request)
            .await
    }

    /// Asks who holds a resource and who waits for it.
    ///
    /// # Errors
    /// Only when the cluster does not answer.
    pub async fn get(&self, request: &Get) -> Result<View, ClientError> {
        self.repeat(Operation::LockGet, request.timeout_ms, request)
            .await
    }

    /// What some node says about itself; with [`Target::Node`] that one.
    ///
    /// # Errors
    /// Only when no node answers.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.ask(Operation::Status).await
    }

    /// What one node says about itself. Asks once.
    ///
    /// # Errors
    /// When that node does not answer.
    pub async fn status_of(&self, node: NodeId) -> Result<Status, ClientError> {
        self.ask_node(node, Operation::Status).await
    }

    /// The metrics of some node; with [`Target::Node`] of that one.
    ///
    /// # Errors
    /// Only when no node answers.
    pub async fn metrics(&self) -> Result<Metrics, ClientError> {
        self.ask(Operation::Metrics).await
    }

    /// The same as values.
    ///
    /// # Errors
    /// Only when no node answers.
    pub async fn metric_values(&self) -> Result<Vec<Family>, ClientError> {
        let ask = Ask {
            format: MetricsFormat::Values,
            ..Ask::default()
        };
        let metrics: Metrics = self.repeat(Operation::Metrics, None, &ask).await?;
        Ok(metrics.families)
    }

    /// The metrics of one node. Asks once.
    ///
    /// # Errors
    /// When that node does not answer.
    pub async fn metrics_of(&self, node: NodeId) -> Result<Metrics, ClientError> {
        self.ask_node(node, Operation::Metrics).await
    }

    /// Sends any body to any subject, once, and reads the answer.
    ///
    /// # Errors
    /// What the node answered, or why there is no answer.
    pub async fn call<T: DeserializeOwned>(
        &self,
        subject: impl Into<Subject>,
        request: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, ClientError> {
        let body = self.encode(request);
        let answer = self.exchange(None, subject.into(), body, timeout).await?;
        answer.result.map_err(ClientError::Refused)
    }
}

#[cfg(test)]
mod repeat_tests;
#[cfg(test)]
mod tests;
