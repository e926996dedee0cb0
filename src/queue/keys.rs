//! The one place where keys of Redis are made.
//!
//! `<prefix>:<cluster>:{<topic>}:<part>`: all keys of a topic have one hash tag, so that they share a
//! slot, and every key carries prefix and cluster, so that two clusters on one Redis do not meet.
//!
//! `<prefix>:<cluster>:cache:{values}:<part>`: the same of the cache's store. What follows the tag needs no
//! escape.

use crate::ids::ClusterId;

/// Parts of a topic, in the order in which scripts name them.
const PARTS: [&str; 13] = [
    "meta",
    "body",
    "info",
    "lease",
    "leased",
    "delayed",
    "ttl",
    "dedup",
    "dedup-until",
    "dead",
    "errors",
    "settings",
    "groups",
];
/// Priorities, each with a list of what is ready.
const PRIORITIES: u64 = 10;

/// What all keys of one cluster begin with.
#[derive(Clone, Debug)]
pub struct Keyspace(String);

impl Keyspace {
    pub fn new(prefix: &str, cluster: ClusterId) -> Self {
        Keyspace(format!("{prefix}:{cluster}"))
    }

    /// The set of all topics.
    pub fn topics(&self) -> String {
        format!("{}:topics", self.0)
    }

    /// What is written to ask whether replicas have what was written before; the same for all clusters
    /// with a prefix, since its value means nothing. `tag` chooses a slot.
    pub fn copied(prefix: &str, tag: Option<&str>) -> String {
        match tag {
            Some(tag) => format!("{prefix}:copied:{{{tag}}}"),
            None => format!("{prefix}:copied"),
        }
    }

    /// The keys of the whole cache, as every script of it takes them first.
    pub fn of_cache(&self) -> Vec<String> {
        let part = |part: &str| format!("{}:cache:{{values}}:{part}", self.0);
        vec![part("meta"), part("voids"), part("order")]
    }

    /// The keys of one cached key, and of the result of a write of it with an id.
    pub fn of_cached(&self, key: &str, id: Option<&str>) -> Vec<String> {
        let mut keys = self.of_cache();
        keys.push(format!("{}:cache:{{values}}:value:{key}", self.0));
        if let Some(id) = id {
            let length = key.len();
            keys.push(format!(
                "{}:cache:{{values}}:result:{length}:{key}:{id}",
                self.0
            ));
        }
        keys
    }

    /// The keys of a topic, as every script takes them. No script writes to the last, which is the beginning of
    /// further keys: a Redis Cluster refuses a script whole while one of its keys is not there and their slot
    /// moves, so none is ever executed on a part of a topic.
    pub fn of_topic(&self, topic: &str) -> Vec<String> {
        let base = format!("{}:{{{}}}:", self.0, escaped(topic));
        let parts = PARTS.iter().map(|part| format!("{base}{part}"));
        let ready = (0..PRIORITIES).map(|priority| format!("{base}ready:{priority}"));
        parts.chain(ready).chain([base.clone()]).collect()
    }
}

/// A hash tag ends at the first brace.
fn escaped(topic: &str) -> String {
    topic
        .replace('%', "%25")
        .replace('{', "%7B")
        .replace('}', "%7D")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_topic_have_its_tag_and_no_two_topics_share_one() {
        let keyspace = Keyspace::new("mufakat", ClusterId(10));
        let keys = keyspace.of_topic("orders");
        assert_eq!(keys.len(), 24);
        assert_eq!(keys[0], "mufakat:000000000000000a:{orders}:meta");
        assert_eq!(keys[13], "mufakat:000000000000000a:{orders}:ready:0");
        for (topic, tag) in [("a}b", "{a%7Db}"), ("{", "{%7B}"), ("a%7Db", "{a%257Db}")] {
            for key in keyspace.of_topic(topic) {
                let from = key.find('{').unwrap();
                let to = from + key[from..].find('}').unwrap();
                assert_eq!(&key[from..=to], tag);
            }
        }
    }

    #[test]
    fn all_keys_of_the_cache_have_one_tag_and_no_two_results_share_one() {
        let keyspace = Keyspace::new("mufakat", ClusterId(10));
        let keys = keyspace.of_cached("}{a:b", Some("c"));
        for key in &keys {
            assert!(key.starts_with("mufakat:000000000000000a:cache:{values}:"));
        }
        assert_eq!(keys[..3], keyspace.of_cache()[..]);
        assert_ne!(
            keyspace.of_cached("a:b", Some("c"))[4],
            keyspace.of_cached("a", Some("b:c"))[4]
        );
    }
}
