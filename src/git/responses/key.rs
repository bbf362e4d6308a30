//! What an answer depends on beside the objects that it names: the repository, and how git serves it.

use crate::git::generation::Generation;
use crate::git::layout::Repository;
use crate::git::recipe::{Bypass, Recipe};
use crate::git::settings::Stamped;
use crate::git::wants::Unadvertised;
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Files of a repository whose content changes what its objects reach. What lies in them may change at any time, and is
/// nothing that one looks at with each request: where one is, git answers.
const SHAPING: [&str; 4] =
    ["shallow", "info/grafts", "objects/info/alternates", "objects/info/http-alternates"];

/// Of two requests with the same key, either may have the other's answer. The version of git is not part of it, since what
/// is kept is gone with the process, which knows one git.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of what `recipe` gives in `repository`; `refs` is the state of its refs, for tags that are to come along.
    ///
    /// # Errors
    /// The reason why its answer is nobody else's.
    pub fn new(
        repository: &Repository,
        settings: &Stamped,
        unadvertised: Unadvertised,
        recipe: &Recipe,
        refs: Option<&Generation>,
    ) -> Result<Self, Bypass> {
        let mut hash = Sha256::new();
        // What cannot be looked at is nothing to compare by.
        incarnation(repository, &mut hash).map_err(|_| Bypass::Repository)?;
        let Stamped { settings, stamps } = settings;
        let stamps = stamps.as_deref().filter(|_| is_plain(repository)).ok_or(Bypass::Repository)?;
        let mut absorb = Absorb(&mut hash);
        // The stamps tell settings that were others for a while, as those that git may have read meanwhile.
        (settings.digest(), stamps, unadvertised.tips, unadvertised.reachable).hash(&mut absorb);
        if recipe.includes_tags() {
            refs.ok_or(Bypass::Tags)?.hash(&mut absorb);
        }
        recipe.digest(&mut hash);
        Ok(Self(hash.finalize().into()))
    }

    /// For tests of what knows nothing of keys but whether they are equal.
    #[cfg(test)]
    pub(super) const fn of_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "Key({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

/// Takes in what can be hashed by an ordinary hasher, all of it, where that would keep 8 bytes.
struct Absorb<'a>(&'a mut Sha256);

impl Hasher for Absorb<'_> {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Nobody asks: the hash itself is what is wanted.
    fn finish(&self) -> u64 {
        0
    }
}

/// Which repository it is: one that was removed and made again under its name is another. Inodes are used again, so the
/// times of birth count too; where a file system has none, the stamps of the configuration tell, which each has of its own.
fn incarnation(repository: &Repository, hash: &mut Sha256) -> io::Result<()> {
    let Repository { git_dir, common_dir } = repository;
    hash.update((git_dir.as_os_str().len() as u64).to_be_bytes());
    hash.update(git_dir.as_os_str().as_bytes());
    for place in [git_dir, &common_dir.join("objects")] {
        let found = fs::metadata(place)?;
        let born = found.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        hash.update(found.dev().to_be_bytes());
        hash.update(found.ino().to_be_bytes());
        hash.update(born.map_or(0, |born| born.as_nanos()).to_be_bytes());
    }
    Ok(())
}

/// Whether `repository` has no file that changes what its objects reach.
pub fn is_plain(repository: &Repository) -> bool {
    SHAPING.iter().all(|file| is_absent(&repository.common_dir.join(file)))
}

fn is_absent(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}
