//! Pauses between attempts, for whatever is tried again until it goes well.

use std::time::Duration;

/// How often a pause doubles at most: by then any limit of ours is passed.
const DOUBLINGS_MAX: u32 = 20;

/// Pauses of which each is twice as long as the one before, up to a limit.
#[derive(Clone, Copy, Debug)]
pub struct Doubling {
    /// The pause after the first failure.
    pub first: Duration,
    /// The longest one.
    pub most: Duration,
}

impl Doubling {
    /// The pause after the `times`th failure in a row.
    #[must_use]
    pub fn after(self, times: u32) -> Duration {
        let doublings = times.saturating_sub(1).min(DOUBLINGS_MAX);
        self.first.saturating_mul(1 << doublings).min(self.most)
    }

    /// The same, between a half and the whole of it as `roll`, a number from 0 to 1, says: so that those who failed together do
    /// not come back together.
    #[must_use]
    pub fn spread(self, times: u32, roll: f64) -> Duration {
        self.after(times).mul_f64(0.5 + 0.5 * roll.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit_and_are_spread_over_a_half() {
        let seconds = Duration::from_secs;
        let pauses = Doubling { first: seconds(1), most: seconds(60) };
        assert_eq!(
            [0, 1, 2, 3, 7, u32::MAX].map(|times| pauses.after(times).as_secs()),
            [1, 1, 2, 4, 60, 60]
        );
        assert_eq!([0.0, 0.5, 1.0, 9.0].map(|roll| pauses.spread(3, roll)), [2, 3, 4, 4].map(seconds));
    }
}
