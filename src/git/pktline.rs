//! The framing of git's wire protocol, without I/O: `gitprotocol-common(5)` and, for the special packets,
//! `gitprotocol-v2(5)`.
//!
//! A pkt-line is four hexadecimal digits, the length of the whole packet, and the payload. [`parse`] takes one packet
//! from the front of a buffer; [`Packets`] takes them from a reader and counts bytes, so that an error names its place.
//! What follows a stream of packets for a server that must be able to end it politely is [`Tracker`].

use crate::git::service::Protocol;
pub use crate::git::sideband::Tracker;
use std::io::{self, ErrorKind, Read};

/// The longest packet, its four digits included (`LARGE_PACKET_MAX` in git).
pub const PACKET_MAX: usize = 65520;

/// The packet that ends a section.
pub const FLUSH: &[u8] = b"0000";

/// The digits that stand before every packet.
pub const HEADER: usize = 4;

/// Which special packets may occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Protocol v0 and v1: only the flush.
    Classic,
    /// Protocol v2: flush, delimiter, response end.
    V2,
}

impl Dialect {
    /// The dialect of `protocol`.
    #[must_use]
    pub const fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::V0 | Protocol::V1 => Self::Classic,
            Protocol::V2 => Self::V2,
        }
    }
}

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A payload, which may be empty.
    Data(&'a [u8]),
    /// `0000`: the end of a message.
    Flush,
    /// `0001`: the end of a section (v2).
    Delim,
    /// `0002`: the end of a stateless response (v2).
    ResponseEnd,
}

/// Why bytes are no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The first four bytes are not hexadecimal digits.
    #[error("a packet length of {} is not four hexadecimal digits", .0.escape_ascii())]
    NotHex([u8; 4]),
    /// `0003`, or `0001`/`0002` outside of protocol v2.
    #[error("the packet length {0:04x} means nothing here")]
    Reserved(usize),
    /// More than [`PACKET_MAX`].
    #[error("the packet length {0:04x} is above the limit of fff0")]
    TooLong(usize),
}

/// What stands at the front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A packet and how many bytes it took.
    Packet(Packet<'a>, usize),
    /// The buffer ends inside of the packet; at least so many bytes are needed in all.
    Needs(usize),
}

/// Reads the packet at the front of `buffer`.
///
/// # Errors
/// When no packet can begin like this.
pub fn parse(buffer: &[u8], dialect: Dialect) -> Result<Parsed<'_>, Malformed> {
    let Some((digits, rest)) = buffer.split_first_chunk::<HEADER>() else {
        return Ok(Parsed::Needs(HEADER));
    };
    match packet_length(*digits, dialect)? {
        Length::Special(packet) => Ok(Parsed::Packet(packet, HEADER)),
        Length::Payload(length) => match rest.get(..length) {
            Some(payload) => Ok(Parsed::Packet(Packet::Data(payload), HEADER + length)),
            None => Ok(Parsed::Needs(HEADER + length)),
        },
    }
}

enum Length {
    Payload(usize),
    Special(Packet<'static>),
}

fn packet_length(digits: [u8; HEADER], dialect: Dialect) -> Result<Length, Malformed> {
    let length = hex(digits).ok_or(Malformed::NotHex(digits))?;
    match (length, dialect) {
        (0, _) => Ok(Length::Special(Packet::Flush)),
        (1, Dialect::V2) => Ok(Length::Special(Packet::Delim)),
        (2, Dialect::V2) => Ok(Length::Special(Packet::ResponseEnd)),
        (1..HEADER, _) => Err(Malformed::Reserved(length)),
        (HEADER..=PACKET_MAX, _) => Ok(Length::Payload(length - HEADER)),
        _ => Err(Malformed::TooLong(length)),
    }
}

/// The value of four hexadecimal digits of either case.
pub(crate) fn hex(digits: [u8; HEADER]) -> Option<usize> {
    digits.into_iter().try_fold(0, |value, digit| Some(value << 4 | char::from(digit).to_digit(16)? as usize))
}

/// The four digits before a packet of `length` bytes, their own included.
///
/// # Panics
/// When it is longer than [`PACKET_MAX`].
pub(crate) fn digits(length: usize) -> [u8; HEADER] {
    assert!(length <= PACKET_MAX, "{length} bytes do not fit a packet");
    let digit = |shift: u32| b"0123456789abcdef"[length >> shift & 0xf];
    [digit(12), digit(8), digit(4), digit(0)]
}

/// Appends a packet to `out`.
///
/// # Panics
/// When the payload is longer than `PACKET_MAX - HEADER` bytes: every caller splits at a limit of its own below that.
pub fn encode(packet: Packet<'_>, out: &mut Vec<u8>) {
    match packet {
        Packet::Flush => out.extend(FLUSH),
        Packet::Delim => out.extend(b"0001"),
        Packet::ResponseEnd => out.extend(b"0002"),
        Packet::Data(payload) => {
            out.extend(digits(payload.len() + HEADER));
            out.extend(payload);
        }
    }
}

/// Why a stream of packets could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes at `at` are no packet.
    #[error("malformed pkt-line at byte {at}: {why}")]
    Malformed {
        /// Offset of the packet in the stream.
        at: u64,
        /// What is wrong with it.
        why: Malformed,
    },
    /// The stream ends inside of the packet at `at`.
    #[error("the pkt-line at byte {at} is cut off: {has} of {needs} bytes are there")]
    Truncated {
        /// Offset of the packet in the stream.
        at: u64,
        /// How long it claims to be, or 4 when not even that is known.
        needs: usize,
        /// How much of it there is.
        has: usize,
    },
    /// The reader itself failed.
    #[error("reading the request at byte {at}: {source}")]
    Io {
        /// Offset of the packet in the stream.
        at: u64,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// Packets from a reader, one at a time, never reading beyond the packet that is asked for.
///
/// The reader should be buffered: a packet costs two small reads.
#[derive(Debug)]
pub struct Packets<R> {
    reader: R,
    dialect: Dialect,
    offset: u64,
    payload: Vec<u8>,
}

impl<R: Read> Packets<R> {
    /// Packets from the present position of `reader`, which counts as byte 0.
    pub fn new(reader: R, dialect: Dialect) -> Self {
        Self { reader, dialect, offset: 0, payload: Vec::new() }
    }

    /// Where the next packet begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next packet, or `None` when the stream ends between packets.
    ///
    /// # Errors
    /// When it is malformed, cut off, or cannot be read.
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, ReadError> {
        let at = self.offset;
        let mut digits = [0; HEADER];
        match self.fill(&mut digits)? {
            0 => return Ok(None),
            HEADER => {}
            has => return Err(ReadError::Truncated { at, needs: HEADER, has }),
        }
        let length = packet_length(digits, self.dialect).map_err(|why| ReadError::Malformed { at, why })?;
        self.offset += HEADER as u64;
        match length {
            Length::Special(packet) => Ok(Some(packet)),
            Length::Payload(length) => self.payload(at, length).map(Some),
        }
    }

    fn payload(&mut self, at: u64, length: usize) -> Result<Packet<'_>, ReadError> {
        let mut payload = std::mem::take(&mut self.payload);
        payload.resize(length, 0);
        let has = self.fill(&mut payload)?;
        self.payload = payload;
        if has < length {
            return Err(ReadError::Truncated { at, needs: HEADER + length, has: HEADER + has });
        }
        self.offset += length as u64;
        Ok(Packet::Data(&self.payload))
    }

    /// Reads until `buffer` is full or the stream ends; answers how much there was.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let mut has = 0;
        while let Some(rest) = buffer.get_mut(has..).filter(|rest| !rest.is_empty()) {
            match self.reader.read(rest) {
                Ok(0) => break,
                Ok(more) => has += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(ReadError::Io { at: self.offset, source }),
            }
        }
        Ok(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(packet: Packet<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        encode(packet, &mut out);
        out
    }

    #[test]
    fn packets_are_written_as_the_documentation_shows_them() {
        assert_eq!(packet(Packet::Data(b"a\n")), b"0006a\n");
        assert_eq!(packet(Packet::Data(b"foobar\n")), b"000bfoobar\n");
        assert_eq!(packet(Packet::Data(b"")), b"0004");
        assert_eq!(packet(Packet::Flush), b"0000");
        assert_eq!(packet(Packet::Delim), b"0001");
        assert_eq!(packet(Packet::ResponseEnd), b"0002");
    }

    #[test]
    fn lengths_that_no_packet_can_have_are_refused() {
        let refused = |bytes: &[u8], dialect| parse(bytes, dialect).unwrap_err();
        assert_eq!(refused(b"zzzz", Dialect::V2), Malformed::NotHex(*b"zzzz"));
        assert_eq!(refused(b"+00a", Dialect::V2), Malformed::NotHex(*b"+00a"));
        assert_eq!(refused(b"PACK", Dialect::Classic), Malformed::NotHex(*b"PACK"));
        assert_eq!(refused(b"0003", Dialect::V2), Malformed::Reserved(3));
        assert_eq!(refused(b"0001", Dialect::Classic), Malformed::Reserved(1));
        assert_eq!(refused(b"0002", Dialect::Classic), Malformed::Reserved(2));
        assert_eq!(refused(b"ffff", Dialect::V2), Malformed::TooLong(0xffff));
        assert_eq!(refused(b"fff1", Dialect::V2), Malformed::TooLong(PACKET_MAX + 1));
        assert_eq!(parse(b"fff0", Dialect::V2), Ok(Parsed::Needs(PACKET_MAX)));
        assert_eq!(parse(b"FFF0", Dialect::V2), Ok(Parsed::Needs(PACKET_MAX)));
    }

    #[test]
    fn a_reader_names_the_byte_at_which_the_stream_is_wrong() {
        let error = |stream: &'static [u8]| {
            let mut packets = Packets::new(stream, Dialect::Classic);
            loop {
                match packets.next_packet() {
                    Ok(Some(_)) => {}
                    Ok(None) => return String::new(),
                    Err(error) => return error.to_string(),
                }
            }
        };
        assert_eq!(error(b"0006a\n0000"), "");
        assert_eq!(
            error(b"0006a\nzz\x1b["),
            "malformed pkt-line at byte 6: a packet length of zz\\x1b[ is not four hexadecimal digits"
        );
        assert_eq!(error(b"0006a\n00"), "the pkt-line at byte 6 is cut off: 2 of 4 bytes are there");
        assert_eq!(error(b"0006a\n0020abc"), "the pkt-line at byte 6 is cut off: 7 of 32 bytes are there");
    }

    #[derive(Clone, Debug)]
    enum Owned {
        Data(Vec<u8>),
        Flush,
        Delim,
        ResponseEnd,
    }

    impl Owned {
        fn packet(&self) -> Packet<'_> {
            match self {
                Self::Data(payload) => Packet::Data(payload),
                Self::Flush => Packet::Flush,
                Self::Delim => Packet::Delim,
                Self::ResponseEnd => Packet::ResponseEnd,
            }
        }
    }

    fn any_packet() -> impl Strategy<Value = Owned> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Owned::Data),
            Just(Owned::Data(vec![b'x'; PACKET_MAX - HEADER])),
            Just(Owned::Flush),
            Just(Owned::Delim),
            Just(Owned::ResponseEnd),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(packets in proptest::collection::vec(any_packet(), 0..8)) {
            let mut stream = Vec::new();
            packets.iter().for_each(|packet| encode(packet.packet(), &mut stream));
            let mut reader = Packets::new(&stream[..], Dialect::V2);
            let mut at = 0;
            for expected in &packets {
                prop_assert_eq!(reader.offset(), at as u64);
                prop_assert_eq!(reader.next_packet().unwrap(), Some(expected.packet()));
                let Ok(Parsed::Packet(parsed, length)) = parse(&stream[at..], Dialect::V2) else {
                    return Err(TestCaseError::fail("the parser and the reader disagree"));
                };
                prop_assert_eq!(parsed, expected.packet());
                at += length;
            }
            prop_assert_eq!(reader.next_packet().unwrap(), None);
        }

        #[test]
        fn no_bytes_make_the_parser_panic_or_read_beyond_its_buffer(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            for dialect in [Dialect::Classic, Dialect::V2] {
                match parse(&bytes, dialect) {
                    Ok(Parsed::Packet(_, length)) => prop_assert!(length <= bytes.len()),
                    Ok(Parsed::Needs(length)) => prop_assert!(length > bytes.len() && length <= PACKET_MAX),
                    Err(_) => prop_assert!(bytes.len() >= HEADER),
                }
            }
        }
    }
}
