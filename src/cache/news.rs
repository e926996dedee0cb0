//! What a home says to all nodes at once. Plain code.

use crate::cache::message::{Invalidation, Old};
use crate::cache::state::Cache;

/// Keys named in one message, of at most 321 bytes each, and about how many bytes they and their values may
/// take: half a frame, so that the writes that have taken effect fit beside them.
const NEWS_MAX: usize = 1_000;
const NEWS_BYTES_MAX: usize = 500_000;

impl<T> Cache<T> {
    /// The news of old copies, as many of the first as fit into one message, and of writes that have taken effect;
    /// none if there are neither.
    pub fn news(&mut self, old: &mut Vec<Old>, now_ms: u64) -> Option<Invalidation> {
        let (mut count, mut bytes) = (0, 0);
        for old in old.iter_mut().take(NEWS_MAX) {
            old.update = self.update(old, now_ms);
            bytes += old.size_hint();
            if bytes > NEWS_BYTES_MAX && count > 0 {
                break;
            }
            count += 1;
        }
        let items: Vec<Old> = old.drain(..count).collect();
        let tell_uses = self.wants_uses();
        let acting = self.tenure.acting()?;
        let confirmed = std::mem::take(&mut self.confirmed);
        (!items.is_empty() || !confirmed.is_empty()).then(|| Invalidation {
            home: acting.stay.incarnation,
            nodes: acting.roster.stays().iter().map(|stay| stay.node).collect(),
            items,
            tell_uses,
            confirmed,
        })
    }
}
