//! The header of a commit or an annotated tag, as it stands in the object.

/// What the headers begin with that hold signatures, or a whole tag with one.
const ARMOURED: [&[u8]; 3] = [b"gpgsig", b"gpgsig-sha256", b"mergetag"];

/// A line of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeaderLine<'a> {
    /// The first word of the header that the line belongs to.
    pub(super) word: &'a [u8],
    /// The line without that word.
    pub(super) text: &'a [u8],
}

/// The lines of `header`.
pub(super) fn lines(header: &[u8]) -> impl Iterator<Item = HeaderLine<'_>> {
    let mut word: &[u8] = b"";
    header.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(move |line| {
        let space = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
        // A line that begins with a space goes on with the header before it.
        if space > 0 {
            word = &line[..space];
        }
        HeaderLine { word, text: line.get(space + 1..).unwrap_or_default() }
    })
}

impl HeaderLine<'_> {
    /// Who it says made the object, for people.
    pub(super) fn person(&self) -> Option<&'static str> {
        match self.word {
            b"author" => Some("author"),
            b"committer" => Some("committer"),
            b"tagger" => Some("tagger"),
            _ => None,
        }
    }

    /// Whether it is a part of a signature that says nothing to people.
    pub(super) fn is_armour(&self) -> bool {
        let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        ARMOURED.contains(&self.word) && self.text.iter().all(is_base64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_belong_to_the_header_before_them_and_only_signatures_are_armour() {
        let header = b"tree 1\nauthor A <a@x> 1 +0000\ngpgsig -----BEGIN\n AAAA\n note: b\nextra\n AAAA\n";
        let found: Vec<_> = lines(header).map(|line| (line.word, line.text, line.is_armour())).collect();
        let expected: [(&[u8], &[u8], bool); 7] = [
            (b"tree", b"1", false),
            (b"author", b"A <a@x> 1 +0000", false),
            (b"gpgsig", b"-----BEGIN", false),
            (b"gpgsig", b"AAAA", true),
            (b"gpgsig", b"note: b", false),
            (b"extra", b"", false),
            (b"extra", b"AAAA", false),
        ];
        assert_eq!(found, expected);
        assert_eq!(lines(header).filter_map(|line| line.person()).collect::<Vec<_>>(), ["author"]);
    }
}
