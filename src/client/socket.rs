//! A connection to another server, whose waits end with the gate.
//!
//! This is the plain part of it, on which ureq puts TLS and HTTP; ureq's own blocks in the kernel until its timeout. Here
//! every wait is for the socket, the limit that ureq sets, and [`Level::Killing`], whichever comes first.
//!
//! A server may answer before it has read the whole request, and close: 401, 413, a full disk. What it said then counts,
//! and not that the rest could not be sent. So the rest is dropped silently, and reading finds the answer or the fault.

use super::proxy::{self, Forwarding};
use crate::model::route::{Proxy, Reach, Route};
use crate::sys::poll::{self, Interest};
use crate::sys::stop::{Level, Stop};
use socket2::{Domain, Protocol, SockAddr, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

/// What an answer begins with, up to the first digit of its status.
const STATUS_LINE: usize = "HTTP/1.1 2".len();

/// Makes connections until the gate stops.
#[derive(Debug)]
pub(super) struct SocketConnector {
    stop: Stop,
    proxy: Option<Proxy>,
    reach: Reach,
}

impl SocketConnector {
    /// Connections on the way `route` that end when `stop` kills, to servers or to the proxy that passes everything on.
    pub(super) fn new(stop: Stop, route: &Route) -> Self {
        Self { stop, proxy: route.proxy.clone(), reach: route.reach }
    }
}

impl Connector for SocketConnector {
    type Out = Socket;

    /// Tries one address after the other; each but the last may take half of the time that is left. They are the proxy's
    /// where there is one. One that the way does not lead to is passed over.
    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Socket>, Error> {
        let limit = Limit::of(details.timeout)?;
        let mut line = self.reach(details, &limit)?;
        let forwarding = match &self.proxy {
            Some(proxy) if details.needs_tls() => {
                proxy::open_tunnel(&mut line, proxy, details.uri, &limit)?;
                None
            }
            Some(proxy) => Some(Forwarding::by(proxy, details.uri)?),
            None => None,
        };
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Socket { line, buffers, forwarding }))
    }
}

impl SocketConnector {
    fn reach(&self, details: &ConnectionDetails<'_>, limit: &Limit) -> Result<Line, Error> {
        let mut failed = Error::HostNotFound;
        let mut addresses = details.addrs.iter().peekable();
        while let Some(address) = addresses.next() {
            let limit = if addresses.peek().is_some() { &limit.halved() } else { limit };
            match self.try_address(*address, !details.needs_tls(), limit) {
                Ok(line) => return Ok(line),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn try_address(&self, address: SocketAddr, is_plain: bool, limit: &Limit) -> Result<Line, Error> {
        if let Some(why) = self.reach.refusal(address.ip()) {
            return Err(io::Error::new(ErrorKind::PermissionDenied, why).into());
        }
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = socket2::Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        let begun = socket.connect(&SockAddr::from(address));
        let (stream, stop) = (TcpStream::from(socket), self.stop.clone());
        let line = Line { stream, stop, is_plain, may_be_answered: true, is_over: false };
        match begun {
            Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {
                line.wait(&[Interest::Write], limit)?;
                line.stream.take_error()?.map_or(Ok(()), Err)?;
            }
            begun => begun?,
        }
        line.stream.set_nodelay(true)?;
        Ok(line)
    }
}

/// Until when a step may take, and what ureq calls that.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    until: Option<Instant>,
    reason: ureq::Timeout,
}

impl Limit {
    fn of(timeout: NextTimeout) -> Result<Self, Error> {
        if timeout.after.is_zero() {
            return Err(Error::Timeout(timeout.reason));
        }
        let until = timeout.not_zero().and_then(|after| Instant::now().checked_add(*after));
        Ok(Self { until, reason: timeout.reason })
    }

    fn halved(self) -> Self {
        let now = Instant::now();
        Self { until: self.until.map(|until| now + until.saturating_duration_since(now) / 2), ..self }
    }

    /// What is left of it.
    fn left(&self) -> Result<Option<Duration>, Error> {
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) { Err(Error::Timeout(self.reason)) } else { Ok(left) }
    }
}

/// A connection without TLS, or what TLS runs over.
#[derive(Debug)]
pub(super) struct Socket {
    line: Line,
    buffers: LazyBuffers,
    /// What a proxy wants to be told, where there is one and no tunnel through it.
    forwarding: Option<Forwarding>,
}

/// The connection itself.
#[derive(Debug)]
pub(super) struct Line {
    stream: TcpStream,
    stop: Stop,
    is_plain: bool,
    /// Whether what can be read during a request may be an answer that ends it.
    may_be_answered: bool,
    /// Nothing more is sent: the other side has answered, or has gone.
    is_over: bool,
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let limit = Limit::of(timeout.for_write())?;
        let bytes = &self.buffers.output()[..amount];
        match self.forwarding.as_mut().and_then(|forwarding| forwarding.amend(bytes)) {
            Some(amended) => self.line.send(&amended, &limit),
            None => self.line.send(bytes, &limit),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let limit = Limit::of(timeout.for_read())?;
        let more = self.line.receive(self.buffers.input_append_buf(), &limit)?;
        self.buffers.input_appended(more);
        if more > 0 {
            self.forwarding.iter_mut().for_each(Forwarding::answered);
        }
        Ok(more > 0)
    }

    /// Nothing to read is what an idle connection has.
    fn is_open(&mut self) -> bool {
        let is_idle =
            matches!(self.line.stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        is_idle && !self.line.is_over
    }
}

impl Line {
    /// Sends all of it, unless the other side has answered or gone.
    pub(super) fn send(&mut self, bytes: &[u8], limit: &Limit) -> Result<(), Error> {
        let mut sent = 0;
        while sent < bytes.len() && !self.is_over {
            self.heed_stop()?;
            match self.stream.write(&bytes[sent..]) {
                Ok(more) => sent += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait_for_room(limit)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_break(&error) => self.is_over = true,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for something to read, and answers how much that is; nothing at the end.
    pub(super) fn receive(&mut self, into: &mut [u8], limit: &Limit) -> Result<usize, Error> {
        loop {
            self.heed_stop()?;
            match self.stream.read(into) {
                Ok(more) => {
                    self.may_be_answered = true;
                    return Ok(more);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.wait(&[Interest::Read], limit)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until more can be sent, or need not be because the server has refused the request. TLS has more to say than
    /// answers, so there only a close tells.
    fn wait_for_room(&mut self, limit: &Limit) -> Result<(), Error> {
        if !self.is_plain || !self.may_be_answered {
            return self.wait(&[Interest::Write], limit);
        }
        self.wait(&[Interest::Write, Interest::Read], limit)?;
        let mut start = [0; STATUS_LINE];
        match self.stream.peek(&mut start) {
            Ok(STATUS_LINE) if !matches!(start[STATUS_LINE - 1], b'1' | b'2') => self.is_over = true,
            Ok(0) => self.is_over = true,
            // What begins like success may be the progress of what has been sent so far.
            Ok(_) => self.may_be_answered = false,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.is_over = true,
        }
        Ok(())
    }

    /// Waits for any of these, and fails at the limit and when the gate stops.
    fn wait(&self, interests: &[Interest], limit: &Limit) -> Result<(), Error> {
        let own = interests.iter().map(|interest| Some((self.stream.as_fd(), *interest)));
        let end = Some((self.stop.fd(Level::Killing), Interest::Read));
        let watches: Vec<poll::Watch<'_>> = own.chain([end]).collect();
        let mut ready = vec![false; watches.len()];
        loop {
            let left = limit.left()?;
            poll::wait_for_any(&watches, &mut ready, left)?;
            self.heed_stop()?;
            if ready.contains(&true) {
                return Ok(());
            }
        }
    }

    /// Fails when the gate stops: a server that always has something to say, or room for more, is never waited for.
    fn heed_stop(&self) -> Result<(), Error> {
        match self.stop.level() {
            Level::Killing => Err(io::Error::other("the gate is stopping").into()),
            Level::Running | Level::Draining => Ok(()),
        }
    }
}

/// Whether the other side reads no more.
fn is_break(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted)
}
