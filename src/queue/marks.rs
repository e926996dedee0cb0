//! How far topics had come, as part of the replicated state: what the next owner of a topic knows of
//! its past, whatever became of Redis meanwhile. Plain code.
//!
//! Owners report now and then, so that a mark is a little behind. It is never ahead: what is below it
//! was acknowledged by Redis once.

use std::collections::BTreeMap;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use crate::protocol::tenant::Tenant;

/// Topics with a mark. Beyond that the one that was reported longest ago is forgotten: its next owner
/// does not notice a loss.
pub const TOPICS_MAX: usize = 100_000;

/// One topic's mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The view in which its owner reported.
    pub epoch: u64,
    /// Operation sequence that Redis has acknowledged.
    pub opseq: u64,
    /// The highest sequence number that a message ever got.
    pub seq: u64,
    /// What the topic's messages take, if it is a tenant's.
    #[serde(default)]
    pub bytes: u64,
}

/// What an owner says of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub topic: String,
    pub mark: Mark,
}

/// The marks of all topics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub struct Marks {
    /// With the number of the report.
    by_topic: OrdMap<String, (u64, Mark)>,
    /// The same, oldest report first.
    by_age: OrdSet<(u64, String)>,
    /// Bytes of all topics of a tenant, by its account.
    by_account: BTreeMap<Tenant, u64>,
    last_number: u64,
}

/// What a snapshot has of it.
#[derive(Clone, Serialize, Deserialize)]
struct Kept(OrdMap<String, (u64, Mark)>, u64);

impl From<Kept> for Marks {
    fn from(Kept(by_topic, last_number): Kept) -> Self {
        let numbers = by_topic.iter().map(|(topic, (n, _))| (*n, topic.clone()));
        let mut marks = Marks {
            by_age: numbers.collect(),
            by_account: BTreeMap::new(),
            by_topic,
            last_number,
        };
        for (topic, (_, mark)) in marks.by_topic.clone() {
            marks.recount(&topic, 0, mark.bytes);
        }
        marks
    }
}

impl From<Marks> for Kept {
    fn from(marks: Marks) -> Self {
        Kept(marks.by_topic, marks.last_number)
    }
}

impl Marks {
    pub fn get(&self, topic: &str) -> Option<Mark> {
        self.by_topic.get(topic).map(|(_, mark)| *mark)
    }

    /// What the messages of all of a tenant's topics take, of those that have a mark.
    pub fn bytes_of(&self, tenant: &Tenant) -> u64 {
        self.by_account.get(tenant).copied().unwrap_or(0)
    }

    pub fn len(&self) -> usize {
        self.by_topic.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    /// Takes reports in. One of an earlier view than the one before comes from a node that is the
    /// owner no more. The operation sequence may go down, after a loss that the owner has told;
    /// sequence numbers never do, since none is given out twice.
    pub fn apply(&mut self, reports: &[Report]) {
        for Report { topic, mark } in reports {
            let before = self.by_topic.get(topic).copied();
            if before.is_some_and(|(_, before)| before.epoch > mark.epoch) {
                continue;
            }
            self.last_number += 1;
            let seq = before.map_or(0, |(_, before)| before.seq).max(mark.seq);
            let kept = (self.last_number, Mark { seq, ..*mark });
            self.by_topic.insert(topic.clone(), kept);
            self.recount(
                topic,
                before.map_or(0, |(_, before)| before.bytes),
                mark.bytes,
            );
            if let Some((number, _)) = before {
                self.by_age.remove(&(number, topic.clone()));
            }
            self.by_age.insert((self.last_number, topic.clone()));
            if self.by_topic.len() > TOPICS_MAX
                && let Some((_, oldest)) = self.by_age.remove_min()
            {
                let forgotten = self.by_topic.remove(&oldest);
                self.recount(&oldest, forgotten.map_or(0, |(_, mark)| mark.bytes), 0);
            }
        }
    }

    fn recount(&mut self, topic: &str, before: u64, after: u64) {
        if let Some(tenant) = Tenant::of_name(topic).filter(|_| before != after) {
            let sum = self.by_account.entry(tenant.clone()).or_default();
            *sum = *sum + after - before;
            if *sum == 0 {
                self.by_account.remove(&tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(topic: &str, epoch: u64, opseq: u64, seq: u64) -> Report {
        let mark = Mark {
            epoch,
            opseq,
            seq,
            bytes: 0,
        };
        let topic = topic.to_owned();
        Report { topic, mark }
    }

    fn of(marks: &Marks, topic: &str) -> Option<(u64, u64)> {
        marks.get(topic).map(|mark| (mark.opseq, mark.seq))
    }

    #[test]
    fn the_newest_owner_is_believed_and_sequence_numbers_never_go_back() {
        let mut marks = Marks::default();
        marks.apply(&[report("a", 2, 9, 5), report("b", 1, 1, 1)]);
        marks.apply(&[report("a", 1, 20, 20)]);
        assert_eq!(of(&marks, "a"), Some((9, 5)), "of a former owner");
        marks.apply(&[report("a", 2, 4, 2)]);
        assert_eq!(of(&marks, "a"), Some((4, 5)), "after a loss");
        marks.apply(&[report("a", 3, 10, 6)]);
        assert_eq!(of(&marks, "a"), Some((10, 6)));
        assert_eq!(of(&marks, "b"), Some((1, 1)));
        let encoded = rmp_serde::to_vec(&marks).expect("marks encode");
        let decoded: Marks = rmp_serde::from_slice(&encoded).expect("and decode");
        assert_eq!(decoded, marks);
    }

    #[test]
    fn what_a_tenant_keeps_is_the_sum_of_its_topics() {
        let tenant = Tenant::of_account("A").expect("a name");
        let of = |topic: &str, epoch, bytes| {
            let mut report = report(topic, epoch, 1, 1);
            report.mark.bytes = bytes;
            report
        };
        let mut marks = Marks::default();
        marks.apply(&[
            of("A/x", 2, 50),
            of("A/y", 2, 7),
            of("B/x", 2, 9),
            of("x", 2, 1),
        ]);
        assert_eq!(marks.bytes_of(&tenant), 57);
        marks.apply(&[of("A/x", 1, 1_000), of("A/x", 3, 20)]);
        assert_eq!(marks.bytes_of(&tenant), 27);
        let encoded = rmp_serde::to_vec(&marks).expect("marks encode");
        let decoded: Marks = rmp_serde::from_slice(&encoded).expect("and decode");
        assert_eq!(decoded, marks);
        for number in 0..TOPICS_MAX {
            marks.apply(&[of(&number.to_string(), 1, 0)]);
        }
        assert_eq!(marks.bytes_of(&tenant), 0, "forgotten");
    }

    #[test]
    fn the_topic_that_was_reported_longest_ago_makes_room() {
        let mut marks = Marks::default();
        for number in 0..TOPICS_MAX {
            marks.apply(&[report(&number.to_string(), 1, 1, 1)]);
        }
        marks.apply(&[report("0", 1, 2, 1), report("new", 1, 1, 1)]);
        assert_eq!(marks.len(), TOPICS_MAX);
        assert_eq!((of(&marks, "1"), of(&marks, "0")), (None, Some((2, 1))));
    }
}
