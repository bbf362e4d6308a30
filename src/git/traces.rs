//! The table of what a killed git leaves in a repository, found by killing pushes of git 2.39 and 2.47 at each stage.
//!
//! The locks of the pushed refs are not here: their names come from the push, see [`crate::git::ref_locks`].

use crate::git::footprint::{Footprint, RefTrace};
use crate::git::layout::Repository;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where leftovers of one kind lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the git directory itself (the same as the common one unless it is a linked worktree).
    GitDir,
    /// In this directory below the common one.
    Common(&'static str),
    /// In the 256 directories of loose objects.
    Fanout,
    /// In this tree below the common directory.
    Tree(&'static str),
}

/// What their names are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Name {
    Exact(&'static str),
    Prefix(&'static str),
    Suffix(&'static str),
    Infix(&'static str),
}

/// What must be in the file, as far as can be told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content {
    Any,
    /// A directory.
    Directory,
    Empty,
    /// `receive-pack PID on HOST`, with our host.
    ReceivePack,
}

/// Which jobs leave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// Every push.
    Push,
    /// A push that deletes a ref.
    Deletion,
    /// A push from a shallow clone.
    Shallow,
    /// A push to the branch that HEAD names.
    Head,
    /// Maintenance.
    Maintenance,
}

/// One kind of leftover.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) place: Place,
    pub(crate) name: Name,
    pub(crate) content: Content,
    by: &'static [By],
}

/// Everything that a killed push or maintenance leaves, except the locks of the pushed refs themselves.
pub(crate) const TRACES: [Trace; 25] = [
    trace(Place::Common("objects"), Name::Prefix("tmp_objdir-incoming-"), Content::Directory, &[By::Push]),
    trace(Place::Common("objects"), Name::Prefix("tmp_obj_"), Content::Any, &[By::Push, By::Maintenance]),
    trace(Place::Fanout, Name::Prefix("tmp_obj_"), Content::Any, &[By::Push, By::Maintenance]),
    trace(Place::Common("objects/pack"), Name::Prefix("tmp_"), Content::Any, &[By::Push, By::Maintenance]),
    // Index-pack keeps a new pack from being repacked until its refs are there; left behind, it does so for ever.
    trace(Place::Common("objects/pack"), Name::Suffix(".keep"), Content::ReceivePack, &[By::Push]),
    trace(Place::Common("objects/info"), Name::Prefix("packs_"), Content::Any, &[By::Push]),
    trace(Place::Common("info"), Name::Prefix("refs_"), Content::Any, &[By::Push]),
    trace(Place::Common("reftable"), Name::Suffix(".lock"), Content::Any, &[By::Push, By::Maintenance]),
    trace(Place::Common("reftable"), Name::Infix(".temp."), Content::Any, &[By::Push, By::Maintenance]),
    trace(Place::GitDir, Name::Exact("HEAD.lock"), Content::Empty, &[By::Maintenance]),
    trace(Place::GitDir, Name::Exact("index.lock"), Content::Any, &[By::Head]),
    trace(
        Place::Common(""),
        Name::Exact("packed-refs.lock"),
        Content::Empty,
        &[By::Deletion, By::Maintenance],
    ),
    trace(Place::Common(""), Name::Exact("packed-refs.new"), Content::Any, &[By::Deletion, By::Maintenance]),
    trace(Place::Common(""), Name::Exact("shallow.lock"), Content::Any, &[By::Shallow, By::Maintenance]),
    trace(Place::Common(""), Name::Prefix("shallow_"), Content::Any, &[By::Shallow]),
    trace(Place::Common(""), Name::Prefix("gc.pid"), Content::Any, &[By::Maintenance]),
    trace(Place::Common(""), Name::Exact("gc.log.lock"), Content::Any, &[By::Maintenance]),
    trace(Place::Common("objects"), Name::Exact("maintenance.lock"), Content::Any, &[By::Maintenance]),
    trace(Place::Common("objects/info"), Name::Prefix("commit-graph.lock"), Content::Any, &[By::Maintenance]),
    trace(
        Place::Common("objects/info/commit-graphs"),
        Name::Suffix(".lock"),
        Content::Any,
        &[By::Maintenance],
    ),
    trace(
        Place::Common("objects/info/commit-graphs"),
        Name::Prefix("tmp_"),
        Content::Any,
        &[By::Maintenance],
    ),
    trace(Place::Common("objects/pack"), Name::Suffix(".lock"), Content::Any, &[By::Maintenance]),
    trace(Place::Common("objects/pack"), Name::Prefix(".tmp-"), Content::Any, &[By::Maintenance]),
    // Packing refs locks those that it prunes, and writes nothing into the locks: one with content is another writer's.
    trace(Place::Tree("refs"), Name::Suffix(".lock"), Content::Empty, &[By::Maintenance]),
    trace(Place::Tree("logs"), Name::Suffix(".lock"), Content::Any, &[By::Maintenance]),
];

const fn trace(place: Place, name: Name, content: Content, by: &'static [By]) -> Trace {
    Trace { place, name, content, by }
}

impl Place {
    /// Whether `path`, which is absolute, lies there. Every directory of objects passes for one of loose ones.
    pub(crate) fn contains(self, path: &Path, repository: &Repository) -> bool {
        let lies_in = |dir: &Path| path.parent() == Some(dir);
        let common = &repository.common_dir;
        match self {
            Self::GitDir => lies_in(&repository.git_dir),
            Self::Common(dir) => lies_in(&common.join(dir)),
            Self::Fanout => path.ancestors().nth(2) == Some(&*common.join("objects")),
            Self::Tree(dir) => path.starts_with(common.join(dir)),
        }
    }
}

impl Name {
    pub(crate) fn matches(self, name: &OsStr) -> bool {
        let name = name.as_bytes();
        match self {
            Self::Exact(text) => name == text.as_bytes(),
            Self::Prefix(text) => name.starts_with(text.as_bytes()),
            Self::Suffix(text) => name.ends_with(text.as_bytes()),
            Self::Infix(text) => name.windows(text.len()).any(|part| part == text.as_bytes()),
        }
    }
}

impl Content {
    pub(crate) fn matches(self, path: &Path, found: &Metadata) -> bool {
        match self {
            Self::Directory => found.is_dir(),
            Self::Any => found.is_file(),
            Self::Empty => found.is_file() && found.len() == 0,
            Self::ReceivePack => found.is_file() && is_from_our_receive_pack(path),
        }
    }
}

fn is_from_our_receive_pack(path: &Path) -> bool {
    let Ok(host) = fs::read_to_string("/proc/sys/kernel/hostname") else { return false };
    fs::read_to_string(path).is_ok_and(|text| {
        text.starts_with("receive-pack ") && text.trim_end().ends_with(&format!(" on {}", host.trim_end()))
    })
}

/// The places of the rows that concern `jobs`, each once.
pub(crate) fn places(jobs: &[By]) -> Vec<Place> {
    let mut places = Vec::new();
    for row in TRACES.iter().filter(|row| row.concerns(jobs)) {
        if !places.contains(&row.place) {
            places.push(row.place);
        }
    }
    places
}

impl Trace {
    pub(crate) fn concerns(&self, jobs: &[By]) -> bool {
        self.by.iter().any(|by| jobs.contains(by))
    }
}

/// Which rows of the table concern a footprint.
pub(crate) fn jobs(footprint: &Footprint, refs: &[RefTrace]) -> Vec<By> {
    let is_push = !refs.is_empty() || footprint.is_shallow;
    let is_head = refs.iter().any(|trace| trace.name == b"HEAD");
    let rows = [
        (By::Push, is_push),
        (By::Deletion, footprint.deletes()),
        (By::Shallow, footprint.is_shallow),
        (By::Head, is_head),
        (By::Maintenance, footprint.is_maintenance),
    ];
    rows.into_iter().filter(|(_, concerns)| *concerns).map(|(by, _)| by).collect()
}
