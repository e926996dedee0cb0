//! The command lines of the processes of a local cluster.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::ports::Ports;

pub(super) const NATS: &str = "nats";
pub(super) const REDIS: &str = "redis";

/// The configuration of the broker, for a program that runs outside its project.
const BROKER_CONFIGURATION: &str = include_str!("../../nats/dev.conf");

/// A process to start.
pub(super) struct Line {
    /// `nats`, `redis` or `node-<number>`.
    pub(super) name: String,
    /// The id of the node, if the process is one.
    pub(super) node: Option<u8>,
    /// Program and arguments as a person would type them.
    pub(super) words: Vec<String>,
    /// The program and arguments that start `words` so that the child ends with this process.
    pub(super) prefix: &'static [&'static str],
    pub(super) environment: BTreeMap<String, String>,
    pub(super) log: PathBuf,
}

/// Everything that the command lines are made from.
pub(super) struct Commands {
    pub(super) mufakat: PathBuf,
    pub(super) nats: PathBuf,
    pub(super) redis: PathBuf,
    /// The broker's configuration file.
    pub(super) configuration: PathBuf,
    pub(super) data_dir: PathBuf,
    /// Whether children can be tied to this process's life.
    pub(super) setpriv: bool,
    pub(super) environment: BTreeMap<String, String>,
}

impl Commands {
    pub(super) fn nats(&self, ports: &Ports) -> Line {
        let port = ports.nats.to_string();
        let configuration = self.configuration.display().to_string();
        let words = ["-c", &configuration, "-a", "127.0.0.1", "-p", &port];
        self.line(NATS.to_owned(), None, &self.nats, &words)
    }

    /// Redis as the queue needs it: every write is on disk before it is answered.
    pub(super) fn redis(&self, ports: &Ports) -> anyhow::Result<Line> {
        let port = ports.redis.to_string();
        let directory = self.directory(REDIS)?;
        let words = [
            ["--port", port.as_str()],
            ["--bind", "127.0.0.1"],
            ["--dir", &directory],
            ["--appendonly", "yes"],
            ["--appendfsync", "always"],
            ["--no-appendfsync-on-rewrite", "no"],
            ["--maxmemory-policy", "noeviction"],
            ["--save", ""],
            ["--daemonize", "no"],
        ];
        Ok(self.line(REDIS.to_owned(), None, &self.redis, words.as_flattened()))
    }

    pub(super) fn node(&self, ports: &Ports, node: u8) -> anyhow::Result<Line> {
        let name = format!("node-{node}");
        let peers: Vec<String> = ports.nodes().map(|peer| peer.to_string()).collect();
        let directory = self.directory(&name)?;
        let words = [
            String::from("node"),
            String::from("--id"),
            node.to_string(),
            String::from("--peers"),
            peers.join(","),
            String::from("--nats"),
            format!("nats://127.0.0.1:{}", ports.nats),
            String::from("--redis"),
            format!("redis://127.0.0.1:{}", ports.redis),
            String::from("--data-dir"),
            directory,
            String::from("--http"),
            format!("127.0.0.1:{}", ports.http(node)),
        ];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Ok(self.line(name, Some(node), &self.mufakat, &words))
    }

    fn line(&self, name: String, node: Option<u8>, program: &Path, words: &[&str]) -> Line {
        let program = program.display().to_string();
        let words = std::iter::once(program).chain(words.iter().map(|word| String::from(*word)));
        let prefix: &[&str] = if self.setpriv {
            &["setpriv", "--pdeathsig", "KILL", "--"]
        } else {
            &[]
        };
        Line {
            node,
            words: words.collect(),
            prefix,
            environment: self.environment.clone(),
            log: self.data_dir.join(format!("{name}.log")),
            name,
        }
    }

    fn directory(&self, name: &str) -> anyhow::Result<String> {
        let path = self.data_dir.join(name);
        let shown = path.display().to_string();
        fs::create_dir_all(&path).with_context(|| format!("cannot create {shown}"))?;
        Ok(shown)
    }
}

/// Writes the built-in configuration of the broker to a file that can be read and changed.
pub(super) fn write_broker_configuration(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let path = data_dir.join("nats.conf");
    fs::write(&path, BROKER_CONFIGURATION)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The environment without the settings of other clusters: only its flags configure a node here. The log filter and
/// the token of the dashboard stay, since the user chose them.
pub(super) fn for_children(environment: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    const KEPT: [&str; 3] = [
        "MUFAKAT_LOG",
        "MUFAKAT_ADMIN_TOKEN",
        "MUFAKAT_ADMIN_TOKEN_FILE",
    ];
    const SETTINGS: [&str; 3] = ["MUFAKAT_", "NATS_", "REDIS_"];
    let setting = |name: &str| SETTINGS.iter().any(|prefix| name.starts_with(prefix));
    let kept = environment
        .iter()
        .filter(|(name, _)| KEPT.contains(&name.as_str()) || !setting(name));
    let mut kept: BTreeMap<String, String> = kept.map(|(k, v)| (k.clone(), v.clone())).collect();
    // Logs go to files that people read, where colours are noise.
    kept.insert("NO_COLOR".to_owned(), "1".to_owned());
    kept.insert("MUFAKAT_LOG_FORMAT".to_owned(), "text".to_owned());
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(data_dir: &Path, setpriv: bool) -> Commands {
        Commands {
            mufakat: PathBuf::from("/p/mufakat"),
            nats: PathBuf::from("/p/nats-server"),
            redis: PathBuf::from("/p/redis-server"),
            configuration: PathBuf::from("/p/nats/dev.conf"),
            data_dir: data_dir.to_owned(),
            setpriv,
            environment: BTreeMap::new(),
        }
    }

    #[test]
    fn command_lines_are_the_documented_ones() {
        let root = tempfile::tempdir().expect("directory");
        let dir = root.path().display();
        let commands = commands(root.path(), true);
        let ports = Ports::new(3, 1000).expect("in range");
        let nats = commands.nats(&ports);
        assert_eq!(
            nats.words.join(" "),
            "/p/nats-server -c /p/nats/dev.conf -a 127.0.0.1 -p 5222"
        );
        assert_eq!(nats.prefix.join(" "), "setpriv --pdeathsig KILL --");
        let redis = commands.redis(&ports).expect("directory");
        assert_eq!(
            redis.words.join(" "),
            format!(
                "/p/redis-server --port 7379 --bind 127.0.0.1 --dir {dir}/redis --appendonly yes \
                 --appendfsync always --no-appendfsync-on-rewrite no --maxmemory-policy noeviction \
                 --save  --daemonize no"
            )
        );
        let node = commands.node(&ports, 2).expect("directory");
        assert_eq!(
            node.words.join(" "),
            format!(
                "/p/mufakat node --id 2 --peers 1,2,3 --nats nats://127.0.0.1:5222 \
                 --redis redis://127.0.0.1:7379 --data-dir {dir}/node-2 --http 127.0.0.1:6002"
            )
        );
        assert_eq!(node.node, Some(2));
        assert!(root.path().join("node-2").is_dir());
    }

    #[test]
    fn a_node_gets_a_configuration_that_loads() {
        use clap::Parser;

        use crate::broker::options::NatsOptions;
        use crate::config::NodeArgs;

        #[derive(Parser)]
        struct Node {
            #[command(flatten)]
            args: NodeArgs,
            #[command(flatten)]
            nats: NatsOptions,
        }

        let root = tempfile::tempdir().expect("directory");
        let ports = Ports::new(5, 0).expect("in range");
        let line = commands(root.path(), false)
            .node(&ports, 5)
            .expect("directory");
        assert!(line.prefix.is_empty());
        let Node { args, nats } = Node::try_parse_from(&line.words[1..]).expect("flags");
        let args = NodeArgs {
            nats: nats.url,
            ..args
        };
        let config = crate::config::Config::load(args, []).expect("valid");
        assert_eq!(config.peers.len(), 5);
        assert_eq!(config.http, Some(([127, 0, 0, 1], 5005).into()));
    }

    #[test]
    fn children_do_not_inherit_the_settings_of_other_clusters() {
        let names = [
            "PATH",
            "MUFAKAT_ADMIN_TOKEN",
            "MUFAKAT_ID",
            "MUFAKAT_LOG",
            "NATS_CREDS",
            "REDIS_URL",
            "RUST_LOG",
        ];
        let environment = names.map(|name| (name.to_owned(), "x".to_owned())).into();
        let kept = for_children(&environment);
        let kept: Vec<&str> = kept.keys().map(String::as_str).collect();
        let expected = [
            "MUFAKAT_ADMIN_TOKEN",
            "MUFAKAT_LOG",
            "MUFAKAT_LOG_FORMAT",
            "NO_COLOR",
            "PATH",
            "RUST_LOG",
        ];
        assert_eq!(kept, expected);
    }
}
