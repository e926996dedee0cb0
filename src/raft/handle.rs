//! The log as the rest of a node sees it: submit a command, read linearizably, ask for its status.
//!
//! Three tasks, each started by [`Handle::run`] and ended by the shutdown watch: the driver
//! (proposes, forwards, steps lease time), the receiver of forwards, and the reader (one ReadIndex
//! round serves all reads that waited when it began; nobody joins a running round).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{Instant as _, RaftMetrics, ReadPolicy, ServerState};
use tokio::sync::{Notify, oneshot, watch};

use crate::broker::{Outgoing, SharedBroker};
use crate::ids::{BootId, NodeId};
use crate::lock;
use crate::lock::command::Effect;
use crate::protocol::{Operation, ReplyTo, status};
use crate::raft::clock::LeaderClock;
use crate::raft::command::{Batch, Command};
use crate::raft::frame;
use crate::raft::network::KnownDisk;
use crate::raft::proposals::{Due, Forward, Proposals, Refusal, Role, Submission, Ticket, Work};
use crate::raft::state::{Outcome, State};
use crate::raft::state_machine::{Applied, Observer, SharedState, StateMachine};
use crate::raft::types::{LogId, Told, TypeConfig};
use crate::stats::{self, Stats};
use crate::time::{self, Instant};

pub type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// How often lease time is stepped, deadlines are looked at, and late forwards are sent again.
const TICK: Duration = Duration::from_millis(100);
/// While a deadline is pending, lease time reaches the log at least this often, or a change of
/// leader would give back what the old leader's clock had counted.
const TIME_ENTRY_AFTER: Duration = Duration::from_millis(400);
/// Forwards wait at the leader as long as at their sender, which is the one that gives up.
const FORWARD_KEPT: Duration = Duration::from_secs(120);
/// Messages of forwards not yet looked at; senders repeat what does not fit.
const FORWARD_CAPACITY: usize = 1024;
/// Reads that wait for a ReadIndex round.
const READS_MAX: usize = 65_536;

/// Who gives the answers that come out of the log.
pub trait Answers: Send + Sync + 'static {
    /// The end of a client's command.
    fn answer(&self, answer: Answer);
    /// The end of a wait that an earlier leader may have told already.
    fn answer_again(&self, to: ReplyTo, outcome: lock::command::Outcome);
    /// What a transition wants done; called on the leader only, in log order.
    fn effect(&self, effect: Effect);
}

/// One answer for one client.
pub struct Answer {
    pub to: ReplyTo,
    pub operation: Operation,
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
    reads: Mutex<Vec<oneshot::Sender<Result<(), ReadError>>>>,
    read_wake: Notify,
    /// The highest term of which an entry was applied here.
    applied_term: AtomicU64,
    running: OnceLock<Running>,
}

/// What exists only once Raft runs.
struct Running {
    raft: Raft,
    metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    answers: Arc<dyn Answers>,
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
            reads: Mutex::new(Vec::new()),
            read_wake: Notify::new(),
            applied_term: AtomicU64::new(0),
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

    /// Connects the handle with a running Raft and starts its tasks.
    pub async fn run(
        &self,
        raft: Raft,
        answers: Arc<dyn Answers>,
        shutdown: watch::Receiver<bool>,
    ) -> Result<(), crate::broker::SubscribeError> {
        let metrics = raft.metrics();
        let running = Running {
            raft,
            metrics,
            answers,
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
        let submitted = self.0.desk().proposals.submit(submission);
        match submitted {
            Ok(()) => self.0.wake.notify_one(),
            Err(refused) => self.0.deliver([*refused]),
        }
    }

    /// Submits a command of this node and waits for its outcome.
    pub async fn call(&self, command: Command, timeout: Duration) -> Result<Outcome, Refusal> {
        let (sender, receiver) = oneshot::channel();
        let deadline = time::now() + timeout;
        self.submit(Submission {
            command,
            ticket: Ticket::Caller(sender),
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

    /// As the leader: how long each other voter has been silent; those never heard of since this
    /// node leads are left out until it has led for longer than that.
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

    pub fn status(&self) -> RaftStatus {
        let metrics = self.0.running().metrics.borrow_watched().clone();
        let index = |id: &Option<LogId>| id.as_ref().map_or(0, |id| id.index());
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        RaftStatus {
            role: wire_role(metrics.state),
            term: metrics.current_term,
            leader: metrics.current_leader,
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

    /// The error that stopped Raft, if one did: a node that can't write its log must not go on.
    pub fn fatal(&self) -> Option<String> {
        let metrics = self.0.running().metrics.borrow_watched();
        metrics
            .running_state
            .as_ref()
            .err()
            .map(ToString::to_string)
    }

    /// Hands leadership to the voter that is furthest, if this node leads and there is another,
    /// and returns when that one leads or at `deadline`.
    pub async fn hand_over(&self, deadline: Instant) {
        let running = self.0.running();
        let target = {
            let metrics = running.metrics.borrow_watched();
            let Some(replication) = metrics.replication.as_ref() else {
                return;
            };
            replication
                .iter()
                .filter(|(id, _)| **id != self.0.me)
                .max_by_key(|(_, at)| **at)
                .map(|(id, _)| *id)
        };
        let Some(target) = target else { return };
        let _ = running.raft.trigger().transfer_leader(target).await;
        // Raft has only begun: a node that ends now takes a vote away while another is elected.
        let mut server = running.raft.server_metrics();
        let another_leads = async {
            loop {
                let leader = server.borrow_watched().current_leader;
                if leader.is_some_and(|leader| leader != self.0.me)
                    || server.changed().await.is_err()
                {
                    return;
                }
            }
        };
        if tokio::time::timeout_at(deadline, another_leads)
            .await
            .is_err()
        {
            tracing::warn!(%target, "leadership was not taken over in time");
        }
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
            result,
            forwarded,
        } in due
        {
            match ticket {
                Ticket::Client { to, received } => {
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
                        received,
                        result,
                        ask_node,
                    };
                    self.running().answers.answer(answer);
                }
                Ticket::Caller(sender) => {
                    let _ = sender.send(result);
                }
                Ticket::Nobody => {}
            }
        }
    }

    async fn drive(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = shutdown.changed() => return,
                _ = tick.tick() => self.on_tick().await,
                () = self.wake.notified() => {}
            }
            // A refused batch waits for the next tick, however much else there is to do.
            while let Some(work) = self.next_work() {
                self.perform(work).await;
            }
        }
    }

    fn next_work(&self) -> Option<Work> {
        let now = time::now();
        let mut desk = self.desk();
        let Desk {
            proposals,
            clock,
            proposed_at,
        } = &mut *desk;
        let work = proposals.next_work(now, || {
            let clock = clock.as_mut().expect("a leader has a clock");
            clock.step(now, self.is_confirmed())
        });
        if let Some(Work::Propose { .. }) = work {
            *proposed_at = now;
        }
        work
    }

    async fn perform(self: &Arc<Self>, work: Work) {
        match work {
            Work::Propose { term, batch } => self.propose(term, batch).await,
            Work::Forward { to, forward } => {
                let payload = frame::seal(&forward).expect("forwards have a bounded size");
                let subject = format!("{}.{to}", self.forward_subject);
                // What is not sent now is sent again after a while.
                let _ = self.broker.publish(Outgoing {
                    subject,
                    payload,
                    ..Outgoing::default()
                });
            }
        }
    }

    async fn propose(self: &Arc<Self>, term: u64, batch: Batch) {
        self.stats
            .raft
            .batch_commands
            .observe(u64::from(batch.count));
        // Raft refuses a batch when this node just lost the lead, or did not hear from a quorum
        // lately: its commands wait for the next tick. It must not enter the log in a later term,
        // since an entry of that term makes its commands go again.
        let (inner, number) = (self.clone(), batch.number);
        let told = Told::new(move |result: ClientWriteResult<TypeConfig>| {
            // Any other error may befall a batch that is in the log of other nodes already.
            if matches!(result, Err(ClientWriteError::ForwardToLeader(_))) {
                inner.desk().proposals.refused(number);
            }
        });
        let write = self.running().raft.write(batch);
        let _ = write.with_leader(term).responder(told).await;
    }

    async fn on_tick(self: &Arc<Self>) {
        let now = time::now();
        let mut due = Vec::new();
        let (again, time_entry, overdue) = {
            let mut desk = self.desk();
            desk.proposals.sweep(now, &mut due);
            let overdue = desk.proposals.overdue_waits(now);
            (
                desk.proposals.forward_again(now),
                self.time_entry(&mut desk, now),
                overdue,
            )
        };
        self.deliver(due);
        for to in overdue {
            self.running().answers.answer(Answer {
                to,
                operation: Operation::LockAcquire,
                received: None,
                result: Err(Refusal::Indeterminate),
                ask_node: None,
            });
        }
        if let Some(work) = again {
            self.perform(work).await;
        }
        if let Some((term, batch)) = time_entry {
            self.propose(term, batch).await;
        }
    }

    /// Steps lease time, and puts it into the log if something is due or time has not been
    /// logged for a while. One at a time: without a quorum none follows.
    fn time_entry(&self, desk: &mut Desk, now: Instant) -> Option<(u64, Batch)> {
        let now_ms = desk.clock.as_mut()?.step(now, self.is_confirmed());
        if desk.proposals.is_proposing() {
            return None;
        }
        let due_ms = self.state.lock().locks.next_deadline()?;
        let quiet = now.duration_since(desk.proposed_at) >= TIME_ENTRY_AFTER;
        if due_ms > now_ms && !quiet {
            return None;
        }
        let tick = desk.proposals.tick(now, now_ms)?;
        desk.proposed_at = now;
        Some(tick)
    }

    /// Whether a quorum has answered this leader within an election timeout.
    fn is_confirmed(&self) -> bool {
        let metrics = self.running().metrics.borrow_watched();
        if metrics.membership_config.membership().voter_ids().count() == 1 {
            return true;
        }
        metrics
            .last_quorum_acked
            .is_some_and(|at| at.elapsed() <= self.timing.election_max)
    }

    async fn watch_roles(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut server = self.running().raft.server_metrics();
        loop {
            self.refresh_role();
            tokio::select! {
                biased;
                changed = server.changed() => if changed.is_err() { return },
                _ = shutdown.changed() => return,
            }
        }
    }

    /// Takes over the role that Raft has now.
    fn refresh_role(&self) {
        let Some(running) = self.running.get() else {
            return;
        };
        let server = running.raft.server_metrics();
        let (state, term, leader) = {
            let server = server.borrow_watched();
            (
                server.state,
                server.vote.leader_id().term,
                server.current_leader,
            )
        };
        let role = match (state, leader) {
            (ServerState::Leader, _) if self.applied_term.load(Ordering::Relaxed) == term => {
                Role::Leader { term }
            }
            (ServerState::Leader, _) => Role::Elected { term },
            (_, Some(leader)) if leader != self.me => Role::Follower { leader, term },
            _ => Role::Leaderless,
        };
        let took_over = {
            let mut desk = self.desk();
            let before = desk.proposals.role();
            if before == role {
                return;
            }
            desk.proposals.set_role(role);
            // What was sent while the role was behind the log goes again.
            let applied_term = self.applied_term.load(Ordering::Relaxed);
            desk.proposals.term_applied(applied_term);
            let leads = matches!(role, Role::Leader { .. });
            let now = time::now();
            desk.clock = leads.then(|| LeaderClock::new(self.state.lock().now_ms(), now));
            if leads {
                let grace_ms = self.timing.grace.as_millis() as u64;
                desk.proposals
                    .start_term(Command::TermStarted { grace_ms }, now);
            }
            leads
        };
        tracing::info!(?role, "role");
        if took_over {
            self.tell_recent_endings();
        }
        self.wake.notify_one();
    }

    /// The leader before may have died between the commit of a grant and its reply.
    fn tell_recent_endings(&self) {
        let endings: Vec<(ReplyTo, lock::command::Outcome)> = {
            let state = self.state.lock();
            let endings = state.locks.recent_endings(state.now_ms());
            endings.map(|(to, outcome)| (to.clone(), outcome)).collect()
        };
        for (to, outcome) in endings {
            self.running().answers.answer_again(to, outcome);
        }
    }

    fn take_forward(&self, payload: &[u8]) {
        let Ok(forward) = frame::unseal::<Forward>(payload) else {
            self.stats.raft.frame_refused(stats::Refusal::Malformed);
            return;
        };
        let now = time::now();
        self.desk()
            .proposals
            .accept_forward(forward, now, now + FORWARD_KEPT);
        self.wake.notify_one();
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

impl Observer for Inner {
    fn applied(&self, entry: Applied<'_>) {
        let Applied {
            term,
            batch,
            commands,
            outcomes,
            effects,
        } = entry;
        let mut due = Vec::new();
        let (proposed_at, leads, more) = {
            let mut desk = self.desk();
            let proposals = &mut desk.proposals;
            let proposed_at = proposals.applied(term, batch, commands, outcomes, &mut due);
            for effect in &effects {
                if let Effect::WaitEnded { reply, .. } = effect {
                    proposals.wait_ended(reply);
                }
            }
            let leads = proposals.role() == Role::Leader { term };
            (proposed_at, leads, proposals.has_work())
        };
        if let Some(at) = proposed_at {
            self.stats.raft.commit.observe_duration(at.elapsed());
        }
        self.deliver(due);
        if leads {
            for effect in effects {
                self.running().answers.effect(effect);
            }
        }
        if term > self.applied_term.fetch_max(term, Ordering::Relaxed) {
            self.refresh_role();
        }
        if more {
            self.wake.notify_one();
        }
    }

    fn term_applied(&self, term: u64) {
        self.desk().proposals.term_applied(term);
        if term > self.applied_term.fetch_max(term, Ordering::Relaxed) {
            self.refresh_role();
        }
        self.wake.notify_one();
    }

    fn installed(&self, term: u64) {
        let mut due = Vec::new();
        self.desk().proposals.installed(&mut due);
        self.applied_term.fetch_max(term, Ordering::Relaxed);
        if self.running.get().is_some() {
            self.deliver(due);
            self.refresh_role();
        }
    }
}
