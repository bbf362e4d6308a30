//! `[upstream.mirror]`: how the mirrors of an upstream are kept.

use crate::config::keys::{Written, parsed, quoted, quoted_list, texts};
use crate::model::mirrored::{MirroredRefs, RefPattern};
use crate::model::name::RepoName;
use crate::model::units;
use std::fmt::Write;
use std::time::Duration;

/// How mirrors are kept, and for how long without their upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSettings {
    /// Those that are made without anybody asking for them, by their paths at the upstream.
    pub repos: Vec<RepoName>,
    /// Which refs of the upstream they have.
    pub refs: MirroredRefs,
    /// How often each is synced without anybody asking for it; never where this is not set.
    pub sync_every: Option<Duration>,
    /// How long after the start of the last sync a read asks nobody.
    pub fresh_for: Duration,
    /// How long a fetch into a mirror may take.
    pub fetch_deadline: Duration,
    /// How long the first one may take, which brings everything.
    pub first_clone_deadline: Duration,
    /// How long an upstream may say nothing in a fetch before it sends objects.
    pub idle_limit: Duration,
    /// How old a mirror may be that is served while its upstream is down.
    pub serve_stale_for: Duration,
    /// How long a mirror keeps what no branch or tag reaches any more, at the least.
    pub prune_after: Duration,
}

impl Default for MirrorSettings {
    fn default() -> Self {
        Self {
            repos: Vec::new(),
            refs: MirroredRefs::default(),
            sync_every: None,
            fresh_for: Duration::from_secs(10),
            fetch_deadline: Duration::from_secs(120),
            first_clone_deadline: Duration::from_secs(60 * 60),
            idle_limit: Duration::from_secs(60),
            serve_stale_for: Duration::from_secs(7 * 24 * 60 * 60),
            prune_after: Duration::from_secs(14 * 24 * 60 * 60),
        }
    }
}

/// The key of [`MirrorSettings::repos`].
const REPOS: &str = "repos";
/// The key of [`MirrorSettings::refs`].
const REFS: &str = "refs";
/// The key of [`MirrorSettings::sync_every`].
const SYNC_EVERY: &str = "sync_every";

/// The field of a key.
type Field = fn(&mut MirrorSettings) -> &mut Duration;

/// Every key that holds a time.
const TIMES: [(&str, Field); 6] = [
    ("fresh_for", |mirror| &mut mirror.fresh_for),
    ("fetch_deadline", |mirror| &mut mirror.fetch_deadline),
    ("first_clone_deadline", |mirror| &mut mirror.first_clone_deadline),
    ("idle_limit", |mirror| &mut mirror.idle_limit),
    ("serve_stale_for", |mirror| &mut mirror.serve_stale_for),
    ("prune_after", |mirror| &mut mirror.prune_after),
];

impl MirrorSettings {
    /// Whether anything is synced that nobody reads.
    #[must_use]
    pub fn has_schedule(&self) -> bool {
        !self.repos.is_empty() || self.sync_every.is_some()
    }

    /// Sets the key `name`, or says what is allowed. `None`: there is no such key.
    pub(super) fn set(&mut self, name: &str, written: &Written) -> Option<Result<(), String>> {
        let time = || parsed(written, units::DURATION_FORM, units::parse_duration);
        match name {
            REPOS => return Some(texts(written, RepoName::parse).map(|repos| self.repos = repos)),
            REFS => {
                let refs = texts(written, RefPattern::parse).and_then(|refs| match &refs[..] {
                    [] => Err("is empty: a mirror has some refs, as with [\"refs/heads/*\"]".to_owned()),
                    _ => Ok(MirroredRefs::of(refs)),
                });
                return Some(refs.map(|refs| self.refs = refs));
            }
            SYNC_EVERY => return Some(time().map(|time| self.sync_every = Some(time))),
            _ => {}
        }
        let (_, field) = TIMES.iter().find(|(known, _)| *known == name)?;
        Some(time().map(|time| *field(self) = time))
    }

    /// The keys, for people.
    pub(super) fn names() -> String {
        let times = TIMES.map(|(name, _)| name);
        [REPOS, REFS, SYNC_EVERY].into_iter().chain(times).collect::<Vec<_>>().join(", ")
    }

    /// The keys and their values as TOML.
    pub(super) fn to_toml(&self) -> String {
        // The rows reach their fields mutably; a copy makes one accessor serve both directions.
        let mut copy = self.clone();
        let repos: Vec<&str> = self.repos.iter().map(RepoName::as_str).collect();
        let refs: Vec<&str> = self.refs.patterns().iter().map(RefPattern::as_str).collect();
        let mut toml = format!("{REPOS} = {}\n{REFS} = {}\n", quoted_list(&repos), quoted_list(&refs));
        // Writing to a String cannot fail.
        let _ = match self.sync_every {
            Some(every) => writeln!(toml, "{SYNC_EVERY} = {}", quoted(units::format_duration(every))),
            None => writeln!(toml, "# {SYNC_EVERY} is not set"),
        };
        for (name, field) in TIMES {
            let value = quoted(units::format_duration(*field(&mut copy)));
            // Writing to a String cannot fail.
            let _ = writeln!(toml, "{name} = {value}");
        }
        toml
    }
}
