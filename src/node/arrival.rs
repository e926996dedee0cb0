//! How a node comes into its cluster.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Core;
use super::agreement::{self, Disagreement};
use crate::raft::bootstrap::{self, BootstrapError, Start};
use crate::raft::command::Command;
use crate::raft::presence::Presence;
use crate::raft::proposals::Refusal;
use crate::time;
use crate::view::service::Keeper;

/// How often a lease on the view is renewed while it lasts: three may be lost.
const RENEWALS: u32 = 4;
/// How long a node that starts goes on with catching up before it serves clients all the same.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);

/// Why a node does not come into its cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error(transparent)]
    Disagreement(#[from] Disagreement),
}

impl Core {
    /// Returns once this node has a vote in a cluster and has caught up; from then on it takes part in
    /// the view, until `stopped`.
    ///
    /// # Errors
    /// When the cluster knows this node with another data directory, when a setting that has to be alike on
    /// all nodes is not, or Raft had to stop.
    pub async fn join(&self, stopped: watch::Receiver<bool>) -> Result<(), JoinError> {
        let start = match self.config.join {
            true => Start::Join,
            false => Start::Found(&self.config.peers),
        };
        bootstrap::join_or_found(&self.handle, &self.raft, &self.network, start).await?;
        agreement::compare(&self.network, &self.handle, &self.config).await?;
        let keeper = Keeper {
            handle: self.handle.clone(),
            network: self.network.clone(),
            presence: Presence::new(self.network.clone()),
            tenant: Arc::new(self.dispatch.cache.clone()),
            clock: self.clock,
            suspicion: self.config.suspicion,
            heartbeat: self.config.heartbeat,
            renew_every: self.config.view_lease / RENEWALS,
            leaving: self.leaving.subscribe(),
        };
        // Not before: a node that does not get so far would be in the way of those that serve.
        self.catch_up().await?;
        tokio::spawn(keeper.run(stopped));
        Ok(())
    }

    /// Waits until this node has applied a command of its own, and so all that was committed before: what
    /// it forwards for clients in the meantime may be in a snapshot that it is sent, without a word about
    /// the outcome. Without a leader there is nothing to wait for.
    ///
    /// # Errors
    /// When Raft had to stop.
    async fn catch_up(&self) -> Result<(), BootstrapError> {
        let until = time::now() + CATCH_UP_MAX;
        let place_in_log = || Command::Marks(Vec::new());
        let election = 2 * self.config.election_max;
        loop {
            let called = self.handle.call(place_in_log(), election).await;
            if let Some(fatal) = self.handle.fatal() {
                return Err(BootstrapError::Stopped(fatal));
            }
            match called {
                Err(Refusal::Indeterminate | Refusal::Timeout) if time::now() < until => {}
                Ok(_) | Err(_) => return Ok(()),
            }
        }
    }
}
