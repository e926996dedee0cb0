//! Copies of the replicated state for operators, and what is in one.
//!
//! A copy is a file in the format of snapshots ([`snapshot`]), with the same checks. It
//! is made by a node that runs and not from a data directory: what is committed is known to a majority,
//! and one directory alone may be behind. Before it is made a command goes through the log, so that the
//! copy has all that was answered before it was asked for, whichever node makes it.
//!
//! Limits: a node keeps one copy, the newest, in memory until nobody has asked for a part of it for a
//! minute.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::command::Command;
use super::handle::Handle;
use super::proposals::Refusal;
use super::snapshot;
use super::state::State;
use super::types::SnapshotMeta;
use crate::ids::{ClusterId, Token};
use crate::time::{self, Instant};

/// How long a copy is kept after the last part of it was asked for.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Makes copies and keeps the newest; clones share it.
#[derive(Clone)]
pub struct Backups {
    handle: Handle,
    kept: Arc<Mutex<Option<Kept>>>,
    /// Held while a copy is encoded: one at a time, since each is as large as the state.
    encoding: Arc<tokio::sync::Mutex<()>>,
}

struct Kept {
    name: String,
    bytes: Bytes,
    touched: Instant,
}

/// What a copy holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The cluster that it was made of; absent for one that was not founded yet.
    pub cluster: Option<ClusterId>,
    /// The newest entry of the log that it certainly has.
    pub index: u64,
    pub term: u64,
    pub last_token: Token,
    pub held: u64,
    pub waiting: u64,
    pub sessions: u64,
    /// Topics of which the log knew how far they had come.
    pub topics: u64,
}

impl Backups {
    pub fn new(handle: Handle) -> Self {
        Backups {
            handle,
            kept: Arc::default(),
            encoding: Arc::default(),
        }
    }

    /// Makes a copy of the state as of now, and returns it with its name.
    ///
    /// # Errors
    /// When the log did not answer until `deadline`.
    pub async fn make(&self, deadline: Instant) -> Result<(String, Bytes), Refusal> {
        // One that changes nothing: once it is applied here, so is all that was committed before.
        let command = Command::Marks(Vec::new());
        let timeout = deadline.saturating_duration_since(time::now());
        self.handle.call(command, timeout).await?;
        let _turn = self.encoding.lock().await;
        let (last_log_id, last_membership) = self.handle.position();
        let meta = SnapshotMeta {
            last_log_id,
            last_membership,
        };
        let state = self.handle.read(|state, _| state.clone());
        let encode = move || Bytes::from(snapshot::encode(&meta, &state));
        let encoded = tokio::task::spawn_blocking(encode).await;
        let bytes = encoded.expect("a state always encodes");
        let name = format!("{:016x}", rand::random::<u64>());
        tracing::info!(backup = %name, bytes = bytes.len(), "made a backup of the state");
        let kept = Kept {
            name: name.clone(),
            bytes: bytes.clone(),
            touched: time::now(),
        };
        if self.lock().replace(kept).is_none() {
            tokio::spawn(self.clone().forget());
        }
        Ok((name, bytes))
    }

    /// The copy of that name, if it is still here.
    pub fn find(&self, name: &str) -> Option<Bytes> {
        let mut kept = self.lock();
        let kept = kept.as_mut().filter(|kept| kept.name == name)?;
        kept.touched = time::now();
        Some(kept.bytes.clone())
    }

    async fn forget(self) {
        loop {
            let until = {
                let mut kept = self.lock();
                match &*kept {
                    Some(newest) if newest.touched + KEPT_FOR > time::now() => {
                        newest.touched + KEPT_FOR
                    }
                    _ => {
                        *kept = None;
                        return;
                    }
                }
            };
            tokio::time::sleep_until(until).await;
        }
    }

    /// A panic while it is locked leaves it whole.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks a copy and says what it holds.
///
/// # Errors
/// When it is not, bit for bit, what a node made, or of a version that this one does not read.
pub fn examine(bytes: &[u8]) -> Result<Contents, String> {
    let (meta, state) = open(bytes)?;
    let counts = state.locks.counts();
    let (index, term) = position(&meta);
    Ok(Contents {
        cluster: state.cluster,
        index,
        term,
        last_token: state.locks.last_token(),
        held: counts.held,
        waiting: counts.waiting,
        sessions: counts.sessions,
        topics: state.marks.len() as u64,
    })
}

/// Index and term of the newest entry in a copy.
pub(super) fn position(meta: &SnapshotMeta) -> (u64, u64) {
    let last = meta.last_log_id.as_ref();
    last.map_or((0, 0), |id| (id.index, id.leader_id.term))
}

/// The state in a copy, and where in the log it stood.
pub(super) fn open(bytes: &[u8]) -> Result<(SnapshotMeta, State), String> {
    let (meta, data) = snapshot::decode(bytes)?;
    let state =
        State::decode(&data).map_err(|error| format!("the state does not decode: {error}"))?;
    Ok((meta, state))
}
