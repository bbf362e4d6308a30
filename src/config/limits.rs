//! `[limits]`: the bounds of requests, connections and the disk, and what of the connections is left for whom.

use super::keys;
use std::time::Duration;

/// How many pushes may be held at a time where nobody says and the connections allow it: more are no queue that reviewers
/// look through.
const HELD_PUSHES: usize = 1000;

/// How many streams of events there may be at a time where nobody says and the connections allow it: some for every other
/// gate, and the rest for people.
const STREAMS: usize = 256;

/// The bounds of requests, connections and the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of the public front at a time; one more is told 503 and closed.
    pub connections: usize,
    /// From the first byte of a request's head to its last.
    pub head: Duration,
    /// How long a connection may wait for its next request, or a body for its next byte.
    pub idle: Duration,
    /// The slowest body that is put up with, in bytes per second.
    pub min_rate: u64,
    /// How long a client may take none of its response.
    pub write_stall: Duration,
    /// The largest push, in bytes, on the wire and after inflation.
    pub push_bytes_max: u64,
    /// The most ref updates of one push.
    pub commands_max: usize,
    /// The largest request of a fetch, in bytes after inflation.
    pub request_bytes_max: u64,
    /// Bytes of memory for the refs of repositories that are remembered.
    pub refs_bytes_max: u64,
    /// Free bytes on the disk below which pushes, and requests that do not fit memory, are refused.
    pub disk_floor: u64,
    /// Bytes of all mirrors together from which on no further one is made.
    pub mirror_bytes_max: Option<u64>,
    /// Pushes that may wait for a reviewer at a time: each holds a connection, and half of these are not for them.
    pub held_pushes: usize,
    /// Streams of events at a time, which hold connections as held pushes do.
    pub streams: usize,
    /// How often a stream of events shows that it is alive, and looks whether its client is.
    pub stream_heartbeat: Duration,
    /// How long work in flight may go on when the gate stops.
    pub drain: Duration,
}

impl Limits {
    /// The most held pushes and streams of events together, beside everything else that needs a connection; one each at
    /// least.
    fn staying_max(&self) -> usize {
        (self.connections / 2).max(2)
    }

    /// Chooses the number of held pushes and that of streams where they were not set.
    pub(super) fn share_connections(&mut self, is_held_pushes_set: bool, is_streams_set: bool) {
        let most = self.staying_max();
        if !is_streams_set {
            let left = if is_held_pushes_set { most.saturating_sub(self.held_pushes) } else { most / 2 };
            self.streams = left.clamp(1, STREAMS);
        }
        if !is_held_pushes_set {
            self.held_pushes = most.saturating_sub(self.streams).clamp(1, HELD_PUSHES);
        }
    }

    /// The key that asks for too much of the connections, with a sentence.
    pub(super) fn too_many_that_stay(&self) -> Option<(&'static str, String)> {
        let Self { connections, held_pushes, streams, .. } = *self;
        let most = self.staying_max();
        if held_pushes.saturating_add(streams) <= most {
            return None;
        }
        let (key, number, other) = match streams < most {
            true => (keys::HELD_PUSHES, held_pushes, format!("limits.sse is {streams}")),
            false => (keys::STREAMS, streams, format!("limits.held_pushes is {held_pushes}")),
        };
        let why = format!(
            "is {number}, and limits.connections is {connections}: a held push keeps a connection, as a stream of events \
             does, and half of them are kept for everybody else, so there can be {most} of both together, and {other}"
        );
        Some((key, why))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            min_rate: 1 << 10,
            write_stall: Duration::from_secs(120),
            push_bytes_max: 2 << 30,
            commands_max: 1000,
            request_bytes_max: 16 << 20,
            refs_bytes_max: 64 << 20,
            disk_floor: 1 << 30,
            mirror_bytes_max: None,
            held_pushes: 256,
            streams: 256,
            stream_heartbeat: Duration::from_secs(15),
            drain: Duration::from_secs(20),
        }
    }
}
