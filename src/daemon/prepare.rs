//! What a start prepares before it serves: this process, its directories, and the git that it runs.

use super::DaemonError;
use crate::config::{Environment, Settings};
use crate::gate::staging::Held;
use crate::git::ask::{self, AskError, Asker};
use crate::git::command::{Git, Surroundings};
use crate::supervise::{Deadline, Mark, Reaper, end_survivors};
use crate::sys::{limits, machine};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long `git --version` may take on a machine under load.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// What holds for this process and is inherited by its children.
pub(super) fn prepare_process() -> io::Result<()> {
    machine::check_null()?;
    limits::seal_descriptors()?;
    limits::forbid_core_dumps()?;
    limits::raise_descriptors().map(drop)
}

/// Processes of an earlier life of this gate end before anything of theirs is touched.
pub(super) fn end_earlier_life(mark: &Mark, settings: &Settings) -> io::Result<()> {
    let survivors = end_survivors(mark, settings.git.kill_grace)?;
    if survivors.found > 0 {
        log::warn!("ended {} processes that an earlier, killed gate had left", survivors.found);
    }
    if survivors.left > 0 {
        log::error!("{} of them do not die; they may still write to repositories", survivors.left);
    }
    Ok(())
}

/// The directory for temporary files is emptied, since nothing in it outlives a process. What is in `home` is not ours to
/// judge, and stays.
pub(super) fn prepare_directories(data_dir: &Path) -> Result<(), DaemonError> {
    let [tmp, home] = ["tmp", "home"].map(|name| data_dir.join(name));
    let failed = |at: &Path| {
        let at = at.to_owned();
        move |source| DaemonError::Directory { at, source }
    };
    make_private(&home).map_err(failed(&home))?;
    if fs::read_dir(&home).map_err(failed(&home))?.next().is_some() {
        log::warn!("{} is not empty: hooks and git may read what is there; move it away", home.display());
    }
    make_private(&tmp).and_then(|()| empty(&tmp)).map_err(failed(&tmp))
}

pub(super) fn open_held(data_dir: &Path) -> Result<Held, DaemonError> {
    Held::open(data_dir).map_err(|source| DaemonError::Directory { at: data_dir.join("held"), source })
}

/// Makes the directory `at` unless there is one.
fn make_private(at: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).recursive(true).create(at)
}

/// Removes everything in the directory `at`, which must be ours and no link: what a link leads to is somebody else's.
fn empty(at: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(at)?;
    if !found.is_dir() || found.uid() != machine::uid() {
        let why = "what is in it would be removed, but it is a link or another user's: move it away";
        return Err(io::Error::other(why));
    }
    for entry in fs::read_dir(at)? {
        let entry = entry?;
        let remove = if entry.file_type()?.is_dir() { fs::remove_dir_all } else { fs::remove_file };
        remove(entry.path())?;
    }
    Ok(())
}

pub(super) fn find_git(
    reaper: &Reaper,
    settings: &Settings,
    environment: &Environment,
) -> Result<Git, AskError> {
    let surroundings = Surroundings {
        path: environment.path.clone(),
        home: settings.data_dir.join("home"),
        timezone: environment.timezone.clone(),
    };
    let deadline = Deadline::starting(Instant::now(), VERSION_LIMIT, "asking git for its version");
    let asker = Asker { reaper, deadline, grace: settings.git.kill_grace, client: None };
    let git = ask::find_git(&settings.git.program, surroundings, &asker)?;
    for fix in git.version().missing_fixes() {
        log::warn!("git {} may lack a security fix: {fix}; `tidegate doctor` says more", git.version());
    }
    Ok(git)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_start_empties_tmp_and_removes_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let data = place.path();
        prepare_directories(data).unwrap();
        for kept in ["home/a.git", "elsewhere/b.git"] {
            fs::create_dir_all(data.join(kept)).unwrap();
        }
        fs::create_dir_all(data.join("tmp/push-1/objects")).unwrap();
        fs::write(data.join("tmp/body"), "").unwrap();
        symlink(data.join("elsewhere"), data.join("tmp/link")).unwrap();
        prepare_directories(data).unwrap();
        assert_eq!(fs::read_dir(data.join("tmp")).unwrap().count(), 0);
        assert!(data.join("home/a.git").exists() && data.join("elsewhere/b.git").exists());
    }

    #[test]
    fn a_tmp_that_is_a_link_is_refused_and_not_emptied() {
        let place = tempfile::tempdir().unwrap();
        let (data, repository) = (place.path(), place.path().join("elsewhere/a.git"));
        fs::create_dir_all(&repository).unwrap();
        symlink("elsewhere", data.join("tmp")).unwrap();
        let error = prepare_directories(data).unwrap_err().to_string();
        assert!(error.ends_with("it is a link or another user's: move it away"), "{error}");
        assert!(repository.exists());
    }
}
