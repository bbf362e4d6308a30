//! What the tests share: a place on disk, the gate, git clients, raw HTTP, `/proc`, misbehaving gits.

pub(crate) mod backend;
pub(crate) mod browser;
pub(crate) mod events;
pub(crate) mod fake;
pub(crate) mod forge;
pub(crate) mod forge_nginx;
pub(crate) mod forward_proxy;
pub(crate) mod gate;
pub(crate) mod git;
pub(crate) mod http;
pub(crate) mod misbehaving;
pub(crate) mod network;
pub(crate) mod pkt;
pub(crate) mod place;
pub(crate) mod port;
pub(crate) mod procfs;
#[allow(dead_code, reason = "tests/redis_room uses the rest of it")]
pub(crate) mod redis;
pub(crate) mod repo;
pub(crate) mod run;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// After this long anything at all counts as hung. Far above what the slowest step takes on a loaded machine.
pub(crate) const HANG: Duration = Duration::from_secs(180);

/// Room for a loaded machine on top of a bound that the server promises.
pub(crate) const SLACK: Duration = Duration::from_secs(15);

/// After this long no answer of an upstream from before lets a forward go without another question.
pub(crate) const VOUCHED: Duration = Duration::from_secs(6);

/// How often a condition that has no event of its own is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(2);

/// Waits until `condition` holds and fails the test, saying `what` was awaited, when it does not within `limit`.
#[track_caller]
pub(crate) fn eventually(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    obtain(limit, what, || condition().then_some(()));
}

/// Waits until `attempt` gives a value; fails like [`eventually`].
#[track_caller]
pub(crate) fn obtain<T>(limit: Duration, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(start.elapsed() < limit, "did not happen within {limit:?}: {what}");
        std::thread::sleep(TICK);
    }
}

/// Lets `span` pass: only where time itself is what the test gives (a dribbling client, an idle one).
pub(crate) fn pass(span: Duration) {
    std::thread::sleep(span);
}

/// xorshift64*: random enough to be incompressible, fast enough for gigabytes, repeatable by its seed.
pub(crate) struct Random(u64);

impl Random {
    /// A generator whose seed is `TIDEGATE_TEST_SEED`, else the clock; printed, so that a failure can be repeated.
    pub(crate) fn announced() -> Random {
        let seed = number_from("TIDEGATE_TEST_SEED").unwrap_or_else(|| {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| u64::from(since.subsec_nanos()))
        });
        eprintln!("seed: TIDEGATE_TEST_SEED={seed}");
        Random::from(seed)
    }

    /// The generator of exactly this seed.
    pub(crate) fn from(seed: u64) -> Random {
        Random(seed.wrapping_mul(2_685_821_657_736_338_717) | 1)
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(2_685_821_657_736_338_717)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Between no time and `most`.
    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(most.as_micros()).unwrap() + 1))
    }

    /// `length` bytes, a multiple of eight.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        for word in bytes.chunks_exact_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes());
        }
        bytes
    }
}

/// The number in environment variable `name`, if it is set.
pub(crate) fn number_from(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}
