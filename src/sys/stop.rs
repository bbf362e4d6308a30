//! One stop for the whole process, in levels that only rise, and waits that it interrupts.
//!
//! A thread that waits on a condition uses [`Stop::sleep`]; one that polls descriptors adds [`Stop::fd`] to its set.

use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How far the stop has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything is served.
    Running,
    /// Nothing new is begun; work in flight may end by itself.
    Draining,
    /// Work in flight is ended: process groups are told to go, then killed.
    Killing,
}

/// A handle to the stop; clones share it.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    level: Mutex<Level>,
    raised: Condvar,
    draining: EventFd,
    killing: EventFd,
}

impl Stop {
    /// A stop at [`Level::Running`].
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let event = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        Ok(Self(Arc::new(Shared {
            level: Mutex::new(Level::Running),
            raised: Condvar::new(),
            draining: event()?,
            killing: event()?,
        })))
    }

    /// Raises the level to `level`; a lower one than the present changes nothing.
    pub fn raise(&self, level: Level) {
        let mut now = self.lock();
        if level <= *now {
            return;
        }
        *now = level;
        // A full counter is already readable, which is all that the waiters need.
        let _ = self.0.draining.write(1);
        if level == Level::Killing {
            let _ = self.0.killing.write(1);
        }
        self.0.raised.notify_all();
    }

    /// The present level.
    #[must_use]
    pub fn level(&self) -> Level {
        *self.lock()
    }

    /// Whether the process still serves everything.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.level() == Level::Running
    }

    /// Waits `time`, or less when the level reaches `until` first. Answers whether the whole time passed.
    #[must_use]
    pub fn sleep(&self, time: Duration, until: Level) -> bool {
        let end = Instant::now() + time;
        let mut now = self.lock();
        while *now < until {
            let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                return true;
            };
            now = self.0.raised.wait_timeout(now, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// A descriptor that is readable for ever once the level is at least `level`; nobody reads from it.
    #[must_use]
    pub fn fd(&self, level: Level) -> BorrowedFd<'_> {
        match level {
            Level::Running | Level::Draining => self.0.draining.as_fd(),
            Level::Killing => self.0.killing.as_fd(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Level> {
        self.0.level.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raise_ends_a_sleep_and_the_level_never_falls() {
        let stop = Stop::new().unwrap();
        let sleeper = {
            let stop = stop.clone();
            crate::sys::thread::spawn("sleeper", move || stop.sleep(Duration::from_secs(60), Level::Killing))
                .unwrap()
        };
        stop.raise(Level::Draining);
        assert!(!sleeper.is_finished(), "draining must not end a sleep that waits for killing");
        stop.raise(Level::Killing);
        assert!(!sleeper.join().unwrap());
        stop.raise(Level::Draining);
        assert_eq!(stop.level(), Level::Killing);
    }
}
