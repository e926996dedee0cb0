//! How to reach the NATS server: the options of the NATS command line, for nodes and clients.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use async_nats::{ConnectOptions, ServerAddr};
use serde::Deserialize;

/// Where the broker is and who one is there. Flags win over environment variables.
#[derive(Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "NATS connection")]
pub struct NatsOptions {
    /// Servers to connect to, separated by commas [default: nats://127.0.0.1:4222].
    #[arg(
        id = "nats",
        long,
        env = "NATS_URL",
        value_name = "URL",
        hide_env_values = true,
        global = true
    )]
    pub url: Option<String>,
    /// User name; without a password it is taken as a token, as the NATS command line does.
    #[arg(
        id = "nats-user",
        long,
        env = "NATS_USER",
        value_name = "NAME",
        hide_env_values = true,
        global = true
    )]
    pub user: Option<String>,
    /// Password. NATS_PASSWORD_FILE names a file to read it from instead.
    #[arg(
        id = "nats-password",
        long,
        env = "NATS_PASSWORD",
        value_name = "PASSWORD",
        hide_env_values = true,
        global = true
    )]
    pub password: Option<String>,
    /// Token. NATS_TOKEN_FILE names a file to read it from instead.
    #[arg(
        id = "nats-token",
        long,
        env = "NATS_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        global = true
    )]
    pub token: Option<String>,
    /// File with a user's JWT and seed.
    #[arg(
        id = "nats-creds",
        long,
        env = "NATS_CREDS",
        value_name = "FILE",
        global = true
    )]
    pub creds: Option<PathBuf>,
    /// File with an NKey seed.
    #[arg(
        id = "nats-nkey",
        long,
        env = "NATS_NKEY",
        value_name = "FILE",
        global = true
    )]
    pub nkey: Option<PathBuf>,
    /// TLS certificate of this client, in PEM; needs --nats-key.
    #[arg(
        id = "nats-cert",
        long,
        env = "NATS_CERT",
        value_name = "FILE",
        global = true
    )]
    pub cert: Option<PathBuf>,
    /// TLS private key of this client, in PEM; needs --nats-cert.
    #[arg(
        id = "nats-key",
        long,
        env = "NATS_KEY",
        value_name = "FILE",
        global = true
    )]
    pub key: Option<PathBuf>,
    /// TLS certificate authority to trust, in PEM.
    #[arg(
        id = "nats-ca",
        long,
        env = "NATS_CA",
        value_name = "FILE",
        global = true
    )]
    pub ca: Option<PathBuf>,
    /// First tokens of the subjects that answers come to, where the broker lets each user read only
    /// its own [default: _INBOX].
    #[arg(
        id = "nats-inbox-prefix",
        long,
        env = "NATS_INBOX_PREFIX",
        value_name = "PREFIX",
        global = true
    )]
    pub inbox_prefix: Option<String>,
    /// Context of the NATS command line, from ~/.config/nats/context; what is given otherwise wins.
    #[arg(
        id = "nats-context",
        long,
        env = "NATS_CONTEXT",
        value_name = "NAME",
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
        reason: std::io::Error,
    },
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

impl NatsOptions {
    /// The servers to connect to, at least one.
    ///
    /// # Errors
    /// When an address is none, or when the context cannot be read.
    pub fn servers(&self) -> Result<Vec<ServerAddr>, NatsOptionsError> {
        let resolved = self.resolved()?;
        let urls = resolved.url.as_deref().unwrap_or(URL_DEFAULT);
        urls.split(',')
            .map(str::trim)
            .map(|url| {
                url.parse()
                    .map_err(|source: std::io::Error| NatsOptionsError::Url {
                        reason: source.to_string(),
                    })
            })
            .collect()
    }

    /// What subjects of answers begin with, if it was chosen.
    ///
    /// # Errors
    /// When a file or the context cannot be read.
    pub fn inbox_prefix(&self) -> Result<Option<String>, NatsOptionsError> {
        Ok(self.resolved()?.inbox_prefix)
    }

    /// Everything but the addresses; the caller adds how to reconnect.
    ///
    /// # Errors
    /// When a file cannot be read or options contradict each other.
    pub fn connect_options(&self) -> Result<ConnectOptions, NatsOptionsError> {
        let resolved = self.resolved()?;
        let mut options = resolved.with_identity(ConnectOptions::new())?;
        if let Some(prefix) = &resolved.inbox_prefix {
            let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>');
            if prefix.contains(odd) || prefix.split('.').any(str::is_empty) {
                return Err(NatsOptionsError::Contradiction(
                    "the prefix of a NATS inbox is tokens with dots between them, without wildcards \
                     (--nats-inbox-prefix)",
                ));
            }
            options = options.custom_inbox_prefix(prefix);
        }
        resolved.with_tls(options)
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
            options = options.nkey(read("the NKey seed", path)?);
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
            options = options.add_root_certificates(ca.clone()).require_tls(true);
        }
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Ok(options
                .add_client_certificate(cert.clone(), key.clone())
                .require_tls(true)),
            (None, None) => Ok(options),
            _ => Err(NatsOptionsError::Contradiction(
                "a NATS client certificate and its key come together (--nats-cert, --nats-key)",
            )),
        }
    }

    /// These options, filled up from `*_FILE` variables and then from the context.
    fn resolved(&self) -> Result<NatsOptions, NatsOptionsError> {
        let mut resolved = self.clone();
        if resolved.password.is_none() {
            let what = "the NATS password (NATS_PASSWORD_FILE)";
            resolved.password = secret_file("NATS_PASSWORD_FILE", what)?;
        }
        if resolved.token.is_none() {
            let what = "the NATS token (NATS_TOKEN_FILE)";
            resolved.token = secret_file("NATS_TOKEN_FILE", what)?;
        }
        if let Some(name) = &self.context {
            resolved.fill_from(context(name)?);
        }
        Ok(resolved)
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
pub fn without_secrets(servers: &[ServerAddr]) -> String {
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
    serde_json::from_str(&text).map_err(|e| failed(format!("{}: {e}", path.display())))
}

fn secret_file(variable: &str, what: &'static str) -> Result<Option<String>, NatsOptionsError> {
    env::var_os(variable)
        .filter(|path| !path.is_empty())
        .map(|path| read(what, Path::new(&path)))
        .transpose()
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
mod tests {
    use super::*;

    fn options(user: Option<&str>, password: Option<&str>) -> NatsOptions {
        NatsOptions {
            user: user.map(str::to_owned),
            password: password.map(str::to_owned),
            ..NatsOptions::default()
        }
    }

    #[test]
    fn several_servers_are_separated_by_commas() {
        let mut options = NatsOptions::default();
        let shown = |options: &NatsOptions| without_secrets(&options.servers().unwrap());
        assert_eq!(shown(&options), "127.0.0.1:4222");
        options.url = Some("nats://u:secret@a:1, tls://b".to_owned());
        assert_eq!(shown(&options), "a:1, b:4222");
        options.url = Some("nats://u:secret@:::".to_owned());
        let error = options.servers().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn a_context_fills_up_but_never_mixes_identities() {
        let context = || Context {
            url: "nats://c".into(),
            user: "theirs".into(),
            password: "p".into(),
            ..Context::default()
        };
        let mut nobody = NatsOptions::default();
        nobody.fill_from(context());
        assert_eq!(nobody.user.as_deref(), Some("theirs"));
        assert_eq!(nobody.url.as_deref(), Some("nats://c"));
        let mut somebody = options(Some("ours"), None);
        somebody.fill_from(context());
        assert_eq!(somebody.user.as_deref(), Some("ours"));
        assert_eq!(somebody.password, None);
    }

    #[test]
    fn halves_are_refused() {
        assert!(options(None, Some("p")).connect_options().is_err());
        let certificate = NatsOptions {
            cert: Some("c.pem".into()),
            ..NatsOptions::default()
        };
        assert!(certificate.connect_options().is_err());
        assert!(options(Some("u"), Some("p")).connect_options().is_ok());
    }

    #[test]
    fn an_inbox_is_no_wildcard() {
        for (prefix, is_right) in [
            ("_INBOX_a", true),
            ("a.b", true),
            ("a.>", false),
            ("a.", false),
            ("", false),
        ] {
            let options = NatsOptions {
                inbox_prefix: Some(prefix.to_owned()),
                ..NatsOptions::default()
            };
            assert_eq!(options.connect_options().is_ok(), is_right, "{prefix}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let shown = format!("{:?}", options(Some("u"), Some("secret")));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
