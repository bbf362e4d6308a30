//! Where mirrors are: `DATA/mirrors/UPSTREAM/PATH.git`, and `DATA/tmp` until they are whole.
//!
//! No segment of a repository's name ends in `.git`, so no mirror lies in another one.

use crate::git::layout::Repository;
use crate::model::name::RepoName;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The directories of all mirrors. Both are absolute and free of symbolic links.
#[derive(Debug)]
pub(super) struct Places {
    mirrors: PathBuf,
    tmp: PathBuf,
    /// Where pushes wait whose repositories borrow from mirrors.
    held: PathBuf,
    /// How many drafts there were in this life; no earlier one left any.
    drafts: AtomicU64,
}

impl Places {
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let data_dir = fs::canonicalize(data_dir)?;
        let mirrors = data_dir.join("mirrors");
        make_private(&mirrors)?;
        let (tmp, held) = (data_dir.join("tmp"), data_dir.join("held"));
        Ok(Self { mirrors, tmp, held, drafts: AtomicU64::new(0) })
    }

    /// Where the mirror of `repo` is, or will be.
    pub(super) fn of(&self, repo: &RepoName) -> PathBuf {
        self.mirrors.join(format!("{repo}.git"))
    }

    /// The name of the upstream whose repository has its mirror at `place`.
    pub(super) fn upstream_of<'a>(&self, place: &'a Path) -> Option<&'a str> {
        place.strip_prefix(&self.mirrors).ok()?.iter().next()?.to_str()
    }

    /// The repository whose mirror is at `place`.
    pub(super) fn repo_at(&self, place: &Path) -> Option<RepoName> {
        let name = place.strip_prefix(&self.mirrors).ok()?.to_str()?.strip_suffix(".git")?;
        RepoName::parse(name).ok()
    }

    pub(super) fn find(&self, repo: &RepoName) -> Option<Repository> {
        let git_dir = self.of(repo);
        // It was given its name when it was whole.
        git_dir.is_dir().then(|| repository(git_dir))
    }

    /// A name that nothing has, for a mirror that is being made.
    pub(super) fn new_draft(&self) -> PathBuf {
        self.tmp.join(format!("mirror-{}.git", self.drafts.fetch_add(1, Ordering::Relaxed)))
    }

    /// Whether a push is held whose repository borrows objects from the mirror at `place`.
    pub(super) fn is_borrowed(&self, place: &Path) -> io::Result<bool> {
        // The quotes and escapes around it are of no matter: no name of a mirror needs any.
        let name = place.strip_prefix(&self.mirrors).unwrap_or(place);
        let borrowed = Path::new("/mirrors").join(name).join("objects\"");
        let entries = match fs::read_dir(&self.held) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            entries => entries?,
        };
        for entry in entries {
            let borrows_from = match fs::read(entry?.path().join("objects/info/alternates")) {
                // It is being made or removed.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                text => text?,
            };
            if borrows_from.trim_ascii_end().ends_with(borrowed.as_os_str().as_bytes()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes the mirror at `place` away under the name `away`, for good. Gits that have it open go on with what they have
    /// open.
    pub(super) fn withdraw(&self, place: &Path, away: &Path) -> io::Result<()> {
        fs::rename(place, away)?;
        File::open(place.parent().unwrap_or(&self.mirrors))?.sync_all()
    }

    /// Gives the directory `draft`, whose content is on the disk for good, the name `place`, for good as well. What had that
    /// name before has the draft's then.
    pub(super) fn publish(&self, draft: &Path, place: &Path) -> io::Result<()> {
        let parent = place.parent().unwrap_or(&self.mirrors);
        make_private(parent)?;
        // What is no mirror, a file or a link that leads nowhere, goes as an old one does.
        if fs::symlink_metadata(place).is_ok() {
            renameat2(AT_FDCWD, draft, AT_FDCWD, place, RenameFlags::RENAME_EXCHANGE)?;
        } else {
            fs::rename(draft, place)?;
        }
        let above = parent.ancestors().take_while(|dir| dir.starts_with(&self.mirrors));
        above.into_iter().try_for_each(|dir| File::open(dir)?.sync_all())
    }
}

/// The repository at `git_dir`.
pub(super) fn repository(git_dir: PathBuf) -> Repository {
    Repository { common_dir: git_dir.clone(), git_dir }
}

/// The sizes of all files below `top`. One that goes meanwhile counts nothing.
pub(super) fn bytes(top: &Path) -> u64 {
    let mut ahead = vec![top.to_path_buf()];
    let mut bytes = 0;
    while let Some(dir) = ahead.pop() {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        for (entry, meta) in entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?))) {
            if meta.is_dir() {
                ahead.push(entry);
            } else {
                bytes += meta.len();
            }
        }
    }
    bytes
}

fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(path)
}
