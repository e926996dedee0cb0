//! The cache of a node, and the locks that its fences are about.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::cache::entry::Fence;
use crate::cache::operation::Why;
use crate::cache::requests::REMEMBERED_MS;
use crate::cache::service::{Answers, CacheService, Fences};
use crate::cache::state::Settings;
use crate::config::Config;
use crate::lock::service::{Found, LockService, Query};
use crate::protocol::Code;
use crate::protocol::lock::Mode;
use crate::raft::posts::Posts;
use crate::time::{Instant, LeaseClock};

/// The cache as this node's configuration has it.
pub(super) fn service(
    config: &Config,
    (posts, clock): (Posts, LeaseClock),
    answers: Arc<dyn Answers>,
    locks: Arc<LockService>,
) -> CacheService {
    let settings = Settings {
        bytes_max: config.cache_bytes as usize,
        backups: config.cache_backups,
        remember_ms: REMEMBERED_MS,
    };
    let fences = Arc::new(Holders(locks));
    CacheService::new(
        posts,
        clock,
        (config.view_lease, settings),
        (answers, fences),
    )
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
