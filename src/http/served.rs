//! How a request that was served ended: what its log line and the metrics say of it.

use super::message::Response;

/// What a request came to.
#[derive(Debug)]
pub struct Served {
    /// The status that was sent.
    pub status: u16,
    /// How it ended, one of our own words.
    pub outcome: &'static str,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// What else the log line says: how git ended.
    pub detail: String,
}

impl Served {
    /// An answer out of memory.
    #[must_use]
    pub fn response(outcome: &'static str, response: &Response) -> Self {
        Self {
            status: response.status,
            outcome,
            bytes_out: response.body.len() as u64,
            detail: String::new(),
        }
    }
}
