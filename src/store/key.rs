//! `DATA/secret.key`, and the keyed hashes that stand for tokens.
//!
//! Only HMAC-SHA256 of a token is stored. Without the key a copy of the database tells nothing, not even about
//! short tokens; and since nobody outside can compute a hash, looking one up by index betrays nothing by its
//! timing.

use super::{StoreError, private};
use crate::model::secret::Secret;
use crate::sys::random;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file's name in the data directory.
const FILE: &str = "secret.key";
/// What a token of ours begins with, so that scanners for secrets can know it.
const PREFIX: &str = "tg_";
/// The fewest characters of a token that somebody chose.
const GIVEN_LEAST: usize = 8;
/// The most bytes of it: more does not fit beside other headers.
const GIVEN_MOST: usize = 1024;

/// What stands for a token in the database.
pub(super) type TokenHash = [u8; 32];

/// The secret under which tokens are hashed.
pub(super) struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(<sensitive>)")
    }
}

/// Where the key of this data directory is.
pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

impl Key {
    /// Reads the key, or makes it. Of several processes that make one at a time all use the first.
    pub(super) fn read_or_make(data_dir: &Path) -> Result<Self, StoreError> {
        let path = path(data_dir);
        if !path.exists() {
            private::write_new(&path, &random::bytes::<32>().map_err(StoreError::Random)?)?;
        }
        Self::read(data_dir)
    }

    /// Reads the key.
    pub(super) fn read(data_dir: &Path) -> Result<Self, StoreError> {
        let path = path(data_dir);
        let content = fs::read(&path).map_err(|error| {
            if error.kind() == ErrorKind::NotFound {
                return StoreError::KeyMissing(path.clone());
            }
            StoreError::io("reading", &path)(error)
        })?;
        let found = fs::metadata(&path).map_err(StoreError::io("looking at", &path))?;
        private::check_owner(&path, found.uid())?;
        if found.mode() & 0o077 != 0 {
            return Err(StoreError::Exposed { path, mode: found.mode() & 0o7777 });
        }
        content.try_into().map(Self).map_err(|_| StoreError::KeyForeign(path))
    }

    /// What stands for `token`.
    pub(super) fn hash(&self, token: &[u8]) -> TokenHash {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(token);
        mac.finalize().into_bytes().into()
    }

    /// Tells this key from another: the hash of the empty text, which is no token.
    pub(super) fn check(&self) -> TokenHash {
        self.hash(b"")
    }
}

/// A token that nobody has: 256 random bits in hexadecimal behind a prefix.
pub(super) fn random_token() -> Result<Secret, StoreError> {
    let secret = random::bytes::<32>().map_err(StoreError::Random)?;
    Ok(Secret::new(PREFIX.to_owned() + &hex(&secret)))
}

/// Refuses a chosen token that is too short, or that no header can carry.
pub(super) fn check_given(token: &Secret) -> Result<(), StoreError> {
    let text = token.reveal();
    let fits = text.chars().count() >= GIVEN_LEAST && text.len() <= GIVEN_MOST;
    if fits && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(StoreError::BadToken { least: GIVEN_LEAST, most: GIVEN_MOST })
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
