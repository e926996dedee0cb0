//! What programs make of flags and environment, before any server is asked.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::cluster::{Cluster, Options};
use crate::process::{Process, show};
use crate::secured::Secured;
use crate::{command_line, wait, wire};

/// Stands in every secret of these tests.
const HUSH: &str = "hush-hush-hush-hush";

/// Variables of the broker's connection, which nodes, commands and the load generator share.
const VARIABLES: [&str; 18] = [
    "NATS_URL",
    "NATS_URL_FILE",
    "NATS_USER",
    "NATS_PASSWORD",
    "NATS_PASSWORD_FILE",
    "NATS_TOKEN",
    "NATS_TOKEN_FILE",
    "NATS_CREDS",
    "NATS_NKEY",
    "NATS_CERT",
    "NATS_KEY",
    "NATS_CA",
    "NATS_INBOX_PREFIX",
    "NATS_CONTEXT",
    "MUFAKAT_PREFIX",
    "MUFAKAT_HTTP",
    "MUFAKAT_TOKEN",
    "MUFAKAT_SESSION",
];

/// A `mufakat` with this environment and no other.
fn mufakat(home: &TempDir, words: &str, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mufakat"));
    command
        .args(words.split_whitespace())
        .env_clear()
        .env("HOME", home.path())
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    command
}

fn home() -> TempDir {
    TempDir::new().expect("a temporary directory can be made")
}

/// The flags that every node needs, for one that never runs.
fn least(home: &TempDir) -> String {
    format!("--id 1 --peers 1 --data-dir {}/data", home.path().display())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Runs what ends without a server; standard output, or what it says when it fails.
fn ran(command: &mut Command) -> Result<String, String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("it starts");
    match status.success() {
        true => Ok(text(&stdout)),
        false => Err(text(&stderr)),
    }
}

#[tokio::test]
async fn empty_variables_count_as_not_set() {
    let cluster = Cluster::start(Options::default()).await;
    let empty = VARIABLES.map(|name| (name, ""));
    let url = cluster.nats_url();
    for words in [
        "status --json",
        "lock ls --json",
        "lock check --json a 7",
        "session ls --json",
    ] {
        let mut command = command_line::mufakat(&cluster, &[]);
        command.args(words.split(' ')).args(["--nats", &url]);
        let output = tokio::process::Command::from(command).envs(empty).output();
        let output = tokio::time::timeout(wait::LONG, output).await;
        let output = output.expect("it ends").expect("it starts");
        assert_eq!(text(&output.stderr), "", "{words}");
    }

    let home = home();
    let least = least(&home);
    let checked = ran(&mut mufakat(
        &home,
        &format!("config check {least}"),
        &empty,
    ));
    assert_eq!(checked, Ok("node 1 would start\n".to_owned()));
    let printed = ran(&mut mufakat(
        &home,
        &format!("config print {least}"),
        &empty,
    ));
    let printed = printed.expect("valid");
    assert!(
        printed.contains("nats = \"nats://127.0.0.1:4222\"  # defaults\n"),
        "{printed}"
    );
    assert!(
        printed.contains("prefix = \"mufakat\"  # defaults\n"),
        "{printed}"
    );
}

#[test]
fn what_is_printed_says_where_it_comes_from_and_no_secret() {
    let home = home();
    let url = format!("nats://me:{HUSH}@n:4222");
    let environment = [
        ("NATS_URL", url.as_str()),
        ("MUFAKAT_PREFIX", "team"),
        ("MUFAKAT_ADMIN_TOKEN", HUSH),
        ("NATS_USER", HUSH),
        ("NATS_PASSWORD", HUSH),
    ];
    let words = format!("config print {}", least(&home));
    let printed = ran(&mut mufakat(&home, &words, &environment)).expect("valid");
    for line in [
        "nats = \"nats://***@n:4222\"  # environment\n",
        "prefix = \"team\"  # environment\n",
        "admin_token = \"***\"  # environment\n",
    ] {
        assert!(printed.contains(line), "{printed}");
    }
    let words = format!("{words} --nats nats://{HUSH}@m --prefix squad --admin-token {HUSH}");
    let by_flag = ran(&mut mufakat(&home, &words, &environment)).expect("valid");
    for line in [
        "nats = \"nats://***@m\"  # flags\n",
        "prefix = \"squad\"  # flags\n",
        "admin_token = \"***\"  # flags\n",
    ] {
        assert!(by_flag.contains(line), "{by_flag}");
    }
    for help in ["node --help", "status --help", "config print --help"] {
        let help = ran(&mut mufakat(&home, help, &environment)).expect("help");
        for shown in [&printed, &by_flag, &help] {
            assert!(!shown.contains("hush"), "{shown}");
        }
    }
    let words = format!("config check {}", least(&home));
    for (variable, value) in [("MUFAKAT_PREFIX", "Team"), ("NATS_URL", "http://n")] {
        let refusal = ran(&mut mufakat(&home, &words, &[(variable, value)]));
        let refusal = refusal.expect_err("no such value is right");
        assert!(
            refusal.starts_with(&format!("mufakat: {variable}: ")),
            "{refusal}"
        );
    }
}

/// What a node says when it refuses to start. One that starts would run on, which fails the test.
async fn refusal_of_a_node(home: &TempDir, words: &str, environment: &[(&str, &str)]) -> String {
    let log = home.path().join("log");
    // Processes append to their logs.
    let _ = fs::remove_file(&log);
    let mut command = mufakat(home, &format!("node {words}"), environment);
    let mut node = Process::start("the node", &mut command, &log);
    assert!(
        !node.end(Duration::from_secs(20)).await.success(),
        "{words}"
    );
    let log = node.log();
    let mut said = log.lines().rev();
    let said = said.find(|line| line.starts_with("mufakat: "));
    said.expect("a reason").to_owned()
}

#[tokio::test]
async fn a_check_refuses_what_a_node_refuses_and_says_the_cause_once() {
    let home = home();
    let least = least(&home);
    const NOT_THERE: &str = "No such file or directory";
    context(&home, "hush", r#"{"password":31337424242}"#);
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::write(&path, text).expect("a file can be made");
        path.display().to_string()
    };
    let certificate = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let secured = Secured::new();
    let secured_file = |who: &str, name: &str| secured.file(who, name).display().to_string();
    let files = [
        ("GARBAGE", file("garbage.pem", "hush")),
        ("CERTIFICATE", file("certificate.pem", certificate)),
        ("SHOWN", secured_file("operator", "cert.pem")),
        ("OWN-KEY", secured_file("operator", "key.pem")),
        ("OTHER-KEY", secured_file("monitor", "key.pem")),
        ("NO-DIRECTORY", file("node.toml", "data_dir = ''")),
    ];
    let named = |text: &str| {
        let mut text = text.to_owned();
        for (name, path) in &files {
            text = text.replace(name, path);
        }
        text
    };
    for (words, environment, what) in [
        ("--nats-cert /nope", &[][..], "--nats-key"),
        ("--nats-creds /nope", &[], NOT_THERE),
        ("--nats-nkey /nope", &[], NOT_THERE),
        (
            "--nats-nkey GARBAGE",
            &[],
            "NATS_NKEY: GARBAGE: holds no seed of an NKey",
        ),
        (
            "--nats-cert SHOWN --nats-key OTHER-KEY",
            &[],
            "NATS_KEY: OTHER-KEY: does not match the certificate in SHOWN",
        ),
        (
            "--nats-cert CERTIFICATE --nats-key OWN-KEY",
            &[],
            "NATS_CERT: CERTIFICATE: the first certificate in it is broken inside",
        ),
        (
            "--redis rediss://127.0.0.1 --redis-cert SHOWN --redis-key OTHER-KEY",
            &[],
            "REDIS_KEY: OTHER-KEY: does not match the certificate in SHOWN",
        ),
        ("--nats-context nope", &[], NOT_THERE),
        ("--nats-inbox-prefix a..b", &[], "--nats-inbox-prefix"),
        (
            "--nats-user u",
            &[("NATS_PASSWORD_FILE", "/nope")],
            "NATS_PASSWORD_FILE: /nope: ",
        ),
        (
            "",
            &[("NATS_TOKEN_FILE", "/nope")],
            "NATS_TOKEN_FILE: /nope: ",
        ),
        (
            "--nats-user u",
            &[("NATS_PASSWORD", "p"), ("NATS_PASSWORD_FILE", "/nope")],
            "NATS_PASSWORD_FILE: NATS_PASSWORD is given too",
        ),
        ("", &[("NATS_CA", "/nope")], "NATS_CA: /nope: No such file"),
        ("", &[("NATS_CA", "GARBAGE")], "holds no certificate in PEM"),
        (
            "--nats-cert CERTIFICATE --nats-key GARBAGE",
            &[],
            "NATS_KEY: GARBAGE: holds no private key in PEM",
        ),
        (
            "--redis rediss://127.0.0.1 --redis-ca GARBAGE",
            &[],
            "--redis-ca or REDIS_CA: GARBAGE: holds no certificate in PEM",
        ),
        (
            "--nats-context hush",
            &[],
            "/hush.json: is no context at line 1, column ",
        ),
        ("--config NO-DIRECTORY", &[], "data_dir in "),
        ("", &[("NATS_PASSWORD", "p")], "needs a user"),
        (
            "--redis rediss://127.0.0.1 --redis-ca /nope",
            &[],
            NOT_THERE,
        ),
    ] {
        let least = match words.contains("--config") {
            // A flag would beat the file.
            true => "--id 1 --peers 1",
            false => &least,
        };
        let words = named(&format!("{least} {words}"));
        let environment: Vec<(&str, String)> = environment
            .iter()
            .map(|&(name, value)| (name, named(value)))
            .collect();
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let environment = &environment[..];
        let checked = ran(&mut mufakat(
            &home,
            &format!("config check {words}"),
            environment,
        ));
        let refusal = checked.expect_err(&words);
        assert!(refusal.contains(&named(what)), "{words}: {refusal}");
        assert!(!refusal.contains("31337"), "{words}: {refusal}");
        assert!(
            refusal.matches(NOT_THERE).count() <= 1,
            "{words}: {refusal}"
        );
        let of_node = refusal_of_a_node(&home, &words, environment).await;
        assert_eq!(refusal.trim_end(), of_node, "{words}");
    }
    let data = home.path().join("data").display().to_string();
    let restored = ran(&mut mufakat(
        &home,
        &format!("restore /nope --id 1 --data-dir {data}/r"),
        &[],
    ));
    let refusal = restored.expect_err("there is no such backup");
    assert_eq!(refusal.matches(NOT_THERE).count(), 1, "{refusal}");
}

/// Writes a context of the NATS command line.
fn context(home: &TempDir, name: &str, text: &str) {
    let contexts = home.path().join(".config/nats/context");
    fs::create_dir_all(&contexts).expect("a directory can be made");
    fs::write(contexts.join(format!("{name}.json")), text).expect("a file can be made");
}

#[test]
fn a_node_goes_where_its_context_says_unless_it_is_told_otherwise() {
    let home = home();
    context(&home, "prod", r#"{"url":"nats://me:hush@prod:4222"}"#);
    context(&home, "silent", r#"{"user":"me","password":"hush"}"#);
    let words = format!("config print {}", least(&home));
    let of_prod = [("NATS_CONTEXT", "prod")];
    for (more, environment, expected) in [
        (
            "",
            &of_prod[..],
            "nats://***@prod:4222\"  # the NATS context prod\n",
        ),
        (
            "--nats-context prod",
            &[],
            "nats://***@prod:4222\"  # the NATS context prod\n",
        ),
        (
            "",
            &[("NATS_CONTEXT", "silent")],
            "nats://127.0.0.1:4222\"  # defaults\n",
        ),
        (
            "",
            &[("NATS_CONTEXT", "prod"), ("NATS_URL", "nats://other")],
            "nats://other\"  # environment\n",
        ),
        ("--nats nats://other", &of_prod, "nats://other\"  # flags\n"),
    ] {
        let printed = ran(&mut mufakat(&home, &format!("{words} {more}"), environment));
        let printed = printed.expect("valid");
        let expected = format!("nats = \"{expected}");
        assert!(printed.contains(&expected), "{expected}: {printed}");
        assert!(!printed.contains("hush"), "{printed}");
    }
}

#[test]
fn a_command_reads_secrets_from_files_too() {
    let home = home();
    let url = home.path().join("url");
    // Nobody listens there.
    fs::write(&url, "nats://me:hush@127.0.0.1:1\n").expect("a file can be made");
    let url = url.display().to_string();
    let said = |words: &str, environment: &[(&str, &str)]| {
        let refused = ran(&mut mufakat(&home, words, environment));
        refused.expect_err("there is no server")
    };
    let by_file = [("NATS_URL_FILE", url.as_str())];
    let refused = said("lock get a", &by_file);
    assert!(refused.contains("connect to 127.0.0.1:1:"), "{refused}");
    assert!(!refused.contains("hush"), "{refused}");
    let by_flag = said("lock get a --nats nats://127.0.0.1:2", &by_file);
    assert!(by_flag.contains("connect to 127.0.0.1:2:"), "{by_flag}");
    for (name, value) in [("NATS_URL", "nats://127.0.0.1:2"), ("NATS_TOKEN", "t")] {
        let file = format!("{name}_FILE");
        let both = said("lock get a", &[(name, value), (&file, &url)]);
        let expected = format!("mufakat: {file}: {name} is given too; give one of the two\n");
        assert_eq!(both, expected);
    }
}

#[test]
fn a_word_for_the_log_that_means_nothing_is_refused() {
    let home = home();
    for wrong in ["inof", "mufakat:debug", "mufakat=debgu"] {
        let words = format!("config check {}", least(&home));
        let refused = ran(&mut mufakat(&home, &words, &[("MUFAKAT_LOG", wrong)]));
        let refused = refused.expect_err(wrong);
        assert!(refused.starts_with("mufakat: MUFAKAT_LOG: "), "{refused}");
    }
}

/// A disk that is full takes no more of the log, and nothing else from the node.
#[tokio::test]
async fn a_node_whose_log_cannot_be_written_serves_and_stops_in_order() {
    let mut cluster = Cluster::prepare(Options {
        nodes: 1,
        ..Options::default()
    })
    .await;
    cluster.start_broker().await;
    let home = home();
    let words = format!("node {} --nats {}", least(&home), cluster.nats_url());
    let mut command = mufakat(&home, &words, &[("MUFAKAT_LOG", "debug")]);
    let mut node = Process::start("the node", &mut command, Path::new("/dev/full"));
    let nats = cluster.nats().await;
    let body = json!({"resource": "a"});
    let granted = wire::request_until_ok(&nats, "mufakat.lock.acquire", &body).await;
    assert_eq!(granted["resource"], "a", "{granted}");
    node.signal(Signal::TERM);
    let ended = node.end(wait::LONG).await;
    assert_eq!(ended.code(), Some(0), "{}", show(ended));
}

#[test]
fn an_inbox_that_nodes_do_not_answer_to_is_refused() {
    let home = home();
    for (words, is_refused) in [
        ("--nats-inbox-prefix mufakat.x", true),
        ("--nats-inbox-prefix mufakat", true),
        ("--nats-inbox-prefix $SYS.x", true),
        ("--prefix team --nats-inbox-prefix team.x", true),
        ("--prefix team --nats-inbox-prefix mufakat.x", false),
        ("--nats-inbox-prefix mufakat_x", false),
    ] {
        // Nobody listens there: what is not refused before fails to connect.
        let words = format!("status --nats nats://127.0.0.1:1 {words}");
        let output = mufakat(&home, &words, &[]).output().expect("it starts");
        let said = text(&output.stderr);
        let code = if is_refused { 1 } else { 69 };
        assert_eq!(output.status.code(), Some(code), "{words}: {said}");
        assert_eq!(
            said.contains("--nats-inbox-prefix"),
            is_refused,
            "{words}: {said}"
        );
    }
}
