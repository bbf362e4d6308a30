//! Upkeep of all mirrors: what has become due is done one mirror after the other, by a worker of the lane `upkeep`, which
//! others may have between two of them. A new mirror is not kept waiting for the next look.
//!
//! What gave way, or failed, is tried again after a pause that doubles from one time to the next: a mirror that is written to
//! all day is tended at night.

use super::schedule::{pause, served};
use super::{Keeper, KeeperParts};
use crate::git::ask::Asker;
use crate::git::tools::Tools;
use crate::mirror::{Approach, Tended, UpkeepError};
use crate::model::name::RepoName;
use crate::supervise::Deadline;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long the upkeep of one mirror may take: a full repack of some gigabytes.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// The chores of a gate; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Chores(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Chores by [`Chore`], in the order of [`Chore::ALL`].
    ended: [AtomicU64; Chore::ALL.len()],
}

#[derive(Debug, Default)]
struct State {
    is_under_way: bool,
    pauses: HashMap<RepoName, Pause>,
}

/// How often in a row the upkeep of a mirror came to nothing, and when it is tried again.
#[derive(Clone, Copy, Debug)]
struct Pause {
    times: u32,
    until: Instant,
}

/// How the upkeep of a mirror ended that had something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chore {
    /// It was done.
    Done,
    /// Somebody else needed the mirror, or the gate stopped.
    Interrupted,
    /// It took too long, or git failed.
    Failed,
}

impl Chore {
    /// Every ending, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Done, Self::Interrupted, Self::Failed];

    /// Its name in the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
        }
    }

    /// What there is to count, if there was anything to do.
    fn of(tended: &Result<Tended, UpkeepError>) -> Option<Self> {
        match tended {
            Ok(Tended::Idle | Tended::Busy) => None,
            Ok(Tended::Interrupted) => Some(Self::Interrupted),
            Ok(Tended::Done { .. }) => Some(Self::Done),
            Err(_) => Some(Self::Failed),
        }
    }
}

/// The mirrors that a round has yet to look at. Dropped, the round is over.
struct Round {
    chores: Chores,
    ahead: VecDeque<RepoName>,
}

impl Drop for Round {
    fn drop(&mut self) {
        self.chores.lock().is_under_way = false;
    }
}

impl Chores {
    /// A round, unless one is under way.
    fn begin(&self, mirrors: Vec<RepoName>) -> Option<Round> {
        let is_under_way = std::mem::replace(&mut self.lock().is_under_way, true);
        (!is_under_way).then(|| Round { chores: self.clone(), ahead: mirrors.into() })
    }

    fn is_paused(&self, repo: &RepoName, now: Instant) -> bool {
        self.lock().pauses.get(repo).is_some_and(|pause| pause.until > now)
    }

    fn note(&self, repo: &RepoName, ended: Chore, now: Instant) {
        self.0.ended[ended as usize].fetch_add(1, Ordering::Relaxed);
        let pauses = &mut self.lock().pauses;
        match ended {
            Chore::Done => drop(pauses.remove(repo)),
            Chore::Interrupted | Chore::Failed => {
                let times = pauses.get(repo).map_or(0, |pause| pause.times).saturating_add(1);
                pauses.insert(repo.clone(), Pause { times, until: now + pause(times) });
            }
        }
    }

    /// How many ended so.
    pub(super) fn ended(&self, ending: Chore) -> u64 {
        self.0.ended[ending as usize].load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper {
    /// Begins a round of upkeep through all mirrors, unless one is under way or nothing has a worker for it.
    pub fn tend_due(&self) {
        let names = self.0.states.names();
        if !names.is_empty()
            && let Some(round) = self.0.chores.begin(names)
        {
            self.go_on(round);
        }
    }

    /// Lets a new mirror be tended as soon as a worker has time, since a clone of it costs up to half as much again without a
    /// bitmap. What comes to nothing is left to the rounds.
    pub(super) fn tend_soon(&self, repo: &RepoName) {
        let (keeper, repo) = (self.clone(), repo.clone());
        match self.0.parts.upkeep.submit(move || keeper.tend(&repo)) {
            Ok(ticket) => ticket.detach(),
            Err(reason) => log::debug!("no upkeep of a new mirror now: {reason}"),
        }
    }

    fn go_on(&self, round: Round) {
        let keeper = self.clone();
        match self.0.parts.upkeep.submit(move || keeper.tend_next(round)) {
            Ok(ticket) => ticket.detach(),
            Err(reason) => log::debug!("no upkeep of mirrors now: {reason}"),
        }
    }

    /// Looks at one mirror after the other until there was something to do, and queues behind others for the rest.
    fn tend_next(&self, mut round: Round) {
        while let Some(repo) = round.ahead.pop_front() {
            if !self.0.parts.stop.is_running() {
                return;
            }
            if !round.chores.is_paused(&repo, Instant::now()) && self.tend(&repo) {
                return self.go_on(round);
            }
        }
    }

    /// Answers whether there was anything to do.
    fn tend(&self, repo: &RepoName) -> bool {
        let KeeperParts { approach, upstreams, upkeep, memory, stop, .. } = &self.0.parts;
        let Approach { git, reaper, grace, .. } = approach;
        let Some(place) = served(upstreams, repo) else { return false };
        let begun = Instant::now();
        let deadline = Deadline::starting(begun, LIMIT, "the deadline of upkeep");
        let asker = Asker { reaper, deadline, grace: *grace, client: None };
        let tools = Tools { git, asker, lane: upkeep.kind().name(), memory: *memory, stop };
        let prune_after = place.upstream.mirror.prune_after;
        let tended = upstreams.mirrors().tend(repo, prune_after, SystemTime::now(), &tools);
        let Some(ended) = Chore::of(&tended) else { return false };
        self.0.chores.note(repo, ended, Instant::now());
        tell(repo, &tended, begun);
        if let Err(UpkeepError::Git { outcome, .. }) = &tended {
            self.heed(repo, outcome);
        }
        if ended == Chore::Done {
            self.0.states.set_bytes(repo, upstreams.mirrors().bytes(repo));
            self.0.states.save(repo);
        }
        true
    }
}

fn tell(repo: &RepoName, tended: &Result<Tended, UpkeepError>, begun: Instant) {
    let ms = begun.elapsed().as_millis();
    match tended {
        Ok(Tended::Done { before, after }) => {
            log::info!("mirror {repo} tended packs={before} left={after} ms={ms}");
        }
        Ok(Tended::Interrupted) => log::info!("mirror {repo} not tended ms={ms}: it was needed"),
        Ok(Tended::Idle | Tended::Busy) => {}
        Err(error) => log::warn!("mirror {repo} not tended ms={ms}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_round_at_a_time() {
        let chores = Chores::default();
        let round = chores.begin(Vec::new()).unwrap();
        assert!(chores.begin(Vec::new()).is_none());
        drop(round);
        assert!(chores.begin(Vec::new()).is_some());
    }

    #[test]
    fn what_was_interrupted_pauses_longer_each_time_until_it_is_done() {
        let (chores, repo) = (Chores::default(), RepoName::parse("forge/app").unwrap());
        let now = Instant::now();
        let paused = |seconds| chores.is_paused(&repo, now + Duration::from_secs(seconds));
        assert!(!paused(0));
        chores.note(&repo, Chore::Interrupted, now);
        assert!(paused(9) && !paused(10));
        chores.note(&repo, Chore::Failed, now);
        assert!(paused(19) && !paused(20));
        chores.note(&repo, Chore::Done, now);
        assert!(!paused(0));
        assert_eq!(Chore::ALL.map(|ending| chores.ended(ending)), [1, 1, 1]);
    }
}
