//! What the kernel says about processes: the judge of "nothing is left".

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

/// One line of `/proc/PID/stat`.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    /// Its number, as this test's pid namespace sees it.
    pub(crate) pid: i32,
    /// Its parent.
    pub(crate) parent: i32,
    /// `R`, `S`, `D`, `T`, `Z`, …
    pub(crate) state: char,
    /// The first 15 bytes of its name.
    pub(crate) name: String,
}

impl Process {
    /// Ended but not reaped.
    pub(crate) fn is_zombie(&self) -> bool {
        self.state == 'Z'
    }

    /// The command line with blanks between its words; empty for a zombie.
    pub(crate) fn command_line(&self) -> String {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " ")
    }

    /// Whether it runs git's command `command` (as `git upload-pack …` or `git-upload-pack …`).
    pub(crate) fn runs(&self, command: &str) -> bool {
        let line = self.command_line();
        line.split(' ').any(|word| word.strip_prefix("git-").unwrap_or(word) == command)
    }
}

/// Process `pid`, if it is there.
pub(crate) fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    Some(Process {
        pid,
        name: head.split_once('(')?.1.to_owned(),
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
    })
}

/// Every process of this pid namespace and those below.
pub(crate) fn all() -> Vec<Process> {
    let numbers = fs::read_dir("/proc").unwrap().flatten();
    numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(process).collect()
}

/// Children, their children and so on, zombies among them.
pub(crate) fn descendants(pid: i32) -> Vec<Process> {
    let mut by_parent: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in all() {
        by_parent.entry(process.parent).or_default().push(process);
    }
    let mut found = by_parent.remove(&pid).unwrap_or_default();
    let mut next = 0;
    while next < found.len() {
        let children = by_parent.remove(&found[next].pid).unwrap_or_default();
        found.extend(children);
        next += 1;
    }
    found
}

/// The direct children.
pub(crate) fn children(pid: i32) -> Vec<Process> {
    all().into_iter().filter(|process| process.parent == pid).collect()
}

/// Living processes whose command line, environment or working directory names `place`: whoever works for a
/// gate whose directories are below `place`, whoever its parent is by now.
pub(crate) fn working_in(place: &str) -> Vec<Process> {
    let mine = i32::try_from(std::process::id()).unwrap();
    all()
        .into_iter()
        .filter(|process| process.pid != mine && !process.is_zombie() && names(process, place))
        .collect()
}

fn names(process: &Process, place: &str) -> bool {
    let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
    let directory = fs::read_link(format!("/proc/{}/cwd", process.pid)).unwrap_or_default();
    process.command_line().contains(place)
        || String::from_utf8_lossy(&environment).contains(place)
        || directory.starts_with(place)
}

/// The environment that `pid` was started with.
pub(crate) fn environment(pid: i32) -> Vec<(String, String)> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.split('\0')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

/// The open descriptors of `pid` and what each is.
pub(crate) fn descriptors(pid: i32) -> Vec<(i32, PathBuf)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(|fd: i32| Some((fd, fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?))).collect()
}

/// The names of the threads of `pid`.
pub(crate) fn threads(pid: i32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok());
    names.map(|name| name.trim_end().to_owned()).collect()
}

/// A field of `/proc/PID/status`, for example `SigBlk`.
pub(crate) fn status(pid: i32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// The most memory that `pid` ever had resident, in KiB.
pub(crate) fn peak_kib(pid: i32) -> u64 {
    let text = status(pid, "VmHWM").unwrap_or_else(|| panic!("process {pid} has no VmHWM"));
    text.trim_end_matches(" kB").parse().unwrap()
}

/// A row of `/proc/PID/limits`: soft and hard, as printed.
pub(crate) fn limit(pid: i32, row: &str) -> Option<(String, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(row))?;
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some((words.next()?, words.next()?))
}

/// How far `pid` lets others have the processors before it; `None` once it is gone.
pub(crate) fn niceness(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // As below: the 19th.
    stat.rsplit_once(") ")?.1.split(' ').nth(16)?.parse().ok()
}

/// Processor time of `pid` so far (its own, not its children's), in clock ticks of 10 ms.
pub(crate) fn cpu_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // proc_pid_stat(5) counts from one and `fields` begins at the third: utime is the 14th, stime the 15th.
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
