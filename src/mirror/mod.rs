//! Upstreams and the mirrors of their repositories: everything by which the gate speaks with another server.
//!
//! | for | rooms |
//! |---|---|
//! | asking an upstream what it has | [`ask`], [`doors`], [`web`], [`advertisement`], [`told`] |
//! | pushing to a server | [`push`] |
//! | work that waits for an upstream and not for a client | [`approach`] |
//! | the mirrors on disk | [`places`], [`draft`], [`making`], [`litter`], [`turns`] |
//! | bringing one up to date | [`bring`], [`changes`], [`refs`], [`head`], [`objects`], [`damage`], [`shape`] |
//! | telling clients that push what there is | [`advertise`] |
//! | taking in what a push brought upstream | [`land`] |
//! | which upstream a repository belongs to, and how | [`upstreams`] |
//! | when each mirror is brought up to date, and for whom | [`keeper`] |
//! | removing one for good | [`forget`] |
//! | keeping them small and fast | [`upkeep`], [`packs`] |
//!
//! An upstream is asked over HTTP by the caller's own thread, without a git, so that one that is dead costs no worker; a
//! push goes to a server so as well.
//! Only what it says to have, and the mirror has not, is fetched. Nothing here knows of pushes' records or of who may read:
//! the caller brings the credential.

mod advertise;
mod advertisement;
mod approach;
mod ask;
mod bring;
mod changes;
mod damage;
mod doors;
mod draft;
mod error;
mod forget;
mod head;
pub mod keeper;
mod land;
mod litter;
mod making;
mod objects;
mod packs;
mod places;
mod push;
mod refs;
mod shape;
mod told;
mod turns;
mod upkeep;
pub mod upstreams;
mod web;

pub use advertisement::{Advertisement, Side};
pub use approach::{Answer, Approach, Question};
pub use ask::Remote;
pub use error::{Fault, ForgetError, LandError, UpkeepError, UpstreamError};
pub use making::{Progress, Step};
pub use push::{Delivery, NOT_ALONE, PushError, WRONG_OLD_VALUE};
pub use told::Told;
pub use turns::TurnError;
pub use upkeep::Tended;
pub use web::{reach, show};

use crate::config::MirrorSettings as Keeping;
use crate::git::ask::FoundRefs;
use crate::git::generation::Generation;
use crate::git::layout::Repository;
use crate::git::tools::Tools;
use crate::git::wants::Wants;
use crate::model::fleet::RefDigest;
use crate::model::mirrored::MirroredRefs;
use crate::model::name::RepoName;
use crate::model::oid::Oid;
use crate::model::push::RefUpdate;
use crate::model::route::Route;
use crate::model::upstream::UpstreamUrl;
use crate::supervise::Outcome;
use crate::sys::stop::Stop;
use advertise::Learned;
use doors::Doors;
use making::Makings;
use places::Places;
use push::Offers;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use told::Words;
use turns::Turns;
use web::{Spellings, Web};

/// What all mirrors have in common.
#[derive(Clone, Debug, Default)]
pub struct MirrorSettings {
    /// The ways that are looked at as the gate starts; one that is not among them is when it is first taken.
    pub routes: Vec<Route>,
    /// Whether symbolic links may lead out of an upstream that is a directory.
    pub follow_symlinks: bool,
    /// How the mirrors of each upstream are kept, by its name; as by default of one that is not among them.
    pub kept: BTreeMap<String, Keeping>,
}

/// The mirrors of a gate, and its way to their upstreams; clones share them.
#[derive(Clone, Debug)]
pub struct Mirrors(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: MirrorSettings,
    /// Of upstreams that [`MirrorSettings::kept`] does not name.
    plain: Keeping,
    places: Places,
    turns: Turns,
    makings: Makings,
    doors: Doors,
    web: Web,
    spellings: Spellings,
    learned: Learned,
    offers: Offers,
    words: Words,
}

impl Mirrors {
    /// The mirrors below `data_dir`, which has a directory `tmp` that is emptied at every start. Whatever is asked of a
    /// server, or sent to it, ends when `stop` kills.
    ///
    /// # Errors
    /// When their place cannot be made, or the `ca_file` of a route cannot be used.
    pub fn open(data_dir: &Path, settings: MirrorSettings, stop: &Stop) -> io::Result<Self> {
        let web = Web::new(stop.clone());
        settings.routes.iter().try_for_each(|route| web.prepare(route).map_err(io::Error::other))?;
        let places = Places::open(data_dir)?;
        let (turns, doors, spellings) = (Turns::default(), Doors::default(), Spellings::default());
        let (learned, offers, makings) = (Learned::default(), Offers::default(), Makings::default());
        let (plain, words) = (Keeping::default(), Words::default());
        let shared =
            Shared { settings, plain, places, turns, makings, doors, web, spellings, learned, offers, words };
        Ok(Self(Arc::new(shared)))
    }

    /// The mirror of `repo` as it is, if there is one. Where a gate was killed amid a change of its refs, and nobody has
    /// written there since, that is ended first.
    #[must_use]
    pub fn find(&self, repo: &RepoName) -> Option<Repository> {
        let mirror = self.0.places.find(repo)?;
        let (turns, git_dir) = (&self.0.turns, &mirror.git_dir);
        if !turns.is_in_order(git_dir)
            && refs::is_unsettled(git_dir)
            && let Ok(Some((turn, _))) = turns.take_giving_way(git_dir)
            && let Err(error) = turn.while_moving(|| refs::settle(git_dir))
        {
            log::warn!("ending a change of the refs of {git_dir:?}: {error}");
        }
        Some(mirror)
    }

    /// Which refs the mirror of `repo` has of its upstream's.
    #[must_use]
    pub fn refs_of(&self, repo: &RepoName) -> &MirroredRefs {
        &self.0.keeping(&self.0.places.of(repo)).refs
    }

    /// These refs of a mirror and the values of all its branches, if they are known without asking git, as they
    /// are unless somebody writes there.
    #[must_use]
    pub fn known_refs(&self, mirror: &Repository, refs: &[RefUpdate]) -> Option<FoundRefs> {
        let known = self.0.turns.refs(&mirror.git_dir)?;
        let mirrored = &self.0.keeping(&mirror.git_dir).refs;
        let is_mirrored = refs.iter().all(|update| mirrored.has(update.name.as_str()));
        let value = |update: &RefUpdate| known.get_key_value(update.name.as_str());
        let values = refs.iter().filter_map(value).map(|(name, oid)| (name.clone(), oid.clone())).collect();
        let below = known.iter().filter(|(name, _)| name.starts_with("refs/heads/"));
        let below = below.map(|(_, oid)| oid.clone()).collect();
        is_mirrored.then(|| FoundRefs { values, symbolic: BTreeMap::new(), below })
    }

    /// Of what is wanted, what the branches and tags of a mirror are known not to show. Where they are not remembered that is
    /// every object, and no ref: what is not known of it costs a look, and no more.
    #[must_use]
    pub fn unshown(&self, mirror: &Repository, wants: &Wants) -> Wants {
        let mut left = wants.clone();
        let Some(known) = self.0.turns.refs(&mirror.git_dir) else {
            left.refs.clear();
            return left;
        };
        let mirrored = &self.0.keeping(&mirror.git_dir).refs;
        left.refs.retain(|name| mirrored.has(name) && !known.contains_key(name));
        for oid in known.values() {
            if left.oids.is_empty() {
                break;
            }
            left.oids.remove(oid);
        }
        left
    }

    /// The branches and tags of the mirror of `repo`, where they are remembered.
    #[must_use]
    pub fn refs(&self, repo: &RepoName) -> Option<Arc<BTreeMap<String, Oid>>> {
        self.0.turns.refs(&self.0.places.of(repo))
    }

    /// The refs of the mirror of `repo` as they will be when these updates have landed there; `None` where its refs are not
    /// remembered.
    #[must_use]
    pub fn digest_after(&self, repo: &RepoName, updates: &[RefUpdate]) -> Option<RefDigest> {
        let place = self.0.places.of(repo);
        let (known, mirrored) = (self.0.turns.refs(&place)?, &self.0.keeping(&place).refs);
        let updates = updates.iter().filter(|update| mirrored.has(update.name.as_str()));
        Some(RefDigest::of(&*land::moved(known, updates)))
    }

    /// In which state all refs of a mirror are, if that is known without a look: while nobody writes there.
    #[must_use]
    pub fn generation(&self, mirror: &Repository) -> Option<Generation> {
        self.0.turns.generation(&mirror.git_dir)
    }

    /// Which change of the refs of a mirror was the last one; `None` at the moment of one. What a git lists between two equal
    /// answers is of one state.
    #[must_use]
    pub fn last_move(&self, mirror: &Repository) -> Option<u64> {
        self.0.turns.last_move(&mirror.git_dir)
    }

    /// What the upstream at `url` has last said of its repository `path`, if it is remembered.
    #[must_use]
    pub fn told(&self, url: &UpstreamUrl, path: &str) -> Option<Told> {
        self.0.words.find(&url.repository(path, false))
    }

    /// Fetches objects into the mirror of `repo` from its repository at `url` of the upstream `remote`, with all that they
    /// reach, and no ref.
    /// Waits for its turn until the deadline of `tools`.
    ///
    /// # Errors
    /// See [`UpstreamError`]; nothing has come then.
    pub fn fetch_objects(
        &self,
        repo: &RepoName,
        url: &UpstreamUrl,
        oids: &[Oid],
        remote: &Remote<'_>,
        tools: &Tools<'_>,
    ) -> Result<(), UpstreamError> {
        objects::fetch_objects(&self.0, repo, url, oids, remote, tools)
    }

    /// Whether the mirror of `repo` has all that its upstream said at `at` or later, in this life of the gate, and nobody
    /// else has changed it since, as far as a look at a few files shows.
    #[must_use]
    pub fn is_fresh(&self, repo: &RepoName, at: Instant) -> bool {
        let place = self.0.places.of(repo);
        self.0.turns.is_fresh(&place, at) && !self.0.turns.is_touched(&place)
    }

    /// Whether the mirror of `repo` looks like one: a look at a few files, and not at what is in its packs.
    #[must_use]
    pub fn is_whole(&self, repo: &RepoName) -> bool {
        shape::is_whole(&self.0.places.of(repo))
    }

    /// A push may have changed the upstream by now: until it is asked again, its mirror is not fresh.
    pub fn doubt(&self, repo: &RepoName) {
        if let Some(mirror) = self.find(repo) {
            self.0.turns.doubt(&mirror.git_dir, Instant::now());
        }
    }

    /// Heeds how a git ended that read the mirror of `repo`: whether that lets think of damage. Then the mirror is not fresh,
    /// and the next [`Mirrors::bring`] looks at all of it first.
    #[must_use]
    pub fn suspect(&self, repo: &RepoName, outcome: &Outcome) -> bool {
        let has_failed = outcome.ended.is_none() && !outcome.is_success();
        has_failed
            && damage::is_shown(&outcome.stderr)
            && self.0.turns.suspect(&self.0.places.of(repo), Instant::now())
    }

    /// Whether a push may have changed the upstream since it said what the mirror of `repo` is known to have.
    #[must_use]
    pub fn is_doubted(&self, repo: &RepoName) -> bool {
        self.0.turns.is_doubted(&self.0.places.of(repo))
    }

    /// How far the mirror of `repo` is, if it is being made.
    #[must_use]
    pub fn progress(&self, repo: &RepoName) -> Option<Progress> {
        self.0.makings.progress(&self.0.places.of(repo))
    }

    /// The repositories whose first mirror is being made.
    #[must_use]
    pub fn first_clones(&self) -> Vec<RepoName> {
        let repos = self.0.makings.places().into_iter().filter_map(|place| self.0.places.repo_at(&place));
        repos.filter(|repo| self.find(repo).is_none()).collect()
    }

    /// What the mirror of `repo` takes on the disk, as far as that can be seen, in bytes.
    #[must_use]
    pub fn bytes(&self, repo: &RepoName) -> u64 {
        places::bytes(&self.0.places.of(repo))
    }

    /// Whether the mirror of `repo` is known to be what its upstream said in `seen`, or later; then it counts as fresh.
    #[must_use]
    pub fn is_like(&self, repo: &RepoName, seen: &Advertisement) -> bool {
        bring::is_like(&self.0, repo, seen)
    }

    /// The refs of the mirror of `repo`, as they are remembered or else as git lists them; `None` where it cannot.
    #[must_use]
    pub fn digest(&self, repo: &RepoName, mirror: &Repository, tools: &Tools<'_>) -> Option<RefDigest> {
        bring::digest(&self.0, repo, mirror, tools)
    }

    /// The mirror of `repo`, at least as fresh as `seen`: made, or brought up to date where its refs that are mirrored differ
    /// from those. One at a time works on a repository; whoever waits for another looks again whether anything is left to
    /// do, until the deadline of `tools`.
    ///
    /// # Errors
    /// See [`UpstreamError`]; the mirror is as it was.
    pub fn bring(
        &self,
        repo: &RepoName,
        seen: &Advertisement,
        remote: &Remote<'_>,
        tools: &Tools<'_>,
    ) -> Result<Repository, UpstreamError> {
        bring::bring(&self.0, repo, seen, remote, tools)
    }

    /// Takes into a mirror what a push has brought to its upstream: the packs in the directory `objects` of its staging
    /// repository by rename, and the refs, each only from its old value. Waits 2 s at most for its turn.
    ///
    /// # Errors
    /// See [`LandError`]: whatever it is, the next [`Mirrors::bring`] fetches what is missing.
    pub fn land(
        &self,
        repository: &Repository,
        objects: &Path,
        refs: &[RefUpdate],
        tools: &Tools<'_>,
    ) -> Result<(), LandError> {
        land::land(&self.0, repository, objects, refs, tools)
    }

    /// Tends the mirror of `repo` where that is due, and cleans it if nobody has in this life; see [`upkeep`]. Gives way to
    /// everybody else who writes. `now` is what its files' times are measured by.
    ///
    /// # Errors
    /// See [`UpkeepError`].
    pub fn tend(
        &self,
        repo: &RepoName,
        prune_after: Duration,
        now: SystemTime,
        tools: &Tools<'_>,
    ) -> Result<Tended, UpkeepError> {
        upkeep::tend(&self.0, repo, prune_after, now, tools)
    }

    /// Removes the mirror of `repo` for good: nobody finds it from now on, and the next [`Mirrors::bring`] makes it anew.
    /// Waits until `until` for its turn. Answers whether there was one.
    ///
    /// # Errors
    /// See [`ForgetError`]; the mirror is there as it was.
    pub fn forget(&self, repo: &RepoName, until: Instant, stop: &Stop) -> Result<bool, ForgetError> {
        forget::forget(&self.0, repo, until, stop)
    }
}

impl Shared {
    /// How the mirror at `place` is kept.
    fn keeping(&self, place: &Path) -> &Keeping {
        let upstream = self.places.upstream_of(place);
        upstream.and_then(|name| self.settings.kept.get(name)).unwrap_or(&self.plain)
    }
}
