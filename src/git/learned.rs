//! What a git has said that may be remembered.

use std::sync::Arc;

/// An answer of git's.
#[derive(Debug)]
pub struct Learned {
    /// Its bytes.
    pub answer: Arc<[u8]>,
    /// Why it is not remembered, if it is not: a word for metrics.
    pub unkept: Option<&'static str>,
}

/// The settings were not known to be the same before and after git was asked.
pub const UNSETTLED: &str = "settings";
