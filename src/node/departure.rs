//! How a node leaves the view: since it stops, or since it was removed from the cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::Core;
use crate::ids::NodeId;
use crate::raft::bootstrap;
use crate::raft::message::Refusal;
use crate::raft::network::CallError;
use crate::time;
use crate::view::cluster::View;

/// How long a stopping node waits until the view is without it: a few entries of the log, and the others'
/// words that they are ready. Without a leader it does not wait.
const LEAVE_MAX: Duration = Duration::from_secs(1);
/// How long a stopping node waits until second nodes have what the change of the view before gave them: a value that
/// only this node has goes with it.
const SETTLE_MAX: Duration = Duration::from_secs(3);
const SETTLE_LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the others have to say whether they stay.
const ASK_MAX: Duration = Duration::from_millis(200);
/// The kind of call that asks so.
pub(super) const STAYS: &str = "stays";
/// How long a node that was removed waits until the view knows.
const LEAVE_VIEW_MAX: Duration = Duration::from_secs(3);
/// How long no leader may be heard of before a node asks whether it was removed, and how often it looks.
const ALONE_MAX: Duration = Duration::from_secs(2);
const REMOVAL_LOOK_EVERY: Duration = Duration::from_millis(500);

impl Core {
    /// Returns once this node, which had a vote, was removed and has left the view.
    pub async fn removed(&self) {
        tokio::select! {
            () = self.handle.voted_out() => {}
            () = self.told_of_removal() => {}
        }
        tracing::info!("removed from the cluster");
        // Without it, others wait for the end of this node's lease.
        let _ = tokio::time::timeout(LEAVE_VIEW_MAX, self.left_view()).await;
    }

    /// Leaves the view for good, as far as that goes within a second after the view has settled.
    pub async fn leave_view(&self) {
        let leads = || self.handle.leader().is_some();
        if leads() && !self.has_settled() && !self.staying().await.is_empty() {
            let _ = tokio::time::timeout(SETTLE_MAX, self.settled()).await;
        }
        self.leaving.send_replace(true);
        if leads() {
            let _ = tokio::time::timeout(LEAVE_MAX, self.left_view()).await;
        }
    }

    /// Whether the view is not about to change, and the change before has left nothing to do here.
    fn has_settled(&self) -> bool {
        let is_changing = self.handle.read(|state, _| state.view.next().is_some());
        !is_changing && self.dispatch.cache.has_moved()
    }

    async fn settled(&self) {
        while !self.has_settled() {
            tokio::time::sleep(SETTLE_LOOK_EVERY).await;
        }
    }

    /// The other voters, without those that are gone or say that they stop as well.
    pub async fn staying(&self) -> BTreeSet<NodeId> {
        let me = self.network.identity().node;
        let voters = self.handle.known_members().voters();
        let others = voters.into_iter().filter(|node| *node != me);
        let asked = others.map(|node| async move {
            let answer = self.network.call(node, STAYS, Bytes::new(), ASK_MAX).await;
            let stops = matches!(
                answer,
                Err(CallError::NoResponders | CallError::Refused(Refusal::Stopped))
            );
            (!stops).then_some(node)
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Returns once the active view is without this node.
    async fn left_view(&self) {
        let mut changed = self.handle.view_changes();
        let me = self.network.identity().node;
        let acts = |view: &View| view.member(me).is_some();
        while self.handle.read(|state, _| acts(&state.view)) && changed.changed().await.is_ok() {}
    }

    /// Who was away while it was removed hears of no leader, and asks the others why.
    async fn told_of_removal(&self) {
        let mut alone_since = time::now();
        loop {
            tokio::time::sleep(REMOVAL_LOOK_EVERY).await;
            if self.handle.leader().is_some() {
                alone_since = time::now();
            } else if alone_since.elapsed() > ALONE_MAX
                && bootstrap::was_removed(&self.handle, &self.network).await
            {
                return;
            }
        }
    }
}
