//! `mufakat cache watch`: events of cached values, one per line.

use clap::{Args, ValueEnum};

use crate::cli::events::{self, Wanted};
use crate::cli::{Connection, Failure};
use crate::client::events::Event;
use crate::client::{ClientError, Target};

/// Show events of cached values as they happen, until Ctrl-C
///
/// Each event is delivered at most once. Nodes number their events of each kind, so that a line can
/// say how many were missed before it. Values that are lost with a node have no event.
///
/// Examples:
///   mufakat cache watch
///   mufakat cache watch user.42 --event set
///   mufakat cache watch --prefix-of session. --event delete
///   mufakat cache watch --json | jq .key
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct WatchArgs {
    /// Only these keys.
    #[arg(value_name = "KEY")]
    keys: Vec<String>,
    /// Only keys that start with this; may be given several times.
    #[arg(long, value_name = "PREFIX")]
    prefix_of: Vec<String>,
    /// Only these events; may be given several times.
    #[arg(long = "event", value_enum, value_name = "EVENT")]
    events: Vec<Kind>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A value was written.
    Set,
    /// A value was deleted, invalidated or evicted, or it expired.
    Delete,
    /// An invalidation is complete; shown for any choice of keys.
    Invalidate,
}

pub(super) async fn run(connection: &Connection, args: WatchArgs) -> Result<(), Failure> {
    let client = connection.client(Target::Any).await?;
    let told = client.cache_events().await.map_err(ClientError::from)?;
    events::watch(connection, told, "key", |event| args.wants(event)).await
}

impl WatchArgs {
    fn wants(&self, event: &Event) -> bool {
        let wanted = Wanted {
            names: &self.keys,
            prefixes: &self.prefix_of,
            kinds: &self.events,
        };
        wanted.has(event, event.fields.get("key").into_iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::events::tests::event;

    #[test]
    fn a_watcher_hears_of_what_it_asked_for() {
        let args = WatchArgs {
            keys: vec!["a".to_owned()],
            prefix_of: vec!["s.".to_owned()],
            events: vec![Kind::Set, Kind::Invalidate],
        };
        let about =
            |name: &str, key: &str| args.wants(&event(name, serde_json::json!({"key": key})));
        assert!(about("cache.set", "a") && about("cache.set", "s.1"));
        assert!(!about("cache.set", "b") && !about("cache.delete", "a"));
        assert!(args.wants(&event("cache.invalidate", serde_json::json!({"all": true}))));
    }
}
