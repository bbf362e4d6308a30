//! A server that takes what webhooks post, as each test wants it to: the far side, and no part of the gate.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::port::Port;
use crate::support::{HANG, obtain, pass};

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    /// Its first line.
    pub(super) line: String,
    /// Its fields, names in lower case.
    pub(super) fields: BTreeMap<String, String>,
    /// Its content.
    pub(super) body: String,
    /// When all of it was there.
    pub(super) at: Instant,
    /// What it was answered.
    pub(super) reply: Reply,
}

impl Letter {
    /// A field that must be there.
    #[track_caller]
    pub(super) fn field(&self, name: &str) -> &str {
        self.fields.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// What is said of the event.
    #[track_caller]
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Whether the event was taken.
    pub(super) fn is_taken(&self) -> bool {
        matches!(
            self.reply,
            Reply::Status(200..=299) | Reply::Fields(200..=299, _) | Reply::Long | Reply::Drip
        )
    }
}

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// With this status and an empty body.
    Status(u16),
    /// With these lines of fields beside.
    Fields(u16, &'static str),
    /// Never; the connection stays.
    Silence,
    /// With 200 and 1 MiB.
    Long,
    /// With 200 and a body that never ends, a byte each 50 ms.
    Drip,
    /// With a head that never ends, a byte each 50 ms.
    DripHead,
    /// Not: the connection is closed.
    Close,
}

type Manner = dyn Fn(&Letter, usize) -> Reply + Send + Sync;

/// A running receiver.
pub(super) struct Receiver {
    port: Port,
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Shared {
    letters: Mutex<Vec<Letter>>,
    manner: Mutex<Arc<Manner>>,
    connections: AtomicUsize,
    is_over: AtomicBool,
}

impl Receiver {
    /// Takes everything.
    pub(super) fn start() -> Receiver {
        let port = Port::reserve();
        let listener = TcpListener::bind(port.address).unwrap();
        let shared = Arc::new(Shared {
            letters: Mutex::default(),
            manner: Mutex::new(Arc::new(|_, _| Reply::Status(204))),
            connections: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if own.is_over.load(Ordering::Acquire) {
                    return;
                }
                own.connections.fetch_add(1, Ordering::AcqRel);
                let own = Arc::clone(&own);
                thread::spawn(move || own.converse(stream));
            }
        });
        Receiver { port, shared, thread: Some(thread) }
    }

    /// Answers as `manner` says from now on, which is given the letter and how many came before it.
    pub(super) fn answer(&self, manner: impl Fn(&Letter, usize) -> Reply + Send + Sync + 'static) {
        *self.shared.manner.lock().unwrap() = Arc::new(manner);
    }

    /// Answers everything so from now on.
    pub(super) fn always(&self, reply: Reply) {
        self.answer(move |_, _| reply);
    }

    /// Its port.
    pub(super) fn port(&self) -> u16 {
        self.port.address.port()
    }

    /// The address of something there.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.port.address)
    }

    /// Everything that came so far, in the order in which it was answered.
    pub(super) fn letters(&self) -> Vec<Letter> {
        self.shared.letters.lock().unwrap().clone()
    }

    /// What was taken of it.
    pub(super) fn taken(&self) -> Vec<Letter> {
        self.letters().into_iter().filter(Letter::is_taken).collect()
    }

    /// How many connections there were.
    pub(super) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// Waits until at least `count` letters have come, and answers them.
    #[track_caller]
    pub(super) fn await_letters(&self, count: usize) -> Vec<Letter> {
        obtain(HANG, &format!("{count} letters come"), || {
            let letters = self.letters();
            (letters.len() >= count).then_some(letters)
        })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        // Wakes the thread that waits for the next connection.
        let _ = TcpStream::connect(self.port.address);
        self.thread.take().map(thread::JoinHandle::join);
    }
}

impl Shared {
    /// Answers one request after the other until the other side has had enough.
    fn converse(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(mut letter) = read(&mut reader) {
            let reply = {
                let mut letters = self.letters.lock().unwrap();
                let manner = Arc::clone(&self.manner.lock().unwrap());
                letter.reply = manner(&letter, letters.len());
                let reply = letter.reply;
                letters.push(letter);
                reply
            };
            if self.write(&stream, reply).is_none() {
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
        }
    }

    /// `None` when nothing more is to be said.
    fn write(&self, mut stream: &TcpStream, reply: Reply) -> Option<()> {
        let mut head = |status: u16, fields: &str, length: &str| {
            let head = format!("HTTP/1.1 {status} So\r\n{fields}{length}\r\n");
            stream.write_all(head.as_bytes()).ok()
        };
        match reply {
            Reply::Status(204) => head(204, "", ""),
            Reply::Status(status) => head(status, "", "Content-Length: 0\r\n"),
            Reply::Fields(status, fields) => head(status, fields, "Content-Length: 0\r\n"),
            Reply::Long => {
                head(200, "", "Content-Length: 1048576\r\n")?;
                stream.write_all(&vec![b'x'; 1 << 20]).ok()
            }
            Reply::Drip => {
                head(200, "", "Content-Length: 1000000\r\n")?;
                self.drip(stream)
            }
            Reply::DripHead => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").ok()?;
                self.drip(stream)
            }
            Reply::Silence => {
                // Until the other side goes.
                let _ = stream.read(&mut [0]);
                None
            }
            Reply::Close => None,
        }
    }

    fn drip(&self, mut stream: &TcpStream) -> Option<()> {
        while !self.is_over.load(Ordering::Acquire) && stream.write_all(b"x").is_ok() {
            pass(Duration::from_millis(50));
        }
        None
    }
}

fn read(reader: &mut impl BufRead) -> Option<Letter> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut fields = BTreeMap::new();
    loop {
        let mut field = String::new();
        reader.read_line(&mut field).ok()?;
        match field.trim_end().split_once(':') {
            Some((name, value)) => fields.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let length = fields.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).unwrap();
    Some(Letter { line: line.trim_end().to_owned(), fields, body, at: Instant::now(), reply: Reply::Close })
}
