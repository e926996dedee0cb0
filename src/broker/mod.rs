//! The broker: how messages come to a node and leave it.
//!
//! Nodes and clients have nothing between them but a broker. Nodes use it through the trait
//! [`Broker`], so that a simulation can have another one. Requests of clients come in by [`listen`],
//! for which NATS is the only broker.
//!
//! ```text
//!   clients ─► listen ─► dispatch ─► services ─► raft
//!      ▲                                          │
//!      └────── NATS ◄──── connection ◄──── reply ◄┘
//!                             ▲
//!   other nodes ◄─────────────┴─────────────► raft's network
//! ```
//!
//! A connection, as its users see it:
//!
//! ```text
//!   connecting ──► connected ◄──► disconnected ──► closed (only by this node)
//!                  publish: handed over      publish: refused at once
//! ```
//!
//! **Promises.** [`Broker::publish`] never waits. Each publish delivers a message at most once to a
//! subscription, and each subscription has an order of its own. If nobody listens for a message that
//! has a reply subject, the broker says so there at once.
//!
//! **Not promised.** That a message arrives; that it arrives soon (the client library sends what it
//! had queued after it reconnects); order between two subscriptions. The sender numbers messages that
//! must not be lost, repeated or reordered.
//!
//! **Bounds.** Each subscription has a capacity, chosen and explained where it is made. A message that
//! does not fit is dropped. The queue to the broker is bounded too: [`PublishError::Full`].
//!
//! In reading order:
//!
//! - [`seam`]: the trait, messages, subscriptions
//! - [`options`], [`connection`]: NATS behind it
//! - [`simulated`]: virtual time and a seed behind it
//! - [`listen`]: requests of clients
//! - [`dispatch`]: one exhaustive list of what clients can ask
//! - [`own`]: requests of a node itself: for those who look at it, and from one of its parts to another node
//! - [`relay`]: requests that another node has to execute
//! - [`tenants`]: how much each tenant may ask
//! - [`reply`]: answers on their way back
//! - [`reconnects`]: when this node's connection was made anew, so that the broker's word on others does not count yet
//! - [`unheard`]: gives back grants that nobody heard of
//! - [`discovery`]: answers for `nats service`

pub mod connection;
pub mod discovery;
pub mod dispatch;
pub mod events;
pub mod leaving;
pub mod listen;
pub mod options;
pub mod own;
pub mod pem;
pub mod reconnects;
pub mod relay;
pub mod reply;
pub mod seam;
pub mod simulated;
pub mod tenants;
pub mod unheard;

pub use seam::{
    Broker, Headers, Message, Outgoing, PublishError, SharedBroker, SubscribeError, Subscription,
};
