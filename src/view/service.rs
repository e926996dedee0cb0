//! Keeps the replicated cluster view true, and reads it in time: this node joins under a new
//! incarnation after each start and after each removal, if it has a vote; the leader removes who has
//! been silent too long, or for a moment while the broker says that nobody is there, or has no vote any
//! more; who is about to stop leaves by itself, so that nobody waits for the end of its lease; everybody
//! says what it has to say about a view that is prepared.
//!
//! A leader that stalled finds everybody silent, and may have been replaced meanwhile. So silence counts only
//! as far as this node was awake itself ([`awake`]); a majority has to confirm just before
//! that it leads; and what it says of others takes effect in its own term, or never.
//!
//! A read is linearizable: the leader confirms that it leads, by a round that begins after the read
//! was sent. What this node applied itself is looked at too, without that round, so that a change is
//! noticed at once; it gives no lease.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::watch;

use crate::ids::{BootId, Incarnation, NodeId};
use crate::raft::command::Command;
use crate::raft::handle::Handle;
use crate::raft::network::Network;
use crate::raft::presence::{self, Presence};
use crate::raft::proposals::Role;
use crate::time::{self, Instant, LeaseClock};
use crate::view::awake::{self, Awake};
use crate::view::cluster::{self, View};

/// The kind of call that reads the view at the leader.
pub const READ_VIEW: &str = "view.read";

/// How often the view is compared with what is seen.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The same while a view is prepared.
const LOOK_CLOSELY_EVERY: Duration = Duration::from_millis(25);
/// So many missed heartbeats of a member are reason to ask the broker whether it is there: more than it takes
/// to make a connection anew that was lost.
const BEATS_MISSED: u32 = 3;
/// How long one change may take before it is tried again.
const CHANGE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long one read may take; a late answer still gives what is left of its lease.
const READ_TIMEOUT: Duration = Duration::from_millis(500);

/// Who acts on the view.
pub trait Tenant: Send + Sync + 'static {
    /// Takes in a committed view; `read_at_ms` is when its linearizable read was sent, if it was one.
    fn observe(&self, view: &View, read_at_ms: Option<u64>);
    /// What there is to say about the view.
    fn commands(&self, view: &View, leads: bool) -> Vec<cluster::Command>;
}

/// What keeps one node in the view.
pub struct Keeper {
    pub handle: Handle,
    pub network: Network,
    pub presence: Presence,
    pub tenant: Arc<dyn Tenant>,
    pub clock: LeaseClock,
    /// How long a node may be silent before it is removed.
    pub suspicion: Duration,
    /// How often nodes hear of the leader, and it of them.
    pub heartbeat: Duration,
    /// How often the lease is renewed.
    pub renew_every: Duration,
    /// Becomes true when this node is to leave the view, for good.
    pub leaving: watch::Receiver<bool>,
}

/// A term in which this node leads, and since when it knows.
#[derive(Clone, Copy)]
struct Leading {
    term: u64,
    since: Instant,
}

impl Keeper {
    /// Runs until `shutdown`.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let keeper = Arc::new(self);
        presence::tell(&keeper.network);
        tokio::spawn(keeper.clone().renew(shutdown.clone()));
        let awake = Awake::new(time::now(), keeper.suspicion);
        let awake = Arc::new(Mutex::new(awake));
        let look_every = awake::look_every(keeper.suspicion);
        tokio::spawn(stay_awake(awake.clone(), look_every, shutdown.clone()));
        let mut changed = keeper.handle.view_changes();
        let mut leaving = keeper.leaving.clone();
        let mut leading = None;
        loop {
            changed.borrow_and_update();
            leading = keeper.leading(leading);
            let view = keeper.handle.read(|state, _| state.view.clone());
            keeper.tenant.observe(&view, None);
            let look = async {
                keeper.say_own(&view).await;
                if let Some(leading) = leading {
                    keeper.remove_missing(leading, &awake).await;
                }
            };
            tokio::select! {
                biased;
                _ = shutdown.changed() => return,
                () = look => {}
            }
            let pause = match view.next() {
                Some(_) => LOOK_CLOSELY_EVERY,
                None => LOOK_EVERY,
            };
            tokio::select! {
                biased;
                _ = shutdown.changed() => return,
                _ = changed.changed() => {}
                Ok(()) = leaving.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Says what this node has to say for itself.
    async fn say_own(&self, view: &View) {
        let leader = self.handle.leader();
        if leader.is_none() {
            return;
        }
        let mut changes = self.tenant.commands(view, leader == Some(self.me()));
        let has_vote = self.handle.agreed_members().borrow().is_voter(self.me());
        let leaves = *self.leaving.borrow();
        if leaves || !has_vote {
            changes.retain(|change| !matches!(change, cluster::Command::Join { .. }));
        }
        if leaves && let Some(member) = view.latest().get(&self.me()) {
            changes.push(cluster::Command::Leave {
                node: self.me(),
                incarnation: member.incarnation,
            });
        }
        for change in changes {
            tracing::info!(?change, "changing the cluster view");
            // A change that fails is found again at the next look.
            let change = Command::View(change);
            let _ = self.handle.call(change, CHANGE_TIMEOUT).await;
        }
    }

    /// Has those leave who take part no more, as far as a leader can tell whom a majority has just answered.
    async fn remove_missing(&self, leading: Leading, awake: &Mutex<Awake>) {
        let missing = self.missing(leading, awake).await;
        if missing.is_empty() {
            return;
        }
        let proved = tokio::time::timeout(CHANGE_TIMEOUT, self.handle.read_barrier()).await;
        if !matches!(proved, Ok(Ok(()))) {
            return;
        }
        let since = look(awake);
        for (node, incarnation) in missing {
            if look(awake) != since {
                return;
            }
            // Some of them may have answered just now.
            if self.is_voter(node) && !self.is_missed(self.silent(node, leading, awake)) {
                continue;
            }
            let change = cluster::Command::Leave { node, incarnation };
            tracing::info!(?change, "changing the cluster view");
            let change = Command::View(change);
            let said = self
                .handle
                .call_as_leader(leading.term, change, CHANGE_TIMEOUT);
            // A change that fails is found again at the next look.
            let _ = said.await;
        }
    }

    /// Members of the view who take part no more, as the leader of a term sees them.
    async fn missing(&self, leading: Leading, awake: &Mutex<Awake>) -> Vec<(NodeId, Incarnation)> {
        let view = self.handle.read(|state, _| state.view.clone());
        let others = view.latest().iter().filter(|(node, _)| **node != self.me());
        let missed = others.map(async |(&node, member)| {
            let silent = self.silent(node, leading, awake);
            let leaves = !self.is_voter(node) || self.is_gone((node, member.boot), silent).await;
            leaves.then_some((node, member.incarnation))
        });
        join_all(missed).await.into_iter().flatten().collect()
    }

    fn is_voter(&self, node: NodeId) -> bool {
        self.handle.agreed_members().borrow().is_voter(node)
    }

    /// How much of a member's silence this node has heard, as the leader of a term.
    fn silent(&self, node: NodeId, leading: Leading, awake: &Mutex<Awake>) -> Duration {
        let silent = self.handle.silence().get(&node).copied();
        let silent = silent.unwrap_or_else(|| self.unanswered(node, leading));
        lock(awake).heard(silent, time::now())
    }

    /// Whether a member that is silent for so long is to be asked whether it is there.
    fn is_missed(&self, silent: Duration) -> bool {
        silent > self.suspicion.min(self.heartbeat * BEATS_MISSED)
    }

    /// How long a member has been silent that has not answered since this node leads. Who led before was
    /// silent already, or it would lead still: that counts too once it had the time of a heartbeat to
    /// answer in.
    fn unanswered(&self, node: NodeId, leading: Leading) -> Duration {
        let leads = leading.since.elapsed();
        match self.network.led_last() {
            Some((before, heard)) if before == node && leads >= self.heartbeat => heard.elapsed(),
            _ => leads,
        }
    }

    /// Whether a member that is silent for so long takes part no more, as far as can be told.
    async fn is_gone(&self, member: (NodeId, BootId), silent: Duration) -> bool {
        if !self.is_missed(silent) {
            return false;
        }
        match self.presence.takes_part(member, self.heartbeat).await {
            // Its log is slow, as with a slow disk: what the view is for needs no disk.
            Some(true) => false,
            Some(false) => true,
            None => silent > self.suspicion,
        }
    }

    /// Since when this node leads, if it does.
    fn leading(&self, before: Option<Leading>) -> Option<Leading> {
        let Role::Leader { term } = self.handle.role() else {
            return None;
        };
        let since = time::now();
        let same = before.filter(|before| before.term == term);
        Some(same.unwrap_or(Leading { term, since }))
    }

    fn me(&self) -> NodeId {
        self.network.identity().node
    }

    /// Renews the lease in time, and at once when the view has changed.
    async fn renew(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut changed = self.handle.view_changes();
        loop {
            changed.borrow_and_update();
            let read_at_ms = self.clock.now_ms();
            if let Some(view) = self.read().await {
                self.tenant.observe(&view, Some(read_at_ms));
            }
            tokio::select! {
                biased;
                _ = shutdown.changed() => return,
                _ = changed.changed() => {}
                () = tokio::time::sleep(self.renew_every) => {}
            }
        }
    }

    async fn read(&self) -> Option<View> {
        if self.handle.leader() == Some(self.me()) {
            return read_here(&self.handle).await;
        }
        let leader = self.handle.leader()?;
        let answer = self
            .network
            .call(leader, READ_VIEW, Bytes::new(), READ_TIMEOUT);
        rmp_serde::from_slice(&answer.await.ok()?).ok()
    }
}

/// Looks at the clock so often, until `shutdown`.
async fn stay_awake(
    awake: Arc<Mutex<Awake>>,
    every: Duration,
    mut shutdown: watch::Receiver<bool>,
) {
    loop {
        look(&awake);
        tokio::select! {
            biased;
            _ = shutdown.changed() => return,
            () = tokio::time::sleep(every) => {}
        }
    }
}

/// Since when this node has been awake.
fn look(awake: &Mutex<Awake>) -> Instant {
    lock(awake).look(time::now())
}

fn lock(awake: &Mutex<Awake>) -> MutexGuard<'_, Awake> {
    awake.lock().expect("no holder panics")
}

/// The view as the leader has it, once it has proved that it leads.
pub async fn read_here(handle: &Handle) -> Option<View> {
    handle.read_barrier().await.ok()?;
    Some(handle.read(|state, _| state.view.clone()))
}

/// The answer to another node's [`READ_VIEW`].
pub async fn answer_read(handle: &Handle) -> Option<Bytes> {
    let view = read_here(handle).await?;
    Some(
        rmp_serde::to_vec(&view)
            .expect("views always encode")
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_looks_for_a_short_silence_hears_it() {
        for suspicion in [20, 120, 200, 1_000].map(Duration::from_millis) {
            let awake = Arc::new(Mutex::new(Awake::new(time::now(), suspicion)));
            let (_shutdown, told) = watch::channel(false);
            let every = awake::look_every(suspicion);
            let looks = tokio::spawn(stay_awake(awake.clone(), every, told));
            tokio::time::sleep(suspicion * 3).await;
            let heard = lock(&awake).heard(suspicion * 3, time::now());
            assert!(heard > suspicion, "{heard:?} of {suspicion:?}");
            looks.abort();
        }
    }
}
