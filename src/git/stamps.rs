//! What `stat` says of files, by which a change of them is seen without reading them.
//!
//! Two changes within the resolution of a time stamp look alike, so a file that changed shortly before it was looked at is
//! not trusted; git's index knows this as "racily clean".

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How old a change must be at the time of reading on any file system: the coarsest time stamps are 2 s apart (FAT; NFS
/// servers round to 1 s).
pub(crate) const RACY: Duration = Duration::from_secs(2);

/// Files as they were.
pub(crate) type Stamps = BTreeMap<PathBuf, Stamp>;

/// Seconds and nanoseconds since 1970.
pub(crate) type Time = (i64, i64);

/// What `stat` says of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stamp {
    Absent,
    Present { size: u64, device: u64, inode: u64, modified: Time, changed: Time },
}

impl Stamp {
    /// That of what is at `path`, links followed.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        Self::from_look(fs::metadata(path))
    }

    /// That of what is at `path` itself, and be it a link.
    pub(crate) fn of_entry(path: &Path) -> io::Result<Self> {
        Self::from_look(fs::symlink_metadata(path))
    }

    fn from_look(look: io::Result<Metadata>) -> io::Result<Self> {
        match look {
            Ok(found) => Ok(Self::from_metadata(&found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Absent),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn from_metadata(found: &Metadata) -> Self {
        Self::Present {
            size: found.len(),
            device: found.dev(),
            inode: found.ino(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// Whether the last change lies so far before `now` that a later one cannot have the same time, whatever the file
    /// system.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        let limit = now.checked_sub(RACY).and_then(|limit| limit.duration_since(UNIX_EPOCH).ok());
        let limit: Time = limit.map_or((0, 0), |limit| {
            (limit.as_secs().try_into().unwrap_or(i64::MAX), limit.subsec_nanos().into())
        });
        match self {
            Self::Absent => true,
            Self::Present { modified, changed, .. } => *modified < limit && *changed < limit,
        }
    }
}

/// The stamps of these files.
pub(crate) fn of_all(files: impl IntoIterator<Item = PathBuf>) -> io::Result<Stamps> {
    files.into_iter().map(|path| Stamp::of(&path).map(|stamp| (path, stamp))).collect()
}

/// Whether every file is as it was.
pub(crate) fn are_still(stamps: &Stamps) -> bool {
    stamps.iter().all(|(path, stamp)| Stamp::of(path).is_ok_and(|now| now == *stamp))
}
