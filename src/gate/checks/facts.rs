//! The answer to [`Git::commit_facts`](crate::git::command::Git): commits with addresses, message and changed paths.
//!
//! A strict reader: what is not exactly as it should be is an error, and the push is refused. Everything stands between
//! NULs, which neither a message nor a path can hold, so nothing that is pushed can pass for something else.

use crate::git::inspect::COMMIT_WORD;
use crate::model::oid::Oid;

/// The longest part between two NULs, in bytes: a message beyond that is none that anybody reads.
const PART_MAX: usize = 1 << 20;

/// A new commit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Commit {
    /// Its id.
    pub(super) oid: String,
    /// The author's address, as it stands there.
    pub(super) author: Vec<u8>,
    /// The committer's.
    pub(super) committer: Vec<u8>,
    /// The encoding that it declares for its message; empty for UTF-8.
    pub(super) encoding: Vec<u8>,
    /// The whole message, in UTF-8 if git could.
    pub(super) message: Vec<u8>,
}

/// How the names of encodings begin, in lower case, in which ASCII is what it is everywhere.
const PLAIN_ENCODINGS: [&str; 15] = [
    "utf-8",
    "utf8",
    "us-ascii",
    "ascii",
    "iso-8859-",
    "iso8859-",
    "latin",
    "windows-125",
    "cp125",
    "koi8-",
    "euc-",
    "gb",
    "big5",
    "shift_jis",
    "sjis",
];

/// A path that a commit changes; of a merge one that is as in none of its parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// What the path was in each parent; one entry of "nothing" for a commit without parents.
    pub(super) before: Vec<Side>,
    /// What it is now.
    pub(super) after: Side,
    /// The path, as git has it.
    pub(super) path: Vec<u8>,
}

/// A path in one tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Side {
    mode: u32,
    oid: Oid,
}

/// What the reader hands out.
#[derive(Debug)]
pub(super) enum Fact<'a> {
    /// A commit; its changes follow.
    Commit(&'a Commit),
    /// A change of that commit.
    Change(&'a Commit, &'a Change),
}

/// The reader, fed with slices of any size.
#[derive(Debug, Default)]
pub(super) struct FactReader {
    part: Vec<u8>,
    expected: Expected,
    commit: Commit,
    change: Option<Change>,
    /// How many commits there were.
    pub(super) commits: u64,
}

/// What the next part must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expected {
    /// A commit, and nothing else: the start.
    #[default]
    Commit,
    Author,
    Committer,
    Encoding,
    Message,
    /// The empty part that ends the facts.
    End,
    /// The first change, the empty part before those of a merge, or the next commit.
    Changes,
    /// Another change, or the next commit.
    More,
    Path,
}

impl Side {
    /// The id, where this is a file or a symbolic link: not nothing, and not a commit of another repository.
    pub(super) fn blob(&self) -> Option<&Oid> {
        const KIND: u32 = 0o170_000;
        matches!(self.mode & KIND, 0o100_000 | 0o120_000).then_some(&self.oid)
    }

    /// Whether this is a commit of another repository, which is a directory to whoever checks it out.
    pub(super) fn is_submodule(&self) -> bool {
        self.mode == 0o160_000
    }

    /// Whether there is nothing.
    pub(super) fn is_nothing(&self) -> bool {
        self.mode == 0
    }
}

impl Commit {
    /// Whether it may say to one reader what it does not say to another: bytes that are plain text to whoever takes them as
    /// they are, and something else once git has converted them, addresses included, from the declared encoding.
    pub(super) fn is_ambiguous(&self) -> bool {
        let encoding = String::from_utf8_lossy(&self.encoding).to_ascii_lowercase();
        !encoding.is_empty() && !PLAIN_ENCODINGS.iter().any(|plain| encoding.starts_with(plain))
    }
}

impl Change {
    /// Whether the commit is a merge.
    pub(super) fn is_merged(&self) -> bool {
        self.before.len() > 1
    }
}

impl FactReader {
    /// Takes bytes and hands out what is complete.
    pub(super) fn feed<E: From<&'static str>>(
        &mut self,
        bytes: &[u8],
        sink: &mut impl FnMut(Fact<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut parts = bytes.split(|&byte| byte == 0).peekable();
        while let Some(part) = parts.next() {
            if self.part.len() + part.len() > PART_MAX {
                return Err("a message, an address or a path is longer than 1 MiB".into());
            }
            self.part.extend_from_slice(part);
            if parts.peek().is_some() {
                let part = std::mem::take(&mut self.part);
                self.take(part, sink)?;
            }
        }
        Ok(())
    }

    /// The end of the stream.
    pub(super) fn finish(&self) -> Result<(), &'static str> {
        let is_whole = match self.expected {
            Expected::Commit | Expected::Changes | Expected::More => self.part.is_empty(),
            Expected::Author
            | Expected::Committer
            | Expected::Encoding
            | Expected::Message
            | Expected::End
            | Expected::Path => false,
        };
        if is_whole { Ok(()) } else { Err("it ends in the middle of a commit") }
    }

    fn take<E: From<&'static str>>(
        &mut self,
        part: Vec<u8>,
        sink: &mut impl FnMut(Fact<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expected = match self.expected {
            Expected::Commit => self.begin(&part)?,
            Expected::Author => {
                self.commit.author = part;
                Expected::Committer
            }
            Expected::Committer => {
                self.commit.committer = part;
                Expected::Encoding
            }
            Expected::Encoding => {
                self.commit.encoding = part;
                Expected::Message
            }
            Expected::Message => {
                self.commit.message = part;
                sink(Fact::Commit(&self.commit))?;
                Expected::End
            }
            Expected::End if part.is_empty() => Expected::Changes,
            Expected::End => return Err("the facts of a commit do not end where they should".into()),
            Expected::Changes => match part.as_slice() {
                [b'\n', change @ ..] => self.begin_change(change)?,
                // A merge that took every path from one of its parents has no change after this.
                [] => Expected::More,
                part => self.begin(part)?,
            },
            Expected::More if part.starts_with(b":") => self.begin_change(&part)?,
            Expected::More => self.begin(&part)?,
            Expected::Path => {
                let mut change = self.change.take().ok_or("a path stands alone")?;
                change.path = part;
                sink(Fact::Change(&self.commit, &change))?;
                Expected::More
            }
        };
        Ok(())
    }

    fn begin(&mut self, part: &[u8]) -> Result<Expected, &'static str> {
        let oid = part.strip_prefix(COMMIT_WORD.as_bytes()).and_then(Oid::parse).ok_or("no commit begins")?;
        self.commit = Commit { oid: oid.as_str().to_owned(), ..Commit::default() };
        self.commits += 1;
        Ok(Expected::Author)
    }

    fn begin_change(&mut self, part: &[u8]) -> Result<Expected, &'static str> {
        self.change = Some(parse_change(part).ok_or("a change is not as it should be")?);
        Ok(Expected::Path)
    }
}

/// `:MODE MODE ID ID STATUS`, or for a merge of n parents n colons, n + 1 modes and n + 1 ids.
fn parse_change(part: &[u8]) -> Option<Change> {
    let text = std::str::from_utf8(part).ok()?;
    let rest = text.trim_start_matches(':');
    let parents = text.len() - rest.len();
    let words: Vec<&str> = rest.split(' ').collect();
    if parents == 0 || words.len() != 2 * (parents + 1) + 1 {
        return None;
    }
    let side = |at: usize| {
        let mode = u32::from_str_radix(words[at], 8).ok()?;
        Some(Side { mode, oid: Oid::parse(words[parents + 1 + at].as_bytes())? })
    };
    let before = (0..parents).map(side).collect::<Option<Vec<_>>>()?;
    Some(Change { before, after: side(parents)?, path: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const ZERO: &str = "0000000000000000000000000000000000000000";

    #[derive(Debug, PartialEq, Eq)]
    struct Broken(&'static str);

    impl From<&'static str> for Broken {
        fn from(why: &'static str) -> Self {
            Self(why)
        }
    }

    /// What was read, as lines of text.
    fn read(chunks: &[&[u8]]) -> Result<Vec<String>, Broken> {
        let mut found = Vec::new();
        let mut sink = |fact: Fact<'_>| {
            found.push(match fact {
                Fact::Commit(commit) => format!(
                    "{} {} {} {}",
                    &commit.oid[..1],
                    commit.author.escape_ascii(),
                    commit.committer.escape_ascii(),
                    commit.message.escape_ascii()
                ),
                Fact::Change(commit, change) => {
                    let blob = change.after.blob().map_or("-", |oid| &oid.as_str()[..1]);
                    let parents = change.before.len();
                    format!("{} {parents} {blob} {}", &commit.oid[..1], change.path.escape_ascii())
                }
            });
            Ok::<(), Broken>(())
        };
        let mut reader = FactReader::default();
        for chunk in chunks {
            reader.feed(chunk, &mut sink)?;
        }
        reader.finish()?;
        Ok(found)
    }

    fn sample() -> String {
        [
            format!("commit {A}\0a@x\0c@x\0\0subject\n\ncommit {B}\n:\n\0\0"),
            format!("\n:000000 100644 {ZERO} {B} A\0new\nfile\0:160000 160000 {A} {B} M\0sub\0"),
            format!("commit {B}\0\0\0\0\0\0"),
            format!("commit {B}\0a\0c\0\0clean\0\0\0"),
            format!("commit {A}\0a\0c\0\0merge\0\0\0::100644 100644 100755 {A} {B} {A} MM\0both\0"),
        ]
        .concat()
    }

    #[test]
    fn commits_and_changes_are_read_and_no_message_passes_for_one() {
        let expected = [
            &*format!("a a@x c@x subject\\n\\ncommit {B}\\n:\\n"),
            "a 1 b new\\nfile",
            "a 1 - sub",
            "b   ",
            "b a c clean",
            "a a c merge",
            "a 2 a both",
        ];
        assert_eq!(read(&[sample().as_bytes()]).unwrap(), expected);
    }

    #[test]
    fn what_is_not_as_it_should_be_is_an_error() {
        let cases = [
            format!("commit {A}"),
            format!("commit {A}\0a\0c\0\0m\0"),
            format!("commit {A}x\0a\0c\0\0m\0\0"),
            format!("commit {A}\0a\0c\0\0m\0more\0"),
            format!("commit {A}\0a\0c\0\0m\0\0junk\0"),
            format!("commit {A}\0a\0c\0\0m\0\0\n:100644 100644 {A} {B} M\0"),
            format!("commit {A}\0a\0c\0\0m\0\0\n:100644 {A} {B} M\0p\0"),
            format!("commit {A}\0a\0c\0\0m\0\0\n100644 100644 {A} {B} M\0p\0"),
            "warning: something\n".to_owned(),
        ];
        for case in cases {
            assert!(read(&[case.as_bytes()]).is_err(), "{case:?}");
        }
        let long = format!("commit {A}\0a\0c\0\0{}", "x".repeat(PART_MAX + 1));
        assert!(read(&[long.as_bytes()]).is_err());
    }

    #[test]
    fn an_encoding_in_which_ascii_is_something_else_makes_a_message_ambiguous() {
        let is_ambiguous = |encoding: &str| {
            Commit { encoding: encoding.as_bytes().to_vec(), ..Commit::default() }.is_ambiguous()
        };
        assert!(!["", "UTF-8", "ISO-8859-1", "EUC-JP", "gb18030"].into_iter().any(is_ambiguous));
        assert!(["UTF-16", "utf-7", "ISO-2022-JP", "EBCDIC-US", "\u{fffd}"].into_iter().all(is_ambiguous));
    }

    proptest! {
        #[test]
        fn the_slices_do_not_matter(cuts in proptest::collection::vec(0..400usize, 0..5)) {
            let text = sample();
            let mut cuts: Vec<_> = cuts.into_iter().filter(|&cut| cut < text.len()).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                chunks.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            prop_assert_eq!(read(&chunks), read(&[text.as_bytes()]));
        }
    }
}
