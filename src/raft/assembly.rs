//! The receiving side of snapshots: one transfer per sender, chunks in any order, installed when the
//! hash of the whole holds.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use openraft::raft::SnapshotResponse;
use openraft::storage::RaftStateMachine;
use xxhash_rust::xxh3::xxh3_64;

use super::admission::{Senders, Standing};
use super::frame::{Header, Lane};
use super::message::{Beginning, Refusal, Transfer, TransferAnswer};
use super::network::{Counters, Network};
use super::receiver::Raft;
use super::transfer::{CHUNK_BYTES, SNAPSHOT_BYTES_MAX};
use super::types::{Snapshot, TypeConfig};
use crate::broker::{Message, Subscription};
use crate::ids::NodeId;
use crate::time::{Instant, now};

/// Transfers in memory at once: the leader's, and one of the leader before. A further one replaces
/// the one that was idle longest, whose sender is told that it is lost.
const TRANSFERS_MAX: usize = 2;

/// Snapshots being installed at once; openraft does one after the other anyway. A further one is
/// lost, and its sender begins again.
const INSTALLS_MAX: usize = 2;

/// A transfer of which nothing came for so long is forgotten: its sender gave it up long before.
const IDLE_MAX: Duration = Duration::from_secs(30);

struct Incoming {
    number: u64,
    beginning: Beginning,
    stage: Stage,
    touched: Instant,
}

enum Stage {
    Receiving(Assembly),
    Installing,
    Installed(SnapshotResponse<TypeConfig>),
}

/// The bytes so far. The operating system hands out the pages as they are written.
struct Assembly {
    bytes: Vec<u8>,
    taken: Vec<bool>,
    missing: usize,
}

/// What came of an installation, with the question that asked for it.
type Outcome = (Header, String, Option<SnapshotResponse<TypeConfig>>);

pub(super) struct Transfers<'r, SM: RaftStateMachine<TypeConfig, SnapshotData = Bytes>> {
    network: &'r Network,
    raft: &'r Raft<SM>,
    senders: Senders,
    incoming: BTreeMap<NodeId, Incoming>,
    installing: FuturesUnordered<BoxFuture<'static, Outcome>>,
}

impl<'r, SM: RaftStateMachine<TypeConfig, SnapshotData = Bytes>> Transfers<'r, SM> {
    pub fn new(network: &'r Network, raft: &'r Raft<SM>) -> Self {
        Transfers {
            network,
            raft,
            senders: Senders::default(),
            incoming: BTreeMap::new(),
            installing: FuturesUnordered::new(),
        }
    }

    pub async fn run(mut self, mut snapshots: Subscription) {
        loop {
            tokio::select! {
                biased;
                Some(outcome) = self.installing.next() => self.installed(outcome),
                message = snapshots.next() => {
                    let Some(message) = message else { return };
                    self.take(&message);
                }
                () = tokio::time::sleep(IDLE_MAX), if !self.incoming.is_empty() => {
                    self.incoming.retain(|_, transfer| now() < transfer.touched + IDLE_MAX);
                }
            }
        }
    }

    fn take(&mut self, message: &Message) {
        let Some(frame) = self.network.open_from_member(message, Lane::Snapshot) else {
            return;
        };
        let Some(subject) = &message.reply else {
            return;
        };
        let header = frame.header;
        let opens = header.sequence == 0;
        let standing = self.senders.place(&header, header.stream, opens, now());
        let counters = self.network.counters();
        if standing == Standing::Outdated {
            return Counters::add(&counters.outdated);
        }
        let answer = match frame.body_ref::<Transfer<'_>>() {
            Err(error) => return self.network.refuse_damaged(&error),
            Ok(_) if standing == Standing::Unopened => Some(TransferAnswer::Lost),
            Ok(Transfer::Begin(beginning)) if standing == Standing::Newer => {
                Some(self.begin(&header, beginning))
            }
            Ok(Transfer::Begin(_)) => Some(TransferAnswer::Taken),
            Ok(Transfer::Chunk(data)) => self.chunk(&header, data),
            Ok(Transfer::End) => self.end(&header, subject),
        };
        if let Some(answer) = answer {
            self.network
                .answer(&header, subject, &Ok::<_, Refusal>(answer));
        }
    }

    fn begin(&mut self, header: &Header, beginning: Beginning) -> TransferAnswer {
        if beginning.size > SNAPSHOT_BYTES_MAX {
            return TransferAnswer::TooLarge;
        }
        self.incoming.remove(&header.from);
        if self.incoming.len() >= TRANSFERS_MAX {
            let idle = self
                .incoming
                .iter()
                .min_by_key(|(_, transfer)| transfer.touched);
            if let Some(node) = idle.map(|(node, _)| *node) {
                self.incoming.remove(&node);
            }
        }
        let size = beginning.size as usize;
        let chunks = size.div_ceil(CHUNK_BYTES);
        let assembly = Assembly {
            bytes: vec![0; size],
            taken: vec![false; chunks],
            missing: chunks,
        };
        let transfer = Incoming {
            number: header.stream,
            beginning,
            stage: Stage::Receiving(assembly),
            touched: now(),
        };
        self.incoming.insert(header.from, transfer);
        TransferAnswer::Taken
    }

    fn chunk(&mut self, header: &Header, data: &[u8]) -> Option<TransferAnswer> {
        let Some(transfer) = self.current(header) else {
            return Some(TransferAnswer::Lost);
        };
        transfer.touched = now();
        match &mut transfer.stage {
            Stage::Receiving(assembly) => match assembly.take(header.sequence, data) {
                Some(()) => Some(TransferAnswer::Taken),
                None => {
                    Counters::add(&self.network.counters().undecodable);
                    None
                }
            },
            Stage::Installing | Stage::Installed(_) => Some(TransferAnswer::Taken),
        }
    }

    fn end(&mut self, header: &Header, subject: &str) -> Option<TransferAnswer> {
        let installing = self.installing.len();
        let Some(transfer) = self.current(header) else {
            return Some(TransferAnswer::Lost);
        };
        transfer.touched = now();
        match &mut transfer.stage {
            Stage::Installing => return Some(TransferAnswer::Installing),
            Stage::Installed(response) => return Some(TransferAnswer::Installed(response.clone())),
            Stage::Receiving(assembly) if assembly.missing > 0 => return None,
            Stage::Receiving(_) => {}
        }
        let Stage::Receiving(assembly) = std::mem::replace(&mut transfer.stage, Stage::Installing)
        else {
            unreachable!("the other stages returned above");
        };
        if xxh3_64(&assembly.bytes) != transfer.beginning.hash || installing >= INSTALLS_MAX {
            self.incoming.remove(&header.from);
            return Some(TransferAnswer::Lost);
        }
        let vote = transfer.beginning.vote;
        let snapshot = Snapshot {
            meta: transfer.beginning.meta.clone(),
            snapshot: assembly.bytes.into(),
        };
        let (raft, header, subject) = (self.raft.clone(), *header, subject.to_owned());
        self.installing.push(Box::pin(async move {
            let installed = raft.install_full_snapshot(vote, snapshot).await;
            (header, subject, installed.ok())
        }));
        Some(TransferAnswer::Installing)
    }

    /// The outcome goes to the sender at once and stays for its next question, should it be lost; a
    /// transfer that failed is forgotten.
    fn installed(&mut self, (header, subject, response): Outcome) {
        let answer = match response {
            Some(response) => TransferAnswer::Installed(response),
            None => TransferAnswer::Lost,
        };
        self.network
            .answer(&header, &subject, &Ok::<_, Refusal>(&answer));
        match (self.current(&header), answer) {
            (Some(transfer), TransferAnswer::Installed(response)) => {
                transfer.stage = Stage::Installed(response);
            }
            (Some(_), _) => {
                self.incoming.remove(&header.from);
            }
            (None, _) => {}
        }
    }

    fn current(&mut self, header: &Header) -> Option<&mut Incoming> {
        let transfer = self.incoming.get_mut(&header.from)?;
        (transfer.number == header.stream).then_some(transfer)
    }
}

impl Assembly {
    /// None when the chunk has no place or another length than its place has.
    fn take(&mut self, sequence: u64, data: &[u8]) -> Option<()> {
        let index = usize::try_from(sequence.checked_sub(1)?).ok()?;
        let taken = self.taken.get_mut(index)?;
        let from = index * CHUNK_BYTES;
        let to = self.bytes.len().min(from + CHUNK_BYTES);
        let place = &mut self.bytes[from..to];
        if place.len() != data.len() {
            return None;
        }
        if !*taken {
            place.copy_from_slice(data);
            *taken = true;
            self.missing -= 1;
        }
        Some(())
    }
}
