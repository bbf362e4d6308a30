//! Bringing a mirror up to date, or making it.

use super::advertisement::Advertisement;
use super::ask::Remote;
use super::changes::{Changes, Refs, Script, those};
use super::damage::{self, Damage};
use super::draft::Draft;
use super::error::{IDLE_LIMIT, UpstreamError};
use super::making::Listed;
use super::places::repository;
use super::turns::{Turn, TurnError};
use super::{Shared, head, litter, shape};
use crate::client::proxy;
use crate::config::MirrorSettings as Keeping;
use crate::git::ask::{self, Asker};
use crate::git::command::Invocation;
use crate::git::credential_file::CredentialFile;
use crate::git::layout::Repository;
use crate::git::tools::Tools;
use crate::git::upstream::{Reaching, Syncing, refspecs};
use crate::model::fleet::RefDigest;
use crate::model::mirrored::OWN;
use crate::model::name::RepoName;
use crate::model::oid::Oid;
use crate::model::upstream::Origin;
use crate::supervise::{Child, Deadline, Input, Outcome, SpawnError, Spec};
use crate::sys::memory_file;
use crate::sys::poll::{self, Interest};
use crate::sys::stop::Stop;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many refs of a mirror that no writer of this life has left are looked at: as many as take a moment.
const TIPS_MAX: usize = 50_000;

/// See [`Mirrors::bring`](super::Mirrors::bring).
pub(super) fn bring(
    shared: &Shared,
    repo: &RepoName,
    seen: &Advertisement,
    remote: &Remote<'_>,
    tools: &Tools<'_>,
) -> Result<Repository, UpstreamError> {
    let place = shared.places.of(repo);
    if is_like(shared, repo, seen) {
        return Ok(repository(place));
    }
    let keeping = shared.keeping(&place);
    let wanted = those(&seen.refs, |name| keeping.refs.has(name));
    let turn = shared.turns.take(&place, tools.asker.deadline.at, || pointless(&tools.asker, tools.stop))?;
    let at = seen.url.origin();
    let credential = secrets_for(remote, &at, &place)?;
    let work = Work { shared, place: &place, seen, keeping, wanted, remote, credential, turn, tools };
    let left = match shared.places.find(repo) {
        Some(_) => work.freshen()?,
        None => Left::All,
    };
    match left {
        Left::Nothing => {}
        Left::All => {
            let deadline = first_deadline(&place, keeping, tools.asker.deadline);
            let tools = Tools { asker: Asker { deadline, ..tools.asker }, ..*tools };
            Work { tools: &tools, ..work }.make()?;
        }
    }
    Ok(repository(place))
}

/// See [`Mirrors::is_like`](super::Mirrors::is_like).
pub(super) fn is_like(shared: &Shared, repo: &RepoName, seen: &Advertisement) -> bool {
    let place = shared.places.of(repo);
    if shared.places.find(repo).is_none() || shared.turns.is_touched(&place) {
        return false;
    }
    let mirrored = &shared.keeping(&place).refs;
    shared.turns.is_fresh(&place, seen.at)
        || is_same(shared, &place, seen, &those(&seen.refs, |name| mirrored.has(name)))
}

/// See [`Mirrors::digest`](super::Mirrors::digest).
pub(super) fn digest(
    shared: &Shared,
    repo: &RepoName,
    mirror: &Repository,
    tools: &Tools<'_>,
) -> Option<RefDigest> {
    if let Some(refs) = shared.turns.refs(&shared.places.of(repo)) {
        return Some(RefDigest::of(&*refs));
    }
    let listed = ask::refs_digest(tools.git, &mirror.git_dir, &tools.asker);
    listed.inspect_err(|error| log::warn!("listing the refs of a mirror: {error}")).ok()
}

/// By when a mirror has to be made. One that is made anew has the time of a first clone, whatever it was begun for.
fn first_deadline(place: &Path, keeping: &Keeping, present: Deadline) -> Deadline {
    if !place.is_dir() {
        return present;
    }
    let anew = Deadline::starting(Instant::now(), keeping.first_clone_deadline, "first_clone_deadline");
    if anew.at > present.at { anew } else { present }
}

/// What a git has to know of what is shown to the upstream and to a proxy before it.
pub(super) fn secrets_for(
    remote: &Remote<'_>,
    at: &Origin,
    place: &Path,
) -> Result<Option<CredentialFile>, UpstreamError> {
    let proxy = remote.route.proxy.as_ref().map(proxy::address_with_login).transpose();
    let proxy = proxy.map_err(|why| UpstreamError::Unreachable { at: at.clone(), why })?.flatten();
    if remote.credential.is_none() && proxy.is_none() {
        return Ok(None);
    }
    let file = CredentialFile::of(remote.credential, at, proxy.as_ref());
    file.map(Some).map_err(failed_at("keeping the credential for", place))
}

/// Whether the mirror is known to be what upstream is: then there is nothing to have a turn for, and it is fresh.
fn is_same(shared: &Shared, place: &Path, seen: &Advertisement, wanted: &Refs) -> bool {
    let present = fs::read_to_string(place.join("HEAD")).unwrap_or_default();
    let present = present.trim_end().strip_prefix("ref: ");
    let is_head = |refs: &Refs| match head::choose(refs, seen.head.as_deref(), present) {
        Some(name) => Some(name) == present,
        None => true,
    };
    shared.turns.set_fresh_if(place, seen.at, |refs| refs == wanted && is_head(refs))
}

/// Why a wait for a turn is given up before its deadline.
pub(super) fn pointless(asker: &Asker<'_>, stop: &Stop) -> Option<TurnError> {
    if !stop.is_running() {
        return Some(TurnError::Stopping);
    }
    let client = asker.client?;
    let is_gone = poll::wait([Some((client, Interest::HangUp))], Some(Duration::ZERO));
    is_gone.is_ok_and(|[is_gone]| is_gone).then_some(TurnError::ClientGone)
}

/// What is left to do for a mirror that was to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    /// It cannot be changed into what it has to be: it is to be made anew.
    All,
}

/// What is done to one mirror while its turn is ours.
struct Work<'a> {
    shared: &'a Shared,
    place: &'a Path,
    seen: &'a Advertisement,
    keeping: &'a Keeping,
    /// The refs that it has to have.
    wanted: Refs,
    remote: &'a Remote<'a>,
    credential: Option<CredentialFile>,
    turn: Turn,
    tools: &'a Tools<'a>,
}

impl Work<'_> {
    /// Makes the mirror under another name, so that nobody sees it before it is whole. One that is there, empty or broken,
    /// goes.
    fn make(&self) -> Result<(), UpstreamError> {
        let draft = Draft::at(self.shared.places.new_draft());
        let (git, path) = (self.tools.git, draft.path());
        let listed = self.shared.makings.list(self.place, path);
        self.run(git.init_mirror(path, self.seen.format), "init", Input::Null)?;
        shape::configure(path).map_err(failed_at("configuring", path))?;
        if !self.wanted.is_empty() {
            self.fetch(path, Some(&listed))?;
            self.run(git.pack_refs(path), "pack-refs", Input::Null)?;
        }
        let refs = self.refs(path)?;
        self.require_all(&Refs::new(), &refs)?;
        self.set_head(path, &refs)?;
        self.keep_what_is_held(&draft)?;
        draft.sync().map_err(failed_at("syncing", path))?;
        let published = self.shared.places.publish(path, self.place);
        published.map_err(failed_at("giving its place to", self.place))?;
        self.turn.set_clean(true);
        self.turn.set_sound();
        self.turn.set_refs(Arc::new(refs));
        self.turn.set_fresh(self.seen.at);
        Ok(())
    }

    /// Changes what differs. A mirror that nothing is left to do for was brought up to date by whoever had the turn before.
    fn freshen(&self) -> Result<Left, UpstreamError> {
        let is_sound = self.turn.is_sound();
        if is_sound && self.turn.is_fresh(self.seen.at) {
            return Ok(Left::Nothing);
        }
        if !shape::is_whole(self.place) {
            log::warn!("the mirror {:?} is broken and is made anew", self.place);
            return Ok(Left::All);
        }
        if !is_sound {
            self.turn.distrust();
        }
        if !self.turn.is_clean() {
            self.clear()?;
        }
        let before = match self.turn.refs().map_or_else(|| self.refs(self.place).map(Arc::new), Ok) {
            Err(UpstreamError::Ask(error)) if error.is_refusal() => {
                log::warn!("the mirror {:?} cannot be read and is made anew: {error}", self.place);
                return Ok(Left::All);
            }
            refs => refs?,
        };
        if !self.wanted.is_empty() && !self.may_become(&before) {
            return Ok(Left::All);
        }
        if !is_sound && !self.examine(&before)? {
            log::warn!("the mirror {:?} lacks objects and is made anew", self.place);
            return Ok(Left::All);
        }
        let left = match self.update(Arc::clone(&before)) {
            Err(error) => match damage_of(&error) {
                Some(damage) => self.mend(&damage, before, &error),
                None => Err(error),
            },
            Ok(()) => Ok(Left::Nothing),
        };
        if left.is_err() && !self.turn.is_clean() && self.turn.is_alone() {
            // At once, since it may be much; what does not work now is tried again before the next writer starts.
            if let Err(error) = self.clear() {
                log::warn!("cleaning after a fetch that failed: {error}");
            }
        }
        if left? == Left::All {
            return Ok(Left::All);
        }
        self.turn.set_fresh(self.seen.at);
        Ok(Left::Nothing)
    }

    /// Whether a mirror with the refs `before` can be changed into one of this upstream. An empty upstream does not say which
    /// hash it has, and it may have been filled with another; so may one that was replaced.
    fn may_become(&self, before: &Refs) -> bool {
        before.values().next().is_some_and(|oid| oid.as_str().len() == self.seen.format.digits())
    }

    /// Looks through a mirror that somebody else has been in, or that no writer of this life has left: whether all that its
    /// refs reach is there, as far as it is not fetched now anyway.
    fn examine(&self, before: &Refs) -> Result<bool, UpstreamError> {
        shape::configure(self.place).map_err(failed_at("configuring", self.place))?;
        let is_complete = match self.turn.look() {
            Some(look) if look.has_lost_packs(self.place) => self.is_connected()?,
            Some(_) | None => self.has_tips(before)?,
        };
        if is_complete {
            self.turn.set_sound();
        }
        Ok(is_complete)
    }

    fn is_connected(&self) -> Result<bool, UpstreamError> {
        let spec = self.tools.git.look_through(self.place);
        let spec = self.tools.spec(spec, format!("rev-list {}", self.place.display()));
        let outcome = run(spec, &self.turn, self.tools)?;
        if outcome.ended.is_some() {
            return self.judge("rev-list", outcome).map(|()| false);
        }
        Ok(outcome.is_success())
    }

    /// Whether the refs name objects that are there, where upstream has the same and so nothing of them would be fetched.
    fn has_tips(&self, before: &Refs) -> Result<bool, UpstreamError> {
        let kept = before.iter().filter(|(name, oid)| self.wanted.get(*name) == Some(oid));
        let lines: String = kept.take(TIPS_MAX).map(|(_, oid)| format!("{oid}\n")).collect();
        let names = memory_file::reader_of(lines.as_bytes());
        let names = names.map_err(failed_at("writing a list of objects of", self.place))?;
        let missing = ask::missing_objects(self.tools.git, self.place, names, &self.tools.asker);
        match missing {
            Err(error) if error.is_refusal() => Ok(false),
            missing => Ok(missing?.is_empty()),
        }
    }

    fn update(&self, before: Arc<Refs>) -> Result<(), UpstreamError> {
        if self.turn.is_ahead_of(self.seen.at) { self.add() } else { self.change(before) }
    }

    /// Takes out refs that name nothing and that the upstream has not, or has otherwise; makes the mirror anew where there
    /// are none, or where that is not enough.
    fn mend(&self, damage: &Damage, before: Arc<Refs>, error: &UpstreamError) -> Result<Left, UpstreamError> {
        log::warn!("the mirror {:?} is broken and is mended: {error}", self.place);
        self.clear()?;
        let is_wrong =
            |(name, oid): &(&String, &Oid)| damage.refs.contains(name) && self.wanted.get(*name) != Some(oid);
        let wrong: Vec<_> = before.iter().filter(is_wrong).map(|(name, oid)| (name.as_str(), oid)).collect();
        if wrong.is_empty() {
            return Ok(Left::All);
        }
        self.turn.set_clean(false);
        self.delete(&wrong)?;
        match self.update(Arc::new(self.refs(self.place)?)) {
            Err(error) if damage_of(&error).is_some() => Ok(Left::All),
            done => done.map(|()| Left::Nothing),
        }
    }

    /// A push that waits borrows objects from the mirror which is there, and may be the last to need some of them. Those that
    /// another hash names are of no use in the new one, nor is what was pushed onto them.
    fn keep_what_is_held(&self, draft: &Draft) -> Result<(), UpstreamError> {
        let is_borrowed = self.place.is_dir()
            && shape::format_of(self.place) == shape::format_of(draft.path())
            && self
                .shared
                .places
                .is_borrowed(self.place)
                .map_err(failed_at("looking for pushes that borrow from", self.place))?;
        if is_borrowed {
            draft.adopt(self.place).map_err(failed_at("keeping the objects of", self.place))?;
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), UpstreamError> {
        litter::clear(self.place).map_err(failed_at("cleaning", self.place))?;
        self.turn.set_clean(true);
        Ok(())
    }

    /// Fetches what upstream has now into a mirror that a push has landed in since it was asked: by the old answer, what
    /// landed would look gone. What is really gone goes after the next question.
    fn add(&self) -> Result<(), UpstreamError> {
        self.turn.set_clean(false);
        self.fetch(self.place, None)?;
        self.turn.set_clean(true);
        self.settle(Arc::new(self.refs(self.place)?))
    }

    /// Makes the mirror, which has the refs `before`, like its upstream.
    fn change(&self, before: Arc<Refs>) -> Result<(), UpstreamError> {
        let changes = Changes::between(&before, &self.wanted);
        if changes.is_empty() {
            return self.settle(before);
        }
        self.turn.set_clean(false);
        self.delete(&changes.blocking)?;
        if !changes.coming.is_empty() {
            self.fetch(self.place, None)?;
        }
        let mut after = self.refs(self.place)?;
        self.require_all(&before, &after)?;
        // One that has come back meanwhile is not gone.
        let gone = changes.gone.iter().copied().filter(|(name, old)| after.get(*name) == Some(old));
        let gone: Vec<_> = gone.collect();
        self.delete(&gone)?;
        gone.iter().for_each(|(name, _)| drop(after.remove(*name)));
        self.turn.set_clean(true);
        self.settle(Arc::new(after))
    }

    /// The mirror has these refs now.
    fn settle(&self, refs: Arc<Refs>) -> Result<(), UpstreamError> {
        self.set_head(self.place, &refs)?;
        self.turn.set_refs(refs);
        Ok(())
    }

    /// Sees to it that a fetch has brought what the upstream said to have, or something newer. One that is gone there by now
    /// was not to be had, and what it says now decides; what git leaves out without a word does not pass for fresh.
    fn require_all(&self, before: &Refs, after: &Refs) -> Result<(), UpstreamError> {
        let lacking = |wanted: &Refs| {
            let is_lacking = |(name, oid): &(&String, &Oid)| {
                let (old, new) = (before.get(*name), after.get(*name));
                new != Some(oid) && (new.is_none() || new == old)
            };
            wanted.iter().find(is_lacking).map(|(name, _)| name.clone())
        };
        if lacking(&self.wanted).is_none() {
            return Ok(());
        }
        let Tools { git, asker, .. } = self.tools;
        let now = self.shared.ask_again(self.seen, self.remote, git, asker)?;
        match lacking(&those(&now.refs, |name| self.wanted.contains_key(name))) {
            None => Ok(()),
            Some(name) => {
                let why = format!("a fetch did not bring {name}, which it says to have");
                Err(UpstreamError::Malformed { at: self.seen.url.origin(), why })
            }
        }
    }

    fn fetch(&self, git_dir: &Path, listed: Option<&Listed<'_>>) -> Result<(), UpstreamError> {
        let from =
            Reaching { url: &self.seen.url, credential: self.credential.as_ref(), route: self.remote.route };
        let refspecs = refspecs(&self.keeping.refs, |name| self.wanted.contains_key(name));
        if refspecs.is_empty() {
            // Without any, git would fetch what it likes.
            return Ok(());
        }
        let idle_limit = self.keeping.idle_limit;
        // Nobody sees a draft before all of it is on the disk.
        let syncing = if listed.is_some() { Syncing::InTheEnd } else { Syncing::Each };
        let fetch = self.tools.git.fetch_mirror(git_dir, &from, &refspecs, idle_limit, syncing);
        let spec = self.tools.spec(fetch, format!("fetch {}", self.place.display()));
        let mut child = self.start(spec)?;
        child.limit_silence(idle_limit, IDLE_LIMIT, work_shows(git_dir));
        listed.into_iter().for_each(|listed| child.listen(listed.ear()));
        let outcome = child.stream(self.tools.asker.client, |_| Ok(()));
        if outcome.is_success() && damage::is_of_shallow(&outcome.stderr) {
            return Err(UpstreamError::Shallow { at: self.seen.url.origin() });
        }
        self.judge("fetch", outcome)
    }

    fn delete(&self, refs: &[(&str, &Oid)]) -> Result<(), UpstreamError> {
        if refs.is_empty() {
            return Ok(());
        }
        let script = script_file(self.shared.places.tmp(), &Script::deleting(refs));
        let script = script.map_err(failed_at("writing a list of refs for", self.place))?;
        self.run(self.tools.git.move_refs(self.place), "update-ref", script)
    }

    fn set_head(&self, git_dir: &Path, refs: &Refs) -> Result<(), UpstreamError> {
        let file = git_dir.join("HEAD");
        let content = fs::read_to_string(&file).map_err(failed_at("reading", &file))?;
        let present = content.trim_end().strip_prefix("ref: ");
        match head::choose(refs, self.seen.head.as_deref(), present) {
            Some(name) if Some(name) != present => {
                self.turn.set_clean(false);
                self.run(self.tools.git.set_head(git_dir, name), "symbolic-ref", Input::Null)?;
                self.turn.set_clean(true);
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The refs that a mirror has, also those that were mirrored in an earlier life of the gate and are not any more.
    fn refs(&self, git_dir: &Path) -> Result<Refs, UpstreamError> {
        let refs = ask::all_refs(self.tools.git, git_dir, &["refs"], &self.tools.asker)?;
        Ok(those(&refs, |name| !name.starts_with(OWN)))
    }

    fn run(&self, invocation: Invocation, what: &'static str, stdin: Input) -> Result<(), UpstreamError> {
        let mut spec = self.tools.spec(invocation, format!("{what} {}", self.place.display()));
        spec.stdin = stdin;
        self.judge(what, run(spec, &self.turn, self.tools)?)
    }

    /// Starts a git that may read the credential.
    fn start(&self, spec: Spec) -> Result<Child, SpawnError> {
        let mut child = start(spec, &self.turn, self.tools)?;
        self.credential.iter().for_each(|file| child.hold(file.hold()));
        Ok(child)
    }

    fn judge(&self, what: &'static str, outcome: Outcome) -> Result<(), UpstreamError> {
        if outcome.is_success() {
            return Ok(());
        }
        Err(UpstreamError::of_outcome(&self.seen.url.origin(), what, outcome))
    }
}

/// Whether a fetch into a mirror has got so far that its upstream is not waited for: a pack is there that was not, or a part
/// of one, or refs are being written, as many are for long.
pub(super) fn work_shows(git_dir: &Path) -> impl Fn() -> bool + Send + use<> {
    let (packs, refs) = (git_dir.join("objects/pack"), git_dir.join("refs"));
    let before = names_in(&packs);
    move || !names_in(&packs).is_subset(&before) || has_lock(&refs)
}

/// What is in a directory; nothing in one that cannot be read.
fn names_in(dir: &Path) -> BTreeSet<OsString> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
}

/// Whether somebody has the lock of a ref below `dir`.
fn has_lock(dir: &Path) -> bool {
    names_in(dir).into_iter().map(|name| dir.join(name)).any(|path| {
        if path.is_dir() { has_lock(&path) } else { path.extension() == Some(OsStr::new("lock")) }
    })
}

/// What is wrong with the mirror itself, if a git failed for that.
fn damage_of(error: &UpstreamError) -> Option<Damage> {
    if let UpstreamError::Git { outcome, .. } = error
        && outcome.ended.is_none()
    {
        return Damage::find(&outcome.stderr);
    }
    None
}

/// Runs a git that writes to a mirror.
pub(super) fn run(spec: Spec, turn: &Turn, tools: &Tools<'_>) -> Result<Outcome, SpawnError> {
    Ok(start(spec, turn, tools)?.stream(tools.asker.client, |_| Ok(())))
}

/// Starts one. It has a hand on the turn.
pub(super) fn start(spec: Spec, turn: &Turn, tools: &Tools<'_>) -> Result<Child, SpawnError> {
    let mut child = tools.asker.reaper.spawn(spec)?;
    child.hold(turn.hold());
    Ok(child)
}

/// A transaction as the standard input of a git.
pub(super) fn script_file(tmp: &Path, script: &Script) -> io::Result<Input> {
    let mut file = tempfile::tempfile_in(tmp)?;
    file.write_all(script.bytes())?;
    file.rewind()?;
    Ok(Input::File(file))
}

pub(super) fn failed_at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> UpstreamError {
    let path = path.to_path_buf();
    move |source| UpstreamError::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_shows_by_its_pack_and_by_the_locks_of_refs() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["objects/pack", "refs/heads/a"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        for name in ["objects/pack/pack-1.pack", "refs/heads/a/b"] {
            fs::write(at(name), "").unwrap();
        }
        let shows = work_shows(dir.path());
        assert!(!shows(), "all of it was there before");
        for name in ["objects/pack/tmp_pack_x", "objects/pack/pack-2.pack", "refs/heads/a/c.lock"] {
            fs::write(at(name), "").unwrap();
            assert!(shows(), "{name}");
            fs::remove_file(at(name)).unwrap();
        }
    }
}
