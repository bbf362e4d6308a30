//! From a git to the answer that it makes, for whoever reads it: one loop that sees the end of each of them.

use super::Producer;
use super::framing::{self, Maker};
use super::production::Demand;
use crate::git::pktline::{FLUSH, Tracker};
use crate::git::sideband::{KEEP_ALIVE, KEEP_ALIVE_EVERY};
use crate::supervise::{Child, Exit, Outcome, Why};
use crate::sys::poll::{self, Interest};
use crate::sys::stop::{Level, Stop};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// How much is passed on at a time, in bytes. A file that is written in such pieces lies in large pages of the kernel's cache,
/// and sendfile(2) takes half as long for it as for one that grew by kilobytes.
const PIECE: usize = 256 << 10;

/// A piece with less room than this is full.
const ROOM_MIN: usize = PIECE / 8;

/// How long output waits for more of it that is passed on with it: git writes a few kilobytes at a time, and each piece wakes
/// every reader.
const GATHERING: Duration = Duration::from_millis(50);

/// How long the pipe is left alone after a read of little: no git fills it in this time.
const REST: Duration = Duration::from_millis(1);

/// How often it is looked whether one reader keeps the others waiting.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// How a git has made an answer.
#[derive(Debug)]
pub struct Made {
    /// How it ended.
    pub outcome: Outcome,
    /// Where the answer stopped.
    pub tracker: Tracker,
    /// Whether there is any of it.
    pub has_begun: bool,
}

/// A git that makes an answer, and how far it has come.
#[derive(Debug)]
pub struct Flow {
    child: Child,
    maker: Maker,
    tracker: Tracker,
    /// Whether there is anything of the answer.
    has_begun: bool,
    /// When there was something last.
    silent_since: Instant,
    /// Whether the leader has been reaped: from then on an empty pipe is the end of the output.
    exited: bool,
}

/// How far a worker has come with it.
#[derive(Debug)]
pub enum Pumped {
    /// To its end.
    Made(Made),
    /// So far as it was to.
    Paused(Flow),
}

impl Flow {
    /// That of a git that was just started.
    #[must_use]
    pub fn of(child: Child, maker: Maker) -> Self {
        let (tracker, has_begun, silent_since) = (Tracker::new(), false, Instant::now());
        Self { child, maker, tracker, has_begun, silent_since, exited: false }
    }

    /// Takes what the git writes, until it ends or must go: because of its deadline, of a stop, or because nobody is left who
    /// reads; or until what `until` says.
    #[must_use]
    pub fn pump(self, producer: &Producer, stop: &Stop, until: Until<'_>) -> Pumped {
        let mut pump = Pump::new(self, producer, stop, until);
        let ended = pump.run();
        pump.pass_on_all();
        let mut flow = pump.flow;
        let outcome = match ended {
            Ok(Progress::Over) => flow.child.finish(),
            Ok(Progress::Paused) => return Pumped::Paused(flow),
            Err(why) => flow.child.end(why),
        };
        let is_whole = flow.has_begun && outcome.ended.is_none() && outcome.exit == Exit::Code(0);
        if flow.maker == Maker::PackObjects && is_whole {
            append(producer, &mut flow.tracker, FLUSH);
        }
        Pumped::Made(Made { outcome, tracker: flow.tracker, has_begun: flow.has_begun })
    }
}

/// Adds to an answer that stands where `tracker` does.
fn append(producer: &Producer, tracker: &mut Tracker, bytes: &[u8]) {
    tracker.feed(bytes);
    producer.append(bytes);
}

/// Until when a worker takes what a git writes, if it does not end before.
#[derive(Clone, Copy, Debug)]
pub enum Until<'a> {
    /// Until readers have to be waited for.
    Paced,
    /// Until this is readable.
    Relieved(BorrowedFd<'a>),
    /// Only to its end.
    Over,
}

/// Why a worker stops who need not.
enum Progress {
    Over,
    Paused,
}

struct Pump<'a> {
    flow: Flow,
    producer: &'a Producer,
    stop: &'a Stop,
    until: Until<'a>,
    /// What is to be passed on together.
    piece: Vec<u8>,
    /// How much of it there is, in bytes.
    gathered: usize,
    /// When the first of them came.
    gathering_since: Instant,
    /// Whether the output is left alone for a moment.
    is_resting: bool,
}

impl<'a> Pump<'a> {
    fn new(flow: Flow, producer: &'a Producer, stop: &'a Stop, until: Until<'a>) -> Self {
        let (piece, gathered, gathering_since) = (vec![0; PIECE], 0, Instant::now());
        Self { flow, producer, stop, until, piece, gathered, gathering_since, is_resting: false }
    }

    fn run(&mut self) -> Result<Progress, Why> {
        while !(self.flow.exited && self.flow.child.stdout_fd().is_none()) {
            if matches!(self.until, Until::Paced) && !self.producer.is_filed() {
                return Ok(Progress::Paused);
            }
            let demand = self.producer.demand();
            if demand == Demand::Abandoned {
                return Err(Why::ClientGone);
            }
            let [bell, killing, output, words, exit, relieved] = self.wait(demand)?;
            if bell {
                self.producer.hush();
            }
            if killing {
                return Err(Why::Stopping);
            } else if self.flow.child.deadline().has_passed(Instant::now()) {
                return Err(Why::Deadline);
            }
            if relieved {
                return Ok(Progress::Paused);
            }
            self.flow.exited |= exit;
            if words {
                self.flow.child.drain_stderr();
            }
            if demand == Demand::More && (output || self.flow.exited) {
                self.take()?;
            } else {
                self.is_resting = false;
            }
            if self.patience().is_some_and(|left| left.is_zero()) {
                self.pass_on_all();
            }
            if self.silence().is_some_and(|left| left.is_zero()) {
                self.pass_on(KEEP_ALIVE);
            }
        }
        Ok(Progress::Over)
    }

    /// How much longer what was gathered may wait for more. The first bytes do not: the client learns that its answer begins.
    fn patience(&self) -> Option<Duration> {
        let is_due = !self.flow.has_begun || PIECE - self.gathered < ROOM_MIN;
        let limit = if is_due { Duration::ZERO } else { GATHERING };
        (self.gathered > 0).then(|| limit.saturating_sub(self.gathering_since.elapsed()))
    }

    /// How much longer nothing may be said, where it is not git that sees to that.
    fn silence(&self) -> Option<Duration> {
        let silence = self.flow.silent_since.elapsed();
        (self.flow.maker == Maker::PackObjects).then(|| KEEP_ALIVE_EVERY.saturating_sub(silence))
    }

    fn wait(&self, demand: Demand) -> Result<[bool; 6], Why> {
        let takes = demand == Demand::More && !self.is_resting;
        let limit = match self.flow.exited && demand == Demand::More {
            true => Duration::ZERO,
            false if self.is_resting => REST,
            false => {
                let left = self.flow.child.deadline().left(Instant::now());
                let watch = (demand == Demand::Wait).then_some(WATCH_EVERY);
                [self.silence(), self.patience(), watch].into_iter().flatten().fold(left, Duration::min)
            }
        };
        let relief = match self.until {
            Until::Relieved(fd) => Some((fd, Interest::Read)),
            Until::Paced | Until::Over => None,
        };
        let watches = [
            Some((self.producer.bell(), Interest::Read)),
            Some((self.stop.fd(Level::Killing), Interest::Read)),
            self.flow.child.stdout_fd().filter(|_| takes).map(|fd| (fd, Interest::Read)),
            self.flow.child.stderr_fd().map(|fd| (fd, Interest::Read)),
            (!self.flow.exited).then(|| (self.flow.child.exited_fd(), Interest::Read)),
            relief,
        ];
        poll::wait(watches, Some(limit)).map_err(|_| Why::Internal)
    }

    fn take(&mut self) -> Result<(), Why> {
        let (child, room) = (&mut self.flow.child, &mut self.piece[self.gathered..]);
        let taken = match self.flow.maker {
            Maker::UploadPack => child.read_stdout(room),
            Maker::PackObjects => framing::read_packets(|room| child.read_stdout(room), room),
        };
        match taken {
            Ok(count) => {
                self.is_resting = count < room.len() / 2;
                if self.gathered == 0 {
                    self.gathering_since = Instant::now();
                }
                self.gathered += count;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Why::Internal),
        }
    }

    fn pass_on_all(&mut self) {
        let (piece, len) = (std::mem::take(&mut self.piece), std::mem::take(&mut self.gathered));
        self.pass_on(&piece[..len]);
        self.piece = piece;
    }

    fn pass_on(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let flow = &mut self.flow;
        if flow.maker == Maker::PackObjects && !flow.has_begun {
            append(self.producer, &mut flow.tracker, framing::SECTION);
        }
        (flow.has_begun, flow.silent_since) = (true, Instant::now());
        append(self.producer, &mut flow.tracker, bytes);
    }
}
