//! Events that are watched, as lines for people.

use std::fmt::Write;

use clap::ValueEnum;
use serde_json::Value;

use crate::cli::lock::lines::length;
use crate::cli::reader::while_read;
use crate::cli::{Connection, Failure};
use crate::client::ClientError;
use crate::client::events::{Event, Events};

/// The filter of a watcher. Empty fields let everything pass.
pub(super) struct Wanted<'a, K> {
    pub names: &'a [String],
    /// Prefixes of names.
    pub prefixes: &'a [String],
    /// Named as the events, without the service.
    pub kinds: &'a [K],
}

impl<K: ValueEnum> Wanted<'_, K> {
    /// Whether to show an event about these names. An event that is about no name passes any choice of names.
    pub(super) fn has<'a>(&self, event: &Event, about: impl Iterator<Item = &'a Value>) -> bool {
        let (_, name) = event.event.split_once('.').unwrap_or_default();
        let is = |kind: &K| {
            let value = kind.to_possible_value();
            value.is_some_and(|value| value.get_name() == name)
        };
        let named = |about: &str| {
            let begins = |prefix: &String| about.starts_with(&**prefix);
            self.names.iter().any(|name| name == about) || self.prefixes.iter().any(begins)
        };
        let mut about = about.filter_map(Value::as_str).peekable();
        let any_kind = self.kinds.is_empty();
        let any_name = self.names.is_empty() && self.prefixes.is_empty();
        (any_kind || self.kinds.iter().any(is))
            && (any_name || about.peek().is_none() || about.any(named))
    }
}

/// Prints the wanted events until the connection ends or nobody reads. The name that an event is about is in its
/// field `subject`.
pub(super) async fn watch(
    connection: &Connection,
    mut events: Events,
    subject: &str,
    wants: impl Fn(&Event) -> bool,
) -> Result<(), Failure> {
    while_read(async {
        while let Some(event) = events.next().await.map_err(ClientError::from)? {
            if wants(&event) && !connection.print_to_reader(&event, |event| line(event, subject))? {
                break;
            }
        }
        Ok(())
    })
    .await
}

/// An event for people: its kind, the name in its field `subject`, then all other fields.
fn line(event: &Event, subject: &str) -> String {
    let kind = event
        .event
        .split_once('.')
        .map_or(&*event.event, |(_, kind)| kind);
    let mut line = format!("{kind:<9}");
    if let Some(about) = event.fields.get(subject).and_then(Value::as_str) {
        line.push(' ');
        line.push_str(about);
    }
    for (name, value) in &event.fields {
        // Writing into a string cannot fail.
        let _ = match (name.as_str(), value) {
            (name, _) if name == subject => Ok(()),
            (_, Value::Null) => Ok(()),
            ("cycle", Value::Array(edges)) => edges.iter().try_for_each(|edge| {
                let text = |field: &str| edge[field].as_str().unwrap_or("?").to_owned();
                let (owner, other) = (text("owner"), text("waits_for_owner"));
                write!(line, " {owner} → {other} ({})", text("resource"))
            }),
            (name, Value::Number(ms)) if name.ends_with("_ms") => {
                let name = name.trim_end_matches("_ms");
                write!(line, " {name}={}", length(ms.as_u64().unwrap_or(0)))
            }
            (name, Value::String(text)) => write!(line, " {name}={text}"),
            (name, value) => write!(line, " {name}={value}"),
        };
    }
    if event.missed > 0 {
        let _ = write!(line, " ({} missed before)", event.missed);
    }
    line
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli) fn event(name: &str, fields: serde_json::Value) -> Event {
        let fields = fields.as_object().expect("an object").clone();
        Event {
            event: name.to_owned(),
            missed: 0,
            fields,
        }
    }

    #[test]
    fn events_are_lines_for_people() {
        let granted = serde_json::json!({
            "resource": "a b", "owner": "me", "token": 7, "mode": "shared", "waited_ms": 1500,
        });
        let said = line(&event("lock.granted", granted), "resource");
        assert!(said.starts_with("granted   a b "), "{said}");
        for part in ["owner=me", "token=7", "mode=shared", "waited=1s 500ms"] {
            assert!(said.contains(part), "{said}");
        }
        let edge = serde_json::json!({"owner": "x", "waits_for_owner": "y", "resource": "r"});
        let cycle = event("lock.deadlock", serde_json::json!({"cycle": [edge]}));
        assert_eq!(line(&cycle, "resource"), "deadlock  x → y (r)");
        let mut set = event(
            "cache.set",
            serde_json::json!({"key": "k", "version": "3-1"}),
        );
        set.missed = 4;
        assert_eq!(
            line(&set, "key"),
            "set       k version=3-1 (4 missed before)"
        );
    }
}
