//! The cache: values read from the memory of nodes, and written at their homes.

use bytes::Bytes;

use crate::client::call::{Answers, Before, Call};
use crate::client::{Client, ClientError};
use crate::ids::NodeId;
use crate::protocol::Operation;
use crate::protocol::cache::{
    AskStats, Audit, Audited, Counted, Delete, Deleted, Explain, Explained, Found, FoundMany, Get,
    GetMany, Increment, Invalidate, Invalidated, Repeat, Set, Stats, Touch, Written,
};

/// Any node answers these.
macro_rules! answers {
    ($($name:ident)*) => {
        $(impl Answers for $name {
            const BY_EXECUTOR: bool = false;
        })*
    };
}

answers! { Audited Found FoundMany Written Deleted Counted Invalidated Explained Stats }

impl Client {
    /// Reads a key, waiting for whoever loads it as long as `wait_ms` says.
    ///
    /// # Errors
    /// `no_lease` or `timeout` when no node was allowed to answer in time.
    pub async fn cache_get(&self, request: &Get) -> Result<Found, ClientError> {
        let call = Call::new(Operation::CacheGet, request.timeout_ms, request.wait_ms);
        let mut asked = request.clone();
        let body = |before: Before| {
            before.cut(&mut asked.wait_ms, &mut asked.timeout_ms);
            self.encode(&asked)
        };
        Ok(self.call_until_answered(call, body).await?)
    }

    /// Reads several keys.
    ///
    /// # Errors
    /// As those of [`Client::cache_get`], and `payload_too_large` when the values do not fit into one
    /// answer.
    pub async fn cache_get_many(&self, request: &GetMany) -> Result<FoundMany, ClientError> {
        self.repeat(Operation::CacheGetMany, request.timeout_ms, request)
            .await
    }

    /// Writes a key. Without a `request_id` it is sent again only when it is known not to have taken
    /// effect: a repeat could undo what another client wrote meanwhile.
    ///
    /// # Errors
    /// `already_exists`, `not_found` and `version_mismatch` when the condition does not hold. With an
    /// unknown outcome the value may have been written: ask again with the same `request_id` and
    /// `repeat`.
    pub async fn cache_set(&self, request: &Set) -> Result<Written, ClientError> {
        let call = (Operation::CacheSet, request.timeout_ms);
        let encode = |asked: &Set| self.encode(&asked.body(self.options().encoding));
        self.write(call, request, |asked| &mut asked.repeat, encode)
            .await
    }

    /// Removes a key; sent again as [`Client::cache_set`].
    ///
    /// # Errors
    /// `not_found` and `version_mismatch` when the condition does not hold.
    pub async fn cache_delete(&self, request: &Delete) -> Result<Deleted, ClientError> {
        let call = (Operation::CacheDelete, request.timeout_ms);
        let encode = |asked: &Delete| self.encode(asked);
        self.write(call, request, |asked| &mut asked.repeat, encode)
            .await
    }

    /// Adds to an integer; sent again as [`Client::cache_set`].
    ///
    /// # Errors
    /// `wrong_type` when the value is no integer.
    pub async fn cache_increment(&self, request: &Increment) -> Result<Counted, ClientError> {
        let call = (Operation::CacheIncrement, request.timeout_ms);
        let encode = |asked: &Increment| self.encode(asked);
        self.write(call, request, |asked| &mut asked.repeat, encode)
            .await
    }

    /// Lets a key's lifetime begin anew; sent again as [`Client::cache_set`].
    ///
    /// # Errors
    /// `not_found` when there is no value.
    pub async fn cache_touch(&self, request: &Touch) -> Result<Written, ClientError> {
        let call = (Operation::CacheTouch, request.timeout_ms);
        let encode = |asked: &Touch| self.encode(asked);
        self.write(call, request, |asked| &mut asked.repeat, encode)
            .await
    }

    /// Removes the values with a tag, those whose keys begin with a prefix, or all. When it has
    /// returned, nobody reads a value that was there before. May be sent again.
    ///
    /// # Errors
    /// `indeterminate` when not every node had done its part in time; some values may be removed.
    pub async fn cache_invalidate(&self, request: &Invalidate) -> Result<Invalidated, ClientError> {
        self.repeat(Operation::CacheInvalidate, request.timeout_ms, request)
            .await
    }

    /// What some node knows of a key; with [`Target::Node`](crate::client::Target::Node) that one.
    ///
    /// # Errors
    /// Only when no node answers.
    pub async fn cache_explain(&self, request: &Explain) -> Result<Explained, ClientError> {
        self.repeat(Operation::CacheExplain, request.timeout_ms, request)
            .await
    }

    /// Compares copies of some node with what their homes have; with
    /// [`Target::Node`](crate::client::Target::Node) of that one.
    ///
    /// # Errors
    /// `no_lease` when the node may not serve its copies, `overloaded`.
    pub async fn cache_audit(&self, request: &Audit) -> Result<Audited, ClientError> {
        self.repeat(Operation::CacheAudit, request.timeout_ms, request)
            .await
    }

    /// What the cache of some node has and has counted.
    ///
    /// # Errors
    /// Only when no node answers.
    pub async fn cache_stats(&self) -> Result<Stats, ClientError> {
        self.repeat(Operation::CacheStats, None, &AskStats::default())
            .await
    }

    /// The same of one node. Asks once.
    ///
    /// # Errors
    /// When that node does not answer.
    pub async fn cache_stats_of(&self, node: NodeId) -> Result<Stats, ClientError> {
        self.ask_node(node, Operation::CacheStats).await
    }

    /// A call that is sent again, when it may have taken effect, only as a repeat.
    async fn write<R: Clone, T: Answers>(
        &self,
        (operation, timeout_ms): (Operation, Option<u64>),
        request: &R,
        repeat: impl Fn(&mut R) -> &mut Repeat,
        encode: impl Fn(&R) -> Bytes,
    ) -> Result<T, ClientError> {
        let mut asked = request.clone();
        let call = Call {
            repeatable: repeat(&mut asked).request_id.is_some(),
            ..Call::new(operation, timeout_ms, 0)
        };
        let body = |before: Before| {
            repeat(&mut asked).repeat |= before.is_unknown;
            encode(&asked)
        };
        Ok(self.call_until_answered(call, body).await?)
    }
}
