//! Refs that other processes move as fast as they can: whoever asks after a move has ended sees it, whatever the timing.
//!
//! The test knows what each ref is, moves one in one of the ways that there are, and asks. Others ask all the time, so that
//! lists are learned at any moment of a move, and now and then a pause makes what has been learned trusted just when the
//! next move comes. `TIDEGATE_TEST_ROUNDS` counts the moves.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::V2;
use crate::support::git::{Client, gits};
use crate::support::http::Wire;
use crate::support::place::{Place, path_variable};
use crate::support::{Random, TICK, number_from, pass, pkt, repo};

/// Moves of an ordinary run; `.ci/run` makes ten thousand more, which take minutes.
const ROUNDS: u64 = 1000;

/// As long as it takes until a move is trusted, and a little more.
const PAUSE_MAX: Duration = Duration::from_millis(40);

/// Names that refs get and lose: some in directories that come and go with them.
const NAMES: [&str; 6] = [
    "refs/heads/main",
    "refs/heads/a/b/c",
    "refs/heads/a/d",
    "refs/tags/t",
    "refs/changes/01/1/1",
    "refs/changes/01/2/1",
];

/// A `git update-ref --stdin`, which says when a transaction has ended.
struct Updater {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Updater {
    fn start(path: &PathBuf) -> Updater {
        let mut command = Command::new(&gits()[0]);
        command.args(["update-ref", "--stdin"]).current_dir(path).env_clear().env("PATH", path_variable());
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Updater { child, stdin, stdout }
    }

    fn run(&mut self, command: &str) {
        write!(self.stdin, "start\n{command}\ncommit\n").unwrap();
        for expected in ["start: ok\n", "commit: ok\n"] {
            let mut line = String::new();
            self.stdout.read_line(&mut line).unwrap();
            assert_eq!(line, expected, "{command}");
        }
    }
}

impl Drop for Updater {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A repository, and what each of its refs is.
struct Model {
    path: PathBuf,
    client: Client,
    updater: Updater,
    oids: Vec<String>,
    refs: BTreeMap<String, String>,
    head: String,
}

impl Model {
    fn new(place: &Place) -> Model {
        let client = repo::history(place, "demo.git");
        let oids = client.git(&["rev-list", "main"]).ok().lines();
        for line in client.refs("refs/") {
            client.git(&["update-ref", "-d", line.split(' ').nth(1).unwrap()]).ok();
        }
        let path = place.repo("demo.git");
        let (updater, head) = (Updater::start(&path), "refs/heads/main".to_owned());
        Model { path, client, updater, oids, refs: BTreeMap::new(), head }
    }

    /// What git would answer.
    fn answer(&self) -> Vec<u8> {
        let head = self.refs.get(&self.head).map(|oid| (format!("HEAD symref-target:{}", self.head), oid));
        let refs = self.refs.iter().map(|(name, oid)| (name.clone(), oid));
        let lines = head.into_iter().chain(refs).flat_map(|(name, oid)| pkt::line(format!("{oid} {name}\n")));
        lines.chain(pkt::FLUSH.iter().copied()).collect()
    }

    /// Moves something, and says what.
    fn step(&mut self, random: &mut Random) -> String {
        let pick = |random: &mut Random, count: usize| {
            usize::try_from(random.below(u64::try_from(count).unwrap())).unwrap()
        };
        let (name, oid) =
            (NAMES[pick(random, NAMES.len())], self.oids[pick(random, self.oids.len())].clone());
        let is_loose = self.path.join(name).is_file();
        match random.below(100) {
            0..=44 => {
                self.updater.run(&format!("update {name} {oid}"));
                self.refs.insert(name.to_owned(), oid);
                format!("update {name}")
            }
            45..=64 if self.refs.contains_key(name) => {
                self.updater.run(&format!("delete {name}"));
                self.refs.remove(name);
                format!("delete {name}")
            }
            65..=84 if is_loose => {
                // As git does it, without its time.
                let lock = self.path.join(format!("{name}.lock"));
                fs::write(&lock, format!("{oid}\n")).unwrap();
                fs::rename(lock, self.path.join(name)).unwrap();
                self.refs.insert(name.to_owned(), oid);
                format!("rename to {name}")
            }
            85..=92 if is_loose => {
                fs::write(self.path.join(name), format!("{oid}\n")).unwrap();
                self.refs.insert(name.to_owned(), oid);
                format!("write {name} in place")
            }
            93..=95 => {
                let target = NAMES[pick(random, 3)];
                let lock = self.path.join("HEAD.lock");
                fs::write(&lock, format!("ref: {target}\n")).unwrap();
                fs::rename(lock, self.path.join("HEAD")).unwrap();
                self.head = target.to_owned();
                format!("HEAD to {target}")
            }
            96..=97 => {
                self.client.git(&["pack-refs", "--all"]).ok();
                "pack".to_owned()
            }
            _ => self.repack(&oid),
        }
    }

    /// Another value in `packed-refs`, which is as long as before, is in another file, and may have the inode of the one before.
    fn repack(&mut self, oid: &str) -> String {
        self.client.git(&["pack-refs", "--all"]).ok();
        let packed = self.path.join("packed-refs");
        let text = fs::read_to_string(&packed).unwrap_or_default();
        let line =
            text.lines().find_map(|line| line.split_once(' ').filter(|(_, name)| NAMES.contains(name)));
        let Some((old, name)) = line else { return "nothing".to_owned() };
        let lock = self.path.join("packed-refs.new");
        fs::write(&lock, text.replace(&format!("{old} {name}"), &format!("{oid} {name}"))).unwrap();
        fs::rename(lock, packed).unwrap();
        // The one that runs may take the new file for the one that it has read.
        self.updater = Updater::start(&self.path);
        self.refs.insert(name.to_owned(), oid.to_owned());
        format!("repack {name}")
    }
}

fn ask(wire: &mut Wire, body: &[u8]) -> Vec<u8> {
    wire.post("demo", "git-upload-pack", &V2, body).expect(200).body
}

#[test]
fn whoever_asks_after_a_move_has_ended_sees_it() {
    let rounds = number_from("TIDEGATE_TEST_ROUNDS").unwrap_or(ROUNDS);
    let mut random = Random::announced();
    let place = Place::new();
    let mut model = Model::new(&place);
    // Thousands of lines about these requests say nothing.
    let gate = place.gate().env("RUST_LOG", "info,tidegate::http::handler=warn").start();
    // The settings are trusted two seconds after the repository was made.
    let body = pkt::command("ls-refs", &["symrefs"]);
    super::await_hit(&gate, "ls-refs", || drop(ask(&mut gate.wire(), &body)));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut wire = gate.wire();
            while !is_over.load(Ordering::Relaxed) {
                ask(&mut wire, &body);
                pass(TICK);
            }
        });
        // What is wrong ends the reader, too.
        let moved = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut wire = gate.wire();
            for round in 0..rounds {
                if random.below(8) == 0 {
                    pass(random.up_to(PAUSE_MAX));
                }
                let what = model.step(&mut random);
                let (answer, expected) = (ask(&mut wire, &body), model.answer());
                let shown = [&answer, &expected].map(|bytes| String::from_utf8_lossy(bytes));
                assert_eq!(shown[0], shown[1], "round {round}: {what}");
            }
        }));
        is_over.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        moved.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let count = |outcome: &str| {
        gate.metric("tidegate_cache_total", &["kind=\"ls-refs\"", &format!("outcome=\"{outcome}\"")])
    };
    let [hits, misses, fresh] = ["hit", "miss", "fresh"].map(count);
    eprintln!("{rounds} moves: {hits} hits, {misses} misses, {fresh} fresh, {} moved", count("moved"));
    assert!(hits > 0.0 && misses > rounds as f64 / 50.0 && fresh > 0.0, "every road was taken");
}
