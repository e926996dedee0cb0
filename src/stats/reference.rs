//! The table of all metrics in `docs/operations.md`, written from what a node renders.
//!
//! Exists in tests only. What has samples only at times, such as what a leader sees of others, is made to
//! have them here; that real nodes show these metrics and no others is for the integration tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Peer, Role, Stats};

const BEGIN: &str = "<!-- from the code: UPDATE_DOCS=1 cargo test --lib stats::reference -->\n";
const END: &str = "\n<!-- end -->";
/// Set to anything, this makes the test write the file instead of comparing.
const UPDATE: &str = "UPDATE_DOCS";

/// Labels with more values than this are named without them.
const VALUES_SHOWN_MAX: usize = 8;

/// One metric, as its lines say.
#[derive(Debug, Default)]
struct Family {
    name: String,
    kind: String,
    unit: String,
    help: String,
    labels: BTreeMap<String, Vec<String>>,
}

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

fn families(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        let described = line
            .strip_prefix("# ")
            .and_then(|line| line.split_once(' '));
        let family = families.last_mut();
        match (described, family) {
            (Some(("HELP", rest)), _) => {
                let (name, help) = rest.split_once(' ').expect("a metric is explained");
                families.push(Family {
                    name: name.to_owned(),
                    help: help.trim_end_matches('.').to_owned(),
                    ..Family::default()
                });
            }
            (Some((what, rest)), Some(family)) => {
                let (name, value) = rest.split_once(' ').expect("a name and a value");
                assert_eq!(name, family.name, "{line}");
                match what {
                    "TYPE" => family.kind = value.to_owned(),
                    "UNIT" => family.unit = value.to_owned(),
                    _ => panic!("{line}"),
                }
            }
            (None, Some(family)) if !line.starts_with('#') => note_labels(family, line),
            _ => {}
        }
    }
    families
}

fn note_labels(family: &mut Family, sample: &str) {
    let Some((_, rest)) = sample.split_once('{') else {
        return;
    };
    let labels = rest.split('}').next().expect("labels end");
    for label in labels.split(',') {
        let (name, value) = label.split_once('=').expect("a label has a value");
        let values = family.labels.entry(name.to_owned()).or_default();
        let value = value.trim_matches('"').to_owned();
        if name != "le" && !values.contains(&value) {
            values.push(value);
        }
    }
    family.labels.remove("le");
}

impl Family {
    /// The name by which its samples are found; of a histogram what they begin with.
    fn sample_name(&self) -> String {
        let ending = match self.kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        format!("{}{ending}", self.name)
    }

    fn row(&self) -> String {
        let label = |(name, values): (&String, &Vec<String>)| {
            let some = (2..=VALUES_SHOWN_MAX).contains(&values.len());
            let shown = values.iter().map(|value| format!("`{value}`"));
            let shown: Vec<String> = shown.filter(|_| some).collect();
            match shown.is_empty() {
                true => format!("`{name}`"),
                false => format!("`{name}`: {}", shown.join(", ")),
            }
        };
        let labels: Vec<String> = self.labels.iter().map(label).collect();
        format!(
            "| `{}` | {} | {} | {} | {} |",
            self.sample_name(),
            self.kind,
            labels.join("; "),
            self.unit,
            self.help
        )
    }
}

fn table() -> String {
    let head = "\
| metric | type | labels | unit | what it says |
|---|---|---|---|---|";
    let text = stats().encode_text();
    let rows = families(&text).into_iter().map(|family| family.row());
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
    let families = families(&stats().encode_text());
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
