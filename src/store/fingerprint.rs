//! What stands for a credential of somebody else's: a keyed hash, which tells two of them apart and gives none away.

use super::Store;
use super::key::hex;
use crate::model::secret::Secret;

/// Keeps these hashes apart from those of tokens.
const KIND: &[u8] = b"credential for an upstream\0";
/// How many bytes people are shown: enough to tell the users of a forge apart.
const SHOWN: usize = 6;

/// The hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Store {
    /// What stands for this credential, or for none, in this data directory.
    #[must_use]
    pub fn fingerprint(&self, credential: Option<&Secret>) -> Fingerprint {
        let text = credential.map(Secret::reveal).unwrap_or_default();
        Fingerprint(self.0.key.hash(&[KIND, text.as_bytes()].concat()))
    }
}

impl Fingerprint {
    /// Its beginning in hexadecimal, for records and logs.
    #[must_use]
    pub fn short(&self) -> String {
        hex(&self.0[..SHOWN])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_its_credential_s_own_in_its_own_data_directory() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (one, other) = (Store::open(one.path()).unwrap(), Store::open(other.path()).unwrap());
        let secret = Secret::new("Basic YTpi".to_owned());
        assert_eq!(one.fingerprint(Some(&secret)), one.fingerprint(Some(&secret)));
        assert_ne!(one.fingerprint(Some(&secret)), one.fingerprint(None));
        assert_ne!(one.fingerprint(Some(&secret)), other.fingerprint(Some(&secret)));
        assert_eq!(one.fingerprint(None).short().len(), 12);
    }
}
