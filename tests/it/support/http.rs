//! HTTP by hand over one socket: what a stock client cannot be made to send, and what it does not show.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::HANG;
use super::place::token_of;

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its status code.
    pub(crate) status: u16,
    /// Its header fields, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// Its content, framing removed.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The first header `name` (lower case).
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The content as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The content as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// Fails the test unless the status is `status`.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{:?}\n{}", self.headers, self.text());
        self
    }

    /// Fails the test unless the content contains `words`.
    #[track_caller]
    pub(crate) fn says(self, words: &str) -> Answer {
        assert!(self.text().contains(words), "{} without `{words}`: {}", self.status, self.text());
        self
    }

    /// Whether the answer refuses: a status of 4xx, or git's own `ERR` packet.
    pub(crate) fn refuses(&self) -> bool {
        (400..500).contains(&self.status) || self.text().contains("ERR ")
    }
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One connection.
pub(crate) struct Wire {
    socket: Socket,
    ahead: Vec<u8>,
}

impl Wire {
    /// Connects to `address`.
    #[track_caller]
    pub(crate) fn tcp(address: SocketAddr) -> Wire {
        Wire::try_tcp(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    /// Connects to `address`, or says why not.
    pub(crate) fn try_tcp(address: SocketAddr) -> io::Result<Wire> {
        TcpStream::connect_timeout(&address, HANG).map(Wire::of)
    }

    /// Over a connection that is there.
    #[track_caller]
    pub(crate) fn of(stream: TcpStream) -> Wire {
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_write_timeout(Some(HANG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire { socket: Socket::Tcp(stream), ahead: Vec::new() }
    }

    /// Connects to the unix socket `path`.
    #[track_caller]
    pub(crate) fn unix(path: &Path) -> Wire {
        let stream = UnixStream::connect(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        stream.set_read_timeout(Some(HANG)).unwrap();
        Wire { socket: Socket::Unix(stream), ahead: Vec::new() }
    }

    /// Sends `bytes`; an error means that the other side has closed.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.write_all(bytes),
            Socket::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// Sends `bytes`.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).unwrap();
    }

    /// Sends a whole request and reads the answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send(request(method, path, headers, body));
        self.answer()
    }

    /// `GET path`.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, headers, b"")
    }

    /// `POST` to one of git's services.
    #[track_caller]
    pub(crate) fn post(
        &mut self,
        repo: &str,
        service: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.send(post(repo, service, headers, body));
        self.answer()
    }

    /// Reads one answer; fails the test when there is none.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    /// Reads one answer.
    pub(crate) fn try_answer(&mut self) -> io::Result<Answer> {
        let (status, headers) = self.head()?;
        let mut answer = Answer { status, headers, body: Vec::new() };
        answer.body = match (answer.header("transfer-encoding"), answer.header("content-length")) {
            _ if status == 204 || status == 304 || status < 200 => Vec::new(),
            (Some(_), _) => self.chunks()?,
            (None, Some(length)) => self.exactly(length.parse().map_err(io::Error::other)?)?,
            (None, None) => self.rest()?,
        };
        Ok(answer)
    }

    /// Reads an answer that is cut off: what came of its content before the end of the connection, which is no reset.
    #[track_caller]
    pub(crate) fn cut_answer(&mut self) -> Answer {
        let (status, headers) = self.head().unwrap();
        let mut answer = Answer { status, headers, body: Vec::new() };
        let length = answer.header("content-length").map(|length| length.parse().unwrap());
        let end = loop {
            let piece = match length {
                Some(length) => self.exactly(length).map(|_| Vec::new()),
                None => self.chunk(),
            };
            match piece {
                Ok(piece) if piece.is_empty() => panic!("the answer is whole for HTTP"),
                Ok(piece) => answer.body.extend(piece),
                Err(error) => break error,
            }
        };
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof, "{end}");
        answer.body.append(&mut self.ahead);
        answer
    }

    /// Reads a status line and header fields.
    pub(crate) fn head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let status = self.text_line()?;
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let code = code.ok_or_else(|| io::Error::other(format!("not a status line: {status:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.text_line()?;
            let Some((name, value)) = line.split_once(':') else { return Ok((code, headers)) };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Reads what is there, at least one byte, as it is on the wire.
    pub(crate) fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.ahead.is_empty() {
            self.more()?;
        }
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Whether the other side has closed: waits for its end of stream and drops what comes before it.
    #[track_caller]
    pub(crate) fn await_close(&mut self) {
        let ended = self.rest();
        let timed_out = ended
            .as_ref()
            .is_err_and(|error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
        assert!(!timed_out, "the connection is still open after {HANG:?}");
    }

    /// Whether there is something to read by now: an answer, an end or a reset. Does not wait.
    pub(crate) fn has_input_or_end(&mut self) -> bool {
        let Socket::Tcp(stream) = &self.socket else { return false };
        stream.set_nonblocking(true).unwrap();
        let found = stream.peek(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        !found.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Reads until the other side closes.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Takes in `bytes` or more, framing included, for what is read next to begin with.
    #[track_caller]
    pub(crate) fn take_in(&mut self, bytes: usize) {
        while self.ahead.len() < bytes {
            self.more().unwrap();
        }
    }

    /// Takes in 4 KiB now and then while `goes_on`, for [`Wire::answer`] to begin with.
    pub(crate) fn trickle(&mut self, pause: std::time::Duration, goes_on: impl Fn() -> bool) {
        while goes_on() && self.fill_up_to(4096).is_ok_and(|count| count > 0) {
            super::pass(pause);
        }
    }

    /// Says that nothing more will be sent.
    pub(crate) fn half_close(&self) {
        let _ = match &self.socket {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Ends the connection with a reset instead of an orderly close.
    pub(crate) fn reset(self) {
        if let Socket::Tcp(stream) = &self.socket {
            socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        }
    }

    /// Asks the kernel for a receive buffer of `bytes`: with a small one the other side soon cannot write.
    pub(crate) fn receive_buffer(&self, bytes: usize) {
        if let Socket::Tcp(stream) = &self.socket {
            socket2::SockRef::from(stream).set_recv_buffer_size(bytes).unwrap();
        }
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            match self.chunk()? {
                chunk if chunk.is_empty() => return Ok(body),
                chunk => body.extend(chunk),
            }
        }
    }

    /// Reads one chunk of a body; an empty one is its end.
    pub(crate) fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.text_line()?;
        let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        let chunk = self.exactly(length)?;
        if !self.text_line()?.is_empty() {
            return Err(io::Error::other("a chunk without its line end"));
        }
        Ok(chunk)
    }

    fn text_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.ahead[..end]).into_owned();
                self.ahead.drain(..end + 2);
                return Ok(line);
            }
            self.more()?;
        }
    }

    fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < length {
            self.more()?;
        }
        Ok(self.ahead.drain(..length).collect())
    }

    fn more(&mut self) -> io::Result<()> {
        match self.fill()? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        self.fill_up_to(1 << 16)
    }

    fn fill_up_to(&mut self, most: usize) -> io::Result<usize> {
        let mut buffer = vec![0; most];
        loop {
            let read = match &mut self.socket {
                Socket::Tcp(stream) => stream.read(&mut buffer),
                Socket::Unix(stream) => stream.read(&mut buffer),
            };
            // A read with a time limit is not begun anew by the kernel after a signal (signal(7)).
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(read) => {
                    self.ahead.extend_from_slice(&buffer[..read]);
                    return Ok(read);
                }
            }
        }
    }
}

/// A request with its `Content-Length`, unless `headers` frame it otherwise or there is no body.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let framed = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"));
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: gate.test\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !framed && method != "GET" {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

/// A `POST` to service `service` (as `git-upload-pack`) of `repo`, with the content type that git gives it.
pub(crate) fn post(repo: &str, service: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let kind = format!("application/x-{service}-request");
    let headers = [&[("Content-Type", kind.as_str())], headers].concat();
    request("POST", &format!("/{repo}/{service}"), &headers, body)
}

/// `bytes` in chunks of `size`.
pub(crate) fn chunked(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for chunk in bytes.chunks(size) {
        body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

/// `bytes` as a gzip member.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The value of `Authorization` for `user` and the token that the tests gave it.
pub(crate) fn basic(user: &str) -> String {
    basic_with(user, &token_of(user))
}

/// The value of `Authorization` for `user` and `password`.
pub(crate) fn basic_with(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}
