//! A lock of the user's own, asked for again and again by the same owner.
//!
//! Names hold the process's id and the time it started, so that runs side by side do not meet. Since the owner
//! is named, a lock whose release went unanswered is granted again at once, not refused until its lease ends.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mufakat::client::{Client, ClientError};
use mufakat::protocol::lock::{Acquire, Acquired, Release, Released};

use super::Seat;

/// What names the resources of one run.
#[derive(Clone, Debug)]
pub struct RunName(String);

impl RunName {
    /// A name that no other run on this machine has.
    pub fn new() -> Self {
        let started = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        Self(format!("loadgen.{started:x}.{:x}", std::process::id()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The NATS subject or resource of the run with this last token.
    pub fn with(&self, last: impl std::fmt::Display) -> String {
        format!("{}.{last}", self.0)
    }
}

impl From<String> for RunName {
    /// The name of a run that another process has begun.
    fn from(name: String) -> Self {
        Self(name)
    }
}

/// One user's lock.
pub struct OwnLock {
    client: Client,
    acquire: Acquire,
    timeout_ms: u64,
}

impl OwnLock {
    /// The lock of the user in `seat`; each request may take `timeout`.
    pub fn new(run: &RunName, seat: Seat, timeout: Duration) -> Self {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let mut acquire = Acquire::new(run.with(seat.number));
        acquire.owner = Some(acquire.resource.clone());
        acquire.timeout_ms = Some(timeout_ms);
        Self {
            client: seat.client,
            acquire,
            timeout_ms,
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub async fn acquire(&self) -> Result<Acquired, ClientError> {
        self.client.acquire(&self.acquire).await
    }

    pub async fn release(&self, acquired: Acquired) -> Result<Released, ClientError> {
        let mut release = Release::new(acquired.resource, acquired.token);
        release.timeout_ms = Some(self.timeout_ms);
        self.client.release(&release).await
    }
}
