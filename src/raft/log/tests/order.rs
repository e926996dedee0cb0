//! Group commit, order, bounds, and what survives closing or a kill.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, mpsc::Sender};

use futures_util::poll;

use super::index::CACHE_BYTES_MAX;
use super::writer::WAITING_BYTES_MAX;
use super::*;

/// A log whose thread, after each flush, tells how many calls it completed and then stops until
/// told to go on. What tells it is dropped before the log, also when a test fails.
fn held_back(dir: &Path) -> (LogStore, Receiver<usize>, Sender<()>) {
    let (completed, flushes) = channel();
    let (go_on, wait) = channel();
    let wait = Mutex::new(wait);
    let on_flush = Arc::new(move |flush: Flush| {
        let _ = completed.send(flush.completed);
        let _ = wait.lock().unwrap().recv();
    });
    let store = LogStore::open(&site(dir), on_flush).unwrap();
    (store, flushes, go_on)
}

#[tokio::test]
async fn what_queues_during_a_flush_shares_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, flushes, go_on) = held_back(dir.path());

    append(&mut store, vec![entry(1, 0)]).await.unwrap();
    assert_eq!(flushes.recv().unwrap(), 1);
    let mut waiting = Vec::new();
    for index in 1..100 {
        let (done, on_disk) = TypeConfig::oneshot();
        let entries = vec![entry(1, index)];
        store
            .append(entries, IOFlushed::signal(done))
            .await
            .unwrap();
        waiting.push(on_disk);
    }
    for on_disk in &mut waiting {
        assert!(on_disk.try_recv().is_err(), "completed before its fsync");
    }
    assert_eq!(
        contents(&mut store).await.entries.len(),
        100,
        "readable at once"
    );
    drop(go_on);
    for on_disk in waiting {
        on_disk.await.unwrap().unwrap();
    }
    assert_eq!(flushes.recv().unwrap(), 99);
    assert!(flushes.try_recv().is_err());
}

#[tokio::test]
async fn a_committed_position_costs_no_flush() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, flushes, go_on) = held_back(dir.path());
    drop(go_on);
    append(&mut store, vec![entry(1, 0), entry(1, 1)])
        .await
        .unwrap();
    store.save_committed(Some(log_id(1, 1))).await.unwrap();
    store.save_vote(&Vote::new(2, NodeId(1))).await.unwrap();
    drop(store);
    assert_eq!(flushes.iter().collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test]
async fn entries_that_left_the_cache_are_read_from_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let large = |index| entry_of(1, index, 50_000);
    let bytes = records::memory_bytes(&large(0).payload);
    let count = 2 + (CACHE_BYTES_MAX / bytes) as u64 * 5 / 4;
    for index in 0..count {
        append(&mut store, vec![large(index)]).await.unwrap();
    }
    let cached = {
        let log = store.open.shared.lock().unwrap();
        let is_cached = |read: &index::Read<'_>| matches!(read, index::Read::Cached(..));
        log.index
            .read(0, count)
            .filter(|(read, _)| is_cached(read))
            .count()
    };
    assert!(
        cached * bytes <= CACHE_BYTES_MAX + bytes && cached > 0,
        "{cached} of {count}"
    );
    let before = contents(&mut store).await;
    assert_eq!(before.entries.len() as u64, count);
    drop(store);
    assert_eq!(contents(&mut open(dir.path())).await, before);
}

/// Before all of it was on disk.
#[tokio::test]
async fn an_entry_in_place_of_one_that_was_taken_back_is_the_one_that_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, flushes, go_on) = held_back(dir.path());
    append(&mut store, vec![entry(1, 0)]).await.unwrap();
    flushes.recv().unwrap();
    let noop = IOFlushed::noop;
    store.append(vec![entry(1, 1)], noop()).await.unwrap();
    store.truncate_after(Some(log_id(1, 0))).await.unwrap();
    store.append(vec![entry(2, 1)], noop()).await.unwrap();
    drop(go_on);
    let large = |index| entry_of(2, index, 50_000);
    let count = 3 + CACHE_BYTES_MAX / records::memory_bytes(&large(2).payload);
    for index in 2..2 + count as u64 {
        append(&mut store, vec![large(index)]).await.unwrap();
    }
    assert_eq!(contents(&mut store).await.entries[1].0, log_id(2, 1));
}

#[tokio::test]
async fn a_vote_waits_for_its_own_fsync_behind_what_came_before() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, flushes, go_on) = held_back(dir.path());
    append(&mut store, vec![entry(1, 0)]).await.unwrap();
    assert_eq!(flushes.recv().unwrap(), 1);

    let (done, mut on_disk) = TypeConfig::oneshot();
    let entries = vec![entry(1, 1)];
    store
        .append(entries, IOFlushed::signal(done))
        .await
        .unwrap();
    let mut voter = store.clone();
    let vote = Vote::new(2, NodeId(3));
    let voting = tokio::spawn(async move { voter.save_vote(&vote).await });
    tokio::task::yield_now().await;
    assert!(!voting.is_finished());
    drop(go_on);
    voting.await.unwrap().unwrap();
    assert!(on_disk.try_recv().is_ok(), "what came before is on disk");
    assert_eq!(store.read_vote().await.unwrap(), Some(vote));
}

#[tokio::test]
async fn a_message_is_bounded_and_never_empty() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let kilobytes = |entry: &Entry| match &entry.payload {
        EntryPayload::Normal(batch) => batch.encoded.len() >> 10,
        _ => 0,
    };
    let big = entry_of(1, 0, 60_000);
    assert!(kilobytes(&big) > MESSAGE_BYTES_MAX >> 10);
    let medium = (1..9).map(|index| entry_of(1, index, 8_000));
    append(&mut store, [big].into_iter().chain(medium).collect())
        .await
        .unwrap();

    let first = store.limited_get_log_entries(0, 9).await.unwrap();
    assert_eq!(first.len(), 1, "one entry even if it is larger");
    let next = store.limited_get_log_entries(1, 9).await.unwrap();
    let sum: usize = next.iter().map(kilobytes).sum();
    assert!((2..8).contains(&next.len()), "{}", next.len());
    assert!(sum <= MESSAGE_BYTES_MAX >> 10);
    assert_eq!(next[0].log_id.index, 1);
    assert!(
        store
            .limited_get_log_entries(9, 12)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn everything_is_there_after_a_kill_and_after_closing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(&dir.path().join("log"));
    store
        .save_vote(&Vote::new_committed(1, NodeId(2)))
        .await
        .unwrap();
    append_each(&mut store, (0..30).map(|i| entry(1, i))).await;
    store.truncate_after(Some(log_id(1, 24))).await.unwrap();
    append(&mut store, vec![entry(2, 25), entry(2, 26)])
        .await
        .unwrap();
    store.save_committed(Some(log_id(1, 20))).await.unwrap();
    store.save_committed(Some(log_id(1, 10))).await.unwrap();
    store.save_committed(Some(log_id(9, 99))).await.unwrap();
    store.save_committed(None).await.unwrap();
    store.purge(log_id(1, 9)).await.unwrap();
    append(&mut store, vec![entry(2, 27)]).await.unwrap();
    let before = contents(&mut store).await;
    assert_eq!(before.committed, Some(log_id(1, 20)));
    assert_eq!(before.purged, Some(log_id(1, 9)));
    assert_eq!(store.purged().unwrap(), Some(log_id(1, 9)));
    assert_eq!(before.entries.len(), 18);

    copy(&dir.path().join("log"), &dir.path().join("killed"));
    assert_eq!(
        contents(&mut open(&dir.path().join("killed"))).await,
        before
    );

    // Closing writes what waits for the next flush, too.
    store.save_committed(Some(log_id(2, 26))).await.unwrap();
    drop(store);
    let after = contents(&mut open(&dir.path().join("log"))).await;
    assert_eq!(after.committed, Some(log_id(2, 26)));
    assert_eq!(after.entries, before.entries);
}

#[tokio::test]
async fn purging_deletes_files_without_a_later_append() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path());
    append_each(&mut store, (0..120).map(|i| entry(1, i))).await;
    let before = files(dir.path()).len();
    assert!(before > 5, "{before}");
    store.purge(log_id(1, 119)).await.unwrap();
    drop(store);
    assert!(files(dir.path()).len() <= 2);
    let mut store = open(dir.path());
    assert_eq!(store.purged().unwrap(), Some(log_id(1, 119)));
    append(&mut store, vec![entry(1, 120)]).await.unwrap();
}

/// A file begins with the marks of its time: when an older file has gone since, by a later purge, they name a purge
/// that the file's own entries do not follow.
#[tokio::test]
async fn a_later_purge_leaves_files_that_begin_with_an_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path());
    let mut from = 0;
    for purged in [30, 70, 110, 111, 150] {
        append_each(&mut store, (from..purged + 20).map(|i| entry(1, i))).await;
        from = purged + 20;
        store.purge(log_id(1, purged)).await.unwrap();
        let before = contents(&mut store).await;
        drop(store);
        store = open_small(dir.path());
        let after = contents(&mut store).await;
        assert_eq!(after, before, "after a purge up to {purged}");
        assert_eq!(after.entries.len(), 19);
    }
    assert!(files(dir.path()).len() < 4, "older files are gone");
}

#[tokio::test]
async fn an_append_waits_while_too_much_waits_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, flushes, go_on) = held_back(dir.path());
    append(&mut store, vec![entry(1, 0)]).await.unwrap();
    assert_eq!(flushes.recv().unwrap(), 1);

    let large = entry_of(1, 1, 200_000);
    let size = records::wire_bytes(&large.payload);
    let fit = WAITING_BYTES_MAX.div_ceil(size) as u64;
    for index in 1..=fit {
        let mut large = large.clone();
        large.log_id.index = index;
        store.append(vec![large], IOFlushed::noop()).await.unwrap();
    }
    let mut other = store.clone();
    let mut one_more = std::pin::pin!(append(&mut other, vec![entry(1, fit + 1)]));
    assert!(poll!(&mut one_more).is_pending());
    let last = store.get_log_state().await.unwrap().last_log_id;
    assert_eq!(last, Some(log_id(1, fit)), "it is not in the log");
    drop(go_on);
    one_more.await.unwrap();
}
