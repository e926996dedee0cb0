//! The log as the rest of a node sees it: submit a command, read linearizably, ask for its status.
//!
//! Four tasks, each started by [`Handle::run`] and ended by the shutdown watch: the driver (proposes,
//! forwards, steps lease time), the receiver of forwards, the watcher of this node's role, and the
//! reader. One ReadIndex round of the reader serves all reads that waited when it began; no read joins a
//! running round.

mod driver;
mod members;
mod roles;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{RaftMetrics, ReadPolicy, ServerState};
use tokio::sync::{Notify, oneshot, watch};

use crate::broker::SharedBroker;
use crate::ids::{BootId, NodeId};
use crate::lock;
use crate::lock::command::Asked;
use crate::lock::event::Effect;
use crate::protocol::{Operation, ReplyTo, status};
use crate::raft::clock::LeaderClock;
use crate::raft::command::Command;
use crate::raft::network::KnownDisk;
use crate::raft::proposals::{Due, Proposals, Refusal, Role, Submission, Ticket};
use crate::raft::state::{Outcome, State};
use crate::raft::state_machine::{Observer, SharedState, StateMachine};
use crate::raft::types::{LogId, StoredMembership, TypeConfig, Vote};
use crate::stats::{Failure, Stats};
use crate::time::{self, Instant};

pub use members::{Members, Observed, Refused};

pub type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// Messages of forwards not yet looked at; senders repeat what does not fit.
const FORWARD_CAPACITY: usize = 1024;
/// Reads that wait for a ReadIndex round.
const READS_MAX: usize = 65_536;

/// Who gives the answers that come out of the log.
pub trait Answers: Send + Sync + 'static {
    /// The end of a client's command.
    fn answer(&self, answer: Answer);
    /// The end of a wait that an earlier leader may have told already.
    fn answer_again(&self, to: ReplyTo, outcome: lock::outcome::Outcome);
    /// What a transition wants done; called on the leader only, in log order.
    fn effect(&self, effect: Effect);
}

/// One answer for one client.
pub struct Answer {
    pub to: ReplyTo,
    pub operation: Operation,
    pub asked: Asked,
    pub received: Option<Instant>,
    pub result: Result<Outcome, Refusal>,
    /// The node to ask directly next time, if it is not the one that the client asked.
    pub ask_node: Option<NodeId>,
}

/// Timing that the handle needs of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The longest election timeout: a quorum confirmed longer ago does not count.
    pub election_max: Duration,
    /// How long no lease ends after a change of leader.
    pub grace: Duration,
}

/// What a node knows of the log, for status and metrics.
#[derive(Clone, Debug)]
pub struct RaftStatus {
    pub role: status::Role,
    pub term: u64,
    pub leader: Option<NodeId>,
    pub commit_index: u64,
    pub applied_index: u64,
    pub last_log_index: u64,
    pub snapshot_index: u64,
    /// Everyone in the consensus group, and whether with a vote.
    pub members: BTreeMap<NodeId, bool>,
}

/// Why a linearizable read can't be served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// This node does not lead, or could not prove that it does.
    NotLeader,
    Overloaded,
}

/// The log, shared by the parts of a node.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    me: NodeId,
    timing: Timing,
    state: SharedState,
    broker: SharedBroker,
    /// `<prefix>.int.forward`
    forward_subject: String,
    stats: Arc<Stats>,
    desk: Mutex<Desk>,
    wake: Notify,
    /// Whether more was over after the newest entry of this leader than that entry could end.
    still_due: AtomicBool,
    reads: Mutex<Vec<oneshot::Sender<Result<(), ReadError>>>>,
    read_wake: Notify,
    /// The highest term of which an entry was applied here.
    applied_term: AtomicU64,
    /// Counts the changes of the view that were applied here.
    view_changes: watch::Sender<u64>,
    /// Who belongs, as of the last such entry that was applied here.
    members: watch::Sender<Members>,
    /// Whether this node had a vote, and has none any more.
    voted_out: watch::Sender<bool>,
    running: OnceLock<Running>,
}

/// What exists only once Raft runs.
struct Running {
    raft: Raft,
    metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    answers: Arc<dyn Answers>,
    /// The leadership that is gone without another in its place.
    lost: watch::Receiver<Option<Vote>>,
}

impl Running {
    /// The leader of a vote, unless it is gone.
    fn heard_leader(&self, leader: Option<NodeId>, vote: &Vote) -> Option<NodeId> {
        leader.filter(|_| self.lost.borrow().as_ref() != Some(vote))
    }
}

struct Desk {
    proposals: Proposals,
    /// There while this node leads.
    clock: Option<LeaderClock>,
    proposed_at: Instant,
}

impl Handle {
    pub fn new(
        (me, boot): (NodeId, BootId),
        timing: Timing,
        (broker, prefix): (SharedBroker, &str),
        stats: Arc<Stats>,
    ) -> Self {
        Handle(Arc::new(Inner {
            me,
            timing,
            state: SharedState::default(),
            broker,
            forward_subject: format!("{prefix}.int.forward"),
            stats,
            desk: Mutex::new(Desk {
                proposals: Proposals::new(me, boot),
                clock: None,
                proposed_at: time::now(),
            }),
            wake: Notify::new(),
            still_due: AtomicBool::new(false),
            reads: Mutex::new(Vec::new()),
            read_wake: Notify::new(),
            applied_term: AtomicU64::new(0),
            view_changes: watch::Sender::new(0),
            members: watch::Sender::new(Members::default()),
            voted_out: watch::Sender::new(false),
            running: OnceLock::new(),
        }))
    }

    /// The state that the state machine is to change.
    pub fn shared_state(&self) -> SharedState {
        self.0.state.clone()
    }

    /// Which disk the membership names for a node; asks Raft once it runs.
    pub fn known_disk(&self) -> KnownDisk {
        let inner = self.0.clone();
        Arc::new(move |node| {
            let metrics = inner.running.get()?.metrics.borrow_watched();
            Some(metrics.membership_config.membership().get_node(&node)?.disk)
        })
    }

    /// What the state machine is to tell of each entry.
    pub fn observer(&self) -> Arc<dyn Observer> {
        self.0.clone()
    }

    /// Connects the handle with a running Raft and starts its tasks. `lost` tells which leadership is gone.
    pub async fn run(
        &self,
        (raft, lost): (Raft, watch::Receiver<Option<Vote>>),
        answers: Arc<dyn Answers>,
        shutdown: watch::Receiver<bool>,
    ) -> Result<(), crate::broker::SubscribeError> {
        let metrics = raft.metrics();
        let running = Running {
            raft,
            metrics,
            answers,
            lost,
        };
        if self.0.running.set(running).is_err() {
            panic!("a handle runs once");
        }
        let subject = format!("{}.{}", self.0.forward_subject, self.0.me);
        let mut forwards = self.0.broker.subscribe(subject, FORWARD_CAPACITY).await?;
        let inner = self.0.clone();
        let mut stop = shutdown.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    message = forwards.next() => match message {
                        Some(message) => inner.take_forward(&message.payload),
                        None => return,
                    },
                    _ = stop.changed() => return,
                }
            }
        });
        tokio::spawn(self.0.clone().watch_roles(shutdown.clone()));
        tokio::spawn(self.0.clone().serve_reads(shutdown.clone()));
        tokio::spawn(self.0.clone().drive(shutdown));
        self.0.refresh_role();
        Ok(())
    }

    /// Submits a command; its ticket is answered exactly once, at the deadline at the latest.
    pub fn submit(&self, submission: Submission) {
        self.0.stats.raft.proposals.inc();
        let submitted = self.0.desk().proposals.submit(submission);
        match submitted {
            Ok(()) => self.0.wake.notify_one(),
            Err(refused) => self.0.deliver([*refused]),
        }
    }

    /// Submits a command of this node and waits for its outcome.
    pub async fn call(&self, command: Command, timeout: Duration) -> Result<Outcome, Refusal> {
        self.call_with(Ticket::Caller, command, timeout).await
    }

    /// The same for what this node may say only while it leads `term`: it takes effect in that term or never.
    pub async fn call_as_leader(
        &self,
        term: u64,
        command: Command,
        timeout: Duration,
    ) -> Result<Outcome, Refusal> {
        let ticket = |sender| Ticket::Leader(sender, term);
        self.call_with(ticket, command, timeout).await
    }

    async fn call_with(
        &self,
        ticket: impl FnOnce(oneshot::Sender<Result<Outcome, Refusal>>) -> Ticket,
        command: Command,
        timeout: Duration,
    ) -> Result<Outcome, Refusal> {
        let (sender, receiver) = oneshot::channel();
        let deadline = time::now() + timeout;
        self.submit(Submission {
            command,
            ticket: ticket(sender),
            deadline,
        });
        receiver.await.unwrap_or(Err(Refusal::Indeterminate))
    }

    /// Waits until this node has proved that it leads and has applied all that was committed
    /// before: then its state may be read linearizably.
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        if !matches!(self.0.desk().proposals.role(), Role::Leader { .. }) {
            return Err(ReadError::NotLeader);
        }
        let (sender, receiver) = oneshot::channel();
        {
            let mut reads = self.0.reads.lock().expect("no holder panics");
            if reads.len() >= READS_MAX {
                return Err(ReadError::Overloaded);
            }
            reads.push(sender);
        }
        self.0.read_wake.notify_one();
        receiver.await.unwrap_or(Err(ReadError::NotLeader))
    }

    /// Follows the changes of the view that are applied here.
    pub fn view_changes(&self) -> watch::Receiver<u64> {
        self.0.view_changes.subscribe()
    }

    /// Reads the state at the leader's lease time, or at the state's own on other nodes.
    pub fn read<T>(&self, read: impl FnOnce(&State, u64) -> T) -> T {
        let leader_ms = self.0.desk().clock.as_ref().map_or(0, LeaderClock::now_ms);
        let state = self.0.state.lock();
        read(&state, state.now_ms().max(leader_ms))
    }

    /// The role, term and leader as of now.
    pub fn role(&self) -> Role {
        self.0.desk().proposals.role()
    }

    /// The node that leads, as far as is known here.
    pub fn leader(&self) -> Option<NodeId> {
        self.0.leader()
    }

    /// Whether every command accepted here has been settled.
    pub fn is_idle(&self) -> bool {
        self.0.desk().proposals.is_idle()
    }

    /// Commands that this node took and that have no outcome yet.
    pub fn pending(&self) -> usize {
        self.0.desk().proposals.pending()
    }

    pub fn status(&self) -> RaftStatus {
        let running = self.0.running();
        let metrics = running.metrics.borrow_watched().clone();
        let index = |id: &Option<LogId>| id.as_ref().map_or(0, |id| id.index());
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        RaftStatus {
            role: wire_role(metrics.state),
            term: metrics.current_term,
            leader: running.heard_leader(metrics.current_leader, &metrics.vote),
            commit_index: index(&metrics.local_committed),
            applied_index: index(&metrics.last_applied),
            last_log_index: metrics.last_log_index.unwrap_or(0),
            snapshot_index: index(&metrics.snapshot),
            members: membership
                .nodes()
                .map(|(id, _)| (*id, voters.contains(id)))
                .collect(),
        }
    }

    /// The index of the newest entry that is known to be applied here; 0 before any.
    pub(super) fn applied_index(&self) -> u64 {
        let metrics = self.0.running().metrics.borrow_watched();
        metrics.last_applied.map_or(0, |id| id.index)
    }

    /// The newest entry that is known to be applied here, and who belongs as of then.
    pub(super) fn position(&self) -> (Option<LogId>, StoredMembership) {
        let metrics = self.0.running().metrics.borrow_watched();
        (metrics.last_applied, (*metrics.membership_config).clone())
    }

    /// The error that stopped Raft, if one did: a node that can't write its log must not go on.
    pub fn fatal(&self) -> Option<String> {
        let metrics = self.0.running().metrics.borrow_watched();
        metrics
            .running_state
            .as_ref()
            .err()
            .map(ToString::to_string)
    }

    /// Refuses what was never sent, and ends Raft.
    pub async fn shut_down(&self) {
        let mut due = Vec::new();
        self.0.desk().proposals.shut_down(&mut due);
        self.0.deliver(due);
        let _ = self.0.running().raft.shutdown().await;
    }
}

fn wire_role(state: ServerState) -> status::Role {
    match state {
        ServerState::Learner => status::Role::Learner,
        ServerState::Follower | ServerState::Shutdown => status::Role::Follower,
        ServerState::Candidate => status::Role::Candidate,
        ServerState::Leader => status::Role::Leader,
    }
}

fn failure(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::NoLeader => Failure::NoLeader,
        Refusal::Timeout => Failure::Timeout,
        Refusal::Indeterminate => Failure::Indeterminate,
        Refusal::Overloaded => Failure::Overloaded,
        Refusal::ShuttingDown => Failure::ShuttingDown,
    }
}

impl Inner {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().expect("no holder of the desk panics")
    }

    fn running(&self) -> &Running {
        self.running.get().expect("used only once Raft runs")
    }

    fn leader(&self) -> Option<NodeId> {
        match self.desk().proposals.role() {
            Role::Leader { .. } | Role::Elected { .. } => Some(self.me),
            Role::Follower { leader, .. } => Some(leader),
            Role::Leaderless => None,
        }
    }

    /// Gives answers that came due. Never called with the desk locked.
    fn deliver(&self, due: impl IntoIterator<Item = Due>) {
        for Due {
            ticket,
            operation,
            asked,
            result,
            forwarded,
        } in due
        {
            if let Err(refusal) = result {
                self.stats.raft.proposal_failed(failure(refusal));
            }
            match ticket {
                Ticket::Client { to, received, .. } => {
                    let operation = operation.expect("clients submit operations only");
                    let ask_node = match (forwarded, &result) {
                        (true, _) => Some(self.me),
                        (false, Ok(_)) => None,
                        (false, Err(_)) => self.leader().filter(|leader| *leader != self.me),
                    };
                    let received = Some(received);
                    let answer = Answer {
                        to,
                        operation,
                        asked,
                        received,
                        result,
                        ask_node,
                    };
                    self.running().answers.answer(answer);
                }
                Ticket::Caller(sender) | Ticket::Leader(sender, _) => {
                    let _ = sender.send(result);
                }
                Ticket::Nobody => {}
            }
        }
    }

    async fn serve_reads(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                biased;
                () = self.read_wake.notified() => {}
                _ = shutdown.changed() => return,
            }
            let waiting = std::mem::take(&mut *self.reads.lock().expect("no holder panics"));
            if waiting.is_empty() {
                continue;
            }
            let raft = &self.running().raft;
            let barrier = raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
            let result = barrier.map(|_| ()).map_err(|_| ReadError::NotLeader);
            for read in waiting {
                let _ = read.send(result);
            }
        }
    }
}
