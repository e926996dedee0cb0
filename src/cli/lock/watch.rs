//! `mufakat lock watch`: events of locks, one per line.

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::cli::events::{self, Wanted};
use crate::cli::{Connection, Failure};
use crate::client::events::Event;
use crate::client::{ClientError, Target};

/// Show events of locks as they happen, until Ctrl-C
///
/// Each event is delivered at most once. Events of the first moments, or of a time without a
/// connection, may be missing.
///
/// Examples:
///   mufakat lock watch
///   mufakat lock watch orders.42 orders.43
///   mufakat lock watch --prefix-of orders. --event expired --event deadlock
///   mufakat lock watch --json | jq .resource
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct WatchArgs {
    /// Only these locks.
    #[arg(value_name = "RESOURCE")]
    resources: Vec<String>,
    /// Only locks whose names start with this; may be given several times.
    #[arg(long, value_name = "PREFIX")]
    prefix_of: Vec<String>,
    /// Only these events; may be given several times.
    #[arg(long = "event", value_enum, value_name = "EVENT")]
    events: Vec<Kind>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A request got the lock.
    Granted,
    /// The holder released the lock, or an operator did.
    Released,
    /// The lease ended.
    Expired,
    /// A request was refused, since waiting would have closed a cycle.
    Deadlock,
    /// A request has to wait for the lock.
    Contended,
}

pub(super) async fn run(connection: &Connection, args: WatchArgs) -> Result<(), Failure> {
    let client = connection.client(Target::Any).await?;
    let told = client.lock_events().await.map_err(ClientError::from)?;
    events::watch(connection, told, "resource", |event| args.wants(event)).await
}

impl WatchArgs {
    fn wants(&self, event: &Event) -> bool {
        let wanted = Wanted {
            names: &self.resources,
            prefixes: &self.prefix_of,
            kinds: &self.events,
        };
        wanted.has(event, resources(event))
    }
}

/// The locks that an event is about.
fn resources(event: &Event) -> impl Iterator<Item = &Value> {
    let cycle = event.fields.get("cycle").and_then(Value::as_array);
    let of_edges = cycle
        .into_iter()
        .flatten()
        .filter_map(|edge| edge.get("resource"));
    event.fields.get("resource").into_iter().chain(of_edges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::events::tests::event;

    #[test]
    fn a_watcher_hears_of_what_it_asked_for() {
        let args = WatchArgs {
            resources: vec!["a".to_owned()],
            prefix_of: vec!["o.".to_owned()],
            events: vec![Kind::Expired, Kind::Deadlock],
        };
        let about = |name: &str, resource: &str| {
            args.wants(&event(name, serde_json::json!({"resource": resource})))
        };
        assert!(about("lock.expired", "a") && about("lock.expired", "o.1"));
        assert!(!about("lock.expired", "b") && !about("lock.granted", "a"));
        let cycle = serde_json::json!({"cycle": [{"resource": "z"}, {"resource": "a"}]});
        assert!(args.wants(&event("lock.deadlock", cycle)));
    }
}
