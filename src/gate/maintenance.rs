//! Maintenance of hosted repositories after pushes into them, whether these were served straight or passed on.
//!
//! Every git of ours that receives a push has `receive.autogc` off, so nobody else asks for it.

use crate::git::footprint::Footprint;
use crate::git::layout::Repository;
use crate::git::lease::Record;
use crate::git::pool::Lane;
use crate::git::upkeep::{Tools, Upkeep};
use crate::store::Store;
use crate::store::writes::Note;

/// Where maintenance is asked for; clones share what is queued.
#[derive(Clone, Debug)]
pub struct Maintenance {
    upkeep: Upkeep,
    lane: Lane,
    tools: Tools,
    store: Store,
}

impl Maintenance {
    /// Runs in `lane`, each run noted in `store`; nothing is queued yet.
    #[must_use]
    pub fn new(lane: Lane, tools: Tools, store: Store) -> Self {
        Self { upkeep: Upkeep::default(), lane, tools, store }
    }

    /// Queues the maintenance of a repository that a push has changed; see [`Upkeep::request`]. Whether the repository's
    /// owner wants any is asked before.
    pub fn request(&self, repository: &Repository) {
        let (store, place) = (self.store.clone(), repository.git_dir.clone());
        let note = move |footprint: &Footprint| match Note::make(store, &place, &footprint.notes()) {
            Ok(note) => Some(Box::new(note) as Record),
            Err(error) => {
                log::warn!("no maintenance of {place:?}: {error}");
                None
            }
        };
        self.upkeep.request(&self.lane, self.tools.clone(), repository, note);
    }
}
