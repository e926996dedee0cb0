//! Who belongs to the cluster, and changes of it, as operators make them.

use crate::client::call::Answers;
use crate::client::{Client, ClientError};
use crate::ids::NodeId;
use crate::protocol::Operation;
use crate::protocol::backup::{self, Part};
use crate::protocol::cluster::{Changed, Members, Request, Wish};

// Any node answers, for the leader.
impl Answers for Members {
    const BY_EXECUTOR: bool = false;
}

impl Answers for Changed {
    const BY_EXECUTOR: bool = false;
}

impl Answers for Part {
    const BY_EXECUTOR: bool = false;
}

impl Client {
    /// Who belongs to the cluster, as the leader knows it.
    ///
    /// # Errors
    /// `no_leader`, or no answer at all.
    pub async fn members(&self) -> Result<Members, ClientError> {
        let request = Request::new(Wish::Know);
        self.repeat(Operation::ClusterMembers, None, &request).await
    }

    /// Gives a node a vote that was started with `--join`; returns once it has one. May be repeated.
    ///
    /// # Errors
    /// `reconfiguring` when the node does not answer, another change is under way, or no majority
    /// would be there; `bad_request` when the number belongs to another data directory;
    /// `indeterminate` when it takes longer than `timeout_ms`, which does not end it.
    pub async fn add_node(&self, node: NodeId, timeout_ms: u64) -> Result<Changed, ClientError> {
        self.change(Wish::Add(node), timeout_ms).await
    }

    /// Removes a node, alive or dead; returns once it has no vote, has left and is forgotten. May be
    /// repeated.
    ///
    /// # Errors
    /// As those of [`Client::add_node`]; `bad_request` for the only node with a vote, `not_found` for
    /// one that never belonged.
    pub async fn remove_node(&self, node: NodeId, timeout_ms: u64) -> Result<Changed, ClientError> {
        self.change(Wish::Remove(node), timeout_ms).await
    }

    /// Has `node` lead, or any other than the one that does; returns once it does.
    ///
    /// # Errors
    /// `bad_request` for a node without a vote, `reconfiguring` for one that does not take over.
    pub async fn transfer_leadership(
        &self,
        node: Option<NodeId>,
        timeout_ms: u64,
    ) -> Result<Changed, ClientError> {
        self.change(Wish::Transfer(node), timeout_ms).await
    }

    /// One part of a copy of the replicated state; the node that made it has the others.
    ///
    /// # Errors
    /// `not_found` when the node does not keep it any more, `no_leader` when none can be made now.
    pub async fn backup_part(&self, request: &backup::Request) -> Result<Part, ClientError> {
        let operation = Operation::AdminClusterBackup;
        self.repeat(operation, request.timeout_ms, request).await
    }

    async fn change(&self, wish: Wish, timeout_ms: u64) -> Result<Changed, ClientError> {
        let request = Request {
            timeout_ms: Some(timeout_ms),
            ..Request::new(wish)
        };
        self.repeat(request.operation(), request.timeout_ms, &request)
            .await
    }
}
