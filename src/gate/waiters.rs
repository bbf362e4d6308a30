//! Who waits for a decision: a bounded map from the number of a push to the descriptor that its request polls.
//!
//! The order matters: a request first waits, then reads where its push stands, then polls. A decision is first
//! written, then made known. So whatever is decided after the look wakes the poll, and no wake-up is lost.

use crate::model::push::PushId;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// Everyone who waits; clones share it.
#[derive(Clone, Debug)]
pub struct Waiters(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bells: Mutex<HashMap<PushId, Arc<EventFd>>>,
    max: usize,
}

/// One who waits, until it is dropped.
#[derive(Debug)]
pub struct Waiter {
    id: PushId,
    bell: Arc<EventFd>,
    waiters: Waiters,
}

/// Why a request cannot wait.
#[derive(Debug, Error)]
pub enum WaitError {
    /// As many wait as may.
    #[error("{0} pushes are waiting already, which is the limit: push again later (limits.held_pushes)")]
    Full(usize),
    /// A push has one request.
    #[error("somebody waits for push {0} already")]
    Taken(PushId),
    /// No descriptor is left.
    #[error("making a descriptor to wait on: {0}")]
    Descriptor(io::Error),
}

impl Waiters {
    /// Nobody yet; at most `max` at a time.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Shared { bells: Mutex::default(), max }))
    }

    /// Begins to wait for what is decided about a push.
    ///
    /// # Errors
    /// See [`WaitError`].
    pub fn wait(&self, id: PushId) -> Result<Waiter, WaitError> {
        let mut bells = self.bells();
        if bells.len() >= self.0.max {
            return Err(WaitError::Full(self.0.max));
        }
        let Entry::Vacant(place) = bells.entry(id) else {
            return Err(WaitError::Taken(id));
        };
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let bell = Arc::new(bell.map_err(|errno| WaitError::Descriptor(errno.into()))?);
        place.insert(Arc::clone(&bell));
        Ok(Waiter { id, bell, waiters: self.clone() })
    }

    /// Whether somebody waits for this push now.
    #[must_use]
    pub fn is_awaited(&self, id: PushId) -> bool {
        self.bells().contains_key(&id)
    }

    /// Wakes whoever waits for this push; answers whether somebody does.
    pub fn notify(&self, id: PushId) -> bool {
        let bell = self.bells().get(&id).cloned();
        // A full counter is already readable, which is all that a waiter needs.
        bell.is_some_and(|bell| matches!(bell.write(1), Ok(_) | Err(Errno::EAGAIN)))
    }

    fn bells(&self) -> MutexGuard<'_, HashMap<PushId, Arc<EventFd>>> {
        self.0.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Readable when something was decided since the last [`Waiter::clear`].
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Makes the descriptor unreadable. Where the push stands is read after it.
    pub fn clear(&self) {
        // Nothing to read means that it is clear already.
        let _ = self.bell.read();
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.waiters.bells().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn id(number: i64) -> PushId {
        PushId::new(number).unwrap()
    }

    fn is_woken(waiter: &Waiter) -> bool {
        poll(&mut [PollFd::new(waiter.fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn a_decision_wakes_the_one_who_waits_for_it_and_nobody_else() {
        let waiters = Waiters::new(2);
        let (one, two) = (waiters.wait(id(1)).unwrap(), waiters.wait(id(2)).unwrap());
        assert!(!waiters.notify(id(3)));
        assert!(waiters.notify(id(1)) && waiters.notify(id(1)));
        assert!(is_woken(&one) && !is_woken(&two));
        one.clear();
        assert!(!is_woken(&one));
    }

    #[test]
    fn whoever_goes_makes_room() {
        let waiters = Waiters::new(1);
        let one = waiters.wait(id(1)).unwrap();
        assert!(matches!(waiters.wait(id(2)), Err(WaitError::Full(1))));
        drop(one);
        assert!(!waiters.is_awaited(id(1)));
        assert!(waiters.wait(id(2)).is_ok());
    }

    #[test]
    fn a_push_has_one_waiter() {
        let waiters = Waiters::new(2);
        let one = waiters.wait(id(1)).unwrap();
        assert!(matches!(waiters.wait(id(1)), Err(WaitError::Taken(_))));
        assert!(waiters.is_awaited(one.id));
    }
}
