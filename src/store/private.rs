//! Directories and files that only the gate's own user may see.

use super::StoreError;
use crate::sys::random;
use nix::unistd::geteuid;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What is kept in these of a data directory is removed when no record speaks of it.
const SWEPT: [&str; 3] = ["tmp", "held", "mirrors"];

/// Permission bits that let others in.
const OTHERS: u32 = 0o077;

/// Makes `path` and what is missing above it, or checks that it is ours.
///
/// A directory that is there and open to others is closed when it is empty or holds our database already;
/// otherwise it is refused, for a slip such as `--data-dir /tmp` must not lock others out of theirs. So is one without our
/// database in which we would remove files: `--data-dir ~` must not cost anybody his `~/tmp`.
pub(super) fn directory(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(StoreError::io("making the data directory", path))?;
    let found = check_owner_of(path)?;
    let is_new = !path.join(super::DATABASE).exists();
    let occupied = SWEPT.map(|name| path.join(name)).into_iter().find(|place| is_new && has_entries(place));
    if let Some(place) = occupied {
        return Err(StoreError::Occupied(place));
    }
    if found.mode() & OTHERS == 0 {
        return Ok(());
    }
    let mut entries = fs::read_dir(path).map_err(StoreError::io("reading", path))?;
    if entries.next().is_some() && is_new {
        return Err(StoreError::Exposed { path: path.to_owned(), mode: found.mode() & 0o7777 });
    }
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(StoreError::io("closing", path))
}

fn has_entries(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

/// As [`check_owner`], with everything that is known of `path`.
pub(super) fn check_owner_of(path: &Path) -> Result<Metadata, StoreError> {
    let found = fs::metadata(path).map_err(StoreError::io("looking at", path))?;
    check_owner(path, found.uid())?;
    Ok(found)
}

/// Refuses what belongs to another user: our files in there would be his to replace, and his in ours not ours
/// to write.
pub(super) fn check_owner(path: &Path, owner: u32) -> Result<(), StoreError> {
    let us = geteuid().as_raw();
    if owner == us { Ok(()) } else { Err(StoreError::ForeignOwner { path: path.to_owned(), owner, us }) }
}

/// Makes an empty file of mode 0600 unless there is one; one that is there is closed to others, without opening
/// it: to close a second descriptor of a database would drop SQLite's locks on it (fcntl(2)).
pub(super) fn touch(path: &Path) -> Result<(), StoreError> {
    match create(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let found = check_owner_of(path)?;
            if found.mode() & OTHERS == 0 {
                return Ok(());
            }
            fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(StoreError::io("closing", path))
        }
        Err(error) => Err(StoreError::io("making", path)(error)),
    }
}

/// Makes a file with this content that is there wholly or not at all, and leaves one that is there as it is.
pub(super) fn write_new(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let draft = write_draft(path, content)?;
    let linked = fs::hard_link(&draft, path);
    let removed = fs::remove_file(&draft);
    match linked {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(StoreError::io("making", path)(error)),
    }
    removed.map_err(StoreError::io("removing", &draft))?;
    sync_parent(path)
}

/// Writes a file with this content in the place of whatever is there, wholly or not at all.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let draft = write_draft(path, content)?;
    fs::rename(&draft, path).map_err(StoreError::io("writing", path))?;
    sync_parent(path)
}

fn write_draft(path: &Path, content: &[u8]) -> Result<PathBuf, StoreError> {
    let mark = random::bytes().map(u64::from_ne_bytes).map_err(StoreError::Random)?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{mark:016x}"));
    let draft = PathBuf::from(name);
    let write = || {
        let mut file = create(&draft)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(StoreError::io("writing", &draft))?;
    Ok(draft)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// A new name is on the disk only when its directory is.
fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(StoreError::io("syncing", parent))
}
