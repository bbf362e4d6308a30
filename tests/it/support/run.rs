//! Running an ordinary process to its end: output kept, never longer than a limit.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Run {
    /// The command line, for people.
    pub(crate) what: String,
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// Its standard output.
    pub(crate) stdout: Vec<u8>,
    /// Its standard error.
    pub(crate) stderr: String,
    /// From start to end.
    pub(crate) took: Duration,
}

impl Run {
    /// Fails the test unless the process ended with 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Run {
        assert!(self.status.success(), "{} ended with {}:\n{}", self.what, self.status, self.heard());
        self
    }

    /// Fails the test unless the process ended by itself with another code than 0.
    #[track_caller]
    pub(crate) fn fails(self) -> Run {
        let failed = self.status.code().is_some_and(|code| code != 0);
        assert!(failed, "{} should have failed, ended with {}:\n{}", self.what, self.status, self.heard());
        self
    }

    /// Fails the test unless the process ended with exactly `code`.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Run {
        let found = self.status.code();
        assert_eq!(found, Some(code), "{} ended with {}:\n{}", self.what, self.status, self.heard());
        self
    }

    /// Fails the test unless `sentence` was printed.
    #[track_caller]
    pub(crate) fn says(self, sentence: &str) -> Run {
        assert!(self.heard().contains(sentence), "{} did not say `{sentence}`:\n{}", self.what, self.heard());
        self
    }

    /// Standard output as text without the blank around it.
    #[track_caller]
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    /// The lines of standard output.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
    }

    /// Everything printed, standard error first.
    pub(crate) fn heard(&self) -> String {
        format!("{}{}", self.stderr, String::from_utf8_lossy(&self.stdout))
    }
}

/// What came out of a pipe so far, and the thread that keeps it.
struct Reader {
    kept: Arc<Mutex<Vec<u8>>>,
    thread: thread::JoinHandle<()>,
}

impl Reader {
    fn of(mut pipe: impl Read + Send + 'static) -> Reader {
        let kept: Arc<Mutex<Vec<u8>>> = Arc::default();
        let keeper = Arc::clone(&kept);
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(read @ 1..) = pipe.read(&mut buffer) {
                keeper.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        Reader { kept, thread }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.kept.lock().unwrap()).into_owned()
    }

    /// All of it, once the pipe has ended.
    fn whole(self) -> Vec<u8> {
        self.thread.join().unwrap();
        std::mem::take(&mut self.kept.lock().unwrap())
    }
}

/// A process under way, in a group of its own that is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    what: String,
    started: Instant,
    readers: Option<(Reader, Reader)>,
    finished: bool,
}

impl Running {
    /// Starts `command` with `stdin` as its whole input.
    #[track_caller]
    pub(crate) fn start(mut command: Command, stdin: Vec<u8>) -> Running {
        let what = describe(&command);
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {what}: {error}"));
        feed(child.stdin.take().unwrap(), stdin);
        let readers = (Reader::of(child.stdout.take().unwrap()), Reader::of(child.stderr.take().unwrap()));
        Running { child, what, started: Instant::now(), readers: Some(readers), finished: false }
    }

    /// The process, which is also the number of its group.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Everything printed so far, standard error first.
    pub(crate) fn heard(&self) -> String {
        self.readers.as_ref().map(|(stdout, stderr)| stderr.so_far() + &stdout.so_far()).unwrap_or_default()
    }

    /// Sends `signal` to the whole group; a group that is gone already is no error.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = killpg(self.pid(), signal);
    }

    /// Waits for the end; fails the test when it takes longer than `limit`.
    #[track_caller]
    pub(crate) fn finish(mut self, limit: Duration) -> Run {
        let (done, watched) = mpsc::channel::<()>();
        let group = self.pid();
        let watchdog = thread::spawn(move || {
            let hung = watched.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
            if hung {
                let _ = killpg(group, Signal::SIGKILL);
            }
            hung
        });
        let (stdout, stderr) = self.readers.take().unwrap();
        let (stdout, stderr) = (stdout.whole(), stderr.whole());
        let status = self.child.wait().unwrap();
        self.finished = true;
        drop(done);
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        assert!(!watchdog.join().unwrap(), "{} hung for {limit:?}:\n{stderr}", self.what);
        Run { what: self.what.clone(), status, stdout, stderr, took: self.started.elapsed() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.finished {
            self.signal(Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// Runs `command` to its end.
#[track_caller]
pub(crate) fn run(command: Command, stdin: &[u8], limit: Duration) -> Run {
    Running::start(command, stdin.to_vec()).finish(limit)
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Writes the input from a thread of its own: a process that does not read must not stop the test.
fn feed(mut pipe: impl Write + Send + 'static, stdin: Vec<u8>) {
    thread::spawn(move || pipe.write_all(&stdin));
}
