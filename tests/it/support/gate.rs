//! The gate under test: the real binary, configured by a file, as an ordinary process or as PID 1.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use super::http::{Answer, Wire};
use super::place::{Place, path_variable, token_of};
use super::procfs::{self, Process};
use super::run::run;
use super::{HANG, eventually, obtain};

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_tidegate");

/// The start of the line by which a gate tells its address.
const LISTENING: &str = "listening on http://";

/// A gate that is not started yet. Settings are dotted TOML keys; rules and other tables follow them.
#[derive(Clone)]
pub(crate) struct Setup {
    root: PathBuf,
    data: PathBuf,
    config: PathBuf,
    mark: String,
    keys: Vec<(String, String)>,
    tables: String,
    environment: Vec<(String, String)>,
    as_pid_1: bool,
    descriptors: Option<u64>,
    inherited: Option<Arc<OwnedFd>>,
    volume: Option<String>,
}

impl Setup {
    /// Serves the root of `place` on a free port.
    pub(crate) fn new(place: &Place) -> Setup {
        let setup = Setup {
            root: place.root(),
            data: place.data(),
            config: place.path().join("tidegate.toml"),
            mark: place.mark().to_owned(),
            keys: Vec::new(),
            tables: String::new(),
            environment: Vec::new(),
            as_pid_1: false,
            descriptors: None,
            inherited: None,
            volume: None,
        };
        let (root, data) = (setup.root.clone(), setup.data.clone());
        setup
            .text("listen", "127.0.0.1:0")
            .text("root", root.to_str().unwrap())
            .text("data_dir", data.to_str().unwrap())
    }

    /// Sets the key `key` (dotted, as `limits.head`) to `value` as TOML writes it; the last one wins.
    pub(crate) fn set(mut self, key: &str, value: impl ToString) -> Setup {
        self.keys.retain(|(known, _)| known != key);
        self.keys.push((key.to_owned(), value.to_string()));
        self
    }

    /// Sets `key` to a string.
    pub(crate) fn text(self, key: &str, value: &str) -> Setup {
        self.set(key, format!("{value:?}"))
    }

    /// Hosts no repositories of its own: what lies in the root of the place belongs to an upstream.
    pub(crate) fn rootless(mut self) -> Setup {
        self.keys.retain(|(known, _)| known != "root");
        self
    }

    /// Adds tables, as `[[rule]]`.
    pub(crate) fn tables(mut self, text: &str) -> Setup {
        self.tables.push_str(text);
        self.tables.push('\n');
        self
    }

    /// Adds a variable to the environment of the gate.
    pub(crate) fn env(mut self, key: &str, value: &str) -> Setup {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Starts the gate as the first process of a pid namespace of its own.
    pub(crate) fn pid_1(mut self, yes: bool) -> Setup {
        self.as_pid_1 = yes;
        self
    }

    /// Limits the descriptors of the gate, soft and hard.
    pub(crate) fn descriptors(mut self, most: u64) -> Setup {
        self.descriptors = Some(most);
        self
    }

    /// Hands the gate a listening socket as systemd does: descriptor 3, `LISTEN_FDS` and `LISTEN_PID`.
    pub(crate) fn activated(mut self, listener: OwnedFd) -> Setup {
        // Far from 3: what is there already would stay close-on-exec.
        let apart = nix::fcntl::fcntl(&listener, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(100)).unwrap();
        // SAFETY: the number was made in the line above and belongs to nobody else.
        self.inherited = Some(Arc::new(unsafe { OwnedFd::from_raw_fd(apart) }));
        self
    }

    /// Gives the gate a volume of `size` for its data directory, which nobody else sees ([`Gate::data`] does).
    pub(crate) fn volume(mut self, size: &str) -> Setup {
        self.volume = Some(size.to_owned());
        self
    }

    /// Writes the configuration file and returns its path.
    pub(crate) fn write(&self) -> &Path {
        let keys: String = self.keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        fs::write(&self.config, format!("{keys}\n{}", self.tables)).unwrap();
        &self.config
    }

    /// Starts the gate and waits until it serves.
    #[track_caller]
    pub(crate) fn start(self) -> Gate {
        let mut gate = self.launch();
        gate.await_address();
        eventually(HANG, "the gate says that it is ready", || gate.get("/-/readyz").status == 200);
        gate
    }

    /// Starts the gate and returns at once, for tests of what happens before it serves.
    #[track_caller]
    pub(crate) fn launch(self) -> Gate {
        self.write();
        let mut child = self.command().spawn().unwrap();
        let log = Log::of(child.stderr.take().unwrap());
        let pid =
            if self.as_pid_1 { first_child(&mut child, &log) } else { i32::try_from(child.id()).unwrap() };
        Gate {
            child,
            pid,
            log,
            address: None,
            data: match &self.volume {
                Some(_) => format!("/proc/{pid}/root{}", self.data.display()).into(),
                None => self.data.clone(),
            },
            mark: self.mark.clone(),
            status: None,
            is_replaced: false,
        }
    }

    fn command(&self) -> Command {
        let mut command = match &self.volume {
            Some(size) => self.with_volume(size),
            None if self.as_pid_1 => unshared(),
            None => self.plain(),
        };
        command.arg("serve").arg("--config").arg(&self.config);
        command.env_clear().env("PATH", path_variable()).env("RUST_BACKTRACE", "1");
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some(most) = self.descriptors {
            // SAFETY: setrlimit(2) is one system call on plain integers, allowed between fork and exec.
            unsafe { command.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)) };
        }
        command
    }

    /// A shell in a mount namespace of its own that mounts the volume and becomes the binary.
    fn with_volume(&self, size: &str) -> Command {
        fs::create_dir_all(&self.data).unwrap();
        let mut command = Command::new("unshare");
        if !geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let mount = format!("mount -t tmpfs -o size={size},mode=700 none {}", self.data.display());
        command.args(["--mount", "--", "/bin/sh", "-c"]).arg(format!("{mount} && exec \"$0\" \"$@\""));
        command.arg(BINARY);
        command
    }

    /// The binary itself, or the shell that becomes it once it knows its own number for `LISTEN_PID`.
    fn plain(&self) -> Command {
        let Some(listener) = self.inherited.clone() else { return Command::new(BINARY) };
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"", BINARY]);
        // SAFETY: dup2(2) is allowed between fork and exec; descriptor 3 of the child belongs to nobody yet.
        unsafe { command.pre_exec(move || place_at_3(&listener)) };
        command
    }
}

/// Puts `listener` at descriptor 3, not closed at exec.
fn place_at_3(listener: &OwnedFd) -> std::io::Result<()> {
    // SAFETY: the number is only written to by dup2 and then given up again without being closed.
    let mut third = unsafe { OwnedFd::from_raw_fd(3) };
    let outcome = nix::unistd::dup2(listener, &mut third);
    let _ = third.into_raw_fd();
    Ok(outcome?)
}

/// `unshare`, so that what follows is the first process of a new pid namespace and dies with `unshare`.
fn unshared() -> Command {
    let mut command = Command::new("unshare");
    if !geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "--", BINARY]);
    command
}

/// The gate as this namespace numbers it: the only child of `unshare`.
#[track_caller]
fn first_child(unshare: &mut Child, log: &Log) -> i32 {
    let parent = i32::try_from(unshare.id()).unwrap();
    obtain(HANG, "unshare starts the gate", || {
        let ended = unshare.try_wait().unwrap();
        assert!(ended.is_none(), "unshare ended with {ended:?}:\n{}", log.text());
        procfs::children(parent)
            .into_iter()
            .find(|child| BINARY.ends_with(&child.name))
            .map(|child| child.pid)
    })
}

/// What the gate wrote to standard error so far.
#[derive(Clone)]
pub(crate) struct Log {
    written: Arc<Mutex<String>>,
    has_ended: Arc<AtomicBool>,
}

impl Log {
    fn of(pipe: impl std::io::Read + Send + 'static) -> Log {
        let log = Log { written: Arc::default(), has_ended: Arc::default() };
        let Log { written, has_ended } = log.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let mut text = written.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&String::from_utf8_lossy(&line));
                text.push('\n');
            }
            has_ended.store(true, Ordering::Release);
        });
        log
    }

    /// All of it.
    pub(crate) fn text(&self) -> String {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether `words` were logged.
    pub(crate) fn has(&self, words: &str) -> bool {
        self.text().contains(words)
    }

    /// The lines that contain `words`.
    pub(crate) fn lines(&self, words: &str) -> Vec<String> {
        self.text().lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
    }
}

/// A running gate. Dropping it ends it, with everything that still works in its place.
pub(crate) struct Gate {
    child: Child,
    pid: i32,
    log: Log,
    address: Option<SocketAddr>,
    data: PathBuf,
    mark: String,
    status: Option<ExitStatus>,
    is_replaced: bool,
}

impl Gate {
    /// The process of the gate (not of `unshare`), as this namespace numbers it.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Its data directory, as this process reaches it.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Its standard error.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Where it listens.
    #[track_caller]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address.expect("the gate has told its address")
    }

    /// `http://HOST:PORT/NAME`.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address())
    }

    /// The same with the credential of `user`.
    pub(crate) fn url_as(&self, user: &str, name: &str) -> String {
        let username = user.replace('@', "%40");
        format!("http://{username}:{}@{}/{name}", token_of(user), self.address())
    }

    /// A fresh connection to the front.
    #[track_caller]
    pub(crate) fn wire(&self) -> Wire {
        Wire::tcp(self.address())
    }

    /// One `GET` on a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.wire().get(path, &[])
    }

    /// One `GET` on the control socket.
    #[track_caller]
    pub(crate) fn control(&self, path: &str) -> Answer {
        Wire::unix(&self.data.join("control.sock")).get(path, &[])
    }

    /// The sum of the samples of metric `name` whose labels contain every one of `labels`.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.control("/-/metrics").text();
        let samples =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        let named = samples.filter(|(key, _)| key.split('{').next() == Some(name));
        let chosen = named.filter(|(key, _)| labels.iter().all(|label| key.contains(label)));
        chosen.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
    }

    /// Everything below the gate, zombies among it.
    pub(crate) fn descendants(&self) -> Vec<Process> {
        procfs::descendants(self.pid)
    }

    /// Living processes below the gate that run git's `command`.
    pub(crate) fn running(&self, command: &str) -> Vec<Process> {
        self.descendants()
            .into_iter()
            .filter(|process| !process.is_zombie() && process.runs(command))
            .collect()
    }

    /// The same, but only what the gate started itself: one for each worker that is taken.
    pub(crate) fn leaders(&self, command: &str) -> Vec<Process> {
        self.running(command).into_iter().filter(|process| process.parent == self.pid).collect()
    }

    /// Waits until the gate has no descendant, living or dead.
    #[track_caller]
    pub(crate) fn await_childless(&self, limit: Duration) {
        let start = std::time::Instant::now();
        let mut left = self.descendants();
        while !left.is_empty() {
            assert!(start.elapsed() < limit, "after {limit:?} the gate still has {}", listing(&left));
            thread::sleep(super::TICK);
            left = self.descendants();
        }
    }

    /// How many descriptors the gate may have.
    #[track_caller]
    pub(crate) fn descriptor_limit(&self) -> u64 {
        procfs::limit(self.pid, "Max open files").unwrap().0.parse().unwrap()
    }

    /// From now on the gate gets no descriptor of this number or above.
    #[track_caller]
    pub(crate) fn limit_descriptors(&self, most: u64) {
        let mut command = Command::new("prlimit");
        command.args(["--pid", &self.pid.to_string(), &format!("--nofile={most}:")]);
        run(command, b"", HANG).ok();
    }

    /// The number that the next descriptor of the gate will have.
    pub(crate) fn lowest_free_descriptor(&self) -> u64 {
        let open = procfs::descriptors(self.pid);
        (0..).find(|number| open.iter().all(|(taken, _)| taken != number)).unwrap().try_into().unwrap()
    }

    /// Sends a signal to the gate.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid), signal).unwrap();
    }

    /// Kills the gate as a crash would, and reaps it: its children live on.
    pub(crate) fn crash(&mut self) {
        self.signal(Signal::SIGKILL);
        self.exit(HANG);
    }

    /// Asks the gate to stop, requires exit code 0 and returns its log.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Log {
        self.signal(Signal::SIGTERM);
        let status = self.exit(HANG);
        assert_eq!(status.code(), Some(0), "the gate ended with {status}:\n{}", self.log.text());
        self.log.clone()
    }

    /// A gate that has crashed, whose gits and files another one has by now.
    pub(crate) fn forget(mut self) {
        assert!(!self.is_alive());
        self.is_replaced = true;
    }

    /// Waits until the gate has ended and all of its log is here; fails when it takes longer than `limit`.
    #[track_caller]
    pub(crate) fn exit(&mut self, limit: Duration) -> ExitStatus {
        let child = &mut self.child;
        let status = obtain(limit, "the gate ends", || child.try_wait().unwrap());
        self.status = Some(status);
        eventually(HANG, "the log of the gate ends", || self.log.has_ended.load(Ordering::Acquire));
        status
    }

    /// Whether the gate has not ended.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.status.is_none() && self.child.try_wait().unwrap().is_none()
    }

    #[track_caller]
    pub(crate) fn await_address(&mut self) {
        let (child, log) = (&mut self.child, &self.log);
        let address = obtain(HANG, "the gate tells its address", || {
            let found = listening_address(&log.text());
            let ended = child.try_wait().unwrap();
            assert!(found.is_some() || ended.is_none(), "the gate ended with {ended:?}:\n{}", log.text());
            found
        });
        self.address = Some(address);
    }

    fn end(&mut self) {
        if self.status.is_none() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if self.is_replaced {
            return;
        }
        for left in procfs::working_in(&self.mark) {
            let _ = kill(Pid::from_raw(left.pid), Signal::SIGKILL);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.end();
        if thread::panicking() {
            eprintln!("---- log of the gate ----\n{}---- end of log ----", self.log.text());
            return;
        }
        assert!(!self.log.has("panicked"), "the gate panicked:\n{}", self.log.text());
    }
}

/// Processes for a failure's text: number, state, command line.
pub(crate) fn listing(processes: &[Process]) -> String {
    let line = |process: &Process| {
        format!("{} {} [{}] {}", process.pid, process.state, process.name, process.command_line())
    };
    processes.iter().map(line).collect::<Vec<_>>().join("; ")
}

fn listening_address(log: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|line| line.contains(LISTENING))?;
    let rest = &line[line.find(LISTENING)? + LISTENING.len()..];
    rest.split(|c: char| !(c.is_ascii_alphanumeric() || ".:[]".contains(c))).next()?.parse().ok()
}
