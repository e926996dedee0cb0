//! Where Redis is and how a node shows who it is: URL, user and password, TLS.
//!
//! The files of certificates are read at each connect, so that renewed ones are taken up by the next
//! connection, without a restart. Over TLS the server's name is always checked: against the given
//! authority, or against those that the system trusts.

use std::fs;
use std::path::Path;

use redis::{Client, ClientTlsConfig, TlsCertificates};

use crate::config::TlsFiles;

/// What it takes to connect. Never printed, since the URL may hold a password.
#[derive(Clone)]
pub struct RedisAddress {
    url: String,
    tls: TlsFiles,
}

/// Redis cannot be reached by what was configured. The message does not repeat the URL, since it may
/// hold a password.
#[derive(Debug, thiserror::Error)]
pub enum RedisAddressError {
    #[error(
        "not a Redis URL (redis://[user:password@]host:port[/database], rediss:// for TLS): {0}"
    )]
    Url(String),
    #[error("TLS to Redis: cannot read {file}: {reason}")]
    File { file: String, reason: String },
    #[error("TLS to Redis: {0}")]
    Certificates(String),
}

impl RedisAddress {
    /// `tls` is of use with a `rediss://` URL only.
    pub fn new(url: &str, tls: TlsFiles) -> Self {
        RedisAddress {
            url: url.to_owned(),
            tls,
        }
    }

    /// A client for this address, with the certificates as they are now. Connects to nothing yet.
    ///
    /// # Errors
    /// When the URL is none, or a file cannot be read or holds no certificate or key.
    pub(super) fn client(&self) -> Result<Client, RedisAddressError> {
        let plain = Client::open(self.url.as_str())
            .map_err(|error| RedisAddressError::Url(error.to_string()))?;
        if self.tls == TlsFiles::default() {
            return Ok(plain);
        }
        let root_cert = self.tls.ca.as_deref().map(read).transpose()?;
        let client_tls = match &self.tls.identity {
            Some((cert, key)) => Some(ClientTlsConfig {
                client_cert: read(cert)?,
                client_key: read(key)?,
            }),
            None => None,
        };
        let certificates = TlsCertificates {
            client_tls,
            root_cert,
        };
        Client::build_with_tls(plain.get_connection_info().clone(), certificates)
            .map_err(|error| RedisAddressError::Certificates(error.to_string()))
    }
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
        match RedisAddress::new(url, tls).client() {
            Ok(_) => panic!("{url} with {}", ca.display()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_nothing_secret_is() {
        let absent = Path::new("/nowhere/ca.pem");
        let error = refusal("rediss://user:secret@host", absent);
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(
            file.path(),
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        )
        .expect("it is writable");
        for url in ["rediss://user:secret@host", "redis://user:secret@host"] {
            let error = refusal(url, file.path());
            assert!(error.contains("TLS to Redis"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
