//! Replication.

mod admission;
mod assembly;
pub mod call;
pub mod command;
mod factory;
mod frame;
mod intake;
mod listener;
pub mod memory_log;
mod message;
pub mod network;
mod pending;
pub mod receiver;
mod stream;
mod transfer;
pub mod types;

#[cfg(test)]
mod transport_tests;
