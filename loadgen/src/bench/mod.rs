//! `bench`: the standard set of workloads against a cluster of its own, and the page that says what came out.
//!
//! Everything is measured in one go on one machine: the raw echo of the broker first and what Redis can do by itself
//! last, so that each workload stands beside what was possible at all. The generator itself is measured by the echo
//! beside a loop written by hand, which goes half before the echo and half after it.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use clap::Parser;
use mufakat::broker::options::NatsOptions;

use crate::cli::{BenchFlags, Cli};
use crate::commands;
use crate::console;
use crate::crew::Role;
use crate::interrupt::interrupts;
use crate::report::{Report, files};
use crate::responder::{Form, Responder};
use crate::workload::resource::RunName;

mod by_hand;
mod cluster;
mod page;

use by_hand::ByHand;
use cluster::Cluster;

/// The standard set, as one would type it. The echo is the first, since what follows is set beside it.
const SET: &[&str] = &[
    "echo",
    "status --target spread",
    "locks",
    "locks --locks 10",
    "locks --locks 10 --shared 0.9",
    "locks --locks 100 --set 3",
    "locks --rate 1000 --arrivals poisson",
    "queue",
    "queue --batch 100",
    "cache --target spread",
    "cache --target spread --keys 10000 --reads 0.95",
    "cache --target spread --keys 10000 --zipf 1 --value-bytes 100-4096",
    "mix lock=3,queue=1,cache=6 --target spread",
    "redis",
];
/// Bytes of an echo by hand, the same as those of the command.
const ECHO_BYTES: usize = 16;

/// What was measured.
struct Results {
    reports: Vec<(&'static str, Report)>,
    by_hand: ByHand,
    redis_version: Option<String>,
}

/// Measures the set and writes the page. Returns whether every request was answered well.
///
/// # Errors
/// The cluster cannot be started, a workload could not be run, Ctrl-C came, or the page cannot be written.
pub async fn run(flags: &BenchFlags) -> Result<bool> {
    files::check_writable(&flags.page)?;
    let mufakat = match &flags.mufakat {
        Some(path) => path.clone(),
        None => cluster::program()?,
    };
    // The cluster does not hear of a Ctrl-C: from its start on, it is this program that ends it.
    let mut interrupts = interrupts()?;
    let cluster = Cluster::start(&mufakat, flags.port_base, &mut interrupts).await?;
    let measured = tokio::select! {
        measured = measure(&cluster, flags) => measured,
        _ = interrupts.recv() => Err(anyhow!("stopped")),
    };
    cluster.stop().await?;
    let results = measured?;
    let page = page::text(&results);
    std::fs::write(&flags.page, page)
        .with_context(|| format!("cannot write {}", flags.page.display()))?;
    console::print(format_args!("Wrote {}\n", flags.page.display()));
    Ok(results
        .reports
        .iter()
        .all(|(_, report)| report.error_count() == 0))
}

async fn measure(cluster: &Cluster, flags: &BenchFlags) -> Result<Results> {
    let mut reports = Vec::new();
    let mut by_hand = echo_by_hand(cluster, flags).await?;
    for command in SET {
        let cli = command_line(command, cluster, flags)?;
        let (report, _) = commands::execute(&cli, Role::Alone, RunName::new())
            .await
            .context(*command)?;
        console::print(crate::report::table::text(&report));
        if let Some(failure) = &report.failure {
            bail!("{command}: {failure}");
        }
        reports.push((*command, report));
        if *command == "echo" {
            by_hand = by_hand.plus(echo_by_hand(cluster, flags).await?);
        }
    }
    Ok(Results {
        reports,
        by_hand,
        redis_version: redis_version(&cluster.redis_url()).await,
    })
}

/// The command with the cluster's addresses and the set's own durations.
fn command_line(command: &str, cluster: &Cluster, flags: &BenchFlags) -> Result<Cli> {
    let mut words: Vec<String> = ["loadgen"].map(str::to_owned).to_vec();
    words.extend(command.split(' ').map(str::to_owned));
    let seconds = |length: Duration| format!("{}ms", length.as_millis());
    for (flag, value) in [
        ("--nats", cluster.nats_url()),
        ("--duration", seconds(flags.duration)),
        ("--warm-up", seconds(flags.warm_up)),
        ("--clients", flags.clients.to_string()),
    ] {
        words.extend([flag.to_owned(), value]);
    }
    match command {
        "echo" => {}
        "redis" => words.extend(["--redis".to_owned(), cluster.redis_url()]),
        _ => words.push("--skip-echo".to_owned()),
    }
    Cli::try_parse_from(words).with_context(|| format!("`{command}` is no command"))
}

/// Half of the measurement.
async fn echo_by_hand(cluster: &Cluster, flags: &BenchFlags) -> Result<ByHand> {
    let nats = NatsOptions {
        url: Some(cluster.nats_url()),
        ..NatsOptions::default()
    };
    let subject = RunName::new().with("by-hand");
    let payload = Bytes::from(vec![b'x'; ECHO_BYTES]);
    let responder = Responder::start(Form::Socket, &nats, &subject).await?;
    let half = flags.duration / 2;
    let measured = by_hand::measure(&nats, &subject, &payload, flags.clients, half).await;
    responder.stop()?;
    measured
}

async fn redis_version(url: &str) -> Option<String> {
    let client = redis::Client::open(url).ok()?;
    let mut connection = client.get_multiplexed_async_connection().await.ok()?;
    let mut info = redis::cmd("INFO");
    let info: String = info.arg("server").query_async(&mut connection).await.ok()?;
    let mut lines = info.lines();
    lines.find_map(|line| Some(line.strip_prefix("redis_version:")?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_begins_with_the_echo_and_ends_with_redis() {
        assert_eq!((SET[0], SET[SET.len() - 1]), ("echo", "redis"));
        for command in SET {
            let words = ["loadgen"].into_iter().chain(command.split(' '));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{command}: {error}");
            }
        }
    }
}
