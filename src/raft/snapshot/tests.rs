//! Saved, crashed at every step, and damaged.

use std::collections::BTreeMap;

use openraft::Membership;
use openraft::type_config::alias::CommittedLeaderIdOf;

use super::*;
use crate::ids::{DiskId, NodeId};
use crate::raft::types::{LogId, Member, StoredMembership, TypeConfig};

fn meta(term: u64, index: u64) -> SnapshotMeta {
    let leader_id = CommittedLeaderIdOf::<TypeConfig>::new(term);
    let last = LogId { leader_id, index };
    let nodes = (1..4).map(|id| {
        (
            NodeId(id),
            Member {
                disk: DiskId(id * 7),
            },
        )
    });
    let nodes: BTreeMap<_, _> = nodes.collect();
    let voters = nodes.keys().copied().collect();
    let membership = Membership::new(vec![voters], nodes).unwrap();
    SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), membership),
    }
}

/// Bytes in which no two blocks are alike.
fn data(length: usize) -> Bytes {
    (0..length).map(|i| (i * 31 + (i >> 8)) as u8).collect()
}

fn save(store: &SnapshotStore, meta: &SnapshotMeta, data: &Bytes) {
    store.save(meta, |out| out.write_all(data)).unwrap();
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect()
}

#[test]
fn the_last_saved_comes_back_and_the_older_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(&dir.path().join("snapshots")).unwrap();
    assert!(store.load().unwrap().is_none());
    let sizes = [
        0,
        1,
        BLOCK_BYTES - 1,
        BLOCK_BYTES,
        BLOCK_BYTES + 1,
        3 * BLOCK_BYTES + 5,
    ];
    for (index, size) in sizes.into_iter().enumerate() {
        let (meta, data) = (meta(2, index as u64 * 9), data(size));
        save(&store, &meta, &data);
        assert_eq!(store.load().unwrap(), Some((meta, data)));
        assert_eq!(files(&store.dir).len(), 1);
    }
    let (newest, _) = store.load().unwrap().unwrap();
    save(&store, &meta(2, 1), &data(10));
    assert_eq!(store.load().unwrap().unwrap().0, newest, "never backward");
    save(&store, &newest, &data(10));
    assert_eq!(
        store.load().unwrap(),
        Some((newest, data(10))),
        "the same again"
    );
}

#[test]
fn a_crash_at_any_byte_of_writing_leaves_the_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path()).unwrap();
    let older = (meta(1, 5), data(100));
    save(&store, &older.0, &older.1);
    let incoming = dir.path().join(INCOMING);
    write_file(&incoming, &meta(1, 9), |out| out.write_all(&data(300))).unwrap();
    let bytes = fs::read(&incoming).unwrap();
    for length in 0..=bytes.len() {
        fs::write(&incoming, &bytes[..length]).unwrap();
        let store = SnapshotStore::open(dir.path()).unwrap();
        assert_eq!(store.load().unwrap(), Some(older.clone()));
        assert!(!incoming.exists());
    }
    // After the rename and before the older one is deleted.
    fs::write(dir.path().join(file_name(&meta(1, 9))), &bytes).unwrap();
    assert_eq!(files(dir.path()).len(), 2);
    let store = SnapshotStore::open(dir.path()).unwrap();
    assert_eq!(store.load().unwrap(), Some((meta(1, 9), data(300))));
    save(&store, &meta(1, 12), &data(1));
    assert_eq!(files(dir.path()).len(), 1);
}

/// What `load` says of these bytes under the newest name, with an intact older one beside them.
fn load_bytes(dir: &Path, bytes: &[u8]) -> Result<Option<(SnapshotMeta, Bytes)>, LoadError> {
    fs::write(dir.join(file_name(&meta(1, 9))), bytes).unwrap();
    SnapshotStore::open(dir).unwrap().load()
}

#[track_caller]
fn refused(loaded: Result<Option<(SnapshotMeta, Bytes)>, LoadError>) -> String {
    match loaded {
        Err(LoadError::Damaged { reason, .. }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_damaged_newest_one_is_refused_whatever_is_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path()).unwrap();
    save(&store, &meta(1, 5), &data(100));
    let scratch = dir.path().join(INCOMING);
    write_file(&scratch, &meta(1, 9), |out| out.write_all(&data(200))).unwrap();
    let mut bytes = fs::read(&scratch).unwrap();
    assert!(load_bytes(dir.path(), &bytes).unwrap().is_some());
    for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        bytes[at] ^= 1 << bit;
        refused(load_bytes(dir.path(), &bytes));
        bytes[at] ^= 1 << bit;
    }
    for length in 0..bytes.len() {
        refused(load_bytes(dir.path(), &bytes[..length]));
    }
    bytes.push(0);
    assert!(refused(load_bytes(dir.path(), &bytes)).contains("follow its end"));
    let message = load_bytes(dir.path(), &bytes).unwrap_err().to_string();
    assert!(message.contains("delete its data directory"), "{message}");
    assert!(message.contains(&file_name(&meta(1, 9))), "{message}");
}

#[test]
fn torn_or_exchanged_blocks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(INCOMING);
    write_file(&path, &meta(1, 9), |out| {
        out.write_all(&data(3 * BLOCK_BYTES))
    })
    .unwrap();
    let bytes = fs::read(&path).unwrap();
    let block = BLOCK_BYTES + HASH_BYTES;
    let first = bytes.len() - HASH_BYTES - 3 * block;
    for number in 0..4 {
        for cut in [first + number * block - 1, first + number * block] {
            refused(load_bytes(dir.path(), &bytes[..cut]));
        }
    }
    let mut exchanged = bytes.clone();
    let (left, right) = exchanged.split_at_mut(first + block);
    left[first..].swap_with_slice(&mut right[..block]);
    let reason = refused(load_bytes(dir.path(), &exchanged));
    assert!(reason.contains("block 0"), "{reason}");
    let mut zeroed = bytes;
    zeroed[first + block..first + block + 4096].fill(0);
    let reason = refused(load_bytes(dir.path(), &zeroed));
    assert!(reason.contains("block 1"), "{reason}");
}

#[test]
fn an_intact_file_under_another_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path()).unwrap();
    save(&store, &meta(1, 5), &data(100));
    let from = dir.path().join(file_name(&meta(1, 5)));
    fs::rename(from, dir.path().join(file_name(&meta(1, 9)))).unwrap();
    refused(store.load());
}

/// What other versions of a node wrote and will read.
#[test]
fn the_file_is_laid_out_as_documented() {
    let (meta, data) = (meta(1, 9), data(BLOCK_BYTES + 7));
    let encoded_meta = rmp_serde::to_vec(&meta).unwrap();
    let mut header = b"MUFSNAP\x01".to_vec();
    header.extend((encoded_meta.len() as u32).to_be_bytes());
    header.extend((data.len() as u64).to_be_bytes());
    let blocks = [&data[..BLOCK_BYTES], &data[BLOCK_BYTES..]];
    let numbered = |number: u64, block: &[u8]| xxh3_64(&[&number.to_be_bytes(), block].concat());
    let parts = [
        (&header[..], xxh3_64(&header)),
        (&encoded_meta[..], xxh3_64(&encoded_meta)),
        (blocks[0], numbered(0, blocks[0])),
        (blocks[1], numbered(1, blocks[1])),
    ];
    let hashes: Vec<u8> = parts
        .iter()
        .flat_map(|(_, hash)| hash.to_be_bytes())
        .collect();
    let mut expected: Vec<u8> = Vec::new();
    for (part, hash) in parts {
        expected.extend(part);
        expected.extend(hash.to_be_bytes());
    }
    expected.extend(xxh3_64(&hashes).to_be_bytes());

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(INCOMING);
    // In pieces of all sizes around that of a block.
    for pieces in [
        1,
        7,
        BLOCK_BYTES - 1,
        BLOCK_BYTES,
        BLOCK_BYTES + 1,
        data.len(),
    ] {
        write_file(&path, &meta, |out| {
            data.chunks(pieces)
                .try_for_each(|piece| out.write_all(piece))
        })
        .unwrap();
        assert!(
            fs::read(&path).unwrap() == expected,
            "in pieces of {pieces}"
        );
    }
}

/// One of another node can come while the own one is being written, and one can be read meanwhile.
#[test]
fn snapshots_that_are_saved_at_once_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path()).unwrap();
    save(&store, &meta(1, 0), &data(3_000));
    thread::scope(|threads| {
        for writer in 1..=4 {
            let store = &store;
            threads.spawn(move || {
                for round in 0..50 {
                    let data = data(3_000 + writer as usize);
                    store
                        .save(&meta(1, round * 4 + writer), |out| {
                            let mut pieces = data.chunks(100);
                            pieces.try_for_each(|piece| out.write_all(piece))
                        })
                        .unwrap();
                    let (_, loaded) = store.load().unwrap().expect("one is there");
                    assert!(data.starts_with(&loaded) || loaded.starts_with(&data));
                }
            });
        }
    });
    let (newest, loaded) = store.load().unwrap().unwrap();
    assert_eq!((newest, loaded), (meta(1, 200), data(3_004)));
    assert_eq!(files(dir.path()).len(), 1);
}
