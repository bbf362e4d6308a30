//! Command lines for the upkeep of a mirror.
//!
//! A multi-pack index with one bitmap over all packs makes many packs as fast as one; a geometric repack then rolls up only
//! what is small beside the rest (git-repack(1)). It keeps every object. Those that no ref reaches are sorted out by a
//! repack of everything, into a pack of their own that knows for each of them since when it lies there.

use crate::git::command::{Git, Invocation, MAPPED, Usage, git_dir_option};
use std::ffi::OsString;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// What every repack is told: nothing that is for people or for servers of plain files, and an index with a bitmap over it
/// all. What is in the new packs goes elsewhere.
const REPACK: [&str; 6] = ["repack", "-q", "-n", "-d", "--write-midx", "--write-bitmap-index"];

impl Git {
    /// Packs together the packs that are small beside the rest. Every object stays.
    #[must_use]
    pub fn roll_up(&self, git_dir: &Path) -> Invocation {
        self.upkeep(git_dir, REPACK.map(OsString::from).into_iter().chain(["--geometric=2".into()]))
    }

    /// Packs everything anew. What no ref reaches goes into a pack of its own, and goes for good where it, and all that
    /// reaches it, came there before `expiration`; without one, nothing goes.
    #[must_use]
    pub fn sort_out(&self, git_dir: &Path, expiration: Option<SystemTime>) -> Invocation {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let expiration = expiration.map(|time| format!("--cruft-expiration=@{}", seconds(time)).into());
        let words = REPACK.map(OsString::from).into_iter().chain(["--cruft".into()]);
        self.upkeep(git_dir, words.chain(expiration))
    }

    /// Adds the commits of new packs to the graph of commits; with `anew`, makes it anew, without those that are gone.
    #[must_use]
    pub fn write_commit_graph(&self, git_dir: &Path, anew: bool) -> Invocation {
        let split = if anew { "--split=replace" } else { "--split" };
        let words = ["commit-graph", "write", "--no-progress", "--reachable", split];
        self.upkeep(git_dir, words.map(OsString::from).into_iter())
    }

    fn upkeep(&self, git_dir: &Path, words: impl Iterator<Item = OsString>) -> Invocation {
        let args = std::iter::once(git_dir_option(git_dir)).chain(words).collect();
        let mut settings = self.forced(Usage::Upkeep, git_dir);
        // What was packed by a git with these bounds is repacked by one with the same.
        settings.extend(MAPPED.map(|(key, value)| (key, value.into())));
        // The packs that the new ones are made of go at once.
        settings.push(("core.fsync", "committed,reference".into()));
        self.invocation(args, self.environment_with(settings))
    }
}
