//! The command line's verbs for sets, permits, sessions, waits and operators against a real cluster.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::cluster::{Cluster, Options};
use crate::command_line::{code, done, fails, mufakat, run, stderr, stdout};
use crate::lock_run::on_terminal;
use crate::{locks, wait, wire};

#[tokio::test]
async fn sets_permits_and_conversions_have_verbs() {
    let cluster = Cluster::start(Options::default()).await;
    let set = done(
        &cluster,
        &["lock", "acquire", "v.a", "v.b", "--owner", "me"],
    )
    .await;
    let token = set["token"].to_string();
    assert_eq!(set["resources"].as_array().map(Vec::len), Some(2), "{set}");
    let why = fails(&cluster, &["lock", "acquire", "v.b"], 75).await;
    assert!(why.contains("held by me"), "{why}");
    done(&cluster, &["lock", "renew", "--set", &token, "--ttl", "1m"]).await;
    let list = done(&cluster, &["lock", "ls", "v."]).await;
    assert_eq!(list["locks"].as_array().map(Vec::len), Some(2), "{list}");
    done(&cluster, &["lock", "release", "--set", &token]).await;
    let list = done(&cluster, &["lock", "list", "v."]).await;
    assert_eq!(list["locks"], json!([]));

    let take = ["lock", "acquire", "p", "--permits", "2", "--limit", "3"];
    let permits = done(&cluster, &take).await;
    assert_eq!(
        (&permits["mode"], &permits["permits"]),
        (&json!("permit"), &json!(2))
    );
    fails(&cluster, &take, 75).await;
    fails(
        &cluster,
        &["lock", "acquire", "p", "--permits", "1", "--limit", "4"],
        1,
    )
    .await;
    fails(&cluster, &["lock", "acquire", "p", "--permits", "1"], 2).await;
    let shared = [
        "lock",
        "acquire",
        "s",
        "--permits",
        "1",
        "--limit",
        "3",
        "--mode",
        "shared",
    ];
    fails(&cluster, &shared, 1).await;
    let cancel = [
        "lock",
        "cancel",
        "s",
        "--request-id",
        "r",
        "--session",
        "none",
    ];
    fails(&cluster, &cancel, 1).await;

    let held = done(&cluster, &["lock", "acquire", "c"]).await;
    let token = held["token"].to_string();
    let shared = done(
        &cluster,
        &["lock", "convert", "c", &token, "--to", "shared"],
    )
    .await;
    assert_eq!(shared["mode"], "shared");
    fails(&cluster, &["lock", "release", "c", &token], 1).await;
    done(
        &cluster,
        &["lock", "release", "c", &shared["token"].to_string()],
    )
    .await;
}

#[tokio::test]
async fn waits_can_be_seen_and_ended() {
    let cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    locks::acquire(&nats, "g.1", "holder", 60_000).await;
    let wait_for = json!({"resource": "g.1", "owner": "waiter", "wait_ms": 60_000});
    let mut waiter = wire::send(&nats, "mufakat.lock.acquire", &wait_for).await;
    wait::until("it waits", async || {
        (locks::get(&nats, "g.1").await.waiters == ["waiter"]).then_some(())
    })
    .await;
    let graph = done(&cluster, &["lock", "graph"]).await;
    assert_eq!(graph["edges"][0]["waits_for_owner"], "holder", "{graph}");
    let output = run(&cluster, &["lock", "graph", "--dot"]).await;
    let dot = stdout(&output);
    assert!(
        dot.contains(r#""waiter" -> "holder" [label="g.1", style=solid];"#),
        "{dot}"
    );
    fails(&cluster, &["lock", "cancel", "g.1"], 2).await;
    let cancel = ["lock", "cancel", "g.1", "--owner", "waiter"];
    assert_eq!(done(&cluster, &cancel).await["cancelled"], true);
    waiter.answer(wait::LONG).await.expect("the waiter is told");
    let again = run(&cluster, &cancel).await;
    assert_eq!(again.status.code(), Some(1), "{}", stdout(&again));
    let recent = done(&cluster, &["lock", "deadlocks", "--limit", "5"]).await;
    assert_eq!(recent["deadlocks"], json!([]));
}

#[tokio::test]
async fn sessions_and_operators_have_verbs() {
    let cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let open = ["session", "open", "--ttl", "1m", "--name", "worker"];
    let id = done(&cluster, &open).await["session"]
        .as_str()
        .expect("an id")
        .to_owned();
    let take = ["lock", "acquire", "s.1", "--session", &id, "--owner", "me"];
    let token = done(&cluster, &take).await["token"].to_string();
    done(&cluster, &["session", "keepalive", &id]).await;
    let view = done(&cluster, &["session", "get", &id]).await;
    assert_eq!(
        (&view["name"], &view["held"]),
        (&json!("worker"), &json!(1)),
        "{view}"
    );
    let list = done(&cluster, &["session", "ls"]).await;
    assert_eq!(list["sessions"][0]["session"], json!(id));

    let why = ["--reason", "it hangs"];
    let take_away = [
        &["admin", "lock", "release", "s.1", "--token", &token][..],
        &why,
    ]
    .concat();
    let taken = done(&cluster, &take_away).await;
    assert_eq!(taken["holders"][0]["owner"], "me", "{taken}");
    fails(&cluster, &take_away, 1).await;
    fails(&cluster, &["admin", "lock", "release", "s.1"], 2).await;

    done(&cluster, &take).await;
    let closed = done(&cluster, &["session", "close", &id]).await;
    assert_eq!(closed["released"][0]["resource"], "s.1", "{closed}");
    assert!(locks::get(&nats, "s.1").await.holders.is_empty());
    fails(&cluster, &["session", "keepalive", &id], 1).await;
    let id = done(&cluster, &open).await["session"]
        .as_str()
        .expect("an id")
        .to_owned();
    done(
        &cluster,
        &[&["admin", "session", "close", &id][..], &why].concat(),
    )
    .await;
    fails(&cluster, &["session", "get", &id], 1).await;
}

/// The session is kept alive for as long as the command runs, and not ended with it.
#[tokio::test]
async fn a_command_runs_under_several_locks_and_a_session() {
    let cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let open = ["session", "open", "--ttl", "2s"];
    let id = done(&cluster, &open).await["session"]
        .as_str()
        .expect("an id")
        .to_owned();
    let script = "echo $MUFAKAT_RESOURCE; sleep 4";
    let words = [
        "lock",
        "run",
        "r.1",
        "r.2",
        "--session",
        &id,
        "--",
        "sh",
        "-c",
        script,
    ];
    let running = run(&cluster, &words).await;
    assert_eq!(running.status.code(), Some(0), "twice the session's length");
    assert_eq!(stdout(&running), "r.1 r.2\n");
    assert!(locks::get(&nats, "r.1").await.holders.is_empty());
    done(&cluster, &["session", "get", &id]).await;

    // Closed by somebody else, it takes the command with it.
    let script = "sleep 600";
    let words = [
        "lock",
        "run",
        "r.1",
        "--session",
        &id,
        "--",
        "sh",
        "-c",
        script,
    ];
    let mut line = tokio::process::Command::from(mufakat(&cluster, &words));
    let mut child = line.kill_on_drop(true).spawn().expect("it starts");
    wait::until("it holds the lock", async || {
        (locks::get(&nats, "r.1").await.holders.len() == 1).then_some(())
    })
    .await;
    done(&cluster, &["session", "close", &id]).await;
    let ended = tokio::time::timeout(wait::LONG, child.wait()).await;
    assert_eq!(ended.expect("it ends").expect("our child").code(), Some(76));
}

/// Permits: no more commands at a time than there are permits, and signals end a wait for one.
#[tokio::test]
async fn commands_share_permits() {
    let cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let start = |wait: &'static str| {
        let words = [
            "lock",
            "run",
            "n",
            "--permits",
            "1",
            "--limit",
            "2",
            "--wait",
            wait,
            "--",
            "sleep",
            "600",
        ];
        let mut line = tokio::process::Command::from(mufakat(&cluster, &words));
        line.kill_on_drop(true).spawn().expect("it starts")
    };
    let running = [start("0s"), start("0s")];
    wait::until("two run", async || {
        (locks::get(&nats, "n").await.holders.len() == 2).then_some(())
    })
    .await;
    let full = [
        "lock",
        "run",
        "n",
        "--permits",
        "1",
        "--limit",
        "2",
        "--",
        "true",
    ];
    fails(&cluster, &full, 75).await;
    let mut third = start("10m");
    wait::until("the third waits", async || {
        (locks::get(&nats, "n").await.waiters.len() == 1).then_some(())
    })
    .await;
    terminate(&mut third).await;
    assert!(locks::get(&nats, "n").await.waiters.is_empty());
    // Killed, they would leave their commands behind.
    for mut child in running {
        terminate(&mut child).await;
    }
    assert!(locks::get(&nats, "n").await.holders.is_empty());
}

/// Has a `lock run` end with its command or its wait.
async fn terminate(child: &mut tokio::process::Child) {
    let pid = child.id().expect("it runs") as i32;
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).expect("it runs");
    let ended = tokio::time::timeout(Duration::from_secs(20), child.wait()).await;
    let code = ended.expect("it ends").expect("our child").code();
    assert_eq!(code, Some(128 + 15));
}

/// Between the nodes and the command line values are MessagePack; what is printed is JSON as the nodes
/// write it.
#[tokio::test]
async fn values_are_shown_as_what_they_are() {
    let cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    for (key, value) in [
        ("text", json!({"value": "a \"b\""})),
        ("json", json!({"value": {"n": [1.0, null]}})),
        ("binary", json!({"value_base64": "AP8="})),
    ] {
        let mut body = value.clone();
        body["key"] = json!(key);
        wire::request_until_ok(&nats, "mufakat.cache.set", &body).await;
        let found = done(&cluster, &["cache", "get", key]).await;
        for name in ["value", "value_base64"] {
            assert_eq!(found[name], value[name], "{found}");
        }
        assert_eq!(found["encoding"], key);
    }
    let many = done(&cluster, &["cache", "get", "binary", "text"]).await;
    assert_eq!(many["results"][0]["value_base64"], "AP8=", "{many}");
    let set = ["cache", "set", "set", "[1.0]", "--as-json"];
    done(&cluster, &set).await;
    let output = run(&cluster, &["cache", "get", "set"]).await;
    assert!(stdout(&output).contains(r#""value":[1.0],"#), "{output:?}");
}

#[tokio::test]
async fn a_watched_status_outlives_its_broker() {
    let mut cluster = Cluster::start(Options::default()).await;
    let mut line = tokio::process::Command::from(mufakat(&cluster, &["status", "--watch"]));
    let mut child = line.kill_on_drop(true).spawn().expect("it starts");
    let mut shown = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut said = BufReader::new(child.stderr.take().expect("piped")).lines();
    shown.next_line().await.expect("text").expect("a line");
    cluster.kill_broker();
    said.next_line()
        .await
        .expect("text")
        .expect("why there is nothing to show");
    cluster.start_broker().await;
    // One may have been shown before the broker ended.
    for _ in 0..3 {
        let line = tokio::time::timeout(wait::LONG, shown.next_line()).await;
        line.expect("it goes on").expect("text").expect("a line");
    }
}

/// It is not that nobody is there: the same fails for ever.
#[tokio::test]
async fn what_the_broker_does_not_carry_is_refused() {
    let cluster = Cluster::start(Options::default()).await;
    let mut line = tokio::process::Command::from(mufakat(&cluster, &["queue", "push", "a"]));
    line.stdin(Stdio::piped()).kill_on_drop(true);
    let mut child = line.spawn().expect("it starts");
    let mut input = child.stdin.take().expect("piped");
    input
        .write_all(&vec![b'x'; 3 << 20])
        .await
        .expect("it reads");
    drop(input);
    let output = child.wait_with_output().await.expect("it ends");
    assert_eq!(code(&output), 1, "{}", stderr(&output));
}

#[tokio::test]
async fn the_log_has_no_colours_where_none_are_wanted() {
    let cluster = Cluster::start(Options::default()).await;
    for (wanted, has_colours) in [("", true), ("1", false)] {
        let mut line = on_terminal(&cluster, "$0 lock get a");
        line.env("MUFAKAT_LOG", "async_nats=trace")
            .env("NO_COLOR", wanted);
        let output = tokio::process::Command::from(line).output().await;
        let said = output.expect("it starts").stdout;
        let said = String::from_utf8_lossy(&said);
        assert_eq!(said.contains("\x1b["), has_colours, "{said}");
    }
}
