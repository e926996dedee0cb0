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
use redis::Commands;
use tokio::sync::watch;

use crate::redis_server::RedisServer;
use crate::wait;

/// A node that calls the store.
pub struct Caller {
    pub store: RedisStore,
    redis: Arc<store::Store>,
    _running: watch::Sender<bool>,
}

impl Caller {
    pub async fn start(server: &RedisServer, node: u64) -> Self {
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

pub fn entry(text: &str) -> Entry {
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
}

#[tokio::test]
async fn of_too_many_invalidations_the_oldest_makes_void_what_is_older() {
    let server = RedisServer::start().await;
    let caller = Caller::start(&server, 1).await;
    let keys = Keyspace::new("test", ClusterId(1)).of_cache();
    let (voids, order) = (&keys[1], &keys[2]);
    let mut raw = server.connection();
    assert_eq!(caller.keep(1, 1, Some(entry("old"))).await, Outcome::Done);
    caller.void(1, Matching::Prefix("b".into())).await;
    assert_eq!(caller.keep(1, 2, Some(entry("new"))).await, Outcome::Done);
    // As many as are remembered, of the time after that.
    let oldest: u64 = raw.zscore(order, "p:b").expect("an answer");
    let fields: Vec<_> = (1..10_000_u64)
        .map(|number| (oldest + 1 + number, format!("t:{number}")))
        .collect();
    let _: u64 = raw.zadd_multiple(order, &fields).expect("an answer");
    let fields: Vec<_> = fields.into_iter().map(|(at, tag)| (tag, at)).collect();
    let () = raw.hset_multiple(voids, &fields).expect("an answer");
    let _: u64 = raw
        .hset(&keys[0], "sequence", oldest + 10_000)
        .expect("an answer");
    let counts = |raw: &mut redis::Connection| -> (u64, u64) {
        let fields = raw.hlen(voids).expect("an answer");
        (fields, raw.zcard(order).expect("an answer"))
    };
    // The lengths of prefixes are a field, too.
    assert_eq!(counts(&mut raw), (10_001, 10_000));

    caller.void(1, Matching::Tag("one-more".into())).await;
    assert_eq!(counts(&mut raw), (10_001, 10_000));
    assert_eq!(caller.text(1).await.as_deref(), Some("new"));
    caller.void(1, Matching::Tag("one-more".into())).await;
    assert_eq!(caller.text(1).await.as_deref(), Some("new"));
    caller.void(1, Matching::Tag("and-another".into())).await;
    assert_eq!(caller.text(1).await, None);
    assert_eq!(counts(&mut raw), (10_001, 10_000));
}

#[tokio::test]
async fn a_redis_without_memory_takes_no_values_and_all_else() {
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
    // By a node that was not connected before, and in another view.
    let other = Caller::start(&server, 2).await;
    assert_eq!(other.text(2).await.as_deref(), Some("one"));
    let write = Write {
        id: Some("id".into()),
        ..Operation::Delete {
            condition: Condition::Always,
        }
        .into()
    };
    let removal = Call::Keep {
        epoch: Epoch(3),
        key: key(),
        version: Version {
            epoch: 3,
            sequence: 1,
        },
        entry: None,
        done: Done::of(&write, &Answer::Removed { existed: true }),
    };
    assert_eq!(other.store.call(removal).await, Outcome::Done);
    let Outcome::Brought { entry: None, done } = other.outcome(3, Some("id")).await else {
        panic!("it is removed");
    };
    assert!(done.is_some());
    set_memory(0);
    assert_eq!(caller.keep(3, 2, Some(entry("two"))).await, Outcome::Done);
    set_memory(1);
    caller.void(3, Matching::Prefix("a".into())).await;
    assert_eq!(caller.text(3).await, None);
    assert_eq!(caller.keep(3, 3, Some(entry("3"))).await, Outcome::Away);
}

#[tokio::test]
async fn an_invalidation_that_is_lost_is_found_out() {
    let server = RedisServer::start().await;
    let caller = Caller::start(&server, 1).await;
    let keys = Keyspace::new("test", ClusterId(1)).of_cached(&key(), None);
    let mut raw = server.connection();
    for (sequence, matching) in [Matching::Prefix("a".into()), Matching::All]
        .into_iter()
        .enumerate()
    {
        let kept = caller.keep(1, sequence as u64 + 1, Some(entry("old")));
        assert_eq!(kept.await, Outcome::Done);
        let before: BTreeMap<String, String> = raw.hgetall(&keys[0]).expect("an answer");
        caller.void(1, matching).await;
        let _: u64 = raw.del(&keys[..3]).expect("an answer");
        let before = Vec::from_iter(before);
        let () = raw.hset_multiple(&keys[0], &before).expect("an answer");
        // A node that knows of no loss finds none.
        let other = Caller::start(&server, 2).await;
        assert_eq!(other.text(1).await.as_deref(), Some("old"));
        assert_eq!(caller.text(1).await, None);
    }
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
