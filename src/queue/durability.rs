//! From a server's settings to what an acknowledged write survives. Plain code.
//!
//! | level | what an acknowledged write survives |
//! |---|---|
//! | `fsync` | the end of the process and of power: it is on the disk before the reply |
//! | `os` | the end of the process (kill -9), since write(2) comes before the reply |
//! | `interval` | neither for sure: the newest seconds may be lost |
//! | `none` | nothing: not every write is logged, or the server may throw it away |
//! | `unknown` | the server does not let us see its settings |
//!
//! Of a server that hides its settings the operator may assert a level; where they are shown they count.
//!
//! All of it holds on one server that is not failed over and not restored from a copy.

use std::collections::BTreeMap;

pub use crate::protocol::status::{Durability as Level, DurabilitySource as Source};

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

    /// What the settings amount to, with the reasons for every level but the best. `asserted` is
    /// what the operator says.
    pub fn durability(&self, asserted: Option<Level>) -> Durability {
        let mut warnings = Vec::new();
        self.refused_writes(&mut warnings);
        let level = match self.shortcomings_of_any_log(&mut warnings) {
            Some(level) => level,
            None => self.level_of_log(&mut warnings),
        };
        let inspected = Source::Inspected;
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
        let level = match (self.is_append_only(), self.setting("appendfsync")) {
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
                return Level::Unknown;
            }
        };
        self.level_with_replicas(level, warnings)
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

    /// A replica that is promoted lacks the newest writes, whatever the master's disk has.
    fn level_with_replicas(&self, level: Level, warnings: &mut Vec<String>) -> Level {
        match self.info("connected_slaves") {
            None | Some("0") => level,
            Some(replicas) => {
                warnings.push(format!(
                    "Redis has {replicas} connected replica(s): a failover may lose the newest \
                     messages"
                ));
                Level::Interval
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Changes<'a> = &'a [(&'a str, &'a str)];

    /// A server as it should be, except for `changes`: settings by their name, fields of `INFO`
    /// after `info.`; an empty value takes the entry away.
    fn inspection(changes: Changes<'_>) -> Inspection {
        let mut config: BTreeMap<String, String> = SETTINGS
            .into_iter()
            .zip(["yes", "always", "no", "0", "noeviction"])
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut info = Inspection::parse_info(
            "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n\r\n# Replication\r\nrole:master\r\n\
             connected_slaves:0\r\naof_enabled:1\r\n",
        );
        for (name, value) in changes {
            let (map, name) = match name.strip_prefix("info.") {
                Some(field) => (&mut info, field),
                None => (&mut config, *name),
            };
            match *value {
                "" => map.remove(name),
                value => map.insert(name.to_owned(), value.to_owned()),
            };
        }
        Inspection {
            info,
            config: Some(config),
        }
    }

    #[test]
    fn a_server_as_it_should_be_has_the_best_level_and_no_warning() {
        let durability = inspection(&[]).durability(None);
        assert_eq!(durability.level, Level::Fsync);
        assert_eq!(durability.warnings, Vec::<String>::new());
    }

    #[test]
    fn each_setting_has_its_level_and_a_warning_that_names_it() {
        let cases: [(Changes<'_>, Level, &str); 15] = [
            (&[("appendonly", "no")], Level::None, "appendonly"),
            (&[("appendfsync", "no")], Level::Os, "appendfsync"),
            (&[("appendfsync", "everysec")], Level::Interval, "everysec"),
            (&[("appendfsync", "sometimes")], Level::Unknown, "CONFIG"),
            (&[("appendfsync", "")], Level::Unknown, "CONFIG"),
            (
                &[("no-appendfsync-on-rewrite", "yes")],
                Level::Os,
                "no-appendfsync-on-rewrite",
            ),
            (
                &[("no-appendfsync-on-rewrite", "")],
                Level::Os,
                "no-appendfsync-on-rewrite",
            ),
            (
                &[("maxmemory", "1000"), ("maxmemory-policy", "allkeys-lru")],
                Level::None,
                "allkeys-lru",
            ),
            (
                &[("maxmemory", "1000"), ("maxmemory-policy", "volatile-ttl")],
                Level::None,
                "volatile-ttl",
            ),
            (
                &[("maxmemory-policy", "allkeys-lru")],
                Level::Fsync,
                "if maxmemory were set",
            ),
            (&[("info.redis_version", "6.2.14")], Level::Os, "6.2.14"),
            (&[("info.redis_version", "x")], Level::Os, "Redis x"),
            (&[("info.role", "slave")], Level::None, "replica"),
            (
                &[("info.connected_slaves", "2")],
                Level::Interval,
                "2 connected",
            ),
            (
                &[("appendfsync", "no"), ("info.connected_slaves", "1")],
                Level::Interval,
                "failover",
            ),
        ];
        for (changes, level, warning) in cases {
            let durability = inspection(changes).durability(None);
            assert_eq!(durability.level, level, "{changes:?}");
            let named = durability.warnings.iter().any(|w| w.contains(warning));
            assert!(named, "{changes:?}: {:?}", durability.warnings);
        }
    }

    #[test]
    fn versions_compare_as_numbers() {
        let newer = inspection(&[("info.redis_version", "10.1.0")]);
        assert_eq!(newer.durability(None).level, Level::Fsync);
    }

    #[test]
    fn where_config_is_forbidden_only_the_worst_is_known() {
        let hidden = |aof_enabled| Inspection {
            config: None,
            ..inspection(&[("info.aof_enabled", aof_enabled)])
        };
        assert_eq!(hidden("1").durability(None).level, Level::Unknown);
        assert_eq!(hidden("").durability(None).level, Level::Unknown);
        assert_eq!(hidden("0").durability(None).level, Level::None);
        // A service that hides its settings may have another log than the server's.
        for aof_enabled in ["1", "", "0"] {
            let asserted = hidden(aof_enabled).durability(Some(Level::Fsync));
            assert_eq!(asserted.level, Level::Fsync);
            assert_eq!(asserted.source, Source::Asserted);
        }
        let mut replica = hidden("1");
        replica.info.insert("role".into(), "slave".into());
        assert_eq!(replica.durability(Some(Level::Fsync)).level, Level::None);
    }

    #[test]
    fn settings_that_are_shown_count_whatever_is_asserted() {
        let everysec = inspection(&[("appendfsync", "everysec")]);
        let durability = everysec.durability(Some(Level::Fsync));
        assert_eq!(durability.level, Level::Interval);
        assert_eq!(durability.source, Source::Inspected);
        let last = durability.warnings.last().expect("a warning");
        assert!(last.contains("fsync is asserted"), "{last}");
        let modest = inspection(&[]).durability(Some(Level::Interval));
        assert_eq!((modest.level, modest.warnings.len()), (Level::Fsync, 0));
    }

    #[test]
    fn a_server_that_refuses_writes_is_told_with_the_reason() {
        for field in ["aof_last_write_status", "rdb_last_bgsave_status"] {
            let name = format!("info.{field}");
            let durability = inspection(&[(&name, "err")]).durability(None);
            assert_eq!(durability.level, Level::Fsync);
            assert!(durability.warnings[0].contains(field));
        }
    }
}
