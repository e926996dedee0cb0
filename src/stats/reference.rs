//! The table of all metrics in `docs/operations.md`, written from what a node renders.
//!
//! Exists in tests only. What has samples only at times, such as what a leader sees of others, is made to
//! have them here; that real nodes show these metrics and no others is for the integration tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::samples::{self, Family};
use super::{Peer, Role, Stats};

const BEGIN: &str = "<!-- from the code: UPDATE_DOCS=1 cargo test --lib stats::reference -->\n";
const END: &str = "\n<!-- end -->";
/// Set to anything, this makes the test write the file instead of comparing.
const UPDATE: &str = "UPDATE_DOCS";

/// Labels with more values than this are named without them.
const VALUES_SHOWN_MAX: usize = 8;

/// A node of which everything is known.
fn stats() -> Arc<Stats> {
    let stats = Stats::new(&["lock_acquire"], &["lock_held"]);
    stats.operations.record(0, Duration::ZERO, Some(0));
    stats.raft.set_role(Role::Leader);
    stats.raft.voters_reachable.set(Some(3));
    stats.raft.show_peers(vec![Peer {
        node: 2,
        lag: 0,
        silent: Some(Duration::ZERO),
    }]);
    stats.redis.show(true, "fsync", 1);
    stats
}

fn families() -> Vec<Family> {
    samples::read(&stats().encode_text()).expect("a node writes it")
}

/// The values of each label but that of buckets, in their order.
fn labels(family: &Family) -> BTreeMap<&str, Vec<&str>> {
    let mut labels: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in family.samples.iter().flat_map(|sample| &sample.labels) {
        let values = labels.entry(name).or_default();
        if name != "le" && !values.contains(&value.as_str()) {
            values.push(value);
        }
    }
    labels.remove("le");
    labels
}

fn row(family: &Family) -> String {
    let label = |(name, values): (&str, Vec<&str>)| {
        let some = (2..=VALUES_SHOWN_MAX).contains(&values.len());
        let shown = values.iter().map(|value| format!("`{value}`"));
        let shown: Vec<String> = shown.filter(|_| some).collect();
        match shown.is_empty() {
            true => format!("`{name}`"),
            false => format!("`{name}`: {}", shown.join(", ")),
        }
    };
    let labels: Vec<String> = labels(family).into_iter().map(label).collect();
    let ending = match family.r#type.as_str() {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    };
    format!(
        "| `{}{ending}` | {} | {} | {} | {} |",
        family.name,
        family.r#type,
        labels.join("; "),
        family.unit,
        family.help
    )
}

fn table() -> String {
    let head = "\
| metric | type | labels | unit | what it says |
|---|---|---|---|---|";
    let rows = families();
    let rows = rows.iter().map(row);
    [head.to_owned()]
        .into_iter()
        .chain(rows)
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_documentation_has_every_metric() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let text = std::fs::read_to_string(&path).expect("it is in the repository");
    let (before, rest) = text.split_once(BEGIN).expect("the table begins");
    let (shown, after) = rest.split_once(END).expect("the table ends");
    let table = table();
    if std::env::var_os(UPDATE).is_some() {
        let text = format!("{before}{BEGIN}{table}{END}{after}");
        std::fs::write(&path, text).expect("it is writable");
        return;
    }
    assert_eq!(
        shown, table,
        "docs/operations.md is behind: {UPDATE}=1 cargo test --lib stats::reference\n\
         then read the difference and commit it."
    );
}

#[test]
fn every_metric_is_named_as_metrics_are() {
    let families = families();
    let mut seen = BTreeSet::new();
    for family in &families {
        let name = &family.name;
        assert!(seen.insert(name), "{name} twice");
        let prefixes = ["mufakat_", "process_"];
        assert!(prefixes.iter().any(|p| name.starts_with(p)), "{name}");
        let letters = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(name.chars().all(letters), "{name}");
        assert!(name.ends_with(&family.unit), "{name} is in {}", family.unit);
        assert!(
            ["", "seconds", "bytes"].contains(&family.unit.as_str()),
            "{name}"
        );
        assert!(
            !family.help.is_empty() && !family.help.contains('|'),
            "{name}"
        );
    }
    assert!(families.len() > 60, "{}", families.len());
}
