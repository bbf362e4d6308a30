//! One request and its answer, as a handler sees them.

use crate::http::body::{Body, BodyError};
use crate::http::head::RequestParts;
use crate::http::house::House;
use crate::http::message::{Afterwards, Framing, Head, Headers, Request, Response, Version};
use crate::http::wire::Wire;
use crate::http::writer::{Progress, Reply, ResponseWriter, WriteError};
use crate::sys::net::Socket;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How long a client may take to fetch an answer that is whole in memory.
const RESPOND_LIMIT: Duration = Duration::from_secs(600);

/// How long a request's body may take to come in, as a whole: that of a large push over a slow line. The pace within
/// it is the limits' matter.
const BODY_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// The most that is read and forgotten of a body that a handler left, in bytes; with more to come the connection is
/// closed instead.
pub(super) const DRAIN_MAX: u64 = 256 << 10;

/// How long such a rest may take to arrive.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// What answers requests. It runs in the connection's thread, for several connections at once; a panic in it is
/// caught, logged and answered 500 when nothing was sent.
pub trait Handler: Send + Sync {
    /// Answers one request, through [`Exchange::respond`] or [`Exchange::start`]. It must not return while a writer
    /// of its answer is still at work in another thread: the connection is closed under such a writer.
    fn handle(&self, exchange: &mut Exchange);
}

/// A request, the way to its body, and the place of its one answer.
#[derive(Debug)]
pub struct Exchange {
    request: Request,
    body: Body,
    wire: Wire,
    house: Arc<House>,
    reply: Arc<Reply>,
    keep: bool,
    arrived: Instant,
    body_until: Instant,
}

impl Exchange {
    pub(super) fn new(wire: Wire, parts: RequestParts, house: Arc<House>) -> Self {
        let arrived = Instant::now();
        Self {
            body: Body::new(&parts, &house.limits),
            keep: parts.keep_alive,
            request: parts.request,
            wire,
            house,
            reply: Arc::new(Reply::new()),
            arrived,
            body_until: arrived + BODY_LIMIT,
        }
    }

    /// The request's head.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// When the request's head was complete.
    #[must_use]
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// The client's connection, to be watched for its end while something else is waited for.
    #[must_use]
    pub fn socket(&self) -> Arc<Socket> {
        Arc::clone(&self.wire.socket)
    }

    /// What was noted of the connection at an earlier request.
    #[must_use]
    pub fn noted(&self) -> Option<u64> {
        self.wire.note
    }

    /// Notes something of the connection for its later requests.
    pub fn note(&mut self, note: u64) {
        self.wire.note = Some(note);
    }

    /// The length of the body as the client announced it; `None` when it comes in chunks.
    #[must_use]
    pub fn announced(&self) -> Option<u64> {
        self.body.announced()
    }

    /// Bytes of the body read so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.body.received()
    }

    /// Bytes of the answer sent so far, its head included.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.reply.sent()
    }

    /// Whether an answer was begun, so that no other can be given.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.reply.progress() != Progress::Unsent
    }

    /// Reads some bytes of the body; 0 at its end. A client that waits for `100 Continue` is told so by the first
    /// read, and by nothing else. What is not read is drained or ends the connection.
    ///
    /// # Errors
    /// See [`BodyError`]; a body that ends early is an error, not an end.
    pub fn read_body(&mut self, buffer: &mut [u8]) -> Result<usize, BodyError> {
        self.body.read(&mut self.wire, buffer, self.body_until)
    }

    /// Sends an answer that is whole in memory.
    ///
    /// # Errors
    /// See [`WriteError`]; the client has then seen less than all of it, and nothing more can be done.
    ///
    /// # Panics
    /// As [`Exchange::start`].
    pub fn respond(&mut self, response: &Response) -> Result<(), WriteError> {
        let until = Instant::now() + RESPOND_LIMIT;
        let mut writer = self.start(response.status, &response.headers, Some(response.body.len() as u64));
        writer.write(&response.body, until)?;
        writer.finish(until)
    }

    /// Makes the answer that is begun next the connection's last. It may take long: what was kept for the reading of
    /// requests is given back.
    pub fn close_afterwards(&mut self) {
        self.keep = false;
        self.wire.inbox.release();
    }

    /// Gives no answer, because the client has left: the connection ends.
    pub fn abandon(&mut self) {
        self.reply.set(Progress::Broken);
    }

    /// Begins an answer with a body of `len` bytes, or of unknown length. Its head is sent with the first bytes that
    /// the writer is given.
    ///
    /// # Panics
    /// When an answer was begun before: a handler that answers twice is wrong, and its connection must end.
    #[must_use]
    pub fn start(&mut self, status: u16, headers: &Headers, len: Option<u64>) -> ResponseWriter {
        assert!(!self.is_started(), "a request is answered once");
        let framing = Framing::of(&self.request, status, len);
        self.keep &=
            framing != Framing::UntilClose && self.body.is_drainable(DRAIN_MAX) && self.house.may_keep();
        self.body.answered();
        let afterwards = match (self.keep, self.request.version) {
            (false, _) => Afterwards::Close,
            (true, Version::Http10) => Afterwards::KeepAsked,
            (true, Version::Http11) => Afterwards::Keep,
        };
        let head = Head { status, headers, framing, afterwards }.encode(SystemTime::now());
        ResponseWriter::new(
            self.socket(),
            self.house.stop.clone(),
            &self.house.limits,
            head,
            framing,
            Arc::clone(&self.reply),
        )
    }

    /// Ends the exchange after the handler has returned.
    pub(super) fn end(mut self) -> Ending {
        match self.reply.progress() {
            Progress::Unsent => {
                log::error!(
                    "a handler gave no answer to {} {:?}",
                    self.request.method.as_str(),
                    self.request.path
                );
                self.keep = false;
                // Who does not take this answer gets none.
                let _ = self.respond(&Response::text(500, "the gate failed to answer this request"));
                self.leave()
            }
            Progress::Finished if self.keep && self.drain() => Ending::Keep(self.wire),
            Progress::Finished => self.leave(),
            // The writer made the cut visible.
            Progress::Broken => Ending::Close,
            Progress::Started => {
                log::error!(
                    "a handler left its answer to {} {:?} behind",
                    self.request.method.as_str(),
                    self.request.path
                );
                self.wire.socket.shutdown(Shutdown::Both);
                Ending::Close
            }
        }
    }

    fn leave(self) -> Ending {
        match self.body.is_done() && self.wire.inbox.is_empty() {
            true => Ending::Close,
            false => Ending::Linger(self.wire),
        }
    }

    /// Reads the rest of the body, so that the next request comes to the front.
    fn drain(&mut self) -> bool {
        let until = Instant::now() + DRAIN_LIMIT;
        let mut sink = [0; 8192];
        let mut left = DRAIN_MAX;
        while !self.body.is_done() {
            match self.body.read(&mut self.wire, &mut sink, until) {
                Ok(count) if count as u64 <= left => left -= count as u64,
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }
}

/// What becomes of a connection after an exchange.
#[derive(Debug)]
pub(super) enum Ending {
    /// The next request is awaited.
    Keep(Wire),
    /// Nothing more is to be sent or read.
    Close,
    /// The client has the whole answer but may still be sending; closing at once could take the answer from it.
    Linger(Wire),
}
