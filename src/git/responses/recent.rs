//! The keys that were met last.

use super::Key;
use std::collections::{HashSet, VecDeque};

/// How many keys are remembered, at some hundred bytes each.
const KEYS_MAX: usize = 10_000;

/// Keys, of which the oldest is forgotten for a new one when there are many.
#[derive(Debug, Default)]
pub(super) struct Recent {
    keys: HashSet<Key>,
    order: VecDeque<Key>,
}

impl Recent {
    pub(super) fn has(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    /// Answers whether it is a new one.
    pub(super) fn note(&mut self, key: Key) -> bool {
        let is_new = self.keys.insert(key);
        if is_new {
            self.order.push_back(key);
            if self.order.len() > KEYS_MAX {
                self.order.pop_front().map(|oldest| self.keys.remove(&oldest));
            }
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Key::of_bytes(bytes)
    }

    #[test]
    fn the_oldest_goes_for_a_new_one() {
        let mut recent = Recent::default();
        assert!((0..KEYS_MAX).all(|number| recent.note(key(number))));
        assert!(!recent.note(key(0)) && recent.note(key(KEYS_MAX)));
        assert_eq!([0, 1, KEYS_MAX].map(|number| recent.has(&key(number))), [false, true, true]);
        assert_eq!((recent.keys.len(), recent.order.len()), (KEYS_MAX, KEYS_MAX));
    }
}
