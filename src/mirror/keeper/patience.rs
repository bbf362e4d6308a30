//! How long readers wait for an upstream that let the last one wait in vain: one that hangs, or whose answer comes by drops.
//!
//! Who has an older copy to go with does not find out once more at his own cost what is known. A thread of its own asks, as
//! for what nobody waits for, and readers give it a moment: a server that is back answers within that, and then they wait for
//! what it has as always.

use super::flight::{Flight, Outcome};
use super::{BringError, Keeper, Shares, Waiter};
use crate::mirror::upstreams::Place;
use crate::model::name::RepoName;
use std::time::Duration;

/// How long after it was begun such a question is waited for. Whoever comes later does not wait at all.
const MOMENT: Duration = Duration::from_secs(2);

impl Keeper {
    /// Whether a reader who shares all with others has an older copy, and the upstream was silent last.
    pub(super) fn is_silent(&self, repo: &RepoName, place: Place<'_>, shares: Shares) -> bool {
        // What is asked without a client is asked as it is for him.
        let is_asked_for_all = shares == Shares::All && !place.judges_pushers();
        is_asked_for_all && self.find(repo).is_some() && self.state(repo).is_some_and(|state| state.is_silent)
    }

    /// Waits for a sync, and only for a moment for the answer of its upstream.
    pub(super) fn wait_a_moment(&self, flight: &Flight, waiter: &Waiter<'_>) -> Result<Outcome, BringError> {
        let until = waiter.until.min(flight.begun() + MOMENT);
        match self.wait(flight, &Waiter { until, ..*waiter }) {
            Err(BringError::Late) if flight.is_answered() => self.wait(flight, waiter),
            waited => waited,
        }
    }
}
