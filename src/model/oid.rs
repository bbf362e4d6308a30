//! Object ids, as hexadecimal text.

use std::fmt;

/// An object id: 40 (SHA-1) or 64 (SHA-256) hexadecimal digits, lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Oid(Box<str>);

impl Oid {
    /// Reads an id that fills `text`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let is_oid = matches!(text.len(), 40 | 64) && text.iter().all(u8::is_ascii_hexdigit);
        is_oid.then(|| Self(String::from_utf8_lossy(text).to_ascii_lowercase().into()))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the id that stands for "nothing": a ref that is to be made or deleted.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.bytes().all(|digit| digit == b'0')
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_ids_of_either_hash_are_read() {
        assert_eq!(Oid::parse(&[b'A'; 40]).unwrap().as_str(), "a".repeat(40));
        assert!(Oid::parse(&[b'0'; 64]).unwrap().is_zero());
        for text in [&[b'a'; 39][..], &[b'a'; 41], &[b'g'; 40], b""] {
            assert_eq!(Oid::parse(text), None);
        }
    }
}
