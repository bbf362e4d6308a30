//! A TCP connection of which every wait ends: at its limit, and when its stop kills.
//!
//! To whoever reads and writes it blocks, so that TLS and the parser may stand on it; in the kernel it never does.

use crate::sys::poll::{self, Interest};
use crate::sys::stop::{Level, Stop};
use socket2::{Domain, Protocol, SockAddr, Type};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

/// Whoever waits has been stopped: what a wait fails with then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopping;

impl fmt::Display for Stopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopping")
    }
}

impl std::error::Error for Stopping {}

/// Fails once `stop` kills: a server that always has something to say is never waited for.
pub(super) fn heed(stop: &Stop) -> io::Result<()> {
    match stop.level() {
        Level::Killing => Err(io::Error::other(Stopping)),
        Level::Running | Level::Draining => Ok(()),
    }
}

/// The connection.
#[derive(Debug)]
pub(super) struct Line {
    stream: TcpStream,
    stop: Stop,
    /// When whatever is under way has taken too long.
    pub(super) until: Instant,
}

impl Line {
    /// Tries one address after the other; each but the last may take half of the time that is left.
    pub(super) fn connect(addresses: &[IpAddr], port: u16, stop: &Stop, until: Instant) -> io::Result<Self> {
        let mut failed = io::Error::from(ErrorKind::NotFound);
        let mut rest = addresses.iter().peekable();
        while let Some(address) = rest.next() {
            let now = Instant::now();
            let half = now + until.saturating_duration_since(now) / 2;
            let limit = if rest.peek().is_some() { half } else { until };
            match Self::connect_to(SocketAddr::new(*address, port), stop, limit) {
                Ok(line) => return Ok(Self { until, ..line }),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn connect_to(address: SocketAddr, stop: &Stop, until: Instant) -> io::Result<Self> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = socket2::Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        let begun = socket.connect(&SockAddr::from(address));
        let line = Self { stream: TcpStream::from(socket), stop: stop.clone(), until };
        match begun {
            Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {
                line.wait(Interest::Write)?;
                line.stream.take_error()?.map_or(Ok(()), Err)?;
            }
            begun => begun?,
        }
        line.stream.set_nodelay(true)?;
        Ok(line)
    }

    fn wait(&self, interest: Interest) -> io::Result<()> {
        loop {
            heed(&self.stop)?;
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            let end = (self.stop.fd(Level::Killing), Interest::Read);
            let [is_ready, _] = poll::wait([Some((self.stream.as_fd(), interest)), Some(end)], Some(left))?;
            if is_ready {
                return heed(&self.stop);
            }
        }
    }

    /// Does `attempt` as often as it would block.
    fn persist<T>(
        &mut self,
        interest: Interest,
        mut attempt: impl FnMut(&mut TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        heed(&self.stop)?;
        loop {
            match attempt(&mut self.stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(interest)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }
}

impl Read for Line {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.persist(Interest::Read, |stream| stream.read(into))
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.persist(Interest::Write, |stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
