//! Ctrl-C.
//!
//! Once somebody has listened for it, it no longer ends the program by itself: what may take long before or after a
//! run has to listen as well.

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Each Ctrl-C from now on, also one that comes while nobody waits for it: a loop that listens anew in each turn misses
/// what comes during the rest of a turn.
///
/// # Errors
/// The system allows no signal handler.
pub fn interrupts() -> Result<Signal> {
    signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")
}

/// What the work comes to.
///
/// # Errors
/// Ctrl-C came first, or the work's own.
pub async fn unless_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}
