//! What a living job of ours may be making in a repository right now: the other side of a [`Footprint`].
//!
//! Beside a job that lives, only what it cannot have made is removed. So this errs to the wide side, where a footprint
//! errs to the narrow one: a name is enough, whatever the file holds.

use crate::git::footprint::Footprint;
use crate::git::layout::Repository;
use crate::git::ref_locks::{lock_path, locked_refs};
use crate::git::traces::{By, TRACES, jobs};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// The files that one job may make. It was looked up when the job entered: a symbolic ref that is turned round later
/// stays unseen.
#[derive(Debug)]
pub struct Reach {
    repository: Repository,
    /// `None` when it could not be looked up: then the job may make anything.
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    ref_locks: BTreeSet<PathBuf>,
    jobs: Vec<By>,
}

impl Reach {
    /// The reach of a job that may leave `footprint`.
    #[must_use]
    pub fn of(repository: &Repository, footprint: &Footprint) -> Self {
        let known = Known::of(repository, footprint);
        if let Err(error) = &known {
            log::warn!("{:?}: which refs are locked together is unknown: {error}", repository.git_dir);
        }
        Self { repository: repository.clone(), known: known.ok() }
    }

    /// Whether the job may make `path`, which is absolute or relative to the common directory.
    #[must_use]
    pub fn covers(&self, path: &Path) -> bool {
        let path = self.repository.common_dir.join(path);
        self.known.as_ref().is_none_or(|known| known.covers(&path, &self.repository))
    }

    /// Whether `path`, left behind by another job, makes this one fail.
    #[must_use]
    pub fn is_blocked_by(&self, path: &Path) -> bool {
        is_lock(path) && self.covers(path)
    }
}

impl Known {
    fn of(repository: &Repository, footprint: &Footprint) -> io::Result<Self> {
        let refs = locked_refs(repository, footprint)?;
        let ref_locks = refs.iter().filter_map(|trace| lock_path(repository, trace)).collect();
        Ok(Self { ref_locks, jobs: jobs(footprint, &refs) })
    }

    fn covers(&self, path: &Path, repository: &Repository) -> bool {
        let name = path.file_name().unwrap_or_default();
        let mut rows = TRACES.iter().filter(|row| row.concerns(&self.jobs));
        self.ref_locks.contains(path)
            || rows.any(|row| row.name.matches(name) && row.place.contains(path, repository))
    }
}

/// Locks have names that all jobs agree on. Everything else has one of its own and stands in nobody's way.
fn is_lock(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "lock") || path.ends_with("packed-refs.new")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::footprint::RefTrace;
    use crate::model::oid::Oid;
    use std::fs;
    use tempfile::TempDir;

    /// The reach of a push that sets a ref to forty times `digit`, in a repository whose HEAD names `main`.
    fn reach(name: &str, digit: u8, is_shallow: bool) -> (Reach, TempDir) {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("HEAD"), "ref: refs/heads/main\n").unwrap();
        let repository =
            Repository { git_dir: dir.path().to_path_buf(), common_dir: dir.path().to_path_buf() };
        let new = Oid::parse(&[digit; 40]).unwrap();
        let refs = vec![RefTrace { name: name.into(), new }];
        (Reach::of(&repository, &Footprint { refs, is_shallow, is_maintenance: false }), dir)
    }

    const LOCKS: [&str; 6] = [
        "refs/heads/main.lock",
        "refs/heads/x.lock",
        "HEAD.lock",
        "packed-refs.lock",
        "packed-refs.new",
        "shallow.lock",
    ];

    fn blocking(name: &str, digit: u8, is_shallow: bool) -> Vec<&'static str> {
        let (reach, _dir) = reach(name, digit, is_shallow);
        LOCKS.into_iter().filter(|lock| reach.is_blocked_by(Path::new(lock))).collect()
    }

    #[test]
    fn a_push_meets_the_locks_of_its_refs_and_of_its_kind() {
        assert_eq!(blocking("refs/heads/main", b'a', false), ["refs/heads/main.lock", "HEAD.lock"]);
        assert_eq!(blocking("refs/heads/x", b'a', true), ["refs/heads/x.lock", "shallow.lock"]);
        assert_eq!(
            blocking("refs/heads/x", b'0', false),
            ["refs/heads/x.lock", "packed-refs.lock", "packed-refs.new"]
        );
    }

    #[test]
    fn a_quarantine_may_be_of_every_push_and_blocks_none() {
        let (reach, dir) = reach("refs/heads/x", b'a', false);
        for name in ["objects/tmp_objdir-incoming-A1b2C3", "objects/ab/tmp_obj_x", "objects/pack/tmp_pack_x"]
        {
            assert!(reach.covers(Path::new(name)) && reach.covers(&dir.path().join(name)), "{name}");
            assert!(!reach.is_blocked_by(Path::new(name)), "{name}");
        }
        assert!(!reach.covers(Path::new("objects/maintenance.lock")));
        assert!(!reach.covers(Path::new("tmp_objdir-incoming-A1b2C3")));
    }

    #[test]
    fn what_could_not_be_looked_up_may_be_anything() {
        let path = PathBuf::from("/srv/a.git");
        let repository = Repository { git_dir: path.clone(), common_dir: path };
        let unknown = Reach { repository, known: None };
        assert!(LOCKS.iter().all(|lock| unknown.is_blocked_by(Path::new(lock))));
    }
}
