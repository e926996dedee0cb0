use std::collections::BTreeMap;

use super::*;
use crate::schedule::Sends;

fn figures(operation: &str, count: u64, errors: u64) -> Figures {
    let latency = Percentiles {
        mean_ms: 2.0,
        p50_ms: 1.5,
        p90_ms: 3.0,
        p95_ms: 3.25,
        p99_ms: 4.0,
        p999_ms: 8.25,
        max_ms: 12.0,
    };
    Figures {
        operation: operation.to_owned(),
        count,
        errors,
        errors_by_code: BTreeMap::from_iter((errors > 0).then(|| ("no_leader".to_owned(), errors))),
        rate: count as f64 / 60.0,
        latency,
        since_send: Percentiles {
            p50_ms: 1.25,
            ..latency
        },
        ..Figures::default()
    }
}

fn run(operations: Vec<Figures>) -> Run {
    Run {
        elapsed_s: 60.0,
        operations,
        ..Run::default()
    }
}

#[test]
fn the_reference_table_stands_beside_the_prototype() {
    let run = run(vec![
        figures("lock.acquire", 18_000, 0),
        figures("lock.release", 18_000, 0),
        figures("status", 0, 7),
    ]);
    let expected = "\
| operation    | count | errors | per second | p50 ms | p95 ms | p99 ms | p99.9 ms | max ms |
|--------------|-------|--------|------------|--------|--------|--------|----------|--------|
| lock.acquire | 18000 |      0 |      300.0 |   1.50 |   3.25 |   4.00 |     8.25 |  12.00 |
|   prototype  |     - |      - |       15.4 |  49.00 |  57.00 |  66.00 |        - |      - |
| lock.release | 18000 |      0 |      300.0 |   1.50 |   3.25 |   4.00 |     8.25 |  12.00 |
| status       |     0 |      7 |        0.0 |      - |      - |      - |        - |      - |
|   prototype  |     - |      - |          - |   6.00 |      - |      - |        - |      - |
| all          | 36000 |      7 |      600.0 |      - |      - |      - |        - |      - |
|   prototype  |     - |      - |       48.6 |      - |      - |      - |        - |      - |";
    let text = table(&run, true);
    assert_eq!(text, expected, "\n{text}");
    assert_eq!(errors(&run).as_deref(), Some("Errors: status no_leader 7"));
}

#[test]
fn details_and_the_latency_since_sending_stand_below_their_operation() {
    let mut run = run(vec![figures("cache.get", 600, 0)]);
    run.details = vec![
        figures("cache.get local", 540, 0),
        figures("cache.get miss", 0, 0),
    ];
    run.sends = Some(Sends {
        sent: 600,
        late: 3,
        dropped: 1,
    });
    let expected = "\
| operation       | count | errors | per second | p50 ms | p95 ms | p99 ms | p99.9 ms | max ms |
|-----------------|-------|--------|------------|--------|--------|--------|----------|--------|
| cache.get       |   600 |      0 |       10.0 |   1.50 |   3.25 |   4.00 |     8.25 |  12.00 |
|   since sending |       |        |            |   1.25 |   3.25 |   4.00 |     8.25 |  12.00 |
|   local         |   540 |      0 |        9.0 |   1.50 |   3.25 |   4.00 |     8.25 |  12.00 |
|   miss          |     0 |      0 |        0.0 |      - |      - |      - |        - |      - |";
    let text = table(&run, false);
    assert_eq!(text, expected, "\n{text}");
    let arrivals = "Arrivals: 600 sent, 3 of them late; 1 dropped";
    assert_eq!(sends(&run).as_deref(), Some(arrivals));
}

#[test]
fn one_operation_has_no_sum() {
    let text = table(&run(vec![figures("echo", 600_000, 0)]), false);
    assert_eq!(text.lines().count(), 3, "\n{text}");
    assert!(text.contains("|      10000 |"), "\n{text}");
}

#[test]
fn what_may_have_taken_effect_is_told_apart() {
    let mut failed = figures("queue.push", 1, 9);
    failed.unknown = 4;
    failed.refusals_by_code = BTreeMap::from([("queue_full".to_owned(), 2)]);
    let run = run(vec![failed]);
    let expected = "Errors: queue.push no_leader 9 (4 of them may have taken effect)";
    assert_eq!(errors(&run).as_deref(), Some(expected));
    let expected = "Refused, as foreseen: queue.push queue_full 2";
    assert_eq!(refusals(&run).as_deref(), Some(expected));
}

#[test]
fn the_summary_says_what_is_not_known() {
    let echo = BesideEcho {
        requests_per_second: 200_000.0,
        limit_per_second: 100_000.0,
        percent: 30.0,
    };
    let locks = LocksSummary {
        pairs_per_second: 30_000.0,
        beside_echo: Some(echo),
        commands_per_entry: None,
        commands_per_entry_note: Some("nobody leads".to_owned()),
    };
    assert_eq!(
        locks_summary(&locks),
        "Locks: 30000 pairs/s. Raw echo: 200000 requests/s, that is 100000 pairs/s. Locks reach 30.0 % of that.\n\
         Commands per Raft entry: not known (nobody leads)"
    );
    let known = LocksSummary {
        beside_echo: None,
        commands_per_entry: Some(47.25),
        ..locks
    };
    assert_eq!(
        locks_summary(&known),
        "Locks: 30000 pairs/s.\nCommands per Raft entry: 47.2 on average"
    );
}
