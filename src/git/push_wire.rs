//! A push in our own words: what a server offers, what of it is asked for, and the request that follows, without I/O.
//!
//! gitprotocol-pack(5), "Reference Update Request and Packfile Transfer": the commands, each with the value that the ref
//! must still have, a flush, the push options if there are any, then a pack unless everything is deleted. The server
//! compares the old values in the transaction that moves its refs, so a ref that somebody moved is never overwritten.
//! Nothing is asked for that was not offered (gitprotocol-capabilities(5)).

use crate::git::object_format::ObjectFormat;
use crate::git::pktline::{Packet, encode};
use crate::git::push_request::{Command, PushRequest};
use crate::model::push::RefUpdate;

/// How the gate names itself to a server that wants to know.
const AGENT: &str = concat!("agent=git/tidegate-", env!("CARGO_PKG_VERSION"));

/// The pack without objects, which ends in the hash of what stands before it.
const EMPTY_PACK: &[u8] = b"PACK\0\0\0\x02\0\0\0\0";
const EMPTY_PACK_SHA1: [u8; 20] = [
    0x02, 0x9d, 0x08, 0x82, 0x3b, 0xd8, 0xa8, 0xea, 0xb5, 0x10, 0xad, 0x6a, 0xc7, 0x5c, 0x82, 0x3c, 0xfd,
    0x3e, 0xd3, 0x1e,
];
const EMPTY_PACK_SHA256: [u8; 32] = [
    0x7e, 0xd8, 0x90, 0xd8, 0xa4, 0x57, 0x60, 0xf3, 0xee, 0xcf, 0x73, 0x04, 0x5b, 0x1d, 0x10, 0x47, 0x08,
    0x5a, 0xf4, 0x77, 0x6d, 0xc6, 0x83, 0xd7, 0x8e, 0xac, 0x82, 0x20, 0x3d, 0xf1, 0x99, 0x3f,
];

/// What a server says that it can do with pushes, as far as that matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushCapabilities {
    /// A report about each ref.
    pub report_status: bool,
    /// The report and what hooks say in one stream of 64 KiB packets.
    pub side_band: bool,
    /// No progress.
    pub quiet: bool,
    /// Refs may be deleted.
    pub delete_refs: bool,
    /// Several refs together or not at all.
    pub atomic: bool,
    /// Push options, which hooks are told.
    pub options: bool,
    /// Which hash names the objects may be said.
    pub object_format: bool,
    /// Who speaks may be said.
    pub agent: bool,
}

impl PushCapabilities {
    /// Takes in a word of the list that a server offers.
    pub(crate) fn take(&mut self, word: &[u8]) {
        let name = word.split(|&byte| byte == b'=').next().unwrap_or_default();
        let place = match name {
            b"report-status" => &mut self.report_status,
            b"side-band-64k" => &mut self.side_band,
            b"quiet" => &mut self.quiet,
            b"delete-refs" => &mut self.delete_refs,
            b"atomic" => &mut self.atomic,
            b"push-options" => &mut self.options,
            b"object-format" => &mut self.object_format,
            b"agent" => &mut self.agent,
            _ => return,
        };
        *place = true;
    }
}

/// Why a server cannot be asked for these updates, if it cannot.
#[must_use]
pub fn unfit(request: &PushRequest, offered: PushCapabilities) -> Option<&'static str> {
    if request.commands.len() > 1 && !offered.atomic {
        return Some("the upstream does not take several refs together or not at all any more");
    }
    if !request.options.is_empty() && !offered.options {
        return Some("the upstream takes no push options any more");
    }
    if request.commands.iter().any(|command| command.new.is_zero()) && !offered.delete_refs {
        return Some("the upstream deletes no refs");
    }
    let is_told = format_of(request) == ObjectFormat::default() || offered.object_format;
    (!is_told).then_some("the upstream does not name its objects by sha256")
}

/// What to ask of a server that offers this.
#[must_use]
pub fn request(updates: &[&RefUpdate], options: &[String], offered: PushCapabilities) -> PushRequest {
    let command = |update: &&RefUpdate| {
        let name = update.name.as_str().as_bytes().to_vec();
        Command { old: update.old.clone(), new: update.new.clone(), name }
    };
    let mut request = PushRequest {
        commands: updates.iter().map(command).collect(),
        options: options.iter().map(|option| option.clone().into_bytes()).collect(),
        ..PushRequest::default()
    };
    let format = format!("object-format={}", format_of(&request));
    let words = [
        ("report-status", offered.report_status),
        ("side-band-64k", offered.side_band),
        ("quiet", offered.quiet),
        ("atomic", offered.atomic && request.commands.len() > 1),
        ("push-options", offered.options && !request.options.is_empty()),
        (&format, offered.object_format),
        (AGENT, offered.agent),
    ];
    request.capabilities =
        words.into_iter().filter_map(|(word, is_asked)| is_asked.then_some(word)).collect();
    request
}

/// What stands before the pack.
///
/// # Panics
/// When a name or an option is longer than a packet: both came in one.
#[must_use]
pub fn head(request: &PushRequest) -> Vec<u8> {
    let mut out = Vec::new();
    let mut capabilities = format!("\0{}", request.capabilities).into_bytes();
    for Command { old, new, name } in &request.commands {
        let mut line = [format!("{old} {new} ").as_bytes(), name].concat();
        line.append(&mut capabilities);
        encode(Packet::Data(&line), &mut out);
    }
    encode(Packet::Flush, &mut out);
    if request.capabilities.has("push-options") {
        request.options.iter().for_each(|option| encode(Packet::Data(option), &mut out));
        encode(Packet::Flush, &mut out);
    }
    out
}

/// The pack that goes with a push which needs no object that the server has not.
#[must_use]
pub fn empty_pack(request: &PushRequest) -> Vec<u8> {
    match format_of(request) {
        ObjectFormat::Sha1 => [EMPTY_PACK, &EMPTY_PACK_SHA1].concat(),
        ObjectFormat::Sha256 => [EMPTY_PACK, &EMPTY_PACK_SHA256].concat(),
    }
}

/// The hash whose ids the commands have.
fn format_of(request: &PushRequest) -> ObjectFormat {
    let is_sha256 = |command: &Command| command.new.as_str().len() == ObjectFormat::Sha256.digits();
    if request.commands.iter().any(is_sha256) { ObjectFormat::Sha256 } else { ObjectFormat::Sha1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::push_request::Bounds;
    use crate::model::oid::Oid;
    use crate::model::push::RefName;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    /// As a git 2.47 offers it.
    fn offered(list: &str) -> PushCapabilities {
        let mut offered = PushCapabilities::default();
        list.split(' ').for_each(|word| offered.take(word.as_bytes()));
        offered
    }

    const ALL: &str = "report-status report-status-v2 delete-refs side-band-64k quiet atomic ofs-delta push-options \
                       object-format=sha1 agent=git/2.47.3";

    fn update(name: &str, old: char, new: char, digits: usize) -> RefUpdate {
        let oid = |digit: char| Oid::parse(digit.to_string().repeat(digits).as_bytes()).unwrap();
        RefUpdate { name: RefName::parse(name.as_bytes()).unwrap(), old: oid(old), new: oid(new) }
    }

    fn written(updates: &[RefUpdate], options: &[String], list: &str) -> String {
        let request = request(&updates.iter().collect::<Vec<_>>(), options, offered(list));
        String::from_utf8(head(&request)).unwrap()
    }

    #[test]
    fn a_push_is_written_as_git_writes_it() {
        let (a, b, zero) = ("a".repeat(40), "b".repeat(40), "0".repeat(40));
        let one = [update("refs/heads/x", 'a', 'b', 40)];
        let words = format!("report-status side-band-64k quiet object-format=sha1 {AGENT}");
        let line = format!("{a} {b} refs/heads/x\0{words}");
        assert_eq!(written(&one, &[], ALL), format!("{:04x}{line}0000", line.len() + 4));
        let two = [update("refs/heads/x", '0', 'b', 40), update("refs/heads/y", 'a', '0', 40)];
        let text = written(&two, &["ci.skip".to_owned()], ALL);
        let words =
            format!("report-status side-band-64k quiet atomic push-options object-format=sha1 {AGENT}");
        let first = format!("{zero} {b} refs/heads/x\0{words}");
        let expected =
            format!("{:04x}{first}0062{a} {zero} refs/heads/y0000000bci.skip0000", first.len() + 4);
        assert_eq!(text, expected);
    }

    #[test]
    fn nothing_is_asked_for_that_was_not_offered() {
        let two = [update("refs/heads/x", '0', 'b', 40), update("refs/heads/y", 'a', 'b', 40)];
        let text = written(&two, &["ci.skip".to_owned()], "");
        assert!(text.contains("refs/heads/x\x000062") && text.ends_with("refs/heads/y0000"), "{text}");
        for word in ["report-status", "side-band-64k", "quiet", "atomic", "push-options"] {
            let text = written(&two, &["ci.skip".to_owned()], word);
            assert!(text.contains(&format!("refs/heads/x\0{word}0062")), "{text}");
        }
        assert!(!written(&two, &[], "agents quietly object-format-2").contains("agent="));
    }

    #[test]
    fn what_the_server_does_not_do_is_not_tried() {
        let unfit = |updates: &[RefUpdate], options: &[String], list: &str| {
            let request = request(&updates.iter().collect::<Vec<_>>(), options, offered(list));
            super::unfit(&request, offered(list))
        };
        let (one, gone) = (update("refs/heads/x", 'a', 'b', 40), update("refs/heads/y", 'a', '0', 40));
        let options = ["ci.skip".to_owned()];
        assert_eq!(unfit(&[one.clone(), gone.clone()], &options, ALL), None);
        assert_eq!(unfit(std::slice::from_ref(&one), &[], ""), None);
        assert!(unfit(&[one.clone(), one.clone()], &[], "").unwrap().contains("together"));
        assert!(unfit(std::slice::from_ref(&one), &options, "atomic").unwrap().contains("push options"));
        assert!(unfit(&[gone], &[], "atomic").unwrap().contains("deletes no refs"));
        assert!(unfit(&[update("refs/heads/x", 'a', 'b', 64)], &[], "").unwrap().contains("sha256"));
    }

    #[test]
    fn an_empty_pack_ends_in_its_hash() {
        let request = |digits| request(&[&update("refs/heads/x", 'a', 'b', digits)], &[], offered(ALL));
        assert_eq!(empty_pack(&request(64))[12..], *Sha256::digest(EMPTY_PACK));
        assert_eq!(empty_pack(&request(40)).len(), 32);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            names in proptest::collection::vec("refs/heads/[a-z]{1,9}", 1..5),
            options in proptest::collection::vec("[a-z= ]{1,20}[a-z]", 0..3),
            flags in proptest::collection::vec(any::<bool>(), 10),
        ) {
            let words = ALL.split_whitespace().zip(flags).filter_map(|(word, is_set)| is_set.then_some(word));
            let offered = offered(&words.collect::<Vec<_>>().join(" "));
            let updates: Vec<RefUpdate> = names.iter().map(|name| update(name, 'a', 'b', 40)).collect();
            let request = request(&updates.iter().collect::<Vec<_>>(), &options, offered);
            let stream = head(&request);
            let read = PushRequest::read(&stream[..], Bounds { commands: 9, bytes: 9999 }).unwrap();
            prop_assert_eq!(&read.commands, &request.commands);
            prop_assert_eq!(&read.capabilities, &request.capabilities);
            prop_assert_eq!(read.options.len(), if offered.options { options.len() } else { 0 });
            prop_assert_eq!(read.pack_offset, stream.len() as u64);
        }
    }
}
