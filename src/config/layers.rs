//! The table of settings, and the layers that give them values.

use std::collections::BTreeMap;
use std::path::Path;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::{ConfigError, NodeArgs};

/// Maximum size of a configuration file, or of a file with a secret. People write both.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// How similar (0 to 1, Jaro-Winkler) a known key must be to an unknown one to be suggested. A missing letter or two
/// swapped letters give more than 0.9.
const SIMILAR_MIN: f64 = 0.8;

pub(super) const FLAGS: &str = "flags";
pub(super) const ENVIRONMENT: &str = "environment";
const DEFAULTS: &str = "defaults";

/// The type of a setting whose source has only text, as the environment.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Number,
    /// Numbers separated by commas.
    Numbers,
}

/// One setting: its key in the file and its variable in the environment.
pub(super) struct Setting {
    pub(super) key: &'static str,
    pub(super) env: &'static str,
    pub(super) kind: Kind,
    /// Whether the variable `<env>_FILE` may name a file with the value.
    pub(super) secret: bool,
}

impl Setting {
    const fn new(key: &'static str, env: &'static str, kind: Kind) -> Self {
        Self {
            key,
            env,
            kind,
            secret: false,
        }
    }

    const fn secret(key: &'static str, env: &'static str) -> Self {
        Self {
            key,
            env,
            kind: Kind::Text,
            secret: true,
        }
    }
}

/// Every setting of a node.
pub(super) const SETTINGS: [Setting; 25] = [
    Setting::new("id", "MUFAKAT_ID", Kind::Number),
    Setting::new("peers", "MUFAKAT_PEERS", Kind::Numbers),
    Setting::new("join", "MUFAKAT_JOIN", Kind::Text),
    Setting::secret("nats", "NATS_URL"),
    Setting::secret("redis", "REDIS_URL"),
    Setting::new("redis_ca", "REDIS_CA", Kind::Text),
    Setting::new("redis_cert", "REDIS_CERT", Kind::Text),
    Setting::new("redis_key", "REDIS_KEY", Kind::Text),
    Setting::new(
        "redis_durability_asserted",
        "MUFAKAT_REDIS_DURABILITY_ASSERTED",
        Kind::Text,
    ),
    Setting::new("data_dir", "MUFAKAT_DATA_DIR", Kind::Text),
    Setting::new("http", "MUFAKAT_HTTP", Kind::Text),
    Setting::new("prefix", "MUFAKAT_PREFIX", Kind::Text),
    Setting::new("heartbeat", "MUFAKAT_HEARTBEAT", Kind::Text),
    Setting::new("election_min", "MUFAKAT_ELECTION_MIN", Kind::Text),
    Setting::new("election_max", "MUFAKAT_ELECTION_MAX", Kind::Text),
    Setting::new("suspicion", "MUFAKAT_SUSPICION", Kind::Text),
    Setting::new("view_lease", "MUFAKAT_VIEW_LEASE", Kind::Text),
    Setting::new("cache_bytes", "MUFAKAT_CACHE_BYTES", Kind::Number),
    Setting::new("cache_backups", "MUFAKAT_CACHE_BACKUPS", Kind::Text),
    Setting::new("cache_store", "MUFAKAT_CACHE_STORE", Kind::Text),
    Setting::secret("admin_token", "MUFAKAT_ADMIN_TOKEN"),
    Setting::new("tenant_rate", "MUFAKAT_TENANT_RATE", Kind::Number),
    Setting::new(
        "tenant_queue_bytes",
        "MUFAKAT_TENANT_QUEUE_BYTES",
        Kind::Number,
    ),
    Setting::new("snapshot_entries", "MUFAKAT_SNAPSHOT_ENTRIES", Kind::Number),
    Setting::new(
        "snapshot_keep_entries",
        "MUFAKAT_SNAPSHOT_KEEP_ENTRIES",
        Kind::Number,
    ),
];

/// A secret from the variable `name`, or from the file that `<name>_FILE` names, without trailing white space. It is
/// an error to give both, since one of them must be a mistake.
pub fn secret(
    environment: &BTreeMap<String, String>,
    name: &str,
) -> Result<Option<String>, ConfigError> {
    let file_name = format!("{name}_FILE");
    match (given(environment, name), given(environment, &file_name)) {
        (Some(_), Some(_)) => Err(ConfigError::Invalid {
            setting: file_name,
            message: format!("{name} is given too; give one of the two"),
        }),
        (Some(value), None) => Ok(Some(value.to_owned())),
        (None, Some(file)) => match read(Path::new(file)) {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            Err(message) => Err(ConfigError::Invalid {
                setting: file_name,
                message: format!("{file}: {message}"),
            }),
        },
        (None, None) => Ok(None),
    }
}

/// One source of values, named for error messages.
pub(super) struct Layer {
    name: String,
    values: Dict,
}

impl Layer {
    pub(super) fn defaults() -> Self {
        let texts = [
            ("nats", "nats://127.0.0.1:4222"),
            ("join", "off"),
            ("prefix", "mufakat"),
            ("heartbeat", "100ms"),
            ("election_min", "400ms"),
            ("election_max", "800ms"),
            ("suspicion", "1s"),
            ("view_lease", "2s"),
            ("cache_backups", "on"),
            ("cache_store", "none"),
        ];
        let numbers = [
            ("cache_bytes", 64 << 20),
            ("tenant_rate", 10_000_u64),
            ("tenant_queue_bytes", 1 << 30),
            ("snapshot_entries", 10_000),
            ("snapshot_keep_entries", 1_000),
        ];
        let texts = texts.map(|(key, text)| (key.to_owned(), Value::from(text)));
        let numbers = numbers.map(|(key, number)| (key.to_owned(), Value::from(number)));
        Self {
            name: DEFAULTS.to_owned(),
            values: texts.into_iter().chain(numbers).collect(),
        }
    }

    /// The servers that a context of the NATS command line names.
    pub(super) fn nats_context(name: &str, servers: &str) -> Self {
        Self {
            name: format!("the NATS context {name}"),
            values: Dict::from([("nats".to_owned(), Value::from(servers))]),
        }
    }

    pub(super) fn file(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let refused = |message: String| ConfigError::File {
            file: name.clone(),
            message,
        };
        let text = read(path).map_err(refused)?;
        let values: Dict = Toml::from_str(&text).map_err(|error| {
            // The message leaves out the line itself, which may contain a secret.
            let at = error.span().and_then(|span| text.get(..span.start));
            let line = at.map_or(1, |before| before.matches('\n').count() + 1);
            let message = error.message();
            refused(format!("TOML parse error at line {line}: {message}"))
        })?;
        let known = || SETTINGS.iter().map(|setting| setting.key);
        if let Some(key) = values.keys().find(|key| known().all(|known| known != *key)) {
            return Err(ConfigError::UnknownKey {
                file: name,
                key: key.clone(),
                similar: known()
                    .map(|known| (strsim::jaro_winkler(key, known), known))
                    .filter(|(likeness, _)| *likeness > SIMILAR_MIN)
                    .max_by(|a, b| a.0.total_cmp(&b.0))
                    .map(|(_, known)| known),
                known: known().collect::<Vec<_>>().join(", "),
            });
        }
        Ok(Self { name, values })
    }

    /// The settings in the environment. A variable whose setting is in `above` is ignored, whatever its value.
    pub(super) fn environment(
        environment: &BTreeMap<String, String>,
        above: &Layer,
    ) -> Result<Self, ConfigError> {
        let mut values = Dict::new();
        let loses = |setting: &&Setting| above.values.contains_key(setting.key);
        for setting in SETTINGS.iter().filter(|setting| !loses(setting)) {
            let text = if setting.secret {
                secret(environment, setting.env)?
            } else {
                given(environment, setting.env).map(str::to_owned)
            };
            if let Some(text) = text {
                values.insert(setting.key.to_owned(), parsed(setting, &text)?);
            }
        }
        Ok(Self {
            name: ENVIRONMENT.to_owned(),
            values,
        })
    }

    pub(super) fn flags(args: &NodeArgs) -> Self {
        let mut values = Value::serialize(args)
            .ok()
            .and_then(Value::into_dict)
            .expect("a struct of numbers and texts serialises to a map");
        values.retain(|_, value| !matches!(value, Value::Empty(..)));
        Self {
            name: FLAGS.to_owned(),
            values,
        }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

pub(super) fn given<'a>(environment: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    environment
        .get(name)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
}

/// The text of a file, or why it cannot be read.
fn read(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    if size > FILE_BYTES_MAX {
        return Err(format!(
            "is {size} bytes long; the limit is {FILE_BYTES_MAX}"
        ));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

fn parsed(setting: &Setting, text: &str) -> Result<Value, ConfigError> {
    let invalid = |wanted: &str| ConfigError::Invalid {
        setting: setting.env.to_owned(),
        message: format!("{text:?} is not {wanted}"),
    };
    let number = |text: &str| text.trim().parse::<u64>();
    match setting.kind {
        Kind::Text => Ok(Value::from(text)),
        Kind::Number => number(text)
            .map(Value::from)
            .map_err(|_| invalid("a whole number")),
        Kind::Numbers => text
            .split(',')
            .map(number)
            .collect::<Result<Vec<u64>, _>>()
            .map(Value::from)
            .map_err(|_| invalid("a list of whole numbers such as 1,2,3")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_every_setting() {
        let readme = include_str!("../../README.md");
        for Setting { key, env, .. } in &SETTINGS {
            let start = format!("| `{}` | `{env}`", super::super::flag(key));
            assert!(readme.contains(&start), "README.md has no row {start}");
        }
    }
}
