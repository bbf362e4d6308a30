//! The far side of a listener: a socket on which the test answers as it likes.

use crate::sys::poll::{self, Interest};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// After this long anything counts as hung.
pub(super) const HANG: Duration = Duration::from_secs(60);

/// Waits until something is so.
#[track_caller]
pub(super) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < HANG, "did not happen: {what}");
        std::thread::yield_now();
    }
}

/// The connections to these that their maker has not closed, as the kernel sees them: field 2 of its table is the near end,
/// 3 the far one, 4 the state, of which 01 is ESTABLISHED and 02 SYN_SENT. While others come and go, one may stand there
/// twice.
pub(super) fn connections(fars: &[Far]) -> usize {
    let written = |far: &Far| match far.address() {
        SocketAddr::V4(at) => format!("{:08X}:{:04X}", u32::from_le_bytes(at.ip().octets()), at.port()),
        SocketAddr::V6(_) => panic!("the table is that of IPv4"),
    };
    let ends: BTreeSet<String> = fars.iter().map(written).collect();
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let open = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_open = fields.len() > 3 && ends.contains(fields[2]) && matches!(fields[3], "01" | "02");
        is_open.then(|| (fields[1].to_owned(), fields[2].to_owned()))
    });
    open.collect::<BTreeSet<_>>().len()
}

/// Somebody who is listened to.
pub(super) struct Far(TcpListener);

/// One connection, of which the request has been read.
pub(super) struct Talk {
    stream: TcpStream,
    pub(super) head: String,
}

impl Far {
    pub(super) fn new() -> Far {
        Far::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub(super) fn at(address: SocketAddr) -> Far {
        Far(TcpListener::bind(address).unwrap())
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Nobody has come who was not accepted.
    pub(super) fn is_unvisited(&self) -> bool {
        !self.has_visitor(Duration::ZERO)
    }

    /// The next one who comes, without his request.
    #[track_caller]
    pub(super) fn meet(&self) -> TcpStream {
        assert!(self.has_visitor(HANG), "nobody comes");
        let (stream, _) = self.0.accept().unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream
    }

    /// The next one who comes.
    #[track_caller]
    pub(super) fn accept(&self) -> Talk {
        let mut stream = self.meet();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        Talk { stream, head: String::from_utf8(head).unwrap() }
    }

    /// Whether anybody comes in time.
    pub(super) fn has_visitor(&self, time: Duration) -> bool {
        poll::wait([Some((self.0.as_fd(), Interest::Read))], Some(time)).unwrap() == [true]
    }

    /// The connections to here that their maker has not closed.
    pub(super) fn connections(&self) -> usize {
        connections(std::slice::from_ref(self))
    }
}

impl Talk {
    /// The value of a field of the request.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Answers with this status and these fields, and closes.
    pub(super) fn answer(mut self, status: &str) {
        self.write(&format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n"));
    }

    /// Begins a stream of events.
    pub(super) fn stream(&mut self) {
        self.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n");
    }

    /// Begins one as the gate does that the events of these tests are of.
    pub(super) fn greet(&mut self) {
        self.stream();
        self.say(&super::hello(&super::incarnation()));
    }

    /// Says something in it.
    pub(super) fn say(&mut self, text: &str) {
        self.write(&format!("{:x}\r\n{text}\r\n", text.len()));
    }

    /// Ends it as it should be ended.
    pub(super) fn end(mut self) {
        self.write("0\r\n\r\n");
    }

    /// Waits until the other side has closed.
    pub(super) fn await_end(mut self) {
        // A reset is an end, too.
        assert!(!matches!(self.stream.read(&mut [0]), Ok(1..)), "the listener speaks");
    }

    fn write(&mut self, text: &str) {
        // Whoever has left already is what some tests are about.
        let _ = self.stream.write_all(text.as_bytes());
    }
}
