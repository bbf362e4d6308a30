//! A repository in a directory of this machine: a hosted one, or one of an upstream that is a directory.

use super::{ANSWER_MAX, Destination, Parcel, leased};
use crate::git::ask::{self, Asker};
use crate::git::footprint::{Footprint, RefTrace};
use crate::git::held::{Onward, Update};
use crate::git::layout::Repository;
use crate::git::lease::{Lease, LeaseError, Leases};
use crate::git::tools::Tools;
use crate::model::oid::Oid;
use crate::model::push::RefUpdate;
use crate::store::Store;
use crate::store::writes::Note;
use crate::supervise::{Exit, Outcome};
use crate::sys::stop::Level;
use std::collections::BTreeMap;

/// What git says when it is not the push that is wrong but the moment: another git holds a lock, or the machine lacks
/// something that comes back.
const PASSING: [&str; 6] = [
    "File exists.",
    "No space left on device",
    "Disk quota exceeded",
    "Cannot allocate memory",
    "Resource temporarily unavailable",
    "Too many open files",
];

/// The repository. Its own git takes the push, with its owner's hooks and settings. The push enters it under
/// its lease, so that whatever a killed one leaves is cleaned.
#[derive(Clone, Copy, Debug)]
pub struct Directory<'a> {
    /// Which.
    pub repository: &'a Repository,
    /// Who lets a push into it.
    pub leases: &'a Leases,
    /// Where the push is noted while it is under way.
    pub store: &'a Store,
}

impl Destination for Directory<'_> {
    fn values(&self, tools: &Tools<'_>, names: &[&str]) -> Result<BTreeMap<String, Oid>, String> {
        ask::ref_values(tools.git, &self.repository.git_dir, names, &tools.asker)
            .map_err(|error| error.to_string())
    }

    fn push(&self, tools: &Tools<'_>, parcel: &Parcel<'_>) -> Result<(Outcome, Vec<u8>), String> {
        let lease = self.enter(tools, parcel)?;
        let updates: Vec<Update<'_>> = parcel.updates.iter().map(|update| leased(update)).collect();
        let to = &self.repository.git_dir;
        let Parcel { from, options, pusher: identity, .. } = *parcel;
        let invocation = tools.git.push_onward(&Onward { from, to, updates: &updates, options, identity });
        let mut child =
            match tools.asker.reaper.spawn(tools.spec(invocation, format!("push {}", to.display()))) {
                Ok(child) => child,
                Err(error) => {
                    lease.settle();
                    return Err(error.to_string());
                }
            };
        child.hold(Box::new(lease.hold()));
        let (outcome, answer) = child.collect(ANSWER_MAX, None);
        if is_clean(&outcome) {
            lease.settle();
        }
        // Otherwise it is cleaned here, before the refs are looked at.
        Ok((outcome, answer))
    }

    fn is_passing(&self, stderr: &str) -> bool {
        PASSING.iter().any(|words| stderr.contains(words))
    }

    /// People are not told where repositories lie on the disk.
    fn conceal(&self, words: &str) -> String {
        words.replace(&*self.repository.git_dir.to_string_lossy(), "the target")
    }
}

impl Directory<'_> {
    /// Notes the push and enters the repository with it.
    fn enter(&self, tools: &Tools<'_>, parcel: &Parcel<'_>) -> Result<Lease, String> {
        let trace = |update: &&RefUpdate| RefTrace {
            name: update.name.as_str().as_bytes().to_vec(),
            new: update.new.clone(),
        };
        let footprint =
            Footprint { refs: parcel.updates.iter().map(trace).collect(), ..Footprint::default() };
        let note = Note::make(self.store.clone(), &self.repository.git_dir, &footprint.notes())
            .map_err(|error| error.to_string())?;
        let Tools { asker: Asker { deadline, .. }, stop, .. } = tools;
        let is_over = || stop.level() == Level::Killing;
        let entered = self.leases.enter(self.repository, footprint, Box::new(note), deadline.at, is_over);
        entered.map_err(|error| match error {
            LeaseError::ClientGone => "the gate is stopping".to_owned(),
            LeaseError::Deadline | LeaseError::Full => error.to_string(),
        })
    }
}

/// Git removes its own traces on every way out but a signal.
fn is_clean(outcome: &Outcome) -> bool {
    outcome.ended.is_none() && !outcome.leaked && matches!(outcome.exit, Exit::Code(_))
}
