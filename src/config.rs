//! The configuration of one node. A flag beats the environment, which beats the file, which beats the default. For the
//! NATS servers, a context of the NATS command line ranks between the file and the default.
//!
//! `layers::SETTINGS` lists every setting with its name in the file and in the environment. Its flag is the name in
//! the file with dashes. The layers are merged by name before anything is checked, so that a flag that repeats a
//! default still beats the environment. The environment is passed in. Only the parsing of command lines reads the
//! process-wide one.
//!
//! Limits: an empty environment variable counts as not set, since Compose writes `NAME=` for a variable without a
//! value. Unknown keys in the file are refused. Unknown environment variables are not, since orchestrators add
//! variables under the name of a service.

mod check;
mod command_line;
mod endpoint;
mod layers;
#[cfg(test)]
mod tests;
mod token;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use figment::Figment;
use figment::value::Value;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use command_line::{parse, parse_from};
pub(crate) use endpoint::without_secrets;
pub use endpoint::{ClusterServers, Endpoint, Sentinels, TlsFiles};
pub use layers::secret;
use layers::{Layer, SETTINGS, Setting, given};
pub use token::AdminToken;

use crate::ids::NodeId;

/// Shown in place of a secret, or of the secret part of a URL.
const HIDDEN: &str = "***";

/// The environment variable that names the file; `--config` beats it.
const CONFIG_ENV: &str = "MUFAKAT_CONFIG";

/// The flags of `mufakat node`. A setting without a flag comes from the environment, then the file, then its default.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct NodeArgs {
    /// Id of this node, one of --peers unless it joins [env: MUFAKAT_ID]
    #[arg(long, value_name = "ID")]
    pub id: Option<u64>,
    /// Ids of all nodes that found the cluster, including this one [env: MUFAKAT_PEERS]
    #[arg(long, value_name = "ID,ID,…", value_delimiter = ',')]
    pub peers: Option<Vec<u64>>,
    /// Wait to be added to a running cluster instead of founding one with --peers [env: MUFAKAT_JOIN] [default: off]
    #[arg(long, value_name = "ON|OFF", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub join: Option<String>,
    /// NATS servers, separated by commas: the flag `--nats`, which all commands share.
    #[arg(skip)]
    pub nats: Option<String>,
    /// The context of the NATS command line (`--nats-context`) and the NATS servers that it names.
    #[arg(skip)]
    #[serde(skip)]
    pub nats_context: Option<(String, String)>,
    /// URL of Redis: redis://, rediss:// (TLS), redis+sentinel:// or redis+cluster:// [env: REDIS_URL, REDIS_URL_FILE] [default: no Redis, and so no queues]
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// Certificate authority to trust for Redis, in PEM; needs a rediss:// URL [env: REDIS_CA] [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub redis_ca: Option<PathBuf>,
    /// TLS certificate of this node for Redis, in PEM; needs --redis-key [env: REDIS_CERT]
    #[arg(long, value_name = "FILE")]
    pub redis_cert: Option<PathBuf>,
    /// TLS private key of this node for Redis, in PEM; needs --redis-cert [env: REDIS_KEY]
    #[arg(long, value_name = "FILE")]
    pub redis_key: Option<PathBuf>,
    /// Durability to assume if Redis hides its settings: fsync, os or interval [env: MUFAKAT_REDIS_DURABILITY_ASSERTED]
    #[arg(long, value_name = "LEVEL")]
    pub redis_durability_asserted: Option<String>,
    /// Directory for the identity, log and snapshots of this node alone [env: MUFAKAT_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the HTTP server (health, metrics, dashboard) [env: MUFAKAT_HTTP] [default: no server]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub http: Option<String>,
    /// First tokens of every subject: the flag `--prefix`, which all commands share.
    #[arg(skip)]
    pub prefix: Option<String>,
    /// Time between two heartbeats of the leader [env: MUFAKAT_HEARTBEAT] [default: 100ms]
    #[arg(long, value_name = "DURATION")]
    pub heartbeat: Option<String>,
    /// Shortest silence after which a follower stands for election [env: MUFAKAT_ELECTION_MIN] [default: 400ms]
    #[arg(long, value_name = "DURATION")]
    pub election_min: Option<String>,
    /// Longest silence after which a follower stands for election [env: MUFAKAT_ELECTION_MAX] [default: 800ms]
    #[arg(long, value_name = "DURATION")]
    pub election_max: Option<String>,
    /// How long a node may be silent before it is asked, and removed from the view unless it answers [env: MUFAKAT_SUSPICION] [default: 1s]
    #[arg(long, value_name = "DURATION")]
    pub suspicion: Option<String>,
    /// How long a node may serve its cache after reading the view; others wait this long for a dead node [env: MUFAKAT_VIEW_LEASE] [default: 2s]
    #[arg(long, value_name = "DURATION")]
    pub view_lease: Option<String>,
    /// Memory limit of the cache of this node, in bytes [env: MUFAKAT_CACHE_BYTES] [default: 67108864]
    #[arg(long, value_name = "BYTES")]
    pub cache_bytes: Option<u64>,
    /// Whether a second node keeps each value in case its home is lost; the same on all nodes [env: MUFAKAT_CACHE_BACKUPS] [default: on]
    #[arg(long, value_name = "ON|OFF")]
    pub cache_backups: Option<String>,
    /// Store behind the memory of the nodes: none, or redis (needs --redis); the same on all nodes [env: MUFAKAT_CACHE_STORE] [default: none]
    #[arg(long, value_name = "NONE|REDIS")]
    pub cache_store: Option<String>,
    /// Secret that the dashboard asks for before it changes anything [env: MUFAKAT_ADMIN_TOKEN, MUFAKAT_ADMIN_TOKEN_FILE] [default: none, the dashboard is read-only]
    #[arg(long, value_name = "TOKEN")]
    pub admin_token: Option<String>,
    /// Maximum requests per second of one tenant at this node; 0: no limit [env: MUFAKAT_TENANT_RATE] [default: 10000]
    #[arg(long, value_name = "N")]
    pub tenant_rate: Option<u64>,
    /// Maximum bytes of one tenant's messages in queues; 0: no limit; the same on all nodes [env: MUFAKAT_TENANT_QUEUE_BYTES] [default: 1073741824]
    #[arg(long, value_name = "BYTES")]
    pub tenant_queue_bytes: Option<u64>,
    /// Log entries between snapshots; each node starts up to 20 % earlier, depending on its id [env: MUFAKAT_SNAPSHOT_ENTRIES] [default: 10000]
    #[arg(long, value_name = "N")]
    pub snapshot_entries: Option<u64>,
    /// Log entries to keep after a snapshot, for followers that are a little behind [env: MUFAKAT_SNAPSHOT_KEEP_ENTRIES] [default: 1000]
    #[arg(long, value_name = "N")]
    pub snapshot_keep_entries: Option<u64>,
    /// TOML file with settings, named as the flags with `_` for `-` [env: MUFAKAT_CONFIG]
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

/// The checked configuration of a node: every value here is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node; one of `peers`, unless it joins.
    pub id: NodeId,
    /// The nodes that found the cluster, in ascending order, each once. Empty for a node that joins. Once the cluster
    /// is founded, its log alone has its members.
    pub peers: Vec<NodeId>,
    /// Whether a node with an empty data directory waits to be added to a running cluster.
    pub join: bool,
    /// NATS servers: one URL, or several separated by commas.
    pub nats: Endpoint,
    /// Redis, if this cluster has one.
    pub redis: Option<Endpoint>,
    /// Files for TLS to Redis; empty without a `rediss://` URL.
    pub redis_tls: TlsFiles,
    /// Durability to assume if Redis hides its settings.
    pub redis_durability_asserted: Option<Asserted>,
    /// The directory of this node alone.
    pub data_dir: PathBuf,
    /// Where HTTP is served, if at all.
    pub http: Option<SocketAddr>,
    /// First tokens of every subject, without a dot at either end.
    pub prefix: String,
    /// Time between two heartbeats of the leader; below `election_min`.
    pub heartbeat: Duration,
    /// Shortest election timeout; below `election_max`.
    pub election_min: Duration,
    /// Longest election timeout.
    pub election_max: Duration,
    /// Silence after which a node is removed from the view unless it answers; at least two heartbeats.
    pub suspicion: Duration,
    /// How long a node may act on a view after reading it; at least two heartbeats.
    pub view_lease: Duration,
    /// Memory limit of the cache, 64 KiB to 1 TiB.
    pub cache_bytes: u64,
    /// Whether a second node keeps each value in case its home is lost.
    pub cache_backups: bool,
    /// The store behind the memory of all nodes.
    pub cache_store: CacheStore,
    /// The secret that the dashboard asks for before it changes anything; without one it is read-only.
    pub admin_token: Option<AdminToken>,
    /// Maximum requests per second of one tenant at this node, up to 10^9; 0: no limit.
    pub tenant_rate: u64,
    /// Maximum bytes of one tenant's messages in queues, up to 2^50; 0: no limit.
    pub tenant_queue_bytes: u64,
    /// Log entries between snapshots, 1 to 10^9. Each node starts up to a fifth earlier, depending on its id, so that
    /// nodes rarely snapshot at once.
    pub snapshot_entries: u64,
    /// Log entries to keep after a snapshot, for followers that are a little behind; 0 to 10^9.
    pub snapshot_keep_entries: u64,
}

/// The store of the cache behind the memory of all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheStore {
    None,
    /// The Redis of the queues; it is configured then.
    Redis,
}

/// The durability of Redis that an operator asserts: what a write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asserted {
    /// A power failure.
    Fsync,
    /// A crash of the Redis process.
    Os,
    /// A crash, but perhaps not the writes of the last seconds.
    Interval,
}

/// Why a configuration is refused. Every message names the setting as it was given.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A value that cannot be used, and what is allowed.
    #[error("{setting}: {message}")]
    Invalid { setting: String, message: String },
    /// A setting without a default that is missing.
    #[error(
        "{key} is missing: give {flag}, {env} in the environment or `{key}` in the file",
        flag = flag(.key)
    )]
    Missing {
        key: &'static str,
        env: &'static str,
    },
    /// An unknown key in the file.
    #[error("{file}: unknown key `{key}`{}; known keys are {known}", did_you_mean(*.similar))]
    UnknownKey {
        file: String,
        key: String,
        /// The known key that is most similar, if any is.
        similar: Option<&'static str>,
        known: String,
    },
    /// A file that cannot be read or is not TOML.
    #[error("{file}: {message}")]
    File { file: String, message: String },
}

/// The merged values before they are checked.
#[derive(Deserialize)]
struct Merged {
    id: Option<u64>,
    peers: Option<Vec<u64>>,
    join: String,
    nats: String,
    redis: Option<String>,
    redis_ca: Option<PathBuf>,
    redis_cert: Option<PathBuf>,
    redis_key: Option<PathBuf>,
    redis_durability_asserted: Option<String>,
    data_dir: Option<PathBuf>,
    http: Option<String>,
    prefix: String,
    heartbeat: String,
    election_min: String,
    election_max: String,
    suspicion: String,
    view_lease: String,
    cache_bytes: u64,
    cache_backups: String,
    cache_store: String,
    admin_token: Option<String>,
    tenant_rate: u64,
    tenant_queue_bytes: u64,
    snapshot_entries: u64,
    snapshot_keep_entries: u64,
}

impl Config {
    /// Merges flags, environment and file over the defaults and checks the result.
    ///
    /// Errors name the first invalid setting as the layer spells it that it came from.
    pub fn load(
        args: NodeArgs,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        checked(&layered(&args, environment)?)
    }

    /// Every setting in force as TOML, each with the layer that it comes from. Secrets are left out: the secret part of
    /// a URL, other secrets entirely.
    ///
    /// # Errors
    /// As those of [`Config::load`].
    pub fn in_force(
        args: NodeArgs,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<String, ConfigError> {
        let figment = layered(&args, environment)?;
        let config = checked(&figment)?;
        let mut out = String::new();
        for Setting { key, secret, .. } in &SETTINGS {
            let Ok(value) = figment.find_value(key) else {
                continue;
            };
            let endpoint = match *key {
                "nats" => Some(&config.nats),
                "redis" => config.redis.as_ref(),
                _ => None,
            };
            let shown = match (endpoint, secret) {
                (Some(endpoint), _) => Value::from(endpoint.to_string()),
                (None, true) => Value::from(HIDDEN),
                (None, false) => value,
            };
            // Texts, numbers and lists of numbers are written alike in JSON and in TOML.
            let shown = serde_json::to_string(&shown).expect("settings are plain values");
            let from = figment.find_metadata(key).map(|from| &*from.name);
            let _ = writeln!(out, "{key} = {shown}  # {}", from.unwrap_or("unknown"));
        }
        Ok(out)
    }

    /// Settings that are allowed but rarely meant; for the log, once it is open.
    pub fn warnings(&self) -> Vec<String> {
        let count = self.peers.len();
        let mut warnings = Vec::new();
        if count > 0 && count.is_multiple_of(2) {
            warnings.push(format!(
                "{count} nodes survive no more failures than {}: prefer an odd number of peers",
                count - 1
            ));
        }
        if let (Some(_), Some(http)) = (&self.admin_token, self.http)
            && !http.ip().is_loopback()
        {
            warnings.push(format!(
                "the admin token travels to {http} without TLS: put a TLS proxy in front of it"
            ));
        }
        warnings
    }
}

/// All layers, merged in their order.
fn layered(
    args: &NodeArgs,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Figment, ConfigError> {
    let environment: BTreeMap<String, String> = environment.into_iter().collect();
    let file = args
        .config
        .clone()
        .or_else(|| given(&environment, CONFIG_ENV).map(PathBuf::from));
    let mut figment = Figment::new().merge(Layer::defaults());
    if let Some((name, servers)) = &args.nats_context {
        figment = figment.merge(Layer::nats_context(name, servers));
    }
    if let Some(file) = file {
        figment = figment.merge(Layer::file(&file)?);
    }
    let flags = Layer::flags(args);
    Ok(figment
        .merge(Layer::environment(&environment, &flags)?)
        .merge(flags))
}

fn checked(figment: &Figment) -> Result<Config, ConfigError> {
    let merged = figment.extract().map_err(wrong_type)?;
    check::Check::new(figment).config(merged)
}

fn did_you_mean(similar: Option<&str>) -> String {
    similar.map_or_else(String::new, |key| format!(", did you mean `{key}`?"))
}

/// The environment of this process, without variables that are not UTF-8 (no setting is one).
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The error for a value of the wrong type. Only a file can have one: flags and environment are typed before. The
/// message does not repeat a secret.
fn wrong_type(error: figment::Error) -> ConfigError {
    let file = error
        .metadata
        .as_ref()
        .map_or_else(|| "configuration".to_owned(), |from| from.name.to_string());
    let key = error.path.join(".");
    let is_secret = SETTINGS.iter().any(|one| one.secret && one.key == key);
    ConfigError::Invalid {
        setting: format!("{key} in {file}"),
        message: match is_secret {
            true => "must be text in quotes".to_owned(),
            false => error.kind.to_string(),
        },
    }
}

fn flag(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}
