//! What stands before `tiny_http` on the control socket: it reads a whole request, judges it, and passes on a plain one.
//!
//! `tiny_http` 0.12 must not meet a stranger's bytes, and every hook of a repository can connect here. When a request is
//! dropped it allocates the rest of the announced body at once, which aborts the process; an unknown version costs it a
//! thread; an unread chunked body becomes the next request; and it waits for a head for ever. So it is given requests
//! that were written here, whole, one a connection, over a socket that nobody else can reach.

use super::callers::Callers;
use super::translate;
use crate::http::head::{self, Length, Refused, RequestParts};
use crate::http::limits::FrontLimits;
use crate::http::message::{Response, Version};
use crate::http::mirrors::WAIT_MAX;
use crate::sys::private::end_accepting;
use crate::sys::proxies::TrustedProxies;
use crate::sys::stop::{Level, Stop};
use crate::sys::thread;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tiny_http::HTTPVersion;

/// Callers at a time; one more is closed. The command line makes one call after the other, and each thread costs little.
const CALLERS_MAX: usize = 256;

/// The longest head, in bytes: what the command line sends is below one KiB.
const HEAD_MAX: usize = 8 << 10;

/// The longest body, in bytes: a decision with its comment.
const BODY_MAX: u64 = 64 << 10;

/// How long a request may take to arrive whole.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// How long the pages may take to answer, beside what they are asked to wait, and then the caller to read the answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How long whoever has asked may take, as the door closes, to be answered: what he waits for has ended by then.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// The longest answer, in bytes: a full status of a large gate is below one MiB.
const ANSWER_MAX: u64 = 64 << 20;

/// The pause after a failed accept, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Makes a connection to the server behind the guard.
pub(super) type Connect = dyn Fn() -> io::Result<UnixStream> + Send + Sync;

/// What stands behind the guard.
pub(super) struct Behind {
    /// The way to the server.
    pub(super) connect: Box<Connect>,
    /// Where the server finds whose request it answers.
    pub(super) callers: Callers,
}

/// The running guard.
pub(super) struct Guard {
    listener: Arc<UnixListener>,
    closing: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// A connection that is being served.
struct Caller {
    stream: Arc<UnixStream>,
    thread: JoinHandle<()>,
}

impl Guard {
    /// Takes connections in the thread `control-door`, each in a thread `caller` of its own.
    pub(super) fn start(listener: UnixListener, behind: Arc<Behind>, stop: Stop) -> io::Result<Self> {
        let (listener, closing) = (Arc::new(listener), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (listener, closing) = (Arc::clone(&listener), Arc::clone(&closing));
            thread::spawn("control-door", move || accept_all(&listener, &behind, &closing, &stop))?
        };
        Ok(Self { listener, closing, thread })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Takes no more connections, lets those be answered who have asked, cuts the others, and waits for their threads.
    pub(super) fn close(self) {
        self.closing.store(true, Ordering::Relaxed);
        end_accepting(&self.listener);
        if self.thread.join().is_err() {
            log::error!("the thread control-door has panicked");
        }
    }
}

fn accept_all(listener: &UnixListener, behind: &Arc<Behind>, closing: &AtomicBool, stop: &Stop) {
    let mut callers: Vec<Caller> = Vec::new();
    while !closing.load(Ordering::Relaxed) {
        let accepted = listener.accept();
        callers.retain(|caller| !caller.thread.is_finished());
        let admitted = match accepted {
            Ok(_) if callers.len() >= CALLERS_MAX => {
                log::debug!("control: {CALLERS_MAX} callers at a time are enough; one more is closed");
                continue;
            }
            Ok((stream, _)) => admit(stream, behind),
            Err(error) => Err(error),
        };
        match admitted {
            Ok(caller) => callers.push(caller),
            Err(_) if closing.load(Ordering::Relaxed) => break,
            Err(error) => {
                log::warn!("control: a caller is not served: {error}");
                if !stop.sleep(ACCEPT_PAUSE, Level::Killing) {
                    log::debug!("control: no pause while stopping; the socket is closed in a moment");
                }
            }
        }
    }
    behind.callers.await_departure(LAST_ANSWERS);
    callers.iter().for_each(|caller| hang_up(&caller.stream));
    for caller in callers {
        if caller.thread.join().is_err() {
            log::error!("a caller's thread has panicked");
        }
    }
}

fn admit(stream: UnixStream, behind: &Arc<Behind>) -> io::Result<Caller> {
    let stream = Arc::new(stream);
    let (own, behind) = (Arc::clone(&stream), Arc::clone(behind));
    let thread = thread::spawn("caller", move || {
        if let Err(error) = serve(&own, &behind) {
            log::debug!("control: a caller was not answered: {error}");
        }
        // The other handle of it lasts until the next accept.
        hang_up(&own);
    })?;
    Ok(Caller { stream, thread })
}

fn hang_up(stream: &UnixStream) {
    // Fails only when the other side was first.
    let _ = stream.shutdown(Shutdown::Both);
}

/// Serves one request and no more.
fn serve(stream: &Arc<UnixStream>, behind: &Behind) -> io::Result<()> {
    let mut caller = Timed { stream, until: Instant::now() + REQUEST_LIMIT };
    match receive(&mut caller) {
        Ok(Some(request)) => {
            // He is here until he has his answer.
            let present = behind.callers.enter(stream);
            let answer = ask(&request.rewritten(&present.field()), &*behind.connect)?;
            reply(&mut caller, &answer)
        }
        Ok(None) => Ok(()),
        Err(Unserved::Refused(refused)) => reply(&mut caller, &refusal(&refused)?),
        Err(Unserved::Lost(error)) => Err(error),
    }
}

fn reply(caller: &mut Timed<'_>, answer: &[u8]) -> io::Result<()> {
    caller.until = Instant::now() + ANSWER_LIMIT;
    // The server does not say that no other request is served after this one.
    let start_line = answer.windows(2).position(|end| end == b"\r\n").map_or(0, |at| at + 2);
    let (start_line, rest) = answer.split_at(start_line);
    caller.write_all(&[start_line, b"Connection: close\r\n", rest].concat())
}

fn ask(request: &[u8], connect: &Connect) -> io::Result<Vec<u8>> {
    let inner = connect()?;
    let mut server = Timed { stream: &inner, until: Instant::now() + ANSWER_LIMIT + WAIT_MAX };
    server.write_all(request)?;
    // After this request comes none: the server closes when it has answered.
    inner.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    server.take(ANSWER_MAX).read_to_end(&mut answer)?;
    if answer.is_empty() {
        return refusal(&Refused::new(400, "this request is not understood here"));
    }
    Ok(answer)
}

fn refusal(refused: &Refused) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let response = translate(&Response::text(refused.status, &refused.why));
    response.raw_print(&mut answer, HTTPVersion(1, 1), &[], false, None).map(|()| answer)
}

/// Why there is no request.
enum Unserved {
    Refused(Refused),
    Lost(io::Error),
}

impl From<Refused> for Unserved {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<io::Error> for Unserved {
    fn from(error: io::Error) -> Self {
        if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) {
            return Self::Refused(Refused::new(408, "the request did not come whole within 5 seconds"));
        }
        Self::Lost(error)
    }
}

/// Reads a request to its end; `None` when the caller sent nothing.
fn receive(caller: &mut Timed<'_>) -> Result<Option<Received>, Unserved> {
    let limits = FrontLimits { head_bytes: HEAD_MAX, ..FrontLimits::default() };
    let mut input = Vec::new();
    let parts = loop {
        if let Some(parts) = head::parse(&input, &limits, &TrustedProxies::default(), None)? {
            break parts;
        }
        let mut piece = [0; 1024];
        match caller.read(&mut piece)? {
            0 if input.is_empty() => return Ok(None),
            0 => return Err(Refused::new(400, "the request's head is cut short").into()),
            count => input.extend(piece.iter().take(count)),
        }
    };
    let len = body_len(parts.length)?;
    let mut body = input.split_off(parts.bytes);
    if parts.expects_continue && body.len() < len {
        caller.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    // What follows the body is another request, and there is none after the first.
    body.truncate(len);
    let missing = len - body.len();
    caller.take(missing as u64).read_to_end(&mut body)?;
    if body.len() < len {
        return Err(Refused::new(400, "the request's body is cut short").into());
    }
    Ok(Some(Received { parts, body }))
}

fn body_len(length: Length) -> Result<usize, Refused> {
    match length {
        Length::Known(len @ 0..=BODY_MAX) => {
            usize::try_from(len).map_err(|_| Refused::new(413, "the request's body is too long"))
        }
        Length::Known(_) => Err(Refused::new(413, format!("a body here has at most {BODY_MAX} bytes"))),
        Length::Chunked => Err(Refused::new(411, "a body here has a Content-Length and is not chunked")),
    }
}

/// The fields that the pages behind this door read: who asks, what the body is, and where the request comes from.
const PASSED_ON: [&str; 4] = ["authorization", "content-type", "origin", "sec-fetch-site"];

/// A request, whole.
struct Received {
    parts: RequestParts,
    body: Vec<u8>,
}

impl Received {
    /// The same request in our words, with one field more: two parsers cannot differ about fields that are not there. A field
    /// that is passed on is one line of text, or the request was refused before.
    fn rewritten(&self, field: &str) -> Vec<u8> {
        let request = &self.parts.request;
        let version = match request.version {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
        };
        let query = request.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let start = format!("{} {}{query} HTTP/{version}\r\n", request.method.as_str(), request.path);
        let mut fields = format!("Content-Length: {}\r\nConnection: close\r\n{field}", self.body.len());
        for name in PASSED_ON {
            if let Ok(Some(value)) = request.headers.get(name) {
                fields += &format!("{name}: {value}\r\n");
            }
        }
        [start.as_bytes(), fields.as_bytes(), b"\r\n", &self.body].concat()
    }
}

/// A stream whose reads and writes all end at the same time.
struct Timed<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        match self.until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
