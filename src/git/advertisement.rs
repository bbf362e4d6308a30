//! What an upstream says of itself before anything is fetched or pushed: its refs and what it can do.
//!
//! The grammar is that of gitprotocol-pack(5), "Reference Discovery", versions 0 and 1, after the service line of
//! gitprotocol-http(5) where it came over HTTP. It is read strictly, as a stream and within [`Bounds`]: an upstream is not
//! trusted to end.
//!
//! Left out of the refs are peeled tags, the `.have` of borrowed objects, `HEAD`, and names that git would not fetch:
//! those that git-check-ref-format(1) refuses (git ignores them, too), and those that are not UTF-8.

use crate::git::head::Head;
use crate::git::object_format::ObjectFormat;
use crate::git::pktline::{Dialect, Packet, Packets, ReadError};
use crate::git::push_request::excerpt;
use crate::git::push_wire::PushCapabilities;
use crate::git::ref_format::is_fetchable;
use crate::git::service::Service;
use crate::git::wants::Unadvertised;
use crate::model::oid::Oid;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::Read;
use std::time::Duration;

/// What stands where the first ref would, when there is none.
const NO_REFS: &[u8] = b"capabilities^{}";

/// How much an advertisement may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Lines with refs, those left out included.
    pub refs: usize,
    /// Bytes.
    pub bytes: u64,
}

/// Ten times the refs of the largest public forges' repositories, with names of 200 bytes each.
pub const BOUNDS: Bounds = Bounds { refs: 1_000_000, bytes: 256 << 20 };

/// An advertisement, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertised {
    /// Every ref below `refs/` with its value.
    pub refs: BTreeMap<String, Oid>,
    /// What HEAD names, as far as that was said: by upload-pack, when that is there.
    pub head: Option<Head>,
    /// What can be done with pushes; said by receive-pack.
    pub push: PushCapabilities,
    /// What else can be fetched; said by upload-pack.
    pub unadvertised: Unadvertised,
    /// Which hash names the objects.
    pub format: ObjectFormat,
    /// How old it is, where whoever shows it has it from somebody else and says so beside it.
    pub age: Duration,
}

/// Why bytes are no advertisement.
#[derive(Debug, thiserror::Error)]
pub enum AdvertisementError {
    /// The packets themselves are wrong or end too early.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No service line, or that of the other service.
    #[error("the answer begins with {0:?} and not with the line of the service")]
    Service(String),
    /// The stream ends before its flush.
    #[error("the advertisement ends before its end")]
    Cut,
    /// A line outside of the grammar.
    #[error("the advertisement has the line {0:?}, which means nothing there")]
    Line(String),
    /// The other side gave an error instead.
    #[error("the other side said: {0}")]
    Said(String),
    /// A hash that this version does not know.
    #[error("its objects are named by {0:?}: only sha1 and sha256 are known")]
    UnknownHash(String),
    /// A ref that was named before.
    #[error("the ref {0:?} is advertised twice")]
    Twice(String),
    /// More refs than the bound.
    #[error("it has more than {0} refs")]
    TooMany(usize),
    /// More bytes than the bound.
    #[error("its list of refs is longer than {0} bytes")]
    TooLong(u64),
}

impl AdvertisementError {
    /// Whether the stream broke, so that the same question may be answered another time.
    #[must_use]
    pub const fn is_broken_off(&self) -> bool {
        match self {
            Self::Read(ReadError::Io { .. } | ReadError::Truncated { .. }) | Self::Cut => true,
            Self::Read(ReadError::Malformed { .. })
            | Self::Service(_)
            | Self::Line(_)
            | Self::Said(_)
            | Self::UnknownHash(_)
            | Self::Twice(_)
            | Self::TooMany(_)
            | Self::TooLong(_) => false,
        }
    }
}

/// Reads the advertisement that is the whole of `reader`, which should be buffered. With `banner`, the line of that service
/// stands before it.
///
/// # Errors
/// See [`AdvertisementError`].
pub fn read(
    reader: impl Read,
    banner: Option<Service>,
    bounds: Bounds,
) -> Result<Advertised, AdvertisementError> {
    // One byte more than the bound, so that a stream that is cut there is known from one that ends.
    let limited = reader.take(bounds.bytes.saturating_add(1));
    let mut lines = Lines { packets: Packets::new(limited, Dialect::Classic), bounds };
    if let Some(service) = banner {
        lines.expect_banner(service)?;
    }
    let mut reading = Reading { bounds, ..Reading::default() };
    while let Some(line) = lines.next_line()? {
        reading.take(line)?;
    }
    lines.expect_end()?;
    Ok(reading.advertised)
}

/// The packets, as lines.
struct Lines<R> {
    packets: Packets<R>,
    bounds: Bounds,
}

impl<R: Read> Lines<R> {
    /// `# service=NAME` and a flush.
    fn expect_banner(&mut self, service: Service) -> Result<(), AdvertisementError> {
        let line = self.next_line()?.unwrap_or_default();
        if let Some(words) = line.strip_prefix(b"ERR ") {
            return Err(AdvertisementError::Said(excerpt(words)));
        }
        if line.strip_prefix(b"# service=") != Some(service.name().as_bytes()) {
            return Err(AdvertisementError::Service(excerpt(line)));
        }
        match self.next_line()? {
            None => Ok(()),
            Some(line) => Err(AdvertisementError::Line(excerpt(line))),
        }
    }

    /// The next line without its end; `None` for a flush.
    fn next_line(&mut self) -> Result<Option<&[u8]>, AdvertisementError> {
        let limit = self.bounds.bytes;
        let is_over = self.packets.offset() > limit;
        match self.packets.next_packet() {
            Ok(Some(Packet::Data(line))) => Ok(Some(line.strip_suffix(b"\n").unwrap_or(line))),
            Ok(Some(Packet::Flush | Packet::Delim | Packet::ResponseEnd)) => Ok(None),
            Ok(None) if is_over => Err(AdvertisementError::TooLong(limit)),
            Ok(None) => Err(AdvertisementError::Cut),
            Err(ReadError::Truncated { at, has, .. }) if at + has as u64 > limit => {
                Err(AdvertisementError::TooLong(limit))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn expect_end(&mut self) -> Result<(), AdvertisementError> {
        if self.packets.offset() > self.bounds.bytes {
            return Err(AdvertisementError::TooLong(self.bounds.bytes));
        }
        match self.packets.next_packet()? {
            None => Ok(()),
            Some(Packet::Data(line)) => Err(AdvertisementError::Line(excerpt(line))),
            Some(Packet::Flush | Packet::Delim | Packet::ResponseEnd) => {
                Err(AdvertisementError::Line(String::new()))
            }
        }
    }
}

/// What has been understood so far.
struct Reading {
    advertised: Advertised,
    bounds: Bounds,
    count: usize,
    stage: Stage,
    /// HEAD stands for a ref, be it one that it may stand for or not.
    is_head_symbolic: bool,
}

/// Which lines may come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// `version 1`, or the first ref with the capabilities.
    Start,
    /// The first ref.
    Versioned,
    /// Further refs.
    Refs,
    /// Nothing but the borders of a shallow history.
    Borders,
}

impl Default for Reading {
    fn default() -> Self {
        let advertised = Advertised::default();
        Self { advertised, bounds: BOUNDS, count: 0, stage: Stage::Start, is_head_symbolic: false }
    }
}

impl Reading {
    fn take(&mut self, line: &[u8]) -> Result<(), AdvertisementError> {
        if let Some(words) = line.strip_prefix(b"ERR ") {
            return Err(AdvertisementError::Said(excerpt(words)));
        }
        match self.stage {
            Stage::Start if line == b"version 1" => self.stage = Stage::Versioned,
            Stage::Start | Stage::Versioned => self.take_first(line)?,
            Stage::Refs | Stage::Borders if is_border(line) => self.stage = Stage::Borders,
            Stage::Refs => self.take_ref(line)?,
            Stage::Borders => return Err(unknown(line)),
        }
        Ok(())
    }

    fn take_first(&mut self, line: &[u8]) -> Result<(), AdvertisementError> {
        let end = line.iter().position(|&byte| byte == 0).ok_or_else(|| unknown(line))?;
        self.take_capabilities(&line[end + 1..])?;
        self.stage = Stage::Refs;
        let first = &line[..end];
        match first.strip_suffix(NO_REFS).and_then(|oid| oid.strip_suffix(b" ")) {
            Some(oid) => {
                self.stage = Stage::Borders;
                self.oid(oid).filter(Oid::is_zero).map(|_| ()).ok_or_else(|| unknown(first))
            }
            None => self.take_ref(first),
        }
    }

    fn take_capabilities(&mut self, list: &[u8]) -> Result<(), AdvertisementError> {
        for word in list.split(|&byte| byte == b' ') {
            self.advertised.push.take(word);
            self.advertised.unadvertised.take(word);
            self.take_valued(word)?;
        }
        Ok(())
    }

    fn take_valued(&mut self, word: &[u8]) -> Result<(), AdvertisementError> {
        if let Some(name) = word.strip_prefix(b"object-format=") {
            let format = str::from_utf8(name).ok().and_then(ObjectFormat::parse);
            self.advertised.format = format.ok_or_else(|| AdvertisementError::UnknownHash(excerpt(name)))?;
        } else if let Some(name) = word.strip_prefix(b"symref=HEAD:") {
            self.is_head_symbolic = true;
            self.advertised.head = str::from_utf8(name).ok().and_then(Head::branch);
        }
        Ok(())
    }

    fn take_ref(&mut self, line: &[u8]) -> Result<(), AdvertisementError> {
        self.count += 1;
        if self.count > self.bounds.refs {
            return Err(AdvertisementError::TooMany(self.bounds.refs));
        }
        let space = line.iter().position(|&byte| byte == b' ').ok_or_else(|| unknown(line))?;
        let (oid, name) = (&line[..space], &line[space + 1..]);
        let oid = self.oid(oid).filter(|oid| !oid.is_zero()).ok_or_else(|| unknown(line))?;
        if name == b"HEAD" && !self.is_head_symbolic {
            self.advertised.head = Some(Head::Detached(oid));
            return Ok(());
        }
        let is_left_out = name == b"HEAD" || name == b".have" || name.ends_with(b"^{}");
        let Some(name) = str::from_utf8(name).ok().filter(|name| !is_left_out && is_fetchable(name)) else {
            return Ok(());
        };
        match self.advertised.refs.entry(name.to_owned()) {
            Entry::Vacant(place) => drop(place.insert(oid)),
            Entry::Occupied(_) => return Err(AdvertisementError::Twice(excerpt(name.as_bytes()))),
        }
        Ok(())
    }

    /// An id of the hash that the capabilities named.
    fn oid(&self, text: &[u8]) -> Option<Oid> {
        Oid::parse(text).filter(|oid| oid.as_str().len() == self.advertised.format.digits())
    }
}

fn is_border(line: &[u8]) -> bool {
    line.strip_prefix(b"shallow ").is_some_and(|oid| Oid::parse(oid).is_some())
}

fn unknown(line: &[u8]) -> AdvertisementError {
    AdvertisementError::Line(excerpt(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::pktline::encode;
    use proptest::prelude::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const ZERO: &str = "0000000000000000000000000000000000000000";

    fn oid(text: &str) -> Oid {
        Oid::parse(text.as_bytes()).unwrap()
    }

    /// Each text as a packet, `None` as a flush.
    fn packets(lines: &[Option<&str>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in lines {
            encode(line.map_or(Packet::Flush, |line| Packet::Data(line.as_bytes())), &mut bytes);
        }
        bytes
    }

    fn parse(lines: &[&str]) -> Result<Advertised, AdvertisementError> {
        let lines: Vec<Option<&str>> = lines.iter().copied().map(Some).chain([None]).collect();
        read(packets(&lines).as_slice(), None, BOUNDS)
    }

    #[test]
    fn refs_head_and_capabilities_are_found() {
        let first =
            format!("{A} HEAD\0side-band-64k symref=HEAD:refs/heads/main object-format=sha1 agent=git/2\n");
        let (main, tag) = (format!("{A} refs/heads/main\n"), format!("{A} refs/tags/v1\n"));
        let peeled = format!("{A} refs/tags/v1^{{}}\n");
        let border = format!("shallow {A}");
        let found = parse(&[&first, &main, &tag, &peeled, &border]).unwrap();
        let refs = ["refs/heads/main", "refs/tags/v1"].map(|name| (name.to_owned(), oid(A)));
        let head = Head::branch("refs/heads/main");
        let push =
            PushCapabilities { side_band: true, object_format: true, agent: true, ..Default::default() };
        assert_eq!(found, Advertised { refs: refs.into(), head, push, ..Advertised::default() });
        let push = format!("{A} .have\0report-status atomic push-options");
        let found = parse(&["version 1\n", &push, &main]).unwrap();
        let offered =
            PushCapabilities { report_status: true, atomic: true, options: true, ..Default::default() };
        assert_eq!((found.push, found.refs.len(), found.head), (offered, 1, None));
    }

    #[test]
    fn a_head_that_stands_for_no_ref_is_a_commit() {
        let main = format!("{A} refs/heads/main\n");
        let head_of = |first: &str| parse(&[&format!("{A} {first}"), &main]).unwrap().head;
        assert_eq!(head_of("HEAD\0agent=git/2"), Some(Head::Detached(oid(A))));
        assert_eq!(head_of("HEAD\0symref=HEAD:refs/tags/v1"), None);
        assert_eq!(head_of("refs/heads/a\0agent=git/2"), None);
    }

    #[test]
    fn an_empty_repository_has_no_refs() {
        let sha256 = format!("{} capabilities^{{}}\0object-format=sha256", "0".repeat(64));
        let found = parse(&[&sha256]).unwrap();
        assert!(found.refs.is_empty() && found.format == ObjectFormat::Sha256);
        assert_eq!(parse(&[]).unwrap(), Advertised::default(), "old gits say nothing at all");
    }

    #[test]
    fn the_service_line_stands_first_and_nothing_follows_the_end() {
        let banner = Some("# service=git-upload-pack\n");
        let first = format!("{ZERO} capabilities^{{}}\0");
        let good = packets(&[banner, None, Some(&first), None]);
        assert!(read(good.as_slice(), Some(Service::UploadPack), BOUNDS).is_ok());
        let other = read(good.as_slice(), Some(Service::ReceivePack), BOUNDS).unwrap_err();
        assert!(matches!(other, AdvertisementError::Service(_)), "{other}");
        let cut = read(&good[..good.len() - 4], Some(Service::UploadPack), BOUNDS).unwrap_err();
        assert!(matches!(cut, AdvertisementError::Cut) && cut.is_broken_off());
        let more = packets(&[banner, None, Some(&first), None, Some("x")]);
        let more = read(more.as_slice(), Some(Service::UploadPack), BOUNDS).unwrap_err();
        assert!(matches!(more, AdvertisementError::Line(_)));
        let page = read(&b"<html>"[..], Some(Service::UploadPack), BOUNDS).unwrap_err();
        assert!(!page.is_broken_off(), "{page}");
    }

    #[test]
    fn what_is_outside_of_the_grammar_is_refused() {
        let first = format!("{A} refs/heads/main\0");
        let lines = [
            A.to_owned(),
            format!("{A}  "),
            format!("{ZERO} refs/heads/x"),
            format!("{} refs/heads/x", "a".repeat(64)),
            "shallow x".to_owned(),
        ];
        for line in &lines[..] {
            let found = parse(&[&first, line]);
            let is_refused = matches!(found, Err(AdvertisementError::Line(_)));
            assert!(is_refused || line.ends_with("  "), "{line:?}: {found:?}");
        }
        assert!(matches!(parse(&[&first, &first[..first.len() - 1]]), Err(AdvertisementError::Twice(_))));
        assert!(matches!(parse(&[&format!("{A} refs/heads/x")]), Err(AdvertisementError::Line(_))));
        assert!(matches!(
            parse(&[&format!("{A} HEAD\0object-format=md5")]),
            Err(AdvertisementError::UnknownHash(_))
        ));
        let said = parse(&["ERR access \u{1b}[1mdenied"]).unwrap_err();
        assert_eq!(said.to_string(), "the other side said: access ?[1mdenied");
    }

    #[test]
    fn names_that_git_would_not_fetch_are_left_out() {
        let first = format!("{A} HEAD\0symref=HEAD:refs/heads/../../config");
        let names = [
            "refs/heads/a..b",
            "refs/heads/.x",
            "refs/heads/x.lock",
            "refs/../x",
            "heads/x",
            "refs/heads/a b",
        ];
        let lines: Vec<String> = names.iter().map(|name| format!("{A} {name}")).collect();
        let lines: Vec<&str> =
            std::iter::once(first.as_str()).chain(lines.iter().map(String::as_str)).collect();
        let found = parse(&lines).unwrap();
        assert!(found.refs.is_empty() && found.head.is_none(), "{found:?}");
    }

    #[test]
    fn bounds_hold() {
        let first = format!("{A} refs/heads/a\0");
        let second = format!("{A} refs/heads/b");
        let bytes = packets(&[Some(&first), Some(&second), None]);
        let within = |refs, bytes_max| {
            read(bytes.as_slice(), None, Bounds { refs, bytes: bytes_max }).map(|found| found.refs.len())
        };
        let length = bytes.len() as u64;
        assert_eq!(within(2, length).unwrap(), 2);
        assert!(matches!(within(1, length), Err(AdvertisementError::TooMany(1))));
        for bytes_max in 0..length {
            let error = within(2, bytes_max).unwrap_err();
            assert!(matches!(error, AdvertisementError::TooLong(_)), "{bytes_max}: {error}");
        }
    }

    /// As git prints it.
    fn print(advertised: &Advertised) -> Vec<u8> {
        let mut words = format!("object-format={}", advertised.format);
        for (is_set, word) in
            [(advertised.push.atomic, " atomic"), (advertised.push.options, " push-options")]
        {
            words.push_str(if is_set { word } else { "" });
        }
        if let Some(Head::Branch(head)) = &advertised.head {
            words.push_str(&format!(" symref=HEAD:{head}"));
        }
        let mut lines: Vec<String> =
            advertised.refs.iter().map(|(name, oid)| format!("{oid} {name}")).collect();
        if lines.is_empty() {
            lines.push(format!("{} capabilities^{{}}", "0".repeat(advertised.format.digits())));
        }
        lines[0] = format!("{}\0{words}", lines[0]);
        let lines: Vec<Option<&str>> = lines.iter().map(|line| Some(line.as_str())).chain([None]).collect();
        packets(&lines)
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(
            names in proptest::collection::btree_set("refs/(heads|tags)/[a-z0-9ü/]{0,5}[a-z]", 0..9),
            atomic: bool,
            options: bool,
            is_sha256: bool,
            head in proptest::option::of("refs/heads/[a-z]{1,9}"),
        ) {
            let names = names.into_iter().filter(|name| is_fetchable(name));
            let format = if is_sha256 { ObjectFormat::Sha256 } else { ObjectFormat::Sha1 };
            let value = oid(&"b".repeat(format.digits()));
            let refs = names.map(|name| (name, value.clone())).collect();
            let head = head.as_deref().and_then(Head::branch);
            let push = PushCapabilities { atomic, options, object_format: true, ..Default::default() };
            let advertised = Advertised { refs, head, push, format, ..Advertised::default() };
            let found = read(print(&advertised).as_slice(), None, BOUNDS).unwrap();
            prop_assert_eq!(found, advertised);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), lines: Vec<String>) {
            let _ = read(bytes.as_slice(), Some(Service::UploadPack), BOUNDS);
            let lines: Vec<Option<&str>> = lines.iter().map(|line| Some(line.as_str())).chain([None]).collect();
            let _ = read(packets(&lines).as_slice(), None, BOUNDS);
        }

        #[test]
        fn a_line_that_is_changed_somewhere_makes_it_not_panic(at in 0_usize..200, byte: u8) {
            let first = format!("{A} HEAD\0symref=HEAD:refs/heads/main atomic");
            let mut bytes = packets(&[Some(&first), Some(&format!("{A} refs/heads/main")), None]);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = read(bytes.as_slice(), None, Bounds { refs: 3, bytes: 300 });
        }
    }
}
