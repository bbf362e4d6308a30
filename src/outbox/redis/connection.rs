//! Requests and answers over one connection.
//!
//! An answer that came too late would be taken for that of the next request, so a connection on which anything failed is
//! never used again; [`Connection::receive`] alone may be asked once more after it waited in vain.

use super::RedisError;
use super::server::{COMMAND, Wire};
use redis::{Cmd, Parser, Value};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Instant;

/// The longest answer, in bytes: what there may be much of is asked for in pieces of a fifth of that.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Requests that are under way at a time: enough that the way to the server does not count, few enough that both sides
/// have room for all of them without reading.
const PIPELINE: usize = 64;

/// A connection on which everything was said that comes first.
pub(super) struct Connection {
    wire: Wire,
    parser: Parser,
    /// How much of the present answer may still come, in bytes.
    room: usize,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("wire", &self.wire).finish_non_exhaustive()
    }
}

impl Connection {
    /// Over a wire on which nothing was said yet.
    pub(super) fn over(wire: Wire) -> Self {
        Self { wire, parser: Parser::new(), room: ANSWER_BYTES_MAX }
    }

    /// Sends a request and waits for its answer, [`COMMAND`] in all.
    pub(super) fn ask(&mut self, command: &Cmd, doing: &'static str) -> Result<Value, RedisError> {
        let until = Instant::now() + COMMAND;
        self.send(command, doing, until)?;
        self.answer(doing, until)
    }

    /// Sends the request for each of `subjects`, some at a time, and hands over its answer. A subject whose key holds
    /// something of another kind is passed over: whoever has to tell of it says so.
    pub(super) fn ask_all<T>(
        &mut self,
        subjects: &[T],
        doing: &'static str,
        request: impl Fn(&T) -> Cmd,
        mut take: impl FnMut(&T, &Value) -> Result<(), RedisError>,
    ) -> Result<(), RedisError> {
        for some in subjects.chunks(PIPELINE) {
            let until = Instant::now() + COMMAND;
            for subject in some {
                self.send(&request(subject), doing, until)?;
            }
            for subject in some {
                match self.answer(doing, until) {
                    Err(error) if error.is_of_one_key() => log::debug!("{error}"),
                    answer => take(subject, &answer?)?,
                }
            }
        }
        Ok(())
    }

    /// Sends a request.
    pub(super) fn send(
        &mut self,
        command: &Cmd,
        doing: &'static str,
        until: Instant,
    ) -> Result<(), RedisError> {
        let begun = Instant::now();
        self.wire.limit(until);
        let sent = self.wire.write_all(&command.get_packed_command()).and_then(|()| self.wire.flush());
        sent.map_err(|error| RedisError::of(doing, error, begun))
    }

    /// Waits for the next that the server says; `None` where it has not said it all by `until`, and may still.
    pub(super) fn receive(
        &mut self,
        doing: &'static str,
        until: Instant,
    ) -> Result<Option<Value>, RedisError> {
        let begun = Instant::now();
        self.wire.limit(until);
        let mut source = Source { wire: &mut self.wire, room: &mut self.room, failed: None };
        let parsed = self.parser.parse_value(&mut source);
        match (parsed, source.failed) {
            (Ok(answer), _) => {
                self.room = ANSWER_BYTES_MAX;
                if let Value::ServerError(error) = &answer {
                    return Err(RedisError::refused(doing, error));
                }
                Ok(Some(answer))
            }
            (Err(_), Some(error)) if error.kind() == ErrorKind::TimedOut => Ok(None),
            (Err(_), Some(error)) => Err(RedisError::of(doing, error, begun)),
            (Err(error), None) if error.is_io_error() => {
                Err(RedisError::of(doing, ErrorKind::UnexpectedEof.into(), begun))
            }
            (Err(_), None) => Err(RedisError::Odd { doing }),
        }
    }

    fn answer(&mut self, doing: &'static str, until: Instant) -> Result<Value, RedisError> {
        let begun = Instant::now();
        let late = || RedisError::of(doing, ErrorKind::TimedOut.into(), begun);
        self.receive(doing, until)?.ok_or_else(late)
    }
}

/// What the parser reads from: no more than an answer may have, and with what went wrong as the wire said it.
struct Source<'a> {
    wire: &'a mut Wire,
    room: &'a mut usize,
    failed: Option<io::Error>,
}

impl Read for Source<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let room = (*self.room).min(into.len());
        let read = if room == 0 {
            Err(io::Error::new(ErrorKind::InvalidData, "the answer is longer than any should be"))
        } else {
            self.wire.read(&mut into[..room])
        };
        match read {
            Ok(more) => {
                *self.room -= more;
                Ok(more)
            }
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }
}
