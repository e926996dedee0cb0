//! Which file of the log is the newest, noted outside of the log's directory.
//!
//! A log that lost its last files, or all of them, looks like a whole one that is shorter. The note
//! tells them apart. It has one line, the name of a file, and is replaced as a whole.
//!
//! The order that makes it right: a file has its name on disk before it is noted, and its first frame
//! is written after the note is on disk. So whatever a kill leaves, the noted file is there, and a file
//! that is not noted yet has nothing in it; what was reported is in a file that is noted, or in one before.
//! Only older files are ever deleted.
//!
//! A log that a version without notes wrote has none until it is opened, or one that is behind.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::records::damaged;
use super::segment;

/// The note, as it is on disk.
pub(super) struct Newest {
    path: PathBuf,
    /// The number of the first frame of the file that it names.
    noted: Option<u64>,
}

impl Newest {
    /// # Errors
    /// `InvalidData` when it names no file of a log.
    pub fn read(path: &Path) -> io::Result<Newest> {
        let noted = match fs::read_to_string(path) {
            Ok(line) => {
                let name = Path::new(line.trim_end());
                let noted = segment::first_of(name);
                Some(noted.ok_or_else(|| damaged("it names no file of the log".to_owned()))?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Newest {
            path: path.to_owned(),
            noted,
        })
    }

    pub fn noted(&self) -> Option<u64> {
        self.noted
    }

    /// Notes the file whose first frame has this number, which is on disk under its name. Blocks for two fsyncs.
    pub fn note(&mut self, first: u64) -> io::Result<()> {
        if self.noted == Some(first) {
            return Ok(());
        }
        let incoming = self.path.with_extension("tmp");
        let mut file = File::create(&incoming)?;
        writeln!(file, "{}", segment::name_of(first))?;
        file.sync_all()?;
        fs::rename(&incoming, &self.path)?;
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        self.noted = Some(first);
        Ok(())
    }
}
