//! How the workers of a lane are shared, as numbers.

use super::Kind;

/// The bounds of one lane. Each is a number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sharing {
    /// All of them.
    pub(super) workers: usize,
    /// What one account may hold in one class of those that have a share of their own.
    pub(super) most: usize,
    /// The last free ones, which an account gets only as its first.
    pub(super) kept: usize,
    /// What forwards alone may have.
    pub(super) reserved: usize,
    /// What all of the schedule may hold.
    pub(super) scheduled: usize,
}

impl Sharing {
    /// Clients end by themselves, and may have what nobody else wants. An upstream may hang until a deadline: whatever it
    /// does, three quarters are for others; and so that the forwards of one do not take all that is reserved for forwards,
    /// one worker more is.
    pub(super) fn of(kind: Kind, workers: usize) -> Self {
        let quarter = (workers / 4).max(1);
        let for_forwards = (quarter + 1).min(workers / 2);
        match kind {
            Kind::Read | Kind::Write | Kind::Upkeep => {
                Self { workers, most: workers, kept: quarter, reserved: 0, scheduled: workers }
            }
            // Nobody is slow here but by the work itself: a free worker is for whoever comes.
            Kind::Pack => Self { workers, most: workers, kept: 0, reserved: 0, scheduled: workers },
            Kind::Upstream => {
                Self { workers, most: quarter, kept: 0, reserved: for_forwards, scheduled: quarter }
            }
            // A question is over in seconds.
            Kind::Probe => {
                Self { workers, most: quarter, kept: 0, reserved: for_forwards, scheduled: workers }
            }
        }
    }
}
