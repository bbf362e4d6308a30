//! In which state the refs of a repository are, told without reading them.
//!
//! Of a repository that nobody but the gate writes to, the state has a number. Of any other it is what `stat` says of every
//! file and directory in which git keeps refs (gitrepository-layout(5)): `HEAD`, `packed-refs`, and all below `refs`. Any
//! writer, git or not, changes at least one of these stamps before it can say that it is done: git moves each file into its
//! place, and a directory is stamped with whatever comes into it or goes.
//!
//! A stamp tells a later change from this one only if it is older than the look: what has changed within the last
//! [`MARGIN`] is not told yet, and neither is anything whose stamps are another machine's ([`local`]). Where git keeps refs
//! elsewhere, or follows them to elsewhere, the state cannot be known at all.

use crate::git::layout::Repository;
use crate::git::settings::RepositorySettings;
use crate::git::stamps::{Stamp, Time};
use crate::sys::local::{self, Moment};
use nix::libc;
use std::fs::{self, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How old every change must be: two ticks of the clock of the slowest kernel, by which it stamps files. None would do by
/// the letter, since a later change is stamped with that very clock; the ticks are for a writer who is stopped between the
/// stamp and the change.
const MARGIN: Duration = Duration::from_millis(20);

/// The same where a stamp has no fraction: that of a file system that keeps whole seconds, as ext3.
const MARGIN_WHOLE: Duration = Duration::from_secs(2);

/// Files and directories that are looked at: each costs about a microsecond at every request.
const WATCHED_MAX: usize = 4096;

/// How much of a loose ref is read; git's longest name fits.
const LOOSE_MAX: u64 = 4096 + 64;

/// The state of the refs of a repository. Two that are equal, of one repository, mean the same refs with the same values,
/// `HEAD` included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Generation(State);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    Ours(u64),
    Files(Arc<Watched>),
}

/// Every file and directory with refs, as it was.
#[derive(Debug)]
struct Watched {
    stamps: Vec<(PathBuf, Stamp)>,
    /// Before the first of them was looked at.
    moment: Moment,
}

/// Why the state of a repository's refs is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Git may keep refs elsewhere: reftable, worktrees of their own configuration, an extension that is not known.
    Storage,
    /// The stamps are not those of a file system of this machine.
    FileSystem,
    /// Something changed a moment ago, or is being changed.
    Fresh,
    /// There are too many files to look at.
    Many,
    /// There is a link, or a ref that stands for one outside of `refs`.
    Odd,
    /// The disk did not answer.
    Unreadable,
}

impl Unknown {
    /// The name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::FileSystem => "file-system",
            Self::Fresh => "fresh",
            Self::Many => "many",
            Self::Odd => "odd",
            Self::Unreadable => "unreadable",
        }
    }
}

impl Generation {
    /// The state of this number, in a repository to which the gate alone writes. A number is never given twice.
    #[must_use]
    pub const fn ours(number: u64) -> Self {
        Self(State::Ours(number))
    }

    /// The state of a repository to which others may write, by a look at its files now.
    ///
    /// # Errors
    /// Why it is not known.
    pub fn look(repository: &Repository, settings: RepositorySettings) -> Result<Self, Unknown> {
        if !settings.keeps_refs_in_files() || repository.git_dir != repository.common_dir {
            return Err(Unknown::Storage);
        }
        if !local::is_local(&repository.git_dir).map_err(|_| Unknown::Unreadable)? {
            return Err(Unknown::FileSystem);
        }
        let watched = Watched::look(&repository.git_dir).map_err(|error| match error {
            LookError::Unknown(why) => why,
            // It went while it was looked at.
            LookError::Io(error) if error.kind() == ErrorKind::NotFound => Unknown::Fresh,
            LookError::Io(_) => Unknown::Unreadable,
        })?;
        Ok(Self(State::Files(Arc::new(watched))))
    }

    /// Whether the refs are still in this state. `ours` is the number of the present one, where the gate alone writes; it is
    /// not asked for what was told by a look.
    #[must_use]
    pub fn is_still(&self, ours: Option<&Self>) -> bool {
        match &self.0 {
            State::Ours(_) => ours == Some(self),
            State::Files(watched) => watched.is_same(),
        }
    }

    /// What it takes in memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.0 {
            State::Ours(_) => 0,
            State::Files(watched) => watched.bytes(),
        }
    }
}

impl Watched {
    fn look(git_dir: &Path) -> Result<Self, LookError> {
        let mut walk =
            Walk { stamps: Vec::new(), pending: vec![git_dir.join("refs")], moment: Moment::now()? };
        walk.take(git_dir.join("packed-refs"))?;
        walk.take_loose(git_dir.join("HEAD"))?;
        while let Some(dir) = walk.pending.pop() {
            walk.enter(dir)?;
        }
        let Walk { mut stamps, moment, .. } = walk;
        // A directory lists its entries in any order.
        stamps.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(Self { stamps, moment })
    }

    fn is_same(&self) -> bool {
        let is_same = |(path, stamp): &(PathBuf, Stamp)| Stamp::of_entry(path).is_ok_and(|now| now == *stamp);
        Moment::now().is_ok_and(|now| !now.is_set_back_from(&self.moment)) && self.stamps.iter().all(is_same)
    }

    fn bytes(&self) -> usize {
        let sizes =
            self.stamps.iter().map(|(path, _)| path.as_os_str().len() + size_of::<(PathBuf, Stamp)>());
        sizes.sum()
    }
}

impl PartialEq for Watched {
    fn eq(&self, other: &Self) -> bool {
        self.stamps == other.stamps
    }
}

impl Eq for Watched {}

impl Hash for Watched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.stamps.hash(state);
    }
}

/// Why a look came to nothing.
enum LookError {
    Unknown(Unknown),
    Io(io::Error),
}

impl From<io::Error> for LookError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A look at all files, a directory at a time.
struct Walk {
    stamps: Vec<(PathBuf, Stamp)>,
    pending: Vec<PathBuf>,
    moment: Moment,
}

impl Walk {
    /// The stamp of a directory is taken before its entries: one that comes meanwhile changes it.
    fn enter(&mut self, dir: PathBuf) -> Result<(), LookError> {
        let found = fs::symlink_metadata(&dir)?;
        if !found.is_dir() {
            return Err(LookError::Unknown(Unknown::Odd));
        }
        let entries = fs::read_dir(&dir)?;
        self.keep(dir, Stamp::from_metadata(&found))?;
        for entry in entries {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true if self.pending.len() < WATCHED_MAX => self.pending.push(entry.path()),
                true => return Err(LookError::Unknown(Unknown::Many)),
                false => self.take_loose(entry.path())?,
            }
        }
        Ok(())
    }

    /// A ref that stands for one outside of `refs` may change where nobody looks.
    fn take_loose(&mut self, path: PathBuf) -> Result<(), LookError> {
        let stamp = self.take(path.clone())?;
        match stamp == Stamp::Absent || stands_for_one_inside(&path)? {
            true => Ok(()),
            false => Err(LookError::Unknown(Unknown::Odd)),
        }
    }

    fn take(&mut self, path: PathBuf) -> Result<Stamp, LookError> {
        let stamp = match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => Stamp::from_metadata(&found),
            Ok(_) => return Err(LookError::Unknown(Unknown::Odd)),
            Err(error) if error.kind() == ErrorKind::NotFound => Stamp::Absent,
            Err(error) => return Err(error.into()),
        };
        self.keep(path, stamp.clone())?;
        Ok(stamp)
    }

    fn keep(&mut self, path: PathBuf, stamp: Stamp) -> Result<(), LookError> {
        if !is_settled(&stamp, &self.moment) {
            return Err(LookError::Unknown(Unknown::Fresh));
        }
        if self.stamps.len() >= WATCHED_MAX {
            return Err(LookError::Unknown(Unknown::Many));
        }
        self.stamps.push((path, stamp));
        Ok(())
    }
}

/// Whether the last change lies clearly before `moment`. The time of change alone counts: nobody can set it.
fn is_settled(stamp: &Stamp, moment: &Moment) -> bool {
    let Stamp::Present { changed, .. } = stamp else { return true };
    let margin = if changed.1 == 0 { MARGIN_WHOLE } else { MARGIN };
    nanos(moment.stamp) - nanos(*changed) > margin.as_nanos().cast_signed()
}

fn nanos((seconds, rest): Time) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(rest)
}

/// Whether the loose ref at `path` has a value of its own or that of a ref below `refs`.
fn stands_for_one_inside(path: &Path) -> io::Result<bool> {
    let mut content = Vec::new();
    // What took its place a moment ago may be a pipe that nobody writes to.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)?;
    file.take(LOOSE_MAX).read_to_end(&mut content)?;
    let other = content.strip_prefix(b"ref:").map(<[u8]>::trim_ascii);
    Ok(other.is_none_or(|name| name.starts_with(b"refs/") && !name.windows(2).any(|two| two == b"..")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Instant;
    use tempfile::TempDir;

    /// A repository that is nothing but its refs.
    struct Refs(TempDir);

    type Change = fn(&Refs);

    impl Refs {
        fn new() -> Self {
            let refs = Self(TempDir::new().unwrap());
            refs.write("HEAD", "ref: refs/heads/main\n");
            refs.write("refs/heads/main", "1");
            refs.write("refs/tags/v1", "2");
            refs
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// As git writes: another file, moved into its place.
        fn write(&self, name: &str, content: &str) {
            let (path, lock) = (self.path(name), self.path(&format!("{name}.lock")));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&lock, content).unwrap();
            fs::rename(lock, path).unwrap();
        }

        fn look_now(&self) -> Result<Generation, Unknown> {
            let path = self.0.path().to_path_buf();
            let repository = Repository { git_dir: path.clone(), common_dir: path };
            Generation::look(&repository, RepositorySettings::default())
        }

        /// Looks until nothing is fresh any more, at most for a minute.
        fn look(&self) -> Result<Generation, Unknown> {
            let begun = Instant::now();
            loop {
                match self.look_now() {
                    Err(Unknown::Fresh) if begun.elapsed() < Duration::from_secs(60) => {}
                    found => return found,
                }
            }
        }
    }

    #[test]
    fn a_state_is_known_until_anything_changes() {
        let refs = Refs::new();
        let changes: [(&str, Change); 10] = [
            ("a value", |refs| refs.write("refs/heads/main", "3")),
            ("a value in place", |refs| fs::write(refs.path("refs/heads/main"), "4").unwrap()),
            ("a new ref", |refs| refs.write("refs/heads/next", "1")),
            ("a new directory", |refs| refs.write("refs/heads/deep/down/x", "1")),
            ("a ref in a deep directory", |refs| refs.write("refs/heads/deep/down/y", "1")),
            ("a removed ref", |refs| fs::remove_file(refs.path("refs/tags/v1")).unwrap()),
            ("a removed directory", |refs| fs::remove_dir_all(refs.path("refs/heads/deep")).unwrap()),
            ("packed refs", |refs| refs.write("packed-refs", "# pack-refs with: peeled\n")),
            ("other packed refs", |refs| refs.write("packed-refs", "# pack-refs with: PEELED\n")),
            ("HEAD", |refs| refs.write("HEAD", "ref: refs/heads/next\n")),
        ];
        for (what, change) in changes {
            let before = refs.look().unwrap();
            assert!(before.is_still(None) && refs.look() == Ok(before.clone()), "before {what}");
            change(&refs);
            assert!(!before.is_still(None), "{what}");
            let after = refs.look().unwrap();
            assert!(after.is_still(None) && after != before, "after {what}");
        }
    }

    #[test]
    fn what_has_changed_just_now_is_not_known() {
        let refs = Refs::new();
        for _ in 0..100 {
            refs.write("refs/heads/main", "5");
            let Ok(Stamp::Present { changed, .. }) = Stamp::of_entry(&refs.path("refs/heads/main")) else {
                panic!("it is there");
            };
            let found = refs.look_now();
            let age = nanos(Moment::now().unwrap().stamp) - nanos(changed);
            assert!(found == Err(Unknown::Fresh) || age > MARGIN.as_nanos().cast_signed(), "{found:?}");
        }
    }

    #[test]
    fn a_stamp_of_whole_seconds_needs_longer_to_settle() {
        let moment = Moment::now().unwrap();
        let is_settled = |seconds: i64, nanos: i64| {
            let changed = (moment.stamp.0 - seconds, nanos);
            let stamp = Stamp::Present { size: 1, device: 1, inode: 1, modified: (0, 0), changed };
            is_settled(&stamp, &moment)
        };
        assert!(is_settled(2, 1) && !is_settled(0, moment.stamp.1) && !is_settled(-100, 1));
        assert!(is_settled(3, 0) && !is_settled(1, 0));
    }

    #[test]
    fn what_leads_out_of_the_repository_is_not_known() {
        let odd: [Change; 6] = [
            |refs| refs.write("refs/heads/out", "ref: ORIG_HEAD\n"),
            |refs| refs.write("refs/heads/out", "ref: refs/../../other/HEAD\n"),
            |refs| refs.write("HEAD", "ref: worktrees/a/HEAD\n"),
            |refs| symlink("main", refs.path("refs/heads/link")).unwrap(),
            |refs| {
                fs::rename(refs.path("refs/tags"), refs.path("elsewhere")).unwrap();
                symlink("../elsewhere", refs.path("refs/tags")).unwrap();
            },
            |refs| {
                fs::rename(refs.path("refs"), refs.path("elsewhere")).unwrap();
                symlink("elsewhere", refs.path("refs")).unwrap();
            },
        ];
        for change in odd {
            let refs = Refs::new();
            refs.write("refs/remotes/origin/HEAD", "ref: refs/heads/main\n");
            assert!(refs.look().is_ok());
            change(&refs);
            assert_eq!(refs.look(), Err(Unknown::Odd));
        }
    }

    #[test]
    fn too_many_refs_and_other_storage_are_not_known() {
        let refs = Refs::new();
        (0..WATCHED_MAX)
            .for_each(|number| fs::write(refs.path(&format!("refs/tags/{number}")), "1").unwrap());
        assert_eq!(refs.look(), Err(Unknown::Many));
        let path = refs.0.path().to_path_buf();
        let linked = Repository { git_dir: path.clone(), common_dir: path.join("refs") };
        assert_eq!(Generation::look(&linked, RepositorySettings::default()), Err(Unknown::Storage));
        let proc = Repository { git_dir: "/proc".into(), common_dir: "/proc".into() };
        assert_eq!(Generation::look(&proc, RepositorySettings::default()), Err(Unknown::FileSystem));
    }

    #[test]
    fn a_number_of_ours_is_asked_for_again() {
        let [one, two] = [1, 2].map(Generation::ours);
        assert!(one.is_still(Some(&one)) && !one.is_still(Some(&two)) && !one.is_still(None));
    }

    #[test]
    fn a_repository_that_took_the_place_of_another_is_not_the_same() {
        let (old, new) = (Refs::new(), Refs::new());
        let before = old.look().unwrap();
        new.look().unwrap();
        fs::set_permissions(old.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(
            before.is_still(None),
            "what else changes in the directory of the repository does not matter"
        );
        let aside = old.0.path().with_extension("aside");
        fs::rename(old.0.path(), &aside).unwrap();
        assert!(!before.is_still(None));
        fs::rename(new.0.path(), old.0.path()).unwrap();
        assert!(!before.is_still(None));
        fs::remove_dir_all(aside).unwrap();
    }
}
