//! The login throttle: who failed too often waits, and nobody else does.
//!
//! Failures are counted per address and user name together, so guessing at an account from one place locks
//! nobody out elsewhere. The clock comes in as an argument.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Failed logins that are allowed within [`WINDOW`].
const FAILURES_MAX: usize = 10;
/// How long a failed login counts.
const WINDOW: Duration = Duration::from_secs(60);
/// Pairs of address and user that are remembered: about a MiB when all of them are full.
const ENTRIES_MAX: usize = 4096;
/// Bytes of a user name that count; the rest comes from somebody who fills tables.
const USER_BYTES_MAX: usize = 64;
/// Bits of an IPv6 address that tell one subscriber from the next; the rest he chooses himself.
const V6_PREFIX: u32 = 64;

/// The failed logins of the last minute.
#[derive(Debug, Default)]
pub struct Throttle {
    failures: HashMap<Key, Vec<Instant>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    address: Option<IpAddr>,
    user: Vec<u8>,
}

impl Throttle {
    /// Whether a login of `user` from `address` is tried at all; otherwise how long to wait before the next.
    ///
    /// `address` is `None` for a unix socket.
    ///
    /// # Errors
    /// The time to wait, when the last minute saw ten failures.
    pub fn check(&self, address: Option<IpAddr>, user: &str, now: Instant) -> Result<(), Duration> {
        let Some(failures) = self.failures.get(&Key::new(address, user)) else {
            return Ok(());
        };
        let mut recent = failures.iter().filter(|&&at| is_recent(at, now));
        let oldest = recent.next();
        match oldest {
            Some(&oldest) if 1 + recent.count() >= FAILURES_MAX => Err((oldest + WINDOW).duration_since(now)),
            Some(_) | None => Ok(()),
        }
    }

    /// Notes a failed login.
    pub fn note_failure(&mut self, address: Option<IpAddr>, user: &str, now: Instant) {
        let key = Key::new(address, user);
        if self.failures.len() >= ENTRIES_MAX && !self.failures.contains_key(&key) {
            self.make_room(now);
        }
        let failures = self.failures.entry(key).or_default();
        failures.retain(|&at| is_recent(at, now));
        // Requests that were checked together may fail together; the newest ten decide.
        if failures.len() == FAILURES_MAX {
            failures.remove(0);
        }
        failures.push(now);
    }

    /// Forgets what no longer counts; where everything counts, the pair that is furthest from its limit.
    fn make_room(&mut self, now: Instant) {
        self.failures.retain(|_, failures| failures.last().is_some_and(|&at| is_recent(at, now)));
        if self.failures.len() < ENTRIES_MAX {
            return;
        }
        let least =
            self.failures.iter().min_by_key(|(_, failures)| (failures.len(), failures.last().copied()));
        if let Some(key) = least.map(|(key, _)| key.clone()) {
            self.failures.remove(&key);
        }
    }
}

impl Key {
    fn new(address: Option<IpAddr>, user: &str) -> Self {
        let user = user.as_bytes();
        // The look-up of a user ignores ASCII case (`NOCASE`), so every capitalisation is a guess at the same account.
        let user = user[..user.len().min(USER_BYTES_MAX)].to_ascii_lowercase();
        Self { address: address.map(subscriber), user }
    }
}

/// The network by which whoever has `address` is told from others: the address itself, or of IPv6 the network that one
/// subscriber has.
#[must_use]
pub fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> V6_PREFIX << V6_PREFIX)),
    }
}

fn is_recent(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn fail(throttle: &mut Throttle, from: Option<IpAddr>, user: &str, times: usize, now: Instant) {
        for _ in 0..times {
            throttle.note_failure(from, user, now);
        }
    }

    #[test]
    fn the_eleventh_try_in_a_minute_waits_and_the_next_minute_is_free() {
        let mut throttle = Throttle::default();
        let (home, start) = (address("192.0.2.1"), Instant::now());
        fail(&mut throttle, home, "alice", 9, start);
        assert_eq!(throttle.check(home, "alice", start), Ok(()));
        fail(&mut throttle, home, "alice", 1, start + Duration::from_secs(30));
        assert_eq!(
            throttle.check(home, "alice", start + Duration::from_secs(40)),
            Err(Duration::from_secs(20))
        );
        assert_eq!(throttle.check(home, "alice", start + WINDOW), Ok(()));
    }

    #[test]
    fn nobody_else_is_locked_out() {
        let mut throttle = Throttle::default();
        let (home, now) = (address("192.0.2.1"), Instant::now());
        fail(&mut throttle, home, "alice", 20, now);
        assert!(throttle.check(home, "alice", now).is_err());
        assert_eq!(throttle.check(address("192.0.2.2"), "alice", now), Ok(()));
        assert_eq!(throttle.check(home, "bob", now), Ok(()));
        assert_eq!(throttle.check(None, "alice", now), Ok(()));
    }

    #[test]
    fn the_capitalisations_of_one_name_count_together() {
        let mut throttle = Throttle::default();
        let (home, now) = (address("192.0.2.1"), Instant::now());
        for name in ["alice", "Alice", "ALICE", "aLICE", "alicE"] {
            fail(&mut throttle, home, name, 2, now);
        }
        assert!(throttle.check(home, "AlIcE", now).is_err());
        assert_eq!(throttle.check(home, "bob", now), Ok(()));
    }

    #[test]
    fn the_addresses_of_one_subscriber_count_together() {
        let mut throttle = Throttle::default();
        let now = Instant::now();
        fail(&mut throttle, address("2001:db8::1"), "alice", 5, now);
        fail(&mut throttle, address("2001:db8::ffff:2"), "alice", 5, now);
        assert!(throttle.check(address("2001:db8::3"), "alice", now).is_err());
        assert_eq!(throttle.check(address("2001:db8:0:1::3"), "alice", now), Ok(()));
        fail(&mut throttle, address("::ffff:192.0.2.1"), "bob", 10, now);
        assert!(throttle.check(address("192.0.2.1"), "bob", now).is_err());
    }

    #[test]
    fn a_flood_of_names_fills_no_memory_and_frees_nobody_who_is_locked() {
        let mut throttle = Throttle::default();
        let (home, now) = (address("192.0.2.1"), Instant::now());
        fail(&mut throttle, home, "alice", 10, now);
        for number in 0..ENTRIES_MAX + 300 {
            throttle.note_failure(home, &format!("{number}{}", "x".repeat(100)), now);
        }
        assert_eq!(throttle.failures.len(), ENTRIES_MAX);
        assert!(throttle.failures.keys().all(|key| key.user.len() <= USER_BYTES_MAX));
        assert!(throttle.check(home, "alice", now).is_err());
        throttle.note_failure(home, "later", now + WINDOW);
        assert_eq!(throttle.failures.len(), 1);
    }
}
