//! The file `packed-refs` (git-pack-refs(1), gitrepository-layout(5)): all refs of a repository, each with its value and with
//! what its tag is peeled to.
//!
//! A repository that has no loose refs changes all of them in one step when this file is replaced: whoever has it open goes
//! on with the old ones, and whoever opens it finds the new ones. It is replaced as git does it, under `packed-refs.lock`.
//! The bytes are those of git, too.

use crate::git::push_request::excerpt;
use crate::model::oid::Oid;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The name of the file in its repository.
pub const FILE: &str = "packed-refs";

/// The first line: every tag is followed by what it is peeled to, and the refs are sorted by the bytes of their names.
const HEADER: &str = "# pack-refs with: peeled fully-peeled sorted \n";

/// How a first line begins.
const TRAITS: &str = "# pack-refs with:";

/// The trait without which a missing peeled value means nothing.
const FULLY_PEELED: &str = "fully-peeled";

/// The refs, by their names. Those whose names are not UTF-8 are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedRefs(pub BTreeMap<String, PackedRef>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedRef {
    /// Its value.
    pub value: Oid,
    /// What the tag is peeled to, if the value is one.
    pub peeled: Option<Oid>,
}

impl PackedRefs {
    /// Those of the repository at `git_dir`; none where there is no file.
    ///
    /// # Errors
    /// When the file cannot be read; of the kind [`ErrorKind::InvalidData`] when it is there and none of git's.
    pub fn read(git_dir: &Path) -> io::Result<Self> {
        let text = match fs::read(git_dir.join(FILE)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            text => text?,
        };
        let is_wrong = |line| format!("the line {line:?} means nothing there");
        Self::parse(&text).map_err(|line| io::Error::new(ErrorKind::InvalidData, is_wrong(line)))
    }

    /// Reads the text of the file, or tells the line that is none of it.
    fn parse(text: &[u8]) -> Result<Self, String> {
        let mut refs = BTreeMap::new();
        let mut last: Option<String> = None;
        let lines = text.split_inclusive(|&byte| byte == b'\n');
        for (number, line) in lines.enumerate() {
            let bad = || excerpt(line);
            let line = line.strip_suffix(b"\n").ok_or_else(bad)?;
            if number == 0 {
                let traits = str::from_utf8(line).ok().and_then(|line| line.strip_prefix(TRAITS));
                let is_peeled = traits.is_some_and(|list| list.split(' ').any(|word| word == FULLY_PEELED));
                is_peeled.then_some(()).ok_or_else(bad)?;
            } else if let Some(peeled) = line.strip_prefix(b"^") {
                let peeled = Oid::parse(peeled).ok_or_else(bad)?;
                let tag: Option<&mut PackedRef> = last.take().and_then(|name| refs.get_mut(&name));
                tag.into_iter().for_each(|tag| tag.peeled = Some(peeled.clone()));
            } else {
                let end = line.iter().position(|&byte| byte == b' ').ok_or_else(bad)?;
                let value = Oid::parse(&line[..end]).ok_or_else(bad)?;
                last = str::from_utf8(&line[end + 1..]).ok().map(str::to_owned);
                let name = last.iter().cloned();
                refs.extend(name.map(|name| (name, PackedRef { value: value.clone(), peeled: None })));
            }
        }
        Ok(Self(refs))
    }

    /// The text of the file.
    fn text(&self) -> String {
        let mut text = HEADER.to_owned();
        for (name, PackedRef { value, peeled }) in &self.0 {
            text.extend([value.as_str(), " ", name, "\n"]);
            text.extend(peeled.iter().flat_map(|peeled| ["^", peeled.as_str(), "\n"]));
        }
        text
    }

    /// Brings them to the disk beside the file of the repository at `git_dir`, where nobody takes them for its refs yet.
    ///
    /// # Errors
    /// When that cannot be written, or somebody else replaces the file.
    pub fn prepare(&self, git_dir: &Path) -> io::Result<Replacement> {
        Replacement::of(git_dir.join(FILE), self.text().as_bytes())
    }
}

/// A file that waits under the name of its lock, whole, until it takes the place of another. Dropped, it is removed.
#[derive(Debug)]
pub struct Replacement {
    place: PathBuf,
    lock: Option<PathBuf>,
}

impl Replacement {
    /// One with this content for the file at `place`, which nobody else may be replacing.
    ///
    /// # Errors
    /// When it cannot be written, or the lock is there.
    pub fn of(place: PathBuf, content: &[u8]) -> io::Result<Self> {
        let lock = lock_of(&place);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock)?;
        let this = Self { place, lock: Some(lock) };
        file.write_all(content)?;
        file.sync_all()?;
        Ok(this)
    }

    /// Takes the place. The directory is not brought to the disk.
    ///
    /// # Errors
    /// When that is not possible; it is removed then.
    pub fn take_place(mut self) -> io::Result<()> {
        let lock = self.lock.as_deref().unwrap_or(&self.place);
        fs::rename(lock, &self.place)?;
        self.lock = None;
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans after an ended writer.
        let _ = self.lock.take().map(fs::remove_file);
    }
}

/// The lock of the file at `place`, as git names it.
#[must_use]
pub fn lock_of(place: &Path) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn oid(digit: u8) -> Oid {
        Oid::parse(&[digit; 40]).unwrap()
    }

    fn refs(list: &[(&str, u8, Option<u8>)]) -> PackedRefs {
        let of = |(name, value, peeled): &(&str, u8, Option<u8>)| {
            ((*name).to_owned(), PackedRef { value: oid(*value), peeled: peeled.map(oid) })
        };
        PackedRefs(list.iter().map(of).collect())
    }

    #[test]
    fn refs_are_sorted_by_their_bytes_and_tags_are_followed_by_what_they_lead_to() {
        let refs = refs(&[
            ("refs/tags/v1", b'b', Some(b'a')),
            ("refs/heads/b", b'a', None),
            ("refs/heads/B", b'a', None),
            ("refs/heads/a/b", b'a', None),
            ("refs/heads/a-b", b'a', None),
        ]);
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let lines = [
            "# pack-refs with: peeled fully-peeled sorted ".to_owned(),
            format!("{a} refs/heads/B"),
            format!("{a} refs/heads/a-b"),
            format!("{a} refs/heads/a/b"),
            format!("{a} refs/heads/b"),
            format!("{b} refs/tags/v1"),
            format!("^{a}"),
        ];
        assert_eq!(refs.text(), lines.map(|line| line + "\n").concat());
    }

    #[test]
    fn what_git_does_not_write_is_refused_and_names_of_other_encodings_are_left_out() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        for text in [
            "x y z\n",
            "# pack-refs with: peeled \n",
            &format!("{a} refs/heads/a\n"),
            &format!("{HEADER}{a}\n"),
            &format!("{HEADER}{a} refs/heads/a"),
            &format!("{HEADER}{a} refs/tags/a\n^x\n"),
        ] {
            assert!(PackedRefs::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert_eq!(PackedRefs::parse(b""), Ok(PackedRefs::default()));
        let lines =
            [HEADER.as_bytes(), a.as_bytes(), b" refs/heads/a\n", b.as_bytes(), b" refs/tags/\xfc\n^"];
        let text = [&lines.concat()[..], a.as_bytes(), b"\n"].concat();
        assert_eq!(PackedRefs::parse(&text), Ok(refs(&[("refs/heads/a", b'a', None)])));
    }

    #[test]
    fn a_file_is_replaced_by_one_at_a_time_and_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let [old, new] = [b'a', b'b'].map(|value| refs(&[("refs/heads/main", value, None)]));
        assert_eq!(PackedRefs::read(dir.path()).unwrap(), PackedRefs::default());
        old.prepare(dir.path()).unwrap().take_place().unwrap();
        let waiting = new.prepare(dir.path()).unwrap();
        assert_eq!(PackedRefs::read(dir.path()).unwrap(), old);
        assert_eq!(new.prepare(dir.path()).unwrap_err().kind(), ErrorKind::AlreadyExists);
        drop(waiting);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the lock is gone");
        new.prepare(dir.path()).unwrap().take_place().unwrap();
        assert_eq!(PackedRefs::read(dir.path()).unwrap(), new);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            list in proptest::collection::btree_map(
                "refs/(heads|tags)/[a-zA-Z0-9ü/-]{1,6}",
                ("[0-9a-f]{40}", proptest::option::of("[0-9a-f]{40}")),
                0..20,
            ),
        ) {
            let oid = |text: String| Oid::parse(text.as_bytes()).unwrap();
            let refs = list.into_iter().map(|(name, (value, peeled))| {
                (name, PackedRef { value: oid(value), peeled: peeled.map(oid) })
            });
            let refs = PackedRefs(refs.collect());
            prop_assert_eq!(PackedRefs::parse(refs.text().as_bytes()), Ok(refs));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = PackedRefs::parse(&bytes);
            let _ = PackedRefs::parse(&[HEADER.as_bytes(), &bytes].concat());
        }
    }
}
