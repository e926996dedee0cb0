//! The receiving side: what peers send to this node's Raft.
//!
//! Each lane has its subscription and its loop, so that entries and snapshots never hold up a vote.
//! Only frames for this data directory, from the data directory that the membership names for their
//! sender, reach openraft; everything else is counted and dropped, or refused where somebody waits
//! for an answer. Nothing that arrives makes it panic.

use std::future::Future;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use openraft::storage::RaftStateMachine;
use tokio::sync::watch;

use super::admission::{Senders, Standing};
use super::assembly::Transfers;
pub use super::failure_detector::Beats;
use super::failure_detector::FailureDetector;
use super::frame::Lane;
use super::intake::Intake;
use super::message::{Answer, Append, Election, Refusal};
use super::network::{Counters, Network};
use super::types::{TypeConfig, Vote};
use crate::broker::{Message, SubscribeError, Subscription};
use crate::time::now;

/// Questions of one lane that are being answered at once; further ones are dropped, and their
/// askers ask again. There are never more than a few per peer.
const QUESTIONS_AT_ONCE_MAX: usize = 256;

/// This node's Raft, as the lanes use it.
pub type Raft<SM> = openraft::Raft<TypeConfig, SM>;

/// The subscriptions of all lanes. Peers find a responder as soon as it exists, so that it is run
/// right after it was made.
pub struct Receiver<SM: RaftStateMachine<TypeConfig, SnapshotData = Bytes>> {
    network: Network,
    raft: Raft<SM>,
    detector: FailureDetector<SM>,
    votes: Subscription,
    beats: Subscription,
    appends: Subscription,
    snapshots: Subscription,
}

impl<SM: RaftStateMachine<TypeConfig, SnapshotData = Bytes>> Receiver<SM> {
    /// Subscribes to what leaders, which are heard so, and candidates say.
    ///
    /// # Errors
    /// When the broker refuses a subscription.
    pub async fn listen(
        network: Network,
        raft: Raft<SM>,
        beats: Beats,
    ) -> Result<Self, SubscribeError> {
        /// A few messages per peer; a vote that waits behind more would come too late anyway.
        const QUESTIONS_MAX: usize = 256;
        /// Several windows. What overflows is a gap, and ends its stream.
        const APPENDS_MAX: usize = 64;
        const CHUNKS_MAX: usize = 32;
        Ok(Receiver {
            votes: network.subscribe(Lane::Vote, QUESTIONS_MAX).await?,
            beats: network.subscribe(Lane::Beat, QUESTIONS_MAX).await?,
            appends: network.subscribe(Lane::Append, APPENDS_MAX).await?,
            snapshots: network.subscribe(Lane::Snapshot, CHUNKS_MAX).await?,
            detector: FailureDetector::new(network.clone(), raft.clone(), beats),
            network,
            raft,
        })
    }

    /// Follows which leadership is gone without another in its place.
    pub fn lost_leader(&self) -> watch::Receiver<Option<Vote>> {
        self.detector.lost()
    }

    /// Runs until `shutdown` is true or the broker has gone for good. One task; what is unanswered
    /// when it stops stays so.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let Receiver {
            network,
            raft,
            detector,
            votes,
            beats,
            appends,
            snapshots,
        } = self;
        let mut latest = Senders::default();
        let begin_vote = |message: &Message| begin_vote(&network, &raft, &detector, message);
        let begin_beat = |message: &Message| begin_beat(&network, &raft, &mut latest, message);
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = answer_questions(&network, votes, begin_vote) => {}
            () = answer_questions(&network, beats, begin_beat) => {}
            () = Intake::new(&network, &raft).run(appends) => {}
            () = Transfers::new(&network, &raft).run(snapshots) => {}
            () = detector.clone().watch() => {}
        }
    }
}

/// Answers many questions at once, in whatever order their answers come.
async fn answer_questions(
    network: &Network,
    mut questions: Subscription,
    mut begin: impl FnMut(&Message) -> Option<BoxFuture<'static, ()>>,
) {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = running.next() => {}
            message = questions.next() => {
                let Some(message) = message else { return };
                if running.len() >= QUESTIONS_AT_ONCE_MAX {
                    Counters::add(&network.counters().overflows);
                } else if let Some(work) = begin(&message) {
                    running.push(work);
                }
            }
        }
    }
}

fn begin_vote<SM: RaftStateMachine<TypeConfig, SnapshotData = Bytes>>(
    network: &Network,
    raft: &Raft<SM>,
    detector: &FailureDetector<SM>,
    message: &Message,
) -> Option<BoxFuture<'static, ()>> {
    let frame = network.open_from_member(message, Lane::Vote)?;
    let subject = message.reply.clone()?;
    let election: Election = network.body(&frame)?;
    let (network, raft, header) = (network.clone(), raft.clone(), frame.header);
    let detector = detector.clone();
    Some(Box::pin(async move {
        let answer = match election {
            Election::Vote(rpc) => stopped(raft.vote(rpc)).await.map(Answer::Vote),
            Election::PreVote(rpc) => {
                detector.look().await;
                stopped(raft.pre_vote(rpc)).await.map(Answer::Vote)
            }
            Election::TransferLeader(request) => stopped(raft.handle_transfer_leader(request))
                .await
                .map(Answer::TransferLeader),
        };
        network.answer(&header, &subject, &answer);
    }))
}

/// A heartbeat is taken once, and none that was sent before the last one taken: the broker may have
/// kept it from a time when its sender still led.
fn begin_beat<SM: RaftStateMachine<TypeConfig, SnapshotData = Bytes>>(
    network: &Network,
    raft: &Raft<SM>,
    latest: &mut Senders,
    message: &Message,
) -> Option<BoxFuture<'static, ()>> {
    let frame = network.open_from_member(message, Lane::Beat)?;
    let subject = message.reply.clone()?;
    let beat: Append = network.body(&frame)?;
    let header = frame.header;
    match latest.place(&header, header.sequence, true, now()) {
        Standing::Newer => {}
        Standing::Current => {
            Counters::add(&network.counters().repeated);
            return None;
        }
        Standing::Outdated | Standing::Unopened => {
            Counters::add(&network.counters().outdated);
            return None;
        }
    }
    let (network, raft) = (network.clone(), raft.clone());
    Some(Box::pin(async move {
        let answer = stopped(raft.append_entries(beat)).await.map(Answer::Beat);
        network.answer(&header, &subject, &answer);
    }))
}

/// Openraft answers every question that it can foresee with a value; an error means that it stopped.
async fn stopped<T, E: std::fmt::Display>(
    asked: impl Future<Output = Result<T, E>>,
) -> Result<T, Refusal> {
    asked.await.map_err(|error| {
        tracing::debug!(%error, "Raft does not answer");
        Refusal::Stopped
    })
}
