//! The sending half of an exchange: frames a body and pushes it to a client that may be slow, stuck or gone.
//!
//! A [`ResponseWriter`] is independent of the thread that began the answer: a git worker writes it while the request's
//! thread waits. What it did is told to the connection through a `Reply`. Nothing is buffered: when a call returns,
//! the kernel has the bytes; a chunk, its framing and the head before it leave in one system call.

use crate::http::limits::FrontLimits;
use crate::http::message::Framing;
use crate::http::pace::Pace;
use crate::sys::net::{Ready, Socket};
use crate::sys::poll::Interest;
use crate::sys::stop::{Level, Stop};
use std::fs::File;
use std::io::{ErrorKind, IoSlice, Write as _};
use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use thiserror::Error;

/// The best size of a piece for [`ResponseWriter::write`], in bytes. Measured over loopback, where a proxy sits: chunks
/// of this size take 0.26 s per GiB; 64 KiB, whose framing spills into a second segment, take 0.33 to 0.56 s.
pub const PIECE: usize = 64_000;

/// Bytes of a chunk's size line: 16 hexadecimal digits and the end of the line.
const SIZE_LINE: usize = 18;

/// Why an answer could not be sent to its end. Nothing more can be sent after any of them, but
/// [`ResponseWriter::last_words`] and [`ResponseWriter::break_off`] where it was our time that ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WriteError {
    /// The client closed or reset the connection.
    #[error("the client went away")]
    Gone,
    /// The client does not read, or too slowly (`limits.write_stall`, `limits.min_rate`).
    #[error("the client reads too slowly or not at all")]
    Stalled,
    /// The deadline of the call has passed.
    #[error("the answer was not sent before its deadline")]
    Deadline,
    /// The gate is stopping and waits for nobody any more.
    #[error("the gate is stopping")]
    Stopped,
    /// The body does not have the length that was announced: a fault of ours, or a file that changed.
    #[error("the answer's body does not have its announced length")]
    Length,
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// No byte of it was sent.
    Unsent,
    /// A writer has it.
    Started,
    /// All of it was sent.
    Finished,
    /// It will never be finished; the client must see the connection end.
    Broken,
}

/// What a writer has done, shared with the connection that it writes to.
#[derive(Debug)]
pub(super) struct Reply(Mutex<(Progress, u64)>);

impl Reply {
    pub(super) fn new() -> Self {
        Self(Mutex::new((Progress::Unsent, 0)))
    }

    pub(super) fn progress(&self) -> Progress {
        self.state().0
    }

    /// Bytes handed to the kernel, heads and framing included.
    pub(super) fn sent(&self) -> u64 {
        self.state().1
    }

    pub(super) fn set(&self, progress: Progress) {
        self.state().0 = progress;
    }

    fn add(&self, bytes: usize) {
        self.state().1 += bytes as u64;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, (Progress, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes one answer. [`ResponseWriter::finish`] completes it; dropped before, it leaves the client with an answer
/// that is visibly cut short, and the connection ends. When nothing was sent yet, another answer can take its place.
#[derive(Debug)]
pub struct ResponseWriter {
    socket: Arc<Socket>,
    stop: Stop,
    pace: Pace,
    head: Vec<u8>,
    framing: Framing,
    failed: Option<WriteError>,
    /// What is missing of a piece that could not be sent, framing included, but for what was to come from a file.
    unsent: Vec<u8>,
    /// How much is missing of the piece of a file that was sent last.
    owed: u64,
    /// From which level on the stop is a reason not to wait for room.
    ends_at: Level,
    /// These are the last words: no stop is such a reason any more.
    is_last: bool,
    reply: Arc<Reply>,
}

impl ResponseWriter {
    pub(super) fn new(
        socket: Arc<Socket>,
        stop: Stop,
        limits: &FrontLimits,
        head: Vec<u8>,
        framing: Framing,
        reply: Arc<Reply>,
    ) -> Self {
        reply.set(Progress::Started);
        let pace = Pace::new(limits.min_rate, limits.min_rate_after, limits.write_stall);
        let ends_at = Level::Killing;
        let (failed, unsent, owed, is_last) = (None, Vec::new(), 0, false);
        Self { socket, stop, pace, head, framing, failed, unsent, owed, ends_at, is_last, reply }
    }

    /// Does not wait for room any more once the stop has reached `level`: for an answer without an end of its own.
    pub fn end_at(&mut self, level: Level) {
        self.ends_at = level;
    }

    /// Sends a piece of the body, and before the first one the head; an empty piece sends the head alone. Waits for
    /// the client until `until`, and no longer than the limits on slow readers.
    ///
    /// # Errors
    /// See [`WriteError`]; after one, every call answers it again.
    pub fn write(&mut self, bytes: &[u8], until: Instant) -> Result<(), WriteError> {
        let mut line = [0; SIZE_LINE];
        match self.framing {
            Framing::Absent(_) => self.push([b"", b"", b""], false, until),
            Framing::UntilClose => self.push([b"", bytes, b""], false, until),
            Framing::Length(left) => {
                let left =
                    left.checked_sub(bytes.len() as u64).ok_or_else(|| self.fail(WriteError::Length))?;
                self.framing = Framing::Length(left);
                self.push([b"", bytes, b""], false, until)
            }
            // An empty chunk would end the body.
            Framing::Chunked if bytes.is_empty() => self.push([b"", b"", b""], false, until),
            Framing::Chunked => {
                let size = size_line(&mut line, bytes.len() as u64);
                self.push([size, bytes, b"\r\n"], false, until)
            }
        }
    }

    /// Sends `len` bytes of `file`, from `offset` on, without reading them into this process.
    ///
    /// # Errors
    /// As [`ResponseWriter::write`]; [`WriteError::Length`] also when the file ends before.
    pub fn send_file(
        &mut self,
        file: &File,
        offset: u64,
        len: u64,
        until: Instant,
    ) -> Result<(), WriteError> {
        let mut line = [0; SIZE_LINE];
        self.owed = len;
        match self.framing {
            Framing::Absent(_) => self.push([b"", b"", b""], false, until),
            Framing::UntilClose => {
                self.push([b"", b"", b""], true, until)?;
                self.push_file(file, offset, len, until)
            }
            Framing::Length(left) => {
                let left = left.checked_sub(len).ok_or_else(|| self.fail(WriteError::Length))?;
                self.framing = Framing::Length(left);
                self.push([b"", b"", b""], len > 0, until)?;
                self.push_file(file, offset, len, until)
            }
            Framing::Chunked if len == 0 => self.push([b"", b"", b""], false, until),
            Framing::Chunked => {
                self.push([size_line(&mut line, len), b"", b""], true, until)?;
                self.push_file(file, offset, len, until)?;
                self.push([b"", b"\r\n", b""], false, until)
            }
        }
    }

    /// Completes the answer.
    ///
    /// # Errors
    /// As [`ResponseWriter::write`]; [`WriteError::Length`] also when less was written than announced.
    pub fn finish(mut self, until: Instant) -> Result<(), WriteError> {
        match self.framing {
            Framing::Length(1..) => return Err(self.fail(WriteError::Length)),
            Framing::Chunked => self.push([b"", b"0\r\n\r\n", b""], false, until)?,
            Framing::Length(0) | Framing::Absent(_) | Framing::UntilClose => {
                self.push([b"", b"", b""], false, until)?;
            }
        }
        self.reply.set(Progress::Finished);
        Ok(())
    }

    /// Completes the answer with `words`. A piece that [`WriteError::Deadline`] or [`WriteError::Stopped`] interrupted
    /// is sent to its end first, so that the client finds them where it expects the next piece. Waits until `until`, also
    /// while the gate is stopping.
    ///
    /// # Errors
    /// As [`ResponseWriter::finish`]; the earlier error when the client failed us.
    pub fn last_words(mut self, words: &[u8], until: Instant) -> Result<(), WriteError> {
        self.resume(until)?;
        self.write(words, until)?;
        self.finish(until)
    }

    /// Ends an answer that is cut with `words`, placed as [`ResponseWriter::last_words`] does, in a piece of a file behind
    /// what was sent of it. It stays unfinished and the connection ends, so that nobody on the way takes it for a whole one
    /// either; but where nothing but the end of the connection ends it, since what cuts that short takes the words away.
    ///
    /// # Errors
    /// As [`ResponseWriter::last_words`]; [`WriteError::Length`] when no more than `words` is missing.
    pub fn break_off(mut self, words: &[u8], until: Instant) -> Result<(), WriteError> {
        self.resume(until)?;
        let (owed, size) = (self.owed, words.len() as u64);
        if let Framing::Length(left) = self.framing
            && owed + left <= size
        {
            return Err(self.fail(WriteError::Length));
        }
        let (inside, behind) = words.split_at(usize::try_from(owed.min(size)).unwrap_or(words.len()));
        let end: &[u8] =
            if self.framing == Framing::Chunked && (1..=size).contains(&owed) { b"\r\n" } else { b"" };
        self.push([b"", inside, end], owed < size, until)?;
        if owed < size {
            self.write(behind, until)?;
        }
        if self.framing == Framing::UntilClose { self.finish(until) } else { Ok(()) }
    }

    /// Goes on where it was our time that ran out, for the last time.
    fn resume(&mut self, until: Instant) -> Result<(), WriteError> {
        self.is_last = true;
        match self.failed {
            None => Ok(()),
            Some(WriteError::Deadline | WriteError::Stopped) => {
                self.failed = None;
                let unsent = std::mem::take(&mut self.unsent);
                self.push([b"", &unsent, b""], true, until)
            }
            Some(error) => Err(error),
        }
    }

    /// How much is missing of the piece of a file that was sent last, in bytes.
    #[must_use]
    pub const fn owed(&self) -> u64 {
        self.owed
    }

    /// Bytes handed to the kernel so far, the head and framing included.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.reply.sent()
    }

    /// Sends the head, if it is still here, and then `parts`.
    fn push(&mut self, parts: [&[u8]; 3], more: bool, until: Instant) -> Result<(), WriteError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let head = std::mem::take(&mut self.head);
        let [first, second, third] = parts;
        let mut slices = [&head, first, second, third].map(IoSlice::new);
        let mut left: &mut [IoSlice<'_>] = &mut slices;
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match self.attempt(until, |socket| socket.send(left, more)) {
                Ok(count) => IoSlice::advance_slices(&mut left, count),
                Err(error) => {
                    self.unsent = left.iter().flat_map(|part| part.iter().copied()).collect();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn push_file(&mut self, file: &File, offset: u64, len: u64, until: Instant) -> Result<(), WriteError> {
        while self.owed > 0 {
            let (at, owed) = (offset + (len - self.owed), self.owed);
            match self.attempt(until, |socket| socket.send_file(file, at, owed))? {
                0 => return Err(self.fail(WriteError::Length)),
                count => self.owed -= count as u64,
            }
        }
        Ok(())
    }

    /// One successful call of `send`, after as many waits for room as it takes.
    fn attempt(
        &mut self,
        until: Instant,
        send: impl Fn(&Socket) -> std::io::Result<usize>,
    ) -> Result<usize, WriteError> {
        loop {
            match send(&self.socket) {
                Ok(count) => {
                    self.pace.moved(count);
                    self.reply.add(count);
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.await_room(until).map_err(|error| self.fail(error))?;
                }
                Err(error) => return Err(self.fail(end_of(&error))),
            }
        }
    }

    fn await_room(&mut self, until: Instant) -> Result<(), WriteError> {
        let began = Instant::now();
        if began >= until {
            return Err(WriteError::Deadline);
        }
        let limit = until.min(began + self.pace.patience());
        let ready = match self.is_last {
            true => self.socket.wait_for_room(limit),
            false => self.socket.wait(Interest::Write, &self.stop, self.ends_at, limit),
        };
        match ready {
            Ok(Ready::Now | Ready::TimedOut) => {
                self.pace.waited(began.elapsed()).map_err(|_| WriteError::Stalled)
            }
            Ok(Ready::Stopped) => Err(WriteError::Stopped),
            Ok(Ready::Gone) => Err(self.socket.fault().as_ref().map_or(WriteError::Gone, end_of)),
            Err(_) => Err(WriteError::Gone),
        }
    }

    fn fail(&mut self, error: WriteError) -> WriteError {
        self.failed = Some(error);
        error
    }
}

impl Drop for ResponseWriter {
    fn drop(&mut self) {
        if self.reply.progress() != Progress::Started {
            return;
        }
        // A fault of ours can still be told; a client that failed us is not waited for again.
        if self.reply.sent() == 0 && matches!(self.failed, None | Some(WriteError::Length)) {
            return self.reply.set(Progress::Unsent);
        }
        self.reply.set(Progress::Broken);
        match self.framing {
            // The end of the connection would look like the end of the body.
            Framing::UntilClose => self.socket.reset_on_close(),
            Framing::Absent(_) | Framing::Length(_) | Framing::Chunked => {
                self.socket.shutdown(Shutdown::Write)
            }
        }
    }
}

/// What the end of a connection means: the kernel itself may have lost patience (`TCP_USER_TIMEOUT`).
fn end_of(error: &std::io::Error) -> WriteError {
    if error.kind() == ErrorKind::TimedOut { WriteError::Stalled } else { WriteError::Gone }
}

fn size_line(line: &mut [u8; SIZE_LINE], size: u64) -> &[u8] {
    let mut rest = &mut line[..];
    write!(rest, "{size:x}\r\n").expect("18 bytes hold the longest size line");
    let unused = rest.len();
    &line[..SIZE_LINE - unused]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_line_is_hexadecimal_and_always_fits() {
        let mut line = [0; SIZE_LINE];
        assert_eq!(size_line(&mut line, 65536), b"10000\r\n");
        assert_eq!(size_line(&mut line, u64::MAX), b"ffffffffffffffff\r\n");
    }
}
