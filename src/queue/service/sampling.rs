//! How many messages there are, for metrics: a look at the topics that this node owns, now and then.
//!
//! Counts by state are in Redis alone, and a scrape must not wait for it, nor cost more the more topics
//! there are. So while somebody scrapes, one task looks at up to [`LOOKS_MAX`] topics each
//! [`LOOK_EVERY`], one after the other, and goes on where it stopped; a scrape shows what was found last.
//! Nobody scrapes: nothing is asked.
//!
//! Limits: with more topics than that, a count is as old as it takes to come round; of more than
//! [`TOPICS_MAX`] topics in the cluster the rest is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::{QueueService, Shared};
use crate::stats::queue::Found;
use crate::time;

/// Between two rounds.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Topics that are looked at in one round, each with one call of a script that takes no longer for more
/// messages.
const LOOKS_MAX: usize = 100;
/// Names that are read in one round.
const TOPICS_MAX: usize = 10_000;
/// How long after a scrape rounds go on: longer than between two scrapes.
const SCRAPED_LATELY: Duration = Duration::from_secs(90);

/// When somebody last wanted metrics.
#[derive(Default)]
pub(super) struct Scrapes {
    last_ms: AtomicU64,
    wake: Notify,
}

impl QueueService {
    /// Somebody wants metrics: what is shown is to be fresh the next time.
    pub fn scraped(&self) {
        let scrapes = &self.0.scrapes;
        scrapes.last_ms.store(self.0.now_ms(), Ordering::Relaxed);
        scrapes.wake.notify_one();
    }

    /// Looks at topics while somebody scrapes, until `stopped`.
    pub(super) async fn sample(self, mut stopped: watch::Receiver<bool>) {
        let shared = self.0;
        let mut found = BTreeMap::new();
        let mut after: Option<Arc<str>> = None;
        loop {
            tokio::select! {
                biased;
                _ = stopped.changed() => return,
                () = shared.scrapes.wake.notified() => {}
            }
            while shared.is_scraped() {
                let round = async {
                    shared.look(&mut found, &mut after).await;
                    shared.parts.stats.queue.show(&found, time::unix_ms());
                    tokio::time::sleep(LOOK_EVERY).await;
                };
                tokio::select! {
                    biased;
                    _ = stopped.changed() => return,
                    () = round => {}
                }
            }
        }
    }
}

impl Shared {
    fn is_scraped(&self) -> bool {
        let last_ms = self.scrapes.last_ms.load(Ordering::Relaxed);
        self.now_ms() - last_ms <= SCRAPED_LATELY.as_millis() as u64
    }

    /// Looks at the next topics that this node owns, and forgets those that it does not.
    async fn look(
        self: &Arc<Self>,
        found: &mut BTreeMap<Arc<str>, Found>,
        after: &mut Option<Arc<str>>,
    ) {
        let Some(own) = self.own_topics().await else {
            // Without Redis nothing is known, and what was is no longer true.
            found.clear();
            return;
        };
        found.retain(|name, _| own.contains(name));
        let from = after.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let to = after.clone().map_or(Bound::Unbounded, Bound::Included);
        let rest = own.range::<Arc<str>, _>((from, Bound::Unbounded));
        let again = own.range::<Arc<str>, _>((Bound::Unbounded, to));
        // With nothing before, everything is among the first already.
        let again = again.take(if after.is_some() { LOOKS_MAX } else { 0 });
        for name in rest.chain(again).take(LOOKS_MAX) {
            *after = Some(name.clone());
            let Ok(stats) = self.stats(name).await else {
                found.remove(name);
                continue;
            };
            let one = Found {
                ready: stats.ready,
                delayed: stats.delayed,
                in_flight: stats.in_flight,
                dead: stats.dead,
                oldest_age: Duration::from_millis(stats.oldest_age_ms),
            };
            found.insert(name.clone(), one);
        }
    }

    /// The topics whose owner this node is; none when Redis does not say.
    async fn own_topics(&self) -> Option<BTreeSet<Arc<str>>> {
        let (keyspace, store) = (self.keyspace()?, self.store().ok()?);
        let placement = self.placement();
        let names = store
            .topics(&keyspace.topics(), "", TOPICS_MAX)
            .await
            .ok()?;
        let is_own = |name: &String| placement.home(name.as_bytes()) == Some(self.parts.me);
        let own = names.into_iter().filter(is_own).map(Arc::from);
        Some(own.collect())
    }
}
