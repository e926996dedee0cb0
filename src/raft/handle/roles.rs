//! What this node is to the log, and what it does with what the log decides.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;

use super::Inner;
use crate::ids::NodeId;
use crate::lock;
use crate::lock::event::Effect;
use crate::protocol::ReplyTo;
use crate::raft::clock::LeaderClock;
use crate::raft::command::Command;
use crate::raft::proposals::Role;
use crate::raft::state::Outcome;
use crate::raft::state_machine::{Applied, Observer};
use crate::raft::types::Membership;
use crate::stats::RaftStats;
use crate::time;

/// What was last seen of votes and leaders, to count what is new.
#[derive(Default)]
struct Seen {
    /// The last term in which this node voted for itself; none before the first look, since the vote may
    /// be from before this start.
    stood: Option<u64>,
    /// The last leader, with its term.
    leader: Option<(u64, NodeId)>,
}

impl Seen {
    /// Takes the term in which this node's vote is its own, if it is, and who leads in which.
    fn note(&mut self, (own, leader): (Option<u64>, Option<(u64, NodeId)>), stats: &RaftStats) {
        let stood = self.stood.replace(self.stood.max(own).unwrap_or(0));
        if stood.is_some_and(|before| own > Some(before)) {
            stats.elections.inc();
        }
        if leader.is_some() && leader != self.leader {
            stats.leader_changes.inc();
            self.leader = leader;
        }
    }
}

impl Inner {
    pub(super) async fn watch_roles(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut server = self.running().raft.server_metrics();
        let mut lost = self.running().lost.clone();
        let mut seen = Seen::default();
        loop {
            {
                let server = server.borrow_watched();
                let vote = server.vote.leader_id();
                let (term, own) = (vote.term, vote.voted_for == self.me);
                let own = own.then_some(term);
                let leader = server.current_leader.map(|leader| (term, leader));
                seen.note((own, leader), &self.stats.raft);
            }
            self.refresh_role();
            tokio::select! {
                biased;
                changed = server.changed() => if changed.is_err() { return },
                Ok(()) = lost.changed() => {}
                _ = shutdown.changed() => return,
            }
        }
    }

    /// Takes over the role that Raft has now.
    pub(super) fn refresh_role(&self) {
        let Some(running) = self.running.get() else {
            return;
        };
        let server = running.raft.server_metrics();
        let (state, term, leader) = {
            let server = server.borrow_watched();
            (
                server.state,
                server.vote.leader_id().term,
                running.heard_leader(server.current_leader, &server.vote),
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
                let started = Command::TermStarted {
                    grace_ms,
                    keeps_over: true,
                };
                desk.proposals.start_term(started, now);
            }
            leads
        };
        tracing::info!(?role, "this node has another role in Raft");
        if took_over {
            self.tell_recent_endings();
        }
        self.wake.notify_one();
    }

    /// The leader before may have died between the commit of a grant and its reply.
    fn tell_recent_endings(&self) {
        let endings: Vec<(ReplyTo, lock::outcome::Outcome)> = {
            let state = self.state.lock();
            let endings = state.locks.recent_endings(state.now_ms());
            endings.map(|(to, outcome)| (to.clone(), outcome)).collect()
        };
        for (to, outcome) in endings {
            self.running().answers.answer_again(to, outcome);
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
            next_deadline_ms,
        } = entry;
        if outcomes.iter().any(|o| matches!(o, Outcome::View(_))) {
            self.view_changes.send_modify(|count| *count += 1);
        }
        let mut due = Vec::new();
        let (proposed_at, leads, more) = {
            let mut desk = self.desk();
            let proposals = &mut desk.proposals;
            let proposed_at =
                proposals.applied(time::now(), term, batch, commands, outcomes, &mut due);
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
        let still_due = leads && next_deadline_ms.is_some_and(|at_ms| at_ms <= batch.now_ms);
        self.still_due.store(still_due, Ordering::Relaxed);
        if more || still_due {
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

    fn members_applied(&self, membership: &Membership) {
        Inner::members_applied(self, membership);
    }

    fn installed(&self, term: u64) {
        let mut due = Vec::new();
        self.view_changes.send_modify(|count| *count += 1);
        self.desk().proposals.give_up_sent(&mut due);
        self.applied_term.fetch_max(term, Ordering::Relaxed);
        if self.running.get().is_some() {
            self.deliver(due);
            self.refresh_role();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Stats;

    #[test]
    fn elections_and_leaders_are_counted_once_each() {
        let stats = Stats::new(&[], &[]);
        let (one, two) = (NodeId(1), NodeId(2));
        let mut seen = Seen::default();
        // The vote of an earlier start says nothing about this one.
        seen.note((Some(3), None), &stats.raft);
        seen.note((Some(3), None), &stats.raft);
        assert_eq!(stats.raft.elections.get(), 0);
        seen.note((Some(4), None), &stats.raft);
        seen.note((Some(4), Some((4, one))), &stats.raft);
        seen.note((None, None), &stats.raft);
        seen.note((None, Some((5, two))), &stats.raft);
        seen.note((None, None), &stats.raft);
        seen.note((None, Some((5, two))), &stats.raft);
        let counts = |stats: &RaftStats| (stats.elections.get(), stats.leader_changes.get());
        assert_eq!(counts(&stats.raft), (1, 2));
        seen.note((Some(6), None), &stats.raft);
        seen.note((Some(7), Some((7, one))), &stats.raft);
        assert_eq!(counts(&stats.raft), (3, 3));
    }
}
