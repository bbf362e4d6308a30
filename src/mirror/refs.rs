//! The refs of a mirror on the disk, and the one step in which they change.
//!
//! All of them are in one file, so that whoever lists them finds those from before a step or those from after it, and ten
//! thousand cost hardly more than one. The objects come before, by a fetch that writes no ref.
//!
//! HEAD is a file of its own. Where it changes as well, both files wait under the names of their locks until they are whole on
//! the disk, that of the refs first; then they take their places, HEAD last. Who comes between the two through the gate asks
//! again ([`Turn::while_moving`]). A gate that is killed there leaves a lock of HEAD without one of the refs: such a step was
//! taken, and [`settle`] ends it. All other locks are of steps that were not.

use super::bring::run;
use super::changes::{Refs, is_in_the_way};
use super::shape::loose_refs;
use super::turns::Turn;
use crate::git::ask::{self, AskError};
use crate::git::head::{self, Head};
use crate::git::packed_refs::{self, PackedRef, PackedRefs, Replacement, lock_of};
use crate::git::tools::Tools;
use crate::model::mirrored::OWN;
use crate::model::oid::Oid;
use crate::supervise::{Outcome, SpawnError};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// What a mirror has.
#[derive(Debug)]
pub(super) struct Stored<'a> {
    git_dir: &'a Path,
    packed: PackedRefs,
    /// `None` where it is none that a mirror has.
    head: Option<Head>,
}

/// Why refs could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RefsError {
    /// A question to git failed.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Git could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Git was ended, or failed.
    #[error("git failed at {what}: {outcome}")]
    Git {
        /// What it was to do.
        what: &'static str,
        /// How it ended.
        outcome: Box<Outcome>,
    },
    /// No repository can have these refs.
    #[error("{0}")]
    Wrong(String),
    /// A file could not be read or written.
    #[error("{doing} {path:?}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl RefsError {
    /// Whether the mirror is broken, and not the way to it.
    pub(super) fn is_of_mirror(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == ErrorKind::InvalidData,
            Self::Git { outcome, .. } => outcome.ended.is_none(),
            Self::Ask(_) | Self::Spawn(_) | Self::Wrong(_) => false,
        }
    }
}

impl<'a> Stored<'a> {
    /// Those of the mirror at `git_dir`, whose turn this is. Loose ones, which mirrors had before, are packed first.
    pub(super) fn read(git_dir: &'a Path, turn: &Turn, tools: &Tools<'_>) -> Result<Self, RefsError> {
        pack_loose(git_dir, turn, tools)?;
        let failed = || failed_at("reading the refs of", git_dir);
        let (packed, head) = (PackedRefs::read(git_dir), read_head(git_dir));
        Ok(Self { git_dir, packed: packed.map_err(failed())?, head: head.map_err(failed())? })
    }

    /// The refs with their values, also those that were mirrored in an earlier life of the gate and are not any more, but
    /// none of the gate's own.
    pub(super) fn values(&self) -> Refs {
        let theirs = self.packed.0.iter().filter(|(name, _)| !name.starts_with(OWN));
        theirs.map(|(name, packed)| (name.clone(), packed.value.clone())).collect()
    }

    /// Where the mirror is.
    pub(super) fn git_dir(&self) -> &'a Path {
        self.git_dir
    }

    /// What HEAD names.
    pub(super) fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Makes these the refs, and what HEAD names if that changes too, in one step. Their objects have to be there; the gate's
    /// own refs stay.
    pub(super) fn replace(
        &self,
        refs: &Refs,
        head: Option<&Head>,
        turn: &Turn,
        tools: &Tools<'_>,
    ) -> Result<(), RefsError> {
        let next = self.next(refs, tools)?;
        let head = head.filter(|head| Some(*head) != self.head());
        let failed = || failed_at("replacing the refs of", self.git_dir);
        // Dropped in the reverse order: that of HEAD never stays behind alone.
        let packed =
            (next != self.packed).then(|| next.prepare(self.git_dir)).transpose().map_err(failed())?;
        let head = head.map(|head| Replacement::of(self.git_dir.join(head::FILE), head.text().as_bytes()));
        let head = head.transpose().map_err(failed())?;
        if packed.is_none() && head.is_none() {
            return Ok(());
        }
        let directory = File::open(self.git_dir).map_err(failed())?;
        let step = || {
            // Both locks are there for good before the first of them goes.
            head.iter().try_for_each(|_| directory.sync_all())?;
            packed.into_iter().try_for_each(Replacement::take_place)?;
            head.into_iter().try_for_each(Replacement::take_place)?;
            directory.sync_all()
        };
        turn.while_moving(step).map_err(failed())
    }

    /// The file with these refs. What is new in it is looked at.
    fn next(&self, refs: &Refs, tools: &Tools<'_>) -> Result<PackedRefs, RefsError> {
        let present = |name: &String, oid: &Oid| self.packed.0.get(name).filter(|known| known.value == *oid);
        let coming = refs.iter().filter(|(name, oid)| present(name, oid).is_none());
        let coming: Vec<(&String, &Oid)> = coming.collect();
        if let Some((name, _)) = coming.iter().find(|(name, _)| is_in_the_way(name, refs)) {
            return Err(RefsError::Wrong(format!("{name} cannot be there beside others of its name")));
        }
        let oids: BTreeSet<&Oid> = coming.iter().map(|(_, oid)| *oid).collect();
        let found = ask::peel(tools.git, self.git_dir, &oids, &tools.asker)?;
        let mut next: BTreeMap<String, PackedRef> = BTreeMap::new();
        let own = self.packed.0.iter().filter(|(name, _)| name.starts_with(OWN));
        next.extend(own.map(|(name, packed)| (name.clone(), packed.clone())));
        for (name, oid) in refs {
            let packed = match present(name, oid) {
                Some(known) => known.clone(),
                None => of_object(name, oid, found.get(oid))?,
            };
            next.insert(name.clone(), packed);
        }
        Ok(PackedRefs(next))
    }
}

/// A ref to an object that is there.
fn of_object(name: &str, oid: &Oid, found: Option<&ask::Peeled>) -> Result<PackedRef, RefsError> {
    let Some(found) = found else {
        return Err(RefsError::Wrong(format!("{name} names an object that has not come")));
    };
    let is_tag = found.oid != *oid;
    if name.starts_with("refs/heads/") && (is_tag || !found.is_commit) {
        return Err(RefsError::Wrong(format!("the branch {name} is no commit")));
    }
    Ok(PackedRef { value: oid.clone(), peeled: is_tag.then(|| found.oid.clone()) })
}

/// Whether a commit is in the mirror at `git_dir`.
pub(super) fn has_commit(git_dir: &Path, oid: &Oid, tools: &Tools<'_>) -> Result<bool, AskError> {
    let found = ask::peel(tools.git, git_dir, &[oid].into(), &tools.asker)?;
    Ok(found.get(oid).is_some_and(|found| found.is_commit && found.oid == *oid))
}

/// What HEAD of the mirror at `git_dir` names; `None` for what it names in none.
pub(super) fn read_head(git_dir: &Path) -> io::Result<Option<Head>> {
    let text = fs::read(git_dir.join(head::FILE))?;
    Ok(str::from_utf8(&text).ok().and_then(Head::parse))
}

/// Ends the step that a killed gate was amid in the mirror at `git_dir`, so that it was taken or was not. Whoever calls has the
/// turn.
pub(super) fn settle(git_dir: &Path) -> io::Result<()> {
    let (place, packed) = (git_dir.join(head::FILE), lock_of(&git_dir.join(packed_refs::FILE)));
    let lock = lock_of(&place);
    let text = match fs::read(&lock) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    let is_whole = str::from_utf8(&text).is_ok_and(|text| Head::parse(text).is_some());
    if is_whole && !fs::exists(packed)? {
        fs::rename(lock, place)?
    } else {
        fs::remove_file(lock)?
    }
    File::open(git_dir)?.sync_all()
}

/// Whether [`settle`] may have something to do.
pub(super) fn is_unsettled(git_dir: &Path) -> bool {
    lock_of(&git_dir.join(head::FILE)).exists()
}

fn pack_loose(git_dir: &Path, turn: &Turn, tools: &Tools<'_>) -> Result<(), RefsError> {
    let failed = || failed_at("looking for loose refs of", git_dir);
    if loose_refs(git_dir).map_err(failed())?.is_empty() {
        return Ok(());
    }
    turn.set_clean(false);
    let spec = tools.spec(tools.git.pack_refs(git_dir), format!("pack-refs {}", git_dir.display()));
    let outcome = run(spec, turn, tools)?;
    if !outcome.is_success() {
        return Err(RefsError::Git { what: "pack-refs", outcome: Box::new(outcome) });
    }
    // What git does not pack names nothing, or stands for another one: no mirror has such refs.
    let left = loose_refs(git_dir).map_err(failed())?;
    left.iter().try_for_each(fs::remove_file).map_err(failed_at("removing broken refs of", git_dir))?;
    turn.set_clean(true);
    Ok(())
}

fn failed_at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RefsError {
    let path = path.to_path_buf();
    move |source| RefsError::Io { doing, path, source }
}
