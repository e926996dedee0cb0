//! A crash at every byte and with any sector unwritten, and damage at every bit.

use super::segment::HEADER_BYTES;
use super::*;

/// One log with a record of each kind, and its only file's bytes.
async fn sample(dir: &Path) -> (Contents, Vec<u8>) {
    let mut store = open_small(dir);
    store.save_vote(&Vote::new(1, NodeId(2))).await.unwrap();
    append_each(&mut store, (0..4).map(|i| entry(1, i))).await;
    store.save_committed(Some(log_id(1, 1))).await.unwrap();
    store.truncate_after(Some(log_id(1, 2))).await.unwrap();
    store.purge(log_id(1, 0)).await.unwrap();
    // The entries after it have a flush of their own.
    store.save_vote(&Vote::new(1, NodeId(2))).await.unwrap();
    append(&mut store, vec![entry(2, 3), entry(2, 4)])
        .await
        .unwrap();
    let contents = contents(&mut store).await;
    drop(store);
    let [file] = &files(dir)[..] else {
        panic!("this little fits in one file");
    };
    assert!(file.ends_with(FILE));
    (contents, fs::read(file).unwrap())
}

const FILE: &str = "00000000000000000001.wal";

/// Where the written part of a file ends.
fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

/// Opens a log whose only file is `bytes`.
async fn open_bytes(dir: &Path, bytes: &[u8]) -> Result<Contents, OpenError> {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir(dir).unwrap();
    fs::write(dir.join(FILE), bytes).unwrap();
    let mut store = LogStore::open_with(&site(dir), 2048, quiet())?;
    Ok(contents(&mut store).await)
}

#[tokio::test]
async fn a_crash_at_every_byte_keeps_a_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, bytes) = sample(&dir.path().join("whole")).await;
    let mut steps = Vec::new();
    for length in HEADER_BYTES as usize..=written(&bytes) {
        let cut = dir.path().join(length.to_string());
        fs::create_dir(&cut).unwrap();
        let mut left = bytes[..length].to_vec();
        left.resize(bytes.len(), 0);
        fs::write(cut.join(FILE), &left).unwrap();
        let mut store = open_small(&cut);
        let found = contents(&mut store).await;
        if steps.last() != Some(&found) {
            steps.push(found);
        }
        // The log goes on from there.
        let next = steps.last().unwrap().last.map_or(0, |id| id.index + 1);
        append(&mut store, vec![entry(3, next)]).await.unwrap();
        drop(store);
        let last = contents(&mut open_small(&cut)).await.last;
        assert_eq!(last, Some(log_id(3, next)), "after a cut at {length}");
        fs::remove_dir_all(&cut).unwrap();
    }
    // Nothing, vote, four entries, the marks together, the last two entries together.
    assert_eq!(steps.len(), 8, "{steps:#?}");
    assert_eq!(steps.last(), Some(&whole));
}

#[tokio::test]
async fn a_frame_with_any_sector_unwritten_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let mut store = LogStore::open_with(&site(&whole), 8192, quiet()).unwrap();
    append(&mut store, vec![entry(1, 0)]).await.unwrap();
    let begin = written(&fs::read(whole.join(FILE)).unwrap());
    let before = contents(&mut store).await;
    append(&mut store, vec![entry_of(1, 1, 150)]).await.unwrap();
    let after = contents(&mut store).await;
    drop(store);
    let bytes = fs::read(whole.join(FILE)).unwrap();
    let end = written(&bytes);
    let sectors: Vec<usize> = (begin - begin % 512..end).step_by(512).collect();
    assert!((4..9).contains(&sectors.len()), "{}", sectors.len());
    for missing in 0..1_u32 << sectors.len() {
        let mut left = bytes.clone();
        for (nth, at) in sectors.iter().enumerate() {
            if missing & 1 << nth != 0 {
                left[begin.max(*at)..end.min(at + 512)].fill(0);
            }
        }
        let found = open_bytes(&dir.path().join("torn"), &left).await.unwrap();
        let expected = if missing == 0 { &after } else { &before };
        assert_eq!(&found, expected, "sectors {missing:b}");
    }
}

#[tokio::test]
async fn damage_at_any_bit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, mut bytes) = sample(&dir.path().join("whole")).await;
    let end = written(&bytes);
    let flipped = dir.path().join("flipped");
    fs::create_dir(&flipped).unwrap();
    // Beyond the end as far as the next frame's head and more.
    for (at, bit) in (0..end + 64).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        bytes[at] ^= 1 << bit;
        fs::write(flipped.join(FILE), &bytes).unwrap();
        let found = open::recover(&site(&flipped));
        bytes[at] ^= 1 << bit;
        match found {
            Err(OpenError::Damaged { file, reason }) => {
                assert!(file.ends_with(FILE), "{} {reason}", file.display());
            }
            // Where nothing was written, nothing is lost.
            Ok((found, _)) if at >= end => assert_eq!(found.index.last(), whole.last),
            _ => panic!("bit {bit} of byte {at} was not noticed"),
        }
    }
}

/// Not only where the last frame is: what was on disk before a later frame was written is damaged,
/// however it looks.
#[tokio::test]
async fn a_frame_that_is_gone_with_a_whole_one_behind_it_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = LogStore::open_with(&site(&dir.path().join("whole")), 8192, quiet()).unwrap();
    append(&mut store, vec![entry_of(1, 0, 400)]).await.unwrap();
    let first_end = written(&fs::read(dir.path().join("whole").join(FILE)).unwrap());
    append(&mut store, vec![entry(1, 1)]).await.unwrap();
    drop(store);
    let bytes = fs::read(dir.path().join("whole").join(FILE)).unwrap();
    for begin in (HEADER_BYTES as usize..first_end).step_by(512) {
        let mut left = bytes.clone();
        left[begin..first_end.min(begin + 600)].fill(0);
        let refusal = open_bytes(&dir.path().join("gone"), &left)
            .await
            .unwrap_err();
        assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal}");
    }
}

#[tokio::test]
async fn damage_in_the_newest_of_several_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path());
    store.save_vote(&Vote::new(1, NodeId(2))).await.unwrap();
    append_each(&mut store, (0..30).map(|i| entry(1, i))).await;
    drop(store);
    let newest = files(dir.path()).pop().unwrap();
    assert!(!newest.ends_with(FILE));
    let mut bytes = fs::read(&newest).unwrap();
    let written = written(&bytes);
    for (at, bit) in (0..written).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        bytes[at] ^= 1 << bit;
        fs::write(&newest, &bytes).unwrap();
        let refusal = refusal(dir.path());
        bytes[at] ^= 1 << bit;
        assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal}");
    }
}

#[tokio::test]
async fn the_refusal_names_the_file_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut bytes) = sample(&dir.path().join("whole")).await;
    let middle = written(&bytes) / 2;
    bytes[middle] ^= 1;
    let refusal = open_bytes(&dir.path().join("flipped"), &bytes)
        .await
        .unwrap_err();
    let message = refusal.to_string();
    assert!(message.contains(FILE), "{message}");
    assert!(message.contains("checksum mismatch"), "{message}");
    assert!(message.contains("delete its data directory"), "{message}");
    let left = fs::read(dir.path().join("flipped").join(FILE)).unwrap();
    assert_eq!(left, bytes, "the evidence is kept");
}

#[tokio::test]
async fn a_short_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path());
    append_each(&mut store, (0..30).map(|i| entry(1, i))).await;
    drop(store);
    for file in files(dir.path()) {
        let bytes = fs::read(&file).unwrap();
        for length in 0..bytes.len() {
            fs::write(&file, &bytes[..length]).unwrap();
            let refusal = refusal(dir.path());
            assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal}");
        }
        fs::write(&file, &bytes).unwrap();
    }
}

/// A crash between the naming of a file and its first frame: later frames there must say all that
/// older files said, since those may go.
#[tokio::test]
async fn a_file_without_frames_begins_with_what_older_files_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path());
    let vote = Vote::new_committed(1, NodeId(2));
    store.save_vote(&vote).await.unwrap();
    append_each(&mut store, (0..30).map(|i| entry(1, i))).await;
    drop(store);
    let newest = files(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    bytes[HEADER_BYTES as usize..].fill(0);
    fs::write(&newest, &bytes).unwrap();

    let mut store = open_small(dir.path());
    let last = contents(&mut store).await.last.unwrap();
    append(&mut store, vec![entry(1, last.index + 1)])
        .await
        .unwrap();
    store.purge(last).await.unwrap();
    append(&mut store, vec![entry(1, last.index + 2)])
        .await
        .unwrap();
    let before = contents(&mut store).await;
    drop(store);
    assert_eq!(files(dir.path()).len(), 1, "older files are gone");
    let mut store = open_small(dir.path());
    assert_eq!(contents(&mut store).await, before);
    assert_eq!(before.vote, Some(vote));
}
