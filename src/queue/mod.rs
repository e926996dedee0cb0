//! The queue: topics whose truth is in Redis, each owned by one node of the view.
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
//! **Promises.** A push that was acknowledged with durability `fsync` is kept until it is acknowledged,
//! expired, cancelled, purged or overflowed, on one Redis (of a Redis Cluster: the master that has the
//! topic) that is not restored, and not failed over but to a replica that has confirmed the push. By the clock of Redis a message is in flight to one consumer at a
//! time, until its visibility deadline. Without group, delay or hand-back, messages of one topic and
//! priority are first handed out in push order.
//! Messages of one group are handed out in order, one at a time.
//!
//! **Duplicates** come from three things only: a visibility that ran out, an owner or a requester that
//! died between lease and reply, an acknowledgement whose reply was lost.
//!
//! **How.** Everything that changes a topic is a script in Redis, which compares the owner's epoch first:
//! an owner that was replaced is refused by the store itself. Leases are stored before messages leave.
//! All that waits for a topic goes into one call, at most two calls at a time.
//!
//! A node starts before its Redis is there and waits for it; nothing else depends on it. What a reply
//! says about durability is read from the server itself, at each connect and then every minute; where the
//! server has replicas, every push waits for their word.
//!
//! Limits: what the server says about its settings is believed; whether its disk honours an fsync cannot
//! be seen from here. A setting changed by hand is noticed within a minute. A loss is noticed by the node
//! that owned the topic before it, whatever it is; a new owner knows what its predecessor told the log,
//! each second, and so misses a loss of the last second before both ended.
//!
//! - [`service`]: requests in, answers out; the tasks of a topic.
//! - [`owner`]: one topic: what waits, and which calls do it. Plain code.
//! - [`script`]: the scripts, what goes into them and what comes out. Plain code.
//! - [`marks`]: how far topics had come, in the replicated state. Plain code.
//! - [`keys`]: the names of keys.
//! - [`store`]: connections, and calls over them.
//! - [`slots`]: which master of a Redis Cluster has a key. Plain code.
//! - [`durability`]: from a server's settings to what a write survives.
//! - [`address`]: where Redis is, and how a node shows who it is.

pub mod address;
pub mod durability;
pub mod keys;
pub mod marks;
pub mod owner;
pub mod script;
pub mod service;
pub mod slots;
pub mod store;
