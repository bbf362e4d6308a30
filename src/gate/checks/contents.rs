//! The answer to [`Git::object_contents`](crate::git::command::Git): objects one after the other, each with its size.

use crate::model::oid::Oid;

/// The longest header line, in bytes: an id of 64 digits, a type, a size.
const HEADER_MAX: usize = 128;

/// The kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Commit,
    Tree,
    Blob,
    Tag,
}

/// What git says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) oid: Oid,
    pub(super) kind: Kind,
    /// In bytes.
    pub(super) size: u64,
}

/// What the reader hands out, for each object in the order of the question.
#[derive(Debug)]
pub(super) enum Content<'a> {
    /// An object begins.
    Begin(&'a Object),
    /// More of it.
    Bytes(&'a [u8]),
    /// It is complete.
    End,
}

/// The reader, fed with slices of any size.
#[derive(Debug, Default)]
pub(super) struct ContentReader {
    header: Vec<u8>,
    /// Bytes of the present object that are to come, and the newline after them.
    left: Option<u64>,
}

impl Kind {
    /// The kind that git calls `word`.
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word {
            "commit" => Some(Self::Commit),
            "tree" => Some(Self::Tree),
            "blob" => Some(Self::Blob),
            "tag" => Some(Self::Tag),
            _ => None,
        }
    }

    /// Git's word for it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
            Self::Tag => "tag",
        }
    }
}

impl Object {
    /// Reads `ID TYPE SIZE`.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        let oid = Oid::parse(words.next()?.as_bytes())?;
        let (kind, size) = (Kind::parse(words.next()?)?, words.next()?.parse().ok()?);
        words.next().is_none().then_some(Self { oid, kind, size })
    }
}

impl ContentReader {
    /// Takes bytes and hands out what is complete.
    pub(super) fn feed<E: From<&'static str>>(
        &mut self,
        mut bytes: &[u8],
        sink: &mut impl FnMut(Content<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            match self.left {
                None => bytes = self.header(bytes, sink)?,
                Some(0) => {
                    bytes = bytes.strip_prefix(b"\n").ok_or("an object is longer than git said")?;
                    self.left = None;
                    sink(Content::End)?;
                }
                Some(left) => {
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let (part, rest) = bytes.split_at(length);
                    sink(Content::Bytes(part))?;
                    self.left = Some(left - part.len() as u64);
                    bytes = rest;
                }
            }
        }
        Ok(())
    }

    /// The end of the stream.
    pub(super) fn finish(&self) -> Result<(), &'static str> {
        let is_whole = self.left.is_none() && self.header.is_empty();
        if is_whole { Ok(()) } else { Err("it ends in the middle of an object") }
    }

    fn header<'a, E: From<&'static str>>(
        &mut self,
        bytes: &'a [u8],
        sink: &mut impl FnMut(Content<'_>) -> Result<(), E>,
    ) -> Result<&'a [u8], E> {
        let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
            self.header.extend_from_slice(bytes);
            return if self.header.len() > HEADER_MAX {
                Err("an object has no header".into())
            } else {
                Ok(&[])
            };
        };
        self.header.extend_from_slice(&bytes[..end]);
        let object = Object::parse(&self.header).ok_or("an object is missing or has no header")?;
        self.header.clear();
        self.left = Some(object.size);
        sink(Content::Begin(&object))?;
        Ok(&bytes[end + 1..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn read(chunks: &[&[u8]]) -> Result<Vec<(Kind, Vec<u8>)>, String> {
        let mut found = Vec::new();
        let mut sink = |content: Content<'_>| {
            match content {
                Content::Begin(object) => found.push((object.kind, Vec::new())),
                Content::Bytes(bytes) => found.last_mut().unwrap().1.extend_from_slice(bytes),
                Content::End => found.last_mut().unwrap().1.push(b'.'),
            }
            Ok::<(), String>(())
        };
        let mut reader = ContentReader::default();
        for chunk in chunks {
            reader.feed(chunk, &mut sink)?;
        }
        reader.finish()?;
        Ok(found)
    }

    #[test]
    fn objects_are_read_by_their_sizes_however_they_arrive() {
        let text = format!("{A} blob 6\na\nb c\n\n{A} tag 0\n\n");
        let expected = [(Kind::Blob, b"a\nb c\n.".to_vec()), (Kind::Tag, b".".to_vec())];
        assert_eq!(read(&[text.as_bytes()]).unwrap(), expected);
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(read(&bytes).unwrap(), expected);
    }

    #[test]
    fn what_is_not_as_it_should_be_is_an_error() {
        for text in [
            "missing\n",
            " missing\n",
            " blob\n\n",
            " blob 1\nab\n",
            " blob 1\na",
            " bulb 1\na\n",
            " blob 1 2\na\n",
        ] {
            assert!(read(&[format!("{A}{text}").as_bytes()]).is_err(), "{text:?}");
        }
        assert!(read(&[&[b'x'; 200]]).is_err());
    }
}
