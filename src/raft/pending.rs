//! Open questions and the channels that their answers come through.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::mpsc;

use super::frame::Frame;
use super::network::{Counters, Network, Target};

/// Questions and streams open at once; more are refused, and their callers hear so. Forwarded reads
/// are the only ones in number, and those are bounded where they are made.
const PENDING_MAX: usize = 8192;

/// What came back.
#[derive(Debug)]
pub(super) enum Replied {
    Frame(Frame),
    /// The broker knows of no subscriber.
    NoResponders,
}

/// Looked up by id only, never iterated.
#[derive(Default)]
pub(super) struct Pending {
    waiting: Mutex<HashMap<u64, Waiting>>,
}

struct Waiting {
    /// Who was asked; none where everybody was.
    from: Option<Target>,
    sender: mpsc::Sender<Replied>,
}

impl Pending {
    /// Whether somebody waits for this answer: the id is open and the sender is the one that was asked.
    /// A refusal by another data directory counts, since it says why there will be no other answer.
    pub fn deliver(&self, id: u64, replied: Replied, counters: &Counters) -> bool {
        let waiting = self.waiting.lock().expect("no holder panics");
        let Some(Waiting { from, sender }) = waiting.get(&id) else {
            return false;
        };
        if let (Replied::Frame(frame), Some(from)) = (&replied, from) {
            let header = &frame.header;
            let asked = from.disk.is_none_or(|disk| disk == header.from_disk);
            if header.from != from.node || !(asked || frame.is_refusal()) {
                return false;
            }
        }
        if sender.try_send(replied).is_err() {
            Counters::add(&counters.overflows);
        }
        true
    }
}

/// Closes the question when dropped: an answer that comes later is not taken for another's.
pub(super) struct PendingGuard {
    network: Network,
    id: u64,
}

impl PendingGuard {
    /// None when [`PENDING_MAX`] questions are open.
    pub fn register(
        network: Network,
        id: u64,
        from: Option<Target>,
        capacity: usize,
    ) -> Option<(Self, mpsc::Receiver<Replied>)> {
        let (sender, receiver) = mpsc::channel(capacity);
        let pending = &network.shared.pending;
        let mut waiting = pending.waiting.lock().expect("no holder panics");
        if waiting.len() >= PENDING_MAX {
            return None;
        }
        waiting.insert(id, Waiting { from, sender });
        drop(waiting);
        Some((PendingGuard { network, id }, receiver))
    }
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        let pending = &self.network.shared.pending;
        pending
            .waiting
            .lock()
            .expect("no holder panics")
            .remove(&self.id);
    }
}
