//! Whether a repository still has the objects that an answer was made of, told without git.
//!
//! What the owner of a repository has removed for good is given to nobody any more, whoever was given it before. What is
//! wanted stands for all that it reaches: git removes nothing that something reaches which stays.

use crate::git::pack_index;
use crate::git::stamps::Stamp;
use crate::model::oid::Oid;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{
    self,
    ErrorKind::{InvalidData, NotFound, UnexpectedEof},
};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// The objects that somebody wants, and where they have to be.
#[derive(Debug)]
pub struct Objects {
    /// The directory `objects` of the repository.
    dir: PathBuf,
    width: usize,
    /// The ids one behind the other, `width` bytes each.
    ids: Box<[u8]>,
    seen: Mutex<Option<Seen>>,
}

/// Where all of them were found.
#[derive(Clone, Debug)]
struct Seen {
    /// The directory of packs, as it was before.
    packs: Stamp,
    /// The ids of those that no pack had.
    loose: Box<[u8]>,
}

impl Objects {
    /// `wants` of the repository whose objects are in `common_dir`.
    #[must_use]
    pub fn of(common_dir: &Path, wants: &BTreeSet<Oid>) -> Self {
        let width = wants.first().map_or(20, |oid| oid.as_str().len() / 2);
        let ids = wants.iter().flat_map(|oid| bytes(oid.as_str())).collect();
        Self { dir: common_dir.join("objects"), width, ids, seen: Mutex::default() }
    }

    /// What they take in memory at most, in bytes: all of them may be loose.
    pub(super) fn bytes(&self) -> usize {
        2 * self.ids.len()
    }

    /// Whether all of them are there. While no pack comes or goes, only those are looked for that are in none.
    ///
    /// # Errors
    /// When that cannot be told.
    pub(super) fn are_there(&self) -> io::Result<bool> {
        let is_same = |seen: Seen| {
            Stamp::of(&self.packs()).is_ok_and(|now| now == seen.packs)
                && seen.loose.chunks(self.width).all(|id| self.loose(id).exists())
        };
        let seen = self.lock().clone();
        if seen.is_some_and(is_same) {
            return Ok(true);
        }
        match self.look() {
            // What is not as git leaves it vouches for nothing.
            Err(error) if matches!(error.kind(), NotFound | InvalidData | UnexpectedEof) => Ok(false),
            answer => answer,
        }
    }

    fn look(&self) -> io::Result<bool> {
        let (packs, now) = (Stamp::of(&self.packs())?, SystemTime::now());
        let mut missing: Vec<&[u8]> = self.ids.chunks(self.width).collect();
        // One after the other, since a repository may have more of them than this process has descriptors.
        for path in self.indexes()? {
            if missing.is_empty() {
                break;
            }
            missing = not_in(&path, missing)?;
        }
        for id in &missing {
            if !self.loose(id).try_exists()? {
                return Ok(false);
            }
        }
        let loose = missing.concat().into();
        // A stamp of just now would not tell what happens in this moment.
        *self.lock() = packs.is_settled(now).then_some(Seen { packs, loose });
        Ok(true)
    }

    fn packs(&self) -> PathBuf {
        self.dir.join("pack")
    }

    fn indexes(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(self.packs()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        Ok(paths.into_iter().filter(|path| path.extension() == Some(OsStr::new("idx"))).collect())
    }

    fn loose(&self, id: &[u8]) -> PathBuf {
        let digits: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let (start, rest) = digits.split_at(2);
        self.dir.join(start).join(rest)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those `ids` that the index at `path` has not.
fn not_in<'a>(path: &Path, ids: Vec<&'a [u8]>) -> io::Result<Vec<&'a [u8]>> {
    // An index without its pack is one of a pack that is on its way out or in.
    if !path.with_extension("pack").try_exists()? {
        return Ok(ids);
    }
    let index = File::open(path)?;
    let unless_there = |id| pack_index::contains(&index, id).map(|is_there| (!is_there).then_some(id));
    ids.into_iter().filter_map(|id| unless_there(id).transpose()).collect()
}

fn bytes(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2).filter_map(|pair| str::from_utf8(pair).ok());
    pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// An index of version 2 with nothing but the ids.
    fn index(ids: &[[u8; 20]]) -> Vec<u8> {
        let mut bytes = b"\xfftOc\0\0\0\x02".to_vec();
        for first in 0..=u8::MAX {
            let count = ids.iter().filter(|id| id[0] <= first).count();
            bytes.extend(u32::try_from(count).unwrap().to_be_bytes());
        }
        bytes.extend(ids.iter().flatten());
        bytes
    }

    fn oid(byte: u8) -> Oid {
        Oid::parse(format!("{byte:02x}").repeat(20).as_bytes()).unwrap()
    }

    #[test]
    fn objects_are_found_in_packs_and_loose_until_they_are_gone() {
        let dir = TempDir::new().unwrap();
        let packs = dir.path().join("objects/pack");
        fs::create_dir_all(&packs).unwrap();
        let ids: Vec<[u8; 20]> = (0..250).step_by(7).map(|byte| [byte; 20]).collect();
        fs::write(packs.join("pack-1.idx"), index(&ids)).unwrap();
        fs::write(packs.join("pack-1.pack"), "").unwrap();
        let loose = dir.path().join("objects/01").join("01".repeat(19));
        fs::create_dir_all(loose.parent().unwrap()).unwrap();
        fs::write(&loose, "").unwrap();
        let of = |bytes: &[u8]| Objects::of(dir.path(), &bytes.iter().map(|byte| oid(*byte)).collect());
        assert!(ids.iter().all(|id| of(&[id[0]]).are_there().unwrap()));
        assert!([2, 6, 8, 250, 255].iter().all(|byte| !of(&[*byte]).are_there().unwrap()));
        let both = of(&[1, 7]);
        assert!(both.are_there().unwrap() && both.are_there().unwrap());
        fs::remove_file(&loose).unwrap();
        assert!(!both.are_there().unwrap());
        let packed = of(&[7]);
        assert!(packed.are_there().unwrap());
        fs::remove_file(packs.join("pack-1.pack")).unwrap();
        assert!(!packed.are_there().unwrap(), "a pack has gone");
        fs::write(packs.join("pack-1.pack"), "").unwrap();
        fs::write(packs.join("pack-1.idx"), "of another version").unwrap();
        assert!(!packed.are_there().unwrap(), "nobody can read it");
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_gone() {
        let dir = TempDir::new().unwrap();
        let packs = dir.path().join("objects/pack");
        fs::create_dir_all(&packs).unwrap();
        fs::write(packs.join("pack-1.pack"), "").unwrap();
        std::os::unix::fs::symlink("pack-1.idx", packs.join("pack-1.idx")).unwrap();
        Objects::of(dir.path(), &[oid(7)].into()).are_there().unwrap_err();
    }

    #[test]
    fn what_was_found_is_not_looked_for_again_while_no_pack_comes_or_goes() {
        let dir = TempDir::new().unwrap();
        let packs = dir.path().join("objects/pack");
        fs::create_dir_all(&packs).unwrap();
        let objects = Objects::of(dir.path(), &[oid(7)].into());
        let seen = Seen { packs: Stamp::of(&packs).unwrap(), loose: Box::default() };
        *objects.lock() = Some(seen);
        assert!(objects.are_there().unwrap());
        fs::write(packs.join("pack-2.idx"), index(&[])).unwrap();
        assert!(!objects.are_there().unwrap());
    }
}
