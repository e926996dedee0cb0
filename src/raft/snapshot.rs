//! Snapshots on disk: one file each, checked when it is read.
//!
//! A file is written under a temporary name, fsynced, renamed, and its directory fsynced, before
//! any older one is deleted. So a crash leaves the old one, the new one or both, and a file under
//! its final name was complete once. Layout, all numbers big-endian:
//!
//! ```text
//! "MUFSNAP" version:u8 | meta length:u32 | data length:u64 | xxh3 of these 20 bytes
//! meta (MessagePack)                                       | xxh3 of it
//! data in blocks of 256 KiB, the last one shorter, each    | xxh3 of block number and block
//! xxh3 of all hashes above
//! ```
//!
//! Promise: what `load` returns is, bit for bit, what was saved last. If the newest file is not
//! intact `load` refuses: an older one may end before the log begins, and a state with a gap in it
//! is worse than no node. Limits: all calls block, and what is read is in memory as a whole.

use std::fs::{self, File};
use std::io::{self, Cursor, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::oneshot;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::raft::state::State;
use crate::raft::types::SnapshotMeta;

#[cfg(test)]
mod tests;

const MAGIC: [u8; 7] = *b"MUFSNAP";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = MAGIC.len() + 1 + 4 + 8;
const HASH_BYTES: usize = 8;

/// Damage is found block by block; also the unit of writing.
const BLOCK_BYTES: usize = 256 << 10;

/// How much a snapshot of the node's own gives way to whoever serves requests: it is in no hurry.
const NICENESS: i32 = 10;

/// Name of a file that is still being written: one at a time.
const INCOMING: &str = "incoming.tmp";
const EXTENSION: &str = "snapshot";

/// What to do about a damaged snapshot.
const DAMAGE_ADVICE: &str = "The log no longer holds what the snapshot did, so this node cannot \
    recover by itself. If a majority of the other nodes is intact, remove this node from the \
    cluster, delete its data directory, and add it again under a new node id. Otherwise keep all \
    data directories as they are and ask for help";

/// Why there is no snapshot to start from.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The newest snapshot is not what was saved. Nothing was changed.
    #[error("the snapshot is damaged: {file}: {reason}. {DAMAGE_ADVICE}.", file = file.display())]
    Damaged { file: PathBuf, reason: String },
    #[error("the snapshot {file} cannot be read: {reason}", file = file.display())]
    Io { file: PathBuf, reason: io::Error },
}

/// Where a node keeps its snapshots: a directory, or memory in simulations.
pub trait Snapshots: Send + Sync + 'static {
    /// Stores a state. When this ends well it survives a crash, and older ones are not needed.
    fn save(&self, meta: &SnapshotMeta, state: State) -> BoxFuture<'static, io::Result<()>>;

    /// Stores the bytes of a state, likewise, and returns it. Bytes that are none change nothing.
    fn receive(&self, meta: &SnapshotMeta, data: Bytes) -> BoxFuture<'static, io::Result<State>>;

    /// The newest snapshot; `None` if none was ever saved.
    fn load(&self) -> BoxFuture<'static, io::Result<Option<(SnapshotMeta, Bytes)>>>;
}

/// Files block and a large state takes its time, so that both are the work of threads of their own.
impl Snapshots for SnapshotStore {
    fn save(&self, meta: &SnapshotMeta, state: State) -> BoxFuture<'static, io::Result<()>> {
        let (store, meta) = (self.clone(), meta.clone());
        let (sender, saved) = oneshot::channel();
        let work = move || {
            // A thread of its own, since who has become nicer stays so. Where it is refused requests wait a
            // little longer meanwhile.
            let _ = rustix::process::nice(NICENESS);
            let _ = sender.send(store.save(&meta, |out| state.encode_to(out)));
        };
        let thread = thread::Builder::new().name("snapshot".to_owned());
        let spawned = thread.spawn(work);
        async move {
            spawned?;
            saved.await.map_err(io::Error::other)?
        }
        .boxed()
    }

    fn receive(&self, meta: &SnapshotMeta, data: Bytes) -> BoxFuture<'static, io::Result<State>> {
        let (store, meta) = (self.clone(), meta.clone());
        aside(move || {
            let state = decode_state(&data)?;
            store.save(&meta, |out| out.write_all(&data))?;
            Ok(state)
        })
    }

    fn load(&self) -> BoxFuture<'static, io::Result<Option<(SnapshotMeta, Bytes)>>> {
        let store = self.clone();
        aside(move || store.load().map_err(io::Error::other))
    }
}

fn aside<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> BoxFuture<'static, io::Result<T>> {
    let work = tokio::task::spawn_blocking(work);
    async move { work.await? }.boxed()
}

/// The state that a snapshot holds.
pub(super) fn decode_state(data: &[u8]) -> io::Result<State> {
    State::decode(data).map_err(|error| {
        let what = format!("the snapshot does not decode: {error}");
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// The directory of snapshots.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    dir: PathBuf,
    /// Held while a snapshot is written: one of another node can come while the own one is.
    saving: Arc<Mutex<()>>,
}

impl SnapshotStore {
    /// Creates the directory if need be, and deletes what an interrupted `save` left.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(dir: &Path) -> io::Result<SnapshotStore> {
        fs::create_dir_all(dir)?;
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            sync_dir(parent)?;
        }
        match fs::remove_file(dir.join(INCOMING)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        Ok(SnapshotStore {
            dir: dir.to_owned(),
            saving: Arc::default(),
        })
    }

    /// Stores a snapshot with the data that `write` writes and, once it is on disk, deletes the older
    /// ones. If a snapshot that reaches further is there already, nothing changes.
    ///
    /// # Errors
    /// Those of the file system, with the directory's name; the snapshots that were there still are.
    pub fn save(
        &self,
        meta: &SnapshotMeta,
        write: impl FnOnce(&mut Blocks<File>) -> io::Result<()>,
    ) -> io::Result<()> {
        // What a panic left is written anew.
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_and_replace(meta, write).map_err(|error| {
            let dir = self.dir.display();
            let what = format!("no snapshot can be stored in {dir} (is the disk full?): {error}");
            io::Error::new(error.kind(), what)
        })
    }

    fn write_and_replace(
        &self,
        meta: &SnapshotMeta,
        write: impl FnOnce(&mut Blocks<File>) -> io::Result<()>,
    ) -> io::Result<()> {
        let name = file_name(meta);
        let existing = self.names()?;
        if existing.last().is_some_and(|newest| *newest > name) {
            return Ok(());
        }
        let incoming = self.dir.join(INCOMING);
        write_file(&incoming, meta, write)?;
        fs::rename(&incoming, self.dir.join(&name))?;
        sync_dir(&self.dir)?;
        for older in existing.iter().filter(|older| **older != name) {
            fs::remove_file(self.dir.join(older))?;
        }
        Ok(())
    }

    /// The newest snapshot, verified; `None` if none was ever saved.
    ///
    /// # Errors
    /// [`LoadError::Damaged`] if the newest file is not what was saved, whatever older ones say.
    pub fn load(&self) -> Result<Option<(SnapshotMeta, Bytes)>, LoadError> {
        let (name, bytes) = loop {
            let names = self.names().map_err(|reason| LoadError::Io {
                file: self.dir.clone(),
                reason,
            })?;
            let Some(name) = names.into_iter().next_back() else {
                return Ok(None);
            };
            let file = self.dir.join(&name);
            match fs::read(&file) {
                Ok(bytes) => break (name, bytes),
                // A newer one has just taken its place.
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
                Err(reason) => return Err(LoadError::Io { file, reason }),
            }
        };
        let file = self.dir.join(&name);
        match decode(&bytes) {
            Ok((meta, _)) if file_name(&meta) != name => Err(LoadError::Damaged {
                reason: format!("it is the file {}", file_name(&meta)),
                file,
            }),
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(reason) => Err(LoadError::Damaged { file, reason }),
        }
    }

    /// Names of complete snapshots, the one that reaches furthest last.
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for file in fs::read_dir(&self.dir)? {
            let name = file?.file_name().to_string_lossy().into_owned();
            if Path::new(&name).extension().is_some_and(|e| e == EXTENSION) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Names sort by the last entry that is in the snapshot; applied entries are committed, so their
/// indexes alone decide.
fn file_name(meta: &SnapshotMeta) -> String {
    let (index, term) = match meta.last_log_id {
        Some(id) => (id.index, id.leader_id.term),
        None => (0, 0),
    };
    format!("{index:020}-{term:020}.{EXTENSION}")
}

fn write_file(
    path: &Path,
    meta: &SnapshotMeta,
    write: impl FnOnce(&mut Blocks<File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut blocks = Blocks::begin(File::create(path)?, meta)?;
    write(&mut blocks)?;
    blocks.finish()?.sync_all()
}

/// A snapshot as the bytes of its file.
pub(super) fn encode(meta: &SnapshotMeta, state: &State) -> Vec<u8> {
    let written = Blocks::begin(Cursor::new(Vec::new()), meta).and_then(|mut blocks| {
        state.encode_to(&mut blocks)?;
        blocks.finish()
    });
    written.expect("memory takes what is written").into_inner()
}

/// A snapshot that is being written: takes the data, and passes it on with all checks. It keeps no more
/// than one block of it. The header, which has the length, is written at the end.
pub struct Blocks<W> {
    out: W,
    meta_length: u32,
    data_length: u64,
    block: Vec<u8>,
    /// Of the meta and of all blocks so far.
    hashes: Vec<u64>,
}

impl<W: Write + Seek> Blocks<W> {
    fn begin(mut out: W, meta: &SnapshotMeta) -> io::Result<Self> {
        let meta = rmp_serde::to_vec(meta).expect("a snapshot's meta always encodes");
        out.write_all(&[0; HEADER_BYTES + HASH_BYTES])?;
        let mut blocks = Blocks {
            out,
            meta_length: u32::try_from(meta.len()).expect("a membership is far below 4 GB"),
            data_length: 0,
            block: Vec::with_capacity(BLOCK_BYTES + HASH_BYTES),
            hashes: Vec::new(),
        };
        blocks.block.extend(&meta);
        blocks.pass_on(xxh3_64(&meta))?;
        Ok(blocks)
    }

    /// The whole, to the last check; nothing is fsynced.
    fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let mut header = [0; HEADER_BYTES];
        header[..7].copy_from_slice(&MAGIC);
        header[7] = VERSION;
        header[8..12].copy_from_slice(&self.meta_length.to_be_bytes());
        header[12..].copy_from_slice(&self.data_length.to_be_bytes());
        let header_hash = xxh3_64(&header);

        let mut all = Xxh3::new();
        for hash in std::iter::once(header_hash).chain(self.hashes) {
            all.update(&hash.to_be_bytes());
        }
        self.out.write_all(&all.digest().to_be_bytes())?;
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header)?;
        self.out.write_all(&header_hash.to_be_bytes())?;
        Ok(self.out)
    }

    fn end_block(&mut self) -> io::Result<()> {
        self.data_length += self.block.len() as u64;
        self.pass_on(block_hash(self.hashes.len() - 1, &self.block))
    }

    /// Writes what is in `block`, which has this hash.
    fn pass_on(&mut self, hash: u64) -> io::Result<()> {
        self.block.extend(hash.to_be_bytes());
        self.out.write_all(&self.block)?;
        self.block.clear();
        self.hashes.push(hash);
        Ok(())
    }
}

impl<W: Write + Seek> Write for Blocks<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let room = BLOCK_BYTES - self.block.len();
        let taken = data.len().min(room);
        self.block.extend(&data[..taken]);
        if taken == room {
            self.end_block()?;
        }
        Ok(taken)
    }

    /// A block goes on when it is full.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The block's number is hashed with it, so that blocks cannot change places.
fn block_hash(number: usize, block: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&(number as u64).to_be_bytes());
    hash.update(block);
    hash.digest()
}

/// Reads a file's bytes from the front, checking as it goes.
struct Reader<'a> {
    rest: &'a [u8],
    hashes: Xxh3,
}

impl<'a> Reader<'a> {
    /// The next `length` bytes, which `hash` must describe.
    fn part(
        &mut self,
        what: &str,
        length: usize,
        hash: impl Fn(&[u8]) -> u64,
    ) -> Result<&'a [u8], String> {
        let part = self.take(what, length)?;
        let stored = self.hash(what)?;
        if stored != hash(part) {
            return Err(format!("the {what} fails its check"));
        }
        self.hashes.update(&stored.to_be_bytes());
        Ok(part)
    }

    fn hash(&mut self, what: &str) -> Result<u64, String> {
        let bytes = self.take(what, HASH_BYTES)?;
        Ok(u64::from_be_bytes(bytes.try_into().expect("eight bytes")))
    }

    fn take(&mut self, what: &str, length: usize) -> Result<&'a [u8], String> {
        let (part, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| format!("it ends within the {what}"))?;
        self.rest = rest;
        Ok(part)
    }
}

/// Reads the bytes of a file, checking all of them; an error says what is wrong.
pub(super) fn decode(bytes: &[u8]) -> Result<(SnapshotMeta, Bytes), String> {
    let mut reader = Reader {
        rest: bytes,
        hashes: Xxh3::new(),
    };
    let header = reader.part("header", HEADER_BYTES, xxh3_64)?;
    if header[..7] != MAGIC {
        return Err("it is not a snapshot".into());
    }
    if header[7] != VERSION {
        let version = header[7];
        return Err(format!("it has version {version}, not {VERSION}"));
    }
    let meta_length = u32::from_be_bytes(header[8..12].try_into().expect("four bytes"));
    let length = u64::from_be_bytes(header[12..].try_into().expect("eight bytes"));

    let meta = reader.part("meta", meta_length as usize, xxh3_64)?;
    let meta = rmp_serde::from_slice(meta).map_err(|e| format!("the meta says nothing: {e}"))?;

    let length = usize::try_from(length).map_err(|_| "it is larger than memory".to_owned())?;
    let mut data = Vec::with_capacity(length.min(reader.rest.len()));
    let mut number = 0;
    while data.len() < length {
        let size = BLOCK_BYTES.min(length - data.len());
        let what = format!("block {number}");
        data.extend_from_slice(reader.part(&what, size, |block| block_hash(number, block))?);
        number += 1;
    }
    if reader.hash("last check")? != reader.hashes.digest() {
        return Err("the last check fails".into());
    }
    if !reader.rest.is_empty() {
        return Err(format!("{} bytes follow its end", reader.rest.len()));
    }
    Ok((meta, data.into()))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
