//! A histogram of durations that many threads feed without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in milliseconds: from an answer out of memory to a first clone of a large repository.
const BOUNDS_MS: [u64; 12] = [1, 5, 10, 25, 50, 100, 250, 1_000, 5_000, 30_000, 300_000, 1_800_000];

/// Counts of durations by upper bound, as Prometheus' text format wants them (cumulative `le` buckets).
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_MS.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

impl Histogram {
    /// An empty histogram of durations that will be shown in seconds.
    #[must_use]
    pub fn seconds() -> Self {
        Self::default()
    }

    /// Counts one duration.
    pub fn observe(&self, time: Duration) {
        let millis = time.as_millis();
        for (bound, bucket) in BOUNDS_MS.iter().zip(&self.buckets) {
            if millis <= u128::from(*bound) {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The sum of all durations.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us.load(Ordering::Relaxed))
    }

    /// Upper bound in seconds and how many durations were at most that long, in rising order.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let seconds = |millis: u64| Duration::from_millis(millis).as_secs_f64();
        BOUNDS_MS
            .iter()
            .zip(&self.buckets)
            .map(move |(bound, bucket)| (seconds(*bound), bucket.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_the_longest_is_only_in_the_count() {
        let histogram = Histogram::seconds();
        histogram.observe(Duration::from_millis(3));
        histogram.observe(Duration::from_secs(10));
        histogram.observe(Duration::from_secs(10_000));
        let counts: Vec<u64> = histogram.cumulative().map(|(_, count)| count).collect();
        assert_eq!(counts, [0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2]);
        assert_eq!(histogram.count(), 3);
        assert_eq!(histogram.sum(), Duration::from_millis(10_010_003));
    }
}
