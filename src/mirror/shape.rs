//! What every mirror has to look like, and what shows that somebody else has been in one.
//!
//! Nobody but the gate writes in a mirror, and so what its last writer left is taken for what is there. A disk that was
//! repaired, a backup that was played back or a hand that slipped makes that wrong. A look at a few files shows most of
//! it for less than a process costs: whether they are there at all, and whether those that every change of the refs or
//! packs touches are as they were when the last turn ended.

use crate::git::head::{self, Head};
use crate::git::object_format::ObjectFormat;
use crate::git::packed_refs;
use crate::model::mirrored::OWN;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirEntry, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Directories without which git takes no place for a repository, or has no objects.
const DIRECTORIES: [&str; 3] = ["refs", "objects", "objects/pack"];

/// Files that let git see another history than the upstream has, or objects that are elsewhere. No mirror has one.
pub(super) const FOREIGN: [&str; 4] = ["commondir", "objects/info/alternates", "shallow", "info/grafts"];

/// Where the packs are.
const PACKS: &str = "objects/pack";

/// What the configuration of a mirror says beside what git writes: partial clones are served as forges serve them. The one
/// filter is left out that reads a blob of the client's choice for each object.
const SERVING: &str =
    "[uploadpack]\n\tallowFilter = true\n[uploadpackfilter \"sparse:oid\"]\n\tallow = false\n";

/// Whether the mirror at `git_dir` has everything that makes it one, and nothing that none has. What is in its packs is
/// another question.
pub(super) fn is_whole(git_dir: &Path) -> bool {
    let text = |name| fs::read_to_string(git_dir.join(name)).unwrap_or_default();
    Head::parse(&text(head::FILE)).is_some()
        && text("config").contains("bare = true")
        && DIRECTORIES.iter().all(|name| git_dir.join(name).is_dir())
        && !has_any(git_dir, &FOREIGN)
}

/// Whether any of these is there, whatever it is.
pub(super) fn has_any(git_dir: &Path, names: &[&str]) -> bool {
    names.iter().any(|name| fs::symlink_metadata(git_dir.join(name)).is_ok())
}

/// The hash that the configuration of the mirror at `git_dir` names.
pub(super) fn format_of(git_dir: &Path) -> ObjectFormat {
    let text = fs::read_to_string(git_dir.join("config")).unwrap_or_default().to_ascii_lowercase();
    if text.contains("objectformat = sha256") { ObjectFormat::Sha256 } else { ObjectFormat::Sha1 }
}

/// Lets the mirror at `git_dir` be served as all are, also one that was made before this was so.
pub(super) fn configure(git_dir: &Path) -> io::Result<()> {
    let file = git_dir.join("config");
    if fs::read_to_string(&file)?.contains("allowFilter") {
        return Ok(());
    }
    OpenOptions::new().append(true).open(file)?.write_all(SERVING.as_bytes())
}

/// What is in a directory; nothing in one that is not there.
pub(super) fn entries(dir: &Path) -> io::Result<Vec<DirEntry>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The files of loose refs, but those of the gate's own.
pub(super) fn loose_refs(git_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut ahead, mut files) = (vec![git_dir.join("refs")], Vec::new());
    while let Some(dir) = ahead.pop() {
        for entry in entries(&dir)? {
            let path = entry.path();
            match entry.file_type()?.is_dir() {
                true if path == git_dir.join(OWN) => {}
                true => ahead.push(path),
                false => files.push(path),
            }
        }
    }
    Ok(files)
}

/// What somebody else changes who changes the refs or the packs of a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    stamps: Stamps,
    /// The packs themselves, and how many bytes each has: more of them are no harm.
    sizes: BTreeMap<OsString, u64>,
}

/// What `stat` says of a file: its inode, size and last change of the content, in seconds and nanoseconds.
type Stamp = (u64, u64, i64, i64);

/// Those of the packed refs, of HEAD and of the directory of packs.
type Stamps = [Option<Stamp>; 3];

impl Look {
    /// At the mirror at `git_dir`.
    pub(super) fn at(git_dir: &Path) -> Self {
        Self { stamps: stamps(git_dir), sizes: pack_sizes(git_dir) }
    }

    /// Whether nobody has changed anything since. A loose ref is always somebody else's.
    pub(super) fn is_still_so(&self, git_dir: &Path) -> bool {
        stamps(git_dir) == self.stamps
            && loose_refs(git_dir).is_ok_and(|refs| refs.is_empty())
            && pack_sizes(git_dir) == self.sizes
    }

    /// Whether a pack is gone since, or has another length.
    pub(super) fn has_lost_packs(&self, git_dir: &Path) -> bool {
        let present = pack_sizes(git_dir);
        self.sizes.iter().any(|(name, size)| present.get(name) != Some(size))
    }
}

fn stamps(git_dir: &Path) -> Stamps {
    let stamp = |name| {
        let meta = fs::symlink_metadata(git_dir.join(name)).ok()?;
        Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
    };
    [packed_refs::FILE, head::FILE, PACKS].map(stamp)
}

fn pack_sizes(git_dir: &Path) -> BTreeMap<OsString, u64> {
    let entries = fs::read_dir(git_dir.join(PACKS)).into_iter().flatten().flatten();
    let is_pack = |name: &OsString| Path::new(name).extension().is_some_and(|it| it == "pack" || it == "idx");
    let packs = entries.filter(|entry| is_pack(&entry.file_name()));
    packs.filter_map(|entry| Some((entry.file_name(), entry.metadata().ok()?.len()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        DIRECTORIES.iter().for_each(|name| fs::create_dir(dir.path().join(name)).unwrap());
        fs::write(dir.path().join("HEAD"), "ref: refs/heads/main\n").unwrap();
        fs::write(dir.path().join("config"), ObjectFormat::Sha256.bare_config()).unwrap();
        dir
    }

    #[test]
    fn a_mirror_that_lacks_anything_is_not_whole() {
        for name in ["HEAD", "config"] {
            let dir = mirror();
            assert!(is_whole(dir.path()) && format_of(dir.path()) == ObjectFormat::Sha256);
            fs::write(dir.path().join(name), "").unwrap();
            assert!(!is_whole(dir.path()), "{name} is empty");
            fs::remove_file(dir.path().join(name)).unwrap();
            assert!(!is_whole(dir.path()), "{name} is gone");
        }
        for name in DIRECTORIES {
            let dir = mirror();
            fs::remove_dir_all(dir.path().join(name)).unwrap();
            assert!(!is_whole(dir.path()), "{name} is gone");
        }
        for name in FOREIGN {
            let dir = mirror();
            let file = dir.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink("/nowhere", file).unwrap();
            assert!(!is_whole(dir.path()), "{name} is there");
        }
    }

    #[test]
    fn a_mirror_is_configured_once_and_keeps_what_it_has() {
        let dir = mirror();
        configure(dir.path()).unwrap();
        let once = fs::read_to_string(dir.path().join("config")).unwrap();
        assert!(once.starts_with(&ObjectFormat::Sha256.bare_config()) && once.ends_with(SERVING), "{once}");
        configure(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("config")).unwrap(), once);
    }

    #[test]
    fn a_change_of_refs_or_packs_shows_and_packs_that_are_gone_are_known_from_new_ones() {
        let dir = mirror();
        let (one, other) = (dir.path().join("objects/pack/1.pack"), dir.path().join("objects/pack/2.pack"));
        fs::write(&one, "whole").unwrap();
        let look = Look::at(dir.path());
        assert!(look.is_still_so(dir.path()) && !look.has_lost_packs(dir.path()));
        fs::write(&one, "cut").unwrap();
        assert!(!look.is_still_so(dir.path()) && look.has_lost_packs(dir.path()), "it was longer");
        fs::write(&one, "whole").unwrap();
        assert!(look.is_still_so(dir.path()) && !look.has_lost_packs(dir.path()));
        fs::write(&other, "").unwrap();
        assert!(!look.is_still_so(dir.path()) && !look.has_lost_packs(dir.path()));
        fs::remove_file(&one).unwrap();
        assert!(look.has_lost_packs(dir.path()));
        let look = Look::at(dir.path());
        fs::write(dir.path().join("packed-refs"), "").unwrap();
        assert!(!look.is_still_so(dir.path()));
    }
}
