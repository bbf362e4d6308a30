//! How far mirrors are that are being made, for those who wait for one.
//!
//! How much has come is seen on the disk, where git writes a pack as it receives it; how much of it all that is, git's own
//! lines of progress say, once the upstream has begun to send. What they say decides nothing but a sentence.

use super::places;
use crate::supervise::Ear;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The least time after which somebody is told to come again: less is no pause for whoever runs a command again.
const RETRY_MIN: Duration = Duration::from_secs(5);

/// The most: an estimate from the first percent may be far too long.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Those that are being made, by the place of the mirror.
#[derive(Debug, Default)]
pub(super) struct Makings(Mutex<HashMap<PathBuf, Arc<Making>>>);

/// A mirror that is being made.
#[derive(Debug)]
struct Making {
    draft: PathBuf,
    begun: Instant,
    heard: Mutex<Option<(Step, Instant)>>,
}

/// A place among them, until it is dropped.
#[derive(Debug)]
pub(super) struct Listed<'a> {
    makings: &'a Makings,
    place: PathBuf,
    making: Arc<Making>,
}

/// What git counts in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Objects that have come, of all that come.
    Receiving(u8),
    /// Objects that have been made out of their differences to others, when all have come.
    Resolving(u8),
}

/// How far the making of a mirror is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Since when.
    pub begun: Instant,
    /// What has come, in bytes.
    pub bytes: u64,
    /// Where git is, once it has said so.
    pub step: Option<Step>,
    /// How long it will take as far as that can be told: the time that this step needs at the pace that it has had, or as
    /// long again as it has taken where there is no pace yet. At least 5 seconds, at most 5 minutes.
    pub left: Duration,
}

impl Makings {
    /// The mirror at `place` is being made at `draft` from now on.
    pub(super) fn list(&self, place: &Path, draft: &Path) -> Listed<'_> {
        let (draft, begun, heard) = (draft.to_path_buf(), Instant::now(), Mutex::default());
        let making = Arc::new(Making { draft, begun, heard });
        self.lock().insert(place.to_path_buf(), Arc::clone(&making));
        Listed { makings: self, place: place.to_path_buf(), making }
    }

    /// How far the one at `place` is, if it is being made.
    pub(super) fn progress(&self, place: &Path) -> Option<Progress> {
        let making = Arc::clone(self.lock().get(place)?);
        Some(making.progress(Instant::now()))
    }

    /// The places of all that are being made.
    pub(super) fn places(&self) -> Vec<PathBuf> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Arc<Making>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Making {
    fn hear(&self, words: &[u8], now: Instant) {
        let Some(step) = Step::find(words) else { return };
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match *heard {
            Some((before, since)) if before.title() == step.title() => since,
            Some(_) | None => now,
        };
        *heard = Some((step, since));
    }

    fn progress(&self, now: Instant) -> Progress {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |then: Instant| now.saturating_duration_since(then);
        let left = match heard {
            Some((step, begun)) => rest(since(begun), step.percent()),
            None => since(self.begun),
        };
        let bytes = places::bytes(&self.draft.join("objects"));
        let left = left.clamp(RETRY_MIN, RETRY_MAX);
        Progress { begun: self.begun, bytes, step: heard.map(|(step, _)| step), left }
    }
}

impl Listed<'_> {
    /// What is to hear the words of the git that fetches.
    pub(super) fn ear(&self) -> Ear {
        let making = Arc::clone(&self.making);
        Box::new(move |words| making.hear(words, Instant::now()))
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.makings.lock().remove(&self.place);
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receiving(percent) => write!(f, "receiving {percent}%"),
            Self::Resolving(percent) => write!(f, "resolving {percent}%"),
        }
    }
}

impl Step {
    const fn title(self) -> &'static str {
        match self {
            Self::Receiving(_) => "Receiving objects:",
            Self::Resolving(_) => "Resolving deltas:",
        }
    }

    const fn percent(self) -> u8 {
        match self {
            Self::Receiving(percent) | Self::Resolving(percent) => percent,
        }
    }

    /// The last one in a piece of what git says. One that is cut off is said again with the next percent.
    fn find(words: &[u8]) -> Option<Self> {
        let words = String::from_utf8_lossy(words);
        [Self::Resolving, Self::Receiving].into_iter().find_map(|of| {
            let (_, behind) = words.rsplit_once(of(0).title())?;
            let (number, _) = behind.split_once('%')?;
            number.trim().parse().ok().filter(|percent| *percent <= 100).map(of)
        })
    }
}

/// What is left of something that has come so far in this time.
fn rest(time: Duration, percent: u8) -> Duration {
    match u32::from(percent) {
        0 => time,
        percent => time * (100 - percent) / percent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_step_that_git_names_counts_and_half_a_word_does_not() {
        let words =
            b"Receiving objects:   3% (1/33)\rReceiving objects:  34% (11/33), 1.00 MiB | 2.00 MiB/s\r";
        assert_eq!(Step::find(words), Some(Step::Receiving(34)));
        assert_eq!(
            Step::find(b"Receiving objects: 100% (3/3)\nResolving deltas:   7%"),
            Some(Step::Resolving(7))
        );
        for cut in [&b"Receiving obj"[..], b"Receiving objects:  3", b"Receiving objects: 101% ", b"\xff"] {
            assert_eq!(Step::find(cut), None, "{}", cut.escape_ascii());
        }
    }

    #[test]
    fn what_is_left_follows_from_the_pace_of_the_step_within_bounds() {
        let (makings, place) = (Makings::default(), Path::new("/m/a.git"));
        let listed = makings.list(place, Path::new("/nowhere"));
        let making = Arc::clone(&listed.making);
        let after = |seconds| making.begun + Duration::from_secs(seconds);
        let left = |seconds| making.progress(after(seconds)).left.as_secs();
        assert_eq!([left(0), left(40), left(4000)], [5, 40, 300], "as long again");
        making.hear(b"Receiving objects:   0% (0/9)", after(10));
        making.hear(b"Receiving objects:  25% (3/9)", after(30));
        assert_eq!([left(30), left(50)], [60, 120]);
        making.hear(b"Resolving deltas:  50% (1/2)", after(60));
        assert_eq!(left(80), 20);
        drop(listed);
        assert!(makings.progress(place).is_none());
    }
}
