//! The signals that this process acts on, and the state that it hands to its children.
//!
//! Mask and ignored signals are inherited across `execve`: a container, `nohup` or a shell's background job may start
//! us with some ignored or blocked, and then every git would ignore our SIGTERM. So [`normalise`] runs first in `main`,
//! before any thread exists. Signals that mean something to us get a handler, never a mask: handlers are reset to the
//! default in a child, and PID 1 receives only signals that it has handlers for. A handler counts the signal and makes a
//! descriptor readable; everything else happens in [`Signals::take`], on an ordinary thread.

use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// What somebody outside asks of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// SIGTERM: systemd, a container runtime.
    Terminate,
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGQUIT: Ctrl-\.
    Quit,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1 or SIGUSR2, which other programs rotate logs or print statistics on: nothing. Without a handler they would
    /// end the process, and with SIG_IGN every child would ignore them, too.
    Ignored(Signal),
}

impl Order {
    /// Every order with its signal; what asks for an end comes first, so that a flood of reloads delays no stop.
    const ALL: [(Self, Signal); 6] = [
        (Self::Terminate, Signal::SIGTERM),
        (Self::Interrupt, Signal::SIGINT),
        (Self::Quit, Signal::SIGQUIT),
        (Self::Reload, Signal::SIGHUP),
        (Self::Ignored(Signal::SIGUSR1), Signal::SIGUSR1),
        (Self::Ignored(Signal::SIGUSR2), Signal::SIGUSR2),
    ];

    /// Whether it asks for the end of the process.
    #[must_use]
    pub fn is_end(self) -> bool {
        match self {
            Self::Terminate | Self::Interrupt | Self::Quit => true,
            Self::Reload | Self::Ignored(_) => false,
        }
    }
}

/// One more than the highest number of a classic signal.
const CLASSIC: usize = 32;

/// One more than the highest signal number of Linux.
const NUMBERS: c_int = 65;

/// Signals that arrived and were not taken yet, by number. Counters, not a pipe of bytes: nothing is lost when the
/// reader is slow, and a second SIGTERM is not merged with the first.
static ARRIVED: [AtomicU32; CLASSIC] = [const { AtomicU32::new(0) }; CLASSIC];

/// Readable when [`ARRIVED`] may hold something; made once and never closed, since a handler may run at any time.
static WAKE: OnceLock<EventFd> = OnceLock::new();

/// The handlers are installed; there is one set for the process.
#[derive(Debug)]
pub struct Signals {
    wake: &'static EventFd,
}

impl Signals {
    /// Installs the handlers. The signals of [`Order`] no longer end the process.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn install() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let wake = WAKE.get_or_init(|| event);
        let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
        for (_, signal) in Order::ALL {
            // SAFETY: `note` calls only what signal-safety(7) allows.
            unsafe { sigaction(signal, &action) }?;
        }
        Ok(Self { wake })
    }

    /// Readable when an order may wait; [`Signals::take`] makes it unreadable again.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The next order that arrived, most urgent first, or `None`. Call it until it answers `None`.
    #[must_use]
    pub fn take(&self) -> Option<Order> {
        // Emptied before the counters are looked at: a signal that comes in between makes it readable again. An
        // event that is already empty answers EAGAIN, which is as good.
        let _ = self.wake.read();
        let order = Order::ALL.into_iter().find(|(_, signal)| take_one(*signal))?.0;
        // More of them may wait, and their readability has just been taken.
        let _ = self.wake.write(1);
        Some(order)
    }
}

fn take_one(signal: Signal) -> bool {
    let less = |count: u32| count.checked_sub(1);
    arrived(signal as c_int)
        .is_some_and(|counter| counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok())
}

fn arrived(number: c_int) -> Option<&'static AtomicU32> {
    ARRIVED.get(usize::try_from(number).ok()?)
}

/// The handler. It may interrupt any code, so it counts, writes eight bytes, and leaves `errno` as it was.
extern "C" fn note(number: c_int) {
    let errno = Errno::last_raw();
    if let Some(counter) = arrived(number) {
        counter.fetch_add(1, Ordering::AcqRel);
    }
    if let Some(wake) = WAKE.get() {
        // A full counter is readable, which is all that is needed.
        let _ = wake.write(1);
    }
    Errno::set_raw(errno);
}

/// Clears the calling thread's signal mask and gives every ignored signal its default action again, except SIGPIPE,
/// which Rust ignores here and resets in children.
///
/// Call it before the first thread is started: masks are per thread and inherited.
///
/// # Errors
/// None on a working Linux; the system call's answer otherwise.
pub fn normalise() -> io::Result<()> {
    SigSet::empty().thread_set_mask()?;
    for number in (1..NUMBERS).filter(|number| *number != libc::SIGPIPE) {
        if is_inherited(number) {
            reset(number);
        }
    }
    Ok(())
}

/// Lets SIGCHLD leave zombies for whoever waits. A parent that ignores it, or sets `SA_NOCLDWAIT`, starts us in a state
/// where the kernel reaps for us and every exit status is lost.
pub fn keep_zombies() {
    reset(libc::SIGCHLD);
}

/// Whether the signal is ignored, or is SIGCHLD, whose flags may say "ignore" as well.
fn is_inherited(number: c_int) -> bool {
    // SAFETY: all zeroes is a valid `sigaction`.
    let mut present: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null action only asks; `present` is valid for writes.
    let asked = unsafe { libc::sigaction(number, std::ptr::null(), &raw mut present) };
    asked == 0 && (present.sa_sigaction == libc::SIG_IGN || number == libc::SIGCHLD)
}

/// The default action, without flags. The two numbers that the C library keeps for itself (32 and 33) refuse; its
/// `posix_spawn` ignores them in every child, whatever we do.
fn reset(number: c_int) {
    // SAFETY: all zeroes is a valid `sigaction`: SIG_DFL, no flags, an empty mask.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `default` is valid for reads and the old action is not asked for.
    unsafe { libc::sigaction(number, &raw const default, std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::{self, Interest};
    use nix::sys::signal::raise;
    use std::time::Duration;

    fn is_readable(signals: &Signals) -> bool {
        poll::wait([Some((signals.fd(), Interest::Read))], Some(Duration::ZERO)).unwrap()[0]
    }

    #[test]
    fn orders_are_counted_and_a_stop_comes_before_a_reload() {
        let signals = Signals::install().unwrap();
        for signal in [Signal::SIGUSR1, Signal::SIGHUP, Signal::SIGTERM, Signal::SIGTERM] {
            raise(signal).unwrap();
        }
        assert!(is_readable(&signals));
        assert_eq!(signals.take(), Some(Order::Terminate));
        assert!(is_readable(&signals), "what is left must stay visible to a poll");
        assert_eq!(signals.take(), Some(Order::Terminate), "a second SIGTERM is an order of its own");
        assert_eq!(signals.take(), Some(Order::Reload));
        let ignored = signals.take().unwrap();
        assert!(ignored == Order::Ignored(Signal::SIGUSR1) && !ignored.is_end());
        assert!(!is_inherited(libc::SIGUSR1), "what is ignored here by a handler is not ignored by a child");
        assert_eq!(signals.take(), None);
        assert!(!is_readable(&signals));
    }

    #[test]
    fn what_was_ignored_or_blocked_at_start_is_not_after() {
        let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
        // SAFETY: ignoring a signal installs no code.
        unsafe { sigaction(Signal::SIGWINCH, &ignore) }.unwrap();
        SigSet::from(Signal::SIGUSR2).thread_block().unwrap();
        normalise().unwrap();
        assert!(!is_inherited(libc::SIGWINCH));
        assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGUSR2));
        assert!(is_inherited(libc::SIGPIPE), "a write to a client that left must stay an error, not an end");
    }
}
