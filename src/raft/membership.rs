//! Changes of the members, one at a time: the leader makes them, any node takes the wish for one.
//!
//! ```text
//!   operator ──► any node ── asks, again and again ──► leader: one task per wish
//!                                                        └─ look, take one step, look again ([`plan`])
//! ```
//!
//! Promises: a node gets a vote only after its log has caught up, and every change of the voters goes
//! through a joint configuration, so that at no moment two majorities exist that have no node in common.
//! A change that would leave no majority of nodes that are there is refused. A wish may be repeated:
//! while it is under way a repeat attaches to it, afterwards it finds nothing to do. When the leader
//! dies, the node that was asked goes on with the next one.
//!
//! A removed node keeps receiving the log until it has learned of it, left the view, answered its last
//! clients and ended; then it is forgotten.
//!
//! Limits: what a dead leader left half done stays so until somebody wishes again, but for a joint
//! configuration, which the next leader ends by itself.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::ids::NodeId;
use crate::protocol::cluster::{Changed, Member, Members, Wish};
use crate::protocol::status::Role;
use crate::protocol::{Code, ErrorReply, Refusal};
use crate::raft::bootstrap;
use crate::raft::call::{Caller, Trust};
use crate::raft::handle::{Handle, Observed, Refused};
use crate::raft::network::{CallError, Network};
use crate::raft::{message, proposals};
use crate::time::{self, Instant};

mod asking;
pub mod plan;
mod refusals;

use plan::{Presence, Step};
use refusals::{busy, lost_disk, nobody, silent, too_slow};

/// The kind of call that carries a wish to the leader.
const WISH: &str = "cluster.wish";

/// How long the leader keeps a wish's question open before it says that the wish is under way.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// Between two looks at how far a change has come.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long one wish may take: a log or a snapshot may have far to go.
const CHANGE_MAX: Duration = Duration::from_secs(300);
/// How long a removed node has to leave by itself.
const LEAVE_MAX: Duration = Duration::from_secs(10);
const HELLO_MAX: Duration = Duration::from_millis(500);
/// How long another voter may take to take over.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);
/// How long a joint configuration may last of which nobody here knows why.
const JOINT_MAX: Duration = Duration::from_secs(2);

/// What came of a wish, as the leader says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    Known(Members),
    Changed(Changed),
    Refused(Box<ErrorReply>),
    /// Another node leads now, or will.
    NotLeader,
    /// It is under way.
    Going,
    /// A change is about to end of which the client may have its answer already.
    NotYet(Box<ErrorReply>),
}

/// The members of the cluster, as one node offers them; clones share it.
#[derive(Clone)]
pub struct Membership(Arc<Shared>);

struct Shared {
    handle: Handle,
    network: Network,
    /// Who was silent longer does not count as there.
    silence_max: Duration,
    current: Mutex<Option<Current>>,
    /// Wishes of this node's clients that are not answered yet.
    asked: AtomicUsize,
    /// Whether they wait no longer.
    given_up: watch::Sender<bool>,
}

/// The change that is under way here, or the last one.
#[derive(Clone)]
struct Current {
    wish: Wish,
    progress: watch::Receiver<Progress>,
}

#[derive(Clone, Debug, PartialEq)]
enum Progress {
    Going,
    /// The node that is to go has no vote any more.
    VotedOut(Changed),
    Ended(Answer),
}

impl Membership {
    /// `silence_max` is how long ago a node may have been heard of that counts as there.
    pub fn new(handle: Handle, network: Network, silence_max: Duration) -> Self {
        Membership(Arc::new(Shared {
            handle,
            network,
            silence_max,
            current: Mutex::new(None),
            asked: AtomicUsize::new(0),
            given_up: watch::Sender::new(false),
        }))
    }

    /// Takes the wishes of other nodes' clients from now on, and ends what an earlier leader left
    /// half agreed, until `stopped`.
    pub fn run(&self, mut stopped: watch::Receiver<bool>) {
        let membership = self.clone();
        let handler = move |caller: Caller,
                            body: Bytes|
              -> BoxFuture<'static, Result<Bytes, message::Refusal>> {
            let membership = membership.clone();
            Box::pin(async move {
                let wish: Wish = rmp_serde::from_slice(&body)
                    .map_err(|error| message::Refusal::Other(error.to_string()))?;
                let answer = membership.take(wish, caller.node).await;
                // By name, since refusals leave fields out.
                let answer = rmp_serde::to_vec_named(&answer).expect("answers always encode");
                Ok(answer.into())
            })
        };
        self.0
            .network
            .handle(WISH, Trust::Members, Arc::new(handler));
        let membership = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => {}
                () = membership.end_what_was_left() => {}
            }
        });
    }

    /// As the leader: begins with a wish, or attaches to it.
    async fn take(&self, wish: Wish, asked_by: NodeId) -> Answer {
        if wish == Wish::Know {
            return self
                .members()
                .await
                .map_or(Answer::NotLeader, Answer::Known);
        }
        if self.0.handle.observe().is_none() {
            return Answer::NotLeader;
        }
        let mut progress = match self.begin(wish) {
            Ok(progress) => progress,
            Err(answer) => return answer,
        };
        // A node that is to go waits for the answers of its clients before it goes.
        let goes = wish == Wish::Remove(asked_by);
        let answered = progress.wait_for(|progress| match progress {
            Progress::Going => false,
            Progress::VotedOut(_) => goes,
            Progress::Ended(_) => true,
        });
        match tokio::time::timeout(ANSWER_WITHIN, answered).await {
            Err(_) => Answer::Going,
            Ok(Err(_)) => Answer::NotLeader,
            Ok(Ok(progress)) => match &*progress {
                Progress::Going => Answer::Going,
                Progress::VotedOut(changed) => Answer::Changed(changed.clone()),
                Progress::Ended(answer) => answer.clone(),
            },
        }
    }

    fn begin(&self, wish: Wish) -> Result<watch::Receiver<Progress>, Answer> {
        let mut current = self.0.current.lock().expect("no holder panics");
        if let Some(current) = &*current {
            // Its sender is gone once it has ended.
            let goes_on = current.progress.has_changed().is_ok();
            if goes_on && current.wish == wish {
                return Ok(current.progress.clone());
            }
            if goes_on {
                let refusal = busy(current.wish);
                return Err(match &*current.progress.borrow() {
                    Progress::VotedOut(_) => Answer::NotYet(refusal),
                    Progress::Going | Progress::Ended(_) => Answer::Refused(refusal),
                });
            }
        }
        let (sender, progress) = watch::channel(Progress::Going);
        *current = Some(Current {
            wish,
            progress: progress.clone(),
        });
        let membership = self.clone();
        tokio::spawn(async move {
            tracing::info!(?wish, "changing the members");
            let answer = membership.fulfil(wish, &sender).await;
            tracing::info!(?wish, ?answer, "the change of the members has ended");
            sender.send_replace(Progress::Ended(answer));
        });
        Ok(progress)
    }

    async fn fulfil(&self, wish: Wish, progress: &watch::Sender<Progress>) -> Answer {
        let begun = time::now();
        if let Wish::Add(node) = wish
            && let Err(refusal) = self.greet(node).await
        {
            // Who has a vote may be away; but not with another disk.
            let has_vote = self.0.handle.known_members().is_voter(node);
            let is_away = matches!(refusal.code, Code::Reconfiguring | Code::NotFound);
            if !has_vote || !is_away {
                return Answer::Refused(refusal);
            }
        }
        let mut left_by = None;
        loop {
            let Some(seen) = self.0.handle.observe() else {
                return Answer::NotLeader;
            };
            let presence = Presence {
                watched: begun.elapsed(),
                silence_max: self.0.silence_max,
            };
            let step = match wish {
                Wish::Know => Step::Done,
                Wish::Add(node) => plan::add(node, &seen, presence),
                Wish::Remove(node) => {
                    if !seen.members.is_voter(node) && !self.knew(node, &seen) {
                        return Answer::Refused(nobody(node));
                    }
                    if !seen.members.is_voter(node) && left_by.is_none() {
                        left_by = Some(time::now() + LEAVE_MAX);
                        progress.send_replace(Progress::VotedOut(changed(&seen)));
                    }
                    let has_left = match left_by {
                        None => false,
                        Some(by) => time::now() >= by || self.has_left(node).await,
                    };
                    plan::remove(node, &seen, (presence, has_left))
                }
                Wish::Transfer(node) => plan::transfer(node, &seen, presence),
            };
            match self.take_step(wish, step, &seen).await {
                Some(answer) => return answer,
                None if begun.elapsed() > CHANGE_MAX => return Answer::Refused(too_slow(wish)),
                None => {}
            }
        }
    }

    /// The answer, if the step decides it.
    async fn take_step(&self, wish: Wish, step: Step, seen: &Observed) -> Option<Answer> {
        let handle = &self.0.handle;
        let node = match wish {
            Wish::Add(node) | Wish::Remove(node) | Wish::Transfer(Some(node)) => node,
            Wish::Know | Wish::Transfer(None) => NodeId(0),
        };
        let taken = match step {
            Step::Done => return Some(Answer::Changed(changed(seen))),
            Step::Refuse(refusal) => return Some(Answer::Refused(refusal)),
            Step::Wait => Err(Refused::NotNow),
            Step::Admit => match self.greet(node).await {
                Ok(disk) => handle.admit(node, disk).await,
                Err(refusal) => return Some(Answer::Refused(refusal)),
            },
            Step::Promote => handle.promote(node).await,
            Step::Demote => handle.demote(node).await,
            Step::Forget => handle.forget(node).await,
            Step::Settle => handle.settle().await,
            Step::HandOver => {
                let wanted = match wish {
                    Wish::Transfer(node) => node,
                    _ => None,
                };
                return Some(self.hand_over(wish, wanted).await);
            }
        };
        match taken {
            Ok(()) => {}
            Err(Refused::NotLeader) => return Some(Answer::NotLeader),
            Err(Refused::NotNow) => tokio::time::sleep(LOOK_EVERY).await,
        }
        None
    }

    async fn hand_over(&self, wish: Wish, wanted: Option<NodeId>) -> Answer {
        let handle = &self.0.handle;
        let me = self.0.network.identity().node;
        let may_lead = || {
            std::future::ready(match wanted {
                Some(node) => [node].into(),
                None => handle.known_members().voters(),
            })
        };
        handle
            .hand_over(may_lead, time::now() + HAND_OVER_MAX)
            .await;
        match (wish, handle.leader()) {
            (Wish::Transfer(wanted), Some(leader))
                if leader != me && wanted.is_none_or(|node| node == leader) =>
            {
                let voters = handle.known_members().voters().into_iter().collect();
                Answer::Changed(Changed { leader, voters })
            }
            (Wish::Transfer(_), _) => {
                let message = "the node did not take over the leadership in time; try again";
                Answer::Refused(ErrorReply::new(Code::Reconfiguring, message).into())
            }
            // Who leads next goes on.
            _ => Answer::NotLeader,
        }
    }

    /// The data directory of a node that is to be added, if nothing speaks against it.
    async fn greet(&self, node: NodeId) -> Result<crate::ids::DiskId, Refusal> {
        let handle = &self.0.handle;
        if node == self.0.network.identity().node {
            return Ok(self.0.network.identity().disk);
        }
        let hello = match bootstrap::hello(&self.0.network, node, HELLO_MAX).await {
            Ok(hello) => hello,
            Err(CallError::Refused(message::Refusal::OtherDisk)) => return Err(lost_disk(node)),
            Err(error) => return Err(silent(node, &error)),
        };
        let (cluster, retired) =
            handle.read(|state, _| (state.cluster, state.retired.get(&node).copied()));
        let known = handle.known_members().disks.get(&node).copied().or(retired);
        if known.is_some_and(|disk| disk != hello.disk) {
            return Err(lost_disk(node));
        }
        let of_another = hello.cluster.is_some_and(|of| Some(of) != cluster);
        let founds = hello.initialized && hello.cluster.is_none() && known.is_none();
        if of_another || founds {
            return Err(ErrorReply::bad_field(
                "node",
                format!(
                    "node {node} belongs to another cluster: start it with an empty data directory \
                     and --join"
                ),
            )
            .into());
        }
        Ok(hello.disk)
    }

    /// Whether a node without a vote has ended, and nothing is left of it in the view.
    async fn has_left(&self, node: NodeId) -> bool {
        let in_view = self
            .0
            .handle
            .read(|state, _| state.view.member(node).is_some() || state.view.next().is_some());
        !in_view
            && matches!(
                bootstrap::hello(&self.0.network, node, HELLO_MAX).await,
                Err(CallError::NoResponders)
            )
    }

    /// Whether a node belongs or belonged to the cluster.
    fn knew(&self, node: NodeId, seen: &Observed) -> bool {
        let retired = self
            .0
            .handle
            .read(|state, _| state.retired.get(&node).copied());
        seen.members.disks.contains_key(&node) || retired.is_some()
    }

    async fn members(&self) -> Option<Members> {
        self.0.handle.read_barrier().await.ok()?;
        let seen = self.0.handle.observe()?;
        let proposals::Role::Leader { term } = self.0.handle.role() else {
            return None;
        };
        let leader = self.0.network.identity().node;
        let view = self.0.handle.read(|state, _| state.view.clone());
        let member = |(node, disk): (&NodeId, &crate::ids::DiskId)| {
            let is_leader = *node == leader;
            let voter = seen.members.is_voter(*node);
            let silence = seen.silence.get(node);
            Member {
                node: *node,
                role: match (is_leader, voter) {
                    (true, _) => Role::Leader,
                    (false, true) => Role::Follower,
                    (false, false) => Role::Learner,
                },
                voter,
                incarnation: view.member(*node).map(|member| member.incarnation),
                disk: format!("{:016x}", disk.0),
                matched_index: seen.matched.get(node).copied(),
                silent_ms: match is_leader {
                    true => Some(0),
                    false => silence.map(|silence| silence.as_millis() as u64),
                },
            }
        };
        Some(Members {
            leader,
            term,
            epoch: view.epoch(),
            last_log_index: seen.last_log_index,
            changing: seen.members.is_joint(),
            members: seen.members.disks.iter().map(member).collect(),
        })
    }

    /// A joint configuration needs two majorities for everything; nobody may be there any more who
    /// would wish it ended.
    async fn end_what_was_left(&self) {
        let mut joint_since = None;
        loop {
            tokio::time::sleep(JOINT_MAX / 4).await;
            let joint = self
                .0
                .handle
                .observe()
                .is_some_and(|seen| seen.members.is_joint());
            joint_since = joint.then(|| joint_since.unwrap_or_else(time::now));
            if joint_since.is_some_and(|since: Instant| since.elapsed() > JOINT_MAX) {
                // What fails is found again.
                let _ = self.0.handle.settle().await;
            }
        }
    }
}

fn changed(seen: &Observed) -> Changed {
    Changed {
        leader: seen.me.expect("only a leader changes the members"),
        voters: seen.members.voters().into_iter().collect(),
    }
}
