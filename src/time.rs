//! The only reader of real time.
//!
//! Monotonic time is tokio's, so that a test which pauses the runtime's clock has virtual time
//! everywhere. Replicated state never reads either clock: time reaches it inside log entries.
//!
//! That clock stands still while the machine is suspended. Where such a pause must count, since others
//! went on meanwhile, [`boot_now`] has the clock that goes on.

use std::ops::Add;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

pub use tokio::time::Instant;

/// Monotonic time now; virtual while the runtime's clock is paused.
pub fn now() -> Instant {
    Instant::now()
}

/// A moment by the clock that counts suspend, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootInstant(Instant);

/// Now by the clock that counts suspend, too; virtual while the runtime's clock is paused.
pub fn boot_now() -> BootInstant {
    BootInstant(now() + suspended())
}

impl BootInstant {
    /// How long until `later`; zero if it is over.
    pub fn until(self, later: BootInstant) -> Duration {
        later.0.saturating_duration_since(self.0)
    }
}

impl Add<Duration> for BootInstant {
    type Output = BootInstant;

    fn add(self, length: Duration) -> BootInstant {
        BootInstant(self.0 + length)
    }
}

/// How long this machine has been suspended since it booted.
fn suspended() -> Duration {
    let clock = |id| {
        let time = clock_gettime(id);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    // In this order the time between the two reads counts as suspended, never as negative.
    let awake = clock(ClockId::Monotonic);
    let suspended = clock(ClockId::Boottime).saturating_sub(awake);
    #[cfg(test)]
    let suspended = suspended + pretend::SUSPENDED.get();
    suspended
}

/// Unix time in milliseconds, for people and logs only; nothing is decided by it.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since_epoch| since_epoch.as_millis() as u64)
}

/// The clock of leases in whole milliseconds, since some moment before: it counts suspend, so that
/// who slept through the end of a lease finds it over.
#[derive(Clone, Copy, Debug)]
pub struct LeaseClock {
    began: BootInstant,
}

impl LeaseClock {
    /// A clock that begins at 1, so that no moment of it is before all others.
    pub fn start() -> Self {
        LeaseClock { began: boot_now() }
    }

    pub fn now_ms(&self) -> u64 {
        1 + self.began.until(boot_now()).as_millis() as u64
    }
}

/// What tests add to the time that this machine was suspended.
#[cfg(test)]
pub mod pretend {
    use std::cell::Cell;
    use std::time::Duration;

    thread_local! {
        pub static SUSPENDED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }
}
