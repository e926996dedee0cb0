//! How many commands a Raft entry carries, read from the leader's metrics before and after a run.

use anyhow::{Context, Result, bail};
use mufakat::client::Client;
use mufakat::ids::NodeId;

/// Commands in all entries since the node started, and how many entries that were.
const COMMANDS: &str = "mufakat_raft_batch_commands_sum";
const ENTRIES: &str = "mufakat_raft_batch_commands_count";

/// What the leader had counted at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batches {
    leader: NodeId,
    commands: f64,
    entries: f64,
}

impl Batches {
    /// Asks the leader.
    ///
    /// # Errors
    /// Nobody leads or answers, or the metrics are not among those of the node.
    pub async fn read(client: &Client) -> Result<Self> {
        let leader = client.status().await?.leader.context("nobody leads")?;
        let metrics = client.metrics_of(leader).await?.metrics;
        let (commands, entries) = (sum_of(&metrics, COMMANDS), sum_of(&metrics, ENTRIES));
        let missing = || format!("node {leader} has no metric {COMMANDS}");
        Ok(Self {
            leader,
            commands: commands.with_context(missing)?,
            entries: entries.with_context(missing)?,
        })
    }

    /// The mean number of commands in the entries between `before` and now.
    ///
    /// # Errors
    /// The leader changed or restarted meanwhile, or there was no entry.
    pub fn commands_per_entry_since(&self, before: &Self) -> Result<f64> {
        if self.leader != before.leader || self.entries < before.entries {
            bail!("the leader changed or restarted during the run");
        }
        if self.entries == before.entries {
            bail!("there was no entry during the run");
        }
        Ok((self.commands - before.commands) / (self.entries - before.entries))
    }
}

/// The sum over all labels of a metric in the Prometheus text format; `None` if it does not occur.
fn sum_of(metrics: &str, name: &str) -> Option<f64> {
    let mut sum = None;
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix(name) else {
            continue;
        };
        let value = match rest.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once('}').map(|(_, value)| value),
            None => rest.strip_prefix(' '),
        };
        let value = value.and_then(|value| value.split_whitespace().next()?.parse::<f64>().ok());
        sum = value.map(|value| sum.unwrap_or(0.0) + value).or(sum);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# HELP mufakat_raft_batch_commands Commands in one entry.\n\
        # TYPE mufakat_raft_batch_commands histogram\n\
        mufakat_raft_batch_commands_sum 1200.0\n\
        mufakat_raft_batch_commands_count 100\n\
        mufakat_raft_batch_commands_bucket{le=\"1\"} 10\n\
        mufakat_locks{state=\"held\"} 3\n\
        mufakat_locks{state=\"waiting\"} 4\n";

    fn batches(leader: u64, commands: f64, entries: f64) -> Batches {
        Batches {
            leader: NodeId(leader),
            commands,
            entries,
        }
    }

    #[test]
    fn metrics_are_found_by_their_whole_name() {
        assert_eq!(sum_of(METRICS, COMMANDS), Some(1200.0));
        assert_eq!(sum_of(METRICS, ENTRIES), Some(100.0));
        assert_eq!(sum_of(METRICS, "mufakat_locks"), Some(7.0));
        assert_eq!(sum_of(METRICS, "mufakat_raft_batch"), None);
    }

    #[test]
    fn the_mean_is_that_of_the_run_alone() {
        let mean = batches(1, 6200.0, 200.0).commands_per_entry_since(&batches(1, 1200.0, 100.0));
        assert_eq!(mean.unwrap(), 50.0);
    }

    #[test]
    fn there_is_no_mean_over_two_leaders() {
        let before = batches(1, 1200.0, 100.0);
        for after in [batches(2, 6200.0, 200.0), batches(1, 12.0, 1.0), before] {
            assert!(
                after.commands_per_entry_since(&before).is_err(),
                "{after:?}"
            );
        }
    }
}
