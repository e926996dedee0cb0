//! Opening the log: recovery, and what is refused.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::Site;
use super::index::Index;
use super::newest::Newest;
use super::records::{self, Place, Record, damaged};
use super::segment::{self, Blank, End, HEADER_BYTES, Owner, Segment};
use super::writer::{OnFlush, Shared, Writer};

/// A file of the log has this size, unless one flush alone is larger. Each new file costs a rename and
/// a directory fsync, and a purge frees whole files only.
pub(super) const SEGMENT_BYTES: u64 = 8 << 20;

/// The number of the first frame ever.
const FIRST_FRAME: u64 = 1;

/// What to do about a log that is not what it was. Restoring an old copy would take back votes and
/// entries that others rely on.
const ADVICE: &str = "a node that forgets votes or entries can undo what the cluster \
    acknowledged. If a majority of the other nodes is intact, remove this node from the cluster, \
    delete its data directory, and add it again under a new node id. Otherwise keep all data \
    directories as they are and ask for help";

/// Why a log was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What the files say cannot be trusted. Nothing was changed.
    #[error(
        "the Raft log is damaged: {file}: {reason}. Do not repair it, and do not restore a copy: \
         {ADVICE}.", file = file.display()
    )]
    Damaged { file: PathBuf, reason: String },
    /// There were files that are not there any more. Nothing was changed.
    #[error(
        "the Raft log in {dir} is not whole: {reason}. Put it back if it was only moved away and \
         the node has not run since; do not restore a copy: {ADVICE}.", dir = dir.display()
    )]
    Missing { dir: PathBuf, reason: String },
    /// Another node's, or this node's from before it lost its disk. Nothing was changed.
    #[error(
        "the Raft log is not this node's: {file} was written by a node with another data directory. \
         Put back this node's own log if it was only moved away and the node has not run since; do \
         not go on with another's: {ADVICE}.", file = file.display()
    )]
    OfAnother { file: PathBuf },
    #[error("the Raft log in {} cannot be opened: {reason}", dir.display())]
    Io { dir: PathBuf, reason: io::Error },
}

/// What the files say.
#[derive(Default)]
pub(super) struct Found {
    pub index: Index,
    files: VecDeque<(Segment, u64)>,
    /// The next frame's number, where it begins in the last file, and what an interrupted write
    /// left there.
    number: u64,
    offset: u64,
    torn: bool,
}

pub(super) fn open(
    site: &Site,
    segment_bytes: u64,
    on_flush: OnFlush,
) -> Result<(Arc<Shared>, JoinHandle<()>), OpenError> {
    let (found, newest) = recover(site)?;
    begin(site, segment_bytes, (found, newest), on_flush)
        .map_err(|reason| io_error(&site.dir, reason))
}

/// Reads all files; changes nothing.
pub(super) fn recover(site: &Site) -> Result<(Found, Newest), OpenError> {
    let newest = Newest::read(&site.newest).map_err(|error| explain(&site.newest, error))?;
    let files = files(&site.dir).map_err(|reason| io_error(&site.dir, reason))?;
    let mut found = Found {
        number: FIRST_FRAME,
        ..Found::default()
    };
    for (nth, path) in files.iter().enumerate() {
        let segment = Segment::open(path).map_err(|error| explain(path, error))?;
        if segment.is_of_another(Owner::of(site.disk)) {
            let file = path.clone();
            return Err(OpenError::OfAnother { file });
        }
        let is_last = nth + 1 == files.len();
        read(&mut found, segment, (nth == 0, is_last)).map_err(|error| explain(path, error))?;
    }
    check_beginning(&found)?;
    check_end(site, &found, newest.noted())?;
    Ok((found, newest))
}

fn io_error(dir: &Path, reason: io::Error) -> OpenError {
    OpenError::Io {
        dir: dir.to_owned(),
        reason,
    }
}

fn create(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// The log's files, oldest first: their names sort by their first frames.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(error),
    };
    for file in entries {
        let path = file?.path();
        if path.extension().is_some_and(|e| e == "wal") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(found: &mut Found, segment: Segment, (is_first, is_last): (bool, bool)) -> io::Result<()> {
    if is_first {
        found.number = segment.first;
    } else if segment.first != found.number {
        let (is, expected) = (segment.first, found.number);
        return Err(damaged(format!(
            "it begins with frame {is}, not with {expected}"
        )));
    }
    let mut highest = 0;
    let index = &mut found.index;
    let (number, offset, end) = segment.read_frames(|frame| {
        for record in records::read_body(&frame.body)? {
            if let Record::Entry(entry, _) = &record {
                highest = highest.max(entry.log_id.index);
            }
            let in_file = |place: Place| Place {
                offset: frame.body_offset + place.offset,
                ..place
            };
            index.recover(record, segment.first, in_file)?;
        }
        Ok(())
    })?;
    found.torn = match end {
        End::Clean => false,
        End::Torn(_) if is_last => true,
        End::Torn(at) => {
            return Err(damaged(format!(
                "checksum mismatch at {at}, though the log goes on after this file"
            )));
        }
    };
    (found.number, found.offset) = (number, offset);
    found.files.push_back((segment, highest));
    Ok(())
}

/// Older files are deleted only when what was in them is purged.
fn check_beginning(found: &Found) -> Result<(), OpenError> {
    let Some((segment, _)) = found.files.front() else {
        return Ok(());
    };
    let index = &found.index;
    let is_complete = segment.first == FIRST_FRAME || index.marks.purged.is_some();
    if is_complete && index.begins_right() {
        return Ok(());
    }
    let reason = "entries before this file are missing, and were not purged".to_owned();
    let file = segment.path.clone();
    Err(OpenError::Damaged { file, reason })
}

/// Without its last files a log looks whole; so does one of which nothing is left.
fn check_end(site: &Site, found: &Found, noted: Option<u64>) -> Result<(), OpenError> {
    let last = found.files.back().map(|(segment, _)| segment.first);
    let reason = match noted {
        Some(noted) if last < Some(noted) => {
            format!("its newest file, {}, is missing", segment::name_of(noted))
        }
        // Who belongs to a cluster has voted before, if only for the leader that it heard from.
        _ if site.has_cluster && found.index.marks.vote.is_none() => {
            "there is no vote in it, though this node belongs to a cluster".to_owned()
        }
        _ => return Ok(()),
    };
    let dir = site.dir.clone();
    Err(OpenError::Missing { dir, reason })
}

fn explain(path: &Path, error: io::Error) -> OpenError {
    match error.kind() {
        io::ErrorKind::InvalidData => OpenError::Damaged {
            file: path.to_owned(),
            reason: error.to_string(),
        },
        _ => io_error(path.parent().unwrap_or(path), error),
    }
}

/// Makes the disk ready to go on, and starts the log's thread.
fn begin(
    site: &Site,
    segment_bytes: u64,
    (mut found, mut newest): (Found, Newest),
    on_flush: OnFlush,
) -> io::Result<(Arc<Shared>, JoinHandle<()>)> {
    let (dir, owner) = (&site.dir, Owner::of(site.disk));
    create(dir)?;
    let current = match found.files.back() {
        Some((segment, _)) => {
            // A killed process leaves frames that were written but not fsynced, and from here on
            // every frame that was found counts as kept.
            segment.write_again(found.offset)?;
            if found.torn {
                let file = segment.path.display();
                tracing::info!(%file, offset = found.offset, "removed an incomplete write from the end of the log");
                segment.wipe(found.offset)?;
            }
            segment.clone()
        }
        None => {
            let segment = Blank::create(dir, segment_bytes)?.adopt(dir, found.number, owner)?;
            found.offset = HEADER_BYTES;
            found.files.push_back((segment.clone(), 0));
            segment
        }
    };
    // A kill may have come before it, or an older version wrote the file.
    newest.note(current.first)?;
    let writer = Writer {
        dir: dir.clone(),
        owner,
        newest,
        segment_bytes,
        current,
        offset: found.offset,
        number: found.number,
        spare: None,
        on_flush,
    };
    Shared::start(found.index, found.files, writer)
}
