//! Mufakat.

pub mod broker;
pub mod config;
pub mod dev;
pub mod ids;
pub mod lock;
pub mod protocol;
pub mod raft;
pub mod time;
pub mod view;
