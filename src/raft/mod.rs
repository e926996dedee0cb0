//! Replication.

mod admission;
mod assembly;
pub mod bootstrap;
pub mod call;
pub mod clock;
pub mod command;
mod factory;
mod frame;
pub mod handle;
mod intake;
pub mod log;
mod message;
pub mod network;
mod pending;
pub mod proposals;
pub mod receiver;
pub mod state;
pub mod state_machine;
mod stream;
mod transfer;
pub mod snapshot;
pub mod directory;
pub mod types;
