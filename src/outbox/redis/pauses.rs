//! How long a server that could not be spoken with is left alone.

use crate::model::pause::Doubling;
use crate::sys::random;
use std::time::Duration;

/// A server that is back is found within the longest of them, and one that is gone costs an attempt.
const PAUSES: Doubling = Doubling { first: Duration::from_secs(1), most: Duration::from_secs(10) };

/// The pauses of one who tries again and again.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    times: u32,
}

impl Pauses {
    /// The next one: between a half and the whole of what it has grown to, so that the gates of a fleet do not come back all
    /// at once.
    pub(super) fn next(&mut self) -> Duration {
        self.times = self.times.saturating_add(1);
        PAUSES.spread(self.times, random::fraction())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_differ() {
        let mut pauses = Pauses::default();
        for most in [1, 2, 4, 8, 10, 10] {
            let (pause, most) = (pauses.next(), Duration::from_secs(most));
            assert!(pause >= most / 2 && pause <= most, "{pause:?} of {most:?}");
        }
        let several: std::collections::BTreeSet<Duration> = (0..20).map(|_| pauses.next()).collect();
        assert!(several.len() > 1);
    }
}
