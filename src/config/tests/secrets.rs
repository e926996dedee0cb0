//! Secrets come from files too, and are never shown.

use super::*;

/// Stands in every secret of these tests.
const HUSH: &str = "hush-hush-hush-hush";

/// What holds a secret: a value of each such setting.
fn secrets() -> Vec<(&'static Setting, String)> {
    let secrets = SETTINGS.iter().filter(|setting| setting.secret);
    let value = |setting: &Setting| match setting.key {
        "nats" => format!("nats://u:{HUSH}@n:4222"),
        "redis" => format!("redis://u:{HUSH},{HUSH}@r:1"),
        _ => HUSH.to_owned(),
    };
    secrets.map(|setting| (setting, value(setting))).collect()
}

#[test]
fn secrets_come_from_files_too() {
    let secret = file("redis://:hush@10.0.0.1\n");
    let path = secret.path().to_str().expect("path");
    let config = load("", &[("REDIS_URL_FILE", path)]).expect("valid");
    assert_eq!(
        config.redis.as_ref().expect("given").expose(),
        "redis://:hush@10.0.0.1"
    );
    assert!(
        !format!("{config:?}").contains("hush"),
        "a password is never printed"
    );
    let both = refusal("", &[("REDIS_URL_FILE", path), ("REDIS_URL", "redis://b")]);
    assert_eq!(
        both,
        "REDIS_URL_FILE: REDIS_URL is given too; give one of the two"
    );
}

#[test]
fn settings_in_force_say_where_they_come_from_and_keep_secrets() {
    let file = file("prefix = 'of.file'\nredis = 'redis://u:hunter2@r:1'");
    let line = format!("--id 1 --data-dir /d --config {}", file.path().display());
    let environment = [
        ("MUFAKAT_PEERS", "1,2,3"),
        ("NATS_URL", "nats://me:hunter2@n:4222"),
    ];
    let shown = Config::in_force(args(&line), env(&environment)).expect("valid");
    assert!(!shown.contains("hunter2"), "{shown}");
    for expected in [
        "id = 1  # flags\n".to_owned(),
        "peers = [1,2,3]  # environment\n".to_owned(),
        "nats = \"nats://***@n:4222\"  # environment\n".to_owned(),
        "redis = \"redis://***@r:1\"  # ".to_owned() + &file.path().display().to_string(),
        "heartbeat = \"100ms\"  # defaults\n".to_owned(),
    ] {
        assert!(shown.contains(&expected), "{expected} is not in {shown}");
    }
}

#[test]
fn no_secret_is_shown_wherever_it_comes_from() {
    for (setting, value) in secrets() {
        let key = setting.key;
        let stored = file(&value);
        let stored = stored.path().to_str().expect("path");
        let by_key = file(&format!("{key} = '{value}'"));
        let of_flag = format!("{LEAST} {} {value}", flag(key));
        let of_file = format!("{LEAST} --config {}", by_key.path().display());
        let stored_env = format!("{}_FILE", setting.env);
        for (line, environment) in [
            (of_flag.as_str(), vec![]),
            (of_file.as_str(), vec![]),
            (LEAST, env(&[(setting.env, &value)])),
            (LEAST, env(&[(&stored_env, stored)])),
        ] {
            let shown = Config::in_force(args(line), environment.clone()).expect("valid");
            let of_key = shown.lines().find(|line| line.starts_with(key));
            assert!(of_key.is_some_and(|line| line.contains("***")), "{shown}");
            assert!(!shown.contains("hush"), "{shown}");
            let config = Config::load(args(line), environment).expect("valid");
            assert!(!format!("{config:?}").contains("hush"), "{config:?}");
        }
    }
}

#[test]
fn no_secret_is_in_a_message_about_the_file() {
    for (setting, value) in secrets() {
        let key = setting.key;
        for wrong in [
            format!("{key} = ['{value}']"),
            format!("{key} = {{ is = '{value}' }}"),
            format!("{key} = \"{value}"),
            format!("{key} = {value}"),
            format!("{key} = '{value}'\n{key} = '{value}'"),
        ] {
            let file = file(&wrong);
            let message = refusal(&format!("--config {}", file.path().display()), &[]);
            assert!(!message.contains("hush"), "{message}");
        }
    }
    let number = file("tenant_rate = 1\nadmin_token = 1234567890123456");
    let path = number.path().display();
    let message = refusal(&format!("--config {path}"), &[]);
    assert_eq!(
        message,
        format!("admin_token in {path}: must be text in quotes")
    );
}

#[test]
fn a_file_that_a_flag_beats_is_not_read() {
    for (setting, value) in secrets() {
        let stored_env = format!("{}_FILE", setting.env);
        let nowhere = [(stored_env.as_str(), "/nowhere")];
        let message = refusal("", &nowhere);
        assert!(
            message.starts_with(&format!("{stored_env}: /nowhere: No such file")),
            "{message}"
        );
        let line = format!("{} {value}", flag(setting.key));
        assert_eq!(load(&line, &nowhere), load(&line, &[]));
    }
}
