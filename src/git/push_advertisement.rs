//! What `git receive-pack` says first of a repository whose refs are known, put together without it.
//!
//! The grammar is that of gitprotocol-pack(5), "Reference Discovery", and the bytes are those of git. What it says of itself
//! behind the first ref is not ours to know: it is taken from what a git says of an empty repository.

use crate::git::object_format::ObjectFormat;
use crate::git::pktline::{Dialect, Packet, Parsed, encode, parse};
use crate::git::service::Protocol;
use crate::model::oid::Oid;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What stands where the first ref would, when there is none.
const NO_REFS: &str = "capabilities^{}";

/// The advertisement of one repository to one client.
#[derive(Clone, Debug)]
pub struct PushAdvertisement {
    /// Every ref with its value.
    pub refs: Arc<BTreeMap<String, Oid>>,
    /// What git says of itself, without the end of the line; see [`own_words`].
    pub capabilities: Arc<[u8]>,
    /// Which hash names the objects.
    pub format: ObjectFormat,
    /// What the client asked for, settled for this service.
    pub protocol: Protocol,
}

impl PushAdvertisement {
    /// Hands the bytes to `sink` in pieces of at least `piece` bytes, but for the last one, which are not much longer. The
    /// first of them begins with `banner`.
    ///
    /// # Errors
    /// Those of `sink`, which is not called again then.
    pub fn write<E>(
        &self,
        banner: &[u8],
        piece: usize,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut bytes = banner.to_vec();
        match self.protocol {
            Protocol::V1 => encode(Packet::Data(b"version 1\n"), &mut bytes),
            // A push has no version 2.
            Protocol::V0 | Protocol::V2 => {}
        }
        let none = (self.refs.is_empty()).then(|| ("0".repeat(self.format.digits()), NO_REFS));
        let none = none.iter().map(|(oid, name)| (oid.as_str(), *name));
        let refs = self.refs.iter().map(|(name, oid)| (oid.as_str(), name.as_str()));
        for (number, (oid, name)) in none.chain(refs).enumerate() {
            let capabilities: &[&[u8]] = if number == 0 { &[b"\0", &self.capabilities] } else { &[] };
            let line = [oid.as_bytes(), b" ", name.as_bytes(), &capabilities.concat(), b"\n"].concat();
            encode(Packet::Data(&line), &mut bytes);
            if bytes.len() >= piece {
                sink(&bytes)?;
                bytes.clear();
            }
        }
        encode(Packet::Flush, &mut bytes);
        sink(&bytes)
    }
}

/// What git says of itself when it advertises a repository without refs: `answer` is the whole of that.
#[must_use]
pub fn own_words(answer: &[u8]) -> Option<&[u8]> {
    let Ok(Parsed::Packet(Packet::Data(line), length)) = parse(answer, Dialect::Classic) else { return None };
    let end = line.iter().position(|&byte| byte == 0)?;
    let is_empty = line[..end].ends_with(NO_REFS.as_bytes()) && &answer[length..] == b"0000";
    line[end + 1..].strip_suffix(b"\n").filter(|_| is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(refs: &[(&str, u8)], protocol: Protocol, piece: usize) -> Vec<String> {
        let oid = |digit: u8| Oid::parse(&[digit; 40]).unwrap();
        let refs = refs.iter().map(|(name, digit)| ((*name).to_owned(), oid(*digit))).collect();
        let capabilities = b"atomic agent=git/2".as_slice().into();
        let format = ObjectFormat::Sha1;
        let advertisement = PushAdvertisement { refs: Arc::new(refs), capabilities, format, protocol };
        let mut pieces = Vec::new();
        let told = advertisement.write(b"banner", piece, |bytes| {
            pieces.push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok::<(), ()>(())
        });
        told.map(|()| pieces).unwrap()
    }

    #[test]
    fn refs_follow_each_other_and_the_first_line_says_what_git_can() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let refs = [("refs/tags/v1", b'b'), ("refs/heads/main", b'a')];
        let first = format!("0050{a} refs/heads/main\0atomic agent=git/2\n");
        let second = format!("003a{b} refs/tags/v1\n");
        assert_eq!(written(&refs, Protocol::V0, 9999), [format!("banner{first}{second}0000")]);
        let versioned = format!("banner000eversion 1\n{first}");
        assert_eq!(written(&refs, Protocol::V1, 1), [versioned, second, "0000".to_owned()]);
    }

    #[test]
    fn only_what_is_said_of_an_empty_repository_is_learned() {
        let empty = written(&[], Protocol::V0, 9999)[0].replace("banner", "");
        assert_eq!(empty, format!("0050{} capabilities^{{}}\0atomic agent=git/2\n0000", "0".repeat(40)));
        assert_eq!(own_words(empty.as_bytes()).unwrap(), b"atomic agent=git/2");
        let filled = written(&[("refs/heads/main", b'a')], Protocol::V0, 9999)[0].replace("banner", "");
        for other in [&filled, &empty.replace("0000", ""), &format!("{empty}0000"), "0000", "", "ERR no"] {
            assert_eq!(own_words(other.as_bytes()), None, "{other}");
        }
    }
}
