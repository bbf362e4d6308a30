//! Removing from a hosted repository what a git of ours left there when it was killed.
//!
//! Git cleans nothing on a signal: a killed push leaves its quarantine with the whole partial pack, and its locks, of
//! which a single one makes every later push fail. [`crate::git::traces`] is the list.
//!
//! A hosted repository may have other writers, so something is removed only if all of this holds: our job can have made
//! it (its refs, its new values), it was made while the job lived, no living job of ours beside it can have made it
//! ([`crate::git::reach`]), and no foreign git is at work in the repository. Nothing here follows a symbolic link, and a
//! sweep ends after [`ENTRIES_MAX`] entries.
//!
//! Objects that had left their quarantine stay: they are complete, and somebody may use them by now.

use crate::git::footprint::{Footprint, RefTrace};
use crate::git::layout::Repository;
use crate::git::occupants;
use crate::git::reach::Reach;
use crate::git::ref_locks::{self, locked_refs, unless_absent};
use crate::git::traces::{By, Place, TRACES, Trace, jobs, places};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirEntry, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How many directory entries one sweep looks at: the objects of a very large repository, and an end to a hostile one.
const ENTRIES_MAX: usize = 500_000;

/// How far a file's time may lie before the clock that was read just earlier: the kernel stamps files with the time of
/// the last tick (10 ms at the slowest).
const TICK: Duration = Duration::from_millis(20);

/// The time in which a job lived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Before its start.
    pub from: SystemTime,
    /// After its end.
    pub until: SystemTime,
}

/// What a sweep did. Paths are relative to the repository's common directory where they lie in it.
#[derive(Debug, Default)]
pub struct Swept {
    /// What is gone.
    pub removed: Vec<PathBuf>,
    /// What may be ours but is left, since a foreign writer is at work: to be looked at again.
    pub skipped: Vec<PathBuf>,
    /// What may be ours but is left, since it may as well be of a living job of ours.
    pub shared: Vec<PathBuf>,
    /// What could not be removed, and why.
    pub failed: Vec<(PathBuf, io::Error)>,
}

impl Swept {
    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.shared.is_empty() && !self.is_hindered()
    }

    /// Whether more could be removed later though nobody of ours leaves.
    #[must_use]
    pub fn is_hindered(&self) -> bool {
        !self.skipped.is_empty() || !self.failed.is_empty()
    }
}

/// Removes what a job with `footprint`, which lived in `window` and is gone, left in `repository`.
///
/// `beside` are the living jobs of ours that were inside while it lived. The caller sees to it that there are no others,
/// and that none enters until this is over.
///
/// # Errors
/// When the repository or `/proc` cannot be read.
pub fn sweep(
    repository: &Repository,
    window: Window,
    footprint: &Footprint,
    beside: &[Arc<Reach>],
) -> io::Result<Swept> {
    sweep_as(Pid::this(), repository, window, footprint, beside)
}

/// The same, where `own` and its descendants are not foreign.
fn sweep_as(
    own: Pid,
    repository: &Repository,
    window: Window,
    footprint: &Footprint,
    beside: &[Arc<Reach>],
) -> io::Result<Swept> {
    let is_shared = |suspect: &Suspect| beside.iter().any(|reach| reach.covers(&suspect.path));
    let (shared, suspects): (Vec<_>, Vec<_>) =
        suspects(repository, window, footprint)?.into_iter().partition(is_shared);
    let shared = shared.into_iter().map(|suspect| relative(&suspect.path, repository)).collect();
    let mut swept = Swept { shared, ..Swept::default() };
    if suspects.is_empty() {
        return Ok(swept);
    }
    if let Some(pid) = occupants::foreign_writer(repository, own)? {
        log::debug!("{}: process {pid} is at work there", repository.git_dir.display());
        swept.skipped = suspects.into_iter().map(|suspect| relative(&suspect.path, repository)).collect();
    } else {
        suspects.into_iter().for_each(|suspect| suspect.remove(repository, &mut swept));
    }
    log_sweep(repository, &swept);
    Ok(swept)
}

fn log_sweep(repository: &Repository, swept: &Swept) {
    let show = |paths: &[PathBuf]| {
        paths.iter().take(5).map(|path| format!("{path:?}")).collect::<Vec<_>>().join(" ")
    };
    let level = if swept.removed.is_empty() && swept.failed.is_empty() {
        log::Level::Debug
    } else {
        log::Level::Info
    };
    log::log!(
        level,
        "swept {:?}: removed {} ({}), left {} ({}), shared {} ({}), failed {}",
        repository.git_dir,
        swept.removed.len(),
        show(&swept.removed),
        swept.skipped.len(),
        show(&swept.skipped),
        swept.shared.len(),
        show(&swept.shared),
        swept.failed.len(),
    );
    for (path, error) in &swept.failed {
        log::warn!("{path:?} in {:?} stays behind and may block pushes: {error}", repository.git_dir);
    }
}

/// Something that matches the footprint and the window.
struct Suspect {
    path: PathBuf,
    is_dir: bool,
}

impl Suspect {
    fn remove(self, repository: &Repository, swept: &mut Swept) {
        let result = if self.is_dir { fs::remove_dir_all(&self.path) } else { fs::remove_file(&self.path) };
        let name = relative(&self.path, repository);
        match result {
            Ok(()) => {
                remove_empty_parents(&self.path, repository);
                swept.removed.push(name);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => swept.failed.push((name, error)),
        }
    }
}

/// Git makes the directories of a new ref together with its lock. They go when empty, down to `refs/heads` and its like.
fn remove_empty_parents(path: &Path, repository: &Repository) {
    let refs = repository.common_dir.join("refs");
    let made_by_git =
        |dir: &&Path| dir.strip_prefix(&refs).is_ok_and(|below| below.components().count() >= 2);
    for dir in path.ancestors().skip(1).take_while(made_by_git) {
        if fs::remove_dir(dir).is_err() {
            return;
        }
    }
}

fn relative(path: &Path, repository: &Repository) -> PathBuf {
    path.strip_prefix(&repository.common_dir).unwrap_or(path).to_path_buf()
}

fn suspects(repository: &Repository, window: Window, footprint: &Footprint) -> io::Result<Vec<Suspect>> {
    let refs = locked_refs(repository, footprint)?;
    let jobs = jobs(footprint, &refs);
    let mut search = Search { repository, window, left: ENTRIES_MAX, found: Vec::new() };
    for place in places(&jobs) {
        search.look(place, &jobs)?;
    }
    for trace in &refs {
        search.look_at_ref_lock(trace)?;
    }
    if search.left == 0 {
        log::warn!("{:?} has more than {ENTRIES_MAX} entries: not all were looked at", repository.git_dir);
    }
    // Two names may lead to one lock.
    let mut seen = BTreeSet::new();
    search.found.retain(|suspect| seen.insert(suspect.path.clone()));
    Ok(search.found)
}

struct Search<'a> {
    repository: &'a Repository,
    window: Window,
    left: usize,
    found: Vec<Suspect>,
}

impl Search<'_> {
    fn look(&mut self, place: Place, jobs: &[By]) -> io::Result<()> {
        let rows: Vec<&Trace> =
            TRACES.iter().filter(|row| row.place == place && row.concerns(jobs)).collect();
        let common = &self.repository.common_dir;
        match place {
            Place::GitDir => self.look_into(&self.repository.git_dir.clone(), &rows),
            Place::Common(dir) => self.look_into(&common.join(dir), &rows),
            Place::Tree(dir) => self.look_below(common.join(dir), &rows),
            Place::Fanout => {
                let objects = common.join("objects");
                (0..=u8::MAX)
                    .try_for_each(|first| self.look_into(&objects.join(format!("{first:02x}")), &rows))
            }
        }
    }

    fn look_into(&mut self, dir: &Path, rows: &[&Trace]) -> io::Result<()> {
        for entry in self.entries(dir)? {
            self.consider(&entry.path(), &entry.file_name(), rows)?;
        }
        Ok(())
    }

    fn look_below(&mut self, top: PathBuf, rows: &[&Trace]) -> io::Result<()> {
        let mut dirs = vec![top];
        while let Some(dir) = dirs.pop() {
            for entry in self.entries(&dir)? {
                // The type is that of the entry itself: a link to a directory is no directory.
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    dirs.push(entry.path());
                } else {
                    self.consider(&entry.path(), &entry.file_name(), rows)?;
                }
            }
        }
        Ok(())
    }

    /// The entries of a directory, as far as the bound of the whole search goes.
    fn entries(&mut self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let Some(entries) = unless_absent(fs::read_dir(dir))? else { return Ok(Vec::new()) };
        let entries: Vec<DirEntry> = entries.take(self.left).collect::<io::Result<_>>()?;
        self.left -= entries.len();
        Ok(entries)
    }

    fn consider(&mut self, path: &Path, name: &OsStr, rows: &[&Trace]) -> io::Result<()> {
        let named: Vec<&&Trace> = rows.iter().filter(|row| row.name.matches(name)).collect();
        if named.is_empty() {
            return Ok(());
        }
        let Some(found) = unless_absent(fs::symlink_metadata(path))? else { return Ok(()) };
        if self.window.holds(&found)? && named.iter().any(|row| row.content.matches(path, &found)) {
            self.found.push(Suspect { path: path.to_path_buf(), is_dir: found.is_dir() });
        }
        Ok(())
    }

    fn look_at_ref_lock(&mut self, trace: &RefTrace) -> io::Result<()> {
        if let Some((path, found)) = ref_locks::find(self.repository, trace)?
            && self.window.holds(&found)?
        {
            self.found.push(Suspect { path, is_dir: false });
        }
        Ok(())
    }
}

impl Window {
    /// Whether a file was made in this time: by its birth where the file system keeps it, else by its last change.
    fn holds(self, found: &Metadata) -> io::Result<bool> {
        let made = match found.created() {
            Ok(made) => made,
            Err(error) if error.kind() == ErrorKind::Unsupported => changed(found),
            Err(error) => return Err(error),
        };
        Ok(made >= self.from.checked_sub(TICK).unwrap_or(self.from) && made <= self.until)
    }

    /// Whether files of a job that started at `start`, after the end, may still look as if made in this time.
    pub(crate) fn reaches(self, start: SystemTime) -> bool {
        start.checked_sub(TICK).is_none_or(|earliest| earliest <= self.until)
    }
}

fn changed(found: &Metadata) -> SystemTime {
    let seconds = Duration::from_secs(found.ctime().try_into().unwrap_or_default());
    SystemTime::UNIX_EPOCH + seconds + Duration::from_nanos(found.ctime_nsec().try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::pktline::{Packet, encode};
    use crate::git::push_request::{Bounds, PushRequest};
    use std::fs::File;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    const NEW: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const ZERO: &str = "0000000000000000000000000000000000000000";

    /// A bare repository whose HEAD names `main`.
    struct Bare {
        repository: Repository,
        _dir: TempDir,
    }

    impl Bare {
        fn new() -> Self {
            let dir = TempDir::new().unwrap();
            let path = fs::canonicalize(dir.path()).unwrap();
            for part in ["objects/pack", "objects/info", "objects/ab", "refs/heads", "info"] {
                fs::create_dir_all(path.join(part)).unwrap();
            }
            fs::write(path.join("HEAD"), "ref: refs/heads/main\n").unwrap();
            Self { repository: Repository { git_dir: path.clone(), common_dir: path }, _dir: dir }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.repository.common_dir.join(name)
        }

        fn write(&self, name: &str, content: &str) {
            fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
            fs::write(self.path(name), content).unwrap();
        }

        /// Sweeps what was made since `from`, and tells the names of what went.
        fn sweep(&self, from: SystemTime, footprint: &Footprint) -> Vec<String> {
            let window = Window { from, until: SystemTime::now() };
            let swept = sweep(&self.repository, window, footprint, &[]).unwrap();
            assert!(swept.is_clean(), "{swept:?}");
            let mut names: Vec<String> =
                swept.removed.iter().map(|path| path.display().to_string()).collect();
            names.sort();
            names
        }
    }

    /// The footprint of a push of these refs to these values.
    fn push(refs: &[(&str, &str)], is_shallow: bool) -> Footprint {
        let mut stream = Vec::new();
        if is_shallow {
            encode(Packet::Data(format!("shallow {NEW}").as_bytes()), &mut stream);
        }
        for (name, new) in refs {
            encode(Packet::Data(format!("{ZERO} {new} {name}").as_bytes()), &mut stream);
        }
        encode(Packet::Flush, &mut stream);
        let bounds = Bounds { commands: 10, bytes: 10_000 };
        Footprint::of_push(&PushRequest::read(&stream[..], bounds).unwrap())
    }

    fn long_ago() -> SystemTime {
        SystemTime::now() - Duration::from_secs(60)
    }

    #[test]
    fn quarantines_and_temporary_objects_go_with_everything_in_them() {
        let bare = Bare::new();
        bare.write("objects/tmp_objdir-incoming-A1b2C3/pack/tmp_pack_x", "partial");
        bare.write("objects/ab/tmp_obj_x", "");
        bare.write("objects/pack/tmp_idx_x", "");
        bare.write("objects/pack/pack-1.pack", "whole");
        let gone = ["objects/ab/tmp_obj_x", "objects/pack/tmp_idx_x", "objects/tmp_objdir-incoming-A1b2C3"];
        assert_eq!(bare.sweep(long_ago(), &push(&[("refs/heads/x", NEW)], false)), gone);
        assert!(bare.path("objects/pack/pack-1.pack").exists());
    }

    #[test]
    fn only_locks_of_the_pushed_refs_with_their_values_go() {
        let bare = Bare::new();
        for (name, content) in [
            ("refs/heads/mine.lock", &*format!("{NEW}\n")),
            ("refs/heads/new/deep/er.lock", ""),
            ("refs/heads/theirs.lock", ""),
            ("refs/heads/raced.lock", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\n"),
            ("HEAD.lock", ""),
            ("packed-refs.lock", ""),
            ("shallow.lock", ""),
            ("config.lock", ""),
        ] {
            bare.write(name, content);
        }
        let refs = ["mine", "new/deep/er", "raced"].map(|name| format!("refs/heads/{name}"));
        let footprint = push(&refs.each_ref().map(|name| (&**name, NEW)), false);
        assert_eq!(
            bare.sweep(long_ago(), &footprint),
            ["refs/heads/mine.lock", "refs/heads/new/deep/er.lock"]
        );
        assert!(bare.path("refs/heads").exists() && !bare.path("refs/heads/new").exists());
    }

    #[test]
    fn generic_locks_go_only_after_a_push_that_takes_them() {
        let gone = |name, new, is_shallow| {
            let bare = Bare::new();
            ["HEAD.lock", "packed-refs.lock", "packed-refs.new", "shallow.lock", "shallow_Ab12cD"]
                .iter()
                .for_each(|name| bare.write(name, ""));
            bare.sweep(long_ago(), &push(&[(name, new)], is_shallow))
        };
        assert_eq!(gone("refs/heads/main", NEW, false), ["HEAD.lock"]);
        assert_eq!(gone("refs/heads/x", ZERO, false), ["packed-refs.lock", "packed-refs.new"]);
        assert_eq!(gone("refs/heads/x", NEW, true), ["shallow.lock", "shallow_Ab12cD"]);
    }

    #[test]
    fn a_symbolic_ref_leads_to_the_lock_of_its_target() {
        let bare = Bare::new();
        bare.write("refs/heads/alias", "ref: refs/heads/main\n");
        bare.write("refs/heads/main.lock", NEW);
        bare.write("HEAD.lock", "");
        let footprint = push(&[("refs/heads/alias", NEW)], false);
        assert_eq!(bare.sweep(long_ago(), &footprint), ["HEAD.lock", "refs/heads/main.lock"]);
    }

    #[test]
    fn what_was_made_before_the_job_stays() {
        let bare = Bare::new();
        bare.write("objects/tmp_objdir-incoming-old/x", "");
        bare.write("refs/heads/main.lock", "");
        let from = SystemTime::now() + TICK + TICK;
        let window = Window { from, until: from + TICK };
        let swept = sweep(&bare.repository, window, &push(&[("refs/heads/main", NEW)], false), &[]).unwrap();
        assert!(swept.removed.is_empty() && swept.is_clean());
        assert!(bare.path("refs/heads/main.lock").exists());
    }

    #[test]
    fn while_a_foreign_process_is_at_work_everything_is_left_for_later() {
        let bare = Bare::new();
        bare.write("refs/heads/main.lock", "");
        let _at_work = File::options().write(true).open(bare.path("HEAD")).unwrap();
        let window = Window { from: long_ago(), until: SystemTime::now() };
        // Seen from a process that does not exist, this one is foreign.
        let elsewhere = Pid::from_raw(i32::MAX);
        let footprint = push(&[("refs/heads/main", NEW)], false);
        let swept = sweep_as(elsewhere, &bare.repository, window, &footprint, &[]).unwrap();
        assert_eq!(swept.skipped, [Path::new("refs/heads/main.lock")]);
        assert!(bare.path("refs/heads/main.lock").exists());
        assert_eq!(bare.sweep(long_ago(), &footprint), ["refs/heads/main.lock"]);
    }

    #[test]
    fn what_a_living_job_may_have_made_is_left_until_it_is_over() {
        let bare = Bare::new();
        for name in ["refs/heads/main.lock", "refs/heads/both.lock", "HEAD.lock", "packed-refs.lock"] {
            bare.write(name, "");
        }
        bare.write("objects/tmp_objdir-incoming-A1b2C3/x", "");
        let window = Window { from: long_ago(), until: SystemTime::now() };
        let refs = [("refs/heads/main", NEW), ("refs/heads/both", NEW), ("refs/heads/gone", ZERO)];
        let footprint = push(&refs, false);
        let living = Arc::new(Reach::of(&bare.repository, &push(&[("refs/heads/both", NEW)], false)));
        let mut swept = sweep(&bare.repository, window, &footprint, &[living]).unwrap();
        assert!(!swept.is_clean() && !swept.is_hindered());
        swept.removed.sort();
        assert_eq!(
            swept.removed,
            ["HEAD.lock", "packed-refs.lock", "refs/heads/main.lock"].map(PathBuf::from)
        );
        assert_eq!(
            bare.sweep(window.from, &footprint),
            ["objects/tmp_objdir-incoming-A1b2C3", "refs/heads/both.lock"]
        );
    }

    #[test]
    fn maintenance_that_was_killed_costs_no_living_push_its_lock() {
        let bare = Bare::new();
        ["refs/heads/theirs.lock", "refs/heads/x.lock"].iter().for_each(|name| bare.write(name, ""));
        let window = Window { from: long_ago(), until: SystemTime::now() };
        let living = Arc::new(Reach::of(&bare.repository, &push(&[("refs/heads/theirs", NEW)], false)));
        let swept = sweep(&bare.repository, window, &Footprint::of_maintenance(), &[living]).unwrap();
        assert_eq!(swept.removed, [Path::new("refs/heads/x.lock")]);
        assert_eq!(swept.shared, [Path::new("refs/heads/theirs.lock")]);
    }

    #[test]
    fn links_and_names_that_lead_elsewhere_are_not_followed() {
        let bare = Bare::new();
        let outside = TempDir::new().unwrap();
        fs::write(outside.path().join("x.lock"), "").unwrap();
        fs::write(outside.path().join("tmp_obj_x"), "").unwrap();
        symlink(outside.path(), bare.path("objects/tmp_objdir-incoming-link")).unwrap();
        symlink(outside.path(), bare.path("refs/heads/link")).unwrap();
        let up = format!("refs/../../{}/x", outside.path().file_name().unwrap().display());
        let footprint = push(&[("refs/heads/link/x", NEW), (&up, NEW), ("/etc/passwd", NEW)], false);
        assert!(bare.sweep(long_ago(), &footprint).is_empty());
        assert!(outside.path().join("x.lock").exists() && outside.path().join("tmp_obj_x").exists());
    }

    #[test]
    fn a_keep_file_goes_only_when_a_receive_pack_of_this_host_wrote_it() {
        let bare = Bare::new();
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        bare.write("objects/pack/pack-1.keep", &format!("receive-pack 7 on {host}"));
        bare.write("objects/pack/pack-2.keep", "receive-pack 7 on another.example");
        bare.write("objects/pack/pack-3.keep", "");
        let footprint = push(&[("refs/heads/x", NEW)], false);
        assert_eq!(bare.sweep(long_ago(), &footprint), ["objects/pack/pack-1.keep"]);
    }

    #[test]
    fn maintenance_may_leave_any_lock_but_writes_nothing_into_those_of_refs() {
        let bare = Bare::new();
        let locks = ["gc.pid", "logs/refs/heads/x.lock", "objects/maintenance.lock", "refs/heads/x.lock"];
        locks.iter().for_each(|name| bare.write(name, "any"));
        bare.write("refs/heads/x.lock", "");
        bare.write("refs/heads/foreign.lock", "any");
        bare.write("config.lock", "");
        assert_eq!(bare.sweep(long_ago(), &Footprint::of_maintenance()), locks);
        assert!(bare.sweep(long_ago(), &Footprint::default()).is_empty());
    }
}
