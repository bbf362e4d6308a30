//! The command `ls-refs` of version 2 (gitprotocol-v2(5)): what a request asks, and any answer from one whole list.
//!
//! The list is what git itself says to a request for everything: every ref that is not hidden, with what it stands for and
//! what its tag is peeled to. Any other request asks for less of the same lines, in the same order, so its answer is cut out
//! of them, byte for byte as git would give it. A request with anything that is not known here is left to git.

use crate::git::object_format::ObjectFormat;
use crate::git::pktline::{Dialect, HEADER, Packet, Parsed, encode, parse};
use std::ops::Range;

/// Prefixes of one request, and their bytes, that are looked at; clients send one for each ref that they name.
const PREFIXES_MAX: usize = 1000;
const PREFIX_BYTES_MAX: usize = 64 << 10;

/// What stands in the place of an object's name where there is none yet.
const UNBORN: &[u8] = b"unborn";

/// What a request asks for. Equal ones have equal answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Query {
    peel: bool,
    symrefs: bool,
    unborn: bool,
    /// Sorted, none of them the beginning of another; empty for all refs.
    prefixes: Vec<Vec<u8>>,
}

impl Query {
    /// What its prefixes take in memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.prefixes.iter().map(|prefix| prefix.len() + size_of::<Vec<u8>>()).sum()
    }
}

/// The request for everything, of a repository that names objects by `format`.
#[must_use]
pub fn everything(format: ObjectFormat) -> Vec<u8> {
    let mut request = Vec::new();
    encode(Packet::Data(b"command=ls-refs\n"), &mut request);
    encode(Packet::Data(format!("object-format={format}\n").as_bytes()), &mut request);
    encode(Packet::Delim, &mut request);
    for argument in ["peel\n", "symrefs\n", "unborn\n"] {
        encode(Packet::Data(argument.as_bytes()), &mut request);
    }
    encode(Packet::Flush, &mut request);
    request
}

/// A request as it is read, a line at a time.
#[derive(Debug, Default)]
pub struct Reading {
    query: Query,
    prefix_bytes: usize,
    format: Option<ObjectFormat>,
    is_odd: bool,
}

impl Reading {
    /// Takes in a line, without its end, that stands before the arguments: the command or a capability.
    pub fn take_capability(&mut self, line: &[u8]) {
        let (name, value) = match line.iter().position(|&byte| byte == b'=') {
            Some(end) => (&line[..end], Some(&line[end + 1..])),
            None => (line, None),
        };
        match (name, value) {
            (b"command", _) | (b"agent" | b"server-option", _) => {}
            (b"object-format", Some(value)) if self.format.is_none() => {
                self.format = str::from_utf8(value).ok().and_then(ObjectFormat::parse);
                self.is_odd |= self.format.is_none();
            }
            _ => self.is_odd = true,
        }
        self.is_odd |= has_control(line);
    }

    /// Takes in an argument without its end.
    pub fn take_argument(&mut self, line: &[u8]) {
        match line {
            b"peel" => self.query.peel = true,
            b"symrefs" => self.query.symrefs = true,
            b"unborn" => self.query.unborn = true,
            _ => match line.strip_prefix(b"ref-prefix ") {
                Some(prefix) => self.take_prefix(prefix),
                None => self.is_odd = true,
            },
        }
        self.is_odd |= has_control(line);
    }

    fn take_prefix(&mut self, prefix: &[u8]) {
        self.prefix_bytes += prefix.len();
        if self.query.prefixes.len() < PREFIXES_MAX && self.prefix_bytes <= PREFIX_BYTES_MAX {
            self.query.prefixes.push(prefix.to_vec());
        } else {
            self.is_odd = true;
        }
    }

    /// What it asks for of a repository that names objects by `format`; `None` where that is git's to say.
    #[must_use]
    pub fn query(&self, format: ObjectFormat) -> Option<Query> {
        let is_answered = !self.is_odd && self.format.unwrap_or_default() == format;
        is_answered.then(|| Query { prefixes: least(self.query.prefixes.clone()), ..self.query.clone() })
    }
}

/// Git reads lines as texts of C, which end at a NUL; what is in one that is no text is not worth a second opinion.
fn has_control(line: &[u8]) -> bool {
    line.iter().any(u8::is_ascii_control)
}

/// The prefixes without those that another one begins; none at all where one of them begins everything.
fn least(mut prefixes: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    prefixes.sort_unstable();
    prefixes.dedup_by(|longer, kept| longer.starts_with(kept));
    prefixes.retain(|prefix| !prefix.is_empty());
    prefixes
}

/// All that git says of the refs of a repository.
#[derive(Debug)]
pub struct RefList {
    /// Its packets.
    bytes: Box<[u8]>,
    /// Where each line is in them, in their order: `HEAD` first, if it is there, and the others by their names.
    lines: Box<[Line]>,
}

/// `OID NAME[ symref-target:REF][ peeled:OID]`, by the places where its parts end.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// After the digits of its packet.
    start: u32,
    name: u32,
    name_end: u32,
    target_end: u32,
    /// Before the end of the line.
    end: u32,
}

impl RefList {
    /// Understands what git said to a request for everything; `None` where it is something else.
    #[must_use]
    pub fn parse(said: Vec<u8>) -> Option<Self> {
        let mut lines = Vec::new();
        let mut at = 0;
        loop {
            let Ok(Parsed::Packet(packet, length)) = parse(&said[at..], Dialect::V2) else { return None };
            match packet {
                Packet::Data(line) => lines.push(Line::parse(line, at + HEADER)?),
                Packet::Flush => {
                    at += length;
                    break;
                }
                Packet::Delim | Packet::ResponseEnd => return None,
            }
            at += length;
        }
        let list = Self { bytes: said.into(), lines: lines.into() };
        (at == list.bytes.len() && list.is_sorted()).then_some(list)
    }

    /// What it takes in memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.lines)
    }

    /// What git would answer to `query`, packets and all.
    #[must_use]
    pub fn answer(&self, query: &Query) -> Vec<u8> {
        let mut out = Vec::new();
        for line in self.places(query).into_iter().flat_map(|place| &self.lines[place]) {
            self.write(line, query, &mut out);
        }
        encode(Packet::Flush, &mut out);
        out
    }

    /// Where the lines are that a query asks for, in their order.
    fn places(&self, query: &Query) -> Vec<Range<usize>> {
        let named = self.heads();
        // The empty beginning is that of all names.
        let all = [Vec::new()];
        let prefixes = if query.prefixes.is_empty() { &all[..] } else { &query.prefixes };
        let is_head_wanted = prefixes.iter().any(|prefix| b"HEAD".starts_with(prefix));
        let heads = if is_head_wanted { 0..named } else { 0..0 };
        let others = prefixes.iter().map(|prefix| self.below(prefix, named));
        std::iter::once(heads).chain(others).collect()
    }

    /// The lines from `from` on whose names begin with `prefix`.
    fn below(&self, prefix: &[u8], from: usize) -> Range<usize> {
        let lines = &self.lines[from..];
        let start = lines.partition_point(|line| self.name(line) < prefix);
        let count = lines[start..].partition_point(|line| self.name(line).starts_with(prefix));
        from + start..from + start + count
    }

    fn write(&self, line: &Line, query: &Query, out: &mut Vec<u8>) {
        if self.is_unborn(line) && !(query.unborn && query.symrefs) {
            return;
        }
        let target = if query.symrefs { line.name_end..line.target_end } else { 0..0 };
        let peeled = if query.peel { line.target_end..line.end } else { 0..0 };
        let parts = [line.start..line.name_end, target, peeled].map(|part| self.part(part));
        let length = parts.iter().map(|part| part.len()).sum::<usize>() + HEADER + 1;
        out.extend(format!("{length:04x}").as_bytes());
        parts.iter().for_each(|part| out.extend_from_slice(part));
        out.push(b'\n');
    }

    fn part(&self, part: Range<u32>) -> &[u8] {
        &self.bytes[part.start as usize..part.end as usize]
    }

    fn name(&self, line: &Line) -> &[u8] {
        self.part(line.name..line.name_end)
    }

    fn is_unborn(&self, line: &Line) -> bool {
        self.part(line.start..line.name).starts_with(UNBORN)
    }

    /// How many lines are about `HEAD`.
    fn heads(&self) -> usize {
        self.lines.iter().take_while(|line| self.name(line) == b"HEAD").count()
    }

    /// Whether the lines are in the order that they are searched by.
    fn is_sorted(&self) -> bool {
        let heads = self.heads();
        let others = &self.lines[heads..];
        let is_in_place = |line: &Line| self.name(line).starts_with(b"refs/") && !self.is_unborn(line);
        heads <= 1 && others.iter().all(is_in_place) && others.is_sorted_by_key(|line| self.name(line))
    }
}

impl Line {
    /// Reads a line whose first byte is at `start` of the whole.
    fn parse(line: &[u8], start: usize) -> Option<Self> {
        let line = line.strip_suffix(b"\n")?;
        let mut words = line.split(|&byte| byte == b' ');
        let (value, name) = (words.next()?, words.next()?);
        let is_value = value == UNBORN || matches!(value.len(), 40 | 64);
        let name_end = value.len() + 1 + name.len();
        let (mut target_end, mut end) = (name_end, name_end);
        for word in words {
            let is_target = word.starts_with(b"symref-target:") && end == name_end;
            let is_peeled = word.starts_with(b"peeled:") && end == target_end;
            end += 1 + word.len();
            match (is_target, is_peeled) {
                (true, _) => target_end = end,
                (false, true) => {}
                (false, false) => return None,
            }
        }
        let at = |offset: usize| u32::try_from(start + offset).ok();
        let line = Self {
            start: at(0)?,
            name: at(value.len() + 1)?,
            name_end: at(name_end)?,
            target_end: at(target_end)?,
            end: at(end)?,
        };
        is_value.then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn packets<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
        let mut out = Vec::new();
        lines.into_iter().for_each(|line| encode(Packet::Data(format!("{line}\n").as_bytes()), &mut out));
        encode(Packet::Flush, &mut out);
        out
    }

    fn text(lines: &[&str]) -> Vec<String> {
        lines
            .iter()
            .map(|line| line.replace("A ", &format!("{A} ")).replace(":B", &format!(":{B}")))
            .collect()
    }

    fn list(lines: &[&str]) -> Option<RefList> {
        RefList::parse(packets(text(lines).iter().map(String::as_str)))
    }

    fn query(arguments: &[&str]) -> Query {
        let mut reading = Reading::default();
        arguments.iter().for_each(|line| reading.take_argument(line.as_bytes()));
        reading.query(ObjectFormat::Sha1).unwrap()
    }

    #[track_caller]
    fn assert_answer(list: &RefList, arguments: &[&str], expected: &[&str]) {
        let expected = packets(text(expected).iter().map(String::as_str));
        let answer = list.answer(&query(arguments));
        assert_eq!(String::from_utf8_lossy(&answer), String::from_utf8_lossy(&expected), "{arguments:?}");
    }

    #[test]
    fn what_is_not_asked_for_is_left_out_of_each_line() {
        let all = ["A HEAD symref-target:refs/heads/main", "A refs/heads/main", "A refs/tags/v1 peeled:B"];
        let list = list(&all).unwrap();
        assert_answer(&list, &["peel", "symrefs", "unborn"], &all);
        assert_answer(&list, &[], &["A HEAD", "A refs/heads/main", "A refs/tags/v1"]);
        assert_answer(&list, &["peel"], &["A HEAD", all[1], all[2]]);
        assert_answer(&list, &["symrefs"], &[all[0], all[1], "A refs/tags/v1"]);
        assert_answer(&list, &["symrefs", "ref-prefix HEAD"], &all[..1]);
    }

    #[test]
    fn prefixes_choose_lines_and_each_comes_once() {
        let all = ["A HEAD", "A refs/heads/a", "A refs/heads/ab", "A refs/heads/b", "A refs/tags/a"];
        let list = list(&all).unwrap();
        assert_answer(&list, &["ref-prefix refs/heads/a"], &all[1..3]);
        assert_answer(&list, &["ref-prefix refs/heads/ab", "ref-prefix refs/heads/a"], &all[1..3]);
        assert_answer(&list, &["ref-prefix refs/tags/", "ref-prefix H"], &[all[0], all[4]]);
        assert_answer(&list, &["ref-prefix "], &all);
        assert_answer(&list, &["ref-prefix refs/heads/", "ref-prefix "], &all);
        assert_answer(&list, &["ref-prefix HEADS", "ref-prefix refs/heads/abc"], &[]);
    }

    #[test]
    fn a_head_without_a_commit_is_told_to_those_who_ask_for_it() {
        let list = list(&["unborn HEAD symref-target:refs/heads/main"]).unwrap();
        assert_answer(&list, &["unborn", "symrefs"], &["unborn HEAD symref-target:refs/heads/main"]);
        for arguments in [&["unborn"][..], &["symrefs", "peel"], &["unborn", "symrefs", "ref-prefix refs/"]] {
            assert_answer(&list, arguments, &[]);
        }
    }

    #[test]
    fn what_is_no_list_in_its_order_is_not_taken_for_one() {
        assert!(list(&[]).is_some() && list(&["A refs/b"]).is_some());
        let odd: [&[&str]; 8] = [
            &["A refs/b", "A refs/a"],
            &["A refs/a", "A HEAD"],
            &["A HEAD", "A HEAD"],
            &["A refs/a peeled:B symref-target:refs/b"],
            &["A refs/a other:B"],
            &["A refs/a peeled:B peeled:B"],
            &["A"],
            &["what refs/a"],
        ];
        for lines in odd {
            assert!(list(lines).is_none(), "{lines:?}");
        }
        let good = packets([format!("{A} refs/a").as_str()]);
        for bytes in [&good[..good.len() - 1], &[&good[..], b"0000"].concat(), b"0001", b"0009ERR x"] {
            assert!(RefList::parse(bytes.to_vec()).is_none(), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn requests_that_ask_for_the_same_are_equal_and_odd_ones_are_left_to_git() {
        let same = query(&["ref-prefix refs/heads/", "peel", "ref-prefix refs/heads/a"]);
        assert_eq!(same, query(&["peel", "ref-prefix refs/heads/", "peel"]));
        assert_ne!(same, query(&["ref-prefix refs/heads/"]));
        let is_left = |capabilities: &[&str], arguments: &[&str]| {
            let mut reading = Reading::default();
            capabilities.iter().for_each(|line| reading.take_capability(line.as_bytes()));
            arguments.iter().for_each(|line| reading.take_argument(line.as_bytes()));
            reading.query(ObjectFormat::Sha1).is_none()
        };
        assert!(!is_left(
            &["command=ls-refs", "agent=x", "object-format=sha1", "server-option=y"],
            &["peel"]
        ));
        for capability in ["object-format=sha256", "object-format=md5", "object-format", "session-id=1", ""] {
            assert!(is_left(&[capability], &[]), "{capability}");
        }
        assert!(is_left(&["object-format=sha1", "object-format=sha1"], &[]));
        for argument in ["", "peels", "ref-prefix", "ref-prefix refs/\0x", "unborn "] {
            assert!(is_left(&[], &[argument]), "{argument:?}");
        }
        assert!(is_left(&[], &vec!["ref-prefix refs/a"; PREFIXES_MAX + 1]));
        assert!(is_left(&[], &[&format!("ref-prefix {}", "x".repeat(PREFIX_BYTES_MAX + 1))]));
        let mut plain = Reading::default();
        plain.take_argument(b"peel");
        assert!(plain.query(ObjectFormat::Sha256).is_none(), "without a word it is SHA-1");
    }

    proptest! {
        #[test]
        fn an_answer_has_the_lines_that_a_prefix_begins_and_no_others(
            names in proptest::collection::btree_set("refs/[ab]{1,3}(/[ab]{1,2})?", 0..20),
            prefixes in proptest::collection::vec("(refs/)?[ab/]{0,4}|H|HEAD", 0..4),
        ) {
            let lines = |is_chosen: &dyn Fn(&str) -> bool| {
                let names = std::iter::once("HEAD").chain(names.iter().map(String::as_str));
                let chosen = names.filter(|name| is_chosen(name)).map(|name| format!("{A} {name}"));
                packets(chosen.collect::<Vec<_>>().iter().map(String::as_str))
            };
            let list = RefList::parse(lines(&|_| true)).unwrap();
            let arguments: Vec<String> = prefixes.iter().map(|prefix| format!("ref-prefix {prefix}")).collect();
            let query = query(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
            let is_chosen = |name: &str| prefixes.is_empty() || prefixes.iter().any(|it| name.starts_with(it));
            prop_assert_eq!(list.answer(&query), lines(&is_chosen));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
            let _ = RefList::parse(bytes.clone());
            let _ = RefList::parse(packets([String::from_utf8_lossy(&bytes).as_ref()]));
        }
    }
}
