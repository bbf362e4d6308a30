//! A push's stay in its repository: from the lease that lets it in to the end that says whether something must be cleaned.

use crate::git::lease::{Hold, Lease};
use crate::supervise::{Exit, Outcome};

/// The lease of a push, in the hands of whoever runs its git.
///
/// Dropped before git was started it leaves nothing to clean; dropped after, without [`Stay::end`], it leaves a stain.
#[derive(Debug)]
pub(super) struct Stay {
    lease: Option<Lease>,
    is_started: bool,
}

impl Stay {
    pub(super) fn new(lease: Lease) -> Self {
        Self { lease: Some(lease), is_started: false }
    }

    /// Git has been started; the child's hand of the lease.
    pub(super) fn start(&mut self) -> Option<Hold> {
        self.is_started = true;
        self.lease.as_ref().map(Lease::hold)
    }

    /// Git has ended so. Where it may have left something, that is cleaned before this returns, unless others are still
    /// at work in the repository: then the last of them does it.
    pub(super) fn end(mut self, outcome: &Outcome) {
        self.is_started = !has_tidied_up(outcome);
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        match self.lease.take() {
            Some(lease) if self.is_started => drop(lease),
            Some(lease) => lease.settle(),
            None => {}
        }
    }
}

/// Git removes its own traces on every way out but a signal.
fn has_tidied_up(outcome: &Outcome) -> bool {
    outcome.ended.is_none() && !outcome.leaked && matches!(outcome.exit, Exit::Code(_))
}
