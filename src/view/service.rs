//! Keeps the replicated cluster view true: this node joins under a new incarnation after each
//! start and after each removal; the leader removes who has been silent too long.

use std::time::Duration;

use tokio::sync::watch;

use crate::ids::{BootId, NodeId};
use crate::raft::command::Command;
use crate::raft::handle::Handle;
use crate::view::cluster;

/// How often the view is compared with what is seen.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long one change may take before it is tried again.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs until `shutdown`. `suspicion` is how long a node may be silent before it is removed.
pub async fn maintain(
    handle: Handle,
    (me, boot): (NodeId, BootId),
    suspicion: Duration,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = shutdown.changed() => return,
            _ = look.tick() => {}
        }
        for change in changes(&handle, (me, boot), suspicion) {
            tracing::info!(?change, "changing the cluster view");
            // A change that fails is found again at the next look.
            let _ = handle.call(Command::View(change), CHANGE_TIMEOUT).await;
        }
    }
}

/// What is wrong with the view, as far as this node can tell.
fn changes(
    handle: &Handle,
    (me, boot): (NodeId, BootId),
    suspicion: Duration,
) -> Vec<cluster::Command> {
    let view = handle.read(|state, _| state.view.clone());
    let mut changes = Vec::new();
    if handle.leader().is_some() && view.member(me).is_none_or(|member| member.boot != boot) {
        changes.push(cluster::Command::Join { node: me, boot });
    }
    for (node, silent) in handle.silence() {
        if silent > suspicion
            && let Some(member) = view.member(node)
        {
            changes.push(cluster::Command::Leave {
                node,
                incarnation: member.incarnation,
            });
        }
    }
    changes
}
