//! Notices at once that the leader is gone, where elections by timeout would wait for its lease.
//!
//! A follower that has heard nothing of its leader for one and a half heartbeats asks it whether it
//! leads. A broker that knows of no subscriber says so at once, since it sees the connection of a
//! killed process close; and a process that was started again says itself that it does not lead.
//! Either is evidence that this node has at first hand, so it stops honouring the leader's lease and
//! stands for election with a pre-vote. A node that is asked for a pre-vote looks for itself in the
//! same way before it answers, so that a majority is won only where a majority saw the leader gone.
//!
//! **Safety** does not rest on any of this: votes, terms and logs are openraft's and as ever, and no
//! read trusts a leader's lease. What a mistaken follower can cause is one pre-vote that others refuse.
//!
//! **Storms.** A round without majority changes no term. After this node's own connection was made
//! anew it waits ([`Presence::settled_at`]). Candidates stand one after the other ([`STAGGER`]), the one
//! that follows the leader in the order of ids first.
//!
//! **Who leads is unknown** from then on, until the leader is heard again or another leads: openraft
//! itself forgets a leader only for another vote, and no vote comes where no majority is left. What
//! this node is asked meanwhile waits here instead of going to a leader that is gone.
//!
//! **Limit.** A machine that loses power, or a process that stalls, closes no connection: the
//! ordinary election timeout finds those. After the same time of silence nobody is said to lead.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use openraft::storage::RaftStateMachine;
use tokio::sync::watch;

use super::call::{Caller, Trust};
use super::message::Refusal;
use super::network::{CallError, Network};
use super::presence::Presence;
use super::receiver::Raft;
use super::types::{TypeConfig, Vote};
use crate::ids::NodeId;
use crate::time::{Instant, now};

/// The kind of call that asks a node whether it leads a term.
const LEADS: &str = "raft.leads";

/// Between one candidate and the next: a pre-vote, a vote and an fsync of each, with room to spare.
const STAGGER: Duration = Duration::from_millis(25);

/// How a leader is heard.
#[derive(Clone, Copy, Debug)]
pub struct Beats {
    /// How often, in between entries.
    pub every: Duration,
    /// The silence after which it is not said to lead any more.
    pub silence_max: Duration,
}

/// Watches the leader of one node; clones share what was seen.
pub(super) struct FailureDetector<SM: RaftStateMachine<TypeConfig, SnapshotData = Bytes>> {
    network: Network,
    raft: Raft<SM>,
    beats: Beats,
    presence: Presence,
    /// The leadership that is gone, while nobody is known to have taken its place.
    lost: watch::Sender<Option<Vote>>,
    started: Instant,
}

/// A leader as this node follows it: the vote tells one leadership from every other.
#[derive(Clone, Debug, PartialEq)]
struct Followed {
    vote: Vote,
    leader: NodeId,
    /// How many voters stand for election before this node when this leader is gone.
    rank: u32,
}

impl<SM: RaftStateMachine<TypeConfig, SnapshotData = Bytes>> Clone for FailureDetector<SM> {
    fn clone(&self) -> Self {
        FailureDetector {
            network: self.network.clone(),
            raft: self.raft.clone(),
            beats: self.beats,
            presence: self.presence.clone(),
            lost: self.lost.clone(),
            started: self.started,
        }
    }
}

impl<SM: RaftStateMachine<TypeConfig, SnapshotData = Bytes>> FailureDetector<SM> {
    /// Watches leaders that are heard so, and answers others that ask whether this node leads.
    pub fn new(network: Network, raft: Raft<SM>, beats: Beats) -> Self {
        let asked = raft.clone();
        let answer = move |_: Caller, body: Bytes| -> BoxFuture<'static, Result<Bytes, Refusal>> {
            let leads = leads(&asked, &body);
            Box::pin(std::future::ready(leads))
        };
        network.handle(LEADS, Trust::Members, Arc::new(answer));
        FailureDetector {
            presence: Presence::new(network.clone()),
            network,
            raft,
            beats,
            lost: watch::Sender::new(None),
            started: now(),
        }
    }

    /// Follows which leadership is gone without another in its place.
    pub fn lost(&self) -> watch::Receiver<Option<Vote>> {
        self.lost.subscribe()
    }

    /// Looks after the leader, for ever.
    pub async fn watch(self) {
        let heartbeat = self.beats.every;
        loop {
            let Some(followed) = self.followed() else {
                tokio::time::sleep(heartbeat / 2).await;
                continue;
            };
            if self.silence(followed.leader) < self.suspicious() {
                self.note_lost(None);
            }
            match self.patience(followed.leader) {
                Duration::ZERO if self.is_gone(&followed).await => {
                    if self.note_lost(Some(followed.vote)) {
                        tracing::info!(leader = %followed.leader, "the leader is gone");
                    }
                    self.stand(&followed).await;
                    tokio::time::sleep(heartbeat).await;
                }
                Duration::ZERO => {
                    let silent = self.silence(followed.leader) > self.beats.silence_max;
                    if silent && self.note_lost(Some(followed.vote)) {
                        tracing::info!(leader = %followed.leader, "no sign of the leader");
                    }
                    tokio::time::sleep(heartbeat / 2).await;
                }
                left => tokio::time::sleep(left.min(heartbeat)).await,
            }
        }
    }

    /// Notes which leadership is gone, if one is; tells whether that is news.
    fn note_lost(&self, vote: Option<Vote>) -> bool {
        self.lost.send_if_modified(|lost| {
            let changed = *lost != vote;
            *lost = vote;
            changed
        })
    }

    /// Before a pre-vote is answered: a leader that is gone has no lease to be honoured. That
    /// another node stands is reason enough to ask, however lately this one heard of the leader.
    pub async fn look(&self) {
        if let Some(followed) = self.followed()
            && self.presence.settled_at() <= now()
        {
            self.is_gone(&followed).await;
        }
    }

    /// The leader that this node follows as a voter.
    fn followed(&self) -> Option<Followed> {
        let server = self.raft.server_metrics();
        let server = server.borrow_watched();
        let me = self.network.identity().node;
        let leader = server.current_leader.filter(|leader| *leader != me)?;
        let voters = server.membership_config.membership().voter_ids().collect();
        Some(Followed {
            vote: server.vote,
            leader,
            rank: rank(me, leader, &voters)?,
        })
    }

    /// A silence after which the leader is asked.
    fn suspicious(&self) -> Duration {
        self.beats.every * 3 / 2
    }

    /// How long the leader has not been heard, or this node has listened in vain.
    fn silence(&self, leader: NodeId) -> Duration {
        let heard = self.network.heard_at(leader);
        heard.unwrap_or(self.started).elapsed()
    }

    /// How much longer the leader may be silent before it is asked.
    fn patience(&self, leader: NodeId) -> Duration {
        let heard = self.network.heard_at(leader);
        let suspected = heard.map_or_else(now, |at| at + self.suspicious());
        suspected
            .max(self.presence.settled_at())
            .saturating_duration_since(now())
    }

    /// Whether the leader is certainly gone; if so, this node no longer honours its lease.
    async fn is_gone(&self, followed: &Followed) -> bool {
        let connects = self.network.connects();
        let term = followed.vote.leader_id.term.to_be_bytes();
        let body = Bytes::copy_from_slice(&term);
        let answer = self
            .network
            .call(followed.leader, LEADS, body, self.beats.every)
            .await;
        let gone = match answer {
            Err(CallError::NoResponders) => connects == self.network.connects(),
            Ok(answer) => answer[..] == [u8::from(false)],
            Err(_) => false,
        };
        // Openraft forgets a lease when its leader hands over. Here it is to the leader itself, so
        // that this node does not take it for a call to lead.
        let handed_over = TransferLeaderRequest::new(followed.vote, followed.leader, None);
        gone && self.raft.handle_transfer_leader(handed_over).await.is_ok()
    }

    /// Stands for election in its turn, unless somebody else was faster.
    async fn stand(&self, gone: &Followed) {
        tokio::time::sleep(STAGGER * gone.rank).await;
        if self.followed().as_ref() == Some(gone) {
            // Fails only when Raft has stopped, which its owner sees for itself.
            let _ = self.raft.trigger().elect(true).await;
        }
    }
}

/// The answer to [`LEADS`]: whether this node leads the term in the question.
fn leads<SM: RaftStateMachine<TypeConfig, SnapshotData = Bytes>>(
    raft: &Raft<SM>,
    term: &[u8],
) -> Result<Bytes, Refusal> {
    let term = u64::from_be_bytes(
        term.try_into()
            .map_err(|_| Refusal::Other("a term has eight bytes".to_owned()))?,
    );
    let server = raft.server_metrics();
    let server = server.borrow_watched();
    let leads = server.state == ServerState::Leader && server.vote.leader_id.term == term;
    Ok(Bytes::copy_from_slice(&[u8::from(leads)]))
}

/// The place of `me` among the voters after the leader, in a ring by id.
fn rank(me: NodeId, leader: NodeId, voters: &BTreeSet<NodeId>) -> Option<u32> {
    let after = voters.range(leader..).skip_while(|voter| **voter == leader);
    let ring = after.chain(voters.range(..leader));
    (0..)
        .zip(ring)
        .find(|(_, voter)| **voter == me)
        .map(|(rank, _)| rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_stand_in_the_order_of_a_ring_that_begins_after_the_leader() {
        let voters = [1, 2, 4, 7].map(NodeId).into();
        let ranks = |leader| [1, 2, 4, 7].map(|me| rank(NodeId(me), NodeId(leader), &voters));
        assert_eq!(ranks(1), [None, Some(0), Some(1), Some(2)]);
        assert_eq!(ranks(4), [Some(1), Some(2), None, Some(0)]);
        assert_eq!(ranks(7), [Some(0), Some(1), Some(2), None]);
        assert_eq!(rank(NodeId(3), NodeId(1), &voters), None, "not a voter");
    }
}
