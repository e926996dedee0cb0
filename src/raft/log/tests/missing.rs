//! Files that are gone, and files of another node: refused, and never after a kill alone.

use super::segment::{HEADER_BYTES, first_of, name_of};
use super::*;

/// A log of several files, and its directory.
async fn several(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut store = open_small(dir);
    store.save_vote(&Vote::new(1, NodeId(2))).await.unwrap();
    append_each(&mut store, (0..80).map(|i| entry(1, i))).await;
    drop(store);
    let files = files(dir);
    assert!(files.len() > 3);
    files
}

fn in_cluster(dir: &Path) -> Site {
    Site {
        has_cluster: true,
        ..site(dir)
    }
}

fn refusal_at(site: &Site) -> OpenError {
    let refused = LogStore::open_with(site, 2048, quiet());
    refused.map(|_| ()).unwrap_err()
}

#[tokio::test]
async fn any_missing_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let count = several(&whole).await.len();
    for missing in 0..count {
        let holed = dir.path().join(missing.to_string());
        copy(&whole, &holed);
        fs::remove_file(&files(&holed)[missing]).unwrap();
        let refusal = refusal(&holed);
        let is_last = missing + 1 == count;
        assert!(
            matches!(refusal, OpenError::Missing { .. }) == is_last,
            "{refusal}"
        );
    }
    // The newest ones, up to all.
    while let Some(file) = files(&whole).pop() {
        fs::remove_file(file).unwrap();
        let refusal = refusal(&whole);
        assert!(matches!(refusal, OpenError::Missing { .. }), "{refusal}");
    }
}

#[tokio::test]
async fn a_lost_directory_is_refused_again_and_again_and_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let site = Site {
        newest: dir.path().join("log.newest"),
        ..site(&log)
    };
    drop(LogStore::open(&site, quiet()).unwrap());
    fs::remove_dir_all(&log).unwrap();
    for _ in 0..2 {
        let message = refusal_at(&site).to_string();
        assert!(message.contains(&name_of(1)), "{message}");
        assert!(message.contains("delete its data directory"), "{message}");
        assert!(!log.exists());
    }
}

/// What a version that kept no notes left.
#[tokio::test]
async fn a_member_without_a_vote_in_its_log_is_refused_also_without_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let message = refusal_at(&in_cluster(dir.path())).to_string();
    assert!(message.contains("no vote in it"), "{message}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

    let mut store = open(dir.path());
    let refused = open::recover(&in_cluster(dir.path())).map(|_| ());
    assert!(matches!(refused, Err(OpenError::Missing { .. })));
    store.save_vote(&Vote::new(1, NodeId(2))).await.unwrap();
    drop(store);
    fs::remove_file(dir.path().join("log.newest")).unwrap();
    drop(LogStore::open(&in_cluster(dir.path()), quiet()).unwrap());
    assert!(dir.path().join("log.newest").exists());
}

#[tokio::test]
async fn the_log_of_another_node_is_refused_and_one_that_does_not_say_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let files = several(dir.path()).await;
    let another = Site {
        disk: DiskId(6),
        ..site(dir.path())
    };
    let refusal = refusal_at(&another);
    assert!(matches!(refusal, OpenError::OfAnother { .. }), "{refusal}");

    // As the version before wrote it.
    for file in &files {
        let mut bytes = fs::read(file).unwrap();
        bytes[12..16].fill(0);
        let check = xxhash_rust::xxh3::xxh3_64(&bytes[..32]);
        bytes[32..40].copy_from_slice(&check.to_be_bytes());
        fs::write(file, bytes).unwrap();
    }
    fs::remove_file(&another.newest).unwrap();
    let mut store = LogStore::open_with(&another, 2048, quiet()).unwrap();
    append_each(&mut store, (80..120).map(|i| entry(1, i))).await;
    drop(store);
    // It goes on in files that do say.
    let refusal = refusal_at(&site(dir.path()));
    assert!(matches!(refusal, OpenError::OfAnother { .. }), "{refusal}");
    drop(LogStore::open_with(&another, 2048, quiet()).unwrap());
}

#[tokio::test]
async fn a_note_that_names_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    several(dir.path()).await;
    for text in ["", "\n", "1.wal\n", "0000000000000000000x.wal\n"] {
        fs::write(dir.path().join("log.newest"), text).unwrap();
        let refusal = refusal(dir.path());
        assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal}");
    }
}

/// Every moment from the last frame of a file to the first one of the next, as a kill leaves it: the log
/// opens with all that was reported, goes on, and again misses what is taken away then.
#[tokio::test]
async fn a_kill_at_any_moment_of_a_change_of_files_is_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let files = several(&whole).await;
    let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap()).collect();
    for nth in 0..files.len() {
        let first = first_of(&files[nth]).unwrap();
        let before = nth.checked_sub(1).map(|before| &files[before]);
        let note_before = before.map(|file| format!("{}\n", name_of(first_of(file).unwrap())));
        let note = format!("{}\n", name_of(first));
        let bytes = fs::read(&files[nth]).unwrap();
        let mut empty = bytes.clone();
        empty[HEADER_BYTES as usize..].fill(0);

        // What the new file is, the note, and the note that is being written.
        let mut moments = vec![
            (None, note_before.clone(), None),
            (Some(&empty), note_before.clone(), None),
            (Some(&empty), Some(note.clone()), None),
            (Some(&bytes), Some(note.clone()), None),
        ];
        for length in 0..=note.len() {
            let incoming = Some(note[..length].to_owned());
            moments.push((Some(&empty), note_before.clone(), incoming));
        }
        for (number, (file, noted, incoming)) in moments.into_iter().enumerate() {
            let killed = dir.path().join(format!("killed-{nth}-{number}"));
            fs::create_dir(&killed).unwrap();
            for before in 0..nth {
                fs::copy(&files[before], killed.join(names[before])).unwrap();
            }
            if let Some(bytes) = file {
                fs::write(killed.join(names[nth]), bytes).unwrap();
            }
            if let Some(noted) = noted {
                fs::write(killed.join("log.newest"), noted).unwrap();
            }
            if let Some(incoming) = incoming {
                fs::write(killed.join("log.tmp"), incoming).unwrap();
            }
            fs::write(killed.join("next.blank"), &empty[..512]).unwrap();

            let mut store = open_small(&killed);
            let found = contents(&mut store).await;
            let next = found.last.map_or(0, |id| id.index + 1);
            append_each(&mut store, (next..next + 40).map(|i| entry(2, i))).await;
            drop(store);
            let after = contents(&mut open_small(&killed)).await;
            assert_eq!(
                after.entries.len() as u64,
                next + 40,
                "file {nth}, moment {number}"
            );
            fs::remove_file(super::files(&killed).pop().unwrap()).unwrap();
            let refusal = refusal(&killed);
            assert!(matches!(refusal, OpenError::Missing { .. }), "{refusal}");
            fs::remove_dir_all(&killed).unwrap();
        }
    }
}

/// A copy taken after every flush opens: each is what a kill at that moment leaves.
#[tokio::test]
async fn a_kill_after_any_flush_leaves_a_log_that_opens() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut store = open_small(&log);
    for index in 0..100 {
        append(&mut store, vec![entry(1, index)]).await.unwrap();
        let killed = dir.path().join(index.to_string());
        copy(&log, &killed);
        let last = contents(&mut open_small(&killed)).await.last;
        assert_eq!(last, Some(log_id(1, index)));
        fs::remove_dir_all(&killed).unwrap();
    }
}
