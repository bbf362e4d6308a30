//! What readers are told of a mirror that could not be brought up to date: its age, in a field of the answer for programs, and
//! in a line for people.
//!
//! The line is not left out where a client wants no progress (`no-progress`, which is also every client without a
//! terminal): it is a warning, as those of git itself that go there in any case.

use crate::mirror::Fault;
use crate::model::name::RepoName;
use std::time::Duration;

/// How a mirror is that could not be brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stale {
    /// The time since it was.
    pub(super) age: Duration,
    /// Why it is not.
    pub(super) reason: Reason,
}

/// Why a mirror is served as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The upstream, the way to it, or the gate did not do its part.
    Failed(Fault),
    /// The repository has another address now.
    Moved,
    /// The upstream is a mirror itself, and has said so of what it has.
    Behind,
    /// What is new there is being fetched for longer than the reader waits.
    Slow,
}

impl Stale {
    /// The line of a clone or fetch of `repo`.
    pub(super) fn sentence(self, repo: &RepoName) -> String {
        let why = match self.reason {
            Reason::Failed(Fault::Away) => "the upstream cannot be reached",
            Reason::Failed(Fault::Answer) => "the upstream does not answer as it should",
            Reason::Failed(Fault::Ours) => "the gate failed to bring it up to date (its log says why)",
            Reason::Moved => "the upstream says that it has moved",
            Reason::Behind => "the upstream has an older copy itself",
            Reason::Slow => "what is new upstream is still on its way",
        };
        format!("{repo}: {why}; this is its state of {} ago", span(self.age))
    }
}

/// A time in the largest unit of which it has two.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [("days", 86_400), ("hours", 3600), ("minutes", 60)];
    match units.into_iter().find(|(_, unit)| seconds >= 2 * unit) {
        Some((name, unit)) => format!("{} {name}", seconds / unit),
        None if seconds == 1 => "1 second".to_owned(),
        None => format!("{seconds} seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_the_largest_unit_of_which_it_has_two() {
        let told = |seconds| span(Duration::from_secs(seconds));
        assert_eq!([told(0), told(1), told(119)], ["0 seconds", "1 second", "119 seconds"]);
        assert_eq!([told(120), told(7199), told(7200)], ["2 minutes", "119 minutes", "2 hours"]);
        assert_eq!([told(172_799), told(172_800)], ["47 hours", "2 days"]);
    }
}
