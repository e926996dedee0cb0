//! Ctrl-C outside of the recorded time.
//!
//! Once a run has listened for Ctrl-C, it no longer ends the program by itself: what may take long before or after a
//! run has to listen as well.

use anyhow::{Result, bail};

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
