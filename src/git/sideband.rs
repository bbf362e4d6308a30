//! Speaking into git's own streams: side-band lines and `ERR` packets, and knowing where they may stand.
//!
//! `gitprotocol-pack(5)`: with a side band each packet begins with its band, 1 for data, 2 for progress, 3 for a fatal
//! error; without one, `ERR <text>` may take the place of any packet. Text from elsewhere passes through [`sanitize`]
//! first, since clients up to git 2.47 print it to a terminal as it comes.

use crate::git::pktline::{HEADER, Packet, digits, encode, hex};
use crate::model::text::sanitize;
use std::time::Duration;

/// How much one side-band packet carries, band byte not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// `side-band`: packets of 1000 bytes.
    Small,
    /// `side-band-64k` and protocol v2: packets of 65520 bytes.
    Large,
}

impl Width {
    /// Payload bytes beside the band byte.
    #[must_use]
    pub const fn payload(self) -> usize {
        match self {
            Self::Small => 995,
            Self::Large => 65515,
        }
    }
}

/// What a side-band packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Band {
    /// The stream proper.
    Data,
    /// Lines that the client shows as `remote: …`.
    Progress,
    /// The last words: the client shows them and fails.
    Fatal,
}

impl Band {
    const fn byte(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Progress => 2,
            Self::Fatal => 3,
        }
    }
}

/// The empty data packet: invisible to the client, it keeps a silent connection alive.
pub const KEEP_ALIVE: &[u8] = b"0005\x01";

/// How long a connection may be silent before that is sent, as git has it (`uploadpack.keepAlive`, `receive.keepAlive`).
pub const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);

/// Longest text of the one packet that ends a stream, in bytes: it fits the smallest side band.
const LAST_WORDS_MAX: usize = 900;

/// Bytes before the payload of a packet with a band: the digits of its length, and the band.
pub const BAND_HEADER: usize = HEADER + 1;

/// What stands before `len` bytes of `band`.
#[must_use]
pub fn band_header(band: Band, len: usize) -> [u8; BAND_HEADER] {
    let [a, b, c, d] = digits(BAND_HEADER + len);
    [a, b, c, d, band.byte()]
}

/// Appends `bytes` to `out` as packets of `band`, as many as their length needs.
pub fn encode_band(band: Band, bytes: &[u8], width: Width, out: &mut Vec<u8>) {
    for part in bytes.chunks(width.payload()) {
        out.extend(band_header(band, part.len()));
        out.extend(part);
    }
}

/// Appends `text` as sanitised lines of `band`, each ended by a newline.
pub fn encode_lines(band: Band, text: &str, width: Width, out: &mut Vec<u8>) {
    for line in text.lines() {
        encode_band(band, format!("{}\n", sanitize(line)).as_bytes(), width, out);
    }
}

/// Appends an `ERR` packet: in an advertisement, or anywhere else before a side band, the client shows the text after
/// `fatal: remote error: ` and fails.
pub fn encode_err(text: &str, out: &mut Vec<u8>) {
    encode(Packet::Data(format!("ERR {}\n", last_words(text)).as_bytes()), out);
}

/// Appends the packet after which the client fails with `text`. One packet: a client stops at the first.
pub fn encode_fatal(text: &str, out: &mut Vec<u8>) {
    encode_band(Band::Fatal, format!("{}\n", last_words(text)).as_bytes(), Width::Small, out);
}

fn last_words(text: &str) -> String {
    let mut clean = sanitize(text);
    while clean.len() > LAST_WORDS_MAX {
        clean.pop();
    }
    clean
}

/// Follows an output stream of git that passes by in slices of any size, and knows where it stands.
///
/// For a server that must give up in the middle: [`Tracker::last_words`] says what the client can be told, if anything.
#[derive(Clone, Debug)]
pub struct Tracker {
    place: Place,
    has_band: bool,
    /// Whether sections with a name have been seen, as only protocol v2 has them.
    has_sections: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Between packets; whether the last one was a flush.
    Boundary { flushed: bool },
    /// Inside of a packet's digits.
    Digits { seen: [u8; HEADER], count: usize },
    /// Inside of a payload.
    Payload(Payload),
    /// Not pkt-lines any more: a pack without side band.
    Raw,
}

/// A payload that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Payload {
    /// The bytes of all of it.
    length: usize,
    /// How many of them are to come.
    left: usize,
    /// The first ones that have passed.
    start: [u8; START],
}

/// As much of a payload as tells one line from another: the longest name of a section.
const START: usize = b"acknowledgments\n".len();

impl Payload {
    const fn of(length: usize) -> Self {
        Self { length, left: length, start: [0; START] }
    }

    /// What is known of its beginning.
    fn start(&self) -> &[u8] {
        self.start.get(..self.length - self.left).unwrap_or(&self.start)
    }

    /// The band, if there is a side band and the byte has passed.
    fn band(&self) -> Option<u8> {
        self.start().first().copied()
    }

    /// Takes what belongs to it from the front of `bytes`.
    fn take<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let passed = self.length - self.left;
        let (own, rest) = bytes.split_at(self.left.min(bytes.len()));
        self.start.iter_mut().skip(passed).zip(own).for_each(|(slot, byte)| *slot = *byte);
        self.left -= own.len();
        rest
    }

    /// Whether the side band, if there is one, begins behind this line: the name of the section that has it, or in the
    /// older protocols the last word about what both sides have.
    fn is_before_band(&self, has_sections: bool) -> bool {
        let is_last_word = match (self.start(), self.length) {
            (b"NAK\n", _) => true,
            (start, 44 | 45 | 68 | 69) => start.starts_with(b"ACK "),
            _ => false,
        };
        self.start() == b"packfile\n" || is_last_word && !has_sections
    }
}

impl Default for Tracker {
    fn default() -> Self {
        Self::new()
    }
}

impl Tracker {
    /// A tracker at the start of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self { place: Place::Boundary { flushed: false }, has_band: false, has_sections: false }
    }

    /// Follows the stream over `bytes`.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            bytes = match self.place {
                Place::Raw => return,
                Place::Boundary { .. } => self.digit(first, [0; HEADER], 0, rest),
                Place::Digits { seen, count } => self.digit(first, seen, count, rest),
                Place::Payload(payload) => self.skip(payload, bytes),
            };
        }
    }

    /// Whether the stream stands between two packets.
    #[must_use]
    pub const fn is_at_boundary(&self) -> bool {
        matches!(self.place, Place::Boundary { .. })
    }

    /// Whether a packet has begun of which nothing but digits has passed.
    #[must_use]
    pub fn is_before_payload(&self) -> bool {
        match &self.place {
            Place::Digits { .. } => true,
            Place::Payload(payload) => payload.start().is_empty(),
            Place::Boundary { .. } | Place::Raw => false,
        }
    }

    /// Whether the last thing that passed was a flush.
    #[must_use]
    pub const fn is_flushed(&self) -> bool {
        matches!(self.place, Place::Boundary { flushed: true })
    }

    /// Whether the stream has left the packet format: a pack without side band.
    #[must_use]
    pub const fn is_raw(&self) -> bool {
        matches!(self.place, Place::Raw)
    }

    /// Whether the side band has begun: the next packet has a band.
    #[must_use]
    pub const fn has_side_band(&self) -> bool {
        self.has_band
    }

    /// What tells the client why the stream ends here: one packet, and before it whatever completes the packet that the
    /// stream stands in, its digits too. `None` where nothing can be said: inside of a packet before the side band, in a
    /// bare pack, or when the side band has been closed by its flush.
    ///
    /// Less than a packet and a kilobyte. What the padding spoils is lost anyway: the client fails at the last packet.
    #[must_use]
    pub fn last_words(&self, text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match (self.place, self.has_band) {
            (Place::Boundary { flushed: false }, true) => encode_fatal(text, &mut out),
            (Place::Payload(payload), true) => {
                pad(payload.left, payload.band(), &mut out);
                encode_fatal(text, &mut out);
            }
            (Place::Digits { seen, count }, true) => {
                complete_digits(seen, count, &mut out)?;
                encode_fatal(text, &mut out);
            }
            (Place::Boundary { .. }, false) => encode_err(text, &mut out),
            (Place::Boundary { flushed: true }, true) => return None,
            (Place::Digits { .. } | Place::Payload(_), false) | (Place::Raw, _) => return None,
        }
        Some(out)
    }

    fn digit<'a>(&mut self, digit: u8, mut seen: [u8; HEADER], count: usize, rest: &'a [u8]) -> &'a [u8] {
        if let Some(slot) = seen.get_mut(count) {
            *slot = digit;
        }
        self.place = match count + 1 {
            HEADER => Self::after_digits(seen),
            count => Place::Digits { seen, count },
        };
        rest
    }

    /// Every length below the header's own is a special packet here: what git itself sends is not ours to judge.
    fn after_digits(seen: [u8; HEADER]) -> Place {
        match hex(seen) {
            None => Place::Raw,
            Some(0) => Place::Boundary { flushed: true },
            Some(1..=HEADER) => Place::Boundary { flushed: false },
            Some(length) => Place::Payload(Payload::of(length - HEADER)),
        }
    }

    fn skip<'a>(&mut self, mut payload: Payload, bytes: &'a [u8]) -> &'a [u8] {
        let rest = payload.take(bytes);
        self.has_band |= matches!(payload.band(), Some(1..=3));
        self.place = Place::Payload(payload);
        if payload.left == 0 {
            self.has_sections |= payload.start() == b"acknowledgments\n";
            self.has_band |= payload.is_before_band(self.has_sections);
            self.place = Place::Boundary { flushed: false };
        }
        rest
    }
}

/// Completes a packet of whose digits only the first `count` have been sent: the shortest packet that begins with them. `None` when they are no digits.
fn complete_digits(seen: [u8; HEADER], count: usize, out: &mut Vec<u8>) -> Option<()> {
    let (sent, _) = seen.split_at(count);
    let with_end = |end: &[u8; HEADER]| {
        let mut digits = *end;
        digits.get_mut(..count)?.copy_from_slice(sent);
        hex(digits).map(|length| (digits, length))
    };
    let (digits, length) =
        with_end(b"0000").filter(|(_, length)| *length > HEADER).or_else(|| with_end(b"0005"))?;
    out.extend(digits.iter().skip(count));
    pad(length - HEADER, None, out);
    Some(())
}

/// Completes a packet of which `left` bytes are missing with zeros, at which a terminal's line ends. One that lacks its band
/// becomes progress, of which nothing is shown so: zeros in the data could end the client before it reads the last words.
fn pad(left: usize, band: Option<u8>, out: &mut Vec<u8>) {
    let end = out.len() + left;
    if band.is_none() {
        out.push(Band::Progress.byte());
    }
    out.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::pktline::{Dialect, Packets};
    use proptest::prelude::*;

    fn fed(stream: &[u8]) -> Tracker {
        let mut tracker = Tracker::new();
        tracker.feed(stream);
        tracker
    }

    #[test]
    fn before_the_side_band_an_err_packet_is_legal_and_after_it_band_three() {
        assert_eq!(fed(b"").last_words("no room").unwrap(), b"0010ERR no room\n");
        let sections = b"0014acknowledgments\n0008NAK\n";
        assert_eq!(fed(sections).last_words("no room").unwrap(), b"0010ERR no room\n");
        let ack = format!("0038ACK {} common\n", "1".repeat(40));
        assert_eq!(fed(ack.as_bytes()).last_words("no room").unwrap(), b"0010ERR no room\n");
        let ack = format!("0031ACK {}\n", "1".repeat(40));
        for last_line in [&b"000dpackfile\n"[..], b"0008NAK\n", ack.as_bytes()] {
            assert_eq!(fed(last_line).last_words("late").unwrap(), b"000a\x03late\n");
            assert_eq!(
                fed(&[last_line, b"00"].concat()).last_words("late").unwrap(),
                b"05\x02000a\x03late\n"
            );
        }
        assert_eq!(fed(b"0008NAK\n0006\x01P").last_words("late").unwrap(), b"000a\x03late\n");
        assert_eq!(fed(b"0008NAK\n0006\x02P").last_words("late").unwrap(), b"000a\x03late\n");
    }

    #[test]
    fn nothing_can_be_said_inside_an_early_packet_in_a_bare_pack_or_after_the_last_flush() {
        let bare = b"0008NAK\nPACK\0\0\0\x02";
        for stream in [&b"0"[..], b"0008N", bare, b"0006\x01Px", b"0008NAK\n0006\x01P0000"] {
            assert_eq!(fed(stream).last_words("late"), None, "{}", stream.escape_ascii());
        }
        assert!(fed(b"0008NAK\nPACK").is_raw());
        assert!(fed(b"0008NAK\n0006\x01P0000").is_flushed());
    }

    #[test]
    fn a_packet_of_the_side_band_is_completed_before_the_last_words() {
        let cases: [(&[u8], &[u8]); 4] = [
            (b"0006\x01P0009\x01PA", b"\x00\x00000a\x03late\n"),
            (b"0006\x01P0009\x02PA", b"\x00\x00000a\x03late\n"),
            (b"0006\x01P0009", b"\x02\x00\x00\x00\x00000a\x03late\n"),
            (b"0009\x01", b"\x00\x00\x00\x00000a\x03late\n"),
        ];
        for (stream, words) in cases {
            let got = fed(stream).last_words("late").unwrap();
            assert_eq!(got, words, "{} {}", stream.escape_ascii(), got.escape_ascii());
            assert!(fed(&[stream, &got].concat()).is_at_boundary());
        }
    }

    #[test]
    fn a_packet_cut_in_its_digits_is_completed_before_the_last_words() {
        for digits in ["0", "00", "000", "001", "1", "0f", "f", "ff", "fff", "FFF"] {
            let stream = [b"0006\x01P", digits.as_bytes()].concat();
            let words = fed(&stream).last_words("late").unwrap();
            assert!(words.ends_with(b"000a\x03late\n"), "{digits}: {}", words.escape_ascii());
            let whole = [&stream, &words[..]].concat();
            let mut packets = Packets::new(&whole[..], Dialect::Classic);
            let bands: Vec<u8> = std::iter::from_fn(|| match packets.next_packet().unwrap()? {
                Packet::Data(payload) => payload.first().copied(),
                Packet::Flush | Packet::Delim | Packet::ResponseEnd => None,
            })
            .collect();
            assert_eq!(bands, [1, 2, 3], "{digits}");
        }
    }

    #[test]
    fn the_longest_packet_bounds_the_last_words() {
        let words = fed(b"0006\x01Pfff0").last_words(&"x".repeat(5000)).unwrap();
        assert!(words.len() < 0xfff0 + 1000, "{}", words.len());
    }

    #[test]
    fn a_payload_that_merely_holds_low_bytes_is_no_side_band() {
        assert!(!fed(b"0008NA\x01\n").has_side_band());
        assert!(!fed(b"0004").has_side_band());
        assert!(fed(KEEP_ALIVE).has_side_band());
    }

    #[test]
    fn hostile_lines_reach_the_terminal_as_plain_text() {
        let mut out = Vec::new();
        encode_lines(Band::Progress, "one\ntwo\x07\n", Width::Large, &mut out);
        assert_eq!(out, b"0009\x02one\n000a\x02two?\n");
    }

    #[test]
    fn the_last_words_are_one_packet_however_long_the_text() {
        let text = "ü".repeat(5000);
        for stream in [&b""[..], b"0006\x01P"] {
            let words = fed(stream).last_words(&text).unwrap();
            assert!(words.len() < 1000);
            assert!(fed(&words).is_at_boundary());
        }
    }

    proptest! {
        #[test]
        fn the_slicing_of_a_stream_does_not_matter(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..6),
            cut in 1_usize..7,
        ) {
            let mut stream = Vec::new();
            for payload in &payloads {
                encode(Packet::Data(payload), &mut stream);
            }
            let mut sliced = Tracker::new();
            stream.chunks(cut).for_each(|slice| sliced.feed(slice));
            let whole = fed(&stream);
            prop_assert_eq!(sliced.place, whole.place);
            prop_assert_eq!(sliced.has_band, whole.has_band);
            prop_assert!(whole.is_at_boundary());
            for end in 0..stream.len() {
                let at_packet = fed(&stream[..end]).is_at_boundary();
                let mut packets = Packets::new(&stream[..end], Dialect::Classic);
                let whole_packets = std::iter::from_fn(|| packets.next_packet().map(|p| p.map(|_| ())).transpose());
                prop_assert_eq!(at_packet, whole_packets.last().is_none_or(|last| last.is_ok()));
            }
        }

        #[test]
        fn bands_split_at_their_width_and_lose_nothing(length in 0_usize..3000) {
            let bytes: Vec<u8> = (0..length).map(|n: usize| n.to_le_bytes()[0]).collect();
            let mut out = Vec::new();
            encode_band(Band::Data, &bytes, Width::Small, &mut out);
            let mut packets = Packets::new(&out[..], Dialect::Classic);
            let mut joined: Vec<u8> = Vec::new();
            while let Some(Packet::Data(payload)) = packets.next_packet().unwrap() {
                prop_assert!(payload.len() <= 996);
                prop_assert_eq!(payload[0], 1);
                joined.extend(&payload[1..]);
            }
            prop_assert_eq!(joined, bytes);
        }
    }
}
