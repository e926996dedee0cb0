//! A crash at every byte, and damage at every bit.

use super::*;

/// One log with a record of each kind, closed by a vote, and its only file's bytes.
async fn sample(dir: &Path) -> (Contents, Vec<u8>) {
    let mut store = open(dir);
    store.save_vote(&Vote::new(1, NodeId(2))).await.unwrap();
    append(&mut store, (0..4).map(|i| entry(1, i)).collect())
        .await
        .unwrap();
    store.save_committed(Some(log_id(1, 1))).await.unwrap();
    store.truncate_after(Some(log_id(1, 2))).await.unwrap();
    store.purge(log_id(1, 0)).await.unwrap();
    append(&mut store, vec![entry(2, 3), entry(2, 4)])
        .await
        .unwrap();
    let contents = contents(&mut store).await;
    drop(store);
    let [chunk] = &chunks(dir)[..] else {
        panic!("this little fits in one file");
    };
    (contents, fs::read(chunk).unwrap())
}

const CHUNK: &str = "r-00_000_000_000_000_000_000.wal";

#[tokio::test]
async fn a_crash_at_every_byte_keeps_a_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, bytes) = sample(&dir.path().join("whole")).await;
    let mut steps = Vec::new();
    for length in 0..=bytes.len() {
        let cut = dir.path().join(length.to_string());
        fs::create_dir(&cut).unwrap();
        fs::write(cut.join(CHUNK), &bytes[..length]).unwrap();
        let mut store = open(&cut);
        let found = contents(&mut store).await;
        if steps.last() != Some(&found) {
            steps.push(found);
        }
        // The log goes on from there.
        let next = steps.last().unwrap().last.map_or(0, |id| id.index + 1);
        append(&mut store, vec![entry(3, next)]).await.unwrap();
        drop(store);
        let last = contents(&mut open(&cut)).await.last;
        assert_eq!(last, Some(log_id(3, next)), "after a cut at {length}");
        fs::remove_dir_all(&cut).unwrap();
    }
    // Nothing, vote, four entries, committed, truncated, purged, two entries: each in its turn.
    assert_eq!(steps.len(), 11, "{steps:#?}");
    assert_eq!(steps.last(), Some(&whole));
}

/// Opens a log whose only file is `bytes`.
async fn open_bytes(dir: &Path, bytes: &[u8]) -> Result<Contents, OpenError> {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir(dir).unwrap();
    fs::write(dir.join(CHUNK), bytes).unwrap();
    let mut store = LogStore::open(dir, quiet())?;
    Ok(contents(&mut store).await)
}

#[tokio::test]
async fn damage_at_any_bit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for vote_last in [false, true] {
        let whole = dir.path().join(format!("whole-{vote_last}"));
        let (_, mut bytes) = sample(&whole).await;
        if vote_last {
            let mut store = open(&whole);
            store.save_vote(&Vote::new(3, NodeId(1))).await.unwrap();
            drop(store);
            bytes = fs::read(whole.join(CHUNK)).unwrap();
        }
        for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            bytes[at] ^= 1 << bit;
            let opened = open_bytes(&dir.path().join("flipped"), &bytes).await;
            bytes[at] ^= 1 << bit;
            let Err(OpenError::Damaged { file, reason }) = opened else {
                panic!("bit {bit} of byte {at}: {opened:?}");
            };
            assert!(file.ends_with(CHUNK), "{} {reason}", file.display());
        }
    }
}

#[tokio::test]
async fn damage_in_the_newest_of_several_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path(), 400);
    store.save_vote(&Vote::new(1, NodeId(2))).await.unwrap();
    append(&mut store, (0..9).map(|i| entry(1, i)).collect())
        .await
        .unwrap();
    store.save_committed(Some(log_id(1, 8))).await.unwrap();
    append(&mut store, (9..20).map(|i| entry(1, i)).collect())
        .await
        .unwrap();
    drop(store);
    let newest = chunks(dir.path()).pop().unwrap();
    assert!(!newest.ends_with(CHUNK));
    let mut bytes = fs::read(&newest).unwrap();
    for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        bytes[at] ^= 1 << bit;
        fs::write(&newest, &bytes).unwrap();
        let refusal = LogStore::open(dir.path(), quiet()).map(|_| ()).unwrap_err();
        bytes[at] ^= 1 << bit;
        assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal}");
    }
}

#[tokio::test]
async fn the_refusal_names_the_file_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut bytes) = sample(&dir.path().join("whole")).await;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let refusal = open_bytes(&dir.path().join("flipped"), &bytes)
        .await
        .unwrap_err();
    let message = refusal.to_string();
    assert!(message.contains(CHUNK), "{message}");
    assert!(message.contains("checksum mismatch"), "{message}");
    assert!(message.contains("delete its data directory"), "{message}");
    let left = fs::read(dir.path().join("flipped").join(CHUNK)).unwrap();
    assert_eq!(left, bytes, "the evidence is kept");
}

#[tokio::test]
async fn zeroes_after_the_last_record_are_an_interrupted_write() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, mut bytes) = sample(&dir.path().join("whole")).await;
    bytes.resize(bytes.len() + 5_000, 0);
    let found = open_bytes(&dir.path().join("zeroes"), &bytes)
        .await
        .unwrap();
    assert_eq!(found, whole);
}

#[tokio::test]
async fn a_missing_file_is_refused_unless_it_is_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let mut store = open_small(&whole, 600);
    append(&mut store, (0..40).map(|i| entry(1, i)).collect())
        .await
        .unwrap();
    drop(store);
    let files = chunks(&whole).len();
    assert!(files > 3);
    for missing in 0..files - 1 {
        let holed = dir.path().join(missing.to_string());
        copy(&whole, &holed);
        fs::remove_file(&chunks(&holed)[missing]).unwrap();
        let refusal = LogStore::open(&holed, quiet()).map(|_| ()).unwrap_err();
        assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal}");
    }
}

#[tokio::test]
async fn a_short_file_before_the_newest_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path(), 600);
    append(&mut store, (0..40).map(|i| entry(1, i)).collect())
        .await
        .unwrap();
    drop(store);
    let first = &chunks(dir.path())[0];
    let bytes = fs::read(first).unwrap();
    for length in 0..bytes.len() {
        fs::write(first, &bytes[..length]).unwrap();
        let refusal = LogStore::open(dir.path(), quiet()).map(|_| ()).unwrap_err();
        assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal}");
    }
}
