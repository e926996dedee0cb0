//! What the project takes from others: licences, sources and banned crates, by the lists of `deny.toml`.

use std::process::Command;

use figment::Figment;
use figment::providers::{Format, Toml};
use serde::Deserialize;
use spdx::{Expression, LicenseReq, Licensee, ParseMode};

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
    exceptions: Vec<Exception>,
}

/// What one crate may have besides.
#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

impl Licenses {
    fn allows(&self, package: &str, asked: &LicenseReq) -> bool {
        let exceptions = self.exceptions.iter().filter(|of| of.name == package);
        let mut allowed = self.allow.iter().chain(exceptions.flat_map(|of| &of.allow));
        allowed.any(|licence| {
            let licence = Licensee::parse(licence).expect("deny.toml names licences by SPDX");
            licence.satisfies(asked)
        })
    }
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Deserialize)]
struct Banned {
    name: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// Absent for what is in this repository.
    source: Option<String>,
}

fn deny() -> Deny {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml");
    let read = Figment::from(Toml::file_exact(file)).extract();
    read.expect("deny.toml has what is read here")
}

/// Everything in the lock file, for every system and feature.
fn packages() -> Vec<Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--locked",
            "--all-features",
            "--format-version",
            "1",
        ])
        .args(["--manifest-path", manifest])
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let metadata: Metadata = serde_json::from_slice(&output.stdout).expect("it is JSON");
    metadata.packages
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    let licenses = deny().licenses;
    let refused: Vec<String> = packages()
        .iter()
        .filter_map(|package| {
            let text = package.license.as_deref().unwrap_or("no licence");
            let fits = Expression::parse_mode(text, ParseMode::LAX).is_ok_and(|expression| {
                expression.evaluate(|asked| licenses.allows(&package.name, asked))
            });
            (!fits).then(|| format!("{} {}: {text}", package.name, package.version))
        })
        .collect();
    assert!(refused.is_empty(), "not in deny.toml: {refused:#?}");
}

#[test]
fn every_dependency_is_from_the_registry_and_none_is_banned() {
    let banned = deny().bans.deny;
    for package in packages() {
        let source = package.source.as_deref().unwrap_or("registry+");
        assert!(
            source.starts_with("registry+"),
            "{}: {source}",
            package.name
        );
        let is_banned = banned.iter().any(|banned| banned.name == package.name);
        assert!(!is_banned, "{} is banned by deny.toml", package.name);
    }
}
