//! The sending side of a snapshot: chunks, [`WINDOW`] of them on their way at once, each
//! acknowledged and sent again until it is, then the whole's hash decides.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{NetworkError, StreamingError};
use openraft::network::RPCTypes;
use openraft::raft::SnapshotResponse;
use tokio::sync::mpsc;
use xxhash_rust::xxh3::xxh3_64;

use super::factory::Peer;
use super::frame::{Header, Lane};
use super::message::{Beginning, Refusal, Transfer, TransferAnswer};
use super::network::CallError;
use super::pending::{PendingGuard, Replied};
use super::types::{Snapshot, TypeConfig, Vote};
use crate::time::{Instant, now};

/// Bytes of one chunk: well under a frame, few enough to keep heartbeats moving between them.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// The largest snapshot that is sent or taken; a larger one is refused, and the follower stays
/// behind until an operator acts. The limits of the lock table keep what it has below half of it.
pub(super) const SNAPSHOT_BYTES_MAX: u64 = 512 * 1024 * 1024;
const _: () = assert!(2 * crate::lock::limits::BYTES <= SNAPSHOT_BYTES_MAX);

/// Chunks on their way at once: 2 MB, which the receiver's subscription has room for.
const WINDOW: usize = 8;

/// After this long without an acknowledgement a message is sent again.
const SEND_AGAIN: Duration = Duration::from_millis(300);

/// Silence that ends a transfer with a timeout; openraft begins another.
const STALL: Duration = Duration::from_secs(5);

type Installed = Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>>;

/// Sends `snapshot` and waits until the peer installed it or said that it has a higher vote.
///
/// Dropping the future cancels the transfer; the receiver forgets it at the next one.
pub(super) async fn send(peer: &Peer, vote: Vote, snapshot: Snapshot) -> Installed {
    let Snapshot {
        meta,
        snapshot: data,
    } = snapshot;
    if data.len() as u64 > SNAPSHOT_BYTES_MAX {
        tracing::error!(
            bytes = data.len(),
            "the snapshot is larger than a peer takes"
        );
        return Err(StreamingError::Network(NetworkError::from_string(
            "snapshot too large",
        )));
    }
    let number = peer.network.next_number();
    let (registered, answers) = peer
        .network
        .expect_answers(number, Some(peer.target), 4 * WINDOW)
        .map_err(|error| failed(peer, error))?;
    Sending {
        peer,
        number,
        _registered: registered,
        answers,
        beginning: Beginning {
            vote,
            meta,
            size: data.len() as u64,
            hash: xxh3_64(&data),
        },
        chunks: data.len().div_ceil(CHUNK_BYTES) as u64,
        data,
        next_sequence: 0,
        in_flight: BTreeMap::new(),
        progress: now(),
    }
    .run()
    .await
}

struct Sending<'p> {
    peer: &'p Peer,
    number: u64,
    _registered: PendingGuard,
    answers: mpsc::Receiver<Replied>,
    beginning: Beginning,
    data: Bytes,
    chunks: u64,
    next_sequence: u64,
    /// What waits for an acknowledgement, with the time it was last sent.
    in_flight: BTreeMap<u64, Instant>,
    progress: Instant,
}

impl Sending<'_> {
    async fn run(mut self) -> Installed {
        loop {
            self.send_what_is_due()
                .map_err(|error| failed(self.peer, error))?;
            let oldest = self.in_flight.values().min().copied();
            let again = oldest.unwrap_or_else(now) + SEND_AGAIN;
            tokio::select! {
                biased;
                replied = self.answers.recv() => {
                    if let Some(outcome) = self.answered(replied) {
                        return outcome;
                    }
                }
                () = tokio::time::sleep_until(again.min(self.progress + STALL)) => {}
            }
            if now() >= self.progress + STALL {
                return Err(failed(self.peer, CallError::Timeout));
            }
        }
    }

    /// Begin goes alone, chunks as the window has room, the end when all chunks were taken.
    fn send_what_is_due(&mut self) -> Result<(), CallError> {
        let late: Vec<u64> = self
            .in_flight
            .iter()
            .filter(|(_, sent)| now() >= **sent + SEND_AGAIN)
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in late {
            self.send(sequence)?;
        }
        while self.may_send_next() {
            self.send(self.next_sequence)?;
            self.next_sequence += 1;
        }
        Ok(())
    }

    fn may_send_next(&self) -> bool {
        let begun = !self.in_flight.contains_key(&0);
        match self.next_sequence {
            0 => true,
            sequence if sequence <= self.chunks => begun && self.in_flight.len() < WINDOW,
            sequence => sequence == self.chunks + 1 && self.in_flight.is_empty(),
        }
    }

    fn send(&mut self, sequence: u64) -> Result<(), CallError> {
        let body = match sequence {
            0 => Transfer::Begin(self.beginning.clone()),
            sequence if sequence <= self.chunks => {
                let from = (sequence as usize - 1) * CHUNK_BYTES;
                let to = self.data.len().min(from + CHUNK_BYTES);
                Transfer::Chunk(&self.data[from..to])
            }
            _ => Transfer::End,
        };
        let network = &self.peer.network;
        let target = self.peer.target;
        let header =
            Header::new(Lane::Snapshot, &network.identity(), target.disk).at(self.number, sequence);
        network.send(target.node, &header, &body, CHUNK_BYTES, self.number)?;
        self.in_flight.insert(sequence, now());
        Ok(())
    }

    /// The outcome, if the answer decides it.
    fn answered(&mut self, replied: Option<Replied>) -> Option<Installed> {
        let frame = match replied {
            Some(Replied::Frame(frame)) => frame,
            Some(Replied::NoResponders) | None => {
                return Some(Err(failed(self.peer, CallError::NoResponders)));
            }
        };
        let answer = match frame.body::<Result<TransferAnswer, Refusal>>() {
            Ok(Ok(answer)) => answer,
            Ok(Err(refusal)) => return Some(Err(failed(self.peer, CallError::Refused(refusal)))),
            Err(_) => return Some(Err(failed(self.peer, CallError::BadAnswer))),
        };
        match answer {
            TransferAnswer::Taken => {
                if self.in_flight.remove(&frame.header.sequence).is_some() {
                    self.progress = now();
                }
                None
            }
            TransferAnswer::Installing => {
                self.progress = now();
                None
            }
            TransferAnswer::Installed(response) => Some(Ok(response)),
            TransferAnswer::Lost | TransferAnswer::TooLarge => {
                let reason = format!("the peer does not take the snapshot: {answer:?}");
                Some(Err(StreamingError::Network(NetworkError::from_string(
                    reason,
                ))))
            }
        }
    }
}

fn failed(peer: &Peer, error: CallError) -> StreamingError<TypeConfig> {
    peer.failed(Err(error), RPCTypes::InstallSnapshot, STALL)
        .into()
}
