//! Redis as the store of the cache: each call is one script.
//!
//! `<prefix>:<cluster>:cache:{values}:…`: all keys have one hash tag, since each script compares the one epoch and
//! looks at what is void for all keys. One fence for the whole cache is enough where one server has everything: it
//! executes one script at a time anyway; and an invalidation is one call, not one for each part. In a Redis
//! Cluster one master has the whole store.
//!
//! **What is kept.** A value, until its lifetime is over, or it has lain idle since it was written, or for
//! [`KEPT_MS_MAX`]: a cache may forget, and nothing else would ever remove what has no lifetime. Results of writes
//! with ids for as long as homes keep them. Tags and prefixes that were invalidated; when they are too many, what
//! was kept before the newest ones is void.
//!
//! **A Redis that loses writes.** Each node knows how many of its writes were executed. When Redis knows of fewer,
//! nothing that it has counts any more: a miss, instead of an older value. This is found out by the node's next
//! call, while the node lives; so a Redis that fsyncs always is what the cache wants. Keys must not be evicted
//! by a policy that takes such without expiry (`allkeys-…`): the fence would go with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::cache::entry::Sent;
use crate::cache::message::Matching;
use crate::cache::requests::{Done, REMEMBERED_MS};
use crate::cache::service::Store;
use crate::cache::through::{Call, Outcome};
use crate::ids::NodeId;
use crate::queue::keys::Keyspace;
use crate::queue::script::{Args, Reply, Script};
use crate::queue::store::{self, CallError};
use crate::time;

/// How long a value is kept after it was written, at most: a week.
pub const KEPT_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1_000;
/// The form of what is kept; another one is of another version of this program, and passed over.
const FORM: u8 = 1;

/// Where keys are; none before the node belongs to a cluster.
pub type KeyspaceOf = Box<dyn Fn() -> Option<Keyspace> + Send + Sync>;

/// The store in Redis, as one node calls it.
pub struct RedisStore(Arc<Shared>);

struct Shared {
    me: NodeId,
    redis: Arc<store::Store>,
    keyspace: KeyspaceOf,
    /// How many of this node's writes are known to be executed.
    count: AtomicU64,
}

impl RedisStore {
    pub fn new(me: NodeId, redis: Arc<store::Store>, keyspace: KeyspaceOf) -> Self {
        RedisStore(Arc::new(Shared {
            me,
            redis,
            keyspace,
            count: AtomicU64::new(0),
        }))
    }
}

impl Store for RedisStore {
    fn call(&self, call: Call) -> BoxFuture<'static, Outcome> {
        let shared = self.0.clone();
        async move {
            let called = shared.call(&call).await;
            called.unwrap_or_else(|error| match error {
                CallError::Unknown(_) => Outcome::Unknown,
                error => {
                    tracing::debug!(%error, "the store of the cache is away");
                    Outcome::Away
                }
            })
        }
        .boxed()
    }
}

impl Shared {
    async fn call(&self, call: &Call) -> Result<Outcome, CallError> {
        let keyspace = (self.keyspace)().ok_or(CallError::Disconnected)?;
        let (script, keys, rest) = written(call, &keyspace);
        let began = time::now();
        loop {
            // The number is that of the connection that the call goes over.
            let route = self.redis.route(&keys[0])?;
            let mut args = Args::default();
            args.number(call.epoch().0);
            args.number(self.me.0);
            args.number(route.number());
            args.number(self.count.load(Ordering::Acquire));
            args.number(u64::from(!call.keeps_a_value()));
            args.0.extend_from_slice(&rest.0);
            match route.run(script, &keys, &args.0, None).await {
                Err(CallError::Moved) if self.redis.settle(began).await => {}
                Err(error) => return Err(error),
                Ok(reply) => {
                    let outcome = self.read(reply, script == Script::CacheBring);
                    let unknown = || CallError::Unknown("it is not what a script says".to_owned());
                    return outcome.ok_or_else(unknown);
                }
            }
        }
    }

    /// None when it is not what the scripts say.
    fn read(&self, reply: Reply, is_brought: bool) -> Option<Outcome> {
        let Reply::List(list) = reply else {
            return None;
        };
        let mut parts = list.into_iter();
        match parts.next()?.text()?.as_str() {
            "ok" => {}
            "fenced" => return Some(Outcome::Fenced),
            _ => return None,
        }
        let count = parts.next()?.number()?;
        self.count.fetch_max(count, Ordering::AcqRel);
        if !is_brought {
            return Some(Outcome::Done);
        }
        let value = parts.next()?.into_bytes();
        let left_ms = parts.next()?.number();
        let result = parts.next()?.into_bytes();
        let result_left_ms = parts.next()?.number().unwrap_or(0);
        let entry = value.and_then(|value| unpacked::<Sent>(&value));
        Some(Outcome::Brought {
            entry: entry.map(|entry| entry.with_left(left_ms)),
            done: result
                .and_then(|result| unpacked::<Done>(&result))
                .map(|done| (done, result_left_ms)),
        })
    }
}

/// The script, the keys, and the arguments after those that all scripts begin with.
fn written(call: &Call, keyspace: &Keyspace) -> (Script, Vec<String>, Args) {
    let mut args = Args::default();
    match call {
        Call::Keep {
            key,
            version,
            entry,
            done,
            ..
        } => {
            let id = done.as_ref().map(|done| &*done.id);
            args.number(version.epoch);
            args.number(version.sequence);
            args.bytes(entry.as_ref().map_or(Bytes::new(), packed));
            let left_ms = entry.as_ref().and_then(|entry| entry.left_ms);
            args.number(left_ms.map_or(0, |left_ms| left_ms.max(1)));
            args.number(entry.as_ref().map_or(1, kept_ms));
            args.bytes(done.as_ref().map_or(Bytes::new(), packed));
            args.number(REMEMBERED_MS);
            let marks = entry.iter().filter_map(|entry| entry.marks.as_deref());
            for tag in marks.flat_map(|marks| &marks.tags) {
                args.text(tag);
            }
            let keys = keyspace.of_cached(key, id);
            (Script::CacheKeep, keys, args)
        }
        Call::Bring { key, id, .. } => {
            args.text(key);
            let keys = keyspace.of_cached(key, id.as_deref());
            (Script::CacheBring, keys, args)
        }
        Call::Void { matching, .. } => {
            match matching {
                Matching::All => args.text("all"),
                Matching::Tag(tag) => args.text(&format!("t:{tag}")),
                Matching::Prefix(prefix) => args.text(&format!("p:{prefix}")),
            }
            (Script::CacheVoid, keyspace.of_cache(), args)
        }
    }
}

/// For how long a value is kept: it may lie idle only as long as it was written for, since the store hears of
/// no reads.
fn kept_ms(entry: &Sent) -> u64 {
    let idle_ms = Some(entry.idle_ms).filter(|&idle_ms| idle_ms > 0);
    let bounds = [entry.left_ms, idle_ms].into_iter().flatten();
    bounds
        .chain([KEPT_MS_MAX])
        .min()
        .unwrap_or(KEPT_MS_MAX)
        .max(1)
}

fn packed<T: serde::Serialize>(kept: &T) -> Bytes {
    let mut bytes = vec![FORM];
    rmp_serde::encode::write(&mut bytes, kept).expect("what is kept has a form in MessagePack");
    bytes.into()
}

/// None of another form: what cannot be read is as good as forgotten.
fn unpacked<T: serde::de::DeserializeOwned>(bytes: &Bytes) -> Option<T> {
    let (form, rest) = bytes.split_first()?;
    let read = rmp_serde::from_slice(rest).ok();
    let read = read.filter(|_| *form == FORM);
    if read.is_none() {
        tracing::warn!("ignoring an entry of the store that another version of this program wrote");
    }
    read
}
