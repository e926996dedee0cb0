//! A disk that fails: everything waiting hears of it, and nothing is accepted afterwards.

use std::process::Command as Process;

use super::*;

async fn all_calls_fail(store: &mut LogStore) {
    assert!(append(store, vec![entry(9, 999)]).await.is_err());
    assert!(store.save_vote(&Vote::new(9, NodeId(1))).await.is_err());
    assert!(store.save_committed(Some(log_id(1, 1))).await.is_err());
    assert!(store.truncate_after(None).await.is_err());
    assert!(store.purge(log_id(1, 1)).await.is_err());
    assert!(store.get_log_state().await.is_err());
    assert!(store.read_vote().await.is_err());
    assert!(store.purged().is_err());
}

/// Deleting a purged file fails, which ends the log's thread.
#[tokio::test]
async fn what_waits_hears_of_it_when_the_logs_thread_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path());
    append_each(&mut store, (0..60).map(|i| entry(1, i))).await;
    fs::remove_file(&files(dir.path())[0]).unwrap();
    store.purge(log_id(1, 59)).await.unwrap();
    let mut failed = false;
    for index in 60..1_000 {
        if append(&mut store, vec![entry(1, index)]).await.is_err() {
            failed = true;
            break;
        }
    }
    assert!(failed);
    all_calls_fail(&mut store).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_created_fails_the_append() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut store = open_small(&log);
    append(&mut store, vec![entry(1, 0)]).await.unwrap();
    fs::rename(&log, dir.path().join("elsewhere")).unwrap();
    let many = (1..80).map(|i| entry(1, i)).collect();
    assert!(append(&mut store, many).await.is_err());
    all_calls_fail(&mut store).await;
}

const CHILD_DIR: &str = "MUFAKAT_TEST_LOG_DIR";

/// Runs one of the children below with files that cannot be larger than `blocks` (of 512 bytes or 1 KiB,
/// as the shell counts): the write that exceeds it is cut short and the next one fails, as on a
/// full disk. The signal that would kill is ignored.
fn run_limited(child: &str, dir: &Path, blocks: u32) -> String {
    let script = format!(
        r#"trap '' XFSZ; ulimit -f {blocks}; exec "$0" --exact raft::log::tests::failure::{child} --nocapture"#
    );
    let child = Process::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD_DIR, dir)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success(), "{output}");
    output
}

#[tokio::test]
async fn a_full_disk_stops_the_log_and_keeps_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let output = run_limited("child_fills_its_disk", dir.path(), 64);
    let (_, rest) = output.split_once("acknowledged=").expect("the child ran");
    let acknowledged: u64 = rest.split_whitespace().next().unwrap().parse().unwrap();
    assert!(acknowledged > 10, "{output}");

    // Starting on the full disk works or is refused, again and again, and harms nothing.
    for _ in 0..3 {
        let output = run_limited("child_opens_on_a_full_disk", dir.path(), 0);
        let harmless = output.contains("opened");
        assert!(harmless && !output.contains("damaged"), "{output}");
    }

    let mut store = open(dir.path());
    let last = contents(&mut store).await.last.unwrap().index;
    assert!(last >= acknowledged, "{last} {acknowledged}");
    assert!(
        last <= acknowledged + 1,
        "only the failed write may be there, too"
    );
    append(&mut store, vec![entry(2, last + 1)]).await.unwrap();
}

#[tokio::test]
async fn child_fills_its_disk() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let mut store = LogStore::open_with(&site(Path::new(&dir)), 16 << 10, quiet()).unwrap();
    let mut acknowledged = 0;
    for index in 0..100_000 {
        // Sooner or later one is larger than a file may be.
        match append(&mut store, vec![entry_of(1, index, 50 * index as usize)]).await {
            Ok(()) => acknowledged = index,
            Err(_) => break,
        }
    }
    all_calls_fail(&mut store).await;
    println!("acknowledged={acknowledged} ");
}

#[tokio::test]
async fn child_opens_on_a_full_disk() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    match LogStore::open_with(&site(Path::new(&dir)), 16 << 10, quiet()) {
        Ok(_) => println!("opened"),
        Err(refusal) => println!("{refusal}"),
    }
}
