//! Files of certificates and keys, looked at before anything connects with them: what is wrong is told
//! with the setting and the file, which libraries that connect leave out.
//!
//! Limits: whether a certificate is trusted shows at the connection.

use std::path::{Path, PathBuf};

use async_nats::rustls::crypto::ring;
use async_nats::rustls::pki_types::pem::{self, PemObject};
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use async_nats::rustls::sign::CertifiedKey;
use async_nats::rustls::{Error, InconsistentKeys};

/// A file that is of no use where it is named.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {}: {reason}", path.display())]
pub struct PemError {
    setting: &'static str,
    path: PathBuf,
    reason: String,
}

/// Whether the file has certificates, and nothing that looks like one and is none.
///
/// # Errors
/// With the setting as it is named here, and the reason.
pub fn check_certificates(setting: &'static str, path: &Path) -> Result<(), PemError> {
    certificates(setting, path).map(drop)
}

/// The same of a certificate, with those that vouch for it, and its private key, which have to match.
///
/// # Errors
/// As [`check_certificates`].
pub fn check_identity(
    (cert_setting, cert): (&'static str, &Path),
    (key_setting, key): (&'static str, &Path),
) -> Result<(), PemError> {
    let chain = certificates(cert_setting, cert)?;
    let of_key = |reason: String| PemError {
        setting: key_setting,
        path: key.to_owned(),
        reason,
    };
    match CertifiedKey::from_der(
        chain,
        private_key(key_setting, key)?,
        &ring::default_provider(),
    ) {
        Ok(_) => Ok(()),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            let cert = cert.display();
            Err(of_key(format!("does not match the certificate in {cert}")))
        }
        Err(Error::InvalidCertificate(_)) => Err(PemError {
            setting: cert_setting,
            path: cert.to_owned(),
            reason: "the first certificate in it is broken inside".to_owned(),
        }),
        Err(_) => Err(of_key("holds no key that TLS can use".to_owned())),
    }
}

fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let found = CertificateDer::pem_file_iter(path).and_then(|found| {
        let found: Vec<_> = found.collect::<Result<_, _>>()?;
        match found.is_empty() {
            true => Err(pem::Error::NoItemsFound),
            false => Ok(found),
        }
    });
    found.map_err(|error| refused(setting, path, error, "holds no certificate in PEM"))
}

fn private_key(setting: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let found = PrivateKeyDer::from_pem_file(path);
    found.map_err(|error| refused(setting, path, error, "holds no private key in PEM"))
}

fn refused(setting: &'static str, path: &Path, error: pem::Error, nothing: &str) -> PemError {
    PemError {
        setting,
        path: path.to_owned(),
        reason: match error {
            pem::Error::Io(error) => error.to_string(),
            pem::Error::NoItemsFound => nothing.to_owned(),
            // Other errors may repeat a line, which may be one of a key.
            _ => "is no PEM, or broken inside".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_the_setting_and_the_file() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let section = |name: &str, inside: &str| {
            format!("-----BEGIN {name}-----\n{inside}\n-----END {name}-----\n")
        };
        let certificate = section("CERTIFICATE", "MAA=");
        let key = section("PRIVATE KEY", "MAA=");
        for (text, is_certificate, is_key) in [
            (certificate.clone(), Ok(()), Err("no private key")),
            (key.clone(), Err("no certificate"), Ok(())),
            (format!("{key}{certificate}"), Ok(()), Ok(())),
            (
                "hush".to_owned(),
                Err("no certificate"),
                Err("no private key"),
            ),
            (
                section("CERTIFICATE", "!hush!"),
                Err("broken"),
                Err("broken"),
            ),
            (
                "-----BEGIN PRIVATE KEY-----\nhush\n".to_owned(),
                Err("broken"),
                Err("broken"),
            ),
        ] {
            fs::write(file.path(), &text).expect("it is writable");
            let checks = [
                (check_certificates("--ca", file.path()), is_certificate),
                (private_key("--ca", file.path()).map(drop), is_key),
            ];
            for (checked, expected) in checks {
                match (checked, expected) {
                    (Ok(()), Ok(())) => {}
                    (Err(error), Err(reason)) => {
                        let error = error.to_string();
                        let start = format!("--ca: {}: ", file.path().display());
                        assert!(error.starts_with(&start), "{error}");
                        assert!(error.contains(reason), "{text}: {error}");
                        assert!(!error.contains("hush"), "{error}");
                    }
                    other => panic!("{text}: {other:?}"),
                }
            }
        }
        let absent = private_key("--key", Path::new("/nowhere")).unwrap_err();
        assert_eq!(
            absent.to_string(),
            "--key: /nowhere: No such file or directory (os error 2)"
        );
    }
}
