//! What a push asks for: the command list at the head of a `git-receive-pack` request, read before any git runs.
//!
//! The grammar is that of `gitprotocol-pack(5)`, "Reference Update Request": `shallow` lines, commands, a flush, the push
//! options if negotiated, then the pack, which stays unread. Commands of a signed push stand inside of its certificate.
//! `git receive-pack` keeps every command in memory and sets no limit, so the bounds are kept here.

use crate::git::object_format::ObjectFormat;
use crate::git::pktline::{Dialect, Packet, Packets, ReadError};
use crate::model::oid::Oid;
use crate::model::text::sanitize;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;

/// What a pack begins with; its version and the number of its objects follow, four bytes each.
const PACK_HEADER: &[u8] = b"PACK";

/// Bounds of a command list.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Ref updates in one push.
    pub commands: usize,
    /// Bytes before the pack: commands, `shallow` lines, certificate, push options.
    pub bytes: u64,
}

/// One ref update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The value that the client believes the ref to have; zero for a new ref.
    pub old: Oid,
    /// The value that it is to have; zero to delete it.
    pub new: Oid,
    /// The full name as sent. Git decides whether it is a valid one.
    pub name: Vec<u8>,
}

/// The capabilities that the client chose: words, some with `=value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(Vec<String>);

/// The head of a push.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushRequest {
    /// The ref updates in the client's order.
    pub commands: Vec<Command>,
    /// What the client can understand.
    pub capabilities: Capabilities,
    /// The push options; empty when not negotiated.
    pub options: Vec<Vec<u8>>,
    /// Whether a push certificate was sent.
    pub is_signed: bool,
    /// Whether the client told the borders of its shallow history.
    pub is_shallow: bool,
    /// Where the `shallow` lines end that stand before everything else, in bytes from the start of the request.
    pub shallow_end: u64,
    /// Where the pack begins, in bytes from the start of the request.
    pub pack_offset: u64,
}

/// Why a command list was refused.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The packets themselves are wrong or end too early.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A line that is neither a command nor anything else that may stand there.
    #[error("the line at byte {at} of the push is not `OLD NEW REF`: {line}")]
    NotACommand {
        /// Offset of its packet.
        at: u64,
        /// The start of the line, sanitised.
        line: String,
    },
    /// The stream ends before its flush.
    #[error("the command list of the push is cut off at byte {at}")]
    Unfinished {
        /// Where the stream ends.
        at: u64,
    },
    /// More commands than allowed.
    #[error("the push updates more than the {limit} refs that commands_max allows: push them in parts")]
    TooMany {
        /// How many are allowed.
        limit: usize,
    },
    /// More bytes than allowed.
    #[error("the command list of the push is longer than {limit} bytes: push fewer refs at once")]
    TooLong {
        /// How many are allowed.
        limit: u64,
    },
}

impl PushError {
    /// Whether the reason is a fault of this machine and not the client's request.
    #[must_use]
    pub const fn is_fault(&self) -> bool {
        match self {
            Self::Read(ReadError::Io { .. }) => true,
            Self::Read(ReadError::Malformed { .. } | ReadError::Truncated { .. })
            | Self::NotACommand { .. }
            | Self::Unfinished { .. }
            | Self::TooMany { .. }
            | Self::TooLong { .. } => false,
        }
    }

    /// Whether the request is well-formed but larger than we take.
    #[must_use]
    pub const fn is_limit(&self) -> bool {
        match self {
            Self::TooMany { .. } | Self::TooLong { .. } => true,
            Self::Read(_) | Self::NotACommand { .. } | Self::Unfinished { .. } => false,
        }
    }
}

impl Capabilities {
    /// Whether the client chose `word`.
    #[must_use]
    pub fn has(&self, word: &str) -> bool {
        self.0.iter().any(|chosen| chosen == word)
    }

    /// The value of `word=value`.
    #[must_use]
    pub fn value(&self, word: &str) -> Option<&str> {
        self.0.iter().find_map(|chosen| chosen.strip_prefix(word)?.strip_prefix('='))
    }

    /// Whether the client reads a report about each ref.
    #[must_use]
    pub fn wants_report(&self) -> bool {
        self.has("report-status") || self.has("report-status-v2")
    }

    /// Whether the answer travels in a side band.
    #[must_use]
    pub fn has_side_band(&self) -> bool {
        self.has("side-band-64k")
    }

    fn add(&mut self, words: &[u8]) {
        let words = String::from_utf8_lossy(words);
        self.0.extend(words.split_ascii_whitespace().map(str::to_owned));
    }
}

impl<'a> FromIterator<&'a str> for Capabilities {
    fn from_iter<I: IntoIterator<Item = &'a str>>(words: I) -> Self {
        Self(words.into_iter().map(str::to_owned).collect())
    }
}

impl fmt::Display for Capabilities {
    /// As they stand in a request.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

impl PushRequest {
    /// How many objects the pack in `body`, the whole request, says to have (gitformat-pack(5)); `None` where no pack follows.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn objects_sent(&self, body: &File) -> io::Result<Option<u32>> {
        let mut header = [0; PACK_HEADER.len() + 8];
        match body.read_exact_at(&mut header, self.pack_offset) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let count = header.last_chunk().map(|count| u32::from_be_bytes(*count));
        Ok(count.filter(|_| header.starts_with(PACK_HEADER)))
    }

    /// Reads the head of the request from its first byte on; the reader is left at [`PushRequest::pack_offset`].
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn read(reader: impl Read, bounds: Bounds) -> Result<Self, PushError> {
        let mut lines = Lines { packets: Packets::new(reader, Dialect::Classic), bounds };
        let mut request = Self::default();
        request.read_commands(&mut lines)?;
        if !request.commands.is_empty() && request.capabilities.has("push-options") {
            while let Some((_, line)) = lines.next()? {
                request.options.push(line);
            }
        }
        request.pack_offset = lines.packets.offset();
        Ok(request)
    }

    /// Whether nothing is asked: the `0000` by which a client finds out whether it may push.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.commands.is_empty()
    }

    /// Whether objects are named as a repository of this format names them; whoever does not say how means SHA-1.
    #[must_use]
    pub fn is_in(&self, format: ObjectFormat) -> bool {
        let said = self.capabilities.value("object-format").unwrap_or(ObjectFormat::default().name());
        said == format.name()
            && self.commands.iter().all(|command| command.new.as_str().len() == format.digits())
    }

    /// Whether a pack follows: deletions alone need none.
    #[must_use]
    pub fn has_pack(&self) -> bool {
        self.commands.iter().any(|command| !command.new.is_zero())
    }

    fn read_commands<R: Read>(&mut self, lines: &mut Lines<R>) -> Result<(), PushError> {
        while let Some((at, line)) = lines.next()? {
            let text = self.take_capabilities(&line);
            if text == b"push-cert" {
                self.is_signed = true;
                self.read_certificate(lines)?;
            } else if is_shallow(text) {
                self.is_shallow = true;
                if self.commands.is_empty() && !self.is_signed {
                    self.shallow_end = lines.packets.offset();
                }
            } else {
                self.add(text, at, lines.bounds)?;
            }
        }
        Ok(())
    }

    /// Capabilities follow a NUL; git takes them from any line, not only from the first.
    fn take_capabilities<'a>(&mut self, line: &'a [u8]) -> &'a [u8] {
        match line.iter().position(|&byte| byte == 0) {
            Some(nul) => {
                self.capabilities.add(line[nul + 1..].split(|&byte| byte == 0).next().unwrap_or_default());
                &line[..nul]
            }
            None => line,
        }
    }

    /// The commands between the empty line after the certificate's head and its signature.
    fn read_certificate<R: Read>(&mut self, lines: &mut Lines<R>) -> Result<(), PushError> {
        let mut part = CertificatePart::Head;
        while let Some((at, packet)) = lines.next()? {
            if packet == b"push-cert-end" {
                return Ok(());
            }
            // One line a packet is usual, but git splits the certificate at its newlines.
            for line in packet.split(|&byte| byte == b'\n') {
                part = part.after(line);
                if part == CertificatePart::Commands && !line.is_empty() {
                    self.add(line, at, lines.bounds)?;
                }
            }
        }
        Err(PushError::Unfinished { at: lines.packets.offset() })
    }

    fn add(&mut self, line: &[u8], at: u64, bounds: Bounds) -> Result<(), PushError> {
        let command =
            Command::parse(line).ok_or_else(|| PushError::NotACommand { at, line: excerpt(line) })?;
        if self.commands.len() == bounds.commands {
            return Err(PushError::TooMany { limit: bounds.commands });
        }
        self.commands.push(command);
        Ok(())
    }
}

impl Command {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.splitn(3, |&byte| byte == b' ');
        let old = Oid::parse(words.next()?)?;
        let new = Oid::parse(words.next()?)?;
        let name = words.next().filter(|name| !name.is_empty() && !name.contains(&0))?.to_vec();
        (old.as_str().len() == new.as_str().len()).then_some(Self { old, new, name })
    }
}

/// Where in a push certificate a line stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CertificatePart {
    Head,
    Commands,
    Signature,
}

impl CertificatePart {
    fn after(self, line: &[u8]) -> Self {
        match self {
            Self::Head if line.is_empty() => Self::Commands,
            Self::Commands if line.starts_with(b"-----BEGIN ") => Self::Signature,
            Self::Head | Self::Commands | Self::Signature => self,
        }
    }
}

fn is_shallow(line: &[u8]) -> bool {
    line.strip_prefix(b"shallow ").and_then(Oid::parse).is_some()
}

/// Lines of one section after the other, within the byte bound.
struct Lines<R> {
    packets: Packets<R>,
    bounds: Bounds,
}

impl<R: Read> Lines<R> {
    /// The next line without its newline and where its packet begins; `None` at the flush.
    fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, PushError> {
        let at = self.packets.offset();
        let line = match self.packets.next_packet()? {
            None => return Err(PushError::Unfinished { at }),
            Some(Packet::Flush | Packet::Delim | Packet::ResponseEnd) => return Ok(None),
            Some(Packet::Data(payload)) => payload.strip_suffix(b"\n").unwrap_or(payload).to_vec(),
        };
        if self.packets.offset() > self.bounds.bytes {
            return Err(PushError::TooLong { limit: self.bounds.bytes });
        }
        Ok(Some((at, line)))
    }
}

/// The start of a client's line, fit for a message.
pub(crate) fn excerpt(line: &[u8]) -> String {
    /// Enough to recognise a line by.
    const LENGTH: usize = 60;
    sanitize(&String::from_utf8_lossy(&line[..line.len().min(LENGTH)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::pktline::encode;
    use proptest::prelude::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const ZERO: &str = "0000000000000000000000000000000000000000";
    const BOUNDS: Bounds = Bounds { commands: 3, bytes: 4096 };

    /// Packets of the given lines; `""` stands for a flush.
    fn stream(lines: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in lines {
            let packet = if line.is_empty() { Packet::Flush } else { Packet::Data(line.as_bytes()) };
            encode(packet, &mut out);
        }
        out
    }

    fn read(lines: &[&str]) -> Result<PushRequest, PushError> {
        PushRequest::read(&stream(lines)[..], BOUNDS)
    }

    fn names(request: &PushRequest) -> Vec<&str> {
        request.commands.iter().map(|command| std::str::from_utf8(&command.name).unwrap()).collect()
    }

    #[test]
    fn the_number_of_objects_is_read_where_a_pack_follows() {
        let sent = |body: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, body).unwrap();
            PushRequest { pack_offset: 4, ..PushRequest::default() }.objects_sent(&file).unwrap()
        };
        assert_eq!(sent(b"0000PACK\0\0\0\x02\0\0\x01\x02rest"), Some(258));
        assert_eq!(sent(b"0000PACK\0\0\0\x02\0\0\x01"), None);
        assert_eq!(sent(b"0000"), None);
        assert_eq!(sent(b"0000KCAP\0\0\0\x02\0\0\x01\x02"), None);
    }

    #[test]
    fn commands_capabilities_and_the_place_of_the_pack_are_read() {
        let first = format!("{ZERO} {A} refs/heads/new\0 report-status side-band-64k agent=git/2.47.3");
        let head = [&*format!("shallow {B}"), &first, &format!("{A} {ZERO} refs/heads/PACK"), ""];
        let mut bytes = stream(&head);
        let pack_offset = bytes.len() as u64;
        bytes.extend(b"PACK\0\0\0\x02");
        let request = PushRequest::read(&bytes[..], BOUNDS).unwrap();
        assert_eq!(names(&request), ["refs/heads/new", "refs/heads/PACK"]);
        assert!(request.commands[0].old.is_zero() && request.commands[1].new.is_zero());
        assert!(request.capabilities.wants_report() && request.capabilities.has_side_band());
        assert!(!request.capabilities.has("report"));
        assert_eq!(request.capabilities.value("agent"), Some("git/2.47.3"));
        assert_eq!(request.pack_offset, pack_offset);
        assert!(request.has_pack() && request.is_shallow);
    }

    #[test]
    fn options_are_read_only_when_negotiated() {
        let command = |capabilities: &str| format!("{A} {ZERO} refs/heads/x\0{capabilities}\n");
        let request = read(&[&command("push-options"), "", "one\n", "two=2", ""]).unwrap();
        assert_eq!(request.options, [b"one".to_vec(), b"two=2".to_vec()]);
        assert!(!request.has_pack());
        let request = read(&[&command("atomic"), "", "one\n", ""]).unwrap();
        assert!(request.options.is_empty() && request.capabilities.has("atomic"));
    }

    #[test]
    fn a_lone_flush_is_a_probe() {
        let request = read(&[""]).unwrap();
        assert!(request.is_probe());
        assert_eq!(request.pack_offset, 4);
    }

    #[test]
    fn the_commands_of_a_signed_push_are_those_in_its_certificate() {
        let command = format!("{ZERO} {A} refs/heads/signed\n");
        let lines = [
            "push-cert\0report-status push-options\n",
            "certificate version 0.1\n",
            "pusher alice <alice@example.com> 1700000000 +0000\n",
            "push-option one\n",
            "\n",
            &command,
            "-----BEGIN SSH SIGNATURE-----\n",
            "not a command\n",
            "-----END SSH SIGNATURE-----\n",
            "push-cert-end\n",
            "",
            "one",
            "",
        ];
        let request = read(&lines).unwrap();
        assert!(request.is_signed);
        assert_eq!(names(&request), ["refs/heads/signed"]);
        assert_eq!(request.options, [b"one".to_vec()]);
        assert!(matches!(read(&lines[..6]), Err(PushError::Unfinished { .. })));
        let two_lines = format!("{ZERO} {A} refs/heads/one\n{ZERO} {B} refs/heads/two\n");
        let hidden = read(&["push-cert\0", "\n", &two_lines, "push-cert-end", ""]).unwrap();
        assert_eq!(names(&hidden), ["refs/heads/one", "refs/heads/two"]);
    }

    #[test]
    fn lines_that_are_no_commands_are_named_with_their_place() {
        let good = format!("{A} {B} refs/heads/x");
        for bad in [
            "hello",
            A,
            &*format!("{A} {B}"),
            &*format!("{A} {B} "),
            &*format!("{A}  {B} refs/heads/x"),
            &*format!("{A} {B}{B} refs/heads/x"),
            &*format!("shallow {A}x"),
            "ERR no\x1b[2J",
        ] {
            let error = read(&[&good, bad, ""]).unwrap_err();
            let PushError::NotACommand { at, line } = error else { panic!("{bad}: {error}") };
            assert_eq!(at, good.len() as u64 + 4);
            assert!(!line.contains('\x1b'));
        }
    }

    #[test]
    fn a_list_that_ends_too_early_or_exceeds_a_bound_is_refused() {
        let command = format!("{A} {B} refs/heads/x");
        let with_options = format!("{command}\0push-options");
        assert!(matches!(read(&[]), Err(PushError::Unfinished { at: 0 })));
        assert!(matches!(read(&[&command]), Err(PushError::Unfinished { .. })));
        assert!(matches!(read(&[&with_options, ""]), Err(PushError::Unfinished { .. })));
        let cut = &stream(&[&command])[..50];
        assert!(matches!(PushRequest::read(cut, BOUNDS), Err(PushError::Read(ReadError::Truncated { .. }))));
        assert!(read(&[&command, &command, &command, ""]).is_ok());
        let error = read(&[&command, &command, &command, &command, ""]).unwrap_err();
        assert!(matches!(error, PushError::TooMany { limit: 3 }) && error.is_limit());
        let long = "x".repeat(3000);
        let error = read(&[&with_options, "", &long, &long, ""]).unwrap_err();
        assert!(matches!(error, PushError::TooLong { limit: 4096 }) && error.is_limit());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_pass_the_pack(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            tail in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let _ = PushRequest::read(&bytes[..], BOUNDS);
            let mut whole = stream(&[&format!("{A} {B} refs/heads/x"), ""]);
            let pack_offset = whole.len() as u64;
            whole.extend(tail);
            let request = PushRequest::read(&whole[..], BOUNDS).unwrap();
            prop_assert_eq!(request.pack_offset, pack_offset);
        }
    }
}
