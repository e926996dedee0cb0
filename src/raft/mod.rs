//! Replication.

mod admission;
mod assembly;
pub mod bootstrap;
pub mod call;
pub mod clock;
pub mod command;
pub mod directory;
mod factory;
mod frame;
pub mod handle;
mod intake;
mod listener;
pub mod log;
pub mod memory_log;
pub mod message;
pub mod network;
mod pending;
pub mod proposals;
pub mod receiver;
pub mod runtime;
pub mod settings;
pub mod snapshot;
pub mod state;
pub mod state_machine;
mod stream;
mod transfer;
pub mod types;

#[cfg(test)]
mod transport_tests;
