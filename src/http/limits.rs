//! What the front allows, below everything that holds a client to it.

use std::time::Duration;

/// The largest body that a head may announce or its chunks may come to, in bytes. Every handler has a smaller limit of its
/// own; this one keeps sums of sizes far from overflow.
pub(super) const BODY_MAX: u64 = 1 << 40;

/// What the front allows each client and all of them together.
#[derive(Clone, Debug)]
pub struct FrontLimits {
    /// Connections at a time; one more is answered 503. At three quarters, answers stop to offer keep-alive.
    pub connections: usize,
    /// From a request's first byte (on a new connection: from its opening) to the end of its head.
    pub head: Duration,
    /// Silence between requests, and between bytes of a body.
    pub idle: Duration,
    /// Bytes a second that a client must send or take while it is waited for.
    pub min_rate: u64,
    /// Over how much waiting the rate is judged, so that short delays are forgiven.
    pub min_rate_after: Duration,
    /// How long a client may take none of an answer that waits for it.
    pub write_stall: Duration,
    /// Bytes of a head.
    pub head_bytes: usize,
    /// Header fields of a head.
    pub headers: usize,
}

impl Default for FrontLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            min_rate: 1024,
            min_rate_after: Duration::from_secs(30),
            write_stall: Duration::from_secs(120),
            head_bytes: 32 << 10,
            headers: 100,
        }
    }
}
