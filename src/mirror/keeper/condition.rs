//! How a mirror is, in a word: what operators read first.

use super::Keeper;
use super::heard::AFTER_FAILURE;
use super::states::State;
use crate::mirror::Progress;
use crate::model::name::RepoName;
use jiff::Timestamp;
use std::time::Duration;

/// How a mirror is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// No sync has ended yet.
    NeverSynced,
    /// It is being made.
    Cloning,
    /// It was synced so lately that a read asks nobody.
    Fresh,
    /// A read asks the upstream first.
    Stale,
    /// The last sync failed.
    Failing,
    /// It did since the upstream says that the repository is elsewhere.
    Moved,
}

impl Condition {
    /// Every condition, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::NeverSynced, Self::Cloning, Self::Fresh, Self::Stale, Self::Failing, Self::Moved];

    /// Its name in the API and the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NeverSynced => "never_synced",
            Self::Cloning => "cloning",
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Failing => "failing",
            Self::Moved => "moved",
        }
    }

    /// Of a mirror that a read asks nobody about for `fresh_for`, unless it is doubted.
    fn of(state: &State, fresh_for: Duration, is_doubted: bool) -> Self {
        match &state.row.failed {
            Some(failed) if failed.moved.is_some() => Self::Moved,
            Some(_) => Self::Failing,
            None if state.row.succeeded.is_none() => Self::NeverSynced,
            None if is_doubted => Self::Stale,
            // What an earlier life knew does for no read.
            None if state.fresh.is_some_and(|fresh| fresh.elapsed() <= fresh_for) => Self::Fresh,
            None => Self::Stale,
        }
    }
}

impl State {
    /// Until when nothing is synced that no reader or reviewer asks for, since a sync failed, if that is so at `now`: the
    /// schedule pauses, and so do the wishes of what is heard.
    #[must_use]
    pub fn backoff(&self, now: Timestamp) -> Option<Timestamp> {
        self.row.failed.as_ref()?;
        let heard = self.row.attempted.checked_add(AFTER_FAILURE).ok();
        self.row.due.max(heard).filter(|until| *until > now)
    }
}

impl Keeper {
    /// How all mirrors are, by name, with those that are being made for the first time.
    #[must_use]
    pub fn all_shown(&self) -> Vec<State> {
        let mut states = self.states();
        let is_known = |repo: &RepoName| self.state(repo).is_some();
        let made = self.0.parts.upstreams.mirrors().first_clones().into_iter().filter(|repo| !is_known(repo));
        states.extend(made.filter_map(|repo| self.shown(&repo)));
        states.sort_by(|one, other| one.row.repo.as_str().cmp(other.row.repo.as_str()));
        states
    }

    /// How one of them is.
    #[must_use]
    pub fn shown(&self, repo: &RepoName) -> Option<State> {
        let unsynced = |progress: Progress| {
            let now = Timestamp::now();
            State::unsynced(repo, now.checked_sub(progress.begun.elapsed()).unwrap_or(now))
        };
        self.state(repo).or_else(|| self.first_clone(repo).map(unsynced))
    }

    /// How far a mirror is that is being made for the first time.
    #[must_use]
    pub fn first_clone(&self, repo: &RepoName) -> Option<Progress> {
        self.progress(repo).filter(|_| self.find(repo).is_none())
    }

    /// How this mirror is, in a word.
    #[must_use]
    pub fn condition(&self, state: &State) -> Condition {
        let repo = &state.row.repo;
        if self.first_clone(repo).is_some() {
            return Condition::Cloning;
        }
        let place = self.0.parts.upstreams.find(repo);
        let fresh_for = place.map_or(Duration::ZERO, |place| place.upstream.mirror.fresh_for);
        Condition::of(state, fresh_for, self.is_doubted(repo))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::mirrors::Failed;

    #[test]
    fn a_mirror_that_failed_is_left_alone_for_a_while_by_what_is_heard_and_for_as_long_as_the_schedule_says()
    {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let mut state = State::unsynced(&RepoName::parse("forge/app").unwrap(), at(0));
        assert_eq!(state.backoff(at(0)), None, "it has not failed");
        state.row.failed = Some(Failed { times: 1, why: "it is down".to_owned(), moved: None });
        assert_eq!([0, 9, 10].map(|second| state.backoff(at(second))), [Some(at(10)), Some(at(10)), None]);
        state.row.due = Some(at(40));
        assert_eq!([0, 39, 40].map(|second| state.backoff(at(second))), [Some(at(40)), Some(at(40)), None]);
    }
}
