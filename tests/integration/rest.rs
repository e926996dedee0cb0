//! A cluster at rest: everyone has joined the view, so that nothing but requests changes the state.

use mufakat::protocol::status::StateHash;

use crate::cluster::Cluster;
use crate::wait;

/// Waits until all nodes are in the view, and returns the state that all of them have.
pub async fn state_at_rest(cluster: &Cluster) -> StateHash {
    wait::until("all nodes are in the view", async || {
        for node in cluster.ids() {
            let members = cluster.status(node).await?.members;
            let all = members.len() == cluster.ids().len()
                && members.iter().all(|member| member.incarnation.is_some());
            all.then_some(())?;
        }
        Some(())
    })
    .await;
    cluster.state_hashes().await
}
