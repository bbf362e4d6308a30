//! The service manager: telling it how we are, and taking the sockets that it opened for us.
//!
//! The protocol is that of sd_notify(3) and sd_listen_fds(3); without a manager every call does nothing.

use sd_notify::NotifyState;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// What the manager is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Requests are served.
    Ready,
    /// Requests are served no more.
    Stopping,
    /// Every part answered since the last time.
    Alive,
    /// The configuration is being read again.
    Reloading,
}

/// Tells the manager. A manager that cannot be told is logged and changes nothing.
pub fn tell(news: News) {
    let told = match news {
        News::Ready => sd_notify::notify(&[NotifyState::Ready]),
        News::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        News::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
        News::Reloading => NotifyState::monotonic_usec_now()
            .and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now])),
    };
    if let Err(error) = told {
        log::warn!("telling the service manager {news:?}: {error}");
    }
}

/// The listening sockets that the manager passed, in its order. Call it once: who takes them owns them.
///
/// # Errors
/// When the variables of the protocol are malformed.
pub fn take_sockets() -> io::Result<Vec<OwnedFd>> {
    let passed = sd_notify::listen_fds()?;
    // SAFETY: the manager opened these descriptors for us, nothing else in this process knows them, and they are
    // taken once.
    Ok(passed.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect())
}
