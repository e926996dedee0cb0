//! The connections that openraft asks for: to each peer one for entries, one for heartbeats and one
//! for snapshots, so that none waits behind another.

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, Stream, StreamExt};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::frame::Lane;
use super::message::{Answer, Election};
use super::network::{CallError, Network, Target};
use super::stream::OutgoingStream;
use super::transfer;
use super::types::{Member, Snapshot, TypeConfig, Vote};
use crate::ids::NodeId;
use crate::time::Instant;

/// Makes [`Peer`]s.
#[derive(Clone)]
pub struct PeerFactory {
    network: Network,
    silence: Duration,
}

impl PeerFactory {
    pub(super) fn new(network: Network, silence: Duration) -> Self {
        PeerFactory { network, silence }
    }

    fn peer(&self, node: NodeId, member: &Member, heartbeats: bool) -> Peer {
        let disk = Some(member.disk);
        Peer {
            network: self.network.clone(),
            target: Target { node, disk },
            heartbeats,
            silence: self.silence,
            stalled_at: Mutex::default(),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for PeerFactory {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> Peer {
        self.peer(target, node, false)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &Member) -> Peer {
        self.peer(target, node, true)
    }
}

/// The way to one peer, as openraft uses it.
pub struct Peer {
    pub(super) network: Network,
    pub(super) target: Target,
    /// Openraft sends each heartbeat as a stream of one. Such a stream goes as a single question:
    /// an answer to an earlier heartbeat, taken for this one's, would extend the leader's lease.
    heartbeats: bool,
    /// How long a stream waits for a sign of life after one that stalled.
    pub(super) silence: Duration,
    /// When the stream before stalled, if it did.
    pub(super) stalled_at: Mutex<Option<Instant>>,
}

type StreamResult = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Bytes;

    /// Sends heartbeats and whatever else openraft does not stream. Its own limit is the whole of
    /// the option's time: a follower answers only after an fsync, so that no part of it can be spared.
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let hint = entry_bytes(&rpc);
        let timeout = option.hard_ttl();
        let asked = self
            .network
            .ask(Lane::Beat, self.target, &rpc, hint, timeout)
            .await;
        match asked {
            Ok(Answer::Beat(response)) => {
                self.network.shared.pulse.note(self.target.node);
                Ok(response)
            }
            other => Err(self.failed(other, RPCTypes::AppendEntries, timeout)),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, StreamResult>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        if self.heartbeats {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move { Ok(OutgoingStream::open(self, input)?.boxed()) })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.elect(Election::Vote(rpc), option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.elect(Election::PreVote(rpc), option).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let timeout = option.soft_ttl();
        let body = Election::TransferLeader(request);
        match self
            .network
            .ask(Lane::Vote, self.target, &body, 0, timeout)
            .await
        {
            Ok(Answer::TransferLeader(response)) => Ok(response),
            other => Err(self.failed(other, RPCTypes::TransferLeader, timeout)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = transfer::send(self, vote, snapshot) => sent,
        }
    }
}

impl Peer {
    async fn elect(
        &self,
        body: Election,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let timeout = option.soft_ttl();
        match self
            .network
            .ask(Lane::Vote, self.target, &body, 0, timeout)
            .await
        {
            Ok(Answer::Vote(response)) => Ok(response),
            other => Err(self.failed(other, RPCTypes::Vote, timeout)),
        }
    }

    /// What openraft is told about a question without the answer it needs.
    pub(super) fn failed(
        &self,
        asked: Result<Answer, CallError>,
        action: RPCTypes,
        timeout: Duration,
    ) -> RPCError<TypeConfig> {
        let error = asked.err().unwrap_or(CallError::BadAnswer);
        match error {
            CallError::Timeout => RPCError::Timeout(Timeout {
                action,
                id: self.network.identity().node,
                target: self.target.node,
                timeout,
            }),
            CallError::Overloaded => RPCError::Network(NetworkError::new(&error)),
            // Openraft backs off from what is unreachable, as fits peers that refuse or talk nonsense.
            CallError::NoResponders
            | CallError::Disconnected
            | CallError::Refused(_)
            | CallError::TooLarge
            | CallError::BadAnswer => RPCError::Unreachable(Unreachable::new(&error)),
        }
    }
}

/// About how many bytes a request encodes to.
pub(super) fn entry_bytes(request: &AppendEntriesRequest<TypeConfig>) -> usize {
    /// Log ids, stamps and markers around the commands of one entry.
    const AROUND_AN_ENTRY: usize = 64;
    request
        .entries
        .iter()
        .map(|entry| match &entry.payload {
            openraft::EntryPayload::Normal(batch) => batch.encoded.len() + AROUND_AN_ENTRY,
            _ => AROUND_AN_ENTRY,
        })
        .sum()
}
