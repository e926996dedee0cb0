//! The last quarter of an hour of requests, so that a dashboard which is opened now shows it at once.
//!
//! A node compares what it has counted every [`EVERY`] and keeps the differences, [`POINTS`] of them:
//! about a hundred kilobytes, and nothing where requests are answered. Nodes do that each at its own
//! moments, so what they kept is put together by age: what a node counted between two moments is taken as
//! spread evenly over the time between.
//!
//! Limits: a node that starts anew has forgotten, and is missing from the sums of before.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Instant;

/// Between two points.
const EVERY: Duration = Duration::from_secs(5);
/// Points kept: 15 minutes.
const POINTS: usize = 180;

/// Counts since a node started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Requests by operation.
    pub requests: Vec<u64>,
    /// Requests of all operations, by how long they took.
    pub durations: Vec<u64>,
}

/// What one node remembers.
#[derive(Debug)]
pub struct History {
    read_at: Instant,
    read: Reading,
    /// Oldest first.
    points: VecDeque<Point>,
}

#[derive(Debug)]
struct Point {
    ended: Instant,
    length: Duration,
    added: Reading,
}

/// What one node tells of what it remembers.
#[derive(Debug, Deserialize, Serialize)]
pub struct Told {
    /// The labels of those that were asked for in this time.
    operations: Vec<String>,
    /// Inclusive upper bounds of all buckets of durations but the last, which has none.
    bounds_ns: Vec<u64>,
    points: Vec<ToldPoint>,
}

#[derive(Debug, Deserialize, Serialize)]
struct ToldPoint {
    /// Since its end.
    age_ms: u64,
    length_ms: u64,
    /// In the order of the operations.
    requests: Vec<u64>,
    durations: Vec<u64>,
}

/// What all nodes together did, oldest first.
#[derive(Debug, Serialize)]
pub struct Together<'a> {
    /// Unix time of now.
    at_ms: u64,
    every_ms: u64,
    bounds_ns: &'a [u64],
    points: Vec<Sum<'a>>,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Sum<'a> {
    /// Since its end.
    age_ms: u64,
    /// Those that were asked for, by operation.
    requests: BTreeMap<&'a str, f64>,
    /// Empty when no node remembers this time.
    durations: Vec<f64>,
}

impl History {
    /// Of a node that starts now and has counted nothing.
    pub fn new(now: Instant) -> Self {
        History {
            read_at: now,
            read: Reading::default(),
            points: VecDeque::new(),
        }
    }

    /// Keeps what was counted since the last point, if that is long enough ago.
    pub fn keep(&mut self, now: Instant, read: impl FnOnce() -> Reading) {
        let length = now.saturating_duration_since(self.read_at);
        if length < EVERY {
            return;
        }
        let read = read();
        let added = Reading {
            requests: added(&read.requests, &self.read.requests),
            durations: added(&read.durations, &self.read.durations),
        };
        (self.read_at, self.read) = (now, read);
        if self.points.len() == POINTS {
            self.points.pop_front();
        }
        self.points.push_back(Point {
            ended: now,
            length,
            added,
        });
    }

    /// For other nodes; `labels` are those of the operations in the order of the readings.
    pub fn told(&self, now: Instant, labels: &[&str], bounds_ns: &[u64]) -> Told {
        let was_asked = |index: &usize| {
            let requests = |point: &Point| point.added.requests[*index];
            self.points.iter().any(|point| requests(point) > 0)
        };
        let asked: Vec<usize> = (0..labels.len()).filter(was_asked).collect();
        let point = |point: &Point| ToldPoint {
            age_ms: now.saturating_duration_since(point.ended).as_millis() as u64,
            length_ms: point.length.as_millis() as u64,
            requests: asked.iter().map(|i| point.added.requests[*i]).collect(),
            durations: point.added.durations.clone(),
        };
        Told {
            operations: asked.iter().map(|i| labels[*i].to_owned()).collect(),
            bounds_ns: bounds_ns.to_vec(),
            points: self.points.iter().map(point).collect(),
        }
    }
}

/// Counters only grow; a first reading is compared with nothing.
fn added(now: &[u64], before: &[u64]) -> Vec<u64> {
    let before = before.iter().copied().chain(std::iter::repeat(0));
    let added = now.iter().zip(before);
    added.map(|(now, before)| now - before).collect()
}

/// Puts together what nodes tell, now at `at_ms` of Unix time. One that measures in other buckets, as
/// another version may, is left out.
pub fn together<'a>(at_ms: u64, bounds_ns: &'a [u64], nodes: &'a [Told]) -> Together<'a> {
    let every_ms = EVERY.as_millis() as u64;
    let alike = nodes.iter().filter(|told| told.bounds_ns == bounds_ns);
    // Where the newest points of all nodes have begun to be: what is newer, only some know.
    let newest = |told: &Told| told.points.last().map(|point| point.age_ms);
    let newest_ms = alike.clone().filter_map(newest).max().unwrap_or(0);
    let newest_ms = newest_ms.min(2 * every_ms);
    let age_ms = |slot: usize| newest_ms + slot as u64 * every_ms;
    let mut sums = vec![Sum::default(); POINTS];
    for (told, point) in alike.flat_map(|told| told.points.iter().map(move |point| (told, point))) {
        let (end_ms, begin_ms) = (point.age_ms, point.age_ms.saturating_add(point.length_ms));
        let first = end_ms.saturating_sub(newest_ms) / every_ms;
        for (slot, sum) in sums.iter_mut().enumerate().skip(first as usize) {
            let slot_ms = age_ms(slot)..age_ms(slot + 1);
            if slot_ms.start >= begin_ms {
                break;
            }
            let common_ms = begin_ms
                .min(slot_ms.end)
                .saturating_sub(end_ms.max(slot_ms.start));
            if common_ms > 0 {
                sum.add(told, point, common_ms as f64 / point.length_ms as f64);
            }
        }
    }
    let known = |(slot, sum): (usize, Sum<'a>)| {
        let age_ms = age_ms(slot);
        (!sum.durations.is_empty()).then_some(Sum { age_ms, ..sum })
    };
    let points = sums.into_iter().enumerate().rev().filter_map(known);
    Together {
        at_ms,
        every_ms,
        bounds_ns,
        points: points.collect(),
    }
}

impl<'a> Sum<'a> {
    /// Adds a share, 0 to 1, of what a node counted.
    fn add(&mut self, told: &'a Told, point: &ToldPoint, share: f64) {
        for (operation, count) in told.operations.iter().zip(&point.requests) {
            if *count > 0 {
                *self.requests.entry(operation).or_default() += *count as f64 * share;
            }
        }
        self.durations.resize(told.bounds_ns.len() + 1, 0.0);
        for (sum, count) in self.durations.iter_mut().zip(&point.durations) {
            *sum += *count as f64 * share;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time;

    const LABELS: [&str; 2] = ["lock_acquire", "status"];
    const BOUNDS: [u64; 1] = [1_000];
    const SECOND: Duration = Duration::from_secs(1);

    fn reading(requests: [u64; 2], durations: [u64; 2]) -> Reading {
        Reading {
            requests: requests.to_vec(),
            durations: durations.to_vec(),
        }
    }

    /// A node that is asked `per_second` times each second, and looks that often, for so long.
    fn busy(start: Instant, per_second: u64, seconds: u32) -> History {
        let mut history = History::new(start);
        for second in 1..=seconds {
            let count = per_second * u64::from(second);
            let read = || reading([count, 0], [count, 0]);
            history.keep(start + SECOND * second, read);
        }
        history
    }

    /// Age of each point in seconds, and requests for locks.
    fn points(together: &Together<'_>) -> Vec<(u64, f64)> {
        let point = |sum: &Sum<'_>| {
            let requests = sum.requests.get("lock_acquire").copied();
            (sum.age_ms / 1000, requests.unwrap_or(0.0))
        };
        together.points.iter().map(point).collect()
    }

    #[test]
    fn a_point_says_what_was_added_in_five_seconds() {
        let start = time::now();
        let mut history = History::new(start);
        history.keep(start + SECOND * 4, || panic!("it is too early"));
        history.keep(start + SECOND * 5, || reading([3, 0], [2, 1]));
        history.keep(start + SECOND * 9, || panic!("it is too early"));
        history.keep(start + SECOND * 11, || reading([7, 0], [4, 3]));
        let told = history.told(start + SECOND * 12, &LABELS, &BOUNDS);
        assert_eq!(told.operations, ["lock_acquire"]);
        let said: Vec<_> = told
            .points
            .iter()
            .map(|p| (p.age_ms, p.length_ms, &p.requests[..], &p.durations[..]))
            .collect();
        let expected: [(u64, u64, &[u64], &[u64]); 2] =
            [(7000, 5000, &[3], &[2, 1]), (1000, 6000, &[4], &[2, 2])];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_quarter_of_an_hour_is_kept() {
        let start = time::now();
        let history = busy(start, 2, 3600);
        assert_eq!(history.points.len(), POINTS);
        let told = [history.told(start + SECOND * 3600, &LABELS, &BOUNDS)];
        let together = together(0, &BOUNDS, &told);
        let expected: Vec<_> = (0..180).rev().map(|i| (i * 5, 10.0)).collect();
        assert_eq!(points(&together), expected);
    }

    #[test]
    fn nodes_that_look_at_other_moments_are_put_together_without_steps() {
        let start = time::now();
        let now = start + SECOND * 62;
        let (first, second) = (busy(start, 1, 62), busy(start + SECOND * 2, 10, 60));
        let told = [first, second].map(|history| history.told(now, &LABELS, &BOUNDS));
        let together = together(0, &BOUNDS, &told);
        let points = points(&together);
        // The newest that both know ended two seconds ago; the second node did not run in the first two.
        let (oldest, later) = points.split_first().expect("there are points");
        assert_eq!(*oldest, (57, 5.0 + 30.0));
        let expected: Vec<_> = (0..11).rev().map(|i| (2 + i * 5, 55.0)).collect();
        assert_eq!(later, expected);
        assert_eq!(together.points[5].durations, [55.0, 0.0]);
    }

    #[test]
    fn a_stall_is_spread_over_its_time() {
        let start = time::now();
        let mut history = History::new(start);
        history.keep(start + SECOND * 20, || reading([8, 0], [8, 0]));
        let told = [history.told(start + SECOND * 20, &LABELS, &BOUNDS)];
        let expected = [(15, 2.0), (10, 2.0), (5, 2.0), (0, 2.0)];
        assert_eq!(points(&together(0, &BOUNDS, &told)), expected);
    }

    #[test]
    fn time_that_nobody_remembers_is_left_out() {
        assert!(together(0, &BOUNDS, &[]).points.is_empty());
        let start = time::now();
        let told = busy(start, 1, 5).told(start + SECOND * 5, &LABELS, &[7]);
        assert!(together(0, &BOUNDS, &[told]).points.is_empty());
    }

    #[test]
    fn what_another_node_says_is_taken_as_it_comes() {
        let said = r#"{"operations":["a","b"],"bounds_ns":[1000],"points":[
            {"age_ms":18446744073709551615,"length_ms":18446744073709551615,"requests":[1,1],"durations":[1,1]},
            {"age_ms":0,"length_ms":0,"requests":[1],"durations":[1,2,3]},
            {"age_ms":0,"length_ms":5000,"requests":[1],"durations":[1,2,3]}]}"#;
        let told = [serde_json::from_str::<Told>(said).expect("it has the form")];
        let together = together(0, &BOUNDS, &told);
        assert_eq!(together.points.len(), 1);
        assert_eq!(together.points[0].durations, [1.0, 2.0]);
    }
}
