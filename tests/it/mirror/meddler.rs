//! Stands between a gate and its upstream, and spoils what the upstream answers as a test wants it: the questions and the
//! answers are those of a real git and a real server.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::git::Client;
use crate::support::repo::BIG_SETTINGS;
use crate::support::{TICK, pass};

/// What stands all over the middle of a pack that [`grow`] makes necessary.
const MARK: &[u8] = b"<the middle of a pack>";

/// How often it stands there: enough for several chunks of an answer.
const MARKS: usize = 20_000;

/// What a server says that is none of git's.
const PAGE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\r\n<p>Welcome!</p>";

/// What is done to answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Connections end in the middle of a pack.
    Cut,
    /// Nothing more comes in the middle of a pack.
    Stall,
    /// A pack has some wrong bits.
    Flip,
    /// From the middle of a pack on, there is something else.
    Noise,
    /// A page comes in the place of whatever was asked for.
    Page,
    /// Connections are made, and nothing is answered.
    Silence,
    /// The head of an answer comes at once, and then one byte after the other.
    Drip,
}

/// A relay to an upstream. What goes through it then lives as long as the test.
pub(super) struct Meddler {
    pub(super) address: SocketAddr,
    valve: Arc<Valve>,
}

#[derive(Default)]
struct Valve {
    fault: Mutex<Option<Fault>>,
    is_stalled: AtomicBool,
}

impl Meddler {
    pub(super) fn before(upstream: SocketAddr) -> Meddler {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let meddler = Meddler { address: listener.local_addr().unwrap(), valve: Arc::default() };
        let valve = Arc::clone(&meddler.valve);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(upstream).unwrap();
                let (questions, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || pump(questions, to, |_, _| true));
                let valve = Arc::clone(&valve);
                thread::spawn(move || pump(server, client, |answer, to| valve.pass(answer, to)));
            }
        });
        meddler
    }

    /// Spoils answers so from now on, or no more.
    pub(super) fn set(&self, fault: Option<Fault>) {
        self.valve.is_stalled.store(false, Ordering::SeqCst);
        *self.valve.fault.lock().unwrap() = fault;
    }

    /// Whether an answer has been held back since that was set.
    pub(super) fn is_stalled(&self) -> bool {
        self.valve.is_stalled.load(Ordering::SeqCst)
    }
}

/// Hands on what comes until either end closes, or `pass` says that it is enough.
fn pump(mut from: TcpStream, mut to: TcpStream, pass: impl Fn(&mut Vec<u8>, &mut TcpStream) -> bool) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let mut bytes = buffer[..length].to_vec();
        let goes_on = pass(&mut bytes, &mut to);
        if to.write_all(&bytes).is_err() || !goes_on {
            break;
        }
    }
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}

impl Valve {
    /// Spoils a part of an answer; says whether the connection goes on behind it.
    fn pass(&self, answer: &mut Vec<u8>, to: &mut TcpStream) -> bool {
        let Some(fault) = self.fault() else { return true };
        let mark = answer.windows(MARK.len()).position(|bytes| bytes == MARK);
        match (fault, mark) {
            (Fault::Page, _) => {
                answer.clear();
                answer.extend(PAGE);
                return false;
            }
            (Fault::Silence, _) | (Fault::Stall, Some(_)) => self.hold(fault),
            (Fault::Drip, _) => self.drip(answer, to),
            (Fault::Cut, Some(mark)) => {
                answer.truncate(mark);
                return false;
            }
            (Fault::Flip, Some(mark)) => answer[mark] ^= 1,
            (Fault::Noise, Some(mark)) => answer[mark..].fill(0xff),
            (Fault::Cut | Fault::Stall | Fault::Flip | Fault::Noise, None) => {}
        }
        true
    }

    fn hold(&self, fault: Fault) {
        self.is_stalled.store(true, Ordering::SeqCst);
        while self.fault() == Some(fault) {
            pass(TICK);
        }
    }

    /// What is left when no more drips goes on as it is.
    fn drip(&self, answer: &mut Vec<u8>, to: &mut TcpStream) {
        // The end of an answer looks like the end of its head.
        let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n" && answer.starts_with(b"HTTP/"));
        let head = head.map_or(0, |at| at + 4);
        let mut next = head;
        while self.fault() == Some(Fault::Drip) && !answer.is_empty() {
            let rest = answer.split_off(next.min(answer.len()));
            if to.write_all(answer).is_err() {
                return answer.clear();
            }
            (*answer, next) = (rest, 1);
            (0..50).take_while(|_| self.fault() == Some(Fault::Drip)).for_each(|_| pass(TICK));
        }
    }

    fn fault(&self) -> Option<Fault> {
        *self.fault.lock().unwrap()
    }
}

/// Puts a commit on `main` of `served` whose pack has a middle. Answers which.
#[track_caller]
pub(super) fn grow(served: &Client, name: &str) -> String {
    for (key, value) in BIG_SETTINGS {
        served.git(&["config", key, value]).ok();
    }
    let content = [format!("{name}\n").as_bytes(), &MARK.repeat(MARKS)].concat();
    let blob = served.git_with(&["hash-object", "-w", "--stdin"], &content).ok().text();
    let tree = served.git_with(&["mktree"], format!("100644 blob {blob}\t{name}\n").as_bytes()).ok().text();
    let new = served.git(&["commit-tree", &tree, "-p", "main", "-m", name]).ok().text();
    served.git(&["update-ref", "refs/heads/main", &new]).ok();
    new
}
