//! What ships for Prometheus and Grafana names what nodes have, and says what to do.
//!
//! That the table in docs/operations.md is what nodes have, is for the tests that write it. Prometheus's own
//! promtool looks at the rest, where it is there; in CI (`CI=true`) it has to be.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use saphyr::{LoadableYamlNode, Yaml};
use serde_json::{Value, json};

use super::nothing;

const ALERTS: &str = "compose/observe/alerts.yml";
const DASHBOARD: &str = "compose/observe/grafana/dashboards/mufakat.json";
const OTHERS: [&str; 4] = [
    "compose/observe/prometheus.yml",
    "compose/observe/alerts.test.yml",
    "compose/observe/grafana/provisioning/datasources/prometheus.yml",
    "compose/observe/grafana/provisioning/dashboards/mufakat.yml",
];
/// Metrics of Prometheus itself.
const OF_PROMETHEUS: [&str; 2] = ["up", "ALERTS"];

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Yaml<'static> {
    let text: &'static str = read(path).leak();
    let mut documents = Yaml::load_from_str(text).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert_eq!(documents.len(), 1, "{path}");
    documents.remove(0)
}

/// The names of all samples that nodes have, as the documentation has them.
fn known() -> BTreeSet<String> {
    let mut known: BTreeSet<String> = OF_PROMETHEUS.map(str::to_owned).into();
    for line in read("docs/operations.md").lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let &[_, name, kind, _, _, _, _] = &cells[..] else {
            continue;
        };
        let name = name.trim_matches('`');
        match kind {
            "counter" | "gauge" | "info" => drop(known.insert(name.to_owned())),
            "histogram" => {
                known.extend(["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")));
            }
            _ => {}
        }
    }
    assert!(known.len() > 60, "{known:?}");
    known
}

/// Words that are names of metrics of ours.
fn named(expression: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expression.split(|c| !is_part(c));
    let ours = words.filter(|word| word.starts_with("mufakat_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

#[test]
fn alerts_name_metrics_that_exist_and_say_what_to_do() {
    let known = known();
    let operations = read("docs/operations.md");
    let tried = read("compose/observe/alerts.test.yml");
    let headings: BTreeSet<String> = operations
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches(['#', ' '])
                .to_lowercase()
                .replace(' ', "-")
        })
        .collect();
    let alerts = yaml(ALERTS);
    let (mut count, mut wrong) = (0, Vec::new());
    for group in alerts["groups"].as_sequence().expect("groups") {
        for rule in group["rules"].as_sequence().expect("rules") {
            count += 1;
            let name = rule["alert"].as_str().expect("an alert has a name");
            let expression = rule["expr"].as_str().expect("an alert has an expression");
            let unknown = named(expression);
            wrong.extend(
                unknown
                    .difference(&known)
                    .map(|m| format!("{name} names {m}")),
            );
            let severity = rule["labels"]["severity"].as_str();
            if !matches!(severity, Some("critical" | "warning")) {
                wrong.push(format!("{name} has severity {severity:?}"));
            }
            for part in ["summary", "description", "runbook"] {
                let text = rule["annotations"]
                    .as_mapping_get(part)
                    .and_then(Yaml::as_str);
                match text {
                    None => wrong.push(format!("{name} has no {part}")),
                    Some(text) if part == "runbook" => {
                        let anchor = text.strip_prefix("docs/operations.md#");
                        if !anchor.is_some_and(|anchor| headings.contains(anchor)) {
                            wrong.push(format!("{name}: {text} leads nowhere"));
                        }
                    }
                    Some(_) => {}
                }
            }
            if !tried.contains(&format!("alertname=\"{name}\"")) {
                wrong.push(format!("no test has {name} fire"));
            }
        }
    }
    assert!(count >= 10, "{count} alerts");
    nothing("alerts that are wrong", &wrong);
}

#[test]
fn the_dashboard_names_metrics_that_exist() {
    let known = known();
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let (mut shown, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        assert!(
            ids.insert(panel["id"].as_u64().expect("a number")),
            "{panel}"
        );
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("an expression");
            let names = named(expression);
            assert!(
                !names.is_empty() || expression.starts_with("sum(up{"),
                "{expression}"
            );
            shown.extend(names);
        }
    }
    let unknown: Vec<_> = shown.difference(&known).collect();
    nothing("metrics that no node has", &unknown);
    assert!(
        shown.len() >= 40,
        "{} metrics on the dashboard",
        shown.len()
    );
    let source = yaml("compose/observe/grafana/provisioning/datasources/prometheus.yml");
    let source = source["datasources"][0]["uid"].as_str().expect("a uid");
    let asked: BTreeSet<&str> = panels
        .iter()
        .filter_map(|panel| panel["datasource"]["uid"].as_str())
        .collect();
    assert_eq!(asked, [source].into());
}

/// Where each panel of the dashboard is: column, row, width and height, on a grid of 24 columns.
#[test]
fn the_panels_of_the_dashboard_lie_beside_one_another() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("it is JSON");
    let mut places: Vec<([u64; 4], &str)> = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().expect("a number"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{title} is beyond the grid");
        for ([ox, oy, ow, oh], other) in &places {
            let apart = x + w <= *ox || ox + ow <= x || y + h <= *oy || oy + oh <= y;
            assert!(apart, "{title} lies on {other}");
        }
        places.push(([x, y, w, h], title));
        let names = panel["targets"].as_array().into_iter().flatten();
        let names: Vec<&str> = names
            .map(|target| target["refId"].as_str().expect("a name"))
            .collect();
        let different: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), different.len(), "{title} has two of one name");
    }
}

/// Runs promtool; false where it is not there.
fn promtool(arguments: &[&str]) -> bool {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let places = [beside].into_iter().chain(env::split_paths(&path));
    let mut found = places.map(|place| place.join("promtool"));
    let Some(program) = found.find(|file| file.is_file()) else {
        let in_ci = env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!in_ci, "found no promtool: run `make test`");
        // Not by a macro: those are not shown of tests that pass.
        let said = writeln!(
            std::io::stderr(),
            "skipped: no promtool here to look at compose/observe with"
        );
        said.expect("stderr takes it");
        return false;
    };
    let output = Command::new(program).args(arguments).output();
    let output = output.expect("promtool runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    true
}

#[test]
fn prometheus_takes_its_configuration_and_alerts_fire_when_they_should() {
    if promtool(&["check", "config", OTHERS[0]]) {
        promtool(&["test", "rules", OTHERS[1]]);
    }
}

/// As rules that record something, which promtool reads.
#[test]
fn prometheus_understands_each_expression_of_the_dashboard() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let rules: Vec<Value> = targets
        .enumerate()
        .map(|(number, target)| {
            let expression = target["expr"].as_str().expect("an expression");
            let expression = expression.replace("$__rate_interval", "1m");
            json!({"record": format!("panel:{number}"), "expr": expression})
        })
        .collect();
    assert!(rules.len() > 40, "{} expressions", rules.len());
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let file = directory.path().join("panels.yml");
    let groups = json!({"groups": [{"name": "panels", "rules": rules}]});
    fs::write(&file, groups.to_string()).expect("it can be written");
    promtool(&["check", "rules", file.to_str().expect("a path in UTF-8")]);
}

#[test]
fn prometheus_asks_each_node_of_its_compose_file() {
    for (compose, targets) in [
        ("compose/compose.yaml", "compose/observe/targets.yml"),
        ("compose/compose.ha.yaml", "compose/observe/targets.ha.yml"),
    ] {
        let file = yaml(compose);
        let services = file["services"].as_mapping().expect("services");
        let names = services.keys().filter_map(|name| name.as_str());
        let nodes = names.filter(|name| name.starts_with("node-"));
        let nodes: Vec<String> = nodes.map(|name| format!("{name}:5001")).collect();
        let file = yaml(targets);
        let asked = file[0]["targets"].as_sequence().expect("targets");
        let asked: Vec<&str> = asked.iter().filter_map(|target| target.as_str()).collect();
        assert_eq!(asked, nodes, "{targets}");
    }
}

#[test]
fn the_other_files_are_yaml() {
    for path in OTHERS {
        assert!(yaml(path).as_mapping().is_some(), "{path}");
    }
}
