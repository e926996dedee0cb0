//! Who belongs to the consensus group, and the steps by which that changes.
//!
//! Two questions have two answers. What this node *knows of* is the newest membership in its log,
//! committed or not: Raft counts majorities by it. What was *agreed* is the last one that was
//! applied: only that decides whether a node stops.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _};
use tokio::sync::watch;

use super::{Handle, Inner};
use crate::ids::{DiskId, NodeId};
use crate::raft::proposals::Role;
use crate::raft::types::{Member, Membership};
use crate::time::{self, Instant};

/// How long one voter has to take over the leadership before it, or another, is asked: the message
/// may be lost, and the voter may be dead. Nothing is proposed meanwhile.
const HAND_OVER_AGAIN: Duration = Duration::from_millis(150);

/// The members as of one entry of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// One set of voters, or two while a change is being agreed on: then a majority is one of each.
    pub configs: Vec<BTreeSet<NodeId>>,
    /// Everyone, with or without a vote, by the data directory that is meant.
    pub disks: BTreeMap<NodeId, DiskId>,
}

/// What a leader sees of the members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub me: Option<NodeId>,
    pub members: Members,
    pub last_log_index: u64,
    /// How far the log of each node is known to be the leader's.
    pub matched: BTreeMap<NodeId, u64>,
    /// How long each other node has been silent; those that were never heard of are not in it.
    pub silence: BTreeMap<NodeId, Duration>,
}

/// Why a step was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// This node does not lead, or not any more: what became of the step is seen elsewhere.
    NotLeader,
    /// Raft does not take it now: the step before is not committed yet.
    NotNow,
}

impl Members {
    /// Everyone with a vote, in either set.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.configs.iter().flatten().copied().collect()
    }

    pub fn is_voter(&self, node: NodeId) -> bool {
        self.configs.iter().any(|config| config.contains(&node))
    }

    /// Whether a change is being agreed on.
    pub fn is_joint(&self) -> bool {
        self.configs.len() > 1
    }
}

impl From<&Membership> for Members {
    fn from(membership: &Membership) -> Self {
        Members {
            configs: membership.get_joint_config().clone(),
            disks: membership
                .nodes()
                .map(|(node, member)| (*node, member.disk))
                .collect(),
        }
    }
}

impl Inner {
    pub(super) fn members_applied(&self, membership: &Membership) {
        let members = Members::from(membership);
        let has_vote = members.is_voter(self.me);
        let had_vote = self.members.send_replace(members).is_voter(self.me);
        // Kept from entry to entry: whoever looks later sees the last members alone.
        if had_vote != has_vote {
            self.voted_out.send_replace(had_vote);
        }
    }
}

impl Handle {
    /// Follows who belongs, as agreed and applied here.
    pub fn agreed_members(&self) -> watch::Receiver<Members> {
        self.0.members.subscribe()
    }

    /// Who belongs, as the newest entry about it in this node's log says.
    pub fn known_members(&self) -> Members {
        let metrics = self.0.running().metrics.borrow_watched();
        metrics.membership_config.membership().into()
    }

    /// The index of that entry; 0 without any.
    pub fn known_members_index(&self) -> u64 {
        let metrics = self.0.running().metrics.borrow_watched();
        let entry = metrics.membership_config.log_id().as_ref();
        entry.map_or(0, |id| id.index)
    }

    /// Returns once this node, which had a vote, has none any more, as agreed.
    pub async fn voted_out(&self) {
        let mut voted_out = self.0.voted_out.subscribe();
        if voted_out.wait_for(|voted_out| *voted_out).await.is_err() {
            std::future::pending().await
        }
    }

    /// As the leader: how long each other node has been silent, but for those that were never heard
    /// of since this node leads.
    pub fn silence(&self) -> BTreeMap<NodeId, Duration> {
        let metrics = self.0.running().metrics.borrow_watched();
        let Some(heartbeat) = metrics.heartbeat.as_ref() else {
            return BTreeMap::new();
        };
        heartbeat
            .iter()
            .filter(|(node, _)| **node != self.0.me)
            .filter_map(|(node, at)| Some((*node, at.as_ref()?.elapsed())))
            .collect()
    }

    /// Whether a majority has answered this node within an election timeout, if it leads; true if it does not.
    pub fn is_heard(&self) -> bool {
        !matches!(self.role(), Role::Leader { .. }) || self.0.is_confirmed()
    }

    /// How many of the nodes with a vote answered this leader lately, itself included.
    pub fn reachable(&self, seen: &Observed) -> usize {
        let lately = |silence: &Duration| *silence <= self.0.timing.election_max;
        let answers =
            |node: &NodeId| seen.me == Some(*node) || seen.silence.get(node).is_some_and(lately);
        let voters = seen.members.voters();
        voters.iter().filter(|node| answers(node)).count()
    }

    /// What this node sees of the members, if it leads.
    pub fn observe(&self) -> Option<Observed> {
        if !matches!(self.role(), Role::Leader { .. }) {
            return None;
        }
        let silence = self.silence();
        let metrics = self.0.running().metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        Some(Observed {
            me: Some(self.0.me),
            members: metrics.membership_config.membership().into(),
            last_log_index: metrics.last_log_index.unwrap_or(0),
            matched: replication
                .iter()
                .filter_map(|(node, at)| Some((*node, at.as_ref()?.index())))
                .collect(),
            silence,
        })
    }

    /// Has a node receive the log, without a vote; returns when that is committed.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn admit(&self, node: NodeId, disk: DiskId) -> Result<(), Refused> {
        let nodes = BTreeMap::from([(node, Member { disk })]);
        self.change(ChangeMembers::AddNodes(nodes)).await
    }

    /// Gives a node that receives the log a vote, by way of a joint configuration; returns when the
    /// new one is committed.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn promote(&self, node: NodeId) -> Result<(), Refused> {
        self.change(ChangeMembers::AddVoterIds([node].into())).await
    }

    /// Takes a node's vote, by way of a joint configuration; it still receives the log, and so
    /// learns of it. Returns when the new configuration is committed.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn demote(&self, node: NodeId) -> Result<(), Refused> {
        self.change(ChangeMembers::RemoveVoters([node].into()))
            .await
    }

    /// Ends the joint configuration that an earlier leader left; returns when that is committed.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn settle(&self) -> Result<(), Refused> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::new()))
            .await
    }

    /// Sends a node without a vote nothing any more; returns when that is committed.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn forget(&self, node: NodeId) -> Result<(), Refused> {
        self.change(ChangeMembers::RemoveNodes([node].into())).await
    }

    async fn change(&self, change: ChangeMembers<NodeId, Member>) -> Result<(), Refused> {
        let changed = self.0.running().raft.change_membership(change, true).await;
        match changed {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
                tracing::debug!(%error, "a change of the members has to wait");
                Err(Refused::NotNow)
            }
            Err(_) => Err(Refused::NotLeader),
        }
    }

    /// Hands leadership to one of the voters that `may_lead` names, if this node leads: first to the one whose log
    /// is furthest, then to the others. It asks before each try, since who could have led may stop meanwhile.
    /// Returns when another one leads, at once when there is none that may, or at `deadline`.
    pub async fn hand_over<F>(&self, may_lead: impl Fn() -> F, deadline: Instant)
    where
        F: Future<Output = BTreeSet<NodeId>>,
    {
        let raft = &self.0.running().raft;
        // Raft only begins what is asked here: a node that ends now takes a vote away while another
        // is elected.
        let mut server = raft.server_metrics();
        let is_over = |leader: Option<NodeId>| leader.is_some_and(|leader| leader != self.0.me);
        let mut tries = BTreeMap::new();
        while let Some(target) = self.successor(&may_lead().await, &tries) {
            if time::now() >= deadline {
                tracing::warn!("no node took over the leadership in time");
                return;
            }
            *tries.entry(target).or_default() += 1;
            let _ = raft.trigger().transfer_leader(target).await;
            let again_at = deadline.min(time::now() + HAND_OVER_AGAIN);
            let another_leads = async {
                while !is_over(server.borrow_watched().current_leader) {
                    if server.changed().await.is_err() {
                        return;
                    }
                }
            };
            if tokio::time::timeout_at(again_at, another_leads)
                .await
                .is_ok()
            {
                return;
            }
        }
    }

    /// Of the voters that may lead, one that was tried least often, and of those the one whose log is furthest;
    /// `None` when this node does not lead.
    fn successor(
        &self,
        may_lead: &BTreeSet<NodeId>,
        tries: &BTreeMap<NodeId, u32>,
    ) -> Option<NodeId> {
        let metrics = self.0.running().metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let voters: BTreeSet<NodeId> = metrics.membership_config.membership().voter_ids().collect();
        let is_candidate =
            |id: &NodeId| *id != self.0.me && voters.contains(id) && may_lead.contains(id);
        let candidates = replication.iter().filter(|(id, _)| is_candidate(id));
        let first = candidates.min_by_key(|(id, at)| (tries.get(id), Reverse(**at)));
        first.map(|(id, _)| *id)
    }
}
