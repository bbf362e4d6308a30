//! Where the objects of a push are until it is decided: `DATA/held/ID.git`, a bare repository of ours that borrows from
//! the target.
//!
//! It is written by us and holds the pushed refs, at the values that they have in the target, so that
//! `git receive-pack` takes a push here exactly if the target's refs are where the pusher saw them; and under names of ours
//! what the branches of the target have, where the search for missing objects ends. No hook runs here, no
//! configuration of the target counts, and nothing is served from here. What is refused goes with the directory, so its
//! objects were never in a store that is served.
//!
//! The owner of the directory is the push record: [`Held::list`] finds those without one.

use crate::git::ask::{self, AskError, FoundRefs};
use crate::git::layout::Repository;
use crate::git::object_format::ObjectFormat;
use crate::git::push_answer::{AnswerError, AnswerReader, PushAnswer};
use crate::git::push_request::PushRequest;
use crate::git::tools::Tools;
use crate::model::oid::Oid;
use crate::model::push::{PushId, RefUpdate};
use crate::model::text::sanitize;
use crate::supervise::{Exit, Input, Outcome, SpawnError, Why};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What HEAD names: a ref that nobody pushes, so that the branch which is deleted is never the current one.
const HEAD: &str = "ref: refs/tidegate/none\n";

/// Where refs of ours are.
const OUR_REFS: &str = "refs/tidegate";

/// Where the branches of a target are.
const BRANCHES: &str = "refs/heads";

/// Different values of a target's branches that are written down: a megabyte, which takes as long as it takes git to list so
/// many by itself.
const BORDERS_MAX: usize = 10_000;

/// Keeps git from listing the refs of what the repository borrows from, with a git of its own for each: they are here. Git
/// takes no empty command, and this one says nothing.
const BORDERS_ARE_HERE: &str = "[core]\n\talternateRefsCommand = true\n";

/// What follows the number in the name of a staging repository.
const SUFFIX: &str = ".git";

/// How much of the file of a ref is read: more than the longest name.
const LOOSE_MAX: u64 = 8 << 10;

/// The directories of a bare repository.
const DIRECTORIES: [&str; 4] = ["objects", "objects/info", "objects/pack", "refs"];

/// The place of all staging repositories.
#[derive(Clone, Debug)]
pub struct Held {
    /// Where they are.
    held: PathBuf,
    /// Where they are moved to be removed; on the same volume, and emptied at every start.
    tmp: PathBuf,
}

/// One staging repository.
#[derive(Clone, Debug)]
pub struct Staging {
    id: PushId,
    git_dir: PathBuf,
    target: Repository,
}

/// Why objects could not be taken in. What git says against the push itself is no error but its answer.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// The target did not tell its refs.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Git could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// A file could not be written.
    #[error("{doing} {path:?}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Git was ended, or ended without an answer.
    #[error("git receive-pack failed: {outcome}: {}", outcome.stderr.trim_end())]
    Failed {
        /// How it ended.
        outcome: Box<Outcome>,
    },
    /// Git answered something that cannot be understood.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// A ref is symbolic: git would move another one, of which nobody who checks or decides knows.
    #[error("{name} stands for {other}: push to that")]
    StandIn {
        /// The ref that was pushed.
        name: String,
        /// The ref that git would move.
        other: String,
    },
}

impl StagingError {
    /// The same push may be taken in a moment: 503 with `Retry-After`.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Ask(error) => error.is_busy(),
            Self::Spawn(error) => error.is_busy(),
            Self::Io { .. } | Self::Failed { .. } | Self::Answer(_) | Self::StandIn { .. } => false,
        }
    }

    /// The client left.
    #[must_use]
    pub fn is_client_gone(&self) -> bool {
        self.ended() == Some(Why::ClientGone)
    }

    /// The deadline passed; the text names it.
    #[must_use]
    pub fn is_deadline(&self) -> bool {
        self.ended() == Some(Why::Deadline)
    }

    fn ended(&self) -> Option<Why> {
        match self {
            Self::Ask(error) if error.is_client_gone() => Some(Why::ClientGone),
            Self::Ask(error) if error.is_deadline() => Some(Why::Deadline),
            Self::Failed { outcome } => outcome.ended,
            Self::Ask(_) | Self::Spawn(_) | Self::Io { .. } | Self::Answer(_) | Self::StandIn { .. } => None,
        }
    }
}

/// Why a push cannot take the road through the gate at all, whatever it holds; asked before anything is made.
#[must_use]
pub fn unfit(request: &PushRequest) -> Option<&'static str> {
    // The certificate names the repository that the client spoke to, and nobody but the client can sign another one.
    if request.is_signed {
        return Some("a signed push cannot be held and forwarded: push without --signed");
    }
    if !request.capabilities.wants_report() {
        return Some(
            "the client reads no report, so it would not learn what became of the push: use another one",
        );
    }
    let is_odd = |option: &Vec<u8>| option.is_empty() || option.iter().any(|byte| matches!(byte, 0 | b'\n'));
    let has_odd = request.options.iter().any(is_odd);
    has_odd.then_some("a push option that is empty or has a line break cannot be passed on")
}

impl Held {
    /// The place below `data_dir`, which has a directory `tmp`.
    ///
    /// # Errors
    /// When it is not there and cannot be made.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let place = Self { held: data_dir.join("held"), tmp: data_dir.join("tmp") };
        match private_directory(&place.held) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(place),
            made => made.map(|()| place),
        }
    }

    /// A directory of ours on the same volume, for files that nobody needs after the next start.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        &self.tmp
    }

    /// Makes the staging repository of the push `id` of `refs` to `target`, whose objects are named by `format`.
    ///
    /// # Errors
    /// See [`StagingError`]; nothing is left then.
    pub fn create(
        &self,
        id: PushId,
        target: &Repository,
        format: ObjectFormat,
        refs: &[RefUpdate],
        tools: &Tools<'_>,
    ) -> Result<Staging, StagingError> {
        // A ref that is pushed by such a name may have one of ours in its way: then git lists the branches itself.
        let may_clash = refs.iter().any(|update| update.name.as_str().starts_with(OUR_REFS));
        let places: &[&str] = if may_clash { &[] } else { &[BRANCHES] };
        let found = own_refs(target, refs, places, tools)?;
        self.create_at(id, target, format, &found)
    }

    /// As [`Held::create`], where the values that the pushed refs have in the target are known, and below them those of its
    /// branches.
    ///
    /// # Errors
    /// See [`StagingError`]; nothing is left then.
    pub fn create_at(
        &self,
        id: PushId,
        target: &Repository,
        format: ObjectFormat,
        refs: &FoundRefs,
    ) -> Result<Staging, StagingError> {
        let staging = self.find(id, target);
        let written = staging.write(format, refs);
        if written.is_err()
            && let Err(error) = self.remove(id)
        {
            log::warn!("the unfinished staging repository of push {id} stays for the sweeper: {error}");
        }
        written.map(|()| staging)
    }

    /// The staging repository of a push that was received earlier.
    #[must_use]
    pub fn find(&self, id: PushId, target: &Repository) -> Staging {
        Staging { id, git_dir: self.place_of(id), target: target.clone() }
    }

    /// Whether the push `id` has a staging repository.
    #[must_use]
    pub fn has(&self, id: PushId) -> bool {
        self.place_of(id).is_dir()
    }

    /// The pushes that have a staging repository, whether there is a record of them or not.
    ///
    /// # Errors
    /// When the place cannot be read.
    pub fn list(&self) -> io::Result<Vec<PushId>> {
        let names = fs::read_dir(&self.held)?.map(|entry| entry.map(|entry| entry.file_name()));
        let names = names.collect::<io::Result<Vec<_>>>()?;
        let id = |name: &std::ffi::OsString| PushId::parse(name.to_str()?.strip_suffix(SUFFIX)?).ok();
        let mut ids: Vec<PushId> = names.iter().filter_map(id).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// The bytes of all files in all staging repositories.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        bytes_below(&self.held)
    }

    /// Removes the staging repository of the push `id`, if there is one. The name is gone at once, so that a removal that
    /// is interrupted leaves nothing that looks like a held push.
    ///
    /// # Errors
    /// When something could not be removed; it is tried again at the next start.
    pub fn remove(&self, id: PushId) -> io::Result<()> {
        let grave = self.tmp.join(format!("held-{id}"));
        unless_absent(fs::remove_dir_all(&grave))?;
        unless_absent(fs::rename(self.place_of(id), &grave))?;
        unless_absent(fs::remove_dir_all(&grave))
    }

    fn place_of(&self, id: PushId) -> PathBuf {
        self.held.join(format!("{id}{SUFFIX}"))
    }
}

/// Sees that none of these refs is symbolic in `target`.
///
/// # Errors
/// [`StagingError::StandIn`] for the first that is; see [`StagingError`].
pub fn refuse_symbolic(
    target: &Repository,
    refs: &[RefUpdate],
    tools: &Tools<'_>,
) -> Result<(), StagingError> {
    own_refs(target, refs, &[], tools).map(drop)
}

/// These refs as they are in `target`, none of which may be symbolic, and the values of all refs below the directories
/// `places`.
fn own_refs(
    target: &Repository,
    refs: &[RefUpdate],
    places: &[&str],
    tools: &Tools<'_>,
) -> Result<FoundRefs, StagingError> {
    let names: Vec<&str> = refs.iter().map(|update| update.name.as_str()).collect();
    let asked: Vec<&str> = names.iter().chain(places).copied().collect();
    let found = ask::find_refs(tools.git, &target.git_dir, &asked, &tools.asker)?;
    let symbolic = found.symbolic.iter().next().map(|(name, other)| (name.clone(), other.clone()));
    let missing = || names.iter().filter(|name| !found.values.contains_key(**name));
    // Git lists none that stands for a ref that is not there, and creates that.
    let loose = || missing().find_map(|name| Some(((*name).to_owned(), loose_symbolic(target, name)?)));
    match symbolic.or_else(loose) {
        Some((name, other)) => Err(StagingError::StandIn { name, other }),
        None => Ok(found),
    }
}

/// What the file of a ref names, if it is symbolic; gitrepository-layout(5).
fn loose_symbolic(target: &Repository, name: &str) -> Option<String> {
    let path = target.common_dir.join(name);
    if let Ok(other) = fs::read_link(&path) {
        return Some(sanitize(&other.to_string_lossy()));
    }
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(LOOSE_MAX).read_to_end(&mut text)).ok()?;
    Some(sanitize(String::from_utf8_lossy(text.strip_prefix(b"ref:")?).trim()))
}

fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}

impl Staging {
    /// Its git directory.
    #[must_use]
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// Where the pushed objects are, and none of the target's.
    #[must_use]
    pub fn objects(&self) -> PathBuf {
        self.git_dir.join("objects")
    }

    /// The repository that it borrows from and that the push goes to.
    #[must_use]
    pub fn target(&self) -> &Repository {
        &self.target
    }

    /// Takes in `body`, the whole request that `request` was read from. When this answers that everything was accepted,
    /// the objects are on the disk for good.
    ///
    /// The shallow borders of the client's history are not told to git: it would look for them behind the refs of this
    /// repository, which has next to none. Without them it looks whether the target has what lies behind, and refuses what
    /// would make the target shallow.
    ///
    /// # Errors
    /// See [`StagingError`]; the caller removes the staging repository.
    pub fn receive(
        &self,
        tools: &Tools<'_>,
        mut body: File,
        request: &PushRequest,
    ) -> Result<PushAnswer, StagingError> {
        body.seek(SeekFrom::Start(request.shallow_end)).map_err(self.failed_at("rewinding a push for"))?;
        let mut spec =
            tools.spec(tools.git.receive_held(&self.git_dir), format!("receive-pack held/{}", self.id));
        spec.stdin = Input::File(body);
        let mut reader = AnswerReader::new(request);
        let mut misread = None;
        let child = tools.asker.reaper.spawn(spec)?;
        // Meanwhile.
        let synced = self.sync_skeleton();
        let outcome = child.stream(tools.asker.client, |bytes| {
            reader.feed(bytes).map_err(|error| {
                misread = Some(error);
                Why::Internal
            })
        });
        let answer = match (misread, outcome.ended, outcome.exit) {
            (Some(error), ..) => return Err(error.into()),
            (None, None, Exit::Code(_)) if !outcome.leaked => reader.finish(request),
            (None, ..) => return Err(StagingError::Failed { outcome: Box::new(outcome) }),
        };
        // A git that failed without an answer says why on its standard error.
        let answer = match answer {
            Err(_) if !outcome.is_success() => {
                return Err(StagingError::Failed { outcome: Box::new(outcome) });
            }
            answer => answer?,
        };
        if answer.is_accepted() {
            synced.and_then(|()| self.sync(&["objects/pack"]))?;
        }
        Ok(answer)
    }

    /// Writes the skeleton.
    fn write(&self, format: ObjectFormat, known: &FoundRefs) -> Result<(), StagingError> {
        private_directory(&self.git_dir).map_err(self.failed_at("making"))?;
        for name in DIRECTORIES {
            private_directory(&self.git_dir.join(name)).map_err(self.failed_at("making a directory in"))?;
        }
        let borders = borders(known);
        let lists_borders = if borders.is_empty() { "" } else { BORDERS_ARE_HERE };
        let values = known.values.iter().map(|(name, oid)| (name.clone(), oid)).chain(borders).collect();
        let files = [
            ("HEAD", HEAD.into()),
            ("config", (format.bare_config() + lists_borders).into()),
            ("objects/info/alternates", alternates(&self.target.common_dir.join("objects"))),
            ("packed-refs", packed_refs(&values).into()),
        ];
        for (name, content) in files {
            fs::write(self.git_dir.join(name), content).map_err(self.failed_at("writing a file in"))?;
        }
        self.borrow_borders()
    }

    /// A target that is shallow itself has commits without parents, and so has whoever borrows from it.
    fn borrow_borders(&self) -> Result<(), StagingError> {
        let copied = fs::copy(self.target.common_dir.join("shallow"), self.git_dir.join("shallow"));
        unless_absent(copied.map(|_| ()))
            .map_err(self.failed_at("copying the shallow borders of the target to"))
    }

    /// What makes this a repository and is not changed by a push. Git syncs the packs themselves.
    fn sync_skeleton(&self) -> Result<(), StagingError> {
        self.sync(&["HEAD", "config", "objects/info/alternates", "objects/info", "objects", "", ".."])
    }

    fn sync(&self, names: &[&str]) -> Result<(), StagingError> {
        let sync = |name: &&str| File::open(self.git_dir.join(name))?.sync_all();
        names.iter().try_for_each(sync).map_err(self.failed_at("syncing"))
    }

    fn failed_at(&self, doing: &'static str) -> impl FnOnce(io::Error) -> StagingError + Copy {
        let path = &self.git_dir;
        move |source| StagingError::Io { doing, path: path.clone(), source }
    }
}

fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn unless_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// In quotes, so that no byte of the path is taken for a comment or the end of the line (gitrepository-layout(5)).
fn alternates(objects: &Path) -> Vec<u8> {
    let escape = |&byte: &u8| match byte {
        b'"' | b'\\' => vec![b'\\', byte],
        b'\n' => b"\\n".to_vec(),
        byte => vec![byte],
    };
    let path = objects.as_os_str().as_bytes().iter().flat_map(escape);
    [b'"'].into_iter().chain(path).chain(*b"\"\n").collect()
}

/// The branches of the target as refs of the staging repository; none where they are too many.
fn borders(known: &FoundRefs) -> BTreeMap<String, &Oid> {
    let some = Some(&known.below).filter(|below| below.len() <= BORDERS_MAX);
    some.into_iter().flatten().map(|oid| (format!("{OUR_REFS}/border/{oid}"), oid)).collect()
}

/// Sorted, as git wants it.
fn packed_refs(values: &BTreeMap<String, &Oid>) -> String {
    let lines = values.iter().map(|(name, oid)| format!("{oid} {name}\n"));
    ["# pack-refs with: sorted \n".to_owned()].into_iter().chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::pktline::{Packet, encode};
    use crate::git::push_request::Bounds;

    #[test]
    fn only_whole_staging_repositories_are_listed_and_removal_is_final() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("tmp")).unwrap();
        let held = Held::open(data.path()).unwrap();
        let held =
            Held::open(data.path()).map(|again| assert_eq!(again.held, held.held)).map(|()| held).unwrap();
        for name in ["12.git", "3.git", "03.git", "x.git", "4", "-5.git"] {
            fs::create_dir_all(held.held.join(name).join("objects/pack")).unwrap();
        }
        let ids = [3, 12].map(|number| PushId::new(number).unwrap());
        assert_eq!(held.list().unwrap(), ids);
        fs::create_dir_all(data.path().join("tmp/held-3/interrupted")).unwrap();
        ids.into_iter().for_each(|id| held.remove(id).unwrap());
        held.remove(ids[0]).unwrap();
        assert!(held.list().unwrap().is_empty() && !held.has(ids[1]));
        assert_eq!(fs::read_dir(data.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn any_path_can_be_borrowed_from() {
        assert_eq!(alternates(Path::new("/srv/a")), b"\"/srv/a\"\n");
        assert_eq!(alternates(Path::new("/a\"b\\c\nd#")), b"\"/a\\\"b\\\\c\\nd#\"\n");
    }

    #[test]
    fn what_cannot_be_forwarded_is_known_from_its_head() {
        let reason = |capabilities: &str, option: &str| {
            let (old, new) = ("a".repeat(40), "b".repeat(40));
            let mut stream = Vec::new();
            encode(Packet::Data(format!("{old} {new} refs/heads/x\0{capabilities}").as_bytes()), &mut stream);
            encode(Packet::Flush, &mut stream);
            encode(Packet::Data(option.as_bytes()), &mut stream);
            encode(Packet::Flush, &mut stream);
            unfit(&PushRequest::read(&stream[..], Bounds { commands: 9, bytes: 9999 }).unwrap())
        };
        assert_eq!(reason("report-status push-options", "ci.skip=a b"), None);
        assert!(reason("push-options", "x").unwrap().contains("no report"));
        for odd in ["", "a\nb", "a\0b"] {
            assert!(reason("report-status-v2 push-options", odd).unwrap().contains("push option"), "{odd:?}");
        }
    }
}
