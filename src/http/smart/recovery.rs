//! After a kill: what the pushes of an earlier life left in hosted repositories is cleaned before anything is served.

use crate::git::footprint::Footprint;
use crate::git::leftovers::Window;
use crate::http::app::App;
use crate::store::StoreError;
use crate::store::writes::{Note, OpenWrite};
use std::time::SystemTime;

/// Takes up every push that an earlier life noted and did not settle. Its processes have been ended before; what a
/// foreign writer keeps from being cleaned now is left to the sweeper.
///
/// # Errors
/// When the notes cannot be read.
pub fn settle_earlier_writes(app: &App) -> Result<(), StoreError> {
    for write in app.store.writes().open()? {
        take_up(app, write);
    }
    let unclean = app.leases.tend();
    if unclean > 0 {
        log::warn!("{unclean} repositories hold leftovers of an earlier life that wait for a foreign writer");
    }
    Ok(())
}

/// A repository that cannot be looked at keeps its note for the next start; one that is gone needs none.
fn take_up(app: &App, write: OpenWrite) {
    let OpenWrite { id, repo, refs, started, boot: _ } = write;
    let found = match app.root.at(&repo) {
        Err(error) if !error.is_fault() => app.road.upstreams().directory_at(&repo),
        found => found,
    };
    let repository = match found {
        Ok(repository) => repository,
        Err(error) if error.is_fault() => {
            return log::error!("{} cannot be cleaned after an earlier life: {error}", repo.display());
        }
        Err(error) => {
            log::info!("{} is not looked after any more: {error}", repo.display());
            return drop(Note::of(app.store.clone(), id));
        }
    };
    let note = Box::new(Note::of(app.store.clone(), id));
    let window = Window { from: SystemTime::from(started), until: SystemTime::now() };
    if let Err(error) = app.leases.remember(&repository, window, Footprint::from_notes(&refs), note) {
        log::warn!("{}: {error}", repo.display());
    }
}
