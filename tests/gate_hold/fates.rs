//! What becomes of a push whose gate dies at a point of its life, whatever it goes to.

use tidegate::model::push::PushState;
use tidegate::sys::fault::{Point, STATES, Side};

/// What the next start makes of a push whose gate died at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nobody ever heard of it.
    Unknown,
    /// Its client is gone, and nobody approved it.
    Canceled,
    /// It waits on, and is forwarded when it is approved.
    Waits,
    /// It was approved, so it is forwarded.
    Forwarded,
}

/// What the next start makes of a push whose gate died there, and that outlives its client or not.
pub(crate) fn fate(point: Point, is_kept: bool) -> Fate {
    let undecided = if is_kept { Fate::Waits } else { Fate::Canceled };
    match (point.side, point.state) {
        (Side::Before, PushState::Received) => Fate::Unknown,
        (_, PushState::Received | PushState::Checking) | (Side::Before, PushState::Pending) => Fate::Canceled,
        (Side::After, PushState::Pending) | (Side::Before, PushState::Approved) => undecided,
        (_, _) => Fate::Forwarded,
    }
}

/// All of them.
pub(crate) fn points() -> impl Iterator<Item = Point> {
    STATES.into_iter().flat_map(|state| [Side::Before, Side::After].map(|side| Point { side, state }))
}
