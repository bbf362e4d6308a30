//! When a client is too slow, told from how long it was waited for. No clock: durations come in.

use std::time::Duration;

/// The pace that a client must keep in one direction.
///
/// Only time spent waiting for the client counts, so that neither a slow git nor a slow disk of ours is held against
/// it. The rate is judged over windows of waiting, each on its own: a burst at the start, or what the kernel's buffers
/// swallow, is no credit for later.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    rate: u64,
    window: Duration,
    pause: Duration,
    waited: Duration,
    paused: Duration,
    moved: u64,
}

/// Which rule a client broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slow {
    /// No byte for as long as a pause may last.
    Pause,
    /// Fewer bytes in a window than the minimum rate asks for.
    Rate,
}

impl Pace {
    /// At least `rate` bytes a second over each `window` of waiting, and never `pause` without a byte.
    pub(super) fn new(rate: u64, window: Duration, pause: Duration) -> Self {
        let zero = Duration::ZERO;
        Self { rate, window, pause, waited: zero, paused: zero, moved: 0 }
    }

    /// Counts bytes that moved.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes as u64);
        self.paused = Duration::ZERO;
    }

    /// How long the next wait may last before a rule must be looked at.
    pub(super) fn patience(&self) -> Duration {
        (self.pause.saturating_sub(self.paused)).min(self.window.saturating_sub(self.waited))
    }

    /// Counts time that was spent waiting for the client.
    pub(super) fn waited(&mut self, time: Duration) -> Result<(), Slow> {
        self.paused += time;
        self.waited += time;
        if self.paused >= self.pause {
            return Err(Slow::Pause);
        }
        if self.waited < self.window {
            return Ok(());
        }
        let enough = u128::from(self.rate) * self.waited.as_millis() / 1000;
        let kept = u128::from(self.moved) >= enough;
        (self.waited, self.moved) = (Duration::ZERO, 0);
        if kept { Ok(()) } else { Err(Slow::Rate) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace() -> Pace {
        Pace::new(1024, 30 * SECOND, 60 * SECOND)
    }

    #[test]
    fn one_byte_a_second_is_too_slow_after_the_first_window() {
        let mut pace = pace();
        for _ in 0..29 {
            pace.moved(1);
            assert_eq!(pace.waited(SECOND), Ok(()));
        }
        pace.moved(1);
        assert_eq!(pace.waited(SECOND), Err(Slow::Rate));
    }

    #[test]
    fn a_burst_pays_for_its_own_window_only() {
        let mut pace = pace();
        pace.moved(1 << 30);
        assert_eq!(pace.waited(30 * SECOND), Ok(()));
        pace.moved(1);
        assert_eq!(pace.waited(30 * SECOND), Err(Slow::Rate));
    }

    #[test]
    fn a_pause_ends_with_a_byte_and_is_bounded_without_one() {
        let mut pace = Pace::new(0, 30 * SECOND, 60 * SECOND);
        assert_eq!(pace.patience(), 30 * SECOND, "the window is looked at first");
        assert_eq!(pace.waited(59 * SECOND), Ok(()));
        assert_eq!(pace.patience(), SECOND);
        pace.moved(1);
        assert_eq!(pace.waited(59 * SECOND), Ok(()));
        assert_eq!(pace.waited(SECOND), Err(Slow::Pause));
    }
}
