//! Mufakat.

pub mod broker;
pub mod cli;
pub mod client;
pub mod ids;
pub mod lock;
pub mod protocol;
pub mod raft;
pub mod time;
pub mod view;
