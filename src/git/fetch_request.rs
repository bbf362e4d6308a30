//! What a fetch asks for: a check of a whole `git-upload-pack` request before any git runs for it.
//!
//! Git answers a malformed request by dying, which the client sees as a dropped connection; the check turns that into a
//! sentence. It accepts whatever `git upload-pack` accepts from a stateless client: in v0 and v1 (`gitprotocol-pack(5)`)
//! wants, then any number of rounds of haves; in v2 (`gitprotocol-v2(5)`) one command. It is not a judgement on the
//! objects: git knows those.

use crate::git::ls_refs::Reading;
use crate::git::pktline::{Dialect, Packet, Packets, ReadError};
use crate::git::push_request::excerpt;
use crate::git::recipe::{Bypass, Draft, Recipe};
use crate::git::service::Protocol;
use crate::git::wants::Wants;
use crate::model::oid::Oid;
use std::io::Read;

/// A request that git can be given.
#[derive(Debug)]
pub struct FetchRequest {
    /// What it asks for.
    pub asked: Asked,
    /// The objects and refs, where it asks for any.
    pub wants: Wants,
    /// The lines of a request for the refs (v2).
    pub refs: Reading,
    /// What the answer to one for objects depends on, where that is known (v2).
    pub recipe: Result<Recipe, Bypass>,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing: a lone flush.
    Nothing,
    /// The refs (v2).
    Refs,
    /// Objects, or a round of the negotiation about them.
    Objects,
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The packets themselves are wrong or end too early.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A line that may not stand there.
    #[error("unexpected line at byte {at} of the fetch request: {line}")]
    Unexpected {
        /// Offset of its packet.
        at: u64,
        /// The start of the line, sanitised.
        line: String,
    },
    /// A packet that may not stand there, or none.
    #[error("the fetch request ends its sections wrongly at byte {at}")]
    Unfinished {
        /// Offset of the packet.
        at: u64,
    },
    /// A v2 request without a command or with two.
    #[error("the fetch request must hold exactly one command")]
    NotOneCommand,
    /// Something of the protocol that this server does not offer.
    #[error("{what} is not served here")]
    NotServed {
        /// The command or feature.
        what: String,
    },
}

/// Reads the whole request from its first byte on.
///
/// # Errors
/// See [`FetchError`].
pub fn check(reader: impl Read, protocol: Protocol) -> Result<FetchRequest, FetchError> {
    let mut packets = Packets::new(reader, Dialect::of(protocol));
    let (mut wants, mut refs, mut draft) = (Wants::default(), Reading::default(), Draft::default());
    let (asked, recipe) = match protocol {
        Protocol::V0 | Protocol::V1 => (check_classic(&mut packets, &mut wants)?, Err(Bypass::Version)),
        Protocol::V2 => (check_v2(&mut packets, &mut wants, &mut refs, &mut draft)?, draft.finish()),
    };
    Ok(FetchRequest { asked, wants, refs, recipe })
}

/// Lines of the first section in v0 and v1.
const WANTS: [(&str, Value); 6] = [
    ("want ", Value::OidAndMore),
    ("shallow ", Value::Oid),
    ("deepen ", Value::Text),
    ("deepen-since ", Value::Text),
    ("deepen-not ", Value::Text),
    ("filter ", Value::Text),
];

/// Lines of every later section in v0 and v1.
const HAVES: [(&str, Value); 2] = [("have ", Value::Oid), ("done", Value::Nothing)];

/// What follows a keyword.
#[derive(Clone, Copy)]
enum Value {
    Nothing,
    Text,
    Oid,
    /// The first want carries the capabilities.
    OidAndMore,
}

impl Value {
    fn accepts(self, text: &[u8]) -> bool {
        match self {
            Self::Nothing => text.is_empty(),
            Self::Text => !text.is_empty(),
            Self::Oid => Oid::parse(text).is_some(),
            Self::OidAndMore => text
                .split(|byte| matches!(byte, b' ' | 0))
                .next()
                .is_some_and(|oid| Oid::parse(oid).is_some()),
        }
    }
}

/// One section of wants, then sections of haves. Git stops reading at the flush after the haves or at `done`; a depth
/// request ends after the wants.
fn check_classic<R: Read>(packets: &mut Packets<R>, wants: &mut Wants) -> Result<Asked, FetchError> {
    let mut section: &[(&str, Value)] = &WANTS;
    let mut asked = Asked::Nothing;
    let mut is_closed = false;
    loop {
        let at = packets.offset();
        match packets.next_packet()? {
            Some(Packet::Data(payload)) => {
                let line = chomp(payload);
                if !section.iter().any(|row| is_line(line, row)) {
                    return Err(FetchError::Unexpected { at, line: excerpt(line) });
                }
                wants.take(line);
                asked = Asked::Objects;
                is_closed = line == b"done";
            }
            Some(Packet::Flush) => {
                section = &HAVES;
                is_closed = true;
            }
            None if is_closed => return Ok(asked),
            None | Some(Packet::Delim | Packet::ResponseEnd) => return Err(FetchError::Unfinished { at }),
        }
    }
}

fn is_line(line: &[u8], &(keyword, value): &(&str, Value)) -> bool {
    line.strip_prefix(keyword.as_bytes()).is_some_and(|rest| value.accepts(rest))
}

/// `command=…` and capabilities, then, after a delimiter, the arguments; a flush ends it, and nothing follows.
fn check_v2<R: Read>(
    packets: &mut Packets<R>,
    wants: &mut Wants,
    refs: &mut Reading,
    draft: &mut Draft,
) -> Result<Asked, FetchError> {
    let take_capability = |line: &[u8]| {
        refs.take_capability(line);
        draft.capability(line);
    };
    let (asked, end) = check_v2_head(packets, take_capability)?;
    match (end, asked) {
        (End::Delim, Asked::Refs) => check_v2_arguments(packets, |line| refs.take_argument(line))?,
        (End::Delim, Asked::Nothing | Asked::Objects) => {
            let take = |line: &[u8]| {
                wants.take(line);
                draft.argument(line);
            };
            check_v2_arguments(packets, take)?
        }
        (End::Flush, _) => {}
    }
    loop {
        let at = packets.offset();
        match packets.next_packet()? {
            None => return Ok(asked),
            Some(Packet::Flush) => {}
            Some(Packet::Data(payload)) => {
                return Err(FetchError::Unexpected { at, line: excerpt(chomp(payload)) });
            }
            Some(Packet::Delim | Packet::ResponseEnd) => return Err(FetchError::Unfinished { at }),
        }
    }
}

#[derive(PartialEq, Eq)]
enum End {
    Delim,
    Flush,
}

fn check_v2_head<R: Read>(
    packets: &mut Packets<R>,
    mut take: impl FnMut(&[u8]),
) -> Result<(Asked, End), FetchError> {
    let mut asked = None;
    let mut is_empty = true;
    loop {
        let at = packets.offset();
        let end = match packets.next_packet()? {
            Some(Packet::Data(payload)) => {
                is_empty = false;
                take(chomp(payload));
                let command = chomp(payload).strip_prefix(b"command=").map(command).transpose()?;
                if command.is_some() && asked.is_some() {
                    return Err(FetchError::NotOneCommand);
                }
                asked = asked.or(command);
                continue;
            }
            Some(Packet::Delim) => End::Delim,
            Some(Packet::Flush) => End::Flush,
            None | Some(Packet::ResponseEnd) => return Err(FetchError::Unfinished { at }),
        };
        return match asked {
            Some(asked) => Ok((asked, end)),
            None if is_empty && end == End::Flush => Ok((Asked::Nothing, end)),
            None => Err(FetchError::NotOneCommand),
        };
    }
}

fn command(name: &[u8]) -> Result<Asked, FetchError> {
    match name {
        b"ls-refs" => Ok(Asked::Refs),
        b"fetch" => Ok(Asked::Objects),
        other => Err(FetchError::NotServed { what: format!("the command {}", excerpt(other)) }),
    }
}

fn check_v2_arguments<R: Read>(
    packets: &mut Packets<R>,
    mut take: impl FnMut(&[u8]),
) -> Result<(), FetchError> {
    loop {
        let at = packets.offset();
        match packets.next_packet()? {
            // A repository may be configured for it, but its URIs would lead around this server.
            Some(Packet::Data(payload)) if payload.starts_with(b"packfile-uris ") => {
                return Err(FetchError::NotServed { what: "packfile-uris".to_owned() });
            }
            Some(Packet::Data(payload)) => take(chomp(payload)),
            Some(Packet::Flush) => return Ok(()),
            None | Some(Packet::Delim | Packet::ResponseEnd) => return Err(FetchError::Unfinished { at }),
        }
    }
}

fn chomp(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::pktline::encode;
    use proptest::prelude::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    /// Packets of the given lines, where `0000`, `0001` and `0002` stand for themselves and `A` for an object id.
    fn stream(lines: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in lines {
            let text = line.replace(" A", &format!(" {A}"));
            let packet = match *line {
                "0000" => Packet::Flush,
                "0001" => Packet::Delim,
                "0002" => Packet::ResponseEnd,
                _ => Packet::Data(text.as_bytes()),
            };
            encode(packet, &mut out);
        }
        out
    }

    fn checked(protocol: Protocol, lines: &[&str]) -> Result<Asked, String> {
        check(&stream(lines)[..], protocol).map(|it| it.asked).map_err(|error| error.to_string())
    }

    #[test]
    fn what_clients_send_in_v0_is_accepted() {
        let accepted: [&[&str]; 8] = [
            &[
                "want A multi_ack_detailed no-done side-band-64k thin-pack agent=git/2.47.3\n",
                "want A\n",
                "0000",
                "done\n",
            ],
            &["want A side-band-64k ofs-delta", "0000", "done"],
            &["want A multi_ack_detailed\n", "0000", "have A\n", "have A\n", "0000"],
            &["want A\n", "0000", "have A\n", "0000", "have A\n", "0000", "done\n"],
            &["want A shallow\n", "shallow A\n", "deepen 1\n", "0000"],
            &["want A filter\n", "filter blob:none\n", "0000", "done\n"],
            &["want A\n", "deepen-since 1700000000\n", "deepen-not refs/tags/v1\n", "0000", "done\n"],
            &["want A\0side-band\n", "0000", "0000", "done\n"],
        ];
        for lines in accepted {
            assert_eq!(checked(Protocol::V0, lines), Ok(Asked::Objects), "{lines:?}");
        }
        assert_eq!(checked(Protocol::V1, &["0000"]), Ok(Asked::Nothing));
    }

    #[test]
    fn what_git_would_die_of_in_v0_is_refused() {
        let refused: [&[&str]; 9] = [
            &[],
            &["want A\n"],
            &["want A\n", "0000", "have A\n"],
            &["have A\n", "0000"],
            &["want main\n", "0000", "done\n"],
            &["want A\n", "0000", "want A\n", "done\n"],
            &["want A\n", "0000", "done A\n"],
            &["want A\n", "deepen \n", "0000"],
            &["command=fetch", "0000"],
        ];
        for lines in refused {
            assert!(checked(Protocol::V0, lines).is_err(), "{lines:?}");
        }
        let message = checked(Protocol::V0, &["want A\n", "0000", "what\x1b\n"]).unwrap_err();
        assert_eq!(message, "unexpected line at byte 54 of the fetch request: what?");
    }

    #[test]
    fn what_clients_send_in_v2_is_accepted() {
        let refs = [
            "command=ls-refs\n",
            "agent=git/2.47.3",
            "object-format=sha1",
            "0001",
            "peel\n",
            "symrefs\n",
            "0000",
        ];
        assert_eq!(checked(Protocol::V2, &refs), Ok(Asked::Refs));
        assert_eq!(checked(Protocol::V2, &["agent=x", "command=ls-refs", "0000"]), Ok(Asked::Refs));
        let fetch = ["command=fetch", "0001", "thin-pack", "want A", "have A", "0000"];
        assert_eq!(checked(Protocol::V2, &fetch), Ok(Asked::Objects));
        let fetch =
            ["command=fetch", "server-option=x", "0001", "want A\n", "deepen 1\n", "done\n", "0000", "0000"];
        assert_eq!(checked(Protocol::V2, &fetch), Ok(Asked::Objects));
        assert_eq!(checked(Protocol::V2, &["0000"]), Ok(Asked::Nothing));
    }

    #[test]
    fn what_git_would_die_of_in_v2_is_refused() {
        let refused: [&[&str]; 9] = [
            &[],
            &["command=fetch"],
            &["command=fetch", "0001"],
            &["command=fetch", "0001", "done", "0001", "done", "0000"],
            &["command=fetch", "command=ls-refs", "0000"],
            &["agent=x", "0000"],
            &["0001", "0000"],
            &["0002"],
            &["command=fetch", "0001", "done", "0000", "command=fetch", "0000"],
        ];
        for lines in refused {
            assert!(checked(Protocol::V2, lines).is_err(), "{lines:?}");
        }
    }

    #[test]
    fn what_is_wanted_is_found_wherever_the_protocol_has_it() {
        let found = |protocol, lines: &[&str]| check(&stream(lines)[..], protocol).unwrap().wants;
        let a = Oid::parse(A.as_bytes()).unwrap();
        let other = a.as_str().replace('a', "b");
        let more = format!("want {other}");
        let both = [&a, &Oid::parse(other.as_bytes()).unwrap()].map(Clone::clone).into();
        let classic = ["want A side-band\n", &more, "deepen 1", "0000", "have A\n", "0000", "done\n"];
        assert_eq!(found(Protocol::V0, &classic).oids, both);
        let new = ["command=fetch", "0001", "want A\n", &more, "want-ref refs/heads/x\n", "done", "0000"];
        let new = found(Protocol::V2, &new);
        assert_eq!((new.oids, new.refs), (both, ["refs/heads/x".to_owned()].into()));
        let no = found(Protocol::V2, &["command=ls-refs", "0001", "ref-prefix want", "0000"]);
        assert_eq!(no, Wants::default());
    }

    #[test]
    fn commands_and_features_that_are_not_offered_are_refused_by_name() {
        for name in ["object-info", "bundle-uri", "fetch-all\x07"] {
            let command = format!("command={name}");
            let message = checked(Protocol::V2, &[&command, "0000"]).unwrap_err();
            assert_eq!(message, format!("the command {} is not served here", name.replace('\x07', "?")));
        }
        let message =
            checked(Protocol::V2, &["command=fetch", "0001", "packfile-uris https", "0000"]).unwrap_err();
        assert_eq!(message, "packfile-uris is not served here");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_check_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for protocol in [Protocol::V0, Protocol::V2] {
                let _ = check(&bytes[..], protocol);
            }
        }

        #[test]
        fn a_request_cut_anywhere_is_refused_or_is_a_request(cut in 0_usize..200) {
            let whole = stream(&["command=fetch", "agent=x", "0001", "want A", "have A", "done", "0000"]);
            let end = cut.min(whole.len());
            prop_assert_eq!(check(&whole[..end], Protocol::V2).is_ok(), end == whole.len());
        }
    }
}
