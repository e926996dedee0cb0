use std::collections::BTreeMap;

use super::*;

/// A shell that runs `script` as node 1, with its log in `directory`.
fn shell_line(directory: &Path, script: &str) -> Line {
    Line {
        name: "node-1".to_owned(),
        node: Some(1),
        words: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        prefix: &[],
        environment: BTreeMap::new(),
        log: directory.join("node-1.log"),
    }
}

/// Looks until there is something.
async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(now() < until, "{what}: not within 20 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn until_log_has(path: &Path, wanted: &str) {
    let what = format!("{wanted} comes to {}", path.display());
    until(&what, || {
        let log = fs::read_to_string(path).ok()?;
        log.contains(wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_end_is_reported_once_with_its_log() {
    let directory = tempfile::tempdir().expect("directory");
    let mut processes = Processes::default();
    let line = shell_line(directory.path(), "echo the log is damaged >&2; exit 3");
    let log = line.log.clone();
    processes.start(line).expect("start");
    until_log_has(&log, "damaged").await;
    let ended = until("it ends", || processes.ended().pop()).await;
    let text = ended.to_string();
    assert!(
        text.starts_with("node-1 ended by itself (exit status: 3)"),
        "{text}"
    );
    assert!(text.contains("start it: /bin/sh -c 'echo"), "{text}");
    assert_eq!(ended.last_lines(), "    the log is damaged");
    assert!(processes.ended().is_empty() && processes.nodes().next().is_none());
}

#[tokio::test]
async fn a_process_is_asked_to_stop_before_it_is_killed() {
    let directory = tempfile::tempdir().expect("directory");
    let mut processes = Processes::default();
    let polite = "trap 'echo drained >&2; exit 0' TERM; echo up >&2; while :; do sleep 0.01; done";
    let line = shell_line(directory.path(), polite);
    let log = line.log.clone();
    processes.start(line).expect("start");
    until_log_has(&log, "up").await;
    processes.stop(|_| true, Duration::from_secs(20)).await;
    until_log_has(&log, "drained").await;
    assert!(processes.running.is_empty());
}

#[tokio::test]
async fn a_stubborn_process_is_killed_and_the_other_left_alone() {
    let directory = tempfile::tempdir().expect("directory");
    let mut processes = Processes::default();
    let mut stubborn = shell_line(
        directory.path(),
        "trap '' TERM; echo up >&2; exec sleep 600",
    );
    stubborn.name = "stubborn".to_owned();
    let log = stubborn.log.clone();
    processes.start(stubborn).expect("start");
    until_log_has(&log, "up").await;
    let other = directory.path().join("other");
    fs::create_dir(&other).expect("directory");
    processes
        .start(shell_line(&other, "exec sleep 600"))
        .expect("start");
    let chosen = |process: &Process| process.name() == "stubborn";
    processes.stop(chosen, Duration::from_millis(50)).await;
    let left: Vec<&str> = processes.running.iter().map(Process::name).collect();
    assert_eq!(left, ["node-1"]);
    processes.kill().await;
}

#[tokio::test]
async fn orders_pause_kill_stop_and_start() {
    let directory = tempfile::tempdir().expect("directory");
    let mut processes = Processes::default();
    let polite = "trap 'echo drained >&2; exit 0' TERM; echo up >&2; while :; do sleep 0.01; done";
    let line = shell_line(directory.path(), polite);
    let log = line.log.clone();
    processes.start(line).expect("start");
    until_log_has(&log, "up").await;
    let name = || "node-1".to_owned();
    let started_twice = processes.obey(&Order::Start(name())).await;
    assert!(started_twice.is_err(), "it runs");

    // One that stands still hears that it is to stop.
    processes.obey(&Order::Pause(name())).await.expect("paused");
    processes.obey(&Order::Stop(name())).await.expect("stopped");
    until_log_has(&log, "drained").await;
    assert!(processes.ended().is_empty(), "it did not end by itself");
    assert!(processes.has_nodes() && processes.running().is_empty());
    assert_eq!(processes.stopped(), [name()]);

    processes
        .obey(&Order::Start(name()))
        .await
        .expect("started");
    until_log_has(&log, "up").await;
    processes.obey(&Order::Kill(name())).await.expect("killed");
    let log = fs::read_to_string(&log).expect("log");
    assert!(!log.contains("drained"), "{log}");
    for order in [Order::Kill(name()), Order::Resume(name())] {
        assert!(processes.obey(&order).await.is_err(), "it is gone");
    }
}

/// A Ctrl-C comes while an order waits for a node that drains.
#[tokio::test]
async fn a_stop_of_all_waits_for_a_process_that_an_order_has_told_to_end() {
    let directory = tempfile::tempdir().expect("directory");
    let mut processes = Processes::default();
    let gate = directory.path().join("gate");
    let slow = format!(
        "trap 'echo told >&2; until [ -e {} ]; do sleep 0.01; done; echo drained >&2; exit 0' TERM; \
         echo up >&2; while :; do sleep 0.01; done",
        gate.display()
    );
    let line = shell_line(directory.path(), &slow);
    let log = line.log.clone();
    processes.start(line).expect("start");
    until_log_has(&log, "up").await;
    let order = Order::Stop("node-1".to_owned());
    tokio::select! {
        _ = processes.obey(&order) => panic!("it drains"),
        () = until_log_has(&log, "told") => {}
    }
    assert_eq!(processes.running(), ["node-1"]);
    fs::write(gate, "").expect("write");
    processes.stop(|_| true, Duration::from_secs(20)).await;
    until_log_has(&log, "drained").await;
    let log = fs::read_to_string(&log).expect("log");
    assert_eq!(log.matches("told").count(), 1, "{log}");
}

#[tokio::test]
async fn a_process_that_could_not_be_started_may_be_ordered_again() {
    let directory = tempfile::tempdir().expect("directory");
    let (here, away) = (directory.path().join("here"), directory.path().join("away"));
    fs::create_dir(&here).expect("directory");
    let mut processes = Processes::default();
    processes
        .start(shell_line(&here, "exec sleep 600"))
        .expect("start");
    let name = || "node-1".to_owned();
    processes.obey(&Order::Kill(name())).await.expect("killed");
    fs::rename(&here, &away).expect("rename");
    let refused = processes.obey(&Order::Start(name())).await;
    assert!(refused.is_err(), "its log has no place");
    assert_eq!(processes.stopped(), [name()]);
    fs::rename(&away, &here).expect("rename");
    let started = processes.obey(&Order::Start(name())).await;
    started.expect("started");
    assert_eq!(processes.running(), [name()]);
    processes.kill().await;
}

#[tokio::test]
async fn the_log_of_the_run_before_is_kept() {
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("nats.log");
    fs::write(&log, "before").expect("write");
    new_log(&log).expect("new");
    assert_eq!(fs::read(&log).expect("read"), b"");
    assert_eq!(
        fs::read(directory.path().join("nats.log.old")).expect("read"),
        b"before"
    );
}

#[test]
fn warnings_are_found_by_their_level() {
    assert!(is_warning(b"2026-01-01T00:00:00Z  WARN mufakat: late\n"));
    assert!(is_warning(b"ERROR mufakat: gone\n"));
    assert!(!is_warning(
        b"2026-01-01T00:00:00Z  INFO mufakat: said WARN\n"
    ));
    assert!(!is_warning(b"\n"));
}

#[test]
fn command_lines_can_be_pasted() {
    let words = ["/a b/x", "--save", "", "it's", "1,2,3"].map(str::to_owned);
    assert_eq!(shell(&words), r"'/a b/x' --save '' 'it'\''s' 1,2,3");
}
