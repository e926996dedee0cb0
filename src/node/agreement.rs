//! What has to be alike on all nodes, compared when a node comes.
//!
//! A cache is coherent only among nodes that keep values, and results of writes, in the same place: no message
//! says where that is. A node that differs from one that runs does not start. Who comes later finds the
//! difference, and of two that come together each does; what a version does not know it does not compare.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};

use crate::config::{CacheStore, Config};
use crate::ids::NodeId;
use crate::raft::call::{Caller, Trust};
use crate::raft::handle::Handle;
use crate::raft::message::Refusal;
use crate::raft::network::Network;

/// The kind of call that asks a node for its settings.
const SETTINGS: &str = "node.settings";
/// How long a node that runs has to answer; one that stalls is not waited for.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// Flags, and what they are set to.
type Shared = BTreeMap<String, String>;

/// A node that runs is set otherwise.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error(
    "--{flag} is `{here}` here and `{there}` on node {other}: it has to be alike on all nodes. Set it \
     as there, or stop all nodes to change it"
)]
pub struct Disagreement {
    flag: String,
    here: String,
    there: String,
    other: NodeId,
}

/// Answers other nodes that come.
pub(super) fn tell(network: &Network, config: &Config) {
    let told = Bytes::from(rmp_serde::to_vec(&shared(config)).expect("texts always encode"));
    let handler = move |_: Caller, _: Bytes| -> BoxFuture<'static, Result<Bytes, Refusal>> {
        Box::pin(std::future::ready(Ok(told.clone())))
    };
    network.handle(SETTINGS, Trust::Members, Arc::new(handler));
}

/// Compares this node's settings with those of all members that answer.
///
/// # Errors
/// The first difference.
pub(super) async fn compare(
    network: &Network,
    handle: &Handle,
    config: &Config,
) -> Result<(), Disagreement> {
    let me = network.identity().node;
    let members = handle.known_members().disks.into_keys();
    let others = members.filter(|node| *node != me);
    let asked = others.map(async |node| Some((node, ask(network, node).await?)));
    let here = shared(config);
    let answers = join_all(asked).await;
    let mut answers = answers.into_iter().flatten();
    answers.try_for_each(|(node, there)| agree(&here, node, &there))
}

/// What a node says; none if it does not run, or does not say.
async fn ask(network: &Network, node: NodeId) -> Option<Shared> {
    let answer = network.call_connected(node, SETTINGS, ANSWER_MAX).await;
    rmp_serde::from_slice(&answer.ok()?).ok()
}

fn shared(config: &Config) -> Shared {
    let store = match config.cache_store {
        CacheStore::None => "none",
        CacheStore::Redis => "redis",
    };
    let backups = if config.cache_backups { "on" } else { "off" };
    let flags = [("cache-store", store), ("cache-backups", backups)];
    flags
        .map(|(flag, set)| (flag.to_owned(), set.to_owned()))
        .into()
}

fn agree(here: &Shared, other: NodeId, there: &Shared) -> Result<(), Disagreement> {
    let differs = |(flag, here): (&String, &String)| {
        let there = there.get(flag).filter(|there| *there != here)?;
        Some(Disagreement {
            flag: flag.clone(),
            here: here.clone(),
            there: there.clone(),
            other,
        })
    };
    here.iter().find_map(differs).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(flags: &[(&str, &str)]) -> Shared {
        let owned = |&(flag, set): &(&str, &str)| (flag.to_owned(), set.to_owned());
        flags.iter().map(owned).collect()
    }

    #[test]
    fn what_both_know_has_to_be_alike_and_what_one_knows_does_not_count() {
        let here = set(&[
            ("cache-backups", "on"),
            ("cache-store", "none"),
            ("new", "1"),
        ]);
        let agree = |there: &[(&str, &str)]| agree(&here, NodeId(3), &set(there));
        assert_eq!(
            agree(&[("cache-backups", "on"), ("cache-store", "none")]),
            Ok(())
        );
        assert_eq!(agree(&[("cache-store", "none"), ("old", "1")]), Ok(()));
        assert_eq!(agree(&[]), Ok(()));
        let wrong = agree(&[("cache-backups", "on"), ("cache-store", "redis")]);
        assert_eq!(
            wrong.expect_err("it differs").to_string(),
            "--cache-store is `none` here and `redis` on node 3: it has to be alike on all nodes. Set it \
             as there, or stop all nodes to change it"
        );
    }
}
