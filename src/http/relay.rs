//! From a git process to its client: one loop that waits for everything that can happen to either.
//!
//! The loop owns the child while it runs. It ends the child's whole group when the client leaves, the deadline passes
//! or the server stops; it never waits on one descriptor alone, so a silent git does not hide a dead client and a slow
//! client does not hide a deadline.

use super::writer::{PIECE, ResponseWriter, WriteError};
use crate::git::push_answer::AnswerReader;
use crate::git::remark::Remark;
use crate::git::sideband::Tracker;
use crate::supervise::{Child, Outcome, Why};
use crate::sys::net::Socket;
use crate::sys::poll::{self, Interest};
use crate::sys::stop::{Level, Stop};
use std::io;
use std::time::{Duration, Instant};

/// How often a silent connection is asked whether the peer's kernel still acknowledges.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(10);

/// How a relay ended.
#[derive(Debug)]
pub struct Relayed {
    /// How git ended.
    pub outcome: Outcome,
    /// Where its output stopped.
    pub tracker: Tracker,
    /// What has read along, if all of the output could be read as an answer to a push.
    pub answer: Option<AnswerReader>,
    /// Bytes of output.
    pub bytes: u64,
    /// Whether the client can still be told something.
    pub client_listens: bool,
}

/// What the gate adds to what a git writes.
#[derive(Debug)]
pub struct Additions<'a> {
    /// Goes before the first byte, and nowhere when there is none.
    pub banner: &'a [u8],
    /// Goes where the side band begins.
    pub remark: Option<Remark>,
}

/// Passes everything that `child` writes to `writer`, byte for byte and with `additions`, until both have ended or one must
/// go; `answer` reads along.
pub fn relay(
    child: Child,
    additions: Additions<'_>,
    answer: Option<AnswerReader>,
    writer: &mut ResponseWriter,
    client: &Socket,
    stop: &Stop,
) -> Relayed {
    let Additions { banner, remark } = additions;
    let tracker = Tracker::new();
    let mut relay =
        Relay { child, banner, remark, writer, client, stop, tracker, answer, bytes: 0, exited: false };
    let ended = relay.run();
    let Relay { child, tracker, answer, bytes, .. } = relay;
    let (outcome, client_listens) = match ended {
        Ok(()) => (child.finish(), true),
        Err(why) => (child.end(why), why != Why::ClientGone),
    };
    Relayed { outcome, tracker, answer, bytes, client_listens }
}

struct Relay<'a> {
    child: Child,
    banner: &'a [u8],
    remark: Option<Remark>,
    writer: &'a mut ResponseWriter,
    client: &'a Socket,
    stop: &'a Stop,
    tracker: Tracker,
    answer: Option<AnswerReader>,
    bytes: u64,
    /// Whether the leader has been reaped: from then on an empty pipe is the end of the output.
    exited: bool,
}

impl Relay<'_> {
    /// `Ok` when the leader has exited and its output is at its end, else the reason to end the group.
    fn run(&mut self) -> Result<(), Why> {
        let mut buffer = vec![0; PIECE];
        while !(self.exited && self.child.stdout_fd().is_none()) {
            let [gone, killing, output, words, exit] = self.wait()?;
            let is_heartbeat = ![gone, killing, output, words, exit].contains(&true);
            if gone || is_heartbeat && self.client.is_gone() {
                return Err(Why::ClientGone);
            } else if killing {
                return Err(Why::Stopping);
            } else if self.child.deadline().has_passed(Instant::now()) {
                return Err(Why::Deadline);
            }
            self.exited |= exit;
            if words {
                self.child.drain_stderr();
            }
            if output || self.exited {
                self.pass_on(&mut buffer)?;
            }
        }
        Ok(())
    }

    fn wait(&self) -> Result<[bool; 5], Why> {
        let limit = match self.exited {
            true => Duration::ZERO,
            false => HEARTBEAT.min(self.child.deadline().left(Instant::now())),
        };
        let watches = [
            Some((self.client.fd(), Interest::HangUp)),
            Some((self.stop.fd(Level::Killing), Interest::Read)),
            self.child.stdout_fd().map(|fd| (fd, Interest::Read)),
            self.child.stderr_fd().map(|fd| (fd, Interest::Read)),
            (!self.exited).then(|| (self.child.exited_fd(), Interest::Read)),
        ];
        poll::wait(watches, Some(limit)).map_err(|_| Why::Internal)
    }

    fn pass_on(&mut self, buffer: &mut [u8]) -> Result<(), Why> {
        let banner = std::mem::take(&mut self.banner);
        let (front, rest) = buffer.split_at_mut(banner.len());
        let count = match self.child.read_stdout(rest) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Err(Why::Internal),
        };
        front.copy_from_slice(banner);
        let bytes = buffer.get(..banner.len() + count).unwrap_or_default();
        match self.remark.as_mut().filter(|remark| !remark.is_over()) {
            Some(remark) => {
                let woven = remark.weave(bytes);
                self.send(&woven)
            }
            None => self.send(bytes),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Why> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.tracker.feed(bytes);
        if self.answer.as_mut().is_some_and(|answer| answer.feed(bytes).is_err()) {
            // The bytes are the client's all the same, and he says what is wrong with them.
            self.answer = None;
        }
        self.bytes += bytes.len() as u64;
        self.writer.write(bytes, self.child.deadline().at).map_err(|error| match error {
            WriteError::Gone | WriteError::Stalled => Why::ClientGone,
            WriteError::Deadline => Why::Deadline,
            WriteError::Stopped => Why::Stopping,
            WriteError::Length => Why::Internal,
        })
    }
}
