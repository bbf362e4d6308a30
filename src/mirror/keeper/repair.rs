//! Repairs: a mirror that a git could not read is looked through, and made anew where it is damaged, before anybody asks again.

use super::Keeper;
use super::flight::{Cause, Place as Seat};
use super::heard::is_synced_unasked;
use super::schedule::served;
use crate::git::pool::Class;
use crate::model::name::RepoName;
use crate::supervise::Outcome;

impl Keeper {
    /// Heeds how a git ended that read a mirror. Where that lets think of damage, a sync begins that looks at all of it; one
    /// that only readers can ask for is left to the next of them.
    pub fn heed(&self, repo: &RepoName, outcome: &Outcome) {
        let Some(place) = served(&self.0.parts.upstreams, repo) else { return };
        if !self.0.parts.upstreams.mirrors().suspect(repo, outcome) {
            return;
        }
        log::warn!("mirror {repo} may be damaged, and is looked through: {}", outcome.stderr.trim_end());
        if is_synced_unasked(place.upstream)
            && let Ok(Seat::Lead(lead)) = self.0.flights.join(repo, Cause::Repair)
        {
            self.send(lead, place, Class::Demand, ());
        }
    }
}
