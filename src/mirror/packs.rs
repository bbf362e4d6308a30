//! What lies in a mirror, what lay there when it was tended last, and what there is to do about the difference.

use super::shape::entries;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// New packs that are put up with: each is looked through for what is not in the others, and no bitmap covers it.
const PACKS_MAX: usize = 8;

/// Loose objects that are put up with. A fetch brings none and a landing neither: these are somebody else's.
const LOOSE_MAX: usize = 256;

/// New packs of so many bytes are worth a run, if they are also one in [`SHARE`] of all.
const BYTES_MAX: u64 = 64 << 20;
/// See [`BYTES_MAX`].
const SHARE: u64 = 4;

/// The file in the mirror that says what lay there after the last run.
const RECORD: &str = "upkeep";

/// What is to be done to a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Its small packs are put together.
    RollUp,
    /// Everything is packed anew, and what no ref reaches is sorted out.
    SortOut,
}

/// What lies in a mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stock {
    /// Its packs without suffix, and their sizes; those are left out that hold only what no ref reaches.
    packs: BTreeMap<String, u64>,
    loose: usize,
}

/// What lay there after the last run, and when everything was packed anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    sorted: SystemTime,
    packs: Vec<String>,
}

impl Stock {
    /// What lies in the mirror at `git_dir`.
    pub(super) fn of(git_dir: &Path) -> io::Result<Self> {
        let mut stock = Self::default();
        for entry in entries(&git_dir.join("objects/pack"))? {
            let path = entry.path();
            if path.extension() == Some(OsStr::new("pack")) && !path.with_extension("mtimes").exists() {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                stock.packs.insert(name, entry.metadata().map_or(0, |meta| meta.len()));
            }
        }
        for dir in entries(&git_dir.join("objects"))?.iter().filter(|entry| entry.file_name().len() == 2) {
            stock.loose += entries(&dir.path())?.len();
        }
        Ok(stock)
    }

    /// How many packs these are.
    pub(super) fn packs(&self) -> usize {
        self.packs.len()
    }

    /// What there is to do, if anything, where `record` was left behind by the last run.
    pub(super) fn due(&self, record: Option<&Record>, prune_after: Duration, now: SystemTime) -> Option<Due> {
        if self.packs.is_empty() && self.loose == 0 {
            return None;
        }
        let Some(record) = record else { return Some(Due::RollUp) };
        // A clock that was set back makes it due once, and right from then on.
        if now.duration_since(record.sorted).map_or(true, |since| since >= prune_after) {
            return Some(Due::SortOut);
        }
        let new = || self.packs.iter().filter(|(name, _)| !record.packs.contains(name)).map(|(_, size)| size);
        let (all, bytes): (u64, u64) = (self.packs.values().sum(), new().sum());
        let is_much = bytes >= BYTES_MAX && bytes >= all / SHARE;
        (new().count() >= PACKS_MAX || self.loose >= LOOSE_MAX || is_much).then_some(Due::RollUp)
    }
}

impl Record {
    /// What the last run left behind in the mirror at `git_dir`. What cannot be read is none: then there is a run.
    pub(super) fn read(git_dir: &Path) -> Option<Self> {
        let text = fs::read_to_string(git_dir.join(RECORD)).ok()?;
        let (sorted, packs) = text.split_once('\n')?;
        let seconds = sorted.strip_prefix("sorted ")?.parse().ok()?;
        let packs = packs.lines().map(str::to_owned).collect();
        Some(Self { sorted: UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?, packs })
    }

    /// After a run that found `before` and did `done`.
    pub(super) fn after(done: Due, before: Option<&Self>, left: &Stock, now: SystemTime) -> Self {
        let sorted = match (done, before) {
            (Due::RollUp, Some(before)) => before.sorted,
            (Due::RollUp, None) | (Due::SortOut, _) => now,
        };
        Self { sorted, packs: left.packs.keys().cloned().collect() }
    }

    /// Leaves it in the mirror at `git_dir`, whose turn the caller has. Lost in a crash, it costs a run.
    pub(super) fn write(&self, git_dir: &Path) -> io::Result<()> {
        let seconds = self.sorted.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut text = format!("sorted {seconds}\n");
        for name in &self.packs {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}");
        }
        let draft = git_dir.join(format!("{RECORD}.lock"));
        fs::write(&draft, text)?;
        fs::rename(draft, git_dir.join(RECORD))
    }
}

/// Makes `now` the time since which all objects lie there, except those that were sorted out before. Git takes the time of
/// an object from its file: without this, one that came years ago would go as soon as no ref reaches it.
pub(super) fn renew(git_dir: &Path, now: SystemTime) -> io::Result<()> {
    for entry in entries(&git_dir.join("objects"))?.iter().filter(|entry| entry.file_name().len() == 2) {
        entries(&entry.path())?.iter().try_for_each(|object| File::open(object.path())?.set_modified(now))?;
    }
    let packs = entries(&git_dir.join("objects/pack"))?.into_iter().map(|entry| entry.path());
    let is_plain = |path: &std::path::PathBuf| {
        path.extension() == Some(OsStr::new("pack")) && !path.with_extension("mtimes").exists()
    };
    packs.filter(is_plain).try_for_each(|pack| File::open(pack)?.set_modified(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn stock(sizes: &[u64]) -> Stock {
        let packs = sizes.iter().enumerate().map(|(number, size)| (format!("pack-{number}"), *size));
        Stock { packs: packs.collect(), loose: 0 }
    }

    #[test]
    fn facts_say_what_is_due() {
        let now = UNIX_EPOCH + 1000 * DAY;
        let due = |stock: &Stock, record, now| stock.due(record, 14 * DAY, now);
        assert_eq!(due(&stock(&[]), None, now), None, "nothing is there");
        assert_eq!(due(&stock(&[1]), None, now), Some(Due::RollUp), "it was never tended");
        let record = Record::after(Due::RollUp, None, &stock(&[1 << 30]), now);
        let of = |stock: &Stock| due(stock, Some(&record), now);
        assert_eq!(of(&stock(&[1 << 30])), None);
        assert_eq!(of(&stock(&[1 << 30, 1, 1, 1, 1, 1, 1, 1])), None);
        assert_eq!(of(&stock(&[1 << 30, 1, 1, 1, 1, 1, 1, 1, 1])), Some(Due::RollUp));
        assert_eq!(of(&stock(&[1 << 30, 1 << 28])), None, "less than a quarter of all");
        assert_eq!(of(&stock(&[1 << 30, 1 << 29])), Some(Due::RollUp));
        assert_eq!(of(&Stock { loose: LOOSE_MAX, ..stock(&[1 << 30]) }), Some(Due::RollUp));
        let small = Record::after(Due::RollUp, None, &stock(&[1]), now);
        assert_eq!(due(&stock(&[1, 1 << 20]), Some(&small), now), None, "a large part of little");
        assert_eq!(due(&stock(&[1 << 30]), Some(&record), now + 14 * DAY), Some(Due::SortOut));
        assert_eq!(due(&stock(&[1 << 30]), Some(&record), now - DAY), Some(Due::SortOut));
        let later = Record::after(Due::RollUp, Some(&record), &stock(&[1]), now + 13 * DAY);
        assert_eq!(due(&stock(&[1]), Some(&later), now + 14 * DAY), Some(Due::SortOut));
        let sorted = Record::after(Due::SortOut, Some(&record), &stock(&[1]), now + 13 * DAY);
        assert_eq!(due(&stock(&[1]), Some(&sorted), now + 14 * DAY), None);
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_torn_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path()), None);
        let record = Record::after(Due::SortOut, None, &stock(&[1, 2]), UNIX_EPOCH + DAY);
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()), Some(record));
        for torn in ["", "sorted 7", "sorted x\n", "8\npack-1\n"] {
            fs::write(dir.path().join(RECORD), torn).unwrap();
            assert_eq!(Record::read(dir.path()), None, "{torn:?}");
        }
    }
}
