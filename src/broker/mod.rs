//! The broker: how messages come to a node and leave it.
//!
//! Nodes and clients have nothing between them but a broker. What nodes need of it is the trait
//! [`Broker`], so that a simulation has another one; what clients send comes in by [`listen`], which
//! NATS alone does.
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
//! **Promises.** [`Broker::publish`] never waits. A message arrives at most once per publishing, and
//! each subscription is an order of its own. A message that somebody answers to, and that nobody
//! listens for, is answered by the broker at once.
//!
//! **What it does not promise.** That a message arrives; that it arrives soon (the client library
//! sends what it had queued after it reconnects); order between two subscriptions. What must not be
//! lost, repeated or reordered is numbered by whoever sends it.
//!
//! **Bounds.** Each subscription has a capacity, chosen and explained where it is made; what does not
//! fit is dropped. The queue to the broker is bounded too: [`PublishError::Full`].
//!
//! In reading order:
//!
//! - [`seam`]: the trait, messages, subscriptions
//! - [`options`], [`connection`]: NATS behind it
//! - [`simulated`]: virtual time and a seed behind it
//! - [`listen`]: what clients send
//! - [`dispatch`]: one exhaustive list of what they can ask
//! - [`own`]: what a node asks for those who look at it
//! - [`relay`]: what another node has to execute
//! - [`tenants`]: how much each tenant may ask
//! - [`reply`]: the answers on their way back
//! - [`unheard`]: what becomes of a grant that nobody heard of
//! - [`discovery`]: what `nats service` is told

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
