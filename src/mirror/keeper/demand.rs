//! Demands: a sync that is asked for by name, whatever pause the schedule makes, and that whoever asks may wait for.
//!
//! A demand names a moment. It is met by a sync that began then or later: what upstream had at that moment is in the mirror
//! then. One that began before may have missed it, so whoever finds such a one under way waits for its end and has another.
//! The wait takes no worker and nothing of the store; the sync goes on when whoever waits leaves.

use super::flight::{Cause, Flight, Place as Seat};
use super::{BringError, Keeper, State, SyncError, Waiter};
use crate::git::pool::Class;
use crate::mirror::upstreams::Place;
use crate::model::name::RepoName;
use crate::sys::stop::Level;
use jiff::Timestamp;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Demands that are waited for at a time. Each keeps a connection for minutes, and reviewers and their scripts are few.
const WAITS_MAX: usize = 64;

/// What became of a demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demanded {
    /// A sync that began at that moment or later has succeeded.
    Met,
    /// One is under way, or about to be.
    UnderWay,
    /// The last that began then or later has failed, for this reason.
    Failed(String),
}

/// Why a demand was not waited for.
#[derive(Debug, thiserror::Error)]
pub enum DemandError {
    /// Too many wait already.
    #[error("{WAITS_MAX} demands at a time are waited for: try again in a moment")]
    Crowded,
    /// Whoever waited left.
    #[error("the client left while it waited for the mirror")]
    ClientGone,
    /// The gate stops.
    #[error("the gate is stopping")]
    Stopping,
    /// No descriptor was left to wait on.
    #[error("the gate has no descriptor left: {0}")]
    Descriptor(#[from] io::Error),
}

/// How many wait.
#[derive(Debug, Default)]
pub(super) struct Waits(AtomicUsize);

/// The place of one who waits, until it is dropped.
struct Wait<'a>(&'a Waits);

impl Waits {
    fn enter(&self) -> Option<Wait<'_>> {
        let one_more = |count| (count < WAITS_MAX).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok().map(|_| Wait(self))
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Demanded {
    fn of(outcome: Result<(), SyncError>) -> Self {
        match outcome {
            Ok(()) => Self::Met,
            Err(error) => Self::Failed(error.to_string()),
        }
    }

    /// What is known already of a demand for `since`.
    fn known(state: &State, since: Timestamp) -> Option<Self> {
        let failed = state.row.failed.as_ref().filter(|_| state.row.attempted >= since);
        match failed {
            _ if state.row.succeeded.is_some_and(|synced| synced >= since) => Some(Self::Met),
            Some(failed) => Some(Self::Failed(failed.why.clone())),
            None => None,
        }
    }
}

impl Keeper {
    /// Has a mirror synced unless a sync has ended that began at `since` or later, and waits for that where there is a waiter.
    /// What is known of a mirror that is demanded is kept from now on ([`Keeper::expect`]).
    ///
    /// # Errors
    /// See [`DemandError`]. A wait that lasts too long is none: the sync is under way.
    pub fn demand(
        &self,
        repo: &RepoName,
        place: Place<'_>,
        since: Timestamp,
        waiter: Option<&Waiter<'_>>,
    ) -> Result<Demanded, DemandError> {
        let _wait = match waiter {
            Some(_) => Some(self.0.waits.enter().ok_or(DemandError::Crowded)?),
            None => None,
        };
        loop {
            if let Some(known) = Demanded::known(&self.expect(repo), since) {
                return Ok(known);
            }
            let (flight, is_own) = self.begin(repo, place)?;
            let Some(waiter) = waiter else { return Ok(Demanded::UnderWay) };
            match self.wait_below(&flight, waiter, Level::Draining) {
                // That is what it ended by.
                Ok(Err(_)) if !self.0.parts.stop.is_running() => return Err(DemandError::Stopping),
                // What it began after is not to be read from a clock that may have been set back.
                Ok(outcome) if is_own => return Ok(Demanded::of(outcome)),
                Ok(_) => {}
                Err(BringError::Late) => return Ok(Demanded::UnderWay),
                Err(BringError::ClientGone) => return Err(DemandError::ClientGone),
                Err(BringError::Stopping) => return Err(DemandError::Stopping),
                Err(BringError::Failed(error)) => return Ok(Demanded::Failed(error.to_string())),
            }
        }
    }

    /// Begins a sync, unless one is under way; answers whether it is a new one.
    fn begin(&self, repo: &RepoName, place: Place<'_>) -> io::Result<(Arc<Flight>, bool)> {
        match self.0.flights.join(repo, Cause::Demand)? {
            Seat::Guest(flight) => Ok((flight, false)),
            Seat::Lead(lead) => {
                let flight = lead.flight();
                self.send(lead, place, Class::Demand, ());
                Ok((flight, true))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_wait_and_no_more_until_one_leaves() {
        let waits = Waits::default();
        let mut inside: Vec<_> = (0..WAITS_MAX).map(|_| waits.enter().unwrap()).collect();
        assert!(waits.enter().is_none());
        inside.pop();
        assert!(waits.enter().is_some());
    }
}
