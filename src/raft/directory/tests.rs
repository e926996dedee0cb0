//! Drawn once, kept, locked, and never made up again.

use super::*;

const DISK: DiskId = DiskId(0xfedc_ba98_7654_3210);

fn open(path: &Path, node: u64) -> Result<DataDirectory, DirectoryError> {
    DataDirectory::open(path, NodeId(node), || DISK)
}

#[test]
fn an_identity_is_drawn_once_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let mut directory = open(&path, 7).unwrap();
    assert_eq!((directory.node(), directory.disk()), (NodeId(7), DISK));
    assert_eq!(directory.cluster(), None);
    directory.set_cluster(ClusterId(u64::MAX)).unwrap();
    directory.set_cluster(ClusterId(u64::MAX)).unwrap();
    drop(directory);

    let drawn_again = || panic!("a disk id is drawn once");
    let mut directory = DataDirectory::open(&path, NodeId(7), drawn_again).unwrap();
    assert_eq!(directory.disk(), DISK);
    assert_eq!(directory.cluster(), Some(ClusterId(u64::MAX)));
    let other = directory.set_cluster(ClusterId(1)).unwrap_err();
    assert!(matches!(other, DirectoryError::OtherCluster { .. }));
    // As the file has it.
    let ids = "cluster ffffffffffffffff, not to cluster 0000000000000001";
    assert!(other.to_string().contains(ids), "{other}");
    assert_eq!(directory.cluster(), Some(ClusterId(u64::MAX)));
    let site = directory.log_site();
    assert_eq!(
        (site.dir, site.newest),
        (path.join("log"), path.join("log.newest"))
    );
    assert_eq!((site.disk, site.has_cluster), (DISK, true));
    assert_eq!(directory.snapshots_path(), path.join("snapshots"));
}

#[test]
fn a_second_opening_is_refused_and_names_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), 1).unwrap();
    let message = open(dir.path(), 1).unwrap_err().to_string();
    let process = format!("by process {}", std::process::id());
    assert!(message.contains(&process), "{message}");
    drop(first);
    open(dir.path(), 1).unwrap();
}

#[test]
fn another_node_id_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), 1).unwrap());
    let message = open(dir.path(), 2).unwrap_err().to_string();
    assert!(
        message.contains("belongs to node 1, not to node 2"),
        "{message}"
    );
    open(dir.path(), 1).unwrap();
}

#[test]
fn a_lost_or_damaged_identity_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let directory = open(dir.path(), 1).unwrap();
    let site = directory.log_site();
    assert!(!site.has_cluster);
    drop(directory);
    let identity = dir.path().join(IDENTITY);
    let text = fs::read(&identity).unwrap();
    for length in 0..text.len() - 1 {
        fs::write(&identity, &text[..length]).unwrap();
        let refusal = open(dir.path(), 1).unwrap_err();
        assert!(
            matches!(refusal, DirectoryError::Damaged { .. }),
            "{length} {refusal}"
        );
    }
    fs::remove_file(&identity).unwrap();
    fs::create_dir(&site.dir).unwrap();
    for left in [site.dir.join("some.wal"), site.newest] {
        fs::write(&left, "x").unwrap();
        let refusal = open(dir.path(), 1).unwrap_err();
        assert!(
            matches!(refusal, DirectoryError::Damaged { .. }),
            "{refusal}"
        );
        assert!(!identity.exists());
        fs::remove_file(left).unwrap();
    }
}

#[test]
fn a_crash_while_the_identity_is_written_leaves_the_old_one_or_none() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(IDENTITY_INCOMING), "{ \"form").unwrap();
    let mut directory = open(dir.path(), 1).unwrap();
    fs::write(dir.path().join(IDENTITY_INCOMING), "{ \"form").unwrap();
    directory.set_cluster(ClusterId(3)).unwrap();
    drop(directory);
    fs::write(dir.path().join(IDENTITY_INCOMING), "{ \"form").unwrap();
    assert_eq!(open(dir.path(), 1).unwrap().cluster(), Some(ClusterId(3)));
}

fn begin_restore(path: &Path) -> Result<DataDirectory, DirectoryError> {
    DataDirectory::begin_restore(path, NodeId(1), DISK)
}

#[test]
fn a_restore_takes_an_empty_directory_behind_a_link_and_on_a_disk_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    fs::create_dir_all(disk.join("lost+found")).unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&disk, &link).unwrap();
    let directory = begin_restore(&link).unwrap();
    for second in [begin_restore(&link), open(&link, 1)] {
        let second = second.unwrap_err();
        assert!(matches!(second, DirectoryError::InUse { .. }), "{second}");
    }
    directory.end_restore().unwrap();
    let node = open(&disk, 1).unwrap();
    assert_eq!(node.disk(), DISK);
}

#[test]
fn a_half_restored_directory_is_refused_until_it_was_emptied() {
    let dir = tempfile::tempdir().unwrap();
    drop(begin_restore(dir.path()).unwrap());
    for refusal in [open(dir.path(), 1), begin_restore(dir.path())] {
        let refusal = refusal.unwrap_err();
        assert!(
            matches!(refusal, DirectoryError::HalfRestored { .. }),
            "{refusal}"
        );
    }
    for file in fs::read_dir(dir.path()).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    begin_restore(dir.path()).unwrap().end_restore().unwrap();
}

#[test]
fn a_restore_writes_nothing_into_a_used_directory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine");
    fs::write(&file, "x").unwrap();
    let refusal = begin_restore(dir.path()).unwrap_err();
    assert!(
        matches!(refusal, DirectoryError::NotEmpty { .. }),
        "{refusal}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    fs::remove_file(&file).unwrap();
    drop(open(dir.path(), 1).unwrap());
    let refusal = begin_restore(dir.path()).unwrap_err();
    assert!(
        matches!(refusal, DirectoryError::NotEmpty { .. }),
        "{refusal}"
    );
}
