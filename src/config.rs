//! The configuration of one node: flag, then environment, then file, then a context of the NATS command
//! line for the servers of NATS, then default.
//!
//! `layers::SETTINGS` lists every setting with its name in the file and in the environment; the flag is
//! the file's name with dashes. The layers are merged by name before anything is checked, so that
//! a flag which repeats a default still beats the environment. The environment is passed in, which
//! keeps this module free of process-wide state, but for the parsing of command lines.
//!
//! Limits: an empty environment variable counts as not set, since Compose writes `NAME=` for a
//! variable that nobody gave. Unknown keys in the file are refused; unknown environment variables
//! are not, since orchestrators add their own under a service's name.

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
pub use endpoint::{ClusterServers, Endpoint, Sentinels, TlsFiles};
pub use layers::secret;
use layers::{Layer, SETTINGS, Setting, given};
pub use token::AdminToken;

use crate::ids::NodeId;

/// What stands for a secret, or for the secret part of a URL, where it is shown.
const HIDDEN: &str = "***";

/// The environment variable that names the file, below `--config`.
const CONFIG_ENV: &str = "MUFAKAT_CONFIG";

/// The flags of `mufakat node`. What is absent here is looked for in the environment, then in
/// the file, then has its default.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct NodeArgs {
    /// Number of this node, one of --peers unless it joins [env: MUFAKAT_ID]
    #[arg(long, value_name = "ID")]
    pub id: Option<u64>,
    /// Numbers of the nodes that found the cluster, this one included [env: MUFAKAT_PEERS]
    #[arg(long, value_name = "ID,ID,…", value_delimiter = ',')]
    pub peers: Option<Vec<u64>>,
    /// Found no cluster but wait to be added to the one that runs, instead of --peers: --join or --join=off [env: MUFAKAT_JOIN] [default: off]
    #[arg(long, value_name = "ON|OFF", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub join: Option<String>,
    /// NATS servers, with commas between them: `--nats`, which all commands share.
    #[arg(skip)]
    pub nats: Option<String>,
    /// The context of the NATS command line, `--nats-context`, and the NATS servers that it names.
    #[arg(skip)]
    #[serde(skip)]
    pub nats_context: Option<(String, String)>,
    /// Redis, as redis://, rediss:// for TLS, redis+sentinel:// or redis+cluster://; without one the node runs without Redis [env: REDIS_URL, REDIS_URL_FILE]
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// Certificate authority to trust for Redis, in PEM; needs a rediss:// URL [env: REDIS_CA]
    #[arg(long, value_name = "FILE")]
    pub redis_ca: Option<PathBuf>,
    /// TLS certificate of this node for Redis, in PEM; needs --redis-key [env: REDIS_CERT]
    #[arg(long, value_name = "FILE")]
    pub redis_cert: Option<PathBuf>,
    /// TLS private key of this node for Redis, in PEM; needs --redis-cert [env: REDIS_KEY]
    #[arg(long, value_name = "FILE")]
    pub redis_key: Option<PathBuf>,
    /// What a write to Redis survives, of a Redis that does not show its settings: fsync, os or interval [env: MUFAKAT_REDIS_DURABILITY_ASSERTED]
    #[arg(long, value_name = "LEVEL")]
    pub redis_durability_asserted: Option<String>,
    /// Directory of this node alone: its identity, log and snapshots [env: MUFAKAT_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the HTTP server; without one there is none [env: MUFAKAT_HTTP]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub http: Option<String>,
    /// First tokens of every subject: `--prefix`, which all commands share.
    #[arg(skip)]
    pub prefix: Option<String>,
    /// Time between two heartbeats of a leader [env: MUFAKAT_HEARTBEAT] [default: 100ms]
    #[arg(long, value_name = "TIME")]
    pub heartbeat: Option<String>,
    /// Shortest silence after which a follower stands for election [env: MUFAKAT_ELECTION_MIN] [default: 400ms]
    #[arg(long, value_name = "TIME")]
    pub election_min: Option<String>,
    /// Longest silence after which a follower stands for election [env: MUFAKAT_ELECTION_MAX] [default: 800ms]
    #[arg(long, value_name = "TIME")]
    pub election_max: Option<String>,
    /// Silence after which a node leaves the cluster view [env: MUFAKAT_SUSPICION] [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub suspicion: Option<String>,
    /// How long a node may act on the view that it read [env: MUFAKAT_VIEW_LEASE] [default: 2s]
    #[arg(long, value_name = "TIME")]
    pub view_lease: Option<String>,
    /// Memory that the cache of this node may take, in bytes [env: MUFAKAT_CACHE_BYTES] [default: 67108864]
    #[arg(long, value_name = "BYTES")]
    pub cache_bytes: Option<u64>,
    /// Whether each key's second node keeps its value in case the first is lost: on or off [env: MUFAKAT_CACHE_BACKUPS] [default: on]
    #[arg(long, value_name = "ON|OFF")]
    pub cache_backups: Option<String>,
    /// Where values are kept behind the memory of all nodes, alike on all nodes: none, or redis, which needs --redis [env: MUFAKAT_CACHE_STORE] [default: none]
    #[arg(long, value_name = "NONE|REDIS")]
    pub cache_store: Option<String>,
    /// Secret that the dashboard asks for before it changes anything; without one it only shows [env: MUFAKAT_ADMIN_TOKEN, MUFAKAT_ADMIN_TOKEN_FILE]
    #[arg(long, value_name = "TOKEN")]
    pub admin_token: Option<String>,
    /// Requests per second that one tenant may send to this node; 0: any number [env: MUFAKAT_TENANT_RATE] [default: 10000]
    #[arg(long, value_name = "COUNT")]
    pub tenant_rate: Option<u64>,
    /// Bytes that the messages of one tenant may take in queues, alike on all nodes; 0: any number [env: MUFAKAT_TENANT_QUEUE_BYTES] [default: 1073741824]
    #[arg(long, value_name = "BYTES")]
    pub tenant_queue_bytes: Option<u64>,
    /// A snapshot each so many log entries, by the node's id up to a fifth earlier [env: MUFAKAT_SNAPSHOT_ENTRIES] [default: 10000]
    #[arg(long, value_name = "COUNT")]
    pub snapshot_entries: Option<u64>,
    /// Entries kept in the log after a snapshot [env: MUFAKAT_SNAPSHOT_KEEP_ENTRIES] [default: 1000]
    #[arg(long, value_name = "COUNT")]
    pub snapshot_keep_entries: Option<u64>,
    /// TOML file with the same settings, named as the flags with `_` for `-` [env: MUFAKAT_CONFIG]
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

/// What a node was told, checked: every value here is one that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node; one of `peers`, if there are any.
    pub id: NodeId,
    /// The nodes that found the cluster, in ascending order, without repeats; none of a node that
    /// joins. Who belongs to a cluster that was founded is in its log alone.
    pub peers: Vec<NodeId>,
    /// Whether an empty data directory waits to be added to a cluster that runs.
    pub join: bool,
    /// NATS servers as one URL or several with commas between them.
    pub nats: Endpoint,
    /// Redis, if this cluster has one.
    pub redis: Option<Endpoint>,
    /// For TLS to Redis; empty without a `rediss://` URL.
    pub redis_tls: TlsFiles,
    /// What a write survives where Redis does not say.
    pub redis_durability_asserted: Option<Asserted>,
    /// The directory of this node alone.
    pub data_dir: PathBuf,
    /// Where HTTP is served, if at all.
    pub http: Option<SocketAddr>,
    /// First tokens of every subject, without a dot at either end.
    pub prefix: String,
    /// Time between two heartbeats of a leader; below `election_min`.
    pub heartbeat: Duration,
    /// Shortest election timeout; below `election_max`.
    pub election_min: Duration,
    /// Longest election timeout.
    pub election_max: Duration,
    /// Silence after which a node leaves the view; at least two heartbeats.
    pub suspicion: Duration,
    /// Length of a node's right to act on a view; at least two heartbeats.
    pub view_lease: Duration,
    /// The most that the cache may take, 64 KiB to 1 TiB.
    pub cache_bytes: u64,
    /// Whether a key's second node keeps its value in case its home is lost.
    pub cache_backups: bool,
    /// Where values are kept behind the memory of all nodes.
    pub cache_store: CacheStore,
    /// What the dashboard asks for before it changes anything, if it may.
    pub admin_token: Option<AdminToken>,
    /// Requests per second of one tenant at this node, up to 10^9; 0: any number.
    pub tenant_rate: u64,
    /// What the messages of one tenant may take in queues, up to 2^50 bytes; 0: any number.
    pub tenant_queue_bytes: u64,
    /// A snapshot each so many log entries, 1 to 10^9; by the id of a node up to a fifth earlier.
    pub snapshot_entries: u64,
    /// Entries kept after a snapshot, for followers that are a little behind; 0 to 10^9.
    pub snapshot_keep_entries: u64,
}

/// Where the cache keeps values behind the memory of all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheStore {
    None,
    /// In the Redis of the queue, which is there then.
    Redis,
}

/// What an operator may say that a write to Redis survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asserted {
    /// The end of power.
    Fsync,
    /// The end of the process.
    Os,
    /// Perhaps not the newest seconds.
    Interval,
}

/// Why a configuration is refused. Every message names the setting as it was written.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A value that cannot be used, and what would be right.
    #[error("{setting}: {message}")]
    Invalid { setting: String, message: String },
    /// A setting without default that nobody gave.
    #[error(
        "{key} is missing: give {flag}, {env} in the environment or `{key}` in the file",
        flag = flag(.key)
    )]
    Missing {
        key: &'static str,
        env: &'static str,
    },
    /// A key that does not exist.
    #[error("{file}: unknown key `{key}`{}; known keys are {known}", did_you_mean(*.similar))]
    UnknownKey {
        file: String,
        key: String,
        /// The known key that looks most like it, if one does.
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
    /// Errors name the first setting that is wrong, in the spelling of the layer it came from.
    pub fn load(
        args: NodeArgs,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        checked(&layered(&args, environment)?)
    }

    /// Every setting in force, each with the layer that it comes from, as TOML. What is secret is left
    /// out: of a URL that part, of others all.
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

    /// What is allowed but seldom meant; for the log, once it is open.
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
                "the admin token travels to {http} without TLS: put a proxy with TLS before it"
            ));
        }
        warnings
    }
}

/// The layers, each over the one below.
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

/// The environment of this process, without what is not UTF-8 (no setting is).
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Only a file can hold a value of a wrong type: flags and environment are typed before. Of a secret it
/// is not repeated.
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
            true => "is not text in quotes".to_owned(),
            false => error.kind.to_string(),
        },
    }
}

fn flag(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}
