//! Points at which a test lets the gate die, as if somebody had killed it there with SIGKILL.
//!
//! They lie before and after each commit that moves a push from one state to the next, where a crash costs the most. Only
//! a build with the feature `fault-points` has them, and there one at most is armed; in any other build they are nothing.

use crate::model::push::PushState;

/// The states whose commits have a point before and one after: those of a push that is forwarded in the end.
pub const STATES: [PushState; 6] = [
    PushState::Received,
    PushState::Checking,
    PushState::Pending,
    PushState::Approved,
    PushState::Forwarding,
    PushState::Forwarded,
];

/// On which side of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Nothing of it is on the disk.
    Before,
    /// It is on the disk, and nobody knows yet.
    After,
}

/// One point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// On which side.
    pub side: Side,
    /// Of the commit by which a push comes into this state.
    pub state: PushState,
}

impl Point {
    /// The point that is written like `before-forwarding`, if there is one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let sides = [("before-", Side::Before), ("after-", Side::After)];
        let (side, word) =
            sides.iter().find_map(|(prefix, side)| Some((*side, name.strip_prefix(prefix)?)))?;
        let state = STATES.into_iter().find(|state| state.as_str() == word)?;
        Some(Self { side, state })
    }
}

#[cfg(feature = "fault-points")]
mod armed {
    use super::Point;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::{Pid, pause};
    use std::sync::OnceLock;

    static ARMED: OnceLock<Point> = OnceLock::new();

    /// Arms a point, for the rest of this process' life.
    pub fn arm(point: Point) {
        let _ = ARMED.set(point);
    }

    /// Ends the process here if this point is armed.
    pub(super) fn pass(point: Point) {
        if ARMED.get() == Some(&point) {
            let _ = kill(Pid::this(), Signal::SIGKILL);
            loop {
                pause();
            }
        }
    }
}

#[cfg(feature = "fault-points")]
pub use armed::arm;

/// Makes the commit by which a push comes into `state`, between its two points.
///
/// # Errors
/// Those of the commit.
pub fn around<T, E>(state: PushState, commit: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    pass(Point { side: Side::Before, state });
    let done = commit()?;
    pass(Point { side: Side::After, state });
    Ok(done)
}

#[cfg(feature = "fault-points")]
fn pass(point: Point) {
    armed::pass(point);
}

#[cfg(not(feature = "fault-points"))]
const fn pass(_point: Point) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_named_by_its_side_and_state() {
        let point = Point { side: Side::After, state: PushState::Approved };
        assert_eq!(Point::parse("after-approved"), Some(point));
        for name in ["", "after-", "approved", "between-approved", "after-canceled"] {
            assert_eq!(Point::parse(name), None, "{name}");
        }
    }
}
