//! Where Redis is and how a node shows who it is: URL, user and password, TLS.
//!
//! A URL names one server, or some servers of a Redis Cluster, of which each knows all:
//! `redis+cluster://[user:password@]host[:port][,host[:port]…]`, or sentinels that know which server is the master:
//! `redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/database]`, with `rediss` for TLS to
//! servers and sentinels. User and password are for the servers; those for the sentinels are parameters,
//! `?sentinel_username=…&sentinel_password=…`. Sentinels are asked anew at each connect.
//!
//! The files of certificates are read at each connect, so that renewed ones are taken up by the next
//! connection, without a restart. Over TLS the server's name is always checked: against the given
//! authority, or against those that the system trusts.

use std::fmt;
use std::fs;
use std::path::Path;

use redis::aio::MultiplexedConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo,
    RedisError, RedisResult, TlsCertificates, TlsMode,
};

use super::durability::Level;
use super::keys::Keyspace;
use super::slots::{Place, tag_in};
use crate::broker::pem::{self, PemError};
use crate::config::{ClusterServers, Sentinels, TlsFiles, without_secrets};
use crate::protocol::Prefix;

/// Where servers listen when the URL does not say.
const SERVER_PORT: u16 = 6379;
/// Where sentinels listen when the URL does not say.
const SENTINEL_PORT: u16 = 26379;

/// What follows the scheme in a URL of a Redis Cluster.
const CLUSTER: &str = "+cluster://";

/// What it takes to connect. The URL may hold a password, which `Display` leaves out.
#[derive(Clone)]
pub struct RedisAddress {
    url: String,
    tls: TlsFiles,
    asserted: Option<Level>,
    prefix: String,
    /// Of a master of a Redis Cluster: a slot that it has.
    slot: Option<u16>,
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_secrets(&self.url))
    }
}

/// Redis cannot be reached by what was configured. The message does not repeat the URL, since it may
/// hold a password.
#[derive(Debug, thiserror::Error)]
pub enum RedisAddressError {
    #[error(
        "not a Redis URL (redis://[user:password@]host:port[/database], rediss:// for TLS, \
         redis+sentinel://host:port,…/service for sentinels, redis+cluster://host:port,… for Redis \
         Cluster): {0}"
    )]
    Url(String),
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A file that was there, and is not any more.
    #[error("TLS to Redis: cannot read {file}: {reason}")]
    File { file: String, reason: String },
    #[error("TLS to Redis: {0}")]
    Certificates(String),
}

/// Who is asked for a connection.
enum Way {
    Server(Client),
    Sentinels(SentinelClient),
}

impl RedisAddress {
    /// `tls` is of use with TLS in the URL only.
    pub fn new(url: &str, tls: TlsFiles) -> Self {
        RedisAddress {
            url: url.to_owned(),
            tls,
            asserted: None,
            prefix: Prefix::default().as_str().to_owned(),
            slot: None,
        }
    }

    /// The same server, for a cluster with this prefix.
    pub fn with_prefix(self, prefix: &str) -> Self {
        RedisAddress {
            prefix: prefix.to_owned(),
            ..self
        }
    }

    /// The key that is written to ask what replicas have.
    pub(super) fn copied_key(&self) -> String {
        Keyspace::copied(&self.prefix, self.slot.map(tag_in).as_deref())
    }

    /// The servers that a URL of a Redis Cluster names; none of any other.
    ///
    /// # Errors
    /// When what it names are no servers.
    pub(super) fn seeds(&self) -> Result<Option<Vec<Place>>, RedisAddressError> {
        let Some((scheme, rest)) = self.url.split_once(CLUSTER) else {
            return Ok(None);
        };
        let parts = ClusterServers::parse(rest).map_err(RedisAddressError::Url)?;
        let seeds = each_of(scheme, parts.hosts, SERVER_PORT)?.into_iter();
        let place = |address| match address {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some(Place { host, port })
            }
            _ => None,
        };
        Ok(Some(seeds.filter_map(place).collect()))
    }

    /// The address of one server of the Redis Cluster, which has this slot.
    pub(super) fn of_master(&self, place: &Place, slot: u16) -> Self {
        let (scheme, rest) = self
            .url
            .split_once(CLUSTER)
            .expect("the URL is of a cluster");
        let parts = ClusterServers::parse(rest).expect("the URL was checked");
        RedisAddress {
            url: format!("{scheme}://{}@{place}", parts.user),
            slot: Some(slot),
            ..self.clone()
        }
    }

    /// The same server, of which the operator asserts what a write survives.
    pub fn asserting(self, asserted: Option<Level>) -> Self {
        RedisAddress { asserted, ..self }
    }

    pub(super) fn asserted(&self) -> Option<Level> {
        self.asserted
    }

    /// Whether this is an address, with the certificates as they are now. Connects to nothing.
    ///
    /// # Errors
    /// When the URL is none, or a file cannot be read or holds no certificate or key.
    pub fn check(&self) -> Result<(), RedisAddressError> {
        if let Some(ca) = &self.tls.ca {
            pem::check_certificates("--redis-ca or REDIS_CA", ca)?;
        }
        if let Some((cert, key)) = &self.tls.identity {
            pem::check_identity(
                ("--redis-cert or REDIS_CERT", cert),
                ("--redis-key or REDIS_KEY", key),
            )?;
        }
        match self.seeds()? {
            Some(seeds) => seeds
                .iter()
                .try_for_each(|seed| self.of_master(seed, 0).check()),
            None => self.way().map(drop),
        }
    }

    /// A connection to the server, or to the one that sentinels call the master.
    pub(super) async fn connect(
        &self,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        let way = self.way().map_err(|error| {
            RedisError::from((ErrorKind::InvalidClientConfig, "", error.to_string()))
        })?;
        match way {
            Way::Server(client) => {
                client
                    .get_multiplexed_async_connection_with_config(config)
                    .await
            }
            Way::Sentinels(mut client) => client.get_async_connection_with_config(config).await,
        }
    }

    fn way(&self) -> Result<Way, RedisAddressError> {
        let certificates = self.certificates()?;
        if let Some((scheme, rest)) = self.url.split_once("+sentinel://") {
            return sentinels(scheme, rest, certificates).map(Way::Sentinels);
        }
        let plain = Client::open(self.url.as_str()).map_err(url_error)?;
        let Some(certificates) = certificates else {
            return Ok(Way::Server(plain));
        };
        Client::build_with_tls(plain.get_connection_info().clone(), certificates)
            .map(Way::Server)
            .map_err(|error| RedisAddressError::Certificates(error.to_string()))
    }

    fn certificates(&self) -> Result<Option<TlsCertificates>, RedisAddressError> {
        if self.tls == TlsFiles::default() {
            return Ok(None);
        }
        let root_cert = self.tls.ca.as_deref().map(read).transpose()?;
        let client_tls = match &self.tls.identity {
            Some((cert, key)) => Some(ClientTlsConfig {
                client_cert: read(cert)?,
                client_key: read(key)?,
            }),
            None => None,
        };
        Ok(Some(TlsCertificates {
            client_tls,
            root_cert,
        }))
    }
}

/// Of `<scheme>+sentinel://<rest>`. What is inside is read as parts of usual URLs.
fn sentinels(
    scheme: &str,
    rest: &str,
    certificates: Option<TlsCertificates>,
) -> Result<SentinelClient, RedisAddressError> {
    let parts = Sentinels::parse(rest).map_err(RedisAddressError::Url)?;
    let addresses = each_of(scheme, parts.hosts, SENTINEL_PORT)?;
    // As if one server, and one sentinel, were named.
    let server = format!("{scheme}://{}@localhost/{}", parts.user, parts.database);
    let server = server.into_connection_info().map_err(url_error)?;
    let settings = server.redis_settings();
    let (username, password) = (parts.sentinel_username, parts.sentinel_password);
    let sentinel = format!("{scheme}://{username}:{password}@localhost");
    let sentinel = sentinel.into_connection_info().map_err(url_error)?;
    let of_sentinels = sentinel.redis_settings();
    let servers = SentinelServerType::Master;
    let mut builder = SentinelClientBuilder::new(addresses, parts.service, servers)
        .map_err(url_error)?
        .set_client_to_redis_db(settings.db());
    if let Some(username) = of_sentinels.username() {
        builder = builder.set_client_to_sentinel_username(username);
    }
    if let Some(password) = of_sentinels.password() {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if let Some(username) = settings.username() {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = settings.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if scheme == "rediss" {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
    }
    if let Some(certificates) = certificates {
        builder = builder
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    let built = builder.build();
    built.map_err(|error| RedisAddressError::Certificates(error.to_string()))
}

/// The address of each host of a list, with a port where it has none.
fn each_of(scheme: &str, hosts: &str, port: u16) -> Result<Vec<ConnectionAddr>, RedisAddressError> {
    let address = |host: &str| {
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.ends_with(']'));
        let host = match has_port {
            true => host.to_owned(),
            false => format!("{host}:{port}"),
        };
        let info = format!("{scheme}://{host}").into_connection_info();
        Ok(info.map_err(url_error)?.addr().clone())
    };
    hosts.split(',').map(address).collect()
}

fn url_error(error: RedisError) -> RedisAddressError {
    RedisAddressError::Url(error.to_string())
}

/// Without TLS files.
impl From<&str> for RedisAddress {
    fn from(url: &str) -> Self {
        RedisAddress::new(url, TlsFiles::default())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, RedisAddressError> {
    fs::read(path).map_err(|error| RedisAddressError::File {
        file: path.display().to_string(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str, ca: &Path) -> String {
        let tls = TlsFiles {
            ca: Some(ca.to_owned()),
            identity: None,
        };
        match RedisAddress::new(url, tls).check() {
            Ok(()) => panic!("{url} with {}", ca.display()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_nothing_secret_is() {
        let absent = Path::new("/nowhere/ca.pem");
        let error = refusal("rediss://user:secret@host", absent);
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "garbage").expect("it is writable");
        for url in [
            "rediss://user:secret@host",
            "redis://user:secret@host",
            "rediss+sentinel://user:secret@host/service",
            "rediss+cluster://user:secret@host,other",
        ] {
            let error = refusal(url, file.path());
            let start = format!("--redis-ca or REDIS_CA: {}: ", file.path().display());
            assert!(error.starts_with(&start), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn servers_of_a_cluster_share_user_and_password() {
        let address = RedisAddress::from("rediss+cluster://u:p%40ss@a,[::1]:7,b:8");
        let seeds = address.seeds().expect("a URL").expect("of a cluster");
        let shown: Vec<String> = seeds.iter().map(Place::to_string).collect();
        assert_eq!(shown, ["a:6379", "[::1]:7", "b:8"]);
        let master = address.of_master(&seeds[1], 77);
        assert_eq!(master.url, "rediss://u:p%40ss@[::1]:7");
        assert_eq!(master.to_string(), "rediss://***@[::1]:7");
        assert_eq!(master.seeds().expect("a URL"), None);
        assert_eq!(crate::queue::slots::slot_of(&master.copied_key()), 77);
        assert!(address.check().is_ok());
        for wrong in [
            "redis+cluster://",
            "redis+cluster://a/1",
            "redis+cluster://a:x",
        ] {
            assert!(RedisAddress::from(wrong).check().is_err(), "{wrong}");
        }
    }

    #[test]
    fn sentinels_are_named_with_their_service() {
        for right in [
            "redis+sentinel://a,b:1,c:26380/mymaster",
            "redis+sentinel://user:p%40ss@[::1],[::1]:7/mymaster/3",
            "rediss+sentinel://:p@a/mymaster",
            "redis+sentinel://a/mymaster?sentinel_password=p%40ss",
            "redis+sentinel://:p@a/mymaster/1?sentinel_username=u&sentinel_password=p",
        ] {
            let checked = RedisAddress::from(right).check();
            assert!(checked.is_ok(), "{right}: {:?}", checked.err());
        }
        for wrong in [
            "redis+sentinel://a",
            "redis+sentinel://a/",
            "redis+sentinel://a:x/mymaster",
            "redis+sentinel:///mymaster",
            "redis+sentinel://a/mymaster/x",
            "redis+sentinel://a/mymaster?sentinel_username=u",
            "redis+sentinel://a/mymaster?password=p",
        ] {
            assert!(RedisAddress::from(wrong).check().is_err(), "{wrong}");
        }
    }
}
