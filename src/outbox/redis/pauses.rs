//! How long a server that could not be spoken with is left alone.

use crate::sys::random;
use std::time::Duration;

/// The pause after the first failure; each further one doubles it ...
const FIRST: Duration = Duration::from_secs(1);
/// ... up to this: a server that is back is found so soon, and one that is gone costs an attempt.
const MOST: Duration = Duration::from_secs(10);

/// The pauses of one who tries again and again.
#[derive(Debug)]
pub(super) struct Pauses {
    next: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Pauses {
    /// The next one: between a half and the whole of what it has grown to, so that the gates of a fleet do not come back all
    /// at once.
    pub(super) fn next(&mut self) -> Duration {
        let most = self.next;
        self.next = (most * 2).min(MOST);
        // Without random bytes they do, and no worse comes of it.
        let roll = random::bytes::<2>().map_or(u16::MAX, u16::from_le_bytes);
        most.mul_f64(0.5 + 0.5 * f64::from(roll) / f64::from(u16::MAX))
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
