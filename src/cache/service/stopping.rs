//! How a node that stops ends what its cache has under way.

use std::sync::atomic::Ordering;

use super::CacheService;

impl CacheService {
    /// This node leaves the view, or has left it: who waits for what others will decide is sent to them.
    pub fn dismiss(&self) {
        self.0.with(|cache| cache.dismiss());
    }

    /// Whether every request that came here is answered.
    pub fn is_settled(&self) -> bool {
        self.0.open.load(Ordering::Acquire) == 0
    }

    /// Answers whatever is not answered yet.
    pub fn give_up(&self) {
        self.0.with(|cache| cache.give_up());
    }
}
