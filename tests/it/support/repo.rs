//! Repositories to serve, made fast and the same at every run.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::git::{Client, gits};
use super::place::Place;
use super::run::run;
use super::{HANG, Random, pass};

/// The date of the first commit of [`history`]; each following one is a day later.
pub(crate) const FIRST_DAY: u64 = 1_704_067_200; // 2024-01-01T00:00:00Z

/// Seconds between two commits of [`history`].
pub(crate) const DAY: u64 = 86_400;

/// Blobs of a big repository: above `core.bigFileThreshold` as set below, so that git neither deltas nor keeps them.
const BIG_BLOB: usize = 1 << 20;

/// A bare repository `name` with a dozen commits on `main`, a branch `topic` that left it at the eighth, the
/// annotated tag `v1` at the fifth and the light tag `v2` at the tenth. Returns the client at work in it.
#[track_caller]
pub(crate) fn history(place: &Place, name: &str) -> Client {
    let repository = empty(place, name);
    let mut text = linear(12);
    text.push_str("reset refs/heads/topic\nfrom :8\n\n");
    text.push_str(&commit("refs/heads/topic", 100, FIRST_DAY + 9 * DAY, "topic.txt"));
    text.push_str("tag v1\nfrom :5\ntagger Ada <ada@example.org> 1704500000 +0000\ndata 10\nversion 1\n\n");
    text.push_str("reset refs/tags/v2\nfrom :10\n\ndone\n");
    import(&repository, text.as_bytes());
    repository
}

/// A bare repository `name` with nothing in it; its HEAD names `main`.
#[track_caller]
pub(crate) fn empty(place: &Place, name: &str) -> Client {
    init(place, name, &[])
}

/// A bare repository `name` that names objects by SHA-256.
#[track_caller]
pub(crate) fn sha256(place: &Place, name: &str) -> Client {
    let repository = init(place, name, &["--object-format=sha256"]);
    import(&repository, format!("{}done\n", linear(3)).as_bytes());
    repository
}

/// A bare repository `name` of `commits` commits in a line on `main`, each of which has a branch `b/N` of its own.
#[track_caller]
pub(crate) fn branchy(place: &Place, name: &str, commits: u64) -> Client {
    let repository = empty(place, name);
    let mut text = linear(commits);
    for number in 1..=commits {
        write!(text, "reset refs/heads/b/{number}\nfrom :{number}\n\n").unwrap();
    }
    text.push_str("done\n");
    import(&repository, text.as_bytes());
    repository.git(&["pack-refs", "--all"]).ok();
    repository
}

/// A bare repository `name` with `count` refs beside `main`, packed.
#[track_caller]
pub(crate) fn many_refs(place: &Place, name: &str, count: usize) -> Client {
    let repository = empty(place, name);
    import(&repository, format!("{}done\n", linear(3)).as_bytes());
    let oids: Vec<String> = (0..3).map(|back| repository.oid(&format!("main~{back}"))).collect();
    // The format of packed-refs is fixed by gitrepository-layout(5) and refs/packed-backend.c; a hundred thousand
    // loose refs would take git minutes to make.
    let mut packed = String::from("# pack-refs with: peeled fully-peeled sorted \n");
    for number in 0..count {
        writeln!(packed, "{} refs/heads/many/{number:06}", oids[number % 3]).unwrap();
    }
    fs::write(place.repo(name).join("packed-refs"), packed).unwrap();
    repository
}

/// A bare repository `name` of `mib` MiB that no compression makes smaller, in one pack, quick to serve.
#[track_caller]
pub(crate) fn big(place: &Place, name: &str, mib: u64) -> Client {
    let repository = empty(place, name);
    for (key, value) in BIG_SETTINGS {
        repository.git(&["config", key, value]).ok();
    }
    let repository = BIG_SETTINGS.iter().fold(repository, |client, (key, value)| client.config(key, value));
    let mut import = begin_import(place.repo(name).as_path());
    let mut pipe = import.stdin.take().unwrap();
    let mut random = Random::from(mib);
    for number in 1..=mib {
        writeln!(pipe, "blob\nmark :{number}\ndata {BIG_BLOB}").unwrap();
        pipe.write_all(&random.bytes(BIG_BLOB)).unwrap();
        pipe.write_all(b"\n").unwrap();
    }
    let mut text =
        format!("commit refs/heads/main\ncommitter Ada <ada@example.org> {FIRST_DAY} +0000\ndata 3\nbig\n");
    for number in 1..=mib {
        writeln!(text, "M 100644 :{number} blob-{number:05}").unwrap();
    }
    pipe.write_all(text.as_bytes()).unwrap();
    pipe.write_all(b"\ndone\n").unwrap();
    drop(pipe);
    assert!(import.wait().unwrap().success(), "git fast-import failed");
    repository
}

/// What keeps git from spending processor time on random bytes.
pub(crate) const BIG_SETTINGS: [(&str, &str); 5] = [
    ("core.compression", "0"),
    ("pack.compression", "0"),
    ("core.bigFileThreshold", "256k"),
    ("fastimport.unpackLimit", "1"),
    ("pack.threads", "1"),
];

/// Makes `text` the hook `name` of the bare repository `repository`.
pub(crate) fn hook(place: &Place, repository: &str, name: &str, text: &str) {
    let path = place.repo(repository).join("hooks").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    script(&path, text);
}

/// Writes a program for the shell. It is given its name when it is whole, so that whoever starts it meanwhile has the old
/// one. Another process writes it, so that no descriptor that is open for writing here reaches a child of another test:
/// nobody can start a program that somebody may write to (ETXTBSY).
#[track_caller]
pub(crate) fn script(path: &Path, text: &str) {
    let mut write = Command::new("/bin/sh");
    write.args(["-ec", "cat > \"$0.new\"; chmod 755 \"$0.new\"; mv \"$0.new\" \"$0\""]).arg(path);
    run(write, format!("#!/bin/sh\n{text}\n").as_bytes(), HANG).ok();
}

/// Makes the maintenance after the next push of `name` hang until it is ended: a git of ours that nobody waits for.
#[track_caller]
pub(crate) fn hang_in_maintenance(place: &Place, name: &str) {
    let repository = place.client().at(&place.repo(name));
    repository.git(&["config", "gc.auto", "1"]).ok();
    // `gc --auto` counts the loose objects of this one directory (gc.auto in git-config(1), builtin/gc.c).
    let loose = place.repo(name).join("objects/17");
    fs::create_dir_all(&loose).unwrap();
    for number in 0..8 {
        fs::write(loose.join(format!("{number:038}")), "").unwrap();
    }
    hook(place, name, "pre-auto-gc", "exec sleep 1000");
}

/// Files below `directory` that git leaves when it is killed, in any repository: locks and temporary objects.
pub(crate) fn leftovers(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".lock")
                || name.starts_with("tmp_")
                || name == "packed-refs.new"
                || name == "gc.pid"
            {
                found.push(entry.path().display().to_string());
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Waits until no lock and no temporary object is left in the repositories of `place`: what was ended is cleaned
/// after its client has been answered, and maintenance after a push takes a lock for a moment.
#[track_caller]
pub(crate) fn await_clean(place: &Place) {
    let start = Instant::now();
    loop {
        let left = leftovers(&place.root());
        if left.is_empty() {
            return;
        }
        assert!(start.elapsed() < HANG, "left in the repositories: {left:?}");
        pass(LOOKS_APART);
    }
}

/// Between two looks for leftovers.
const LOOKS_APART: Duration = Duration::from_millis(20);

/// Bytes of all files below `directory`.
pub(crate) fn size_of(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => size_of(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

#[track_caller]
fn init(place: &Place, name: &str, options: &[&str]) -> Client {
    let path = place.repo(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let words = [&["init", "--quiet", "--bare"], options, &["--", path.to_str().unwrap()]].concat();
    place.client().git(&words).ok();
    place.client().at(&path)
}

#[track_caller]
fn import(repository: &Client, text: &[u8]) {
    repository.git_with(&["fast-import", "--quiet", "--done"], text).ok();
}

fn begin_import(repository: &Path) -> std::process::Child {
    let mut command = Command::new(&gits()[0]);
    for (key, value) in BIG_SETTINGS {
        command.args(["-c", &format!("{key}={value}")]);
    }
    command.args(["fast-import", "--quiet", "--done"]).current_dir(repository);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// The stream of `commits` commits on `main`, marked 1, 2, …; each changes one file.
fn linear(commits: u64) -> String {
    (1..=commits)
        .map(|number| commit("refs/heads/main", number, FIRST_DAY + (number - 1) * DAY, "file.txt"))
        .collect()
}

fn commit(branch: &str, mark: u64, time: u64, file: &str) -> String {
    let content = format!("content {mark} of {file}\n");
    let message = format!("change {mark}\n");
    format!(
        "commit {branch}\nmark :{mark}\ncommitter Ada <ada@example.org> {time} +0000\ndata {}\n{message}\
         M 100644 inline {file}\ndata {}\n{content}\n",
        message.len(),
        content.len()
    )
}
