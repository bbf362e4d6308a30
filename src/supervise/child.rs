//! A running child: its pipes, its deadline, and the two ways to its end.

use super::job::{Guard, Job, Phase};
use super::jobs::Jobs;
use super::orphans::{Ending, Orphans, TICK};
use super::outcome::{Deadline, Exit, Outcome, Usage, Why};
use super::silence::Silence;
use super::tail::Tail;
use crate::sys::poll::{self, Interest, Watch};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::c_int;
use nix::unistd::read;
use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long after SIGKILL a group may take to be gone. One in uninterruptible sleep takes for ever: its worker is freed,
/// what it holds stays locked, and the gate says so.
pub const KILL_CAP: Duration = Duration::from_secs(5);

/// How much the pipe from stdout may hold, in bytes: as much as anybody may ask the kernel for. Whoever reads it leaves it
/// alone for a millisecond at times, in which a git that only copies what is packed writes 350 KiB.
const STDOUT_PIPE: c_int = 1024 * 1024;

/// How much is read from a pipe at a time: all that an ordinary one holds, in bytes.
const CHUNK: usize = 64 * 1024;

/// A process group that we started. Its owner reads its pipes and then calls [`Child::finish`], [`Child::end`],
/// [`Child::collect`] or [`Child::stream`]; each comes back when the group is empty. Dropping it does [`Child::end`]
/// inline, so nothing outlives its owner, not even one that panics; that takes up to grace + [`KILL_CAP`].
///
/// Both pipes are non-blocking and ours are closed with the child. Wait with `poll` for `stdout_fd`, `stderr_fd` and
/// `exited_fd` together: a child can close its stdout and stay, exit and leave its stdout open in a descendant, or block
/// on a full stderr.
#[derive(Debug)]
pub struct Child {
    jobs: Arc<Jobs>,
    orphans: Arc<Orphans>,
    job: Arc<Job>,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    tail: Tail,
    listener: Listener,
    grace: Duration,
    held: Held,
    silence: Option<Silence>,
    /// The limit that has passed, where that was not its deadline.
    passed: Option<Deadline>,
    /// Why the owner ended it, also when it had exited by then and could not be told any more.
    verdict: Option<Why>,
    is_over: bool,
}

/// What hears the words of a child on its standard error as it says them, in the pieces in which they are drained.
pub type Ear = Box<dyn FnMut(&[u8]) + Send>;

/// Who listens to a child, if anybody does.
#[derive(Default)]
struct Listener(Option<Ear>);

/// What is held until the group is empty.
#[derive(Default)]
struct Held(Vec<Guard>);

impl Child {
    pub(super) fn new(
        jobs: Arc<Jobs>,
        orphans: Arc<Orphans>,
        job: Arc<Job>,
        process: process::Child,
        grace: Duration,
    ) -> Self {
        // What is left of std's handle is dropped here: it neither waits nor kills.
        let process::Child { stdin, stdout, stderr, .. } = process;
        Self {
            jobs,
            orphans,
            job,
            stdin: stdin.map(OwnedFd::from),
            stdout: stdout.map(OwnedFd::from),
            stderr: stderr.map(OwnedFd::from),
            tail: Tail::default(),
            listener: Listener::default(),
            grace,
            held: Held::default(),
            silence: None,
            passed: None,
            verdict: None,
            is_over: false,
        }
    }

    /// Makes our ends of the pipes non-blocking; the child's ends are other descriptions and stay as they are.
    pub(super) fn prepare_pipes(&self) -> io::Result<()> {
        for pipe in [&self.stdin, &self.stdout, &self.stderr].into_iter().flatten() {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        if let Some(stdout) = &self.stdout {
            // A user with many pipes is refused more room (pipe-user-pages-soft), and gets along with less.
            let _ = fcntl(stdout, FcntlArg::F_SETPIPE_SZ(STDOUT_PIPE));
        }
        Ok(())
    }

    /// The leader of the group, for people and logs; signals go through this type.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.job.pid.as_raw()
    }

    /// The deadline it runs under.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        self.job.deadline
    }

    /// The pipe from its standard output; `None` once that has ended.
    #[must_use]
    pub fn stdout_fd(&self) -> Option<BorrowedFd<'_>> {
        self.stdout.as_ref().map(AsFd::as_fd)
    }

    /// The pipe from its standard error; `None` once that has ended. Readable means: call [`Child::drain_stderr`].
    #[must_use]
    pub fn stderr_fd(&self) -> Option<BorrowedFd<'_>> {
        self.stderr.as_ref().map(AsFd::as_fd)
    }

    /// Readable, for good, once the leader has been reaped. Never read from it.
    #[must_use]
    pub fn exited_fd(&self) -> BorrowedFd<'_> {
        self.job.exited_fd()
    }

    /// The non-blocking pipe to its standard input, of a [`Spec`](super::Spec) with [`Input::Pipe`](super::Input::Pipe).
    /// The caller closes it; left here it is closed with the child.
    pub fn take_stdin(&mut self) -> Option<OwnedFd> {
        self.stdin.take()
    }

    /// Reads what its standard output holds; 0 at the end.
    ///
    /// An empty pipe is the end too once the leader has been reaped: all that it wrote has been read, and what is left of
    /// its group has been killed, whoever still holds the pipe.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is nothing yet.
    pub fn read_stdout(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Asked before the read: what the leader wrote before its exit is in the pipe by then.
        let has_exited = self.job.has_exited();
        let Some(stdout) = &self.stdout else { return Ok(0) };
        match read_some(stdout, buffer) {
            Err(Errno::EAGAIN) if !has_exited => Err(Errno::EAGAIN.into()),
            Err(Errno::EAGAIN) | Ok(0) => {
                self.stdout = None;
                Ok(0)
            }
            answer => Ok(answer?),
        }
    }

    /// Reads what its standard error holds, at most 64 KiB, and keeps the end of it for the outcome. A child whose
    /// stderr is not drained blocks.
    pub fn drain_stderr(&mut self) {
        let mut buffer = [0; CHUNK / 8];
        for _ in 0..8 {
            let Some(stderr) = &self.stderr else { return };
            match read_some(stderr, &mut buffer) {
                Ok(0) => self.stderr = None,
                Ok(length) => {
                    self.listener.0.iter_mut().for_each(|hear| hear(&buffer[..length]));
                    self.tail.push(&buffer[..length]);
                    self.silence.iter_mut().for_each(|silence| silence.hear(Instant::now()));
                }
                Err(_) => return,
            }
        }
    }

    /// Lets `ear` hear all that it says from now on.
    pub fn listen(&mut self, ear: Ear) {
        self.listener.0 = Some(ear);
    }

    /// Keeps `guard` until the group is known to be empty, and drops it then, before the outcome is handed out. Of a
    /// leaked group it stays locked up until the group has gone after all, which the orphan pass finds out.
    ///
    /// An owner that cleans up behind the group holds a clone of its own until that is done.
    pub fn hold(&mut self, guard: Box<dyn Any + Send>) {
        self.held.0.push(guard);
    }

    /// Ends it as by its deadline, while [`Child::stream`] or [`Child::collect`] runs it, when its standard error is silent
    /// for `limit`, unless `has_begun` says by then that its work shows: from there on it may be silent. `name` is what
    /// people are told has passed.
    pub fn limit_silence(
        &mut self,
        limit: Duration,
        name: &'static str,
        has_begun: impl Fn() -> bool + Send + 'static,
    ) {
        self.silence = Some(Silence::starting(Instant::now(), limit, name, Box::new(has_begun)));
    }

    /// Waits for a child that has ended its work: for its exit, at most until the deadline, and for its group. What it
    /// still writes to stdout is thrown away. Past the deadline this is [`Child::end`].
    #[must_use]
    pub fn finish(mut self) -> Outcome {
        let is_gone = if self.wait_for_exit() {
            // The stop may have told it to go, and then what is left of it has its grace, too.
            let grace = if self.job.phase() == Phase::Asked { self.grace } else { Duration::ZERO };
            self.settle(grace, self.job.ended().is_some())
        } else {
            self.end_group(Why::Deadline)
        };
        self.conclude(is_gone)
    }

    /// Ends the child and everything that it started, also what left its group: SIGTERM, its grace, SIGKILL. Comes back as
    /// soon as all is gone, or [`KILL_CAP`] after the SIGKILL with an outcome that says `leaked`.
    #[must_use]
    pub fn end(mut self, why: Why) -> Outcome {
        let is_gone = self.end_group(why);
        self.conclude(is_gone)
    }

    /// Runs a helper to its end and answers all that it wrote to stdout, at most `limit` bytes. With `gone`, the socket of a
    /// client, it is ended when the client leaves.
    #[must_use]
    pub fn collect(self, limit: usize, gone: Option<BorrowedFd<'_>>) -> (Outcome, Vec<u8>) {
        let mut output = Vec::new();
        let outcome = self.stream(gone, |bytes| {
            let fits = output.len() + bytes.len() <= limit;
            if fits {
                output.extend_from_slice(bytes);
            }
            if fits { Ok(()) } else { Err(Why::Overflow) }
        });
        (outcome, output)
    }

    /// Runs a helper to its end and hands what it writes to stdout to `sink`, which ends it by answering why. With `gone`,
    /// the socket of a client, it is ended when the client leaves.
    #[must_use]
    pub fn stream(
        mut self,
        gone: Option<BorrowedFd<'_>>,
        sink: impl FnMut(&[u8]) -> Result<(), Why>,
    ) -> Outcome {
        match self.read_all(gone.map(|fd| ((fd, Interest::HangUp), Why::ClientGone)), sink) {
            Ok(()) => self.finish(),
            Err(why) => self.end(why),
        }
    }

    /// Runs a helper to its end whose output nobody needs, unless `wanted` becomes readable before: then it is ended.
    #[must_use]
    pub fn give_way(mut self, wanted: BorrowedFd<'_>) -> Outcome {
        match self.read_all(Some(((wanted, Interest::Read), Why::GaveWay)), |_| Ok(())) {
            Ok(()) => self.finish(),
            Err(why) => self.end(why),
        }
    }

    /// `leave` is what to look at meanwhile, and why to end when it comes.
    fn read_all(
        &mut self,
        leave: Option<((BorrowedFd<'_>, Interest), Why)>,
        mut sink: impl FnMut(&[u8]) -> Result<(), Why>,
    ) -> Result<(), Why> {
        let mut buffer = vec![0; CHUNK];
        loop {
            match self.read_stdout(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => sink(&buffer[..length])?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_for_output(leave)?,
                Err(_) => return Err(Why::Internal),
            }
        }
    }

    fn wait_for_output(&mut self, leave: Option<((BorrowedFd<'_>, Interest), Why)>) -> Result<(), Why> {
        let now = Instant::now();
        self.look_for_signs(now)?;
        let silent = self.silence.as_ref().map(|silence| silence.until().left(now));
        let left = self.job.deadline.left(now).min(silent.unwrap_or(Duration::MAX));
        if left.is_zero() {
            return Err(Why::Deadline);
        }
        let (watch, why): (Watch<'_>, _) = leave.unzip();
        let [is_over, ..] =
            poll::wait([watch, self.exit(), readable(&self.stdout), readable(&self.stderr)], Some(left))
                .map_err(|_| Why::Internal)?;
        self.drain_stderr();
        why.filter(|_| is_over).map_or(Ok(()), Err)
    }

    fn look_for_signs(&mut self, now: Instant) -> Result<(), Why> {
        let Some(silence) = self.silence.take_if(|silence| silence.until().has_passed(now)) else {
            return Ok(());
        };
        if silence.is_over() {
            return Ok(());
        }
        self.passed = Some(silence.until());
        Err(Why::Deadline)
    }

    /// Answers whether the leader was reaped before the deadline.
    fn wait_for_exit(&mut self) -> bool {
        let mut discarded = vec![0; CHUNK];
        while !self.job.has_exited() {
            let left = self.job.deadline.left(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.wait_for_pipes(left);
            // Whatever the answer, the next turn waits for more or for the exit.
            let _ = self.read_stdout(&mut discarded);
        }
        true
    }

    /// Tells the group to go and sees to it. Closing our ends first gives a child that reads an end, and one that writes
    /// a SIGPIPE, each of which ends an honest git as well as the signal does.
    fn end_group(&mut self, why: Why) -> bool {
        self.stdin = None;
        self.stdout = None;
        self.verdict = Some(why);
        self.jobs.ask(&self.job, why);
        self.settle(self.grace, true)
    }

    /// Waits until the group is empty and, with `hunts`, nothing of the job lives outside of it either; kills what is
    /// there after `grace`. Answers whether all is gone.
    fn settle(&mut self, grace: Duration, hunts: bool) -> bool {
        let mut ending = Ending::new(Instant::now() + grace, KILL_CAP);
        loop {
            let (reaps, now) = (self.jobs.reaps.count(), Instant::now());
            let is_gone = self.jobs.is_gone(&self.job);
            if is_gone && !hunts {
                return true;
            }
            let escapees = self.orphans.of_job(&self.job);
            if is_gone && escapees.is_empty() {
                return true;
            }
            if ending.is_killing(now) {
                self.jobs.kill(&self.job);
            }
            ending.press(&self.orphans, &escapees, now);
            let Some(step) = ending.step(now) else { return false };
            self.pause(reaps, step);
        }
    }

    /// Waits for news of the end, `step` at most: for the leader's exit, and after it for any reap.
    fn pause(&mut self, reaps: u64, step: Duration) {
        if self.job.has_exited() {
            self.jobs.reaps.wait_after(reaps, step.min(TICK));
        }
        let until = Instant::now() + step;
        while !self.job.has_exited() && Instant::now() < until {
            self.wait_for_pipes(until.saturating_duration_since(Instant::now()));
        }
    }

    /// Waits for the exit and for output on either pipe, and drains stderr.
    fn wait_for_pipes(&mut self, limit: Duration) {
        let watches = [self.exit(), readable(&self.stdout), readable(&self.stderr)];
        if poll::wait(watches, Some(limit)).is_err() {
            // The kernel is out of memory for the moment: look again in a tick.
            self.jobs.reaps.wait_after(self.jobs.reaps.count(), TICK.min(limit));
        }
        self.drain_stderr();
    }

    fn exit(&self) -> Watch<'_> {
        Some((self.job.exited_fd(), Interest::Read))
    }

    fn conclude(&mut self, is_gone: bool) -> Outcome {
        self.is_over = true;
        // All who could write are dead, so what they had to say is in the pipe.
        self.drain_stderr();
        let held = std::mem::take(&mut self.held.0);
        if is_gone {
            self.jobs.forget(&self.job);
            drop(held);
        } else {
            self.jobs.leak(&self.job, held);
        }
        let (exit, usage) = self.job.left().unwrap_or((Exit::Stuck, Usage::default()));
        Outcome {
            exit,
            ended: self.job.ended().or(self.verdict),
            deadline: self.passed.unwrap_or(self.job.deadline),
            leaked: !is_gone,
            usage,
            wall: self.job.started.elapsed(),
            stderr: self.tail.show(),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.is_over {
            let is_gone = self.end_group(Why::Internal);
            let outcome = self.conclude(is_gone);
            log::debug!("{} was dropped by its owner: {outcome}", self.job.what);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} listening", self.0.iter().count())
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} held", self.0.len())
    }
}

fn readable(pipe: &Option<OwnedFd>) -> Watch<'_> {
    pipe.as_ref().map(|fd| (fd.as_fd(), Interest::Read))
}

fn read_some(pipe: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match read(pipe, buffer) {
            Err(Errno::EINTR) => {}
            answer => return answer,
        }
    }
}
