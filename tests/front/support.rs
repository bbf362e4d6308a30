//! A front in this process with a handler that does what the path says, and clients that speak raw bytes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tidegate::http::exchange::{Exchange, Handler};
use tidegate::http::front::Front;
use tidegate::http::limits::FrontLimits;
use tidegate::http::message::{Headers, Response};
use tidegate::http::spool::{Room, Unspooled, check_announced, spool};
use tidegate::http::writer::{PIECE, ResponseWriter, WriteError};
use tidegate::sys::net::{Address, Listener};
use tidegate::sys::poll::{self, Interest};
use tidegate::sys::proxies::TrustedProxies;
use tidegate::sys::space;
use tidegate::sys::stop::{Level, Stop};

/// Beyond this something hangs.
pub(crate) const HANGING: Duration = Duration::from_secs(20);

/// Asks again and again until it is so; panics when it never is.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let stop = Stop::new().unwrap();
    let end = Instant::now() + HANGING;
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        assert!(stop.sleep(Duration::from_millis(5), Level::Killing));
    }
}

/// Lets time pass, for a client that is slow on purpose.
pub(crate) fn pause(time: Duration) {
    assert!(Stop::new().unwrap().sleep(time, Level::Killing));
}

/// What the handler saw and what it waits for.
#[derive(Default)]
pub(crate) struct Scene {
    seen: Mutex<HashMap<String, usize>>,
    errors: Mutex<Vec<String>>,
    writes: Mutex<Vec<Result<(), WriteError>>>,
    gone: Mutex<Vec<Instant>>,
    open: Mutex<bool>,
    opened: Condvar,
}

impl Scene {
    /// How often a path was asked for.
    pub(crate) fn seen(&self, path: &str) -> usize {
        self.seen.lock().unwrap().get(path).copied().unwrap_or(0)
    }

    /// What bodies failed with.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.errors.lock().unwrap().clone()
    }

    /// How large answers ended.
    pub(crate) fn writes(&self) -> Vec<Result<(), WriteError>> {
        self.writes.lock().unwrap().clone()
    }

    /// When `/wait` saw its client go.
    pub(crate) fn gone(&self) -> Vec<Instant> {
        self.gone.lock().unwrap().clone()
    }

    /// Lets `/hang` answer.
    pub(crate) fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn hang(&self) {
        let shut = self.open.lock().unwrap();
        drop(self.opened.wait_timeout_while(shut, HANGING, |open| !*open).unwrap());
    }
}

/// Does what the path says.
struct Actor {
    scene: Arc<Scene>,
    tmp: tempfile::TempDir,
}

impl Handler for Actor {
    fn handle(&self, exchange: &mut Exchange) {
        let path = exchange.request().path.clone();
        *self.scene.seen.lock().unwrap().entry(path.clone()).or_default() += 1;
        let size: u64 = exchange.request().query.as_deref().unwrap_or("0").parse().unwrap();
        let until = Instant::now() + HANGING;
        let none = Headers::new();
        match path.as_str() {
            "/" | "/ignore" => respond(exchange, Response::text(200, "hello")),
            "/echo" => self.echo(exchange),
            "/spool" => self.spool(exchange, size),
            "/peer" => {
                let peer = exchange.request().peer.clone();
                respond(exchange, Response::text(200, &format!("{peer} {}", peer.proxied)));
            }
            "/nothing" => {}
            "/empty" => respond(exchange, Response::new(204)),
            "/split" => respond(exchange, Response::text(200, "hello").with("X-A", "b\r\nX-Smuggled: c")),
            "/panic" => panic!("on purpose"),
            "/panic-after-start" => {
                let _writer = exchange.start(200, &none, None);
                panic!("on purpose, before a byte");
            }
            "/panic-late" => {
                let mut writer = exchange.start(200, &none, None);
                writer.write(b"a part", until).unwrap();
                panic!("on purpose, after some bytes");
            }
            "/unfinished" => {
                let mut writer = exchange.start(200, &none, None);
                writer.write(b"a part", until).unwrap();
            }
            "/short" => self.record(exchange.start(200, &none, Some(10)).finish(until)),
            "/long" => self.record(exchange.start(200, &none, Some(3)).write(b"four", until)),
            "/known" => self.record(pour(exchange.start(200, &none, Some(size)), size)),
            "/chunks" => self.record(pour(exchange.start(200, &none, None), size)),
            "/last-words" => self.last_words(exchange.start(200, &none, None), size),
            "/worker" => {
                let writer = exchange.start(200, &none, None);
                let worker = tidegate::sys::thread::spawn("worker", move || pour(writer, size)).unwrap();
                self.record(worker.join().unwrap());
            }
            "/file" | "/file-in-chunks" => {
                let len = (path == "/file").then_some(size);
                self.record(self.send_file(exchange.start(200, &none, len), size));
            }
            "/wait" => {
                let socket = exchange.socket();
                poll::wait([Some((socket.fd(), Interest::HangUp))], Some(HANGING)).unwrap();
                assert!(socket.is_gone());
                self.scene.gone.lock().unwrap().push(Instant::now());
            }
            "/hang" => {
                self.scene.hang();
                respond(exchange, Response::text(200, "at last"));
            }
            _ => respond(exchange, Response::text(404, "no such path")),
        }
    }
}

impl Actor {
    fn echo(&self, exchange: &mut Exchange) {
        let mut body = Vec::new();
        let mut buffer = [0; 1000];
        loop {
            match exchange.read_body(&mut buffer) {
                Ok(0) => return respond(exchange, Response::new(200).with_body(body)),
                Ok(count) => body.extend_from_slice(&buffer[..count]),
                Err(error) => {
                    self.scene.errors.lock().unwrap().push(error.to_string());
                    return respond(exchange, Response::text(error.status(), &error.to_string()));
                }
            }
        }
    }

    fn spool(&self, exchange: &mut Exchange, limit: u64) {
        if let Err(error) = check_announced(exchange, limit) {
            return respond(exchange, Response::text(error.status(), &error.to_string()));
        }
        let room = Room { tmp: self.tmp.path().to_owned(), floor: 0, free: space::available, budget: None };
        match spool(exchange, &room, limit, limit) {
            Ok(spooled) => {
                let text = format!("{} {}", spooled.wire_len, spooled.len);
                respond(exchange, Response::text(200, &text));
            }
            Err(Unspooled { error, .. }) => {
                respond(exchange, Response::text(error.status(), &error.to_string()))
            }
        }
    }

    /// Writes until a piece is not sent within `millis`, or the stop; and then some last words.
    fn last_words(&self, mut writer: ResponseWriter, millis: u64) {
        let block = pattern(PIECE);
        let limit = Duration::from_millis(millis);
        let ended =
            std::iter::repeat_with(|| writer.write(&block, Instant::now() + limit)).find(Result::is_err);
        self.record(ended.unwrap());
        self.record(writer.last_words(b"the last words", Instant::now() + HANGING));
    }

    /// Sends `size` bytes from the third on of a file that has some more.
    fn send_file(&self, mut writer: ResponseWriter, size: u64) -> Result<(), WriteError> {
        let path = self.tmp.path().join("served");
        std::fs::write(&path, pattern(100_000)).unwrap();
        let until = Instant::now() + HANGING;
        writer.send_file(&File::open(path).unwrap(), 3, size, until)?;
        writer.finish(until)
    }

    fn record(&self, outcome: Result<(), WriteError>) {
        self.scene.writes.lock().unwrap().push(outcome);
    }
}

fn respond(exchange: &mut Exchange, response: Response) {
    // A client that left in the meantime is part of some tests.
    let _ = exchange.respond(&response);
}

fn pour(mut writer: ResponseWriter, size: u64) -> Result<(), WriteError> {
    let until = Instant::now() + HANGING;
    let block = pattern(PIECE);
    let mut left = size;
    while left > 0 {
        let count = usize::try_from(left).unwrap().min(block.len());
        writer.write(&block[..count], until)?;
        left -= count as u64;
    }
    writer.finish(until)
}

/// Bytes that tell their place.
pub(crate) fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| at.to_le_bytes()[usize::from(at % 2 == 0)]).collect()
}

/// A running front.
pub(crate) struct Stage {
    pub(crate) address: SocketAddr,
    pub(crate) scene: Arc<Scene>,
    pub(crate) stop: Stop,
    pub(crate) front: Option<Front>,
}

impl Stage {
    /// A front with the usual limits.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// A front with other limits.
    pub(crate) fn with(adjust: impl FnOnce(&mut FrontLimits)) -> Self {
        let mut limits = FrontLimits::default();
        adjust(&mut limits);
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let Address::Tcp(address) = *listener.address() else { panic!("a tcp listener has a tcp address") };
        let (scene, stop, front) = raise(vec![listener], limits, &[]);
        Self { address, scene, stop, front: Some(front) }
    }

    pub(crate) fn front(&self) -> &Front {
        self.front.as_ref().unwrap()
    }

    pub(crate) fn connect(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(HANGING)).unwrap();
        stream.set_write_timeout(Some(HANGING)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client::over(stream)
    }

    /// Sends `request` on a new connection and answers its first answer.
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect();
        client.send(request);
        client.answer()
    }

    /// That a plain request is answered.
    pub(crate) fn assert_serves(&self) {
        assert_eq!(self.ask(get("/")).status, 200);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.scene.open();
        self.stop.raise(Level::Killing);
        if let Some(front) = self.front.take() {
            let ended = front.join(Instant::now() + HANGING);
            if !std::thread::panicking() {
                assert_eq!(ended.left, 0, "connections are left at the end");
                assert!(ended.fault.is_none(), "{:?}", ended.fault);
            }
        }
    }
}

/// Starts a front on `listeners`.
pub(crate) fn raise(
    listeners: Vec<Listener>,
    limits: FrontLimits,
    proxies: &[&str],
) -> (Arc<Scene>, Stop, Front) {
    let scene = Arc::new(Scene::default());
    let stop = Stop::new().unwrap();
    let actor = Actor { scene: Arc::clone(&scene), tmp: tempfile::tempdir().unwrap() };
    let proxies = TrustedProxies::parse(proxies.iter().copied()).unwrap();
    let front = Front::start(listeners, limits, proxies, Arc::new(actor), stop.clone()).unwrap();
    (scene, stop, front)
}

/// A plain request.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: tide\r\n\r\n")
}

/// A request with a body of known length.
pub(crate) fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: tide\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A request whose body comes in the given chunks.
pub(crate) fn post_chunks(path: &str, chunks: &[&[u8]]) -> Vec<u8> {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nHost: tide\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in chunks {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

/// An answer as a client read it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether the body came to the end that its framing promised.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn has(&self, line: &str) -> bool {
        self.head.lines().any(|it| it.eq_ignore_ascii_case(line))
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A connection and the bytes of it that were not looked at yet.
pub(crate) struct Client<S> {
    pub(crate) stream: S,
    unread: Vec<u8>,
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, unread: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// The next answer.
    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// The next answer, to a request of this method.
    pub(crate) fn answer_to(&mut self, method: &str) -> Answer {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|it| it == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more().unwrap() > 0, "the connection ended in a head: {:?}", self.unread);
        };
        let head: Vec<u8> = self.unread.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new(), whole: true };
        if method != "HEAD" && !matches!(status, 100..200 | 204 | 304) {
            self.body(&mut answer);
        }
        answer
    }

    /// That nothing more comes.
    pub(crate) fn assert_ended(&mut self) {
        match self.more() {
            Ok(0) => assert_eq!(self.unread, b""),
            // A reset is an end too, when we had sent what nobody was to read.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            other => panic!("not the end: {other:?} {:?}", String::from_utf8_lossy(&self.unread)),
        }
    }

    fn body(&mut self, answer: &mut Answer) {
        if let Some(len) = answer.field("content-length") {
            let len = len.parse().unwrap();
            answer.whole = self.take(len, &mut answer.body);
        } else if answer.field("transfer-encoding").is_some() {
            answer.whole = self.chunks(&mut answer.body);
        } else {
            answer.whole = loop {
                match self.more() {
                    Ok(0) => break true,
                    Ok(_) => {}
                    Err(_) => break false,
                }
            };
            answer.body.append(&mut self.unread);
        }
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let end = loop {
                if let Some(at) = self.unread.windows(2).position(|it| it == b"\r\n") {
                    break at;
                }
                if !matches!(self.more(), Ok(1..)) {
                    return false;
                }
            };
            let line: Vec<u8> = self.unread.drain(..end + 2).collect();
            let size = usize::from_str_radix(str::from_utf8(&line[..end]).unwrap(), 16).unwrap();
            let mut crlf = Vec::new();
            if !self.take(size, body) || !self.take(2, &mut crlf) {
                return false;
            }
            assert_eq!(crlf, b"\r\n");
            if size == 0 {
                return true;
            }
        }
    }

    fn take(&mut self, len: usize, out: &mut Vec<u8>) -> bool {
        while self.unread.len() < len {
            if !matches!(self.more(), Ok(1..)) {
                return false;
            }
        }
        out.extend(self.unread.drain(..len));
        true
    }

    fn more(&mut self) -> io::Result<usize> {
        let mut buffer = vec![0; 65_536];
        let count = self.stream.read(&mut buffer)?;
        self.unread.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

/// The resident memory or another number of `/proc/self/status`, in its unit.
pub(crate) fn of_status(path: &Path, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
