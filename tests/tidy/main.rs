//! House rules, checked by reading the source.
//!
//! What is looked at is text, without comments and without what stands under `#[cfg(test)]` at the end
//! of a file; so a rule can be evaded on purpose, which is not what it is against.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

mod cores;
mod observe;
mod supply_chain;

use cores::CORES;

/// The longest file; longer ones are two ideas.
const LINES_MAX: usize = 500;

const BANNED_NAMES: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "manager", "misc",
];

/// Crates that only some files may name.
const HOMES: &[(&str, &[&str])] = &[
    ("async_nats", &["src/broker/", "src/client/"]),
    ("redis", &["src/queue/address.rs", "src/queue/store"]),
    ("openraft", &["src/raft/"]),
    ("openraft_rt", &["src/raft/"]),
    ("openraft_rt_tokio", &["src/raft/runtime.rs"]),
    ("openraft_rt_sim", &["src/raft/runtime.rs"]),
    ("axum", &["src/monitor/"]),
    ("hyper", &["src/monitor/"]),
    ("hyper_util", &["src/monitor/"]),
    ("prometheus_client", &["src/stats/"]),
    ("figment", &["src/config"]),
];

const NOT_IN_CORES: &[&str] = &[
    "async fn",
    "async move",
    ".await",
    "tokio::spawn",
    "tokio::time",
    "time::now",
    "Instant::now",
    "SystemTime",
    ".elapsed()",
    "rand::",
    "std::fs",
    "std::net",
    "HashMap",
    "HashSet",
];

/// In a core a hash table may be looked up, never iterated: where, and the fields that are one.
const LOOKED_UP: &[(&str, &[&str])] = &[
    ("src/lock/owners.rs", &["by_name"]),
    ("src/lock/dependants.rs", &["places", "held", "behind"]),
    ("src/lock/wait_graph.rs", &["places", "scanned"]),
    ("src/raft/proposals.rs", &["accepted"]),
];
const ITERATIONS: &str = "iter keys values drain retain extract_if into_iter";

/// The layers, lowest first. A file imports from its own layer and those below.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "ground",
        &[
            "src/ids.rs",
            "src/time.rs",
            "src/config",
            "src/stats/",
            "src/trace",
        ],
    ),
    ("wire", &["src/protocol/"]),
    (
        "cores",
        &["src/cache/", "src/lock/", "src/view/", "src/raft/clock.rs"],
    ),
    (
        "edges",
        &[
            "src/broker/connection.rs",
            "src/broker/mod.rs",
            "src/broker/options",
            "src/broker/pem.rs",
            "src/broker/reconnects.rs",
            "src/broker/seam.rs",
            "src/broker/simulated",
            "src/broker/discovery.rs",
            "src/queue/",
        ],
    ),
    ("client", &["src/client/"]),
    ("raft", &["src/raft/", "src/broker/relay"]),
    ("views", &["src/view/service.rs"]),
    (
        "services",
        &[
            "src/cache/service.rs",
            "src/cache/store.rs",
            "src/lock/keepalives.rs",
            "src/lock/service.rs",
            "src/queue/service",
        ],
    ),
    (
        "doors",
        &[
            "src/broker/dispatch",
            "src/broker/leaving.rs",
            "src/broker/listen.rs",
            "src/broker/events.rs",
            "src/broker/own.rs",
            "src/broker/reply.rs",
            "src/broker/tenants.rs",
            "src/broker/unheard.rs",
            "src/monitor/",
        ],
    ),
    ("node", &["src/node", "src/cli/", "src/dev"]),
    ("main", &["src/main.rs", "src/lib.rs"]),
];

struct Source {
    /// Relative to the package, with `/`.
    path: String,
    text: String,
    /// Without comments and tests.
    code: String,
}

impl Source {
    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let of_table = [
            "table_model",
            "table_oracle",
            "table_print",
            "table_properties",
            "table_scripts",
            "table_steps",
        ];
        self.path.starts_with("tests/")
            || self.path.contains("tests/")
            || name.ends_with("tests.rs")
            || self.path.contains("_tests/")
            || name == "fake_broker.rs"
            || name == "table_consistency.rs"
            || of_table.iter().any(|prefix| name.starts_with(prefix))
    }
}

#[test]
fn names_say_something() {
    let mut found = Vec::new();
    for source in sources() {
        let parts = source.path.trim_end_matches(".rs").split('/');
        let banned = |part: &str| part.split('_').any(|word| BANNED_NAMES.contains(&word));
        if parts.into_iter().any(banned) {
            found.push(source.path.clone());
        }
        for line in source.code.lines() {
            let name = line.trim().trim_start_matches("pub ").strip_prefix("mod ");
            if name.is_some_and(|name| banned(name.trim_end_matches([';', '{', ' ']))) {
                found.push(format!("{}: {line}", source.path));
            }
        }
    }
    nothing("names that say nothing", &found);
}

#[test]
fn files_are_short() {
    let lines = |source: &Source| (source.text.lines().count(), source.path.clone());
    let mut long: Vec<_> = sources().iter().map(lines).collect();
    long.retain(|(count, _)| *count > LINES_MAX);
    nothing("files above the bound", &long);
}

#[test]
fn files_begin_with_what_they_are() {
    let undocumented = |source: &&Source| !source.text.starts_with("//!") && !source.is_test();
    let found = sources();
    let found: Vec<_> = found.iter().filter(undocumented).map(|s| &s.path).collect();
    nothing("files without a module doc", &found);
}

#[test]
fn nothing_is_left_for_later() {
    // In two parts each, so that this file is looked at as well.
    let marks = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X"],
        ["to", "do!("],
        ["unimple", "mented!("],
        ["#[ig", "nore"],
        ["db", "g!("],
    ]
    .map(|parts| parts.concat());
    let mut found = Vec::new();
    for source in &sources() {
        for (number, line) in source.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                found.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    nothing("things left for later", &found);
}

#[test]
fn crates_stay_at_home() {
    let mut found = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| source.path.starts_with("src/"))
    {
        for (name, homes) in HOMES {
            let at_home = homes.iter().any(|home| source.path.starts_with(home));
            if !at_home && !source.is_test() && names(&source.code, name) {
                found.push(format!("{} names {name}", source.path));
            }
        }
    }
    nothing("crates outside their homes", &found);
}

#[test]
fn cores_are_plain() {
    let sources = sources();
    let mut found = Vec::new();
    for core in CORES {
        let source = sources.iter().find(|source| source.path == *core);
        let source = source.unwrap_or_else(|| panic!("{core} is gone: has it another name?"));
        let looked_up = LOOKED_UP.iter().find(|(path, _)| path == core);
        for word in NOT_IN_CORES {
            let allowed = word.starts_with("Hash") && looked_up.is_some();
            if source.code.contains(word) && !allowed {
                found.push(format!("{core} has {word}"));
            }
        }
    }
    for (path, fields) in LOOKED_UP {
        let folder = path.trim_end_matches(".rs");
        let of_it = sources.iter().filter(|s| s.path.starts_with(folder));
        for source in of_it {
            let flat: String = source.code.split_whitespace().collect();
            for field in *fields {
                let iterates = |by: &str| flat.contains(&format!("{field}.{by}("));
                if ITERATIONS.split(' ').any(iterates) {
                    found.push(format!("{} iterates {field}", source.path));
                }
            }
            let tables = flat.matches(":HashMap<").count() + flat.matches(":HashSet<").count();
            let known = fields.len();
            if source.path == *path && tables > known {
                found.push(format!("{path} has {tables} hash tables, not {known}"));
            }
        }
    }
    nothing("cores that are not plain", &found);
}

#[test]
fn imports_go_down() {
    let mut found = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| source.path.starts_with("src/"))
    {
        if source.is_test() {
            continue;
        }
        let own = layer(&source.path);
        for import in imports(&source.code) {
            let other = layer(&import);
            if other > own && !is_front_page(&source.path) {
                found.push(format!(
                    "{} ({}) imports {import} ({})",
                    source.path, LAYERS[own].0, LAYERS[other].0
                ));
            }
        }
    }
    nothing("imports that go up", &found);
}

/// Front pages only list what is below them.
fn is_front_page(path: &str) -> bool {
    path.ends_with("/mod.rs") || path == "src/lib.rs"
}

/// The highest layer whose list has the longest match.
fn layer(path: &str) -> usize {
    let matches = LAYERS
        .iter()
        .enumerate()
        .flat_map(|(index, (_, prefixes))| {
            let longest = prefixes.iter().filter(|prefix| path.starts_with(**prefix));
            longest.map(move |prefix| (prefix.len(), index))
        });
    let (_, index) = matches
        .max()
        .unwrap_or_else(|| panic!("{path} is in no layer"));
    index
}

/// The files that paths beginning with `crate::` name, as far as two parts tell; `crate::{…}` names
/// several.
fn imports(code: &str) -> Vec<String> {
    let mut imports = Vec::new();
    let flat = code.replace('\n', " ");
    for statement in flat.split("crate::").skip(1) {
        let end = statement.find([';', ')', '(', '<', '>']);
        let path = &statement[..end.unwrap_or(statement.len())];
        match path.strip_prefix('{') {
            Some(list) => {
                let list = list.split('}').next().unwrap_or_default().split(',');
                imports.extend(list.filter_map(|item| file_of(item.trim())));
            }
            None => imports.extend(file_of(path.split([' ', ',']).next().unwrap_or_default())),
        }
    }
    imports
}

fn file_of(path: &str) -> Option<String> {
    let mut parts = path.split("::");
    let first = parts.next().filter(|part| is_module(part))?;
    let exists = |path: &String| Path::new(path).exists();
    let second = parts.next().filter(|part| is_module(part));
    let file = second.map(|second| format!("src/{first}/{second}.rs"));
    let candidates = [file, Some(format!("src/{first}.rs"))];
    let found = candidates.into_iter().flatten().find(exists);
    Some(found.unwrap_or_else(|| format!("src/{first}/mod.rs")))
}

fn is_module(part: &str) -> bool {
    let lower = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
    !part.is_empty() && part.chars().all(lower)
}

/// Whether the code names a crate in a path.
fn names(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + name.len()..];
        let apart =
            before.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == ':' || c == '.'));
        apart && after.starts_with("::")
    })
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in ["src", "tests", "loadgen/src"] {
        walk(&root.join(folder), &mut paths);
    }
    paths.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("a source file is readable");
        let relative = path.strip_prefix(root).expect("all are below the root");
        Source {
            path: relative.to_string_lossy().into_owned(),
            code: code_of(&text),
            text,
        }
    };
    paths.iter().map(read).collect()
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the project") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// Without comments, and without the tests at the end.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let next_opens = lines
            .peek()
            .is_some_and(|next| next.trim() == "mod tests {");
        if line.trim() == "#[cfg(test)]" && next_opens {
            break;
        }
        let end = line.find("//").unwrap_or(line.len());
        code.push_str(&line[..end]);
        code.push('\n');
    }
    code
}

fn nothing<T: std::fmt::Debug>(what: &str, found: &[T]) {
    let each: Vec<String> = found.iter().map(|item| format!("  {item:?}")).collect();
    assert!(found.is_empty(), "{what}:\n{}", each.join("\n"));
}

#[test]
fn every_layer_has_files() {
    let sources = sources();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for source in sources
        .iter()
        .filter(|source| source.path.starts_with("src/"))
    {
        *count.entry(LAYERS[layer(&source.path)].0).or_default() += 1;
    }
    let empty: Vec<_> = LAYERS
        .iter()
        .filter(|(name, _)| !count.contains_key(name))
        .collect();
    nothing("layers without files", &empty);
}

/// The failures of others that the documentation lists are named by the tests that it names.
#[test]
fn pitfalls_have_their_tests() {
    let text = fs::read_to_string("docs/pitfalls.md").expect("it is there");
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("| ["))
        .collect();
    let is_missing = |row: &&&str| {
        let source = row
            .split(['[', ']'])
            .nth(1)
            .expect("a row names its source");
        let test = row.rsplit('`').nth(1).expect("a row names its test");
        !fs::read_to_string(test).is_ok_and(|text| text.contains(source))
    };
    assert!(rows.len() >= 19, "{} pitfalls", rows.len());
    let missing: Vec<_> = rows.iter().filter(is_missing).collect();
    nothing("without a test that names it", &missing);
}
