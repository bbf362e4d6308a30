//! What a fetch of version 2 asks for (gitprotocol-v2(5), section `fetch`), in a form in which requests for the same bytes
//! are equal: no order, no doubles, and nothing about who asks.
//!
//! Only requests are understood whose answer is settled by the objects that they name: `done`, and no `have`. Whatever
//! depends on more, or is not known here, says so by a [`Bypass`], and git answers it for that client alone.

use crate::git::object_format::ObjectFormat;
use crate::git::wants::WANTS_MAX;
use crate::model::oid::Oid;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Why an answer is neither shared nor kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bypass {
    /// The setting `cache.packs` says so.
    Off,
    /// Version 0 or 1 of the protocol.
    Version,
    /// A round of a negotiation: what the client has is its own.
    Negotiation,
    /// The answer depends on what refs are called (`want-ref`, `deepen-not`, a filter by name).
    Refs,
    /// A feature that changes the form of the answer (`sideband-all`, `wait-for-done`, `packfile-uris`).
    Feature,
    /// Something that is not known here.
    Unknown,
    /// Tags are to come along, and what tags there are is not known without git.
    Tags,
    /// The repository is shallow, has grafts or borrows objects: what its objects reach may change.
    Repository,
    /// The disk has no room, or this process no descriptor.
    Room,
    /// The answer is known to be larger than all may be together.
    Large,
}

impl Bypass {
    /// The label in metrics and in the log.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Off => "bypass_off",
            Self::Version => "bypass_version",
            Self::Negotiation => "bypass_negotiation",
            Self::Refs => "bypass_refs",
            Self::Feature => "bypass_feature",
            Self::Unknown => "bypass_unknown",
            Self::Tags => "bypass_tags",
            Self::Repository => "bypass_repository",
            Self::Room => "bypass_room",
            Self::Large => "bypass_large",
        }
    }
}

/// Words without a value that shape the answer. What they mean is git's business; only whether they are there counts.
const FLAGS: [&[u8]; 5] = [INCLUDE_TAG, b"thin-pack", NO_PROGRESS, b"ofs-delta", b"deepen-relative"];

/// The one of [`FLAGS`] whose answer depends on refs.
const INCLUDE_TAG: &[u8] = b"include-tag";

/// The one of [`FLAGS`] without which there are lines to be shown beside the pack.
const NO_PROGRESS: &[u8] = b"no-progress";

/// What git-upload-pack(1) makes of words of a request when it has git-pack-objects(1) make the pack.
const PACK_OPTIONS: [(&[u8], &str); 3] =
    [(b"thin-pack", "--thin"), (b"ofs-delta", "--delta-base-offset"), (INCLUDE_TAG, "--include-tag")];

/// Longest filter that is read, in bytes: those of git's own clients are short.
const FILTER_MAX: usize = 256;

/// A request, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    wants: BTreeSet<Oid>,
    shallows: BTreeSet<Oid>,
    flags: BTreeSet<&'static [u8]>,
    /// The hash that the client says it uses.
    object_format: Option<Vec<u8>>,
    deepen: Option<u64>,
    deepen_since: Option<u64>,
    filter: Option<String>,
}

impl Recipe {
    /// The objects that are wanted.
    #[must_use]
    pub fn wants(&self) -> &BTreeSet<Oid> {
        &self.wants
    }

    /// Whether tags come along that point at what is sent.
    #[must_use]
    pub fn includes_tags(&self) -> bool {
        self.flags.contains(INCLUDE_TAG)
    }

    /// The options for git-pack-objects(1), where its pack of all that is wanted is the whole answer. `None` where an
    /// upload-pack has more to do: for shallow clients, for filters, to show progress, or to refuse a hash that a repository
    /// of `format` does not have.
    #[must_use]
    pub fn pack_options(&self, format: ObjectFormat) -> Option<Vec<&'static str>> {
        let Self { wants, shallows, flags, object_format, deepen, deepen_since, filter } = self;
        let is_all = shallows.is_empty() && deepen.is_none() && deepen_since.is_none() && filter.is_none();
        // Whoever says nothing means SHA-1 (gitprotocol-v2(5), object-format).
        let said = object_format.as_deref().unwrap_or(ObjectFormat::Sha1.name().as_bytes());
        // Of another hash's id it would think that it is a name, or a part of an id.
        let is_exact = wants.iter().all(|oid| oid.as_str().len() == format.digits());
        let is_plain = is_all && is_exact && flags.contains(NO_PROGRESS) && said == format.name().as_bytes();
        let options = PACK_OPTIONS.iter().filter(|(flag, _)| flags.contains(flag));
        is_plain.then(|| options.map(|(_, option)| *option).collect())
    }

    /// Adds all of it to `hash`, each part with its length.
    pub fn digest(&self, hash: &mut Sha256) {
        let mut part = |name: u8, value: &[u8]| {
            hash.update([name]);
            hash.update((value.len() as u64).to_be_bytes());
            hash.update(value);
        };
        self.wants.iter().for_each(|oid| part(b'w', oid.as_str().as_bytes()));
        self.shallows.iter().for_each(|oid| part(b's', oid.as_str().as_bytes()));
        self.flags.iter().for_each(|flag| part(b'f', flag));
        self.object_format.iter().for_each(|format| part(b'o', format));
        self.deepen.iter().for_each(|depth| part(b'd', &depth.to_be_bytes()));
        self.deepen_since.iter().for_each(|time| part(b't', &time.to_be_bytes()));
        self.filter.iter().for_each(|filter| part(b'l', filter.as_bytes()));
    }
}

/// Puts a recipe together from the lines of a request, in their order and without their ends.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    recipe: Recipe,
    is_done: bool,
    /// The first reason not to understand it; nothing after it is kept.
    bypass: Option<Bypass>,
}

impl Draft {
    /// Takes a line before the delimiter.
    pub(crate) fn capability(&mut self, line: &[u8]) {
        if let Some(format) = line.strip_prefix(b"object-format=") {
            let is_first = self.recipe.object_format.replace(format.to_vec()).is_none();
            self.require(is_first && format.len() <= FILTER_MAX, Bypass::Unknown);
        } else {
            // Who the client is changes nothing. An option for the server might.
            let is_known =
                [&b"command="[..], b"agent=", b"session-id="].iter().any(|key| line.starts_with(key));
            self.require(is_known, Bypass::Unknown);
        }
    }

    /// Takes a line behind the delimiter.
    pub(crate) fn argument(&mut self, line: &[u8]) {
        if self.bypass.is_some() {
            return;
        }
        let (word, value) = match line.iter().position(|byte| *byte == b' ') {
            Some(at) => (&line[..at], Some(&line[at + 1..])),
            None => (line, None),
        };
        match (word, value) {
            (b"done", None) => self.is_done = true,
            (b"want", Some(oid)) => self.keep(oid, |recipe| &mut recipe.wants),
            (b"shallow", Some(oid)) => self.keep(oid, |recipe| &mut recipe.shallows),
            (b"deepen", Some(value)) => self.number(value, |recipe| &mut recipe.deepen),
            (b"deepen-since", Some(value)) => self.number(value, |recipe| &mut recipe.deepen_since),
            (b"filter", Some(value)) => self.filter(value),
            (b"have", Some(_)) => self.refuse(Bypass::Negotiation),
            (b"want-ref" | b"deepen-not", Some(_)) => self.refuse(Bypass::Refs),
            (b"sideband-all" | b"wait-for-done", None) | (b"packfile-uris", Some(_)) => {
                self.refuse(Bypass::Feature);
            }
            (word, None) => match FLAGS.into_iter().find(|flag| *flag == word) {
                Some(flag) => drop(self.recipe.flags.insert(flag)),
                None => self.refuse(Bypass::Unknown),
            },
            (_, Some(_)) => self.refuse(Bypass::Unknown),
        }
    }

    /// The whole.
    pub(crate) fn finish(self) -> Result<Recipe, Bypass> {
        match self.bypass {
            Some(bypass) => Err(bypass),
            None if !self.is_done => Err(Bypass::Negotiation),
            None if self.recipe.wants.is_empty() => Err(Bypass::Unknown),
            None => Ok(self.recipe),
        }
    }

    fn keep(&mut self, oid: &[u8], set: fn(&mut Recipe) -> &mut BTreeSet<Oid>) {
        match Oid::parse(oid) {
            Some(oid) => drop(set(&mut self.recipe).insert(oid)),
            None => self.refuse(Bypass::Unknown),
        }
        let is_within = set(&mut self.recipe).len() <= WANTS_MAX;
        self.require(is_within, Bypass::Unknown);
    }

    fn number(&mut self, value: &[u8], field: fn(&mut Recipe) -> &mut Option<u64>) {
        match number(value) {
            Some(number) if field(&mut self.recipe).replace(number).is_none() => {}
            Some(_) | None => self.refuse(Bypass::Unknown),
        }
    }

    fn filter(&mut self, value: &[u8]) {
        match canonical_filter(value) {
            // Git joins several into one; its clients send one.
            Ok(filter) => {
                let is_first = self.recipe.filter.replace(filter).is_none();
                self.require(is_first, Bypass::Unknown);
            }
            Err(bypass) => self.refuse(bypass),
        }
    }

    fn require(&mut self, is_so: bool, otherwise: Bypass) {
        if !is_so {
            self.refuse(otherwise);
        }
    }

    fn refuse(&mut self, bypass: Bypass) {
        self.bypass.get_or_insert(bypass);
        self.recipe = Recipe::default();
    }
}

/// A filter (`--filter` of git-rev-list(1)) with its numbers written out, if what it leaves out is settled by the objects.
fn canonical_filter(text: &[u8]) -> Result<String, Bypass> {
    let text = str::from_utf8(text).ok().filter(|text| text.len() <= FILTER_MAX).ok_or(Bypass::Unknown)?;
    if let Some(parts) = text.strip_prefix("combine:") {
        let parts: Vec<_> = parts.split('+').map(canonical_part).collect::<Result<_, _>>()?;
        return Ok(format!("combine:{}", parts.join("+")));
    }
    canonical_part(text)
}

fn canonical_part(text: &str) -> Result<String, Bypass> {
    let (kind, value) = text.split_once(':').ok_or(Bypass::Unknown)?;
    match (kind, value) {
        ("blob", "none") => Ok(text.to_owned()),
        ("blob", limit) => {
            let limit = limit.strip_prefix("limit=").and_then(size).ok_or(Bypass::Unknown)?;
            Ok(format!("blob:limit={limit}"))
        }
        ("tree", depth) => Ok(format!("tree:{}", number(depth.as_bytes()).ok_or(Bypass::Unknown)?)),
        ("object", "type=blob" | "type=tree" | "type=commit" | "type=tag") => Ok(text.to_owned()),
        ("sparse", value) => match value.strip_prefix("oid=").map(|oid| Oid::parse(oid.as_bytes())) {
            Some(Some(oid)) => Ok(format!("sparse:oid={oid}")),
            // `main:file` is another blob tomorrow.
            Some(None) => Err(Bypass::Refs),
            None => Err(Bypass::Unknown),
        },
        _ => Err(Bypass::Unknown),
    }
}

/// A size as git writes it.
fn size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1 << 10),
        b'm' | b'M' => (&text[..text.len() - 1], 1 << 20),
        b'g' | b'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    number(digits.as_bytes())?.checked_mul(unit)
}

/// Decimal digits and nothing else: neither a sign nor what git would read as another base.
fn number(text: &[u8]) -> Option<u64> {
    let is_plain = text.iter().all(u8::is_ascii_digit) && (text.first() != Some(&b'0') || text == b"0");
    str::from_utf8(text).ok().filter(|_| is_plain)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    /// The recipe of a request with these lines, `done` apart.
    fn read(lines: &[&str]) -> Result<Recipe, Bypass> {
        let mut draft = Draft::default();
        draft.capability(b"command=fetch");
        let filled = lines.iter().map(|line| line.replace('A', A).replace('B', B));
        filled.for_each(|line| draft.argument(line.as_bytes()));
        draft.argument(b"done");
        draft.finish()
    }

    fn hash(recipe: &Recipe) -> Vec<u8> {
        let mut hash = Sha256::new();
        recipe.digest(&mut hash);
        hash.finalize().to_vec()
    }

    #[test]
    fn order_and_doubles_and_the_client_s_name_make_no_difference() {
        let one = read(&["thin-pack", "want A", "want B", "ofs-delta"]).unwrap();
        let mut draft = Draft::default();
        for line in ["command=fetch", "agent=git/2.47", "session-id=x"] {
            draft.capability(line.as_bytes());
        }
        for line in [format!("want {B}"), format!("want {}", A.to_uppercase()), format!("want {B}")] {
            draft.argument(line.as_bytes());
        }
        ["ofs-delta", "thin-pack", "done"].iter().for_each(|line| draft.argument(line.as_bytes()));
        let other = draft.finish().unwrap();
        assert_eq!(one, other);
        assert_eq!(hash(&one), hash(&other));
    }

    #[test]
    fn only_what_is_a_pack_and_nothing_else_is_left_to_pack_objects() {
        let options = |lines: &[&str], format| read(lines).unwrap().pack_options(format);
        let plain = ["want A", "no-progress"];
        assert_eq!(options(&plain, ObjectFormat::Sha1), Some(vec![]));
        assert_eq!(options(&plain, ObjectFormat::Sha256), None, "nothing said means SHA-1");
        let all = ["want A", "include-tag", "ofs-delta", "no-progress", "thin-pack"];
        let found = options(&all, ObjectFormat::Sha1);
        assert_eq!(found, Some(vec!["--thin", "--delta-base-offset", "--include-tag"]));
        assert_eq!(options(&["want A"], ObjectFormat::Sha1), None, "there is progress to be shown");
        for more in ["shallow B", "deepen 1", "deepen-since 1", "filter blob:none"] {
            assert_eq!(options(&[&plain[..], &[more]].concat(), ObjectFormat::Sha1), None, "{more}");
        }
        let of = |format: ObjectFormat, digits: usize, served| {
            let mut draft = Draft::default();
            draft.capability(format!("object-format={format}").as_bytes());
            let want = format!("want {}", "a".repeat(digits));
            [&want, "no-progress", "done"].iter().for_each(|line| draft.argument(line.as_bytes()));
            draft.finish().unwrap().pack_options(served)
        };
        let (sha1, sha256) = (ObjectFormat::Sha1, ObjectFormat::Sha256);
        assert_eq!(of(sha256, 64, sha256), Some(vec![]));
        assert_eq!(of(sha256, 64, sha1), None, "git refuses it");
        assert_eq!(of(sha256, 40, sha256), None, "git may take it for a part of an id");
        assert_eq!(of(sha1, 64, sha1), None, "git may take it for a branch");
    }

    #[test]
    fn whatever_shapes_the_answer_makes_another_recipe() {
        let requests: [&[&str]; 16] = [
            &["want A"],
            &["want B"],
            &["want A", "want B"],
            &["want A", "shallow B"],
            &["want A", "thin-pack"],
            &["want A", "ofs-delta"],
            &["want A", "no-progress"],
            &["want A", "include-tag"],
            &["want A", "deepen 1"],
            &["want A", "deepen 1", "deepen-relative"],
            &["want A", "deepen-since 1"],
            &["want A", "filter blob:none"],
            &["want A", "filter blob:limit=1"],
            &["want A", "filter tree:0"],
            &["want A", "filter combine:blob:none+tree:0"],
            &["want A", "filter sparse:oid=B"],
        ];
        let hashes: BTreeSet<_> = requests.iter().map(|lines| hash(&read(lines).unwrap())).collect();
        assert_eq!(hashes.len(), requests.len());
        let mut draft = Draft::default();
        draft.capability(b"object-format=sha1");
        draft.argument(format!("want {A}").as_bytes());
        draft.argument(b"done");
        assert!(!hashes.contains(&hash(&draft.finish().unwrap())));
    }

    #[test]
    fn a_filter_is_the_same_however_its_numbers_are_written() {
        let of = |filter: &str| read(&["want A", &format!("filter {filter}")]);
        assert_eq!(of("blob:limit=1k"), of("blob:limit=1024"));
        assert_ne!(of("blob:limit=1k"), of("blob:limit=1m"));
    }

    #[test]
    fn what_depends_on_more_than_the_objects_that_it_names_is_git_s_to_answer() {
        let cases: [(&[&str], Bypass); 15] = [
            (&["want A", "have B"], Bypass::Negotiation),
            (&["want-ref refs/heads/main"], Bypass::Refs),
            (&["want A", "deepen-not main"], Bypass::Refs),
            (&["want A", "filter sparse:oid=main:list"], Bypass::Refs),
            (&["want A", "sideband-all"], Bypass::Feature),
            (&["want A", "wait-for-done"], Bypass::Feature),
            (&["want A", "packfile-uris https"], Bypass::Feature),
            (&["want A", "thin-pack yes"], Bypass::Unknown),
            (&["want A", "later"], Bypass::Unknown),
            (&["want A", "deepen 0x1"], Bypass::Unknown),
            (&["want A", "deepen 1", "deepen 1"], Bypass::Unknown),
            (&["want A", "filter blob:none", "filter tree:0"], Bypass::Unknown),
            (&["want A", "filter sparse:path=x"], Bypass::Unknown),
            (&["want main"], Bypass::Unknown),
            (&[], Bypass::Unknown),
        ];
        for (lines, bypass) in cases {
            assert_eq!(read(lines), Err(bypass), "{lines:?}");
        }
        let mut draft = Draft::default();
        draft.argument(format!("want {A}").as_bytes());
        assert_eq!(draft.finish(), Err(Bypass::Negotiation), "without done");
        let mut draft = Draft::default();
        draft.capability(b"server-option=x");
        draft.argument(format!("want {A}").as_bytes());
        draft.argument(b"done");
        assert_eq!(draft.finish(), Err(Bypass::Unknown));
    }

    proptest! {
        #[test]
        fn no_lines_make_it_panic(lines in proptest::collection::vec("(want|filter|deepen|shallow|have)? ?.{0,50}", 0..9)) {
            let mut draft = Draft::default();
            for line in lines {
                draft.capability(line.as_bytes());
                draft.argument(line.as_bytes());
            }
            let _ = draft.finish();
        }
    }
}
