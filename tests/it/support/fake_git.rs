//! A git that misbehaves on demand. Built by `fake.rs` beside this file with plain `rustc`, so that it is no part of the
//! product and needs no crate.
//!
//! The server clears the environment, so the behaviour comes from elsewhere. The first of these that says something counts:
//!
//! 1. an argument list that begins with `@`: `@exit 3`, `@hang ready`;
//! 2. the file `fake-behaviour` in the directory named by the last argument;
//! 3. the file `NAME.behaviour` beside the program `NAME`;
//! 4. the real git of the machine, in place of this one.
//!
//! A file has one behaviour a line, `COMMAND: WORDS` for one git command or `WORDS` for all. Without a line of its own
//! `--version` is always answered.
//!
//! | words | what it does |
//! |---|---|
//! | `exit N` / `exit random` | exits with this code, or with one that it prints first |
//! | `signal N` | ends itself by this signal |
//! | `hang` | waits for a signal, saying nothing |
//! | `ignore` | hangs and ignores SIGTERM, and so does a grandchild |
//! | `careful MS` | a grandchild answers SIGTERM with `cleaned` on stderr after MS milliseconds; the leader just ends |
//! | `stop` | stops itself, then hangs |
//! | `escape` | a grandchild leaves the group with setsid; then hangs |
//! | `escape-stubborn` | the same, and the grandchild ignores SIGTERM |
//! | `escape-exit`, `escape-stubborn-exit` | the same two, and exits with 0 at once |
//! | `hold` | a grandchild holds stdout and stderr; exits with 0 at once |
//! | `hold-escaped` | the same, and the grandchild has left the group and ignores SIGTERM |
//! | `flood` | writes to stderr without end |
//! | `flood N` | writes N KiB to stderr, `done` to stdout, and exits with 0 |
//! | `pour N` | writes N KiB to stdout and exits with 0 |
//! | `close-stdout` | closes stdout and hangs |
//! | `orphans N CODE` | leaves N processes behind, every other one outside of its group, and exits with CODE |
//! | `say TEXT` | writes TEXT, in which `\n` is a line feed and `\1` the byte 1, to stdout; then hangs |
//! | `real` | is the real git with the same arguments |
//! | `escape-real` | a grandchild leaves the group with setsid, its output closed; goes on as the real git |
//! | `trace PID` | attaches to PID like a debugger, and hangs: when PID dies, nobody but this process sees it |
//!
//! `ready` as the last word makes it print `ready` on stdout when what is to be set up is set up.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, exit};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

unsafe extern "C" {
    fn fork() -> i32;
    fn setsid() -> i32;
    fn getpid() -> i32;
    fn pause() -> i32;
    fn kill(pid: i32, signal: i32) -> i32;
    fn close(fd: i32) -> i32;
    fn signal(number: i32, handler: usize) -> usize;
    fn ptrace(request: u32, pid: i32, address: *mut u8, data: *mut u8) -> i64;
    fn prctl(option: i32, a: u64, b: u64, c: u64, d: u64) -> i32;
}

const SIGTERM: i32 = 15;
const SIGSTOP: i32 = 19;
const SIG_IGN: usize = 1;
const PTRACE_SEIZE: u32 = 0x4206;
const PR_SET_PTRACER: i32 = 0x59616d61;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match behaviour(&args) {
        Some(words) => {
            note_start();
            behave(&words.iter().map(String::as_str).collect::<Vec<_>>())
        }
        None if args.iter().any(|arg| arg == "--version" || arg == "version") => println!("git version 2.47.3"),
        None => real_git(),
    }
}

/// Becomes the git that `PATH` finds.
fn real_git() -> ! {
    let error = Command::new("git").args(std::env::args_os().skip(1)).exec();
    eprintln!("fake git: no real git: {error}");
    exit(127);
}

/// Adds a line to `NAME.starts` beside the program, if that file is there: who counts starts makes it.
fn note_start() {
    let mut beside = std::env::current_exe().expect("a path").into_os_string();
    beside.push(".starts");
    if let Ok(mut file) = fs::OpenOptions::new().append(true).open(beside) {
        let _ = file.write_all(b"start\n");
    }
}

fn behaviour(args: &[String]) -> Option<Vec<String>> {
    if let Some(first) = args.first().and_then(|arg| arg.strip_prefix('@')) {
        return Some(std::iter::once(first.to_owned()).chain(args[1..].iter().cloned()).collect());
    }
    let in_repository = args.last().map(|last| Path::new(last).join("fake-behaviour"));
    let mut beside = std::env::current_exe().ok()?.into_os_string();
    beside.push(".behaviour");
    let files = in_repository.into_iter().chain(std::iter::once(beside.into()));
    let texts = files.filter_map(|file| fs::read_to_string(file).ok());
    let lines: Vec<String> = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let command = args.iter().find(|arg| !arg.starts_with('-') && !arg.contains('=') && !arg.contains('/'));
    let is_version = args.iter().any(|arg| arg == "--version" || arg == "version");
    lines.iter().find_map(|line| match line.split_once(':') {
        Some((name, words)) => (Some(name) == command.map(String::as_str)).then(|| split(words)),
        None => (!is_version && !line.trim().is_empty()).then(|| split(line)),
    })
}

fn split(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

fn behave(words: &[&str]) -> ! {
    let (words, is_loud) = match words {
        [words @ .., "ready"] => (words, true),
        words => (words, false),
    };
    let ready = || {
        if is_loud {
            print!("ready\n");
            io::stdout().flush().expect("somebody reads");
        }
    };
    match words {
        ["exit", "random"] => {
            let code = random_byte();
            print!("{code}\n");
            io::stdout().flush().expect("somebody reads");
            exit(code)
        }
        ["exit", code] => exit(number(code)),
        ["signal", signal] => unsafe {
            kill(getpid(), number(signal));
            exit(127)
        },
        ["hang"] => hang(ready),
        ["ignore"] => {
            ignore_term();
            child(|| hang(|| ()));
            hang(ready)
        }
        ["careful", ms] => {
            let ms = u64::try_from(number(ms)).expect("a number of milliseconds");
            let (reader, writer) = io::pipe().expect("a pipe");
            child(move || clean_up(ms, writer));
            await_end(reader);
            hang(ready)
        }
        ["stop"] => {
            ready();
            unsafe { kill(getpid(), SIGSTOP) };
            hang(|| ())
        }
        ["escape"] => {
            escape(false);
            hang(ready)
        }
        ["escape-stubborn"] => {
            escape(true);
            hang(ready)
        }
        ["escape-exit"] => {
            escape(false);
            exit(0)
        }
        ["escape-stubborn-exit"] => {
            escape(true);
            exit(0)
        }
        ["hold"] => {
            child(|| hang(|| ()));
            ready();
            exit(0)
        }
        ["hold-escaped"] => {
            escape(true);
            ready();
            exit(0)
        }
        ["flood"] => loop {
            let _ = io::stderr().write_all(&[b'x'; 4096]);
        },
        ["flood", kib] => {
            let line = format!("{}\n", "y".repeat(1023));
            (0..number(kib)).for_each(|_| io::stderr().write_all(line.as_bytes()).expect("somebody reads"));
            io::stderr().write_all(b"fatal: the last line\n").expect("somebody reads");
            io::stdout().write_all(b"done\n").expect("somebody reads");
            exit(0)
        }
        ["pour", kib] => {
            let block = [b'z'; 64 * 1024];
            let mut left = usize::try_from(number(kib)).expect("a number of KiB") * 1024;
            while left > 0 {
                let length = left.min(block.len());
                io::stdout().write_all(&block[..length]).expect("somebody reads");
                io::stdout().flush().expect("somebody reads");
                left -= length;
            }
            exit(0)
        }
        ["close-stdout"] => {
            ready();
            unsafe { close(1) };
            hang(|| ())
        }
        ["orphans", count, code] => {
            (0..number(count)).for_each(|index| if index % 2 == 0 { child(|| hang(|| ())) } else { runaway() });
            ready();
            exit(number(code))
        }
        ["say", words @ ..] => {
            let text = words.join(" ").replace("\\n", "\n").replace("\\1", "\u{1}");
            io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()).expect("somebody reads");
            hang(ready)
        }
        ["real"] => real_git(),
        ["escape-real"] => {
            escape_silently();
            real_git()
        }
        ["trace", pid] => {
            let answer = unsafe { ptrace(PTRACE_SEIZE, number(pid), null_mut(), null_mut()) };
            assert_eq!(answer, 0, "cannot trace {pid}: {}", io::Error::last_os_error());
            hang(ready)
        }
        words => {
            eprintln!("fake git: unknown behaviour {words:?}");
            exit(126)
        }
    }
}

fn number(word: &str) -> i32 {
    word.parse().unwrap_or_else(|_| panic!("not a number: {word}"))
}

fn random_byte() -> i32 {
    let mut byte = [0];
    fs::File::open("/dev/urandom").expect("random").read_exact(&mut byte).expect("random");
    i32::from(byte[0])
}

/// Hangs until a signal ends it. Anybody may debug it, so that `trace` can.
fn hang(ready: impl Fn()) -> ! {
    unsafe { prctl(PR_SET_PTRACER, u64::MAX, 0, 0, 0) };
    ready();
    loop {
        unsafe { pause() };
    }
}

fn ignore_term() {
    unsafe { signal(SIGTERM, SIG_IGN) };
}

/// A child of this process that runs `body`.
fn child(body: impl FnOnce()) {
    if unsafe { fork() } == 0 {
        body();
        exit(0);
    }
}

/// A grandchild in a session of its own, whose parent has ended when this returns, so that it is adopted at once.
fn escape(is_stubborn: bool) {
    let (reader, writer) = io::pipe().expect("a pipe");
    child(move || {
        child(move || {
            unsafe { setsid() };
            if is_stubborn {
                ignore_term();
            }
            drop(writer);
            hang(|| ())
        });
    });
    await_end(reader);
}

/// The same, and stubborn, but it holds no pipe of ours: nobody learns from an end of file that it lives on.
fn escape_silently() {
    let (reader, writer) = io::pipe().expect("a pipe");
    child(move || {
        child(move || {
            unsafe { setsid() };
            ignore_term();
            for fd in 0..3 {
                unsafe { close(fd) };
            }
            drop(writer);
            hang(|| ())
        });
    });
    await_end(reader);
}

/// Returns when the last copy of the other end is closed.
fn await_end(mut reader: io::PipeReader) {
    let _ = reader.read_to_end(&mut Vec::new());
}

/// A grandchild outside of the group that ends by itself, before or after this process.
fn runaway() {
    child(|| {
        unsafe { setsid() };
        child(|| exit(0));
    });
}

static CLEAN_AFTER_MS: AtomicU64 = AtomicU64::new(0);

/// Answers SIGTERM with some work and a line on stderr, as git does when it removes its lock files.
fn clean_up(ms: u64, writer: io::PipeWriter) {
    extern "C" fn clean(_: i32) {
        std::thread::sleep(Duration::from_millis(CLEAN_AFTER_MS.load(Ordering::Relaxed)));
        let _ = io::stderr().write_all(b"cleaned\n");
        exit(0);
    }
    CLEAN_AFTER_MS.store(ms, Ordering::Relaxed);
    unsafe { signal(SIGTERM, clean as *const () as usize) };
    drop(writer);
    hang(|| ())
}
