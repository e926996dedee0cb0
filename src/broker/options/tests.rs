//! Where options come from, which fit together, and that no secret shows.

use super::*;

fn options(user: Option<&str>, password: Option<&str>) -> NatsOptions {
    NatsOptions {
        user: user.map(str::to_owned),
        password: password.map(str::to_owned),
        ..NatsOptions::default()
    }
}

#[test]
fn several_servers_are_separated_by_commas() {
    let mut options = NatsOptions::default();
    let shown = |options: &NatsOptions| addresses(&options.servers().unwrap());
    assert_eq!(shown(&options), "127.0.0.1:4222");
    options.url = Some("nats://u:secret@a:1, tls://b".to_owned());
    assert_eq!(shown(&options), "a:1, b:4222");
    options.url = Some("nats://u:secret@:::".to_owned());
    let error = options.servers().unwrap_err().to_string();
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn a_context_fills_up_but_never_mixes_identities() {
    let context = || Context {
        url: "nats://c".into(),
        user: "theirs".into(),
        password: "p".into(),
        ..Context::default()
    };
    let mut nobody = NatsOptions::default();
    nobody.fill_from(context());
    assert_eq!(nobody.user.as_deref(), Some("theirs"));
    assert_eq!(nobody.url.as_deref(), Some("nats://c"));
    let mut somebody = options(Some("ours"), None);
    somebody.fill_from(context());
    assert_eq!(somebody.user.as_deref(), Some("ours"));
    assert_eq!(somebody.password, None);
}

#[test]
fn a_context_that_is_none_is_not_repeated() {
    for text in [
        r#"{"password":31337424242}"#,
        r#"{"token":["hush"]}"#,
        r#"{"url" "hush"}"#,
    ] {
        let reason = parsed(text).err().expect("it is no context");
        assert!(reason.starts_with("is no context at line 1"), "{reason}");
        assert!(
            !reason.contains("hush") && !reason.contains("31337"),
            "{reason}"
        );
    }
    assert_eq!(parsed(r#"{"user":"u","more":1}"#).expect("one").user, "u");
}

#[test]
fn a_secret_comes_from_one_place() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "of-file\n").expect("it is writable");
    let path = file.path().display().to_string();
    let filled = |option: Option<&str>, environment: &[(&str, &str)]| {
        let mut option = option.map(str::to_owned);
        let environment = environment.iter();
        let environment =
            environment.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        fill_from_file(&mut option, "SECRET", &environment.collect())
            .map(|()| option)
            .map_err(|error| error.to_string())
    };
    let in_file = ("SECRET_FILE", path.as_str());
    let of_file = Ok(Some("of-file".to_owned()));
    assert_eq!(filled(None, &[]), Ok(None));
    assert_eq!(filled(None, &[in_file]), of_file);
    let of_variable = filled(Some("a"), &[("SECRET", "a")]);
    assert_eq!(of_variable, Ok(Some("a".to_owned())));
    let both = filled(Some("a"), &[("SECRET", "a"), in_file]);
    let refusal = "SECRET_FILE: SECRET is given too; give one of the two";
    assert_eq!(both, Err(refusal.to_owned()));
    let nowhere = ("SECRET_FILE", "/nowhere");
    let by_flag = filled(Some("b"), &[("SECRET", "a"), nowhere]);
    assert_eq!(by_flag, Ok(Some("b".to_owned())));
    let absent = filled(None, &[nowhere]).expect_err("no such file");
    assert!(absent.starts_with("SECRET_FILE: /nowhere: "), "{absent}");
}

#[test]
fn halves_are_refused() {
    assert!(options(None, Some("p")).connect_options().is_err());
    let certificate = NatsOptions {
        cert: Some("c.pem".into()),
        ..NatsOptions::default()
    };
    assert!(certificate.connect_options().is_err());
    assert!(options(Some("u"), Some("p")).connect_options().is_ok());
}

#[test]
fn an_inbox_is_no_wildcard() {
    for (prefix, is_right) in [
        ("_INBOX_a", true),
        ("a.b", true),
        ("a.>", false),
        ("a.", false),
        ("", false),
    ] {
        let options = NatsOptions {
            inbox_prefix: Some(prefix.to_owned()),
            ..NatsOptions::default()
        };
        assert_eq!(options.connect_options().is_ok(), is_right, "{prefix}");
    }
}

#[test]
fn secrets_do_not_show() {
    let shown = format!("{:?}", options(Some("u"), Some("secret")));
    assert!(!shown.contains("secret"), "{shown}");
}
