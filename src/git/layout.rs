//! Where the repositories of `root` are: which directory a name means, and what counts as a repository.
//!
//! The order of places and the tests are those of git's `enter_repo`, which `git http-backend` uses, so that either
//! server finds the same repository. Beyond git, every path that is followed must end below `root`, unless the operator
//! allowed symbolic links to lead out. Names are parsed elsewhere; this room never sees `..`.
//!
//! Access is decided by name, so a repository must not answer to a second name that others can make. Two things that git
//! serves are none here: what lies inside a git directory (a push can make refs that look like a repository there), and a
//! linked worktree, which is another way into the repository that it belongs to.
//!
//! "It is not there" and "I could not look" are different answers: only the first is a 404.

use crate::model::name::RepoName;
use nix::libc;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What may follow a name, in the order in which git tries it.
const SUFFIXES: [&str; 4] = ["/.git", "", ".git/.git", ".git"];

/// How much of a `HEAD`, `.git` or `commondir` file is read; git's longest path fits.
const SMALL_FILE_MAX: u64 = 4096 + 64;

/// The directory below which hosted repositories are, if any are.
#[derive(Clone, Debug)]
pub struct Root {
    path: Option<PathBuf>,
    follow_symlinks: bool,
}

/// A repository on disk. Both paths are absolute and free of symbolic links.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Repository {
    /// What git calls `GIT_DIR`.
    pub git_dir: PathBuf,
    /// Where its objects and shared refs are. [`Root`] hands out no linked worktree, so there it is `git_dir`.
    pub common_dir: PathBuf,
}

/// Why a name leads to no repository.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Nothing in any of the places is a repository.
    #[error("no repository of that name")]
    NotFound,
    /// The place exists, but a symbolic link or `.git` file leads out of the root.
    #[error("{path:?} leads out of the root: set follow_symlinks = true if that is wanted")]
    Outside {
        /// The place, before links were followed.
        path: PathBuf,
    },
    /// The directory of all repositories cannot be used.
    #[error("root: opening {}: {source}; name a directory that the user of the gate can list", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The disk did not answer.
    #[error("looking for a repository at {path:?}: {source}")]
    Io {
        /// What was looked at.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl LayoutError {
    /// Whether the reason is a fault of this machine and says nothing about the name.
    #[must_use]
    pub const fn is_fault(&self) -> bool {
        match self {
            Self::NotFound | Self::Outside { .. } => false,
            Self::Root { .. } | Self::Io { .. } => true,
        }
    }
}

impl Root {
    /// The root at `path`, which must be a directory that can be listed: one that cannot be is more likely another
    /// user's than meant to hide its names.
    ///
    /// # Errors
    /// [`LayoutError::Root`] when it is none or cannot be read.
    pub fn open(path: &Path, follow_symlinks: bool) -> Result<Self, LayoutError> {
        let fault = |source| LayoutError::Root { path: path.to_path_buf(), source };
        let real = fs::canonicalize(path).map_err(fault)?;
        fs::read_dir(&real).map_err(fault)?;
        Ok(Self { path: Some(real), follow_symlinks })
    }

    /// No directory, so that every name leads to nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self { path: None, follow_symlinks: false }
    }

    /// The directory itself; empty where there is none.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// Whether there is a directory.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.path.is_some()
    }

    /// Looks whether the directory can be read, if there is one.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn check(&self) -> io::Result<()> {
        self.path.as_ref().map_or(Ok(()), |path| fs::read_dir(path).map(drop))
    }

    fn directory(&self) -> Result<&Path, LayoutError> {
        self.path.as_deref().ok_or(LayoutError::NotFound)
    }

    /// The repository called `name`.
    ///
    /// # Errors
    /// See [`LayoutError`].
    pub fn find(&self, name: &RepoName) -> Result<Repository, LayoutError> {
        let root = self.directory()?;
        for suffix in SUFFIXES {
            let place = root.join(format!("{}{suffix}", name.as_str()));
            if let Some(repository) = self.look(&place)? {
                return Ok(repository);
            }
        }
        // A root that went away would make every name look unknown.
        match look_at(root)? {
            Some(_) => Err(LayoutError::NotFound),
            None => Err(LayoutError::Root { path: root.to_path_buf(), source: ErrorKind::NotFound.into() }),
        }
    }

    /// The repository whose git directory was found at `git_dir` before.
    ///
    /// # Errors
    /// [`LayoutError::NotFound`] when there is none any more; see [`LayoutError`].
    pub fn at(&self, git_dir: &Path) -> Result<Repository, LayoutError> {
        self.look(git_dir)?.ok_or(LayoutError::NotFound)
    }

    fn look(&self, place: &Path) -> Result<Option<Repository>, LayoutError> {
        let Some(found) = look_at(place)? else { return Ok(None) };
        // Asked of the place as it is named, and again of the real one: links may lead out of a git directory or into it.
        if self.is_in_git_dir(place)? {
            return Ok(None);
        }
        let real = self.inside(place)?;
        if found.is_dir() {
            return self.repository_at(&real);
        }
        if !found.is_file() {
            return Ok(None);
        }
        match named_path(&real, "gitdir: ", place.parent().unwrap_or(place))? {
            Some(target) if look_at(&target)?.is_some_and(|found| found.is_dir()) => {
                self.repository_at(&self.inside(&target)?)
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The repository whose git directory is `git_dir`, unless it is a way into another one.
    fn repository_at(&self, git_dir: &Path) -> Result<Option<Repository>, LayoutError> {
        let Some(common_dir) = self.common_dir(git_dir)? else { return Ok(None) };
        if common_dir != git_dir || self.is_in_git_dir(git_dir)? {
            return Ok(None);
        }
        Ok(Some(Repository { git_dir: git_dir.to_path_buf(), common_dir }))
    }

    /// Whether a directory around `place` is a git directory; the root and what is above it are not asked.
    ///
    /// A `.git` belongs to the directory that it is in, even where that one looks like a git directory, too: git takes
    /// it first, and no push can make one, since no part of a ref's name begins with a dot.
    fn is_in_git_dir(&self, place: &Path) -> Result<bool, LayoutError> {
        let root = self.directory()?;
        let own = if place.ends_with(".git") { 2 } else { 1 };
        for around in place.ancestors().skip(own).take_while(|around| *around != root) {
            if self.common_dir(around)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The common directory of `git_dir` if that is a git directory: a valid HEAD, objects and refs, as git's
    /// `is_git_directory` asks.
    fn common_dir(&self, git_dir: &Path) -> Result<Option<PathBuf>, LayoutError> {
        if !has_head(git_dir)? {
            return Ok(None);
        }
        let common_dir = match named_path(&git_dir.join("commondir"), "", git_dir)? {
            Some(common) if look_at(&common)?.is_some() => self.inside(&common)?,
            Some(_) => return Ok(None),
            None => git_dir.to_path_buf(),
        };
        for part in ["objects", "refs"].map(|part| common_dir.join(part)) {
            if !look_at(&part)?.is_some_and(|found| found.is_dir()) {
                return Ok(None);
            }
            self.inside(&part)?;
        }
        Ok(Some(common_dir))
    }

    /// `path` with every link followed, if that is allowed to be where it is.
    fn inside(&self, path: &Path) -> Result<PathBuf, LayoutError> {
        let real =
            fs::canonicalize(path).map_err(|source| LayoutError::Io { path: path.to_path_buf(), source })?;
        if self.follow_symlinks || real.starts_with(self.directory()?) {
            Ok(real)
        } else {
            Err(LayoutError::Outside { path: path.to_path_buf() })
        }
    }
}

/// What is at `path`, links followed; `None` when there is nothing.
fn look_at(path: &Path) -> Result<Option<fs::Metadata>, LayoutError> {
    absent_is_none(fs::metadata(path), path)
}

fn absent_is_none<T>(result: io::Result<T>, path: &Path) -> Result<Option<T>, LayoutError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(source) => Err(LayoutError::Io { path: path.to_path_buf(), source }),
    }
}

/// Errors that mean that the path names nothing. A link loop and an overlong name are such; a refused permission is
/// not: the operator should hear of it.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG))
}

/// `HEAD` is a symbolic link into `refs/`, or a file with `ref: refs/…` or an object id.
fn has_head(git_dir: &Path) -> Result<bool, LayoutError> {
    let head = git_dir.join("HEAD");
    let Some(found) = absent_is_none(fs::symlink_metadata(&head), &head)? else { return Ok(false) };
    if found.is_symlink() {
        let target = absent_is_none(fs::read_link(&head), &head)?;
        return Ok(target.is_some_and(|target| target.as_os_str().as_bytes().starts_with(b"refs/")));
    }
    Ok(small_file(&head)?.is_some_and(|content| is_head(&content)))
}

fn is_head(content: &[u8]) -> bool {
    match content.strip_prefix(b"ref:") {
        Some(name) => name.trim_ascii_start().starts_with(b"refs/"),
        None => content.len() >= 40 && content[..40].iter().all(u8::is_ascii_hexdigit),
    }
}

/// The path written in the small file at `file` after `prefix`, relative ones taken from `base`.
fn named_path(file: &Path, prefix: &str, base: &Path) -> Result<Option<PathBuf>, LayoutError> {
    let Some(content) = small_file(file)? else { return Ok(None) };
    let Some(path) = content.strip_prefix(prefix.as_bytes()) else { return Ok(None) };
    let end = path.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    if end == 0 || path.contains(&0) {
        return Ok(None);
    }
    Ok(Some(base.join(std::ffi::OsStr::from_bytes(&path[..end]))))
}

/// The content of a regular file, or its start; `None` when there is none. Never blocks on a FIFO.
fn small_file(path: &Path) -> Result<Option<Vec<u8>>, LayoutError> {
    let open = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let Some(file) = absent_is_none(open, path)? else { return Ok(None) };
    let content = read_start(&file).map_err(|source| LayoutError::Io { path: path.to_path_buf(), source })?;
    Ok(content)
}

fn read_start(file: &File) -> io::Result<Option<Vec<u8>>> {
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut content = Vec::new();
    file.take(SMALL_FILE_MAX).read_to_end(&mut content)?;
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{Uid, setfsuid};
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use tempfile::TempDir;

    /// A root, with a place beside it that is outside.
    struct Disk(TempDir);

    impl Disk {
        fn new() -> Self {
            let disk = Self(TempDir::new().unwrap());
            fs::create_dir(disk.root()).unwrap();
            disk
        }

        fn base(&self) -> PathBuf {
            fs::canonicalize(self.0.path()).unwrap()
        }

        fn root(&self) -> PathBuf {
            self.base().join("root")
        }

        /// The least that git takes for a repository.
        fn repository(&self, path: &str) -> PathBuf {
            let path = self.base().join(path);
            fs::create_dir_all(path.join("objects")).unwrap();
            fs::create_dir_all(path.join("refs")).unwrap();
            fs::write(path.join("HEAD"), "ref: refs/heads/main\n").unwrap();
            path
        }

        fn find(&self, name: &str, follow_symlinks: bool) -> Result<PathBuf, LayoutError> {
            let found = Root::open(&self.root(), follow_symlinks)?.find(&RepoName::parse(name).unwrap())?;
            Ok(found.git_dir)
        }
    }

    fn is_outside(result: &Result<PathBuf, LayoutError>) -> bool {
        matches!(result, Err(LayoutError::Outside { .. }))
    }

    fn is_not_found(result: &Result<PathBuf, LayoutError>) -> bool {
        matches!(result, Err(LayoutError::NotFound))
    }

    #[test]
    fn without_a_root_every_name_leads_to_nothing() {
        let disk = Disk::new();
        let git_dir = disk.repository("root/a.git");
        let none = Root::none();
        assert!(matches!(none.find(&RepoName::parse("a").unwrap()), Err(LayoutError::NotFound)));
        assert!(matches!(none.at(&git_dir), Err(LayoutError::NotFound)));
    }

    #[test]
    fn places_are_tried_in_the_order_of_git() {
        let disk = Disk::new();
        assert!(is_not_found(&disk.find("a", false)));
        for place in ["root/a.git", "root/a.git/.git", "root/a", "root/a/.git"] {
            let path = disk.repository(place);
            assert_eq!(disk.find("a", false).unwrap(), path);
        }
    }

    #[test]
    fn a_directory_without_head_objects_or_refs_is_no_repository() {
        let disk = Disk::new();
        for part in ["HEAD", "objects", "refs"] {
            let path = disk.repository("root/a");
            let part = path.join(part);
            if part.is_dir() { fs::remove_dir(&part) } else { fs::remove_file(&part) }.unwrap();
            assert!(is_not_found(&disk.find("a", false)), "{part:?}");
        }
        let path = disk.repository("root/a");
        for (head, valid) in [
            ("ref: refs/heads/x\n", true),
            ("ref:   refs/heads/x", true),
            ("ref: heads/x", false),
            ("5891b5b522d5df086d0ff0b110fbd9d21bb4fc71\n", true),
            ("5891b5b5", false),
            ("", false),
        ] {
            fs::write(path.join("HEAD"), head).unwrap();
            assert_eq!(disk.find("a", false).is_ok(), valid, "{head:?}");
        }
    }

    #[test]
    fn a_symbolic_head_counts_by_its_target_and_a_fifo_does_not_block() {
        let disk = Disk::new();
        let head = disk.repository("root/a").join("HEAD");
        fs::remove_file(&head).unwrap();
        symlink("refs/heads/unborn", &head).unwrap();
        assert!(disk.find("a", false).is_ok());
        fs::remove_file(&head).unwrap();
        nix::unistd::mkfifo(&head, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(is_not_found(&disk.find("a", false)));
    }

    #[test]
    fn links_stay_below_the_root_unless_they_may_leave() {
        let disk = Disk::new();
        let outside = disk.repository("elsewhere/b.git");
        let inside = disk.repository("root/real");
        symlink(&inside, disk.root().join("alias")).unwrap();
        symlink(&outside, disk.root().join("b.git")).unwrap();
        symlink(outside.parent().unwrap(), disk.root().join("folder")).unwrap();
        assert_eq!(disk.find("alias", false).unwrap(), inside);
        for name in ["b", "folder/b"] {
            assert!(is_outside(&disk.find(name, false)), "{name}");
            assert_eq!(disk.find(name, true).unwrap(), outside);
        }
    }

    #[test]
    fn objects_and_refs_may_not_lie_outside_either() {
        for part in ["objects", "refs"] {
            let disk = Disk::new();
            let repository = disk.repository("root/a");
            let outside = disk.repository("elsewhere");
            fs::remove_dir(repository.join(part)).unwrap();
            symlink(outside.join(part), repository.join(part)).unwrap();
            assert!(is_outside(&disk.find("a", false)), "{part}");
            assert!(disk.find("a", true).is_ok());
        }
    }

    #[test]
    fn a_git_file_is_followed_within_the_root() {
        let disk = Disk::new();
        let target = disk.repository("root/store/a");
        let outside = disk.repository("elsewhere");
        fs::create_dir(disk.root().join("work")).unwrap();
        let git_file = disk.root().join("work/.git");
        fs::write(&git_file, "gitdir: ../store/a\n").unwrap();
        assert_eq!(disk.find("work", false).unwrap(), target);
        fs::write(&git_file, format!("gitdir: {}\n", outside.display())).unwrap();
        assert!(is_outside(&disk.find("work", false)));
        assert_eq!(disk.find("work", true).unwrap(), outside);
        for nonsense in ["", "gitdir: ", "gitdir: /nowhere", "hello"] {
            fs::write(&git_file, nonsense).unwrap();
            assert!(is_not_found(&disk.find("work", false)), "{nonsense:?}");
        }
    }

    #[test]
    fn a_linked_worktree_is_no_repository_of_its_own() {
        let disk = Disk::new();
        let main = disk.repository("root/main.git");
        let linked = main.join("worktrees/w");
        fs::create_dir_all(&linked).unwrap();
        fs::write(linked.join("HEAD"), "ref: refs/heads/w\n").unwrap();
        fs::write(linked.join("commondir"), "../..\n").unwrap();
        fs::write(disk.root().join("w"), format!("gitdir: {}\n", linked.display())).unwrap();
        symlink(&linked, disk.root().join("link")).unwrap();
        let moved = disk.root().join("moved");
        fs::create_dir(&moved).unwrap();
        fs::write(moved.join("HEAD"), "ref: refs/heads/w\n").unwrap();
        fs::write(moved.join("commondir"), "../main.git\n").unwrap();
        for name in ["w", "link", "moved"] {
            assert!(is_not_found(&disk.find(name, false)), "{name}");
        }
        let root = Root::open(&disk.root(), false).unwrap();
        assert!(matches!(root.at(&linked), Err(LayoutError::NotFound)));
        fs::write(moved.join("commondir"), ".\n").unwrap();
        disk.repository("root/moved");
        assert_eq!(disk.find("moved", false).unwrap(), moved);
    }

    #[test]
    fn nothing_inside_a_git_directory_is_a_repository() {
        let disk = Disk::new();
        let inner = disk.repository("root/team/refs/heads/x");
        assert_eq!(disk.find("team/refs/heads/x", false).unwrap(), inner, "nothing is around it yet");
        disk.repository("root/team");
        disk.repository("root/tree/.git");
        let module = disk.repository("root/tree/.git/modules/m");
        let nested = disk.repository("root/tree/nested");
        fs::create_dir(disk.root().join("tree/m")).unwrap();
        fs::write(disk.root().join("tree/m/.git"), "gitdir: ../.git/modules/m\n").unwrap();
        symlink(&inner, disk.root().join("link")).unwrap();
        for name in ["team/refs/heads/x", "link", "tree/m"] {
            assert!(is_not_found(&disk.find(name, false)), "{name}");
        }
        let root = Root::open(&disk.root(), false).unwrap();
        for git_dir in [inner, module] {
            assert!(matches!(root.at(&git_dir), Err(LayoutError::NotFound)), "{git_dir:?}");
        }
        assert_eq!(disk.find("tree/nested", false).unwrap(), nested, "a work tree is no git directory");
    }

    #[test]
    fn links_out_of_a_git_directory_and_git_directories_outside_hide_nothing() {
        let disk = Disk::new();
        let outside = disk.repository("elsewhere/secret");
        disk.repository("elsewhere/secret/worktrees/w");
        symlink(&outside, disk.root().join("secret")).unwrap();
        let heads = disk.repository("elsewhere/heads/x");
        let team = disk.repository("root/team");
        symlink(heads.parent().unwrap(), team.join("refs/heads")).unwrap();
        for name in ["secret/worktrees/w", "team/refs/heads/x"] {
            assert!(is_not_found(&disk.find(name, true)), "{name}");
        }
        assert_eq!(disk.find("secret", true).unwrap(), outside);
    }

    #[test]
    fn a_vanished_root_is_a_fault_and_not_an_unknown_name() {
        let disk = Disk::new();
        let root = Root::open(&disk.root(), false).unwrap();
        fs::remove_dir(disk.root()).unwrap();
        assert!(root.find(&RepoName::parse("a").unwrap()).unwrap_err().is_fault());
        assert!(Root::open(&disk.root(), false).unwrap_err().is_fault());
        fs::write(disk.root(), "").unwrap();
        assert!(Root::open(&disk.root(), false).unwrap_err().is_fault());
    }

    #[test]
    fn a_root_that_cannot_be_listed_is_a_fault_that_names_it() {
        let disk = Disk::new();
        fs::set_permissions(disk.0.path(), Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(disk.root(), Permissions::from_mode(0o000)).unwrap();
        // Of this thread alone; it takes from root the right to read everything, and does nothing for anybody else.
        let us = setfsuid(Uid::from_raw(65_534));
        let opened = Root::open(&disk.root(), false);
        setfsuid(us);
        let error = opened.unwrap_err();
        assert!(error.is_fault() && error.to_string().starts_with("root: opening /"), "{error}");
    }
}
