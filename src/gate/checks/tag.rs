//! An annotated tag, read from its object.
//!
//! Git prints the parts of a tag only for refs, and in the view there is no ref yet; so the object itself is read here, and
//! nothing is taken that two readers could read differently: four headers, each where git writes it, and no other.

use super::contents::Kind;
use crate::model::oid::Oid;

/// A new annotated tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    /// Its id.
    pub(super) oid: Oid,
    /// What kind of object it names.
    pub(super) of: Kind,
    /// The name that it gives itself.
    pub(super) name: Vec<u8>,
    /// The tagger's address as it stands there; tags of the first gits have none.
    pub(super) tagger: Option<Vec<u8>>,
    /// Everything before the message.
    pub(super) header: Vec<u8>,
    /// The whole message, with a signature if it has one.
    pub(super) message: Vec<u8>,
}

impl Tag {
    /// Reads the content of the object `oid`.
    pub(super) fn parse(oid: &Oid, content: &[u8]) -> Option<Self> {
        let (line, rest) = header(content, b"object ")?;
        Oid::parse(line)?;
        let (kind, rest) = header(rest, b"type ")?;
        let of = Kind::parse(std::str::from_utf8(kind).ok()?)?;
        let (name, rest) = header(rest, b"tag ")?;
        let (tagger, rest) = match header(rest, b"tagger ") {
            Some((tagger, rest)) => (Some(address(tagger)), rest),
            None => (None, rest),
        };
        let header = content[..content.len() - rest.len()].to_vec();
        let message = if rest.is_empty() { rest } else { rest.strip_prefix(b"\n")? };
        Some(Self { oid: oid.clone(), of, name: name.to_vec(), tagger, header, message: message.to_vec() })
    }
}

fn header<'a>(content: &'a [u8], word: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let rest = content.strip_prefix(word)?;
    let end = rest.iter().position(|&byte| byte == b'\n')?;
    Some((&rest[..end], &rest[end + 1..]))
}

/// What stands between the angle brackets of `NAME <ADDRESS> TIME ZONE`; empty when there is no one such pair.
fn address(person: &[u8]) -> Vec<u8> {
    let mut parts = person.split(|&byte| matches!(byte, b'<' | b'>'));
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(address), Some(_), None) => address.to_vec(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn parse(text: &str) -> Option<Tag> {
        Tag::parse(&Oid::parse(A.as_bytes()).unwrap(), text.as_bytes())
    }

    #[test]
    fn a_tag_is_read_with_and_without_its_tagger() {
        let tag = parse(&format!("object {A}\ntype commit\ntag v1\ntagger T <t@x> 1 +0000\n\none\n\ntwo\n"))
            .unwrap();
        assert_eq!((tag.of, tag.name, tag.tagger), (Kind::Commit, b"v1".to_vec(), Some(b"t@x".to_vec())));
        assert_eq!(tag.message, b"one\n\ntwo\n");
        let tag = parse(&format!("object {A}\ntype tag\ntag v1\n\nold\n")).unwrap();
        assert_eq!((tag.of, tag.tagger), (Kind::Tag, None));
        let tag = parse(&format!("object {A}\ntype tag\ntag v1\ntagger T <a@x> <b@x> 1 +0000\n")).unwrap();
        assert_eq!(tag.tagger, Some(Vec::new()));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_no_tag() {
        for text in [
            "type commit\ntag v1\n\n".to_owned(),
            format!("object {A}\nobject {A}\ntype commit\ntag v1\n\n"),
            format!("object {A}\ntype commit\ntag v1\ntagger T <t@x> 1 +0000\ntagger U <u@x> 1 +0000\n\n"),
            format!("object {A}\ntype commit\ntag v1\nextra\n\n"),
            format!("object {A}\ntype commit\ntag v1"),
        ] {
            assert_eq!(parse(&text), None, "{text}");
        }
    }
}
