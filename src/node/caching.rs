//! The cache of a node, the locks that its fences are about, and the store behind it.

use std::sync::Arc;

use anyhow::{Context, Result};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::cache::entry::Fence;
use crate::cache::operation::Why;
use crate::cache::requests::REMEMBERED_MS;
use crate::cache::service::{Answers, CacheService, Fences, Store};
use crate::cache::state::Settings;
use crate::cache::store::RedisStore;
use crate::config::{CacheStore, Config};
use crate::ids::NodeId;
use crate::lock::service::{Found, LockService, Query};
use crate::protocol::Code;
use crate::protocol::lock::Mode;
use crate::queue::keys::Keyspace;
use crate::queue::store;
use crate::raft::handle::Handle;
use crate::raft::posts::Posts;
use crate::time::{Instant, LeaseClock};

/// The cache as this node's configuration has it.
pub(super) fn service(
    config: &Config,
    (posts, clock): (Posts, LeaseClock),
    (answers, locks): (Arc<dyn Answers>, Arc<LockService>),
    store: Option<Arc<dyn Store>>,
) -> CacheService {
    let settings = Settings {
        bytes_max: config.cache_bytes as usize,
        backups: config.cache_backups && store.is_none(),
        store: store.is_some(),
        remember_ms: REMEMBERED_MS,
    };
    let fences = Arc::new(Holders(locks));
    CacheService::new(
        posts,
        clock,
        (config.view_lease, settings),
        (answers, fences),
        store,
    )
}

/// The store behind the cache, if this node's configuration has one.
///
/// # Errors
/// When it is to be in Redis, and there is none.
pub(super) fn store(
    config: &Config,
    me: NodeId,
    (redis, handle): (Option<Arc<store::Store>>, Handle),
) -> Result<Option<Arc<dyn Store>>> {
    if config.cache_store == CacheStore::None {
        return Ok(None);
    }
    let redis = redis.context("--cache-store redis needs --redis")?;
    let prefix = config.prefix.clone();
    let keyspace = move || {
        let cluster = handle.read(|state, _| state.cluster)?;
        Some(Keyspace::new(&prefix, cluster))
    };
    let store = RedisStore::new(me, redis, Box::new(keyspace));
    Ok(Some(Arc::new(store)))
}

/// Asks whoever leads who holds a lock.
struct Holders(Arc<LockService>);

impl Fences for Holders {
    fn look_up(&self, fence: Fence, deadline: Instant) -> BoxFuture<'static, Result<(), Why>> {
        let locks = self.0.clone();
        async move {
            let resource = fence.resource.to_string();
            let view = match locks.find(&Query::Get { resource }, deadline).await {
                Ok(Found::Get(view)) => view,
                Err(refusal) if refusal.code == Code::Overloaded => return Err(Why::TooMany),
                _ => return Err(Why::NoLeader),
            };
            let holder = view.holders.iter().find(|h| h.token == fence.token);
            match holder.map(|holder| holder.grip.mode()) {
                Some(Mode::Exclusive) => Ok(()),
                Some(_) => Err(Why::NotExclusive),
                None => Err(Why::StaleToken),
            }
        }
        .boxed()
    }
}
