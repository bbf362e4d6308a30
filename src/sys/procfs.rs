//! What `/proc` says about processes: states, groups, children, environments.
//!
//! Every answer is a snapshot: the process may have ended, and its number may belong to another, before the caller looks
//! at it. Whoever acts on an answer pins the process first (`supervise` says how) and asks again.

use nix::libc;
use nix::unistd::{Pid, Uid};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How much of an environment is read, in bytes: the most that `execve(2)` takes (three quarters of an 8 MiB stack).
const ENVIRON_MAX: u64 = 6 << 20;

/// The facts of `/proc/PID/stat` that supervision needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The process.
    pub pid: Pid,
    /// What it is doing.
    pub state: State,
    /// Its parent; ourselves for a child, also an adopted one.
    pub parent: Pid,
    /// Its process group.
    pub group: Pid,
    /// When it started, in clock ticks since the machine's start. With the number it names a process for good.
    pub started: u64,
}

/// What a process is doing, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Running, sleeping, stopped or traced.
    Alive,
    /// In uninterruptible sleep: it may hold the lock of its address space, so `environ` and `cmdline` may block.
    Uninterruptible,
    /// Ended and not yet waited for.
    Zombie,
}

impl Stat {
    /// The facts about `pid`. Takes no lock of the process, so it never blocks.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is no such process.
    pub fn of(pid: Pid) -> io::Result<Self> {
        let text = read(&format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("cannot read /proc/{pid}/stat"))
        })
    }

    /// Reads `PID (NAME) STATE PPID PGRP …`; the name may hold blanks and parentheses, so fields count from the last one.
    fn parse(text: &[u8]) -> Option<Self> {
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let pid = str::from_utf8(text.get(..text.iter().position(|byte| *byte == b' ')?)?).ok()?;
        let rest = str::from_utf8(text.get(close + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse().ok().map(Pid::from_raw);
        Some(Self {
            pid: Pid::from_raw(pid.parse().ok()?),
            state: State::parse(fields.first()?),
            parent: number(1)?,
            group: number(2)?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

impl State {
    fn parse(letter: &str) -> Self {
        match letter {
            "Z" | "X" | "x" => Self::Zombie,
            "D" => Self::Uninterruptible,
            _ => Self::Alive,
        }
    }
}

/// All children of this process, adopted ones and zombies among them, in ascending order.
///
/// The kernel keeps one list per thread. Where it has none (`CONFIG_PROC_CHILDREN` off), every process is asked for its
/// parent. An entry can be missing when children come and go meanwhile: ask again, never conclude from one answer.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn children() -> io::Result<Vec<Pid>> {
    let mut found = BTreeSet::new();
    for task in numbers("/proc/self/task")? {
        match children_of_thread(task) {
            Ok(children) => found.extend(children),
            Err(error) if error.kind() == io::ErrorKind::NotFound && has_lists() => {} // the thread has ended
            Err(error) if error.kind() == io::ErrorKind::NotFound => return children_by_parent(),
            Err(error) => return Err(error),
        }
    }
    Ok(found.into_iter().collect())
}

/// The children that the first thread of this process started or adopted.
///
/// The kernel gives an orphan to the first living thread of its new parent, which is the main thread as long as that
/// lives, so every adopted child is in this one list, however many threads there are.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn children_of_main_thread() -> io::Result<Vec<Pid>> {
    match children_of_thread(Pid::this()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => children_by_parent(),
        answer => answer,
    }
}

fn children_of_thread(thread: Pid) -> io::Result<Vec<Pid>> {
    let text = read(&format!("/proc/self/task/{thread}/children"))?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.split_ascii_whitespace().filter_map(|number| number.parse().ok().map(Pid::from_raw)).collect())
}

fn has_lists() -> bool {
    Path::new("/proc/self/task").join(Pid::this().to_string()).join("children").exists()
}

fn children_by_parent() -> io::Result<Vec<Pid>> {
    let own = Pid::this();
    Ok(processes()?.into_iter().filter(|pid| Stat::of(*pid).is_ok_and(|stat| stat.parent == own)).collect())
}

/// Every process that this one can see.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn processes() -> io::Result<Vec<Pid>> {
    numbers("/proc")
}

/// How many threads this process has.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn thread_count() -> io::Result<usize> {
    Ok(numbers("/proc/self/task")?.len())
}

/// How many descriptors this process has open.
///
/// # Errors
/// When `/proc` cannot be read, for example because there is no descriptor left to read it with.
pub fn descriptor_count() -> io::Result<usize> {
    // One of them is the directory being read.
    Ok(numbers("/proc/self/fd")?.len().saturating_sub(1))
}

/// The whole of a file; a process or thread that ends between open and read is as absent as one that ended before.
fn read(path: &str) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ESRCH) => io::ErrorKind::NotFound.into(),
        _ => error,
    })
}

fn numbers(directory: &str) -> io::Result<Vec<Pid>> {
    let names = fs::read_dir(directory)?.filter_map(Result::ok);
    Ok(names.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw)).collect())
}

/// The effective user of `pid`; root's for a process that may not be inspected.
///
/// # Errors
/// When there is no such process.
pub fn owner(pid: Pid) -> io::Result<Uid> {
    Ok(Uid::from_raw(fs::metadata(format!("/proc/{pid}"))?.uid()))
}

/// The environment with which `pid` was started: `NAME=VALUE` with a NUL after each. Empty for a zombie.
///
/// Blocks while a process in uninterruptible sleep holds the lock of its address space: look at its [`State`] first, and
/// hold nothing that others wait for.
///
/// # Errors
/// When there is no such process, or it may not be inspected.
pub fn environ(pid: Pid) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(format!("/proc/{pid}/environ"))?.take(ENVIRON_MAX).read_to_end(&mut text)?;
    Ok(text)
}

/// The arguments with which `pid` was started, a NUL after each; the first is the program's name. Blocks as [`environ`].
///
/// # Errors
/// When there is no such process.
pub fn arguments(pid: Pid) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(format!("/proc/{pid}/cmdline"))?.take(ENVIRON_MAX).read_to_end(&mut text)?;
    Ok(text)
}

/// The value of `name` in an environment as [`environ`] answers it.
#[must_use]
pub fn variable<'a>(environ: &'a [u8], name: &str) -> Option<&'a [u8]> {
    environ.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_call_itself_anything() {
        let text = b"4711 (a) Z 1 (b) D 42 4700 4700 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat.pid, Pid::from_raw(4711));
        assert_eq!(stat.state, State::Uninterruptible);
        assert_eq!((stat.parent, stat.group), (Pid::from_raw(42), Pid::from_raw(4700)));
        assert_eq!(stat.started, 98765);
    }

    #[test]
    fn half_a_line_is_no_answer() {
        for text in ["", "1", "1 (init", "1 (init) S 0", "x (init) S 0 0"] {
            assert_eq!(Stat::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn this_process_is_alive_and_has_this_environment() {
        let stat = Stat::of(Pid::this()).unwrap();
        assert_eq!((stat.state, stat.parent), (State::Alive, Pid::parent()));
        assert_eq!(owner(stat.pid).unwrap(), Uid::effective());
        assert!(variable(&environ(stat.pid).unwrap(), "PATH").is_some());
        assert!(thread_count().unwrap() >= 1 && descriptor_count().unwrap() >= 3);
    }

    #[test]
    fn a_variable_is_found_by_its_whole_name() {
        let environ = b"XA=1\0A=2=3\0AB=4\0";
        assert_eq!(variable(environ, "A"), Some(&b"2=3"[..]));
        assert_eq!(variable(environ, "B"), None);
    }
}
