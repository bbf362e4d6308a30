//! What `git receive-pack` answers to a push, read instead of passed on: `gitprotocol-pack(5)`, "Report Status".
//!
//! The answer is kept by whoever decides what the client hears. It is followed as it comes, so that neither a long
//! report nor a flood of warnings about a pack is ever held in memory whole.

use crate::git::pktline::{Dialect, Malformed, PACKET_MAX, Packet, Parsed, parse};
use crate::git::push_request::{Command, PushRequest, excerpt};
use crate::model::text::sanitize;
use std::collections::VecDeque;

/// Longest report, in bytes: a thousand of the longest names and reasons.
const REPORT_MAX: usize = 8 << 20;

/// How many lines for people are kept, the last ones: that is where a failing git says why.
const REMARKS_MAX: usize = 40;

/// Longest line for people, in bytes.
const REMARK_MAX: usize = 500;

/// Why an answer could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// No pkt-lines.
    #[error("the answer of git receive-pack is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// A band that does not exist, or the one that says that all is lost.
    #[error("git receive-pack gave up: {0}")]
    Fatal(String),
    /// The report is longer than any can be.
    #[error("the report of git receive-pack is longer than {REPORT_MAX} bytes")]
    TooLong,
    /// It ends too early, or was not asked for.
    #[error("git receive-pack gave no whole report")]
    Unfinished,
    /// It is not about the push.
    #[error("the report of git receive-pack has the line {line:?} where one about {expected} belongs")]
    Unexpected {
        /// The start of the line.
        line: String,
        /// What should be there.
        expected: String,
    },
}

/// Done, or refused for a reason.
pub type Verdict = Result<(), String>;

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushAnswer {
    /// What became of the pack.
    pub unpack: Verdict,
    /// What became of each command, in the order of the request.
    pub verdicts: Vec<Verdict>,
    /// The last lines for people, sanitised.
    pub remarks: Vec<String>,
    /// Whether the client told the borders of its shallow history.
    pub is_shallow: bool,
}

impl PushAnswer {
    /// Whether everything was done.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.unpack.is_ok() && self.verdicts.iter().all(Result::is_ok)
    }

    /// Why the pack was refused, if it was: git's own words where it has some, else those of the report.
    #[must_use]
    pub fn refusal_of_pack(&self) -> Option<String> {
        let why = self.unpack.as_ref().err()?;
        let of_kind = |kind: &str| self.remarks.iter().rev().find_map(|line| line.strip_prefix(kind));
        let words = of_kind("error: ").or_else(|| of_kind("fatal: ")).unwrap_or(why);
        let hint =
            if self.is_shallow { " (the clone is shallow: run git fetch --unshallow first)" } else { "" };
        Some(format!("git refused the pack: {words}{hint}"))
    }
}

/// Reads an answer in slices of any size.
#[derive(Debug)]
pub struct AnswerReader {
    /// Packets of a side band carry the report, or the report's packets stand alone.
    in_band: bool,
    pending: Vec<u8>,
    report: Vec<u8>,
    remark: Vec<u8>,
    remarks: VecDeque<String>,
}

impl AnswerReader {
    /// A reader of the answer to `request`.
    #[must_use]
    pub fn new(request: &PushRequest) -> Self {
        Self {
            in_band: request.capabilities.has_side_band(),
            pending: Vec::new(),
            report: Vec::new(),
            remark: Vec::new(),
            remarks: VecDeque::new(),
        }
    }

    /// Reads on.
    ///
    /// # Errors
    /// When this is no answer to a push, or too long a one.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), AnswerError> {
        if !self.in_band {
            return self.report(bytes);
        }
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let mut rest = &pending[..];
        while let Parsed::Packet(packet, length) = parse(rest, Dialect::Classic)? {
            self.packet(packet)?;
            rest = &rest[length..];
        }
        debug_assert!(rest.len() < PACKET_MAX, "a whole packet has been read");
        self.pending = rest.to_vec();
        Ok(())
    }

    /// What was answered to the commands of `request`.
    ///
    /// # Errors
    /// When the report is not whole, or not about them.
    pub fn finish(mut self, request: &PushRequest) -> Result<PushAnswer, AnswerError> {
        self.end_remark();
        let mut lines = Lines { rest: &self.report };
        let unpack = lines.verdict("unpack ", "", "the pack")?;
        let verdicts =
            request.commands.iter().map(|command| lines.about(command)).collect::<Result<_, _>>()?;
        lines.end()?;
        Ok(PushAnswer { unpack, verdicts, remarks: self.remarks.into(), is_shallow: request.is_shallow })
    }

    fn packet(&mut self, packet: Packet<'_>) -> Result<(), AnswerError> {
        match packet {
            Packet::Data([1, data @ ..]) => self.report(data),
            Packet::Data([2, text @ ..]) => {
                self.remarks(text);
                Ok(())
            }
            Packet::Data(last) => Err(AnswerError::Fatal(excerpt(last.get(1..).unwrap_or_default()))),
            Packet::Flush | Packet::Delim | Packet::ResponseEnd => Ok(()),
        }
    }

    fn report(&mut self, data: &[u8]) -> Result<(), AnswerError> {
        if self.report.len() + data.len() > REPORT_MAX {
            return Err(AnswerError::TooLong);
        }
        self.report.extend_from_slice(data);
        Ok(())
    }

    /// A progress line returns to its start; only what it comes to in the end is of interest.
    fn remarks(&mut self, text: &[u8]) {
        for &byte in text {
            match byte {
                b'\n' => self.end_remark(),
                b'\r' => self.remark.clear(),
                byte if self.remark.len() < REMARK_MAX => self.remark.push(byte),
                _ => {}
            }
        }
    }

    fn end_remark(&mut self) {
        let line = sanitize(&String::from_utf8_lossy(&self.remark));
        self.remark.clear();
        if !line.is_empty() {
            self.remarks.push_back(line);
        }
        if self.remarks.len() > REMARKS_MAX {
            self.remarks.pop_front();
        }
    }
}

/// The packets of a report.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    fn about(&mut self, command: &Command) -> Result<Verdict, AnswerError> {
        let name = String::from_utf8_lossy(&command.name);
        self.verdict("ok ", &name, &name)
    }

    /// The next line, which is either `done` and `name`, or a refusal: `unpack WHY` for the pack, `ng NAME WHY` for a ref.
    fn verdict(&mut self, done: &str, name: &str, expected: &str) -> Result<Verdict, AnswerError> {
        let line = self.next()?.ok_or(AnswerError::Unfinished)?;
        let text = String::from_utf8_lossy(line);
        let unexpected = || AnswerError::Unexpected { line: excerpt(line), expected: sanitize(expected) };
        if name.is_empty() {
            let status = text.strip_prefix(done).ok_or_else(unexpected)?;
            return Ok(if status == "ok" { Ok(()) } else { Err(sanitize(status)) });
        }
        if text.strip_prefix(done) == Some(name) {
            return Ok(Ok(()));
        }
        let refused = text.strip_prefix("ng ").and_then(|rest| rest.strip_prefix(name)?.strip_prefix(' '));
        Ok(Err(sanitize(refused.ok_or_else(unexpected)?)))
    }

    fn end(&mut self) -> Result<(), AnswerError> {
        match self.next()? {
            None => Ok(()),
            Some(line) => {
                Err(AnswerError::Unexpected { line: excerpt(line), expected: "its end".to_owned() })
            }
        }
    }

    /// `None` at the flush.
    fn next(&mut self) -> Result<Option<&'a [u8]>, AnswerError> {
        match parse(self.rest, Dialect::Classic)? {
            Parsed::Needs(_) => Err(AnswerError::Unfinished),
            Parsed::Packet(packet, length) => {
                self.rest = &self.rest[length..];
                match packet {
                    Packet::Data(line) => Ok(Some(line.strip_suffix(b"\n").unwrap_or(line))),
                    Packet::Flush | Packet::Delim | Packet::ResponseEnd => Ok(None),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::pktline::encode;
    use crate::git::push_request::Bounds;
    use crate::git::report::answer;
    use crate::git::sideband::{Band, Width, encode_band};
    use proptest::prelude::*;

    fn request(capabilities: &str) -> PushRequest {
        let (old, new) = ("a".repeat(40), "b".repeat(40));
        let mut stream = Vec::new();
        for (name, words) in [("refs/heads/x", capabilities), ("refs/heads/y", "")] {
            encode(Packet::Data(format!("{old} {new} {name}\0{words}").as_bytes()), &mut stream);
        }
        encode(Packet::Flush, &mut stream);
        PushRequest::read(&stream[..], Bounds { commands: 9, bytes: 9999 }).unwrap()
    }

    fn read(request: &PushRequest, stream: &[u8], step: usize) -> Result<PushAnswer, AnswerError> {
        let mut reader = AnswerReader::new(request);
        stream.chunks(step).try_for_each(|slice| reader.feed(slice))?;
        reader.finish(request)
    }

    proptest! {
        #[test]
        fn an_answer_is_read_back_in_slices_of_any_size(
            step in 1_usize..200,
            in_band: bool,
            pack in proptest::option::of("[a-z][a-z ]{0,10}[a-z]"),
            first in proptest::option::of("[a-z][a-z ()]{0,30}[a-z]"),
        ) {
            let request = request(if in_band { "report-status side-band-64k" } else { "report-status" });
            let verdict = |command: &Command| match &first {
                Some(why) if command.name.ends_with(b"x") => Err(why.as_str()),
                Some(_) | None => Ok(()),
            };
            let stream = answer(&request, &["one", "two"], pack.as_deref().map_or(Ok(()), Err), verdict);
            let read = read(&request, &stream, step).unwrap();
            // A reason that is the word for success cannot be told from it.
            let refused = pack.filter(|why| why != "ok");
            prop_assert_eq!(read.is_accepted(), refused.is_none() && first.is_none());
            prop_assert_eq!(read.unpack.err(), refused);
            prop_assert_eq!(read.verdicts, [first.map_or(Ok(()), Err), Ok(())]);
            prop_assert_eq!(read.remarks.len(), if in_band { 2 } else { 0 });
        }
    }

    #[test]
    fn a_report_about_something_else_or_none_is_no_answer() {
        let plain = request("report-status");
        for stream in [
            &b""[..],
            b"0000",
            b"000eunpack ok\n0000",
            b"000eunpack ok\n0014ok refs/heads/x\n0014ok refs/heads/x\n0000",
            b"000eunpack ok\n0014ok refs/heads/x\n0014ok refs/heads/y\n",
            b"000eunpack ok\n0014ok refs/heads/x\n0014ok refs/heads/y\n0014ok refs/heads/z\n0000",
            b"000eunpack ok\n0014ok refs/heads/x\n0014ng refs/heads/y\n0000",
            b"zzzz",
        ] {
            assert!(read(&plain, stream, 7).is_err(), "{}", stream.escape_ascii());
        }
        let mut fatal = Vec::new();
        encode_band(Band::Fatal, b"no\x1b", Width::Large, &mut fatal);
        let error = read(&request("report-status side-band-64k"), &fatal, 3).unwrap_err();
        assert_eq!(error.to_string(), "git receive-pack gave up: no?");
    }

    #[test]
    fn the_reason_of_a_refused_pack_is_in_the_words_of_git_and_a_flood_is_not_kept() {
        let request = request("report-status side-band-64k");
        let mut stream = Vec::new();
        let flood = "warning: object 1: badTimezone\n".repeat(10_000);
        encode_band(Band::Progress, flood.as_bytes(), Width::Large, &mut stream);
        let words =
            b"Receiving:  1%\rReceiving: 50%\rerror: object 2: \x1b[31mtreeNotSorted\nfatal: fsck error\n";
        encode_band(Band::Progress, words, Width::Large, &mut stream);
        let refused = "index-pack abnormal exit";
        stream.extend(answer(&request, &[], Err(refused), |_| Err("unpacker error")));
        let answer = read(&request, &stream, 4096).unwrap();
        let sentence = answer.refusal_of_pack().unwrap();
        assert_eq!(sentence, "git refused the pack: object 2: ?[31mtreeNotSorted");
        assert_eq!((answer.unpack, answer.remarks.len()), (Err(refused.to_owned()), REMARKS_MAX));
    }
}
