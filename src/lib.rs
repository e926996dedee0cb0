//! Mufakat.

pub mod broker;
pub mod cli;
pub mod client;
pub mod config;
pub mod dev;
pub mod ids;
pub mod lock;
pub mod monitor;
pub mod node;
pub mod protocol;
pub mod queue;
pub mod raft;
pub mod stats;
pub mod time;
pub mod view;
