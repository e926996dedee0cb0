//! Precedence, refusals and what they say.

use std::io::Write;
use std::path::Path;

use clap::Parser;
use tempfile::NamedTempFile;

use super::layers::{Kind, SETTINGS};
use super::*;

mod secrets;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    node: NodeArgs,
    #[arg(long)]
    nats: Option<String>,
    #[arg(long)]
    prefix: Option<String>,
}

/// Parses a command line as `mufakat node` does, so that flags are tested as typed.
fn args(line: &str) -> NodeArgs {
    let words = ["node"].into_iter().chain(line.split_whitespace());
    let Line { node, nats, prefix } = Line::try_parse_from(words).expect("flags");
    NodeArgs {
        nats,
        prefix,
        ..node
    }
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("temporary file");
    file.write_all(text.as_bytes()).expect("write");
    file
}

const LEAST: &str = "--id 1 --peers 1,2,3 --data-dir /d";

fn load(line: &str, pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(args(&format!("{LEAST} {line}")), env(pairs))
}

fn refusal(line: &str, pairs: &[(&str, &str)]) -> String {
    load(line, pairs).expect_err("refused").to_string()
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = load("", &[]).expect("valid");
    let expected = Config {
        id: NodeId(1),
        peers: vec![NodeId(1), NodeId(2), NodeId(3)],
        join: false,
        nats: Endpoint::nats("nats://127.0.0.1:4222").expect("valid"),
        redis: None,
        redis_tls: TlsFiles::default(),
        redis_durability_asserted: None,
        data_dir: PathBuf::from("/d"),
        http: None,
        prefix: "mufakat".to_owned(),
        heartbeat: Duration::from_millis(100),
        election_min: Duration::from_millis(400),
        election_max: Duration::from_millis(800),
        suspicion: Duration::from_secs(1),
        view_lease: Duration::from_secs(2),
        cache_bytes: 64 << 20,
        cache_backups: true,
        cache_store: CacheStore::None,
        admin_token: None,
        tenant_rate: 10_000,
        tenant_queue_bytes: 1 << 30,
        snapshot_entries: 10_000,
        snapshot_keep_entries: 1_000,
    };
    assert_eq!(config, expected);
    assert!(config.warnings().is_empty());
}

#[test]
fn each_layer_beats_the_one_below() {
    let file = file("heartbeat = '50ms'\nprefix = 'file'\nsuspicion = '3s'\n");
    let path = file.path().to_str().expect("path");
    let environment = [
        ("MUFAKAT_PREFIX", "environment"),
        ("MUFAKAT_SUSPICION", "4s"),
    ];
    let config = load(&format!("--config {path} --suspicion 5s"), &environment).expect("valid");
    assert_eq!(
        config.heartbeat,
        Duration::from_millis(50),
        "file over default"
    );
    assert_eq!(config.prefix, "environment", "environment over file");
    assert_eq!(
        config.suspicion,
        Duration::from_secs(5),
        "flag over environment"
    );
}

#[test]
fn servers_of_a_context_are_below_all_but_the_default() {
    let with_context = |line: &str, servers: &str| NodeArgs {
        nats_context: Some(("prod".to_owned(), servers.to_owned())),
        ..args(&format!("{LEAST} {line}"))
    };
    let of_file = file("nats = 'nats://of-file'");
    let of_file = format!("--config {}", of_file.path().display());
    for (line, environment, expected) in [
        ("", vec![], "nats://***@c:1\"  # the NATS context prod\n"),
        (&of_file, vec![], "nats://of-file\"  # /"),
        (
            "",
            env(&[("NATS_URL", "nats://e")]),
            "nats://e\"  # environment\n",
        ),
        ("--nats nats://f", vec![], "nats://f\"  # flags\n"),
    ] {
        let shown = Config::in_force(with_context(line, "nats://u:p@c:1"), environment);
        let shown = shown.expect("valid");
        let expected = format!("nats = \"{expected}");
        assert!(shown.contains(&expected), "{expected} is not in {shown}");
    }
    let wrong = Config::load(with_context("", "http://c"), env(&[]));
    let wrong = wrong.expect_err("no server of NATS").to_string();
    let start = "nats in the NATS context prod: scheme `http`";
    assert!(wrong.starts_with(start), "{wrong}");
}

#[test]
fn a_flag_equal_to_its_default_beats_environment_and_file() {
    let file = file("prefix = 'file'\nsnapshot_entries = 7\n");
    let path = file.path().to_str().expect("path");
    let line = format!("--config {path} --prefix mufakat --snapshot-entries 10000");
    let config = load(&line, &[("MUFAKAT_PREFIX", "environment")]).expect("valid");
    assert_eq!(config.prefix, "mufakat");
    assert_eq!(config.snapshot_entries, 10_000);
}

#[test]
fn lists_are_replaced_not_joined() {
    let file = file("peers = [1, 2, 3, 4, 5]\nid = 9\ndata_dir = '/file'");
    let path = file.path().to_str().expect("path");
    let environment = env(&[
        ("MUFAKAT_PEERS", "3, 1,2"),
        ("MUFAKAT_ID", "2"),
        ("MUFAKAT_CONFIG", path),
    ]);
    let config = Config::load(args(""), environment).expect("valid");
    assert_eq!(config.peers, [NodeId(1), NodeId(2), NodeId(3)]);
    assert_eq!(config.id, NodeId(2));
    assert_eq!(config.data_dir, Path::new("/file"));
}

#[test]
fn the_flag_chooses_the_file_over_the_environment() {
    let (one, other) = (file("prefix = 'one'"), file("prefix = 'other'"));
    let line = format!("--config {}", one.path().display());
    let environment = [("MUFAKAT_CONFIG", other.path().to_str().expect("path"))];
    assert_eq!(load(&line, &environment).expect("valid").prefix, "one");
}

#[test]
fn every_setting_is_read_from_flag_environment_and_file() {
    // Two samples each, both different from the default; none may break the order of times.
    let samples = [
        ("id", "2", "3"),
        ("peers", "1,2,3,4", "2,3,4"),
        ("join", "off", "on"),
        ("nats", "nats://a", "nats://b"),
        ("redis", "redis://a", "redis://b"),
        ("redis_ca", "/a", "/b"),
        ("redis_cert", "/a", "/b"),
        ("redis_key", "/a", "/b"),
        ("redis_durability_asserted", "fsync", "os"),
        ("data_dir", "/a", "/b"),
        ("http", "127.0.0.1:1", "127.0.0.1:2"),
        ("prefix", "a", "b"),
        ("heartbeat", "20ms", "30ms"),
        ("election_min", "410ms", "420ms"),
        ("election_max", "910ms", "920ms"),
        ("suspicion", "5s", "6s"),
        ("view_lease", "5s", "6s"),
        ("cache_bytes", "65536", "65537"),
        ("cache_backups", "on", "off"),
        ("cache_store", "redis", "none"),
        ("admin_token", "0123456789abcdef", "0123456789abcdeg"),
        ("tenant_rate", "5", "6"),
        ("tenant_queue_bytes", "5", "6"),
        ("snapshot_entries", "5", "6"),
        ("snapshot_keep_entries", "5", "6"),
    ];
    let base = "id = 2\npeers = [2, 3]\ndata_dir = '/d'\n\
                redis = 'rediss://a'\nredis_cert = '/c'\nredis_key = '/k'\n";
    assert_eq!(
        samples.map(|(key, ..)| key),
        SETTINGS.map(|setting| setting.key)
    );
    for (setting, (key, one, two)) in SETTINGS.iter().zip(samples) {
        if key == "join" {
            continue; // It takes the place of the peers that the others need.
        }
        let toml = |text: &str| match setting.kind {
            Kind::Text => format!("{key} = '{text}'"),
            Kind::Number => format!("{key} = {text}"),
            Kind::Numbers => format!("{key} = [{text}]"),
        };
        let others: String = base
            .lines()
            .filter(|line| !line.starts_with(key))
            .map(|line| format!("{line}\n"))
            .collect();
        let in_file = |text: &str| file(&format!("{others}{}", toml(text)));
        let load = |file: &NamedTempFile, line: String, pairs: &[(&str, &str)]| {
            let line = format!("--config {} {line}", file.path().display());
            Config::load(args(&line), env(pairs)).expect(key)
        };
        let (file_one, file_two) = (in_file(one), in_file(two));
        let wanted = load(&file_two, String::new(), &[]);
        assert_ne!(
            load(&file_one, String::new(), &[]),
            wanted,
            "{key} in the file"
        );
        let by_environment = load(&file_one, String::new(), &[(setting.env, two)]);
        assert_eq!(by_environment, wanted, "{key} in the environment");
        let by_flag = load(
            &file_one,
            format!("{} {two}", flag(key)),
            &[(setting.env, one)],
        );
        assert_eq!(by_flag, wanted, "{key} as a flag");
    }
}

#[test]
fn certificates_for_redis_need_tls_and_come_in_pairs() {
    let config = load("--redis rediss://a --redis-ca /ca", &[]).expect("valid");
    assert_eq!(config.redis_tls.ca.as_deref(), Some(Path::new("/ca")));
    for (line, blamed) in [
        (
            "--redis redis://a --redis-ca /ca",
            "--redis-ca: needs a URL of Redis with TLS",
        ),
        (
            "--redis-key /k",
            "--redis-key: needs a URL of Redis with TLS",
        ),
        ("--redis rediss://a --redis-cert /c", "give --redis-key too"),
        ("--redis rediss://a --redis-key /k", "give --redis-cert too"),
    ] {
        let error = refusal(line, &[]);
        assert!(error.contains(blamed), "{line}: {error}");
    }
}

#[test]
fn an_empty_variable_is_not_set() {
    assert_eq!(
        load("", &[("REDIS_URL", ""), ("MUFAKAT_HTTP", "")])
            .expect("valid")
            .redis,
        None
    );
}

#[test]
fn a_directory_has_a_name() {
    let file = file("id = 1\npeers = [1]\ndata_dir = ''");
    let path = file.path().display().to_string();
    let refused = Config::load(args(&format!("--config {path}")), env(&[]));
    let message = refused.expect_err("it is empty").to_string();
    let expected =
        format!("data_dir in {path}: is empty; expected a directory such as /var/lib/mufakat");
    assert_eq!(message, expected);
}

#[test]
fn a_store_of_the_cache_in_redis_needs_a_redis() {
    let redis = ("REDIS_URL", "redis://r");
    let config = load("--cache-store redis", &[redis]).expect("valid");
    assert_eq!(config.cache_store, CacheStore::Redis);
    assert_eq!(
        refusal("--cache-store redis", &[]),
        "--cache-store: `redis` needs a Redis: give --redis too, or take `none`"
    );
    assert_eq!(
        refusal("", &[redis, ("MUFAKAT_CACHE_STORE", "disk")]),
        "MUFAKAT_CACHE_STORE: `disk` is neither `none` nor `redis`"
    );
}

#[test]
fn an_unreadable_file_is_named() {
    assert!(refusal("--config /nowhere.toml", &[]).starts_with("/nowhere.toml: No such file"));
    assert!(
        refusal("", &[("NATS_URL_FILE", "/nowhere")])
            .starts_with("NATS_URL_FILE: /nowhere: No such file")
    );
    let broken = file("prefix = ");
    let line = format!("--config {}", broken.path().display());
    assert!(refusal(&line, &[]).contains("TOML parse error at line 1"));
}

#[test]
fn unknown_keys_in_the_file_are_refused_by_name() {
    let file = file("hartbeat = '50ms'");
    let line = format!("--config {}", file.path().display());
    let message = refusal(&line, &[]);
    assert!(
        message.contains(
            "unknown key `hartbeat`, did you mean `heartbeat`?; known keys are id, peers, join,"
        ),
        "{message}"
    );
}

#[test]
fn a_wrong_type_in_the_file_names_key_and_file() {
    let file = file("snapshot_entries = 'many'");
    let path = file.path().display();
    let message = refusal(&format!("--config {path}"), &[]);
    let start = format!("snapshot_entries in {path}: invalid type: found string \"many\"");
    assert!(message.starts_with(&start), "{message}");
}

#[test]
fn what_has_no_default_is_asked_for() {
    let message = Config::load(args("--id 1"), [])
        .expect_err("refused")
        .to_string();
    let wanted =
        "peers is missing: give --peers, MUFAKAT_PEERS in the environment or `peers` in the file";
    assert_eq!(message, wanted);
    let message = Config::load(args("--id 1 --peers 1"), [])
        .expect_err("refused")
        .to_string();
    assert!(
        message.starts_with("data_dir is missing: give --data-dir"),
        "{message}"
    );
}

#[test]
fn the_node_is_one_of_its_peers_and_peers_are_unique() {
    let load = |line: &str| Config::load(args(&format!("{line} --data-dir /d")), []);
    let refusal = |line: &str| load(line).expect_err("refused").to_string();
    assert_eq!(
        refusal("--id 4 --peers 1,2,3"),
        "--id: 4 is not in the peers 1,2,3; they must include this node's own id"
    );
    let joins = load("--id 4 --join").expect("valid");
    assert_eq!((joins.join, joins.peers.as_slice()), (true, [].as_slice()));
    assert!(joins.warnings().is_empty());
    let of_file = file("join = 'on'\ndata_dir = '/d'\nid = 4\n");
    let line = format!("--config {}", of_file.path().display());
    assert!(Config::load(args(&line), []).expect("valid").join);
    assert!(
        !Config::load(
            args(&line),
            env(&[("MUFAKAT_JOIN", "off"), ("MUFAKAT_PEERS", "4")])
        )
        .expect("valid")
        .join
    );
    assert!(refusal("--id 4 --join --peers 1,2").starts_with("--peers: a node that joins learns"));
    assert!(refusal("--id 1 --peers 1,2,1").starts_with("--peers: 1 is named twice"));
    assert!(refusal("--id 0 --peers 0,1").starts_with("--peers: 0 is not a valid node id"));
    assert!(refusal("--id 1 --peers 1,4294967296").starts_with("--peers: 4294967296 is not a"));
}

#[test]
fn an_even_number_of_peers_is_a_warning() {
    let load =
        |line: &str| Config::load(args(&format!("{line} --data-dir /d")), []).expect("valid");
    assert_eq!(load("--id 1 --peers 1,2,3,4").warnings().len(), 1);
    assert!(load("--id 1 --peers 1").warnings().is_empty());
}

#[test]
fn errors_are_spelled_as_the_value_was_given() {
    assert!(refusal("--http 5001", &[]).starts_with("--http: \"5001\" is not ADDRESS:PORT"));
    assert!(refusal("", &[("MUFAKAT_HTTP", "5001")]).starts_with("MUFAKAT_HTTP: \"5001\""));
    let file = file("http = '5001'");
    let path = file.path().display();
    let message = refusal(&format!("--config {path}"), &[]);
    assert!(
        message.starts_with(&format!("http in {path}: ")),
        "{message}"
    );
    let message = Config::load(args("--id 1"), env(&[("MUFAKAT_PEERS", "1;2")]))
        .expect_err("refused")
        .to_string();
    assert!(
        message.starts_with("MUFAKAT_PEERS: \"1;2\" is not a list of whole numbers"),
        "{message}"
    );
}

#[test]
fn prefixes_follow_the_contract() {
    for right in ["mufakat", "a.b-c.d_9"] {
        assert_eq!(
            load("", &[("MUFAKAT_PREFIX", right)])
                .expect("valid")
                .prefix,
            right
        );
    }
    for wrong in [
        "Mufakat",
        "a..b",
        ".a",
        "a.",
        "a.*",
        "a b",
        "a>",
        "$SYS",
        "é",
        &"a".repeat(65),
    ] {
        let message = refusal("", &[("MUFAKAT_PREFIX", wrong)]);
        assert!(
            message.contains("cannot begin a subject"),
            "{wrong}: {message}"
        );
    }
}

#[test]
fn times_are_checked_and_ordered() {
    let cases = [
        (
            "--heartbeat 400ms",
            "--heartbeat: 400ms is not below the shortest election timeout",
        ),
        (
            "--election-min 800ms",
            "--election-min: 800ms is not below the longest",
        ),
        (
            "--heartbeat soon",
            "--heartbeat: \"soon\" is not a duration",
        ),
        (
            "--heartbeat 1ms",
            "--heartbeat: 1ms is out of range; it must be from 10ms to 1m",
        ),
        (
            "--suspicion 150ms",
            "--suspicion: 150ms is less than two heartbeats of 100ms",
        ),
        ("--view-lease 2m", "--view-lease: 2m is out of range"),
        (
            "--snapshot-entries 0",
            "--snapshot-entries: 0 is out of range",
        ),
    ];
    for (line, start) in cases {
        let message = refusal(line, &[]);
        assert!(message.starts_with(start), "{line}: {message}");
    }
}
