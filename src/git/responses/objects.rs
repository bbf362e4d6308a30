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
use std::io::{self, ErrorKind};
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
    /// Those that no pack had.
    loose: Vec<PathBuf>,
}

impl Objects {
    /// `wants` of the repository whose objects are in `common_dir`.
    #[must_use]
    pub fn of(common_dir: &Path, wants: &BTreeSet<Oid>) -> Self {
        let width = wants.first().map_or(20, |oid| oid.as_str().len() / 2);
        let ids = wants.iter().flat_map(|oid| bytes(oid.as_str())).collect();
        Self { dir: common_dir.join("objects"), width, ids, seen: Mutex::default() }
    }

    /// What they take in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.ids.len()
    }

    /// Whether all of them are there. While no pack comes or goes, only those are looked for that are in none.
    pub(super) fn are_there(&self) -> bool {
        let is_same = |seen: Seen| {
            Stamp::of(&self.packs()).is_ok_and(|now| now == seen.packs)
                && seen.loose.iter().all(|path| path.exists())
        };
        let seen = self.lock().clone();
        seen.is_some_and(is_same) || self.look().unwrap_or(false)
    }

    fn look(&self) -> io::Result<bool> {
        let (packs, now) = (Stamp::of(&self.packs())?, SystemTime::now());
        let indexes = self.indexes()?;
        let mut loose = Vec::new();
        for id in self.ids.chunks(self.width) {
            if any(&indexes, |index| pack_index::contains(index, id))? {
                continue;
            }
            let path = self.loose(id);
            if !path.try_exists()? {
                return Ok(false);
            }
            loose.push(path);
        }
        // A stamp of just now would not tell what happens in this moment.
        *self.lock() = packs.is_settled(now).then_some(Seen { packs, loose });
        Ok(true)
    }

    fn packs(&self) -> PathBuf {
        self.dir.join("pack")
    }

    fn indexes(&self) -> io::Result<Vec<File>> {
        let entries = match fs::read_dir(self.packs()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        let indexes = paths.into_iter().filter(|path| path.extension() == Some(OsStr::new("idx")));
        // An index without its pack is one of a pack that is on its way out or in.
        indexes.filter(|path| path.with_extension("pack").exists()).map(File::open).collect()
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

fn any(indexes: &[File], mut has: impl FnMut(&File) -> io::Result<bool>) -> io::Result<bool> {
    for index in indexes {
        if has(index)? {
            return Ok(true);
        }
    }
    Ok(false)
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
        assert!(ids.iter().all(|id| of(&[id[0]]).are_there()));
        assert!([2, 6, 8, 250, 255].iter().all(|byte| !of(&[*byte]).are_there()));
        let both = of(&[1, 7]);
        assert!(both.are_there() && both.are_there());
        fs::remove_file(&loose).unwrap();
        assert!(!both.are_there());
        let packed = of(&[7]);
        assert!(packed.are_there());
        fs::remove_file(packs.join("pack-1.pack")).unwrap();
        assert!(!packed.are_there(), "a pack has gone");
    }

    #[test]
    fn what_was_found_is_not_looked_for_again_while_no_pack_comes_or_goes() {
        let dir = TempDir::new().unwrap();
        let packs = dir.path().join("objects/pack");
        fs::create_dir_all(&packs).unwrap();
        let objects = Objects::of(dir.path(), &[oid(7)].into());
        let seen = Seen { packs: Stamp::of(&packs).unwrap(), loose: Vec::new() };
        *objects.lock() = Some(seen);
        assert!(objects.are_there());
        fs::write(packs.join("pack-2.idx"), index(&[])).unwrap();
        assert!(!objects.are_there());
    }
}
