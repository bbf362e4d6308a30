//! What a reviewer reads before he decides: the changes of a push as text.

use crate::model::push::Push;
use std::fmt::Debug;
use thiserror::Error;

/// The longest diff that is shown, in bytes: more than anybody reads, and little enough to be held in memory.
pub const DIFF_BYTES_MAX: usize = 4 << 20;

/// Makes the diff of a push.
pub trait Differ: Debug + Send + Sync {
    /// For each ref its new commits, a summary and the changes, at most about [`DIFF_BYTES_MAX`] bytes; what is cut off is said in the
    /// last line. File names and contents are those of the pusher, as they are: bytes to be cleaned by whoever
    /// shows them.
    ///
    /// # Errors
    /// See [`DiffError`].
    fn diff(&self, push: &Push) -> Result<Vec<u8>, DiffError>;
}

/// Why there is no diff.
#[derive(Debug, Error)]
pub enum DiffError {
    /// The staging repository is removed when the push has ended.
    #[error("what was pushed is not kept any more")]
    NotKept,
    /// The pack has not been unpacked.
    #[error("the push is still being received: ask again in a moment")]
    NotYet,
    /// Every worker is busy.
    #[error("every git worker is busy: try again in a few seconds")]
    Busy,
    /// Git did not make it.
    #[error("making the diff: {0}")]
    Git(String),
}
