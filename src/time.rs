//! The only reader of real time.
//!
//! Monotonic time is tokio's, so that a test which pauses the runtime's clock has virtual time
//! everywhere. Replicated state never reads either clock: time reaches it inside log entries.

use std::time::{SystemTime, UNIX_EPOCH};

pub use tokio::time::Instant;

/// Monotonic time now; virtual while the runtime's clock is paused.
pub fn now() -> Instant {
    Instant::now()
}

/// Unix time in milliseconds, for people and logs only; nothing is decided by it.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since_epoch| since_epoch.as_millis() as u64)
}
