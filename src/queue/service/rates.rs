//! How many messages went through topics lately, as far as this node had them done as their owner.
//!
//! For each topic a ring of counts, each of ten seconds; a rate is the mean over the five before and what
//! has passed of the newest. Limits: of [`TOPICS_MAX`] topics with traffic in the last minute; more have
//! no rates until others rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::protocol::queue::Rates;
use crate::queue::script::BatchReply;

/// Topics that have a ring.
const TOPICS_MAX: usize = 10_000;
const BUCKETS: u64 = 6;
const BUCKET_MS: u64 = 10_000;

/// The rings of all topics.
#[derive(Debug, Default)]
pub(super) struct Recent {
    by_topic: BTreeMap<Arc<str>, Ring>,
    /// The bucket in which those that rest were last looked for.
    looked_in: u64,
}

/// Pushed, delivered and acknowledged messages, by the number of the bucket modulo their count.
#[derive(Clone, Copy, Debug, Default)]
struct Ring {
    /// The number of the newest bucket.
    newest: u64,
    counts: [[u64; 3]; BUCKETS as usize],
}

impl Recent {
    /// Counts what a call did.
    pub(super) fn count(&mut self, topic: &Arc<str>, reply: &BatchReply, now_ms: u64) {
        let is_new = |push: &&(u64, bool)| !push.1;
        let did = [
            reply.pushes.iter().flatten().filter(is_new).count(),
            reply.popped.len(),
            reply.acks.iter().filter(|&&code| code == 1).count(),
        ];
        if did == [0; 3] || !self.has_room(topic, now_ms) {
            return;
        }
        let ring = self.by_topic.entry(topic.clone()).or_default();
        let bucket = ring.turn(now_ms);
        for (sum, more) in bucket.iter_mut().zip(did) {
            *sum += more as u64;
        }
    }

    fn has_room(&mut self, topic: &Arc<str>, now_ms: u64) -> bool {
        if self.by_topic.len() < TOPICS_MAX || self.by_topic.contains_key(topic) {
            return true;
        }
        let bucket = now_ms / BUCKET_MS;
        if self.looked_in != bucket {
            self.looked_in = bucket;
            self.by_topic
                .retain(|_, ring| ring.newest + BUCKETS > bucket);
        }
        self.by_topic.len() < TOPICS_MAX
    }

    /// In messages per second; 0 of a topic that nothing is known of.
    pub(super) fn of(&self, topic: &str, now_ms: u64) -> Rates {
        let Some(mut ring) = self.by_topic.get(topic).copied() else {
            return Rates::default();
        };
        ring.turn(now_ms);
        let covered_ms = (BUCKETS - 1) * BUCKET_MS + now_ms % BUCKET_MS;
        let rate = |which: usize| {
            let sum: u64 = ring.counts.iter().map(|counts| counts[which]).sum();
            // So many digits as say something.
            (sum as f64 * 1e6 / covered_ms as f64).round() / 1e3
        };
        Rates {
            pushed: rate(0),
            delivered: rate(1),
            acked: rate(2),
        }
    }
}

impl Ring {
    /// Empties what is older than a minute, and returns the bucket of now.
    fn turn(&mut self, now_ms: u64) -> &mut [u64; 3] {
        let bucket = now_ms / BUCKET_MS;
        for passed in (self.newest + 1..=bucket).rev().take(BUCKETS as usize) {
            self.counts[(passed % BUCKETS) as usize] = [0; 3];
        }
        self.newest = self.newest.max(bucket);
        &mut self.counts[(bucket % BUCKETS) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(count: usize) -> BatchReply {
        BatchReply {
            pushes: (0..count).map(|nth| Some((nth as u64, false))).collect(),
            acks: vec![1, 0, 2],
            ..BatchReply::default()
        }
    }

    #[test]
    fn a_rate_is_the_mean_over_the_last_minute() {
        let (mut recent, topic) = (Recent::default(), "a".into());
        assert_eq!(recent.of("a", 0), Rates::default());
        recent.count(&topic, &pushed(60), 5_000);
        recent.count(&topic, &pushed(40), 19_999);
        let rates = recent.of("a", 20_000);
        assert_eq!(
            (rates.pushed, rates.delivered, rates.acked),
            (2.0, 0.0, 0.04)
        );
        assert_eq!(recent.of("a", 55_000).pushed, 1.818);
        // What is older than the five buckets before this one does not count.
        assert_eq!(recent.of("a", 60_000).pushed, 0.8);
        assert_eq!(recent.of("a", 70_000), Rates::default());
        assert_eq!(recent.of("a", 700_000), Rates::default());
    }

    #[test]
    fn duplicates_are_not_pushed() {
        let mut recent = Recent::default();
        let reply = BatchReply {
            pushes: vec![Some((1, true)), None, Some((2, false))],
            ..BatchReply::default()
        };
        recent.count(&"a".into(), &reply, 0);
        assert_eq!(recent.of("a", 0).pushed, 0.02);
    }

    #[test]
    fn topics_with_rates_have_a_bound_and_make_place_when_they_rest() {
        let mut recent = Recent::default();
        for nth in 0..TOPICS_MAX {
            recent.count(&format!("{nth}").into(), &pushed(1), 0);
        }
        recent.count(&"one more".into(), &pushed(50), 1);
        assert_eq!(recent.of("one more", 1), Rates::default());
        recent.count(&"one more".into(), &pushed(50), 60_000);
        assert_eq!(recent.of("one more", 60_000).pushed, 1.0);
        assert_eq!(recent.by_topic.len(), 1);
    }
}
