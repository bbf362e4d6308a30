//! What a peer brings about at most, however much it says and however often it comes and goes: decided without a clock.

use super::patience::Timing;
use crate::model::pause::Doubling;
use std::time::{Duration, Instant};

/// How often the log repeats itself about one peer.
const MINUTE: Duration = Duration::from_secs(60);

/// What a listener keeps over all of its connections.
#[derive(Debug, Default)]
pub(super) struct Restraint {
    pub(super) doubts: Doubts,
    pub(super) complaints: Complaints,
}

/// That anything may have happened unheard. Each mirror asks its upstream then, so it is said at once the first time, and
/// after growing pauses where a peer gives reason for it again and again; never is it left unsaid.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    is_wanted: bool,
    times: u32,
    last: Option<Instant>,
}

impl Doubts {
    /// There is reason for it.
    pub(super) const fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Whether there is reason that nothing was said of yet.
    pub(super) const fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Whether it is said now.
    pub(super) fn is_due(&mut self, timing: &Timing, now: Instant) -> bool {
        let pauses = Doubling { first: timing.pause, most: timing.pause_max };
        let passed = self.last.map_or(Duration::MAX, |last| now.saturating_duration_since(last));
        if !self.is_wanted || passed < pauses.after(self.times) {
            return false;
        }
        let was_quiet = passed >= timing.pause_max * 2;
        let times = if was_quiet { 1 } else { self.times.saturating_add(1) };
        *self = Self { is_wanted: false, times, last: Some(now) };
        true
    }
}

/// Lines of the log about events that are passed over.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    /// One more; answers how many were passed over in silence before it, if there is to be a line about it.
    pub(super) fn add(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < MINUTE) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_doubted_at_once_and_then_after_growing_pauses_and_no_reason_is_forgotten() {
        let (mut doubts, begun, timing) = (Doubts::default(), Instant::now(), Timing::new(MINUTE));
        let mut at = |seconds: u64| doubts.is_due(&timing, begun + Duration::from_secs(seconds));
        assert!(!at(0), "there is no reason");
        doubts.want();
        let mut said = Vec::new();
        for second in 0..400 {
            if doubts.is_due(&timing, begun + Duration::from_secs(second)) {
                said.push(second);
                doubts.want();
            }
        }
        assert_eq!(said, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363]);
        let mut at = |seconds: u64| doubts.is_due(&timing, begun + Duration::from_secs(seconds));
        assert!(at(600) && !at(601), "what was put off is said once");
        doubts.want();
        let mut at = |seconds: u64| doubts.is_due(&timing, begun + Duration::from_secs(seconds));
        assert!(at(601), "the pauses begin anew after a while");
    }

    #[test]
    fn there_is_one_line_a_minute_about_events_that_are_passed_over_and_it_counts_the_others() {
        let (mut complaints, begun) = (Complaints::default(), Instant::now());
        let mut at = |seconds: u64| complaints.add(begun + Duration::from_secs(seconds));
        assert_eq!([at(0), at(0), at(59)], [Some(0), None, None]);
        assert_eq!([at(60), at(61), at(200)], [Some(2), None, Some(1)]);
    }
}
