//! How a child ended, and by when it had to.

use std::fmt;
use std::time::{Duration, Instant};

/// The point in time by which a child must have ended, with what people need to understand it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The point on the monotonic clock, made at admission: time spent in a queue counts.
    pub at: Instant,
    /// How long the work was allowed to take.
    pub limit: Duration,
    /// The setting that says so, for example `read_deadline`.
    pub name: &'static str,
}

impl Deadline {
    /// The deadline of work that is admitted at `now`.
    #[must_use]
    pub fn starting(now: Instant, limit: Duration, name: &'static str) -> Self {
        Self { at: now + limit, limit, name }
    }

    /// What is left of it at `now`; zero once it has passed.
    #[must_use]
    pub fn left(&self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }

    /// Whether it has passed at `now`.
    #[must_use]
    pub fn has_passed(&self, now: Instant) -> bool {
        self.at <= now
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {:?}", self.name, self.limit)
    }
}

/// Why a child was told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// Its deadline passed.
    Deadline,
    /// Whoever it worked for left.
    ClientGone,
    /// The gate stops.
    Stopping,
    /// Somebody who matters more needs what it works on.
    GaveWay,
    /// It gave more than was allowed.
    Overflow,
    /// Something on our side failed, or the child was dropped.
    Internal,
}

impl Why {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 6] =
        [Self::Deadline, Self::ClientGone, Self::Stopping, Self::GaveWay, Self::Overflow, Self::Internal];

    /// The label in metrics and records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::ClientGone => "client_gone",
            Self::Stopping => "stopping",
            Self::GaveWay => "gave_way",
            Self::Overflow => "overflow",
            Self::Internal => "internal",
        }
    }
}

/// What became of the leader of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Somebody else waited for it (ECHILD): an internal error, since nothing is known about its success.
    Lost,
    /// It did not end although it was killed, and the outcome is `leaked`: it sleeps uninterruptibly in the kernel, or
    /// is held by a debugger.
    Stuck,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal(number) => write!(f, "signal {number}"),
            Self::Lost => f.write_str("status lost"),
            Self::Stuck => f.write_str("stuck in the kernel"),
        }
    }
}

/// What the leader and the descendants that it waited for have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// The largest resident set of any one of them, in bytes.
    pub memory_max: u64,
}

/// Everything that is known about a child when it is over.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What became of the leader.
    pub exit: Exit,
    /// Why it was told to go, if it was; the first reason counts.
    pub ended: Option<Why>,
    /// The deadline it ran under, passed or not.
    pub deadline: Deadline,
    /// Something of its group is still there after SIGKILL and [`KILL_CAP`](super::KILL_CAP).
    pub leaked: bool,
    /// What it used; zeroes for `Lost` and `Stuck`.
    pub usage: Usage,
    /// From its start until its group was empty.
    pub wall: Duration,
    /// The last 4 KiB of its standard error: lines end in `\n`, every other control character is escaped.
    pub stderr: String,
}

impl Outcome {
    /// Whether it exited with 0, was not told to go, and left nothing behind.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.exit == Exit::Code(0) && self.ended.is_none() && !self.leaked
    }
}

impl fmt::Display for Outcome {
    /// One clause for a log line or an error: `signal 9 after the read_deadline of 30s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.exit)?;
        match self.ended {
            None => {}
            Some(Why::Deadline) => write!(f, " after the {}", self.deadline)?,
            Some(Why::ClientGone) => f.write_str(" after the client left")?,
            Some(Why::Stopping) => f.write_str(" at the stop of the gate")?,
            Some(Why::GaveWay) => f.write_str(" after giving way")?,
            Some(Why::Overflow) => f.write_str(" after giving more than it may")?,
            Some(Why::Internal) => f.write_str(" after an internal error")?,
        }
        if self.leaked { f.write_str(", still not gone") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(exit: Exit, ended: Option<Why>, leaked: bool) -> Outcome {
        let deadline = Deadline::starting(Instant::now(), Duration::from_secs(30), "read_deadline");
        let (usage, wall, stderr) = (Usage::default(), Duration::ZERO, String::new());
        Outcome { exit, ended, deadline, leaked, usage, wall, stderr }
    }

    #[test]
    fn an_outcome_names_the_deadline() {
        let text = outcome(Exit::Signal(9), Some(Why::Deadline), false).to_string();
        assert_eq!(text, "signal 9 after the read_deadline of 30s");
    }

    #[test]
    fn only_a_clean_exit_is_a_success() {
        assert!(outcome(Exit::Code(0), None, false).is_success());
        assert!(!outcome(Exit::Code(1), None, false).is_success());
        assert!(!outcome(Exit::Code(0), Some(Why::ClientGone), false).is_success());
        assert!(!outcome(Exit::Code(0), None, true).is_success());
        assert!(!outcome(Exit::Lost, None, false).is_success());
    }
}
