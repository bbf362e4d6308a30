//! The answer to [`Git::added_lines`](crate::git::command::Git): patches without context, read for the lines that they add.
//!
//! A strict reader: a line is what the counts of its hunk say that it is, so nothing that is pushed can pass for a header,
//! and what is not exactly as it should be is an error.

use super::split::{Piece, Splitter};
use crate::git::inspect::COMMIT_WORD;
use crate::model::oid::Oid;

/// How a line of a patch outside of its hunks may begin, apart from those that the reader acts on.
const HEADERS: [&[u8]; 11] = [
    b"index ",
    b"old mode ",
    b"new mode ",
    b"deleted file mode ",
    b"new file mode ",
    b"similarity index ",
    b"dissimilarity index ",
    b"rename from ",
    b"rename to ",
    b"--- a/",
    b"--- \"a/",
];

/// An added line, or a part of a long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The commit that adds it.
    pub(super) commit: &'a str,
    /// In which file, as git has its name.
    pub(super) path: &'a [u8],
    /// Which line of the file, counted from 1.
    pub(super) number: u64,
    /// The line without its newline.
    pub(super) text: &'a [u8],
}

/// The reader, fed with slices of any size.
#[derive(Debug, Default)]
pub(super) struct PatchReader {
    splitter: Splitter,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    commit: String,
    commits: u64,
    path: Vec<u8>,
    /// Lines of the present hunk that are to come.
    removed: u64,
    added: u64,
    /// The number of the next added line.
    number: u64,
    kind: Kind,
}

/// What the line is whose first piece was read last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Header,
    Removed,
    Added,
    /// `\ No newline at end of file`, after a line.
    Remark,
}

impl PatchReader {
    /// Takes bytes and hands out what is complete.
    pub(super) fn feed<E: From<&'static str>>(
        &mut self,
        bytes: &[u8],
        sink: &mut impl FnMut(Line<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { splitter, state } = self;
        splitter.feed(bytes, &mut |piece| state.take(piece, sink))
    }

    /// The end of the stream; answers how many commits there were.
    pub(super) fn finish(mut self) -> Result<u64, &'static str> {
        // Git ends every line; what is left is one that it did not end.
        self.splitter.finish(&mut |_| Err("it ends in the middle of a line"))?;
        if self.state.is_in_hunk() { Err("it ends in the middle of a hunk") } else { Ok(self.state.commits) }
    }
}

impl State {
    fn is_in_hunk(&self) -> bool {
        self.removed > 0 || self.added > 0
    }

    fn take<E: From<&'static str>>(
        &mut self,
        piece: Piece<'_>,
        sink: &mut impl FnMut(Line<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut text = piece.bytes;
        if piece.starts {
            let is_first_added = self.begin_line(text)?;
            text = if is_first_added { &text[1..] } else { text };
        }
        match self.kind {
            Kind::Added => sink(Line {
                commit: &self.commit,
                path: &self.path,
                number: self.number - 1,
                text: text.strip_suffix(b"\r").unwrap_or(text),
            }),
            Kind::Header if !piece.starts => Err("a header is longer than 64 KiB".into()),
            Kind::Header | Kind::Removed | Kind::Remark => Ok(()),
        }
    }

    /// Learns from the start of a line what it is. Answers whether it is an added one.
    fn begin_line(&mut self, line: &[u8]) -> Result<bool, &'static str> {
        self.kind = match line.first() {
            Some(b'+') if self.added > 0 => {
                self.added -= 1;
                self.number += 1;
                Kind::Added
            }
            Some(b'-') if self.removed > 0 => {
                self.removed -= 1;
                Kind::Removed
            }
            Some(b'\\') if matches!(self.kind, Kind::Added | Kind::Removed) => Kind::Remark,
            _ if self.is_in_hunk() => return Err("a hunk is shorter than it says"),
            _ => {
                self.header(line)?;
                Kind::Header
            }
        };
        Ok(self.kind == Kind::Added)
    }

    fn header(&mut self, line: &[u8]) -> Result<(), &'static str> {
        if let Some(oid) = line.strip_prefix(COMMIT_WORD.as_bytes()) {
            let oid = Oid::parse(oid).ok_or("a commit has no id")?;
            self.commit = oid.as_str().to_owned();
            self.commits += 1;
        } else if self.commits == 0 {
            return Err("it does not begin with a commit");
        } else if line.starts_with(b"diff --git ") {
            self.path.clear();
        } else if let Some(name) = line.strip_prefix(b"+++ ") {
            self.path = new_path(name).ok_or("a file has no name")?;
        } else if line.starts_with(b"@@ ") {
            let hunk = parse_hunk(line).ok_or("a hunk has no numbers")?;
            (self.removed, self.number, self.added) = hunk;
            if self.added > 0 && self.path.is_empty() {
                return Err("lines are added to no file");
            }
        } else if !line.is_empty()
            && line != b"--- /dev/null"
            && !HEADERS.iter().any(|word| line.starts_with(word))
        {
            return Err("a header is unknown");
        }
        Ok(())
    }
}

/// `@@ -LINE[,COUNT] +LINE[,COUNT] @@ …`: how many lines go, where others come, and how many.
fn parse_hunk(line: &[u8]) -> Option<(u64, u64, u64)> {
    let text = String::from_utf8_lossy(line);
    let mut words = text.split(' ').skip(1);
    let (old, new) = (words.next()?.strip_prefix('-')?, words.next()?.strip_prefix('+')?);
    if words.next()? != "@@" {
        return None;
    }
    let range = |text: &str| match text.split_once(',') {
        Some((line, count)) => Some((line.parse().ok()?, count.parse().ok()?)),
        None => Some((text.parse().ok()?, 1)),
    };
    let ((_, removed), (number, added)): ((u64, u64), (u64, u64)) = (range(old)?, range(new)?);
    Some((removed, number, added))
}

/// The path after `+++ `: empty for a file that is gone.
fn new_path(name: &[u8]) -> Option<Vec<u8>> {
    if name == b"/dev/null" {
        return Some(Vec::new());
    }
    let name = name.strip_suffix(b"\t").unwrap_or(name);
    let name = if name.starts_with(b"\"") { unquote(name)? } else { name.to_vec() };
    name.strip_prefix(b"b/").filter(|path| !path.is_empty()).map(<[u8]>::to_vec)
}

/// What a name between quotes stands for; git quotes as C does, see `core.quotePath` in git-config(1).
fn unquote(name: &[u8]) -> Option<Vec<u8>> {
    let mut rest = name.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut path = Vec::new();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            path.push(byte);
            continue;
        }
        let (&escaped, after) = rest.split_first()?;
        rest = after;
        path.push(match escaped {
            b'a' => 0x07,
            b'b' => 0x08,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 0x0b,
            b'f' => 0x0c,
            b'r' => b'\r',
            b'"' | b'\\' => escaped,
            b'0'..=b'3' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                let digits = [escaped, digits[0], digits[1]];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 8).ok()?
            }
            _ => return None,
        });
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    #[derive(Debug, PartialEq, Eq)]
    struct Broken(&'static str);

    impl From<&'static str> for Broken {
        fn from(why: &'static str) -> Self {
            Self(why)
        }
    }

    fn read(chunks: &[&[u8]]) -> Result<Vec<String>, Broken> {
        let mut found = Vec::new();
        let mut sink = |line: Line<'_>| {
            let (path, text) = (line.path.escape_ascii(), line.text.escape_ascii());
            found.push(format!("{} {path}:{} {text}", &line.commit[..1], line.number));
            Ok::<(), Broken>(())
        };
        let mut reader = PatchReader::default();
        for chunk in chunks {
            reader.feed(chunk, &mut sink)?;
        }
        reader.finish()?;
        Ok(found)
    }

    fn sample() -> String {
        [
            &*format!("commit {A}\n\n"),
            "diff --git a/x b/x\nindex 1..2 100644\n--- a/x\n+++ b/x\n",
            "@@ -3 +3,2 @@ fn x() {\n-old\n+diff --git a/evil b/evil\n+@@ -1 +1 @@\n",
            "@@ -9,0 +11 @@\n+last\r\n\\ No newline at end of file\n",
            "diff --git a/gone b/gone\ndeleted file mode 100644\n--- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-commit\n",
            &*format!("commit {B}\ncommit {A}\n\n"),
            "diff --git \"a/t\\tb\" \"b/t\\tb\"\nnew file mode 100644\n--- /dev/null\n+++ \"b/t\\t\\303\\274 b\"\t\n",
            "@@ -0,0 +1 @@\n+one\n",
            "diff --git a/m b/m\nold mode 100644\nnew mode 100755\n",
        ]
        .concat()
    }

    #[test]
    fn added_lines_are_read_and_none_passes_for_a_header() {
        let expected = [
            "a x:3 diff --git a/evil b/evil",
            "a x:4 @@ -1 +1 @@",
            "a x:11 last",
            "a t\\t\\xc3\\xbc b:1 one",
        ];
        assert_eq!(read(&[sample().as_bytes()]).unwrap(), expected);
    }

    #[test]
    fn what_is_not_as_it_should_be_is_an_error() {
        let head = format!("commit {A}\n\ndiff --git a/x b/x\n");
        let cases = [
            "diff --git a/x b/x\n".to_owned(),
            "commit x\n".to_owned(),
            format!("commit {A}"),
            format!("{head}Binary files a/x and b/x differ\n"),
            format!("{head}--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n"),
            format!("{head}--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n-b\n+c\n"),
            format!("{head}--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n+c\n"),
            format!("{head}--- a/x\n+++ b/x\n@@ -1 +1 @@\n context\n"),
            format!("{head}--- a/x\n+++ b/x\n@@ -1 +x @@\n"),
            format!("{head}--- a/x\n+++ x\n"),
            format!("{head}--- a/x\n+++ \"b/\\q\"\n"),
            format!("{head}@@ -0,0 +1 @@\n+a\n"),
            format!("{head}\\ No newline at end of file\n"),
        ];
        for case in cases {
            assert!(read(&[case.as_bytes()]).is_err(), "{case:?}");
        }
    }

    #[test]
    fn a_line_of_any_length_is_seen_to_its_end() {
        let long = "x".repeat(200_000) + "needle";
        let text = format!("commit {A}\n\ndiff --git a/x b/x\n+++ b/x\n@@ -0,0 +1,2 @@\n+{long}\n+{long}\n");
        let found = read(&[text.as_bytes()]).unwrap();
        let seen: Vec<_> =
            found.iter().filter(|line| line.ends_with("needle")).map(|line| &line[..5]).collect();
        assert_eq!(seen, ["a x:1", "a x:2"]);
    }

    proptest! {
        #[test]
        fn the_slices_do_not_matter(cuts in proptest::collection::vec(0..900usize, 0..5)) {
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

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&[&bytes]);
            let _ = read(&[sample().as_bytes(), &bytes]);
        }
    }
}
