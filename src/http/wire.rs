//! A connection's socket together with the bytes that have arrived on it and were not used yet.

use crate::http::pace::{Pace, Slow};
use crate::sys::net::{Ready, Socket};
use crate::sys::poll::Interest;
use crate::sys::stop::{Level, Stop};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Instant;

/// The first size of an inbox in bytes: heads of git clients take a few hundred.
const INBOX_FIRST: usize = 8 << 10;

/// The size of an inbox that decodes chunks, in bytes: what one read of a fast client brings.
const INBOX_CHUNKS: usize = 64 << 10;

/// Why no bytes came.
#[derive(Debug)]
pub(super) enum Silence {
    /// The time is over.
    TimedOut,
    /// The client was too slow.
    Slow(Slow),
    /// The stop ended the wait.
    Stopped,
    /// The connection is broken.
    Broken,
}

/// The reading side of a connection. What is written goes to the socket at once.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) socket: Arc<Socket>,
    pub(super) inbox: Inbox,
    pub(super) stop: Stop,
    /// What a handler has noted of it.
    pub(super) note: Option<u64>,
}

impl Wire {
    /// Waits for bytes and puts them into the inbox; 0 at the end of them.
    pub(super) fn fill(&mut self, level: Level, until: Instant) -> Result<usize, Silence> {
        loop {
            match self.socket.receive(self.inbox.spare()) {
                Ok(count) => {
                    self.inbox.commit(count);
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Err(Silence::Broken),
            }
            match self.wait(level, until) {
                Ok(Ready::Now) => {}
                Ok(Ready::TimedOut) => return Err(Silence::TimedOut),
                Ok(Ready::Stopped) => return Err(Silence::Stopped),
                Ok(Ready::Gone) | Err(_) => return Err(Silence::Broken),
            }
        }
    }

    /// As [`Wire::fill`], at the pace that a client must keep within a body.
    pub(super) fn fill_paced(&mut self, pace: &mut Pace, until: Instant) -> Result<usize, Silence> {
        self.inbox.reserve(INBOX_CHUNKS);
        let Self { socket, inbox, stop, note: _ } = self;
        let count = receive_paced(socket, stop, inbox.spare(), pace, until)?;
        inbox.commit(count);
        Ok(count)
    }

    /// Puts bytes into `buffer`, those of the inbox first; 0 at the end of them.
    pub(super) fn read_paced(
        &mut self,
        buffer: &mut [u8],
        pace: &mut Pace,
        until: Instant,
    ) -> Result<usize, Silence> {
        match self.inbox.take(buffer) {
            0 => receive_paced(&self.socket, &self.stop, buffer, pace, until),
            count => Ok(count),
        }
    }

    fn wait(&self, level: Level, until: Instant) -> io::Result<Ready> {
        self.socket.wait(Interest::Read, &self.stop, level, until)
    }
}

fn receive_paced(
    socket: &Socket,
    stop: &Stop,
    buffer: &mut [u8],
    pace: &mut Pace,
    until: Instant,
) -> Result<usize, Silence> {
    loop {
        match socket.receive(buffer) {
            Ok(count) => {
                pace.moved(count);
                return Ok(count);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Err(Silence::Broken),
        }
        let began = Instant::now();
        if began >= until {
            return Err(Silence::TimedOut);
        }
        let patience = until.min(began + pace.patience());
        match socket.wait(Interest::Read, stop, Level::Killing, patience) {
            Ok(Ready::Now | Ready::TimedOut) => pace.waited(began.elapsed()).map_err(Silence::Slow)?,
            Ok(Ready::Stopped) => return Err(Silence::Stopped),
            Ok(Ready::Gone) | Err(_) => return Err(Silence::Broken),
        }
    }
}

/// Bytes that arrived and were not used yet. It grows only while a head or a chunk's framing needs it to, and both
/// are bounded; empty, it can be given back.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    /// What is there.
    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Whether nothing is.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops the first `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Moves bytes from the front into `buffer`, as many as fit.
    pub(super) fn take(&mut self, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.end - self.start);
        buffer[..count].copy_from_slice(&self.unread()[..count]);
        self.consume(count);
        count
    }

    /// Gives the memory back when there is nothing in it: an idle connection costs no buffer.
    pub(super) fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    fn reserve(&mut self, size: usize) {
        if self.buffer.len() < size {
            self.buffer.resize(size, 0);
        }
    }

    /// Room for at least one byte.
    fn spare(&mut self) -> &mut [u8] {
        if self.start > 0 && self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            self.reserve((2 * self.buffer.len()).max(INBOX_FIRST));
        }
        &mut self.buffer[self.end..]
    }

    fn commit(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_an_inbox_in_the_order_they_came_and_its_memory_with_them() {
        let mut inbox = Inbox::default();
        let mut wrote = 0_u32;
        let mut read = 0_u32;
        for round in 0..2000 {
            let spare = inbox.spare();
            let count = spare.len().min(round % 37);
            for slot in &mut spare[..count] {
                *slot = u8::try_from(wrote % 251).unwrap();
                wrote += 1;
            }
            inbox.commit(count);
            let mut out = [0; 64];
            let count = inbox.take(&mut out[..round % 41]);
            for byte in &out[..count] {
                assert_eq!(u32::from(*byte), read % 251);
                read += 1;
            }
        }
        inbox.consume(usize::MAX / 2);
        inbox.release();
        assert!(inbox.is_empty() && inbox.buffer.capacity() == 0);
    }
}
