//! A load from two workers that a coordinator adds up.

use serde_json::Value;
use tempfile::TempDir;

mod broker;
mod program;

use broker::Broker;
use program::{ended, loadgen};

#[tokio::test]
async fn two_workers_are_one_load() {
    let (broker, _) = Broker::start().await;
    let directory = TempDir::new().expect("a directory");
    let json = directory.path().join("report.json");
    let worker = || loadgen(&broker, ["worker", "--once", "--group", "test"]);
    let workers = [worker(), worker()];
    let echo = [
        "echo",
        "--requests",
        "2001",
        "--clients",
        "7",
        "--warm-up",
        "0s",
    ];
    let results = ["--duration", "30s", "--json", json.to_str().expect("text")];
    let words = [&["coordinate", "--group", "test", "2"][..], &echo, &results].concat();
    let (code, said) = ended(loadgen(&broker, words)).await;
    assert_eq!(code, Some(0), "{said}");
    for worker in workers {
        let (code, said) = ended(worker).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(" of 2: loadgen echo"), "{said}");
    }

    let report = std::fs::read(&json).expect("a report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!(report["settings"]["workers"], 2);
    // Each request of each worker is there once: their shares together are what was asked for.
    let run = &report["runs"][0];
    assert_eq!(run["operations"][0]["count"], 2001, "{run}");
    let seconds = run["seconds"].as_array().expect("seconds");
    let counts = seconds
        .iter()
        .map(|second| second["operations"][0]["count"].as_u64());
    assert_eq!(counts.map(Option::unwrap_or_default).sum::<u64>(), 2001);
    assert!(run["operations"][0]["p99_ms"].as_f64() > Some(0.0));
}

#[tokio::test]
async fn a_command_that_fails_on_a_worker_fails_everywhere() {
    let (broker, _) = Broker::start().await;
    let worker = loadgen(&broker, ["worker", "--once"]);
    // No cluster answers on this broker.
    let words = ["coordinate", "1", "status", "--timeout", "1s"];
    let (code, said) = ended(loadgen(&broker, words)).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no node of the cluster answers"), "{said}");
    let (code, said) = ended(worker).await;
    assert_eq!(code, Some(1), "{said}");
}

#[tokio::test]
async fn what_one_process_has_to_see_whole_is_not_shared_out() {
    let (broker, _) = Broker::start().await;
    for (command, why) in [
        ("locks --check", "--check"),
        ("mix --chaos", "--chaos"),
        ("bench", "not a workload"),
    ] {
        let words: Vec<_> = ["coordinate", "1"]
            .into_iter()
            .chain(command.split(' '))
            .collect();
        let (code, said) = ended(loadgen(&broker, words)).await;
        assert_eq!(code, Some(1), "{command}: {said}");
        assert!(said.contains(why), "{command}: {said}");
    }
}
