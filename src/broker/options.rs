//! How to reach the NATS server: the options of the NATS command line, for nodes and clients.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fmt, fs, io};

use async_nats::{ConnectOptions, ServerAddr};
use nkeys::KeyPair;
use serde::Deserialize;

use crate::broker::pem::{self, PemError};
use crate::config::{self, ConfigError};

/// Where the broker is and who one is there. Flags win over environment variables.
#[derive(Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "NATS connection")]
pub struct NatsOptions {
    /// Servers, separated by commas; NATS_URL_FILE names a file with them
    /// [default: nats://127.0.0.1:4222].
    #[arg(
        id = "nats",
        long,
        env = "NATS_URL",
        value_name = "URL",
        hide_env_values = true,
        global = true
    )]
    pub url: Option<String>,
    /// User name; without a password it is used as a token, as in the NATS command line.
    #[arg(
        id = "nats-user",
        long,
        env = "NATS_USER",
        value_name = "NAME",
        hide_env_values = true,
        hide_short_help = true,
        global = true
    )]
    pub user: Option<String>,
    /// Password; NATS_PASSWORD_FILE names a file with it.
    #[arg(
        id = "nats-password",
        long,
        env = "NATS_PASSWORD",
        value_name = "PASSWORD",
        hide_env_values = true,
        hide_short_help = true,
        global = true
    )]
    pub password: Option<String>,
    /// Token; NATS_TOKEN_FILE names a file with it.
    #[arg(
        id = "nats-token",
        long,
        env = "NATS_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        hide_short_help = true,
        global = true
    )]
    pub token: Option<String>,
    /// Credentials file with the JWT and the seed of a user.
    #[arg(
        id = "nats-creds",
        long,
        env = "NATS_CREDS",
        value_name = "FILE",
        hide_env_values = true,
        hide_short_help = true,
        global = true
    )]
    pub creds: Option<PathBuf>,
    /// File with an NKey seed.
    #[arg(
        id = "nats-nkey",
        long,
        env = "NATS_NKEY",
        value_name = "FILE",
        hide_env_values = true,
        hide_short_help = true,
        global = true
    )]
    pub nkey: Option<PathBuf>,
    /// TLS certificate of this client, in PEM; needs --nats-key.
    #[arg(
        id = "nats-cert",
        long,
        env = "NATS_CERT",
        value_name = "FILE",
        hide_env_values = true,
        hide_short_help = true,
        global = true
    )]
    pub cert: Option<PathBuf>,
    /// TLS private key of this client, in PEM; needs --nats-cert.
    #[arg(
        id = "nats-key",
        long,
        env = "NATS_KEY",
        value_name = "FILE",
        hide_env_values = true,
        hide_short_help = true,
        global = true
    )]
    pub key: Option<PathBuf>,
    /// TLS certificate authority to trust, in PEM.
    #[arg(
        id = "nats-ca",
        long,
        env = "NATS_CA",
        value_name = "FILE",
        hide_env_values = true,
        hide_short_help = true,
        global = true
    )]
    pub ca: Option<PathBuf>,
    /// First tokens of reply subjects, for a broker that lets each user read only its own
    /// [default: _INBOX].
    #[arg(
        id = "nats-inbox-prefix",
        long,
        env = "NATS_INBOX_PREFIX",
        value_name = "PREFIX",
        hide_env_values = true,
        hide_short_help = true,
        global = true
    )]
    pub inbox_prefix: Option<String>,
    /// Context of the NATS command line, from ~/.config/nats/context; other settings beat it.
    #[arg(
        id = "nats-context",
        long,
        env = "NATS_CONTEXT",
        value_name = "NAME",
        hide_env_values = true,
        global = true
    )]
    pub context: Option<String>,
}

/// What is wrong with the options.
#[derive(Debug, thiserror::Error)]
pub enum NatsOptionsError {
    /// The address is not repeated, since it may contain a password.
    #[error("a NATS address is not like nats://127.0.0.1:4222: {reason}")]
    Url { reason: String },
    #[error("cannot read {what} from {}: {reason}", path.display())]
    Unreadable {
        what: &'static str,
        path: PathBuf,
        reason: io::Error,
    },
    /// The text is not repeated, since it may be a seed all but for a letter.
    #[error("--nats-nkey or NATS_NKEY: {}: holds no seed of an NKey", path.display())]
    Seed { path: PathBuf },
    #[error(transparent)]
    Secret(#[from] ConfigError),
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("{0}")]
    Contradiction(&'static str),
    #[error("the NATS context {name}: {reason}")]
    Context { name: String, reason: String },
}

/// The address of a server on this machine.
const URL_DEFAULT: &str = "nats://127.0.0.1:4222";

/// Secrets never show.
impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsOptions")
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

/// What a context file of the NATS command line may say; the rest of it does not matter here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Context {
    url: String,
    user: String,
    password: String,
    token: String,
    creds: String,
    nkey: String,
    cert: String,
    key: String,
    ca: String,
    inbox_prefix: String,
}

/// What a connection is made with.
pub struct Resolved {
    /// At least one.
    pub servers: Vec<ServerAddr>,
    /// Everything but the servers; the caller adds how to reconnect.
    pub options: ConnectOptions,
    /// What subjects of answers begin with, if it was chosen.
    pub inbox_prefix: Option<String>,
}

impl NatsOptions {
    /// These options, filled up from `*_FILE` variables and then from the context, and checked.
    ///
    /// # Errors
    /// When an address is none, a file cannot be read or is of no use, or options contradict each other.
    pub fn resolve(&self) -> Result<Resolved, NatsOptionsError> {
        let filled = self.filled()?;
        Ok(Resolved {
            servers: filled.servers()?,
            options: filled.connect_options()?,
            inbox_prefix: filled.inbox_prefix,
        })
    }

    /// The servers that the context names, if there is a context and it names some.
    ///
    /// # Errors
    /// When the context cannot be read.
    pub fn servers_of_context(&self) -> Result<Option<String>, NatsOptionsError> {
        let context = self.context.as_deref().map(context).transpose()?;
        let url = context.map(|context| context.url);
        Ok(url.filter(|url| !url.is_empty()))
    }

    fn servers(&self) -> Result<Vec<ServerAddr>, NatsOptionsError> {
        let urls = self.url.as_deref().unwrap_or(URL_DEFAULT);
        let server = |url: &str| {
            url.parse()
                .map_err(|reason: io::Error| NatsOptionsError::Url {
                    reason: reason.to_string(),
                })
        };
        urls.split(',').map(str::trim).map(server).collect()
    }

    fn connect_options(&self) -> Result<ConnectOptions, NatsOptionsError> {
        let mut options = self.with_identity(ConnectOptions::new())?;
        if let Some(prefix) = &self.inbox_prefix {
            let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>');
            if prefix.contains(odd) || prefix.split('.').any(str::is_empty) {
                return Err(NatsOptionsError::Contradiction(
                    "the prefix of a NATS inbox is tokens with dots between them, without wildcards \
                     (--nats-inbox-prefix)",
                ));
            }
            options = options.custom_inbox_prefix(prefix);
        }
        self.with_tls(options)
    }

    fn with_identity(&self, options: ConnectOptions) -> Result<ConnectOptions, NatsOptionsError> {
        let mut options = match (&self.user, &self.password) {
            (Some(user), Some(password)) => {
                options.user_and_password(user.clone(), password.clone())
            }
            (Some(token), None) => options.token(token.clone()),
            (None, Some(_)) => {
                return Err(NatsOptionsError::Contradiction(
                    "a NATS password needs a user (--nats-user or NATS_USER)",
                ));
            }
            (None, None) => options,
        };
        if let Some(token) = &self.token {
            options = options.token(token.clone());
        }
        if let Some(path) = &self.nkey {
            let seed = read("the NKey seed", path)?;
            KeyPair::from_seed(&seed).map_err(|_| NatsOptionsError::Seed { path: path.clone() })?;
            options = options.nkey(seed);
        }
        if let Some(path) = &self.creds {
            // The library's parser wants the last line ended.
            let creds = read("the NATS credentials", path)? + "\n";
            options = options
                .credentials(&creds)
                .map_err(|reason| unreadable("the NATS credentials", path, reason))?;
        }
        Ok(options)
    }

    fn with_tls(&self, mut options: ConnectOptions) -> Result<ConnectOptions, NatsOptionsError> {
        if let Some(ca) = &self.ca {
            pem::check_certificates("--nats-ca or NATS_CA", ca)?;
            options = options.add_root_certificates(ca.clone()).require_tls(true);
        }
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                pem::check_identity(
                    ("--nats-cert or NATS_CERT", cert),
                    ("--nats-key or NATS_KEY", key),
                )?;
                let options = options.add_client_certificate(cert.clone(), key.clone());
                Ok(options.require_tls(true))
            }
            (None, None) => Ok(options),
            _ => Err(NatsOptionsError::Contradiction(
                "a NATS client certificate and its key come together (--nats-cert, --nats-key)",
            )),
        }
    }

    fn filled(&self) -> Result<NatsOptions, NatsOptionsError> {
        let mut filled = self.clone();
        let environment = config::environment();
        for (option, variable) in [
            (&mut filled.url, "NATS_URL"),
            (&mut filled.password, "NATS_PASSWORD"),
            (&mut filled.token, "NATS_TOKEN"),
        ] {
            fill_from_file(option, variable, &environment)?;
        }
        if let Some(name) = &self.context {
            filled.fill_from(context(name)?);
        }
        Ok(filled)
    }

    fn fill_from(&mut self, context: Context) {
        fn fill<T: From<String>>(option: &mut Option<T>, value: String) {
            if option.is_none() && !value.is_empty() {
                *option = Some(value.into());
            }
        }
        let names_nobody = self.user.is_none()
            && self.token.is_none()
            && self.creds.is_none()
            && self.nkey.is_none();
        fill(&mut self.url, context.url);
        // Who one is comes from one place only: half of each would be nobody.
        if names_nobody {
            fill(&mut self.user, context.user);
            fill(&mut self.password, context.password);
            fill(&mut self.token, context.token);
            fill(&mut self.creds, context.creds);
            fill(&mut self.nkey, context.nkey);
        }
        if self.cert.is_none() && self.key.is_none() {
            fill(&mut self.cert, context.cert);
            fill(&mut self.key, context.key);
        }
        fill(&mut self.ca, context.ca);
        fill(&mut self.inbox_prefix, context.inbox_prefix);
    }
}

/// Hosts and ports for a message, without users and passwords that an address may contain.
pub fn addresses(servers: &[ServerAddr]) -> String {
    let shown: Vec<_> = servers
        .iter()
        .map(|server| format!("{}:{}", server.host(), server.port()))
        .collect();
    shown.join(", ")
}

fn context(name: &str) -> Result<Context, NatsOptionsError> {
    let failed = |reason: String| NatsOptionsError::Context {
        name: name.to_owned(),
        reason,
    };
    if name.is_empty() || name.contains(['/', '\\']) || name.contains("..") {
        return Err(failed("this is not the name of a context".to_owned()));
    }
    let home = env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env::home_dir().map(|home| home.join(".config")))
        .ok_or_else(|| failed("there is no home directory".to_owned()))?;
    let path = home.join("nats/context").join(format!("{name}.json"));
    let text = fs::read_to_string(&path).map_err(|e| failed(format!("{}: {e}", path.display())))?;
    parsed(&text).map_err(|reason| failed(format!("{}: {reason}", path.display())))
}

/// What is wrong is told by its place alone, since it may be a secret.
fn parsed(text: &str) -> Result<Context, String> {
    serde_json::from_str(text).map_err(|wrong| {
        let (line, column) = (wrong.line(), wrong.column());
        format!("is no context at line {line}, column {column}")
    })
}

/// Reads a secret from the file that `<variable>_FILE` names. A flag wins over both variables, whose file is
/// not read then; one that says the same as the variable counts as that. Of the variables there may be one.
fn fill_from_file(
    option: &mut Option<String>,
    variable: &str,
    environment: &BTreeMap<String, String>,
) -> Result<(), ConfigError> {
    let is_by_flag = option.is_some() && option.as_ref() != environment.get(variable);
    if is_by_flag {
        return Ok(());
    }
    let file = format!("{variable}_FILE");
    let by_file = environment.get(&file).cloned();
    let given = [(variable.to_owned(), option.take()), (file, by_file)];
    let given = given.into_iter();
    let given = given.filter_map(|(name, value)| Some((name, value?)));
    *option = config::secret(&given.collect(), variable)?;
    Ok(())
}

/// A file's text without the line end that editors add.
fn read(what: &'static str, path: &Path) -> Result<String, NatsOptionsError> {
    fs::read_to_string(path)
        .map(|text| text.trim_end().to_owned())
        .map_err(|reason| unreadable(what, path, reason))
}

fn unreadable(what: &'static str, path: &Path, reason: std::io::Error) -> NatsOptionsError {
    NatsOptionsError::Unreadable {
        what,
        path: path.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests;
