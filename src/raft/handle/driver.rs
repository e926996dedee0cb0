//! The driver: gets commands into the log, steps lease time, and looks after deadlines.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use tokio::sync::watch;

use super::{Answer, Desk, Inner};
use crate::broker::Outgoing;
use crate::lock::command::Asked;
use crate::protocol::Operation;
use crate::raft::command::Batch;
use crate::raft::frame;
use crate::raft::proposals::{Forward, Refusal, Work};
use crate::raft::types::{Told, TypeConfig};
use crate::stats;
use crate::time::{self, Instant};
use crate::trace::Traced;

/// How often lease time is stepped, and late forwards are sent again.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks at whose time is up: each goes through all that is under way.
const SWEEP_EVERY_MIN: Duration = Duration::from_millis(5);
/// While a deadline is pending, lease time reaches the log at least this often, or a change of
/// leader would give back what the old leader's clock had counted.
const TIME_ENTRY_AFTER: Duration = Duration::from_millis(400);
/// Forwards wait at the leader as long as at their sender, which is the one that gives up.
const FORWARD_KEPT: Duration = Duration::from_secs(120);

impl Inner {
    pub(super) async fn drive(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut swept_at = time::now();
        loop {
            let (gathered, late) = {
                let desk = self.desk();
                let deadline = desk.proposals.next_deadline();
                let late = deadline.map(|at| at.max(swept_at + SWEEP_EVERY_MIN));
                (wait_until(desk.proposals.gather_until()), wait_until(late))
            };
            tokio::select! {
                biased;
                _ = shutdown.changed() => return,
                _ = tick.tick() => self.on_tick().await,
                () = late => {
                    self.sweep();
                    swept_at = time::now();
                }
                () = self.wake.notified() => {}
                () = gathered => {}
            }
            while let Some(work) = self.next_work() {
                self.perform(work).await;
            }
            if self.still_due.swap(false, Ordering::Relaxed) {
                self.log_time().await;
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
                for reply in forward
                    .commands
                    .iter()
                    .filter_map(|(reply, _)| reply.as_ref())
                {
                    reply.trace.goes_to(to);
                }
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

    /// Answers those whose time is up.
    fn sweep(&self) {
        let confirmed = self.is_confirmed();
        let mut due = Vec::new();
        let overdue = self
            .desk()
            .proposals
            .sweep(time::now(), confirmed, &mut due);
        self.deliver(due);
        for to in overdue {
            self.running().answers.answer(Answer {
                to,
                operation: Operation::LockAcquire,
                asked: Asked::default(),
                received: None,
                result: Err(Refusal::Indeterminate),
                ask_node: None,
            });
        }
    }

    async fn on_tick(self: &Arc<Self>) {
        let again = {
            let proposals = &mut self.desk().proposals;
            proposals.propose_again();
            proposals.forward_again(time::now())
        };
        for work in again {
            self.perform(work).await;
        }
        self.log_time().await;
    }

    /// Puts time into the log if that is due.
    async fn log_time(self: &Arc<Self>) {
        let time_entry = self.time_entry(&mut self.desk(), time::now());
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
    pub(super) fn is_confirmed(&self) -> bool {
        let metrics = self.running().metrics.borrow_watched();
        if metrics.membership_config.membership().voter_ids().count() == 1 {
            return true;
        }
        metrics
            .last_quorum_acked
            .is_some_and(|at| at.elapsed() <= self.timing.election_max)
    }

    pub(super) fn take_forward(&self, payload: &[u8]) {
        let Ok(mut forward) = frame::unseal::<Forward>(payload) else {
            self.stats.raft.frame_refused(stats::Refusal::Forward);
            return;
        };
        for (index, header) in std::mem::take(&mut forward.traces) {
            if let Some((Some(reply), command)) = forward.commands.get_mut(index)
                && let Some(operation) = command.operation()
            {
                reply.trace = Traced::begin(operation.name(), self.me, Some(&header));
                reply.trace.note_id(command.request_id());
            }
        }
        let now = time::now();
        self.desk()
            .proposals
            .accept_forward(forward, now, now + FORWARD_KEPT);
        self.wake.notify_one();
    }
}

async fn wait_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
