//! From a git to the answer that it makes, for whoever reads it: one loop that sees the end of each of them.

use super::Producer;
use super::production::Demand;
use crate::git::pktline::Tracker;
use crate::supervise::{Child, Outcome, Why};
use crate::sys::poll::{self, Interest};
use crate::sys::stop::{Level, Stop};
use std::io;
use std::time::{Duration, Instant};

/// How much is moved at a time, in bytes: all that the pipe of a child holds.
const STEP: usize = 256 << 10;

/// How a git has made an answer.
#[derive(Debug)]
pub struct Made {
    /// How it ended.
    pub outcome: Outcome,
    /// Where its output stopped.
    pub tracker: Tracker,
}

/// A git that makes an answer, and how far it has come.
#[derive(Debug)]
pub struct Flow {
    child: Child,
    tracker: Tracker,
    /// Whether the leader has been reaped: from then on an empty pipe is the end of the output.
    exited: bool,
}

/// How far a worker has come with it.
#[derive(Debug)]
pub enum Pumped {
    /// To its end.
    Made(Made),
    /// So far that the rest comes at the pace of whoever reads it.
    Paced(Flow),
}

impl Flow {
    /// That of a git that was just started.
    #[must_use]
    pub const fn of(child: Child) -> Self {
        Self { child, tracker: Tracker::new(), exited: false }
    }

    /// Takes what the git writes for as long as nobody has to be waited for.
    #[must_use]
    pub fn pump(self, producer: &Producer, stop: &Stop) -> Pumped {
        self.run(producer, stop, true)
    }

    /// Takes everything that it writes, until it ends or must go: because of its deadline, of a stop, or because nobody is
    /// left who reads.
    #[must_use]
    pub fn pump_all(self, producer: &Producer, stop: &Stop) -> Made {
        match self.run(producer, stop, false) {
            Pumped::Made(made) => made,
            Pumped::Paced(Self { child, tracker, .. }) => Made { outcome: child.end(Why::Internal), tracker },
        }
    }

    fn run(self, producer: &Producer, stop: &Stop, is_unpaced: bool) -> Pumped {
        let mut pump = Pump { flow: self, producer, stop, is_unpaced };
        let ended = pump.run();
        let Flow { child, tracker, exited } = pump.flow;
        let outcome = match ended {
            Ok(Progress::Over) => child.finish(),
            Ok(Progress::Paced) => return Pumped::Paced(Self { child, tracker, exited }),
            Err(why) => child.end(why),
        };
        Pumped::Made(Made { outcome, tracker })
    }
}

/// Why a worker stops who need not.
enum Progress {
    Over,
    Paced,
}

struct Pump<'a> {
    flow: Flow,
    producer: &'a Producer,
    stop: &'a Stop,
    /// Whether it stops where it would have to wait for readers.
    is_unpaced: bool,
}

impl Pump<'_> {
    fn run(&mut self) -> Result<Progress, Why> {
        let mut buffer = vec![0; STEP];
        while !(self.flow.exited && self.flow.child.stdout_fd().is_none()) {
            if self.is_unpaced && !self.producer.is_filed() {
                return Ok(Progress::Paced);
            }
            let demand = self.producer.demand();
            if demand == Demand::Abandoned {
                return Err(Why::ClientGone);
            }
            let [bell, killing, output, words, exit] = self.wait(demand)?;
            if bell {
                self.producer.hush();
            }
            if killing {
                return Err(Why::Stopping);
            } else if self.flow.child.deadline().has_passed(Instant::now()) {
                return Err(Why::Deadline);
            }
            self.flow.exited |= exit;
            if words {
                self.flow.child.drain_stderr();
            }
            if demand == Demand::More && (output || self.flow.exited) {
                self.take(&mut buffer)?;
            }
        }
        Ok(Progress::Over)
    }

    fn wait(&self, demand: Demand) -> Result<[bool; 5], Why> {
        let takes = demand == Demand::More;
        let limit = match self.flow.exited && takes {
            true => Duration::ZERO,
            false => self.flow.child.deadline().left(Instant::now()),
        };
        let watches = [
            Some((self.producer.bell(), Interest::Read)),
            Some((self.stop.fd(Level::Killing), Interest::Read)),
            self.flow.child.stdout_fd().filter(|_| takes).map(|fd| (fd, Interest::Read)),
            self.flow.child.stderr_fd().map(|fd| (fd, Interest::Read)),
            (!self.flow.exited).then(|| (self.flow.child.exited_fd(), Interest::Read)),
        ];
        poll::wait(watches, Some(limit)).map_err(|_| Why::Internal)
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<(), Why> {
        match self.flow.child.read_stdout(buffer) {
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                self.flow.tracker.feed(bytes);
                self.producer.append(bytes);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Why::Internal),
        }
    }
}
