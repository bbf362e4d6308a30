//! One wait for several descriptors, with names for what is waited for.

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// What a wait on a descriptor is for. Errors and hang-ups end every kind of wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Bytes, or the end, can be read.
    Read,
    /// Bytes can be written.
    Write,
    /// The peer has closed its side. Bytes that wait to be read are not a reason to wake.
    HangUp,
}

impl Interest {
    fn flags(self) -> PollFlags {
        match self {
            Self::Read => PollFlags::POLLIN,
            Self::Write => PollFlags::POLLOUT,
            // nix has no name for the Linux flag.
            Self::HangUp => PollFlags::from_bits_retain(libc::POLLRDHUP),
        }
    }
}

/// A descriptor and what it is waited on for; `None` is never ready.
pub type Watch<'fd> = Option<(BorrowedFd<'fd>, Interest)>;

/// Waits until one of `watches` is ready or `limit` has passed (`None`: for ever), and answers which are ready.
///
/// A signal ends the wait early with nothing ready. The limit is rounded up to a millisecond, so that a caller who
/// waits for a point in time does not spin on the last fraction.
///
/// # Errors
/// What poll(2) answers when the system is out of memory or a descriptor is not one.
pub fn wait<const N: usize>(watches: [Watch<'_>; N], limit: Option<Duration>) -> io::Result<[bool; N]> {
    let mut ready = [false; N];
    wait_for_any(&watches, &mut ready, limit)?;
    Ok(ready)
}

/// As [`wait`], for a number of watches that is not known beforehand; `ready` has a place for each of them.
///
/// # Errors
/// As [`wait`].
pub fn wait_for_any(watches: &[Watch<'_>], ready: &mut [bool], limit: Option<Duration>) -> io::Result<()> {
    let wanted = watches.iter().flatten();
    let mut fds: Vec<PollFd<'_>> = wanted.map(|(fd, interest)| PollFd::new(*fd, interest.flags())).collect();
    ready.fill(false);
    match poll(&mut fds, limit.map_or(PollTimeout::NONE, timeout)) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    // `any` is `None` for flags that nix does not name, POLLRDHUP among them: something did happen.
    let mut answers = fds.iter().map(|fd| fd.any().unwrap_or(true));
    for (ready, _) in ready.iter_mut().zip(watches).filter(|(_, watch)| watch.is_some()) {
        *ready = answers.next().unwrap_or(false);
    }
    Ok(())
}

fn timeout(limit: Duration) -> PollTimeout {
    PollTimeout::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn waiting_bytes_are_not_a_hang_up_and_a_close_is() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"pipelined").unwrap();
        let look = || wait([None, Some((ours.as_fd(), Interest::HangUp))], Some(Duration::ZERO)).unwrap();
        assert_eq!(look(), [false, false]);
        drop(theirs);
        assert_eq!(look(), [false, true]);
    }
}
