//! Changes of hosted repositories: announced before git is started, told when it has ended, and looked for where others write.
//!
//! What a push did is told by its report. Where that is not known, by a kill of the gate or of git, and where somebody writes
//! to a repository without the gate, the refs themselves are compared with those that were told last.

use crate::git::ask::{self, AskError, Asker};
use crate::git::command::Git;
use crate::git::layout::{LayoutError, Repository, Root};
use crate::git::pool::Lane;
use crate::mirror::upstreams::Upstreams;
use crate::model::fleet::{RefDigest, RepoKey};
use crate::model::name::RepoName;
use crate::model::pause::Doubling;
use crate::store::versions::{Intent, LeftIntent, Standing};
use crate::store::{Store, StoreError};
use crate::supervise::{Deadline, Reaper};
use crate::sys::stop::Stop;
use jiff::Timestamp;
use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a repository may take to list its refs: tens of thousands take less than a second.
const LIST_LIMIT: Duration = Duration::from_secs(60);

/// Repositories that are looked at for changes by others; one takes a hundred bytes.
const WATCHED_MAX: usize = 100_000;

/// The pauses between attempts to tell what could not be told: of a database that was full for a moment nobody notices, and
/// one that stays so is left alone.
const PAUSES: Doubling = Doubling { first: Duration::from_secs(1), most: Duration::from_secs(60) };

/// What is needed to look at repositories.
#[derive(Debug)]
pub struct ChangesParts {
    /// Where changes are told.
    pub store: Store,
    /// The one spawner and waiter.
    pub reaper: Reaper,
    /// The git program.
    pub git: Git,
    /// How long a git that is to end may take.
    pub grace: Duration,
    /// The directory of hosted repositories.
    pub root: Root,
    /// Whose mirrors may have been left in a change.
    pub upstreams: Upstreams,
    /// Whose workers look.
    pub lane: Lane,
    /// The end of it all.
    pub stop: Stop,
}

/// Clones share it.
#[derive(Clone, Debug)]
pub struct Changes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    parts: ChangesParts,
    watched: Mutex<BTreeSet<RepoName>>,
    is_looking: AtomicBool,
    /// How often in a row something could not be told, and when that is tried again.
    untold: Mutex<Option<(u32, Instant)>>,
    told: Mutex<HashSet<RepoName>>,
    is_told: Condvar,
}

/// The right to look at the refs of a repository and to tell of them: of two who do both, the later one tells what was
/// later.
struct Word<'a> {
    changes: &'a Changes,
    repo: &'a RepoName,
}

impl Drop for Word<'_> {
    fn drop(&mut self) {
        self.changes.told().remove(self.repo);
        self.changes.0.is_told.notify_all();
    }
}

/// What is known of a push that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// At least one ref moved.
    Moved,
    /// None did.
    Nothing,
    /// Nobody said.
    Unknown,
}

/// Why the refs of a repository could not be told.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Changes {
    /// Of these parts. The repositories that changes were told of before are looked at from the start.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn new(parts: ChangesParts) -> Result<Self, StoreError> {
        let own = parts.store.versions().own()?.into_iter().filter(|version| !version.is_removed);
        let hosted = own.filter_map(|version| version.repo.as_hosted()).map(|(_, name)| name);
        let watched = Mutex::new(hosted.take(WATCHED_MAX).collect());
        let (is_looking, untold, told, is_told) = Default::default();
        Ok(Self(Arc::new(Shared { parts, watched, is_looking, untold, told, is_told })))
    }

    /// Looks after this hosted repository from now on.
    pub fn watch(&self, repo: &RepoName) {
        let mut watched = self.watched();
        if watched.len() < WATCHED_MAX && !watched.contains(repo) {
            watched.insert(repo.clone());
        }
    }

    /// Tells what came of a push into a hosted repository. What cannot be told now is found out soon, by
    /// [`Changes::settle_due`].
    pub fn tell(&self, intent: Intent, repo: &RepoName, repository: &Repository, came: Came) {
        let done = match came {
            Came::Nothing => intent.withdraw(),
            Came::Moved | Came::Unknown => {
                let _word = self.take_word(repo);
                let digest = self.digest_or_none(repository);
                let key = RepoKey::hosted(self.0.parts.store.publisher(), repo);
                let standing = Standing { repo, key: &key, digest: digest.as_ref() };
                match (came, &digest) {
                    (Came::Moved, _) => intent.moved(&standing, Timestamp::now()),
                    (_, Some(_)) => intent.settle(&standing, Timestamp::now()),
                    // The announcement stays until the refs can be listed.
                    (_, None) => return self.put_off(),
                }
            }
        };
        if let Err(error) = done {
            log::error!("{repo}: what has changed is not told yet, and is tried again: {error}");
            self.put_off();
        }
    }

    /// What could not be told is tried again after a pause that grows.
    fn put_off(&self) {
        let mut untold = self.untold();
        let times = untold.map_or(1, |(times, _)| times.saturating_add(1));
        *untold = Some((times, Instant::now() + PAUSES.after(times)));
    }

    /// The refs of a repository as they are now; `None`, with a line in the log, where git cannot list them.
    #[must_use]
    pub fn digest_or_none(&self, repository: &Repository) -> Option<RefDigest> {
        self.digest(repository).inspect_err(|error| log::warn!("{error}")).ok()
    }

    fn digest(&self, repository: &Repository) -> Result<RefDigest, AskError> {
        let ChangesParts { reaper, git, grace, .. } = &self.0.parts;
        let deadline = Deadline::starting(Instant::now(), LIST_LIMIT, "time to list refs");
        let asker = Asker { reaper, deadline, grace: *grace, client: None };
        ask::refs_digest(git, &repository.git_dir, &asker)
    }

    /// Lets a worker look for changes that nobody has told of, unless one does.
    pub fn begin_look(&self) {
        self.begin(|changes| {
            changes.settle_left();
            changes.look_at_all();
        });
    }

    /// Lets a worker tell what could not be told before, where it is time for that.
    pub fn settle_due(&self) {
        if self.untold().is_some_and(|(_, due)| due <= Instant::now()) {
            self.begin(Self::settle_left);
        }
    }

    fn begin(&self, look: impl FnOnce(&Self) + Send + 'static) {
        if self.0.is_looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let changes = self.clone();
        let job = move || {
            look(&changes);
            changes.0.is_looking.store(false, Ordering::Release);
        };
        match self.0.parts.lane.submit(job) {
            Ok(ticket) => ticket.detach(),
            Err(_) => self.0.is_looking.store(false, Ordering::Release),
        }
    }

    /// Takes up what was announced, by an earlier life of the gate or by a thread that failed, and never ended.
    pub fn settle_left(&self) {
        let before = *self.untold();
        let left = match self.0.parts.store.versions().left_intents() {
            Ok(left) => left,
            Err(error) => {
                log::error!("{error}");
                return self.put_off();
            }
        };
        let mut is_all_told = true;
        for intent in left.iter().take_while(|_| self.0.parts.stop.is_running()) {
            if let Err(error) = self.settle(intent) {
                log::warn!("{}: what may have changed is not told yet: {error}", intent.repo);
                is_all_told = false;
            }
        }
        if !is_all_told {
            return self.put_off();
        }
        // What could not be told since the look is for the next one.
        let mut untold = self.untold();
        if *untold == before {
            *untold = None;
        }
    }

    fn settle(&self, left: &LeftIntent) -> Result<(), LookError> {
        let ChangesParts { store, upstreams, root, .. } = &self.0.parts;
        let (key, repository) = match upstreams.find(&left.repo) {
            Some(place) => {
                let key = place.key();
                (key, upstreams.mirrors().find(&left.repo))
            }
            None => (RepoKey::hosted(store.publisher(), &left.repo), found(root.find(&left.repo))?),
        };
        let Some(repository) = repository else { return Ok(store.versions().drop_left(left)?) };
        let _word = self.take_word(&left.repo);
        let digest = self.digest(&repository)?;
        let standing = Standing { repo: &left.repo, key: &key, digest: Some(&digest) };
        Ok(store.versions().take_up(left, &standing, Timestamp::now())?)
    }

    fn look_at_all(&self) {
        let watched: Vec<RepoName> = self.watched().iter().cloned().collect();
        for repo in watched.iter().take_while(|_| self.0.parts.stop.is_running()) {
            if let Err(error) = self.look_at(repo) {
                log::warn!("{repo}: whether others have changed it is not known: {error}");
            }
        }
    }

    /// Tells of what others have changed in a hosted repository, and of its removal.
    fn look_at(&self, repo: &RepoName) -> Result<(), LookError> {
        let ChangesParts { store, root, .. } = &self.0.parts;
        let (key, now) = (RepoKey::hosted(store.publisher(), repo), Timestamp::now());
        let Some(repository) = found(root.find(repo))? else {
            if store.versions().remove(repo, &key, now)? {
                log::info!("{repo} was removed by somebody else");
            }
            self.watched().remove(repo);
            return Ok(());
        };
        let _word = self.take_word(repo);
        let digest = self.digest(&repository)?;
        let standing = Standing { repo, key: &key, digest: Some(&digest) };
        // What is not known yet was there before anybody was told of it, as far as anybody can say.
        if store.versions().look(&standing, false, now)? {
            log::info!("{repo} was changed by somebody else");
        }
        Ok(())
    }

    fn take_word<'a>(&'a self, repo: &'a RepoName) -> Word<'a> {
        let told = self.0.is_told.wait_while(self.told(), |told| told.contains(repo));
        told.unwrap_or_else(PoisonError::into_inner).insert(repo.clone());
        Word { changes: self, repo }
    }

    fn untold(&self) -> MutexGuard<'_, Option<(u32, Instant)>> {
        self.0.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, HashSet<RepoName>> {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self) -> MutexGuard<'_, BTreeSet<RepoName>> {
        self.0.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The repository, if there is one; only a disk that does not answer is a failure.
fn found(found: Result<Repository, LayoutError>) -> Result<Option<Repository>, LayoutError> {
    match found {
        Ok(repository) => Ok(Some(repository)),
        Err(error) if error.is_fault() => Err(error),
        Err(_) => Ok(None),
    }
}
