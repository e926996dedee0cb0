//! What is counted about queues: of some topics by name, of all others together.
//!
//! Names come from clients, so there is no end of them, while each series costs a Prometheus memory for
//! as long as it keeps data. The first [`TOPICS_NAMED_MAX`] topics that this node serves have their names
//! for the life of the process; what all others do is summed under [`OTHER`].
//!
//! Counters are of what this node did, as the owner of the topic at that time. How many messages there
//! are is what the node found when it last looked, and only of topics that it owns; so for both the sum
//! over all nodes is the cluster's.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};

use super::Gauge;

/// Topics that have their names in metrics.
pub const TOPICS_NAMED_MAX: usize = 100;
/// What all other topics are summed under; a topic of this name is among them.
pub const OTHER: &str = "other";

const STATES: [&str; 4] = ["ready", "delayed", "in_flight", "dead"];

/// What happened to messages of a topic, or of all that have no name here.
#[derive(Debug, Default)]
pub struct TopicStats {
    pub pushed: Counter,
    pub duplicates: Counter,
    pub delivered: Counter,
    pub redelivered: Counter,
    pub acked: Counter,
    pub returned: Counter,
    pub dead: Counter,
}

/// What a node found in a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub ready: u64,
    pub delayed: u64,
    pub in_flight: u64,
    pub dead: u64,
    /// Since the push of the oldest message that is ready or in flight.
    pub oldest_age: Duration,
}

impl Found {
    fn by_state(&self) -> [u64; STATES.len()] {
        [self.ready, self.delayed, self.in_flight, self.dead]
    }

    fn add(&mut self, other: &Found) {
        self.ready += other.ready;
        self.delayed += other.delayed;
        self.in_flight += other.in_flight;
        self.dead += other.dead;
        self.oldest_age = self.oldest_age.max(other.oldest_age);
    }
}

#[derive(Debug)]
pub struct QueueStats {
    topics: Topics,
    /// Topics that this node owned when it last looked.
    owned: Gauge,
    /// Unix time of that look in seconds; 0 before the first.
    looked_at: Gauge,
    /// Topics that this node has something to do for.
    pub active: Gauge,
    /// Pops that wait at this node.
    pub waiting: Gauge,
    /// Times that Redis had lost what it had acknowledged.
    pub losses: Counter,
}

/// By name; clones share it.
#[derive(Clone, Debug, Default)]
struct Topics(Arc<Mutex<Named>>);

#[derive(Debug, Default)]
struct Named {
    by_name: BTreeMap<Arc<str>, Arc<TopicStats>>,
    others: Arc<TopicStats>,
    found: BTreeMap<Arc<str>, Found>,
    found_others: Found,
}

impl QueueStats {
    pub(super) fn new() -> Self {
        QueueStats {
            topics: Topics::default(),
            owned: Gauge::default(),
            looked_at: Gauge::default(),
            active: Gauge::default(),
            waiting: Gauge::default(),
            losses: Counter::default(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "queue_messages",
            "Messages of topics that this node owns, by state, as of the last look",
            Messages(self.topics.clone()),
        );
        registry.register_with_unit(
            "queue_oldest_age",
            "Since the push of the oldest message that is ready or in flight, as of the last look",
            Unit::Seconds,
            OldestAge(self.topics.clone()),
        );
        let counts: [(&str, &str, Pick); 7] = [
            ("queue_pushed", "Messages taken", |topic| &topic.pushed),
            (
                "queue_duplicates",
                "Pushed messages whose id was known, not taken again",
                |topic| &topic.duplicates,
            ),
            (
                "queue_delivered",
                "Messages handed out, each time",
                |topic| &topic.delivered,
            ),
            (
                "queue_redelivered",
                "Messages handed out after the first time",
                |topic| &topic.redelivered,
            ),
            ("queue_acked", "Messages acknowledged", |topic| &topic.acked),
            (
                "queue_returned",
                "Messages handed back by consumers, or by the node where a consumer was gone",
                |topic| &topic.returned,
            ),
            ("queue_dead", "Messages that died", |topic| &topic.dead),
        ];
        for (name, help, pick) in counts {
            registry.register(name, help, Count(self.topics.clone(), pick));
        }
        for (name, help, gauge) in [
            (
                "queue_topics",
                "Topics that this node owns, as of the last look",
                &self.owned,
            ),
            (
                "queue_topics_active",
                "Topics that this node has something to do for",
                &self.active,
            ),
            (
                "queue_pops_waiting",
                "Pops that wait at this node",
                &self.waiting,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        registry.register_with_unit(
            "queue_looked_timestamp",
            "Unix time of the last look at the topics that this node owns, 0 before the first",
            Unit::Seconds,
            self.looked_at.clone(),
        );
        registry.register(
            "queue_data_losses",
            "Times that Redis had lost what it had acknowledged in a topic",
            self.losses.clone(),
        );
    }

    /// Where to count what happens to messages of a topic. Takes a lock, so whoever counts keeps it.
    pub fn topic(&self, name: &str) -> Arc<TopicStats> {
        let mut named = self.topics.lock();
        if let Some(topic) = named.by_name.get(name) {
            return topic.clone();
        }
        if named.by_name.len() >= TOPICS_NAMED_MAX || name == OTHER {
            return named.others.clone();
        }
        let topic = Arc::new(TopicStats::default());
        named.by_name.insert(name.into(), topic.clone());
        topic
    }

    /// Shows what was found in all topics that this node owns, at this Unix time.
    pub fn show(&self, all: &BTreeMap<Arc<str>, Found>, unix_ms: u64) {
        for name in all.keys() {
            self.topic(name);
        }
        let mut named = self.topics.lock();
        let (mut found, mut others) = (BTreeMap::new(), Found::default());
        for (name, one) in all {
            match named.by_name.contains_key(name) {
                true => drop(found.insert(name.clone(), *one)),
                false => others.add(one),
            }
        }
        (named.found, named.found_others) = (found, others);
        self.owned.set(all.len() as u64);
        self.looked_at.set(unix_ms / 1_000);
    }
}

impl Topics {
    /// Every change leaves the maps whole.
    fn lock(&self) -> MutexGuard<'_, Named> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Named {
    fn found(&self) -> impl Iterator<Item = (&str, &Found)> {
        let named = self.found.iter().map(|(name, found)| (&**name, found));
        named.chain([(OTHER, &self.found_others)])
    }
}

/// How many messages there are, by topic and state.
#[derive(Debug)]
struct Messages(Topics);

impl EncodeMetric for Messages {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for (topic, found) in self.0.lock().found() {
            for (state, count) in STATES.iter().zip(found.by_state()) {
                let labels = [("topic", topic), ("state", *state)];
                ConstGauge::new(count).encode(encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// How old the oldest message is, by topic.
#[derive(Debug)]
struct OldestAge(Topics);

impl EncodeMetric for OldestAge {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for (topic, found) in self.0.lock().found() {
            let labels = [("topic", topic)];
            let age = ConstGauge::new(found.oldest_age.as_secs_f64());
            age.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

type Pick = fn(&TopicStats) -> &Counter;

/// One of the counters of every topic.
#[derive(Debug)]
struct Count(Topics, Pick);

impl EncodeMetric for Count {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let topics = self.0.lock();
        let named = topics.by_name.iter().map(|(name, topic)| (&**name, topic));
        for (name, topic) in named.chain([(OTHER, &topics.others)]) {
            let labels = [("topic", name)];
            (self.1)(topic).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        <Counter as TypedMetric>::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(ready: u64, oldest_s: u64) -> Found {
        Found {
            ready,
            oldest_age: Duration::from_secs(oldest_s),
            ..Found::default()
        }
    }

    fn rendered(stats: &QueueStats) -> String {
        let mut registry = Registry::default();
        stats.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("it is a string");
        text
    }

    #[test]
    fn the_first_topics_have_names_and_the_rest_is_summed() {
        let stats = QueueStats::new();
        let name = |number: usize| format!("t{number:03}");
        for number in 0..TOPICS_NAMED_MAX + 2 {
            stats.topic(&name(number)).pushed.inc_by(number as u64 + 1);
        }
        stats.topic(OTHER).pushed.inc_by(1_000);
        let all = (0..TOPICS_NAMED_MAX + 2).map(|n| (name(n).into(), found(1, n as u64)));
        stats.show(&all.collect(), 5_999);
        let text = rendered(&stats);
        for line in [
            "queue_pushed_total{topic=\"t000\"} 1",
            "queue_pushed_total{topic=\"t099\"} 100",
            "queue_pushed_total{topic=\"other\"} 1203",
            "queue_messages{topic=\"t099\",state=\"ready\"} 1",
            "queue_messages{topic=\"other\",state=\"ready\"} 2",
            "queue_oldest_age_seconds{topic=\"other\"} 101.0",
            "queue_topics 102",
            "queue_looked_timestamp_seconds 5",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
        }
        assert!(!text.contains("t100"), "{text}");
    }

    #[test]
    fn what_is_no_longer_owned_is_no_longer_shown_as_there() {
        let stats = QueueStats::new();
        stats.show(&[("a\"b".into(), found(3, 1))].into(), 1_000);
        let shown = "queue_messages{topic=\"a\\\"b\",state=\"ready\"} 3\n";
        assert!(rendered(&stats).contains(shown));
        stats.show(&BTreeMap::new(), 2_000);
        let text = rendered(&stats);
        assert!(!text.contains("queue_messages{topic=\"a"), "{text}");
        assert!(text.contains("queue_pushed_total{topic=\"a\\\"b\"} 0\n"));
    }
}
