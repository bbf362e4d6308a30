//! The refs of repositories as git lists them, remembered for as long as nobody has moved one.
//!
//! A list is one [`Generation`] of refs under one set of settings, since these hide refs. It is found only while both are
//! what they were, so whoever asks after an update has ended sees the update. Beside each list are the last answers that
//! were cut out of it. What is remembered is bounded in bytes; what was used the longest ago goes first.

use crate::git::ask::AskError;
use crate::git::generation::{Generation, Unknown};
use crate::git::layout::Repository;
use crate::git::learned::{Learned, UNSETTLED};
use crate::git::ls_refs::{Query, RefList};
use crate::git::settings::{RepositorySettings, SettingsDigest};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Repositories whose refs are remembered: as many as those whose settings are.
const ENTRIES_MAX: usize = 4096;

/// Answers beside each list. Clients of one kind ask alike; whoever asks otherwise each time is answered out of the list.
const ANSWERS_MAX: usize = 8;

/// What an entry takes beside what it is known to take, in bytes.
const ENTRY_BYTES: usize = 500;

/// The lists of all repositories.
#[derive(Debug)]
pub struct RefsCache {
    entries: Mutex<Entries>,
    /// What all of it may take.
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Entries {
    by_place: HashMap<PathBuf, Entry>,
    bytes: usize,
    /// Counts uses; the entry with the smallest number is the one that goes.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    known: Known,
    answers: Vec<(Query, Arc<[u8]>)>,
    used: u64,
}

/// A list, and what has to be so for it to be true.
#[derive(Clone, Debug)]
struct Known {
    generation: Generation,
    settings: SettingsDigest,
    list: Arc<RefList>,
}

/// A repository as whoever asks sees it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Where it is.
    pub repository: &'a Repository,
    /// Its settings at this moment.
    pub settings: RepositorySettings,
    /// What is wanted of its refs.
    pub query: &'a Query,
}

/// Why no git was asked for the whole list, or none gave it: the request itself is for a git then.
#[derive(Debug)]
pub enum Unlearned {
    /// The state of the refs is not known.
    Unknown(Unknown),
    /// The list is larger than what is remembered of it.
    Large,
    /// Git does not answer, or not with a list.
    Ask(AskError),
}

impl Unlearned {
    /// The name in metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Unknown(why) => why.name(),
            Self::Large => "large",
            Self::Ask(_) => "failed",
        }
    }
}

impl RefsCache {
    /// Remembers nothing yet, and never more than `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Self { entries: Mutex::default(), bytes_max }
    }

    /// How many bytes are remembered.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// The answer, if it is known. `ours` is the state of the refs where the gate alone writes them and knows it.
    #[must_use]
    pub fn find(&self, asked: &Asked<'_>, ours: Option<&Generation>) -> Option<Arc<[u8]>> {
        let place = &asked.repository.git_dir;
        let (known, answer) = self.look_up(place, asked.query)?;
        // Looked at outside of the lock.
        if known.settings != asked.settings.digest() || !known.generation.is_still(ours) {
            self.forget(place, &known);
            return None;
        }
        answer.or_else(|| Some(self.cut(place, &known, asked.query)))
    }

    /// The state of the refs of a repository to which others may write, if it is that of the list that is remembered: to see
    /// that costs less than to look at all files anew.
    #[must_use]
    pub fn generation(&self, repository: &Repository, settings: RepositorySettings) -> Option<Generation> {
        let known = self.lock().by_place.get(&repository.git_dir).map(|entry| entry.known.clone())?;
        (known.settings == settings.digest() && known.generation.is_still(None)).then_some(known.generation)
    }

    /// The same by asking a git for the whole list, which is remembered if nothing has changed meanwhile: neither the refs,
    /// whose state `ours` tells where the gate alone writes them, nor the settings, which `is_still_set` tells.
    ///
    /// # Errors
    /// When the state of the refs is not known, or git gives no list.
    pub fn learn(
        &self,
        asked: &Asked<'_>,
        ours: impl Fn() -> Option<Generation>,
        is_still_set: impl Fn() -> bool,
        ask: impl FnOnce(usize) -> Result<Said, AskError>,
    ) -> Result<Learned, Unlearned> {
        let Asked { repository, settings, query } = *asked;
        // Half of it, so that one repository does not drive out all others.
        let limit = self.bytes_max / 2;
        if packed_bytes(repository) > limit as u64 {
            return Err(Unlearned::Large);
        }
        let before = ours().map_or_else(|| Generation::look(repository, settings), Ok);
        let generation = before.map_err(Unlearned::Unknown)?;
        let Said { list, is_silent } = ask(limit).map_err(Unlearned::Ask)?;
        let known = Known { generation, settings: settings.digest(), list: Arc::new(list) };
        let unkept = if !is_silent {
            // What it has warned of may be mended without a change of any ref.
            Some("warned")
        } else if !known.generation.is_still(ours().as_ref()) {
            Some("moved")
        } else if !is_still_set() {
            Some(UNSETTLED)
        } else {
            None
        };
        let answer: Arc<[u8]> = known.list.answer(query).into();
        if unkept.is_none() {
            let answers = vec![(query.clone(), Arc::clone(&answer))];
            self.remember(&repository.git_dir, Entry { known, answers, used: 0 });
        }
        Ok(Learned { answer, unkept })
    }

    fn look_up(&self, place: &Path, query: &Query) -> Option<(Known, Option<Arc<[u8]>>)> {
        let mut entries = self.lock();
        entries.clock += 1;
        let clock = entries.clock;
        let entry = entries.by_place.get_mut(place)?;
        entry.used = clock;
        let answer = entry.answers.iter().find(|(asked, _)| asked == query);
        Some((entry.known.clone(), answer.map(|(_, answer)| Arc::clone(answer))))
    }

    /// Cuts an answer out of a list, and remembers it beside that.
    fn cut(&self, place: &Path, known: &Known, query: &Query) -> Arc<[u8]> {
        let answer: Arc<[u8]> = known.list.answer(query).into();
        let mut entries = self.lock();
        let taken = entries.take(place, |entry| entry.known.is(known));
        if let Some(mut entry) = taken {
            if entry.answers.len() >= ANSWERS_MAX {
                entry.answers.remove(0);
            }
            entry.answers.push((query.clone(), Arc::clone(&answer)));
            entries.put(place, entry, self.bytes_max);
        }
        answer
    }

    fn remember(&self, place: &Path, entry: Entry) {
        let mut entries = self.lock();
        entries.take(place, |_| true);
        entries.put(place, entry, self.bytes_max);
    }

    /// Forgets what is not true any more, unless somebody has learned otherwise meanwhile.
    fn forget(&self, place: &Path, known: &Known) {
        self.lock().take(place, |entry| entry.known.is(known));
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.list, &other.list)
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        let answers = self.answers.iter().map(|(query, answer)| query.bytes() + answer.len() + ENTRY_BYTES);
        self.known.list.bytes() + self.known.generation.bytes() + answers.sum::<usize>() + ENTRY_BYTES
    }
}

impl Entries {
    fn take(&mut self, place: &Path, is_meant: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
        let is_meant = self.by_place.get(place).is_some_and(is_meant);
        let entry = if is_meant { self.by_place.remove(place) } else { None };
        self.bytes -= entry.as_ref().map_or(0, Entry::bytes);
        entry
    }

    /// Remembers an entry, and forgets others or its answers where there is no room for it.
    fn put(&mut self, place: &Path, mut entry: Entry, bytes_max: usize) {
        self.clock += 1;
        entry.used = self.clock;
        while entry.bytes() > bytes_max && !entry.answers.is_empty() {
            entry.answers.remove(0);
        }
        let bytes = entry.bytes();
        if bytes > bytes_max {
            return;
        }
        while self.by_place.len() >= ENTRIES_MAX || self.bytes + bytes > bytes_max {
            self.forget_oldest();
        }
        self.bytes += bytes;
        self.by_place.insert(place.to_path_buf(), entry);
    }

    fn forget_oldest(&mut self) {
        let oldest = self.by_place.iter().min_by_key(|(_, entry)| entry.used).map(|(place, _)| place.clone());
        oldest.map(|place| self.take(&place, |_| true));
    }
}

/// About as much as a list takes: most refs of a large repository are packed.
fn packed_bytes(repository: &Repository) -> u64 {
    fs::metadata(repository.common_dir.join("packed-refs")).map_or(0, |found| found.len())
}

/// What a git has said of all refs.
#[derive(Debug)]
pub struct Said {
    /// The refs.
    pub list: RefList,
    /// It has warned of nothing.
    pub is_silent: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::ls_refs::Reading;
    use crate::git::object_format::ObjectFormat;
    use std::cell::Cell;
    use std::time::{Duration, Instant};
    use tempfile::TempDir;

    /// A mirror, whose state is told by a number.
    struct Mirror<'a> {
        cache: &'a RefsCache,
        repository: Repository,
        state: Cell<Option<u64>>,
        is_set: Cell<bool>,
        asked: Cell<usize>,
    }

    impl<'a> Mirror<'a> {
        fn new(cache: &'a RefsCache, name: &str) -> Self {
            let path = PathBuf::from(format!("/no/such/place/{name}"));
            let repository = Repository { git_dir: path.clone(), common_dir: path };
            Self {
                cache,
                repository,
                state: Cell::new(Some(1)),
                is_set: Cell::new(true),
                asked: Cell::new(0),
            }
        }

        fn ours(&self) -> Option<Generation> {
            self.state.get().map(Generation::ours)
        }

        fn find(&self, query: &Query) -> Option<Arc<[u8]>> {
            let asked =
                Asked { repository: &self.repository, settings: RepositorySettings::default(), query };
            self.cache.find(&asked, self.ours().as_ref())
        }

        fn learn(&self, refs: usize, is_silent: bool, then: impl Fn()) -> Result<Learned, Unlearned> {
            let query = &query("");
            let asked =
                Asked { repository: &self.repository, settings: RepositorySettings::default(), query };
            let said = |_| {
                self.asked.set(self.asked.get() + 1);
                then();
                Ok(Said { list: list(refs), is_silent })
            };
            self.cache.learn(&asked, || self.ours(), || self.is_set.get(), said)
        }

        fn keep(&self, refs: usize) {
            assert_eq!(self.learn(refs, true, || ()).unwrap().unkept, None);
        }
    }

    fn query(prefix: &str) -> Query {
        let mut reading = Reading::default();
        reading.take_argument(format!("ref-prefix {prefix}").as_bytes());
        reading.query(ObjectFormat::Sha1).unwrap()
    }

    fn list(refs: usize) -> RefList {
        let line = |number| format!("0040{} refs/heads/{number:07}\n", "a".repeat(40));
        let said: String = (0..refs).map(line).collect();
        RefList::parse(format!("{said}0000").into_bytes()).unwrap()
    }

    #[test]
    fn the_state_of_a_list_is_known_until_a_ref_moves() {
        let (cache, place) = (RefsCache::new(1 << 20), TempDir::new().unwrap());
        let path = place.path().to_path_buf();
        let repository = Repository { git_dir: path.clone(), common_dir: path.clone() };
        fs::create_dir(path.join("refs")).unwrap();
        fs::write(path.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        let settings = RepositorySettings::default();
        let asked = Asked { repository: &repository, settings, query: &query("") };
        assert_eq!(cache.generation(&repository, settings), None);
        let begun = Instant::now();
        let said = |_| Ok(Said { list: list(1), is_silent: true });
        while !cache.learn(&asked, || None, || true, said).is_ok_and(|learned| learned.unkept.is_none()) {
            assert!(begun.elapsed() < Duration::from_secs(60), "it stays fresh");
        }
        let known = cache.generation(&repository, settings);
        assert!(known.is_some() && known == Generation::look(&repository, settings).ok());
        fs::write(path.join("refs/main"), "1").unwrap();
        assert_eq!(cache.generation(&repository, settings), None);
    }

    #[test]
    fn what_is_known_is_answered_until_the_state_is_another_one() {
        let cache = RefsCache::new(1 << 20);
        let mirror = Mirror::new(&cache, "a");
        assert!(mirror.find(&query("")).is_none());
        mirror.keep(20);
        assert_eq!(*mirror.find(&query("")).unwrap(), *list(20).answer(&query("")));
        let some = query("refs/heads/000001");
        let (first, second) = (mirror.find(&some).unwrap(), mirror.find(&some).unwrap());
        assert!(Arc::ptr_eq(&first, &second) && *first == *list(20).answer(&some));
        assert!(mirror.asked.get() == 1 && cache.bytes() > list(20).bytes());
        mirror.state.set(None);
        assert!(mirror.find(&some).is_none() && cache.bytes() == 0);
        mirror.state.set(Some(1));
        assert!(mirror.find(&some).is_none(), "what was found to be untrue is gone");
    }

    #[test]
    fn what_may_be_untrue_is_told_and_not_remembered() {
        let cache = RefsCache::new(1 << 20);
        let mirror = Mirror::new(&cache, "a");
        let unkept = |learned: Result<Learned, Unlearned>| {
            let learned = learned.unwrap();
            assert_eq!(*learned.answer, *list(3).answer(&query("")));
            assert!(mirror.find(&query("")).is_none());
            learned.unkept.unwrap()
        };
        assert_eq!(unkept(mirror.learn(3, false, || ())), "warned");
        assert_eq!(unkept(mirror.learn(3, true, || mirror.state.set(Some(2)))), "moved");
        assert_eq!(unkept(mirror.learn(3, true, || mirror.state.set(None))), "moved");
        mirror.state.set(Some(3));
        assert_eq!(unkept(mirror.learn(3, true, || mirror.is_set.set(false))), "settings");
        mirror.state.set(None);
        let asked = mirror.asked.get();
        assert!(matches!(mirror.learn(3, true, || ()), Err(Unlearned::Unknown(_))));
        assert_eq!(mirror.asked.get(), asked, "the request itself is for a git");
    }

    #[test]
    fn it_takes_no_more_than_its_bytes_and_forgets_what_was_used_the_longest_ago() {
        let one = list(100).bytes() + list(100).answer(&query("")).len() + 2 * ENTRY_BYTES;
        let cache = RefsCache::new(3 * one as u64 + 1000);
        let mirrors = ["a", "b", "c", "d"].map(|name| Mirror::new(&cache, name));
        mirrors[..3].iter().for_each(|mirror| mirror.keep(100));
        assert!(mirrors[0].find(&query("")).is_some());
        mirrors[3].keep(100);
        let is_known = mirrors.each_ref().map(|mirror| mirror.find(&query("")).is_some());
        assert_eq!(is_known, [true, false, true, true]);
        for number in 0..100 {
            assert!(mirrors[0].find(&query(&format!("refs/heads/00000{number:02}"))).is_some());
            assert!(cache.bytes() <= cache.bytes_max);
        }
        mirrors[1].keep(1000);
        assert!(mirrors[1].find(&query("")).is_none() && cache.bytes() <= cache.bytes_max);
    }

    #[test]
    fn a_large_list_is_not_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("packed-refs"), vec![b'#'; 600]).unwrap();
        let cache = RefsCache::new(1000);
        let repository = Repository { git_dir: dir.path().into(), common_dir: dir.path().into() };
        let mirror = Mirror { repository, ..Mirror::new(&cache, "a") };
        assert!(matches!(mirror.learn(1, true, || ()), Err(Unlearned::Large)));
        assert_eq!(mirror.asked.get(), 0);
    }
}
