//! What is written to the server and read from it: the keys, the one script, the events.

use super::RedisError;
use crate::model::fleet::{EventName, Incarnation, RefDigest, RepoKey, Version, is_seq};
use crate::model::redis::RedisUrl;
use crate::sys::random;
use redis::{Cmd, Value, cmd};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;

/// Where the epoch is.
const EPOCH: &str = "tidegate:epoch";
/// Where the list of repositories is.
const REPOS: &str = "tidegate:repos";
/// How many of them are asked for at a time: with the longest names they still fit an answer.
const REPOS_AT_A_TIME: u32 = 200;
/// How many versions of one repository are asked for at a time, as a rule all; each takes a hundred bytes or two.
const VERSIONS_AT_A_TIME: u32 = 1000;
/// Where a scan begins, and what the server says at its end.
pub(super) const START: &str = "0";
/// What the names of hashes of versions begin with.
const VERSIONS: &str = "tidegate:v:";
/// What the name of the channel begins with.
const CHANNEL: &str = "tidegate:events";
/// What is applied to the versions of a repository.
const APPLY: &str = include_str!("apply.lua");
/// The field of a hash that is the sum of the others.
const SUM: &str = "version";
/// In the place of a digest that is not known.
const UNKNOWN: &str = "-";

/// What a server calls the time since it was empty: random, so that two such times are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch(String);

/// What came of a change that was to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// When this was.
    pub epoch: Epoch,
    /// The version of the repository after it.
    pub version: u64,
    /// Whether the server did not know it before.
    pub is_news: bool,
}

/// What is read of an event; what else it holds is for others.
#[derive(Debug, Deserialize)]
struct Event {
    epoch: String,
    event: String,
    incarnation: Incarnation,
    repo: RepoKey,
    seq: u64,
    #[serde(default)]
    digest: Option<RefDigest>,
}

/// An event of a change that was told before, when it was forgotten.
#[derive(Serialize)]
struct Reminder<'a> {
    event: String,
    incarnation: &'a Incarnation,
    repo: &'a RepoKey,
    seq: u64,
    digest: Option<&'a RefDigest>,
}

impl Epoch {
    /// Another one than any that was before.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn new() -> io::Result<Self> {
        Ok(Self(random::bytes::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// Reads what [`Epoch::as_str`] gives.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_one = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_one.then(|| Self(text.to_owned()))
    }

    /// 32 hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The channel of events in this server's database.
pub(super) fn channel(url: &RedisUrl) -> String {
    match url.database() {
        0 => CHANNEL.to_owned(),
        database => format!("{CHANNEL}:{database}"),
    }
}

/// Applies a change and tells of it with `event`, a JSON object on one line. `epoch` is for a server that has none.
pub(super) fn apply(version: &Version, event: &str, epoch: &Epoch, url: &RedisUrl) -> Cmd {
    let mut eval = cmd("EVAL");
    eval.arg(APPLY).arg(3).arg(versions_key(&version.repo)).arg(EPOCH).arg(REPOS);
    eval.arg(version.incarnation.as_str()).arg(version.seq).arg(beside(version));
    eval.arg(event).arg(epoch.as_str()).arg(channel(url)).arg(version.repo.as_str());
    eval
}

/// The event for a change whose own is gone.
pub(super) fn reminder(version: &Version) -> String {
    let event = if version.is_removed { EventName::RepoRemoved } else { EventName::RepoVersion };
    let Version { repo, incarnation, seq, digest, .. } = version;
    let reminder = Reminder { event: event.text(), incarnation, repo, seq: *seq, digest: digest.as_ref() };
    serde_json::to_string(&reminder).expect("texts and numbers are what JSON can hold")
}

/// What came of [`apply`].
pub(super) fn read_applied(answer: &Value, doing: &'static str) -> Result<Applied, RedisError> {
    let foreign = || RedisError::Foreign { doing };
    let [epoch, version, is_news]: &[Value; 3] =
        items(answer).and_then(|items| items.try_into().ok()).ok_or_else(foreign)?;
    let applied = || {
        let is_news = *is_news == Value::Int(1);
        Some(Applied { epoch: Epoch::parse(text(epoch)?)?, version: text(version)?.parse().ok()?, is_news })
    };
    applied().ok_or_else(foreign)
}

/// What can be tried of all that a gate does without changing anything or telling anybody: what is set is not there, and only
/// set if it is, and nobody listens to the channel. The last thing is to subscribe.
pub(super) fn rehearsal(url: &RedisUrl) -> [(&'static str, Cmd); 5] {
    let made = |doing, words: &[&str]| {
        let mut made = cmd(words[0]);
        made.arg(&words[1..]);
        (doing, made)
    };
    let tries = "redis.call('HGET', KEYS[1], 'version') redis.call('SET', KEYS[1], '', 'XX')";
    [
        made("running a script", &["EVAL", tries, "1", VERSIONS]),
        made("reading versions", &["HSCAN", VERSIONS, START]),
        made("listing repositories", &["SSCAN", REPOS, START]),
        made("publishing", &["PUBLISH", &format!("{}:nobody", channel(url)), ""]),
        made("subscribing", &["SUBSCRIBE", &channel(url)]),
    ]
}

/// The policy in the answer to `INFO memory` by which keys without a time to live are evicted, if it is one.
pub(super) fn read_policy(answer: &Value) -> Option<String> {
    let policy = text(answer)?.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"))?.trim();
    policy.starts_with("allkeys").then(|| policy.to_owned())
}

/// Makes this the epoch where there is none.
pub(super) fn make_epoch(own: &Epoch) -> Cmd {
    let mut make = cmd("SET");
    make.arg(EPOCH).arg(own.as_str()).arg("NX");
    make
}

/// Asks for the epoch.
pub(super) fn ask_epoch() -> Cmd {
    let mut get = cmd("GET");
    get.arg(EPOCH);
    get
}

/// The answer to [`ask_epoch`].
pub(super) fn read_epoch(answer: &Value, doing: &'static str) -> Result<Epoch, RedisError> {
    text(answer).and_then(Epoch::parse).ok_or(RedisError::Foreign { doing })
}

/// Asks for some of the repositories that there are: the first for [`START`], and then what [`read_repos`] says until it
/// says that again.
pub(super) fn ask_repos(cursor: &str) -> Cmd {
    let mut scan = cmd("SSCAN");
    scan.arg(REPOS).arg(cursor).arg("COUNT").arg(REPOS_AT_A_TIME);
    scan
}

/// The answer to [`ask_repos`]: where the next begin, and these. What no gate wrote is passed over.
pub(super) fn read_repos(answer: &Value, doing: &'static str) -> Result<(String, Vec<RepoKey>), RedisError> {
    let read = || {
        let [cursor, repos]: &[Value; 2] = items(answer)?.try_into().ok()?;
        let repos = items(repos)?.iter().filter_map(|repo| RepoKey::parse(text(repo)?).ok()).collect();
        Some((text(cursor)?.to_owned(), repos))
    };
    read().ok_or(RedisError::Foreign { doing })
}

/// Asks for some of the versions of a repository, as [`ask_repos`] does: whoever begins to write to one anew is one more for
/// ever.
pub(super) fn ask_versions(repo: &RepoKey, cursor: &str) -> Cmd {
    let mut scan = cmd("HSCAN");
    scan.arg(versions_key(repo)).arg(cursor).arg("COUNT").arg(VERSIONS_AT_A_TIME);
    scan
}

/// The answer to [`ask_versions`]: where the next begin, and these. What no gate wrote is passed over.
pub(super) fn read_versions(
    repo: &RepoKey,
    answer: &Value,
    doing: &'static str,
) -> Result<(String, Vec<Version>), RedisError> {
    let read = || {
        let [cursor, fields]: &[Value; 2] = items(answer)?.try_into().ok()?;
        let (pairs, _) = items(fields)?.as_chunks::<2>();
        let fields = pairs.iter().filter_map(|[name, value]| Some((text(name)?, text(value)?)));
        let versions = fields.filter(|(name, _)| *name != SUM);
        let versions = versions.filter_map(|(name, value)| read_version(repo, name, value)).collect();
        Some((text(cursor)?.to_owned(), versions))
    };
    read().ok_or(RedisError::Foreign { doing })
}

fn read_version(repo: &RepoKey, incarnation: &str, kept: &str) -> Option<Version> {
    let mut words = kept.split(' ');
    let seq = words.next()?.parse().ok().filter(|seq| is_seq(*seq))?;
    let digest = match words.next()? {
        UNKNOWN => None,
        digest => Some(RefDigest::parse(digest).ok()?),
    };
    let is_removed = match (words.next()?, words.next()) {
        ("0", None) => false,
        ("1", None) => true,
        _ => return None,
    };
    let incarnation = Incarnation::parse(incarnation).ok()?;
    Some(Version { repo: repo.clone(), incarnation, seq, digest, is_removed })
}

/// What a subscriber is told, if that is an event of a change: when, and which.
pub(super) fn read_event(told: &Value) -> Option<(Epoch, Version)> {
    let [kind, _, event]: &[Value; 3] = items(told)?.try_into().ok()?;
    if text(kind)? != "message" {
        return None;
    }
    let event: Event = serde_json::from_str(text(event)?).ok()?;
    let is_removed = match EventName::parse(&event.event).ok()? {
        EventName::RepoVersion => false,
        EventName::RepoRemoved => true,
        EventName::Push(_) | EventName::MirrorSynced | EventName::MirrorFailed => return None,
    };
    let Event { epoch, incarnation, repo, seq, digest, .. } = event;
    let version = Version { repo, incarnation, seq, digest, is_removed };
    is_seq(seq).then_some((Epoch::parse(&epoch)?, version))
}

fn versions_key(repo: &RepoKey) -> String {
    format!("{VERSIONS}{repo}")
}

/// What is kept beside the number.
fn beside(version: &Version) -> String {
    let digest = version.digest.as_ref().map_or(UNKNOWN, RefDigest::as_str);
    format!("{digest} {}", u8::from(version.is_removed))
}

fn items(value: &Value) -> Option<&[Value]> {
    if let Value::Array(items) = value { Some(items) } else { None }
}

fn text(value: &Value) -> Option<&str> {
    if let Value::BulkString(bytes) = value { std::str::from_utf8(bytes).ok() } else { None }
}
