use super::*;

type Changes<'a> = &'a [(&'a str, &'a str)];

/// A server as it should be, except for `changes`: settings by their name, fields of `INFO`
/// after `info.`; an empty value takes the entry away.
fn inspection(changes: Changes<'_>) -> Inspection {
    let mut config: BTreeMap<String, String> = SETTINGS
        .into_iter()
        .zip(["yes", "always", "no", "0", "noeviction"])
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut info = Inspection::parse_info(
        "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n\r\n# Replication\r\nrole:master\r\n\
         connected_slaves:0\r\naof_enabled:1\r\n",
    );
    for (name, value) in changes {
        let (map, name) = match name.strip_prefix("info.") {
            Some(field) => (&mut info, field),
            None => (&mut config, *name),
        };
        match *value {
            "" => map.remove(name),
            value => map.insert(name.to_owned(), value.to_owned()),
        };
    }
    Inspection {
        info,
        config: Some(config),
    }
}

#[test]
fn a_server_as_it_should_be_has_the_best_level_and_no_warning() {
    let durability = inspection(&[]).durability(None, Replicas::NONE);
    assert_eq!(durability.level, Level::Fsync);
    assert_eq!(durability.warnings, Vec::<String>::new());
}

#[test]
fn each_setting_has_its_level_and_a_warning_that_names_it() {
    let cases: [(Changes<'_>, Level, &str); 15] = [
        (&[("appendonly", "no")], Level::None, "appendonly"),
        (&[("appendfsync", "no")], Level::Os, "appendfsync"),
        (&[("appendfsync", "everysec")], Level::Interval, "everysec"),
        (&[("appendfsync", "sometimes")], Level::Unknown, "CONFIG"),
        (&[("appendfsync", "")], Level::Unknown, "CONFIG"),
        (
            &[("no-appendfsync-on-rewrite", "yes")],
            Level::Os,
            "no-appendfsync-on-rewrite",
        ),
        (
            &[("no-appendfsync-on-rewrite", "")],
            Level::Os,
            "no-appendfsync-on-rewrite",
        ),
        (
            &[("maxmemory", "1000"), ("maxmemory-policy", "allkeys-lru")],
            Level::None,
            "allkeys-lru",
        ),
        (
            &[("maxmemory", "1000"), ("maxmemory-policy", "volatile-ttl")],
            Level::None,
            "volatile-ttl",
        ),
        (
            &[("maxmemory-policy", "allkeys-lru")],
            Level::Fsync,
            "if maxmemory were set",
        ),
        (&[("info.redis_version", "6.2.14")], Level::Os, "6.2.14"),
        (&[("info.redis_version", "x")], Level::Os, "Redis x"),
        (&[("info.role", "slave")], Level::None, "replica"),
        (
            &[("info.connected_slaves", "2")],
            Level::Interval,
            "2 connected",
        ),
        (
            &[("appendfsync", "no"), ("info.connected_slaves", "1")],
            Level::Interval,
            "failover",
        ),
    ];
    for (changes, level, warning) in cases {
        let durability = inspection(changes).durability(None, Replicas::NONE);
        assert_eq!(durability.level, level, "{changes:?}");
        let named = durability.warnings.iter().any(|w| w.contains(warning));
        assert!(named, "{changes:?}: {:?}", durability.warnings);
    }
}

#[test]
fn versions_compare_as_numbers() {
    let newer = inspection(&[("info.redis_version", "10.1.0")]);
    assert_eq!(newer.durability(None, Replicas::NONE).level, Level::Fsync);
}

#[test]
fn where_config_is_forbidden_only_the_worst_is_known() {
    let hidden = |aof_enabled| Inspection {
        config: None,
        ..inspection(&[("info.aof_enabled", aof_enabled)])
    };
    assert_eq!(
        hidden("1").durability(None, Replicas::NONE).level,
        Level::Unknown
    );
    assert_eq!(
        hidden("").durability(None, Replicas::NONE).level,
        Level::Unknown
    );
    assert_eq!(
        hidden("0").durability(None, Replicas::NONE).level,
        Level::None
    );
    // A service that hides its settings may have another log than the server's.
    for aof_enabled in ["1", "", "0"] {
        let asserted = hidden(aof_enabled).durability(Some(Level::Fsync), Replicas::NONE);
        assert_eq!(asserted.level, Level::Fsync);
        assert_eq!(asserted.source, Source::Asserted);
    }
    let mut replica = hidden("1");
    replica.info.insert("role".into(), "slave".into());
    assert_eq!(
        replica.durability(Some(Level::Fsync), Replicas::NONE).level,
        Level::None
    );
}

#[test]
fn settings_that_are_shown_count_whatever_is_asserted() {
    let everysec = inspection(&[("appendfsync", "everysec")]);
    let durability = everysec.durability(Some(Level::Fsync), Replicas::NONE);
    assert_eq!(durability.level, Level::Interval);
    assert_eq!(durability.source, Source::Inspected);
    let last = durability.warnings.last().expect("a warning");
    assert!(last.contains("fsync is asserted"), "{last}");
    let modest = inspection(&[]).durability(Some(Level::Interval), Replicas::NONE);
    assert_eq!((modest.level, modest.warnings.len()), (Level::Fsync, 0));
}

#[test]
fn a_server_that_refuses_writes_is_told_with_the_reason() {
    for field in ["aof_last_write_status", "rdb_last_bgsave_status"] {
        let name = format!("info.{field}");
        let durability = inspection(&[(&name, "err")]).durability(None, Replicas::NONE);
        assert_eq!(durability.level, Level::Fsync);
        assert!(durability.warnings[0].contains(field));
    }
}

#[test]
fn with_replicas_the_best_level_takes_the_word_of_all() {
    let level = |changes: Changes<'_>, most, copies| {
        let durability = inspection(changes).durability(None, Replicas { most, copies });
        (durability.level, durability.source, durability.warnings)
    };
    let one = ("info.connected_slaves", "1");
    let confirmed = (Level::Fsync, Source::Confirmed, Vec::new());
    assert_eq!(level(&[one], 1, Copies::Fsynced), confirmed);
    for (changes, most, copies, why) in [
        (&[one][..], 1, Copies::Untold, "7.2"),
        (&[one], 1, Copies::Behind, "appendfsync always"),
        // One that was there before, and can be promoted.
        (&[one], 2, Copies::Fsynced, "2 replica(s), 1 connected"),
        (&[], 1, Copies::Fsynced, "1 replica(s), 0 connected"),
        (
            &[one, ("appendfsync", "no")],
            1,
            Copies::Fsynced,
            "failover",
        ),
    ] {
        let (level, source, warnings) = level(changes, most, copies);
        assert_eq!((level, source), (Level::Interval, Source::Inspected));
        assert!(
            warnings.iter().any(|w| w.contains(why)),
            "{why}: {warnings:?}"
        );
    }
    assert!(inspection(&[one]).depends_on_copies(1));
    assert!(!inspection(&[]).depends_on_copies(0));
    assert!(!inspection(&[one, ("appendfsync", "everysec")]).depends_on_copies(1));
    assert!(!inspection(&[one, ("appendonly", "no")]).depends_on_copies(1));
}
