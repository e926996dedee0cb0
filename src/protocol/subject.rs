//! Subjects: which operation a message is for, and where to send one.
//!
//! `<prefix>.<service>.<operation>[.<resource>]` reaches any node,
//! `<prefix>.node.<id>.<service>.<operation>[.<resource>]` one node. A tenant's requests have
//! `t.<account>.` behind the prefix. What starts right and names nothing that exists is parsed too,
//! so that it can be answered with `unknown_operation`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::protocol::Tenant;

/// The queue group of all nodes on the subjects that any of them may answer.
pub const QUEUE_GROUP: &str = "q";

/// The greatest prefix in bytes; a subject must stay well under the broker's 4 KB control line.
const PREFIX_BYTES_MAX: usize = 64;

/// Services whose whole family a node subscribes to, so that what does not exist in it is answered.
const FAMILIES: &[&str] = &["lock", "session", "queue", "cache", "cluster", "admin"];

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident $name:literal $label:literal $endpoint:literal,)*) => {
        /// Every operation that a client can ask for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Operation {
            $($(#[$doc])* $variant,)*
        }

        impl Operation {
            pub const ALL: &[Operation] = &[$(Operation::$variant,)*];

            /// As in subjects: `lock.acquire`.
            pub fn name(self) -> &'static str {
                match self { $(Operation::$variant => $name,)* }
            }

            /// As in metrics: `lock_acquire`.
            pub fn label(self) -> &'static str {
                match self { $(Operation::$variant => $label,)* }
            }

            /// As an endpoint of the NATS micro service: `lock-acquire`.
            pub fn endpoint(self) -> &'static str {
                match self { $(Operation::$variant => $endpoint,)* }
            }
        }
    };
}

operations! {
    LockAcquire "lock.acquire" "lock_acquire" "lock-acquire",
    LockRelease "lock.release" "lock_release" "lock-release",
    LockRenew "lock.renew" "lock_renew" "lock-renew",
    LockCheck "lock.check" "lock_check" "lock-check",
    LockGet "lock.get" "lock_get" "lock-get",
    QueuePush "queue.push" "queue_push" "queue-push",
    QueuePop "queue.pop" "queue_pop" "queue-pop",
    QueueAck "queue.ack" "queue_ack" "queue-ack",
    QueueNack "queue.nack" "queue_nack" "queue-nack",
    QueueExtend "queue.extend" "queue_extend" "queue-extend",
    QueuePeek "queue.peek" "queue_peek" "queue-peek",
    QueueCancel "queue.cancel" "queue_cancel" "queue-cancel",
    QueueConfigure "queue.configure" "queue_configure" "queue-configure",
    QueueStats "queue.stats" "queue_stats" "queue-stats",
    QueueList "queue.list" "queue_list" "queue-list",
    QueueRedrive "queue.redrive" "queue_redrive" "queue-redrive",
    QueuePause "queue.pause" "queue_pause" "queue-pause",
    QueueResume "queue.resume" "queue_resume" "queue-resume",
    AdminQueuePurge "admin.queue.purge" "admin_queue_purge" "admin-queue-purge",
    LockConvert "lock.convert" "lock_convert" "lock-convert",
    LockCancel "lock.cancel" "lock_cancel" "lock-cancel",
    LockList "lock.list" "lock_list" "lock-list",
    LockGraph "lock.graph" "lock_graph" "lock-graph",
    LockDeadlocks "lock.deadlocks" "lock_deadlocks" "lock-deadlocks",
    SessionOpen "session.open" "session_open" "session-open",
    SessionKeepalive "session.keepalive" "session_keepalive" "session-keepalive",
    SessionClose "session.close" "session_close" "session-close",
    SessionGet "session.get" "session_get" "session-get",
    SessionList "session.list" "session_list" "session-list",
    AdminLockRelease "admin.lock.release" "admin_lock_release" "admin-lock-release",
    AdminSessionClose "admin.session.close" "admin_session_close" "admin-session-close",
    CacheGet "cache.get" "cache_get" "cache-get",
    CacheGetMany "cache.get_many" "cache_get_many" "cache-get_many",
    CacheSet "cache.set" "cache_set" "cache-set",
    CacheDelete "cache.delete" "cache_delete" "cache-delete",
    CacheIncrement "cache.increment" "cache_increment" "cache-increment",
    CacheTouch "cache.touch" "cache_touch" "cache-touch",
    CacheInvalidate "cache.invalidate" "cache_invalidate" "cache-invalidate",
    CacheAudit "cache.audit" "cache_audit" "cache-audit",
    CacheExplain "cache.explain" "cache_explain" "cache-explain",
    CacheStats "cache.stats" "cache_stats" "cache-stats",
    ClusterMembers "cluster.members" "cluster_members" "cluster-members",
    AdminClusterAdd "admin.cluster.add" "admin_cluster_add" "admin-cluster-add",
    AdminClusterRemove "admin.cluster.remove" "admin_cluster_remove" "admin-cluster-remove",
    AdminClusterTransfer "admin.cluster.transfer" "admin_cluster_transfer" "admin-cluster-transfer",
    AdminClusterBackup "admin.cluster.backup" "admin_cluster_backup" "admin-cluster-backup",
    Status "status" "status" "status",
    Metrics "metrics" "metrics" "metrics",
}

impl Operation {
    /// Whether it only looks, and changes nothing that a client can see.
    pub fn only_reads(self) -> bool {
        match self {
            Operation::LockCheck
            | Operation::LockGet
            | Operation::LockList
            | Operation::LockGraph
            | Operation::LockDeadlocks
            | Operation::SessionGet
            | Operation::SessionList
            | Operation::QueuePeek
            | Operation::QueueStats
            | Operation::QueueList
            | Operation::CacheGet
            | Operation::CacheGetMany
            | Operation::CacheAudit
            | Operation::CacheExplain
            | Operation::CacheStats
            | Operation::ClusterMembers
            | Operation::AdminClusterBackup
            | Operation::Status
            | Operation::Metrics => true,
            Operation::LockAcquire
            | Operation::LockRelease
            | Operation::LockRenew
            | Operation::LockConvert
            | Operation::LockCancel
            | Operation::SessionOpen
            | Operation::SessionKeepalive
            | Operation::SessionClose
            | Operation::QueuePush
            | Operation::QueuePop
            | Operation::QueueAck
            | Operation::QueueNack
            | Operation::QueueExtend
            | Operation::QueueCancel
            | Operation::QueueConfigure
            | Operation::QueueRedrive
            | Operation::QueuePause
            | Operation::QueueResume
            | Operation::CacheSet
            | Operation::CacheDelete
            | Operation::CacheIncrement
            | Operation::CacheTouch
            | Operation::CacheInvalidate
            | Operation::AdminLockRelease
            | Operation::AdminSessionClose
            | Operation::AdminQueuePurge
            | Operation::AdminClusterAdd
            | Operation::AdminClusterRemove
            | Operation::AdminClusterTransfer => false,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The first tokens of every subject of one cluster: lower-case letters, digits, `_`, `-` and
/// dots between tokens that are not empty; at most 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the prefix `{0}` must be 1 to 64 lower-case letters, digits, `_`, `-` and single dots, \
     with a dot neither first nor last"
)]
pub struct InvalidPrefix(String);

impl Default for Prefix {
    fn default() -> Self {
        Prefix("mufakat".to_owned())
    }
}

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let token_is_valid = |token: &str| {
            !token.is_empty()
                && token
                    .bytes()
                    .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
        };
        if text.len() <= PREFIX_BYTES_MAX && text.split('.').all(token_is_valid) {
            Ok(Prefix(text.to_owned()))
        } else {
            Err(InvalidPrefix(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Prefix {
    type Error = InvalidPrefix;

    fn try_from(text: String) -> Result<Self, InvalidPrefix> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the subject of a request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address<'a> {
    /// The account whose request it is, if the broker says so.
    pub account: Option<&'a str>,
    /// Present when one node was addressed.
    pub node: Option<NodeId>,
    /// None: no such operation.
    pub operation: Option<Operation>,
    /// The tokens after the operation: the resource.
    pub suffix: Option<&'a str>,
}

impl Prefix {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where any node answers an operation.
    pub fn operation(&self, operation: Operation) -> String {
        format!("{}.{}", self.0, operation.name())
    }

    /// Where nodes hear a tenant ask for an operation.
    pub fn tenant_operation(&self, tenant: &Tenant, operation: Operation) -> String {
        format!("{}.t.{tenant}.{}", self.0, operation.name())
    }

    /// Where one node answers an operation.
    pub fn node_operation(&self, node: NodeId, operation: Operation) -> String {
        format!("{}.node.{node}.{}", self.0, operation.name())
    }

    /// Where watchers hear of everything: `kind` is `lock.granted` and so on.
    pub fn event(&self, kind: &str) -> String {
        format!("{}.event.{kind}", self.0)
    }

    /// Where nodes tell what is this tenant's; its account has it as [`event`](Self::event).
    pub fn tenant_event(&self, tenant: &Tenant, kind: &str) -> String {
        format!("{}.t.{tenant}.event.{kind}", self.0)
    }

    /// What every node subscribes to in the queue group [`QUEUE_GROUP`].
    pub fn shared_subscriptions(&self) -> Vec<String> {
        let mut subjects = Vec::new();
        for whose in [self.0.clone(), format!("{}.t.*", self.0)] {
            for family in FAMILIES {
                subjects.push(format!("{whose}.{family}.>"));
            }
            for operation in [Operation::Status, Operation::Metrics] {
                subjects.push(format!("{whose}.{operation}"));
                subjects.push(format!("{whose}.{operation}.>"));
            }
        }
        subjects
    }

    /// What a node sends to itself, to know that all before it has arrived.
    pub fn fence(&self, node: NodeId) -> String {
        format!("{}.int.fence.{node}", self.0)
    }

    /// What one node subscribes to alone.
    pub fn node_subscriptions(&self, node: NodeId) -> [String; 2] {
        [
            format!("{}.node.{node}.>", self.0),
            format!("{}.t.*.node.{node}.>", self.0),
        ]
    }

    /// Reads the subject of a request; none when it is not under this prefix at all.
    pub fn parse<'a>(&self, subject: &'a str) -> Option<Address<'a>> {
        let rest = subject.strip_prefix(&self.0)?.strip_prefix('.')?;
        let (account, rest) = match rest.strip_prefix("t.") {
            None => (None, rest),
            Some(tenants) => {
                let (account, rest) = tenants.split_once('.')?;
                (Some(account), rest)
            }
        };
        let (node, rest) = match rest.strip_prefix("node.") {
            None => (None, rest),
            Some(addressed) => {
                let (id, rest) = addressed.split_once('.')?;
                (Some(NodeId(id.parse().ok()?)), rest)
            }
        };
        let found = Operation::ALL.iter().find_map(|&operation| {
            match rest.strip_prefix(operation.name())? {
                "" => Some((operation, None)),
                more => Some((operation, Some(more.strip_prefix('.')?))),
            }
        });
        Some(Address {
            account,
            node,
            operation: found.map(|(operation, _)| operation),
            suffix: found.and_then(|(_, suffix)| suffix),
        })
    }

    /// Whether an answer may go to this subject. Nodes publish with their own rights, so that a
    /// reply subject of the cluster or of the broker itself is not served. Of a client in an account
    /// that imports the nodes' subjects the broker shows another subject than the client's, about which
    /// this says nothing.
    pub fn may_reply_to(&self, subject: &str) -> bool {
        let under_prefix = subject
            .strip_prefix(&self.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let valid = !subject.split('.').any(str::is_empty)
            && !subject
                .bytes()
                .any(|b| b.is_ascii_whitespace() || matches!(b, b'*' | b'>'));
        valid && !under_prefix && !subject.starts_with('$')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(subject: &str) -> Option<(Option<u64>, Option<&'static str>, Option<&str>)> {
        let prefix: Prefix = "team.mufakat".parse().unwrap();
        let address = prefix.parse(subject)?;
        Some((
            address.node.map(|node| node.0),
            address.operation.map(Operation::name),
            address.suffix,
        ))
    }

    #[test]
    fn a_subject_says_node_operation_and_resource() {
        let acquire = Some("lock.acquire");
        for (subject, expected) in [
            ("team.mufakat.lock.acquire", Some((None, acquire, None))),
            (
                "team.mufakat.lock.acquire.a.b",
                Some((None, acquire, Some("a.b"))),
            ),
            (
                "team.mufakat.node.2.lock.acquire.a",
                Some((Some(2), acquire, Some("a"))),
            ),
            (
                "team.mufakat.node.2.status",
                Some((Some(2), Some("status"), None)),
            ),
            ("team.mufakat.lock.acquired", Some((None, None, None))),
            (
                "team.mufakat.lock.acquire.",
                Some((None, acquire, Some(""))),
            ),
            (
                "team.mufakat.queue.push.x",
                Some((None, Some("queue.push"), Some("x"))),
            ),
            ("team.mufakat.queue.pushes.x", Some((None, None, None))),
            ("team.mufakat.node.x.status", None),
            ("team.mufakat", None),
            ("team.mufakats.status", None),
            ("other.status", None),
        ] {
            assert_eq!(address(subject), expected, "{subject}");
        }
    }

    #[test]
    fn what_is_built_is_parsed_back() {
        let prefix = Prefix::default();
        for &operation in Operation::ALL {
            let shared = prefix.operation(operation);
            assert_eq!(prefix.parse(&shared).unwrap().operation, Some(operation));
            let direct = prefix.node_operation(NodeId(7), operation);
            let address = prefix.parse(&direct).unwrap();
            assert_eq!(
                (address.node, address.operation),
                (Some(NodeId(7)), Some(operation))
            );
            assert_eq!(operation.label(), operation.name().replace('.', "_"));
            assert_eq!(operation.endpoint(), operation.name().replace('.', "-"));
        }
    }

    #[test]
    fn prefixes_have_few_characters() {
        for good in ["mufakat", "a.b-c_d.9"] {
            assert!(good.parse::<Prefix>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "A",
            "a..b",
            ".a",
            "a.",
            "a b",
            "a.*",
            "a.>",
            "ä",
            &"a".repeat(65),
        ] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn nodes_do_not_answer_to_themselves_nor_to_the_broker() {
        let prefix = Prefix::default();
        for good in ["_INBOX.abc.1", "_R_.x", "mufakats.x"] {
            assert!(prefix.may_reply_to(good), "{good}");
        }
        for bad in [
            "",
            "mufakat",
            "mufakat.lock.acquire",
            "$SYS.x",
            "$JS.API",
            "a..b",
            "a.*",
            "a b",
        ] {
            assert!(!prefix.may_reply_to(bad), "{bad}");
        }
    }
}
