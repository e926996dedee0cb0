//! The scripts of the cache's store in a real Redis, call by call.

use std::collections::BTreeMap;
use std::sync::Arc;

use mufakat::cache::entry::{Entry, Key, Marks, NEVER, Version};
use mufakat::cache::message::Matching;
use mufakat::cache::operation::{Answer, Condition, Operation, Write};
use mufakat::cache::requests::Done;
use mufakat::cache::service::Store;
use mufakat::cache::store::RedisStore;
use mufakat::cache::through::{Call, Outcome};
use mufakat::ids::{ClusterId, Epoch, NodeId};
use mufakat::protocol::value::Value;
use mufakat::queue::keys::Keyspace;
use mufakat::queue::store;
use tokio::sync::watch;

use crate::dice::Dice;
use crate::redis_server::RedisServer;
use crate::wait;

struct Caller {
    store: RedisStore,
    redis: Arc<store::Store>,
    _running: watch::Sender<bool>,
}

impl Caller {
    async fn start(server: &RedisServer, node: u64) -> Self {
        let (running, stopped) = watch::channel(false);
        let redis = store::Store::start(server.address(), stopped).expect("an address");
        let redis = Arc::new(redis);
        wait::until("connected", async || redis.status().connected.then_some(())).await;
        let keyspace = || Some(Keyspace::new("test", ClusterId(1)));
        Caller {
            store: RedisStore::new(NodeId(node), redis.clone(), Box::new(keyspace)),
            redis,
            _running: running,
        }
    }

    async fn keep(&self, epoch: u64, sequence: u64, entry: Option<Entry>) -> Outcome {
        let call = Call::Keep {
            epoch: Epoch(epoch),
            key: key(),
            version: Version { epoch, sequence },
            entry: entry.map(|entry| {
                let version = Version { epoch, sequence };
                Entry { version, ..entry }.sent(0)
            }),
            done: None,
        };
        self.store.call(call).await
    }

    async fn outcome(&self, epoch: u64, id: Option<&str>) -> Outcome {
        let call = Call::Bring {
            epoch: Epoch(epoch),
            key: key(),
            id: id.map(Key::from),
        };
        self.store.call(call).await
    }

    async fn bring(&self, epoch: u64) -> Option<Entry> {
        match self.outcome(epoch, None).await {
            Outcome::Brought { entry, .. } => entry.map(|sent| sent.kept(0)),
            other => panic!("{other:?}"),
        }
    }

    async fn text(&self, epoch: u64) -> Option<String> {
        let entry = self.bring(epoch).await?;
        Some(String::from_utf8(entry.value.bytes().to_vec()).expect("text"))
    }

    async fn void(&self, epoch: u64, matching: Matching) {
        let epoch = Epoch(epoch);
        let outcome = self.store.call(Call::Void { epoch, matching }).await;
        assert_eq!(outcome, Outcome::Done);
    }
}

fn key() -> Key {
    "a/{b}".into()
}

fn entry(text: &str) -> Entry {
    Entry {
        value: Value::text(text),
        version: Version::default(),
        expires_at_ms: NEVER,
        idle_ms: 0,
        idle_at_ms: NEVER,
        marks: None,
    }
}

#[tokio::test]
async fn calls_of_an_older_view_and_of_an_older_connection_are_refused() {
    let server = RedisServer::start().await;
    let (old, new) = (
        Caller::start(&server, 1).await,
        Caller::start(&server, 2).await,
    );
    assert_eq!(old.keep(1, 1, Some(entry("one"))).await, Outcome::Done);
    // A read is enough.
    assert_eq!(new.text(2).await.as_deref(), Some("one"));
    assert_eq!(old.keep(1, 2, Some(entry("late"))).await, Outcome::Fenced);
    assert_eq!(old.keep(1, 2, None).await, Outcome::Fenced);
    assert_eq!(old.outcome(1, None).await, Outcome::Fenced);
    let matching = Matching::All;
    let void = Call::Void {
        epoch: Epoch(1),
        matching,
    };
    assert_eq!(old.store.call(void).await, Outcome::Fenced);
    assert_eq!(old.text(2).await.as_deref(), Some("one"));

    let other = Caller::start(&server, 1).await;
    let mut raw = server.connection();
    let _: u64 = redis::cmd("CLIENT")
        .arg("KILL")
        .arg("TYPE")
        .arg("normal")
        .query(&mut raw)
        .expect("an answer");
    wait::until("connected anew", async || {
        (other.redis.changes() == 2).then_some(())
    })
    .await;
    wait::until("connected", async || {
        matches!(other.outcome(2, None).await, Outcome::Brought { .. }).then_some(())
    })
    .await;
    // The same node over its first connection.
    let first = Caller::start(&server, 1).await;
    assert_eq!(first.keep(2, 9, Some(entry("late"))).await, Outcome::Fenced);
    // A newer view begins anew.
    assert_eq!(first.keep(3, 1, Some(entry("new"))).await, Outcome::Done);
}

#[tokio::test]
async fn a_repeat_changes_nothing_and_what_is_over_is_gone() {
    let server = RedisServer::start().await;
    let caller = Caller::start(&server, 1).await;
    for _ in 0..2 {
        assert_eq!(caller.keep(1, 1, Some(entry("one"))).await, Outcome::Done);
    }
    assert_eq!(caller.keep(1, 2, Some(entry("two"))).await, Outcome::Done);
    assert_eq!(caller.keep(1, 1, Some(entry("one"))).await, Outcome::Done);
    assert_eq!(caller.keep(1, 1, None).await, Outcome::Done);
    assert_eq!(caller.text(1).await.as_deref(), Some("two"));
    assert_eq!(caller.keep(1, 3, None).await, Outcome::Done);
    assert_eq!(caller.text(1).await, None);

    let lasting = Entry {
        expires_at_ms: 60_000,
        ..entry("lasting")
    };
    assert_eq!(caller.keep(1, 4, Some(lasting)).await, Outcome::Done);
    let left = caller.bring(1).await.expect("it lasts").expires_at_ms;
    assert!((50_000..=60_000).contains(&left), "{left}");
    let brief = Entry {
        expires_at_ms: 60,
        ..entry("brief")
    };
    let idle = Entry {
        idle_ms: 60,
        expires_at_ms: 60_000,
        ..entry("idle")
    };
    for (sequence, over) in [(5, brief), (6, idle)] {
        assert_eq!(caller.keep(1, sequence, Some(over)).await, Outcome::Done);
        wait::until("it is over", async || {
            caller.bring(1).await.is_none().then_some(())
        })
        .await;
    }

    // The result of a write is there with the write.
    let write = Write {
        id: Some("id".into()),
        ..Operation::Delete {
            condition: Condition::Always,
        }
        .into()
    };
    let done = Done::of(&write, &Answer::Removed { existed: true });
    let call = Call::Keep {
        epoch: Epoch(1),
        key: key(),
        version: Version {
            epoch: 1,
            sequence: 7,
        },
        entry: None,
        done: done.clone(),
    };
    assert_eq!(caller.store.call(call).await, Outcome::Done);
    let Outcome::Brought { done: kept, .. } = caller.outcome(1, Some("id")).await else {
        panic!("it is brought");
    };
    let (kept, left_ms) = kept.expect("it is kept");
    assert_eq!(Some(kept), done);
    assert!((100_000..=120_000).contains(&left_ms), "{left_ms}");
    let nothing = Outcome::Brought {
        entry: None,
        done: None,
    };
    assert_eq!(caller.outcome(1, Some("other")).await, nothing);
}

#[tokio::test]
async fn what_was_kept_before_an_invalidation_does_not_count() {
    let server = RedisServer::start().await;
    let caller = Caller::start(&server, 1).await;
    let tags = vec!["red".into(), "lengths".into()];
    let tagged = Entry {
        marks: Marks { tags, fence: None }.kept(),
        ..entry("tagged")
    };
    let others = [
        Matching::Tag("green".into()),
        Matching::Tag("a/{b}".into()),
        Matching::Prefix("a/{b}c".into()),
        Matching::Prefix("red".into()),
        Matching::Prefix("b".into()),
    ];
    for (sequence, matching) in [
        Matching::Tag("red".into()),
        Matching::Tag("lengths".into()),
        Matching::Prefix("a".into()),
        Matching::Prefix("a/{b}".into()),
        Matching::All,
    ]
    .into_iter()
    .enumerate()
    {
        let kept = caller.keep(1, sequence as u64 + 1, Some(tagged.clone()));
        assert_eq!(kept.await, Outcome::Done);
        for other in &others {
            caller.void(1, other.clone()).await;
        }
        assert_eq!(caller.text(1).await.as_deref(), Some("tagged"));
        caller.void(1, matching.clone()).await;
        assert_eq!(caller.text(1).await, None, "{matching:?}");
    }
    // More than are remembered: everything is void.
    assert_eq!(caller.keep(1, 9, Some(entry("kept"))).await, Outcome::Done);
    let mut raw = server.connection();
    let mut fill = redis::cmd("HSET");
    fill.arg(&Keyspace::new("test", ClusterId(1)).of_cache()[1]);
    for number in 0..10_000 {
        fill.arg(format!("t:{number}")).arg(1);
    }
    let _: u64 = fill.query(&mut raw).expect("an answer");
    caller.void(1, Matching::Tag("one-more".into())).await;
    assert_eq!(caller.text(1).await, None);
}

#[tokio::test]
async fn a_redis_without_memory_keeps_nothing_and_forgets_what_is_removed() {
    let server = RedisServer::start().await;
    let caller = Caller::start(&server, 1).await;
    assert_eq!(caller.keep(1, 1, Some(entry("one"))).await, Outcome::Done);
    let mut raw = server.connection();
    let mut set_memory = |bytes: u64| {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("maxmemory").arg(bytes);
        set.exec(&mut raw).expect("an answer");
    };
    set_memory(1);
    assert_eq!(caller.keep(1, 2, Some(entry("two"))).await, Outcome::Away);
    assert_eq!(caller.text(1).await.as_deref(), Some("one"));
    assert_eq!(caller.keep(1, 3, None).await, Outcome::Done);
    assert_eq!(caller.text(1).await, None);
    set_memory(0);
    assert_eq!(caller.keep(1, 4, Some(entry("four"))).await, Outcome::Done);
}

#[tokio::test]
async fn a_loss_that_is_found_out_leaves_nothing_that_counts() {
    let server = RedisServer::start().await;
    let caller = Caller::start(&server, 1).await;
    assert_eq!(caller.keep(1, 1, Some(entry("one"))).await, Outcome::Done);
    assert_eq!(caller.keep(1, 2, Some(entry("two"))).await, Outcome::Done);
    let keys = Keyspace::new("test", ClusterId(1)).of_cached(&key(), None);
    let mut raw = server.connection();
    let mut back = redis::cmd("HSET");
    back.arg(&keys[0]).arg("count:1").arg(1);
    let _: u64 = back.query(&mut raw).expect("an answer");
    // A node that knows of no loss finds none.
    let other = Caller::start(&server, 2).await;
    assert_eq!(other.text(1).await.as_deref(), Some("two"));
    assert_eq!(caller.text(1).await, None);
    assert_eq!(caller.keep(1, 3, Some(entry("three"))).await, Outcome::Done);
    assert_eq!(caller.text(1).await.as_deref(), Some("three"));
    let flush = redis::cmd("FLUSHALL");
    flush.exec(&mut raw).expect("an answer");
    assert_eq!(caller.text(1).await, None);
    assert_eq!(caller.keep(1, 4, Some(entry("four"))).await, Outcome::Done);
    assert_eq!(caller.text(1).await.as_deref(), Some("four"));
}

/// What the scripts are to do, in plain maps.
#[derive(Default)]
struct Model {
    epoch: Epoch,
    /// Counts what is kept and what makes void.
    sequence: u64,
    /// With the sequence at which each was kept.
    values: BTreeMap<Key, (Entry, u64)>,
    results: BTreeMap<(Key, Key), Done>,
    voids: Vec<(Matching, u64)>,
}

impl Model {
    fn execute(&mut self, call: &Call) -> Outcome {
        if call.epoch() < self.epoch {
            return Outcome::Fenced;
        }
        self.epoch = call.epoch();
        self.sequence += 1;
        match call.clone() {
            Call::Keep {
                key,
                version,
                entry,
                done,
                ..
            } => {
                let known = self.values.get(&key);
                if known.is_some_and(|(known, _)| known.version >= version) {
                    return Outcome::Done;
                }
                self.values.remove(&key);
                if let Some(done) = done {
                    self.results.insert((key.clone(), done.id.clone()), done);
                }
                if let Some(sent) = entry {
                    self.values.insert(key, (sent.kept(0), self.sequence));
                }
                Outcome::Done
            }
            Call::Bring { key, id, .. } => {
                let is_void = |(entry, kept_at): &(Entry, u64)| {
                    let mut voids = self.voids.iter();
                    voids.any(|(matching, at)| kept_at <= at && matching.is_of(&key, entry))
                };
                if self.values.get(&key).is_some_and(is_void) {
                    self.values.remove(&key);
                }
                let entry = self.values.get(&key).map(|(entry, _)| entry.sent(0));
                let done = id.and_then(|id| self.results.get(&(key, id)));
                let done = done.map(|done| (done.clone(), 0));
                Outcome::Brought { entry, done }
            }
            Call::Void { matching, .. } => {
                self.voids.push((matching, self.sequence));
                Outcome::Done
            }
        }
    }
}

/// A call of a view that is now and then older or newer than the one before.
fn any_call(dice: &Dice, newest: u64) -> Call {
    let one_of = |names: &[&str]| Key::from(names[dice.below(names.len() as u64) as usize]);
    let epoch = match dice.below(20) {
        0 => newest.saturating_sub(1),
        1 => newest + 1,
        _ => newest,
    };
    let (key, id) = (one_of(&["a", "a/b", "b"]), one_of(&["x", "y"]));
    match dice.below(10) {
        0 => Call::Void {
            epoch: Epoch(epoch),
            matching: match dice.below(5) {
                0 => Matching::All,
                1 | 2 => Matching::Prefix(one_of(&["a", "a/", "b", "red"])),
                _ => Matching::Tag(one_of(&["red", "blue", "a"])),
            },
        },
        1..=4 => Call::Bring {
            epoch: Epoch(epoch),
            key,
            id: (dice.below(2) == 0).then_some(id),
        },
        _ => {
            let version = Version {
                epoch: epoch - dice.below(2).min(epoch),
                sequence: dice.below(6),
            };
            let tags: Vec<Key> = ["red", "blue"].map(Key::from).into();
            let tags = tags.into_iter().filter(|_| dice.below(2) == 0).collect();
            let value = Entry {
                version,
                marks: Marks { tags, fence: None }.kept(),
                ..entry(&format!("{version:?}"))
            };
            let write = Write {
                id: Some(id),
                ..Operation::Delete {
                    condition: Condition::Always,
                }
                .into()
            };
            let existed = dice.below(2) == 0;
            let done = Done::of(&write, &Answer::Removed { existed });
            Call::Keep {
                epoch: Epoch(epoch),
                key,
                version,
                entry: (dice.below(4) > 0).then(|| value.sent(0)),
                done: done.filter(|_| dice.below(3) == 0),
            }
        }
    }
}

/// How long a result is still kept does not count.
fn timeless(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Brought { entry, done } => Outcome::Brought {
            entry,
            done: done.map(|(done, _)| (done, 0)),
        },
        other => other,
    }
}

#[tokio::test]
async fn cache_scripts_do_what_a_model_does() {
    let server = RedisServer::start().await;
    let callers = [
        Caller::start(&server, 1).await,
        Caller::start(&server, 2).await,
    ];
    let (dice, mut model) = (Dice::roll(), Model::default());
    for step in 0..3_000 {
        let call = any_call(&dice, model.epoch.0.max(1));
        let caller = &callers[dice.below(2) as usize];
        let expected = model.execute(&call);
        let outcome = timeless(caller.store.call(call.clone()).await);
        assert_eq!(outcome, expected, "step {step}: {call:?}");
    }
}
