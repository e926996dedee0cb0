//! The queue: topics whose state is in Redis, each owned by one node of the view.
//!
//! ```text
//!                 push                    pop
//!   (delay) ──► delayed ──► ready ◄──────────────┐
//!                  ▲          │ pop              │ visibility ran out, or nack
//!                  │          ▼                  │   (with a backoff: delayed first)
//!                  └────── in flight ────────────┤
//!                             │ ack              │ max_deliveries, or nack with `dead`
//!                             ▼                  ▼
//!                           gone               dead ──► ready (redrive), here or in another topic
//! ```
//!
//! **Promises.**
//!
//! - A message pushed with durability `fsync` is kept until it is acknowledged, expires, or is
//!   cancelled, purged or overflowed. This holds for one Redis (in a Redis Cluster, for the master that
//!   has the topic) that is not restored from a copy, and that fails over only to a replica that has
//!   confirmed the push.
//! - By the clock of Redis, a message is in flight to one consumer at a time, until its visibility
//!   deadline.
//! - Without group, delay or hand-back, messages of one topic and priority are first handed out in push
//!   order.
//! - Messages of one group are handed out in order, one at a time.
//!
//! **Duplicates** have three causes only: a visibility timeout that ran out; an owner or a requester
//! that died between lease and reply; an acknowledgement whose reply was lost.
//!
//! **How.** Only scripts in Redis change a topic. Each script compares the owner's epoch first, so Redis
//! itself refuses an owner that was replaced. Leases are stored before messages leave. All requests that
//! wait for a topic go into one call, with at most two calls at a time.
//!
//! A node starts before its Redis and waits for it; nothing else depends on Redis. The durability in a
//! reply is read from the server itself, at each connect and then every minute. If the server has
//! replicas, every push waits for their confirmation.
//!
//! **Limits.** A node believes what the server says about its settings, and cannot see whether the
//! server's disk honours an fsync. It notices a setting that was changed by hand within a minute. The
//! node that owned the topic before a loss notices any loss. A new owner knows what its predecessor
//! reported to the log, each second, so it misses a loss of the last second if Redis and the predecessor
//! ended together.
//!
//! - [`service`]: requests in, answers out; the tasks of a topic.
//! - [`owner`]: one topic: the requests that wait, and the calls that carry them. Plain code.
//! - [`script`]: the scripts with their inputs and outputs. Plain code.
//! - [`marks`]: how far topics had come, in the replicated state. Plain code.
//! - [`keys`]: the names of keys.
//! - [`store`]: connections, and calls over them.
//! - [`slots`]: which master of a Redis Cluster has a key. Plain code.
//! - [`durability`]: what a write survives, by the server's settings.
//! - [`address`]: where Redis is, and how a node authenticates.

pub mod address;
pub mod durability;
pub mod keys;
pub mod marks;
pub mod owner;
pub mod script;
pub mod service;
pub mod slots;
pub mod store;
