//! Bringing a mirror up to date, or making it.

use super::advertisement::Advertisement;
use super::ask::Remote;
use super::changes::{Changes, Refs, Script, those};
use super::damage::Damage;
use super::draft::Draft;
use super::error::UpstreamError;
use super::making::Listed;
use super::places::repository;
use super::turns::{Turn, TurnError};
use super::{Shared, head, litter};
use crate::client::proxy;
use crate::config::MirrorSettings as Keeping;
use crate::git::ask::{self, Asker};
use crate::git::command::Invocation;
use crate::git::credential_file::CredentialFile;
use crate::git::layout::Repository;
use crate::git::tools::Tools;
use crate::git::upstream::{Reaching, refspecs};
use crate::model::fleet::RefDigest;
use crate::model::mirrored::OWN;
use crate::model::name::RepoName;
use crate::model::oid::Oid;
use crate::model::route::Route;
use crate::model::upstream::Origin;
use crate::supervise::{Child, Input, Outcome, SpawnError, Spec};
use crate::sys::poll::{self, Interest};
use crate::sys::stop::Stop;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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
    let route = remote.route;
    let work = Work { shared, place: &place, seen, keeping, wanted, route, credential, turn, tools };
    match shared.places.find(repo) {
        Some(_) => work.freshen()?,
        None => work.make()?,
    }
    Ok(repository(place))
}

/// See [`Mirrors::is_like`](super::Mirrors::is_like).
pub(super) fn is_like(shared: &Shared, repo: &RepoName, seen: &Advertisement) -> bool {
    let place = shared.places.of(repo);
    if shared.places.find(repo).is_none() {
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
    let listed = ask::all_refs(tools.git, &mirror.git_dir, &["refs"], &tools.asker);
    let refs = listed.inspect_err(|error| log::warn!("listing the refs of a mirror: {error}")).ok()?;
    Some(RefDigest::of(&those(&refs, |name| !name.starts_with(OWN))))
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

/// What is done to one mirror while its turn is ours.
struct Work<'a> {
    shared: &'a Shared,
    place: &'a Path,
    seen: &'a Advertisement,
    keeping: &'a Keeping,
    /// The refs that it has to have.
    wanted: Refs,
    route: &'a Route,
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
        if !self.wanted.is_empty() {
            self.fetch(path, Some(&listed))?;
            self.run(git.pack_refs(path), "pack-refs", Input::Null)?;
        }
        let refs = self.refs(path)?;
        if refs.is_empty() && !self.wanted.is_empty() {
            return Err(self.nothing_came());
        }
        self.set_head(path, &refs)?;
        self.keep_what_is_held(&draft)?;
        draft.sync().map_err(failed_at("syncing", path))?;
        let published = self.shared.places.publish(path, self.place);
        published.map_err(failed_at("giving its place to", self.place))?;
        self.turn.set_clean(true);
        self.turn.set_refs(Arc::new(refs));
        self.turn.set_fresh(self.seen.at);
        Ok(())
    }

    /// Changes what differs. A mirror that nothing is left to do for was brought up to date by whoever had the turn before.
    fn freshen(&self) -> Result<(), UpstreamError> {
        if self.turn.is_fresh(self.seen.at) {
            return Ok(());
        }
        if !self.turn.is_clean() {
            self.clear()?;
        }
        let before = self.turn.refs().map_or_else(|| self.refs(self.place).map(Arc::new), Ok)?;
        if before.is_empty() && !self.wanted.is_empty() {
            // An empty upstream does not say which hash it has, and it may have been filled with another.
            return self.make();
        }
        let done = match self.update(Arc::clone(&before)) {
            Err(error) => match damage_of(&error) {
                Some(damage) => self.mend(&damage, before, &error),
                None => Err(error),
            },
            Ok(()) => Ok(()),
        };
        if done.is_err() && !self.turn.is_clean() && self.turn.is_alone() {
            // At once, since it may be much; what does not work now is tried again before the next writer starts.
            if let Err(error) = self.clear() {
                log::warn!("cleaning after a fetch that failed: {error}");
            }
        }
        done?;
        self.turn.set_fresh(self.seen.at);
        Ok(())
    }

    fn update(&self, before: Arc<Refs>) -> Result<(), UpstreamError> {
        if self.turn.is_ahead_of(self.seen.at) { self.add() } else { self.change(before) }
    }

    /// Takes out refs that name nothing and that the upstream has not, or has otherwise; makes the mirror anew where there
    /// are none, or where that is not enough.
    fn mend(&self, damage: &Damage, before: Arc<Refs>, error: &UpstreamError) -> Result<(), UpstreamError> {
        log::warn!("the mirror {:?} is broken and is mended: {error}", self.place);
        self.clear()?;
        let is_wrong =
            |(name, oid): &(&String, &Oid)| damage.refs.contains(name) && self.wanted.get(*name) != Some(oid);
        let wrong: Vec<_> = before.iter().filter(is_wrong).map(|(name, oid)| (name.as_str(), oid)).collect();
        if wrong.is_empty() {
            return self.make();
        }
        self.turn.set_clean(false);
        self.delete(&wrong)?;
        match self.update(Arc::new(self.refs(self.place)?)) {
            Err(error) if damage_of(&error).is_some() => self.make(),
            done => done,
        }
    }

    /// A push that waits borrows objects from the mirror which is there, and may be the last to need some of them.
    fn keep_what_is_held(&self, draft: &Draft) -> Result<(), UpstreamError> {
        let is_borrowed = self.place.is_dir()
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
        if !changes.coming.is_empty() && !changes.moved_any(&before, &after) {
            return Err(self.nothing_came());
        }
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

    /// What the fetch of an upstream means that has advertised refs and gives none: somebody else answered.
    fn nothing_came(&self) -> UpstreamError {
        let why = "a fetch brought nothing of what it has".to_owned();
        UpstreamError::Malformed { at: self.seen.url.origin(), why }
    }

    fn fetch(&self, git_dir: &Path, listed: Option<&Listed<'_>>) -> Result<(), UpstreamError> {
        let from = Reaching { url: &self.seen.url, credential: self.credential.as_ref(), route: self.route };
        let refspecs = refspecs(&self.keeping.refs, |name| self.wanted.contains_key(name));
        if refspecs.is_empty() {
            // Without any, git would fetch what it likes.
            return Ok(());
        }
        let idle_limit = self.keeping.idle_limit;
        let fetch = self.tools.git.fetch_mirror(git_dir, &from, &refspecs, idle_limit);
        let spec = self.tools.spec(fetch, format!("fetch {}", self.place.display()));
        let mut child = self.start(spec)?;
        child.limit_silence(idle_limit, "idle_limit", work_shows(git_dir));
        listed.into_iter().for_each(|listed| child.listen(listed.ear()));
        self.judge("fetch", child.stream(self.tools.asker.client, |_| Ok(())))
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
