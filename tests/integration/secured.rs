//! A broker and Redis with TLS and users: the files of `nats/`, with certificates of the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_nats::ConnectOptions;
use tempfile::TempDir;

use crate::programs;

/// What `compose/gen-certs.sh` makes, and the broker's files made fit for this machine.
pub struct Secured {
    directory: TempDir,
    /// Where other brokers would connect.
    pub route_port: u16,
}

impl Secured {
    pub fn new() -> Self {
        let secured = Secured {
            directory: TempDir::new().expect("a temporary directory can be made"),
            route_port: programs::free_port(),
        };
        secured.renew();
        secured.write_broker_files();
        secured
    }

    /// Certificates, or new ones of the same authority.
    pub fn renew(&self) {
        let made = Command::new(project("compose/gen-certs.sh"))
            .arg(self.path("certs"))
            .output()
            .expect("bash and openssl are here");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "certificates: {said}");
    }

    /// New certificates of another authority, in the same files.
    pub fn replace_authority(&self) {
        for name in ["ca-key.pem", "ca.pem"] {
            fs::remove_file(self.path("certs").join(name)).expect("it was made");
        }
        self.renew();
    }

    /// Addresses are the only difference to the files that are shipped.
    fn write_broker_files(&self) {
        let cluster = fs::read_to_string(project("nats/cluster.conf")).expect("it is shipped");
        let port = self.route_port.to_string();
        let (listen, monitor) = (format!("127.0.0.1:{port}"), programs::free_port());
        let cluster = replaced(&cluster, "0.0.0.0:6222", &listen);
        let cluster = replaced(&cluster, "nats-1.routes:6222", &format!("localhost:{port}"));
        let cluster = replaced(&cluster, "127.0.0.1:8222", &format!("127.0.0.1:{monitor}"));
        let others = |line: &&str| !line.contains(".routes:6222");
        let cluster: Vec<&str> = cluster.lines().filter(others).collect();
        fs::write(self.path("cluster.conf"), cluster.join("\n")).expect("a file can be made");
        let accounts = project("nats/accounts.conf");
        fs::copy(accounts, self.path("accounts.conf")).expect("a file can be made");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file of a server or a user: `cert.pem`, `key.pem`, `ca.pem`.
    pub fn file(&self, who: &str, name: &str) -> PathBuf {
        self.path("certs").join(who).join(name)
    }

    /// Arguments and environment of a broker that shows the certificate of `who`.
    pub fn broker(&self, command: &mut Command, who: &str) {
        command.arg("-c").arg(self.path("cluster.conf"));
        self.broker_environment(command, who);
    }

    pub fn broker_environment(&self, command: &mut Command, who: &str) {
        command.env("NATS_SERVER_NAME", format!("test-{who}"));
        for (variable, name) in [
            ("NATS_TLS_CERT", "cert.pem"),
            ("NATS_TLS_KEY", "key.pem"),
            ("NATS_TLS_CA", "ca.pem"),
        ] {
            command.env(variable, self.file(who, name));
        }
    }

    /// Arguments of a Redis that takes TLS alone, on both sides, as in compose.ha.yaml.
    pub fn redis(&self, command: &mut Command, port: u16) {
        command
            .args(["--port", "0", "--tls-port", &port.to_string()])
            .args(self.redis_tls())
            .arg("--aclfile")
            .arg(self.file("redis", "users.acl"));
    }

    /// Whom Redis knows, a line each.
    pub fn redis_users(&self) -> String {
        fs::read_to_string(self.file("redis", "users.acl")).expect("it was made")
    }

    /// Has another line in place of the one for the user `default`.
    pub fn replace_first_user(&self, line: &str) {
        let users = self.redis_users();
        let (_, others) = users.split_once('\n').expect("there are several");
        let users = format!("{line}\n{others}");
        fs::write(self.file("redis", "users.acl"), users).expect("it is writable");
    }

    /// Arguments of a Redis that shows a certificate and wants one.
    pub fn redis_tls(&self) -> Vec<String> {
        let mut arguments = vec!["--tls-auth-clients".to_owned(), "yes".to_owned()];
        for (flag, name) in [
            ("--tls-cert-file", "cert.pem"),
            ("--tls-key-file", "key.pem"),
            ("--tls-ca-cert-file", "ca.pem"),
        ] {
            let file = self.file("redis", name).display().to_string();
            arguments.extend([flag.to_owned(), file]);
        }
        arguments
    }

    /// The flags by which a node is one, for the broker and for Redis.
    pub fn node(&self, command: &mut Command, redis_port: Option<u16>) {
        command.args(self.flags("node"));
        let Some(port) = redis_port else { return };
        let url = fs::read_to_string(self.file("node", "redis-url")).expect("it was made");
        let url = replaced(&url, "@redis:6379", &format!("@127.0.0.1:{port}"));
        command.args(["--redis", url.trim_end()]);
        command.args(self.node_redis_tls());
    }

    /// The flags by which a node shows its certificate to Redis.
    pub fn node_redis_tls(&self) -> Vec<String> {
        let names = [("ca", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem")];
        let flag = |(flag, name)| format!("--redis-{flag}={}", self.file("node", name).display());
        names.map(flag).into()
    }

    /// The flags of our command line by which somebody is a user of the broker.
    pub fn flags(&self, user: &str) -> Vec<String> {
        let mut flags = vec![format!("--nats-inbox-prefix=_INBOX_{user}")];
        for (flag, name) in [
            ("--nats-ca", "ca.pem"),
            ("--nats-cert", "cert.pem"),
            ("--nats-key", "key.pem"),
        ] {
            flags.push(format!("{flag}={}", self.file(user, name).display()));
        }
        flags
    }

    /// The same for a connection of any NATS client.
    pub fn connect_options(&self, user: &str) -> ConnectOptions {
        ConnectOptions::new()
            .custom_inbox_prefix(format!("_INBOX_{user}"))
            .require_tls(true)
            .add_root_certificates(self.file(user, "ca.pem"))
            .add_client_certificate(self.file(user, "cert.pem"), self.file(user, "key.pem"))
            .connection_timeout(Duration::from_secs(10))
    }
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is gone from the shipped file");
    text.replace(from, to)
}
