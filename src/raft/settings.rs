//! What a node's configuration means to openraft.

use std::time::Duration;

use openraft::SnapshotPolicy;

use crate::config::Config;
use crate::ids::NodeId;

/// The settings of openraft that a node's configuration amounts to.
///
/// # Errors
/// When they contradict each other; the configuration's own checks come first.
pub fn settings(config: &Config) -> Result<openraft::Config, openraft::ConfigError> {
    let ms = |duration: Duration| duration.as_millis() as u64;
    openraft::Config {
        cluster_name: config.prefix.clone(),
        heartbeat_interval: ms(config.heartbeat),
        election_timeout_min: ms(config.election_min),
        election_timeout_max: ms(config.election_max),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        quorum_loss_probe_interval: Some(ms(probe_every(config))),
        // Entries are batches of commands; a few of them fill a message.
        max_payload_entries: ENTRIES_PER_MESSAGE,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_after(
            config.id,
            config.snapshot_entries,
        )),
        max_in_snapshot_log_to_keep: config.snapshot_keep_entries,
        replication_lag_threshold: 2 * config.snapshot_entries,
        ..openraft::Config::default()
    }
    .validate()
}

/// A leader that can send but not receive falls silent, so that another can be elected: nodes that hear of it
/// only so often do that in between.
pub fn probe_every(config: &Config) -> Duration {
    2 * config.election_max + config.heartbeat
}

/// Nodes begin their snapshots at different entries, by their ids up to a fifth earlier than is asked for,
/// so that they are seldom at it together: while one is, a majority is not slowed.
fn snapshot_after(id: NodeId, entries: u64) -> u64 {
    entries - entries / 20 * (id.0 % 5)
}

/// Entries in one message to a follower; the log store bounds their bytes.
const ENTRIES_PER_MESSAGE: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_nodes_begin_their_snapshots_at_five_different_entries() {
        let entries = |asked| (1..=5).map(move |id| snapshot_after(NodeId(id), asked));
        let begin = [9_500, 9_000, 8_500, 8_000, 10_000];
        assert_eq!(Vec::from_iter(entries(10_000)), begin);
        assert!(entries(1).all(|after| after == 1));
    }
}
