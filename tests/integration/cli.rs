//! The command line against a real cluster: what it prints and how it exits.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mufakat::protocol::status::Status;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::command_line::{
    Running, code, done, fails, full_disk, hearing_ctrl_c, mufakat, run, stderr, stdout,
};
use crate::{locks, wait, wire};

#[tokio::test]
async fn each_verb_prints_its_answer_and_exits_as_documented() {
    let cluster = Cluster::start(Options::default()).await;
    let meta = r#"{"job":"x"}"#;
    let acquire = [
        "lock", "acquire", "c.1", "--owner", "me", "--ttl", "1m", "--meta", meta,
    ];
    let held = done(&cluster, &acquire).await;
    let token = held["token"].to_string();
    assert_eq!(held["owner"], "me");
    let why = fails(&cluster, &["lock", "acquire", "c.1", "--owner", "you"], 75).await;
    assert!(
        why.contains("held by me (exclusive)") && why.contains(meta),
        "{why}"
    );
    let waits = [
        "lock", "acquire", "c.1", "--owner", "you", "--wait", "100ms",
    ];
    fails(&cluster, &waits, 75).await;
    for mode in [&["--mode", "shared"][..], &["--shared"]] {
        let shared = [&["lock", "acquire", "c.2", "--json"], mode].concat();
        assert_eq!(done(&cluster, &shared).await["mode"], "shared");
    }

    for stale in [None, Some("--stale")] {
        let words: Vec<&str> = ["lock", "get", "c.1"].into_iter().chain(stale).collect();
        let view = done(&cluster, &words).await;
        assert_eq!(view["holders"][0]["meta"], json!({"job": "x"}));
    }
    let checked = done(&cluster, &["lock", "check", "c.1", &token]).await;
    assert_eq!(checked["valid"], true);
    let renewed = done(&cluster, &["lock", "renew", "c.1", &token, "--ttl", "10m"]).await;
    assert!(renewed["expires_in_ms"].as_u64() > Some(500_000));
    let released = done(&cluster, &["lock", "release", "c.1", &token]).await;
    assert_eq!(released["released"], true);
    fails(&cluster, &["lock", "release", "c.1", &token], 1).await;
    fails(&cluster, &["lock", "renew", "c.1", &token], 1).await;
    let output = run(&cluster, &["lock", "check", "c.1", &token]).await;
    assert_eq!(code(&output), 1);
    assert!(stdout(&output).contains(r#""valid":false"#));

    let status = done(&cluster, &["status", "--node", "2"]).await;
    let status: Status = serde_json::from_value(status).expect("the fields of a status");
    assert_eq!(status.node.0, 2);
    let metrics = run(&cluster, &["metrics"]).await;
    assert_eq!(code(&metrics), 0);
    assert!(stdout(&metrics).ends_with("# EOF\n"));
    let metrics = run(&cluster, &["metrics", "--json"]).await;
    let metrics: Value = serde_json::from_str(stdout(&metrics)).expect("it is JSON");
    let build = metrics.as_array().expect("a list").iter();
    let build = build.filter(|family| family["name"] == "mufakat_build");
    assert_eq!(build.count(), 1, "{metrics}");
}

#[tokio::test]
async fn wrong_usage_and_missing_servers_have_exit_codes_of_their_own() {
    let mut cluster = Cluster::start(Options::default()).await;
    fails(&cluster, &["lock", "acquire"], 2).await;
    fails(&cluster, &["lock", "acquire", "a", "--ttl", "30"], 2).await;
    fails(&cluster, &["lock", "acquire", "a", "--ttl", "1ms"], 1).await;
    fails(&cluster, &["lock", "run", "a"], 2).await;
    // Another prefix: the broker is there, nodes are not.
    fails(&cluster, &["lock", "get", "a", "--prefix", "nobody"], 69).await;
    cluster.kill_broker();
    fails(&cluster, &["status"], 69).await;
}

#[tokio::test]
async fn a_command_runs_under_its_lock() {
    let cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let script = "echo token $MUFAKAT_TOKEN of $MUFAKAT_RESOURCE; exit 7";
    let output = run(&cluster, &["lock", "run", "r", "--", "sh", "-c", script]).await;
    assert_eq!(code(&output), 7, "{}", stderr(&output));
    let said = stdout(&output);
    assert!(
        said.starts_with("token ") && said.ends_with(" of r\n"),
        "{said}"
    );
    let token: u64 = said.split(' ').nth(1).unwrap().parse().expect("a number");
    assert_eq!(locks::get(&nats, "r").await.holders, []);

    let check = "exec \"$0\" lock check \"$MUFAKAT_RESOURCE\"";
    let ours = env!("CARGO_BIN_EXE_mufakat");
    let inside = ["lock", "run", "r", "--", "sh", "-c", check, ours];
    assert_eq!(done(&cluster, &inside).await["valid"], true);
    let killed = ["lock", "run", "r", "--", "sh", "-c", "kill -9 $$"];
    fails(&cluster, &killed, 128 + 9).await;
    fails(
        &cluster,
        &["lock", "run", "r", "--", "./no-such-program"],
        127,
    )
    .await;
    fails(&cluster, &["lock", "run", "r", "--", "/etc/passwd"], 126).await;
    let next = locks::acquire(&nats, "r", "next", 60_000).await;
    assert!(next > token);
    let why = fails(&cluster, &["lock", "run", "r", "--", "true"], 75).await;
    assert!(why.contains("held by next"), "{why}");
}

#[tokio::test]
async fn signals_are_passed_on_to_the_command() {
    let cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let script = "trap 'exit 5' TERM; echo $$; while :; do sleep 0.1; done";
    let mut running = Running::start(&cluster, "s", "30s", script).await;
    assert_eq!(locks::get(&nats, "s").await.holders.len(), 1);
    let pid = running.child.id().expect("it runs") as i32;
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).expect("it runs");
    assert_eq!(running.exit_code().await, Some(5));
    assert!(!running.command_runs());
    assert_eq!(locks::get(&nats, "s").await.holders, []);
}

/// Until the end of the wait and of the command nothing is left behind: neither a place in the queue
/// nor a process of the group (consul#2022: the shell was stopped, its child ran on).
#[tokio::test]
async fn a_loss_ends_the_whole_process_group() {
    let mut cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let script = "sleep 600 & echo $!; wait";
    let mut running = Running::start(&cluster, "g", "30s", script).await;
    let held = locks::get(&nats, "g").await.holders;
    // Somebody takes the lock away, and the next renewal says so.
    locks::release(&nats, "g", held[0].token).await;
    let next = locks::acquire(&nats, "g", "next", 60_000).await;
    assert!(next > held[0].token);
    assert_eq!(running.exit_code().await, Some(76));
    wait::until("the command's own child is gone", async || {
        (!running.command_runs()).then_some(())
    })
    .await;
    cluster.kill_broker();
}

/// Whether anybody can read what it says makes no difference.
#[tokio::test]
async fn a_loss_that_cannot_be_told_ends_the_whole_process_group() {
    let cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let script = "sleep 600 & echo $!; wait";
    let mut line = mufakat(&cluster, &["lock", "run", "g", "--", "sh", "-c", script]);
    line.stderr(full_disk());
    let mut running = Running::of(line).await;
    let held = locks::get(&nats, "g").await.holders;
    locks::release(&nats, "g", held[0].token).await;
    assert_eq!(running.exit_code().await, Some(76));
    wait::until("the command's own child is gone", async || {
        (!running.command_runs()).then_some(())
    })
    .await;
    let checked = mufakat(&cluster, &["config", "check", "--id", "1", "--peers", "1"])
        .args(["--data-dir", "/nowhere"])
        .stdout(full_disk())
        .output();
    let checked = checked.expect("it starts");
    assert_eq!(code(&checked), 1, "{}", stderr(&checked));
    assert!(stderr(&checked).starts_with("mufakat: "), "no panic");
}

/// `nohup` starts what is to outlive its terminal with SIGHUP ignored.
#[tokio::test]
async fn signals_that_were_ignored_at_the_start_stay_ignored() {
    let cluster = Cluster::start(Options::default()).await;
    let line = mufakat(&cluster, &["lock", "run", "n", "--", "sh", "-c"]);
    let files = tempfile::tempdir().expect("a directory");
    let go = files.path().join("go");
    let script = format!(
        "echo $$; until test -e {}; do sleep 0.1; done",
        go.display()
    );
    let mut under_nohup = Command::new("sh");
    under_nohup
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
        .arg(line.get_program())
        .args(line.get_args())
        .arg(&script)
        .env("NATS_URL", cluster.nats_url())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = Running::of(under_nohup).await;
    let pid = running.child.id().expect("it runs") as i32;
    kill_process(Pid::from_raw(pid).unwrap(), Signal::HUP).expect("it runs");
    std::fs::write(go, "").expect("a file");
    assert_eq!(running.exit_code().await, Some(0));
}

/// An election in the middle of the command is no loss (consul#1162).
#[tokio::test]
async fn a_command_outlives_a_change_of_leader() {
    let mut cluster = Cluster::start(Options::default()).await;
    let script = "echo $$; trap 'exit 3' USR1; while :; do sleep 0.05; done";
    let mut running = Running::start(&cluster, "e", "3s", script).await;
    let leader = cluster.all_follow().await;
    cluster.kill(leader);
    let nats = cluster.nats().await;
    wait::until("a renewal by the next leader", async || {
        let body = json!({"resource": "e"});
        let seen = wire::request_until_ok(&nats, "mufakat.lock.get", &body).await;
        // Longer than the lease lasts without one.
        (seen["holders"][0]["held_ms"].as_u64()? > 4_000).then_some(())
    })
    .await;
    assert!(running.command_runs(), "the command was stopped");
    let pid = running.child.id().expect("it runs") as i32;
    kill_process(Pid::from_raw(pid).unwrap(), Signal::USR1).expect("it runs");
    assert_eq!(running.exit_code().await, Some(3), "USR1 is passed on");
}

/// The command is gone before anybody else can have the lock (consul#9788: it was told to stop long
/// after the lock had gone to another).
#[tokio::test]
async fn a_command_whose_lease_cannot_be_kept_is_stopped_before_its_end() {
    const TTL: Duration = Duration::from_secs(3);
    let mut cluster = Cluster::start(Options::default()).await;
    // It does not listen to SIGTERM, so that only SIGKILL ends it.
    let script = "trap '' TERM; echo $$; while :; do sleep 0.1; done";
    let mut running = Running::start(&cluster, "k", "3s", script).await;
    cluster.kill_broker();
    let cut_off = Instant::now();
    wait::until("the command is stopped", async || {
        (!running.command_runs()).then_some(())
    })
    .await;
    let stopped = cut_off.elapsed();
    println!("stopped {stopped:?} after the broker was killed, lease {TTL:?}");
    assert!(
        stopped < TTL,
        "the lease was over at {TTL:?}, the command at {stopped:?}"
    );
    assert_eq!(running.exit_code().await, Some(76));
}

#[tokio::test]
async fn an_interrupted_wait_leaves_no_place_in_the_queue() {
    let cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let token = locks::acquire(&nats, "w", "holder", 600_000).await;
    let words = [
        "lock", "run", "w", "--owner", "w", "--wait", "60s", "--", "true",
    ];
    let mut line = tokio::process::Command::from(hearing_ctrl_c(mufakat(&cluster, &words)));
    let mut child = line.kill_on_drop(true).spawn().expect("it starts");
    wait::until("it waits", async || {
        (locks::get(&nats, "w").await.waiters == ["w"]).then_some(())
    })
    .await;
    let pid = child.id().expect("it runs") as i32;
    kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).expect("it runs");
    let ended = tokio::time::timeout(wait::LONG, child.wait()).await;
    assert_eq!(
        ended.expect("it ends").expect("our child").code(),
        Some(130)
    );
    assert_eq!(locks::get(&nats, "w").await.waiters, [""; 0]);
    let check = json!({"resource": "w", "token": token});
    let checked = wire::request_until_ok(&nats, "mufakat.lock.check", &check).await;
    assert_eq!(checked["valid"], true);
}

#[tokio::test]
async fn values_are_set_read_counted_and_removed() {
    let cluster = Cluster::start(Options::default()).await;
    let ada = r#"{"name":"Ada"}"#;
    let set = ["cache", "set", "user.42", ada, "--as-json", "--ttl", "10m"];
    let version = done(&cluster, &set).await["version"].clone();
    let found = done(&cluster, &["cache", "get", "user.42"]).await;
    assert_eq!(found["value"]["name"], "Ada", "{found}");
    assert_eq!(found["version"], version);
    fails(
        &cluster,
        &["cache", "set", "user.42", "x", "--if-absent"],
        1,
    )
    .await;
    let counted = done(&cluster, &["cache", "increment", "visits", "--by", "3"]).await;
    assert_eq!(counted["value"], 3, "{counted}");
    let explained = done(&cluster, &["cache", "explain", "visits"]).await;
    assert!(explained["home"].is_u64(), "{explained}");
    let stats = done(&cluster, &["cache", "stats", "--node", "1"]).await;
    assert!(stats["lease_ms"].is_u64(), "{stats}");
    let audited = done(&cluster, &["cache", "audit", "--node", "1"]).await;
    assert_eq!(audited["mismatches"], 0, "{audited}");
    let miss = run(
        &cluster,
        &["cache", "get", "page.8", "--claim", "9s", "--json"],
    )
    .await;
    assert_eq!(code(&miss), 1);
    let miss: serde_json::Value = serde_json::from_slice(&miss.stdout).expect("JSON");
    let claim = miss["claim"].as_str().expect("a claim");
    done(&cluster, &["cache", "set", "page.8", "x", "--claim", claim]).await;
    fails(
        &cluster,
        &["cache", "set", "page.8", "x", "--claim", claim],
        1,
    )
    .await;
    let tagged = ["cache", "set", "page.7", "x", "--tag", "author.42"];
    done(&cluster, &tagged).await;
    let invalidate = ["cache", "invalidate", "--tag", "author.42"];
    assert_eq!(done(&cluster, &invalidate).await["count"], 1);
    fails(&cluster, &["cache", "invalidate"], 2).await;
    let stale = ["cache", "set", "page.7", "x", "--fence", "page.7=1"];
    fails(&cluster, &stale, 1).await;
    let deleted = done(&cluster, &["cache", "delete", "user.42"]).await;
    assert_eq!(deleted["existed"], true, "{deleted}");
    let missed = run(&cluster, &["cache", "get", "user.42", "visits"]).await;
    assert_eq!(code(&missed), 1);
}

#[tokio::test]
async fn a_watcher_sees_what_happens_to_locks_a_line_each() {
    let cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let words = [
        "lock", "watch", "v.1", "--event", "granted", "--event", "released",
    ];
    let mut line = tokio::process::Command::from(mufakat(&cluster, &words));
    let mut child = line.kill_on_drop(true).spawn().expect("it starts");
    let out = child.stdout.take().expect("piped");
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(out));
    let first = wait::until("it watches", async || {
        let token = locks::acquire(&nats, "v.1", "me", 60_000).await;
        locks::acquire(&nats, "v.2", "me", 60_000).await;
        locks::release(&nats, "v.1", token).await;
        let limit = Duration::from_millis(500);
        tokio::time::timeout(limit, lines.next_line()).await.ok()
    })
    .await;
    let event: Value = serde_json::from_str(&first.expect("text").expect("a line")).expect("JSON");
    let kind = event["event"].as_str().expect("a name");
    assert!(["lock.granted", "lock.released"].contains(&kind), "{event}");
    assert_eq!(
        (&event["resource"], &event["owner"]),
        (&json!("v.1"), &json!("me"))
    );
}

#[tokio::test]
async fn what_goes_on_until_ctrl_c_ends_with_its_reader() {
    let options = Options {
        redis: true,
        ..Options::default()
    };
    let cluster = Cluster::start(options).await;
    let lines = [
        "lock watch",
        "cache watch --event set",
        "queue tail t",
        "status --watch",
    ];
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = tokio::process::Command::from(mufakat(&cluster, &words));
        let mut child = command.kill_on_drop(true).spawn().expect("it starts");
        // Nothing is written that would find it out.
        drop(child.stdout.take().expect("piped"));
        let output = tokio::time::timeout(wait::LONG, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{line} goes on"));
        let output = output.expect("it is our child");
        assert_eq!((code(&output), stderr(&output)), (0, ""), "{line}");
    }
}
