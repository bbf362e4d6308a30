//! A mirror that is being made: a directory in `DATA/tmp` that goes with its maker unless it became one.

use super::shape::entries;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
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

    /// Takes in the objects of the mirror at `old` without copying them, next to its own.
    pub(super) fn adopt(&self, old: &Path) -> io::Result<()> {
        link(&old.join("objects"), &self.0.join("objects"))
    }

    /// Brings all of it to the disk: files first, then the directories that name them.
    pub(super) fn sync(&self) -> io::Result<()> {
        sync(&self.0)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let removed = match fs::remove_dir_all(&self.0) {
            // Something else had the place that the mirror has now.
            Err(error) if error.kind() == ErrorKind::NotADirectory => fs::remove_file(&self.0),
            removed => removed,
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                log::warn!("the unfinished mirror {:?} stays until the next start: {error}", self.0);
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Links packs and loose objects, and what belongs to them. A list of all packs and a graph of all commits are not of the
/// new place.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    // A broken mirror may lack even its directories.
    for entry in entries(from)? {
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        let target = to.join(&name);
        if kind.is_dir() && name != "info" {
            unless_there(DirBuilder::new().mode(0o700).create(&target))?;
            link(&entry.path(), &target)?;
        } else if kind.is_file() && !name.as_bytes().starts_with(b"multi-pack-index") {
            unless_there(fs::hard_link(entry.path(), target))?;
        }
    }
    Ok(())
}

fn unless_there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        result => result,
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
