//! A request's body as it comes off the wire, at the pace that a client must keep.

use crate::http::head::{Length, RequestParts};
use crate::http::limits::{BODY_MAX, FrontLimits};
use crate::http::pace::{Pace, Slow};
use crate::http::wire::{Silence, Wire};
use http_net::{ChunkStep, ChunkedDecoder, HttpError, Limits};
use std::fmt;
use std::time::{Duration, Instant};
use thiserror::Error;

/// The longest line with a chunk's size, in bytes. Sizes take a few; the rest is extensions, which nobody uses.
const CHUNK_LINE_MAX: usize = 256;
/// All chunk extensions of a body together, in bytes.
const CHUNK_EXTENSIONS_MAX: usize = 1024;
/// A body's trailer section, in bytes; it is checked and thrown away.
const TRAILERS_MAX: usize = 4096;
/// Fields of a trailer section.
const TRAILER_FIELDS_MAX: usize = 16;

/// What is told to a client that waits before it sends its body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Why a body could not be read to its end. After any of them the connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BodyError {
    /// The connection ended inside the body.
    #[error("the request's body is cut short: the client went away or sent less than it announced")]
    Truncated,
    /// No byte came for too long.
    #[error("no byte of the request's body came for {0:?} (limits.idle)")]
    Idle(Duration),
    /// Bytes came too slowly.
    #[error("the request's body came slower than {0} bytes a second (limits.min_rate)")]
    TooSlow(u64),
    /// The time that this read was given is over.
    #[error("the request's body did not come in time")]
    Deadline,
    /// The chunks are malformed.
    #[error("the request's body is malformed: {0}")]
    Malformed(HttpError),
    /// It is larger than any body may be.
    #[error("the request's body is larger than any that is served")]
    TooLarge,
    /// The gate is stopping.
    #[error("the gate is stopping: send the request again")]
    Stopped,
}

impl BodyError {
    /// The status of an answer that tells the client.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Truncated | Self::Malformed(_) => 400,
            Self::Idle(_) | Self::TooSlow(_) | Self::Deadline => 408,
            Self::TooLarge => 413,
            Self::Stopped => 503,
        }
    }
}

/// What of the body is still to come.
enum Rest {
    /// Nothing.
    Nothing,
    /// This many bytes.
    Bytes(u64),
    /// Chunks; `ready` bytes of the present one lie decoded in the inbox.
    Chunks { decoder: Box<ChunkedDecoder>, ready: usize },
    /// It cannot be read any more.
    Failed(BodyError),
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("Nothing"),
            Self::Bytes(left) => write!(f, "Bytes({left})"),
            Self::Chunks { ready, .. } => write!(f, "Chunks({ready} ready)"),
            Self::Failed(error) => write!(f, "Failed({error:?})"),
        }
    }
}

/// The body of one request, as far as it has been read.
#[derive(Debug)]
pub(super) struct Body {
    rest: Rest,
    announced: Option<u64>,
    expects_continue: bool,
    received: u64,
    pace: Pace,
    idle: Duration,
    rate: u64,
}

impl Body {
    /// The body that follows a head.
    pub(super) fn new(parts: &RequestParts, limits: &FrontLimits) -> Self {
        let (rest, announced) = match parts.length {
            Length::Known(0) => (Rest::Nothing, Some(0)),
            Length::Known(len) => (Rest::Bytes(len), Some(len)),
            Length::Chunked => {
                (Rest::Chunks { decoder: Box::new(ChunkedDecoder::new(&chunk_limits())), ready: 0 }, None)
            }
        };
        Self {
            rest,
            announced,
            expects_continue: parts.expects_continue,
            received: 0,
            pace: Pace::new(limits.min_rate, limits.min_rate_after, limits.idle),
            idle: limits.idle,
            rate: limits.min_rate,
        }
    }

    /// The length that the head announced; `None` for chunks.
    pub(super) fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// Bytes read so far, without the framing of chunks.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Whether every byte of it has been read, its framing included.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.rest, Rest::Nothing)
    }

    /// Whether reading and forgetting the rest, `most` bytes of it, can bring the next request to the front. It
    /// cannot when the client may or may not send the body after all, having heard no `100 Continue`.
    pub(super) fn is_drainable(&self, most: u64) -> bool {
        match self.rest {
            Rest::Nothing => true,
            Rest::Bytes(left) => left <= most && !self.expects_continue,
            Rest::Chunks { .. } => !self.expects_continue,
            Rest::Failed(_) => false,
        }
    }

    /// Forgets that the client waits for `100 Continue`: an answer has begun, and nothing may come before it.
    pub(super) fn answered(&mut self) {
        self.expects_continue = false;
    }

    /// Reads some bytes; 0 at the end of the body. The first read tells a waiting client to go on.
    pub(super) fn read(
        &mut self,
        wire: &mut Wire,
        buffer: &mut [u8],
        until: Instant,
    ) -> Result<usize, BodyError> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.ask(wire);
        let result = match &self.rest {
            Rest::Nothing => Ok(0),
            Rest::Bytes(left) => self.read_bytes(wire, buffer, *left, until),
            Rest::Chunks { .. } => self.read_chunks(wire, buffer, until),
            Rest::Failed(error) => Err(error.clone()),
        };
        match &result {
            Ok(count) => self.received += *count as u64,
            Err(error) => self.rest = Rest::Failed(error.clone()),
        }
        result
    }

    /// Answers `Expect: 100-continue`, unless the body came without waiting for it.
    fn ask(&mut self, wire: &Wire) {
        if std::mem::take(&mut self.expects_continue) && wire.inbox.is_empty() {
            // A connection that has no room for 25 bytes is broken, and the read that follows will say so.
            let _ = wire.socket.send(&[std::io::IoSlice::new(CONTINUE)], false);
        }
    }

    fn read_bytes(
        &mut self,
        wire: &mut Wire,
        buffer: &mut [u8],
        left: u64,
        until: Instant,
    ) -> Result<usize, BodyError> {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = wire.read_paced(&mut buffer[..most], &mut self.pace, until);
        let count = self.some(read)?;
        let left = left - count as u64;
        self.rest = if left == 0 { Rest::Nothing } else { Rest::Bytes(left) };
        Ok(count)
    }

    fn read_chunks(
        &mut self,
        wire: &mut Wire,
        buffer: &mut [u8],
        until: Instant,
    ) -> Result<usize, BodyError> {
        loop {
            let Rest::Chunks { decoder, ready } = &mut self.rest else { return Ok(0) };
            if *ready > 0 {
                let most = buffer.len().min(*ready);
                let count = wire.inbox.take(&mut buffer[..most]);
                *ready -= count;
                return Ok(count);
            }
            match decoder.decode(wire.inbox.unread(), false).map_err(malformed)? {
                ChunkStep::Data { skip, len } => {
                    wire.inbox.consume(skip);
                    *ready = len;
                }
                ChunkStep::Trailers { skip, len } => wire.inbox.consume(skip + len),
                ChunkStep::Done { consumed } => {
                    wire.inbox.consume(consumed);
                    self.rest = Rest::Nothing;
                }
                ChunkStep::NeedMore { consumed } => {
                    wire.inbox.consume(consumed);
                    let filled = wire.fill_paced(&mut self.pace, until);
                    self.some(filled)?;
                }
                // A step that the library may learn means something that we do not know.
                _ => return Err(BodyError::Malformed(HttpError::InvalidChunkSize)),
            }
        }
    }

    /// At least one byte, or what its absence means.
    fn some(&self, read: Result<usize, Silence>) -> Result<usize, BodyError> {
        match read {
            Ok(0) | Err(Silence::Broken) => Err(BodyError::Truncated),
            Ok(count) => Ok(count),
            Err(Silence::Slow(Slow::Pause)) => Err(BodyError::Idle(self.idle)),
            Err(Silence::Slow(Slow::Rate)) => Err(BodyError::TooSlow(self.rate)),
            Err(Silence::TimedOut) => Err(BodyError::Deadline),
            Err(Silence::Stopped) => Err(BodyError::Stopped),
        }
    }
}

fn malformed(error: HttpError) -> BodyError {
    if error == HttpError::BodyTooLarge { BodyError::TooLarge } else { BodyError::Malformed(error) }
}

fn chunk_limits() -> Limits {
    Limits::new()
        .with_max_start_line(CHUNK_LINE_MAX)
        .with_max_header_bytes(CHUNK_EXTENSIONS_MAX)
        .with_max_trailer_bytes(TRAILERS_MAX)
        .with_max_trailer_fields(TRAILER_FIELDS_MAX)
        .with_max_body(BODY_MAX)
}
