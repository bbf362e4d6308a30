//! Removing a mirror for good.
//!
//! It loses its name first, in one step, so that nobody ever finds a part of it; its files go after that, and if the gate is
//! killed meanwhile, at the next start with everything else in `DATA/tmp`. A reader under way goes on with the packs that
//! it has open, or is told that it failed.

use super::Shared;
use super::draft::Draft;
use super::error::ForgetError;
use super::making::Progress;
use super::turns::TurnError;
use crate::model::name::RepoName;
use crate::sys::stop::Stop;
use std::io;
use std::path::Path;
use std::time::Instant;

/// See [`Mirrors::forget`](super::Mirrors::forget).
pub(super) fn forget(
    shared: &Shared,
    repo: &RepoName,
    until: Instant,
    stop: &Stop,
) -> Result<bool, ForgetError> {
    let place = shared.places.of(repo);
    if shared.places.find(repo).is_none() {
        return match shared.makings.progress(&place) {
            Some(Progress { left, .. }) => Err(ForgetError::FirstClone { left }),
            None => Ok(false),
        };
    }
    let turn = shared.turns.take(&place, until, || (!stop.is_running()).then_some(TurnError::Stopping))?;
    if shared.places.find(repo).is_none() {
        return Ok(false);
    }
    require_unborrowed(shared, &place)?;
    let away = shared.places.new_draft();
    shared.places.withdraw(&place, &away).map_err(failed_at("taking away", &place))?;
    // Whoever came to borrow between the look and the step finds it again; whoever comes now finds none.
    if let Err(error) = require_unborrowed(shared, &place) {
        let back = shared.places.publish(&away, &place);
        back.map_err(failed_at("giving its place back to", &place))?;
        return Err(error);
    }
    turn.forget();
    drop(turn);
    drop(Draft::at(away));
    Ok(true)
}

fn require_unborrowed(shared: &Shared, place: &Path) -> Result<(), ForgetError> {
    let is_borrowed = shared.places.is_borrowed(place);
    let is_borrowed = is_borrowed.map_err(failed_at("looking for pushes that borrow from", place))?;
    if is_borrowed { Err(ForgetError::Held) } else { Ok(()) }
}

fn failed_at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ForgetError {
    let path = path.to_path_buf();
    move |source| ForgetError::Io { doing, path, source }
}
