//! A server's URL, which may hold a password and is therefore never printed whole.

use std::fmt;
use std::path::PathBuf;

use super::HIDDEN;

/// One URL of Redis, or several of NATS separated by commas. `Display` and `Debug` leave out user, password and
/// parameters; [`Endpoint::expose`] is for the connection alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    text: String,
    /// Separates URLs; none for Redis, whose password may contain a comma.
    separator: Option<char>,
}

/// Files for TLS to a server, in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority to trust; without one, those of the system.
    pub ca: Option<PathBuf>,
    /// Certificate and private key of this node, for a server that asks for them.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Endpoint {
    /// Accepts NATS servers, separated by commas: `[scheme://][user:password@]host[:port]`.
    pub(super) fn nats(text: &str) -> Result<Self, String> {
        let servers: Vec<&str> = text.split(',').map(str::trim).collect();
        for server in &servers {
            let (scheme, rest) = server.split_once("://").unwrap_or(("nats", server));
            if !["nats", "tls", "ws", "wss"].contains(&scheme) {
                return Err(format!(
                    "scheme `{scheme}` is not one of nats, tls, ws, wss; \
                     for example nats://127.0.0.1:4222"
                ));
            }
            authority(rest, "nats://127.0.0.1:4222")?;
        }
        Ok(Self {
            text: servers.join(","),
            separator: Some(','),
        })
    }

    /// Accepts one of:
    /// - a Redis server: `redis://[user:password@]host[:port][/database]`, with `rediss` for TLS;
    /// - a socket: `unix:///run/redis.sock`;
    /// - sentinels and the name of their service: `redis+sentinel://` with the parts of [`Sentinels`];
    /// - servers of a Redis Cluster: `redis+cluster://` with the parts of [`ClusterServers`].
    pub(super) fn redis(text: &str) -> Result<Self, String> {
        const RIGHT: &str = "redis://127.0.0.1:6379";
        match text.split_once("://") {
            Some(("redis+sentinel" | "rediss+sentinel", rest)) => {
                Sentinels::parse(rest)?;
            }
            Some(("redis+cluster" | "rediss+cluster", rest)) => {
                ClusterServers::parse(rest)?;
            }
            Some(("redis" | "valkey" | "rediss" | "valkeys", rest)) => {
                let (rest, database) = rest.split_once('/').unwrap_or((rest, ""));
                if !database.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(format!(
                        "the part after / must be the number of a database; for example {RIGHT}/0"
                    ));
                }
                authority(rest, RIGHT)?;
            }
            Some(("unix" | "redis+unix", path)) if path.starts_with('/') => {}
            _ => {
                return Err(format!(
                    "is not a URL of Redis, such as {RIGHT}, rediss:// for TLS, redis+sentinel:// for \
                     sentinels, redis+cluster:// for Redis Cluster, or unix:///run/redis.sock"
                ));
            }
        }
        Ok(Self {
            text: text.to_owned(),
            separator: None,
        })
    }

    /// Whether the scheme of the URL asks for TLS.
    pub(super) fn is_tls(&self) -> bool {
        [
            "rediss://",
            "rediss+sentinel://",
            "rediss+cluster://",
            "valkeys://",
            "tls://",
            "wss://",
        ]
        .iter()
        .any(|scheme| self.text.starts_with(scheme))
    }

    /// The URL with its password, for the connection alone.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.separator {
            None => f.write_str(&without_secrets(&self.text)),
            Some(separator) => {
                let servers = self.text.split(separator).map(without_secrets);
                f.write_str(&servers.collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// A URL without user, password and parameters. If it is ambiguous where they end, as with an `@` after a `?`, only
/// the scheme is left.
pub(crate) fn without_secrets(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    match (rest.rfind('@'), rest.find('?')) {
        (None, None) => url.to_owned(),
        (Some(at), None) => format!("{scheme}{HIDDEN}{}", &rest[at..]),
        (None, Some(mark)) => format!("{scheme}{}{HIDDEN}", &rest[..=mark]),
        (Some(at), Some(mark)) if at < mark => {
            format!("{scheme}{HIDDEN}{}{HIDDEN}", &rest[at..=mark])
        }
        (Some(_), Some(_)) => format!("{scheme}{HIDDEN}"),
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// The part after the scheme in a URL of sentinels:
/// `[user:password@]host[:port][,host[:port]…]/service[/database][?sentinel_username=…&sentinel_password=…]`.
/// The parts are not percent-decoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sentinels<'a> {
    /// For the servers: `user:password`.
    pub user: &'a str,
    /// Separated by commas.
    pub hosts: &'a str,
    /// The name of the service that the sentinels watch.
    pub service: &'a str,
    /// A number.
    pub database: &'a str,
    pub sentinel_username: &'a str,
    pub sentinel_password: &'a str,
}

impl<'a> Sentinels<'a> {
    /// # Errors
    /// The text is malformed. The message contains no part of it, since that may be a misplaced password.
    pub fn parse(rest: &'a str) -> Result<Self, String> {
        const RIGHT: &str = "redis+sentinel://127.0.0.1:26379/mymaster";
        let (rest, parameters) = rest.rsplit_once('?').unwrap_or((rest, ""));
        let (user, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (service, database) = path.split_once('/').unwrap_or((path, "0"));
        if service.is_empty() {
            return Err(format!(
                "the name of the sentinels' service is missing; for example {RIGHT}"
            ));
        }
        if database.is_empty() || !database.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!(
                "the part after the service must be the number of a database; for example {RIGHT}/0"
            ));
        }
        let mut sentinels = Sentinels {
            user,
            hosts,
            service,
            database,
            ..Sentinels::default()
        };
        for parameter in parameters.split('&').filter(|one| !one.is_empty()) {
            match parameter.split_once('=') {
                Some(("sentinel_username", name)) => sentinels.sentinel_username = name,
                Some(("sentinel_password", word)) => sentinels.sentinel_password = word,
                _ => {
                    return Err(format!(
                        "only sentinel_username and sentinel_password may follow the ?; for example \
                         {RIGHT}?sentinel_password=…"
                    ));
                }
            }
        }
        if !sentinels.sentinel_username.is_empty() && sentinels.sentinel_password.is_empty() {
            return Err("sentinel_username needs sentinel_password".to_owned());
        }
        hosts
            .split(',')
            .try_for_each(|host| authority(host, RIGHT))?;
        Ok(sentinels)
    }
}

/// The part after the scheme in a URL of a Redis Cluster: `[user:password@]host[:port][,host[:port]…]`, some of its
/// servers. The parts are not percent-decoded.
#[derive(Debug, PartialEq, Eq)]
pub struct ClusterServers<'a> {
    /// For all servers: `user:password`.
    pub user: &'a str,
    /// Separated by commas.
    pub hosts: &'a str,
}

impl<'a> ClusterServers<'a> {
    /// # Errors
    /// The text is malformed. The message contains no part of it, since that may be a misplaced password.
    pub fn parse(rest: &'a str) -> Result<Self, String> {
        const RIGHT: &str = "redis+cluster://127.0.0.1:7000,127.0.0.1:7001";
        let (user, hosts) = rest.rsplit_once('@').unwrap_or(("", rest));
        let hosts = hosts.strip_suffix('/').unwrap_or(hosts);
        if hosts.contains(['/', '?']) {
            return Err(format!(
                "a Redis Cluster has no databases and the URL no parameters; for example {RIGHT}"
            ));
        }
        hosts
            .split(',')
            .try_for_each(|host| authority(host, RIGHT))?;
        Ok(ClusterServers { user, hosts })
    }
}

/// Checks `[user:password@]host[:port]`; a host in brackets is an IPv6 address. Messages contain no part of the text,
/// since that may be a misplaced password.
fn authority(text: &str, right: &str) -> Result<(), String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let (_, server) = text.rsplit_once('@').unwrap_or(("", text));
    let (host, port) = if let Some(address) = server.strip_prefix('[') {
        let (address, rest) = address
            .split_once(']')
            .ok_or_else(|| format!("has a `[` without its `]`; for example {right}"))?;
        (address, rest.strip_prefix(':'))
    } else {
        match server.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (server, None),
        }
    };
    let odd = |byte: u8| byte.is_ascii_whitespace() || byte.is_ascii_control() || byte == b'/';
    if host.is_empty() || host.bytes().any(odd) {
        return Err(format!("has no valid host; for example {right}"));
    }
    match port.map(str::parse::<u16>) {
        None | Some(Ok(1..)) => Ok(()),
        _ => Err(format!(
            "the port is not a number from 1 to 65535; for example {right}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_and_passwords_hidden() {
        for right in [
            "nats://a:4222",
            "a",
            "a:4222,b:4223",
            "nats://a:4222, nats://b:4222",
            "tls://u:p@[::1]:4222",
            "nats://h/",
            "wss://h",
        ] {
            assert!(Endpoint::nats(right).is_ok(), "{right}");
        }
        for wrong in [
            "",
            "http://a",
            "nats://",
            "nats://a:0",
            "nats://a:99999",
            "a,,b",
            "nats://[::1",
            "nats://a/b",
        ] {
            assert!(Endpoint::nats(wrong).is_err(), "{wrong}");
        }
        for right in [
            "redis://a",
            "rediss://:p@a:6379/3",
            "unix:///run/redis.sock",
            "redis+sentinel://:p@a,b:26380/mymaster/0",
            "redis+sentinel://a/mymaster?sentinel_username=u&sentinel_password=p",
            "redis+cluster://a",
            "rediss+cluster://u:p@a:7000,[::1]:7001",
        ] {
            assert!(Endpoint::redis(right).is_ok(), "{right}");
        }
        for wrong in [
            "a:6379",
            "redis://",
            "redis://a/x",
            "unix://run",
            "redis+sentinel://a",
            "redis+sentinel://a,/mymaster",
            "redis+sentinel://a/mymaster/x",
            "redis+sentinel://a/mymaster?sentinel_username=u",
            "redis+sentinel://a/mymaster?sentinel_secret=p",
            "redis+cluster://",
            "redis+cluster://a,,b",
            "redis+cluster://a/0",
            "redis+cluster://a?password=p",
        ] {
            assert!(Endpoint::redis(wrong).is_err(), "{wrong}");
        }
        let shown = Endpoint::nats("nats://u:pw@a:1,tok@b")
            .expect("valid")
            .to_string();
        assert_eq!(shown, "nats://***@a:1,***@b");
        let spaced = Endpoint::nats(" a:1 , tls://b").expect("valid");
        assert_eq!(spaced.expose(), "a:1,tls://b");
        let shown = Endpoint::redis("redis+sentinel://u:pw@a,b/m?sentinel_password=pw")
            .expect("valid")
            .to_string();
        assert_eq!(shown, "redis+sentinel://***@a,b/m?***");
        for (url, expected) in [
            ("rediss+cluster://u:p,w@a:1,b", "rediss+cluster://***@a:1,b"),
            ("redis://u:p,w@a/1", "redis://***@a/1"),
            ("redis://:p?w@a", "redis://***"),
            (
                "redis+sentinel://a/m?sentinel_password=p@w",
                "redis+sentinel://***",
            ),
            ("unix:///run/r.sock?pass=pw", "unix:///run/r.sock?***"),
        ] {
            let shown = Endpoint::redis(url).expect("valid").to_string();
            assert_eq!(shown, expected);
        }
    }
}
