//! A Redis server of a test, and something between it and its clients that loses what it should pass on.

use super::port::Port;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server that has not answered by now hangs.
const START: Duration = Duration::from_secs(60);

/// A real server on a port of its own, without anything of the machine's configuration. Dropping it ends it.
pub(crate) struct RedisServer {
    port: Port,
    options: Vec<String>,
    directory: TempDir,
    running: Option<Child>,
}

impl RedisServer {
    /// One that forgets everything when it ends.
    #[track_caller]
    pub(crate) fn start() -> RedisServer {
        RedisServer::start_with(&["--save", "", "--appendonly", "no"])
    }

    /// One with these options.
    #[track_caller]
    pub(crate) fn start_with(options: &[&str]) -> RedisServer {
        let mut server = RedisServer::absent(options);
        server.restart();
        server
    }

    /// One that is not started yet: nobody listens there.
    #[track_caller]
    pub(crate) fn absent(options: &[&str]) -> RedisServer {
        let directory = tempfile::Builder::new().prefix("tidegate-redis-").tempdir().unwrap();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        RedisServer { port: Port::reserve(), options, directory, running: None }
    }

    /// Other options, from the next start on.
    pub(crate) fn set_options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|option| (*option).to_owned()).collect();
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// The same for a configuration.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Its directory, which is the test's as well.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts it, or starts it anew after it has ended, and waits until it answers.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        self.launch();
        let begun = Instant::now();
        while !self.is_up() {
            let ended = self.running.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "redis-server ended with {ended:?}: {}", self.log());
            assert!(begun.elapsed() < START, "redis-server does not answer: {}", self.log());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Starts it without waiting for anything.
    #[track_caller]
    pub(crate) fn launch(&mut self) {
        let mut command = Command::new("redis-server");
        let port = self.address().port().to_string();
        if !self.options.iter().any(|option| option == "--port") {
            command.args(["--port", &port]);
        }
        command.args(["--bind", "127.0.0.1", "--dir", self.directory.path().to_str().unwrap()]);
        let log = std::fs::File::options().create(true).append(true).open(self.log_file()).unwrap();
        command.args(&self.options).stdin(Stdio::null()).stderr(log.try_clone().unwrap()).stdout(log);
        self.running = Some(command.spawn().unwrap());
    }

    /// Whether anybody takes connections there: a server does once it has begun to load what it had.
    fn is_up(&self) -> bool {
        let Ok(mut wire) = TcpStream::connect(self.address()) else { return false };
        wire.write_all(b"PING\r\n").unwrap();
        let mut sign = [0; 1];
        // With a password it says that it wants one; a server that loads says so, and another that speaks TLS says little.
        let is_loading = || self.tries(&["PING"]).contains("LOADING");
        self.speaks_tls() || (wire.read_exact(&mut sign).is_ok() && !is_loading())
    }

    fn speaks_tls(&self) -> bool {
        self.options.iter().any(|option| option == "--tls-port")
    }

    /// Kills it as a crash would.
    #[track_caller]
    pub(crate) fn crash(&mut self) {
        let mut child = self.running.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Lets it hang, or go on.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.running.as_ref().expect("it runs").id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Runs a command and returns the answer, which is no error.
    #[track_caller]
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        let told = self.tries(command);
        let is_error = told.split(' ').next().is_some_and(|word| {
            word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase()) && told.contains(' ')
        });
        assert!(!is_error, "{command:?}: {told}");
        told
    }

    /// Runs a command and returns whatever it says.
    #[track_caller]
    pub(crate) fn tries(&self, command: &[&str]) -> String {
        let port = self.address().port().to_string();
        let mut client = Command::new("redis-cli");
        client.args(["-h", "127.0.0.1", "-p", &port]).args(command);
        let output = client.output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&told).trim().to_owned()
    }

    /// The version that it has of a repository, 0 where it has none.
    #[track_caller]
    pub(crate) fn version(&self, repo: &str) -> u64 {
        let told = self.ask(&["HGET", &format!("tidegate:v:{repo}"), "version"]);
        if told.is_empty() { 0 } else { told.parse().unwrap() }
    }

    /// Somebody else who listens from now on.
    #[track_caller]
    pub(crate) fn listen(&self) -> Stranger {
        let mut wire = TcpStream::connect(self.address()).unwrap();
        wire.set_read_timeout(Some(START)).unwrap();
        wire.write_all(b"SUBSCRIBE tidegate:events\r\n").unwrap();
        let mut lines = BufReader::new(wire).lines();
        // Three things are said of the subscription, each behind its length but the last.
        assert_eq!(lines.by_ref().take(6).last().unwrap().unwrap(), ":1");
        Stranger { lines: Box::new(lines.map(Result::unwrap)) }
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            eprintln!("---- log of redis-server ----\n{}---- end of log ----", self.log());
        }
    }
}

/// A subscriber that is no gate.
pub(crate) struct Stranger {
    lines: Box<dyn Iterator<Item = String>>,
}

impl Stranger {
    /// The next that is published.
    #[track_caller]
    pub(crate) fn next(mut self) -> String {
        // Of `*3`, `$7`, `message`, a length, the channel, a length, the text.
        self.lines.nth(6).unwrap()
    }
}

/// Passes connections on to a server, until it is told to do something else. Dropping it ends it.
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    /// Requests whose answers are still to be lost, each with its connection.
    losses: AtomicUsize,
    lost: AtomicUsize,
    made: AtomicUsize,
    is_deaf: AtomicBool,
    is_over: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// To this server.
    pub(crate) fn start(to: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            to,
            losses: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            made: AtomicUsize::new(0),
            is_deaf: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let theirs = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if theirs.is_over.load(Ordering::SeqCst) {
                    return;
                }
                theirs.made.fetch_add(1, Ordering::SeqCst);
                theirs.take(&client);
            }
        });
        Relay { address, shared }
    }

    /// Its address for a configuration.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// How many connections there have been.
    pub(crate) fn made(&self) -> usize {
        self.shared.made.load(Ordering::SeqCst)
    }

    /// Cuts every connection that there is.
    pub(crate) fn cut(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Takes connections from now on and says nothing on them, nor on those that there are; or no longer.
    pub(crate) fn set_deaf(&self, is_deaf: bool) {
        self.shared.is_deaf.store(is_deaf, Ordering::SeqCst);
    }

    /// Loses the next answers to scripts, and the connection with each.
    pub(crate) fn lose_answers(&self, number: usize) {
        self.shared.losses.store(number, Ordering::SeqCst);
    }

    /// How many were lost.
    pub(crate) fn lost(&self) -> usize {
        self.shared.lost.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn take(self: &Arc<Self>, client: &TcpStream) {
        let Ok(server) = TcpStream::connect(self.to) else {
            let _ = client.shutdown(Shutdown::Both);
            return;
        };
        let both = [client.try_clone().unwrap(), server.try_clone().unwrap()];
        self.open.lock().unwrap().extend(both);
        // What the client has asked and has no answer to, as far as that matters here.
        let asked = Arc::new(AtomicBool::new(false));
        let ways = [
            (client.try_clone().unwrap(), server.try_clone().unwrap(), true),
            (server, client.try_clone().unwrap(), false),
        ];
        for (from, to, is_request) in ways {
            let (shared, asked) = (Arc::clone(self), Arc::clone(&asked));
            thread::spawn(move || shared.pass(from, to, is_request, &asked));
        }
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream, is_request: bool, asked: &AtomicBool) {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(more) = from.read(&mut bytes) {
            while self.is_deaf.load(Ordering::SeqCst) && !self.is_over.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(2));
            }
            let some = &bytes[..more];
            if is_request && some.windows(4).any(|word| word == b"EVAL") {
                asked.store(true, Ordering::SeqCst);
            }
            let is_lost = !is_request && more > 0 && asked.swap(false, Ordering::SeqCst) && self.takes_loss();
            if more == 0 || is_lost || to.write_all(some).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    /// Whether one more is to be lost.
    fn takes_loss(&self) -> bool {
        let left = self.losses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() {
            self.lost.fetch_add(1, Ordering::SeqCst);
        }
        left.is_ok()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.cut();
        let _ = TcpStream::connect(self.address);
    }
}
