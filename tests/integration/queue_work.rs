//! `mufakat queue …` as people and scripts use it.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr};

use crate::cluster::Cluster;
use crate::command_line::{
    code, done, fails, full_disk, hearing_ctrl_c, mufakat, run, stderr, stdout,
};
use crate::lock_run::on_terminal;
use crate::queue::{messages, start};
use crate::wait;

/// A `queue work` with a process group of its own, as a shell starts it on a terminal.
struct Work {
    child: Child,
    pid: Pid,
    /// What it writes to stderr, if that is ours.
    says: Option<Lines<BufReader<ChildStderr>>>,
}

impl Work {
    fn start(cluster: &Cluster, words: &[&str]) -> Work {
        let line = mufakat(cluster, &[&["queue", "work"], words].concat());
        Self::of(hearing_ctrl_c(line))
    }

    fn of(mut command: std::process::Command) -> Work {
        command.process_group(0);
        let mut command = tokio::process::Command::from(command);
        let mut child = command.kill_on_drop(true).spawn().expect("it starts");
        let pid = child.id().and_then(|id| Pid::from_raw(id as i32));
        let says = child.stderr.take().map(|out| BufReader::new(out).lines());
        Work {
            pid: pid.expect("it runs"),
            child,
            says,
        }
    }

    /// The next line that it writes to stderr.
    async fn says(&mut self) -> String {
        let says = self.says.as_mut().expect("stderr is a pipe");
        let line = tokio::time::timeout(wait::LONG, says.next_line()).await;
        let line = line.expect("a line in time").expect("it can be read");
        line.expect("one more line")
    }

    async fn ends(mut self) -> Option<i32> {
        let ended = tokio::time::timeout(wait::LONG, self.child.wait()).await;
        ended.expect("it ends").expect("our child").code()
    }
}

#[tokio::test]
async fn queue_work_runs_a_command_for_each_message() {
    let (cluster, queue) = start(1).await;
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mufakat"));
        command
            .arg("queue")
            .args(arguments)
            .env("NATS_URL", cluster.nats_url());
        command.output().await.expect("the program runs")
    };
    let pushed = run(&["push", "a", "fine", "--id", "x"]).await;
    assert!(pushed.status.success(), "{pushed:?}");
    run(&["push", "a", "broken"]).await;
    queue
        .ok(
            "queue.configure",
            json!({"topic": "a", "max_deliveries": 1}),
        )
        .await;
    let script = "read line; echo \"$MUFAKAT_ID $line\"; test \"$line\" = fine";
    let worked = run(&["work", "a", "--until-empty", "--", "sh", "-c", script]).await;
    assert!(worked.status.success(), "{worked:?}");
    assert_eq!(
        String::from_utf8_lossy(&worked.stdout),
        "x fine\nseq-2 broken\n"
    );
    assert_eq!(queue.counts("a").await, [0, 0, 0, 1]);
    let redriven = run(&["redrive", "a"]).await;
    assert_eq!(
        String::from_utf8_lossy(&redriven.stdout),
        "{\"moved\":1,\"dead\":0}\n"
    );
    let popped = run(&["pop", "a"]).await;
    let popped: Value = serde_json::from_slice(&popped.stdout).expect("JSON");
    let receipt = popped["messages"][0]["receipt"]
        .as_str()
        .expect("a receipt");
    let acked = run(&["ack", "a", receipt]).await;
    assert!(
        String::from_utf8_lossy(&acked.stdout).contains("\"acked\""),
        "{acked:?}"
    );
    run(&["push", "a", "late", "--id", "y"]).await;
    for code in [0, 1] {
        let cancelled = run(&["cancel", "a", "y"]).await;
        assert_eq!(cancelled.status.code(), Some(code), "{cancelled:?}");
    }
    let no_json = run(&["push", "a", "{", "--kind", "json"]).await;
    assert_eq!(no_json.status.code(), Some(2), "{no_json:?}");
    // A command that keeps its message longer than the visibility loses it to nobody.
    queue.push("b", json!("slow")).await;
    let work = [
        "work",
        "b",
        "--until-empty",
        "--visibility",
        "300ms",
        "--",
        "sleep",
        "1",
    ];
    assert!(run(&work).await.status.success());
    assert_eq!(queue.counts("b").await, [0; 4]);
    assert_eq!(queue.stats("b").await["acked"], 1);
}

/// One job is busy, the other one waits for a message when it is to take none any more.
#[tokio::test]
async fn queue_work_that_finishes_takes_no_more_messages() {
    let (cluster, queue) = start(1).await;
    queue.push("a", json!("long")).await;
    let files = tempfile::tempdir().expect("a directory");
    let go = files.path().join("go");
    let script = format!("until test -e {}; do sleep 0.1; done", go.display());
    let words = ["a", "--jobs", "2", "--visibility", "1h", "--", "sh", "-c"];
    let mut work = Work::start(&cluster, &[&words[..], &[&script]].concat());
    wait::until("one job is busy, the other one waits", async || {
        let stats = queue.stats("a").await;
        (stats["in_flight"] == 1 && stats["waiters"] == 1).then_some(())
    })
    .await;
    kill_process(work.pid, Signal::TERM).expect("it runs");
    assert!(work.says().await.contains("no more messages"));
    queue.push("a", json!("late")).await;
    let body = json!({"topic": "a", "consumer": "c", "wait_ms": 10_000});
    let late = wait::until("somebody else gets it", async || {
        messages(&queue.ok("queue.pop", body.clone()).await).pop()
    })
    .await;
    assert_eq!(late["payload"], "late");
    queue.ack("a", &late["receipt"]).await;
    std::fs::write(go, "").expect("a file");
    assert_eq!(work.ends().await, Some(0));
    assert_eq!(queue.counts("a").await, [0; 4], "the first one is done");
}

/// On a terminal Ctrl-C is for all of a process group: the commands are in groups of their own.
#[tokio::test]
async fn queue_work_finishes_at_the_first_ctrl_c_and_stops_at_the_second() {
    let (cluster, queue) = start(1).await;
    let files = tempfile::tempdir().expect("a directory");
    let path = |name: &str| files.path().join(name);
    let (go, began) = (path("go"), path("began"));
    let script = format!(
        "touch {}; until test -e {}; do sleep 0.1; done",
        began.display(),
        go.display()
    );
    let words = ["a", "--visibility", "1h", "--", "sh", "-c", &script];
    let runs = async || {
        wait::until("the command runs", async || began.exists().then_some(())).await;
        std::fs::remove_file(&began).expect("it is there");
    };
    queue.push("a", json!("finished")).await;
    let mut work = Work::start(&cluster, &words);
    runs().await;
    kill_process_group(work.pid, Signal::INT).expect("it runs");
    assert!(work.says().await.contains("no more messages"));
    std::fs::write(&go, "").expect("a file");
    assert_eq!(work.ends().await, Some(0));
    assert_eq!(queue.counts("a").await, [0; 4]);

    std::fs::remove_file(&go).expect("it is there");
    queue.push("a", json!("stopped")).await;
    let mut work = Work::start(&cluster, &words);
    runs().await;
    kill_process_group(work.pid, Signal::INT).expect("it runs");
    assert!(work.says().await.contains("no more messages"));
    kill_process_group(work.pid, Signal::INT).expect("it runs");
    assert!(work.says().await.contains("stopping"));
    assert_eq!(work.ends().await, Some(0));
    assert_eq!(queue.counts("a").await, [1, 0, 0, 0], "it is handed back");
    let popped = queue.pop("a", 1).await;
    let why = popped[0]["last_error"].as_str().expect("a reason");
    assert!(why.contains("stopped together with the worker"), "{why}");
}

/// A command that takes its time to stop is still at work on its message: nobody else gets that.
#[tokio::test]
async fn queue_work_keeps_messages_until_their_commands_have_stopped() {
    let (cluster, queue) = start(1).await;
    let files = tempfile::tempdir().expect("a directory");
    let path = |name: &str| files.path().join(name);
    let (began, go, ended) = (path("began"), path("go"), path("ended"));
    let script = |code: i32| {
        let (began, go, ended) = (began.display(), go.display(), ended.display());
        let on_term = format!("until test -e {go}; do sleep 0.1; done; touch {ended}; exit {code}");
        format!("trap '{on_term}' TERM; touch {began}; while :; do sleep 0.1; done")
    };
    let stopped_twice = async |script: &str| {
        let words = ["a", "--visibility", "1s", "--", "sh", "-c", script];
        let mut work = Work::start(&cluster, &words);
        wait::until("the command runs", async || began.exists().then_some(())).await;
        std::fs::remove_file(&began).expect("it is there");
        kill_process(work.pid, Signal::TERM).expect("it runs");
        assert!(work.says().await.contains("no more messages"));
        kill_process(work.pid, Signal::TERM).expect("it runs");
        assert!(work.says().await.contains("stopping"));
        work
    };
    queue.push("a", json!("slow to stop")).await;
    let work = stopped_twice(&script(1)).await;
    let kept_until = async || {
        let body = json!({"topic": "a", "state": "in_flight"});
        let shown = queue.ok("queue.peek", body).await;
        shown["messages"][0]["visible_until_ms"].as_u64()
    };
    let first = kept_until().await.expect("it is in flight");
    wait::until("it is kept beyond its visibility", async || {
        let until = kept_until().await.expect("nobody else may have it");
        (until > first + 1_000).then_some(())
    })
    .await;
    std::fs::write(&go, "").expect("a file");
    let body = json!({"topic": "a", "consumer": "c", "wait_ms": 10_000});
    let next = messages(&queue.ok("queue.pop", body).await).pop();
    assert!(ended.exists(), "two had the message at once");
    let next = next.expect("it is handed back");
    queue.ack("a", &next["receipt"]).await;
    assert_eq!(work.ends().await, Some(0));

    queue.push("a", json!("finished all the same")).await;
    let work = stopped_twice(&script(0)).await;
    assert_eq!(work.ends().await, Some(0));
    assert_eq!(queue.counts("a").await, [0; 4], "it is done");
}

#[tokio::test]
async fn queue_work_finishes_also_where_it_cannot_say_so() {
    let (cluster, queue) = start(1).await;
    let files = tempfile::tempdir().expect("a directory");
    let path = |name: &str| files.path().join(name);
    let (began, go) = (path("began"), path("go"));
    let script = format!(
        "touch {}; until test -e {}; do sleep 0.1; done",
        began.display(),
        go.display()
    );
    queue.push("a", json!("finished")).await;
    let mut line = mufakat(&cluster, &["queue", "work", "a", "--", "sh", "-c", &script]);
    line.stderr(full_disk());
    let work = Work::of(line);
    wait::until("the command runs", async || began.exists().then_some(())).await;
    kill_process(work.pid, Signal::TERM).expect("it runs");
    std::fs::write(&go, "").expect("a file");
    assert_eq!(work.ends().await, Some(0));
    assert_eq!(queue.counts("a").await, [0; 4]);
}

/// On a terminal the system stops what reads from it without being in its foreground, and says so to nobody.
#[tokio::test]
async fn queue_work_ends_a_command_that_wants_the_terminal() {
    let (cluster, queue) = start(1).await;
    let settings = json!({"topic": "a", "max_deliveries": 1});
    queue.ok("queue.configure", settings).await;
    queue.push("a", json!("who is there?")).await;
    let line = "$0 queue work a --until-empty --visibility 300ms -- sh -c 'read answer </dev/tty'";
    let mut on_terminal = tokio::process::Command::from(on_terminal(&cluster, line));
    on_terminal.kill_on_drop(true);
    let mut running = on_terminal.spawn().expect("it starts");
    // Its input stays open, as that of a terminal does.
    let _input = running.stdin.take();
    let output = tokio::time::timeout(wait::LONG, running.wait_with_output()).await;
    let output = output.expect("it ends").expect("our child");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("wants the terminal"), "{said}");
    assert_eq!(queue.counts("a").await, [0, 0, 0, 1]);
}

/// As base64 the greatest payload does not go through the broker.
#[tokio::test]
async fn queue_verbs_carry_the_greatest_binary_payload() {
    const BYTES: usize = 900 * 1024;
    let (cluster, queue) = start(1).await;
    let payload: Vec<u8> = (0..BYTES).map(|nth| (nth % 251) as u8).collect();
    let mut command = mufakat(&cluster, &["queue", "push", "a", "--kind", "binary"]);
    let mut pushing = command.stdin(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = pushing.stdin.take().expect("it is a pipe");
    let feeding = payload.clone();
    let pushed = tokio::task::spawn_blocking(move || {
        stdin.write_all(&feeding).expect("it reads");
        drop(stdin);
        pushing.wait_with_output().expect("it ends")
    });
    let pushed = pushed.await.expect("no panic");
    assert!(pushed.status.success(), "{pushed:?}");
    queue.push("b", json!({"n": 1.0})).await;
    queue.push("b", json!("tex\"t")).await;
    queue
        .ok(
            "queue.push",
            json!({"topic": "b", "payload_base64": "AP8="}),
        )
        .await;

    let is_whole = |message: &Value| {
        let base64 = message["payload_base64"].as_str().expect("it is binary");
        assert_eq!(
            (base64.len(), &message["encoding"]),
            (BYTES.div_ceil(3) * 4, &json!("binary"))
        );
        assert!(message["payload"].is_null());
    };
    is_whole(&done(&cluster, &["queue", "peek", "a"]).await["messages"][0]);
    is_whole(
        &done(
            &cluster,
            &["queue", "tail", "a", "--after", "0", "--count", "1"],
        )
        .await,
    );
    is_whole(&done(&cluster, &["queue", "pop", "a", "--visibility", "100ms"]).await["messages"][0]);
    let words = ["queue", "work", "a", "--until-empty", "--", "wc", "-c"];
    let counted = wait::until("the message is ready again", async || {
        let worked = run(&cluster, &words).await;
        let counted = stdout(&worked).trim().to_owned();
        (!counted.is_empty()).then_some(counted)
    })
    .await;
    assert_eq!(counted, BYTES.to_string());

    // Others are shown as they always were.
    let shown = run(&cluster, &["queue", "pop", "b", "--max", "3"]).await;
    for expected in [
        r#""payload":{"n":1.0},"#,
        r#""payload":"tex\"t","#,
        r#""payload_base64":"AP8=","#,
    ] {
        assert!(stdout(&shown).contains(expected), "{}", stdout(&shown));
    }
}

/// Both are the first delivery of the first message of their topic.
#[tokio::test]
async fn queue_a_receipt_of_another_topic_is_stale() {
    let (_cluster, queue) = start(1).await;
    let mut receipts = Vec::new();
    for topic in ["a", "b"] {
        assert_eq!(queue.push(topic, json!(1)).await, 1);
        receipts.push(queue.pop(topic, 1).await[0]["receipt"].clone());
    }
    assert_eq!(queue.ack("a", &receipts[0]).await, "acked");
    assert_eq!(queue.ack("a", &receipts[1]).await, "stale_receipt");
    let forged = json!("1.1.00000000000000ff");
    assert_eq!(queue.ack("a", &forged).await, "stale_receipt");
    assert_eq!(queue.ack("a", &receipts[0]).await, "already_acked");
    assert_eq!(queue.ack("b", &receipts[1]).await, "acked");
}

#[tokio::test]
async fn queue_work_says_what_failed_and_does_not_wait_for_a_paused_topic() {
    let (cluster, queue) = start(1).await;
    let settings = json!({"topic": "a", "max_deliveries": 1});
    queue.ok("queue.configure", settings).await;
    queue.push("a", json!("x")).await;
    let words = ["queue", "work", "a", "--until-empty", "--", "false"];
    let worked = run(&cluster, &words).await;
    assert_eq!(code(&worked), 0);
    assert!(
        stderr(&worked).contains("seq-1 is returned to the queue: exit status: 1"),
        "{worked:?}"
    );
    queue.ok("queue.pause", json!({"topic": "a"})).await;
    let paused = fails(&cluster, &words, 1).await;
    assert!(paused.contains("paused"), "{paused}");
}
