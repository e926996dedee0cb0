//! From a server's settings to what an acknowledged write survives. Plain code.
//!
//! | level | what an acknowledged write survives |
//! |---|---|
//! | `fsync` | the end of the process and of power: it is on the disk before the reply, and on the disk of every replica, if there are some |
//! | `os` | the end of the process (kill -9), since write(2) comes before the reply |
//! | `interval` | neither for sure: the newest seconds may be lost |
//! | `none` | nothing: not every write is logged, or the server may throw it away |
//! | `unknown` | the server does not let us see its settings |
//!
//! Of a server that hides its settings the operator may assert a level; where they are shown they count.
//!
//! All of it holds on one server that is not failed over and not restored from a copy; but `fsync` that is
//! `confirmed` (by `WAITAOF`, for the very push) also holds when any of the replicas that were counted
//! takes over. Without that word a server with replicas gives `interval`, however well it fsyncs itself:
//! who is promoted may lack the newest seconds.
//!
//! Limits: replicas of replicas are not seen. What a replica says of its fsyncs is believed; with
//! `appendfsync everysec` Redis 7.4.0 to 7.4.2 may say it too early (redis/redis#13793). As many replicas
//! count as this node has ever seen connected at once.

use std::collections::BTreeMap;

pub use crate::protocol::status::{Durability as Level, DurabilitySource as Source};

#[cfg(test)]
mod tests;

/// What a server's settings amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durability {
    pub level: Level,
    pub source: Source,
    /// For the operator: each names a setting, what it costs, and what to set instead.
    pub warnings: Vec<String>,
}

/// What a server says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// `INFO`, by field.
    pub info: BTreeMap<String, String>,
    /// `CONFIG GET` of [`SETTINGS`]; absent when the server forbids it.
    pub config: Option<BTreeMap<String, String>>,
}

/// The settings that decide.
pub const SETTINGS: [&str; 5] = [
    "appendonly",
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "maxmemory",
    "maxmemory-policy",
];

/// Before this version even `always` acknowledges some writes ahead of their fsync
/// (redis/redis#8347, #9678).
const FSYNC_VERSION_MIN: (u32, u32) = (7, 0);

/// What is known of a server's replicas beside what it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// The most that were connected at any time: one that is away can still be promoted.
    pub most: u64,
    pub copies: Copies,
}

/// Whether the replicas have fsynced what was written before they were asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// The server has no command to ask by.
    Untold,
    /// Not all of them, or not in time.
    Behind,
    /// All of them, and the server itself.
    Fsynced,
}

impl Replicas {
    /// Of a server that never had any.
    pub const NONE: Replicas = Replicas {
        most: 0,
        copies: Copies::Untold,
    };
}

const HIDDEN: &str = "Redis does not show its settings (CONFIG GET): durability is unknown, unless \
                      it is asserted";

impl Inspection {
    /// Splits the text of `INFO` into fields; lines that are none are passed over.
    pub fn parse_info(text: &str) -> BTreeMap<String, String> {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(field, value)| (field.to_owned(), value.to_owned()))
            .collect()
    }

    /// Identity of the server's process: another one means that it was restarted or replaced.
    pub fn run_id(&self) -> Option<&str> {
        self.info("run_id")
    }

    /// `master` or `slave`, in the server's own words.
    pub fn role(&self) -> Option<&str> {
        self.info("role")
    }

    pub fn version(&self) -> Option<&str> {
        self.info("redis_version")
    }

    fn info(&self, field: &str) -> Option<&str> {
        self.info.get(field).map(String::as_str)
    }

    fn setting(&self, name: &str) -> Option<&str> {
        self.config.as_ref()?.get(name).map(String::as_str)
    }

    fn version_pair(&self) -> Option<(u32, u32)> {
        let mut numbers = self.version()?.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    /// `INFO` tells it even where `CONFIG` is forbidden.
    fn is_append_only(&self) -> Option<bool> {
        match self.setting("appendonly") {
            Some(value) => Some(value == "yes"),
            None => self.info("aof_enabled").map(|value| value == "1"),
        }
    }

    /// How many replicas are connected.
    pub fn replicas(&self) -> u64 {
        let connected = self.info("connected_slaves");
        connected.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// Whether the level is a matter of what replicas have on their disks.
    pub fn depends_on_copies(&self, most: u64) -> bool {
        let copies = Copies::Fsynced;
        let best = self.durability(None, Replicas { most, copies });
        best.source == Source::Confirmed
    }

    /// What the settings amount to, with the reasons for every level but the best. `asserted` is
    /// what the operator says.
    pub fn durability(&self, asserted: Option<Level>, replicas: Replicas) -> Durability {
        let mut warnings = Vec::new();
        self.refused_writes(&mut warnings);
        let level = match self.shortcomings_of_any_log(&mut warnings) {
            Some(level) => level,
            None => {
                let alone = self.level_of_log(&mut warnings);
                self.level_with_replicas(alone, replicas, &mut warnings)
            }
        };
        let has_replicas = replicas.most.max(self.replicas()) > 0;
        let inspected = match level {
            Level::Fsync if has_replicas => Source::Confirmed,
            _ => Source::Inspected,
        };
        let (level, source) = match asserted {
            Some(asserted) if self.config.is_none() && self.role() != Some("slave") => {
                warnings.retain(|warning| warning != HIDDEN);
                (asserted, Source::Asserted)
            }
            Some(asserted) if level.rank() < asserted.rank() => {
                warnings.push(format!(
                    "{} is asserted, but Redis shows its settings, and they give {}",
                    asserted.name(),
                    level.name()
                ));
                (level, inspected)
            }
            _ => (level, inspected),
        };
        Durability {
            level,
            source,
            warnings,
        }
    }

    /// Says why the server takes no writes, or may soon take none.
    fn refused_writes(&self, warnings: &mut Vec<String>) {
        if self.info("aof_last_write_status") == Some("err") {
            warnings.push(
                "Redis could not write its log (aof_last_write_status): it refuses writes until it \
                 can; look at its disk"
                    .into(),
            );
        }
        if self.info("rdb_last_bgsave_status") == Some("err") {
            warnings.push(
                "the last snapshot of Redis failed (rdb_last_bgsave_status): with save points and \
                 stop-writes-on-bgsave-error it refuses writes; look at its disk"
                    .into(),
            );
        }
    }

    /// What makes the way in which the log is written irrelevant.
    fn shortcomings_of_any_log(&self, warnings: &mut Vec<String>) -> Option<Level> {
        let mut level = None;
        if self.role() == Some("slave") {
            warnings.push("Redis is a replica and refuses writes: connect to the master".into());
            level = Some(Level::None);
        }
        if self.is_append_only() == Some(false) {
            warnings.push("appendonly is no: a restart loses messages; set it to yes".into());
            level = Some(Level::None);
        }
        if self.evicts(warnings) {
            level = Some(Level::None);
        }
        level
    }

    /// Whether the server throws acknowledged data away when its memory is full.
    fn evicts(&self, warnings: &mut Vec<String>) -> bool {
        let policy = self.setting("maxmemory-policy").unwrap_or("noeviction");
        if policy == "noeviction" {
            return false;
        }
        let is_limited = self.setting("maxmemory") != Some("0");
        let when = if is_limited {
            "a full memory evicts messages"
        } else {
            "messages would be evicted if maxmemory were set"
        };
        warnings.push(format!(
            "maxmemory-policy is {policy}: {when}; set it to noeviction"
        ));
        is_limited
    }

    fn level_of_log(&self, warnings: &mut Vec<String>) -> Level {
        match (self.is_append_only(), self.setting("appendfsync")) {
            (Some(_), Some("always")) => self.level_of_always(warnings),
            (Some(_), Some("no")) => {
                warnings
                    .push("appendfsync is no: a power cut loses messages; set it to always".into());
                Level::Os
            }
            (Some(_), Some("everysec")) => {
                warnings.push(
                    "appendfsync is everysec: a crash may lose the newest seconds; set it to always"
                        .into(),
                );
                Level::Interval
            }
            _ => {
                warnings.push(HIDDEN.into());
                Level::Unknown
            }
        }
    }

    fn level_of_always(&self, warnings: &mut Vec<String>) -> Level {
        let mut level = Level::Fsync;
        if self.setting("no-appendfsync-on-rewrite") != Some("no") {
            warnings.push(
                "no-appendfsync-on-rewrite is not no: nothing is fsynced during a rewrite; \
                 set it to no"
                    .into(),
            );
            level = Level::Os;
        }
        if self.version_pair().is_none_or(|v| v < FSYNC_VERSION_MIN) {
            let version = self.version().unwrap_or("of unknown version");
            warnings.push(format!(
                "Redis {version} may acknowledge before its fsync; use 7.0 or newer"
            ));
            level = Level::Os;
        }
        level
    }

    /// A replica that is promoted may lack the newest writes, whatever the master's disk has.
    fn level_with_replicas(
        &self,
        alone: Level,
        replicas: Replicas,
        warnings: &mut Vec<String>,
    ) -> Level {
        let connected = self.replicas();
        let most = replicas.most.max(connected);
        if most == 0 || alone == Level::Unknown {
            return alone;
        }
        let why = match replicas.copies {
            _ if alone != Level::Fsync => "",
            _ if connected < most => {
                "; some are away. One that was taken away for good is forgotten when this node restarts"
            }
            Copies::Fsynced => return alone,
            Copies::Untold => {
                ", and it cannot tell what they have fsynced (WAITAOF: Redis 7.2 or newer, Valkey)"
            }
            Copies::Behind => {
                ", and not all say in time that they have fsynced (WAITAOF): look at their connection, \
                 and whether appendonly is yes and appendfsync always there"
            }
        };
        warnings.push(format!(
            "Redis has {most} replica(s), {connected} connected: a failover may lose the newest \
             messages{why}"
        ));
        Level::Interval
    }
}
