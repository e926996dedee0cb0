//! What queues rest on: one Redis, and what it says about keeping data.
//!
//! A node starts before its Redis is there and waits for it; nothing else depends on it. What a
//! reply may promise about durability is read from the server itself, at each connect and then
//! every minute, never taken from our own configuration.
//!
//! Limits: what the server says about its settings is believed; whether its disk honours an fsync
//! cannot be seen from here. A setting changed by hand is noticed within a minute.
//!
//! - [`address`]: where it is, and how a node shows who it is.
//! - [`durability`]: from a server's settings to what a write survives.
//! - [`store`]: the connection.

pub mod address;
pub mod durability;
pub mod store;
