//! What gates tell each other and others: versions of repositories, and events.
//!
//! A publisher is an [`Incarnation`], and not a machine: a wiped disk or a second container of the same name is another one.
//! It numbers the changes that it made to a repository from 1. A change is applied by its number, and never added, so that
//! a lost reply or a replay counts nothing twice; the version of a repository is the sum of all publishers' numbers.

use super::name::RepoName;
use super::oid::Oid;
use super::push::{PushState, PushView};
use super::upstream::UpstreamUrl;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// The digits of an incarnation: 128 bits.
const INCARNATION_DIGITS: usize = 32;
/// The digits of a digest of refs: SHA-256.
const DIGEST_DIGITS: usize = 64;
/// The longest key, in bytes: an upstream's address with a repository's name behind it.
const KEY_BYTES_MAX: usize = 4096;
/// What may stand at the end of a repository's address, and not of its key.
const SUFFIX: &str = ".git";
/// The longest name of a sink, in bytes: it labels a metric and a thread.
const SINK_BYTES_MAX: usize = 64;

/// The highest number of a change: beyond it a reader whose numbers are floating, as those of Lua and JavaScript are, does not
/// tell two of them apart. A thousand changes a second take 285,000 years to get there.
pub const SEQ_MAX: u64 = (1 << 53) - 1;

/// Whether this may be the number of a change, which somebody else says.
#[must_use]
pub const fn is_seq(number: u64) -> bool {
    1 <= number && number <= SEQ_MAX
}

/// Who publishes: 128 random bits made with a database, as 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Incarnation(String);

/// How the fleet calls a repository: the address of its upstream with the path there, or, of a hosted one,
/// `INCARNATION/NAME`. Without `.git`, so that both spellings are one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepoKey(String);

/// SHA-256 over the lines `REF SP OID LF` of a repository's refs in the order of their bytes, as 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RefDigest(String);

/// A text that is none of these.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FleetError {
    /// No incarnation.
    #[error("an incarnation has {INCARNATION_DIGITS} hexadecimal digits in lower case")]
    Incarnation,
    /// No digest.
    #[error("a digest of refs has {DIGEST_DIGITS} hexadecimal digits in lower case")]
    Digest,
    /// No key.
    #[error("a repository's key has 1 to {KEY_BYTES_MAX} bytes and no control characters")]
    Key,
    /// No event.
    #[error(
        "is no event: those are push.STATE for each state of a push, mirror.synced, mirror.failed, repo.version and \
         repo.removed; * at the end stands for all that begin so"
    )]
    Event,
    /// No name of a sink.
    #[error("a name has 1 to {SINK_BYTES_MAX} letters, digits, '.', '_' and '-'")]
    Sink,
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

macro_rules! text {
    ($name:ident, $error:expr, $is_one:expr) => {
        impl $name {
            /// Reads one that fills `text`.
            ///
            /// # Errors
            /// When it is none.
            pub fn parse(text: &str) -> Result<Self, FleetError> {
                Self::try_from(text.to_owned())
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = FleetError;

            fn try_from(text: String) -> Result<Self, FleetError> {
                let is_one: fn(&str) -> bool = $is_one;
                if is_one(&text) { Ok(Self(text)) } else { Err($error) }
            }
        }

        impl From<$name> for String {
            fn from(it: $name) -> Self {
                it.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text!(Incarnation, FleetError::Incarnation, |text| is_hex(text, INCARNATION_DIGITS));
text!(RefDigest, FleetError::Digest, |text| is_hex(text, DIGEST_DIGITS));
text!(RepoKey, FleetError::Key, |text| {
    (1..=KEY_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
});

/// Where changes are published to: its name in the outbox, in `status` and in metrics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SinkName(String);

text!(SinkName, FleetError::Sink, |text| {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=SINK_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain)
});

impl RepoKey {
    /// Of the repository `path` of an upstream.
    #[must_use]
    pub fn of_upstream(url: &UpstreamUrl, path: &str) -> Self {
        Self::of_address(&url.repository(path, false).as_text())
    }

    /// Of the repository at this address.
    #[must_use]
    pub fn of_address(address: &str) -> Self {
        Self(address.strip_suffix(SUFFIX).unwrap_or(address).to_owned())
    }

    /// Of a hosted repository.
    #[must_use]
    pub fn hosted(incarnation: &Incarnation, repo: &RepoName) -> Self {
        Self(format!("{incarnation}/{repo}"))
    }

    /// Whose hosted repository this is, and its name there; `None` for one of an upstream.
    #[must_use]
    pub fn as_hosted(&self) -> Option<(Incarnation, RepoName)> {
        let (incarnation, name) = self.0.split_once('/')?;
        Some((Incarnation::parse(incarnation).ok()?, RepoName::parse(name).ok()?))
    }
}

impl RefDigest {
    /// Of these refs, which come in the order of their names.
    pub fn of<'a>(refs: impl IntoIterator<Item = (&'a String, &'a Oid)>) -> Self {
        let mut hash = Sha256::new();
        for (name, oid) in refs {
            for part in [name.as_bytes(), b" ", oid.as_str().as_bytes(), b"\n"] {
                hash.update(part);
            }
        }
        Self(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// What one publisher has said last of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Which repository.
    pub repo: RepoKey,
    /// Who says so.
    pub incarnation: Incarnation,
    /// The number of its last change: 1 to [`SEQ_MAX`].
    pub seq: u64,
    /// The refs after that, where they were known.
    pub digest: Option<RefDigest>,
    /// Whether that was its removal.
    pub is_removed: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventName {
    /// A push came into this state.
    Push(PushState),
    /// A mirror was brought up to date, and had to be.
    MirrorSynced,
    /// A mirror could not be brought up to date, as it could before.
    MirrorFailed,
    /// The refs of a repository changed.
    RepoVersion,
    /// A repository is gone.
    RepoRemoved,
}

impl EventName {
    /// What a push's events begin with.
    const PUSH: &str = "push.";

    /// Its name.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Push(state) => format!("{}{}", Self::PUSH, state.as_str()),
            Self::MirrorSynced => "mirror.synced".to_owned(),
            Self::MirrorFailed => "mirror.failed".to_owned(),
            Self::RepoVersion => "repo.version".to_owned(),
            Self::RepoRemoved => "repo.removed".to_owned(),
        }
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let others = [Self::MirrorSynced, Self::MirrorFailed, Self::RepoVersion, Self::RepoRemoved];
        PushState::ALL.into_iter().map(Self::Push).chain(others)
    }

    /// The event of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn parse(text: &str) -> Result<Self, FleetError> {
        Self::all().find(|event| event.text() == text).ok_or(FleetError::Event)
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// Which events somebody wants: a name, or the beginning of some with `*` behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPattern(String);

impl EventPattern {
    /// Every event.
    #[must_use]
    pub fn every() -> Self {
        Self("*".to_owned())
    }

    /// Reads a pattern; one that no event matches is none.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, FleetError> {
        let pattern = Self(text.to_owned());
        if EventName::all().any(|event| pattern.matches(event)) {
            Ok(pattern)
        } else {
            Err(FleetError::Event)
        }
    }

    /// Whether this event is wanted.
    #[must_use]
    pub fn matches(&self, event: EventName) -> bool {
        match self.0.strip_suffix('*') {
            Some(start) => event.text().starts_with(start),
            None => event.text() == self.0,
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One event, as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Its place among all of this publisher's events.
    pub number: i64,
    /// What happened.
    pub event: EventName,
    /// To which repository.
    pub repo: RepoName,
    /// Whose push it was, of a push.
    pub pusher: Option<String>,
    /// A [`NoticeBody`] on one line of JSON.
    pub body: Arc<str>,
}

/// What is said of an event. Times are RFC 3339 in UTC, to the millisecond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeBody {
    /// `INCARNATION-NUMBER`, where a stream of events goes on from.
    pub id: String,
    /// What happened.
    pub event: String,
    /// When.
    pub at: String,
    /// What the publisher calls itself; a label and no more.
    pub node: String,
    /// Who publishes.
    pub incarnation: Incarnation,
    /// How the fleet calls the repository.
    pub repo: RepoKey,
    /// How the publisher calls it.
    pub name: String,
    /// The number of the change, of `repo.version` and `repo.removed`.
    #[serde(default)]
    pub seq: Option<u64>,
    /// The refs after it, where they were known.
    #[serde(default)]
    pub digest: Option<RefDigest>,
    /// The push, as the API shows it in a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<PushView>,
    /// Why, of `mirror.failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The place of an event in a publisher's stream, as `id:` and `Last-Event-ID` have it.
#[must_use]
pub fn event_id(incarnation: &Incarnation, number: i64) -> String {
    format!("{incarnation}-{number}")
}

/// The publisher and the number in such a text, written as [`event_id`] does.
#[must_use]
pub fn parse_event_id(text: &str) -> Option<(Incarnation, i64)> {
    let (incarnation, number) = text.split_once('-')?;
    let read = number.parse().ok().filter(|read: &i64| *read >= 0 && read.to_string() == number)?;
    Some((Incarnation::parse(incarnation).ok()?, read))
}

/// A time as events write it.
#[must_use]
pub fn written(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incarnation() -> Incarnation {
        Incarnation::parse(&"0a".repeat(16)).unwrap()
    }

    #[test]
    fn both_spellings_of_a_repository_have_one_key_and_a_hosted_one_says_whose_it_is() {
        let url = UpstreamUrl::parse("https://Forge.example/git/").unwrap();
        let key = RepoKey::of_upstream(&url, "org/app");
        assert_eq!(key.as_str(), "https://forge.example/git/org/app");
        assert_eq!(RepoKey::of_address("https://forge.example/git/org/app.git"), key);
        assert_eq!(key.as_hosted(), None);
        let name = RepoName::parse("org/app").unwrap();
        assert_eq!(RepoKey::hosted(&incarnation(), &name).as_hosted(), Some((incarnation(), name)));
    }

    #[test]
    fn a_digest_is_that_of_the_lines_of_refs() {
        let oid = Oid::parse(&[b'a'; 40]).unwrap();
        let refs = std::collections::BTreeMap::from([("refs/heads/main".to_owned(), oid)]);
        // printf 'refs/heads/main aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n' | sha256sum
        assert_eq!(
            RefDigest::of(&refs).as_str(),
            "192375212d4e0ba1547901d9b3f39f4b4c54f61656ccd9146db1019e9831d770"
        );
        // printf '' | sha256sum
        let none = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(RefDigest::of(&std::collections::BTreeMap::new()).as_str(), none);
    }

    #[test]
    fn events_are_wanted_by_name_or_by_what_they_begin_with() {
        assert_eq!(EventName::parse("push.forwarded"), Ok(EventName::Push(PushState::Forwarded)));
        let wants = |pattern: &str, event: &str| {
            EventPattern::parse(pattern).unwrap().matches(EventName::parse(event).unwrap())
        };
        assert!(
            wants("*", "mirror.failed")
                && wants("push.*", "push.pending")
                && wants("repo.version", "repo.version")
        );
        assert!(!wants("push.*", "repo.version") && !wants("repo.version", "repo.removed"));
        for wrong in ["", "push", "push.landed", "repos.*", "*.version", "push.**"] {
            assert_eq!(EventPattern::parse(wrong), Err(FleetError::Event), "{wrong}");
        }
    }

    #[test]
    fn the_place_in_a_stream_is_read_as_it_is_written() {
        let id = event_id(&incarnation(), 17);
        assert_eq!(parse_event_id(&id), Some((incarnation(), 17)));
        for wrong in ["", "17", "x-17"] {
            assert_eq!(parse_event_id(wrong), None, "{wrong}");
        }
        for number in ["", "-1", "+3", "03", " 3"] {
            assert_eq!(parse_event_id(&format!("{}-{number}", incarnation())), None, "{number}");
        }
    }
}
