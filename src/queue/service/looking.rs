//! What is only looked at: the counts of topics, and their messages without taking them.
//!
//! Counts are in Redis, for any node to see. Only the owner of a topic knows who waits there, and how much
//! went through it lately: a list asks each owner once, for all its topics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::acts::nonsense;
use super::passing::Passed;
use super::running::refusal_of;
use super::{Body, QueueService, Shared, lock, reconfiguring};
use crate::ids::NodeId;
use crate::protocol::queue::{Dead, Failed, Listed, Look, Peeked, Rates, Shown, State, Stats};
use crate::protocol::value::InFields;
use crate::protocol::{Encoding, Refusal};
use crate::queue::script::{Args, Caller, Done, Reply, Script, Stored};

/// What the script tells of a message that it shows.
const PARTS: usize = 8;
/// The call by which a node asks another one about its topics.
pub const ABOUT_TOPICS: &str = "queue.about";
/// How long that may take: memory alone is looked at.
const ABOUT_MAX: Duration = Duration::from_millis(700);

/// Topics of a list that Redis is asked about at a time: of 200, which the dashboard shows, in a few round
/// trips, and pushes do not wait behind all of them.
const LOOKS_MAX: usize = 32;

/// What only its owner knows of a topic.
#[derive(Serialize, Deserialize)]
struct About {
    waiters: u64,
    rates: Rates,
}

/// What the script tells, in its order.
struct Inspected {
    seq: u64,
    now_ms: u64,
    /// Ready, delayed, in flight, dead.
    counts: [u64; 4],
    paused: bool,
    /// When the oldest that is ready or in flight was pushed; 0: none is.
    oldest_at_ms: u64,
    acked: u64,
    /// Of each message so many parts.
    shown: Vec<Reply>,
    /// Where to go on; none at the end.
    next: Option<u64>,
    is_due: bool,
}

impl Inspected {
    fn read(mut done: Done) -> Option<Self> {
        let now_ms = done.number()?;
        let counts = [
            done.number()?,
            done.number()?,
            done.number()?,
            done.number()?,
        ];
        let (paused, oldest_at_ms) = (done.number()? == 1, done.number()?);
        let acked = done.number()?;
        let _settings = done.list()?;
        Some(Inspected {
            seq: done.seq,
            now_ms,
            counts,
            paused,
            oldest_at_ms,
            acked,
            shown: done.list()?,
            next: done.number(),
            is_due: done.number()? == 1,
        })
    }
}

impl QueueService {
    /// Answers [`ABOUT_TOPICS`]; none if the question is not one.
    pub fn answer_about(&self, question: &[u8]) -> Option<Bytes> {
        let topics: Vec<String> = rmp_serde::from_slice(question).ok()?;
        let about: Vec<_> = topics.iter().map(|topic| self.0.about(topic)).collect();
        Some(packed(&about))
    }
}

fn packed(value: &impl Serialize) -> Bytes {
    let packed = rmp_serde::to_vec(value);
    packed.expect("it has a form in MessagePack").into()
}

impl Shared {
    async fn inspect(
        self: &Arc<Self>,
        topic: &Arc<str>,
        (state, limit, cursor): (&str, u64, u64),
    ) -> Result<Inspected, Refusal> {
        let mut args = Args::default();
        args.text(state);
        args.number(limit);
        args.number(cursor);
        args.number(self.parts.answers.payload_max() as u64 / 2);
        let args = (Caller::READER, Caller::READER.with(args));
        let look = async || {
            let done = self.run_script(topic, Script::Inspect, args.clone());
            Inspected::read(done.await?).ok_or_else(nonsense)
        };
        let found = look().await?;
        if !found.is_due {
            return Ok(found);
        }
        match self.pass_time(topic).await {
            Ok(Passed::All | Passed::Some) => look().await,
            // Where it cannot be, as with a Redis without memory, what is there is told all the same.
            Ok(Passed::NotHere) | Err(_) => Ok(found),
        }
    }

    pub(super) async fn stats(self: &Arc<Self>, topic: &Arc<str>) -> Result<Stats, Refusal> {
        let found = self.inspect(topic, ("", 0, 0)).await?;
        let [ready, delayed, in_flight, dead] = found.counts;
        let about = self.about(topic);
        Ok(Stats {
            topic: topic.to_string(),
            ready,
            delayed,
            in_flight,
            dead,
            oldest_age_ms: match found.oldest_at_ms {
                0 => 0,
                at_ms => found.now_ms.saturating_sub(at_ms),
            },
            waiters: about.as_ref().map(|about| about.waiters),
            rates: about.map(|about| about.rates),
            pushed: found.seq,
            acked: found.acked,
            marked_seq: self.marked_seq(topic),
            paused: found.paused,
            owner_node: self.placement().home(topic.as_bytes()),
        })
    }

    /// None of a topic that is another node's.
    fn about(&self, topic: &str) -> Option<About> {
        if self.placement().home(topic.as_bytes()) != Some(self.parts.me) {
            return None;
        }
        let topics = lock(&self.topics);
        let waiters = topics.get(topic).map_or(0, |topic| topic.owner.waiters());
        Some(About {
            waiters: waiters as u64,
            rates: lock(&self.recent).of(topic, self.now_ms()),
        })
    }

    /// Fills in what other nodes know of their topics, as far as they say so in time.
    async fn ask_owners(&self, topics: &mut [Stats]) {
        let mut by_owner: BTreeMap<NodeId, Vec<&mut Stats>> = BTreeMap::new();
        for stats in topics {
            let owner = stats.owner_node.filter(|&owner| owner != self.parts.me);
            if let Some(owner) = owner {
                by_owner.entry(owner).or_default().push(stats);
            }
        }
        let asked = by_owner.into_iter().map(async |(owner, topics)| {
            let names: Vec<&str> = topics.iter().map(|stats| &*stats.topic).collect();
            let question = packed(&names);
            let network = &self.parts.network;
            let answer = network.call(owner, ABOUT_TOPICS, question, ABOUT_MAX);
            let about: Vec<Option<About>> = match answer.await {
                Ok(answer) => rmp_serde::from_slice(&answer).unwrap_or_default(),
                Err(_) => Vec::new(),
            };
            for (stats, about) in topics.into_iter().zip(about) {
                stats.waiters = about.as_ref().map(|about| about.waiters);
                stats.rates = about.map(|about| about.rates);
            }
        });
        join_all(asked).await;
    }

    pub(super) async fn list(
        self: &Arc<Self>,
        prefix: &str,
        limit: u64,
        cursor: Option<String>,
    ) -> Result<Body, Refusal> {
        let keyspace = self.keyspace().ok_or_else(reconfiguring)?;
        let store = self.store()?;
        let names = store.topics(&keyspace.topics(), prefix, usize::MAX).await;
        let names = names.map_err(|error| refusal_of(&error))?;
        let after = cursor.unwrap_or_default();
        let mut left = names.into_iter().filter(|name| *name > after);
        let page = left.by_ref().take(limit as usize);
        let looks: Vec<_> = page
            .map(|name| async move { self.stats(&name.into()).await })
            .collect();
        let looks = stream::iter(looks).buffered(LOOKS_MAX);
        let mut topics: Vec<Stats> = looks.try_collect().await?;
        self.ask_owners(&mut topics).await;
        let cursor = topics.last().map(|last| last.topic.clone());
        Ok(Body::Listed(Listed {
            cursor: cursor.filter(|_| left.next().is_some()),
            topics,
        }))
    }

    pub(super) async fn peek(
        self: &Arc<Self>,
        topic: &Arc<str>,
        (look, limit): (Look, u64),
        encoding: Encoding,
    ) -> Result<Peeked, Refusal> {
        let (name, from) = match look {
            Look::In { state, cursor } => (state.name(), cursor),
            Look::After { seq } => ("all", seq),
        };
        let found = self.inspect(topic, (name, limit, from)).await?;
        let messages = found
            .shown
            .chunks_exact(PARTS)
            .map(|parts| shown_message(parts, encoding));
        let messages = messages.collect::<Option<_>>().ok_or_else(nonsense)?;
        Ok(match look {
            Look::In { .. } => Peeked {
                messages,
                cursor: found.next,
                after_seq: None,
                last_seq: None,
            },
            Look::After { .. } => Peeked {
                messages,
                cursor: None,
                after_seq: found.next,
                last_seq: Some(found.seq),
            },
        })
    }
}

fn shown_message(parts: &[Reply], encoding: Encoding) -> Option<Shown> {
    let [seq, kept, state, at, deliveries, consumer, why, failures] = parts else {
        return None;
    };
    let state = State::of_name(&state.text()?)?;
    let stored = Stored::unpack(&kept.clone().into_bytes()?);
    let InFields {
        plain,
        base64,
        kind,
    } = stored.payload.in_reply(encoding);
    let (seq, at_ms) = (seq.number()?, at.text()?.parse::<f64>().ok()? as u64);
    Some(Shown {
        id: Stored::id_of(stored.id.as_deref(), seq),
        seq,
        state: state.name().to_owned(),
        payload: plain,
        payload_base64: base64,
        encoding: kind,
        headers: stored.headers,
        pushed_at_ms: stored.pushed_at_ms,
        due_at_ms: (state == State::Delayed).then_some(at_ms),
        visible_until_ms: (state == State::InFlight).then_some(at_ms),
        consumer: consumer.text().filter(|_| state == State::InFlight),
        deliveries: deliveries.number()?,
        dead: (state == State::Dead).then_some(Dead {
            why: why.text()?,
            at_ms,
        }),
        failures: failures_of(failures),
    })
}

fn failures_of(packed: &Reply) -> Vec<Failed> {
    let Reply::Bytes(packed) = packed else {
        return Vec::new();
    };
    let list: Vec<(f64, u64, String, String)> = rmp_serde::from_slice(packed).unwrap_or_default();
    let each = list
        .into_iter()
        .map(|(at_ms, delivery, consumer, reason)| Failed {
            at_ms: at_ms as u64,
            delivery,
            consumer,
            reason,
        });
    each.collect()
}
