//! Remembering the settings of hosted repositories for as long as their files stay as they were.
//!
//! A file is known by its [stamp](crate::git::stamps). One that changed shortly before it was read is not trusted, and
//! neither are settings that depend on more than files.

use crate::git::ask::{AskError, Asker, list_settings};
use crate::git::command::Git;
use crate::git::layout::Repository;
use crate::git::settings::{Listing, RepositorySettings};
use crate::git::stamps::{self, Stamps};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Repositories whose settings are remembered; an entry takes about a kilobyte.
const ENTRIES_MAX: usize = 4096;

/// Settings by git directory.
#[derive(Debug, Default)]
pub struct SettingsCache {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_place: HashMap<PathBuf, Entry>,
    /// Counts uses; the entry with the smallest number is the one that goes.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    settings: RepositorySettings,
    /// The files that they depend on, as they were.
    stamps: Arc<Stamps>,
    used: u64,
}

/// Settings, and by what a change of them is seen.
#[derive(Clone, Debug)]
pub struct Stamped {
    /// The settings.
    pub settings: RepositorySettings,
    /// The files that they depend on, as they were when they were read; `None` where they depend on more than files, or
    /// were being changed.
    pub(crate) stamps: Option<Arc<Stamps>>,
}

impl SettingsCache {
    /// The settings of `repository`: remembered, or asked of git.
    ///
    /// # Errors
    /// When git cannot read the configuration, or it holds a value that git would refuse.
    pub fn of(
        &self,
        git: &Git,
        repository: &Repository,
        asker: &Asker<'_>,
    ) -> Result<RepositorySettings, AskError> {
        self.stamped(git, repository, asker).map(|known| known.settings)
    }

    /// As [`SettingsCache::of`], with the stamps of their files.
    ///
    /// # Errors
    /// The same.
    pub fn stamped(
        &self,
        git: &Git,
        repository: &Repository,
        asker: &Asker<'_>,
    ) -> Result<Stamped, AskError> {
        self.get(repository, SystemTime::now(), || list_settings(git, repository, asker))
    }

    /// The settings of `repository`, if they are remembered and every file is as it was. Costs a look at some files, and
    /// never a process.
    #[must_use]
    pub fn known(&self, repository: &Repository) -> Option<Stamped> {
        self.remembered(&repository.git_dir)
    }

    fn get(
        &self,
        repository: &Repository,
        now: SystemTime,
        list: impl FnOnce() -> Result<Vec<u8>, AskError>,
    ) -> Result<Stamped, AskError> {
        if let Some(known) = self.remembered(&repository.git_dir) {
            return Ok(known);
        }
        let before = stamps::of_all(own_files(repository)).ok();
        let unusable =
            |why: String| AskError::Answer { what: format!("config {:?}", repository.git_dir), why };
        let listing = Listing::parse(&list()?).map_err(|error| unusable(error.to_string()))?;
        let after = listing.files.map(|files| stamps::of_all(own_files(repository).into_iter().chain(files)));
        let is_same = |after: &Stamps| {
            let before = before.as_ref();
            before.is_some_and(|before| before.iter().all(|(path, stamp)| after.get(path) == Some(stamp)))
        };
        let stamps = after.and_then(Result::ok).filter(is_same).map(Arc::new);
        let is_settled = |stamps: &&Arc<Stamps>| stamps.values().all(|stamp| stamp.is_settled(now));
        if let Some(stamps) = stamps.as_ref().filter(is_settled) {
            self.remember(&repository.git_dir, listing.settings, Arc::clone(stamps));
        }
        Ok(Stamped { settings: listing.settings, stamps })
    }

    /// What is known, if every file is as it was. The files are looked at outside of the lock.
    fn remembered(&self, place: &Path) -> Option<Stamped> {
        let (settings, stamps) = {
            let mut entries = self.lock();
            entries.clock += 1;
            let clock = entries.clock;
            let entry = entries.by_place.get_mut(place)?;
            entry.used = clock;
            (entry.settings, Arc::clone(&entry.stamps))
        };
        stamps::are_still(&stamps).then_some(Stamped { settings, stamps: Some(stamps) })
    }

    fn remember(&self, place: &Path, settings: RepositorySettings, stamps: Arc<Stamps>) {
        let mut entries = self.lock();
        entries.clock += 1;
        let used = entries.clock;
        if entries.by_place.len() >= ENTRIES_MAX && !entries.by_place.contains_key(place) {
            entries.forget_oldest();
        }
        entries.by_place.insert(place.to_path_buf(), Entry { settings, stamps, used });
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn forget_oldest(&mut self) {
        let oldest = self.by_place.iter().min_by_key(|(_, entry)| entry.used).map(|(place, _)| place.clone());
        oldest.map(|place| self.by_place.remove(&place));
    }
}

/// The files that git reads for every repository, whether they are there or not.
fn own_files(repository: &Repository) -> [PathBuf; 3] {
    let Repository { git_dir, common_dir } = repository;
    [common_dir.join("config"), git_dir.join("config.worktree"), git_dir.join("commondir")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::service::Service;
    use crate::git::stamps::RACY;
    use std::cell::Cell;
    use std::fs;
    use tempfile::TempDir;

    /// A repository that is nothing but its configuration, and how often git was asked for it.
    struct Configured {
        repository: Repository,
        cache: SettingsCache,
        asked: Cell<usize>,
        _dir: TempDir,
    }

    impl Configured {
        fn new() -> Self {
            let dir = TempDir::new().unwrap();
            let path = dir.path().to_path_buf();
            fs::write(path.join("config"), "true").unwrap();
            let repository = Repository { git_dir: path.clone(), common_dir: path };
            Self { repository, cache: SettingsCache::default(), asked: Cell::new(0), _dir: dir }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.repository.git_dir.join(name)
        }

        /// Asks as a reader would at `now`; the file's content is the value of `http.receivepack`.
        fn pushes_at(&self, now: SystemTime, extra: &str) -> bool {
            let list = || {
                self.asked.set(self.asked.get() + 1);
                let (config, value) = (self.path("config"), fs::read_to_string(self.path("config")).unwrap());
                Ok(format!("file:{}\0http.receivepack\n{value}\0{extra}", config.display()).into_bytes())
            };
            self.cache.get(&self.repository, now, list).unwrap().settings.serves(Service::ReceivePack)
        }

        fn asked(&self) -> usize {
            self.asked.replace(0)
        }
    }

    /// So much later that nothing on the disk is fresh any more.
    fn later() -> SystemTime {
        SystemTime::now() + RACY + RACY
    }

    #[test]
    fn unchanged_settings_are_asked_for_once() {
        let configured = Configured::new();
        assert!((0..5).all(|_| configured.pushes_at(later(), "")));
        assert_eq!(configured.asked(), 1);
    }

    #[test]
    fn a_change_of_any_file_is_seen() {
        let configured = Configured::new();
        let more = configured.path("more");
        let include = format!("file:{}\0include.path\nmore\0", configured.path("config").display());
        assert!(configured.pushes_at(later(), &include));
        fs::write(configured.path("config"), "false").unwrap();
        assert!(!configured.pushes_at(later(), &include));
        assert_eq!(configured.asked(), 2);
        for file in [more, configured.path("config.worktree")] {
            fs::write(&file, "").unwrap();
            configured.pushes_at(later(), &include);
            assert_eq!(configured.asked(), 1, "{file:?}");
            fs::remove_file(&file).unwrap();
            configured.pushes_at(later(), &include);
            assert_eq!(configured.asked(), 1, "{file:?}");
        }
    }

    #[test]
    fn a_file_that_changed_just_now_is_not_trusted() {
        let configured = Configured::new();
        (0..3).for_each(|_| assert!(configured.pushes_at(SystemTime::now(), "")));
        assert_eq!(configured.asked(), 3);
    }

    #[test]
    fn settings_that_depend_on_more_than_files_are_asked_for_each_time() {
        let configured = Configured::new();
        let conditional =
            format!("file:{}\0includeif.onbranch:x.path\nmore\0", configured.path("config").display());
        (0..3).for_each(|_| assert!(configured.pushes_at(later(), &conditional)));
        assert_eq!(configured.asked(), 3);
    }

    #[test]
    fn the_longest_unused_entry_makes_room() {
        let cache = SettingsCache::default();
        let place = |number: usize| PathBuf::from(format!("/srv/{number}"));
        for number in 0..ENTRIES_MAX {
            cache.remember(&place(number), RepositorySettings::default(), Arc::default());
        }
        assert!(cache.remembered(&place(0)).is_some());
        cache.remember(&place(ENTRIES_MAX), RepositorySettings::default(), Arc::default());
        assert!(cache.remembered(&place(0)).is_some() && cache.remembered(&place(1)).is_none());
        assert_eq!(cache.lock().by_place.len(), ENTRIES_MAX);
    }
}
