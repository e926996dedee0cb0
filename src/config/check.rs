//! The rules that a configuration has to meet. The messages say what is allowed.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use figment::Figment;

use super::layers::{ENVIRONMENT, FLAGS, SETTINGS, Setting};
use super::{
    AdminToken, Asserted, CacheStore, Config, ConfigError, Endpoint, Merged, TlsFiles, flag,
};
use crate::ids::NodeId;

/// A loaded machine does not keep shorter timers.
const TIME_MIN: Duration = Duration::from_millis(10);
/// Longer timers leave a cluster without a leader for longer than any client waits.
const TIME_MAX: Duration = Duration::from_secs(60);
/// More peers only slow down every commit. The limit also bounds what is kept for each peer.
const PEERS_MAX: usize = 31;
/// More entries than any disk holds between two snapshots.
const ENTRIES_MAX: u64 = 1_000_000_000;
/// A smaller cache is not worth its messages, and no machine has more memory.
const CACHE_BYTES: RangeInclusive<u64> = 64 << 10..=1 << 40;
/// The upper limit is more than a Redis can hold.
const TENANT_QUEUE_BYTES: RangeInclusive<u64> = 0..=1 << 50;
/// The prefix is part of every subject, whose length the broker limits.
const PREFIX_BYTES_MAX: usize = 64;

/// Checks merged values. The layers tell where each value came from.
pub(super) struct Check<'a> {
    figment: &'a Figment,
}

impl<'a> Check<'a> {
    pub(super) fn new(figment: &'a Figment) -> Self {
        Self { figment }
    }

    pub(super) fn config(&self, merged: Merged) -> Result<Config, ConfigError> {
        let join = self.on_or_off("join", &merged.join)?;
        let peers = self.peers(join, merged.peers)?;
        let redis = self.redis(merged.redis)?;
        let redis_files = [merged.redis_ca, merged.redis_cert, merged.redis_key];
        let config = Config {
            id: self.id(merged.id, &peers)?,
            peers,
            join,
            nats: Endpoint::nats(&merged.nats).map_err(|message| self.invalid("nats", message))?,
            cache_store: self.cache_store(redis.as_ref(), &merged.cache_store)?,
            redis_tls: self.redis_tls(redis.as_ref(), redis_files)?,
            redis,
            redis_durability_asserted: self.asserted(merged.redis_durability_asserted)?,
            data_dir: self.data_dir(merged.data_dir)?,
            http: self.http(merged.http)?,
            prefix: self.prefix(merged.prefix)?,
            heartbeat: self.time("heartbeat", &merged.heartbeat)?,
            election_min: self.time("election_min", &merged.election_min)?,
            election_max: self.time("election_max", &merged.election_max)?,
            suspicion: self.time("suspicion", &merged.suspicion)?,
            view_lease: self.time("view_lease", &merged.view_lease)?,
            cache_bytes: self.bytes("cache_bytes", CACHE_BYTES, merged.cache_bytes)?,
            cache_backups: self.on_or_off("cache_backups", &merged.cache_backups)?,
            admin_token: self.admin_token(merged.admin_token)?,
            tenant_rate: self.entries("tenant_rate", 0, merged.tenant_rate)?,
            tenant_queue_bytes: self.bytes(
                "tenant_queue_bytes",
                TENANT_QUEUE_BYTES,
                merged.tenant_queue_bytes,
            )?,
            snapshot_entries: self.entries("snapshot_entries", 1, merged.snapshot_entries)?,
            snapshot_keep_entries: self.entries(
                "snapshot_keep_entries",
                0,
                merged.snapshot_keep_entries,
            )?,
        };
        self.order_of_times(&config)?;
        Ok(config)
    }

    fn bytes(
        &self,
        key: &'static str,
        right: RangeInclusive<u64>,
        bytes: u64,
    ) -> Result<u64, ConfigError> {
        if right.contains(&bytes) {
            return Ok(bytes);
        }
        let (min, max) = right.into_inner();
        Err(self.invalid(
            key,
            format!("{bytes} is out of range; it must be from {min} to {max}"),
        ))
    }

    fn cache_store(&self, redis: Option<&Endpoint>, text: &str) -> Result<CacheStore, ConfigError> {
        match (text, redis) {
            ("none", _) => Ok(CacheStore::None),
            ("redis", Some(_)) => Ok(CacheStore::Redis),
            ("redis", None) => {
                let message = "`redis` needs a Redis: give --redis too, or take `none`";
                Err(self.invalid("cache_store", message.to_owned()))
            }
            (other, _) => {
                let message = format!("`{other}` is neither `none` nor `redis`");
                Err(self.invalid("cache_store", message))
            }
        }
    }

    fn admin_token(&self, text: Option<String>) -> Result<Option<AdminToken>, ConfigError> {
        let token = text.map(AdminToken::new).transpose();
        token.map_err(|message| self.invalid("admin_token", message))
    }

    fn on_or_off(&self, key: &'static str, text: &str) -> Result<bool, ConfigError> {
        match text {
            "on" => Ok(true),
            "off" => Ok(false),
            other => Err(self.invalid(key, format!("`{other}` is neither `on` nor `off`"))),
        }
    }

    fn peers(&self, join: bool, peers: Option<Vec<u64>>) -> Result<Vec<NodeId>, ConfigError> {
        match (join, &peers) {
            (true, None) => return Ok(Vec::new()),
            (true, Some(_)) => {
                let message = "a node that joins learns its peers from the cluster; give only one of \
                               peers and join";
                return Err(self.invalid("peers", message.to_owned()));
            }
            (false, _) => {}
        }
        let mut peers = present("peers", peers)?;
        if peers.is_empty() || peers.len() > PEERS_MAX {
            let count = peers.len();
            return Err(self.invalid(
                "peers",
                format!("{count} nodes are named; it must be 1 to {PEERS_MAX}"),
            ));
        }
        for peer in &peers {
            self.node_number("peers", *peer)?;
        }
        peers.sort_unstable();
        if let Some(pair) = peers.windows(2).find(|pair| pair[0] == pair[1]) {
            let twice = pair[0];
            return Err(self.invalid(
                "peers",
                format!("{twice} is named twice; each node needs an id of its own"),
            ));
        }
        Ok(peers.into_iter().map(NodeId).collect())
    }

    fn id(&self, id: Option<u64>, peers: &[NodeId]) -> Result<NodeId, ConfigError> {
        let id = present("id", id)?;
        self.node_number("id", id)?;
        if !peers.is_empty() && !peers.contains(&NodeId(id)) {
            let peers: Vec<String> = peers.iter().map(NodeId::to_string).collect();
            let peers = peers.join(",");
            return Err(self.invalid(
                "id",
                format!("{id} is not in the peers {peers}; they must include this node's own id"),
            ));
        }
        Ok(NodeId(id))
    }

    fn node_number(&self, key: &'static str, number: u64) -> Result<(), ConfigError> {
        if (1..=u64::from(u32::MAX)).contains(&number) {
            return Ok(());
        }
        let max = u32::MAX;
        Err(self.invalid(
            key,
            format!("{number} is not a valid node id; ids are 1 to {max}"),
        ))
    }

    fn redis(&self, redis: Option<String>) -> Result<Option<Endpoint>, ConfigError> {
        redis
            .map(|url| Endpoint::redis(&url).map_err(|message| self.invalid("redis", message)))
            .transpose()
    }

    fn asserted(&self, level: Option<String>) -> Result<Option<Asserted>, ConfigError> {
        let level = match level.as_deref() {
            None => return Ok(None),
            Some("fsync") => Asserted::Fsync,
            Some("os") => Asserted::Os,
            Some("interval") => Asserted::Interval,
            Some(other) => {
                let message = format!("`{other}` is not one of fsync, os, interval");
                return Err(self.invalid("redis_durability_asserted", message));
            }
        };
        Ok(Some(level))
    }

    fn redis_tls(
        &self,
        redis: Option<&Endpoint>,
        [ca, cert, key]: [Option<PathBuf>; 3],
    ) -> Result<TlsFiles, ConfigError> {
        let given = [
            ("redis_ca", &ca),
            ("redis_cert", &cert),
            ("redis_key", &key),
        ];
        let first = given.iter().find(|(_, file)| file.is_some());
        if let Some((name, _)) = first
            && !redis.is_some_and(Endpoint::is_tls)
        {
            let message = "needs a URL of Redis with TLS, such as rediss://127.0.0.1:6379";
            return Err(self.invalid(name, message.to_owned()));
        }
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return Err(self.half("redis_cert", "redis_key")),
            (None, Some(_)) => return Err(self.half("redis_key", "redis_cert")),
        };
        Ok(TlsFiles { ca, identity })
    }

    fn half(&self, given: &'static str, missing: &'static str) -> ConfigError {
        let missing = flag(missing);
        let message = format!("a certificate and its key come together; give {missing} too");
        self.invalid(given, message)
    }

    fn data_dir(&self, directory: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
        let directory = present("data_dir", directory)?;
        if directory.as_os_str().is_empty() {
            let message = "is empty; expected a directory such as /var/lib/mufakat";
            return Err(self.invalid("data_dir", message.to_owned()));
        }
        Ok(directory)
    }

    fn http(&self, http: Option<String>) -> Result<Option<SocketAddr>, ConfigError> {
        let Some(text) = http else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            self.invalid(
                "http",
                format!("{text:?} is not ADDRESS:PORT, such as 127.0.0.1:5001"),
            )
        })
    }

    fn prefix(&self, prefix: String) -> Result<String, ConfigError> {
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-'
        };
        let right = prefix.len() <= PREFIX_BYTES_MAX
            && prefix
                .split('.')
                .all(|token| !token.is_empty() && token.bytes().all(allowed));
        if right {
            return Ok(prefix);
        }
        Err(self.invalid(
            "prefix",
            format!(
                "{prefix:?} cannot begin a subject; it must be tokens of lower-case letters, digits, \
                 `_` and `-`, joined by dots, at most {PREFIX_BYTES_MAX} bytes"
            ),
        ))
    }

    fn time(&self, key: &'static str, text: &str) -> Result<Duration, ConfigError> {
        let time = humantime::parse_duration(text).map_err(|_| {
            self.invalid(
                key,
                format!("{text:?} is not a duration, such as 100ms or 2s"),
            )
        })?;
        if (TIME_MIN..=TIME_MAX).contains(&time) {
            return Ok(time);
        }
        let (min, max) = (show(TIME_MIN), show(TIME_MAX));
        Err(self.invalid(
            key,
            format!(
                "{} is out of range; it must be from {min} to {max}",
                show(time)
            ),
        ))
    }

    fn entries(&self, key: &'static str, min: u64, count: u64) -> Result<u64, ConfigError> {
        if (min..=ENTRIES_MAX).contains(&count) {
            return Ok(count);
        }
        Err(self.invalid(
            key,
            format!("{count} is out of range; it must be from {min} to {ENTRIES_MAX}"),
        ))
    }

    fn order_of_times(&self, config: &Config) -> Result<(), ConfigError> {
        let heartbeat = config.heartbeat;
        if heartbeat >= config.election_min {
            let (heartbeat, min) = (show(heartbeat), show(config.election_min));
            return Err(self.invalid(
                "heartbeat",
                format!(
                    "{heartbeat} is not below the shortest election timeout of {min}: followers \
                     would stand for election between two heartbeats"
                ),
            ));
        }
        if config.election_min >= config.election_max {
            let (min, max) = (show(config.election_min), show(config.election_max));
            return Err(self.invalid(
                "election_min",
                format!(
                    "{min} is not below the longest election timeout of {max}: without a range \
                     between them, nodes would stand for election at the same moment"
                ),
            ));
        }
        for (key, time) in [
            ("suspicion", config.suspicion),
            ("view_lease", config.view_lease),
        ] {
            if time < 2 * heartbeat {
                let (time, heartbeat) = (show(time), show(heartbeat));
                return Err(self.invalid(
                    key,
                    format!(
                        "{time} is less than two heartbeats of {heartbeat}: one lost message would \
                         be taken for a failure"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The error for `key`, which is spelled as in the layer that its value came from.
    fn invalid(&self, key: &'static str, message: String) -> ConfigError {
        let from = self.figment.find_metadata(key).map(|from| &*from.name);
        let setting = match from {
            Some(FLAGS) => flag(key),
            Some(ENVIRONMENT) => setting(key).env.to_owned(),
            Some(layer) => format!("{key} in {layer}"),
            None => key.to_owned(),
        };
        ConfigError::Invalid { setting, message }
    }
}

fn show(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(time)
}

fn present<T>(key: &'static str, value: Option<T>) -> Result<T, ConfigError> {
    value.ok_or(ConfigError::Missing {
        key,
        env: setting(key).env,
    })
}

fn setting(key: &str) -> &'static Setting {
    SETTINGS
        .iter()
        .find(|setting| setting.key == key)
        .expect("every checked key is in the table of settings")
}
