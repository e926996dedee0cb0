//! The cluster view: which nodes take part now, and what each of them is home to.
//!
//! The view is replicated state, and only the log changes it. So all nodes that have applied the same
//! entries compute the same homes, without asking anybody.
//!
//! **Promises.**
//!
//! - The epoch grows by one with each activation, and with nothing else.
//! - An incarnation is assigned once in the life of a cluster.
//! - A change of the members moves only keys of the nodes that came or went.
//! - No two nodes act as home to one key at a time.
//!
//! A change has two phases, since a node that has not heard of the change still acts on the view that
//! it knows, for as long as its lease lasts:
//!
//! ```text
//!            Join, Leave: prepared             all members Frozen, or their leases are over
//!   Active ----------------------> Preparing ----------------------------------------> Active
//!   (epoch e)                      |      ^                                        (epoch e + 1)
//!                                  +------+
//!                        another change: prepared anew
//! ```
//!
//! A lease is the moment at which a linearizable read of the view was sent, plus the lease's length.
//! Nobody grants it. A node that reads a prepared view first stops acting on every key that moves, and
//! then says so (`Frozen`). So a lease from a read before the preparation ends by itself, and a lease
//! from a later read covers only keys that do not move.
//!
//! **Limits.** There are at most 64 members, all of equal weight. Clocks must count suspension, and run
//! at the same rate within [`tenure::DRIFT_PERCENT`].
//!
//! - [`cluster`]: the view and its changes, as they are replicated.
//! - [`rendezvous`]: from a key to its home.
//! - [`tenure`]: what one node may do, and until when.
//! - [`awake`]: since when this node could hear others.
//! - [`service`]: reads the view before the lease ends, and changes the view.

pub mod awake;
pub mod cluster;
pub mod rendezvous;
pub mod service;
pub mod tenure;
