//! Bringing a mirror up to date, or making it.

use super::advertisement::Advertisement;
use super::ask::Remote;
use super::changes::{Refs, coming, those};
use super::damage::{self, Damage};
use super::draft::Draft;
use super::error::{IDLE_LIMIT, UpstreamError};
use super::making::Listed;
use super::places::repository;
use super::refs::{self, RefsError, Stored};
use super::turns::{Turn, TurnError};
use super::{Shared, head, litter, shape};
use crate::client::proxy;
use crate::config::MirrorSettings as Keeping;
use crate::git::ask::{self, Asker};
use crate::git::command::Invocation;
use crate::git::credential_file::CredentialFile;
use crate::git::head::Head;
use crate::git::layout::Repository;
use crate::git::tools::Tools;
use crate::git::transport_fault::TransportFault;
use crate::git::upstream::{Reaching, Syncing};
use crate::model::fleet::RefDigest;
use crate::model::name::RepoName;
use crate::model::oid::Oid;
use crate::model::upstream::Origin;
use crate::supervise::{Child, Deadline, Input, Outcome, SpawnError, Spec};
use crate::sys::memory_file;
use crate::sys::poll::{self, Interest};
use crate::sys::stop::Stop;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
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
    let seen = Cow::Borrowed(seen);
    let mut work = Work { shared, place: &place, seen, keeping, wanted, remote, credential, turn, tools };
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
    let (upstream, present) = (seen.head.as_ref(), refs::read_head(place).ok().flatten());
    let is_head = |refs: &Refs| match upstream {
        Some(Head::Detached(_)) => upstream == present.as_ref(),
        Some(Head::Branch(_)) | None => match head::choose(refs, upstream, present.as_ref(), |_| false) {
            None => true,
            chosen => chosen == present,
        },
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
    /// What upstream said, at last.
    seen: Cow<'a, Advertisement>,
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
    fn make(&mut self) -> Result<(), UpstreamError> {
        let draft = Draft::at(self.shared.places.new_draft());
        let (git, path) = (self.tools.git, draft.path());
        let listed = self.shared.makings.list(self.place, path);
        self.run(git.init_mirror(path, self.seen.format), "init")?;
        shape::configure(path).map_err(failed_at("configuring", path))?;
        self.fetch(path, &Refs::new(), Some(&listed))?;
        self.store(&self.stored(path)?)?;
        self.keep_what_is_held(&draft)?;
        draft.sync().map_err(failed_at("syncing", path))?;
        let published = self.turn.while_moving(|| self.shared.places.publish(path, self.place));
        published.map_err(failed_at("giving its place to", self.place))?;
        self.turn.set_clean(true);
        self.turn.set_sound();
        self.turn.set_refs(Arc::new(self.wanted.clone()));
        self.turn.set_fresh(self.seen.at);
        Ok(())
    }

    /// Changes what differs. A mirror that nothing is left to do for was brought up to date by whoever had the turn before.
    fn freshen(&mut self) -> Result<Left, UpstreamError> {
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
        if self.turn.is_ahead_of(self.seen.at) {
            // By that answer, what a push has landed since would look gone.
            self.look_again()?;
        }
        let stored = match Stored::read(self.place, &self.turn, self.tools) {
            Err(error) if error.is_of_mirror() => {
                log::warn!("the mirror {:?} cannot be read and is made anew: {error}", self.place);
                return Ok(Left::All);
            }
            stored => stored.map_err(|error| self.of_refs(error))?,
        };
        let before = stored.values();
        if !self.wanted.is_empty() && !self.may_become(&before) {
            return Ok(Left::All);
        }
        if !is_sound && !self.examine(&before)? {
            log::warn!("the mirror {:?} lacks objects, or is damaged, and is made anew", self.place);
            return Ok(Left::All);
        }
        let left = match self.change(&stored) {
            Err(error) => match damage_of(&error) {
                Some(damage) => self.mend(&damage, &error),
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
            _ if self.turn.is_suspect() => self.is_undamaged()?,
            Some(look) if look.has_lost_packs(self.place) => self.is_connected()?,
            Some(_) | None => self.has_tips(before)?,
        };
        if is_complete {
            self.turn.set_sound();
        }
        Ok(is_complete)
    }

    /// Looks at every byte, which may take as long as it took to make them.
    fn is_undamaged(&self) -> Result<bool, UpstreamError> {
        let now = Instant::now();
        let deadline = first_deadline(self.place, self.keeping, self.tools.asker.deadline);
        let tools = Tools { asker: Asker { deadline, ..self.tools.asker }, ..*self.tools };
        let spec = tools.spec(tools.git.examine(self.place), format!("fsck {}", self.place.display()));
        let outcome = run(spec, &self.turn, &tools)?;
        if outcome.ended.is_some() {
            return self.judge("fsck", outcome).map(|()| false);
        }
        let is_undamaged = damage::is_none_found(outcome.exit);
        if is_undamaged {
            self.turn.set_examined(now);
        }
        Ok(is_undamaged)
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

    /// Takes out refs that name nothing and that the upstream has not, or has otherwise; makes the mirror anew where there
    /// are none, or where that is not enough.
    fn mend(&mut self, damage: &Damage, error: &UpstreamError) -> Result<Left, UpstreamError> {
        log::warn!("the mirror {:?} is broken and is mended: {error}", self.place);
        self.clear()?;
        let stored = self.stored(self.place)?;
        let mut sound = stored.values();
        let all = sound.len();
        sound.retain(|name, oid| !damage.refs.contains(name) || self.wanted.get(name) == Some(&*oid));
        if sound.len() == all {
            return Ok(Left::All);
        }
        self.turn.set_clean(false);
        let mended = stored.replace(&sound, None, &self.turn, self.tools);
        mended.map_err(|error| self.of_refs(error))?;
        match self.change(&self.stored(self.place)?) {
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

    /// Makes the mirror, which has what is `stored`, like its upstream.
    fn change(&mut self, stored: &Stored<'_>) -> Result<(), UpstreamError> {
        self.turn.set_clean(false);
        self.fetch(self.place, &stored.values(), None)?;
        self.store(stored)?;
        self.turn.set_clean(true);
        if self.turn.refs().is_none_or(|known| *known != self.wanted) {
            self.turn.set_refs(Arc::new(self.wanted.clone()));
        }
        Ok(())
    }

    fn stored<'b>(&self, git_dir: &'b Path) -> Result<Stored<'b>, UpstreamError> {
        Stored::read(git_dir, &self.turn, self.tools).map_err(|error| self.of_refs(error))
    }

    /// Lets the refs and HEAD be what upstream said.
    fn store(&self, stored: &Stored<'_>) -> Result<(), UpstreamError> {
        let upstream = self.seen.head.as_ref();
        let has_commit = match upstream {
            Some(Head::Detached(oid)) => refs::has_commit(stored.git_dir(), oid, self.tools)?,
            Some(Head::Branch(_)) | None => false,
        };
        let head = head::choose(&self.wanted, upstream, stored.head(), |_| has_commit);
        let moved = stored.replace(&self.wanted, head.as_ref(), &self.turn, self.tools);
        moved.map_err(|error| self.of_refs(error))
    }

    fn of_refs(&self, error: RefsError) -> UpstreamError {
        UpstreamError::of_refs(&self.seen.url.origin(), error)
    }

    /// Brings the objects of those refs that a mirror with the refs `present` has not. Where git fails for no reason that lies
    /// on the way, upstream is asked again: what is wanted may be gone since it was, and what it says now decides; or it is
    /// no git any more that answers.
    fn fetch(
        &mut self,
        git_dir: &Path,
        present: &Refs,
        listed: Option<&Listed<'_>>,
    ) -> Result<(), UpstreamError> {
        let outcome = match self.fetch_once(git_dir, present, listed)? {
            Some(outcome) if is_doubtful(&outcome) && self.look_again()? => {
                self.fetch_once(git_dir, present, listed)?
            }
            outcome => outcome,
        };
        match outcome {
            Some(outcome) if outcome.is_success() && damage::is_of_shallow(&outcome.stderr) => {
                Err(UpstreamError::Shallow { at: self.seen.url.origin() })
            }
            Some(outcome) => self.judge("fetch", outcome),
            None => Ok(()),
        }
    }

    /// Asks upstream again. Whether it has something else now for this mirror.
    fn look_again(&mut self) -> Result<bool, UpstreamError> {
        let Tools { git, asker, .. } = self.tools;
        let now = self.shared.ask_again(&self.seen, self.remote, git, asker)?;
        let wanted = those(&now.refs, |name| self.keeping.refs.has(name));
        let is_other = wanted != self.wanted && now.format == self.seen.format;
        if now.format == self.seen.format {
            (self.seen, self.wanted) = (Cow::Owned(now), wanted);
        }
        Ok(is_other)
    }

    /// `None` where nothing has to come.
    fn fetch_once(
        &self,
        git_dir: &Path,
        present: &Refs,
        listed: Option<&Listed<'_>>,
    ) -> Result<Option<Outcome>, UpstreamError> {
        let coming = coming(present, &self.wanted);
        if coming.is_empty() {
            return Ok(None);
        }
        let from =
            Reaching { url: &self.seen.url, credential: self.credential.as_ref(), route: self.remote.route };
        let idle_limit = self.keeping.idle_limit;
        // Nobody sees a draft before all of it is on the disk.
        let syncing = if listed.is_some() { Syncing::InTheEnd } else { Syncing::Each };
        let fetch = self.tools.git.fetch_objects(git_dir, &from, idle_limit, syncing);
        let mut spec = self.tools.spec(fetch, format!("fetch {}", self.place.display()));
        spec.stdin = list_of(coming).map_err(failed_at("writing a list of objects of", self.place))?;
        let mut child = self.start(spec)?;
        child.limit_silence(idle_limit, IDLE_LIMIT, work_shows(git_dir));
        listed.into_iter().for_each(|listed| child.listen(listed.ear()));
        Ok(Some(child.stream(self.tools.asker.client, |_| Ok(()))))
    }

    fn run(&self, invocation: Invocation, what: &'static str) -> Result<(), UpstreamError> {
        let spec = self.tools.spec(invocation, format!("{what} {}", self.place.display()));
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
/// of one.
pub(super) fn work_shows(git_dir: &Path) -> impl Fn() -> bool + Send + use<> {
    let packs = git_dir.join("objects/pack");
    let before = names_in(&packs);
    move || !names_in(&packs).is_subset(&before)
}

/// What is in a directory; nothing in one that cannot be read.
fn names_in(dir: &Path) -> BTreeSet<OsString> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
}

/// Whether a fetch failed by itself, and not on the way.
fn is_doubtful(fetch: &Outcome) -> bool {
    !fetch.is_success() && fetch.ended.is_none() && TransportFault::find(&fetch.stderr).is_none()
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

/// Objects as the standard input of a git, one a line.
pub(super) fn list_of<'a>(oids: impl IntoIterator<Item = &'a Oid>) -> io::Result<Input> {
    let lines: String = oids.into_iter().map(|oid| format!("{oid}\n")).collect();
    Ok(Input::File(memory_file::reader_of(lines.as_bytes())?))
}

pub(super) fn failed_at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> UpstreamError {
    let path = path.to_path_buf();
    move |source| UpstreamError::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_shows_by_its_pack() {
        let dir = tempfile::tempdir().unwrap();
        let packs = dir.path().join("objects/pack");
        fs::create_dir_all(&packs).unwrap();
        fs::write(packs.join("pack-1.pack"), "").unwrap();
        let shows = work_shows(dir.path());
        assert!(!shows(), "all of it was there before");
        for name in ["tmp_pack_x", "pack-2.pack"] {
            fs::write(packs.join(name), "").unwrap();
            assert!(shows(), "{name}");
            fs::remove_file(packs.join(name)).unwrap();
        }
    }
}
