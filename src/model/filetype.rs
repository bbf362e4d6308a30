//! Kinds of files, told by the bytes that they begin with.
//!
//! The bytes are those that the formats themselves prescribe; a name says nothing, since whoever pushes chooses it.

use std::fmt;
use thiserror::Error;

/// How much of a file must be seen, in bytes: the mark that lies deepest is that of tar, at 257.
pub const HEAD_BYTES: usize = 512;

/// A kind of files.
#[derive(Clone, Copy, Debug)]
pub struct FileType {
    name: &'static str,
    /// Any one of these tells it.
    marks: &'static [Mark],
}

/// Bytes at an offset, and perhaps more at another one.
type Mark = &'static [(usize, &'static [u8])];

/// A word that names no kind of files.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no kind of file that can be told by its first bytes: write {names}", names = names())]
pub struct FileTypeError(String);

/// Every kind, by name.
#[rustfmt::skip]
const ALL: &[FileType] = &[
    FileType { name: "7z",         marks: &[&[(0, b"7z\xbc\xaf\x27\x1c")]] },
    FileType { name: "ar",         marks: &[&[(0, b"!<arch>\n")]] },
    FileType { name: "bzip2",      marks: &[&[(0, b"BZh"), (4, b"1AY&SY")]] },
    FileType { name: "elf",        marks: &[&[(0, b"\x7fELF")]] },
    FileType { name: "gif",        marks: &[&[(0, b"GIF87a")], &[(0, b"GIF89a")]] },
    FileType { name: "gzip",       marks: &[&[(0, b"\x1f\x8b\x08")]] },
    // Mach-O for several processors begins as a class does, so that either word blocks both.
    FileType { name: "java-class", marks: &[&[(0, b"\xca\xfe\xba\xbe")]] },
    FileType { name: "jpeg",       marks: &[&[(0, b"\xff\xd8\xff")]] },
    FileType { name: "mach-o",     marks: &[&[(0, b"\xfe\xed\xfa\xce")], &[(0, b"\xfe\xed\xfa\xcf")],
                                            &[(0, b"\xce\xfa\xed\xfe")], &[(0, b"\xcf\xfa\xed\xfe")],
                                            &[(0, b"\xca\xfe\xba\xbe")]] },
    FileType { name: "mp4",        marks: &[&[(4, b"ftyp")]] },
    FileType { name: "ole",        marks: &[&[(0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")]] },
    FileType { name: "pdf",        marks: &[&[(0, b"%PDF-")]] },
    FileType { name: "pe",         marks: &[&[(0, b"MZ")]] },
    FileType { name: "png",        marks: &[&[(0, b"\x89PNG\r\n\x1a\n")]] },
    FileType { name: "rar",        marks: &[&[(0, b"Rar!\x1a\x07")]] },
    FileType { name: "sqlite",     marks: &[&[(0, b"SQLite format 3\0")]] },
    FileType { name: "tar",        marks: &[&[(257, b"ustar")]] },
    FileType { name: "wasm",       marks: &[&[(0, b"\0asm")]] },
    FileType { name: "xz",         marks: &[&[(0, b"\xfd7zXZ\0")]] },
    FileType { name: "zip",        marks: &[&[(0, b"PK\x03\x04")], &[(0, b"PK\x05\x06")]] },
    FileType { name: "zstd",       marks: &[&[(0, b"\x28\xb5\x2f\xfd")]] },
];

impl FileType {
    /// The kind that is written `name`.
    ///
    /// # Errors
    /// When there is none.
    pub fn parse(name: &str) -> Result<Self, FileTypeError> {
        let found = ALL.iter().find(|kind| kind.name == name);
        found.copied().ok_or_else(|| FileTypeError(name.to_owned()))
    }

    /// Whether a file that begins with `head` is of this kind; `head` is [`HEAD_BYTES`] long, or the whole file.
    #[must_use]
    pub fn is_of(&self, head: &[u8]) -> bool {
        let has = |&(at, bytes): &(usize, &[u8])| head.get(at..).is_some_and(|rest| rest.starts_with(bytes));
        self.marks.iter().any(|mark| mark.iter().all(has))
    }
}

impl PartialEq for FileType {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for FileType {}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

fn names() -> String {
    ALL.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds_of(head: &[u8]) -> Vec<&'static str> {
        ALL.iter().filter(|kind| kind.is_of(head)).map(|kind| kind.name).collect()
    }

    #[test]
    fn a_file_is_told_by_its_first_bytes() {
        assert_eq!(kinds_of(b"\x7fELF\x02\x01\x01"), ["elf"]);
        assert_eq!(kinds_of(b"PK\x03\x04\x14\0"), ["zip"]);
        assert_eq!(kinds_of(b"\xca\xfe\xba\xbe\0\0\0\x34"), ["java-class", "mach-o"]);
        let mut tar = vec![0; HEAD_BYTES];
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(kinds_of(&tar), ["tar"]);
        assert_eq!(kinds_of(b"#!/bin/sh\n"), [""; 0]);
        assert_eq!(kinds_of(b""), [""; 0]);
    }

    #[test]
    fn every_kind_is_read_back_and_no_mark_lies_beyond_the_head() {
        for kind in ALL {
            assert_eq!(FileType::parse(&kind.to_string()), Ok(*kind));
            let ends = kind.marks.iter().flat_map(|mark| mark.iter()).map(|(at, bytes)| at + bytes.len());
            assert!(ends.max().unwrap() <= HEAD_BYTES);
        }
        assert!(ALL.is_sorted_by_key(|kind| kind.name));
        assert!(FileType::parse("exe").unwrap_err().to_string().contains("elf, gif"));
    }
}
