//! A mirror that is being made: a directory in `DATA/tmp` that goes with its maker unless it became one.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The directory. Dropping it removes it; what an ended gate leaves goes when the next one starts.
#[derive(Debug)]
pub(super) struct Draft(PathBuf);

impl Draft {
    /// A draft at `path`, where nothing is yet.
    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Brings all of it to the disk: files first, then the directories that name them.
    pub(super) fn sync(&self) -> io::Result<()> {
        sync(&self.0)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                log::warn!("the unfinished mirror {:?} stays until the next start: {error}", self.0);
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// A new mirror has a dozen files, its refs are in one.
fn sync(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}
