//! What the log carries: batches of commands, stamped with the leader's time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{BootId, NodeId};
use crate::protocol::subject::Operation;
use crate::{lock, queue, view};

/// One change of the replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    Lock(lock::command::Command),
    View(view::cluster::Command),
    /// How far topics have come. An empty one only asks for its place in the log.
    Marks(Vec<queue::marks::Report>),
    /// The first command of each term: no lease ends within `grace_ms` of it, since holders could
    /// not renew while there was no leader.
    TermStarted {
        grace_ms: u64,
        /// See [`Grace`](lock::command::Grace). Entries of earlier versions do not say so, and do as they did.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        keeps_over: bool,
    },
}

impl Command {
    /// The operation that a client asked for, if one did.
    pub fn operation(&self) -> Option<Operation> {
        use lock::command::Command as Lock;
        match self {
            Command::Lock(command) => match command {
                Lock::Acquire(_) => Some(Operation::LockAcquire),
                Lock::Release { .. } => Some(Operation::LockRelease),
                Lock::Renew { .. } => Some(Operation::LockRenew),
                Lock::Convert(_) => Some(Operation::LockConvert),
                Lock::Cancel { .. } => Some(Operation::LockCancel),
                Lock::GiveBack { .. } | Lock::KeepAlive { .. } => None,
                Lock::OpenSession(_) => Some(Operation::SessionOpen),
                Lock::CloseSession { reason: None, .. } => Some(Operation::SessionClose),
                Lock::CloseSession { .. } => Some(Operation::AdminSessionClose),
                Lock::ForceRelease { .. } => Some(Operation::AdminLockRelease),
            },
            Command::View(_) | Command::Marks(_) | Command::TermStarted { .. } => None,
        }
    }

    /// What a refusal is to say of it.
    pub fn asked(&self) -> lock::command::Asked {
        match self {
            Command::Lock(command) => command.asked(),
            _ => lock::command::Asked::default(),
        }
    }

    /// The id that its client gave the request, if it did.
    pub fn request_id(&self) -> Option<&str> {
        use lock::command::Command as Lock;
        match self {
            Command::Lock(Lock::Acquire(acquire)) => acquire.request_id.as_deref(),
            Command::Lock(Lock::Cancel { request_id, .. }) => request_id.as_deref(),
            _ => None,
        }
    }

    /// Lets what it begins in the state end while its client, who has so much time `left`, waits for it.
    pub fn cut_wait(&mut self, left: Duration) {
        if let Command::Lock(command) = self {
            command.cut_wait(left);
        }
    }

    /// About how many bytes the command takes in the log.
    pub fn size_hint(&self) -> usize {
        /// Integers, flags and lengths.
        const FIXED: usize = 48;
        let names = match self {
            Command::Lock(command) => command.size_hint(),
            Command::Marks(reports) => {
                let sizes = reports.iter().map(|report| 32 + report.topic.len());
                sizes.sum()
            }
            Command::View(_) | Command::TermStarted { .. } => 0,
        };
        FIXED + names
    }
}

/// A command with the forward that brought it, if it came through another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposed {
    pub origin: Option<Origin>,
    pub command: Command,
}

/// Which forward a command came by. The forwarding node sees it again in the log, and so knows
/// that the command took effect without being told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    pub node: NodeId,
    pub boot: BootId,
    pub sequence: u64,
}

/// The payload of one log entry: commands that were waiting while the entry before was on its way.
#[derive(Clone, Serialize, Deserialize)]
pub struct Batch {
    /// The leader's lease time (milliseconds, monotonic over the life of the cluster).
    pub now_ms: u64,
    pub proposer: NodeId,
    pub boot: BootId,
    /// Counts the batches of one boot of the proposer.
    pub number: u64,
    /// How many commands `encoded` holds.
    pub count: u32,
    /// MessagePack of `Vec<Proposed>`: encoded once, by the proposer.
    pub encoded: Bytes,
    /// The same commands where they need not be decoded again: at the proposer.
    #[serde(skip)]
    decoded: Option<Arc<Vec<Proposed>>>,
}

/// What the stamp on a batch says about its making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub now_ms: u64,
    pub proposer: NodeId,
    pub boot: BootId,
    pub number: u64,
}

impl Batch {
    pub fn new(stamp: Stamp, commands: Vec<Proposed>) -> Self {
        let sizes = commands.iter().map(|proposed| proposed.command.size_hint());
        let mut encoded = Vec::with_capacity(sizes.sum());
        rmp_serde::encode::write(&mut encoded, &commands).expect("commands always encode");
        Batch {
            now_ms: stamp.now_ms,
            proposer: stamp.proposer,
            boot: stamp.boot,
            number: stamp.number,
            count: commands.len() as u32,
            encoded: encoded.into(),
            decoded: Some(Arc::new(commands)),
        }
    }

    /// The commands, decoded unless this is the proposer's own copy.
    ///
    /// # Errors
    /// When the bytes are not such commands: a version mismatch or damage that checksums missed.
    pub fn commands(&self) -> Result<Arc<Vec<Proposed>>, rmp_serde::decode::Error> {
        match &self.decoded {
            Some(commands) => Ok(commands.clone()),
            None => rmp_serde::from_slice(&self.encoded).map(Arc::new),
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Batch {
            now_ms,
            proposer,
            number,
            count,
            ..
        } = self;
        write!(f, "batch {proposer}/{number} of {count} at {now_ms} ms")
    }
}
