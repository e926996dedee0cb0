//! The replicated state in a file, and a new cluster that begins with it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mufakat::client::Target;
use mufakat::protocol::backup::Part;
use mufakat::raft::backup::examine;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::command_line::{done, fails};
use crate::documented::Documented;
use crate::queue::{Queue, messages, serves};
use crate::queue_waits::all_are_in_view;
use crate::{locks, members, wait, wire};

async fn ok(nats: &async_nats::Client, operation: &str, body: Value) -> Value {
    let subject = format!("mufakat.{operation}");
    let answer = wire::request(nats, &subject, &body, wait::LONG).await;
    let answer = answer.unwrap_or_else(|| panic!("{operation}: no answer"));
    assert_eq!(answer["ok"], true, "{operation} {body}: {answer}");
    answer
}

fn number(answer: &Value, field: &str) -> u64 {
    let number = answer[field].as_u64();
    number.unwrap_or_else(|| panic!("no {field}: {answer}"))
}

async fn back_up(cluster: &Cluster) -> (PathBuf, Value) {
    let file = cluster.data_dir(1).with_file_name("state.mufakat");
    let told = done(cluster, &["backup", file.to_str().expect("UTF-8")]).await;
    (file, told)
}

/// Ends all nodes, loses their disks, and restores the file for node 1.
async fn restore(cluster: &mut Cluster, file: &Path, more: &[&str]) -> Value {
    cluster.kill_all();
    for node in cluster.ids() {
        cluster.lose_disk(node);
    }
    let data_dir = cluster.data_dir(1);
    let (file, data_dir) = (file.to_str().unwrap(), data_dir.to_str().unwrap());
    let words = ["restore", file, "--id", "1", "--data-dir", data_dir];
    done(cluster, &[&words[..], more].concat()).await
}

/// Starts the restored node alone, then adds the others.
async fn grow(cluster: &mut Cluster) {
    cluster.start_node(1);
    let operator = cluster.client(Target::Any).await;
    for node in [2, 3] {
        cluster.start_joining(node);
        members::add(&operator, node).await;
    }
    cluster.all_follow().await;
}

/// Of a directory and all in it.
fn only_its_user_reads(dir: &Path) {
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        // A node that runs makes and deletes files.
        let Ok(found) = fs::metadata(&path) else {
            continue;
        };
        let mode = found.permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} {mode:o}", path.display());
        if found.is_dir() {
            let files = fs::read_dir(&path).expect("it can be read");
            left.extend(files.map(|file| file.expect("it can be read").path()));
        }
    }
}

#[tokio::test]
async fn a_backup_becomes_a_new_cluster_that_goes_on_where_the_old_one_stood() {
    let mut cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let held =
        json!({"resource": "b.held", "owner": "holder", "ttl_ms": 600_000, "meta": {"n": 1}});
    let held = number(&ok(&nats, "lock.acquire", held).await, "token");
    let waits = json!({"resource": "b.held", "owner": "waiter", "wait_ms": 60_000,
        "timeout_ms": 120_000});
    let mut waiter = wire::send(&nats, "mufakat.lock.acquire", &waits).await;
    wait::until("it waits", async || {
        (locks::get(&nats, "b.held").await.waiters == ["waiter"]).then_some(())
    })
    .await;
    let session = ok(
        &nats,
        "session.open",
        json!({"ttl_ms": 600_000, "name": "s"}),
    )
    .await;
    let session = session["session"].as_str().expect("an id").to_owned();
    let of_session = json!({"resource": "b.session", "session": session});
    let of_session = number(&ok(&nats, "lock.acquire", of_session).await, "token");
    let short = json!({"resource": "b.short", "owner": "short", "ttl_ms": 3_000});
    ok(&nats, "lock.acquire", short).await;
    let permits = json!({"resource": "b.permits", "mode": "permit", "permits": 2, "limit": 3});
    ok(&nats, "lock.acquire", permits).await;

    let (file, told) = back_up(&cluster).await;
    assert_eq!(
        [&told["held"], &told["waiting"], &told["sessions"]],
        [4, 1, 1]
    );
    let again = ["backup", file.to_str().unwrap()];
    assert!(fails(&cluster, &again, 1).await.contains("already exists"));
    // What comes after it is not in it, but its token is not granted again.
    let after = json!({"resource": "b.after", "owner": "after", "ttl_ms": 600_000});
    let after = number(&ok(&nats, "lock.acquire", after).await, "token");

    let restored = restore(&mut cluster, &file, &[]).await;
    assert_eq!(restored["cluster"], told["cluster"]);
    assert_ne!(restored["new_cluster"], told["cluster"]);
    grow(&mut cluster).await;
    for node in [1, 2] {
        only_its_user_reads(&cluster.data_dir(node));
    }
    let identity =
        fs::read_to_string(cluster.data_dir(2).join("identity.json")).expect("it has one");
    let new_cluster = restored["new_cluster"].as_str().expect("an id");
    assert!(identity.contains(new_cluster), "{identity}");

    // Who held, holds on, by the same token, and no shorter than before.
    let renewed = json!({"resource": "b.held", "token": held, "ttl_ms": 600_000});
    let check = json!({"resource": "b.held", "token": held});
    let checked = ok(&nats, "lock.check", check).await;
    assert_eq!(checked["valid"], true);
    assert!(number(&checked, "expires_in_ms") > 600_000 - wait::LONG.as_millis() as u64);
    ok(&nats, "lock.renew", renewed).await;
    let view = ok(&nats, "session.get", json!({"session": session})).await;
    assert_eq!((&view["name"], &view["held"]), (&json!("s"), &json!(1)));
    ok(
        &nats,
        "lock.release",
        json!({"resource": "b.session", "token": of_session}),
    )
    .await;
    assert!(locks::get(&nats, "b.after").await.holders.is_empty());
    let full = json!({"resource": "b.permits", "mode": "permit", "permits": 2, "limit": 3});
    let full = wire::request(&nats, "mufakat.lock.acquire", &full, wait::LONG).await;
    assert_eq!(wire::code(&full.expect("an answer")), "lock_held");
    wait::until("a short lease has ended", async || {
        locks::get(&nats, "b.short")
            .await
            .holders
            .is_empty()
            .then_some(())
    })
    .await;

    // Who waited, waits on, and gets a token that is greater than every one before.
    assert_eq!(locks::get(&nats, "b.held").await.waiters, ["waiter"]);
    ok(
        &nats,
        "lock.release",
        json!({"resource": "b.held", "token": held}),
    )
    .await;
    let granted = waiter.answer(wait::LONG).await.expect("the waiter is told");
    assert!(number(&granted, "token") > after, "{granted}");
    cluster.state_hashes().await;

    // It is a cluster as any other.
    cluster.kill_all();
    cluster.start_all();
    cluster.all_follow().await;
    let token = json!({"resource": "b.held", "token": granted["token"]});
    assert_eq!(ok(&nats, "lock.check", token).await["valid"], true);
}

/// A node that does not lead has the newest grant in its copy, too; what is asked of a copy is checked.
#[tokio::test]
async fn every_node_makes_a_backup_of_all_that_was_answered_before() {
    let cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    let documented = Documented::load();
    let part = async |node: u64, body: Value| {
        let subject = format!("mufakat.node.{node}.admin.cluster.backup");
        let answer = wire::request(&nats, &subject, &body, wait::LONG).await;
        let answer = answer.expect("an answer");
        documented.check_answer("admin.cluster.backup", &answer);
        answer
    };
    for round in 0..5 {
        for node in 1..=3 {
            let resource = format!("e.{round}.{node}");
            let token = locks::acquire(&nats, &resource, "holder", 60_000).await;
            let answer = part(node, json!({})).await;
            let all: Part = serde_json::from_value(answer).expect("the fields of a part");
            let contents = examine(&all.data().expect("base64")).expect("an intact copy");
            assert_eq!(contents.last_token.0, token, "node {node}");
            assert_eq!(contents.held, token);
        }
    }
    let made = part(1, json!({})).await;
    let name = &made["backup"];
    let end = part(1, json!({"backup": name, "offset": made["size"]})).await;
    assert_eq!(end["data_base64"], "");
    let beyond = json!({"backup": name, "offset": number(&made, "size") + 1});
    assert_eq!(wire::code(&part(1, beyond).await), "bad_request");
    for other in [json!({"backup": name}), json!({"backup": "x"})] {
        assert_eq!(wire::code(&part(2, other).await), "not_found");
    }
}

#[tokio::test]
async fn a_damaged_backup_and_a_used_directory_are_refused() {
    let mut cluster = Cluster::start(Options {
        nodes: 1,
        ..Options::default()
    })
    .await;
    let nats = cluster.nats().await;
    locks::acquire(&nats, "d", "holder", 60_000).await;
    let (file, _) = back_up(&cluster).await;
    cluster.kill(1);
    let intact = fs::read(&file).expect("the backup");
    let used = cluster.data_dir(1);
    let new = used.with_file_name("new");
    let restore = async |file: &Path, data_dir: &Path| {
        let (file, data_dir) = (file.to_str().unwrap(), data_dir.to_str().unwrap());
        let words = ["restore", file, "--id", "1", "--data-dir", data_dir];
        fails(&cluster, &words, 1).await
    };
    let why = restore(&file, &used).await;
    assert!(why.contains("not empty"), "{why}");

    let damaged = file.with_extension("damaged");
    let mut wrongs: Vec<Vec<u8>> = vec![Vec::new(), intact[..intact.len() - 1].to_vec()];
    wrongs.push([&intact[..], b"x"].concat());
    for at in [0, 7, 10, 30, intact.len() / 2, intact.len() - 1] {
        let mut flipped = intact.clone();
        flipped[at] ^= 1;
        wrongs.push(flipped);
    }
    for (nth, wrong) in wrongs.iter().enumerate() {
        fs::write(&damaged, wrong).expect("it can be written");
        let why = restore(&damaged, &new).await;
        assert!(why.contains("no intact backup"), "{nth}: {why}");
        assert!(!new.exists(), "{nth}: something was restored");
    }
    let absent = file.with_extension("absent");
    assert!(restore(&absent, &new).await.contains("No such file"));

    // As a volume is, or what systemd makes of a state directory.
    let disk = used.with_file_name("disk");
    fs::create_dir_all(disk.join("lost+found")).expect("it can be made");
    std::os::unix::fs::symlink(&disk, &new).expect("it can be made");
    let words = ["restore", file.to_str().unwrap(), "--id", "1", "--data-dir"];
    let words = [&words[..], &[new.to_str().unwrap()]].concat();
    done(&cluster, &words).await;
    fs::rename(&used, used.with_file_name("old")).expect("nobody uses it");
    fs::rename(&new, &used).expect("nobody uses it");
    cluster.start_node(1);
    cluster.all_follow().await;
    assert_eq!(locks::get(&nats, "d").await.holders[0].owner, "holder");
}

/// Messages stay in Redis; whose they are is in the backup.
#[tokio::test]
async fn a_restored_cluster_has_the_topics_of_the_old_one_only_if_it_is_told_to() {
    let options = Options {
        redis: true,
        ..Options::default()
    };
    let mut cluster = Cluster::start(options).await;
    let queue = Queue::of(&cluster).await;
    serves(&queue).await;
    queue.push("kept", json!("before")).await;
    let popped = queue.pop("kept", 1).await;
    queue.push("kept", json!("waits")).await;
    let (file, _) = back_up(&cluster).await;
    queue.push("kept", json!("after")).await;

    restore(&mut cluster, &file, &[]).await;
    grow(&mut cluster).await;
    all_are_in_view(&cluster).await;
    serves(&queue).await;
    assert_eq!(queue.counts("kept").await, [0; 4]);
    assert_eq!(queue.push("kept", json!("other")).await, 1);

    restore(&mut cluster, &file, &["--adopt-queues"]).await;
    grow(&mut cluster).await;
    all_are_in_view(&cluster).await;
    serves(&queue).await;
    assert_eq!(queue.counts("kept").await, [2, 0, 1, 0]);
    assert_eq!(queue.ack("kept", &popped[0]["receipt"]).await, "acked");
    let body = json!({"topic": "kept", "consumer": "c", "max": 5});
    let rest = messages(&queue.ok("queue.pop", body).await);
    let rest: Vec<&Value> = rest.iter().map(|message| &message["payload"]).collect();
    assert_eq!(rest, [&json!("waits"), &json!("after")]);
}

#[tokio::test]
async fn what_an_interrupted_backup_has_left_lets_nobody_read_the_next() {
    let mut cluster = Cluster::start(Options {
        nodes: 1,
        ..Options::default()
    })
    .await;
    let part = cluster.data_dir(1).with_file_name("state.mufakat.part");
    fs::write(&part, "half").expect("a file");
    fs::set_permissions(&part, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let (file, _) = back_up(&cluster).await;
    let mode = fs::metadata(&file).expect("it is there").mode();
    assert_eq!(mode & 0o777, 0o600);

    cluster.kill_broker();
    let other = file.with_file_name("other.mufakat");
    let words = ["backup", other.to_str().expect("UTF-8")];
    fails(&cluster, &words, 69).await;
}
